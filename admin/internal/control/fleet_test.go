package control_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/admin/internal/control"
)

// fleet shows what the function returns.
type fleet func() control.FleetView

func (f fleet) View() control.FleetView { return f() }

func TestFleet_HasNodesByNameInPages(t *testing.T) {
	t.Parallel()
	seen := []control.FleetNode{{Name: "c", Suspect: true}, {Name: "a"}, {Name: "b", SuspectedBy: []string{"c"}, Offers: []control.FleetOffer{{Name: "x", Visible: true}, {Name: "y"}}}}
	inBubble(t, control.Options{Fleet: fleet(func() control.FleetView { return control.FleetView{Nodes: seen} })}, func(t *testing.T, _ *registry.Registry, c *control.Control) {
		var names []string
		for token := ""; ; {
			page, err := c.FleetNodes("", token, 2)
			require.NoError(t, err)
			require.Equal(t, 3, page.TotalNodes)
			for _, n := range page.Nodes {
				require.NotNil(t, n.Offers)
				names = append(names, n.Name)
			}
			if token = page.NextPageToken; token == "" {
				break
			}
		}
		require.Equal(t, []string{"a", "b", "c"}, names)
		require.Equal(t, "c", seen[0].Name, "what was shown is not changed")
		page, err := c.FleetNodes("b", "", 2)
		require.NoError(t, err)
		require.Len(t, page.Nodes, 1)
		require.Equal(t, 1, page.Nodes[0].Visible())
		require.True(t, page.Nodes[0].Suspected())
		page, err = c.FleetNodes("", "z", 2)
		require.NoError(t, err)
		require.NotNil(t, page.Nodes)
		_, err = c.FleetNodes("none", "", 2)
		require.Equal(t, control.NotFound, kindOf(t, err))
	})
}

func TestFleet_MayBeMissingOrFail(t *testing.T) {
	t.Parallel()
	inBubble(t, control.Options{}, func(t *testing.T, _ *registry.Registry, c *control.Control) {
		_, err := c.Fleet()
		require.Equal(t, control.NotFound, kindOf(t, err))
	})
	inBubble(t, control.Options{Fleet: fleet(func() control.FleetView { panic("no") })}, func(t *testing.T, _ *registry.Registry, c *control.Control) {
		_, err := c.FleetNodes("", "", 2)
		require.Equal(t, control.Failed, kindOf(t, err))
	})
}

package admin_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry/admin"
)

// fleet is one that does not change.
type fleet admin.FleetView

func (f fleet) View() admin.FleetView { return admin.FleetView(f) }

// newFleet is a fleet on a bad day: a node is suspected here and elsewhere, and names are hostile.
func newFleet() fleet {
	return fleet{
		Store: "bucket <b>fleet</b>", Reachable: true,
		Announcement: &admin.Announcement{Node: "control", State: "serving", Entries: 1, Renewed: time.Now()},
		Nodes: []admin.FleetNode{
			{Name: "control", This: true, State: "present", Offers: []admin.FleetOffer{{Service: "chat", Name: "p", Reason: "the node is this one"}}},
			{Name: "agent-2", State: "suspect", Suspect: true, TTL: "10s", Heard: time.Now().Add(-20 * time.Second), Reason: "its lease was not renewed", SuspectedBy: []string{"agent-1"}},
			{Name: "agent-1", State: "present", TTL: "10s", Heard: time.Now(), Offers: []admin.FleetOffer{
				{Service: "chat", Name: "openai-eu", Kind: "nats", Address: "subject", Visible: true, As: "openai-eu"},
				{Service: hostileService, Name: hostileProvider, Kind: "nats", Reason: hostileText},
			}},
		},
		Refused: map[string]string{"entry." + hostileProvider: hostileText},
	}
}

func TestFleet_IsShownInPages(t *testing.T) {
	t.Parallel()
	s := newSite(t, admin.Options{Fleet: newFleet()})
	all := s.get(http.StatusOK, "/v1/runtime/fleet").json()
	require.EqualValues(t, 3, all["total_nodes"])
	require.Equal(t, true, all["reachable"])
	nodes := all["nodes"].([]any)
	require.Equal(t, "agent-1", nodes[0].(map[string]any)["name"], "by name")
	require.Equal(t, []any{"agent-1"}, nodes[1].(map[string]any)["suspected_by"])

	page := s.get(http.StatusOK, "/v1/runtime/fleet?limit=2").json()
	require.Len(t, page["nodes"], 2)
	page = s.get(http.StatusOK, "/v1/runtime/fleet?limit=2&page_token="+page["next_page_token"].(string)).json()
	require.Len(t, page["nodes"], 1)
	require.NotContains(t, page, "next_page_token")
	require.EqualValues(t, 1, s.get(http.StatusOK, "/v1/runtime/fleet?node=agent-2").json()["total_nodes"])
	s.get(http.StatusNotFound, "/v1/runtime/fleet?node=none")
	s.get(http.StatusUnprocessableEntity, "/v1/runtime/fleet?limit=0")
}

// A fleet that panics is an answer that says so.
func TestFleet_MayFail(t *testing.T) {
	t.Parallel()
	s := newSite(t, admin.Options{Fleet: broken{}})
	answer := s.get(http.StatusBadGateway, "/v1/runtime/fleet")
	require.NotContains(t, string(answer.Body), "goroutine")
}

type broken struct{}

func (broken) View() admin.FleetView { panic("no") }

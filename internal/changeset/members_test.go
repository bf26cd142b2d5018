package changeset_test

import (
	"maps"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry/internal/changeset"
	"github.com/capreg/registry/internal/check"
	"github.com/capreg/registry/internal/domain"
	"github.com/capreg/registry/internal/pick"
)

func TestMembers_AreTheWorldOfTheirOwner(t *testing.T) {
	t.Parallel()
	all := map[string]changeset.Member{"a": in("s", 0, ring), "b": in("s", 0, ring), "c": in("s", 1, first)}
	groups, domains, members := make(pick.Groups), make(domain.Set[string]), make(map[string]struct{})
	for _, name := range []string{"a", "b", "c"} {
		groups.Join(all[name].Group, all[name].Strategy, name)
		members[name] = struct{}{}
	}
	d := domains.Join("key", "a")
	domains.Join("key", "c")
	one, v := small.Checked()
	require.Nil(t, v)
	d.SetLimits(one, "c")
	reserved := check.Refuse("Name", "r", "another")
	w := changeset.Members[string]{
		Named: map[string]string{"a": "a"}, Domains: domains,
		Of: func(service string) (map[string]struct{}, pick.Groups) {
			return map[string]map[string]struct{}{"s": members}[service], map[string]pick.Groups{"s": groups}[service]
		},
		Describe:  func(name string) (string, changeset.Member) { return name, all[name] },
		CheckName: func(name string) *check.Violation { return map[string]*check.Violation{"r": reserved}[name] },
	}
	var _ changeset.World = w

	m, ok := w.Member("a")
	require.True(t, ok)
	require.Equal(t, all["a"], m)
	_, ok = w.Member("b")
	require.False(t, ok, "it has no such name")
	require.Equal(t, reserved, w.Reserved("r"))
	require.Nil(t, w.Reserved("a"))

	g := w.Group(changeset.GroupKey{Service: "s"})
	require.True(t, g.Value.Same(ring))
	require.Equal(t, "a", g.By)
	require.Equal(t, 2, g.Size)
	require.ElementsMatch(t, []string{"a", "b"}, slices.Collect(g.Names))
	for name := range g.Names { // may end early
		require.Contains(t, []string{"a", "b"}, name)
		break
	}
	for _, none := range []changeset.GroupKey{{Service: "other"}, {Service: "s", ID: pick.GroupID{Number: 7}}} {
		g := w.Group(none)
		require.Zero(t, g.Size)
		require.Empty(t, slices.Collect(g.Names))
	}
	limits := w.Domain("key")
	require.Equal(t, one, limits.Value)
	require.Equal(t, "c", limits.By)
	require.Equal(t, 2, limits.Size)
	require.ElementsMatch(t, []string{"a", "c"}, slices.Collect(limits.Names))
	require.Zero(t, w.Domain("none").Size)
	require.Equal(t, all, maps.Collect(w.Members("s")))
}

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
	"github.com/capreg/registry/selection"
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
	w := &changeset.Members[string]{
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
	require.ElementsMatch(t, []string{"a", "b"}, slices.Collect(w.NamesInGroup(changeset.GroupKey{Service: "s"})))
	for name := range w.NamesInGroup(changeset.GroupKey{Service: "s"}) { // may end early
		require.Contains(t, []string{"a", "b"}, name)
		break
	}
	for _, none := range []changeset.GroupKey{{Service: "other"}, {Service: "s", ID: pick.GroupID{Number: 7}}} {
		g := w.Group(none)
		require.Zero(t, g.Size)
		require.Empty(t, slices.Collect(w.NamesInGroup(none)))
	}
	limits := w.Domain("key")
	require.Equal(t, one, limits.Value)
	require.Equal(t, "c", limits.By)
	require.Equal(t, 2, limits.Size)
	require.ElementsMatch(t, []string{"a", "c"}, slices.Collect(w.NamesInDomain("key")))
	require.Zero(t, w.Domain("none").Size)
	require.Empty(t, slices.Collect(w.NamesInDomain("none")))
	require.Equal(t, all, maps.Collect(w.Members("s")))
}

// Every registration is a set, mostly of one change.
func TestMembers_LetOneChangeBeResolvedWithOneAllocation(t *testing.T) { //nolint:paralleltest // AllocsPerRun counts all goroutines
	all, groups := make(map[string]struct{}), make(pick.Groups)
	w := &changeset.Members[string]{
		Of:        func(string) (map[string]struct{}, pick.Groups) { return all, groups },
		CheckName: func(string) *check.Violation { return nil },
	}
	changes := []changeset.Change{join("a", in("s", 0, selection.Strategy{}))}
	require.LessOrEqual(t, testing.AllocsPerRun(1000, func() {
		if _, refused := changeset.Resolve(w, changes, changeset.Rules{}); len(refused) > 0 {
			panic("it fits")
		}
	}), 1.0)
}

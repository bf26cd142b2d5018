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
	"github.com/capreg/registry/status"
)

func TestMembers_AreTheWorldOfTheirOwner(t *testing.T) {
	t.Parallel()
	all := map[string]changeset.Member{"a": in(0, ring), "b": in(0, ring), "c": in(1, first)}
	groups, domains, members := make(pick.Groups), make(domain.Set[string]), make(map[string]struct{})
	for _, name := range []string{"a", "b", "c"} {
		groups.Join(all[name].Group, all[name].Strategy, name)
		members[name] = struct{}{}
	}
	d := domains.Join("key", "a")
	domains.Join("key", "c")
	one, v := small.Checked()
	require.Nil(t, v)
	d.SetLimits(one, of("c"))
	reserved := check.Refuse("Name", "r", "another")
	w := &changeset.Members[string]{
		Named: map[status.ProviderID]string{of("a"): "a"}, Domains: domains,
		Of: func(service string) (map[string]struct{}, pick.Groups) {
			return map[string]map[string]struct{}{"s": members}[service], map[string]pick.Groups{"s": groups}[service]
		},
		Describe: func(name string) (status.ProviderID, changeset.Member) { return of(name), all[name] },
		CheckName: func(id status.ProviderID) *check.Violation {
			return map[status.ProviderID]*check.Violation{of("r"): reserved}[id]
		},
	}
	var _ changeset.World = w

	m, ok := w.Member(of("a"))
	require.True(t, ok)
	require.Equal(t, all["a"], m)
	_, ok = w.Member(of("b"))
	require.False(t, ok, "it has no such name")
	_, ok = w.Member(of("t/a"))
	require.False(t, ok, "that service has no such name")
	require.Equal(t, reserved, w.Reserved(of("r")))
	require.Nil(t, w.Reserved(of("a")))

	g := w.Group(changeset.GroupKey{Service: "s"})
	require.True(t, g.Value.Same(ring))
	require.Equal(t, of("a"), g.By)
	require.Equal(t, 2, g.Size)
	require.ElementsMatch(t, []status.ProviderID{of("a"), of("b")}, slices.Collect(w.InGroup(changeset.GroupKey{Service: "s"})))
	for id := range w.InGroup(changeset.GroupKey{Service: "s"}) { // may end early
		require.Contains(t, []status.ProviderID{of("a"), of("b")}, id)
		break
	}
	for _, none := range []changeset.GroupKey{{Service: "other"}, {Service: "s", ID: pick.GroupID{Number: 7}}} {
		g := w.Group(none)
		require.Zero(t, g.Size)
		require.Empty(t, slices.Collect(w.InGroup(none)))
	}
	limits := w.Domain("key")
	require.Equal(t, one, limits.Value)
	require.Equal(t, of("c"), limits.By)
	require.Equal(t, 2, limits.Size)
	require.ElementsMatch(t, []status.ProviderID{of("a"), of("c")}, slices.Collect(w.InDomain("key")))
	require.Zero(t, w.Domain("none").Size)
	require.Empty(t, slices.Collect(w.InDomain("none")))
	require.Equal(t, map[status.ProviderID]changeset.Member{of("a"): all["a"], of("b"): all["b"], of("c"): all["c"]}, maps.Collect(w.Members("s")))
}

// Every registration is a set, mostly of one change.
func TestMembers_LetOneChangeBeResolvedWithOneAllocation(t *testing.T) { //nolint:paralleltest // AllocsPerRun counts all goroutines
	all, groups := make(map[string]struct{}), make(pick.Groups)
	w := &changeset.Members[string]{
		Of:        func(string) (map[string]struct{}, pick.Groups) { return all, groups },
		CheckName: func(status.ProviderID) *check.Violation { return nil },
	}
	changes := []changeset.Change{join("a", in(0, selection.Strategy{}))}
	require.LessOrEqual(t, testing.AllocsPerRun(1000, func() {
		if _, refused := changeset.Resolve(w, changes, changeset.Rules{}); len(refused) > 0 {
			panic("it fits")
		}
	}), 1.0)
}

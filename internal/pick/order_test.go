package pick_test

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry/internal/pick"
	"github.com/capreg/registry/selection"
)

func TestRank_OrdersByMockGroupOverridePriorityAndSequence(t *testing.T) {
	t.Parallel()
	tier := func(mock bool, number int, override uint64) pick.TierKey {
		return pick.TierKey{GroupID: pick.GroupID{Handler: "h", Number: number, Override: override}, Mock: mock}
	}
	want := []pick.Rank{
		{Tier: tier(false, -1, 9), Priority: 9, Sequence: 9},
		{Tier: tier(false, 0, 0), Priority: 0, Sequence: 8},
		{Tier: tier(false, 0, 0), Priority: 1, Sequence: 1},
		{Tier: tier(false, 0, 0), Priority: 1, Sequence: 2},
		{Tier: tier(false, 0, 1), Priority: 0, Sequence: 0},
		{Tier: tier(true, -2, 0), Priority: 0, Sequence: 0},
	}
	got := slices.Clone(want)
	slices.Reverse(got)
	slices.SortFunc(got, pick.Rank.Compare)
	require.Equal(t, want, got)
	same := want[0]
	require.Zero(t, want[0].Compare(same))
}

func TestCutTiers_CutsWhereTheKeyChanges(t *testing.T) {
	t.Parallel()
	key := func(handler string, number int, mock bool) pick.TierKey {
		return pick.TierKey{GroupID: pick.GroupID{Handler: handler, Number: number}, Mock: mock}
	}
	keys := []pick.TierKey{
		key("h", 1, false), key("h", 1, false), key("h", 2, false), key("", 1, false), key("", 1, true), key("", 1, true),
	}
	require.Equal(t, []pick.Cut{
		{Key: keys[0], First: 0, Size: 2, Scope: 0},
		{Key: keys[2], First: 2, Size: 1, Scope: 0},
		{Key: keys[3], First: 3, Size: 1, Scope: 1},
		{Key: keys[4], First: 4, Size: 2, Scope: 2},
	}, pick.CutTiers(len(keys), func(i int) pick.TierKey { return keys[i] }))
	require.Empty(t, pick.CutTiers(0, nil))
}

func TestGroups_ExistWhileTheyHaveMembers(t *testing.T) {
	t.Parallel()
	groups, id := make(pick.Groups), pick.GroupID{Handler: "h", Number: 1}
	require.Zero(t, groups[id].Size())
	first := groups.Join(id, selection.RoundRobin(), "a")
	require.Equal(t, "a", first.SetBy)
	require.Same(t, first, groups[id])
	require.Equal(t, 1, first.Size())
	require.Same(t, first, groups.Join(id, selection.Fallback(), "b"), "the strategy is that of the first member")
	require.True(t, first.Strategy.Same(selection.RoundRobin()))
	require.Equal(t, 2, first.Size())
	groups.Leave(first)
	require.Same(t, first, groups[id], "it has a member left")
	groups.Leave(first)
	require.Empty(t, groups)
	require.NotSame(t, first, groups.Join(id, selection.Fallback(), "c"))
}

func TestCompareBool_OrdersFalseBeforeTrue(t *testing.T) {
	t.Parallel()
	require.Equal(t, -1, pick.CompareBool(false, true))
	require.Equal(t, 1, pick.CompareBool(true, false))
	require.Zero(t, pick.CompareBool(true, true))
	require.Zero(t, pick.CompareBool(false, false))
}

package pick_test

import (
	"slices"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry/internal/pick"
	"github.com/capreg/registry/selection"
)

func TestRotation_GoesOnWhenCandidatesJoinAndLeave(t *testing.T) {
	t.Parallel()
	f := of(roundRobin(3))
	f.keys = []uint64{10, 20, 30}
	require.Equal(t, []int{0, 1}, firsts(f.plan(), 2)) // the last one has key 20
	for _, step := range []struct {
		keys []uint64
		next int
	}{
		{[]uint64{10, 20, 30}, 2},     // 30
		{[]uint64{5, 10, 20, 40}, 3},  // 30 has left: the one behind it
		{[]uint64{10, 20, 30}, 0},     // round
		{[]uint64{1, 2, 10, 11}, 3},   // at another position
		{[]uint64{11, 12}, 1},         // the last one at another position, beyond the keys
		{[]uint64{1, 2, 3, 4, 11}, 0}, // all are before it
		{[]uint64{1, 2, 3, 4, 11}, 1},
	} {
		f.keys, f.config.Tiers = step.keys, []pick.Tier{roundRobin(len(step.keys))}
		require.Equal(t, []int{step.next}, firsts(f.plan(), 1), step.keys)
	}
}

func TestRotationFor_KeepsWhatTheSameStrategyRemembers(t *testing.T) {
	t.Parallel()
	first := pick.RotationFor(nil, selection.RoundRobin(), 1)
	require.Same(t, first, pick.RotationFor(first, selection.RoundRobin(), 1))
	require.NotSame(t, first, pick.RotationFor(first, selection.Fallback(), 1))
}

func TestRotation_SharesAreEvenWhileOthersFlip(t *testing.T) {
	t.Parallel()
	for _, size := range []int{7, 64, 65, 300} {
		p := of(roundRobin(size)).plan()
		counts, changes := make([]int, size), 0
		for turn := range 20 * size {
			if turn%9 == 0 {
				p.Set(3, changes%2 == 1, changes%2 == 1)
				changes++
			}
			counts[p.First(p.Healthy, true)]++
		}
		counts = slices.Delete(counts, 3, 4)
		require.LessOrEqual(t, slices.Max(counts)-slices.Min(counts), 1+changes, "of %d", size)
	}
}

func TestRotation_TakesEachTurnOnceAmongGoroutines(t *testing.T) {
	t.Parallel()
	for _, size := range []int{8, 100} {
		p := of(roundRobin(size)).plan()
		all := make([][]int, 4)
		var group sync.WaitGroup
		for g := range all {
			group.Go(func() {
				for n := range 50 * size {
					if n%2 == 0 {
						all[g] = append(all[g], p.First(p.Healthy, true))
						continue
					}
					it := p.Iterate(p.Admitting)
					all[g] = append(all[g], it.Next(nil))
				}
			})
		}
		group.Wait()
		counts := make([]int, size)
		for _, picked := range slices.Concat(all...) {
			counts[picked]++
		}
		for i, count := range counts {
			require.Equal(t, 4*50, count, "candidate %d of %d", i, size)
		}
	}
}

func TestRotation_IsTheSameWithAPicker(t *testing.T) {
	t.Parallel()
	for _, size := range []int{3, 70} {
		f := of(roundRobin(size)).records()
		p := f.plan()
		require.True(t, p.NeedsCaller())
		for turn := range 2 * size {
			it := p.Iterate(p.Healthy)
			for n := range 3 {
				require.Equal(t, (turn+n)%size, it.Next(nil), "failover goes on from the turn")
			}
		}
		it := p.Iterate(p.Healthy)
		all := drain(&it)
		slices.Sort(all)
		require.Len(t, slices.Compact(all), size)
	}
}

// firstTurns returns the candidate and the number of the turn at which rotations of the seed begin.
func firstTurns(seed uint64, size, rotations int) (candidates []int, turns map[uint64]bool) {
	turns = make(map[uint64]bool)
	for range rotations {
		f := of(roundRobin(size))
		f.rotations = map[int]*pick.Rotation{0: pick.RotationFor(nil, selection.RoundRobin(), seed)}
		candidates = append(candidates, firsts(f.plan(), 1)...)

		f = of(chosen(size, func(v selection.View) int { turns[v.Turn()] = true; return 0 }))
		f.rotations = map[int]*pick.Rotation{0: pick.RotationFor(nil, f.config.Tiers[0].Strategy, seed)}
		p := f.plan()
		it := p.Iterate(p.Healthy)
		it.Next(nil)
	}
	return candidates, turns
}

func TestRotationFor_BeginsWhereTheSeedSays(t *testing.T) {
	t.Parallel()
	for seed := range uint64(12) {
		candidates, _ := firstTurns(seed+1, 5, 1)
		require.Equal(t, []int{int(seed % 5)}, candidates, "seed %d", seed+1)
	}
}

func TestRotationFor_BeginsAnywhereWithoutASeed(t *testing.T) {
	t.Parallel()
	candidates, turns := firstTurns(0, 5, 100)
	slices.Sort(candidates)
	require.Greater(t, len(slices.Compact(candidates)), 1)
	require.Greater(t, len(turns), 10)
}

func TestRotation_BeginsAfterTheMemberThatHadATurnBefore(t *testing.T) {
	t.Parallel()
	for key, next := range map[uint64]int{10: 1, 15: 1, 20: 2, 30: 0, 99: 0, 5: 0} {
		var had pick.Had
		had.Set(key)
		plans := make([]*pick.Plan, 3)
		for i := range plans {
			f := of(roundRobin(3))
			f.keys = []uint64{10, 20, 30}
			had.Begin(f.Rotation(0))
			plans[i] = f.plan()
			require.Equal(t, key == 10, plans[i].LastTurn(0), "it is only looked at")
		}
		p := plans[1]
		require.Equal(t, []int{next}, firsts(p, 1), key)
		for i := range 3 {
			require.Equal(t, i == next, p.LastTurn(i))
		}
		other := of(roundRobin(3))
		had.Begin(other.Rotation(0))
		require.Equal(t, []int{0}, firsts(other.plan(), 1), "one has gone on from there")
	}
	require.False(t, of(fallback(1)).plan().LastTurn(0), "it takes no turns")
}

func TestRotation_ThatIsLookedAtOftenForgetsTheTurnBefore(t *testing.T) {
	t.Parallel()
	var had pick.Had
	had.Set(2)
	for i := range 20 {
		f := of(roundRobin(3))
		had.Begin(f.Rotation(0))
		require.Equal(t, i < 8, f.plan().LastTurn(1))
	}
	had.Set(2)
	r := of(roundRobin(3))
	firsts(r.plan(), 1)
	had.Begin(r.Rotation(0))
	require.True(t, r.plan().LastTurn(0), "it has turns of its own")
}

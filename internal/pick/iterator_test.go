package pick_test

import (
	"slices"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry/internal/choice"
	"github.com/capreg/registry/internal/pick"
	"github.com/capreg/registry/selection"
)

func TestIterator_OffersEachTierInTheOrderOfItsStrategy(t *testing.T) {
	t.Parallel()
	f := of(fallback(2), roundRobin(3), chosen(2, last))
	p := f.plan()
	require.Equal(t, []int{0, 1, 2, 3, 4, 6, 5}, order(p, p.Healthy, pick.Advance))
	require.Equal(t, []int{0, 1, 3, 4, 2, 6, 5}, order(p, p.Healthy, pick.Advance))
	p.Set(3, false, true)
	require.Equal(t, []int{0, 1, 4, 2, 6, 5}, order(p, p.Healthy, pick.Peek))
	require.Equal(t, []int{0, 1, 4, 2, 3, 6, 5}, order(p, p.Admitting, pick.Peek))
}

func TestIterator_StaysOver(t *testing.T) {
	t.Parallel()
	p := of(fallback(1)).plan()
	it := p.Iterate(p.Healthy)
	require.True(t, it.More(), "it has offered nothing yet")
	require.Equal(t, 0, it.Next(nil))
	require.False(t, it.More())
	require.Equal(t, -1, it.Next(nil))
	require.Equal(t, -1, it.Next(nil))
	require.False(t, it.More())
}

func TestIterateFrom_BeginsWithThePickOfFirst(t *testing.T) {
	t.Parallel()
	p := of(roundRobin(3), fallback(1)).plan()
	p.First(p.Healthy, true)
	it := p.IterateFrom(p.Healthy, p.First(p.Healthy, true))
	require.Equal(t, []int{1, 2, 0, 3}, drain(&it))
	require.Equal(t, 2, p.First(p.Healthy, true), "the turn has moved once")

	p = of(chosen(3, last)).plan()
	it = p.IterateFrom(p.Healthy, p.First(p.Healthy, true))
	require.Equal(t, []int{2, 1, 0}, drain(&it))
}

func TestIterator_SeesCandidatesAsTheyAreAtEachOffer(t *testing.T) {
	t.Parallel()
	for name, tier := range map[string]pick.Tier{"fallback": fallback(5), "rotation": roundRobin(5), "selector": chosen(5, func(v selection.View) int { return v.Next(0) })} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := of(tier, fallback(2)).plan()
			p.Set(3, false, false)
			it := p.Iterate(p.Healthy)
			require.Equal(t, 0, it.Next(nil))
			p.Set(0, false, false)
			p.Set(0, true, true) // it was offered
			p.Set(1, false, false)
			p.Set(3, true, true)
			require.Equal(t, 2, it.Next(nil))
			require.True(t, it.More())
			require.Equal(t, 3, it.Next(nil))
			p.Set(4, false, false)
			p.Set(5, false, false)
			require.True(t, it.More())
			require.Equal(t, 6, it.Next(nil))
			require.False(t, it.More())
			p.Set(5, true, true) // behind the iterator
			require.Equal(t, -1, it.Next(nil))
		})
	}
}

func TestIterator_ARotationEndsWhereItBegan(t *testing.T) {
	t.Parallel()
	p := of(roundRobin(4)).plan()
	firsts(p, 2)
	it := p.Iterate(p.Healthy)
	require.Equal(t, 2, it.Next(nil))
	require.Equal(t, 3, it.Next(nil))
	require.True(t, it.More())
	require.Equal(t, 0, it.Next(nil))
	require.True(t, it.More())
	require.Equal(t, 1, it.Next(nil))
	require.False(t, it.More())
	require.Equal(t, -1, it.Next(nil))
}

func TestMode_SaysWhichTurnsAreTaken(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		mode  pick.Mode
		moves [2]bool
	}{
		"Advance":      {pick.Advance, [2]bool{true, true}},
		"Peek":         {pick.Peek, [2]bool{false, false}},
		"Preview":      {pick.Preview, [2]bool{false, false}},
		"PeekUntil(0)": {pick.PeekUntil(0), [2]bool{true, true}},
		"PeekUntil(1)": {pick.PeekUntil(1), [2]bool{false, true}},
		"PeekUntil(2)": {pick.PeekUntil(2), [2]bool{false, false}},
	} {
		for kind, tier := range map[string]pick.Tier{
			"rotation": roundRobin(4), "large": roundRobin(66), "selector": chosen(4, func(v selection.View) int {
				return int(v.Turn() % 4)
			}),
		} {
			t.Run(name+" "+kind, func(t *testing.T) {
				t.Parallel()
				p := of(tier, tier).plan()
				size := p.Len() / 2
				for range 2 {
					order(p, p.Healthy, test.mode)
				}
				got := order(p, p.Healthy, pick.Peek)
				for n, moves := range test.moves {
					want := n * size
					if moves {
						want += 2
					}
					require.Equal(t, want, got[n*size], "tier %d", n)
				}
			})
		}
	}
}

func TestMode_PeekUntilTakesTurnsAlsoWhereItBegins(t *testing.T) {
	t.Parallel()
	p := of(fallback(1), roundRobin(3)).plan()
	p.Set(0, false, false)
	for want := range 3 {
		it := p.Iterate(p.Healthy)
		it.Mode = pick.PeekUntil(1)
		require.Equal(t, 1+want, it.Next(nil))
	}
}

func TestMore_MovesNothingAndAsksNoSelector(t *testing.T) {
	t.Parallel()
	for _, size := range []int{3, 80} {
		asked := 0
		f := of(chosen(size, func(v selection.View) int { asked++; return v.Next(0) }), chosen(1, last)).records()
		p := f.plan()
		it := p.Iterate(p.Healthy)
		for n := range size {
			require.Equal(t, n, it.Next(nil))
			for range 3 {
				require.True(t, it.More())
			}
			require.Equal(t, n+1, asked)
			require.Len(t, f.decisions, n+1)
		}
		p.Set(size, false, false)
		require.False(t, it.More())
		p.Set(size, true, true)
		require.Equal(t, size, it.Next(nil))
		require.False(t, it.More())
	}
}

func TestMore_LeavesSlowCandidatesOut(t *testing.T) {
	t.Parallel()
	f := of(fallback(1), fallback(1))
	f.config.Request.Where.MaxLatency = 1
	f.config.Policy.Decay = 1 << 60
	p := f.plan()
	f.vitals[1].End(1, 1000, choice.Answered, nil)
	it := p.Iterate(p.Healthy)
	require.Equal(t, 0, it.Next(nil))
	require.False(t, it.More())
	require.Equal(t, -1, it.Next(nil))
}

func TestIterator_CopiesGoOnIndependently(t *testing.T) {
	t.Parallel()
	for _, size := range []int{5, 70} {
		p := of(chosen(size, last)).plan()
		it := p.Iterate(p.Healthy)
		it.Next(nil)
		it.Next(nil)
		other := it
		require.Equal(t, size-3, it.Next(nil))
		require.Equal(t, size-4, it.Next(nil))
		require.Equal(t, size-3, other.Next(nil))
		require.Equal(t, size-5, it.Next(nil))
		require.Equal(t, size-4, other.Next(nil))
	}
}

func TestTrack_IsThatOfTheCandidate(t *testing.T) {
	t.Parallel()
	f := of(fallback(1), chosen(2, last))
	p := f.plan()
	it := p.Iterate(p.Healthy)
	require.Nil(t, it.Track(0), "nothing is measured of it")
	require.Same(t, f.tracks[2], it.Track(2))
	require.Nil(t, it.Track(-1))
	require.Nil(t, it.Track(3))
	var none pick.Iterator
	require.Nil(t, none.Track(0))
	p = of(fallback(1)).plan()
	it = p.Iterate(p.Healthy)
	require.Nil(t, it.Track(0))
}

func TestIterator_OffersEachCandidateOnceWhileOthersFlip(t *testing.T) {
	t.Parallel()
	f := of(fallback(3), roundRobin(5), chosen(4, last), roundRobin(80), chosen(70, last))
	f.config.Hooks.Fault = nil
	p := f.plan()
	var group, flipper sync.WaitGroup
	done := make(chan struct{})
	flipper.Go(func() {
		for n := 0; ; n++ {
			select {
			case <-done:
				return
			default: // candidates 0, 10, 20, … stay
				if i := n * 7 % p.Len(); i%10 != 0 {
					p.Set(i, n%3 == 0, n%2 == 0)
				}
			}
		}
	})
	for g := range 3 {
		group.Go(func() {
			for range 100 {
				it := p.Iterate(p.Healthy)
				if g == 0 {
					it = p.IterateFrom(p.Admitting, p.First(p.Admitting, true))
				}
				all := drain(&it)
				slices.Sort(all)
				if len(slices.Compact(slices.Clone(all))) != len(all) {
					t.Errorf("one twice: %v", all)
				}
				for i := 0; i < p.Len(); i += 10 {
					if _, found := slices.BinarySearch(all, i); !found {
						t.Errorf("%d is missing", i)
					}
				}
			}
		})
	}
	group.Wait()
	close(done)
	flipper.Wait()
}

package pick_test

import (
	"context"
	"math"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry/internal/pick"
	"github.com/capreg/registry/selection"
)

func TestSelector_FaultsFallBackToTheOrderOfTheTier(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		kind     pick.Fault
		words    string
		selector func(v selection.View) int
	}{
		"panic":        {pick.Panicked, "panicked", func(selection.View) int { panic("ouch") }},
		"negative":     {pick.OutOfRange, "gave an answer out of range", func(selection.View) int { return -1 }},
		"too large":    {pick.OutOfRange, "gave an answer out of range", func(v selection.View) int { return v.Len() }},
		"far too much": {pick.OutOfRange, "gave an answer out of range", func(selection.View) int { return math.MaxInt }},
	} {
		for _, size := range []int{3, 100} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				faults := &pick.Faults{}
				tier := chosen(size, test.selector)
				tier.Faults = faults
				f := of(fallback(1), tier)
				p := f.plan()
				all := order(p, p.Healthy, pick.Advance)
				require.Len(t, all, 1+size)
				require.IsIncreasing(t, all)
				require.EqualValues(t, size, faults.Count(test.kind))
				require.Len(t, f.failures, 1, "told once a minute")
				failure := f.failures[0]
				require.Equal(t, 1, failure.Tier)
				require.Equal(t, "TEST", failure.Strategy.String())
				require.Equal(t, test.kind, failure.Kind)
				require.Equal(t, test.words, failure.Kind.String())
				if test.kind == pick.Panicked {
					require.Equal(t, "ouch", failure.Value)
				}
				order(p, p.Healthy, pick.Preview)
				require.EqualValues(t, size, faults.Count(test.kind), "a preview records nothing")
				order(p, p.Healthy, pick.Peek)
				require.EqualValues(t, 2*size, faults.Count(test.kind))
			})
		}
	}
	require.Equal(t, "unknown", pick.Fault(9).String())
}

func TestSelector_OneThatIsNotEligibleIsOutOfRangeInSmallTiersAlone(t *testing.T) {
	t.Parallel()
	for size, faults := range map[int]int{3: 1, 100: 0} {
		f := of(chosen(size, func(selection.View) int { return 1 }))
		p := f.plan()
		p.Set(1, false, false)
		it := p.Iterate(p.Healthy)
		require.Equal(t, 0, it.Next(nil))
		require.Len(t, f.failures, faults, "in a large tier it may have been eligible a moment ago")
	}
}

func TestSelector_ThatExitsTakesOnlyItsGoroutineAlong(t *testing.T) {
	t.Parallel()
	f := of(chosen(2, func(selection.View) int { runtime.Goexit(); return 0 }))
	p := f.plan()
	done := make(chan struct{})
	go func() {
		defer close(done)
		it := p.Iterate(p.Healthy)
		it.Next(nil)
		t.Error("it goes on")
	}()
	<-done
	require.Len(t, f.failures, 1)
	require.Equal(t, pick.Exited, f.failures[0].Kind)
	require.Equal(t, "exited its goroutine", f.failures[0].Kind.String())
}

func TestSelector_FaultsAreToldOnceAMinute(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := of(chosen(1, func(selection.View) int { return -1 }))
		f.config.Tiers[0].Faults = &pick.Faults{}
		for range 10 { // the counts outlive plans
			time.Sleep(20 * time.Second)
			p := f.plan()
			order(p, p.Healthy, pick.Advance)
		}
		require.Len(t, f.failures, 4)
		require.EqualValues(t, 10, f.config.Tiers[0].Faults.Count(pick.OutOfRange))
		f.config.Hooks.Fault = nil
		p := f.plan()
		order(p, p.Healthy, pick.Advance)
		require.Len(t, f.failures, 4)
	})
}

func TestSelector_SlowPicksAreToldFromTheSecondInARowOn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		slow, timed, faults := false, 0, &pick.Faults{}
		tier := chosen(1, func(v selection.View) int {
			if slow {
				time.Sleep(2 * time.Millisecond)
			}
			return v.Next(0)
		})
		tier.Faults = faults
		f := of(tier)
		p := f.plan()
		// pickUntil picks until one more slow pick was counted.
		pickUntil := func() {
			for before := faults.Count(pick.Slow); faults.Count(pick.Slow) == before; timed++ {
				require.Less(t, timed, 1_000_000)
				order(p, p.Healthy, pick.Advance)
			}
		}
		slow = true
		pickUntil()
		require.Empty(t, f.failures, "one may be a pause of the goroutine")
		slow = false
		for range 2000 {
			order(p, p.Healthy, pick.Advance)
		}
		slow = true
		pickUntil()
		require.Empty(t, f.failures)
		pickUntil()
		require.Len(t, f.failures, 1)
		require.Equal(t, pick.Slow, f.failures[0].Kind)
		require.Equal(t, "was slow", f.failures[0].Kind.String())
		before := faults.Count(pick.Slow)
		for range 2000 {
			order(p, p.Healthy, pick.Peek)
		}
		require.Equal(t, before, faults.Count(pick.Slow), "a peek is not timed")
	})
}

func TestSelector_SeesTheCallerAndWhatWasOffered(t *testing.T) {
	t.Parallel()
	type key struct{}
	for _, size := range []int{3, 70} {
		var seen []selection.View
		f := of(chosen(size, func(v selection.View) int { seen = append(seen, v); return v.Next(0) }))
		f.config.Request = selection.Request{Service: "llm", Near: "eu"}
		p := f.plan()
		p.Set(1, false, true)
		it := p.Iterate(p.Healthy)
		c := &pick.Caller{Context: context.WithValue(t.Context(), key{}, "value"), Key: "session", Name: "agent"}
		require.Equal(t, 0, it.Next(c))
		require.Equal(t, 2, it.Next(c))
		require.Len(t, seen, 2)
		for n := range seen {
			v := &seen[n]
			require.Equal(t, n, v.Asked())
			require.Equal(t, size-1-n, v.Count())
			require.False(t, v.Eligible(1))
			require.Equal(t, n == 0, v.Eligible(0))
			require.True(t, v.Eligible(2))
			require.Equal(t, "session", v.Key())
			require.Equal(t, "agent", v.Caller())
			require.Equal(t, "value", v.Context().Value(key{}))
			require.Equal(t, "eu", v.Request().Near)
			require.Equal(t, n > 0, v.Peeking())
		}
	}
}

func TestSelector_PreviewDrawsWhatTheNextPickDraws(t *testing.T) {
	t.Parallel()
	for _, size := range []int{5, 90} {
		p := of(chosen(size, func(v selection.View) int { return v.Draw() })).plan()
		for range 20 {
			foretold := order(p, p.Healthy, pick.Preview)
			require.Equal(t, foretold, order(p, p.Healthy, pick.Advance))
		}
	}
}

func TestSelector_FailoverKeepsTheTurnOfTheFirstPick(t *testing.T) {
	t.Parallel()
	for _, size := range []int{3, 70} {
		var turns []uint64
		p := of(chosen(size, func(v selection.View) int { turns = append(turns, v.Turn()); return v.Next(0) })).plan()
		first, second := p.Iterate(p.Healthy), p.Iterate(p.Healthy)
		first.Next(nil)
		second.Next(nil)
		for range 2 {
			first.Next(nil)
			second.Next(nil)
		}
		require.Equal(t, []uint64{0, 1, 0, 1, 0, 1}, turns)
	}
}

func TestDecisions_HaveEachPickThatCounts(t *testing.T) {
	t.Parallel()
	f := of(fallback(2), roundRobin(70), chosen(3, last)).records()
	p := f.plan()
	p.Set(73, false, false)
	it := p.Iterate(p.Healthy)
	drain(&it)
	require.Len(t, f.decisions, 74)
	require.Equal(t, pick.Decision{Tier: 0, Candidate: 0, Strategy: selection.Fallback(), Eligible: 2, Candidates: 2}, f.decisions[0])
	require.Equal(t, pick.Decision{Tier: 0, Candidate: 1, Strategy: selection.Fallback(), Eligible: 1, Candidates: 2, Asked: 1}, f.decisions[1])
	require.Equal(t, pick.Decision{Tier: 1, Candidate: 4, Strategy: selection.RoundRobin(), Eligible: 68, Candidates: 70, Asked: 2}, f.decisions[4])
	d := f.decisions[73]
	require.Equal(t, []int{2, 72, 1, 3, 1}, []int{d.Tier, d.Candidate, d.Eligible, d.Candidates, d.Asked})
	require.Equal(t, "TEST", d.Strategy.String())

	order(p, p.Healthy, pick.Preview)
	require.Len(t, f.decisions, 74)
	it = p.Iterate(p.Healthy)
	it.Mode = pick.Peek
	for range 3 {
		it.Next(&pick.Caller{Had: func(candidate int) bool { return candidate < 2 }})
	}
	require.Len(t, f.decisions, 75, "to be given one again is no decision")
	require.Equal(t, 3, f.decisions[74].Candidate)
}

// opinionated says something of each candidate.
type opinionated struct {
	describe func(v selection.View, i int) selection.Detail
}

func (opinionated) Pick(v selection.View) int                           { return v.Next(0) }
func (o opinionated) Describe(v selection.View, i int) selection.Detail { return o.describe(v, i) }

func TestDescribe_SaysWhatTheSelectorSays(t *testing.T) {
	t.Parallel()
	factors := []selection.FactorValue{{Name: "x", Weight: math.Inf(1), Value: math.NaN()}}
	strategy := selection.New("OPINION", opinionated{func(v selection.View, i int) selection.Detail {
		if i == 2 {
			panic("ouch")
		}
		return selection.Detail{Score: float64(10*v.Count() + i), Words: v.Caller(), Factors: factors}
	}})
	f := of(fallback(1), pick.Tier{Size: 3, Strategy: strategy}, chosen(1, last), pick.Tier{Size: 80, Strategy: strategy}).records()
	p := f.plan()
	p.Set(1, false, true)
	c := &pick.Caller{Name: "agent"}
	require.Nil(t, p.Describe(0, p.Healthy, c), "a built-in strategy")
	d := p.Describe(1, p.Healthy, c)
	require.Equal(t, &selection.Detail{Score: 20, Words: "agent", Factors: []selection.FactorValue{{Name: "x", Weight: math.MaxFloat64}}}, d)
	require.True(t, math.IsNaN(factors[0].Value), "its own are left alone")
	require.InDelta(t, 31, p.Describe(2, p.Admitting, nil).Score, 0)
	require.Nil(t, p.Describe(3, p.Healthy, c), "it fails")
	require.Nil(t, p.Describe(4, p.Healthy, c), "it says nothing")
	require.InDelta(t, 801, p.Describe(6, p.Healthy, c).Score, 0)
	require.Empty(t, f.failures)
	it := p.Iterate(p.Healthy)
	it.Next(c)
	it.Next(c)
	require.InDelta(t, 21, f.decisions[1].Detail.Score, 0)

	require.Nil(t, of(fallback(1)).plan().Describe(0, p.Healthy, c))
}

func TestSpillOver_SharesTheLoadOfATierThatHasLostMembers(t *testing.T) {
	t.Parallel()
	scoped := func(tier pick.Tier, scope int) pick.Tier { tier.Scope = scope; return tier }
	f := of(scoped(fallback(2), 1), scoped(roundRobin(2), 1), scoped(fallback(2), 2))
	f.config.Policy.SpillOver = 1
	p := f.plan()
	share := func(n int, c *pick.Caller, mode pick.Mode) (counts [6]int) {
		for range n {
			it := p.Iterate(p.Healthy)
			it.Mode = mode
			counts[it.Next(c)]++
		}
		return counts
	}
	require.Equal(t, [6]int{100}, share(100, nil, pick.Advance), "nothing is lost")
	p.Set(1, false, false)
	got := share(100, nil, pick.Advance)
	require.InDelta(t, 50, got[0], 2)
	require.InDelta(t, 25, got[2], 2)
	require.InDelta(t, got[2], got[3], 1)
	require.Equal(t, 100, got[0]+got[2]+got[3], "another scope gets nothing")

	// A key stays with a tier, and a peek foretells where a look-up falls to.
	for _, key := range []string{"a", "b", "c", "d", "e", "f"} {
		counts := share(20, &pick.Caller{Key: key}, pick.Advance)
		require.True(t, counts[0] == 20 || counts[0] == 0, key)
		byContext := share(20, &pick.Caller{Context: selection.WithKey(t.Context(), key)}, pick.Advance)
		require.Equal(t, counts[0], byContext[0], key)
	}
	for range 50 {
		foretold := order(p, p.Healthy, pick.Preview)
		require.ElementsMatch(t, []int{0, 2, 3, 4, 5}, foretold, "all the others follow")
		require.Equal(t, foretold, order(p, p.Healthy, pick.Advance))
	}
	p.Set(0, false, false)
	p.Set(2, false, false)
	p.Set(3, false, false)
	require.Equal(t, 10, share(10, nil, pick.Advance)[4])
	p.Set(4, false, false)
	p.Set(5, false, false)
	require.Empty(t, order(p, p.Healthy, pick.Advance))
}

func TestSpillOver_MoreLooksBackAtTheTiersBefore(t *testing.T) {
	t.Parallel()
	f := of(fallback(2), fallback(1))
	f.config.Policy.SpillOver = 1
	p := f.plan()
	p.Set(1, false, false)
	for range 20 {
		it := p.Iterate(p.Healthy)
		first := it.Next(nil)
		require.True(t, it.More())
		require.Equal(t, []int{2, 0, 0}[first], it.Next(nil))
		require.False(t, it.More())
		require.Equal(t, -1, it.Next(nil))
	}
}

func TestSpillOver_FallsToOneOfManyTiers(t *testing.T) {
	t.Parallel()
	f := of()
	for range 20 {
		f.config.Tiers = append(f.config.Tiers, fallback(10))
	}
	f.config.Policy.SpillOver = 1
	p := f.plan()
	for i := range p.Len() {
		p.Set(i, i%10 == 0, true)
	}
	counts := make(map[int]int)
	for range 1000 {
		it := p.Iterate(p.Healthy)
		counts[p.TierOf(it.Next(nil))]++
	}
	require.Len(t, counts, 10, "a tenth each")
	require.Len(t, order(p, p.Healthy, pick.Advance), 20)
}

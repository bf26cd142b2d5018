package pick_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry/internal/choice"
	"github.com/capreg/registry/internal/pick"
)

func TestPlan_CutsCandidatesIntoTiers(t *testing.T) {
	t.Parallel()
	p := of(fallback(2), roundRobin(1), fallback(3)).plan()
	require.Equal(t, 6, p.Len())
	var tiers []int
	for i := range p.Len() {
		tiers = append(tiers, p.TierOf(i))
	}
	require.Equal(t, []int{0, 0, 1, 2, 2, 2}, tiers)
	require.False(t, p.InOrder)
	require.False(t, p.NeedsCaller())
	require.True(t, of(fallback(1), fallback(1)).plan().InOrder)
}

func TestPlan_WithoutCandidates(t *testing.T) {
	t.Parallel()
	p := of().plan()
	require.True(t, p.InOrder)
	require.Equal(t, -1, p.First(p.Healthy, true))
	require.False(t, p.AnyEligible(p.Healthy))
	require.Empty(t, order(p, p.Healthy, pick.Advance))
}

func TestPlan_SetsFollowTheirCandidates(t *testing.T) {
	t.Parallel()
	p := of(fallback(3)).plan()
	p.Set(0, false, true)
	p.Set(1, false, false)
	require.Equal(t, 2, p.First(p.Healthy, true))
	require.Equal(t, 0, p.First(p.Admitting, true))
	require.True(t, p.AnyEligible(p.Healthy))
	p.Set(2, false, false)
	require.False(t, p.AnyEligible(p.Healthy))
	require.True(t, p.AnyEligible(p.Admitting))
	p.Set(1, true, true)
	require.Equal(t, 1, p.First(p.Healthy, true))
}

func TestFirst_PicksFromTheFirstTierThatHasAny(t *testing.T) {
	t.Parallel()
	for name, gap := range map[string]int{"of one word": 1, "beyond a word": 100} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := of(fallback(gap), roundRobin(3), fallback(1), chosen(1, last)).plan()
			for i := range gap {
				p.Set(i, false, false)
			}
			require.Equal(t, []int{gap, gap + 1, gap + 2, gap}, firsts(p, 4))
			for range 3 {
				require.Equal(t, gap+1, p.First(p.Healthy, false), "without advance the turn stays")
			}
			p.Set(gap+1, false, false)
			require.Equal(t, []int{gap + 2, gap, gap + 2}, firsts(p, 3))
			for i := gap; i < gap+3; i++ {
				p.Set(i, false, false)
			}
			require.Equal(t, gap+3, p.First(p.Healthy, true))
			p.Set(gap+3, false, false)
			require.Equal(t, pick.Undecided, p.First(p.Healthy, true))
			p.Set(gap+4, false, false)
			require.Equal(t, -1, p.First(p.Healthy, true))
		})
	}
}

func TestFastEnough_LeavesSlowCandidatesOutUntilTheirLatencyFades(t *testing.T) {
	t.Parallel()
	for name, size := range map[string]int{"small": 3, "large": 200} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				f := of(fallback(size))
				f.config.Request.Where.MaxLatency = 100 * time.Millisecond
				f.config.Policy.Decay = 10 * time.Second
				p := f.plan()
				for i := 3; i < size; i++ {
					p.Set(i, false, false)
				}
				require.False(t, p.InOrder)
				require.True(t, p.FastEnough(0))
				f.vitals[0].Begin()
				f.vitals[0].End(time.Since(*f.config.Epoch), 200*time.Millisecond, choice.Answered, nil)
				require.False(t, p.FastEnough(0))
				require.Equal(t, []int{1, 2}, order(p, p.Healthy, pick.Advance))

				latency, bound, retryIn, slow := p.TooSlow(0)
				require.True(t, slow)
				require.InEpsilon(t, 200*time.Millisecond, latency, 1e-3)
				require.Equal(t, 100*time.Millisecond, bound)
				require.InEpsilon(t, 6931*time.Millisecond, retryIn, 1e-2, "10 s times ln 2")
				_, _, _, slow = p.TooSlow(1)
				require.False(t, slow)

				f.vitals[1].Begin()
				f.vitals[1].End(time.Since(*f.config.Epoch), 200*time.Millisecond, choice.Answered, nil)
				require.Equal(t, []int{2}, order(p, p.Healthy, pick.Advance), "of two in a row")

				p.Set(1, false, false)
				p.Set(2, false, false)
				require.False(t, p.AnyEligible(p.Healthy))
				it := p.Iterate(p.Healthy)
				require.Equal(t, -1, it.Next(nil))
				time.Sleep(retryIn + 50*time.Millisecond)
				require.True(t, p.AnyEligible(p.Healthy))
				require.Equal(t, []int{0}, order(p, p.Healthy, pick.Advance))
			})
		})
	}
}

func TestTooSlow_WithoutABound(t *testing.T) {
	t.Parallel()
	for _, p := range []*pick.Plan{of(fallback(1)).plan(), of(chosen(1, last)).plan()} {
		latency, bound, retryIn, slow := p.TooSlow(0)
		require.False(t, slow)
		require.Zero(t, latency+bound+retryIn)
		require.True(t, p.FastEnough(0))
	}
}

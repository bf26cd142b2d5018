package selectors_test

import (
	"cmp"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry/internal/choice"
	"github.com/capreg/registry/selection"
	"github.com/capreg/registry/selectors"
)

// naiveCost returns the cost that the two strategies compare, from the input of a test.
type naiveCost struct {
	inFlight         int
	weight           float64
	latency, failing float64 // in nanoseconds; as measured, at the time of the pick
}

func (c naiveCost) of(s selection.Strategy) float64 {
	load := float64(c.inFlight+1) / c.weight / math.Pow(max(1-c.failing, 1e-3), 4)
	if c.failing > 0.21 {
		load *= 1e30 // worse than any that fails less
	}
	switch {
	case s.String() == "LEAST_LOADED":
		return load
	case c.latency > 0:
		return load * c.latency
	case c.failing < 0.05 && c.inFlight == 0:
		return 0
	}
	return load * (1<<47 - 1)
}

func TestTwoChoices_TakeTheBetterOfEachPair(t *testing.T) {
	t.Parallel()
	for _, s := range []selection.Strategy{selectors.LeastLoaded(), selectors.LatencyAware()} {
		for seed := range uint64(25) {
			random := rand.New(rand.NewPCG(seed, 3))
			n := 1 + random.IntN(9)
			g := newGroup(selection.Request{}, selection.Policy{}, profiles(n, func(_ int, p *choice.Profile) {
				p.Weight = 1 + float64(random.IntN(3))
			})...)
			v := g.set.With(g.look())
			costs := make([]naiveCost, n)
			for i := range costs {
				c := naiveCost{inFlight: random.IntN(6), weight: v.At(i).FullWeight()}
				for range c.inFlight {
					g.vitals[i].Begin()
				}
				if random.IntN(3) > 0 {
					c.latency = float64(1+random.IntN(1000)) * 1e6
					g.answer(i, time.Duration(c.latency))
				}
				for range random.IntN(3) {
					g.fail(i, 0)
					c.failing += (1 - c.failing) * 0.2
				}
				costs[i] = c
			}
			requireTwoChoices(t, g, s, costs)
		}
	}
}

// requireTwoChoices checks that number r of k, by cost, wins against the k−1−r that
// cost more: of each k·(k−1)/2 pairs as many. Equal costs share.
func requireTwoChoices(t *testing.T, g *group, s selection.Strategy, costs []naiveCost) {
	t.Helper()
	k := len(costs)
	want := make([]float64, k)
	for i, c := range costs {
		if k == 1 {
			want[i] = 1
			continue
		}
		for j, other := range costs {
			switch cost, others := c.of(s), other.of(s); {
			case i == j:
			case math.Abs(cost-others) < 1e-5*cost:
				want[i] += 0.5
			case cost < others:
				want[i]++
			}
		}
		want[i] /= float64(k*(k-1)) / 2
	}
	counts := g.shares(s, 3000)
	requireShares(t, want, counts)
	worst := slices.MaxFunc(costs, func(a, b naiveCost) int { return cmp.Compare(a.of(s), b.of(s)) })
	for i, c := range costs {
		if want[i] == 0 && k > 1 {
			require.Zero(t, counts[i], "the worst of all, %v, of %v", worst, c)
		}
	}
}

func TestTwoChoices_FastFailingProviderAttractsNoTraffic(t *testing.T) {
	t.Parallel()
	for _, s := range []selection.Strategy{selectors.LeastLoaded(), selectors.LatencyAware(), selectors.Scored()} {
		g := newGroup(selection.Request{}, selection.Policy{}, profiles(4, nil)...)
		for i := range 4 {
			g.answer(i, 50*time.Millisecond)
		}
		failed := 0
		for range 2000 {
			// Three requests of the others are always under way.
			g.now += time.Millisecond
			if i := g.pick(s); i == 0 {
				failed++
				g.fail(0, 10*time.Microsecond)
			} else {
				g.answer(i, 50*time.Millisecond)
			}
		}
		require.Less(t, failed, 40, "%v: of 2000 picks, where turns would give it 500", s)
	}
}

func TestLatencyAware_ColdProviderGetsOneRequestAtATime(t *testing.T) {
	t.Parallel()
	s := selectors.LatencyAware()
	g := newGroup(selection.Request{}, selection.Policy{}, profiles(3, nil)...)
	g.answer(0, 10*time.Millisecond)
	g.answer(1, 10*time.Millisecond)
	first := slices.IndexFunc(make([]struct{}, 50), func(struct{}) bool { return g.pick(s) == 2 })
	require.GreaterOrEqual(t, first, 0, "it is tried")
	g.vitals[2].Begin()
	require.Zero(t, g.shares(s, 1000)[2], "and not again before its first answer")
	g.vitals[2].End(g.now, 10*time.Millisecond, choice.Answered, nil)
	require.InDelta(t, 333, g.shares(s, 1000)[2], 100)
}

func TestLatencyAware_AvoidsASlowProviderAndTriesItAgainLater(t *testing.T) {
	t.Parallel()
	s := selectors.LatencyAware()
	g := newGroup(selection.Request{}, selection.Policy{Decay: time.Second}, profiles(2, nil)...)
	g.answer(0, 10*time.Millisecond)
	g.answer(1, 10*time.Millisecond)
	g.answer(1, 500*time.Millisecond)
	require.Zero(t, g.shares(s, 100)[1])
	for tried := time.Duration(0); ; tried += 100 * time.Millisecond {
		g.now += 100 * time.Millisecond
		g.answer(0, 10*time.Millisecond)
		if g.pick(s) == 1 {
			// 500 ms·exp(−t/1 s) is 10 ms after 3.9 s.
			require.InDelta(t, 3900*time.Millisecond, tried, float64(200*time.Millisecond))
			break
		}
		require.Less(t, tried, 10*time.Second)
	}
}

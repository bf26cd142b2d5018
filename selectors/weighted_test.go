package selectors_test

import (
	"math"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry/internal/choice"
	"github.com/capreg/registry/selection"
	"github.com/capreg/registry/selectors"
)

// requireShares checks counts of independent draws: five standard deviations.
func requireShares(t *testing.T, want []float64, counts []int) {
	t.Helper()
	n := 0
	for _, count := range counts {
		n += count
	}
	for i, p := range want {
		require.InDelta(t, p*float64(n), counts[i], 5*math.Sqrt(float64(n)*p*(1-p))+1e-9, "candidate %d of %v: %v", i, want, counts)
	}
}

// randomWeights returns a group of 1 to 64 with weights and outages of all kinds, and
// the shares that its members are to have.
func randomWeights(random *rand.Rand) (*group, []float64) {
	n := 1 + random.IntN(12)
	if random.IntN(8) == 0 {
		n = 1 + random.IntN(64)
	}
	equal := random.IntN(4) == 0
	g := newGroup(selection.Request{}, selection.Policy{}, profiles(n, func(_ int, p *choice.Profile) {
		if !equal {
			p.Weight = []float64{0, 1, 2, 3, 0.25, 10, 7.5}[random.IntN(7)]
		}
	})...)
	g.cursor = choice.NewCursor(random.Uint64())
	for g.down = ^uint64(0); g.down&(^uint64(0)>>(64-uint(n))) == ^uint64(0)>>(64-uint(n)); {
		g.down = random.Uint64() & random.Uint64()
	}
	v := g.set.With(g.look())
	shares, total := make([]float64, n), 0.0
	for i := range shares {
		if v.Eligible(i) {
			shares[i] = v.Weight(i)
			total += shares[i]
		}
	}
	for i := range shares {
		shares[i] /= total
	}
	return g, shares
}

func TestRandom_GivesSharesByWeight(t *testing.T) {
	t.Parallel()
	for seed := range uint64(25) {
		random := rand.New(rand.NewPCG(seed, 1))
		g, shares := randomWeights(random)
		requireShares(t, shares, g.shares(selectors.Random(), 4000))
	}
}

func TestWeightedRoundRobin_KeepsSharesOverAnyStretch(t *testing.T) {
	t.Parallel()
	for seed := range uint64(120) {
		random := rand.New(rand.NewPCG(seed, 2))
		g, shares := randomWeights(random)
		eligible := 0
		for _, p := range shares {
			if p > 0 {
				eligible++
			}
		}
		g.shares(selectors.WeightedRoundRobin(), random.IntN(5000)) // begin anywhere
		picks := random.IntN(3000)
		for i, count := range g.shares(selectors.WeightedRoundRobin(), picks) {
			// Weights are rounded to 1/65535 of the largest, hence the last term.
			require.InDelta(t, shares[i]*float64(picks), count, 2+float64(eligible)*shares[i]+float64(picks)/30000,
				"seed %d, candidate %d of %v", seed, i, shares)
		}
	}
}

func TestWeightedRoundRobin_KeepsSharesAmongManyGoroutines(t *testing.T) {
	t.Parallel()
	weights := []float64{1, 2, 3, 4}
	g := newGroup(selection.Request{}, selection.Policy{}, profiles(4, func(i int, p *choice.Profile) { p.Weight = weights[i] })...)
	const goroutines, each = 8, 5000
	counts := make([][]int, goroutines)
	var waiting sync.WaitGroup
	for i := range counts {
		waiting.Go(func() { counts[i] = g.shares(selectors.WeightedRoundRobin(), each) })
	}
	waiting.Wait()
	for i, weight := range weights {
		sum := 0
		for _, count := range counts {
			sum += count[i]
		}
		share := weight / 10
		require.InDelta(t, share*goroutines*each, sum, 2+4*share+goroutines)
	}
}

func TestWeightedRoundRobin_EqualWeightsTakeTurns(t *testing.T) {
	t.Parallel()
	g := newGroup(selection.Request{}, selection.Policy{}, profiles(4, nil)...)
	g.down = 0b0100
	for range 5 {
		for _, want := range []int{0, 1, 3} {
			require.Equal(t, want, g.pick(selectors.WeightedRoundRobin()))
		}
	}
}

func TestWeightedRoundRobin_ExtremeWeightsEndQuickly(t *testing.T) {
	t.Parallel()
	for _, weights := range [][]float64{{1e300, 1e-300, 1}, {math.MaxFloat64, math.SmallestNonzeroFloat64, math.MaxFloat64}} {
		g := newGroup(selection.Request{}, selection.Policy{}, profiles(3, func(i int, p *choice.Profile) { p.Weight = weights[i] })...)
		for _, s := range selectors.All() {
			for _, down := range []uint64{0, 1, 5} {
				g.down = down
				for range 100 {
					i := g.pick(s)
					require.Zero(t, g.down>>uint(i)&1, "%v", s)
				}
			}
		}
	}
}

func TestSlowStart_ReducesTheShareOfARecoveredProvider(t *testing.T) {
	t.Parallel()
	g := newGroup(selection.Request{}, selection.Policy{SlowStart: 10 * time.Second}, profiles(2, nil)...)
	g.vitals[1].Ready(g.now)
	for _, c := range []struct {
		after time.Duration
		ramp  float64
	}{{0, 0.1}, {500 * time.Millisecond, 0.1}, {2 * time.Second, 0.2}, {5 * time.Second, 0.5}, {9 * time.Second, 0.9}, {10 * time.Second, 1}, {time.Hour, 1}} {
		g.now = time.Hour + c.after
		share := c.ramp / (1 + c.ramp)
		requireShares(t, []float64{1 - share, share}, g.shares(selectors.Random(), 20_000))
		require.InDelta(t, 20_000*share, g.shares(selectors.WeightedRoundRobin(), 20_000)[1], 4)
	}
}

package selectors_test

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry/health"
	"github.com/capreg/registry/internal/choice"
	"github.com/capreg/registry/selection"
	"github.com/capreg/registry/selectors"
)

func describe(g *group, s selection.Strategy, i int) selection.Detail {
	look := g.look()
	look.Peek = true
	return s.Selector().(selection.Describer).Describe(g.set.With(look), i)
}

// randomScores returns a group whose members differ in everything.
func randomScores(random *rand.Rand) *group {
	n := 1 + random.IntN(24)
	words := []string{"vision", "long", "cheap"}
	g := newGroup(selection.Request{Near: "eu-west-1", Prefer: words[:random.IntN(4)]}, selection.Policy{}, profiles(n, func(_ int, p *choice.Profile) {
		p.Weight, p.Cost = float64(random.IntN(4)), float64(random.IntN(5))
		p.Region = []string{"", "eu-west-1", "eu-west-2", "eu-north-1", "us-east-1"}[random.IntN(5)]
		p.Tags, p.Capabilities = words[:random.IntN(4)], words[random.IntN(4):]
	})...)
	g.cursor = choice.NewCursor(random.Uint64())
	for i, v := range g.vitals {
		for range random.IntN(4) {
			v.Begin()
		}
		if random.IntN(3) > 0 {
			g.answer(i, time.Duration(1+random.IntN(100))*time.Millisecond)
		}
		for range random.IntN(3) {
			g.fail(i, 0)
		}
		v.SetHealth(random.Float64(), health.Trend(random.IntN(3)))
	}
	if n > 1 {
		g.down = random.Uint64() &^ (1 << uint(random.IntN(n)))
	}
	return g
}

func indices(n int) (all []int) {
	for i := range n {
		all = append(all, i)
	}
	return all
}

func TestScored_DrawsTiesByWeight(t *testing.T) {
	t.Parallel()
	strategies := []selection.Strategy{
		selectors.Scored(),
		selectors.Scored(selectors.Factor{Name: "load", Weight: 1, Value: selectors.Load}, selectors.Factor{Name: "odd", Weight: 2, Value: func(c selection.Candidate, _ selectors.Benchmark) float64 {
			return []float64{math.NaN(), -1, math.Inf(1), 0.5}[c.ID()%4]
		}}),
	}
	for seed := range uint64(50) {
		random := rand.New(rand.NewPCG(seed, 4))
		g := randomScores(random)
		s := strategies[seed%2]
		v := g.set.With(g.look())
		tolerable := func(i int) bool { return v.Eligible(i) && v.At(i).Failing() <= 0.21 }
		if !slices.ContainsFunc(indices(v.Len()), tolerable) {
			tolerable = v.Eligible
		}
		best, total := math.Inf(-1), 0.0
		for i := range v.Len() {
			if tolerable(i) {
				best = max(best, describe(g, s, i).Score)
			}
		}
		want := make([]float64, v.Len())
		for i := range want {
			if tolerable(i) && describe(g, s, i).Score >= best-selectors.Tie-1e-9 {
				want[i] = v.Weight(i)
				total += want[i]
			}
		}
		for i := range want {
			want[i] /= total
		}
		requireShares(t, want, g.shares(s, 2000))
	}
}

func TestScored_ScoreIsTheWeightedMeanOfItsFactors(t *testing.T) {
	t.Parallel()
	g := newGroup(selection.Request{Near: "eu-west-1", Prefer: []string{"vision", "long"}}, selection.Policy{}, profiles(2, func(i int, p *choice.Profile) {
		p.Region, p.Cost, p.Tags = []string{"eu-west-1", "eu-west-2"}[i], float64(1+i*3), []string{"vision"}
	})...)
	g.answer(0, 20*time.Millisecond)
	g.answer(1, 10*time.Millisecond)
	g.vitals[0].Begin()
	g.vitals[0].Begin()
	g.vitals[0].Begin()
	g.fail(1, 0)
	g.vitals[1].SetHealth(0.5, health.AtRisk)
	tables := map[string][2]float64{
		"load":           {1 - 3.0/4, 1},
		"performance":    {0.5, 0.8 * 0.5 * 0.5},
		"proximity":      {1, 2.0 / 3},
		"specialisation": {0.5, 0.5},
		"cost":           {1 - 1.0/4, 0},
	}
	weights := map[string]float64{"load": 0.30, "performance": 0.25, "proximity": 0.15, "specialisation": 0.20, "cost": 0.10}
	for i := range 2 {
		d := describe(g, selectors.Scored(), i)
		require.Len(t, d.Factors, 5)
		sum := 0.0
		for _, f := range d.Factors {
			require.InDelta(t, tables[f.Name][i], f.Value, 1e-6, f.Name)
			require.InDelta(t, weights[f.Name], f.Weight, 1e-12, f.Name)
			sum += f.Weight * f.Value
		}
		require.InDelta(t, sum, d.Score, 1e-9)
		require.Contains(t, d.String(), "0.30 load")
	}
}

func TestScored_RefusesBadFactors(t *testing.T) {
	t.Parallel()
	value := selectors.Load
	for _, factors := range [][]selectors.Factor{
		{{Name: "", Weight: 1, Value: value}},
		{{Name: "a", Weight: 1}},
		{{Name: "a", Weight: -1, Value: value}},
		{{Name: "a", Weight: math.NaN(), Value: value}},
		{{Name: "a", Weight: math.Inf(1), Value: value}},
		{{Name: "a", Weight: 0, Value: value}},
		{{Name: "a", Weight: 1, Value: value}, {Name: "a", Weight: 1, Value: value}},
		{{Name: "a", Weight: math.MaxFloat64, Value: value}, {Name: "b", Weight: math.MaxFloat64, Value: value}},
		{{Name: "a\nb", Weight: 1, Value: value}},
	} {
		require.Error(t, selectors.Scored(factors...).Check(), "%v", factors)
	}
	good := selectors.Scored(selectors.Factor{Name: "a", Weight: 3, Value: value})
	require.NoError(t, good.Check())
	require.Equal(t, "SCORED(3 a)", good.String())
	require.False(t, good.Same(selectors.Scored()))
	factors := selectors.DefaultFactors()
	factors[0].Weight = 0.9
	require.Equal(t, "SCORED(0.9 load, 0.25 performance, 0.15 proximity, 0.2 specialisation, 0.1 cost)", selectors.Scored(factors...).String())
	require.InDelta(t, 0.30, selectors.DefaultFactors()[0].Weight, 0)
}

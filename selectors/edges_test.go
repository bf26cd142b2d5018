package selectors_test

import (
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry/internal/choice"
	"github.com/capreg/registry/selection"
	"github.com/capreg/registry/selectors"
)

func TestWeightedRoundRobin_DistributesWeightsOfAnySize(t *testing.T) {
	t.Parallel()
	for name, weights := range map[string][]float64{
		"huge":      {math.MaxFloat64, math.MaxFloat64 / 2},
		"tiny":      {5e-324, 1e-323},
		"far apart": {5e-324, math.MaxFloat64},
	} {
		for _, policy := range []selection.Policy{{}, {SlowStart: 100 * time.Hour, SlowStartFloor: 5e-324}} {
			for _, s := range []selection.Strategy{selectors.WeightedRoundRobin(), selectors.Random(), selectors.Scored(), selectors.Sticky()} {
				g := newGroup(selection.Request{}, policy, profiles(2, func(i int, p *choice.Profile) { p.Weight = weights[i] })...)
				g.now = 1 // they have only just come
				shares := g.shares(s, 1000)
				if name == "far apart" {
					require.Equal(t, 1000, shares[1], "%v %v %v", name, s, shares)
				} else {
					require.InDelta(t, 500, shares[0], 60, "%v %v %v", name, s, shares)
				}
			}
		}
	}
}

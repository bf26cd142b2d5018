package pick

import (
	"cmp"
	"math"
	"slices"
	"time"

	"github.com/capreg/registry/internal/bitset"
	"github.com/capreg/registry/internal/choice"
	"github.com/capreg/registry/internal/fault"
	"github.com/capreg/registry/selection"
)

// Describe returns the description of candidate i by its selector, with numbers that JSON can hold. It is nil
// if there is no selector, or it is no [selection.Describer] or fails. It changes nothing.
func (p *Plan) Describe(i int, eligible *bitset.Set, c *Caller) *selection.Detail {
	t := &p.tiers[p.tierOf[i]]
	if t.picker == nil {
		return nil
	}
	return t.picker.describe(i-t.low, p.inputOf(t, p.members(t, eligible), c))
}

func (k *picker) describe(member int, input choice.Input) *selection.Detail {
	describer, ok := k.selector.(selection.Describer)
	if !ok {
		return nil
	}
	var d selection.Detail
	if fault.Run(func() error { d = describer.Describe(k.set.With(input), member); return nil }) != nil {
		return nil
	}
	d.Score, d.Factors = finite(d.Score), slices.Clone(d.Factors)
	for i := range d.Factors {
		d.Factors[i].Weight, d.Factors[i].Value = finite(d.Factors[i].Weight), finite(d.Factors[i].Value)
	}
	return &d
}

// finite returns 0 for NaN and bounds infinities.
func finite(x float64) float64 {
	if math.IsNaN(x) {
		return 0
	}
	return min(max(x, -math.MaxFloat64), math.MaxFloat64)
}

// Bounded reports whether the query has a bound of the latency.
func (p *Plan) Bounded() bool { return p.extras != nil && p.extras.maxLatency > 0 }

// TooSlow reports whether the latency of candidate i is above the bound of the query. It returns both, and the
// time until the latency will have faded to the bound.
func (p *Plan) TooSlow(i int) (latency, bound, retryIn time.Duration, tooSlow bool) {
	if p.extras == nil || p.extras.maxLatency == 0 {
		return 0, 0, 0, false
	}
	bound = p.extras.maxLatency
	if latency = p.latency(i); latency <= bound {
		return latency, bound, 0, false
	}
	// A latency fades as latency·exp(−t/decay).
	decay := cmp.Or(p.extras.policy.Decay, choice.DefaultDecay)
	return latency, bound, time.Duration(float64(decay) * math.Log(float64(latency)/float64(bound))), true
}

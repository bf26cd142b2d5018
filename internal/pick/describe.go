package pick

import (
	"cmp"
	"math"
	"slices"
	"time"

	"github.com/capreg/registry/internal/bitset"
	"github.com/capreg/registry/internal/fault"
	"github.com/capreg/registry/selection"
)

// Describe returns what the selector of candidate i says of it, as it can be written as JSON; nil where there
// is none, or it says nothing or fails. It changes nothing.
func (p *Plan) Describe(i int, eligible *bitset.Set, c *Caller) *selection.Detail {
	t := &p.tiers[p.tierOf[i]]
	if t.picker == nil {
		return nil
	}
	return t.picker.describe(i-t.low, p.lookOf(t, p.members(t, eligible), c))
}

func (k *picker) describe(member int, look selection.Look) *selection.Detail {
	describer, ok := k.selector.(selection.Describer)
	if !ok {
		return nil
	}
	var d selection.Detail
	if fault.Run(func() error { d = describer.Describe(k.set.View(look), member); return nil }) != nil {
		return nil
	}
	d.Score, d.Factors = finite(d.Score), slices.Clone(d.Factors)
	for i := range d.Factors {
		d.Factors[i].Weight, d.Factors[i].Value = finite(d.Factors[i].Weight), finite(d.Factors[i].Value)
	}
	return &d
}

// finite returns 0 for what is no number, and the largest one for more.
func finite(x float64) float64 {
	if math.IsNaN(x) {
		return 0
	}
	return min(max(x, -math.MaxFloat64), math.MaxFloat64)
}

// TooSlow reports whether candidate i has lately been slower than the query wants: its latency, the bound, and
// the time after which the latency alone will be within it.
func (p *Plan) TooSlow(i int) (latency, bound, retryIn time.Duration, tooSlow bool) {
	if p.extras == nil || p.extras.maxLatency == 0 {
		return 0, 0, 0, false
	}
	bound = p.extras.maxLatency
	if latency = p.latency(i); latency <= bound {
		return latency, bound, 0, false
	}
	// It loses weight as time goes by: latency·exp(−t/decay).
	decay := cmp.Or(p.extras.policy.Decay, selection.DefaultDecay)
	return latency, bound, time.Duration(float64(decay) * math.Log(float64(latency)/float64(bound))), true
}

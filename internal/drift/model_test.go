package drift_test

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry/internal/drift"
)

// naive is the detector as its documentation says, with all its samples in a list.
type naive struct {
	logs           []float64
	mean, variance float64 // of the logarithms
	sum            float64
	errors         float64
	level          float64
}

func (n *naive) observe(ms float64, failed bool) {
	ms = math.Max(ms, 0.01)
	x := math.Log(ms)
	usual := math.Max(math.Sqrt(n.variance), 0.1)
	learned := len(n.logs) >= 100
	if learned {
		deviations := math.Min(math.Max((x-n.mean)/usual, -4), 4)
		n.sum = math.Min(math.Max(n.sum+deviations-1, 0), 46)
	}
	within := math.Min(math.Max(x-n.mean, -3*usual), 3*usual)
	switch {
	case !learned:
		n.logs = append(n.logs, x)
		n.mean, n.variance = 0, 0
		for _, log := range n.logs {
			n.mean += log / float64(len(n.logs))
		}
		for _, log := range n.logs {
			n.variance += (log - n.mean) * (log - n.mean) / float64(len(n.logs))
		}
	case n.sum > 8:
		n.mean += 0.002 * within
	default:
		n.mean += 0.005 * within
		n.variance = 0.995*n.variance + 0.005*within*within
	}
	n.errors *= 0.9
	if failed {
		n.errors += 0.1
	}
	n.level = 0.8*n.level + 0.2*math.Min(ms, 4*n.level+1)
}

func (n *naive) degrading() bool { return n.sum > 31 }

func (n *naive) atRisk(limit time.Duration) bool {
	return n.errors > 0.25 || n.degrading() && n.level >= 0.03*limit.Seconds()*1000
}

func TestDetector_AgreesWithItsDocumentation(t *testing.T) {
	t.Parallel()
	degraded, risky := 0, 0
	for seed := range uint64(200) {
		random := rand.New(rand.NewPCG(seed, 5))
		var d drift.Detector
		var n naive
		factor, failing := 1.0, 0.0
		bound := time.Duration(100+random.IntN(2000)) * time.Millisecond
		for i := range 700 {
			switch random.IntN(60) { // a new time of its life
			case 0:
				factor = math.Exp(3 * random.NormFloat64())
			case 1:
				factor = 1
			case 2:
				failing = random.Float64()
			case 3:
				failing = 0
			}
			ms := usual(random) * factor
			if i%97 == 96 {
				ms = 0
			}
			took, failed := milliseconds(ms), random.Float64() < failing
			d.Observe(took, failed)
			n.observe(float64(took)/float64(time.Millisecond), failed)
			require.Equal(t, n.degrading(), d.Degrading(), "seed %d, sample %d: sum %v", seed, i, n.sum)
			require.Equal(t, n.atRisk(bound), d.AtRisk(bound), "seed %d, sample %d: %+v", seed, i, n.level)
			if d.Degrading() {
				degraded++
			}
			if d.AtRisk(bound) {
				risky++
			}
		}
	}
	require.Positive(t, degraded)
	require.Positive(t, risky)
}

package drift_test

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/capreg/registry/internal/drift"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const limit = time.Second

func milliseconds(ms float64) time.Duration { return time.Duration(ms * float64(time.Millisecond)) }

// usual is a latency of 10 ms with its noise, and now and then an outlier.
func usual(random *rand.Rand) float64 {
	ms := 10 * math.Exp(0.25*random.NormFloat64())
	if random.IntN(100) == 0 {
		ms *= 5 + 25*random.Float64()
	}
	return ms
}

// lead replays a ramp behind 1,200 ordinary samples, and returns by how many
// samples the alarm comes before three failures in a row.
func lead(seed uint64, ramp int, factor func(part float64) float64, alarm func(*drift.Detector) bool) int {
	random := rand.New(rand.NewPCG(seed, 3))
	var d drift.Detector
	for range 1200 {
		d.Observe(milliseconds(usual(random)), false)
	}
	alarmed, failures := -1, 0
	for i := range 100 * ramp {
		ms := usual(random) * factor(min(float64(i)/float64(ramp), 1))
		failed := ms >= 1000
		d.Observe(milliseconds(min(ms, 1000)), failed)
		if alarmed < 0 && alarm(&d) {
			alarmed = i
		}
		if failures++; !failed {
			failures = 0
		}
		if failures == 3 {
			if alarmed < 0 {
				return 0
			}
			return i - alarmed
		}
	}
	return -1
}

func TestDetector_DetectsRampsBeforeFailures(t *testing.T) {
	t.Parallel()
	queueing := func(part float64) float64 { return 1 / max(1-part, 0.005) } // of one server: 1/(1-utilisation)
	exponential := func(part float64) float64 { return math.Pow(200, part) }
	for name, c := range map[string]struct {
		ramp   int
		factor func(float64) float64
		want   int
	}{
		"queueing over 100": {100, queueing, 30}, "queueing over 300": {300, queueing, 100},
		"exponential over 100": {100, exponential, 50}, "exponential over 300": {300, exponential, 150},
	} {
		var leads []int
		for seed := range uint64(200) {
			leads = append(leads, lead(seed, c.ramp, c.factor, (*drift.Detector).Degrading))
		}
		slices.Sort(leads)
		t.Logf("%s: median lead %d, least %d", name, leads[len(leads)/2], leads[0])
		require.GreaterOrEqual(t, leads[len(leads)/2], c.want, name)
		require.GreaterOrEqual(t, leads[len(leads)/20], c.want/2, "nineteen of twenty: %s", name)
	}
}

func TestAtRisk_MoreFrequentErrors(t *testing.T) {
	t.Parallel()
	var leads []int
	for seed := range uint64(200) {
		random := rand.New(rand.NewPCG(seed, 5))
		var d drift.Detector
		for range 1200 {
			d.Observe(milliseconds(usual(random)), random.IntN(100) == 0)
		}
		alarmed, failures := -1, 0
		for i := range 10_000 {
			failed := random.Float64() < min(float64(i)/100, 1)
			d.Observe(milliseconds(usual(random)), failed)
			if alarmed < 0 && d.AtRisk(limit) {
				alarmed = i
			}
			if failures++; !failed {
				failures = 0
			}
			if failures == 3 {
				leads = append(leads, i-max(alarmed, 0))
				break
			}
		}
	}
	slices.Sort(leads)
	require.GreaterOrEqual(t, leads[len(leads)/2], 5)
}

func TestDetector_NoiseRaisesNoAlarm(t *testing.T) {
	t.Parallel()
	for name, noise := range map[string]func(*rand.Rand) func() float64{
		"lognormal": func(r *rand.Rand) func() float64 {
			return func() float64 { return 10 * math.Exp(0.25*r.NormFloat64()) }
		},
		"lognormal, wide": func(r *rand.Rand) func() float64 { return func() float64 { return 10 * math.Exp(r.NormFloat64()) } },
		"outliers":        func(r *rand.Rand) func() float64 { return func() float64 { return usual(r) } },
		"Pareto": func(r *rand.Rand) func() float64 {
			return func() float64 { return 5 * math.Pow(1-r.Float64(), -1/1.5) }
		},
		"exponential": func(r *rand.Rand) func() float64 { return func() float64 { return 10 * r.ExpFloat64() } },
		"bimodal, as of caches": func(r *rand.Rand) func() float64 {
			return func() float64 {
				if r.IntN(5) == 0 {
					return 80 * math.Exp(0.2*r.NormFloat64())
				}
				return math.Exp(0.2 * r.NormFloat64())
			}
		},
		"AR(1), 0.8": func(r *rand.Rand) func() float64 {
			x := 0.0
			return func() float64 {
				x = 0.8*x + 0.15*r.NormFloat64()
				return 10 * math.Exp(x)
			}
		},
		"daily wave": func(r *rand.Rand) func() float64 {
			i := 0
			return func() float64 {
				i++
				return 10 * math.Exp(0.25*r.NormFloat64()+0.3*math.Sin(2*math.Pi*float64(i)/2880))
			}
		},
	} {
		alarms, risks := 0, 0
		const streams, length = 20, 10_000
		for seed := range uint64(streams) {
			next := noise(rand.New(rand.NewPCG(seed, 11)))
			var d drift.Detector
			degrading, atRisk := false, false
			for range length {
				ms := next()
				d.Observe(milliseconds(min(ms, 1000)), false)
				if now := d.Degrading(); now != degrading {
					degrading = now
					if now {
						alarms++
					}
				}
				if now := d.AtRisk(limit); now != atRisk {
					atRisk = now
					if now {
						risks++
					}
				}
			}
		}
		t.Logf("%s: %.2f alarms and %.2f risks in 10,000", name, float64(alarms)/streams, float64(risks)/streams)
		require.LessOrEqual(t, alarms, streams, name)
		require.LessOrEqual(t, risks, streams, name)
	}
}

func TestDegrading_EndsWithTheUsualOrANewLevel(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(1, 1))
	var d drift.Detector
	observe := func(n int, factor float64) {
		for range n {
			d.Observe(milliseconds(usual(random)*factor), false)
		}
	}
	observe(500, 1)
	require.False(t, d.Degrading())
	observe(40, 8)
	require.True(t, d.Degrading())
	observe(40, 1)
	require.False(t, d.Degrading())
	observe(40, 3)
	require.True(t, d.Degrading())
	observe(5000, 3)
	require.False(t, d.Degrading(), "that is how it is now")
}

func TestAtRisk_SlowerButStillFastIsNoRisk(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(1, 1))
	var d drift.Detector
	for range 500 {
		d.Observe(milliseconds(usual(random)/100), false)
	}
	for range 40 {
		d.Observe(milliseconds(usual(random)/10), false)
	}
	require.True(t, d.Degrading())
	require.False(t, d.AtRisk(limit))
}

func TestObserve_AllocatesNothing(t *testing.T) { //nolint:paralleltest // AllocsPerRun counts all goroutines
	var d drift.Detector
	require.Zero(t, testing.AllocsPerRun(1000, func() { d.Observe(10*time.Millisecond, false) }))
}

func BenchmarkObserve(b *testing.B) {
	var d drift.Detector
	b.ReportAllocs()
	for b.Loop() {
		d.Observe(10*time.Millisecond, false)
	}
}

package choice

import (
	"math"
	"sync/atomic"
	"time"

	"github.com/capreg/registry/health"
)

// DefaultDecay is the time after which measurements of a provider have lost 63 % of their
// weight, unless a policy says otherwise.
const DefaultDecay = 10 * time.Second

// failureWeight is the fraction of the way to 1 by which a failure moves selection.Candidate.Failing,
// and of the way to 0 by which an answer does.
const failureWeight = 0.2

// Outcome classifies the end of an attempt for measurements.
type Outcome uint8

// The outcomes.
const (
	// Answered is an answer to the request, in time.
	Answered Outcome = iota
	// Failed is a failure of the provider.
	Failed
	// Neutral measures only a duration: the attempt says nothing about the provider.
	Neutral
	// Refused is an answer that says no, for whatever reason: it counts as Failed does, so that a provider that
	// says no at once is not taken for a fast one. Callers that ask for nonsense are refused everywhere, which
	// changes no comparison.
	Refused
	// Unanswered is an attempt that ended before an answer, because its caller left or its time was over. It
	// counts as Failed does if it took longer than answers do, or there was no answer yet, and else as Neutral.
	Unanswered
)

// Vitals are the load and the performance of one provider, as strategies see them. They belong
// to one registration, independent of the other members, and are safe for concurrent use. Use
// [NewVitals].
type Vitals struct {
	inFlight atomic.Int64
	overall  Track
	// ready is the time at which the provider became eligible again, on the registry's clock.
	ready atomic.Int64
	// health is the score as a float32, and the trend.
	health atomic.Uint64
	// rate is 1/decay in 1/ticks, as a float32.
	rate atomic.Uint32

	_ [76]byte // the cache lines of others
}

// Track holds the recent performance of a provider, overall or for one kind of query. The zero
// value has no measurements. It is safe for concurrent use.
type Track struct {
	// Each is a float32 and the tick at which it was written. Both are zero without a
	// measurement.
	latency atomic.Uint64 // in nanoseconds
	failing atomic.Uint64
}

// NewVitals returns the vitals of a provider that becomes eligible at now, on a clock of your
// choice. A decay of zero or less is [DefaultDecay].
func NewVitals(now, decay time.Duration) *Vitals {
	v := &Vitals{}
	v.Ready(now)
	v.SetDecay(decay)
	v.SetHealth(1, health.Steady)
	return v
}

// SetDecay changes the time in which measurements lose weight; zero is [DefaultDecay].
func (v *Vitals) SetDecay(decay time.Duration) {
	if decay <= 0 {
		decay = DefaultDecay
	}
	v.rate.Store(math.Float32bits(float32(float64(1<<tickShift) / float64(decay))))
}

// SetHealth records the score and the trend of the provider's health.
func (v *Vitals) SetHealth(score float64, trend health.Trend) {
	v.health.Store(uint64(math.Float32bits(float32(score)))<<32 | uint64(trend))
}

// Ready records that the provider has become eligible again.
func (v *Vitals) Ready(now time.Duration) { v.ready.Store(int64(now)) }

// Latency returns selection.Candidate.Latency at the given time.
func (v *Vitals) Latency(now time.Duration) time.Duration {
	latency, _, _ := v.overall.read(tickOf(now), v)
	return time.Duration(latency)
}

// Begin counts an attempt as in flight.
func (v *Vitals) Begin() { v.inFlight.Add(1) }

// End ends an attempt and records its outcome; took is the time that the provider needed,
// without queues. context is the track of the kind of query, recorded in addition to the overall one;
// it may be nil.
func (v *Vitals) End(now, took time.Duration, outcome Outcome, context *Track) {
	rate := math.Float32frombits(v.rate.Load())
	v.overall.observe(tickOf(now), rate, took, outcome)
	if context != nil {
		context.observe(tickOf(now), rate, took, outcome)
	}
	v.inFlight.Add(-1)
}

// tickShift turns nanoseconds into ticks of 4.2 ms, so that 32 bits last 208 days.
const tickShift = 22

func tickOf(now time.Duration) uint32 { return uint32(uint64(now) >> tickShift) } //nolint:gosec // it wraps

func pack(value float32, tick uint32) uint64 {
	return uint64(math.Float32bits(value))<<32 | uint64(tick)
}

// unpack returns the stored value and the remaining fraction of its weight.
func unpack(word uint64, tick uint32, rate float32) (value, left float32) {
	value = math.Float32frombits(uint32(word >> 32))
	age := int32(tick - uint32(word)) //nolint:gosec // differences of ticks wrap
	if age <= 0 {
		return value, 1
	}
	return value, decay(float32(age) * rate)
}

// fresh is the largest age for which decay needs only three terms.
const fresh = 1.0 / 16

// decay returns exp(−x) within 4 parts in a million, for x ≥ 0: 2⁻ⁿ for whole n through the
// exponent, and a short series for the rest, which is at most ln(2)/2.
func decay(x float32) float32 {
	const largest = 80 // beyond that the result is 0
	switch {
	case x < fresh:
		return 1 - x + x*x*(1.0/2-x/6)
	case x > largest:
		return 0
	}
	n := int32(x*math.Log2E + 0.5)
	z := float32(n)*math.Ln2 - x
	squared := z * z
	series := 1 + z + squared*(1.0/2+z/6+squared*(1.0/24+z/120)) // few dependent steps
	return series * math.Float32frombits(uint32(127-n)<<23)      //nolint:gosec // n is 0 to 116
}

// observe records an attempt.
func (t *Track) observe(tick uint32, rate float32, took time.Duration, outcome Outcome) {
	if outcome == Unanswered {
		usual, left := unpack(t.latency.Load(), tick, rate)
		if outcome = Failed; float32(took) < usual*left {
			outcome = Neutral
		}
	}
	t.observeLatency(tick, rate, took, outcome)
	if outcome != Neutral {
		t.observeFailing(tick, rate, outcome)
	}
}

// observeLatency makes the latency follow the peak: a longer sample replaces the value at once, a
// shorter one moves it by the weight that the value has lost with time. An attempt without an answer
// counts only when it took longer than answers do.
func (t *Track) observeLatency(tick uint32, rate float32, took time.Duration, outcome Outcome) {
	sample := float32(max(took, 1))
	for {
		word := t.latency.Load()
		value, left := unpack(word, tick, rate)
		var next float32
		switch {
		case outcome == Answered && (word == 0 || sample > value):
			next = sample
		case outcome == Answered:
			next = sample*(1-left) + value*left
		case word != 0 && sample > value*left:
			next = sample
		default:
			next = value
		}
		if next == value && (outcome != Answered || left == 1) {
			return // a busy provider would write for each attempt
		}
		if t.latency.CompareAndSwap(word, pack(next, tick)) {
			return
		}
	}
}

// observeFailing moves the share of failures by an outcome that is not neutral.
func (t *Track) observeFailing(tick uint32, rate float32, outcome Outcome) {
	for {
		word := t.failing.Load()
		if word == 0 && outcome == Answered {
			return
		}
		value, left := unpack(word, tick, rate)
		value *= left
		if outcome == Answered {
			value -= value * failureWeight
		} else {
			value += (1 - value) * failureWeight
		}
		next := uint64(0)
		if value > 1.0/4096 {
			next = pack(value, tick)
		}
		if t.failing.CompareAndSwap(word, next) {
			return
		}
	}
}

// Unmeasured are the vitals of members without any. They are never written to.
var Unmeasured = NewVitals(0, 0) //nolint:gochecknoglobals // immutable

// leastLeft is the part of its weight below which a measurement of before is dropped.
const leastLeft = 0.01

// Continue begins with the latency and the share of failures that were measured before, that long ago. They have faded
// since then, and those of which little is left are dropped. What was measured here stays.
func (v *Vitals) Continue(now, age, latency time.Duration, failing float64) {
	ticks := uint64(max(age, 0)) >> tickShift
	if decay(float32(ticks)*math.Float32frombits(v.rate.Load())) < leastLeft {
		return
	}
	tick := tickOf(now) - uint32(ticks) //nolint:gosec // it wraps
	if latency > 0 {
		v.overall.latency.CompareAndSwap(0, pack(float32(latency), tick))
	}
	if failing > 0 {
		v.overall.failing.CompareAndSwap(0, pack(float32(failing), tick))
	}
}

// ReadyAt returns the time at which the provider has become eligible again.
func (v *Vitals) ReadyAt() time.Duration { return time.Duration(v.ready.Load()) }

// InFlight returns the number of attempts that have not ended.
func (v *Vitals) InFlight() int { return int(v.inFlight.Load()) }

// Health returns the score and the trend of the provider's health.
func (v *Vitals) Health() (score float64, trend health.Trend) {
	state := v.health.Load()
	return float64(math.Float32frombits(uint32(state >> 32))), health.Trend(state & 0xff)
}

// Performance returns the latency in nanoseconds, the share of failures, and false when neither was measured: of the
// track, or overall where that is nil or has no measurement.
func (v *Vitals) Performance(now time.Duration, here *Track) (latency, failing float64, measured bool) {
	if here != nil {
		if latency, failing, measured = here.read(tickOf(now), v); measured {
			return latency, failing, true
		}
	}
	return v.overall.read(tickOf(now), v)
}

// Measured returns all measurements in one reading: [Vitals.Performance], the number of attempts in flight, and
// [Vitals.Health].
func (v *Vitals) Measured(now time.Duration, here *Track) (latency, failing, inFlight, score float64, trend health.Trend) {
	tick, track := tickOf(now), here
	if track == nil {
		track = &v.overall
	}
	slow, bad := track.latency.Load(), track.failing.Load()
	if slow|bad == 0 && here != nil {
		slow, bad = v.overall.latency.Load(), v.overall.failing.Load()
	}
	if slow != 0 {
		// Like fade, without a call for a recent measurement.
		fading := math.Float32frombits(uint32(slow >> 32))
		if age := int32(tick - uint32(slow)); age > 0 { //nolint:gosec // differences of ticks wrap
			x := float32(age) * math.Float32frombits(v.rate.Load())
			if x < fresh {
				fading *= 1 - x + x*x*(1.0/2-x/6)
			} else {
				fading *= decay(x)
			}
		}
		latency = float64(fading)
	}
	if bad != 0 {
		failing = float64(v.fade(bad, tick))
	}
	state := v.health.Load()
	return latency, failing, float64(v.inFlight.Load()), float64(math.Float32frombits(uint32(state >> 32))), health.Trend(state & 0xff)
}

// read returns the present values, and false when there is no measurement.
func (t *Track) read(tick uint32, v *Vitals) (latency, failing float64, measured bool) {
	slow, bad := t.latency.Load(), t.failing.Load()
	return float64(v.fade(slow, tick)), float64(v.fade(bad, tick)), slow|bad != 0
}

// fade returns the remaining value of a measurement.
func (v *Vitals) fade(word uint64, tick uint32) float32 {
	value := math.Float32frombits(uint32(word >> 32))
	if age := int32(tick - uint32(word)); age > 0 && word != 0 { //nolint:gosec // differences of ticks wrap
		value *= decay(float32(age) * math.Float32frombits(v.rate.Load()))
	}
	return value
}

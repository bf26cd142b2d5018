// Package drift detects that something gets slower or fails more often than usual, before it is
// down.
//
// Latencies are compared as logarithms, so that noise is symmetric and factors add up, and are
// cut to a few deviations (winsorised), so that single outliers do not matter. A one-sided
// cumulative sum (Page 1954) of the excess over the learned mean plus one deviation raises the
// alarm. The constants come from replayed noise and ramps: textbook ones (k = ½, h = 5) raise
// ten alarms in 10,000 samples of ordinary latencies.
package drift

import (
	"math"
	"time"
)

const (
	learning  = 100   // samples before the baseline means anything
	allowance = 1.0   // k: deviations above the mean that are no news
	threshold = 31.0  // h: of the sum, above which there is an alarm
	ceiling   = 46.0  // of the sum, so that an alarm ends after 15 ordinary samples
	suspicion = 8.0   // of the sum, above which the baseline stops learning
	cut       = 4.0   // deviations that one sample can count for
	slowLearn = 0.005 // of mean and variance after learning
	acceptNew = 0.002 // of the mean during suspicion: a new level becomes normal
	errorPace = 0.1   // of the error average
	levelPace = 0.2   // of the latency average
	levelGate = 0.03  // of the time limit: faster than this is no risk
	errorGate = 0.25  // of samples that fail
	floor     = 0.01  // ms; shorter times count as this
	leastDev  = 0.1   // of the logarithm
)

// Detector learns the usual latency and reports changes for the worse. The zero value is ready;
// it is not safe for concurrent use. A sample allocates nothing.
type Detector struct {
	mean, variance float64 // of the logarithm of milliseconds
	sum            float64 // the cumulated excess over the mean
	errors         float64 // exponential average
	level          float64 // exponential average, in milliseconds
	n              int
}

// Observe adds one sample: its duration, and whether it failed. The duration of a timeout is
// the whole time limit.
func (d *Detector) Observe(took time.Duration, failed bool) {
	ms := max(float64(took)/float64(time.Millisecond), floor)
	x := math.Log(ms)
	deviation := max(math.Sqrt(d.variance), leastDev)
	if d.n >= learning {
		score := clamp((x-d.mean)/deviation, cut)
		d.sum = min(max(0, d.sum+score-allowance), ceiling)
	}
	d.learn(x, deviation)
	failure := 0.0
	if failed {
		failure = 1
	}
	d.errors += errorPace * (failure - d.errors)
	d.level += levelPace * (min(ms, 4*d.level+1) - d.level)
}

func (d *Detector) learn(x, deviation float64) {
	switch {
	case d.n < learning: // running mean and variance (Welford 1962)
		d.n++
		delta := x - d.mean
		d.mean += delta / float64(d.n)
		d.variance += (delta*(x-d.mean) - d.variance) / float64(d.n)
	case d.sum <= suspicion:
		delta := clamp(x-d.mean, 3*deviation)
		d.mean += slowLearn * delta
		d.variance += slowLearn * (delta*delta - d.variance)
	default:
		d.mean += acceptNew * clamp(x-d.mean, 3*deviation)
	}
}

// Degrading reports whether it has become slower than it used to be.
func (d *Detector) Degrading() bool { return d.sum > threshold }

// AtRisk reports whether it is about to fail: it degrades and already takes a
// noticeable part of the time it is allowed, or fails often.
func (d *Detector) AtRisk(limit time.Duration) bool {
	return d.errors > errorGate || d.Degrading() && d.level >= levelGate*float64(limit)/float64(time.Millisecond)
}

func clamp(x, bound float64) float64 { return max(-bound, min(x, bound)) }

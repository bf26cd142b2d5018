package selectors

import (
	"time"

	"github.com/capreg/registry/selection"
)

// LeastLoaded returns the strategy LEAST_LOADED: of two eligible candidates, drawn at random,
// the one with less load:
//
//	load = (in flight + 1) / weight / (1 − failing)⁴
//
// Two choices come close to the best of all and avoid herds (Mitzenmacher, "The Power of Two
// Choices in Randomized Load Balancing", 2001). The last term avoids a provider that fails at
// once and therefore looks idle: one failure makes it 2.4 times as loaded, ten in a row 7,500
// times; see [selection.Candidate.Failing]. One that has failed more than once of late, above 0.21,
// is taken only if the other one has, too, whatever the load. On a tie it takes the first one drawn.
//
// The load is that of this program. A provider with short requests and one with few requests
// look the same.
func LeastLoaded() selection.Strategy { return selection.New("LEAST_LOADED", leastLoaded{}) }

type leastLoaded struct{}

// Pick compares two candidates.
func (leastLoaded) Pick(v selection.View) int {
	a, b := v.DrawTwo()
	if b >= 0 && better(v.At(b), v.At(a), loadOf) {
		return b
	}
	return a
}

// intolerable is the failure average above which neither load nor latency makes a candidate the better one of two
// of which the other is below it: a candidate that says no at once, or hangs, is idle, and was fast perhaps. It is
// more than one failure.
const intolerable = 0.21

// better reports whether a candidate is to be preferred to another one.
func better(c, other selection.Candidate, cost func(selection.Candidate) (cost, failing float64)) bool {
	mine, failing := cost(c)
	its, otherFailing := cost(other)
	if out := failing > intolerable; out != (otherFailing > intolerable) {
		return !out
	}
	return mine < its
}

// detail returns a score, with a remark on a candidate that fails too often for it to matter.
func detail(score, failing float64, words string) selection.Detail {
	if failing > intolerable {
		words = "fails too often, " + words
	}
	return selection.Detail{Score: score, Words: words}
}

// Describe returns the load.
func (leastLoaded) Describe(v selection.View, i int) selection.Detail {
	load, failing := loadOf(v.At(i))
	return detail(load, failing, "load")
}

func loadOf(c selection.Candidate) (load, failing float64) {
	_, failing = c.Performance()
	return float64(c.InFlight()+1) / c.Weight() * penalty(failing), failing
}

// penalty is the factor by which failures increase the load or cost of a candidate.
func penalty(failing float64) float64 {
	const least = 1e-3 // so that candidates that only fail still differ
	fine := max(1-failing, least)
	return 1 / (fine * fine * fine * fine)
}

// LatencyAware returns the strategy LATENCY_AWARE: of two eligible candidates, drawn at random,
// the one that is likely to answer sooner:
//
//	cost = latency · (in flight + 1) / weight / (1 − failing)⁴
//
// The latency is a moving average that jumps to a peak and loses weight with time (the peak
// EWMA of Finagle; see [selection.Candidate.Latency]): a provider that gets slow is noticed
// with its first slow answer, and tried again after some time, the sooner the less slow it was.
// Time in the queues of this program is not counted.
//
// A candidate without measurements costs nothing while it is idle, and more than all others
// while it has a request, so it gets one request at a time until its first answer. A candidate
// that has only failed costs more than all others until [selection.Policy.Decay] has made its
// failures small. One that has failed more than once of late is treated as by [LeastLoaded],
// however fast it was.
func LatencyAware() selection.Strategy { return selection.New("LATENCY_AWARE", latencyAware{}) }

type latencyAware struct{}

// Pick compares two candidates.
func (latencyAware) Pick(v selection.View) int {
	a, b := v.DrawTwo()
	if b >= 0 && better(v.At(b), v.At(a), costOf) {
		return b
	}
	return a
}

// Describe returns the cost.
func (latencyAware) Describe(v selection.View, i int) selection.Detail {
	cost, failing := costOf(v.At(i))
	return detail(cost/float64(time.Millisecond), failing, "expected ms")
}

// costUnknown is the latency of a candidate that has never answered, in nanoseconds: 39 h, more
// than any other (Finagle's 2⁴⁷−1).
const (
	costUnknown = 1<<47 - 1
	// forgiven is the failure average below which a candidate that has never answered gets
	// another try.
	forgiven = 0.05
)

func costOf(c selection.Candidate) (cost, failing float64) {
	latency, failing := c.Performance()
	load := float64(c.InFlight())
	if latency == 0 {
		if failing < forgiven && load == 0 {
			return 0, failing
		}
		latency = costUnknown
	}
	return latency * (load + 1) / c.Weight() * penalty(failing), failing
}

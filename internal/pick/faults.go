package pick

import (
	"sync/atomic"
	"time"

	"github.com/capreg/registry/selection"
)

// Fault is an error of a selector.
type Fault uint8

// The faults of a selector.
const (
	Panicked Fault = iota
	Exited
	OutOfRange
	Slow

	faultKinds
)

// String returns the fault as a verb, such as "panicked".
func (f Fault) String() string {
	if f >= faultKinds {
		return "unknown"
	}
	return [faultKinds]string{"panicked", "exited its goroutine", "gave an answer out of range", "was slow"}[f]
}

// Failure reports a fault of the selector of a tier.
type Failure struct {
	Tier     int
	Strategy selection.Strategy
	Kind     Fault
	Value    any // of a panic
}

// Faults counts the faults of a selector in all plans that have it. The zero value is ready to use. It is
// safe for concurrent use.
type Faults struct {
	counts   [faultKinds]atomic.Uint64
	reported atomic.Int64 // the time of the last report to a hook, on the plans' clock; 0: never
	slow     atomic.Bool  // the last timed pick was slow
}

// Count returns the number of faults of a kind.
func (f *Faults) Count(kind Fault) uint64 { return f.counts[kind].Load() }

// timed judges a timed pick. It reports whether the pick is a fault to note, the second slow one in a
// row, and counts the first, which can be a pause of the goroutine.
func (f *Faults) timed(took time.Duration) (noteSlow bool) {
	if took < slowPick {
		if f.slow.Load() {
			f.slow.Store(false)
		}
		return false
	}
	if f.slow.Swap(true) {
		return true
	}
	f.counts[Slow].Add(1)
	return false
}

// note counts a fault and reports whether it is one to report: one a minute is.
func (f *Faults) note(kind Fault, now time.Duration) (report bool) {
	f.counts[kind].Add(1)
	clock, reported := max(int64(now), 1), f.reported.Load()
	return (reported == 0 || clock-reported >= int64(time.Minute)) && f.reported.CompareAndSwap(reported, clock)
}

// fault records a fault of the selector of the tier.
func (it *Iterator) fault(t *tier, kind Fault, value any) {
	e := it.plan.extras
	if it.Mode == Preview || !t.picker.faults.note(kind, e.now()) || e.hooks.Fault == nil {
		return
	}
	e.hooks.Fault(Failure{Tier: it.plan.TierOf(t.low), Strategy: t.picker.strategy, Kind: kind, Value: value})
}

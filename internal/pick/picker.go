package pick

import (
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/capreg/registry/selection"
)

// picker picks from a tier where there is more to heed than FALLBACK and ROUND_ROBIN do by themselves.
type picker struct {
	strategy   selection.Strategy
	selector   selection.Selector // nil: built in
	roundRobin bool
	set        *selection.Set
	faults     *Faults
}

// pick returns a candidate of a tier with a picker, from the members that are left after asked of them were
// offered, or -1.
func (it *Iterator) pick(t *tier, left subset, asked int, c *Caller) int {
	first := left.next(0)
	if first < 0 {
		return -1
	}
	n := it.plan.tierOf[t.low]
	picked, k := first, t.picker
	switch {
	case k.selector != nil:
		picked = it.ask(t, left, asked, c)
	case k.roundRobin && asked == 0:
		picked = it.plan.take(t, it.eligible, !it.Mode.peeks(n))
	case k.roundRobin:
		if i := left.next(int(it.at) - t.low + 1); i >= 0 {
			picked = i
		}
	}
	if picked < 0 {
		return -1
	}
	if it.plan.extras.hooks.Decided != nil && it.Mode != Preview && (c == nil || c.Had == nil || !c.Had(t.low+picked)) {
		it.decided(t, picked, left, asked, c)
	}
	return t.low + picked
}

// lookOf returns what a selector is shown beside the members, at a first pick that only peeks.
func (p *Plan) lookOf(t *tier, left subset, c *Caller) selection.Look {
	look := selection.Look{Mask: left.mask, Cursor: t.rotation.cursor, Epoch: p.extras.epoch, Peek: true}
	if left.large != nil {
		look.Large = left.large
	}
	if c != nil {
		look.Context, look.Key, look.Caller = c.Context, c.Key, c.Name
	}
	return look
}

// ask asks the selector of the tier, and answers for it where it fails.
func (it *Iterator) ask(t *tier, left subset, asked int, c *Caller) int {
	if asked == 0 {
		it.turn = t.rotation.cursor.Turns() // so that a preview draws the same as the call
	}
	look := it.plan.lookOf(t, left, c)
	look.Peek, look.Asked, look.First = it.Mode.peeks(it.plan.tierOf[t.low]), asked, it.turn
	picked, failed := it.runSelector(t, &look)
	switch {
	case failed:
	case uint(picked) >= uint(t.size()), left.large == nil && !left.has(picked):
		it.fault(t, OutOfRange, nil)
	case left.has(picked):
		return picked
	} // else it may have been eligible a moment ago
	return left.next(0)
}

const (
	// slowPick is what takes a selector too long, and timedPicks how many picks there are for one that is
	// timed: the clock costs more than a pick.
	slowPick   = time.Millisecond
	timedPicks = 32
)

// runSelector runs the user's code. It does not use fault.RunThen, which allocates.
func (it *Iterator) runSelector(t *tier, look *selection.Look) (picked int, failed bool) {
	returned := false
	defer func() {
		if returned {
			return
		}
		failed = true
		if value := recover(); value != nil {
			it.fault(t, Panicked, value)
		} else {
			it.fault(t, Exited, nil) // the goroutine goes on exiting
		}
	}()
	k := t.picker
	if !look.Peek && rand.Uint32()%timedPicks == 0 { //nolint:gosec // a sample
		began := it.plan.extras.now()
		look.Now = max(began, 1)
		picked = k.selector.Pick(k.set.View(*look))
		if k.faults.timed(it.plan.extras.now() - began) {
			it.fault(t, Slow, nil)
		}
	} else {
		picked = k.selector.Pick(k.set.View(*look))
	}
	returned = true
	return picked, false
}

// fault records what the selector of the tier did wrong.
func (it *Iterator) fault(t *tier, kind Fault, value any) {
	e := it.plan.extras
	if it.Mode == Preview || !t.picker.faults.note(kind, e.now()) || e.hooks.Fault == nil {
		return
	}
	e.hooks.Fault(Failure{Tier: it.plan.TierOf(t.low), Strategy: t.picker.strategy, Kind: kind, Value: value})
}

// decided tells of a pick.
func (it *Iterator) decided(t *tier, picked int, left subset, asked int, c *Caller) {
	look := it.plan.lookOf(t, left, c)
	look.Asked, look.First = asked, it.turn
	it.plan.extras.hooks.Decided(Decision{
		Tier: it.plan.TierOf(t.low), Candidate: t.low + picked, Strategy: t.picker.strategy,
		Eligible: left.count(), Candidates: t.size(), Asked: asked, Detail: t.picker.describe(picked, look),
	})
}

// Fault is a thing that a selector can do wrong.
type Fault uint8

// The faults of a selector.
const (
	Panicked Fault = iota
	Exited
	OutOfRange
	Slow

	faultKinds
)

// String returns what the selector did.
func (f Fault) String() string {
	if f >= faultKinds {
		return "unknown"
	}
	return [faultKinds]string{"panicked", "exited its goroutine", "gave an answer out of range", "was slow"}[f]
}

// Failure says what the selector of a tier did wrong.
type Failure struct {
	Tier     int
	Strategy selection.Strategy
	Kind     Fault
	Value    any // of a panic
}

// Faults counts what a selector does wrong, in all plans that are given it. The zero value is ready. It is safe
// for concurrent use.
type Faults struct {
	counts   [faultKinds]atomic.Uint64
	reported atomic.Int64 // the last time that a hook was told, on the plans' clock; 0: never
	slow     atomic.Bool  // the last pick that was timed was slow
}

// Count returns how many faults of a kind there were.
func (f *Faults) Count(kind Fault) uint64 { return f.counts[kind].Load() }

// timed counts a pick that took too long, and reports whether it is one to note: the second in a row. One can
// be a pause of the goroutine, of which the selector knows nothing.
func (f *Faults) timed(took time.Duration) (note bool) {
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

// note counts a fault, and reports whether a hook is to be told: once a minute.
func (f *Faults) note(kind Fault, now time.Duration) (tell bool) {
	f.counts[kind].Add(1)
	clock, reported := max(int64(now), 1), f.reported.Load()
	return (reported == 0 || clock-reported >= int64(time.Minute)) && f.reported.CompareAndSwap(reported, clock)
}

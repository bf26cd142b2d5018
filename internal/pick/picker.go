package pick

import (
	"math/rand/v2"
	"time"

	"github.com/capreg/registry/internal/choice"
	"github.com/capreg/registry/selection"
)

// picker picks from a tier whose strategy has a selector, or whose plan bounds latencies, spills over or reports
// decisions.
type picker struct {
	strategy   selection.Strategy
	selector   selection.Selector // nil: built in
	roundRobin bool
	set        selection.View
	faults     *Faults
}

// pick returns one of the members that are left of a tier with a picker, or -1. asked is the number of
// members that were offered.
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

// inputOf returns the input of a selector for a first pick that only peeks.
func (p *Plan) inputOf(t *tier, left subset, c *Caller) choice.Input {
	input := choice.Input{Mask: left.mask, Cursor: t.rotation.cursor, Epoch: p.extras.epoch, Peek: true}
	if left.large != nil {
		input.Large = left.large
	}
	if c != nil {
		input.Context, input.Key, input.Caller = c.Context, c.Key, c.Name
	}
	return input
}

// ask returns the answer of the tier's selector, or the first member left if it fails.
func (it *Iterator) ask(t *tier, left subset, asked int, c *Caller) int {
	if asked == 0 {
		it.turn = t.rotation.cursor.Turns() // so that a preview draws the same as the call
	}
	input := it.plan.inputOf(t, left, c)
	input.Peek, input.Asked, input.First = it.Mode.peeks(it.plan.tierOf[t.low]), asked, it.turn
	picked, failed := it.runSelector(t, &input)
	switch {
	case failed:
	case uint(picked) >= uint(t.size()), left.large == nil && !left.has(picked):
		it.fault(t, OutOfRange, nil)
	case left.has(picked):
		return picked
	} // else it is not eligible any more: a large tier is not read at one moment
	return left.next(0)
}

const (
	// slowPick is the duration of a slow pick. One of timedPicks picks is timed: the clock costs more than
	// a pick.
	slowPick   = time.Millisecond
	timedPicks = 32
)

// runSelector runs a user's code. It does not use fault.RunThen, which allocates.
func (it *Iterator) runSelector(t *tier, input *choice.Input) (picked int, failed bool) {
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
	if !input.Peek && rand.Uint32()%timedPicks == 0 { //nolint:gosec // a sample
		began := it.plan.extras.now()
		input.Now = max(began, 1)
		picked = k.selector.Pick(k.set.With(*input))
		if k.faults.timed(it.plan.extras.now() - began) {
			it.fault(t, Slow, nil)
		}
	} else {
		picked = k.selector.Pick(k.set.With(*input))
	}
	returned = true
	return picked, false
}

// decided reports a pick.
func (it *Iterator) decided(t *tier, picked int, left subset, asked int, c *Caller) {
	input := it.plan.inputOf(t, left, c)
	input.Asked, input.First = asked, it.turn
	it.plan.extras.hooks.Decided(Decision{
		Tier: it.plan.TierOf(t.low), Candidate: t.low + picked, Strategy: t.picker.strategy,
		Eligible: left.count(), Candidates: t.size(), Asked: asked, Detail: t.picker.describe(picked, input),
	})
}

package breaker

import (
	"math"
	"time"

	"github.com/capreg/registry/internal/oneline"
	"github.com/capreg/registry/internal/window"
)

// What moves a breaker:
//
//	state      event                                    next       begins
//	─────────  ───────────────────────────────────────  ─────────  ────────────
//	closed     success, or failure below the threshold  closed
//	closed     failures in a row reach the threshold ¹  open       RecoveryTimeout
//	closed     unanswered, below the threshold ³        closed
//	closed     unanswered calls reach the threshold ³   as after as many failures
//	closed     failure or slow call reaches a rate ¹    open       RecoveryTimeout
//	closed     Reset                                    closed     a generation
//	open       recovery time is over                    half-open  trials
//	open       Reset                                    closed
//	half-open  success of a trial, not the last needed  half-open
//	half-open  success of the last trial needed         closed
//	half-open  failure, slow success, no answer         open       RecoveryTimeout, grown
//	half-open  the answer of a trial begins (FreeTrial)  half-open
//	half-open  Reset                                    closed
//	any        ForceOpen                                open       the time asked for
//	any        neutral outcome, or late outcome ²       the same
//	any        Configure                                the same
//
// ¹ if Host.MayOpen agrees; else it stays closed, and the failures remain counted.
// ² of a call that an earlier generation admitted.
// ³ those since the last success, together with the failures in a row; five where the policy has no threshold.
//
// Each row that ends in another state, and ForceOpen of an open breaker, is one call of
// transition: it begins a generation, publishes the mirror and calls Host.StateChanged.
// Host.TrialsFull is called while half-open, when a trial begins or ends without moving the
// breaker, and when Configure may have changed the slots.

// period is the time that a breaker spends in one state.
type period struct {
	generation uint64
	state      State
	reason     string // why it began
	forced     bool   // by ForceOpen
	since      time.Time
	until      time.Time // end of the recovery time; zero unless open
	trials     int       // that have no outcome yet; zero unless half-open
	unanswered int       // calls since the last success that are no failures yet; zero unless closed
}

// transition ends the present period and begins the next. Every change of state goes
// through it. Caller holds mu.
func (b *Breaker) transition(next period) {
	last := b.period
	b.cancelRecovery()
	if last.state == Open {
		b.totals.TimeOpen += next.since.Sub(last.since)
	}
	switch next.state {
	case Closed:
		b.totals.Closed++
	case Open:
		b.totals.Opened++
	case HalfOpen:
		b.totals.HalfOpened++
	}
	next.generation = last.generation + 1
	b.period = next
	b.publish()
	b.host.StateChanged(Change{From: last.state, To: next.state, Reason: next.reason, Until: next.until, Forced: next.forced})
}

// toOpen begins a recovery time. Caller holds mu.
func (b *Breaker) toOpen(openFor time.Duration, reason string, forced bool) {
	now := time.Now()
	b.machine = newOpenMachine(openFor, b.policy.SuccessThreshold)
	b.transition(period{state: Open, reason: reason, forced: forced, since: now, until: now.Add(openFor)})
	// gobreaker is open up to and including the last nanosecond of its time.
	b.awaitRecovery(min(openFor, math.MaxInt64-1) + 1)
}

// toHalfOpen begins trials, whose successes the machine goes on to count. Caller holds mu.
func (b *Breaker) toHalfOpen() {
	b.transition(period{state: HalfOpen, reason: "the recovery time is over", since: time.Now()})
}

// toClosed admits every call. Caller holds mu.
func (b *Breaker) toClosed(reason string) {
	b.forget()
	b.transition(period{state: Closed, reason: reason, since: time.Now()})
}

// forget drops all that was counted towards the next opening. Caller holds mu.
func (b *Breaker) forget() {
	b.machine, b.failedRecoveries = nil, 0
	if w := b.window.Load(); w != nil {
		w.Clear()
	}
}

// recordClosed records the outcome of a call of a closed period. counts is what the window
// holds, or zero if the outcome cannot reach a rate.
func (b *Breaker) recordClosed(generation uint64, outcome Outcome, counts window.Counts) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.period.generation != generation {
		return // it has ended since the mirror was read
	}
	if outcome == Failure {
		b.totals.LastFailure = time.Now()
	}
	if reason := b.policy.rateReached(counts); reason != "" && b.host.MayOpen() {
		b.toOpen(b.policy.openFor(0), reason, false)
		return
	}
	switch outcome {
	case Failure:
		failures := b.failuresInARow() + 1
		if b.countFailure() != Closed {
			b.toOpen(b.policy.openFor(0), oneline.Plural(failures, "failure")+" in a row", false)
			return
		}
		if b.failUnanswered() {
			return
		}
	case Success:
		b.period.unanswered = 0
		if b.machine != nil {
			b.machine.Success()
		}
	case Unanswered:
		b.period.unanswered++
		if b.failUnanswered() {
			return
		}
	case Neutral:
	}
	b.publish()
}

// countFailure counts a failure in a row, and returns the state that the machine wants. Caller holds mu.
func (b *Breaker) countFailure() State {
	if b.machine == nil {
		b.machine = newClosedMachine(b.policy.FailureThreshold, 0, b.host.MayOpen)
	}
	return b.machine.Failure()
}

// failUnanswered makes failures of the unanswered calls when they are enough, and reports whether that has opened
// the breaker. Caller holds mu.
func (b *Breaker) failUnanswered() (opened bool) {
	unanswered, inARow := b.period.unanswered, b.period.unanswered+b.failuresInARow()
	if unanswered == 0 || inARow < b.policy.hangThreshold() {
		return false
	}
	b.period.unanswered = 0
	b.totals.LastFailure = time.Now()
	for range unanswered {
		if w := b.window.Load(); w != nil {
			if reason := b.policy.rateReached(w.Add(time.Since(b.epoch), true, false)); reason != "" && b.host.MayOpen() {
				b.toOpen(b.policy.openFor(0), reason, false)
				return true
			}
		}
		if b.countFailure() != Closed {
			b.toOpen(b.policy.openFor(0), oneline.Plural(inARow, "call")+" in a row without an answer", false)
			return true
		}
	}
	return false
}

// recordTrial records the outcome of a trial of a half-open period, and gives back the slots it has.
func (b *Breaker) recordTrial(generation uint64, outcome Outcome, slow bool, slots int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.period.generation != generation {
		return // it has ended since the mirror was read, and its slots with it
	}
	b.period.trials -= slots
	if outcome == Success && slow {
		outcome = Failure
	}
	switch outcome {
	case Success:
		successes := b.machine.Successes() + 1
		if b.machine.Success() == Closed {
			b.toClosed(oneline.Plural(successes, "trial") + " succeeded")
			return
		}
	case Failure, Unanswered: // one is enough
		b.totals.LastFailure = time.Now()
		b.failedRecoveries++
		b.toOpen(b.policy.openFor(b.failedRecoveries), "a trial failed", false)
		return
	case Neutral:
	}
	b.host.TrialsFull(b.trialsFull())
}

// trialsFull reports whether all trial slots are taken. Caller holds mu.
func (b *Breaker) trialsFull() bool { return b.period.trials >= b.policy.TrialSlots }

// failuresInARow returns the failures since the last success. Caller holds mu.
func (b *Breaker) failuresInARow() int {
	if b.period.state != Closed || b.machine == nil {
		return 0
	}
	return b.machine.Failures()
}

// awaitRecovery calls endRecovery of the present generation after the given time. Caller
// holds mu.
func (b *Breaker) awaitRecovery(wait time.Duration) {
	if b.recoveryStopped {
		return
	}
	generation := b.period.generation
	b.recovery = b.timers.After(wait, func() { b.endRecovery(generation) })
}

// cancelRecovery stops the timer of awaitRecovery. Caller holds mu.
func (b *Breaker) cancelRecovery() {
	if b.recovery != nil {
		b.recovery.Stop()
		b.recovery = nil
	}
}

// endRecovery begins trials, unless the open period of that generation has ended.
func (b *Breaker) endRecovery(generation uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.period.generation != generation {
		return
	}
	if b.machine.State() == Open { // by gobreaker's reading of the clock
		b.awaitRecovery(time.Millisecond)
		return
	}
	b.toHalfOpen()
}

// Package breaker implements the circuit breaker of a provider.
//
// A [Breaker] admits calls and records how they end. It opens after failures in a row, or
// when too many of the outcomes within a while are failures or slow; after a recovery time
// it admits trials, which close it or open it for longer. The table in states.go lists all
// its transitions.
//
// A breaker owns its state, its statistics and the timer of its recovery time. It decides
// with sony/gobreaker, which counts failures in a row, measures the recovery time and counts
// the trials that succeed; see machine.go. It never runs code of a user, and asks its [Host]
// nothing but permission to open.
package breaker

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/capreg/registry/internal/schedule"
	"github.com/capreg/registry/internal/window"
	"github.com/capreg/registry/status"
)

// State is the state of a breaker.
type State = status.BreakerState

// The states of a breaker.
const (
	Closed   = status.BreakerClosed
	Open     = status.BreakerOpen
	HalfOpen = status.BreakerHalfOpen
)

// Outcome is the part of a call's result that counts for the breaker.
type Outcome uint8

// The outcomes of a call.
const (
	Neutral Outcome = iota // counts for nothing; a trial gives back its slot
	Success
	Failure
	// Unanswered is a call that was given up, perhaps too soon: it counts for nothing until such calls and
	// failures in a row are as many as the threshold. Then each of them is a failure. A trial has failed.
	Unanswered
)

// Blames reports whether the outcome may open a breaker.
func (o Outcome) Blames() bool { return o >= Failure }

// Host is the owner of a breaker. Its methods are called while the breaker's lock is held:
// they must return soon, and must not call methods of the breaker that take that lock.
type Host interface {
	// MayOpen reports whether outcomes may open the breaker now. If so, it opens at once.
	MayOpen() bool
	// StateChanged is called for each transition.
	StateChanged(Change)
	// TrialsFull is called with whether all trial slots of the half-open breaker are taken.
	TrialsFull(bool)
}

// Change is a transition of a breaker.
type Change struct {
	From, To State
	Reason   string
	Until    time.Time // end of the recovery time; zero unless To is Open
	Forced   bool      // by ForceOpen
}

// Breaker is a circuit breaker. It is a field of what it protects, so that admission reads
// no other cache line: use [Breaker.Init] before anything else, and do not copy it. All
// other methods are safe for concurrent use.
//
// A generation is the number of a period in one state. A call enters a generation, and its
// outcome counts in no other: a failure of a call that began before the breaker opened
// neither moves the recovery time nor fails a trial.
type Breaker struct {
	// mirror shows generation and state to readers without the lock. Only publish writes
	// it, while mu is held, at the end of each step.
	mirror    atomic.Uint64
	slowAfter atomic.Int64                  // of the policy; written while mu is held
	window    atomic.Pointer[window.Window] // nil without a rate; written while mu is held

	host   Host
	timers *schedule.Scheduler
	epoch  time.Time // the window's zero

	// mu guards the fields below. While it is held the host may take its own lock, never
	// the other way round.
	mu     sync.Mutex
	policy Policy
	period period
	// machine decides when the period ends; nil while closed without failures in a row.
	machine *machine
	// failedRecoveries counts the periods of trials that failed since it was closed.
	failedRecoveries int
	recovery         *schedule.Timer // makes the open breaker half-open; nil: not waiting
	recoveryStopped  bool
	totals           Totals
}

// Init makes b a closed breaker that follows the policy.
func (b *Breaker) Init(host Host, timers *schedule.Scheduler, policy Policy) {
	b.host, b.timers, b.epoch = host, timers, time.Now()
	b.period = period{state: Closed, since: b.epoch}
	b.usePolicy(policy)
	b.publish()
}

// The mirror is the generation and, below it, these bits. None is set while the breaker is
// closed and a success changes nothing.
const (
	mirrorState     = 0b0011 // State
	mirrorFailing   = 0b0100 // closed, with failures or unanswered calls since the last success
	mirrorRated     = 0b1000 // a window counts all outcomes
	generationShift = 4
)

// publish makes the mirror show the guarded fields. Caller holds mu.
func (b *Breaker) publish() {
	word := b.period.generation<<generationShift | uint64(b.period.state)
	if b.failuresInARow() > 0 || b.period.unanswered > 0 {
		word |= mirrorFailing
	}
	if b.window.Load() != nil {
		word |= mirrorRated
	}
	b.mirror.Store(word)
}

// AdmitClosed admits a call that must not be a trial, and returns the generation it enters.
func (b *Breaker) AdmitClosed() (generation uint64, ok bool) {
	word := b.mirror.Load()
	return word >> generationShift, word&mirrorState == uint64(Closed)
}

// Admit admits a call, and returns the generation it enters. A trial takes a slot until
// its outcome is recorded.
func (b *Breaker) Admit() (generation uint64, trial, ok bool) {
	word := b.mirror.Load()
	switch State(word & mirrorState) {
	case Closed:
		return word >> generationShift, false, true
	case HalfOpen:
		return b.admitTrial()
	default:
		return 0, false, false
	}
}

func (b *Breaker) admitTrial() (generation uint64, trial, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.period.state == Closed: // since the mirror was read
		return b.period.generation, false, true
	case b.period.state == Open || b.trialsFull():
		return 0, false, false
	}
	b.period.trials++
	b.host.TrialsFull(b.trialsFull())
	return b.period.generation, true, true
}

// Unaffected reports whether recording anything but a failure in the generation would change
// nothing: the breaker is still closed, has no failures in a row and follows no rate.
func (b *Breaker) Unaffected(generation uint64) bool {
	return b.mirror.Load() == generation<<generationShift
}

// Slow reports whether a call that took that long is slow by the policy.
func (b *Breaker) Slow(elapsed time.Duration) bool {
	limit := b.slowAfter.Load()
	return limit > 0 && int64(elapsed) >= limit
}

// Record records the outcome of a call that was admitted into the generation. It must be
// called once for each trial.
func (b *Breaker) Record(generation uint64, outcome Outcome, slow bool) {
	b.record(generation, outcome, slow, 1)
}

// FreeTrial gives the slot of a trial back whose answer has begun, such as that of a long stream,
// so that it keeps no other one out. Its outcome still counts: use [Breaker.RecordFreed] for it.
func (b *Breaker) FreeTrial(generation uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.period.generation == generation && b.period.state == HalfOpen {
		b.period.trials--
		b.host.TrialsFull(b.trialsFull())
	}
}

// RecordFreed is [Breaker.Record] for a trial that has given its slot back.
func (b *Breaker) RecordFreed(generation uint64, outcome Outcome, slow bool) {
	b.record(generation, outcome, slow, 0)
}

// record records an outcome; slots are those that the call has taken, if it is a trial.
func (b *Breaker) record(generation uint64, outcome Outcome, slow bool, slots int) {
	word := b.mirror.Load()
	if word>>generationShift != generation {
		return
	}
	switch State(word & mirrorState) {
	case Closed:
		counts := b.count(outcome, slow)
		if outcome.Blames() || counts.Total > 0 || word&mirrorFailing != 0 {
			b.recordClosed(generation, outcome, counts)
		}
	case HalfOpen:
		b.recordTrial(generation, outcome, slow, slots)
	case Open: // admits nothing
	}
}

// count adds an outcome to the window, without mu, since the window has its own lock. It
// returns what the window holds then if the outcome may open the breaker, else zero.
func (b *Breaker) count(outcome Outcome, slow bool) window.Counts {
	w := b.window.Load()
	if w == nil || outcome == Neutral || outcome == Unanswered {
		return window.Counts{}
	}
	counts := w.Add(time.Since(b.epoch), outcome == Failure, slow)
	if outcome == Success && !slow {
		return window.Counts{}
	}
	return counts
}

// ForceOpen opens the breaker for the given time, more than zero, whatever its state.
func (b *Breaker) ForceOpen(openFor time.Duration, reason string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.totals.ForcedOpen++
	b.toOpen(openFor, reason, true)
}

// LastChance reports whether one more unanswered call may open the closed breaker.
func (b *Breaker) LastChance() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.period.state == Closed && b.period.unanswered+b.failuresInARow() == b.policy.hangThreshold()-1
}

// Reset closes the breaker, and forgets what it counted. Calls that began before are of an
// earlier generation.
func (b *Breaker) Reset() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.period.state != Closed {
		b.totals.Resets++
		b.toClosed("reset")
		return
	}
	b.forget()
	b.period.unanswered = 0
	b.period.generation++
	b.publish()
}

// Configure changes the policy, and returns the previous one. A closed breaker keeps its
// failures in a row; a recovery time or trials in progress end as they began, but for the
// number of trial slots.
func (b *Breaker) Configure(policy Policy) (previous Policy) {
	b.mu.Lock()
	defer b.mu.Unlock()
	previous = b.policy
	b.usePolicy(policy)
	switch b.period.state {
	case Closed:
		if b.machine != nil {
			b.machine = newClosedMachine(policy.FailureThreshold, b.machine.Failures(), b.host.MayOpen)
		}
	case HalfOpen:
		b.host.TrialsFull(b.trialsFull())
	case Open:
	}
	b.publish()
	return previous
}

// usePolicy makes the policy the present one. Caller holds mu, or is Init.
func (b *Breaker) usePolicy(policy Policy) {
	switch {
	case !policy.hasRate():
		b.window.Store(nil)
	case b.window.Load() == nil || policy.Window != b.policy.Window:
		b.window.Store(window.New(policy.Window))
	}
	b.slowAfter.Store(int64(policy.SlowAfter))
	b.policy = policy
}

// StopRecovery leaves an open breaker open: no timer runs from now on. Use it when what the
// breaker protects is removed.
func (b *Breaker) StopRecovery() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.recoveryStopped = true
	b.cancelRecovery()
}

package registry

import (
	"errors"
	"fmt"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sony/gobreaker/v2"

	"github.com/capreg/registry/event"
	"github.com/capreg/registry/internal/schedule"
	"github.com/capreg/registry/verdict"
)

// BreakerPolicy is when the breaker of a provider keeps calls away. The zero
// value of each field is its default; a negative one is an error matching
// [ErrInvalid].
type BreakerPolicy struct {
	// FailureThreshold is how many failures in a row open the breaker. Default: 5.
	FailureThreshold int `json:"failure_threshold"`
	// RecoveryTimeout is how long it stays open before trials are admitted.
	// Default: 60 s.
	RecoveryTimeout time.Duration `json:"recovery_timeout"`
	// SuccessThreshold is how many successful trials close it. Default: 3.
	SuccessThreshold int `json:"success_threshold"`
	// TrialSlots is how many trials may run at once while it is half-open; at
	// most SuccessThreshold. Default: 1.
	TrialSlots int `json:"trial_slots"`
}

// withDefaults returns a checked copy in which no field is zero.
func (p BreakerPolicy) withDefaults() (BreakerPolicy, error) {
	type number struct {
		field    string
		value    *int
		fallback int
	}
	for _, n := range []number{
		{"Breaker.FailureThreshold", &p.FailureThreshold, 5},
		{"Breaker.SuccessThreshold", &p.SuccessThreshold, 3},
		{"Breaker.TrialSlots", &p.TrialSlots, 1},
	} {
		if *n.value < 0 || *n.value > math.MaxInt32 {
			return p, invalid(n.field, *n.value, fmt.Sprintf("0 (default %d) to %d", n.fallback, math.MaxInt32))
		}
		if *n.value == 0 {
			*n.value = n.fallback
		}
	}
	if p.RecoveryTimeout < 0 {
		return p, invalid("Breaker.RecoveryTimeout", p.RecoveryTimeout, "0 (default 60s) or more")
	}
	if p.RecoveryTimeout == 0 {
		p.RecoveryTimeout = 60 * time.Second
	}
	if p.TrialSlots > p.SuccessThreshold {
		return p, invalid("Breaker.TrialSlots", p.TrialSlots,
			fmt.Sprintf("at most SuccessThreshold (%d)", p.SuccessThreshold))
	}
	return p, nil
}

// BreakerState is one of the three states of a breaker.
type BreakerState uint8

// The states of a breaker.
//
//	         failures in a row reach the threshold
//	closed ────────────────────────────────────────▶ open ◀─┐
//	  ▲                                                │     │
//	  │                       recovery timeout is over │     │ one trial fails
//	  │                                                ▼     │
//	  └──────────────────────────────────────────── half-open
//	            enough trials succeed
const (
	// BreakerClosed admits every call.
	BreakerClosed BreakerState = iota
	// BreakerOpen admits none.
	BreakerOpen
	// BreakerHalfOpen admits trials, as many at once as the policy has slots.
	BreakerHalfOpen
)

// String returns "closed", "open" or "half-open".
func (s BreakerState) String() string {
	switch s {
	case BreakerClosed:
		return "closed"
	case BreakerOpen:
		return "open"
	case BreakerHalfOpen:
		return "half-open"
	}
	return fmt.Sprintf("state(%d)", uint8(s))
}

// MarshalText returns the name of the state.
func (s BreakerState) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// BreakerStats is the state of a breaker at one moment. Reading it never moves
// the breaker.
type BreakerStats struct {
	// State is the present state, and Since when it began.
	State BreakerState `json:"state"`
	Since time.Time    `json:"since"`
	// Reason says why the present state began; empty before the first change.
	Reason string `json:"reason,omitempty"`
	// Forced says that it was opened by ForceOpen.
	Forced bool `json:"forced,omitempty"`
	// RetryIn is the time until trials are admitted; zero unless open.
	RetryIn time.Duration `json:"retry_in,omitempty"`
	// ConsecutiveFailures counts the failures since the last success while
	// closed; zero in the other states.
	ConsecutiveFailures int `json:"consecutive_failures"`
	// TrialSuccesses counts the successful trials while half-open, and
	// TrialsInFlight those that have not ended.
	TrialSuccesses int `json:"trial_successes,omitempty"`
	TrialsInFlight int `json:"trials_in_flight,omitempty"`
	// Opened, HalfOpened and Closed count the transitions into each state;
	// Resets counts the resets that closed it, ForcedOpen the forced openings.
	Opened     uint64 `json:"opened"`
	HalfOpened uint64 `json:"half_opened"`
	Closed     uint64 `json:"closed"`
	Resets     uint64 `json:"resets"`
	ForcedOpen uint64 `json:"forced_open"`
	// TimeOpen is how long it has been open in total, this time included.
	TimeOpen time.Duration `json:"time_open"`
	// LastFailure is when a failure was last counted; zero when never.
	LastFailure time.Time `json:"last_failure,omitzero"`
	// Policy is the policy in force, defaults filled in.
	Policy BreakerPolicy `json:"policy"`
}

// Bits of breaker.mirror below the generation.
const (
	mirrorState   = 0b011 // BreakerState
	mirrorPending = 0b100 // failures since the last success, in closed state
	mirrorShift   = 3
)

// breaker is the shell around gobreaker's state machine.
//
// gobreaker decides when failures in a row open, when the open time is over and
// when enough trials have succeeded. The shell keeps it off the clean path: it
// mirrors the state in one atomic word that all reads use, and in closed state
// a success with no failure pending touches nothing else. It admits trials
// itself, and reports an outcome to gobreaker only when it is known, as an
// instant request, so that a trial that hangs, exits or is forgotten can never
// occupy gobreaker, and a late outcome never reaches another generation.
type breaker struct {
	provider *provider

	// mirror is generation<<3 | pending | state. It is written under mu.
	mirror atomic.Uint64

	// mu guards the fields below. Lock order: breaker.mu, then Registry.mu.
	// No code of a user runs while it is held.
	mu      sync.Mutex
	policy  BreakerPolicy
	machine *gobreaker.CircuitBreaker[struct{}] // nil until the first failure
	// machineOpenFor is the open time that machine was built with.
	machineOpenFor time.Duration
	// stale says that machine was built for other settings and ends with its
	// present open and half-open period.
	stale bool
	// inherited counts the failures in a row that a replaced machine had seen.
	inherited int
	// tripNow makes machine open at the next failure, whatever its counts.
	tripNow bool
	trials  int // in flight, of this generation
	timer   *schedule.Timer
	until   time.Time // end of the open time
	started time.Time // of the present state
	stats   BreakerStats
}

func (b *breaker) init(p *provider, policy BreakerPolicy) {
	b.provider = p
	b.policy = policy
	b.started = time.Now()
}

var errReported = errors.New("reported failure") // what gobreaker is told

func (b *breaker) state() BreakerState { return BreakerState(b.mirror.Load() & mirrorState) }

// admit returns the generation that a call enters. In closed state that is one
// load; in half-open state it takes a trial slot, which settle gives back.
func (b *breaker) admit() (generation uint64, trial, ok bool) {
	word := b.mirror.Load()
	switch BreakerState(word & mirrorState) {
	case BreakerClosed:
		return word >> mirrorShift, false, true
	case BreakerHalfOpen:
		return b.admitTrial()
	default:
		return 0, false, false
	}
}

func (b *breaker) admitTrial() (generation uint64, trial, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	word := b.mirror.Load()
	switch BreakerState(word & mirrorState) {
	case BreakerClosed:
		return word >> mirrorShift, false, true
	case BreakerHalfOpen:
		if b.trials >= b.policy.TrialSlots {
			return 0, false, false
		}
		b.trials++
		b.publishSlots()
		return word >> mirrorShift, true, true
	default:
		return 0, false, false
	}
}

// settle learns the outcome of a call that was admitted into generation.
func (b *breaker) settle(generation uint64, trial bool, blame verdict.Blame) {
	if !trial {
		word := b.mirror.Load()
		if word>>mirrorShift != generation {
			return // it began before the breaker moved: it says nothing of now
		}
		if blame != verdict.BlameFailure && word&mirrorPending == 0 {
			return
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	word := b.mirror.Load()
	if word>>mirrorShift != generation {
		return // the slot of a trial went with its generation
	}
	if trial {
		b.trials--
		defer b.publishSlots()
	}
	switch blame {
	case verdict.BlameSuccess:
		b.report(nil)
	case verdict.BlameFailure:
		b.stats.LastFailure = time.Now()
		b.report(errReported)
	default:
	}
}

// report tells gobreaker one outcome and follows where it goes. Caller holds mu.
func (b *breaker) report(outcome error) {
	state := b.state()
	if b.machine == nil {
		b.machine = b.newMachine(b.policy.RecoveryTimeout)
	}
	if state == BreakerHalfOpen && outcome != nil && b.stale {
		b.openMachine(b.policy.RecoveryTimeout)
		b.enter(BreakerOpen, b.policy.RecoveryTimeout, "a trial failed", false)
		return
	}
	if outcome == nil {
		b.inherited = 0
	}
	b.feed(outcome)
	counts := b.machine.Counts()
	switch next := b.machine.State(); {
	case state == BreakerClosed && next == gobreaker.StateOpen:
		b.enter(BreakerOpen, b.machineOpenFor, plural(b.stats.ConsecutiveFailures+1, "failure")+" in a row", false)
	case state == BreakerHalfOpen && next == gobreaker.StateOpen:
		b.enter(BreakerOpen, b.machineOpenFor, "a trial failed", false)
	case state == BreakerHalfOpen && next == gobreaker.StateClosed:
		b.enter(BreakerClosed, 0, plural(b.stats.TrialSuccesses+1, "trial")+" succeeded", false)
	case state == BreakerClosed:
		b.stats.ConsecutiveFailures = int(counts.ConsecutiveFailures) + b.inherited
		word := b.mirror.Load() &^ mirrorPending
		if b.stats.ConsecutiveFailures > 0 {
			word |= mirrorPending
		}
		b.mirror.Store(word)
	case state == BreakerHalfOpen:
		b.stats.TrialSuccesses = int(counts.ConsecutiveSuccesses)
	}
}

// feed lets gobreaker see one instant request. Caller holds mu.
func (b *breaker) feed(outcome error) {
	_, _ = b.machine.Execute(func() (struct{}, error) { return struct{}{}, outcome })
}

// newMachine returns a closed machine for the present policy. Caller holds mu.
func (b *breaker) newMachine(openFor time.Duration) *gobreaker.CircuitBreaker[struct{}] {
	b.machineOpenFor = openFor
	b.stale = false
	return gobreaker.NewCircuitBreaker[struct{}](gobreaker.Settings{
		MaxRequests: uint32(b.policy.SuccessThreshold), //nolint:gosec // checked: at most MaxInt32
		Timeout:     openFor,
		// gobreaker asks while report or openMachine hold mu.
		ReadyToTrip: func(counts gobreaker.Counts) bool {
			return b.tripNow || int(counts.ConsecutiveFailures)+b.inherited >= b.policy.FailureThreshold
		},
	})
}

// openMachine replaces the machine by one that is open for the given time.
// Caller holds mu.
func (b *breaker) openMachine(openFor time.Duration) {
	b.machine = b.newMachine(openFor)
	b.tripNow = true
	b.feed(errReported)
	b.tripNow = false
	b.stale = openFor != b.policy.RecoveryTimeout
}

// enter moves the mirror, the eligibility of the provider and the statistics
// into a new generation. Caller holds mu.
func (b *breaker) enter(state BreakerState, openFor time.Duration, reason string, forced bool) {
	now := time.Now()
	from := b.state()
	if from == BreakerOpen {
		b.stats.TimeOpen += now.Sub(b.started)
	}
	b.stopTimer()
	b.started, b.until, b.trials, b.inherited = now, time.Time{}, 0, 0
	b.stats.ConsecutiveFailures, b.stats.TrialSuccesses = 0, 0
	b.stats.Forced, b.stats.Reason = forced, reason
	generation := b.mirror.Load()>>mirrorShift + 1

	change := event.Event{From: from.String(), To: state.String(), Reason: reason}
	var set gate
	switch state {
	case BreakerOpen:
		set = gateOpen
		b.until = now.Add(openFor)
		b.stats.Opened++
		// gobreaker is open up to and including the last nanosecond of its time.
		b.timer = b.provider.registry.schedule.After(min(openFor, math.MaxInt64-1)+1, func() { b.expire(generation) })
		change.Kind, change.Until = event.BreakerOpened, b.until
	case BreakerHalfOpen:
		set = gateHalfOpen
		b.stats.HalfOpened++
		change.Kind = event.BreakerHalfOpened
	case BreakerClosed:
		b.stats.Closed++
		if b.stale {
			b.machine = nil
			b.stale = false
		}
		change.Kind = event.BreakerClosed
	}
	b.mirror.Store(generation<<mirrorShift | uint64(state))
	b.provider.shift(gateOpen|gateHalfOpen|gateTrialsFull, set, &change)
}

// expire makes an open breaker half-open when its time is over.
func (b *breaker) expire(generation uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	word := b.mirror.Load()
	if word>>mirrorShift != generation || BreakerState(word&mirrorState) != BreakerOpen {
		return
	}
	if b.machine.State() == gobreaker.StateOpen {
		b.timer = b.provider.registry.schedule.After(time.Millisecond, func() { b.expire(generation) })
		return
	}
	b.enter(BreakerHalfOpen, 0, "the recovery time is over", false)
}

// publishSlots keeps calls away while all trial slots are taken. Caller holds mu.
func (b *breaker) publishSlots() {
	if b.state() != BreakerHalfOpen {
		return
	}
	var set gate
	if b.trials >= b.policy.TrialSlots {
		set = gateTrialsFull
	}
	b.provider.shift(gateTrialsFull, set, nil)
}

func (b *breaker) forceOpen(openFor time.Duration, reason string) error {
	if openFor <= 0 {
		return invalid("ForceOpen duration", openFor, "more than 0")
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.openMachine(openFor)
	b.stats.ForcedOpen++
	b.enter(BreakerOpen, openFor, reason, true)
	return nil
}

func (b *breaker) reset() {
	b.mu.Lock()
	defer b.mu.Unlock()
	wasClosed := b.state() == BreakerClosed
	b.machine, b.stale, b.inherited = nil, false, 0
	b.stats.ConsecutiveFailures = 0
	if wasClosed {
		b.mirror.Store(b.mirror.Load() &^ mirrorPending)
		return
	}
	b.stats.Resets++
	b.enter(BreakerClosed, 0, "reset", false)
}

// configure changes the policy. A closed breaker keeps its failures in a row
// and follows the new policy from the next outcome on; a running open or
// half-open period ends as it began, but for the trial slots.
func (b *breaker) configure(policy BreakerPolicy) (previous BreakerPolicy, err error) {
	policy, err = policy.withDefaults()
	if err != nil {
		return BreakerPolicy{}, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	previous, b.policy = b.policy, policy
	switch {
	case b.machine == nil:
	case b.state() == BreakerClosed:
		b.inherited = b.stats.ConsecutiveFailures
		b.machine = b.newMachine(policy.RecoveryTimeout)
	default:
		b.stale = true
	}
	b.publishSlots()
	return previous, nil
}

// stop ends the timer of a breaker whose provider has left.
func (b *breaker) stop() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.stopTimer()
}

// stopTimer ends the wait for the end of an open time. Caller holds mu.
func (b *breaker) stopTimer() {
	if b.timer != nil {
		b.timer.Stop()
		b.timer = nil
	}
}

func (b *breaker) read() BreakerStats {
	b.mu.Lock()
	defer b.mu.Unlock()
	stats := b.stats
	stats.State, stats.Since, stats.Policy, stats.TrialsInFlight = b.state(), b.started, b.policy, b.trials
	if stats.State == BreakerOpen {
		stats.TimeOpen += time.Since(b.started)
		stats.RetryIn = max(time.Until(b.until), 0)
	}
	return stats
}

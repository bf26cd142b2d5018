package registry

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sony/gobreaker/v2"

	"github.com/capreg/registry/event"
	"github.com/capreg/registry/internal/fault"
	"github.com/capreg/registry/internal/oneline"
	"github.com/capreg/registry/internal/schedule"
	"github.com/capreg/registry/internal/window"
	"github.com/capreg/registry/verdict"
)

// BreakerPolicy is when the breaker of a provider keeps calls away. The zero
// value of each field is its default; a negative one is an error matching
// [ErrInvalid].
//
// Failures in a row are blind to partial outages; a rate sees them. Outcomes
// count when they are known, in the window of that moment, so that calls which
// take longer than the window count too.
type BreakerPolicy struct {
	// FailureThreshold is how many failures in a row open the breaker. Default:
	// 5, and no such rule when one of the two rates is set.
	FailureThreshold int `json:"failure_threshold,omitempty"`
	// FailureRate is the part of the outcomes in the Window, more than 0 and at
	// most 1, that opens the breaker when it is failures. Zero: no such rule.
	FailureRate float64 `json:"failure_rate,omitempty"`
	// SlowRate is the same for outcomes that took SlowAfter or longer, whatever
	// they were. A slow trial then counts as a failed one. Zero: no such rule.
	SlowRate float64 `json:"slow_rate,omitempty"`
	// SlowAfter is what is slow; it goes together with SlowRate.
	SlowAfter time.Duration `json:"slow_after,omitempty"`
	// Window is the sliding time that the rates look at. Default: 30 s.
	Window time.Duration `json:"window,omitempty"`
	// MinimumCalls is how many outcomes the Window must hold before a rate
	// means anything. Default: 20.
	MinimumCalls int `json:"minimum_calls,omitempty"`

	// RecoveryTimeout is how long it stays open before trials are admitted.
	// Default: 60 s.
	RecoveryTimeout time.Duration `json:"recovery_timeout"`
	// RecoveryGrowth, 1 or more, is the factor by which that grows each time the
	// trials fail, until the breaker closes. Default: 1.
	RecoveryGrowth float64 `json:"recovery_growth,omitempty"`
	// MaxRecoveryTimeout bounds the growth. Default: ten times RecoveryTimeout.
	MaxRecoveryTimeout time.Duration `json:"max_recovery_timeout,omitempty"`
	// RecoveryJitter is the part of the time, at most 1, that is random, so that
	// many programs do not try at the same moment. Default: 0.
	RecoveryJitter float64 `json:"recovery_jitter,omitempty"`
	// SuccessThreshold is how many successful trials close it. Default: 3.
	SuccessThreshold int `json:"success_threshold"`
	// TrialSlots is how many trials may run at once while it is half-open; at
	// most SuccessThreshold. Default: 1.
	TrialSlots int `json:"trial_slots"`
}

// withDefaults returns a checked copy in which no field is zero.
func (p BreakerPolicy) withDefaults() (BreakerPolicy, error) {
	if err := p.checkRates(); err != nil {
		return p, err
	}
	type number struct {
		field    string
		value    *int
		fallback int
	}
	threshold, minimum := 5, 0
	if p.rates() {
		threshold, minimum = 0, 20
		p.Window = cmp.Or(p.Window, 30*time.Second)
	}
	for _, n := range []number{
		{"Breaker.FailureThreshold", &p.FailureThreshold, threshold},
		{"Breaker.MinimumCalls", &p.MinimumCalls, minimum},
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
	if p.RecoveryGrowth > 1 {
		if p.MaxRecoveryTimeout == 0 {
			p.MaxRecoveryTimeout = time.Duration(min(float64(p.RecoveryTimeout)*10, float64(math.MaxInt64/2)))
		}
		if p.MaxRecoveryTimeout < p.RecoveryTimeout {
			return p, invalid("Breaker.MaxRecoveryTimeout", p.MaxRecoveryTimeout,
				fmt.Sprintf("at least RecoveryTimeout (%v)", p.RecoveryTimeout))
		}
	}
	if p.TrialSlots > p.SuccessThreshold {
		return p, invalid("Breaker.TrialSlots", p.TrialSlots,
			fmt.Sprintf("at most SuccessThreshold (%d)", p.SuccessThreshold))
	}
	return p, nil
}

// rates reports whether a rate opens the breaker.
func (p BreakerPolicy) rates() bool { return p.FailureRate > 0 || p.SlowRate > 0 }

func (p BreakerPolicy) checkRates() error {
	part := func(field string, value float64) error {
		if math.IsNaN(value) || value < 0 || value > 1 {
			return invalid(field, value, "0 to 1")
		}
		return nil
	}
	if err := cmp.Or(part("Breaker.FailureRate", p.FailureRate), part("Breaker.SlowRate", p.SlowRate),
		part("Breaker.RecoveryJitter", p.RecoveryJitter)); err != nil {
		return err
	}
	switch {
	case p.SlowAfter < 0 || p.SlowRate > 0 && p.SlowAfter == 0:
		return invalid("Breaker.SlowAfter", p.SlowAfter, "more than 0 together with SlowRate")
	case p.SlowAfter > 0 && p.SlowRate == 0:
		return invalid("Breaker.SlowAfter", p.SlowAfter, "0 without a SlowRate")
	case p.Window < 0 || p.Window > 0 && !p.rates():
		return invalid("Breaker.Window", p.Window, "0 (default 30s) or more, and a FailureRate or SlowRate")
	case p.MinimumCalls > 0 && !p.rates():
		return invalid("Breaker.MinimumCalls", p.MinimumCalls, "0 without a FailureRate or SlowRate")
	case math.IsNaN(p.RecoveryGrowth) || p.RecoveryGrowth != 0 && p.RecoveryGrowth < 1 || p.RecoveryGrowth > 1000:
		return invalid("Breaker.RecoveryGrowth", p.RecoveryGrowth, "0 (default 1), or 1 to 1000")
	case p.MaxRecoveryTimeout < 0 || p.MaxRecoveryTimeout > 0 && p.RecoveryGrowth <= 1:
		return invalid("Breaker.MaxRecoveryTimeout", p.MaxRecoveryTimeout, "0 or more, and a RecoveryGrowth above 1")
	}
	return nil
}

// openFor returns how long the breaker stays open after the trials have failed
// the given number of times.
func (p BreakerPolicy) openFor(failedTrials int) time.Duration {
	length := float64(p.RecoveryTimeout)
	if p.RecoveryGrowth > 1 {
		length = min(length*math.Pow(p.RecoveryGrowth, float64(failedTrials)), float64(p.MaxRecoveryTimeout))
	}
	if p.RecoveryJitter > 0 {
		length -= length * p.RecoveryJitter * rand.Float64() //nolint:gosec // jitter
	}
	return max(time.Duration(min(length, float64(math.MaxInt64/2))), 1)
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

	// slowAfter is the policy's, 0 for none; window is nil without a rate. Both are
	// written under mu.
	slowAfter atomic.Int64
	window    atomic.Pointer[window.Window]

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
	// failedTrials counts the times that trials failed since it was closed.
	failedTrials int
	trials       int // in flight, of this generation
	timer        *schedule.Timer
	until        time.Time // end of the open time
	started      time.Time // of the present state
	stats        BreakerStats
}

func (b *breaker) init(p *provider, policy BreakerPolicy) {
	b.provider = p
	b.started = time.Now()
	b.follow(policy)
}

// follow takes on a policy. Caller holds mu, or is init.
func (b *breaker) follow(policy BreakerPolicy) {
	before := b.policy
	b.policy = policy
	if policy.SlowAfter > 0 || policy.rates() {
		b.provider.learns.Store(true)
	}
	b.slowAfter.Store(int64(policy.SlowAfter))
	switch {
	case !policy.rates():
		b.window.Store(nil)
	case !before.rates() || before.Window != policy.Window:
		b.window.Store(window.New(policy.Window))
	}
}

// slow reports whether an outcome took longer than it should.
func (b *breaker) slow(elapsed time.Duration) bool {
	limit := b.slowAfter.Load()
	return limit > 0 && int64(elapsed) >= limit
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

// admitClosed is admit where a trial will not do. It is small, to be inlined.
func (b *breaker) admitClosed() (generation uint64, ok bool) {
	word := b.mirror.Load()
	return word >> mirrorShift, BreakerState(word&mirrorState) == BreakerClosed
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

// clean reports whether anything but a failure of a call that was admitted into
// generation changes nothing: the breaker has stayed closed, no failure is pending
// and no window counts. It is small, to be inlined.
func (b *breaker) clean(generation uint64) bool {
	return b.mirror.Load() == generation<<mirrorShift && b.window.Load() == nil
}

// settle learns the outcome of a call that was admitted into generation.
func (b *breaker) settle(generation uint64, trial bool, blame verdict.Blame, slow bool) {
	if !trial {
		word := b.mirror.Load()
		if word>>mirrorShift != generation {
			return // it began before the breaker moved: it says nothing of now
		}
		counted := b.count(blame, slow)
		if !counted.trips && blame != verdict.BlameFailure && word&mirrorPending == 0 {
			return
		}
		b.mu.Lock()
		defer b.mu.Unlock()
		b.settleClosed(generation, blame, counted)
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	word := b.mirror.Load()
	if word>>mirrorShift != generation {
		return // the slot of a trial went with its generation
	}
	b.trials--
	defer b.publishSlots()
	if slow && (blame == verdict.BlameWhenSlow || blame == verdict.BlameSuccess) {
		blame = verdict.BlameFailure
	}
	b.learn(blame)
}

// counted is what the window held after an outcome, and whether that opens.
type counted struct {
	window.Counts

	trips bool // whether it might open
}

// count puts an outcome into the window, without mu: its counts are its own.
func (b *breaker) count(blame verdict.Blame, slow bool) (c counted) {
	w := b.window.Load()
	if w == nil || blame == verdict.BlameNeutral {
		return c
	}
	c.Counts = w.Add(b.provider.registry.now(), blame == verdict.BlameFailure, slow)
	// The limits are read without mu; settleClosed looks again.
	c.trips = blame == verdict.BlameFailure || slow
	return c
}

// settleClosed learns an outcome in closed state. Caller holds mu.
func (b *breaker) settleClosed(generation uint64, blame verdict.Blame, c counted) {
	if b.mirror.Load()>>mirrorShift != generation {
		return
	}
	if why := b.policy.exceeded(c.Counts); c.trips && why != "" && b.provider.mayEject() {
		if blame == verdict.BlameFailure {
			b.stats.LastFailure = time.Now()
		}
		openFor := b.policy.openFor(0)
		b.openMachine(openFor)
		b.enter(BreakerOpen, openFor, why, false)
		return
	}
	b.learn(blame)
}

// exceeded says which rate the counts exceed; "" for none.
func (p BreakerPolicy) exceeded(c window.Counts) string {
	switch {
	case c.Total == 0 || c.Total < p.MinimumCalls:
	case p.FailureRate > 0 && float64(c.Bad) >= p.FailureRate*float64(c.Total):
		return fmt.Sprintf("%d of %d outcomes failures within %v", c.Bad, c.Total, p.Window)
	case p.SlowRate > 0 && float64(c.Slow) >= p.SlowRate*float64(c.Total):
		return fmt.Sprintf("%d of %d outcomes slow within %v", c.Slow, c.Total, p.Window)
	}
	return ""
}

// learn tells the state machine an outcome. Caller holds mu.
func (b *breaker) learn(blame verdict.Blame) {
	switch blame {
	case verdict.BlameSuccess, verdict.BlameWhenSlow:
		b.report(nil)
	case verdict.BlameFailure:
		b.stats.LastFailure = time.Now()
		b.report(errReported)
	case verdict.BlameNeutral, verdict.BlameWhenLong, verdict.BlameNotRecorded:
	}
}

// report tells gobreaker one outcome and follows where it goes. Caller holds mu.
func (b *breaker) report(outcome error) {
	state := b.state()
	if b.machine == nil {
		b.machine = b.newMachine(b.policy.RecoveryTimeout)
	}
	if state == BreakerHalfOpen && outcome != nil {
		b.failedTrials++
		if openFor := b.policy.openFor(b.failedTrials); b.stale || openFor != b.machineOpenFor {
			b.openMachine(openFor)
			b.enter(BreakerOpen, openFor, "a trial failed", false)
			return
		}
	}
	if outcome == nil {
		b.inherited = 0
	}
	b.feed(outcome)
	counts := b.machine.Counts()
	switch next := b.machine.State(); {
	case state == BreakerClosed && next == gobreaker.StateOpen:
		if openFor := b.policy.openFor(0); openFor != b.machineOpenFor {
			b.openMachine(openFor)
		}
		b.enter(BreakerOpen, b.machineOpenFor, oneline.Plural(b.stats.ConsecutiveFailures+1, "failure")+" in a row", false)
	case state == BreakerHalfOpen && next == gobreaker.StateOpen:
		b.enter(BreakerOpen, b.machineOpenFor, "a trial failed", false)
	case state == BreakerHalfOpen && next == gobreaker.StateClosed:
		b.enter(BreakerClosed, 0, oneline.Plural(b.stats.TrialSuccesses+1, "trial")+" succeeded", false)
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
			threshold := b.policy.FailureThreshold
			return b.tripNow || threshold > 0 && int(counts.ConsecutiveFailures)+b.inherited >= threshold && b.provider.mayEject()
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
		if !b.provider.hasLeft() { // else nobody would stop the timer
			b.timer = b.provider.registry.schedule.After(min(openFor, math.MaxInt64-1)+1, func() { b.expire(generation) })
		}
		change.Kind, change.Until = event.BreakerOpened, b.until
	case BreakerHalfOpen:
		set = gateHalfOpen
		b.stats.HalfOpened++
		change.Kind = event.BreakerHalfOpened
	case BreakerClosed:
		b.stats.Closed++
		b.failedTrials = 0
		if w := b.window.Load(); w != nil {
			w.Clear()
		}
		if known := b.provider.retries.Load(); known != nil {
			known.refill()
		}
		if b.stale {
			b.machine = nil
			b.stale = false
		}
		change.Kind = event.BreakerClosed
	}
	b.mirror.Store(generation<<mirrorShift | uint64(state))
	b.provider.shiftBreaker(set, &change)
}

// opening is what there is to say of an open breaker. It is in words before
// anybody asks, since all that are refused do.
type opening struct {
	until time.Time
	why   *reason
	err   error // why, as the only reason
}

func newOpening(words string, until time.Time) opening {
	why := &reason{ErrBreakerOpen, words, nil}
	return opening{until, why, fault.Join("", []error{why})}
}

// shiftBreaker is shift for another state of the breaker. Caller holds breaker.mu.
func (p *provider) shiftBreaker(set gate, change *event.Event) {
	var opened opening
	if set&gateOpen != 0 {
		opened = newOpening(fmt.Sprintf("%v (%s)", ErrBreakerOpen, oneline.Cut(change.Reason, 64)), change.Until)
	}
	p.registry.mu.Lock()
	defer p.registry.mu.Unlock()
	if !p.hasLeft() { // the gate of one that has left stays as it was, and so do the words
		p.opening = opened
	}
	p.changeGateLocked(gateOpen|gateHalfOpen|gateTrialsFull, set, change)
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
	b.provider.changeGate(gateTrialsFull, set, nil)
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
	b.stats.ConsecutiveFailures, b.failedTrials = 0, 0
	if w := b.window.Load(); w != nil {
		w.Clear()
	}
	if wasClosed {
		generation := b.mirror.Load()>>mirrorShift + 1 // what began before says nothing any more
		b.mirror.Store(generation<<mirrorShift | uint64(BreakerClosed))
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
	previous = b.policy
	b.follow(policy)
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

package registry

import (
	"time"

	"github.com/capreg/registry/event"
	"github.com/capreg/registry/internal/breaker"
	"github.com/capreg/registry/internal/refusal"
	"github.com/capreg/registry/status"
)

// BreakerPolicy configures the circuit breaker of a provider. The zero value of each
// field is its default; a negative one is an error matching [ErrInvalid].
//
// Failures in a row do not show partial outages; a rate does. Outcomes count when they are known, in the window of
// that moment, so that calls which take longer than the window count too.
type BreakerPolicy struct {
	// FailureThreshold is the number of failures in a row that opens the breaker. Default:
	// 5, and no such rule when one of the two rates is set.
	FailureThreshold int `json:"failure_threshold,omitempty"`
	// FailureRate is the part of the outcomes in the Window, more than 0 and at most 1,
	// that opens the breaker when they are failures. Zero: no such rule.
	FailureRate float64 `json:"failure_rate,omitempty"`
	// SlowRate is the part of the outcomes in the Window, more than 0 and at most 1, that opens the breaker when they
	// took SlowAfter or longer, successful or not. A slow trial then counts as a failed one. Zero: no such rule.
	SlowRate float64 `json:"slow_rate,omitempty"`
	// SlowAfter is the latency from which a call is slow; it goes together with SlowRate.
	SlowAfter time.Duration `json:"slow_after,omitempty"`
	// Window is the length of the sliding time in which the rates count. Default: 30 s.
	Window time.Duration `json:"window,omitempty"`
	// MinimumCalls is the number of outcomes in the Window below which no rate opens the breaker. Default: 20.
	MinimumCalls int `json:"minimum_calls,omitempty"`

	// RecoveryTimeout is the time that the breaker stays open before it admits trials. Default: 60 s.
	RecoveryTimeout time.Duration `json:"recovery_timeout"`
	// RecoveryGrowth, 1 or more, is the factor by which RecoveryTimeout grows each time a
	// trial fails, until the breaker closes. Default: 1.
	RecoveryGrowth float64 `json:"recovery_growth,omitempty"`
	// MaxRecoveryTimeout bounds the growth. Default: ten times RecoveryTimeout.
	MaxRecoveryTimeout time.Duration `json:"max_recovery_timeout,omitempty"`
	// RecoveryJitter is the part of the recovery time, at most 1, that is random, so that
	// many programs do not try at the same moment. Default: 0.
	RecoveryJitter float64 `json:"recovery_jitter,omitempty"`
	// SuccessThreshold is the number of successful trials that closes it. Default: 3.
	SuccessThreshold int `json:"success_threshold"`
	// TrialSlots is the number of trials that may run at once while it is half-open; at
	// most SuccessThreshold. Default: 1.
	TrialSlots int `json:"trial_slots"`
}

// withDefaults returns a checked copy with its defaults filled in.
func (p BreakerPolicy) withDefaults() (BreakerPolicy, error) {
	checked, v := breaker.Policy(p).Checked()
	return BreakerPolicy(checked), asFieldError("Breaker.", v)
}

// BreakerStats is the state of a breaker at one moment. Reading it never moves the breaker.
type BreakerStats struct {
	// State is the present state, and Since when it began.
	State status.BreakerState `json:"state"`
	Since time.Time           `json:"since"`
	// Reason says why the present state began; empty before the first change.
	Reason string `json:"reason,omitempty"`
	// Forced reports whether it was opened by ForceOpen.
	Forced bool `json:"forced,omitempty"`
	// RetryIn is the time until trials are admitted; zero unless open.
	RetryIn time.Duration `json:"retry_in,omitempty"`
	// ConsecutiveFailures counts the failures since the last success while closed; zero in the other states.
	ConsecutiveFailures int `json:"consecutive_failures"`
	// TrialSuccesses counts the successful trials while half-open, and TrialsInFlight those that have not ended.
	TrialSuccesses int `json:"trial_successes,omitempty"`
	TrialsInFlight int `json:"trials_in_flight,omitempty"`
	// Opened, HalfOpened and Closed count the transitions into each state;
	// Resets counts the resets that closed it, and ForcedOpen the calls of ForceOpen.
	Opened     uint64 `json:"opened"`
	HalfOpened uint64 `json:"half_opened"`
	Closed     uint64 `json:"closed"`
	Resets     uint64 `json:"resets"`
	ForcedOpen uint64 `json:"forced_open"`
	// TimeOpen is the time that it has been open in total, this time included.
	TimeOpen time.Duration `json:"time_open"`
	// LastFailure is the time at which a failure was last counted; zero when none was.
	LastFailure time.Time `json:"last_failure,omitzero"`
	// Policy is the policy in force, defaults filled in.
	Policy BreakerPolicy `json:"policy"`
}

// providerBreaker is the breaker of a provider, with the policies, errors and statistics of
// this package. The states and rules are those of internal/breaker.
type providerBreaker struct{ breaker.Breaker }

func (b *providerBreaker) init(p *provider, policy BreakerPolicy) {
	b.Init(breakerHost{p}, p.registry.schedule, breaker.Policy(policy))
}

// configure changes the policy, and returns the previous one.
func (b *providerBreaker) configure(policy BreakerPolicy) (previous BreakerPolicy, err error) {
	policy, err = policy.withDefaults()
	if err != nil {
		return BreakerPolicy{}, err
	}
	return BreakerPolicy(b.Configure(breaker.Policy(policy))), nil
}

func (b *providerBreaker) forceOpen(openFor time.Duration, reason string) error {
	if openFor <= 0 {
		return invalid("ForceOpen duration", openFor, "more than 0")
	}
	b.ForceOpen(openFor, shortReason(reason))
	return nil
}

func (b *providerBreaker) stats() BreakerStats {
	s := b.Stats()
	return BreakerStats{
		State: s.State, Since: s.Since, Reason: s.Reason, Forced: s.Forced, RetryIn: s.RetryIn,
		ConsecutiveFailures: s.ConsecutiveFailures, TrialSuccesses: s.TrialSuccesses, TrialsInFlight: s.TrialsInFlight,
		Opened: s.Opened, HalfOpened: s.HalfOpened, Closed: s.Closed, Resets: s.Resets, ForcedOpen: s.ForcedOpen,
		TimeOpen: s.TimeOpen, LastFailure: s.LastFailure, Policy: BreakerPolicy(s.Policy),
	}
}

// breakerHost makes the gate and the events of a provider follow its breaker. Its methods
// hold the breaker's lock, and take Registry.mu.
type breakerHost struct{ provider *provider }

func (h breakerHost) MayOpen() bool { return h.provider.tryEject() }

func (h breakerHost) TrialsFull(full bool) {
	var set gate
	if full {
		set = refusal.TrialsFull
	}
	h.provider.changeGate(refusal.TrialsFull, set, nil)
}

func (h breakerHost) StateChanged(c breaker.Change) {
	p := h.provider
	change := event.Event{From: c.From.String(), To: c.To.String(), Reason: c.Reason, Until: c.Until}
	if last := p.last.Load(); last != nil && c.To == breaker.Open && !c.Forced {
		change.Err = last
	}
	var set gate
	var why refusal.Opening
	switch c.To {
	case breaker.Open:
		change.Kind, set = event.BreakerOpened, refusal.Open
		why = refusal.NewOpening(c.Reason, c.Until)
	case breaker.HalfOpen:
		change.Kind, set = event.BreakerHalfOpened, refusal.HalfOpen
	case breaker.Closed:
		change.Kind = event.BreakerClosed
		p.effects.RefillBudget()
	}
	p.registry.mu.Lock()
	defer p.registry.mu.Unlock()
	if !p.hasLeft() { // else gate and reason stay as they were
		p.opening = why
	}
	p.changeGateLocked(refusal.Open|refusal.HalfOpen|refusal.TrialsFull, set, &change)
}

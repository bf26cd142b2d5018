package registry

import (
	"cmp"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/capreg/registry/internal/cooldown"
	"github.com/capreg/registry/internal/fault"
	"github.com/capreg/registry/internal/oneline"
	"github.com/capreg/registry/selection"
	"github.com/capreg/registry/verdict"
)

// Candidate is a provider that a query sees, with the reasons that keep calls away from it now.
type Candidate struct {
	// Provider is its name; Group, Priority, Mock and Handler determine its position in the order.
	Provider string   `json:"provider"`
	Handler  string   `json:"handler,omitempty"`
	Group    int      `json:"group"`
	Priority Priority `json:"priority"`
	Mock     bool     `json:"mock,omitempty"`
	// Strategy is the name of the strategy of its group.
	Strategy string `json:"strategy"`
	// Eligible reports whether a call could be given to it now.
	Eligible bool `json:"eligible"`
	// Code is the reason in one stable word:
	//
	//   - "eligible", or "trial" when the call would be a trial of a half-open breaker;
	//   - what keeps calls away: "closed", "mocks_only", "overridden", "unhealthy",
	//     "starting", "breaker_open", "trial_slots_full", "cooling_down", "parked",
	//     "not_ready", "no_traffic", "at_capacity";
	//   - what the query does not accept: "capability_missing", "capability_out",
	//     "too_expensive", "too_old", "tag_missing", "other_region", "excluded",
	//     "too_slow";
	//   - "throttled", when the rate of the caller is used up, in explanations that of the
	//     query's handler;
	//   - in the error of a call, why that call was turned away: "denied", "retry_budget_spent".
	Code string `json:"code"`
	// Reason is the same in words, without RetryIn; empty when the provider is
	// eligible without a trial. It names all reasons, Code the first.
	Reason string `json:"reason,omitempty"`
	// Breaker is the state of its breaker.
	Breaker BreakerState `json:"breaker"`
	// RetryIn is the time until all that keeps calls away has ended by itself; zero
	// when something does not, or its end is unknown.
	RetryIn time.Duration `json:"retry_in,omitempty"`
	// Detail is the assessment by the strategy of its group, such as a table of
	// factors; nil when the strategy describes nothing. [Resolver.Explain] fills it in.
	Detail *selection.Detail `json:"detail,omitempty"`
	// LastError is the latest error of the provider; see [Info].
	LastError *verdict.LastError `json:"last_error,omitempty"`
	// Err matches the sentinel of every reason present and unwraps to their causes.
	Err error `json:"-"`
}

// String returns the name with the reason, the time until a retry and the strategy's detail.
func (c Candidate) String() string {
	text := c.Provider + ": " + cmp.Or(c.Reason, c.Code)
	if c.RetryIn > 0 {
		text += fmt.Sprintf(", retry in %v", c.RetryIn.Round(time.Millisecond))
	}
	if c.Detail != nil {
		text += "; " + oneline.Of(c.Detail.String())
	}
	return text
}

// code is the reason of a [Candidate] in one stable word. It is an alias because it is public data.
type code = string

// All codes, but for those of Query.Where, which package selection decides on.
const (
	codeEligible      code = "eligible"
	codeTrial         code = "trial" // eligible, in a half-open breaker
	codeClosed        code = "closed"
	codeOverridden    code = "overridden"
	codeMocksOnly     code = "mocks_only"
	codeUnhealthy     code = "unhealthy"
	codeStarting      code = "starting"
	codeOpen          code = "breaker_open"
	codeTrialsFull    code = "trial_slots_full"
	codeCooling       code = "cooling_down"
	codeParked        code = "parked"
	codeNotReady      code = "not_ready"
	codeNoTraffic     code = "no_traffic"
	codeFull          code = "at_capacity"
	codeLacking       code = "capability_missing"
	codeCapabilityOut code = "capability_out"
	codeTooSlow       code = "too_slow"

	// In the error of a call, for a provider that turned this call away.
	codeDenied      code = "denied"
	codeThrottled   code = "throttled"
	codeBudgetSpent code = "retry_budget_spent"
)

// reason is one reason that keeps calls away, as an error that matches its sentinel.
type reason struct {
	sentinel error
	words    string
	cause    error
}

func (r *reason) Error() string { return r.words }

func (r *reason) Unwrap() []error {
	errs := []error{r.sentinel}
	if errors.Is(r.sentinel, ErrCredentials) { // a parked provider cools down, for long
		errs = append(errs, ErrCoolingDown)
	}
	if r.cause != nil {
		errs = append(errs, r.cause)
	}
	return errs
}

// unwanted is the reason why a query does not accept a provider that it sees.
type unwanted struct {
	code code
	what string
	errs []error
}

func (u *unwanted) Error() string   { return u.what }
func (u *unwanted) Unwrap() []error { return u.errs }

// blocker is a reason that keeps calls away from a provider. It ends by itself after
// retryIn; zero: it does not, or not at a known time.
type blocker struct {
	code    code
	reason  *reason
	retryIn time.Duration
}

// blockers are the reasons in a gate, in the order in which they are reported, each with
// the function that explains it. The functions are called with Registry.mu held.
//
//nolint:gochecknoglobals // a table
var blockers = [...]struct {
	gate    gate
	explain func(p *provider, at time.Time) blocker
}{
	{gateGone, func(*provider, time.Time) blocker {
		return blocker{codeClosed, &reason{ErrClosed, ErrClosed.Error(), nil}, 0}
	}},
	{gateHidden, func(p *provider, _ time.Time) blocker {
		hidden := p.service.hides(p)
		return blocker{hidden.code, &reason{ErrUnavailable, hidden.String(), nil}, 0}
	}},
	{gateNoTraffic, func(*provider, time.Time) blocker {
		return blocker{codeNoTraffic, &reason{ErrUnavailable, "no traffic: its weight is 0", nil}, 0}
	}},
	{gateUnhealthy, func(p *provider, _ time.Time) blocker {
		_, text, cause := p.stateLocked()
		if because := p.because(); len(because) > 0 {
			text += "; because " + strings.Join(because, ", ")
		}
		return blocker{codeUnhealthy, &reason{ErrUnhealthy, fmt.Sprintf("%v: %s", ErrUnhealthy, text), cause}, 0}
	}},
	{gateUnproven, func(p *provider, _ time.Time) blocker {
		text, next, cause := p.whyUnproven()
		return blocker{codeStarting, &reason{ErrNotReady, fmt.Sprintf("%v: %s", ErrNotReady, text), cause}, next}
	}},
	{gateOpen, func(p *provider, at time.Time) blocker {
		return blocker{codeOpen, p.opening.why, max(p.opening.until.Sub(at), 0)}
	}},
	{gateTrialsFull, func(*provider, time.Time) blocker {
		return blocker{codeTrialsFull, &reason{ErrBreakerOpen, "breaker half-open, all trial slots taken", nil}, 0}
	}},
	{gateCooling, func(p *provider, at time.Time) blocker {
		code, sentinel, cooling := codeCooling, ErrCoolingDown, p.cooldownNow()
		if cooling.State() == cooldown.Parked {
			code, sentinel = codeParked, ErrCredentials
		}
		words := fmt.Sprintf("%v (%v)", sentinel, cooling.Class())
		return blocker{code, &reason{sentinel, words, cooling.Cause()}, max(cooling.Until().Sub(at), 0)}
	}},
	{gateNotReady, func(p *provider, at time.Time) blocker {
		words := fmt.Sprintf("%v: %s", ErrNotReady, p.notReady.Text)
		return blocker{codeNotReady, &reason{ErrNotReady, words, p.notReady.Err}, max(p.notReady.Until.Sub(at), 0)}
	}},
}

// describeLocked fills in c, which is zero. Nothing else puts a gate into words.
func describeLocked(c *Candidate, p *provider, at time.Time) {
	now := p.gateNow()
	c.Provider, c.Handler, c.Group = p.name(), p.definition.Handler, p.group.Number
	c.Priority, c.Mock, c.Breaker = p.definition.Priority, p.shownAsMock(), now.breaker()
	c.Strategy, c.LastError = p.group.Strategy.String(), p.last.Load()
	switch blocked := now & gateBlocked; {
	case blocked == gateOpen: // by far the most frequent refusal: its words are ready
		c.Code, c.Reason, c.Err = codeOpen, p.opening.why.words, p.opening.err
		c.RetryIn = max(p.opening.until.Sub(at), 0)
	case blocked != 0:
		describeBlockersLocked(c, p, blocked, at)
	case now&gateHalfOpen != 0:
		c.Eligible, c.Code, c.Reason = true, codeTrial, "breaker half-open: the call would be a trial"
	default:
		c.Eligible, c.Code = true, codeEligible
	}
}

// describeBlockersLocked fills in all reasons that keep calls away.
func describeBlockersLocked(c *Candidate, p *provider, blocked gate, at time.Time) {
	var reasons []error
	endless := false // a reason does not end by itself
	for _, row := range blockers {
		if blocked&row.gate == 0 {
			continue
		}
		b := row.explain(p, at)
		if len(reasons) == 0 {
			c.Code, c.Reason = b.code, b.reason.words
		} else {
			c.Reason += ", " + b.reason.words
		}
		reasons = append(reasons, b.reason)
		c.RetryIn = max(c.RetryIn, b.retryIn) // all of them have to end
		endless = endless || b.retryIn == 0
	}
	c.Err = fault.Join("", reasons)
	if endless {
		c.RetryIn = 0
	}
}

// refusedCandidate returns the provider as a candidate that turned a call away although it looked eligible.
func refusedCandidate(p *provider, code code, why *reason, retryIn time.Duration) Candidate {
	p.registry.mu.Lock()
	defer p.registry.mu.Unlock()
	return Candidate{
		Provider: p.name(), Handler: p.definition.Handler, Group: p.group.Number, Priority: p.definition.Priority,
		Mock: p.shownAsMock(), Strategy: p.group.Strategy.String(), Breaker: p.gateNow().breaker(), LastError: p.last.Load(),
		Code: code, Reason: why.words, RetryIn: retryIn, Err: why,
	}
}

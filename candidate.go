package registry

import (
	"cmp"
	"fmt"
	"time"

	"github.com/capreg/registry/internal/cooldown"
	"github.com/capreg/registry/internal/oneline"
	"github.com/capreg/registry/internal/refusal"
	"github.com/capreg/registry/reason"
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
	// Code is the reason in one stable word.
	Code reason.Code `json:"code"`
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
	Err error `json:"error,omitempty"`
}

// String returns the name with the reason, the time until a retry and the strategy's detail.
func (c Candidate) String() string {
	text := c.Provider + ": " + cmp.Or(c.Reason, string(c.Code))
	if c.RetryIn > 0 {
		text += fmt.Sprintf(", retry in %v", c.RetryIn.Round(time.Millisecond))
	}
	if c.Detail != nil {
		text += "; " + oneline.Of(c.Detail.String())
	}
	return text
}

// setStanding sets the fields that say how the provider stands to the query.
func setStanding(c *Candidate, s *refusal.Standing) {
	c.Eligible, c.Code, c.Reason, c.RetryIn, c.Err = s.Eligible, s.Code, s.Words, s.RetryIn, s.Err
}

// standingOf returns those fields.
func standingOf(c *Candidate) refusal.Standing {
	return refusal.Standing{Eligible: c.Eligible, Code: c.Code, Words: c.Reason, RetryIn: c.RetryIn, Err: c.Err}
}

// refuseFor makes the reason the only one. It ends by itself after retryIn.
func refuseFor(c *Candidate, why *refusal.Reason, retryIn time.Duration) {
	var s refusal.Standing
	s.Refuse(why, retryIn)
	setStanding(c, &s)
}

// soonest returns the time until a retry is worthwhile; zero when that is now, or never by itself.
func soonest(candidates []Candidate) time.Duration {
	return refusal.Soonest(candidates, func(c *Candidate) (bool, time.Duration) { return c.Eligible, c.RetryIn })
}

// facts lets package refusal ask why a provider gets no call. Its methods are called with Registry.mu held.
type facts struct{ provider *provider }

// HiddenBy may be asked within the step that ends what hides the provider, before the gate follows.
func (f facts) HiddenBy() *refusal.Reason {
	if why := f.provider.service.hides(f.provider); why != nil {
		return why
	}
	return refusal.Replaced()
}

func (f facts) Health() (text string, because []string, cause error) {
	_, text, cause = f.provider.stateLocked()
	return text, f.provider.because(), cause
}

func (f facts) Proof() (text string, next time.Duration, cause error) {
	return f.provider.whyUnproven()
}
func (f facts) Opening() *refusal.Opening    { return &f.provider.opening }
func (f facts) Cooldown() *cooldown.Cooldown { return f.provider.cooldownNow() }

func (f facts) Factory() (text string, until time.Time, cause error) {
	failed := &f.provider.notReady
	return failed.Text, failed.Until, failed.Err
}

// describeLocked fills in c, which is zero.
func describeLocked(c *Candidate, p *provider, at time.Time) {
	now := p.gateNow()
	identifyLocked(c, p, now)
	if now&gateBlocked == gateOpen { // by far the most frequent refusal: its words are ready
		c.Code, c.Reason, c.RetryIn, c.Err = p.opening.Refusal(at)
		return
	}
	s := refusal.Of(now, facts{p}, at)
	setStanding(c, &s)
}

// identifyLocked fills in which provider it is, and the state of its breaker.
func identifyLocked(c *Candidate, p *provider, now gate) {
	c.Provider, c.Handler, c.Group = p.name(), p.definition.Handler, p.group.Number
	c.Priority, c.Mock, c.Breaker = p.definition.Priority, p.shownAsMock(), BreakerState(now.Breaker())
	c.Strategy, c.LastError = p.group.Strategy.String(), p.last.Load()
}

// refusedCandidate returns the provider as a candidate that turned a call away although it looked eligible.
func refusedCandidate(p *provider, why *refusal.Reason, retryIn time.Duration) (c Candidate) {
	p.registry.mu.Lock()
	defer p.registry.mu.Unlock()
	identifyLocked(&c, p, p.gateNow())
	refuseFor(&c, why, retryIn)
	return c
}

package registry

import (
	"cmp"
	"fmt"
	"time"

	"github.com/capreg/registry/internal/cooldown"
	"github.com/capreg/registry/internal/oneline"
	"github.com/capreg/registry/internal/refusal"
	"github.com/capreg/registry/internal/sight"
	"github.com/capreg/registry/reason"
	"github.com/capreg/registry/selection"
	"github.com/capreg/registry/status"
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
	// Reason names all reasons in words, where Code names the first, without RetryIn. It is empty when the provider
	// is eligible without a trial.
	Reason string `json:"reason,omitempty"`
	// Breaker is the state of its breaker.
	Breaker status.BreakerState `json:"breaker"`
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

// candidateOf returns the provider as a look-up saw it.
func candidateOf(s *sight.Seen) Candidate {
	return Candidate{
		Provider: s.Provider, Handler: s.Handler, Group: s.Group, Priority: Priority(s.Priority), Mock: s.Mock,
		Strategy: s.Strategy, Eligible: s.Eligible, Code: s.Code, Reason: s.Words, Breaker: s.Breaker,
		RetryIn: s.RetryIn, LastError: s.LastError, Err: s.Err,
	}
}

// candidatesOf returns a list that is the caller's.
func candidatesOf(o *sight.Sight) []Candidate {
	all, n := make([]Candidate, o.Len()), 0
	for seen := range o.All() {
		all[n] = candidateOf(seen)
		n++
	}
	return all[:n]
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
	_, text, cause = f.provider.health.State(f.provider.hasLeft())
	return text, f.provider.because(), cause
}

func (f facts) Proof() (text string, next time.Duration, cause error) {
	return f.provider.health.Watch.WhyUnproven()
}
func (f facts) Opening() *refusal.Opening    { return &f.provider.opening }
func (f facts) Cooldown() *cooldown.Cooldown { return f.provider.cooldownNow() }

func (f facts) Factory() (text string, until time.Time, cause error) {
	failed := &f.provider.notReady
	return failed.Text, failed.Until, failed.Err
}

// recordLocked returns how the provider stands now. All that look share it until the next change. Caller holds
// Registry.mu.
func recordLocked(p *provider) *sight.Record {
	if r := p.record; r != nil && p.recordedAt == p.service.version && (!r.Depends || p.health.causesAt == p.registry.causes.Load()) {
		return r
	}
	gate, at := p.gateNow(), time.Now()
	r := &sight.Record{
		Who: whoLocked(p, gate), Standing: refusal.Of(gate, facts{p}, at), Gate: gate, Last: p.last,
		Depends: gate&refusal.Unhealthy != 0 && len(p.definition.Requires) > 0,
		Profile: profileOf(&p.definition), MatchesAny: p.matchesAny,
	}
	if r.Fix(at); p.health.Watch.Active() {
		r.NoteOutages(p.outage)
	}
	p.record, p.recordedAt = r, p.service.version
	return r
}

// renewRecord notes that what keeps calls away from the provider, or its words, have changed. Caller holds
// Registry.mu.
func renewRecord(p *provider) {
	p.record = nil
	p.registry.views.Change(&p.seen)
	for _, at := range p.positions {
		if board := at.plan.board.Load(); board != nil {
			board.Set(at.at, recordLocked(p))
		}
	}
}

// whoLocked returns which provider it is, and the state of its breaker.
func whoLocked(p *provider, now gate) sight.Who {
	return sight.Who{
		Provider: p.name(), Handler: p.definition.Handler, Group: p.group.Number, Priority: int8(p.definition.Priority),
		Mock: p.shownAsMock(), Breaker: now.Breaker(), Strategy: p.group.Strategy.String(), LastError: p.last.Load(),
	}
}

// refusedNow returns the provider as one that turned a call away although it looked eligible.
func refusedNow(p *provider, why *refusal.Reason, retryIn time.Duration) (c sight.Seen) {
	p.registry.mu.Lock()
	defer p.registry.mu.Unlock()
	c.Who = whoLocked(p, p.gateNow())
	c.Refuse(why, retryIn)
	return c
}

package registry

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/capreg/registry/internal/bitset"
	"github.com/capreg/registry/internal/fault"
	"github.com/capreg/registry/internal/oneline"
	"github.com/capreg/registry/internal/pick"
	"github.com/capreg/registry/selection"
)

// Candidate is a provider that a query sees, and whether it could be picked now.
type Candidate struct {
	// Provider is its name; Group, Priority, Mock and Handler are its place in
	// the order.
	Provider string   `json:"provider"`
	Handler  string   `json:"handler,omitempty"`
	Group    int      `json:"group"`
	Priority Priority `json:"priority"`
	Mock     bool     `json:"mock,omitempty"`
	// Strategy is how its group picks.
	Strategy string `json:"strategy"`
	// Eligible says whether a call could enter it now.
	Eligible bool `json:"eligible"`
	// Code is the reason in one stable word: "eligible", "trial", or what keeps
	// calls away: "closed", "mocks_only", "overridden", "capability_missing", "unhealthy",
	// "breaker_open", "trial_slots_full", "cooling_down", "parked", "not_ready"; what the query
	// does not want: "too_expensive", "too_old", "tag_missing", "other_region",
	// "excluded", "too_slow".
	Code string `json:"code"`
	// Reason is the same in words, without RetryIn; empty when the provider is
	// simply eligible.
	Reason string `json:"reason,omitempty"`
	// Breaker is the state of its breaker.
	Breaker BreakerState `json:"breaker"`
	// RetryIn is the time until what keeps calls away ends by itself; zero when
	// nothing does, or nobody knows.
	RetryIn time.Duration `json:"retry_in,omitempty"`
	// Detail is what the strategy of its group thinks of it, such as a table of
	// factors; nil where it says nothing. [Resolver.Explain] asks for it.
	Detail *selection.Detail `json:"detail,omitempty"`
	// Err matches the sentinel of every reason present and unwraps to their causes.
	Err error `json:"-"`
}

// String returns the name with the reason and the time, and what the strategy thinks
// of it.
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

// Explanation is the answer to "who would get the next call, and why not the
// others?". It is made by what picks and changes nothing.
type Explanation struct {
	// Service and Query are what was asked.
	Service string `json:"service"`
	Query   Query  `json:"query"`
	// Winner is who the next call would enter first, if only as a last resort; empty
	// when nobody.
	Winner string `json:"winner"`
	// Candidates are the providers in the order of the plan, then those that the
	// query sees but does not want.
	Candidates []Candidate `json:"candidates"`
	// Err is why the service as a whole has nothing to give: a bad query, an
	// unknown service, a registry that is closed.
	Err error `json:"-"`
}

// String returns the explanation as a small table, one candidate a line.
func (e Explanation) String() string {
	var text strings.Builder
	fmt.Fprintf(&text, "service %q%s", e.Service, e.Query)
	if e.Err != nil {
		fmt.Fprintf(&text, ": %v", e.Err)
	}
	for _, c := range e.Candidates {
		mark := " "
		if c.Provider == e.Winner {
			mark = "▶"
		}
		fmt.Fprintf(&text, "\n%s group %d %-8v %s", mark, c.Group, c.Priority, c)
		if c.Handler != "" {
			fmt.Fprintf(&text, " (of handler %s)", c.Handler)
		}
		if c.Mock {
			text.WriteString(" (mock)")
		}
	}
	return text.String()
}

// MarshalJSON adds the text of Err, as "error".
func (e Explanation) MarshalJSON() ([]byte, error) {
	type plain Explanation
	marked := struct {
		plain

		Error string `json:"error,omitempty"`
	}{plain: plain(e)}
	if e.Err != nil {
		marked.Error = e.Err.Error()
	}
	return json.Marshal(marked)
}

// Explain says who the next call would enter first, and for each other
// candidate why it is not the one. It uses what picks and changes nothing.
func (r *Resolver[T]) Explain() Explanation {
	slot, err := r.bound()
	if err != nil {
		e := Explanation{Candidates: []Candidate{}, Err: err}
		if r != nil && r.query != nil {
			e.Service, e.Query = r.service, r.query.clone()
		}
		return e
	}
	return slot.explain(false, pick.Caller{Key: r.key, Name: slot.query.Handler})
}

// explain collects the candidates; steady leaves trials out, as Get does.
func (s *queryPlan) explain(steady bool, by pick.Caller) Explanation {
	plan := s.current()
	eligible := plan.Admitting
	if steady {
		eligible = plan.Healthy
	}
	e := Explanation{Service: s.service.name, Query: s.query.clone()}
	e.Query.Key = by.Key
	winner := plan.free(eligible, by)
	if winner == nil && !steady && !plan.AnyEligible(eligible) { // who is full would be waited for
		winner = plan.lastResort(func(*provider) bool { return true })
	}
	if winner != nil {
		e.Winner = winner.name()
	}
	e.Candidates, e.Err = s.survey(plan, eligible, steady, by)
	return e
}

// survey returns the candidates, or why there are none.
func (s *queryPlan) survey(plan *plan, eligible *bitset.Set, steady bool, by pick.Caller) ([]Candidate, error) {
	seen := s.inSight(plan, steady)
	if len(seen) == 0 {
		return seen, s.service.emptiness()
	}
	if plan.NeedsCaller() {
		plan.detail(seen, eligible, by)
	}
	return seen, nil
}

// free returns who would be entered first: the first one with a place free.
func (p *plan) free(eligible *bitset.Set, by pick.Caller) *provider {
	ahead := p.iterate(eligible)
	ahead.Mode = pick.Preview
	for next := ahead.next(&by); next != nil; next = ahead.next(&by) {
		if !next.full() {
			return next
		}
	}
	return nil
}

var errNoneInSight = errors.New("no provider that this handler sees")

// emptiness says why a query sees no provider at all.
func (s *service) emptiness() error {
	s.registry.mu.Lock()
	defer s.registry.mu.Unlock()
	switch {
	case s.registry.closing:
		return ErrClosed
	case len(s.members) > 0:
		return errNoneInSight
	}
	return ErrUnknownService
}

// inSight returns the plan's candidates followed by the providers that the
// query sees but does not want, all as they are at one moment.
func (s *queryPlan) inSight(p *plan, steady bool) []Candidate {
	s.service.registry.mu.Lock()
	defer s.service.registry.mu.Unlock()
	now := s.service.registry.epoch.Add(s.service.registry.now()) // cheaper than time.Now
	seen := make([]Candidate, len(p.candidates))
	for i, candidate := range p.candidates {
		s.describe(&seen[i], candidate, now, steady)
	}
	if !s.selective {
		return seen // nobody is in sight who lacks something
	}
	var unwanted []Candidate
	for _, scope := range s.service.scopes(s.query) {
		for _, other := range scope {
			if s.service.mismatch(other, s.query) != nil {
				var c Candidate
				s.describe(&c, other, now, steady)
				unwanted = append(unwanted, c)
			}
		}
	}
	return slices.Concat(seen, unwanted)
}

// describe says whether the slot's query would be given p. Caller holds Registry.mu.
func (s *queryPlan) describe(c *Candidate, p *provider, now time.Time, steady bool) {
	p.describe(c, now)
	if !c.Eligible && !s.selective {
		return // there is nothing that it could lack
	}
	if mismatch := s.service.mismatch(p, s.query); mismatch != nil {
		c.Eligible, c.Code, c.Reason, c.RetryIn, c.Err = false, mismatch.code, mismatch.Error(), 0, mismatch
	} else if !steady && c.Eligible && p.full() {
		c.Eligible, c.Code, c.Reason, c.Err = false, codeFull, ErrAtCapacity.Error(), &reason{ErrAtCapacity, ErrAtCapacity.Error(), nil}
	} else if steady && c.Code == codeTrial {
		c.Eligible, c.Err = false, &reason{ErrBreakerOpen, "breaker half-open: only calls are trials", nil}
		c.Code, c.Reason = codeOpen, c.Err.Error()
	}
}

// unwanted is a provider that a query sees but does not want.
type unwanted struct {
	code string
	what string
	errs []error
}

func (u *unwanted) Error() string   { return u.what }
func (u *unwanted) Unwrap() []error { return u.errs }

// mismatch says why a query does not want a provider; nil when it does. Caller
// holds Registry.mu.
func (s *service) mismatch(p *provider, q Query) *unwanted {
	if lacking := p.missing(q.Require); lacking != "" {
		return &unwanted{codeLacking, fmt.Sprintf("%v: %q", ErrNoCapability, oneline.Cut(lacking, 64)), []error{ErrNoCapability}}
	}
	if !q.Where.IsZero() && !p.anything {
		profile := p.profile()
		if code, words := q.Where.Unmet(&profile); code != "" {
			return &unwanted{code, words, []error{selection.ErrUnmet}}
		}
	}
	return p.outage(q.Require)
}

// detail adds what the selectors of the plan think of their candidates, and who is too
// slow for the query.
func (p *plan) detail(candidates []Candidate, eligible *bitset.Set, by pick.Caller) {
	for i := range p.candidates {
		if latency, bound, retryIn, slow := p.TooSlow(i); slow {
			tooSlow(&candidates[i], latency, bound, retryIn)
		}
		candidates[i].Detail = p.Describe(i, eligible, &by)
	}
}

// tooSlow says of a candidate that it has lately taken longer than the query wants.
func tooSlow(c *Candidate, latency, bound, retryIn time.Duration) {
	words := fmt.Sprintf("latency %v, more than %v", latency.Round(time.Microsecond), bound)
	why := &reason{selection.ErrUnmet, words, nil}
	if c.Eligible {
		c.Eligible, c.Code, c.Reason, c.Err, c.RetryIn = false, "too_slow", words, why, retryIn
		return
	}
	c.Reason, c.Err = c.Reason+", "+words, fault.Join("", []error{c.Err, why})
	if c.RetryIn > 0 { // both have to end
		c.RetryIn = max(c.RetryIn, retryIn)
	}
}

// reason is one thing that keeps calls away: the sentinel, the words and the cause.
type reason struct {
	sentinel error
	words    string
	cause    error
}

func (r *reason) Error() string { return r.words }

func (r *reason) Unwrap() []error {
	errs := []error{r.sentinel}
	if errors.Is(r.sentinel, ErrCredentials) { // to be parked is to cool down, for long
		errs = append(errs, ErrCoolingDown)
	}
	if r.cause != nil {
		errs = append(errs, r.cause)
	}
	return errs
}

const notAMock = "is no mock, and only mocks are picked"

// Codes of candidates that the registry itself looks at again.
const (
	codeTrial         = "trial"
	codeOpen          = "breaker_open"
	codeParked        = "parked"
	codeLacking       = "capability_missing"
	codeFull          = "at_capacity"
	codeCapabilityOut = "capability_out"
	codeMocksOnly     = "mocks_only"
	codeOverridden    = "overridden"
)

// describe fills in c, which is zero. It is the one place where a gate is put into
// words. Caller holds Registry.mu.
func (p *provider) describe(c *Candidate, at time.Time) {
	now := p.gateNow()
	c.Provider, c.Handler, c.Group = p.name(), p.definition.Handler, p.group.key.number
	c.Priority, c.Mock, c.Breaker = p.definition.Priority, p.shownAsMock(), now.breaker()
	c.Strategy = p.group.strategy.String()
	if now&gateBlocked == gateOpen {
		// What is refused most often, by far, has its words ready.
		c.Code, c.Reason, c.Err = codeOpen, p.opening.why.words, p.opening.err
		c.RetryIn = max(p.opening.until.Sub(at), 0)
		return
	}
	c.Eligible, c.Code = now&gateBlocked == 0, "eligible"
	if c.Eligible && now&gateHalfOpen != 0 {
		c.Code, c.Reason = codeTrial, "breaker half-open: the call would be a trial"
	}
	var reasons []error
	endless := false // one of them does not end by itself
	add := func(code string, r *reason, retryIn time.Duration) {
		if len(reasons) == 0 {
			c.Code, c.Reason = code, r.words
		} else {
			c.Reason += ", " + r.words
		}
		reasons = append(reasons, r)
		c.RetryIn = max(c.RetryIn, retryIn) // all of them have to end
		endless = endless || retryIn == 0
	}
	if now&gateGone != 0 {
		add("closed", &reason{ErrClosed, ErrClosed.Error(), nil}, 0)
	}
	if now&gateReal != 0 {
		code, words := codeMocksOnly, p.hidden()
		if words != notAMock {
			code = codeOverridden
		}
		add(code, &reason{ErrUnavailable, words, nil}, 0)
	}
	if now&gateUnhealthy != 0 {
		_, text, cause := p.stateLocked()
		if because := p.because(); len(because) > 0 {
			text += "; because " + strings.Join(because, ", ")
		}
		add("unhealthy", &reason{ErrUnhealthy, fmt.Sprintf("%v: %s", ErrUnhealthy, text), cause}, 0)
	}
	if now&gateUnproven != 0 {
		text, next, cause := p.whyUnproven()
		add("starting", &reason{ErrNotReady, fmt.Sprintf("%v: %s", ErrNotReady, text), cause}, next)
	}
	if now&gateOpen != 0 {
		add(codeOpen, p.opening.why, max(p.opening.until.Sub(at), 0))
	}
	if now&gateTrialsFull != 0 {
		add("trial_slots_full", &reason{ErrBreakerOpen, "breaker half-open, all trial slots taken", nil}, 0)
	}
	if now&gateCooling != 0 {
		code, sentinel, cooling := "cooling_down", ErrCoolingDown, p.cooldownNow()
		if cooling.parked() {
			code, sentinel = codeParked, ErrCredentials
		}
		words := fmt.Sprintf("%v (%v)", sentinel, cooling.class)
		add(code, &reason{sentinel, words, cooling.reason}, max(cooling.until.Sub(at), 0))
	}
	if now&gateNotReady != 0 {
		words := fmt.Sprintf("%v: %s", ErrNotReady, p.unready.text)
		add("not_ready", &reason{ErrNotReady, words, p.unready.err}, max(p.unready.until.Sub(at), 0))
	}
	if len(reasons) > 0 {
		c.Err = fault.Join("", reasons)
	}
	if endless {
		c.RetryIn = 0
	}
}

// unavailable explains why there is nothing to give.
func (s *queryPlan) unavailable(steady bool, by pick.Caller) *UnavailableError {
	plan := s.current()
	eligible := plan.Admitting
	if steady {
		eligible = plan.Healthy
	}
	failure := &UnavailableError{Service: s.service.name, Query: s.query.clone()}
	failure.Query.Key = by.Key
	failure.Candidates, failure.cause = s.survey(plan, eligible, steady, by)
	failure.RetryIn = soonest(failure.Candidates)
	return failure
}

// soonest returns the earliest time worth trying again; zero for now and for
// never by itself.
func soonest(candidates []Candidate) (earliest time.Duration) {
	for i := range candidates {
		c := &candidates[i]
		if c.Eligible {
			return 0
		}
		if c.RetryIn > 0 && (earliest == 0 || c.RetryIn < earliest) {
			earliest = c.RetryIn
		}
	}
	return earliest
}

// unavailableService explains why no provider of a service is eligible.
func (r *Registry) unavailableService(name string) error {
	svc := r.knownService(name)
	if svc == nil {
		return &UnavailableError{Service: name, cause: ErrUnknownService}
	}
	failure := &UnavailableError{Service: name}
	everyone := &queryPlan{service: svc}
	r.mu.Lock()
	members := slices.Collect(maps.Keys(svc.members))
	sortListing(members)
	now := time.Now()
	failure.Candidates = make([]Candidate, len(members))
	for i, p := range members {
		everyone.describe(&failure.Candidates[i], p, now, false)
	}
	r.mu.Unlock()
	if len(members) == 0 {
		failure.cause = svc.emptiness()
	}
	failure.RetryIn = soonest(failure.Candidates)
	return failure
}

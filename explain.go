package registry

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/capreg/registry/internal/bitset"
	"github.com/capreg/registry/internal/pick"
	"github.com/capreg/registry/internal/refusal"
	"github.com/capreg/registry/reason"
)

// Explanation reports which provider the next call would try first, and why not the
// others. It comes from the code that picks, and changes nothing.
type Explanation struct {
	// Service and Query identify the look-up that is explained.
	Service string `json:"service"`
	Query   Query  `json:"query"`
	// Winner is the name of the provider that the next call would try first, if only as a last resort; "": none.
	Winner string `json:"winner"`
	// Candidates are the providers in the order of the plan, then those that the query sees but does not accept.
	Candidates []Candidate `json:"candidates"`
	// Err is set when there are no candidates at all: a bad query, an unknown service, a closed registry.
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
		if c.LastError != nil {
			fmt.Fprintf(&text, "; last error at %s: %v", c.LastError.Time.Format(time.TimeOnly), c.LastError)
		}
	}
	return text.String()
}

// MarshalJSON returns the explanation with the text of Err as "error".
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

// Explain reports which provider the next call would try first, and for each other candidate why not that one. It
// changes nothing and records nothing. It asks strategies that are a [selection.Describer] for details.
func (r *Resolver[T]) Explain() Explanation {
	query, err := r.bound()
	if err != nil {
		e := Explanation{Candidates: []Candidate{}, Err: err}
		if r != nil && r.query != nil {
			e.Service, e.Query = r.service, r.query.clone()
		}
		return e
	}
	return query.explain(admitting, pick.Caller{Key: r.key, Name: query.query.Handler})
}

// explain collects the candidates; healthy leaves out trials, as Get does.
func (s *queryPlan) explain(want condition, by pick.Caller) Explanation {
	plan := s.current()
	eligible := want.of(plan)
	e := Explanation{Service: s.service.name, Query: s.query.clone()}
	e.Query.Key = by.Key
	winner := plan.firstFree(eligible, by)
	if winner == nil && want == admitting && !plan.AnyEligible(eligible) { // a full one would be waited for
		winner = plan.lastResort(&by, pick.Preview, func(*provider) bool { return true })
	}
	if winner != nil {
		e.Winner = winner.name()
	}
	e.Candidates, e.Err = s.survey(plan, want, by)
	if want == admitting {
		plan.markThrottled(e.Candidates, by)
	}
	return e
}

// markThrottled marks candidates that the caller's rate keeps away.
func (p *plan) markThrottled(candidates []Candidate, by pick.Caller) {
	for i := range min(len(p.candidates), len(candidates)) {
		c := &candidates[i]
		retryIn := p.candidates[i].limits.Load().RetryIn(by.Name)
		if retryIn > 0 && (c.Eligible || c.Code == reason.AtCapacity) {
			refuseFor(c, refusal.Throttled(), retryIn)
		}
	}
}

// survey returns the candidates, or the reason why there are none.
func (s *queryPlan) survey(plan *plan, want condition, by pick.Caller) ([]Candidate, error) {
	seen := s.visible(plan, want)
	if len(seen) == 0 {
		return seen, s.service.whyEmpty()
	}
	if plan.NeedsCaller() {
		plan.addDetails(seen, want.of(plan), by)
	}
	return seen, nil
}

// firstFree returns the first provider with a free place and an attempt left of the caller's rate.
func (p *plan) firstFree(eligible *bitset.Set, by pick.Caller) *provider {
	rest := p.Iterate(eligible)
	rest.Mode = pick.Preview
	for i := rest.Next(&by); i >= 0; i = rest.Next(&by) {
		if limits := p.candidates[i].limits.Load(); !limits.Full() && limits.RetryIn(by.Name) == 0 {
			return p.candidates[i]
		}
	}
	return nil
}

var errNoneVisible = errors.New("no provider is visible to this handler")

// whyEmpty returns the reason why a query sees no provider at all.
func (s *service) whyEmpty() error {
	s.registry.mu.Lock()
	defer s.registry.mu.Unlock()
	switch {
	case s.registry.closing:
		return ErrClosed
	case len(s.members) > 0:
		return errNoneVisible
	}
	return ErrUnknownService
}

// visible returns the plan's candidates followed by the providers that the query sees
// but does not accept, all at one moment.
func (s *queryPlan) visible(p *plan, want condition) []Candidate {
	s.service.registry.mu.Lock()
	defer s.service.registry.mu.Unlock()
	now := s.service.registry.epoch.Add(s.service.registry.now()) // cheaper than time.Now
	seen := make([]Candidate, len(p.candidates))
	for i, candidate := range p.candidates {
		s.describe(&seen[i], candidate, now, want)
	}
	if !s.selective {
		return seen // there are no others
	}
	var unwanted []Candidate
	for _, scope := range s.service.scopes(s.query) {
		for _, other := range scope {
			if s.service.mismatch(other, s.query) != nil {
				var c Candidate
				s.describe(&c, other, now, want)
				unwanted = append(unwanted, c)
			}
		}
	}
	return slices.Concat(seen, unwanted)
}

// describe fills in c for the query. Caller holds Registry.mu.
func (s *queryPlan) describe(c *Candidate, p *provider, now time.Time, want condition) {
	describeLocked(c, p, now)
	if !c.Eligible && !s.selective {
		return // the query accepts every provider
	}
	if mismatch := s.service.mismatch(p, s.query); mismatch != nil {
		refuseFor(c, mismatch, 0)
	} else if want == admitting && c.Eligible && p.full() {
		refuseFor(c, refusal.Full(), 0)
	} else if want == healthy && c.Code == reason.Trial {
		refuseFor(c, refusal.OnlyTrials(), 0)
	}
}

// mismatch returns the reason why a query does not accept a provider; nil when it does.
func (*serviceState) mismatch(p *provider, q Query) *refusal.Reason {
	if lacking := p.missing(q.Require); lacking != "" {
		return refusal.Lacking(lacking)
	}
	if len(q.Only) > 0 && !p.matchesAny && !slices.Contains(q.Only, p.name()) {
		return refusal.Unmet(reason.Excluded, "not among those that the query names")
	}
	if !q.Where.IsZero() && !p.matchesAny {
		profile := profileOf(&p.definition)
		if code, words := q.Where.Unmet(&profile); code != "" {
			return refusal.Unmet(code, words)
		}
	}
	return p.outage(q.Require)
}

// addDetails adds the details of the selectors of the plan, and marks candidates that are too slow for the query.
func (p *plan) addDetails(candidates []Candidate, eligible *bitset.Set, by pick.Caller) {
	for i := range p.candidates {
		if latency, bound, retryIn, slow := p.TooSlow(i); slow {
			standing := standingOf(&candidates[i])
			standing.RefuseTooSlow(latency, bound, retryIn)
			setStanding(&candidates[i], &standing)
		}
		candidates[i].Detail = p.Describe(i, eligible, &by)
	}
}

// unavailable returns the error of a look-up that found no eligible provider.
func (s *queryPlan) unavailable(want condition, by pick.Caller) *UnavailableError {
	plan := s.current()
	failure := &UnavailableError{Service: s.service.name, Query: s.query.clone()}
	failure.Query.Key = by.Key
	failure.Candidates, failure.cause = s.survey(plan, want, by)
	failure.RetryIn = soonest(failure.Candidates)
	return failure
}

// unavailableService returns the error of a service without an eligible provider.
func (r *Registry) unavailableService(name string) error {
	svc := r.knownService(name)
	if svc == nil {
		return &UnavailableError{Service: name, cause: ErrUnknownService}
	}
	failure := &UnavailableError{Service: name}
	anyQuery := &queryPlan{service: svc}
	r.mu.Lock()
	members := slices.Collect(maps.Keys(svc.members))
	sortListing(members)
	now := time.Now()
	failure.Candidates = make([]Candidate, len(members))
	for i, p := range members {
		anyQuery.describe(&failure.Candidates[i], p, now, admitting)
	}
	r.mu.Unlock()
	if len(members) == 0 {
		failure.cause = svc.whyEmpty()
	}
	failure.RetryIn = soonest(failure.Candidates)
	return failure
}

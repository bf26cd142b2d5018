package registry

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/capreg/registry/internal/bitset"
	"github.com/capreg/registry/internal/fault"
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
	// Winner is the name of the provider that the next call would try first without a wait; "": none. Of several last
	// resorts it may be another one than the call's, where a provider turns the call away.
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
// changes nothing and records nothing. It asks strategies that are a [selection.Describer] for details. The call that
// it explains has no options, and a context without values; see [Resolver.ExplainFor].
func (r *Resolver[T]) Explain() Explanation { return r.ExplainFor(context.Background()) }

// ExplainFor is [Resolver.Explain] for a call with that context and these options: strategies and [Options.Authorize]
// see the values of the context, rates and Authorize count for the [Caller], and a context that has ended is an error,
// in Err. It runs Authorize for each candidate that nothing else keeps away, and blocks for that, without a lock. The
// hooks of [Options] are not run.
func (r *Resolver[T]) ExplainFor(ctx context.Context, options ...CallOption) Explanation {
	query, err := r.boundFor(ctx)
	asked, refused := mergeOptions(options)
	if err = cmp.Or(err, refused); err == nil && ctx.Err() != nil {
		err = fault.Join("registry: ", fault.OfContext(ctx))
	}
	if err != nil {
		e := Explanation{Candidates: []Candidate{}, Err: err}
		if r != nil && r.query != nil {
			e.Service, e.Query = r.service, r.query.clone()
		}
		return e
	}
	by := pick.Caller{Context: ctx, Key: r.key, Name: cmp.Or(asked.caller, query.query.Handler)}
	return query.explain(by, query.service.registry.options.Authorize != nil)
}

// explain collects the candidates of a call; authorize asks the authoriser, too.
func (s *queryPlan) explain(by pick.Caller, authorize bool) Explanation {
	plan := s.current()
	e := Explanation{Service: s.service.name, Query: s.query.clone()}
	e.Query.Key = by.Key
	doors := refusal.NewDoors(func(p *provider) (*refusal.Reason, time.Duration) { return turnedAway(p, by, authorize) })
	winner := plan.firstFree(by, doors)
	if winner == nil && !plan.wouldQueue(doors) {
		winner = plan.lastOpen(&by, doors)
	}
	if winner != nil {
		e.Winner = winner.name()
	}
	e.Candidates, e.Err = s.survey(plan, admitting, by)
	for i := range min(len(plan.candidates), len(e.Candidates)) {
		if c := &e.Candidates[i]; c.Eligible || c.Code == reason.AtCapacity {
			if why, retryIn := doors.Refusal(plan.candidates[i]); why != nil {
				refuseFor(c, why, retryIn)
			}
		}
	}
	return e
}

// turnedAway returns what turns the caller away from a provider that looks eligible, in the order of [call.enter].
func turnedAway(p *provider, by pick.Caller, authorize bool) (*refusal.Reason, time.Duration) {
	if authorize {
		if err := authorizedAt(by.Context, by.Name, p); err != nil {
			return refusal.Denied(err), 0
		}
	}
	return refusal.ThrottledFor(p.limits.Load().RetryIn(by.Name))
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

// firstFree returns the first provider with a free place that does not turn the caller away.
func (p *plan) firstFree(by pick.Caller, doors *refusal.Doors[*provider]) *provider {
	rest := p.Iterate(p.Admitting)
	rest.Mode = pick.Preview
	for i := rest.Next(&by); i >= 0; i = rest.Next(&by) {
		if other := p.candidates[i]; !other.full() && doors.Open(other) {
			return other
		}
	}
	return nil
}

// lastOpen returns the last resort that a call would enter first, as [call.tryLastResort] does; nil: none.
func (p *plan) lastOpen(by *pick.Caller, doors *refusal.Doors[*provider]) *provider {
	var passed []*provider
	for mode := pick.Preview; ; mode = pick.Peek {
		best := p.lastResort(by, mode, func(other *provider) bool { return !slices.Contains(passed, other) })
		if best == nil || !best.full() && doors.Open(best) {
			return best
		}
		passed = append(passed, best)
	}
}

// wouldQueue reports whether a call that finds no free place would wait for one.
func (p *plan) wouldQueue(doors *refusal.Doors[*provider]) bool {
	for at := p.Admitting.Next(0, len(p.candidates)); at >= 0; at = p.Admitting.Next(at+1, len(p.candidates)) {
		if other := p.candidates[at]; p.FastEnough(at) && other.limits.Load().Queues() && doors.Open(other) {
			return true
		}
	}
	return false
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

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
	"github.com/capreg/registry/internal/query"
	"github.com/capreg/registry/internal/refusal"
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
	o := s.look(plan, want, nil, &by)
	e.Candidates, e.Err = candidatesOf(&o), o.Cause
	if plan.NeedsCaller() {
		for i := range plan.candidates { // the first ones of the list
			e.Candidates[i].Detail = plan.Describe(i, eligible, &by)
		}
	}
	return e
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

// mismatch returns the reason why a query does not accept a provider; nil when it does.
func (*serviceState) mismatch(p *provider, q Query) *refusal.Reason {
	if lacking := p.missing(q.Require); lacking != "" {
		return refusal.Lacking(lacking)
	}
	if len(q.Only) > 0 && !p.matchesAny && !slices.Contains(q.Only, p.name()) {
		return refusal.NotNamed()
	}
	if !q.Where.IsZero() && !p.matchesAny {
		profile := profileOf(&p.definition)
		if code, words := q.Where.Unmet(&profile); code != "" {
			return refusal.Unmet(code, words)
		}
	}
	return p.outage(q.Require)
}

// unavailable returns the error of a look-up that found no eligible provider. A call has skipped some.
func (s *queryPlan) unavailable(want condition, by pick.Caller, skips []refusal.Seen) *UnavailableError {
	failure := &UnavailableError{Service: s.service.name, Query: s.query.clone()}
	failure.Query.Key = by.Key
	failure.sight = s.look(s.current(), want, skips, nil)
	failure.RetryIn = failure.sight.RetryIn
	return failure
}

// look returns how the candidates of the plan, and the providers that the query sees beside them, stand now. Some were
// skipped by a call. With by, those count as throttled that the rate of the caller keeps away.
func (s *queryPlan) look(plan *plan, want condition, skips []refusal.Seen, by *pick.Caller) refusal.Sight {
	r := s.service.registry
	o := refusal.Sight{At: r.epoch.Add(r.now()), Strict: want == healthy} // cheaper than time.Now
	if s.sees == nil {
		o.View = plan.view(r)
	} else {
		all := s.sees.current()
		r.mu.Lock()
		o.View = plan.viewLocked(r)
		beside := all.viewLocked(r)
		r.mu.Unlock()
		known := s.beside.Load()
		if known == nil || known.plan != all { // which ones it does not accept, and why, changes with the plan only
			known = &unwanted{all, refusal.NewUnwanted((*query.Query)(&s.query), beside)}
			s.beside.Store(known)
		}
		o.Others = known.At(beside)
	}
	var caller *string
	if by != nil {
		caller = &by.Name
	}
	if o.Note(plan, skips, caller); len(o.Codes) == 0 {
		o.Cause = s.service.whyEmpty()
	}
	return o
}

// unwanted has the providers that a query sees in a plan but does not accept.
type unwanted struct {
	plan *plan
	*refusal.Unwanted
}

// Full and the other methods let [refusal.Sight] see what the records of the candidates do not know.
func (p *plan) Full(i int) bool { return p.candidates[i].full() }

// ThrottledFor returns the time until the rate of the caller admits an attempt; zero: now.
func (p *plan) ThrottledFor(i int, caller string) time.Duration {
	return p.candidates[i].limits.Load().RetryIn(caller)
}

// view returns the records of the candidates as they are now, without a lock unless one has changed.
func (p *plan) view(r *Registry) *refusal.View {
	if board := p.board.Load(); board != nil {
		if made := board.Latest(r.causes.Load()); made != nil {
			return made
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return p.viewLocked(r)
}

// viewLocked is view for callers that hold Registry.mu.
func (p *plan) viewLocked(r *Registry) *refusal.View {
	record := func(i int) *refusal.Record { return recordLocked(p.candidates[i]) }
	board := p.board.Load()
	if board == nil {
		board = refusal.NewBoard(len(p.candidates), record)
		p.board.Store(board)
	}
	return board.View(r.causes.Load(), record)
}

// unavailableService returns the error of a service without an eligible provider.
func (r *Registry) unavailableService(name string) error {
	failure := &UnavailableError{Service: name}
	failure.sight.Cause = ErrUnknownService
	if svc := r.knownService(name); svc != nil {
		r.mu.Lock()
		all := &plan{candidates: slices.Collect(maps.Keys(svc.members))}
		sortListing(all.candidates)
		failure.sight = refusal.Sight{At: time.Now(), View: all.viewLocked(r)}
		r.mu.Unlock()
		failure.sight.Note(all, nil, nil)
		if failure.RetryIn = failure.sight.RetryIn; len(all.candidates) == 0 {
			failure.sight.Cause = svc.whyEmpty()
		}
	}
	return failure
}

package registry

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/capreg/registry/internal/fault"
	"github.com/capreg/registry/internal/pick"
	"github.com/capreg/registry/internal/query"
	"github.com/capreg/registry/internal/refusal"
	"github.com/capreg/registry/internal/sight"
	"github.com/capreg/registry/internal/typed"
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
	Err error `json:"error,omitempty"`
}

// String returns the explanation as a small table, one candidate a line.
func (e Explanation) String() string {
	lines := make([]sight.Line, len(e.Candidates))
	for i, c := range e.Candidates {
		lines[i] = sight.Line{
			Picked: c.Provider == e.Winner, Group: c.Group, Priority: c.Priority.String(), Text: c.String(),
			Handler: c.Handler, Mock: c.Mock, LastError: c.LastError,
		}
	}
	return sight.Table(e.Service, e.Query.String(), e.Err, lines)
}

// Explain reports which provider the next call would try first, and the reason against each other candidate. It
// changes nothing and records nothing. It asks strategies that are a [selection.Describer] for details. The call that
// it explains has no options, and a context without values; see [Resolver.ExplainFor].
func (r *Resolver[T]) Explain() Explanation { return r.ExplainFor(context.Background()) }

// ExplainFor is [Resolver.Explain] for a call with that context and these options: strategies and [Options.Authorize]
// see the values of the context, rates and Authorize count for the [Caller], and a context that has ended is an error,
// in Err. It runs Authorize for each candidate that nothing else keeps away, and blocks for that, without a lock. The
// hooks are not run. Within Authorize itself, Authorize is not asked.
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
	by := pick.Caller{Context: ctx, Key: r.key, Name: cmp.Or(asked.Caller, query.query.Handler)}
	// An Authorize that explains would be asked for ever.
	authorize := query.service.registry.options.Authorize != nil && !fault.Inside("registry.authorizedAt")
	return query.explain(by, authorize)
}

// Explain is [Resolver.ExplainFor] for a service that is known by its name only, and a query that is used once. It binds
// nothing; of a name that the registry does not know, Err says so.
func (r *Registry) Explain(ctx context.Context, serviceName string, q Query, options ...CallOption) Explanation {
	kept := q.clone()
	asked := Resolver[any]{service: serviceName, query: &kept, key: q.Key, err: errNotMade()}
	if r.made() {
		svc := cmp.Or(r.knownService(serviceName), newService(r, serviceName, typed.Binding{}))
		asked.plan, asked.err = svc.queryPlan(&q)
	}
	return asked.ExplainFor(ctx, options...)
}

// explain collects the candidates of a call; authorize asks the authoriser, too.
func (s *queryPlan) explain(by pick.Caller, authorize bool) Explanation {
	plan := s.current()
	e := Explanation{Service: s.service.name, Query: s.query.clone()}
	e.Query.Key = by.Key
	doors := refusal.NewDoors(func(p *provider) (*refusal.Reason, time.Duration) { return turnedAway(p, by, authorize) })
	open := func(i int) bool { return doors.Open(plan.candidates[i]) }
	winner := plan.candidate(plan.FirstOpen(&by, plan.Full, open))
	if winner == nil && !plan.AnyOpen(func(i int) bool { return plan.candidates[i].limits.Load().Queues() }, open) {
		winner = plan.lastOpen(&by, doors)
	}
	if winner != nil {
		e.Winner = winner.name()
	}
	o := s.look(plan, admitting, nil, &by)
	e.Candidates, e.Err = candidatesOf(&o), o.Cause
	for i := range min(len(plan.candidates), len(e.Candidates)) { // the first ones of the list
		c := &e.Candidates[i]
		if c.Eligible || c.Code == reason.AtCapacity {
			if why, retryIn := doors.Refusal(plan.candidates[i]); why != nil {
				var standing refusal.Standing
				standing.Refuse(why, retryIn)
				c.Eligible, c.Code, c.Reason, c.RetryIn, c.Err = false, standing.Code, standing.Words, retryIn, standing.Err
			}
		}
		if plan.NeedsCaller() {
			c.Detail = plan.Describe(i, plan.Admitting, &by)
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
func (s *serviceState) mismatch(p *provider, q Query) *refusal.Reason {
	return cmp.Or(s.unmet(p, q), p.outage(q.Require))
}

// unmet is mismatch for a provider whose capabilities all work.
func (*serviceState) unmet(p *provider, q Query) *refusal.Reason {
	if p.matchesAny {
		return nil
	}
	profile := profileOf(&p.definition)
	return sight.Unmet((*query.Query)(&q), &profile)
}

// unavailable returns the error of a look-up that found no eligible provider. A call has skipped some.
func (s *queryPlan) unavailable(want condition, by pick.Caller, skips []sight.Seen) *UnavailableError {
	failure := &UnavailableError{Service: s.service.name, Query: s.query.clone()}
	failure.Query.Key = by.Key
	failure.sight = s.look(s.current(), want, skips, nil)
	failure.RetryIn = failure.sight.RetryIn
	return failure
}

// look returns how the candidates of the plan, and the providers that the query sees beside them, stand now. Some were
// skipped by a call. With by, those count as throttled that the rate of the caller keeps away.
func (s *queryPlan) look(plan *plan, want condition, skips []sight.Seen, by *pick.Caller) sight.Sight {
	o := s.sightOf(plan)
	o.Strict = want == healthy
	var caller *string
	if by != nil {
		caller = &by.Name
	}
	if o.Note(plan, skips, caller); len(o.Codes) == 0 {
		o.Cause = s.service.whyEmpty()
	}
	return o
}

// sightOf is look without what only a look at each eligible candidate tells.
func (s *queryPlan) sightOf(plan *plan) sight.Sight {
	r := s.service.registry
	o := sight.Sight{At: r.epoch.Add(r.now())} // cheaper than time.Now
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
			known = &unwanted{all, sight.NewUnwanted((*query.Query)(&s.query), beside)}
			s.beside.Store(known)
		}
		o.Others = known.At(beside)
	}
	return o
}

// unwanted has the providers that a query sees in a plan but does not accept.
type unwanted struct {
	plan *plan
	*sight.Unwanted
}

// Full and the other methods let [sight.Sight] see what the records of the candidates do not know.
func (p *plan) Full(i int) bool { return p.candidates[i].full() }

// ThrottledFor returns the time until the rate of the caller admits an attempt; zero: now.
func (p *plan) ThrottledFor(i int, caller string) time.Duration {
	return p.candidates[i].limits.Load().RetryIn(caller)
}

// view returns the records of the candidates as they are now, without a lock unless one has changed.
func (p *plan) view(r *Registry) *sight.View {
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
func (p *plan) viewLocked(r *Registry) *sight.View {
	record := func(i int) *sight.Record { return recordLocked(p.candidates[i]) }
	board := p.board.Load()
	if board == nil {
		board = sight.NewBoard(len(p.candidates), record)
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
		failure.sight = sight.Sight{At: time.Now(), View: all.viewLocked(r)}
		r.mu.Unlock()
		failure.sight.Note(all, nil, nil)
		if failure.RetryIn = failure.sight.RetryIn; len(all.candidates) == 0 {
			failure.sight.Cause = svc.whyEmpty()
		}
	}
	return failure
}

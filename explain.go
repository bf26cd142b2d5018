package registry

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/capreg/registry/internal/bitset"
	"github.com/capreg/registry/internal/fault"
	"github.com/capreg/registry/internal/oneline"
	"github.com/capreg/registry/selection"
)

// Explanation reports which provider the next call would try first, and why not the
// others. It comes from the code that picks, and changes nothing.
type Explanation struct {
	// Service and Query identify the look-up that is explained.
	Service string `json:"service"`
	Query   Query  `json:"query"`
	// Winner is the name of the provider that the next call would try first, if only
	// as a last resort; empty when there is none.
	Winner string `json:"winner"`
	// Candidates are the providers in the order of the plan, then those that the
	// query sees but does not accept.
	Candidates []Candidate `json:"candidates"`
	// Err is set when there are no candidates at all: a bad query, an unknown
	// service, a closed registry.
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

// Explain reports which provider the next call would try first, and for each other
// candidate why not that one. It changes nothing and records nothing. It asks strategies
// that are a [selection.Describer] for details.
func (r *Resolver[T]) Explain() Explanation {
	slot, err := r.bound()
	if err != nil {
		e := Explanation{Candidates: []Candidate{}, Err: err}
		if r != nil && r.query != nil {
			e.Service, e.Query = r.service, r.query.clone()
		}
		return e
	}
	return slot.explain(false, asker{key: r.key, caller: slot.query.Handler})
}

// explain collects the candidates; steady leaves out trials, as Get does.
func (s *queryPlan) explain(steady bool, by asker) Explanation {
	plan := s.current()
	eligible := plan.callable
	if steady {
		eligible = plan.steady
	}
	e := Explanation{Service: s.service.name, Query: s.query.clone()}
	e.Query.Key = by.key
	winner := plan.free(eligible, by)
	if winner == nil && !steady && !plan.anyone(eligible) { // a full one would be waited for
		winner = plan.lastResort(func(*provider) bool { return true })
	}
	if winner != nil {
		e.Winner = winner.name()
	}
	e.Candidates, e.Err = s.survey(plan, eligible, steady, by)
	return e
}

// survey returns the candidates, or the reason that there are none.
func (s *queryPlan) survey(plan *plan, eligible *bitset.Set, steady bool, by asker) ([]Candidate, error) {
	seen := s.inSight(plan, steady)
	if len(seen) == 0 {
		return seen, s.service.whyEmpty()
	}
	if plan.wishes != nil {
		plan.detail(seen, eligible, by)
	}
	return seen, nil
}

// free returns the provider that would be tried first: the first one with a free permit.
func (p *plan) free(eligible *bitset.Set, by asker) *provider {
	ahead := p.walk(eligible)
	ahead.still, ahead.silent = true, true
	for next := ahead.next(&by); next != nil; next = ahead.next(&by) {
		if !next.full() {
			return next
		}
	}
	return nil
}

var errNoneVisible = errors.New("no provider is visible to this handler")

// whyEmpty returns the reason that a query sees no provider at all.
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

// inSight returns the plan's candidates followed by the providers that the query sees
// but does not accept, all at one moment.
func (s *queryPlan) inSight(p *plan, steady bool) []Candidate {
	s.service.registry.mu.Lock()
	defer s.service.registry.mu.Unlock()
	now := s.service.registry.epoch.Add(s.service.registry.now()) // cheaper than time.Now
	seen := make([]Candidate, len(p.candidates))
	for i, candidate := range p.candidates {
		s.describe(&seen[i], candidate, now, steady)
	}
	if !s.choosy {
		return seen // there are no others
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

// describe fills in c for the slot's query. Caller holds Registry.mu.
func (s *queryPlan) describe(c *Candidate, p *provider, now time.Time, steady bool) {
	describeLocked(c, p, now)
	if !c.Eligible && !s.choosy {
		return // the query accepts every provider
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

// mismatch returns the reason that a query does not accept a provider; nil when it does.
func (*serviceState) mismatch(p *provider, q Query) *unwanted {
	if lacking := p.missing(q.Require); lacking != "" {
		return &unwanted{codeLacking, fmt.Sprintf("%v: %q", ErrNoCapability, oneline.Cut(lacking, 64)), []error{ErrNoCapability}}
	}
	if !q.Where.IsZero() && !p.matchesAny {
		profile := p.profile()
		if code, words := q.Where.Unmet(&profile); code != "" {
			return &unwanted{code, words, []error{selection.ErrUnmet}}
		}
	}
	return p.outage(q.Require)
}

// detail adds the details of the selectors of the plan, and marks candidates that are too
// slow for the query.
func (p *plan) detail(candidates []Candidate, eligible *bitset.Set, by asker) {
	for at := range p.runs {
		r := &p.runs[at]
		if r.choice == nil {
			continue
		}
		for i := r.low; i < r.high; i++ {
			if !p.inTime(i) {
				tooSlow(&candidates[i], p.slowness(i), p.wishes)
			}
		}
		describer, ok := r.choice.selector.(selection.Describer)
		if !ok {
			continue
		}
		w := p.walk(eligible)
		w.still, w.silent = true, true
		look := selection.Look{Peek: true, Cursor: r.choice.cursor, Epoch: &p.wishes.registry.epoch, Context: by.ctx, Key: by.key, Caller: by.caller}
		if r.high-r.low > maskBits {
			look.Large = w.large(r)
		} else {
			look.Mask = p.allInTime(r.low, eligible.Mask(r.low, r.high-r.low))
		}
		for i := r.low; i < r.high; i++ {
			candidates[i].Detail = detailOf(describer, r.choice.set.View(look), i-r.low)
		}
	}
}

// detailOf returns a selector's detail of candidate i, with numbers that JSON can have;
// nil when the selector fails.
func detailOf(describer selection.Describer, v selection.View, i int) *selection.Detail {
	var d selection.Detail
	if fault.Run(func() error { d = describer.Describe(v, i); return nil }) != nil {
		return nil
	}
	d.Score, d.Factors = finite(d.Score), slices.Clone(d.Factors)
	for k := range d.Factors {
		d.Factors[k].Weight, d.Factors[k].Value = finite(d.Factors[k].Weight), finite(d.Factors[k].Value)
	}
	return &d
}

// finite returns 0 for NaN, and the nearest finite number for an infinite one.
func finite(x float64) float64 {
	if math.IsNaN(x) {
		return 0
	}
	return min(max(x, -math.MaxFloat64), math.MaxFloat64)
}

// tooSlow marks a candidate whose latency exceeds the bound of the query.
func tooSlow(c *Candidate, latency time.Duration, w *wishes) {
	words := fmt.Sprintf("latency %v, more than %v", latency.Round(time.Microsecond), w.maxLatency)
	why := &reason{selection.ErrUnmet, words, nil}
	// A measurement fades with time: latency·exp(−t/decay).
	decay := cmp.Or(w.policy.Decay, selection.DefaultDecay)
	retryIn := time.Duration(float64(decay) * math.Log(float64(latency)/float64(w.maxLatency)))
	if c.Eligible {
		c.Eligible, c.Code, c.Reason, c.Err, c.RetryIn = false, codeTooSlow, words, why, retryIn
		return
	}
	c.Reason, c.Err = c.Reason+", "+words, fault.Join("", []error{c.Err, why})
	if c.RetryIn > 0 { // both reasons have to end
		c.RetryIn = max(c.RetryIn, retryIn)
	}
}

// unavailable returns the error of a look-up that found no eligible provider.
func (s *queryPlan) unavailable(steady bool, by asker) *UnavailableError {
	plan := s.current()
	eligible := plan.callable
	if steady {
		eligible = plan.steady
	}
	failure := &UnavailableError{Service: s.service.name, Query: s.query.clone()}
	failure.Query.Key = by.key
	failure.Candidates, failure.cause = s.survey(plan, eligible, steady, by)
	failure.RetryIn = soonest(failure.Candidates)
	return failure
}

// soonest returns the time until a retry is worthwhile; zero when that is now, or never
// by itself.
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
		anyQuery.describe(&failure.Candidates[i], p, now, false)
	}
	r.mu.Unlock()
	if len(members) == 0 {
		failure.cause = svc.whyEmpty()
	}
	failure.RetryIn = soonest(failure.Candidates)
	return failure
}

package registry

import (
	"slices"
	"sync/atomic"

	"github.com/capreg/registry/internal/choice"
	"github.com/capreg/registry/internal/pick"
	"github.com/capreg/registry/internal/query"
	"github.com/capreg/registry/internal/refusal"
	"github.com/capreg/registry/internal/sight"
)

// plan answers a query as far as membership decides it: the candidates in the one order. It is immutable but for
// the two sets of [pick.Plan], which follow the gates of the candidates while the plan is in force.
type plan struct {
	pick.Plan

	candidates []*provider
	leastBad   bool                        // every candidate may be a last resort
	resorts    bool                        // any candidate may be
	board      atomic.Pointer[sight.Board] // nil before the first refusal
}

// set makes the two sets follow the gate of a candidate. Caller holds Registry.mu.
func (p *plan) set(at int, now gate) { p.Set(at, now == 0, now&refusal.Blocked == 0) }

// position is that of a provider in a plan in force.
type position struct {
	plan *plan
	at   int
}

// queryPlan keeps the plan of one query. A change of membership drops it, and the next lookup builds another.
type queryPlan struct {
	service *service
	query   Query                // normal
	plan    atomic.Pointer[plan] // nil while it is out of date

	kept    pick.Kept[*provider] // guarded by Registry.mu
	sees    *queryPlan           // of all that the query sees; nil: it accepts them all
	beside  atomic.Pointer[unwanted]
	follows bool // it has the plan of a shared one; see [query.Cache]
}

// current returns the plan in force, building it when it is out of date.
func (s *queryPlan) current() *plan {
	if p := s.plan.Load(); p != nil {
		return p
	}
	return s.service.rebuild(s)
}

// drop puts the plan out of force. Caller holds Registry.mu.
func (s *queryPlan) drop() {
	old := s.plan.Swap(nil)
	if old == nil || s.follows {
		return
	}
	for _, p := range old.candidates {
		p.positions = slices.DeleteFunc(p.positions, func(at position) bool { return at.plan == old })
	}
}

// queryPlan checks the query and returns its plan, which equal queries share.
func (s *service) queryPlan(asked *Query) (*queryPlan, error) {
	if asked.Handler != globalHandler {
		if known, ok := s.plans.Find((*query.Query)(asked)); ok {
			return known, nil
		}
	}
	q, err := asked.normal()
	if err != nil {
		return nil, err
	}
	created := &queryPlan{service: s, query: q}
	if (*query.Query)(&q).Selective() {
		created.sees, _ = s.queryPlan(&Query{Handler: q.Handler, OwnOnly: q.OwnOnly}) // its parts are good
	}
	s.registry.mu.Lock()
	defer s.registry.mu.Unlock()
	kept, follows := s.plans.Add((*query.Query)(&created.query), created)
	created.follows = follows
	return kept, nil
}

// outdate puts all plans of the service, and the listing, out of force. Caller holds Registry.mu.
func (s *service) outdate() {
	s.registry.order = nil
	s.plans.Outdate()
	s.sorted = nil
	s.version++
}

// rebuild makes the plan of the query from the present members, or takes that of the queries that share it.
func (s *service) rebuild(target *queryPlan) *plan {
	s.registry.mu.Lock()
	defer s.registry.mu.Unlock()
	built := target.plan.Load()
	if built != nil {
		return built
	}
	candidates := s.candidates(target.query)
	if target.follows {
		built = s.follow(target, candidates)
	} else {
		built = s.build(target, candidates)
	}
	target.plan.Store(built)
	return built
}

// follow returns the plan that target shares with the queries that have the same candidates. Caller holds Registry.mu.
func (s *service) follow(target *queryPlan, candidates []*provider) *plan {
	shared := s.plans.Shared(s.sharedKey(&target.query, candidates), func() *queryPlan {
		created := &queryPlan{service: s, query: target.query.clone()}
		if !slices.ContainsFunc(candidates, func(c *provider) bool { return c.definition.Handler != "" }) {
			created.query.Handler = "" // none is a handler's own
		}
		return created
	})
	s.plans.Follow(target)
	if shared.plan.Load() == nil {
		shared.plan.Store(s.build(shared, candidates))
	}
	return shared.plan.Load()
}

// sharedKey returns what queries have in common that share a plan. Caller holds Registry.mu.
func (s *service) sharedKey(q *Query, candidates []*provider) string {
	seen := s.policy.SpillOver > 0 || q.Where.MaxLatency > 0 || s.registry.decisions != nil
	generations := make([]uint64, len(candidates))
	for i, c := range candidates {
		generations[i], seen = c.generation, seen || c.group.Strategy.Selector() != nil
	}
	return (*query.Query)(q).SharedKey(generations, seen)
}

// candidates returns the candidates of a query in their order. Caller holds Registry.mu.
func (s *service) candidates(q Query) (found []*provider) {
	if s.sorted == nil {
		s.sorted = query.ScopesOf(s.members, func(p *provider) string { return p.definition.Handler }, compareProviders)
	}
	for _, scope := range s.sorted.Of(q.Handler, q.OwnOnly, func(p *provider) bool { return p.matchesAny }) {
		found = append(found, scope...)
	}
	found = slices.DeleteFunc(found, func(c *provider) bool { return s.mismatch(c, q) != nil })
	// Stable: each scope is in the one order already; mocks go behind all the real ones of both scopes.
	slices.SortStableFunc(found, func(a, b *provider) int { return pick.CompareBool(a.mock(), b.mock()) })
	return found
}

// build makes a plan whose sets follow the gates of its candidates from now on. Caller holds Registry.mu.
func (s *service) build(target *queryPlan, candidates []*provider) *plan {
	p := &plan{leastBad: s.policy.LeastBad, candidates: candidates}
	target.kept.Init(&p.Plan, candidates, pick.About[*provider]{
		Rank: rankOf, Vitals: vitalsOf,
		Group:   func(c *provider) *pick.Group { return c.group },
		Profile: func(c *provider) choice.Profile { return profileOf(&c.definition) },
	}, pick.Config{Request: requestOf(&target.query, s.name), Policy: s.policy, Epoch: &s.registry.epoch},
		func(groups []*pick.Group) pick.Hooks { return target.selectorHooks(p, groups) })
	for i, c := range p.candidates {
		p.resorts = p.resorts || p.leastBad || c.definition.LastResort
		c.positions = append(c.positions, position{plan: p, at: i})
		p.set(i, c.gateNow())
	}
	return p
}

// compareProviders orders the providers of a scope; see [pick.Rank].
func compareProviders(a, b *provider) int { return rankOf(a).Compare(rankOf(b)) }

// rankOf returns the position of the provider in the one order. Caller holds Registry.mu.
func rankOf(p *provider) pick.Rank {
	tier := pick.TierKey{GroupID: p.group.GroupID, Mock: p.mock()}
	return pick.Rank{Tier: tier, Priority: p.definition.Priority.Rank(), Sequence: p.order}
}

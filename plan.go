package registry

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/capreg/registry/internal/pick"
	"github.com/capreg/registry/internal/query"
	"github.com/capreg/registry/internal/refusal"
	"github.com/capreg/registry/internal/sight"
	"github.com/capreg/registry/selection"
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

	// The fields below outlive the plans, so that a change of membership restarts nothing. lookups counts those
	// that may spill over. Guarded by Registry.mu.
	rotations map[pick.TierKey]*pick.Rotation
	tracks    map[*provider]*selection.Track
	lookups   *atomic.Uint64
	sees      *queryPlan // of all that the query sees; nil: it accepts them all
	beside    atomic.Pointer[unwanted]
	follows   bool // it has the plan of a shared one; see [query.Cache]
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

// sharedKey returns what queries have in common that share a plan: the candidates and, where a strategy sees the
// query, what rates them. The strategy sees the other words of the first such query. Caller holds Registry.mu.
func (s *service) sharedKey(q *Query, candidates []*provider) string {
	var key strings.Builder
	seen := s.policy.SpillOver > 0 || q.Where.MaxLatency > 0 || s.registry.decisions != nil
	for _, c := range candidates {
		fmt.Fprintf(&key, "%x,", c.generation)
		seen = seen || c.group.Strategy.Selector() != nil
	}
	if seen {
		fmt.Fprintf(&key, "%q %q %v", q.Prefer, q.Near, q.Where.MaxLatency)
	}
	return key.String()
}

// candidates returns the candidates of a query in their order. Caller holds Registry.mu.
func (s *service) candidates(q Query) (found []*provider) {
	for _, scope := range s.scopes(q) {
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
	if s.policy.SpillOver > 0 && target.lookups == nil {
		target.lookups = &atomic.Uint64{}
		if s.policy.Seed == 0 {
			target.lookups.Store(rand.Uint64()) //nolint:gosec // shares, not secrets
		}
	}
	source := planSource{
		target: target, candidates: candidates,
		rotations: make(map[pick.TierKey]*pick.Rotation), tracks: make(map[*provider]*selection.Track),
	}
	tiers := source.tiers()
	p.Init(pick.Config{
		Tiers: tiers, Request: requestOf(&target.query, s.name), Policy: s.policy,
		Lookups: target.lookups, Epoch: &s.registry.epoch, Hooks: target.selectorHooks(p, source.groups),
	}, &source)
	target.rotations, target.tracks = source.rotations, source.tracks
	for i, c := range p.candidates {
		p.resorts = p.resorts || p.leastBad || c.definition.LastResort
		c.positions = append(c.positions, position{plan: p, at: i})
		p.set(i, c.gateNow())
	}
	return p
}

// planSource describes the candidates of a plan while it is built, under Registry.mu, and collects what outlives it.
type planSource struct {
	target     *queryPlan
	candidates []*provider
	cuts       []pick.Cut
	groups     []*pick.Group // the group of each tier
	rotations  map[pick.TierKey]*pick.Rotation
	tracks     map[*provider]*selection.Track
}

// tiers cuts the candidates into the groups that they belong to.
func (b *planSource) tiers() (tiers []pick.Tier) {
	b.cuts = pick.CutTiers(len(b.candidates), func(i int) pick.TierKey { return rankOf(b.candidates[i]).Tier })
	for _, cut := range b.cuts {
		g := b.candidates[cut.First].group
		b.groups = append(b.groups, g)
		tiers = append(tiers, pick.Tier{Size: cut.Size, Strategy: g.Strategy, Scope: cut.Scope, Faults: &g.Faults})
	}
	return tiers
}

// OrderKey implements [pick.Source].
func (b *planSource) OrderKey(candidate int) uint64 { return rankOf(b.candidates[candidate]).Key() }

// Rotation implements [pick.Source] with the rotation of the plan before.
func (b *planSource) Rotation(tier int) *pick.Rotation {
	key := b.cuts[tier].Key
	kept := pick.RotationFor(b.target.rotations[key], b.groups[tier].Strategy, b.target.service.policy.Seed)
	b.rotations[key] = kept
	return kept
}

// Member implements [pick.Source].
func (b *planSource) Member(candidate int, measured bool) selection.Member {
	p := b.candidates[candidate]
	m := selection.Member{Profile: profileOf(&p.definition)}
	if measured {
		track := b.target.tracks[p]
		if track == nil {
			track = &selection.Track{}
		}
		b.tracks[p] = track
		m.Vitals, m.Context = vitalsOf(p), track
	}
	return m
}

// scopes returns the providers that a query sees, whatever their capabilities: the handler's own, then the global
// ones, each in the one order. Caller holds Registry.mu and must not change what it gets.
func (s *service) scopes(q Query) [][]*provider {
	if s.sorted == nil {
		s.sorted = make(map[string][]*provider)
		for p := range s.members {
			handler := p.definition.Handler
			s.sorted[handler] = append(s.sorted[handler], p)
		}
		for _, scope := range s.sorted {
			slices.SortFunc(scope, compareProviders)
		}
	}
	switch {
	case q.Handler == "":
		return [][]*provider{s.sorted[""]}
	case q.OwnOnly:
		return [][]*provider{s.sorted[q.Handler], s.matchAny()}
	default:
		return [][]*provider{s.sorted[q.Handler], s.sorted[""]}
	}
}

// compareProviders orders the providers of a scope; see [pick.Rank].
func compareProviders(a, b *provider) int { return rankOf(a).Compare(rankOf(b)) }

// rankOf returns the position of the provider in the one order. Caller holds Registry.mu.
func rankOf(p *provider) pick.Rank {
	tier := pick.TierKey{GroupID: p.group.GroupID, Mock: p.mock()}
	return pick.Rank{Tier: tier, Priority: p.definition.Priority.Rank(), Sequence: p.order}
}

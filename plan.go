package registry

import (
	"cmp"
	"maps"
	"math/rand/v2"
	"slices"
	"sync/atomic"

	"github.com/capreg/registry/internal/pick"
	"github.com/capreg/registry/internal/query"
	"github.com/capreg/registry/selection"
)

// plan answers a query as far as membership decides it: the candidates in the one order. It is immutable but for
// the two sets of [pick.Plan], which follow the gates of the candidates while the plan is in force.
type plan struct {
	pick.Plan

	candidates []*provider
	leastBad   bool // every candidate may be a last resort
}

// set makes the two sets follow the gate of a candidate. Caller holds Registry.mu.
func (p *plan) set(at int, now gate) { p.Set(at, now == 0, now&gateBlocked == 0) }

// position is that of a provider in a plan in force.
type position struct {
	plan *plan
	at   int
}

// queryPlan keeps the plan of one query, nil while it is out of date: a change of membership drops
// it, and the next lookup builds another.
type queryPlan struct {
	service   *service
	query     Query // normal
	selective bool  // the query may refuse a provider that it sees
	plan      atomic.Pointer[plan]

	// The fields below outlive the plans, so that a change of membership restarts nothing. lookups counts those
	// that may spill over. Guarded by Registry.mu.
	rotations map[tierKey]*pick.Rotation
	tracks    map[*provider]*selection.Track
	lookups   *atomic.Uint64
	attached  bool // to its service
	follows   bool // it has the plan of another one, see followers
}

// tierKey names a tier of one query across its plans.
type tierKey struct {
	handler    string
	number     int
	overrideID uint64
	mock       bool
}

// current returns the plan in force, building it when it is out of date.
func (s *queryPlan) current() *plan {
	if p := s.plan.Load(); p != nil {
		return p
	}
	return s.service.rebuild(s)
}

// maxQueryPlans bounds the queries of one service that keep a plan with rotations of their own. The others follow
// the plan of another query with the same candidates; see followers.
const maxQueryPlans = 256

// queryPlan checks the query and returns its plan, which equal queries share.
func (s *service) queryPlan(asked *Query) (*queryPlan, error) {
	if asked.Handler != globalHandler {
		if known := s.knownQueryPlan(asked); known != nil {
			return known, nil
		}
	}
	q, err := asked.normal()
	if err != nil {
		return nil, err
	}
	s.registry.mu.Lock()
	defer s.registry.mu.Unlock()
	if known := s.knownQueryPlan(&q); known != nil {
		return known, nil
	}
	created := &queryPlan{service: s, query: q, selective: (*query.Query)(&q).Selective()}
	if len(s.planOrder) < maxQueryPlans {
		s.attach(created)
		return created, nil
	}
	return s.following.known(s.registry.hash(&q), created), nil
}

// knownQueryPlan returns the attached plan of an equal query, or nil.
func (s *service) knownQueryPlan(q *Query) *queryPlan {
	if known, ok := (*s.plans.Load())[s.registry.hash(q)]; ok && same(q, &known.query) {
		return known
	}
	return nil
}

// attach makes the service drop the plan of the query when it goes out of date. Caller holds Registry.mu.
func (s *service) attach(added *queryPlan) {
	all := maps.Clone(*s.plans.Load())
	hash := s.registry.hash(&added.query)
	if other, ok := all[hash]; ok { // another query with the same hash
		s.detach(other)
	}
	if len(s.planOrder) >= maxQueryPlans {
		oldest := s.planOrder[0]
		delete(all, s.registry.hash(&oldest.query))
		s.detach(oldest)
	}
	all[hash] = added
	added.attached = true
	s.planOrder = append(s.planOrder, added)
	s.plans.Store(&all)
}

// detach drops the plan of the query for good. Caller holds Registry.mu.
func (s *service) detach(gone *queryPlan) {
	gone.attached = false
	s.drop(gone)
	s.planOrder = slices.DeleteFunc(s.planOrder, func(other *queryPlan) bool { return other == gone })
}

// drop puts the plan of the query out of force. Caller holds Registry.mu.
func (s *service) drop(out *queryPlan) {
	old := out.plan.Swap(nil)
	if old == nil {
		return
	}
	for _, p := range old.candidates {
		p.positions = slices.DeleteFunc(p.positions, func(at position) bool { return at.plan == old })
	}
}

// outdate puts all plans of the service out of force. Caller holds Registry.mu.
func (s *service) outdate() {
	for _, live := range s.planOrder {
		s.drop(live)
	}
	for _, shared := range s.following.order {
		s.drop(shared)
	}
	s.following.release()
	s.sorted = nil
}

// rebuild makes the plan of the query from the present members.
func (s *service) rebuild(target *queryPlan) *plan {
	s.registry.mu.Lock()
	defer s.registry.mu.Unlock()
	if p := target.plan.Load(); p != nil {
		return p
	}
	if !target.attached {
		if twin := s.knownQueryPlan(&target.query); twin != nil {
			// Another resolver has attached an equal query since target was detached: both use
			// its plan and rotations. Each lookup through target takes the lock.
			if p := twin.plan.Load(); p != nil {
				return p
			}
			target = twin
		} else if len(s.planOrder) < maxQueryPlans {
			s.attach(target)
		} else {
			return s.follow(target)
		}
	}
	built := s.build(target)
	target.plan.Store(built)
	return built
}

// build makes a plan whose sets follow the gates of its candidates from now on. Caller holds Registry.mu.
func (s *service) build(target *queryPlan) *plan {
	return s.buildFrom(target, s.candidates(target.query))
}

// candidates returns the candidates of a query in their order. Caller holds Registry.mu.
func (s *service) candidates(q Query) (found []*provider) {
	for _, scope := range s.scopes(q) {
		found = append(found, scope...)
	}
	found = slices.DeleteFunc(found, func(c *provider) bool { return s.mismatch(c, q) != nil })
	// Stable: each scope is in the one order already; mocks go behind all the real ones of both scopes.
	slices.SortStableFunc(found, func(a, b *provider) int { return compareBool(a.mock(), b.mock()) })
	return found
}

// buildFrom is build with the candidates.
func (s *service) buildFrom(target *queryPlan, candidates []*provider) *plan {
	p := &plan{leastBad: s.policy.LeastBad, candidates: candidates}
	if s.policy.SpillOver > 0 && target.lookups == nil {
		target.lookups = &atomic.Uint64{}
		if s.policy.Seed == 0 {
			target.lookups.Store(rand.Uint64()) //nolint:gosec // shares, not secrets
		}
	}
	source := planSource{
		target: target, candidates: p.candidates,
		rotations: make(map[tierKey]*pick.Rotation), tracks: make(map[*provider]*selection.Track),
	}
	tiers := source.tiers()
	p.Init(pick.Config{
		Tiers: tiers, Request: requestOf(&target.query, s.name), Policy: s.policy,
		Lookups: target.lookups, Epoch: &s.registry.epoch, Hooks: target.selectorHooks(p, source.groups),
	}, &source)
	target.rotations, target.tracks = source.rotations, source.tracks
	for i, c := range p.candidates {
		c.positions = append(c.positions, position{plan: p, at: i})
		p.set(i, c.gateNow())
	}
	return p
}

// planSource describes the candidates of a plan while it is built, and collects what outlives it. Its methods
// are called under Registry.mu.
type planSource struct {
	target     *queryPlan
	candidates []*provider
	first      []int    // the first candidate of each tier
	groups     []*group // the group of each tier
	rotations  map[tierKey]*pick.Rotation
	tracks     map[*provider]*selection.Track
}

// tiers cuts the candidates into the groups that they belong to.
func (b *planSource) tiers() (tiers []pick.Tier) {
	scope := 0
	for i, c := range b.candidates {
		if i == 0 || tierKeyOf(c) != tierKeyOf(b.candidates[i-1]) {
			if i > 0 && !shareLoad(c, b.candidates[i-1]) {
				scope++
			}
			tiers = append(tiers, pick.Tier{Strategy: c.group.strategy, Scope: scope, Faults: &c.group.faults})
			b.first, b.groups = append(b.first, i), append(b.groups, c.group)
		}
		tiers[len(tiers)-1].Size++
	}
	return tiers
}

// shareLoad reports whether the group of one provider may spill over to that of the other: the groups of one
// handler share a load, the global groups do, and mocks share none with real providers.
func shareLoad(a, b *provider) bool {
	return a.definition.Handler == b.definition.Handler && a.mock() == b.mock()
}

// OrderKey implements [pick.Source].
func (b *planSource) OrderKey(candidate int) uint64 { return orderKeyOf(b.candidates[candidate]) }

// Rotation implements [pick.Source] with the rotation of the plan before.
func (b *planSource) Rotation(tier int) *pick.Rotation {
	key := tierKeyOf(b.candidates[b.first[tier]])
	kept := pick.RotationFor(b.target.rotations[key], b.groups[tier].strategy, b.target.service.policy.Seed)
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

// compareProviders orders the providers of a scope by group, priority and registration. The
// members of a group are adjacent.
func compareProviders(a, b *provider) int {
	return cmp.Or(
		compareBool(a.mock(), b.mock()),
		cmp.Compare(a.group.key.number, b.group.key.number),
		cmp.Compare(a.overrideID, b.overrideID),
		cmp.Compare(orderKeyOf(a), orderKeyOf(b)),
	)
}

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	default:
		return 1
	}
}

// orderKeyOf returns the key by which the providers of one group are sorted: priority, then registration.
// Caller holds Registry.mu.
func orderKeyOf(p *provider) uint64 {
	const sequenceBits = 44
	return uint64(p.definition.Priority.Rank())<<sequenceBits | p.order&(1<<sequenceBits-1) //nolint:gosec // ranks are 0 to 9
}

// tierKeyOf returns the tier that the provider is in. Caller holds Registry.mu.
func tierKeyOf(p *provider) tierKey {
	return tierKey{handler: p.definition.Handler, number: p.group.key.number, overrideID: p.overrideID, mock: p.mock()}
}

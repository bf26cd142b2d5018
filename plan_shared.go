package registry

import (
	"fmt"
	"slices"
	"strings"
)

// followers are the queries of a service beyond those that keep a plan. Each has the plan of a shared query, the one
// of all that have the same candidates and look the same to their strategies, with its rotations: so any number of
// kinds of query stay fair, and a lookup costs what one costs. Guarded by Registry.mu.
type followers struct {
	shared  map[string]*queryPlan // by candidates
	order   []*queryPlan          // the same, oldest first
	keys    []string              // of order
	queries map[uint64]*queryPlan // by hash, for equal queries to share
	used    []*queryPlan          // those that have a plan now
}

// maxFollowers bounds the queries that are remembered. Beyond it all are forgotten, and look for their plans again.
const maxFollowers = 1 << 14

// known returns the follower of an equal query, or created, which it remembers.
func (f *followers) known(hash uint64, created *queryPlan) *queryPlan {
	if before, ok := f.queries[hash]; ok && same(&created.query, &before.query) {
		return before
	}
	if f.queries == nil {
		f.queries = make(map[uint64]*queryPlan)
	}
	if len(f.queries) >= maxFollowers {
		clear(f.queries)
	}
	f.queries[hash] = created
	return created
}

// release takes their plans from all followers.
func (f *followers) release() {
	for _, q := range f.used {
		q.plan.Store(nil)
	}
	clear(f.used)
	f.used = f.used[:0]
}

// follow gives target the plan of the shared query with the same candidates. Caller holds Registry.mu.
func (s *service) follow(target *queryPlan) *plan {
	f, candidates := &s.following, s.candidates(target.query)
	key := s.sharedKey(&target.query, candidates)
	shared := f.shared[key]
	if shared == nil {
		if f.shared == nil {
			f.shared = make(map[string]*queryPlan)
		}
		if len(f.order) >= maxQueryPlans {
			f.release()
			s.drop(f.order[0])
			delete(f.shared, f.keys[0])
			f.order, f.keys = slices.Delete(f.order, 0, 1), slices.Delete(f.keys, 0, 1)
		}
		shared = &queryPlan{service: s, query: target.query.clone(), selective: target.selective}
		if !hasOwn(candidates) {
			shared.query.Handler = ""
		}
		f.shared[key], f.order, f.keys = shared, append(f.order, shared), append(f.keys, key)
	}
	p := shared.plan.Load()
	if p == nil {
		p = s.buildFrom(shared, candidates)
		shared.plan.Store(p)
	}
	if len(f.used) >= maxFollowers {
		f.release()
	}
	target.follows = true
	target.plan.Store(p)
	f.used = append(f.used, target)
	return p
}

// hasOwn reports whether a handler's own provider is among the candidates.
func hasOwn(candidates []*provider) bool {
	return slices.ContainsFunc(candidates, func(c *provider) bool { return c.definition.Handler != "" })
}

// sharedKey returns what queries have in common that share a plan: the candidates and, where a strategy sees the
// query, what rates them. The strategy sees the other words of the first such query. Caller holds Registry.mu.
func (s *service) sharedKey(q *Query, candidates []*provider) string {
	var key strings.Builder
	seen := s.policy.SpillOver > 0 || q.Where.MaxLatency > 0 || s.registry.decisions != nil
	for _, c := range candidates {
		fmt.Fprintf(&key, "%x,", c.generation)
		seen = seen || c.group.strategy.Selector() != nil
	}
	if seen {
		fmt.Fprintf(&key, "%q %q %v", q.Prefer, q.Near, q.Where.MaxLatency)
	}
	return key.String()
}

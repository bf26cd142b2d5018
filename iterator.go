package registry

import (
	"github.com/capreg/registry/internal/bitset"
)

// condition is what a look-up asks of a provider to be eligible.
type condition uint8

const (
	admitting condition = iota // calls may enter it, as trials too
	healthy                    // nothing at all keeps calls away: what Get gives
)

func (e condition) of(p *plan) *bitset.Set {
	if e == healthy {
		return p.steady
	}
	return p.callable
}

// blockers returns the reasons that make a provider ineligible.
func (e condition) blockers() gate {
	if e == healthy {
		return ^gate(0)
	}
	return gateBlocked
}

// maxRestarts bounds how often one iteration starts over on a newer plan.
const maxRestarts = 16

// iterator offers the eligible providers of a query, each plan's at most once, and follows
// changes of the plan. It is the one place that deals with a stale plan:
//
//   - A provider that was replaced or hidden while its user looked at it has a successor that
//     is not in the plan of the iteration, whose next candidate may be a worse one. [iterator.pass]
//     then starts over on the current plan.
//   - An iteration can miss a provider that became eligible behind it. When it has found none,
//     and one is eligible now, [iterator.next] starts over.
//
// After a restart, providers that had their turn are offered again: the user passes them by.
// An iterator is for one goroutine. It may be copied, and both copies go on from there.
type iterator struct {
	query    *queryPlan
	plan     *plan
	rest     walk // of the plan's candidates
	want     condition
	listing  bool // in the order of the plan, whatever strategies say; at is the candidate before
	at       int32
	restarts int8
	found    bool // it offered a provider that was entered, or that is eligible still
}

// iterate returns an iteration in the order of the strategies, whose rotations it moves.
func (q *queryPlan) iterate(want condition) iterator {
	plan := q.current()
	return iterator{query: q, plan: plan, want: want, rest: plan.walk(want.of(plan))}
}

// iterateFrom is iterate on a plan of which the candidate to begin with was picked.
func (q *queryPlan) iterateFrom(plan *plan, picked int, want condition) iterator {
	return iterator{query: q, plan: plan, want: want, rest: plan.walkFrom(want.of(plan), picked)}
}

// list returns an iteration in the order of the plan, which moves no rotation.
func (q *queryPlan) list(want condition) iterator {
	plan := q.current()
	it := iterator{query: q, plan: plan, want: want, listing: true, at: -1, rest: plan.walk(want.of(plan))}
	it.rest.still = true
	return it
}

// peekUntil makes the iteration move no rotation of tiers before the given one; 0: of none.
func (it *iterator) peekUntil(tier int) { it.rest.still, it.rest.fresh = true, tier }

// next returns the next provider, or nil.
func (it *iterator) next(by *asker) *provider {
	for {
		if p := it.nextOfPlan(by); p != nil {
			return p
		}
		if it.found || it.restarts == maxRestarts || !it.query.anyEligible(it.want) {
			return nil
		}
		it.restart()
	}
}

func (it *iterator) nextOfPlan(by *asker) *provider {
	if !it.listing {
		return it.rest.next(by)
	}
	eligible := it.want.of(it.plan)
	for {
		i := eligible.Next(int(it.at)+1, len(it.plan.candidates))
		if i < 0 {
			return nil
		}
		it.at = int32(i) //nolint:gosec // bounded by the number of providers
		if it.plan.inTime(i) {
			return it.plan.candidates[i]
		}
	}
}

// more reports whether another provider is eligible. It moves nothing.
func (it *iterator) more() bool { return it.rest.more() }

// pass notes that p, which next returned, was not taken. It reports whether p was replaced
// meanwhile and the iteration starts over.
func (it *iterator) pass(p *provider) (restarted bool) {
	if it.restartIfReplaced(p) {
		return true
	}
	it.found = it.found || p.gateNow()&it.want.blockers() == 0
	return false
}

// take notes that a provider that next returned was taken.
func (it *iterator) take() { it.found = true }

// restartIfReplaced starts over on the current plan if p was replaced or hidden while it was
// looked at.
func (it *iterator) restartIfReplaced(p *provider) bool {
	return p.superseded() && it.restart()
}

// restart starts over on the current plan, unless it did so too often.
func (it *iterator) restart() bool {
	if it.restarts == maxRestarts {
		return false
	}
	before := it.rest
	it.restarts++
	it.plan, it.at = it.query.current(), -1
	it.rest = it.plan.walk(it.want.of(it.plan))
	it.rest.still, it.rest.fresh = before.still, before.fresh
	return true
}

// anyEligible reports whether a provider is eligible at this moment.
func (q *queryPlan) anyEligible(want condition) bool {
	plan := q.current()
	eligible := want.of(plan)
	if len(plan.candidates) <= bitset.OneWord && eligible.First() < 0 && q.plan.Load() == plan {
		return false // one word is one moment, at which the plan was in force
	}
	q.service.registry.mu.Lock()
	defer q.service.registry.mu.Unlock()
	if q.attached && q.plan.Load() != plan {
		return true // perhaps: membership has changed again
	}
	return plan.anyone(eligible)
}

// moreBehind reports whether another candidate than the picked one is eligible.
func (p *plan) moreBehind(picked int) bool {
	rest := p.walkFrom(p.callable, picked)
	rest.next(nil) // the picked one: no selector is asked
	return rest.more()
}

// anyone reports whether a candidate is eligible and fast enough.
func (p *plan) anyone(eligible *bitset.Set) bool {
	for at := eligible.Next(0, len(p.candidates)); at >= 0; at = eligible.Next(at+1, len(p.candidates)) {
		if p.inTime(at) {
			return true
		}
	}
	return false
}

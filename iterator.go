package registry

import (
	"slices"

	"github.com/capreg/registry/internal/bitset"
	"github.com/capreg/registry/internal/choice"
	"github.com/capreg/registry/internal/pick"
	"github.com/capreg/registry/internal/refusal"
)

// condition is the state of a provider that a look-up requires.
type condition uint8

const (
	admitting condition = iota // calls may enter it, as trials too
	healthy                    // nothing at all keeps calls away: what Get gives
)

func (e condition) of(p *plan) *bitset.Set {
	if e == healthy {
		return p.Healthy
	}
	return p.Admitting
}

// refusing returns the reasons that make a provider ineligible.
func (e condition) refusing() gate {
	if e == healthy {
		return ^gate(0)
	}
	return refusal.Blocked
}

// maxRestarts bounds how often one iteration starts over on a newer plan.
const maxRestarts = 16

// iterator offers the eligible providers of a query, each plan's at most once, and follows changes of the plan. It is
// the one place that deals with a stale plan in look-ups; queues follow replacements in [call.followQueues]:
//
//   - A provider that was replaced or hidden while its user looked at it has a successor that
//     is not in the plan of the iteration, whose next candidate may be a worse one. [iterator.pass]
//     then starts over on the current plan.
//   - An iteration can miss a provider that became eligible behind it. When it has found none,
//     and one is eligible now, [iterator.advance] starts over.
//
// After a restart, providers that had their turn are offered again: the user passes them by.
// An iterator is for one goroutine. It may be copied, and both copies go on from there.
type iterator struct {
	query    *queryPlan
	plan     *plan
	rest     pick.Iterator // of the plan's candidates
	shared   *leaseCall    // of the call; nil: it has no leases
	want     condition
	listing  bool // in the order of the plan, whatever strategies say; at is the candidate before
	at       int32
	restarts int8
	found    bool // it offered a provider that was entered, or that is eligible still
}

// iterate returns an iteration in the order of the strategies, whose rotations it moves.
func (q *queryPlan) iterate(want condition) (it iterator) {
	it.rewind(q, q.current(), -1, want)
	return it
}

// iterateFrom is iterate on a plan of which the candidate to begin with was picked.
func (q *queryPlan) iterateFrom(plan *plan, picked int, want condition) (it iterator) {
	it.rewind(q, plan, picked, want)
	return it
}

// rewind makes a zero iterator one that begins with the picked candidate of the plan, or with the
// one that the plan picks where picked is -1.
func (it *iterator) rewind(q *queryPlan, plan *plan, picked int, want condition) {
	it.query, it.plan, it.want = q, plan, want
	it.rest = plan.IterateFrom(want.of(plan), picked)
}

// list returns an iteration in the order of the plan, which moves no rotation.
func (q *queryPlan) list(want condition) iterator {
	plan := q.current()
	it := iterator{query: q, plan: plan, want: want, listing: true, at: -1, rest: plan.Iterate(want.of(plan))}
	it.rest.Mode = pick.Peek
	return it
}

// advance returns the next provider, or nil.
func (it *iterator) advance(by *pick.Caller) *provider {
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

func (it *iterator) nextOfPlan(by *pick.Caller) *provider {
	if !it.listing {
		if it.shared != nil && it.query.service.registry.decisions != nil {
			shared, candidates := it.shared, it.plan.candidates
			by.Had = func(i int) bool { return shared.had(candidates[i]) }
		}
		if i := it.rest.Next(by); i >= 0 {
			return it.plan.candidates[i]
		}
		return nil
	}
	eligible := it.want.of(it.plan)
	for {
		i := eligible.Next(int(it.at)+1, len(it.plan.candidates))
		if i < 0 {
			return nil
		}
		it.at = int32(i) //nolint:gosec // bounded by the number of providers
		if it.plan.FastEnough(i) {
			return it.plan.candidates[i]
		}
	}
}

// more reports whether another provider is eligible. It moves nothing.
func (it *iterator) more() bool { return it.rest.More() }

// another returns a provider that could be asked next; nil if none is eligible. It moves nothing.
func (it *iterator) another() *provider {
	if it.listing {
		return it.plan.candidate(it.want.of(it.plan).Next(int(it.at)+1, len(it.plan.candidates)))
	}
	return it.plan.candidate(it.rest.Another())
}

// pass notes that p, which next returned, was not taken: the iteration starts over if p was replaced meanwhile.
func (it *iterator) pass(p *provider) {
	if !it.restartIfReplaced(p) {
		it.found = it.found || p.gateNow()&it.want.refusing() == 0
	}
}

// take notes that a provider that next returned was taken.
func (it *iterator) take() { it.found = true }

// restartIfReplaced starts over on the current plan if p was replaced or hidden while it was looked at.
func (it *iterator) restartIfReplaced(p *provider) bool {
	return p.superseded() && it.restart()
}

// restart starts over on the current plan, unless it did so too often.
func (it *iterator) restart() bool {
	if it.restarts == maxRestarts {
		return false
	}
	mode := it.rest.Mode
	it.restarts++
	it.plan, it.at = it.query.current(), -1
	if it.shared != nil && mode != pick.Advance {
		mode = it.shared.mode(it.plan) // its tiers may have other numbers
	}
	it.rest = it.plan.Iterate(it.want.of(it.plan))
	it.rest.Mode = mode
	return true
}

// anyEligible reports whether a provider is eligible at this moment.
func (q *queryPlan) anyEligible(want condition) bool {
	plan := q.current()
	eligible := want.of(plan)
	if eligible.Count() == 0 && q.plan.Load() == plan {
		return false // one count is one moment, at which the plan was in force
	}
	q.service.registry.mu.Lock()
	defer q.service.registry.mu.Unlock()
	if q.plan.Load() != plan {
		return true // perhaps: membership has changed again
	}
	return plan.AnyEligible(eligible)
}

// another returns a candidate that is eligible behind the picked one; nil if there is none.
func (p *plan) another(picked int) *provider {
	rest := p.IterateFrom(p.Admitting, picked)
	rest.Next(nil) // the picked one: no selector is asked
	return p.candidate(rest.Another())
}

// candidate returns candidate i; nil for -1.
func (p *plan) candidate(i int) *provider {
	if i < 0 {
		return nil
	}
	return p.candidates[i]
}

// track returns the measurements of p for the query; nil: there are none.
func (it *iterator) track(p *provider) *choice.Track {
	if !it.plan.NeedsCaller() {
		return nil
	}
	return it.rest.Track(slices.Index(it.plan.candidates, p))
}

// timeLookup times a look-up that moves nothing.
func (q *queryPlan) timeLookup(by pick.Caller) {
	began := q.service.registry.now()
	it := q.list(healthy)
	it.listing = false
	it.advance(&by)
	q.service.meter.TimeLookup(q.service.registry.now() - began)
}

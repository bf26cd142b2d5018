package pick

import (
	"cmp"
	"context"
	"math/bits"

	"github.com/capreg/registry/internal/bitset"
	"github.com/capreg/registry/internal/choice"
	"github.com/capreg/registry/selection"
)

// Mode is the effect of an [Iterator] on the plan.
type Mode int32

const (
	// Advance takes a turn in each tier that the iterator enters.
	Advance Mode = 0
	// Peek takes no turn. Faults and decisions are recorded.
	Peek Mode = -1
	// Preview takes no turn and records nothing.
	Preview Mode = -2
)

// PeekUntil returns the mode that peeks at the tiers before the given one and advances in the others.
func PeekUntil(tier int) Mode { return Mode(max(tier, 0)) } //nolint:gosec // bounded by the number of candidates

// peeks reports whether picks from the tier take no turn.
func (m Mode) peeks(tier int32) bool { return m < 0 || tier < int32(m) }

// Caller describes a lookup to selectors.
type Caller struct {
	// Context is the context of the lookup. Selectors read its values.
	Context context.Context //nolint:containedctx // it lives as long as the lookup
	// Key is the affinity key of the query. Default: the key of the context. Name is the name of the caller.
	Key, Name string
	// Had reports whether the call was given the candidate before, which makes a pick no decision. Default:
	// it was given none.
	Had func(candidate int) bool
}

// state is the state of an iterator.
//
//	state     | Next returns                                      | if there is none
//	ready     | the first candidate, entering its tier            | over
//	ascending | the eligible candidate behind at, in the tier     | wrapped (rotation), else a later tier
//	wrapped   | the eligible candidate behind at, before start    | a later tier
//	choosing  | the picker's choice among those not offered       | a later tier
//	over      | -1                                                |
//
// A tier is entered with a pick from it: choosing if it has a picker, else ascending. A later tier is the
// next one with an eligible candidate; after the tier that the lookup has spilled to, all the others
// follow, from the first one on. The iterator is over if there is no later tier.
type state uint8

const (
	ready state = iota
	ascending
	wrapped
	choosing
	over
)

// Iterator offers the eligible candidates of a plan, each at most once: those of the first tier that has
// any, in the order of its strategy, then those of the next one. A candidate counts as it is at the
// moment of the offer. An Iterator is a small value for one goroutine; copies are independent.
type Iterator struct {
	// Mode may be changed before the first candidate.
	Mode Mode

	state     state
	spilled   bool // it began with spillTier
	spillTier int32
	at        int32 // the last candidate offered; if ready the one to begin with, or negative
	start     int32 // where the present tier was entered
	plan      *Plan
	eligible  *bitset.Set

	// Of the present tier, if it has a picker:
	offered uint64       // the members offered, as bits
	large   *largeSubset // in a large tier the list of the members offered before at; nil: none
	turn    uint64       // of the cursor when the tier was entered
}

// Iterate returns an iterator over Healthy or Admitting.
func (p *Plan) Iterate(eligible *bitset.Set) Iterator { return p.IterateFrom(eligible, -1) }

// IterateFrom returns an iterator that begins with a candidate that [Plan.First] has picked; with -1 it picks.
func (p *Plan) IterateFrom(eligible *bitset.Set, first int) Iterator {
	return Iterator{plan: p, eligible: eligible, at: int32(first)} //nolint:gosec // bounded by the number of candidates
}

// Next returns the next candidate, or -1 if none is left. The caller may be nil if [Plan.NeedsCaller] is
// false.
func (it *Iterator) Next(c *Caller) int {
	switch it.state {
	case over:
		return -1
	case ready:
		return it.enter(it.pickFirst(c))
	default:
		if i := it.withinTier(c); i >= 0 {
			it.offer(i)
			return i
		}
		return it.enter(it.search(it.laterTiers(), c))
	}
}

// More reports whether another candidate is eligible. It changes nothing and calls no selector. It is true
// before the first Next.
func (it *Iterator) More() bool { return it.state == ready || it.Another() >= 0 }

// Another returns a candidate that is still to be offered, the first one where the order is known, or -1 if none
// is eligible. It changes nothing and calls no selector.
func (it *Iterator) Another() int {
	switch it.state {
	case over:
		return -1
	case ready:
		return it.eligible.Next(0, it.plan.Len())
	default:
		if i := it.anotherInTier(); i >= 0 {
			return i
		}
		return it.anotherInTiers(it.laterTiers())
	}
}

// Track returns the measurements of candidate i for the query; nil: there are none.
func (it *Iterator) Track(i int) *choice.Track {
	if it.plan == nil || it.plan.extras == nil || uint(i) >= uint(it.plan.Len()) {
		return nil
	}
	return it.plan.extras.tracks[i]
}

func (it *Iterator) tier() *tier { return &it.plan.tiers[it.plan.tierOf[it.start]] }

// enter offers the first candidate of a tier. With -1 the iterator is over.
func (it *Iterator) enter(i int) int {
	if i < 0 {
		it.state = over
		return -1
	}
	it.start, it.state = int32(i), ascending //nolint:gosec // bounded by the number of candidates
	if it.tier().picker != nil {
		it.state, it.offered, it.large = choosing, 0, nil
	}
	it.offer(i)
	return i
}

// offer records that a candidate of the present tier is offered.
func (it *Iterator) offer(i int) {
	it.at = int32(i) //nolint:gosec // bounded by the number of candidates
	if it.state == choosing {
		it.offered |= 1 << uint(i-it.tier().low)
	}
}

// pickFirst returns the first candidate, or -1.
func (it *Iterator) pickFirst(c *Caller) int {
	if it.at >= 0 {
		return int(it.at)
	}
	if i := it.plan.first(it.eligible, it.Mode); i != Undecided {
		return i
	}
	if n := it.spill(c); n >= 0 {
		it.spilled, it.spillTier = true, int32(n) //nolint:gosec // the number of a tier
		t := &it.plan.tiers[n]
		if i := it.pick(t, it.plan.members(t, it.eligible), 0, c); i >= 0 {
			return i
		}
	}
	return it.search(0, c)
}

// withinTier returns the next candidate of the present tier, or -1.
func (it *Iterator) withinTier(c *Caller) int {
	t := it.tier()
	switch it.state {
	case choosing:
		members, asked := it.remaining(t)
		return it.pick(t, members, asked, c)
	case ascending:
		if i := it.eligible.Next(int(it.at)+1, t.high); i >= 0 || t.rotation == nil {
			return i
		}
		it.state = wrapped
		return it.eligible.Next(t.low, int(it.start))
	default: // wrapped
		return it.eligible.Next(int(it.at)+1, int(it.start))
	}
}

// remaining returns the members of the present tier that can be picked and were not offered, and the number
// of those that were.
func (it *Iterator) remaining(t *tier) (left subset, asked int) {
	left = it.plan.members(t, it.eligible)
	if left.large == nil {
		left.mask &^= it.offered
		return left, bits.OnesCount64(it.offered)
	}
	if it.large == nil {
		it.large = left.large
	}
	next := it.large.without(int(it.at) - t.low)
	it.large = &next
	return subset{large: it.large}, next.asked
}

// laterTiers returns the candidate at which the search for a later tier begins.
func (it *Iterator) laterTiers() int {
	if it.spilled && it.plan.tierOf[it.start] == it.spillTier {
		return 0
	}
	return it.tier().high
}

// search picks from the first tier, at or behind a candidate, that has an eligible one. It skips the tier
// that the lookup has spilled to.
func (it *Iterator) search(from int, c *Caller) int {
	p := it.plan
	for {
		i := it.eligible.Next(from, p.Len())
		if i < 0 {
			return -1
		}
		n := p.tierOf[i]
		t := &p.tiers[n]
		from = t.high
		switch {
		case it.spilled && n == it.spillTier:
		case t.picker != nil:
			if picked := it.pick(t, p.members(t, it.eligible), 0, c); picked >= 0 {
				return picked
			}
		case t.rotation == nil:
			return i
		default:
			if picked := p.take(t, it.eligible, !it.Mode.peeks(n)); picked >= 0 {
				return t.low + picked
			}
		}
	}
}

// anotherInTier is withinTier for Another.
func (it *Iterator) anotherInTier() int {
	t := it.tier()
	at, start := int(it.at), int(it.start)
	switch it.state {
	case wrapped:
		return it.eligible.Next(at+1, start)
	case ascending:
		if i := it.eligible.Next(at+1, t.high); i >= 0 || t.rotation == nil {
			return i
		}
		return it.eligible.Next(t.low, start)
	default: // choosing
		left := it.plan.members(t, it.eligible)
		if left.large == nil {
			if left.mask &^= it.offered; left.mask == 0 {
				return -1
			}
			return t.low + bits.TrailingZeros64(left.mask)
		}
		others := cmp.Or(it.large, left.large).without(at - t.low)
		if i := others.Next(0); i >= 0 {
			return t.low + i
		}
		return -1
	}
}

// anotherInTiers is search for Another.
func (it *Iterator) anotherInTiers(from int) int {
	p := it.plan
	for i := it.eligible.Next(from, p.Len()); i >= 0; i = it.eligible.Next(i+1, p.Len()) {
		if n := p.tierOf[i]; (!it.spilled || n != it.spillTier) && p.FastEnough(i) {
			return i
		}
	}
	return -1
}

// maxSpillTiers bounds the number of tiers that share a load.
const maxSpillTiers = 16

// spill returns the tier that the lookup falls to, or -1 if tiers are strict. Tiers of one scope share.
func (it *Iterator) spill(c *Caller) int {
	p := it.plan
	if p.extras.lookups == nil {
		return -1
	}
	i := it.eligible.Next(0, p.Len())
	if i < 0 {
		return -1
	}
	var eligible, all [maxSpillTiers]int
	first, count := p.TierOf(i), 0
	for n := first; n < len(p.tiers) && count < maxSpillTiers; n++ {
		t := &p.tiers[n]
		if t.scope != p.tiers[first].scope {
			break
		}
		eligible[count], all[count] = it.eligible.CountIn(t.low, t.high), t.size()
		count++
	}
	// Multiples of the golden ratio fall evenly, so few lookups keep the shares too.
	const golden = 0x9e3779b97f4a7c15
	share := float64(it.number(c)*golden>>11) / (1 << 53)
	if n := p.extras.policy.Spill(share, eligible[:count], all[:count]); n >= 0 {
		return first + n
	}
	return -1
}

// number returns the number of the lookup. Lookups of one key have the same, so that they can stay with one
// candidate.
func (it *Iterator) number(c *Caller) uint64 {
	if c != nil {
		if key := cmp.Or(c.Key, selection.KeyFrom(c.Context)); key != "" {
			return choice.Mix(selection.Hash(key))
		}
	}
	if it.Mode != Advance {
		return it.plan.extras.lookups.Load()
	}
	return it.plan.extras.lookups.Add(1) - 1
}

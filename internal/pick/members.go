package pick

import (
	"math/bits"

	"github.com/capreg/registry/internal/bitset"
)

// subset has the members of one tier that can be picked, as bits, or as a view if the tier has more than
// maskBits. Members are numbered from the first of the tier on.
type subset struct {
	mask  uint64
	large *largeSubset
}

func (s subset) has(i int) bool {
	if s.large != nil {
		return s.large.Has(i)
	}
	return s.mask>>uint(i)&1 != 0
}

// next returns the first member from i on, or -1.
func (s subset) next(i int) int {
	if rest := s.mask >> i; rest != 0 {
		return i + bits.TrailingZeros64(rest)
	}
	return s.large.Next(i)
}

func (s subset) count() (count int) {
	if s.large == nil {
		return bits.OnesCount64(s.mask)
	}
	for i := s.next(0); i >= 0; i = s.next(i + 1) {
		count++
	}
	return count
}

// members returns the members of a tier that are eligible, and fast enough for the query.
func (p *Plan) members(t *tier, eligible *bitset.Set) subset {
	if t.all == 0 {
		return subset{large: p.largeMembers(t, eligible)}
	}
	mask := eligible.Mask(t.low, t.size())
	if p.extras != nil && p.extras.maxLatency > 0 {
		for rest := mask; rest != 0; rest &= rest - 1 {
			if i := bits.TrailingZeros64(rest); !p.FastEnough(t.low + i) {
				mask &^= 1 << uint(i)
			}
		}
	}
	return subset{mask: mask}
}

func (p *Plan) largeMembers(t *tier, eligible *bitset.Set) *largeSubset {
	switch eligible {
	case p.Healthy:
		return t.healthy
	case p.Admitting:
		return t.admitting
	}
	return &largeSubset{plan: p, tier: t, eligible: eligible}
}

// largeSubset has the members of a large tier that can be picked at the moment of a question. It implements
// [choice.Eligible]. It is also a node of the list of members that an iterator has offered. The list is
// immutable, so that copies of an iterator share it.
type largeSubset struct {
	plan     *Plan
	tier     *tier
	eligible *bitset.Set

	asked   int          // number of members that were offered; 0: the end of the list
	offered int          // the last of them
	before  *largeSubset // the list of the others
}

// without returns the subset without a member that was offered.
func (s *largeSubset) without(member int) largeSubset {
	return largeSubset{plan: s.plan, tier: s.tier, eligible: s.eligible, asked: s.asked + 1, offered: member, before: s}
}

// Has reports whether member i can be picked.
func (s *largeSubset) Has(i int) bool {
	return uint(i) < uint(s.tier.size()) && s.eligible.Has(s.tier.low+i) && s.admits(i)
}

// Next returns the first member from i on that can be picked, or -1. A nil subset has none.
func (s *largeSubset) Next(i int) int {
	if s == nil {
		return -1
	}
	low, high := s.tier.low, s.tier.high
	at := s.eligible.Next(low+max(i, 0), high)
	for at >= 0 && (s.asked > 0 || s.plan.extras != nil) && !s.admits(at-low) {
		at = s.eligible.Next(at+1, high)
	}
	return max(at-low, -1)
}

// admits reports whether an eligible member was not offered and is fast enough.
func (s *largeSubset) admits(i int) bool {
	for link := s; link.asked > 0; link = link.before {
		if link.offered == i {
			return false
		}
	}
	return s.plan.FastEnough(s.tier.low + i)
}

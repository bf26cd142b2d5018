package pick

import (
	"cmp"

	"github.com/capreg/registry/selection"
)

// GroupID identifies a priority group within a service. Each override of a service has groups of its own.
type GroupID struct {
	Handler  string
	Number   int
	Override uint64
}

// Group is a priority group. It exists while it has members.
type Group struct {
	GroupID

	Strategy selection.Strategy
	SetBy    string // the member whose registration or change set the strategy
	Faults   Faults // of its selector
	Had      Had

	members int
}

// Groups are the priority groups of a service. Their owner guards them.
type Groups map[GroupID]*Group

// Join adds a member to the group, which is created with its first member and the strategy that this one wants.
func (g Groups) Join(id GroupID, wanted selection.Strategy, member string) *Group {
	joined, ok := g[id]
	if !ok {
		joined = &Group{GroupID: id, Strategy: wanted, SetBy: member}
		g[id] = joined
	}
	joined.members++
	return joined
}

// Leave takes a member out of its group, which ends with its last member.
func (g Groups) Leave(left *Group) {
	left.members--
	if left.members == 0 {
		delete(g, left.GroupID)
	}
}

// Size returns the number of members; 0 for nil.
func (g *Group) Size() int {
	if g == nil {
		return 0
	}
	return g.members
}

// TierKey names a tier of one query across its plans.
type TierKey struct {
	GroupID

	Mock bool
}

// sharesLoad reports whether one tier may spill over to the other: those of one handler share a load, the global ones
// do, and mocks share none with real members.
func (k TierKey) sharesLoad(other TierKey) bool {
	return k.Handler == other.Handler && k.Mock == other.Mock
}

// Rank orders the candidates of a scope: real ones before mocks, then by group, override, priority and registration. So
// the members of a tier are adjacent.
type Rank struct {
	Tier     TierKey
	Priority int    // the rank of the priority, 0 to 9
	Sequence uint64 // of the registration
}

// Compare returns a negative number when r comes first, and a positive one when other does.
func (r Rank) Compare(other Rank) int {
	return cmp.Or(
		CompareBool(r.Tier.Mock, other.Tier.Mock),
		cmp.Compare(r.Tier.Number, other.Tier.Number),
		cmp.Compare(r.Tier.Override, other.Tier.Override),
		cmp.Compare(r.Key(), other.Key()),
	)
}

// Key returns the key by which the members of one tier are sorted: priority, then registration.
func (r Rank) Key() uint64 {
	const sequenceBits = 44
	return uint64(r.Priority)<<sequenceBits | r.Sequence&(1<<sequenceBits-1) //nolint:gosec // priorities are 0 to 9
}

// CompareBool orders false before true.
func CompareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	default:
		return 1
	}
}

// Cut is a run of candidates that form one tier.
type Cut struct {
	Key         TierKey
	First, Size int // candidates
	Scope       int // of tiers that may spill over to each other
}

// CutTiers cuts n candidates, in their order, where the key changes.
func CutTiers(n int, key func(candidate int) TierKey) (cuts []Cut) {
	for i := range n {
		cut := Cut{Key: key(i), First: i}
		if last := len(cuts) - 1; last >= 0 {
			if cut.Key == cuts[last].Key {
				cuts[last].Size++
				continue
			}
			cut.Scope = cuts[last].Scope
			if !cut.Key.sharesLoad(cuts[last].Key) {
				cut.Scope++
			}
		}
		cut.Size = 1
		cuts = append(cuts, cut)
	}
	return cuts
}

package pick

import (
	"math/rand/v2"
	"slices"
	"sync/atomic"

	"github.com/capreg/registry/internal/bitset"
	"github.com/capreg/registry/selection"
)

// Rotation remembers the pick before, as the order key of the candidate: it stays right when candidates
// join or leave. It outlives the plans of its query, and keeps what a selector remembers as well. It is
// safe for concurrent use.
type Rotation struct {
	last     atomic.Uint64
	cursor   *selection.Cursor
	strategy selection.Strategy

	_ [40]byte // a cache line of its own keeps the rotations of different queries apart
}

// RotationFor returns the rotation to go on with: previous, unless it is nil or of another strategy,
// whose memories the new one must not find.
func RotationFor(previous *Rotation, strategy selection.Strategy) *Rotation {
	if previous != nil && previous.strategy.Same(strategy) {
		return previous
	}
	return &Rotation{
		cursor:   selection.NewCursor(rand.Uint64()), //nolint:gosec // shares, not secrets
		strategy: strategy,
	}
}

// The lowest bits of a key in a tier are the position of its member, so that the one picked last is found
// without a search. They do not tell keys apart.
const (
	positionBits = 16
	positionMask = 1<<positionBits - 1
)

// turn returns the member after the one picked last, -1 where there is none, and moves the rotation on to
// it where move says so. It is not ok when another pick has moved it meanwhile.
func (t *tier) turn(members subset, move bool) (picked int, ok bool) {
	last := t.rotation.last.Load()
	before := int(last & positionMask)
	if before >= len(t.keys) || t.keys[before] != last { // nearly never: it was picked from another plan
		before = t.lastUpTo(last)
	}
	picked = members.next(before + 1)
	if picked < 0 {
		picked = members.next(0)
	}
	if picked < 0 || !move {
		return picked, true
	}
	return picked, t.rotation.last.CompareAndSwap(last, t.keys[picked])
}

// take is turn of the members that are eligible, until no other pick comes between.
func (p *Plan) take(t *tier, eligible *bitset.Set, move bool) int {
	for {
		if picked, ok := t.turn(p.members(t, eligible), move); ok {
			return picked
		}
	}
}

// lastUpTo returns the index of the last key that is at most key, -1 where all are larger.
//
//go:noinline
func (t *tier) lastUpTo(key uint64) int {
	i, found := slices.BinarySearch(t.keys, key|positionMask)
	if found {
		return i
	}
	return i - 1
}

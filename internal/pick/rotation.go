package pick

import (
	"math/rand/v2"
	"slices"
	"sync/atomic"

	"github.com/capreg/registry/internal/bitset"
	"github.com/capreg/registry/internal/choice"
	"github.com/capreg/registry/selection"
)

// Rotation remembers the last pick from a tier as the order key of the candidate, which stays right when
// candidates join or leave. The first pick is anywhere. It also has the cursor of a selector. It outlives the plans of its query and is
// safe for concurrent use.
type Rotation struct {
	last     atomic.Uint64
	begin    uint64 // where the first pick begins, for any number of members
	cursor   *choice.Cursor
	strategy selection.Strategy

	_ [32]byte // a cache line of its own keeps the rotations of different queries apart
}

// RotationFor returns previous if it belongs to the strategy, else a new rotation: a strategy must not find
// the state of another one. A new one begins where the seed says, see [selection.Policy].
func RotationFor(previous *Rotation, strategy selection.Strategy, seed uint64) *Rotation {
	if previous != nil && previous.strategy.Same(strategy) {
		return previous
	}
	if seed > 0 {
		return &Rotation{cursor: choice.NewCursor(seed), begin: seed - 1, strategy: strategy}
	}
	r := &Rotation{cursor: choice.NewCursor(rand.Uint64()), begin: rand.Uint64(), strategy: strategy} //nolint:gosec // shares, not secrets
	r.cursor.Skip(r.begin >> 32)
	return r
}

// Had remembers the last turn of a group before there was any rotation, as in an earlier process. The rotation of the
// first query that takes turns begins after it, those of others anywhere. Plans that are only looked at may come before
// that one, so that several may begin there until one has given a turn. The zero value remembers nothing. Its owner
// guards it.
type Had struct {
	key   uint64 // the order key; zero: nothing is remembered
	began []*Rotation
}

// mostBegun bounds the rotations that begin after the same turn.
const mostBegun = 8

// Set remembers that the member with the order key had the last turn.
func (h *Had) Set(key uint64) { *h = Had{key: key} }

// Begin makes a rotation that has given no turn yet begin after the last turn, if that is remembered and none has gone on
// from there.
func (h *Had) Begin(r *Rotation) {
	if h.key == 0 {
		return
	}
	last := h.key << positionBits
	moved := func(began *Rotation) bool { return began.last.Load() != last }
	if len(h.began) == mostBegun || slices.ContainsFunc(h.began, moved) {
		*h = Had{}
	} else if r.last.CompareAndSwap(0, last) {
		h.began = append(h.began, r)
	}
}

// LastTurn reports whether the candidate was the last one of its tier to have a turn.
func (p *Plan) LastTurn(candidate int) bool {
	t := &p.tiers[p.tierOf[candidate]]
	return t.rotation != nil && t.keys[candidate-t.low]>>positionBits == t.rotation.last.Load()>>positionBits
}

// The lowest bits of a key are the position of its member in the tier, so that the last pick is found
// without a search. The other bits are the order key.
const (
	positionBits = 16
	positionMask = 1<<positionBits - 1
)

// turn returns the member after the last pick, or -1 if there is none, and with move makes it the last pick.
// ok is false if another pick has moved the rotation meanwhile.
func (t *tier) turn(members subset, move bool) (picked int, ok bool) {
	last := t.rotation.last.Load()
	before := int(last & positionMask)
	if last == 0 { // the first pick is anywhere: programs that ask once do not all ask the first one
		before = int(t.rotation.begin%uint64(len(t.keys))) - 1 //nolint:gosec // below the number of members
	} else if before >= len(t.keys) || t.keys[before] != last { // rare: it was picked from another plan
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

// take repeats turn with the eligible members until it is ok.
func (p *Plan) take(t *tier, eligible *bitset.Set, move bool) int {
	for {
		if picked, ok := t.turn(p.members(t, eligible), move); ok {
			return picked
		}
	}
}

// lastUpTo returns the index of the last member whose order key is at most that of key, or -1.
//
//go:noinline
func (t *tier) lastUpTo(key uint64) int {
	i, _ := slices.BinarySearch(t.keys, (key|positionMask)+1)
	return i - 1
}

// Package choice is the engines' side of package selection: what they measure of a provider, what they remember of picks,
// and what they give to one.
package choice

import (
	"context"
	"sync/atomic"
	"time"
)

// Profile holds the attributes of a provider that do not change while it is a member.
type Profile struct {
	// Service, Handler and Name identify it.
	Service, Handler, Name string
	// Capabilities, Tags and Metadata are its declarations.
	Capabilities, Tags []string
	Metadata           map[string]string
	// Version and Region are its version and its location.
	Version, Region string
	// Weight is its share relative to others. Zero counts as 1; values are clipped to the range
	// from 1e-100 to 1e100.
	Weight float64
	// Cost is the cost of a request, in a unit of your choice.
	Cost float64
}

// Member is a provider among the candidates of a group.
type Member struct {
	// Profile is copied.
	Profile Profile
	// Vitals are its measurements; nil for none.
	Vitals *Vitals
	// Context is its track for this kind of query; nil for none.
	Context *Track
}

// Cursor is the memory of a strategy for one group and one kind of query. It outlives changes
// of membership. Use [NewCursor]; it is safe for concurrent use.
type Cursor struct {
	turn  atomic.Uint64
	seed  uint64
	state atomic.Value

	_ [96]byte // the cache lines of others
}

// NewCursor returns a cursor whose random numbers are seeded with seed.
func NewCursor(seed uint64) *Cursor { return &Cursor{seed: seed} }

// Turns returns the number of turns taken.
func (c *Cursor) Turns() uint64 { return c.turn.Load() }

// Take takes a turn and returns its number.
func (c *Cursor) Take() uint64 { return c.turn.Add(1) - 1 }

// Seed returns the seed of its random numbers.
func (c *Cursor) Seed() uint64 { return c.seed }

// State returns a place for a selector's own state.
func (c *Cursor) State() *atomic.Value { return &c.state }

// Skip takes turns, so that those of different programs begin at different candidates.
func (c *Cursor) Skip(turns uint64) { c.turn.Add(turns) }

// Eligible reports the eligible candidates of a set with more than 64 candidates.
type Eligible interface {
	// Has reports whether candidate i is eligible, and Next returns the smallest
	// eligible one from i on, or -1.
	Has(i int) bool
	Next(i int) int
}

// Input is the input of a pick, in addition to the candidates.
type Input struct {
	// Mask has a bit for each eligible candidate of a set of up to 64; Large reports those of a
	// larger set.
	Mask  uint64
	Large Eligible
	// Cursor is the memory of the strategy; it must not be nil.
	Cursor *Cursor
	// Peek leaves the cursor unchanged.
	Peek bool
	// Asked is the number of candidates that the same call has tried before, and First the
	// value of [Cursor.Turns] at its first one.
	Asked int
	First uint64
	// Now is the time on the clock of the vitals; zero: the time since Epoch, read on demand.
	Now   time.Duration
	Epoch *time.Time
	// Context, Key and Caller are those of the look-up.
	Context     context.Context //nolint:containedctx // a view lives as long as a pick
	Key, Caller string
}

// Mix spreads the bits of x over all of the result, one to one (the finaliser of
// SplitMix64).
func Mix(x uint64) uint64 {
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

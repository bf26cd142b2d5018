package selection

import (
	"context"
	"math/bits"
	"sync/atomic"
	"time"
)

// Cursor is what a strategy remembers for one group and one kind of query. It
// outlives changes of membership. Use [NewCursor]; it is safe for concurrent use.
type Cursor struct {
	turn  atomic.Uint64
	seed  uint64
	state atomic.Value

	_ [96]byte // the cache lines of others
}

// NewCursor returns a cursor whose randomness begins with the seed.
func NewCursor(seed uint64) *Cursor { return &Cursor{seed: seed} }

// Turns returns how many turns were taken.
func (c *Cursor) Turns() uint64 { return c.turn.Load() }

// Eligible says who of a set with more than 64 candidates can be asked.
type Eligible interface {
	// Has reports whether candidate i is eligible, and Next returns the smallest
	// eligible one from i on, or -1.
	Has(i int) bool
	Next(i int) int
}

// Look is what a [View] is made of, beside the set.
type Look struct {
	// Mask has a bit for each eligible candidate of a set of up to 64, and Large
	// tells those of a larger one.
	Mask  uint64
	Large Eligible
	// Cursor is what the strategy remembers; it must not be nil.
	Cursor *Cursor
	// Peek leaves it as it is.
	Peek bool
	// Asked is how many candidates the same call has been given before, and First what
	// [Cursor.Turns] was when it was given the first one.
	Asked int
	First uint64
	// Now is the time on the clock of the vitals; zero: what Clock says since Epoch.
	Now   time.Duration
	Epoch *time.Time
	// Context, Key and Caller are those of the look-up.
	Context     context.Context //nolint:containedctx // a view lives as long as a pick
	Key, Caller string
}

// View is what a selector sees: the candidates of one group, who of them is eligible
// at this moment, and who asks. It is meant for one pick, in one goroutine; copies
// draw the same numbers.
type View struct {
	set    *Set
	look   Look
	drawn  uint64 // turns taken while peeking
	random uint64
	mixed  bool // random has begun
}

// View returns a view of the set. Registries make one for each pick; others need it
// to test selectors.
func (s *Set) View(look Look) View { return View{set: s, look: look} }

// Len returns how many candidates the group has, eligible or not: indices are from 0
// up to it, in the order of priority and registration, and stay the same as long as
// no member joins or leaves.
func (v *View) Len() int { return len(v.set.candidates) }

// Eligible reports whether candidate i can be asked.
func (v *View) Eligible(i int) bool {
	if v.look.Large != nil {
		return v.look.Large.Has(i)
	}
	return uint(i) < 64 && v.look.Mask>>uint(i)&1 != 0
}

// Next returns the smallest eligible index from i on, or -1.
func (v *View) Next(i int) int {
	if v.look.Large != nil {
		return v.look.Large.Next(i)
	}
	if rest := v.look.Mask >> uint(i); rest != 0 {
		return i + bits.TrailingZeros64(rest)
	}
	return -1
}

// Mask returns the eligible candidates as bits, the lowest for the first one, of a
// group of up to 64; false for a larger one. It is the fastest way through them.
func (v *View) Mask() (mask uint64, ok bool) { return v.look.Mask, v.look.Large == nil }

// Count returns how many candidates are eligible.
func (v *View) Count() int {
	if v.look.Large == nil {
		return bits.OnesCount64(v.look.Mask)
	}
	count := 0
	for i := v.Next(0); i >= 0; i = v.Next(i + 1) {
		count++
	}
	return count
}

// At returns candidate i as it is now.
func (v *View) At(i int) Candidate {
	if v.look.Now == 0 {
		v.readClock()
	}
	return Candidate{&v.set.candidates[i], v.look.Now}
}

// Now returns the time on the clock that [Candidate.RecoveredFor] counts in. It is
// read once.
func (v *View) Now() time.Duration {
	if v.look.Now == 0 {
		v.readClock()
	}
	return v.look.Now
}

//go:noinline
func (v *View) readClock() {
	v.look.Now = 1
	if v.look.Epoch != nil {
		v.look.Now = max(time.Since(*v.look.Epoch), 1)
	}
}

// EqualWeights reports whether all candidates weigh the same, so that a strategy need
// not look at weights.
func (v *View) EqualWeights() bool { return v.set.equal && v.set.ramp.window == 0 }

// Weight returns the weight of candidate i; see [Candidate.Weight].
func (v *View) Weight(i int) float64 {
	c := &v.set.candidates[i]
	if c.ramp == nil {
		return c.weight
	}
	return v.At(i).Weight()
}

// ID is [Candidate.ID] of candidate i.
func (v *View) ID(i int) uint64 { return v.set.candidates[i].id }

// Request returns what is asked. It must not be changed.
func (v *View) Request() *Request { return v.set.request }

// Context returns the context of the look-up, for its values. It is never nil.
func (v *View) Context() context.Context {
	if v.look.Context == nil {
		return context.Background()
	}
	return v.look.Context
}

// Key returns what the query says that its providers stick to, or else what the
// context does ([WithKey]); "" when neither does.
func (v *View) Key() string {
	if v.look.Key != "" {
		return v.look.Key
	}
	return KeyFrom(v.look.Context)
}

// Caller returns who is answerable for the call; "" for a plain look-up.
func (v *View) Caller() string { return v.look.Caller }

// Asked returns how many candidates of the group the same call was given before.
func (v *View) Asked() int { return v.look.Asked }

// Peeking reports whether somebody only wants to know, as explanations do: nothing
// may change.
func (v *View) Peeking() bool { return v.look.Peek || v.look.Asked > 0 }

// Turn takes a number: one more than that of the pick before, of this group and kind
// of query. While peeking it counts on without taking any, from where the first pick
// of the same call began.
func (v *View) Turn() uint64 {
	if v.Peeking() {
		first := v.look.First
		if v.look.Asked == 0 {
			first = v.look.Cursor.turn.Load()
		}
		v.drawn++
		return first + v.drawn - 1
	}
	return v.look.Cursor.turn.Add(1) - 1
}

// Random returns 64 random bits. The first for a pick takes a turn; for one turn they
// are always the same, so that explanations foretell what is picked.
func (v *View) Random() uint64 {
	const golden = 0x9e3779b97f4a7c15
	if !v.mixed {
		v.mixed = true
		// Mixed, so that the draws of one turn are not those of the next one.
		v.random = Mix(v.look.Cursor.seed + v.Turn()*golden + uint64(v.look.Asked)<<48) //nolint:gosec // not negative
	}
	v.random += golden
	return Mix(v.random)
}

// IntN returns a random integer from 0 up to n, which must be more than 0.
func (v *View) IntN(n int) int {
	high, _ := bits.Mul64(v.Random(), uint64(n)) //nolint:gosec // more than 0
	return int(high)                             //nolint:gosec // below n
}

// Float returns a random number from 0 up to 1.
func (v *View) Float() float64 { return float64(v.Random()>>11) / (1 << 53) }

// State returns where a selector may keep what it wants to remember for this group
// and kind of query.
func (v *View) State() *atomic.Value { return &v.look.Cursor.state }

// Draw returns an eligible candidate, each with the same probability, or -1.
func (v *View) Draw() int { return v.drawBeside(-1) }

// DrawTwo returns two different eligible candidates, each pair with the same
// probability. Where there is only one the second is -1, where there is none both are.
func (v *View) DrawTwo() (first, second int) {
	first = v.Draw()
	if first < 0 {
		return -1, -1
	}
	return first, v.drawBeside(first)
}

// drawBeside draws one that is not other.
func (v *View) drawBeside(other int) int {
	if v.look.Large == nil {
		mask := v.look.Mask
		if other >= 0 {
			mask &^= 1 << uint(other)
		}
		if mask&(mask-1) == 0 { // one or none
			return nextIn(mask)
		}
		return pickBit(mask, v.IntN(bits.OnesCount64(mask)))
	}
	const tries = 32
	for range tries {
		if i := v.IntN(v.Len()); i != other && v.look.Large.Has(i) {
			return i
		}
	}
	// Few are eligible. They may change meanwhile, so the count is only a bound.
	count := v.Count()
	if other >= 0 {
		count--
	}
	if count <= 0 {
		return v.nextBeside(0, other)
	}
	at := v.nextBeside(0, other)
	for range v.IntN(count) {
		if next := v.nextBeside(at+1, other); next >= 0 {
			at = next
		}
	}
	return at
}

func (v *View) nextBeside(from, other int) int {
	i := v.Next(from)
	if i >= 0 && i == other {
		i = v.Next(i + 1)
	}
	return i
}

func nextIn(mask uint64) int {
	if mask == 0 {
		return -1
	}
	return bits.TrailingZeros64(mask)
}

// pickBit returns the position of bit number n of those that are set.
func pickBit(mask uint64, n int) int {
	if mask&(mask+1) == 0 { // all of the lowest
		return n
	}
	for range n {
		mask &= mask - 1
	}
	return bits.TrailingZeros64(mask)
}

package selection

import (
	"context"
	"math/bits"
	"sync/atomic"
	"time"

	"github.com/capreg/registry/internal/choice"
)

// View is the input of a selector: the candidates of one group, which of them are eligible at
// this moment, and the query. It is meant for one pick, in one goroutine; copies draw the same
// numbers.
type View struct {
	set    *set
	look   choice.Input
	drawn  uint64 // turns taken while peeking
	random uint64
	mixed  bool // random has begun
}

// With returns a view of the same candidates for one pick. Registries make one for each.
func (v *View) With(input choice.Input) View { return View{set: v.set, look: input} }

// Len returns the number of candidates of the group, eligible or not. Indices are from 0 up to
// it, in the order of priority and registration, and stay the same as long as no member joins
// or leaves.
func (v *View) Len() int { return len(v.set.candidates) }

// Eligible reports whether candidate i can be picked.
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

// Mask returns the eligible candidates of a group of up to 64 as bits, the lowest for the first
// one; false for a larger group. It is the fastest way to iterate.
func (v *View) Mask() (mask uint64, ok bool) { return v.look.Mask, v.look.Large == nil }

// Count returns the number of eligible candidates.
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

// Now returns the time on the clock of [Candidate.RecoveredFor]. The clock is read once for
// each view.
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

// EqualWeights reports whether all candidates have the same weight, so that a strategy may
// ignore weights.
func (v *View) EqualWeights() bool { return v.set.equal && v.set.ramp.window == 0 }

// Weight returns the weight of candidate i; see [Candidate.Weight].
func (v *View) Weight(i int) float64 {
	c := &v.set.candidates[i]
	if c.ramp == nil {
		return c.weight
	}
	return v.At(i).Weight()
}

// ID returns [Candidate.ID] of candidate i.
func (v *View) ID(i int) uint64 { return v.set.candidates[i].id }

// Request returns the kind of query. It must not be changed.
func (v *View) Request() *Request { return v.set.request }

// Context returns the context of the look-up, for its values. It is never nil.
func (v *View) Context() context.Context {
	if v.look.Context == nil {
		return context.Background()
	}
	return v.look.Context
}

// Key returns the sticky key of the query, or else the one of the context ([WithKey]); ""
// without either.
func (v *View) Key() string {
	if v.look.Key != "" {
		return v.look.Key
	}
	return KeyFrom(v.look.Context)
}

// Caller returns the caller that the call is accounted to; "" for a plain look-up.
func (v *View) Caller() string { return v.look.Caller }

// Asked returns the number of candidates of the group that the same call has tried before.
func (v *View) Asked() int { return v.look.Asked }

// Peeking reports whether the pick must not change anything, as in explanations.
func (v *View) Peeking() bool { return v.look.Peek || v.look.Asked > 0 }

// Turn takes the next number of this group and kind of query. While peeking it counts on from
// the number of the first pick of the same call, without taking any.
func (v *View) Turn() uint64 {
	if v.Peeking() {
		first := v.look.First
		if v.look.Asked == 0 {
			first = v.look.Cursor.Turns()
		}
		v.drawn++
		return first + v.drawn - 1
	}
	return v.look.Cursor.Take()
}

// Random returns 64 random bits. The first for a pick takes a turn; for one turn they are
// always the same, so that explanations predict the pick.
func (v *View) Random() uint64 {
	const golden = 0x9e3779b97f4a7c15
	if !v.mixed {
		v.mixed = true
		// Mixed, so that the draws of one turn differ from those of the next.
		v.random = choice.Mix(v.look.Cursor.Seed() + v.Turn()*golden + uint64(v.look.Asked)<<48) //nolint:gosec // not negative
	}
	v.random += golden
	return choice.Mix(v.random)
}

// IntN returns a random integer from 0 up to n, which must be more than 0.
func (v *View) IntN(n int) int {
	high, _ := bits.Mul64(v.Random(), uint64(n)) //nolint:gosec // more than 0
	return int(high)                             //nolint:gosec // below n
}

// Float returns a random number from 0 up to 1.
func (v *View) Float() float64 { return float64(v.Random()>>11) / (1 << 53) }

// State returns a place for a selector's own state for this group and kind of query.
func (v *View) State() *atomic.Value { return v.look.Cursor.State() }

// Draw returns an eligible candidate, each with the same probability, or -1.
func (v *View) Draw() int { return v.drawOther(-1) }

// DrawTwo returns two different eligible candidates, each pair with the same probability. With
// only one eligible candidate the second is -1, without any both are.
func (v *View) DrawTwo() (first, second int) {
	first = v.Draw()
	if first < 0 {
		return -1, -1
	}
	return first, v.drawOther(first)
}

// drawOther draws a candidate other than other.
func (v *View) drawOther(other int) int {
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
		return v.nextOther(0, other)
	}
	at := v.nextOther(0, other)
	for range v.IntN(count) {
		if next := v.nextOther(at+1, other); next >= 0 {
			at = next
		}
	}
	return at
}

func (v *View) nextOther(from, other int) int {
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

// pickBit returns the position of the nth bit that is set, counted from 0.
func pickBit(mask uint64, n int) int {
	if mask&(mask+1) == 0 { // all of the lowest
		return n
	}
	for range n {
		mask &= mask - 1
	}
	return bits.TrailingZeros64(mask)
}

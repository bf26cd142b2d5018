// Package striped spreads hot counters over the cores that write them.
package striped

import (
	"math/bits"
	"runtime"
	"sync/atomic"
	"unsafe"
)

const (
	minStripes = 8
	maxStripes = 64

	// linePair is the memory that two cells must not share: the adjacent-line
	// prefetcher of common processors moves lines of 64 bytes in pairs.
	linePair = 128

	// minStackShift is the binary logarithm of the smallest goroutine stack.
	minStackShift = 11

	// golden is 2^64 divided by the golden ratio. Multiples of it spread evenly
	// over the top bits, also when the multiplicands are, as the addresses of
	// stacks are, a power of two apart.
	golden = 0x9E3779B97F4A7C15
)

//nolint:gochecknoglobals // facts of the machine, set once
var (
	// stripes is a power of two. It stays what start-up made it: a later
	// change of GOMAXPROCS changes how often two cores meet in one cell, never
	// a count.
	stripes = stripesFor(runtime.GOMAXPROCS(0))

	// stripeShift leaves of a hash the bits that number a stripe.
	stripeShift = uint(64 - bits.TrailingZeros(stripes))
)

// stripesFor returns the number of stripes for procs cores: two or more for
// each, because goroutines land on them by chance.
func stripesFor(procs int) uint {
	return min(max(uint(2)<<bits.Len(uint(procs-1)), minStripes), maxStripes)
}

// Cells is a T for each stripe, where a stripe is a share of all goroutines.
// The zero value is ready for use and costs one pointer until the first call of
// Local. It is safe for concurrent use as long as T is, and so T is typically a
// struct of atomic counters, whose sums over Each are the totals.
//
// A Cells must not be copied after its first use.
type Cells[T any] struct {
	// first points at cell number 0 of an array of as many as there are
	// stripes. It is set once.
	first atomic.Pointer[cell[T]]
}

// cell has its padding on both sides of the value, because the array begins and
// ends next to the objects of others.
type cell[T any] struct {
	_     [linePair / 2]byte
	value T
	_     [linePair / 2]byte
}

// Stripe is a share of all goroutines.
type Stripe uint

// Here returns the stripe of the calling goroutine. Two goroutines may be in the same
// stripe, and a goroutine in another stripe than before. It is safe for concurrent use.
func Here() Stripe {
	// A goroutine keeps its stack, so an address on it, without the bits that
	// vary with the depth of calls, tells goroutines apart: each keeps its
	// cell, and its core keeps the cache line. The stack moves when it grows
	// and the runtime has no other promise to give, but a wrong guess costs
	// time and nothing else. The address is only ever a number, so here does
	// not escape, and nothing is read through it.
	var here byte

	return Stripe(uint64(uintptr(unsafe.Pointer(&here))>>minStackShift) * golden >> (stripeShift % 64)) //nolint:gosec // a number, see above
}

// Local returns the cell for the calling goroutine. Several goroutines may be given
// the same cell, so a T must be safe for concurrent use. It is safe for concurrent use and
// allocates only on the first call.
func (c *Cells[T]) Local() *T {
	if c.first.Load() == nil {
		c.first.CompareAndSwap(nil, unsafe.SliceData(make([]cell[T], stripes))) //nolint:gosec // the array stays whole
	}

	return c.At(Here())
}

// At returns the cell of a stripe, or nil before the first call of Local. It is safe
// for concurrent use, and small, to be inlined.
func (c *Cells[T]) At(stripe Stripe) *T {
	first := c.first.Load()
	if first == nil {
		return nil
	}

	return &(*cell[T])(unsafe.Add(unsafe.Pointer(first), uintptr(stripe)*unsafe.Sizeof(*first))).value //nolint:gosec // stripe is in range
}

// Each calls yield with every cell until yield returns false; range over it.
// Before the first call of Local there are no cells. It is safe for concurrent
// use, and cells go on changing while it runs.
func (c *Cells[T]) Each(yield func(*T) bool) {
	first := c.first.Load()
	if first == nil {
		return
	}
	all := unsafe.Slice(first, stripes) //nolint:gosec // Local made as many
	for i := range all {
		if !yield(&all[i].value) {
			return
		}
	}
}

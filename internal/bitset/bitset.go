// Package bitset provides a fixed-size set of small integers that is read
// without locks.
package bitset

import (
	"math/bits"
	"sync/atomic"
)

// OneWord is the number of integers of a set, from zero on, that are read atomically.
const OneWord = wordBits

const (
	wordBits  = 64
	wordShift = 6
	allOnes   = ^uint64(0)
)

// Set is a fixed-size set of the integers in [0, Len()). Its readers, Has, Head,
// First, Next, Mask, Count, CountIn and Len, may be called from any number of goroutines at any time
// and never wait; calls of its writers, Add and Remove, must be serialised by
// the caller. Use New to make one.
//
// It is a bitmap with a pyramid of summaries above it: a bit of one level is
// set if its word, one level below, has any bit set. Next
// therefore visits a handful of words however many positions there are.
//
// Writers keep one invariant at every instant, not only between calls: a
// non-empty word has its summary bit set. They set bits from the top down and
// clear them from the bottom up. The opposite, a summary bit above an empty
// word, is a state that readers do meet and have to step over.
type Set struct {
	// head holds the positions below 64. It lives here, and not in levels, so
	// that a set of up to 64 positions is one word away for its readers.
	head atomic.Uint64

	// levels[0] is the bitmap, whose first word stays unused in favour of
	// head, and levels[k] summarises levels[k-1]. The last level is one word.
	// There are no levels if head is all there is.
	levels [][]atomic.Uint64

	size  int
	count atomic.Int64
}

// New returns an empty set with room for the integers in [0, n). A negative n
// counts as zero. It is safe for concurrent use.
func New(n int) *Set {
	set := &Set{size: max(n, 0)}
	for words := set.size; words > wordBits; {
		words = (words-1)>>wordShift + 1
		set.levels = append(set.levels, make([]atomic.Uint64, words))
	}
	if len(set.levels) > 0 {
		set.levels = append(set.levels, make([]atomic.Uint64, 1))
	}

	return set
}

// Len returns the capacity of the set, the n it was made with. It is safe for
// concurrent use.
func (s *Set) Len() int { return s.size }

// Count returns the number of members. It is safe for concurrent use; while a
// writer is at work it may or may not include that write.
func (s *Set) Count() int { return int(s.count.Load()) }

// Has reports whether i is a member; an i out of range never is. It is safe
// for concurrent use.
func (s *Set) Has(i int) bool {
	return uint(i) < uint(s.size) && s.leaf(i).Load()&bit(i) != 0
}

// Add makes i a member. It panics if i is out of range. It is safe to call
// while others read, but not while another goroutine calls Add or Remove.
func (s *Set) Add(i int) {
	if uint(i) >= uint(s.size) {
		panic("bitset: position out of range")
	}
	leaf := s.leaf(i)
	before := leaf.Load()
	if before&bit(i) != 0 {
		return
	}
	if before == 0 {
		for level := len(s.levels) - 1; level > 0; level-- {
			at := i >> (level * wordShift)
			summary := &s.levels[level][at>>wordShift]
			summary.Store(summary.Load() | bit(at))
		}
	}
	leaf.Store(before | bit(i))
	s.count.Add(1)
}

// Remove makes i no longer a member; an i out of range never was. It is safe
// to call while others read, but not while another goroutine calls Add or
// Remove.
func (s *Set) Remove(i int) {
	if !s.Has(i) {
		return
	}
	leaf := s.leaf(i)
	after := leaf.Load() &^ bit(i)
	leaf.Store(after)
	s.count.Add(-1)

	for level := 1; after == 0 && level < len(s.levels); level++ {
		at := i >> (level * wordShift)
		summary := &s.levels[level][at>>wordShift]
		after = summary.Load() &^ bit(at)
		summary.Store(after)
	}
}

// Head returns the members below OneWord, as bits, all of one moment. It is safe for
// concurrent use.
func (s *Set) Head() uint64 { return s.head.Load() }

// First is Next of everything. It is small, to be inlined.
func (s *Set) First() int {
	if word := s.head.Load(); word != 0 {
		return bits.TrailingZeros64(word)
	}

	return s.firstBehindHead()
}

//go:noinline
func (s *Set) firstBehindHead() int { return s.search(wordBits, s.size) }

// Next returns the smallest member in [from, to), or -1 if there is none.
// Bounds beyond the set are clamped to it. It is safe for concurrent use.
//
// While a writer is at work, the result was a member at some instant of the
// call, and no integer that was a member throughout the call is passed over.
func (s *Set) Next(from, to int) int {
	from = max(from, 0)
	// A from past the first word shifts every bit out of the mask.
	i := bits.TrailingZeros64(s.head.Load() & (allOnes << uint(from)))
	if i < min(wordBits, to) {
		return i
	}
	if len(s.levels) == 0 {
		return -1
	}

	return s.search(max(from, wordBits), min(to, s.size))
}

// search is Next from the second word on. It searches the rest of a word,
// climbs one level when that is nothing and descends one when it is something.
// Each step starts right after all that has been searched, so an empty word
// below a set summary bit is passed like any other, and the search always ends.
func (s *Set) search(from, to int) int {
	if from >= to { // also of a set without levels
		return -1
	}
	level, at, last := 0, from, to-1
	for {
		word := s.levels[level][at>>wordShift].Load() & (allOnes << (uint(at) % wordBits))
		if word == 0 {
			level, at, last = level+1, at>>wordShift+1, last>>wordShift
			if level == len(s.levels) || at > last {
				return -1
			}

			continue
		}
		at = at&^(wordBits-1) | bits.TrailingZeros64(word)
		if at > last {
			return -1
		}
		if level == 0 {
			return at
		}
		level, at = level-1, at<<wordShift
		last = (to - 1) >> (uint(level) * wordShift)
	}
}

// Mask returns the members in [from, from+n), n being at most 64, as bits: the
// lowest bit is from. Bounds beyond the set are clamped to it. It is safe for
// concurrent use; of a writer at work it may see a part.
func (s *Set) Mask(from, n int) uint64 {
	n = min(n, s.size-from, wordBits)
	if n <= 0 || from < 0 {
		return 0
	}
	shift := uint(from) % wordBits
	mask := s.leaf(from).Load() >> shift
	if int(shift)+n > wordBits {
		mask |= s.leaf(from+wordBits).Load() << (wordBits - shift)
	}

	return mask & (allOnes >> (wordBits - uint(n)))
}

// CountIn returns the number of members in [from, to). It is safe for concurrent
// use and visits each word of the range.
func (s *Set) CountIn(from, to int) (count int) {
	for from = max(from, 0); from < to && from < s.size; from += wordBits {
		count += bits.OnesCount64(s.Mask(from, min(to-from, wordBits)))
	}

	return count
}

// leaf returns the word of the bitmap that holds position i.
func (s *Set) leaf(i int) *atomic.Uint64 {
	if i < wordBits {
		return &s.head
	}

	return &s.levels[0][i>>wordShift]
}

func bit(i int) uint64 { return 1 << (uint(i) % wordBits) }

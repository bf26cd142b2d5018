// Package claim keeps track of the targets that one call has, or had, so that concurrent searches of the call never
// choose the same one.
//
// A [Set] is a plain value: its owner guards it. A search claims a target before it enters it, and gives it up if it
// was not entered after all; a target whose lease is over remains in the set. The package never looks at a target
// beyond comparing it.
package claim

import "iter"

// few is the number of claims that need no allocation.
const few = 4

// Set has at most one claim on each target. The zero value is empty and ready to use; it must not be copied.
type Set[T comparable] struct {
	claims []claim[T]
	inline [few]claim[T]
}

// claim is the claim of a call on one target.
//
//	state       event      next        meaning of the state
//	free        Claim      entering    no claim, or the target was not entered after all
//	free        Reclaim    entering
//	entering    Enter      leased      a search is about to enter the target
//	entering    Release    free
//	leased      Release    over        a lease of the target goes on
//	over        Reclaim    reentering  the lease is over
//	reentering  Enter      leased      the lease is over, and a search is about to enter the target once more
//	reentering  Release    over
//
// Everything else leaves the state as it is, and Claim and Reclaim report false then.
type claim[T comparable] struct {
	target T
	state  state
}

type state uint8

const (
	free state = iota
	entering
	leased
	over
	reentering
)

// Claim takes the target for a search. It reports false when the call has or had it.
func (s *Set[T]) Claim(target T) bool {
	c := s.findOrAdd(target)
	if c.state != free {
		return false
	}
	c.state = entering
	return true
}

// Reclaim takes the target for a search, also when its lease is over. It reports false when the call has it.
func (s *Set[T]) Reclaim(target T) bool {
	c := s.findOrAdd(target)
	if c.state == over {
		c.state = reentering
		return true
	}
	return s.Claim(target)
}

// Enter makes a claimed target leased.
func (s *Set[T]) Enter(target T) {
	if c := s.find(target); c != nil && (c.state == entering || c.state == reentering) {
		c.state = leased
	}
}

// Release gives up a target that was claimed and not entered, or whose lease is over.
func (s *Set[T]) Release(target T) {
	c := s.find(target)
	switch {
	case c == nil:
	case c.state == entering:
		c.state = free
	case c.state == leased || c.state == reentering:
		c.state = over
	}
}

// Has reports whether the target is claimed, or was entered.
func (s *Set[T]) Has(target T) bool {
	c := s.find(target)
	return c != nil && c.state != free
}

// Entered reports whether the target was entered.
func (s *Set[T]) Entered(target T) bool {
	c := s.find(target)
	return c != nil && c.state >= leased
}

// All yields the targets that are claimed, or were entered.
func (s *Set[T]) All() iter.Seq[T] {
	return func(yield func(T) bool) {
		for _, c := range s.claims {
			if c.state != free && !yield(c.target) {
				return
			}
		}
	}
}

func (s *Set[T]) find(target T) *claim[T] {
	for i := range s.claims {
		if s.claims[i].target == target {
			return &s.claims[i]
		}
	}
	return nil
}

func (s *Set[T]) findOrAdd(target T) *claim[T] {
	if c := s.find(target); c != nil {
		return c
	}
	if s.claims == nil {
		s.claims = s.inline[:0]
	}
	s.claims = append(s.claims, claim[T]{target: target})
	return &s.claims[len(s.claims)-1]
}

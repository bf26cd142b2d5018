// Package slots limits how many may do something at once. Whoever finds no free
// slot may wait, first come first served, at several limits together.
package slots

import (
	"container/list"
	"context"
	"sync"
	"sync/atomic"
)

// Slots is a number of slots. It is made by [New] and must not be copied; its
// methods are safe for concurrent use. Taking and releasing a slot takes no lock
// while nobody waits.
type Slots struct {
	// word is the number of slots taken, with the flag waiting set while the
	// queue is not empty. While it is set, word changes only under mu, so that
	// nobody gets in before those who wait.
	word atomic.Uint64
	// limit and room are written under mu.
	limit atomic.Int64
	room  atomic.Int64

	mu    sync.Mutex
	queue list.List // of *ticket, first come first
}

const waiting = 1 << 63

// New returns limit free slots, at which up to room may wait.
func New(limit, room int) *Slots {
	s := &Slots{}
	s.limit.Store(int64(limit))
	s.room.Store(int64(room))
	return s
}

// Taken returns how many slots are taken, and Waiting how many wait.
func (s *Slots) Taken() int { return int(s.word.Load() &^ waiting) } //nolint:gosec // a count

// Waiting returns how many wait for a slot.
func (s *Slots) Waiting() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.queue.Len()
}

// Free reports whether TryAcquire would get a slot.
func (s *Slots) Free() bool {
	word := s.word.Load()
	return word&waiting == 0 && int64(word) < s.limit.Load() //nolint:gosec // a count
}

// TryAcquire takes a slot if one is free and nobody waits for it.
func (s *Slots) TryAcquire() bool {
	for {
		word := s.word.Load()
		if word&waiting != 0 || int64(word) >= s.limit.Load() { //nolint:gosec // a count
			return false
		}
		if s.word.CompareAndSwap(word, word+1) {
			return true
		}
	}
}

// Release gives a slot back, to whoever waits longest.
func (s *Slots) Release() {
	for {
		word := s.word.Load()
		if word&waiting != 0 {
			break
		}
		if s.word.CompareAndSwap(word, word-1) {
			return
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.word.Add(^uint64(0))
	s.grant()
}

// Resize changes the number of slots and the room for those who wait. Whoever is
// in, or waits, remains so.
func (s *Slots) Resize(limit, room int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.limit.Store(int64(limit))
	s.room.Store(int64(room))
	s.grant()
}

// grant hands free slots to those who wait. Whoever has got one elsewhere keeps
// the position. Caller holds mu.
func (s *Slots) grant() {
	for at := s.queue.Front(); at != nil && int64(s.word.Load()&^waiting) < s.limit.Load(); { //nolint:gosec // a count
		first := at.Value.(*ticket) //nolint:forcetypeassert // nothing else is queued
		at = at.Next()
		if first.wait.claimed.CompareAndSwap(false, true) {
			s.queue.Remove(first.element)
			first.element = nil
			s.word.Add(1)
			first.wait.granted <- first.at
		}
	}
	if s.queue.Len() == 0 {
		s.word.And(^uint64(waiting))
	}
}

// Wait is a wait at several Slots: the first that has a slot to give ends it. It
// is for one goroutine.
type Wait struct {
	claimed atomic.Bool
	granted chan int // has room for the one grant
	taken   bool     // what was granted was handed out
	tickets []*ticket
}

type ticket struct {
	wait    *Wait
	slots   *Slots
	at      int
	left    bool          // for good; the owner of the wait says so
	element *list.Element // guarded by slots.mu; nil when it left the queue
}

// NewWait returns a wait at nothing yet. It must be ended with [Wait.End].
func NewWait() *Wait { return &Wait{granted: make(chan int, 1)} }

// Join lines up at one more, which the wait calls by a number of its own; false when
// there is no room. It may be called whenever For is not waiting.
func (w *Wait) Join(s *Slots, at int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if int64(s.queue.Len()) >= s.room.Load() {
		return false
	}
	t := &ticket{wait: w, slots: s, at: at}
	t.element = s.queue.PushBack(t)
	w.tickets = append(w.tickets, t)
	s.word.Or(waiting)
	s.grant() // a slot may have become free before the flag was set
	return true
}

// For waits for a slot until ctx ends, or wake is closed, which it reports. It
// returns the number of the slots that gave one, -1 when none did; the positions in
// the other queues remain.
func (w *Wait) For(ctx context.Context, wake <-chan struct{}) (at int, woken bool) {
	at = -1
	select {
	case at = <-w.granted:
	default:
		select {
		case at = <-w.granted:
		case <-wake:
			woken = true
		case <-ctx.Done():
		}
	}
	w.taken = at >= 0
	return at, woken
}

// Resume goes on waiting after a slot was given, which was released or is of no
// use, and lines up anew where it was.
func (w *Wait) Resume(at int) {
	for _, t := range w.tickets {
		if t.at == at && !t.left {
			t.again()
		}
	}
	w.taken = false
	w.claimed.Store(false)
	for _, t := range w.tickets {
		t.slots.mu.Lock()
		t.slots.grant() // it may have passed this wait by
		t.slots.mu.Unlock()
	}
}

// again lines up at the end, where there is room.
func (t *ticket) again() {
	t.slots.mu.Lock()
	defer t.slots.mu.Unlock()
	if t.element == nil && int64(t.slots.queue.Len()) < t.slots.room.Load() {
		t.element = t.slots.queue.PushBack(t)
		t.slots.word.Or(waiting)
	}
}

// Leave leaves one queue for good.
func (w *Wait) Leave(at int) {
	for _, t := range w.tickets {
		if t.at == at {
			t.left = true
			t.leave()
		}
	}
}

// End leaves all queues, and gives back a slot that came too late.
func (w *Wait) End() {
	if !w.claimed.CompareAndSwap(false, true) && !w.taken {
		at := <-w.granted
		for _, t := range w.tickets {
			if t.at == at {
				t.slots.Release()
			}
		}
	}
	for _, t := range w.tickets {
		t.leave()
	}
}

func (t *ticket) leave() {
	t.slots.mu.Lock()
	defer t.slots.mu.Unlock()
	if t.element != nil {
		t.slots.queue.Remove(t.element)
		t.element = nil
		t.slots.grant()
	}
}

// Package slots limits concurrency. A caller without a free slot may wait, first come first
// served, at several limits together.
package slots

import (
	"container/list"
	"context"
	"sync"
	"sync/atomic"
)

// Slots is a limited number of slots with a queue. Use [New]; it must not be copied. Its
// methods are safe for concurrent use. Taking and releasing a slot takes no lock while the
// queue is empty.
type Slots struct {
	// word is the number of slots taken, with the flag waiting set while the queue is not
	// empty. While it is set, word changes only under mu, so that the queue cannot be
	// overtaken.
	word atomic.Uint64
	// limit and room are written under mu; room bounds the queue.
	limit atomic.Int64
	room  atomic.Int64

	mu    sync.Mutex
	queue list.List // of *ticket, first come first
}

const waiting = 1 << 63

// New returns limit free slots with a queue for up to room waits.
func New(limit, room int) *Slots {
	s := &Slots{}
	s.limit.Store(int64(limit))
	s.room.Store(int64(room))
	return s
}

// Taken returns the number of slots that are taken.
func (s *Slots) Taken() int { return int(s.word.Load() &^ waiting) } //nolint:gosec // a count

// Waiting returns the length of the queue.
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

// TryAcquire takes a slot if one is free and the queue is empty.
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

// Release gives a slot back, to the first in the queue if there is one.
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

// Resize changes the number of slots and the bound of the queue. Slots that are taken and waits
// in the queue remain.
func (s *Slots) Resize(limit, room int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.limit.Store(int64(limit))
	s.room.Store(int64(room))
	s.grant()
}

// grant hands free slots to the queue. A wait that got a slot elsewhere keeps its position.
// Caller holds mu.
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

// Wait is a wait at several Slots: the first that grants a slot ends it. It is for one
// goroutine.
type Wait struct {
	claimed atomic.Bool
	granted chan int // buffers the one grant
	taken   bool     // For has returned the grant
	tickets []*ticket
}

type ticket struct {
	wait    *Wait
	slots   *Slots
	at      int
	left    bool          // for good, by Leave
	element *list.Element // guarded by slots.mu; nil when it left the queue
}

// NewWait returns a wait in no queue. It must be ended with [Wait.End].
func NewWait() *Wait { return &Wait{granted: make(chan int, 1)} }

// Join adds the wait to the queue of s, which at numbers for the caller; false when the queue
// is full. It may be called whenever For is not waiting.
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

// For waits for a slot until ctx ends, or wake is closed, which it reports. It returns the
// number of the Slots that granted one, -1 when none did; the positions in the other queues
// remain.
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

// Resume continues the wait after a granted slot was released or is of no use, and joins that
// queue again at its end.
func (w *Wait) Resume(at int) {
	for _, t := range w.tickets {
		if t.at == at && !t.left {
			t.rejoin()
		}
	}
	w.taken = false
	w.claimed.Store(false)
	for _, t := range w.tickets {
		t.slots.mu.Lock()
		t.slots.grant() // a slot may have become free while this wait was claimed
		t.slots.mu.Unlock()
	}
}

// rejoin joins the queue at its end, if it is not full.
func (t *ticket) rejoin() {
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

// End leaves all queues, and gives back a slot that was granted but not returned by For.
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

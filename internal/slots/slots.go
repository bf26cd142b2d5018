// Package slots limits concurrency. A caller without a free slot may wait, at several limits together. The
// queue of a limit takes turns among callers, and is first come first served for each of them.
package slots

import (
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

	// mu guards the queue and its tickets. Conditions of waits are called while it is held; they must not block.
	mu    sync.Mutex
	queue queue
	heir  *Slots // where the queue has moved to; nil: nowhere
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
	return s.queue.length
}

// HasRoom reports whether the queue has room for another wait.
func (s *Slots) HasRoom() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return int64(s.queue.length) < s.room.Load()
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

// Release gives back a slot that was taken, to the next in the queue if there is one. More releases than slots taken
// break the count.
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

// MoveQueue moves the queue to other slots, in its order and whatever their room, together with the waits that
// join it from now on. Calls of MoveQueue must not overlap.
func (s *Slots) MoveQueue(to *Slots) {
	if s == to {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	to.mu.Lock()
	defer to.mu.Unlock()
	s.heir, to.heir = to, nil
	for t := s.queue.pop(); t != nil; t = s.queue.pop() {
		t.slots.Store(to)
		t.number = 0
		to.enqueue(t)
	}
	s.grant()
	to.grant()
}

// enqueue queues a ticket, at its old position if it had one. Caller holds mu.
func (s *Slots) enqueue(t *ticket) {
	s.queue.push(t)
	s.word.Or(waiting)
}

// grant hands free slots to the queue. A wait that got a slot elsewhere, or whose condition is not met, keeps
// its position. Caller holds mu.
func (s *Slots) grant() {
	for s.hasFree() {
		t := s.queue.claimNext()
		if t == nil {
			break
		}
		s.word.Add(1)
		t.wait.granted <- t.at // it never blocks: a wait is granted one slot at a time, and its channel buffers that
	}
	if s.queue.length == 0 {
		s.word.And(^uint64(waiting))
	}
}

// hasFree reports whether a slot is free, whatever the queue. Caller holds mu.
func (s *Slots) hasFree() bool {
	return int64(s.word.Load()&^waiting) < s.limit.Load() //nolint:gosec // a count
}

// makeRoom reports whether the queue has room for another wait of the caller. In a full one, the caller with
// the most waits loses its last one to a caller with fewer. Caller holds mu.
func (s *Slots) makeRoom(caller string) bool {
	if int64(s.queue.length) < s.room.Load() {
		return true
	}
	last := s.queue.lastOfLargest(s.queue.waitsOf(caller) + 1)
	if last == nil || s.room.Load() == 0 {
		return false
	}
	s.queue.remove(last)
	last.lost = true
	last.wait.notify()
	return true
}

package slots

import (
	"container/list"
	"context"
	"sync/atomic"
)

// Wait is a wait at several Slots: the first that grants a slot ends it. It is for one
// goroutine.
type Wait struct {
	caller  string
	claimed atomic.Bool
	granted chan int      // buffers the one grant
	notice  chan struct{} // buffers the news that a turn came in vain, or a position was lost
	taken   bool          // For has returned the grant
	tickets []*ticket
}

// ticket is a wait's position in one queue. Its fields but at and left are guarded by the mutex of its slots,
// and slots itself changes with both mutexes held.
type ticket struct {
	wait    *Wait
	slots   atomic.Pointer[Slots]
	at      int
	left    bool // for good, by Leave
	usable  func() bool
	number  int64         // its order in the queue; 0: it was in none yet
	passed  bool          // its turn came while its condition was not met
	lost    bool          // it had to make room
	element *list.Element // nil when it is not in the queue
}

// first is a number before all others.
const first = -1

// NewWait returns a wait of a caller in no queue. It must be ended with [Wait.End].
func NewWait(caller string) *Wait {
	return &Wait{caller: caller, granted: make(chan int, 1), notice: make(chan struct{}, 1)}
}

// Join adds the wait to the queue of s, which at numbers for the caller; false when the queue
// is full. It may be called whenever For is not waiting.
//
// A slot is granted only while usable reports true; nil always does. It must not block, nor use Slots. A call of
// Join for a number that has joined replaces it.
func (w *Wait) Join(s *Slots, at int, usable func() bool) bool {
	if t := w.ticket(at); t != nil {
		s = t.lock()
		defer s.mu.Unlock()
		t.usable = usable
		s.grant()
		return t.element != nil || w.claimed.Load()
	}
	t := &ticket{wait: w, at: at, usable: usable}
	t.slots.Store(s)
	s = t.lockHeir()
	defer s.mu.Unlock()
	s.grant() // a slot may have become free before the flag was set
	if !s.hasFree() && !s.makeRoom(w.caller) {
		return false
	}
	w.tickets = append(w.tickets, t)
	s.enqueue(t)
	s.grant()
	return true
}

// ticket returns the ticket of that number; nil: there is none.
func (w *Wait) ticket(at int) *ticket {
	for _, t := range w.tickets {
		if t.at == at {
			return t
		}
	}
	return nil
}

// lock locks the slots of a ticket, and returns them.
func (t *ticket) lock() *Slots {
	for {
		s := t.slots.Load()
		s.mu.Lock()
		if t.slots.Load() == s {
			return s
		}
		s.mu.Unlock()
	}
}

// lockHeir is lock for a ticket that is in no queue: it follows the queue to where it has moved.
func (t *ticket) lockHeir() *Slots {
	for {
		s := t.slots.Load()
		s.mu.Lock()
		if s.heir == nil {
			return s
		}
		t.slots.Store(s.heir)
		s.mu.Unlock()
	}
}

// notify makes the wait's For return.
func (w *Wait) notify() {
	select {
	case w.notice <- struct{}{}:
	default:
	}
}

// passBy notes that the turn came in vain.
func (t *ticket) passBy() {
	if !t.passed {
		t.passed = true
		t.wait.notify()
	}
}

// Slots returns the slots of that number, at which the wait queues or which granted it one: those that it has
// joined, or those to which their queue has moved.
func (w *Wait) Slots(at int) *Slots {
	if t := w.ticket(at); t != nil {
		return t.slots.Load()
	}
	return nil
}

// Passed reports whether the wait's turn has come in that queue while its condition was not met.
func (w *Wait) Passed(at int) bool {
	t := w.ticket(at)
	if t == nil {
		return false
	}
	defer t.lock().mu.Unlock()
	return t.passed
}

// Lost reports whether the wait has lost its position in that queue to another caller.
func (w *Wait) Lost(at int) bool {
	t := w.ticket(at)
	if t == nil {
		return false
	}
	defer t.lock().mu.Unlock()
	return t.lost
}

// Recheck looks again at the conditions of the wait, and of those before it: to be called when one may be met.
func (w *Wait) Recheck() {
	for _, t := range w.tickets {
		s := t.lock()
		if t.element != nil && (t.usable == nil || t.usable()) {
			s.grant()
		}
		s.mu.Unlock()
	}
}

// For waits for a slot until ctx ends, or wake is closed, or a turn came in vain, or a position was lost, which
// woken reports. It returns the number of the Slots that granted one, -1 when none did; the positions in the
// other queues remain.
func (w *Wait) For(ctx context.Context, wake <-chan struct{}) (at int, woken bool) {
	at = -1
	select {
	case at = <-w.granted:
	default:
		select {
		case at = <-w.granted:
		case <-w.notice:
			woken = true
		case <-wake:
			woken = true
		case <-ctx.Done():
		}
	}
	w.taken = at >= 0
	return at, woken
}

// Resume continues the wait after a granted slot was released or is of no use, at the position that it had.
func (w *Wait) Resume(at int) {
	if t := w.ticket(at); t != nil && !t.left {
		t.rejoin()
	}
	w.taken = false
	w.claimed.Store(false)
	for _, t := range w.tickets {
		s := t.lock()
		s.grant() // a slot may have become free while this wait was claimed
		s.mu.Unlock()
	}
}

// rejoin takes up its position in the queue again, for which it needs no room.
func (t *ticket) rejoin() {
	granted := t.slots.Load()
	s := t.lockHeir()
	defer s.mu.Unlock()
	if s != granted {
		t.number = first // the queue has moved while it was out
	}
	if t.element == nil && !t.lost {
		s.enqueue(t)
	}
}

// Leave leaves one queue for good.
func (w *Wait) Leave(at int) {
	if t := w.ticket(at); t != nil {
		t.left = true
		t.leave()
	}
}

// End leaves all queues, and gives back a slot that was granted but not returned by For.
func (w *Wait) End() {
	if !w.claimed.CompareAndSwap(false, true) && !w.taken {
		if t := w.ticket(<-w.granted); t != nil {
			t.slots.Load().Release()
		}
	}
	for _, t := range w.tickets {
		t.leave()
	}
}

func (t *ticket) leave() {
	s := t.lock()
	defer s.mu.Unlock()
	if t.element != nil {
		s.queue.remove(t)
		s.grant()
	}
}

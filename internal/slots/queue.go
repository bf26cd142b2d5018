package slots

import "container/list"

// queue has the tickets of waits: callers take turns, and each caller's tickets are in the order in which they
// came. The zero value is empty.
type queue struct {
	length  int
	latest  int64                  // number of a ticket
	turns   list.List              // of *callerLine, the next turn first
	callers map[string]*callerLine // those with tickets
}

// callerLine has the tickets of one caller.
type callerLine struct {
	caller  string
	tickets list.List // of *ticket, by number
	turn    *list.Element
}

// push adds a ticket: at the end of its caller's, or, when it was in the queue before, at the position that it
// had, with the next turn for its caller.
func (q *queue) push(t *ticket) {
	line, known := q.callers[t.wait.caller]
	if !known {
		if q.callers == nil {
			q.callers = make(map[string]*callerLine)
		}
		line = &callerLine{caller: t.wait.caller}
		line.turn = q.turns.PushBack(line)
		q.callers[t.wait.caller] = line
	}
	q.length++
	if t.number == 0 {
		q.latest++
		t.number = q.latest
		t.element = line.tickets.PushBack(t)
		return
	}
	q.turns.MoveToFront(line.turn)
	for at := line.tickets.Front(); at != nil; at = at.Next() {
		if ticketAt(at).number > t.number {
			t.element = line.tickets.InsertBefore(t, at)
			return
		}
	}
	t.element = line.tickets.PushBack(t)
}

func ticketAt(e *list.Element) *ticket {
	return e.Value.(*ticket) //nolint:forcetypeassert // nothing else is queued
}

func lineAt(e *list.Element) *callerLine {
	return e.Value.(*callerLine) //nolint:forcetypeassert // nothing else takes turns
}

func (q *queue) remove(t *ticket) {
	line := q.callers[t.wait.caller]
	line.tickets.Remove(t.element)
	t.element = nil
	q.length--
	if line.tickets.Len() == 0 {
		q.turns.Remove(line.turn)
		delete(q.callers, line.caller)
	}
}

// pop removes the ticket whose turn is next, and gives the next turn to another caller; nil: the queue is empty.
func (q *queue) pop() *ticket {
	first := q.turns.Front()
	if first == nil {
		return nil
	}
	t := ticketAt(lineAt(first).tickets.Front())
	q.take(t)
	return t
}

// take removes a ticket whose turn it was.
func (q *queue) take(t *ticket) {
	q.turns.MoveToBack(q.callers[t.wait.caller].turn)
	q.remove(t)
}

// claimNext removes the first ticket whose condition is met and whose wait has no slot yet, and claims the wait;
// nil: there is none. The waits whose condition is not met learn that their turn has come.
func (q *queue) claimNext() *ticket {
	for turn := q.turns.Front(); turn != nil; turn = turn.Next() {
		for at := lineAt(turn).tickets.Front(); at != nil; at = at.Next() {
			t := ticketAt(at)
			if t.usable != nil && !t.usable() {
				t.passBy()
				continue
			}
			t.passed = false
			if t.wait.claimed.CompareAndSwap(false, true) {
				q.take(t)
				return t
			}
		}
	}
	return nil
}

// waitsOf returns the number of the caller's tickets.
func (q *queue) waitsOf(caller string) int {
	if line, known := q.callers[caller]; known {
		return line.tickets.Len()
	}
	return 0
}

// lastOfLargest returns the last ticket of the caller with the most, if it has more than that; else nil.
func (q *queue) lastOfLargest(more int) (last *ticket) {
	for turn := q.turns.Front(); turn != nil; turn = turn.Next() {
		if line := lineAt(turn); line.tickets.Len() > more {
			more, last = line.tickets.Len(), ticketAt(line.tickets.Back())
		}
	}
	return last
}

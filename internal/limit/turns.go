package limit

import (
	"slices"
	"sync"
	"time"
)

// Turns keeps the order of calls that wait until the same thing comes back, and spreads their return: they do not
// all go at once. Each key has a line of its own. The zero value is empty. All methods are safe for concurrent use.
//
//	state of a line | transition                           | effect
//	waiting         | Delay of any call                    | returning; the first goes at once
//	returning       | Delay of the first, after a gap      | it may go, and is out of the line
//	returning       | Delay of another                     | it waits for a gap for each before it
//	returning       | StillAway: it has left again         | waiting; those that have not gone keep their order
type Turns[K comparable] struct {
	// mu guards the fields below; nothing is called while it is held.
	mu     sync.Mutex
	latest uint64
	lines  map[K]*line
}

// line has the calls that wait for one key.
type line struct {
	numbers []uint64      // ascending
	spread  time.Duration // within which all of them go
	gap     time.Duration // between two of them
	next    time.Time     // before which none may go; zero while waiting
}

// Turn is the place of one call in the order of arrival, which it keeps as long as it waits, for whatever key. It is
// for one goroutine.
type Turn[K comparable] struct {
	turns  *Turns[K]
	number uint64
	key    K // of the line in which it waits, if it does
}

// Turn returns the next place in the order.
func (t *Turns[K]) Turn() Turn[K] { return Turn[K]{turns: t, number: t.Number()} }

// StillAway is [Turns.StillAway] of the call.
func (t *Turn[K]) StillAway(key K, wait time.Duration) {
	t.join(key)
	t.turns.StillAway(key, t.number, wait)
}

// Delay is [Turns.Delay] of the call.
func (t *Turn[K]) Delay(key K) time.Duration {
	t.join(key)
	return t.turns.Delay(key, t.number)
}

// Leave ends the wait. The place in the order remains.
func (t *Turn[K]) Leave() { t.turns.Leave(t.key, t.number) }

// join notes the key that the call waits for; it waits for one at a time.
func (t *Turn[K]) join(key K) {
	if t.key != key {
		t.Leave()
	}
	t.key = key
}

// Number returns the next number in the order of arrival, which a call keeps as long as it waits.
func (t *Turns[K]) Number() uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.latest++
	return t.latest
}

// Bounds of the time within which those that wait for the same moment go: a tenth of their wait.
const (
	shortestSpread = 100 * time.Millisecond
	longestSpread  = 5 * time.Second
)

// StillAway notes that the call waits for the key, which is not back, for so long in all.
func (t *Turns[K]) StillAway(key K, number uint64, wait time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	l := t.join(key, number)
	if !l.next.IsZero() {
		*l = line{numbers: l.numbers}
	}
	l.spread = max(l.spread, min(wait/10, longestSpread))
}

// Delay returns how long the call has to wait for its turn after the key is back; zero: it may go, and has left. The
// calls that wait at the first Delay go within a tenth of their wait, 100 ms to 5 s, in equal gaps.
func (t *Turns[K]) Delay(key K, number uint64) time.Duration {
	t.mu.Lock()
	defer t.mu.Unlock()
	l, now := t.join(key, number), time.Now()
	if l.next.IsZero() {
		l.gap, l.next = max(l.spread, shortestSpread)/time.Duration(len(l.numbers)), now
	}
	ahead, _ := slices.BinarySearch(l.numbers, number)
	delay := max(l.next.Sub(now), 0) + time.Duration(ahead)*l.gap
	if delay == 0 {
		l.next = now.Add(l.gap)
		t.leave(key, number) // at once: those behind it wait for the gap alone
	}
	return delay
}

// join returns the line of the key, with the call in it. Caller holds mu.
func (t *Turns[K]) join(key K, number uint64) *line {
	l, ok := t.lines[key]
	if !ok {
		if t.lines == nil {
			t.lines = make(map[K]*line)
		}
		l = &line{}
		t.lines[key] = l
	}
	if at, known := slices.BinarySearch(l.numbers, number); !known {
		l.numbers = slices.Insert(l.numbers, at, number)
	}
	return l
}

// Leave notes that the call does not wait for the key any more.
func (t *Turns[K]) Leave(key K, number uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.leave(key, number)
}

// leave takes the call out of the line. Caller holds mu.
func (t *Turns[K]) leave(key K, number uint64) {
	l, ok := t.lines[key]
	if !ok {
		return
	}
	if at, known := slices.BinarySearch(l.numbers, number); known {
		l.numbers = slices.Delete(l.numbers, at, at+1)
	}
	if len(l.numbers) == 0 {
		delete(t.lines, key)
	}
}

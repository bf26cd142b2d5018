// Package queueing keeps the positions of one call in the queues for places at several providers, and decides which
// of them are worth waiting in.
//
//	queued ── a place is granted ──▶ granted ── admitted ──▶ over
//	  ▲ ▲                               │ refused for good: leaves that queue
//	  │ └── keeps its turn ◀────────────┤ blocked meanwhile
//	  │
//	  ├── its turn comes while the provider is blocked ──▶ keeps it while the call waits elsewhere,
//	  │                                                    or was asked to wait for cooldowns
//	  └── membership or eligibility changes ──▶ looks again, also for another provider
//
// [Queues] owns the positions, the time spent in each queue and the part of it that was a wait for a cooldown. The
// slots themselves are those of internal/slots. It never enters a provider, and keeps no reference to the call: its
// predicates are called and forgotten, so that a call can live on its stack. [Queues] is for one goroutine.
package queueing

import (
	"context"
	"math"
	"slices"
	"time"

	"github.com/capreg/registry/internal/slots"
)

// Providers answers for the providers. Its methods must not block; Admits and Superseded are called under the lock of
// slots, which they must not use.
type Providers[P comparable] interface {
	// Admits reports whether nothing keeps calls away.
	Admits(p P) bool
	// Superseded reports whether p was removed or replaced, so that a call looks for its successor.
	Superseded(p P) bool
	// Places returns the slots of p, which providers may share, and the longest wait for one; nil: it needs none.
	Places(p P) (places *slots.Slots, maxWait time.Duration)
	// ReturnsIn returns the time until p, which is blocked, comes back by itself, zero where that is not known, and
	// whether a cooldown is all that it waits for.
	ReturnsIn(p P) (in time.Duration, cools bool)
}

// Queues are the positions of one call. Use [New] to create it, and [Queues.End] to leave all of them.
type Queues[P comparable] struct {
	of     Providers[P]
	wait   *slots.Wait
	lines  []line[P]
	looked time.Duration // how long the call had waited when the queues were last judged
}

// line is one queue, and the providers whose places they are: several, in a domain.
type line[P comparable] struct {
	places    *slots.Slots
	providers []P           // those that may admit the call
	seen      []P           // and those that did not
	maxWait   time.Duration // in all queues together
	paused    time.Duration // the part of the wait that was one for a cooldown
	state     state
}

// state tells what a call does in a queue.
type state uint8

const (
	waits state = iota // it waits for its turn
	cools              // it waits for the end of a cooldown, which does not count as time in the queue
	vain               // its turn came while the providers were blocked, and it may not wait for their return
	left               // it was left for good
)

// New returns the positions of a call of the named caller, in no queue.
func New[P comparable](of Providers[P], caller string) Queues[P] {
	return Queues[P]{of: of, wait: slots.NewWait(caller)}
}

// End leaves all queues, and gives back a place that was granted and not returned by [Queues.Await].
func (q *Queues[P]) End() { q.wait.End() }

// Join lines up at those of the full providers that the call wants and does not queue at yet, once for each domain.
func (q *Queues[P]) Join(full []P, wants func(P) bool) {
	for _, p := range full {
		places, maxWait := q.of.Places(p)
		if places == nil || !q.of.Admits(p) || !wants(p) || q.hasSeen(p) {
			continue
		}
		at := slices.IndexFunc(q.lines, func(other line[P]) bool { return other.places == places && other.state != left })
		if at < 0 {
			at = len(q.lines)
			q.lines = append(q.lines, line[P]{places: places, maxWait: maxWait})
		}
		joined := &q.lines[at]
		joined.providers = append(joined.providers, p)
		joined.seen = append(joined.seen, p)
		if !q.wait.Join(places, at, q.mayAdmit(joined.providers)) {
			joined.state = left
		}
	}
}

// mayAdmit returns the condition for the turn of a call: that one of the providers admits it, or was replaced, so
// that the call has to look for its successor.
func (q *Queues[P]) mayAdmit(providers []P) func() bool {
	of, providers := q.of, slices.Clone(providers)
	return func() bool {
		return slices.ContainsFunc(providers, func(p P) bool { return of.Admits(p) || of.Superseded(p) })
	}
}

// hasSeen reports whether the call queues at p, or did.
func (q *Queues[P]) hasSeen(p P) bool {
	return slices.ContainsFunc(q.lines, func(other line[P]) bool { return slices.Contains(other.seen, p) })
}

// Follow makes each queue that has moved to the successors of its providers one of theirs, and returns those of the
// candidates at which the call queues so.
func (q *Queues[P]) Follow(candidates []P, wants func(P) bool) (successors []P) {
	for at := range q.lines {
		successors = append(successors, q.FollowOne(at, candidates, wants)...)
	}
	return successors
}

// FollowOne is [Queues.Follow] for one queue.
func (q *Queues[P]) FollowOne(at int, candidates []P, wants func(P) bool) (successors []P) {
	followed := &q.lines[at]
	moved := q.wait.Slots(at)
	current := func(p P) bool { return !q.of.Superseded(p) }
	if followed.state == left || moved == nil || moved == followed.places && slices.ContainsFunc(followed.providers, current) {
		return nil
	}
	refused := func(p P) bool { return moved == followed.places && slices.Contains(followed.seen, p) } // else it would be among the providers
	for _, p := range candidates {
		if places, _ := q.of.Places(p); places == moved && current(p) && wants(p) && !refused(p) {
			successors = append(successors, p)
		}
	}
	followed.places = moved
	followed.providers = successors
	followed.seen = append(followed.seen, successors...)
	q.wait.Join(moved, at, q.mayAdmit(successors))
	return successors
}

// Patience says how a call waits.
type Patience struct {
	ForReturn bool // also for blocked providers to come back
	Bounded   bool // its caller has a deadline
	Deadline  time.Time
}

// LeaveHopeless leaves the queues in which the call has waited for too long, has lost its position, or whose
// providers have left, and returns how long it may wait in the others; zero: in none. Those whose turn came in vain
// are left only when there are no others. waited is the time since the call began to queue.
func (q *Queues[P]) LeaveHopeless(waited time.Duration, patience Patience) (limit time.Duration) {
	for at := range q.lines {
		judged := &q.lines[at]
		had := len(judged.providers)
		judged.providers = slices.DeleteFunc(judged.providers, q.of.Superseded)
		if left := len(judged.providers); 0 < left && left < had {
			// Else a place would be granted again and again for the sake of a provider that has left.
			q.wait.Join(judged.places, at, q.mayAdmit(judged.providers))
		}
		judged.seen = slices.DeleteFunc(judged.seen, q.of.Superseded) // they may come back
		if judged.state == cools {
			judged.paused += waited - q.looked
		}
		if judged.state != left {
			judged.state = q.judge(at, waited, patience)
		}
		if judged.state == left {
			q.wait.Leave(at)
		}
	}
	q.looked = waited
	return q.limit()
}

// judge returns what the call does in a queue after having waited for so long.
func (q *Queues[P]) judge(at int, waited time.Duration, patience Patience) state {
	judged := &q.lines[at]
	if len(judged.providers) == 0 || q.wait.Lost(at) {
		return left
	}
	blocked := !q.mayAdmit(judged.providers)()
	returnsIn, cooling := time.Duration(0), false
	if blocked && patience.ForReturn {
		returnsIn, cooling = q.firstBack(judged.providers)
	}
	remaining := judged.maxWait - waited + judged.paused
	inTime := !patience.Bounded || returnsIn < time.Until(patience.Deadline)
	switch {
	case cooling && inTime:
		return cools
	case remaining <= 0:
		return left
	case !blocked, !q.wait.Passed(at):
		return waits
	case patience.ForReturn && inTime && returnsIn <= remaining:
		return waits
	}
	return vain
}

// firstBack returns the time until the first of blocked providers may come back by itself, zero where that is
// not known, and whether a cooldown is all that one waits for.
func (q *Queues[P]) firstBack(providers []P) (returnsIn time.Duration, cooling bool) {
	returnsIn = math.MaxInt64
	for _, p := range providers {
		in, cools := q.of.ReturnsIn(p)
		returnsIn = min(returnsIn, in)
		cooling = cooling || cools
	}
	return max(returnsIn, 0), cooling
}

// limit returns how long the call may wait in its queues; zero: in none.
func (q *Queues[P]) limit() (limit time.Duration) {
	hopeful := slices.ContainsFunc(q.lines, func(other line[P]) bool { return other.state < vain })
	for _, waited := range q.lines {
		if waited.state == left || !hopeful {
			continue
		}
		remaining := waited.maxWait - q.looked + waited.paused
		if waited.state == cools {
			remaining = max(remaining, time.Second) // its time does not run
		}
		if limit == 0 || remaining < limit {
			limit = remaining
		}
	}
	return limit
}

// Await waits for a place, for at most limit, and returns the number of the queue that gave one, -1 when none did;
// woken reports that changed was closed, or that a queue is to be judged again.
func (q *Queues[P]) Await(ctx context.Context, limit time.Duration, changed <-chan struct{}) (at int, woken bool) {
	q.wait.Recheck()
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	return q.wait.For(ctx, changed)
}

// Granted returns the places of a queue, and the first of its providers that admits calls and is wanted.
func (q *Queues[P]) Granted(at int, wants func(P) bool) (places *slots.Slots, first P, ok bool) {
	from := &q.lines[at]
	for _, p := range from.providers {
		if q.of.Admits(p) && wants(p) {
			return from.places, p, true
		}
	}
	return from.places, first, false
}

// Refused notes that p, whose place was granted, turned the call away for good.
func (q *Queues[P]) Refused(at int, p P) {
	from := &q.lines[at]
	from.providers = slices.DeleteFunc(slices.Clone(from.providers), func(other P) bool { return other == p })
	q.wait.Join(from.places, at, q.mayAdmit(from.providers))
}

// Resume continues the wait after a granted place was given back, at the position that the call had.
func (q *Queues[P]) Resume(at int) { q.wait.Resume(at) }

// Package comeback lets a call wait until a provider comes back: until its cooldown is over, or until the caller's
// rate has an attempt left.
//
//	state     | what happens                          | next state
//	waiting   | the provider is back                  | in turn
//	          | the reserved attempt is due           | over: the call looks for a provider again
//	          | nothing comes back within the time    | over: the call fails
//	in turn   | those before it have gone             | over: the call looks for a provider again
//	          | the provider has left again           | waiting, with its place in the order
//
// A [Wait] owns the place of one call in the order of those that wait, and the attempt that is reserved for it. What
// comes back, and when, it asks of the call, whose functions it calls and forgets, so that a call can live on its
// stack. It never enters a provider, and holds no lock while it waits.
package comeback

import (
	"context"
	"math"
	"time"

	"github.com/capreg/registry/internal/attemptctx"
	"github.com/capreg/registry/internal/limit"
)

// End is the way in which a wait ended.
type End uint8

const (
	// Woken is the end of a wait after which what was waited for may have happened.
	Woken End = iota
	// TimedOut is the end of a wait whose time is over.
	TimedOut
	// Cancelled is the end of a wait whose context has ended.
	Cancelled
)

// Await waits until wake is closed, for at most limit, within ctx. wake may be nil.
func Await(ctx context.Context, limit time.Duration, wake <-chan struct{}) End {
	select {
	case <-wake:
		return Woken
	case <-time.After(limit):
		return TimedOut
	case <-ctx.Done():
		return Cancelled
	}
}

// longestPause bounds the pause of a call that comes back again and again.
const longestPause = time.Second

// Pause returns how long a call pauses that has come back so often before: longer each time, up to a second.
func Pause(rounds int) time.Duration {
	if rounds == 0 {
		return 0
	}
	return min(time.Millisecond<<min(rounds, 10), longestPause)
}

// Back is a provider that comes back to a call by itself at a known time. The zero value: none.
type Back[K comparable] struct {
	Key   K // of the line in which those that wait for it go one after the other
	Known bool
	Now   bool      // it is back
	Until time.Time // unless it is
}

// Wait is the state of all waits of one call: lines are told apart by K, providers are P. Use [New] to create one;
// nil has no place in any line and no attempt. It is for one goroutine.
type Wait[K comparable, P any] struct {
	turn      limit.Turn[K] // its place in the order, as long as the call lasts
	throttled []P           // those whose rate the caller has used up
	reserved  limit.Reserved
}

// New returns the waits of a call with its place in the order.
func New[K comparable, P any](turn limit.Turn[K]) *Wait[K, P] { return &Wait[K, P]{turn: turn} }

// NoteThrottled notes a provider that turned the call away since the caller's rate is used up.
func (w *Wait[K, P]) NoteThrottled(p P) { w.throttled = append(w.throttled, p) }

// ForgetThrottled forgets them: they are asked again.
func (w *Wait[K, P]) ForgetThrottled() { w.throttled = nil }

// Reserve reserves, of the rates that the caller has used up, the attempt that comes first. limits returns nil for
// those that the call does not want any more.
func (w *Wait[K, P]) Reserve(by *attemptctx.Caller, caller string, limits func(P) *limit.Limits) {
	within := time.Duration(math.MaxInt64)
	if by.HasDeadline {
		within = time.Until(by.Deadline)
	}
	for _, p := range w.throttled {
		l := limits(p)
		if l == nil {
			continue
		}
		if wait, ok := w.reserved.Reserve(l, caller, within); ok {
			within = wait
		}
	}
}

// ForFirst waits until a provider is back and it is the call's turn, or until the reserved attempt is due. first
// returns what comes back first, and a channel that is closed when that may have changed; waited is the time that
// the call has waited already.
func (w *Wait[K, P]) ForFirst(by *attemptctx.Caller, waited func() time.Duration, first func() (Back[K], <-chan struct{})) bool {
	defer w.turn.Leave() // deferred: the context is a user's
	for by.Err() == nil {
		back, changed := first()
		due := w.reserved.Due()
		switch {
		case !due.IsZero() && (!back.Known || !back.Now && !back.Until.Before(due)):
			if Await(by.Ctx, time.Until(due), changed) == TimedOut {
				return true
			}
		case !back.Known || !back.Now && by.HasDeadline && !back.Until.Before(by.Deadline):
			return false
		case !back.Now:
			left := max(time.Until(back.Until), time.Millisecond)
			w.turn.StillAway(back.Key, waited()+left)
			Await(by.Ctx, left, changed)
		case w.isNext(by, back.Key):
			return true
		}
	}
	return false
}

// isNext reports whether the call may ask a provider that is back, or waits for its turn. It does not wait where that
// would leave it too little time.
func (w *Wait[K, P]) isNext(by *attemptctx.Caller, key K) bool {
	delay := w.turn.Delay(key)
	if delay == 0 || by.HasDeadline && delay > time.Until(by.Deadline)/2 {
		return true
	}
	Await(by.Ctx, delay, nil)
	return false
}

// End gives a reserved attempt back.
func (w *Wait[K, P]) End() {
	if w != nil {
		w.reserved.GiveBack()
	}
}

// Holds reports whether an attempt is reserved under the limits.
func (w *Wait[K, P]) Holds(l *limit.Limits) bool { return w != nil && w.reserved.Holds(l) }

// Take is [limit.Limits.Take] with the reserved attempt, if there is one.
func (w *Wait[K, P]) Take(l *limit.Limits, caller string) (used limit.Spent, retryIn time.Duration) {
	if w == nil {
		return l.Take(caller)
	}
	return w.reserved.Take(l, caller)
}

// Package hook runs the functions that users put around calls and their attempts.
//
// A [List] has sets of such functions, which come and go while calls run. A call takes the [Sets] of its beginning and
// runs them to its end, so that each set sees all of a call or nothing of it. No function silences another: each runs
// whether those before it panic or end their goroutine. The package takes no lock while one runs.
package hook

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/capreg/registry/internal/fault"
)

// Set has at most one function of each kind. R is the report of a call, A an attempt.
type Set[R, A any] struct {
	Skip          func(ctx context.Context) bool // reports whether the others see nothing of a call with that context
	BeforeCall    func(ctx context.Context, r R) context.Context
	AfterCall     func(ctx context.Context, r R)
	BeforeAttempt func(ctx context.Context, r R, a A) context.Context
	AfterAttempt  func(ctx context.Context, r R, a A)
}

// Empty reports whether the set has no function.
func (s *Set[R, A]) Empty() bool {
	return s.BeforeCall == nil && s.AfterCall == nil && s.BeforeAttempt == nil && s.AfterAttempt == nil
}

type added[R, A any] struct {
	Set[R, A]

	removed atomic.Bool
}

// List has the sets that were added and not removed. The zero value is empty and ready to use; it must not be copied.
// All methods are safe for concurrent use.
type List[R, A any] struct {
	// mu is held while a changed copy of the sets is made. Nothing is called then.
	mu       sync.Mutex
	sets     atomic.Pointer[Sets[R, A]]
	always   bool        // the owner attends to each call
	attended atomic.Bool // there are sets, or always
}

// Attend makes the owner attend to each call, whether there are sets or not. It is called before the first of them.
func (l *List[R, A]) Attend() {
	l.always = true
	l.attended.Store(true)
}

// Asked has the answer of a list to the question which of its sets see a call. It is asked once. The zero value is
// ready to use.
type Asked[R, A any] struct {
	seeing *Sets[R, A]
	asked  bool
}

// Unseen reports whether nothing attends to the call: neither the owner of the list nor one of the sets.
func (a *Asked[R, A]) Unseen(ctx context.Context, l *List[R, A]) bool {
	return !l.attended.Load() || a.allSkip(ctx, l)
}

// allSkip is kept out of those that ask, whose path without sets is short.
//
//go:noinline
func (a *Asked[R, A]) allSkip(ctx context.Context, l *List[R, A]) bool {
	return !l.always && a.Seeing(ctx, l) == nil
}

// Seeing returns the sets that see the call; nil when there are none.
func (a *Asked[R, A]) Seeing(ctx context.Context, l *List[R, A]) *Sets[R, A] {
	if !a.asked {
		a.seeing, a.asked = l.For(ctx), true
	}
	return a.seeing
}

// Add adds a set behind the others. Once remove has returned, calls skip its functions, also calls in progress, unless
// they were about to run one at that moment. It may be called any number of times.
func (l *List[R, A]) Add(set Set[R, A]) (remove func()) {
	one := &added[R, A]{Set: set}
	l.change(func(all []*added[R, A]) []*added[R, A] { return append(all, one) })
	return func() {
		one.removed.Store(true)
		l.change(func(all []*added[R, A]) []*added[R, A] {
			return slices.DeleteFunc(all, func(other *added[R, A]) bool { return other == one })
		})
	}
}

func (l *List[R, A]) change(change func([]*added[R, A]) []*added[R, A]) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var all []*added[R, A]
	if present := l.sets.Load(); present != nil {
		all = slices.Clone(present.all)
	}
	if all = change(all); len(all) == 0 {
		l.sets.Store(nil)
	} else {
		l.sets.Store(&Sets[R, A]{all})
	}
	l.attended.Store(l.always || len(all) > 0)
}

// Sets returns the present sets; nil when there are none.
func (l *List[R, A]) Sets() *Sets[R, A] { return l.sets.Load() }

// For returns the present sets that see a call with that context; nil when there are none.
func (l *List[R, A]) For(ctx context.Context) *Sets[R, A] {
	s := l.Sets()
	if s == nil {
		return nil
	}
	var seeing []*added[R, A]
	skipped := false
	for i, one := range s.all {
		switch {
		case one.skips(ctx):
			if !skipped {
				seeing = append(seeing, s.all[:i]...)
			}
			skipped = true
		case skipped:
			seeing = append(seeing, one)
		}
	}
	switch {
	case !skipped:
		return s
	case len(seeing) == 0:
		return nil
	}
	return &Sets[R, A]{seeing}
}

// skips reports whether the set sees nothing of a call with that context. One whose Skip panics sees it.
func (a *added[R, A]) skips(ctx context.Context) (skips bool) {
	if a.Skip != nil && !a.removed.Load() {
		_ = fault.Run(func() error { skips = a.Skip(ctx); return nil })
	}
	return skips
}

// Sets has the sets that one call sees. It never changes; nil has none. The functions before run in the order in which
// their sets were added, those after in the reverse order, so that the first set is around the others.
type Sets[R, A any] struct{ all []*added[R, A] }

// BeforeCall runs the functions before a call, each with a report of its own, and returns the context that the last
// one has made. When one of them ends the goroutine, the call is over: the functions after it run.
func (s *Sets[R, A]) BeforeCall(ctx context.Context, report func() R) context.Context {
	returned := false
	defer func() {
		if !returned {
			s.AfterCall(ctx, report)
		}
	}()
	s.each(0, 1, func(set *Set[R, A]) {
		if set.BeforeCall != nil {
			ctx = orElse(set.BeforeCall(ctx, report()), ctx) //nolint:fatcontext // one layer for each set
		}
	})
	returned = true
	return ctx
}

// AfterCall runs the functions after a call.
func (s *Sets[R, A]) AfterCall(ctx context.Context, report func() R) {
	s.eachReversed(func(set *Set[R, A]) {
		if set.AfterCall != nil {
			set.AfterCall(ctx, report())
		}
	})
}

// BeforeAttempt runs the functions before an attempt, and returns the context that the last one has made.
func (s *Sets[R, A]) BeforeAttempt(ctx context.Context, report func() R, attempt A) context.Context {
	s.each(0, 1, func(set *Set[R, A]) {
		if set.BeforeAttempt != nil {
			ctx = orElse(set.BeforeAttempt(ctx, report(), attempt), ctx) //nolint:fatcontext // one layer for each set
		}
	})
	return ctx
}

// AfterAttempt runs the functions after an attempt.
func (s *Sets[R, A]) AfterAttempt(ctx context.Context, report func() R, attempt A) {
	s.eachReversed(func(set *Set[R, A]) {
		if set.AfterAttempt != nil {
			set.AfterAttempt(ctx, report(), attempt)
		}
	})
}

func orElse(changed, ctx context.Context) context.Context {
	if changed == nil {
		return ctx
	}
	return changed
}

func (s *Sets[R, A]) eachReversed(run func(*Set[R, A])) {
	if s != nil {
		s.each(len(s.all)-1, -1, run)
	}
}

// each runs a function of each set from that index on. The others are deferred, so that they also run when one ends
// the goroutine.
func (s *Sets[R, A]) each(at, step int, run func(*Set[R, A])) {
	if s == nil || at < 0 || at >= len(s.all) {
		return
	}
	defer s.each(at+step, step, run)
	if one := s.all[at]; !one.removed.Load() {
		_ = fault.Run(func() error { run(&one.Set); return nil })
	}
}

package attemptctx

import (
	"context"
	"sync"
	"sync/atomic"

	"github.com/capreg/registry/internal/fault"
)

// armedContext is one of package context, with the attempt's deadline. Contexts that others have derived from it, such
// as that of a request whose body is still read, see the cause of its end.
type armedContext struct {
	context.Context

	cancel context.CancelCauseFunc
	stop   context.CancelFunc    // of the deadline's timer; nil: none
	cause  atomic.Pointer[error] // of its end by us, if nothing had ended it before

	place  member // in its Set
	caller callersContext
	stays  bool // its attempt cannot go on elsewhere
}

// callersContext is the caller's context as package context sees it. A context of a user may panic or block,
// once its request is over say, and package context asks it at moments, and in goroutines, of its own. So what
// can be asked once is asked when the attempt's context is armed, in the goroutine that asks for it.
type callersContext struct {
	context.Context

	done <-chan struct{}
	std  any // the context of package context that it is, or is derived from; nil: none
}

// derive asks the caller's context, and returns it for package context to derive from.
func (c *callersContext) derive(caller context.Context) context.Context {
	c.Context, c.done, c.std = caller, caller.Done(), caller.Value(contextKey())
	return c
}

// Done returns what the caller's context has answered.
func (c *callersContext) Done() <-chan struct{} { return c.done }

// Err returns the error of the caller's context, [context.Canceled] where it cannot be asked.
func (c *callersContext) Err() (err error) {
	if fault.Run(func() error { err = c.Context.Err(); return nil }) != nil {
		return context.Canceled
	}
	return err
}

// Value returns the caller's values.
func (c *callersContext) Value(key any) any {
	if key == contextKey() {
		return c.std
	}
	return c.Context.Value(key)
}

// endCause returns the cause it was ended with, nil when something else ended it, also at
// the moment of the end.
func (a *armedContext) endCause() *error {
	if cause := a.cause.Load(); cause != nil && context.Cause(a.Context) == *cause { //nolint:errorlint // the very one
		return cause
	}
	return nil
}

// member returns its place in a set.
func (a *armedContext) member() *member {
	a.place.of = a
	return &a.place
}

// end cancels the context, which may call methods of the caller's.
func (a *armedContext) end(cause *error) {
	if a.Err() == nil {
		a.cause.Store(cause)
	}
	_ = fault.Run(func() error {
		a.cancel(*cause)
		if a.stop != nil {
			a.stop()
		}
		return nil
	})
}

// contextKey is the key under which package context looks for a context of its own.
//
//nolint:gochecknoglobals // immutable once known
var contextKey = sync.OnceValue(func() any {
	var probe keyProbe
	_ = context.Cause(&probe)
	return probe.key
})

// keyProbe is a context that has ended, to make context.Cause ask it for the key.
type keyProbe struct {
	context.Context

	key any
}

// Err says that the context has ended.
func (p *keyProbe) Err() error { return context.Canceled }

// Value notes the key.
func (p *keyProbe) Value(key any) any {
	p.key = key
	return nil
}

// Set is the armed contexts of some attempts, such as those on one provider, and their followers, so that they
// can be cancelled together. The zero value is empty and ready to use; it must not be copied. It
// is safe for concurrent use.
type Set struct {
	// mu guards the fields below and the links. Cancelling happens outside of it.
	mu        sync.Mutex
	first     *member
	cancelled *error // the cause; nil: it was not
}

// member is the place in a Set of what ends when the set is cancelled.
type member struct {
	before, after *member
	of            ender
}

type ender interface{ end(cause *error) }

// add adds a; a non-nil cause means that it is to end at once.
func (s *Set) add(a *member) (cause *error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cancelled != nil {
		return s.cancelled
	}
	if a.after = s.first; a.after != nil {
		a.after.before = a
	}
	s.first = a
	return nil
}

// remove takes a out, if it was added.
func (s *Set) remove(a *member) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case a.before != nil:
		a.before.after = a.after
	case s.first == a:
		s.first = a.after
	default:
		return
	}
	if a.after != nil {
		a.after.before = a.before
	}
	a.before, a.after = nil, nil
}

// Cancel ends all contexts of the set, present and to come, with the given cause, and tells the followers. The
// cause of the first Cancel stays. It may call methods of the callers' contexts.
func (s *Set) Cancel(cause error) {
	s.mu.Lock()
	if s.cancelled == nil {
		s.cancelled = &cause
	}
	kept := s.cancelled
	all := s.present(func(ender) bool { return true })
	s.mu.Unlock()
	for _, a := range all {
		a.of.end(kept)
	}
}

// MoveOn ends the present contexts of the set whose attempts can go on elsewhere. It may call methods of the callers'
// contexts.
func (s *Set) MoveOn(cause error) {
	s.mu.Lock()
	all := s.present(func(of ender) bool { armed, ok := of.(*armedContext); return ok && !armed.stays })
	s.mu.Unlock()
	for _, a := range all {
		a.of.end(&cause)
	}
}

// present returns the members of the set that are wanted. Caller holds mu.
func (s *Set) present(wanted func(ender) bool) (all []*member) {
	for a := s.first; a != nil; a = a.after {
		if wanted(a.of) {
			all = append(all, a)
		}
	}
	return all
}

// Follower is told when the set of an attempt is cancelled: for code that follows the attempt for long without
// asking its context, which would cost a timer. The zero value follows nothing; it must not be copied.
type Follower struct {
	place    member
	followed *Context
	told     Told
}

// Told is the receiver of what a [Follower] sees. A method of the struct that has the follower costs no closure.
type Told interface{ ContextEnded() }

// Follow tells when the set of the attempt is cancelled whose context ctx is; at once when it was
// already. It does so in the goroutine that cancels, which must not be blocked. By then the context of the attempt has
// ended with the cause. Its other ends are not told. It reports false for any other context, also one that is
// derived from it, which may end by itself.
func (f *Follower) Follow(ctx context.Context, told Told) bool {
	followed, ok := ctx.(*Context)
	if !ok {
		return false
	}
	f.place.of, f.followed, f.told = f, followed, told
	if followed.set.add(&f.place) != nil {
		f.end(nil)
	}
	return true
}

// Stop ends the following. It may still be telling.
func (f *Follower) Stop() {
	if f.followed != nil {
		f.followed.set.remove(&f.place)
	}
}

func (f *Follower) end(*error) {
	_ = fault.Run(func() error { return f.followed.Err() }) // arms it, and so ends it with the cause
	f.told.ContextEnded()
}

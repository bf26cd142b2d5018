package registry

import (
	"context"
	"crypto/rand"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// attemptContext is the context of one attempt. It has the caller's values and
// ends with the caller's context, at the attempt's own deadline, when the
// attempt is over, and when its provider is told to stop.
//
// Most functions never ask whether their context has ended, or only when they
// block. So no timer and no link to the parent is made until somebody asks:
// until then an attempt context is one allocation.
type attemptContext struct {
	context.Context // the caller's

	deadline time.Time // the attempt's own; zero: none
	contexts *attemptContexts

	key atomic.Pointer[string] // of the call, once somebody asked for it

	// armed is the real context, made at the first Done or Err.
	armed atomic.Pointer[armedContext]

	// mu guards the making of armed and the field below.
	mu   sync.Mutex
	over bool // its attempt has ended before it was armed
}

// armedContext is one of package context, with the attempt's deadline. A second one
// that could be cancelled with a cause would double its price, so why it was stopped
// is remembered beside it: contexts that others have derived from it are told that they
// were cancelled, and not why.
type armedContext struct {
	context.Context

	stop  context.CancelFunc
	cause atomic.Pointer[error] // why it was stopped, if nothing had ended it before

	before, after *armedContext // in attemptContexts
}

// why returns the cause it was stopped for, nil when something else ended it, also at
// the moment of the stop.
func (a *armedContext) why() *error {
	if cause := a.cause.Load(); cause != nil && context.Cause(a.Context) == context.Canceled { //nolint:errorlint // what a stop leaves
		return cause
	}
	return nil
}

// end stops the context, which may call methods of the caller's.
func (a *armedContext) end(cause *error) {
	if a.Err() == nil {
		a.cause.Store(cause)
	}
	_ = guard(func() error { a.stop(); return nil })
}

// Value gives context.Cause, which asks for a context of its own package, one that has
// ended with the cause.
func (a *armedContext) Value(key any) any {
	if key == contextKey() {
		if cause := a.why(); cause != nil {
			ended, cancel := context.WithCancelCause(context.Background())
			cancel(*cause)
			return ended.Value(key)
		}
	}
	return a.Context.Value(key)
}

var _ context.Context = (*attemptContext)(nil)

// errAttemptOver is the cause of contexts whose attempt has returned.
var errAttemptOver = fmt.Errorf("attempt is over: %w", context.Canceled)

// newAttemptContext returns the context of an attempt; before is that of the
// attempt of the same call before it, if any.
func newAttemptContext(
	caller context.Context, deadline time.Time, contexts *attemptContexts, before *attemptContext,
) *attemptContext {
	c := &attemptContext{Context: caller, deadline: deadline, contexts: contexts}
	if before != nil {
		key := before.idempotencyKey()
		c.key.Store(&key)
	}
	return c
}

// idempotencyKey returns the key of the call, which is made when somebody asks
// for it.
func (c *attemptContext) idempotencyKey() string {
	if known := c.key.Load(); known != nil {
		return *known
	}
	made := rand.Text()
	if c.key.CompareAndSwap(nil, &made) {
		return made
	}
	return *c.key.Load()
}

// Deadline returns the sooner of the attempt's and the caller's deadline.
func (c *attemptContext) Deadline() (time.Time, bool) {
	callers, ok := c.Context.Deadline()
	if c.deadline.IsZero() || ok && callers.Before(c.deadline) {
		return callers, ok
	}
	return c.deadline, true
}

// Done arms the context.
func (c *attemptContext) Done() <-chan struct{} { return c.arm().Done() }

// Err arms the context.
func (c *attemptContext) Err() error { return c.arm().Err() }

// Value returns the caller's values. Once armed it asks the real context, so
// that contexts derived from this one find it and need no goroutine to follow
// it; package context asking for its own key arms it.
func (c *attemptContext) Value(key any) any {
	if key == (keyOfCall{}) {
		return c.idempotencyKey()
	}
	armed := c.armed.Load()
	if armed == nil && key == contextKey() {
		armed = c.arm()
	}
	if armed != nil {
		return armed.Value(key)
	}
	return c.Context.Value(key)
}

// String is for package fmt, which would else look into the fields unlocked.
func (c *attemptContext) String() string { return "registry.attempt" }

// contextKey is the key under which package context looks for a context of its
// own, as context.Cause does.
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

func (p *keyProbe) Err() error { return context.Canceled }

func (p *keyProbe) Value(key any) any {
	p.key = key
	return nil
}

func (c *attemptContext) arm() *armedContext {
	if armed := c.armed.Load(); armed != nil {
		return armed
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if armed := c.armed.Load(); armed != nil {
		return armed
	}
	armed := &armedContext{}
	if c.deadline.IsZero() || c.over {
		armed.Context, armed.stop = context.WithCancel(c.Context)
	} else {
		armed.Context, armed.stop = context.WithDeadlineCause(c.Context, c.deadline, (*timeoutError)(c))
	}
	if c.over {
		armed.end(&errAttemptOver)
	} else if cause := c.contexts.join(armed); cause != nil {
		armed.end(cause)
	}
	c.armed.Store(armed)
	return armed
}

// end cancels the context: its attempt is over.
func (c *attemptContext) end() {
	c.mu.Lock()
	armed := c.armed.Load()
	if armed == nil {
		c.over = true
	}
	c.mu.Unlock()
	if armed != nil {
		c.contexts.leave(armed)
		armed.end(&errAttemptOver)
	}
}

// endSoon does so from a goroutine of its own where somebody listens, since that may
// call methods of the caller's context.
func (c *attemptContext) endSoon() {
	if c.armed.Load() != nil {
		go c.end()
	} else {
		c.end()
	}
}

// expire lets the context end as one whose deadline has passed: its own timer is
// due at this moment.
func (c *attemptContext) expire() {
	if !c.deadline.IsZero() {
		<-c.Done()
	}
}

// timeoutError is the cause of a context that ran into its own deadline, told
// from those of contexts around it.
type timeoutError attemptContext

func (*timeoutError) Error() string { return ErrAttemptTimeout.Error() }
func (*timeoutError) Unwrap() error { return ErrAttemptTimeout }

// timedOut reports whether its own deadline, and nothing before that, ended the
// context. Code that gave the deadline to a socket may see it pass before the
// context does, so an error that speaks of a timeout is believed.
func (c *attemptContext) timedOut(err error) bool {
	armed := c.armed.Load()
	if armed == nil || armed.Err() == nil {
		return !c.deadline.IsZero() && !time.Now().Before(c.deadline) && isTimeout(err)
	}
	return context.Cause(armed.Context) == (*timeoutError)(c) //nolint:errorlint // the cause itself
}

// removed returns the cause when the provider was told to stop and that, before
// anything else, ended the context.
func (c *attemptContext) removed() error {
	if armed := c.armed.Load(); armed != nil {
		if cause := armed.why(); cause != nil && cause != &errAttemptOver {
			return *cause
		}
	}
	return nil
}

// attemptContexts are the armed contexts of one provider's attempts: those that
// somebody listens to.
type attemptContexts struct {
	// mu guards the fields below and the links. Cancelling happens outside of it.
	mu    sync.Mutex
	first *armedContext
	over  *error // why all were told to stop
}

// join adds a; a non-nil error means that it is to end at once.
func (s *attemptContexts) join(a *armedContext) *error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over != nil {
		return s.over
	}
	if a.after = s.first; a.after != nil {
		a.after.before = a
	}
	s.first = a
	return nil
}

// leave takes a out, if it has joined.
func (s *attemptContexts) leave(a *armedContext) {
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

// cut ends all contexts, present and to come, with the given cause.
func (s *attemptContexts) cut(cause error) {
	s.mu.Lock()
	if s.over == nil {
		s.over = &cause
	}
	over := s.over
	var listening []*armedContext
	for a := s.first; a != nil; a = a.after {
		listening = append(listening, a)
	}
	s.mu.Unlock()
	for _, a := range listening {
		a.end(over)
	}
}

// Package attemptctx makes the contexts of attempts.
//
// A [Context] has its caller's values and ends with the caller's context, at the
// attempt's own deadline, when the attempt is over, and when the [Set] it belongs to is
// cancelled. Most functions never ask whether their context has ended, or only when they
// block, so it is one allocation until the first Done or Err arms it: only then is there
// a timer and a link to the parent.
//
// The package owns the armed contexts of a set and their links. It never holds a lock
// while it cancels one, since that may call methods of the caller's context.
package attemptctx

import (
	"context"
	"crypto/rand"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/capreg/registry/internal/fault"
)

// Context is the context of one attempt. Use [New] to create one, and [Context.End]
// when the attempt is over.
//
//	         Done, Err, as package context asks
//	unarmed ────────────────────────────────────▶ armed
//	   │ End                                        │ deadline, caller, End, Set.Cancel
//	   ▼                                            ▼
//	 over  ─────────── Done, Err ───────────────▶ ended
type Context struct {
	context.Context // the caller's

	deadline time.Time // the attempt's own; zero: none
	set      *Set

	key atomic.Pointer[string] // of the call, once it was asked for

	// armed is the real context, made at the first Done or Err.
	armed atomic.Pointer[armedContext]

	// mu guards the making of armed and over. It is held while a context of
	// package context is derived from the caller's.
	mu   sync.Mutex
	over bool // its attempt has ended

	stays bool // [Set.MoveOn] leaves it alone; set before it is handed out
}

var _ context.Context = (*Context)(nil)

// errOver is the cause of contexts whose attempt has returned. Code that reads the body of a response after that
// finds it.
var errOver = fmt.Errorf("registry: the attempt is over, and its context with it: what lives on that, such as the body of a response, "+
	"needs Acquire or package stream: %w", context.Canceled)

// New returns the context of an attempt. Its own deadline may be zero: none. before is the
// context of the attempt of the same call before it, if any, whose idempotency key it shares.
func New(caller context.Context, deadline time.Time, set *Set, before *Context) *Context {
	c := &Context{}
	c.Init(caller, deadline, set)
	if before != nil {
		key := before.idempotencyKey()
		c.key.Store(&key)
	}
	return c
}

// Init is [New] for a zero Context that is a part of another struct.
func (c *Context) Init(caller context.Context, deadline time.Time, set *Set) {
	c.Context, c.deadline, c.set = caller, deadline, set
}

// StayIf says, before the context is handed out, that its attempt cannot go on elsewhere: [Set.MoveOn] leaves it alone.
func (c *Context) StayIf(stays bool) {
	if c != nil {
		c.stays = stays
	}
}

// keyOfCall is the key under which a context has the idempotency key of its call.
type keyOfCall struct{}

// IdempotencyKey returns the key of the call that ctx is, or was derived from, an attempt
// of; empty for other contexts.
func IdempotencyKey(ctx context.Context) string {
	if ctx == nil {
		return ""
	}
	key, _ := ctx.Value(keyOfCall{}).(string)
	return key
}

// idempotencyKey returns the key of the call, which is made when it is first asked for.
func (c *Context) idempotencyKey() string {
	if c.key.Load() == nil {
		made := rand.Text()
		c.key.CompareAndSwap(nil, &made)
	}
	return *c.key.Load()
}

// Deadline returns the sooner of the attempt's and the caller's deadline.
func (c *Context) Deadline() (time.Time, bool) {
	callers, ok := c.Context.Deadline()
	if c.deadline.IsZero() || ok && callers.Before(c.deadline) {
		return callers, ok
	}
	return c.deadline, true
}

// OwnValue returns what an attempt whose context ctx is adds to its caller's values, without arming it. It reports
// false for any other context, also one that is derived from it.
func OwnValue(ctx context.Context, key any) (value any, ok bool) {
	c, ok := ctx.(*Context)
	if ok && key == (keyOfCall{}) {
		value = c.idempotencyKey()
	}
	return value, ok
}

// Done arms the context.
func (c *Context) Done() <-chan struct{} { return c.arm().Done() }

// Err arms the context.
func (c *Context) Err() error { return c.arm().Err() }

// Value returns the caller's values. Once armed it asks the real context, so that contexts
// derived from this one find it and need no goroutine to follow it: package context asks for
// Done or Err before it asks for its own key.
func (c *Context) Value(key any) any {
	if key == (keyOfCall{}) {
		return c.idempotencyKey()
	}
	if armed := c.armed.Load(); armed != nil {
		return armed.Value(key)
	}
	return c.Context.Value(key)
}

// String is for package fmt, which would else look into the fields unlocked.
func (c *Context) String() string { return "registry.attempt" }

func (c *Context) arm() *armedContext {
	if armed := c.armed.Load(); armed != nil {
		return armed
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if armed := c.armed.Load(); armed != nil {
		return armed
	}
	armed := &armedContext{stays: c.stays}
	armed.Context, armed.cancel = context.WithCancelCause(armed.caller.derive(c.Context))
	if !c.deadline.IsZero() && !c.over {
		armed.Context, armed.stop = context.WithDeadlineCause(armed.Context, c.deadline, (*timeoutError)(c))
	}
	if c.over {
		armed.end(&errOver)
	} else if cause := c.set.add(armed.member()); cause != nil {
		armed.end(cause)
	}
	c.armed.Store(armed)
	return armed
}

// End cancels the context: its attempt is over. It may call methods of the caller's context.
func (c *Context) End() {
	c.mu.Lock()
	armed := c.armed.Load()
	c.over = true
	c.mu.Unlock()
	if armed != nil {
		c.set.remove(&armed.place)
		armed.end(&errOver)
	}
}

// EndAside is [Context.End] for callers that hold a lock: where the context is armed it runs in a
// goroutine of its own, since it may call methods of the caller's context.
func (c *Context) EndAside() {
	if c.armed.Load() != nil {
		go c.End()
	} else {
		c.End()
	}
}

// Expire is [Context.End] for a context whose own deadline, if it has one, is due: that is what it
// ends by. It may block as the methods of the caller's context do.
func (c *Context) Expire() {
	if !c.deadline.IsZero() {
		_ = fault.Run(func() error { <-c.Done(); return nil })
	}
	c.End()
}

// timeoutError is the cause of a context that ran into its own deadline, told from those of
// contexts around it.
type timeoutError Context

func (*timeoutError) Error() string { return fault.ErrAttemptTimeout.Error() }
func (*timeoutError) Unwrap() error { return fault.ErrAttemptTimeout }

// TimedOut reports whether its own deadline, and nothing before that, ended the context. err
// is what the attempt returned: code that gave the deadline to a socket may see it pass
// before the context does, so an error that speaks of a timeout is believed.
func (c *Context) TimedOut(err error) bool {
	armed := c.armed.Load()
	if armed == nil || armed.Err() == nil {
		return !c.deadline.IsZero() && !time.Now().Before(c.deadline) && fault.IsTimeout(err)
	}
	return context.Cause(armed.Context) == (*timeoutError)(c) //nolint:errorlint // the cause itself
}

// Cancelled returns the cause that its set was cancelled with, when that, before anything else,
// ended the context.
func (c *Context) Cancelled() error {
	if armed := c.armed.Load(); armed != nil {
		if cause := armed.endCause(); cause != nil && cause != &errOver {
			return *cause
		}
	}
	return nil
}

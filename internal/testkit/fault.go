package testkit

import (
	"context"
	"sync/atomic"
	"time"
)

// StatusError is an error with the methods that errors of HTTP clients have.
type StatusError struct {
	Code  int
	After time.Duration
}

// Error returns "status".
func (e StatusError) Error() string { return "status" }

// HTTPStatusCode returns the code.
func (e StatusError) HTTPStatusCode() int { return e.Code }

// RetryAfter returns the delay that the server asks for.
func (e StatusError) RetryAfter() time.Duration { return e.After }

// BadIsError is an error whose Is method panics.
type BadIsError struct{}

// Error returns "bad".
func (BadIsError) Error() string { return "bad" }

// Is panics.
func (BadIsError) Is(error) bool { panic("Is") }

// BadDeadlineContext is a context whose Deadline method panics.
type BadDeadlineContext struct {
	context.Context //nolint:containedctx // a context around another
}

// Deadline panics.
func (BadDeadlineContext) Deadline() (time.Time, bool) { panic("Deadline") }

// BadAfterFuncContext is a context whose AfterFunc method returns no function to stop it.
type BadAfterFuncContext struct {
	context.Context //nolint:containedctx // a context around another

	DoneChannel chan struct{}
}

// Done returns the channel.
func (c BadAfterFuncContext) Done() <-chan struct{} { return c.DoneChannel }

// AfterFunc returns nil.
func (BadAfterFuncContext) AfterFunc(func()) func() bool { return nil }

// LoopError is an error that wraps itself.
type LoopError struct{ _ int }

// Error returns "loop".
func (*LoopError) Error() string { return "loop" }

// Unwrap returns the error itself.
func (l *LoopError) Unwrap() error { return l }

// BadUnwrapError is an error whose Unwrap method panics.
type BadUnwrapError struct{}

// Error returns "bad".
func (BadUnwrapError) Error() string { return "bad" }

// Unwrap panics.
func (BadUnwrapError) Unwrap() error { panic("Unwrap") }

// PooledContext is a context whose methods do something else once the request it belongs to is over.
type PooledContext struct {
	context.Context //nolint:containedctx // a context around another

	over atomic.Pointer[func()]
}

// End makes the methods call over first.
func (p *PooledContext) End(over func()) { p.over.Store(&over) }

func (p *PooledContext) check() {
	if over := p.over.Load(); over != nil {
		(*over)()
	}
}

// Done calls over, if the request is.
func (p *PooledContext) Done() <-chan struct{} {
	p.check()
	return p.Context.Done()
}

// Err calls over, if the request is.
func (p *PooledContext) Err() error {
	p.check()
	return p.Context.Err()
}

// Value calls over, if the request is.
func (p *PooledContext) Value(key any) any {
	p.check()
	return p.Context.Value(key)
}

// Deadline calls over, if the request is.
func (p *PooledContext) Deadline() (time.Time, bool) {
	p.check()
	return p.Context.Deadline()
}

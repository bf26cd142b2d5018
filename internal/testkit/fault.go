package testkit

import (
	"context"
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

// Package fault runs code that users wrote, and puts errors into one line.
//
// A user's function may panic, end its goroutine, or return an error whose own methods
// panic. [Run] and [RunThen] turn each of these into an error, and [Text] and [Join]
// read an error without trusting it. The package owns the sentinels that engines return.
//
// Nothing here may be called while a lock is held, but for [Wrap] and [Join], which ask
// their causes for text only when they are read.
package fault

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime/debug"
	"strings"
	"time"

	"github.com/capreg/registry/internal/errtree"
	"github.com/capreg/registry/internal/oneline"
	"github.com/capreg/registry/verdict"
)

// Run runs user code and turns its panic, or the exit of its goroutine, into a
// [verdict.PanicError]. After an exit the goroutine goes on exiting. An error that wraps itself
// is cut, so that it can be searched; see [Bound].
func Run(f func() error) (err error) {
	returned := false
	defer func() {
		if !returned {
			err = Bound(&verdict.PanicError{Value: recover(), Stack: debug.Stack()})
		}
	}()
	err = Bound(f())
	returned = true
	return err
}

// Panicked returns the error of a panic with the value, in the goroutine that recovers.
func Panicked(value any) *verdict.PanicError {
	return &verdict.PanicError{Value: value, Stack: debug.Stack()}
}

// Guard runs work and, unless it returns, calls ended with the value of its panic; nil when it exits its goroutine,
// which then goes on exiting. What ended returns is the error of a panic; with false it goes on panicking.
func Guard(work func() error, ended func(panicked any) (stop bool, err error)) (err error) {
	returned := false
	defer func() {
		if returned {
			return
		}
		value := recover()
		var stop bool
		if stop, err = ended(value); value != nil && !stop {
			panic(value)
		}
	}()
	err = Bound(work())
	returned = true
	return err
}

// Bound returns an error of a user that can be searched and kept: err itself, unless it wraps
// itself, or its Unwrap method panics.
func Bound(err error) error { return errtree.Bound(err) }

// RunThen is [Run], and calls done with the error whatever f does, also when f exits its
// goroutine.
func RunThen(f func() error, done func(err error)) {
	err := error(&verdict.PanicError{}) // what remains when f exits the goroutine
	defer func() { done(err) }()
	err = Run(f)
}

// Text returns the text of an error, whose Error method may fail, in one line.
func Text(err error) (text string) {
	if err == nil {
		return "no error"
	}
	if failure := Run(func() error { text = err.Error(); return nil }); failure != nil {
		return fmt.Sprintf("%T whose Error method failed", err)
	}
	return oneline.Of(text)
}

// IsTimeout reports whether err says that some time is over.
func IsTimeout(err error) (timeout bool) {
	_ = Run(func() error { // its methods are a user's
		err := Bound(err)
		var network net.Error
		timeout = errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded) ||
			errors.As(err, &network) && network.Timeout()
		return nil
	})
	return timeout
}

// lineError is text before causes, in one line.
type lineError struct {
	prefix string
	causes []error
}

// Error asks the causes for their texts now: their methods are users' code, and the error
// may have been made while a lock was held.
func (e *lineError) Error() string {
	texts := make([]string, len(e.causes))
	for i, cause := range e.causes {
		texts[i] = Text(cause)
	}
	return oneline.Of(e.prefix + strings.Join(texts, "; "))
}

// Unwrap returns the causes.
func (e *lineError) Unwrap() []error { return e.causes }

// Join is [errors.Join] in one line, after a prefix.
func Join(prefix string, causes []error) error { return &lineError{prefix, causes} }

// Wrap puts text before an error.
func Wrap(prefix string, err error) error { return &lineError{prefix, []error{err}} }

// List returns the error as a list, an empty one for nil.
func List(err error) []error {
	if err == nil {
		return nil
	}
	return []error{err}
}

// EndOf returns the error of a context: [context.DeadlineExceeded] also where that was the cause with which code that keeps the
// deadline by a clock of its own has cancelled it.
func EndOf(ctx context.Context) error {
	err := ctx.Err()
	if err != context.Canceled {
		return err
	}
	_ = Run(func() error { // its methods are a user's
		deadline, has := ctx.Deadline()
		if has && !time.Now().Before(deadline) && context.Cause(ctx) == context.DeadlineExceeded { //nolint:errorlint // the very one
			err = context.DeadlineExceeded
		}
		return nil
	})
	return err
}

// OfContext returns the error of a context that has ended, and its cause where that says
// more.
func OfContext(ctx context.Context) []error {
	err, cause := Bound(EndOf(ctx)), Bound(context.Cause(ctx))
	if cause == nil || errors.Is(err, cause) {
		return []error{err}
	}
	return []error{err, cause}
}

package control

import (
	"cmp"
	"context"
	"errors"
	"time"

	"github.com/capreg/registry"
	"github.com/capreg/registry/admin/action"
	"github.com/capreg/registry/internal/oneline"
)

// Kind is the kind of a refusal.
type Kind uint8

const (
	// NotFound is a target that is not there.
	NotFound Kind = iota
	// Ambiguous is a name that providers of several services have.
	Ambiguous
	// ReadOnly is a change where no authoriser was given.
	ReadOnly
	// Unauthenticated is a party that the authoriser does not know.
	Unauthenticated
	// Denied is an action that the authoriser refuses.
	Denied
	// Stale is a change that is based on a state of before.
	Stale
	// Unconditional is a change that does not say what it is based on.
	Unconditional
	// TooMany are changes that come too fast.
	TooMany
	// Invalid is a value that is refused.
	Invalid
	// Conflict is a change that contradicts what is there.
	Conflict
	// Closed is a registry that is closed or closing.
	Closed
	// Failed is a change that was begun and has failed.
	Failed
)

// Error is a refusal of what was asked.
type Error struct {
	Kind Kind
	// Text is for the party that asks. It tells nothing that the party does not know or may not know.
	Text string
	// Candidates are the targets that an ambiguous name may mean.
	Candidates []Target
	// Tag is the present tag of a target that has changed.
	Tag string
	// Problems are those of a document.
	Problems []DocumentProblem
	// RetryIn is the time after which a change is admitted again.
	RetryIn time.Duration
	// Field is the refused field of the input.
	Field string
	// Err is the cause.
	Err error
}

// Error returns the text with the cause.
func (e *Error) Error() string {
	if e.Err == nil {
		return e.Text
	}
	return e.Text + ": " + oneline.Of(e.Err.Error())
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// outcome returns what an audit tells of the refusal.
func (e *Error) outcome() action.Outcome {
	switch e.Kind {
	case ReadOnly, Unauthenticated, Denied:
		return action.Refused
	case Stale, Unconditional, Conflict:
		return action.Conflict
	case TooMany:
		return action.Limited
	case Closed, Failed:
		return action.Failed
	case NotFound, Ambiguous, Invalid:
	}
	return action.Invalid
}

// refusalOf returns an error of the registry as a refusal; nil for none.
func refusalOf(err error) *Error {
	var field *registry.FieldError
	var known *Error
	var problems *ProblemsError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &known):
		return known
	case errors.As(err, &problems):
		return &Error{Kind: Invalid, Text: problems.Error(), Problems: problems.Problems}
	case errors.Is(err, registry.ErrClosed):
		return &Error{Kind: Closed, Text: "the registry is closed"}
	case errors.Is(err, registry.ErrNotRegistered), errors.Is(err, registry.ErrUnknownService):
		return &Error{Kind: NotFound, Text: "it has left meanwhile", Err: err}
	case errors.Is(err, registry.ErrConflict), errors.Is(err, registry.ErrExists), errors.Is(err, registry.ErrState):
		return &Error{Kind: Conflict, Text: oneline.Of(err.Error())}
	case errors.As(err, &field):
		return &Error{Kind: Invalid, Text: cmp.Or(oneline.Of(field.Error()), "a value is refused"), Field: field.Field}
	case errors.Is(err, registry.ErrInvalid):
		return &Error{Kind: Invalid, Text: oneline.Of(err.Error())}
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return &Error{Kind: Failed, Text: "the time for it is over, and it may go on"}
	}
	return &Error{Kind: Failed, Text: oneline.Short(err.Error(), 512)}
}

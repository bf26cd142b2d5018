package jsonform

import (
	"encoding/json"
	"errors"

	"github.com/capreg/registry/internal/check"
	"github.com/capreg/registry/internal/oneline"
)

// longestValue bounds the part of a refused value that its error repeats, in bytes.
const longestValue = 64

// Error is a value that cannot be read or written. It matches [check.ErrInvalid] and unwraps to its cause.
type Error struct {
	// Field is the path of the field, such as "breaker.policy.window"; empty for the whole value.
	Field string
	// Value is the beginning of the refused JSON, or the refused value as text.
	Value string
	// Bound describes what would have been accepted; empty when Cause does.
	Bound string
	// Cause is the error that encoding/json, or a method of the value, returned; nil without one.
	Cause error

	ofType bool // Field names the type of the value: the name of its field says more
}

// Error returns field, value and bound in one line.
func (e *Error) Error() string {
	text := check.ErrInvalid.Error() + ": "
	switch {
	case e.Field != "" && e.Value != "":
		text += e.Field + " is " + e.Value + ": "
	case e.Field != "":
		text += e.Field + ": "
	case e.Value != "":
		text += e.Value + ": "
	}
	if e.Bound != "" {
		return oneline.Of(text + "want " + e.Bound)
	}
	return oneline.Of(text + textOf(e.Cause))
}

// Unwrap returns the sentinel and the cause.
func (e *Error) Unwrap() []error {
	if e.Cause == nil {
		return []error{check.ErrInvalid}
	}
	return []error{check.ErrInvalid, e.Cause}
}

// refuse returns the error of JSON that is not what is wanted.
func refuse(text []byte, bound string) *Error {
	return &Error{Value: oneline.Cut(string(text), longestValue), Bound: bound}
}

// syntaxOf returns the error of text that is no JSON.
func syntaxOf(text []byte) error {
	var whole json.RawMessage
	return &Error{Cause: json.Unmarshal(text, &whole)}
}

// explained adds to the error of encoding/json what was read, and what would have been.
func explained(err error, text []byte, bound string) error {
	if own := (*Error)(nil); err == nil || errors.As(err, &own) {
		return err
	}
	bad := refuse(text, bound)
	bad.Cause = err
	return bad
}

// within puts the name of the field around the error of its value.
func within(name string, err error) error {
	inner := (*Error)(nil)
	if !errors.As(err, &inner) {
		return &Error{Field: name, Cause: err}
	}
	outer := *inner
	outer.ofType = false
	if outer.Field = name; inner.Field != "" && !inner.ofType {
		outer.Field += "." + inner.Field
	}
	return &outer
}

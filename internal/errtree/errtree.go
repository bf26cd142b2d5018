// Package errtree bounds the trees of errors that users made.
//
// [errors.Is] and [errors.As] visit all that an error wraps. Of an error that wraps itself they
// never return, and where an Unwrap method panics they panic. [Bound] looks once, where such an
// error comes in, and returns one that is safe to keep, to search and to hand on.
//
// It runs methods of errors, so it must not be called while a lock is held. It is safe for
// concurrent use.
package errtree

import (
	"fmt"
	"reflect"
)

const (
	mostDepth  = 1000    // of errors around one another
	mostErrors = 1 << 16 // in one tree, each counted as often as it is wrapped
	mostKept   = 64      // of a tree that is cut
)

// Bound returns err itself if all that it wraps can be visited. If not (it wraps itself, or far
// too much, or an Unwrap method panics), the result has its text, matches its outermost errors
// and wraps nothing.
func Bound(err error) error {
	left := mostErrors
	if bounded(err, mostDepth, &left) {
		return err
	}
	return &cut{text: err, kept: keep(nil, err)}
}

// bounded reports whether the tree ends within depth, and within left errors.
func bounded(err error, depth int, left *int) bool {
	for err != nil {
		*left--
		if depth--; depth < 0 || *left < 0 {
			return false
		}
		one, many, ok := unwrap(err)
		if !ok {
			return false
		}
		for _, wrapped := range many {
			if !bounded(wrapped, depth, left) {
				return false
			}
		}
		err = one
	}
	return true
}

// unwrap returns what err wraps: one error, or many. It reports false when its method panics.
func unwrap(err error) (one error, many []error, ok bool) { //nolint:staticcheck // the error is what is returned
	defer func() { _ = recover() }()
	switch wrapper := err.(type) { //nolint:errorlint // this error itself
	case *cut:
	case interface{ Unwrap() error }:
		one = wrapper.Unwrap()
	case interface{ Unwrap() []error }:
		many = wrapper.Unwrap()
	}
	return one, many, true
}

// keep appends the first errors of the tree, each once, in the order of [errors.Is].
func keep(kept []error, err error) []error {
	for err != nil && len(kept) < mostKept && !has(kept, err) {
		kept = append(kept, err)
		one, many, _ := unwrap(err)
		for _, wrapped := range many {
			kept = keep(kept, wrapped)
		}
		err = one
	}
	return kept
}

func has(kept []error, err error) bool {
	for _, known := range kept {
		if same(known, err) {
			return true
		}
	}
	return false
}

// same compares two errors, which may not be comparable.
func same(a, b error) (equal bool) {
	defer func() { _ = recover() }()
	return a == b //nolint:errorlint // these errors themselves
}

// cut is an error whose tree has no end.
type cut struct {
	text error
	kept []error
}

// Error returns the text of the error.
func (c *cut) Error() string { return c.text.Error() }

// Is reports whether one of the errors that were kept is target.
func (c *cut) Is(target error) bool {
	for _, err := range c.kept {
		if same(err, target) {
			return true
		}
		if matcher, ok := err.(interface{ Is(error) bool }); ok && matcher.Is(target) {
			return true
		}
	}
	return false
}

// As sets target to the first of the errors that were kept which fits.
func (c *cut) As(target any) bool {
	value := reflect.ValueOf(target).Elem() // errors.As has checked it
	for _, err := range c.kept {
		if reflect.TypeOf(err).AssignableTo(value.Type()) {
			value.Set(reflect.ValueOf(err))
			return true
		}
		if finder, ok := err.(interface{ As(any) bool }); ok && finder.As(target) {
			return true
		}
	}
	return false
}

// Format writes the text under every verb: the fields would lead back into the tree.
func (c *cut) Format(to fmt.State, _ rune) { _, _ = fmt.Fprint(to, c.Error()) }

package fault

import "errors"

// Without returns an error that matches what err does, but for the target.
func Without(err, target error) error { return withoutError{err, target} }

type withoutError struct {
	error

	hidden error
}

func (w withoutError) Is(target error) bool { return target != w.hidden && errors.Is(w.error, target) }
func (w withoutError) As(target any) bool   { return errors.As(w.error, target) }

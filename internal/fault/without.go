package fault

import "errors"

// Without returns an error that matches what err does, but for the target.
func Without(err, target error) error { return withoutTarget{err, target} }

type withoutTarget struct {
	error

	hidden error
}

func (w withoutTarget) Is(target error) bool { return target != w.hidden && errors.Is(w.error, target) }
func (w withoutTarget) As(target any) bool   { return errors.As(w.error, target) }

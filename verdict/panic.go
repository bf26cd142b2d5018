package verdict

import (
	"fmt"

	"github.com/capreg/registry/internal/oneline"
)

// PanicError is a panic of user code turned into an error. The code may be a factory, a hook
// or, by option, a call. Its class is [ClassPanic].
type PanicError struct {
	// Value is the argument of panic; nil when the code ended its goroutine with
	// runtime.Goexit.
	Value any
	// Stack is the stack of the goroutine at the panic.
	Stack []byte
}

// Error returns the panic's value in one line, without the stack.
func (e *PanicError) Error() string {
	if e.Value == nil {
		return "registry: goroutine exited (runtime.Goexit)"
	}
	return oneline.Of(fmt.Sprintf("registry: panic: %v", e.Value))
}

// Verdict returns a verdict of [ClassPanic].
func (e *PanicError) Verdict() Verdict { return Verdict{Class: ClassPanic} }

// Unwrap returns the panic's value when it is an error.
func (e *PanicError) Unwrap() error {
	err, _ := e.Value.(error)
	return err
}

package verdict

import (
	"fmt"

	"github.com/capreg/registry/internal/oneline"
)

// PanicError is a panic of user code that was turned into an error: of a factory, a hook,
// or, by option, of a call. It means [ClassPanic].
type PanicError struct {
	// Value is what was passed to panic; nil when the code ended its goroutine
	// with runtime.Goexit.
	Value any
	// Stack is the stack of the goroutine at the panic.
	Stack []byte
}

// Error returns the panic's value, without the stack, in one line.
func (e *PanicError) Error() string {
	if e.Value == nil {
		return "registry: goroutine exited (runtime.Goexit)"
	}
	return oneline.Of(fmt.Sprintf("registry: panic: %v", e.Value))
}

// Verdict returns what a panic means.
func (e *PanicError) Verdict() Verdict { return Verdict{Class: ClassPanic} }

// Unwrap returns the panic's value when it is an error.
func (e *PanicError) Unwrap() error {
	err, _ := e.Value.(error)
	return err
}

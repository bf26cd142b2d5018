//go:build !unix

package process

import (
	"errors"
	"fmt"
	"runtime"

	"github.com/capreg/registry"
)

// Component returns an error that matches [errors.ErrUnsupported]: this system has no process groups.
func Component(Options) (registry.Component, error) {
	return registry.Component{}, fmt.Errorf("process: child processes on %s: %w", runtime.GOOS, errors.ErrUnsupported)
}

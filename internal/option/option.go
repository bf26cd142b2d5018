// Package option merges and checks the options of one call.
package option

import (
	"fmt"
	"time"

	"github.com/capreg/registry/internal/check"
)

// Set has the options of a call whose report is an R. The zero value is none. The root package documents what each
// does.
type Set[R any] struct {
	OnceOnly bool
	Timed    bool // Timeout was given
	Wait     bool
	Timeout  time.Duration
	Caller   string
	Report   *R

	Bounded     bool // MaxParallel was given
	MaxParallel int
}

// Merge adds the options of other, which win.
func (s *Set[R]) Merge(other *Set[R]) {
	s.OnceOnly = s.OnceOnly || other.OnceOnly
	s.Wait = s.Wait || other.Wait
	if other.Timed {
		s.Timed, s.Timeout = true, other.Timeout
	}
	if other.Caller != "" {
		s.Caller = other.Caller
	}
	if other.Report != nil {
		s.Report = other.Report
	}
	if other.Bounded {
		s.Bounded, s.MaxParallel = true, other.MaxParallel
	}
}

// Check returns what is wrong with one of the options; nil: nothing.
func (s *Set[R]) Check() *check.Violation {
	switch {
	case s.Timed && s.Timeout <= 0:
		return check.Refuse("AttemptTimeout", s.Timeout, "more than 0, or NoTimeout")
	case s.Bounded && s.MaxParallel <= 0:
		return check.Refuse("MaxParallel", s.MaxParallel, "more than 0")
	}
	return check.OptionalName("Caller", s.Caller)
}

// String returns the name of the one option of the set and its value, such as "OnceOnly".
func (s *Set[R]) String() string {
	switch {
	case s.OnceOnly:
		return "OnceOnly"
	case s.Timed:
		return fmt.Sprintf("AttemptTimeout(%v)", s.Timeout)
	case s.Wait:
		return "WaitForCooldown"
	case s.Caller != "":
		return fmt.Sprintf("Caller(%q)", s.Caller)
	case s.Report != nil:
		return "ReportTo"
	case s.Bounded:
		return fmt.Sprintf("MaxParallel(%d)", s.MaxParallel)
	}
	return "none"
}

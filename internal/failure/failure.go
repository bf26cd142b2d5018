// Package failure says what the failure of a call means: its text, its causes and their order, and the verdict of it.
package failure

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"time"

	"github.com/capreg/registry/internal/fault"
	"github.com/capreg/registry/internal/oneline"
	"github.com/capreg/registry/internal/sight"
	"github.com/capreg/registry/reason"
	"github.com/capreg/registry/verdict"
)

// Attempt is an attempt of a call that has failed.
type Attempt struct {
	Provider string
	Class    verdict.Class
	Duration time.Duration
	Err      error
}

// Call is a call that has failed.
type Call struct {
	Service  string
	Attempts []Attempt    // in order
	OnceOnly bool         // no other provider was tried because it must not run a second time
	Partial  bool         // other providers could have been asked
	Ended    []error      // the error of the caller's context and its cause, when they ended the call
	Reasons  []error      // why the registry ended attempts, and why no provider is left
	Left     *sight.Sight // the providers when the call ran out of them; nil: it did not
}

// Text names every provider with class, duration and error, in one line.
func (c *Call) Text() string {
	var text strings.Builder
	fmt.Fprintf(&text, "registry: call of service %q failed", oneline.Cut(c.Service, 64))
	if c.Credentials() {
		fmt.Fprintf(&text, ": %v", fault.ErrCredentials)
	}
	for _, err := range c.Ended {
		fmt.Fprintf(&text, ": %v", err)
	}
	var tried []string
	for _, attempt := range c.Attempts {
		tried = append(tried, fmt.Sprintf("%s: %v after %v: %s", attempt.Provider, attempt.Class,
			attempt.Duration.Round(time.Microsecond), oneline.Cut(fault.Text(attempt.Err), 300)))
	}
	if tried = append(tried, sight.TextsOf(c.Skipped(), c.countSkipped())...); len(tried) > 0 {
		text.WriteString(": " + strings.Join(tried, "; "))
	}
	if c.OnceOnly {
		text.WriteString("; not tried elsewhere: once only")
	}
	return oneline.Of(text.String())
}

// Skipped returns the providers that were not tried, when the call ran out of providers.
func (c *Call) Skipped() iter.Seq[*sight.Seen] {
	return func(yield func(*sight.Seen) bool) {
		if c.Left == nil {
			return
		}
		for seen := range c.Left.All() {
			if !c.tried(seen.Provider) && !yield(seen) {
				return
			}
		}
	}
}

func (c *Call) countSkipped() int {
	if c.Left == nil {
		return 0
	}
	return c.Left.LenWithout(c.tried)
}

func (c *Call) tried(provider string) bool {
	return slices.ContainsFunc(c.Attempts, func(a Attempt) bool { return a.Provider == provider })
}

// Verdict returns the verdict of the call: cancelled or the caller's deadline where its context ended it, else that of
// the last attempt that got an answer about the request, or else of the last attempt.
func (c *Call) Verdict() verdict.Verdict {
	decisive := c.decisive()
	switch {
	case len(c.Ended) > 0 && errors.Is(c.Ended[0], context.DeadlineExceeded):
		return verdict.Verdict{Class: verdict.ClassCallerDeadline}
	case len(c.Ended) > 0:
		return verdict.Verdict{Class: verdict.ClassCancelled}
	case decisive < 0:
		return verdict.Verdict{}
	}
	class := c.Attempts[decisive].Class
	if v := verdict.Of(c.Attempts[decisive].Err); v.Class == class {
		return v // with its delay
	}
	return verdict.Verdict{Class: class}
}

// decisive returns the index of the attempt whose outcome is the call's; -1: there is none.
func (c *Call) decisive() int {
	for i, attempt := range slices.Backward(c.Attempts) {
		if attempt.Class != verdict.ClassSuccess && attempt.Class.Rule().Blame == verdict.BlameSuccess {
			return i
		}
	}
	return len(c.Attempts) - 1
}

// Causes returns all causes: the errors that ended the call, the error of the attempt that Verdict is about, those of
// the others in order, and the reasons of the providers that were skipped.
func (c *Call) Causes() []error {
	causes := append(make([]error, 0, len(c.Ended)+len(c.Reasons)+len(c.Attempts)+c.countSkipped()), c.Ended...)
	decisive := c.decisive()
	if decisive >= 0 && c.Attempts[decisive].Err != nil {
		causes = append(causes, c.Attempts[decisive].Err)
	}
	causes = append(causes, c.Reasons...)
	for i, attempt := range c.Attempts {
		if i != decisive && attempt.Err != nil {
			causes = append(causes, attempt.Err)
		}
	}
	return sight.AppendCauses(causes, c.Skipped(), c.Credentials())
}

// Credentials reports whether every provider that could be asked refuses this client's credentials.
func (c *Call) Credentials() bool {
	if len(c.Ended) > 0 || len(c.Attempts) == 0 || c.Partial {
		return false
	}
	return !slices.ContainsFunc(c.Attempts, func(a Attempt) bool { return a.Class != verdict.ClassFatal }) &&
		(c.Left == nil || c.Left.Only(c.tried, reason.Parked, reason.CapabilityMissing))
}

// EndedEarly reports whether the call ended although another provider could have been asked.
func (c *Call) EndedEarly() bool {
	n := len(c.Attempts)
	return n > 0 && len(c.Ended) == 0 && c.Attempts[n-1].Class.Rule().Next != verdict.NextNo
}

package sight

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
	"github.com/capreg/registry/reason"
	"github.com/capreg/registry/verdict"
)

// longestCause bounds the text of an attempt's error in the text of its call, in bytes.
const longestCause = 300

// Ended is an attempt of a call that has failed.
type Ended struct {
	Provider string
	Class    verdict.Class
	Took     time.Duration
	Err      error
}

// Failure holds what a call that has failed has met, for its error.
type Failure struct {
	Attempts func(yield func(Ended) bool) // in order
	Context  []error                      // the caller's context error and its cause, when they ended the call
	Causes   []error                      // why attempts were ended, and why no provider is left
	Left     *Sight                       // the providers when the call ran out of them; nil: it did not
	Partial  bool                         // other providers could have been asked
	OnceOnly bool                         // none was, because the call must not run a second time
}

func (f *Failure) tried(provider string) bool {
	for a := range f.Attempts {
		if a.Provider == provider {
			return true
		}
	}
	return false
}

// Skipped yields the providers that were not tried, when the call ran out of providers.
func (f *Failure) Skipped() iter.Seq[*Seen] {
	return func(yield func(*Seen) bool) {
		if f.Left == nil {
			return
		}
		for c := range f.Left.All() {
			if !f.tried(c.Provider) && !yield(c) {
				return
			}
		}
	}
}

func (f *Failure) countSkipped() int {
	if f.Left == nil {
		return 0
	}
	return f.Left.LenWithout(f.tried)
}

// ErrorText names every provider with class, duration and error, in one line.
func (f *Failure) ErrorText(service string) string {
	var text strings.Builder
	fmt.Fprintf(&text, "registry: call of service %q failed", oneline.Cut(service, 64))
	if f.Credentials() {
		fmt.Fprintf(&text, ": %v", fault.ErrCredentials)
	}
	for _, err := range f.Context {
		fmt.Fprintf(&text, ": %v", err)
	}
	var tried []string
	for a := range f.Attempts {
		tried = append(tried, fmt.Sprintf("%s: %v after %v: %s", a.Provider, a.Class,
			a.Took.Round(time.Microsecond), oneline.Cut(fault.Text(a.Err), longestCause)))
	}
	if tried = append(tried, TextsOf(f.Skipped(), f.countSkipped())...); len(tried) > 0 {
		text.WriteString(": " + strings.Join(tried, "; "))
	}
	if f.OnceOnly {
		text.WriteString("; not tried elsewhere: once only")
	}
	return oneline.Of(text.String())
}

// Verdict returns the verdict of the call: that of its context where this ended it, else that of the decisive attempt.
func (f *Failure) Verdict() verdict.Verdict {
	at, decisive := f.decisive()
	switch {
	case len(f.Context) > 0 && errors.Is(f.Context[0], context.DeadlineExceeded):
		return verdict.Verdict{Class: verdict.ClassCallerDeadline}
	case len(f.Context) > 0:
		return verdict.Verdict{Class: verdict.ClassCancelled}
	case at < 0:
		return verdict.Verdict{}
	}
	if v := verdict.Of(decisive.Err); v.Class == decisive.Class {
		return v // with its delay
	}
	return verdict.Verdict{Class: decisive.Class}
}

// decisive returns the attempt whose outcome is the call's, and its number: the last one that got an answer about the
// request, or else the last one; -1: there is none.
func (f *Failure) decisive() (at int, decisive Ended) {
	at = -1
	answered, number := false, 0
	for a := range f.Attempts {
		answers := a.Class != verdict.ClassSuccess && a.Class.Rule().Blame == verdict.BlameSuccess
		if answers || !answered {
			at, decisive = number, a
		}
		answered = answered || answers
		number++
	}
	return at, decisive
}

// All returns all causes, the decisive ones first.
func (f *Failure) All() []error {
	causes := slices.Clone(f.Context)
	at, decisive := f.decisive()
	if decisive.Err != nil {
		causes = append(causes, decisive.Err)
	}
	causes = append(causes, f.Causes...)
	for a := range f.Attempts {
		if a.Err != nil && at != 0 {
			causes = append(causes, a.Err)
		}
		at--
	}
	return AppendCauses(causes, f.Skipped(), f.Credentials())
}

// Credentials reports whether every provider that could be asked refuses this client's credentials.
func (f *Failure) Credentials() bool {
	if len(f.Context) > 0 || f.Partial {
		return false
	}
	asked := false
	for a := range f.Attempts {
		if a.Class != verdict.ClassFatal {
			return false
		}
		asked = true
	}
	return asked && (f.Left == nil || f.Left.Only(f.tried, reason.Parked, reason.CapabilityMissing))
}

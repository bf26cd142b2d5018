package registry

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/capreg/registry/internal/fault"
	"github.com/capreg/registry/internal/oneline"
	"github.com/capreg/registry/internal/pick"
	"github.com/capreg/registry/verdict"
)

// The sentinels say which error it is; the structs [FieldError],
// [UnavailableError], [CallError] and [PanicError] say what exactly.
var (
	// ErrInvalid is bad input: a [FieldError] names field, value and bound.
	ErrInvalid = fault.ErrInvalid
	// ErrExists is a name that another provider of the registry has.
	ErrExists = fault.ErrExists
	// ErrConflict is input that contradicts what is registered: another strategy
	// for a group, another Go type for a service, a mock beside real providers.
	ErrConflict = fault.ErrConflict
	// ErrNotRegistered is an operation on a provider that left the registry.
	ErrNotRegistered = fault.ErrNotRegistered

	// ErrUnavailable is a look-up or call that no provider could be found for;
	// the [UnavailableError] also matches each of the causes below that is present.
	ErrUnavailable = errors.New("no provider available")
	// ErrUnknownService is a service that no provider is registered for.
	ErrUnknownService = errors.New("unknown service")
	// ErrNoCapability is a provider that lacks a required capability.
	ErrNoCapability = errors.New("capability missing")
	// ErrUnhealthy is a provider whose health is bad.
	ErrUnhealthy = errors.New("unhealthy")
	// ErrNotReady is a provider whose factory failed, or no probe of which has
	// succeeded yet, a component that does not get ready, and what
	// [Registry.WaitReady] returns when its time is over.
	ErrNotReady = fault.ErrNotReady
	// ErrBreakerOpen is a provider whose breaker admits nothing now: it is open,
	// or half-open with its trial slots taken.
	ErrBreakerOpen = errors.New("breaker open")
	// ErrCoolingDown is a provider that asked to be left alone for a while.
	ErrCoolingDown = errors.New("cooling down")
	// ErrCredentials is when every provider that could be asked is parked, because it
	// refuses this client: authentication, quota, billing. One that is parked beside
	// others is [ErrCoolingDown].
	ErrCredentials = errors.New("no usable credentials")
	// ErrAtCapacity is a provider without a free place, whose caller has used up
	// its rate, or whose budget for further attempts is spent.
	ErrAtCapacity = errors.New("at capacity")
	// ErrDenied is a provider that [Options.Authorize] keeps the caller away from.
	ErrDenied = errors.New("denied")
	// ErrClosed is a registry that is closed or closing, or a provider that is
	// being removed.
	ErrClosed = fault.ErrClosed
	// ErrStuck is a removal or close that gave up waiting for user code.
	ErrStuck = fault.ErrStuck

	// ErrAttemptTimeout is the cause ([context.Cause]) of an attempt's context
	// that ran into the provider's attempt timeout.
	ErrAttemptTimeout = fault.ErrAttemptTimeout
)

// FieldError says which input was refused and why. It matches [ErrInvalid],
// [ErrExists] or [ErrConflict].
type FieldError struct {
	// Field is the name of the field, such as "Capabilities[1]".
	Field string
	// Value is what was given, cut to a printable length.
	Value string
	// Bound is what would have been accepted, or what stands in the way.
	Bound string
	// Err is the sentinel: ErrInvalid, ErrExists or ErrConflict.
	Err error
}

// Error returns field, value and bound in one line.
func (e *FieldError) Error() string {
	return oneline.Of(fmt.Sprintf("registry: %v: %s is %s: want %s", e.Err, e.Field, e.Value, e.Bound))
}

// Unwrap returns the sentinel.
func (e *FieldError) Unwrap() error { return e.Err }

func invalid(field string, value any, bound string) error {
	return refuse(ErrInvalid, field, value, bound)
}

// verbatim is a value that is described rather than quoted.
type verbatim string

func refuse(kind error, field string, value any, bound string) error {
	const longest = 64
	text := fmt.Sprintf("%v", value)
	if s, ok := value.(string); ok {
		text = fmt.Sprintf("%q", oneline.Cut(s, longest))
	}
	return &FieldError{Field: field, Value: oneline.Cut(text, longest+8), Bound: bound, Err: kind}
}

// UnavailableError is a look-up that found nobody to give, or a call that found
// nobody to begin with.
//
// It matches [ErrUnavailable] and every cause present among its candidates, and
// unwraps to their errors.
type UnavailableError struct {
	// Service is what was asked for.
	Service string
	// Query is how it was asked for.
	Query Query
	// Candidates are the providers of the service in the order in which they
	// would have been asked, each with its reason.
	Candidates []Candidate
	// RetryIn is the earliest time worth retrying, from the moment the error was
	// made; zero when that is now, or nothing known ends by itself.
	RetryIn time.Duration

	cause error // why the service as a whole has nothing, when it has not
}

// mostNamed bounds how many providers the text of an error names.
const mostNamed = 16

// Error names the service and at most 16 candidates with their reasons, in one line.
func (e *UnavailableError) Error() string {
	var text strings.Builder
	fmt.Fprintf(&text, "registry: %v: service %q%s", ErrUnavailable, oneline.Cut(e.Service, 64), e.Query)
	switch {
	case e.cause != nil:
		fmt.Fprintf(&text, ": %v", e.cause)
	case len(e.Candidates) > 0 && e.parked():
		fmt.Fprintf(&text, ": %v", ErrCredentials)
	}
	for i, candidate := range e.Candidates {
		if i == mostNamed {
			fmt.Fprintf(&text, "; and %d more", len(e.Candidates)-mostNamed)
			break
		}
		separator := "; "
		if i == 0 {
			separator = ": "
		}
		text.WriteString(separator + candidate.String())
	}
	if e.RetryIn > 0 {
		fmt.Fprintf(&text, "; retry in %v", e.RetryIn.Round(time.Millisecond))
	}
	return oneline.Of(text.String())
}

// Is reports whether target is ErrUnavailable or the cause of the whole service.
func (e *UnavailableError) Is(target error) bool {
	return target == ErrUnavailable || e.cause != nil && target == e.cause
}

// Verdict returns what this means to another call that it was a part of: no more
// than that it failed.
func (e *UnavailableError) Verdict() verdict.Verdict { return verdict.Verdict{} }

// Unwrap returns the error of each candidate.
func (e *UnavailableError) Unwrap() []error {
	causes := make([]error, 0, len(e.Candidates))
	for _, candidate := range e.Candidates {
		if candidate.Err != nil {
			causes = append(causes, ofCandidate(candidate, e.parked()))
		}
	}
	return causes
}

// ofCandidate is the cause that a candidate is, which speaks of credentials only
// where all do.
func ofCandidate(candidate Candidate, parked bool) error {
	if candidate.Code != codeParked || parked {
		return candidate.Err
	}
	return parkedError{candidate.Err}
}

// parkedError is the reason of a provider that is parked beside others.
type parkedError struct{ error }

func (s parkedError) Is(target error) bool {
	return target != ErrCredentials && errors.Is(s.error, target)
}

func (s parkedError) As(target any) bool { return errors.As(s.error, target) }

// parked reports whether every candidate refuses this client's credentials.
func (e *UnavailableError) parked() bool {
	for _, candidate := range e.Candidates {
		if candidate.Code != codeParked {
			return false
		}
	}
	return true
}

// CallError is a call that failed after its function had been entered, or that
// its own context ended before.
//
// It unwraps to the error of every attempt, to the cause where the registry
// ended it ([ErrAttemptTimeout], [ErrClosed]), to the caller's context error and
// its cause where the context ended the call, and to the reasons of the
// providers that could not be entered. When every provider that could be asked
// refuses this client's credentials, it matches [ErrCredentials].
type CallError struct {
	// Service is what was called.
	Service string
	// Attempts are the tries, in order; none when the context ended before the first.
	Attempts []Attempt
	// Skipped are the providers that were not entered, when the call ran out of
	// providers.
	Skipped []Candidate
	// OnceOnly says that the call was not tried elsewhere because it must not run
	// a second time.
	OnceOnly bool
	// RetryIn is the earliest time worth retrying when the call ran out of
	// providers, from the moment the error was made; zero when that is now, or
	// nothing known ends by itself.
	RetryIn time.Duration

	ended   []error // the caller's context error and its cause, when they ended the call
	partial bool    // others could have been asked
	causes  []error // why attempts were ended by the registry, and why nobody is left
}

// Error names every provider with class, duration and error, in one line.
func (e *CallError) Error() string {
	var text strings.Builder
	fmt.Fprintf(&text, "registry: call of service %q failed", oneline.Cut(e.Service, 64))
	if e.credentials() {
		fmt.Fprintf(&text, ": %v", ErrCredentials)
	}
	for _, err := range e.ended {
		fmt.Fprintf(&text, ": %v", err)
	}
	separator := ": "
	for _, attempt := range e.Attempts {
		fmt.Fprintf(&text, "%s%s: %v after %v: %s", separator, attempt.Provider, attempt.Class,
			attempt.Duration.Round(time.Microsecond), oneline.Cut(fault.Text(attempt.Err), 300))
		separator = "; "
	}
	for i, candidate := range e.Skipped {
		if i == mostNamed {
			fmt.Fprintf(&text, "; and %d more", len(e.Skipped)-mostNamed)
			break
		}
		text.WriteString(separator + candidate.String())
		separator = "; "
	}
	if e.OnceOnly {
		text.WriteString("; not tried elsewhere: once only")
	}
	return oneline.Of(text.String())
}

// Verdict returns what the failure of a whole call means to another call that it
// was a part of: no more than that it failed, whatever its attempts were told.
func (e *CallError) Verdict() verdict.Verdict { return verdict.Verdict{} }

// Is reports whether target is ErrCredentials and credentials are the reason.
func (e *CallError) Is(target error) bool {
	return target == ErrCredentials && e.credentials()
}

// Unwrap returns what ended the call, the error of each attempt and the reasons
// of the providers that were not entered.
func (e *CallError) Unwrap() []error {
	causes := make([]error, 0, len(e.ended)+len(e.causes)+len(e.Attempts)+len(e.Skipped))
	causes = append(append(causes, e.ended...), e.causes...)
	for _, attempt := range e.Attempts {
		if attempt.Err != nil {
			causes = append(causes, attempt.Err)
		}
	}
	for _, candidate := range e.Skipped {
		if candidate.Err != nil {
			causes = append(causes, ofCandidate(candidate, e.credentials()))
		}
	}
	return causes
}

func (e *CallError) credentials() bool {
	if len(e.ended) > 0 || len(e.Attempts) == 0 || e.partial {
		return false
	}
	for _, attempt := range e.Attempts {
		if attempt.Class != verdict.ClassFatal {
			return false
		}
	}
	for _, candidate := range e.Skipped {
		if candidate.Code != codeParked && candidate.Code != codeLacking {
			return false
		}
	}
	return true
}

// withRetryIn adds when the call is worth trying again, where it ended although
// others could have been asked, and now nobody can be.
func (e *CallError) withRetryIn(s *queryPlan) *CallError {
	if n := len(e.Attempts); n == 0 || len(e.ended) > 0 || e.Attempts[n-1].Class.Rule().Next == verdict.NextNo {
		return e
	}
	e.RetryIn = soonest(s.explain(false, pick.Caller{}).Candidates)
	return e
}

// PanicError is a panic of user code that was turned into an error: of a
// factory, a hook, or, when [Options.PanicsAsErrors] is set, of a call.
type PanicError = verdict.PanicError

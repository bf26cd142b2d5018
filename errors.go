package registry

import (
	"errors"
	"fmt"
	"time"

	"github.com/capreg/registry/internal/check"
	"github.com/capreg/registry/internal/failure"
	"github.com/capreg/registry/internal/fault"
	"github.com/capreg/registry/internal/oneline"
	"github.com/capreg/registry/internal/pick"
	"github.com/capreg/registry/internal/sight"
	"github.com/capreg/registry/verdict"
)

// The sentinels are for [errors.Is]; the structs [FieldError], [UnavailableError],
// [CallError] and [verdict.PanicError] carry the details.
var (
	// ErrInvalid reports bad input; a [FieldError] names field, value and bound.
	ErrInvalid = fault.ErrInvalid
	// ErrExists reports a name that another provider of the service has.
	ErrExists = fault.ErrExists
	// ErrConflict reports input that contradicts what is registered: another strategy
	// for a group, another Go type for a service, a mock beside real providers.
	ErrConflict = fault.ErrConflict
	// ErrNotRegistered reports an operation on a provider that has left the registry.
	ErrNotRegistered = fault.ErrNotRegistered
	// ErrLeaseDone is returned for a lease whose outcome was reported already, or that has expired.
	ErrLeaseDone = errors.New("lease is done")

	// ErrUnavailable reports a look-up or call that found no eligible provider. The
	// [UnavailableError] also matches each of the causes below that is present.
	ErrUnavailable = fault.ErrUnavailable
	// ErrUnknownService reports a service without a registered provider.
	ErrUnknownService = fault.ErrUnknownService
	// ErrNoCapability reports a provider without a required capability.
	ErrNoCapability = fault.ErrNoCapability
	// ErrUnhealthy reports a provider, or one of its capabilities, that probes or the program found unhealthy.
	ErrUnhealthy = fault.ErrUnhealthy
	// ErrNotReady reports a provider or a component that is not ready. Its factory has failed, its probes have not
	// succeeded yet, or it was to join and has not proven itself; or the context of a [Registry.WaitReady] has ended
	// first.
	ErrNotReady = fault.ErrNotReady
	// ErrBreakerOpen reports a provider whose circuit breaker admits no call now: it
	// is open, or half-open with its trial slots taken.
	ErrBreakerOpen = fault.ErrBreakerOpen
	// ErrCoolingDown reports a provider that is in a cooldown, such as after a rate limit.
	ErrCoolingDown = fault.ErrCoolingDown
	// ErrCredentials reports that every provider that could be asked refuses this client: authentication, quota,
	// billing. A provider that refuses it while others do not is reported as [ErrCoolingDown].
	ErrCredentials = fault.ErrCredentials
	// ErrAtCapacity reports a provider without a free place, a caller that has used
	// up its rate, or a spent budget for further attempts.
	ErrAtCapacity = fault.ErrAtCapacity
	// ErrDenied reports a provider that [Options.Authorize] denied to the caller.
	ErrDenied = fault.ErrDenied
	// ErrClosed reports a registry that is closed or closing, or a provider that is being removed.
	ErrClosed = fault.ErrClosed
	// ErrState reports an operation that an [Orchestrator] cannot do in the state that it is in, such as a second start.
	ErrState = fault.ErrState
	// ErrStuck reports a removal or close that gave up waiting for user code.
	ErrStuck = fault.ErrStuck

	// ErrAttemptTimeout is the cause ([context.Cause]) of an attempt's context that
	// exceeded the provider's attempt timeout.
	ErrAttemptTimeout = fault.ErrAttemptTimeout
)

// FieldError is the error of input that was refused. It matches [ErrInvalid], [ErrExists], [ErrConflict] or [ErrNotRegistered].
type FieldError struct {
	// Field is the name of the field, such as "Capabilities[1]".
	Field string
	// Value is the refused value, cut to a printable length.
	Value string
	// Bound describes the values that would have been accepted.
	Bound string
	// Err is the sentinel: ErrInvalid, ErrExists, ErrConflict or ErrNotRegistered.
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

// raw is a description of a value, which is not quoted as a string would be.
type raw = check.Raw

func errNilContext() error { return invalid("ctx", raw("nil"), "a context") }

func errBadPriority(p Priority) error {
	return invalid("Priority", p, "one of CRITICAL, HIGH, NORMAL, LOW, FALLBACK")
}

func refuse(kind error, field string, value any, bound string) error {
	v := check.Refuse(field, value, bound)
	return &FieldError{Field: v.Field, Value: v.Value, Bound: v.Bound, Err: kind}
}

// UnavailableError is the error of a look-up or call that found no eligible provider.
//
// It matches [ErrUnavailable] and every cause present among its candidates, and unwraps to their errors.
type UnavailableError struct {
	// Service is the name of the service.
	Service string
	// Query is the query of the look-up.
	Query Query
	// RetryIn is the time until a retry is worthwhile, from the moment the error was
	// made; zero when that is now, or when no known reason ends by itself.
	RetryIn time.Duration

	sight sight.Sight
}

// Candidates returns the providers of the service in the order in which they would have been asked, each with its
// reason at the moment of the look-up. The list is made by each call of Candidates, and is the caller's. An error costs
// the same with ten candidates and with ten thousand, until they are asked for.
func (e *UnavailableError) Candidates() []Candidate { return candidatesOf(&e.sight) }

// shortName cuts a name for the text of an error.
func shortName(name string) string { return oneline.Cut(name, 64) }

// Error names the service and at most 16 candidates with their reasons, in one line.
func (e *UnavailableError) Error() string {
	return e.sight.ErrorText(e.Service, e.Query.String(), e.RetryIn)
}

// Is reports whether target is ErrUnavailable, the cause of the whole service, or the sentinel of the code of any candidate.
func (e *UnavailableError) Is(target error) bool {
	return target == ErrUnavailable || e.sight.Cause != nil && target == e.sight.Cause ||
		e.sight.Means(target)
}

// Verdict returns the verdict of this error in a call that contains the failed one: a plain failure.
func (e *UnavailableError) Verdict() verdict.Verdict { return verdict.Verdict{} }

// Unwrap returns the error of each candidate.
func (e *UnavailableError) Unwrap() []error {
	return sight.AppendCauses(make([]error, 0, e.sight.Len()), e.sight.All(), e.sight.AllParked())
}

// CallError is the error of a call that failed after its function ran at least once, or whose context ended first.
//
// It unwraps to the error of every attempt, to the cause where the registry ended it ([ErrAttemptTimeout],
// [ErrClosed]), to the caller's context error and its cause where the context ended the call, and to the reasons of
// the providers that were skipped. When every provider that could be asked refuses this client's credentials, it
// matches [ErrCredentials].
type CallError struct {
	// Service is the name of the service.
	Service string
	// Attempts are the tries, in order; none when the context ended before the first.
	Attempts []Attempt
	// OnceOnly reports that no other provider was tried because the call must not run a second time.
	OnceOnly bool
	// RetryIn is the time until a retry is worthwhile when the call ran out of providers, from the moment the error
	// was made; zero when that is now, or when no known reason ends by itself.
	RetryIn time.Duration

	left    *UnavailableError // the providers when the call ran out of them; nil: it did not
	ended   []error           // the caller's context error and its cause, when they ended the call
	partial bool              // other providers could have been asked
	causes  []error           // why the registry ended attempts, and why no provider is left
}

// call is the failure as package failure knows it.
func (e *CallError) call() *failure.Call {
	c := &failure.Call{Service: e.Service, OnceOnly: e.OnceOnly, Partial: e.partial, Ended: e.ended, Reasons: e.causes}
	if e.left != nil {
		c.Left = &e.left.sight
	}
	for _, a := range e.Attempts {
		c.Attempts = append(c.Attempts, failure.Attempt{Provider: a.Provider, Class: a.Class, Duration: a.Duration, Err: a.Err})
	}
	return c
}

// Skipped returns the providers that were not tried, when the call ran out of providers. The list is made by each call
// of Skipped, and is the caller's.
func (e *CallError) Skipped() (all []Candidate) {
	for seen := range e.call().Skipped() {
		all = append(all, candidateOf(seen))
	}
	return all
}

// Error names every provider with class, duration and error, in one line.
func (e *CallError) Error() string { return e.call().Text() }

// Verdict returns the verdict of the call: cancelled or the caller's deadline where its context ended it, else that of
// the last attempt that got an answer about the request, such as a bad request or a prompt that is too long, or else of
// the last attempt. In a call that contains the failed one this error is a plain failure, whatever its verdict.
func (e *CallError) Verdict() verdict.Verdict { return e.call().Verdict() }

// Is reports whether target is [ErrCredentials] and credentials are the reason.
func (e *CallError) Is(target error) bool {
	return target == ErrCredentials && e.call().Credentials() || target == fault.ErrOfCall
}

// Unwrap returns all causes, in the order in which [errors.As] finds them. First come the errors that ended the call,
// then the error of the attempt that [CallError.Verdict] is about, those of the others in order, and the reasons of
// the providers that were skipped.
func (e *CallError) Unwrap() []error { return e.call().Causes() }

// withRetryIn sets RetryIn where the call ended although other providers could have been
// asked, and none can be asked now.
func (e *CallError) withRetryIn(s *queryPlan) *CallError {
	if e.call().EndedEarly() {
		e.RetryIn = s.look(s.current(), admitting, nil, &pick.Caller{}).RetryIn
	}
	return e
}

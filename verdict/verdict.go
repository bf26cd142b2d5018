package verdict

import (
	"fmt"
	"time"

	"github.com/capreg/registry/internal/jsonform"
)

// Class is the meaning of an outcome; its [Rule] holds everything that follows from it.
//
// The zero value is [ClassUnknown]. Classes marshal as their names.
type Class uint8

// The classes of outcome. An attempt ends in exactly one of them.
const (
	// ClassUnknown is an error that no rule or classifier recognises. It fails over and counts.
	ClassUnknown Class = iota
	// ClassSuccess is an answer without error.
	ClassSuccess
	// ClassSlow is an answer without error that took longer than the slow limit.
	ClassSlow
	// ClassCancelled is an attempt whose caller cancelled its context.
	ClassCancelled
	// ClassCallerDeadline is an attempt that ran into its caller's deadline.
	ClassCallerDeadline
	// ClassAttemptTimeout is an attempt that exceeded its time limit while the caller was still
	// waiting, by the registry's clock or its client's own.
	ClassAttemptTimeout
	// ClassStalled is a stream whose first or next item did not arrive in time.
	ClassStalled
	// ClassNotSent is a request that certainly never reached the provider.
	ClassNotSent
	// ClassTransport is a connection that broke: network, TLS, unexpected end.
	ClassTransport
	// ClassServerError is the provider's own failure, such as HTTP 5xx, 408 or 424.
	ClassServerError
	// ClassOverloaded is a provider without capacity at the moment, by its own account.
	ClassOverloaded
	// ClassRateLimited is a provider that asks this client to slow down.
	ClassRateLimited
	// ClassFatal is a refusal that only an operator can end, such as for a dead key, an
	// exhausted quota or a bill.
	ClassFatal
	// ClassUnauthenticated is a refusal of credentials that may be the caller's own, such as HTTP
	// 401. On different calls, with no answer between, three in a row are the provider's, which is
	// then parked as by [ClassFatal].
	ClassUnauthenticated
	// ClassNotAllowed is a refusal of this request for lack of a right, such as HTTP 402, 403 or 407.
	ClassNotAllowed
	// ClassNotFound is a provider whose own subject is gone, such as its model.
	ClassNotFound
	// ClassResource is the answer of a resource that is not there or does not allow what is asked,
	// such as HTTP 404, 405, 409 or 412.
	ClassResource
	// ClassElsewhere is a provider that asks to be asked again or elsewhere, and has not processed
	// the request, such as HTTP 421, 425 or 501.
	ClassElsewhere
	// ClassTooLong is a request that exceeds the size this provider accepts.
	ClassTooLong
	// ClassRefused is content that the provider's policy refuses.
	ClassRefused
	// ClassBadRequest is a mistake of the caller: it fails with every provider.
	ClassBadRequest
	// ClassUnsupported is a request that another provider may accept, such as one with a
	// parameter that the model of this one lacks.
	ClassUnsupported
	// ClassNotForMe is a provider that cannot do what is asked and has not tried; see [Cannot].
	ClassNotForMe
	// ClassCannot is a provider that could not be entered: it lacks the
	// capability, is saturated, open, cooling down, draining or not ready.
	ClassCannot
	// ClassMalformed is an answer that is truncated or makes no sense.
	ClassMalformed
	// ClassPanic is a function that panicked.
	ClassPanic
	// ClassExit is a function that ended its goroutine with [runtime.Goexit].
	ClassExit
	// ClassHedgeLoser is an attempt that was cancelled because another provider answered first.
	ClassHedgeLoser
	// ClassForgotten is a lease that was not reported before it expired.
	ClassForgotten
	// ClassRemoved is an attempt that was ended because its provider was removed.
	ClassRemoved
	// ClassIgnored is an error that says nothing about the provider; see [Ignore].
	ClassIgnored
	// ClassCut is an attempt that the registry ended to leave time for another provider.
	ClassCut

	classCount
)

// Classes returns every class in the order of the table.
func Classes() []Class {
	all := make([]Class, 0, classCount)
	for c := range classCount {
		all = append(all, c)
	}
	return all
}

// Rule returns the rule of the class. A value that is no class has the rule of [ClassUnknown].
func (c Class) Rule() Rule {
	if c >= classCount {
		c = ClassUnknown
	}
	return table[c].rule
}

// String returns the name of the class, such as "rate limited".
func (c Class) String() string {
	if c >= classCount {
		return fmt.Sprintf("class(%d)", uint8(c))
	}
	return table[c].name
}

// MarshalText returns the name of the class; the error of a value that is none matches registry.ErrInvalid.
func (c Class) MarshalText() ([]byte, error) { return jsonform.MarshalName(classNames[:], c, "class") }

// UnmarshalText accepts the name of a class. The error of any other text matches registry.ErrInvalid and changes nothing.
func (c *Class) UnmarshalText(text []byte) error {
	return jsonform.UnmarshalName(classNames[:], c, text, "class")
}

// classNames has the names of the table.
var classNames = func() (names [classCount]string) { //nolint:gochecknoglobals // immutable
	for i := range table {
		names[i] = table[i].name
	}
	return names
}()

// Verdict is the class of one outcome together with the pause that follows from it.
type Verdict struct {
	// Class is the class of the outcome.
	Class Class
	// After is the time for which the provider asked to be left alone. Zero leaves the delay to
	// the rule of the class; with any class a positive value makes the registry skip the
	// provider for that long.
	After time.Duration
	// Scope says what the pause covers. The zero value is the scope of the class: a rate limit and
	// a dead key hold for all that share a failure domain, an overload for one provider alone.
	Scope Scope
}

// Classifier recognises errors. It must be safe for concurrent use and decide on values
// ([errors.Is], [errors.As]), never on message text. The zero Verdict passes the error on to
// the next classifier. A classifier that panics counts as one that passes.
type Classifier func(err error) Verdict

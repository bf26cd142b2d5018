package verdict

import (
	"net/http"
	"time"
)

const (
	statusClosedByClient = 499 // of nginx: the client has gone
	statusOverloaded     = 529 // of no standard; vendors use it
)

// statuses has the class of the HTTP statuses that their hundred alone does not tell, by RFC 9110: the ones of a
// resource are the answer of every provider. The rest of 4xx is [ClassBadRequest], of 5xx [ClassServerError].
//
//nolint:gochecknoglobals // immutable data
var statuses = map[int]Class{
	http.StatusUnauthorized:      ClassUnauthenticated,
	http.StatusPaymentRequired:   ClassNotAllowed,
	http.StatusForbidden:         ClassNotAllowed,
	http.StatusProxyAuthRequired: ClassNotAllowed,

	http.StatusNotFound:                   ClassResource,
	http.StatusMethodNotAllowed:           ClassResource,
	http.StatusNotAcceptable:              ClassResource,
	http.StatusConflict:                   ClassResource,
	http.StatusGone:                       ClassResource,
	http.StatusPreconditionFailed:         ClassResource,
	http.StatusUnsupportedMediaType:       ClassResource,
	http.StatusLocked:                     ClassResource,
	http.StatusPreconditionRequired:       ClassResource,
	http.StatusUnavailableForLegalReasons: ClassResource,

	http.StatusMisdirectedRequest: ClassElsewhere,
	http.StatusTooEarly:           ClassElsewhere,
	http.StatusNotImplemented:     ClassElsewhere,

	http.StatusRequestTimeout:   ClassServerError,
	http.StatusFailedDependency: ClassServerError,
	http.StatusTooManyRequests:  ClassRateLimited,
	statusClosedByClient:        ClassCancelled,
	statusOverloaded:            ClassOverloaded,
}

// llmStatuses has the statuses that mean something else to the APIs of language models, where a resource is a
// model and a conflict is one of their own.
//
//nolint:gochecknoglobals // immutable data
var llmStatuses = map[int]Class{
	http.StatusNotFound:              ClassNotForMe,
	http.StatusGone:                  ClassNotForMe,
	http.StatusConflict:              ClassElsewhere,
	http.StatusRequestEntityTooLarge: ClassTooLong,
}

// OfHTTPStatus classifies an HTTP status code and the delay of its Retry-After header, zero
// without one. A code below 400 is [ClassUnknown]. See [HTTP] and [LLM] for whole errors.
func OfHTTPStatus(code int, retryAfter time.Duration) Verdict {
	class, listed := statuses[code]
	switch {
	case listed:
	case code == http.StatusServiceUnavailable && retryAfter > 0:
		class = ClassOverloaded
	case code >= 500 && code <= 599:
		class = ClassServerError
	case code >= 400 && code <= 499:
		class = ClassBadRequest
	}
	return Verdict{Class: class, After: delayOf(class, retryAfter)}
}

// delayOf returns the delay where a server's delay is one for the provider: what it says of one request keeps no
// other request away.
func delayOf(class Class, after time.Duration) time.Duration {
	switch class {
	case ClassRateLimited, ClassOverloaded, ClassServerError, ClassFatal:
		return max(after, 0)
	default:
		return 0
	}
}

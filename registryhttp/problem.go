package registryhttp

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/capreg/registry"
	"github.com/capreg/registry/internal/fault"
	"github.com/capreg/registry/reason"
	"github.com/capreg/registry/verdict"
)

// longestRetryAfter bounds the delay that clients are told. Some wait for whatever they are told.
const longestRetryAfter = time.Minute

const statusClientGone = 499 // of nginx: the client has left

// Problem is an answer that reports an error, as RFC 9457 defines it. It says nothing that a server has said, and names no
// provider.
type Problem struct {
	// Type identifies the kind of problem by a URL. Default: "about:blank", a problem that its status defines.
	Type string `json:"type"`
	// Title is the status in words.
	Title string `json:"title"`
	// Status is the HTTP status.
	Status int `json:"status"`
	// Detail explains this occurrence.
	Detail string `json:"detail,omitempty"`
	// Service is the name of the service that was called.
	Service string `json:"service,omitempty"`
	// RetryAfter is sent as the header Retry-After, in whole seconds, at most one minute; zero: without.
	RetryAfter time.Duration `json:"-"`
}

// ProblemOf returns the answer for the error of a call:
//
//	504 its time was over, or the providers' was
//	499 the client has left
//	429 the providers refuse, all for their rates
//	502 the providers have failed, or refuse this server's credentials (without Retry-After)
//	503 no provider is available now, or all are overloaded
//	403 the caller is denied every provider
//	4xx the request was wrong: as the provider has said, else 400
//	500 any other error
//
// A nil error is a 500 as well.
func ProblemOf(err error) Problem {
	p := Problem{Status: http.StatusInternalServerError, Detail: "the request could not be processed"}
	var call *registry.CallError
	var unavailable *registry.UnavailableError
	switch {
	case err == nil:
	case errors.As(err, &call):
		p = ofCall(call)
		p.Service = call.Service
	case errors.As(err, &unavailable):
		p = ofUnavailable(unavailable)
		p.Service = unavailable.Service
	default:
		if status, detail := ofContext(err); status != 0 {
			p.Status, p.Detail = status, detail
		}
	}
	p.Type, p.Title = "about:blank", http.StatusText(p.Status)
	if p.Status == statusClientGone {
		p.Title = "Client Closed Request"
	}
	return p
}

// ofContext returns the status for an error of a context that has ended; zero for any other.
func ofContext(err error) (status int, detail string) {
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return http.StatusGatewayTimeout, "the time for the request is over"
	case errors.Is(err, context.Canceled):
		return statusClientGone, "the client has left"
	}
	return 0, ""
}

func ofUnavailable(e *registry.UnavailableError) Problem {
	status, detail := ofContext(e)
	all := func(code reason.Code) bool {
		candidates := e.Candidates()
		return len(candidates) > 0 && !slices.ContainsFunc(candidates, func(c registry.Candidate) bool { return c.Code != code })
	}
	switch {
	case status != 0:
		return Problem{Status: status, Detail: detail}
	case errors.Is(e, registry.ErrCredentials):
		return Problem{Status: http.StatusBadGateway, Detail: "the providers refuse this server"}
	case all(reason.Denied):
		return Problem{Status: http.StatusForbidden, Detail: "the caller is denied every provider"}
	case all(reason.Throttled):
		return Problem{Status: http.StatusTooManyRequests, Detail: "the caller has used up its rate", RetryAfter: e.RetryIn}
	}
	return Problem{Status: http.StatusServiceUnavailable, Detail: "no provider is available", RetryAfter: e.RetryIn}
}

func ofCall(e *registry.CallError) Problem {
	if len(e.Attempts) == 0 {
		status, detail := ofContext(e)
		if status == 0 {
			status, detail = http.StatusServiceUnavailable, "no provider is available"
		}
		return Problem{Status: status, Detail: detail, RetryAfter: e.RetryIn}
	}
	all := func(classes ...verdict.Class) bool {
		return !slices.ContainsFunc(e.Attempts, func(a registry.Attempt) bool { return !slices.Contains(classes, a.Class) })
	}
	last := e.Attempts[len(e.Attempts)-1]
	switch {
	case last.Class.Rule().Blame == verdict.BlameSuccess: // it was about the request
		return Problem{Status: statusOf(last.Err), Detail: last.Class.String()}
	case errors.Is(e, registry.ErrCredentials), all(verdict.ClassFatal, verdict.ClassUnauthenticated, verdict.ClassNotAllowed):
		return Problem{Status: http.StatusBadGateway, Detail: "the providers refuse this server"}
	case all(verdict.ClassRateLimited):
		return Problem{Status: http.StatusTooManyRequests, Detail: "the providers limit their rate", RetryAfter: e.RetryIn}
	case last.Class == verdict.ClassCancelled:
		return Problem{Status: statusClientGone, Detail: "the client has left"}
	case last.Class == verdict.ClassCallerDeadline, all(verdict.ClassAttemptTimeout, verdict.ClassStalled, verdict.ClassCut):
		return Problem{Status: http.StatusGatewayTimeout, Detail: "the providers have not answered in time", RetryAfter: e.RetryIn}
	case all(verdict.ClassRateLimited, verdict.ClassOverloaded):
		return Problem{Status: http.StatusServiceUnavailable, Detail: "the providers are overloaded", RetryAfter: e.RetryIn}
	}
	return Problem{Status: http.StatusBadGateway, Detail: "the providers have failed", RetryAfter: e.RetryIn}
}

// statusOf returns the status of a provider's answer that is about the request.
func statusOf(err error) int {
	var answer interface{ HTTPStatusCode() int }
	if errors.As(fault.Bound(err), &answer) {
		if status := answer.HTTPStatusCode(); status >= http.StatusBadRequest && status < http.StatusInternalServerError {
			return status
		}
	}
	return http.StatusBadRequest
}

// ServeHTTP answers with the problem.
func (p Problem) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	header := w.Header()
	header.Del("Content-Length")
	header.Del("Content-Encoding")
	header.Set("Content-Type", "application/problem+json")
	header.Set("X-Content-Type-Options", "nosniff")
	header.Set("Cache-Control", "no-store")
	if p.RetryAfter > 0 {
		seconds := (min(p.RetryAfter, longestRetryAfter) + time.Second - 1) / time.Second
		header.Set("Retry-After", strconv.Itoa(int(seconds)))
	}
	w.WriteHeader(p.Status)
	_ = json.NewEncoder(w).Encode(p)
}

// WriteError answers with the [ProblemOf] the error. The header must not have been written.
func WriteError(w http.ResponseWriter, err error) { ProblemOf(err).ServeHTTP(w, nil) }

// Handler is an [http.Handler] that may fail. An error is answered by [WriteError], or, once the answer has
// begun, ends the connection, so that the client sees that the answer is cut.
type Handler func(w http.ResponseWriter, r *http.Request) error

// ServeHTTP calls the function.
func (h Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	watched := &watchedWriter{ResponseWriter: w}
	err := h(watched, r)
	switch {
	case err == nil:
	case watched.begun:
		panic(http.ErrAbortHandler)
	default:
		WriteError(w, err)
	}
}

// watchedWriter notes whether the answer has begun.
type watchedWriter struct {
	http.ResponseWriter

	begun bool
}

func (w *watchedWriter) WriteHeader(status int) {
	w.begun = w.begun || status >= http.StatusOK || status == http.StatusSwitchingProtocols
	w.ResponseWriter.WriteHeader(status)
}

func (w *watchedWriter) Write(p []byte) (int, error) {
	w.begun = true
	return w.ResponseWriter.Write(p)
}

// Flush is for code that asks for an [http.Flusher].
func (w *watchedWriter) Flush() {
	if http.NewResponseController(w.ResponseWriter).Flush() == nil {
		w.begun = true
	}
}

// Unwrap is for [http.ResponseController].
func (w *watchedWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

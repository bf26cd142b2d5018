package llm

import (
	"cmp"
	"encoding/json"
	"errors"
	"math"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/capreg/registry"
	"github.com/capreg/registry/reason"
	"github.com/capreg/registry/registryhttp"
	"github.com/capreg/registry/verdict"
)

// longestDelay bounds the delay that clients are told. Some wait for whatever they are told.
const longestDelay = time.Minute

// verdictDelay returns the delay that a refusal asks for.
func verdictDelay(response *http.Response) time.Duration {
	var delayed *verdict.ResponseError
	if errors.As(verdict.FromResponse(response), &delayed) {
		return delayed.After
	}
	return 0
}

// ErrorOf returns what a client is told of the error of a call. What a server has said about the request is told in its
// words; the rest names no provider. A limit of rate or of places is a 429, credentials that are refused are a 502 that is
// not to be tried again.
func ErrorOf(err error) *Error {
	var said *Error
	stated := errors.As(err, &said)
	var call *registry.CallError
	if stated && !errors.As(err, &call) {
		return said.complete()
	}
	p := registryhttp.ProblemOf(err)
	e := &Error{Message: p.Detail, Status: p.Status, after: p.RetryAfter}
	switch {
	case errors.Is(err, ErrMemory):
		e.Status, e.Message, e.Code, e.after = http.StatusServiceUnavailable, "too many bytes are held at once", "overloaded", time.Second
	case errors.Is(err, registry.ErrCredentials):
		return refusedCredentials()
	case limited(err):
		e.Status, e.Message = http.StatusTooManyRequests, "the providers limit their rate"
	case e.Status == http.StatusServiceUnavailable && errors.Is(err, registry.ErrAtCapacity):
		e.Status, e.Message, e.after = http.StatusTooManyRequests, "all places are taken", max(e.after, time.Second)
	case e.Status < http.StatusInternalServerError && stated && e.Status != http.StatusTooManyRequests:
		said.Status = e.Status
		return said.complete()
	}
	return e.complete()
}

// refusedCredentials returns what a client is told where the keys are refused that are not its own.
func refusedCredentials() *Error {
	e := &Error{Message: "the servers refuse the credentials of this one", Code: "upstream_credentials", Status: http.StatusBadGateway}
	return e.complete()
}

// limited reports whether rate limits are all that keeps calls away.
func limited(err error) bool {
	var none *registry.UnavailableError
	if !errors.As(err, &none) {
		return false
	}
	all := none.Candidates()
	return len(all) > 0 && !slices.ContainsFunc(all, func(c registry.Candidate) bool {
		return c.Code != reason.CoolingDown || c.LastError == nil || c.LastError.Class != verdict.ClassRateLimited
	})
}

// complete fills in what is empty.
func (e *Error) complete() *Error {
	codes := map[int]string{
		http.StatusTooManyRequests: "rate_limit_exceeded", http.StatusBadGateway: "upstream_error",
		http.StatusServiceUnavailable: "no_upstream", http.StatusGatewayTimeout: "timeout",
	}
	e.Status = cmp.Or(e.Status, http.StatusBadGateway)
	if code := codes[e.Status]; (e.Code == nil || e.Code == "") && code != "" {
		e.Code = code
	}
	kind := "invalid_request_error"
	if e.Status >= http.StatusInternalServerError {
		kind = "server_error"
	}
	e.Type, e.Message = cmp.Or(e.Type, kind), cmp.Or(e.Message, noWords)
	return e
}

// interrupted returns what a client is told of a stream that fails after its beginning.
func interrupted(err error) *Error {
	e := &Error{Message: "the answer was interrupted", Type: "server_error", Code: "stream_interrupted"}
	if said := (*Error)(nil); errors.As(err, &said) && said.Message != "" {
		e.Message += ": " + said.Message
	}
	return e
}

func (e *Error) encoded() []byte {
	text, err := json.Marshal(map[string]*Error{"error": e})
	if err != nil { // it was read from JSON, but for what a program has put in
		text = []byte(`{"error":{"message":"` + noWords + `","type":"server_error","param":null,"code":null}}`)
	}
	return text
}

// ServeHTTP answers with the error. The header must not have been written.
func (e *Error) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	_ = e.complete()
	header := w.Header()
	header.Set("Content-Type", "application/json")
	if e.after > 0 {
		header.Set("Retry-After", strconv.Itoa(int(math.Ceil(min(e.after, longestDelay).Seconds()))))
	}
	if e.Code == "upstream_credentials" {
		header.Set("X-Should-Retry", "false")
	}
	w.WriteHeader(e.Status)
	_, _ = w.Write(append(e.encoded(), '\n')) // the client may be gone
}

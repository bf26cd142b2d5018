package verdict

import (
	"net/http"
	"slices"
)

// ErrorTransport is an [http.RoundTripper] that returns refusals and failures as errors, as [FromResponse] makes
// them. It is for clients whose own errors keep neither the status nor the delay:
//
//	client := &http.Client{Transport: &verdict.ErrorTransport{}}
//
// The convention of RoundTripper is to return them as responses; a client that reads them, such as for a typed error,
// gets a [url.Error] around the [ResponseError] instead. A client that tries again after errors of its transport needs
// that switched off. The fields are not changed after first use; then it is safe for concurrent use.
type ErrorTransport struct {
	// Base sends the requests; nil is [http.DefaultTransport].
	Base http.RoundTripper
	// Keep has the statuses that are returned as responses, for a client to which they mean something of their own, such
	// as 404 and 405 to a client of MCP.
	Keep []int
}

// RoundTrip sends the request. It returns the response if its status is below 400 or one of Keep, else it closes the
// response and returns an error. For the code of the error it reads at most 64 KiB of a body in JSON, for which it waits
// until the context of the request ends; no other body is read, so that its connection may not be used again.
func (t *ErrorTransport) RoundTrip(request *http.Request) (*http.Response, error) {
	base := t.Base
	if base == nil {
		base = http.DefaultTransport
	}
	response, err := base.RoundTrip(request)
	if err != nil || response == nil || slices.Contains(t.Keep, response.StatusCode) {
		return response, err
	}
	refusal := FromResponse(response)
	if refusal == nil {
		return response, nil
	}
	if response.Body != nil {
		_ = response.Body.Close()
	}
	return nil, refusal
}

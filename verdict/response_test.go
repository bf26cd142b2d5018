package verdict_test

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry/verdict"
)

func respond(status int, kind, body string) *http.Response {
	r := answer(status, "Content-Type", kind)
	r.Body = io.NopCloser(strings.NewReader(body))
	return r
}

//nolint:bodyclose // no server has sent them
func TestFromResponse_ClassifiesAndKeepsTheBody(t *testing.T) {
	t.Parallel()
	const google = `{"error":{"code":400,"status":"INVALID_ARGUMENT","details":[{"reason":"API_KEY_INVALID"}]}}`
	for name, row := range map[string]struct {
		response *http.Response
		class    verdict.Class
		text     string
	}{
		"a status":    {respond(404, "text/plain", "no such user"), verdict.ClassResource, "HTTP 404 Not Found"},
		"a code":      {respond(429, "application/json", `{"error":{"code":"insufficient_quota"}}`), verdict.ClassFatal, "HTTP 429 Too Many Requests (insufficient_quota)"},
		"a type":      {respond(529, "application/json; charset=utf-8", ` {"error":{"type":"overloaded_error"}}`), verdict.ClassOverloaded, "HTTP 529 (overloaded_error)"},
		"a reason":    {respond(400, "application/json", google), verdict.ClassFatal, "HTTP 400 Bad Request"},
		"a problem":   {respond(409, "application/problem+json", `{"type":"about:blank","title":"x"}`), verdict.ClassResource, "HTTP 409 Conflict (about:blank)"},
		"no JSON":     {respond(500, "application/json", "<html>"), verdict.ClassServerError, "HTTP 500 Internal Server Error"},
		"other types": {respond(400, "application/json", `{"error":"bad","code":7}`), verdict.ClassBadRequest, "HTTP 400 Bad Request"},
		"long":        {respond(503, "application/json", `{"x":"`+strings.Repeat("y", 1<<20)+`"}`), verdict.ClassServerError, "HTTP 503 Service Unavailable"},
	} {
		want, err := io.ReadAll(row.response.Body)
		require.NoError(t, err)
		row.response.Body = io.NopCloser(strings.NewReader(string(want)))
		err = verdict.FromResponse(row.response)
		require.Equal(t, row.class, verdict.Of(err).Class, name)
		require.EqualError(t, err, row.text, name)
		var failure *verdict.ResponseError
		require.ErrorAs(t, err, &failure)
		require.Equal(t, row.response.StatusCode, failure.HTTPStatusCode())
		got, err := io.ReadAll(row.response.Body)
		require.NoError(t, err)
		require.Equal(t, string(want), string(got), name)
	}
}

//nolint:bodyclose // no server has sent them
func TestFromResponse_IsNilBelow400(t *testing.T) {
	t.Parallel()
	for _, status := range []int{101, 200, 204, 302, 304, 399} {
		require.NoError(t, verdict.FromResponse(answer(status)), status)
	}
	require.Equal(t, verdict.ClassFatal, verdict.Of(&verdict.ResponseError{StatusCode: 429, Code: "insufficient_quota"}).Class, "one of your own")
	require.Equal(t, verdict.ClassMalformed, verdict.Of(verdict.FromResponse(nil)).Class)
	require.Equal(t, verdict.ClassBadRequest, verdict.Of(verdict.FromResponse(&http.Response{StatusCode: http.StatusBadRequest})).Class, "no header, no body")
}

//nolint:bodyclose // no server has sent them
func TestFromResponse_KeepsDelayAndErrorsOfTheBody(t *testing.T) {
	t.Parallel()
	limited := answer(429, "Retry-After", "3", "Content-Type", "application/json")
	limited.Body = io.NopCloser(io.MultiReader(strings.NewReader(`{"err`), iotest.ErrReader(errCause)))
	err := verdict.FromResponse(limited)
	require.Equal(t, verdict.Verdict{Class: verdict.ClassRateLimited, After: 3 * time.Second}, verdict.Of(err))
	var failure *verdict.ResponseError
	require.True(t, errors.As(err, &failure) && failure.RetryAfter() == 3*time.Second)
	read, err := io.ReadAll(limited.Body)
	require.Equal(t, `{"err`, string(read))
	require.ErrorIs(t, err, errCause)
}

//nolint:bodyclose // no server has sent them
func TestFromResponse_ReadsDelayInBody(t *testing.T) {
	t.Parallel()
	for body, want := range map[string]time.Duration{
		`{"message":"x","retry_after":1.5}`:                                                  1500 * time.Millisecond,
		`{"error":{"details":[{"reason":"x"},{"retryDelay":"7s"},{"retryDelay":"9s"}]}}`:     7 * time.Second,
		`{"retry_after":"soon"}`:                                                             0,
		`{"retry_after":-1}`:                                                                 0,
		`{"error":{"details":[{"retryDelay":{"seconds":7}}]}}`:                               0,
		`{"error":{"details":[{"retryDelay":"1e300"}],"errors":[{"reason":7}],"code":null}}`: longest,
	} {
		err := verdict.FromResponse(respond(429, "application/json", body))
		require.Equal(t, verdict.Verdict{Class: verdict.ClassRateLimited, After: want}, verdict.Of(err), body)
	}
	both := respond(429, "application/json", `{"retry_after":1.5}`)
	both.Header.Set("Retry-After", "3")
	require.Equal(t, 3*time.Second, verdict.Of(verdict.FromResponse(both)).After, "the header decides")
}

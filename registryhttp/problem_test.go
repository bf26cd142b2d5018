package registryhttp_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/internal/testkit"
	"github.com/capreg/registry/reason"
	"github.com/capreg/registry/registryhttp"
	"github.com/capreg/registry/verdict"
)

// after returns the error of a call whose attempts had these classes.
func after(classes ...verdict.Class) error {
	e := &registry.CallError{Service: "s", RetryIn: 90 * time.Second}
	for _, class := range classes {
		e.Attempts = append(e.Attempts, registry.Attempt{Class: class, Err: &verdict.ResponseError{StatusCode: 418}})
	}
	return e
}

// without returns the error of a call that no provider admits, for these reasons, with the given delay.
func without(t *testing.T, retryIn time.Duration, codes ...reason.Code) error {
	t.Helper()
	reg := testkit.New(t, registry.Options{Authorize: func(_ context.Context, _, _, provider string) error {
		if strings.HasPrefix(provider, "denied") {
			return errDown
		}
		return nil
	}})
	t.Cleanup(func() { _ = reg.Close(context.Background()) })
	resolver := testkit.Bind(reg)
	for i, code := range codes {
		p := testkit.Add(t, reg, testkit.Provider{
			Name: fmt.Sprintf("%s-%d", code, i), Instance: testkit.Says("x"), Limits: registry.LimitPolicy{Rate: 0.001, Burst: 1},
			NoTraffic: code == reason.NoTraffic,
		})
		if code == reason.Unhealthy {
			require.NoError(t, p.MarkUnhealthy(context.DeadlineExceeded))
		}
		if code == reason.Parked || code == reason.Throttled { // after a call
			lease, err := resolver.Acquire(t.Context())
			require.NoError(t, err)
			lease.Done(map[reason.Code]error{reason.Parked: verdict.Fatal(errDown, time.Hour)}[code])
		}
	}
	_, err := testkit.Ask(t.Context(), resolver)
	var unavailable *registry.UnavailableError
	require.ErrorAs(t, err, &unavailable)
	require.Len(t, unavailable.Candidates(), len(codes))
	for i, candidate := range unavailable.Candidates() {
		require.Equal(t, codes[i], candidate.Code)
	}
	unavailable.RetryIn = retryIn
	return unavailable
}

func TestProblemOf_HasTheStatusOfTheError(t *testing.T) {
	t.Parallel()
	const delay = 2500 * time.Millisecond
	unblamed := &registry.CallError{Attempts: []registry.Attempt{{Class: verdict.ClassTooLong, Err: errDown}}}
	odd := &registry.CallError{Attempts: []registry.Attempt{{Class: verdict.ClassBadRequest, Err: &verdict.ResponseError{StatusCode: 503}}}}
	for _, c := range []struct {
		err    error
		status int
		retry  time.Duration
	}{
		{nil, 500, 0},
		{errDown, 500, 0},
		{context.DeadlineExceeded, 504, 0},
		{context.Canceled, 499, 0},
		{without(t, delay, reason.NoTraffic), 503, delay},
		{&registry.UnavailableError{RetryIn: delay}, 503, delay},
		{without(t, delay, reason.Denied, reason.Denied), 403, 0},
		{without(t, delay, reason.Denied, reason.NoTraffic), 503, delay},
		{without(t, delay, reason.Throttled), 429, delay},
		{without(t, delay, reason.Parked), 502, 0},
		{without(t, delay, reason.Unhealthy), 504, 0},
		{after(), 503, 90 * time.Second},
		{after(verdict.ClassRateLimited, verdict.ClassRateLimited), 429, 90 * time.Second},
		{after(verdict.ClassRateLimited, verdict.ClassOverloaded), 503, 90 * time.Second},
		{after(verdict.ClassRateLimited, verdict.ClassServerError), 502, 90 * time.Second},
		{after(verdict.ClassFatal, verdict.ClassFatal), 502, 0},
		{after(verdict.ClassUnauthenticated, verdict.ClassNotAllowed), 502, 0},
		{after(verdict.ClassAttemptTimeout, verdict.ClassStalled, verdict.ClassCut), 504, 90 * time.Second},
		{after(verdict.ClassTransport), 502, 90 * time.Second},
		{after(verdict.ClassCancelled), 499, 0},
		{after(verdict.ClassCallerDeadline), 504, 90 * time.Second},
		{after(verdict.ClassServerError, verdict.ClassResource), 418, 0},
		{unblamed, 400, 0},
		{odd, 400, 0},
	} {
		p := registryhttp.ProblemOf(c.err)
		require.Equal(t, c.status, p.Status, "%v", c.err)
		require.Equal(t, c.retry, p.RetryAfter, "%v", c.err)
		require.NotEmpty(t, p.Title)
		require.NotEmpty(t, p.Detail)
	}
}

func TestProblemOf_ContextEndedBeforeTheFirstAttempt(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := registry.Call(ctx, testkit.Bind(testkit.New(t, registry.Options{})), testkit.Return)
	require.Equal(t, 499, registryhttp.ProblemOf(err).Status)
}

func TestWriteError_IsProblemJSONWithoutInternals(t *testing.T) {
	t.Parallel()
	recorder := httptest.NewRecorder()
	recorder.Header().Set("Content-Length", "7")
	recorder.Header().Set("Content-Encoding", "gzip")
	err := &registry.CallError{Service: "llm", RetryIn: 90 * time.Second, Attempts: []registry.Attempt{
		{Provider: "secret-host", Class: verdict.ClassRateLimited, Err: errors.New("secret-key")},
	}}
	registryhttp.WriteError(recorder, err)
	require.Equal(t, http.StatusTooManyRequests, recorder.Code)
	require.Equal(t, http.Header{
		"Content-Type": {"application/problem+json"}, "X-Content-Type-Options": {"nosniff"}, "Cache-Control": {"no-store"}, "Retry-After": {"60"},
	}, recorder.Header())
	require.NotContains(t, recorder.Body.String(), "secret")
	var body map[string]any
	require.NoError(t, json.Unmarshal(recorder.Body.Bytes(), &body))
	require.Equal(t, map[string]any{
		"type": "about:blank", "title": "Too Many Requests", "status": 429.0, "detail": "the providers limit their rate", "service": "llm",
	}, body)

	recorder = httptest.NewRecorder()
	registryhttp.WriteError(recorder, without(t, 2500*time.Millisecond, reason.NoTraffic))
	require.Equal(t, "3", recorder.Header().Get("Retry-After"), "rounded up")
}

func TestHandler_AnswersWithItsError(t *testing.T) {
	t.Parallel()
	recorder := httptest.NewRecorder()
	registryhttp.Handler(func(w http.ResponseWriter, _ *http.Request) error {
		w.WriteHeader(http.StatusEarlyHints)
		return without(t, 0, reason.NoTraffic)
	}).ServeHTTP(recorder, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil))
	require.Equal(t, "application/problem+json", recorder.Header().Get("Content-Type"))

	recorder = httptest.NewRecorder()
	registryhttp.Handler(func(w http.ResponseWriter, _ *http.Request) error {
		_, err := io.WriteString(w, "fine")
		return err
	}).ServeHTTP(recorder, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil))
	require.Equal(t, "fine", recorder.Body.String())
}

func TestHandler_CutsAnAnswerThatHasBegun(t *testing.T) {
	t.Parallel()
	for name, begin := range map[string]func(w http.ResponseWriter){
		"written": func(w http.ResponseWriter) { _, _ = io.WriteString(w, strings.Repeat("begun ", 1000)) },
		"flushed": func(w http.ResponseWriter) { w.(http.Flusher).Flush() },
		"status":  func(w http.ResponseWriter) { w.WriteHeader(http.StatusOK) },
		"control": func(w http.ResponseWriter) {
			_, _ = io.WriteString(w, "x")
			_ = http.NewResponseController(w).SetWriteDeadline(time.Time{})
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := server(t, registryhttp.Handler(func(w http.ResponseWriter, _ *http.Request) error {
				begin(w)
				return errDown
			}).ServeHTTP)
			response, err := s.Client().Get(s.URL) //nolint:noctx // it is short
			if err == nil {
				_, err = io.ReadAll(response.Body)
				require.NoError(t, response.Body.Close())
			}
			require.Error(t, err, "the client sees the cut")
		})
	}
}

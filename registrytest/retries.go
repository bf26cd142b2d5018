package registrytest

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/capreg/registry/verdict"
)

// AssertNoRetries checks that the retries of an SDK are off: that call, which must send one
// request to this server through the client under test, makes no second request after a failure
// and returns its error. SDKs retry by default; then the registry learns late of failures and
// never of rate limits, and each of its attempts is several.
//
// It makes call fail in the ways that SDKs retry, in turn: 408, 409, 429, 500, 502, 503, 529
// and a closed connection, which take no steps of the script. A second request ends ctx, so
// that the test does not wait for an SDK's delays. Other requests count as well, so there must
// be none meanwhile. See [AssertNoClientRetries] for SDKs of other APIs.
func (s *ChatServer) AssertNoRetries(call func(ctx context.Context) error) bool {
	s.tb.Helper()
	return assertNoRetries(s.tb, "this server ("+s.url+")", func(step Step) (hits int, err error) { return s.callOnce(step, call) })
}

// AssertNoClientRetries is [ChatServer.AssertNoRetries] for the SDK of any API: call gets an HTTP client that never
// reaches a network, gives it to the SDK as the program gives it its own, such as one with the transport of package
// registryhttp, and sends one request. The same request a second time, by method, URL and body, is a retry. It works
// in a bubble of [testing/synctest].
func AssertNoClientRetries(tb testing.TB, call func(ctx context.Context, client *http.Client) error) bool {
	tb.Helper()
	return assertNoRetries(tb, "the client", func(step Step) (hits int, err error) {
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		refusals := &refusals{step: step, again: cancel, seen: make(map[string]int)}
		err = call(ctx, &http.Client{Transport: refusals})
		return refusals.most(), err
	})
}

// assertNoRetries makes calls fail in each of the ways that SDKs retry. once returns how often the request of a call came.
func assertNoRetries(tb testing.TB, target string, once func(Step) (hits int, err error)) bool {
	tb.Helper()
	good := true
	for _, step := range []Step{
		HTTPStatus(http.StatusRequestTimeout, 0), HTTPStatus(http.StatusConflict, 0),
		HTTPStatus(http.StatusTooManyRequests, 0), HTTPStatus(http.StatusTooManyRequests, time.Second),
		HTTPStatus(http.StatusInternalServerError, 0), HTTPStatus(http.StatusBadGateway, 0),
		HTTPStatus(http.StatusServiceUnavailable, 0), HTTPStatus(statusOverloaded, 0), Fail(verdict.ClassTransport),
	} {
		hits, err := once(step)
		switch {
		case hits > 1:
			tb.Errorf("registrytest: the client tried again by itself after %v: switch its retries off", step)
		case hits == 0:
			tb.Errorf("registrytest: the call did not come to %s: %v", target, err)
		case err == nil:
			tb.Errorf("registrytest: the call returned no error for %v", step)
		default:
			continue
		}
		good = false
	}
	return good
}

// retryCheck observes one call for retries.
type retryCheck struct {
	step  Step
	hits  int
	again context.CancelFunc
}

func (s *ChatServer) callOnce(step Step, call func(context.Context) error) (hits int, err error) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	check := &retryCheck{step: step, again: cancel}
	s.mu.Lock()
	s.check = check
	s.mu.Unlock()
	err = call(ctx)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.check = nil
	return check.hits, err
}

// refusals is a transport that refuses every request in the way of its step.
type refusals struct {
	step  Step
	again context.CancelFunc

	mu   sync.Mutex
	seen map[string]int // how often the same request came
}

// RoundTrip refuses the request.
func (r *refusals) RoundTrip(request *http.Request) (*http.Response, error) {
	var body bytes.Buffer
	if request.Body != nil {
		_, _ = io.Copy(&body, request.Body)
		_ = request.Body.Close()
	}
	if r.note(request.Method + " " + request.URL.String() + "\n" + body.String()) {
		r.again()
	}
	if verdict.Of(r.step.err).Class == verdict.ClassTransport {
		return nil, &net.OpError{Op: "read", Net: "tcp", Err: syscall.ECONNRESET}
	}
	recorder := httptest.NewRecorder()
	refuse(recorder, r.step.err)
	response := recorder.Result()
	response.Request = request
	return response, nil
}

// note counts the request, and reports whether it came before.
func (r *refusals) note(request string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.seen[request]++
	return r.seen[request] > 1
}

// most returns how often the most frequent request came.
func (r *refusals) most() (most int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, times := range r.seen {
		most = max(most, times)
	}
	return most
}

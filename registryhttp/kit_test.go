package registryhttp_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/capreg/registry"
	"github.com/capreg/registry/internal/testkit"
	"github.com/capreg/registry/registryhttp"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var service = registry.NewService[*registryhttp.Upstream]("upstreams")

var errDown = errors.New("down")

// roundTrip is a transport without a network.
type roundTrip func(request *http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(request *http.Request) (*http.Response, error) { return f(request) }

// answer returns an answer with a body.
func answer(status int, body io.Reader, header ...string) *http.Response {
	response := &http.Response{
		StatusCode: status, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Header: http.Header{},
		Body: io.NopCloser(body), ContentLength: -1,
	}
	for i := 0; i < len(header); i += 2 {
		response.Header.Add(header[i], header[i+1])
	}
	return response
}

// says answers each request with its own word.
func says(word string) roundTrip {
	return func(request *http.Request) (*http.Response, error) {
		if request.Body != nil {
			_, _ = io.Copy(io.Discard, request.Body)
			_ = request.Body.Close()
		}
		return answer(http.StatusOK, strings.NewReader(word)), nil
	}
}

// refuses answers each request with a status.
func refuses(status int, header ...string) roundTrip {
	return func(*http.Request) (*http.Response, error) {
		return answer(status, strings.NewReader("refused with "+strconv.Itoa(status)), header...), nil
	}
}

// fails answers no request.
func fails(err error) roundTrip {
	return func(*http.Request) (*http.Response, error) { return nil, err }
}

// all makes every request one that may be sent again.
func all(*http.Request) bool { return true }

// setup has providers named a, b, … behind a transport.
type setup struct {
	t         *testing.T
	reg       *registry.Registry
	options   registryhttp.Options
	providers []*registry.Registration
}

// with registers a provider per transport, under the URLs http://a, http://b ….
func with(t *testing.T, reg *registry.Registry, options registryhttp.Options, transports ...http.RoundTripper) *setup {
	t.Helper()
	s := &setup{t: t, reg: reg, options: options}
	for i, transport := range transports {
		name := string(rune('a' + i))
		s.add(registry.Provider[*registryhttp.Upstream]{Name: name}, "http://"+name, registryhttp.UpstreamOptions{Transport: transport})
	}
	return s
}

// add registers a provider.
func (s *setup) add(p registry.Provider[*registryhttp.Upstream], url string, options registryhttp.UpstreamOptions) {
	s.t.Helper()
	upstream, err := registryhttp.NewUpstream(url, options)
	require.NoError(s.t, err)
	p.Instance = upstream
	registration, err := service.Register(s.t.Context(), s.reg, p)
	require.NoError(s.t, err)
	s.providers = append(s.providers, registration)
}

func (s *setup) transport() *registryhttp.Transport {
	s.t.Helper()
	transport, err := registryhttp.NewTransport(service.Bind(s.reg, registry.Query{}), s.options)
	require.NoError(s.t, err)
	return transport
}

// requireCounts checks the outcomes of provider i.
func (s *setup) requireCounts(i, successes, failures, ignored, limited int) {
	s.t.Helper()
	testkit.RequireCounts(s.t, s.providers[i], successes, failures, ignored, limited)
	require.Zero(s.t, s.providers[i].Info().InFlight)
}

// bubble runs a test in virtual time.
func bubble(t *testing.T, options registryhttp.Options, test func(t *testing.T, s *setup), transports ...http.RoundTripper) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		reg := testkit.New(t, registry.Options{})
		test(t, with(t, reg, options, transports...))
		require.NoError(t, reg.Close(context.Background()))
		synctest.Wait()
	})
}

// get asks the transport by GET.
func (s *setup) get() (*http.Response, error) {
	return s.send(s.t.Context(), http.MethodGet, nil)
}

// post sends a body that net/http can make again.
func (s *setup) post(body string) (*http.Response, error) {
	return s.send(s.t.Context(), http.MethodPost, bytes.NewReader([]byte(body)))
}

func (s *setup) send(ctx context.Context, method string, body io.Reader) (*http.Response, error) {
	s.t.Helper()
	request, err := http.NewRequestWithContext(ctx, method, "http://client/path", body)
	require.NoError(s.t, err)
	return s.transport().RoundTrip(request)
}

// read returns the whole body.
func read(t *testing.T, response *http.Response, err error) string {
	t.Helper()
	require.NoError(t, err)
	text, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	require.NoError(t, response.Body.Close())
	return string(text)
}

// server starts a server that ends with the test.
func server(t *testing.T, handler http.HandlerFunc) *httptest.Server {
	t.Helper()
	s := httptest.NewServer(handler)
	t.Cleanup(s.Close)
	return s
}

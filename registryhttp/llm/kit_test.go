package llm_test

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/capreg/registry"
	"github.com/capreg/registry/internal/testkit"
	"github.com/capreg/registry/registryhttp"
	"github.com/capreg/registry/registryhttp/llm"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// roundTrip is a server without a network.
type roundTrip func(request *http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(request *http.Request) (*http.Response, error) { return f(request) }

// says answers with a text. One that ends in "!" is cut there, one that ends in "~" goes on with silence, and each "|" is a second.
func says(status int, kind, text string) roundTrip {
	return func(request *http.Request) (*http.Response, error) {
		if request.Body != nil {
			_, _ = io.Copy(io.Discard, request.Body)
			_ = request.Body.Close()
		}
		header := http.Header{}
		if kind != "" {
			header.Set("Content-Type", kind)
		}
		return &http.Response{
			StatusCode: status, Header: header, ContentLength: -1, Request: request,
			Body: io.NopCloser(&slow{ctx: request.Context(), rest: text}),
		}, nil
	}
}

// closing is a body that notes its end.
type closing struct {
	io.Reader

	closed atomic.Bool
}

func (c *closing) Close() error {
	c.closed.Store(true)
	return nil
}

// slow is a body that is paced by its text.
type slow struct {
	ctx  context.Context
	rest string
}

func (s *slow) Read(p []byte) (int, error) {
	wait := time.Duration(-1)
	switch {
	case s.rest == "":
		return 0, io.EOF
	case s.rest == "!":
		return 0, io.ErrUnexpectedEOF
	case s.rest == "~":
		wait = time.Hour
	case s.rest[0] == '|':
		s.rest, wait = s.rest[1:], time.Second
	}
	if wait >= 0 {
		select {
		case <-s.ctx.Done():
			return 0, context.Cause(s.ctx)
		case <-time.After(wait):
			return 0, nil
		}
	}
	n := strings.IndexAny(s.rest, "|!~")
	if n < 0 {
		n = len(s.rest)
	}
	n = copy(p, s.rest[:n])
	s.rest = s.rest[n:]
	return n, nil
}

const (
	events    = "text/event-stream"
	plainJSON = "application/json"

	role      = "data: {\"choices\":[{\"delta\":{\"role\":\"assistant\"}}]}\n\n"
	token     = "data: {\"choices\":[{\"delta\":{\"content\":\"hi\"}}]}\n\n"
	finishing = "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n"
	usage     = "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":2,\"completion_tokens\":3}}\n\n"
	marked    = "data: [DONE]\n\n"
	whole     = `{"choices":[{"message":{"content":"hi"},"finish_reason":"stop"}],"usage":{"prompt_tokens":2,"completion_tokens":3}}`

	streamed = `{"model":"m","stream":true}`
	plain    = `{"model":"m"}`
)

// send asks a transport for a path of the API.
func send(t *testing.T, to http.RoundTripper, path, body string) (*http.Response, error) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://api/v1"+path, strings.NewReader(body))
	require.NoError(t, err)
	return to.RoundTrip(request)
}

// ask returns the answer of a server below a transport, or the error of its body.
func ask(t *testing.T, transport llm.Transport, server roundTrip, path, body string) (text string, err error) {
	t.Helper()
	transport.Base = server
	response, err := send(t, &transport, path, body)
	if err != nil {
		return "", err
	}
	all, err := io.ReadAll(iotest.OneByteReader(response.Body))
	require.NoError(t, response.Body.Close())
	return string(all), err
}

// bubble runs a test in virtual time.
func bubble(t *testing.T, test func(t *testing.T)) {
	t.Helper()
	synctest.Test(t, test)
}

var service = registry.NewService[*registryhttp.Upstream]("models")

// over returns a transport over the servers, in order.
func over(t *testing.T, transport llm.Transport, servers ...roundTrip) *registryhttp.Transport {
	t.Helper()
	reg := testkit.New(t, registry.Options{})
	for i, server := range servers {
		own := transport
		own.Base, own.Name = server, string(rune('a'+i))
		upstream, err := registryhttp.NewUpstream("http://"+own.Name, registryhttp.UpstreamOptions{Transport: &own})
		require.NoError(t, err)
		_, err = service.Register(t.Context(), reg, registry.Provider[*registryhttp.Upstream]{Name: own.Name, Instance: upstream})
		require.NoError(t, err)
	}
	all, err := registryhttp.NewTransport(service.Bind(reg, registry.Query{}), registryhttp.Options{
		Base: "/v1", Repeatable: func(*http.Request) bool { return true }, FirstTimeout: time.Hour,
	})
	require.NoError(t, err)
	return all
}

func reader(text string) io.Reader { return bytes.NewReader([]byte(text)) }

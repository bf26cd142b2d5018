package wire

import (
	"context"
	"io"
	"net/http"
	"slices"
	"sync/atomic"

	"github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/capreg/registry/verdict"
)

// HTTP returns a transport of streamable HTTP. Every request of it ends with life, at the latest. Refusals and failures
// of the HTTP server become errors that package verdict knows, with their delays.
func HTTP(life context.Context, url string, client *http.Client, maxMessage int) *mcp.StreamableClientTransport {
	bound := *client
	base := bound.Transport
	if base == nil {
		base = http.DefaultTransport
	}
	bound.Transport = &lifeTransport{life: life, base: &verdict.ErrorTransport{Base: base, Keep: statusesOfMCP()}}
	return &mcp.StreamableClientTransport{Endpoint: url, HTTPClient: &bound, MaxEventSize: maxMessage}
}

// statusesOfMCP returns the statuses that mean something of their own to a client of MCP, or have an error of JSON-RPC as
// their body: those that are about the request.
func statusesOfMCP() (all []int) {
	ofHTTP := []int{
		http.StatusUnauthorized, http.StatusForbidden, http.StatusProxyAuthRequired, http.StatusRequestTimeout,
		http.StatusMisdirectedRequest, http.StatusTooEarly, http.StatusTooManyRequests,
	}
	for status := http.StatusBadRequest; status < http.StatusInternalServerError; status++ {
		if !slices.Contains(ofHTTP, status) {
			all = append(all, status)
		}
	}
	return all
}

// Request has what the request of one call has met.
type Request struct {
	status atomic.Int64
}

// IsRefused reports whether the server has answered that it does not know the session, so that it has not processed the
// request.
func (r *Request) IsRefused() bool { return r.status.Load() == http.StatusNotFound }

type requestKey struct{}

// Track returns a context for one call, and what its request will have met. Other transports do not tell.
func Track(ctx context.Context) (context.Context, *Request) {
	r := new(Request)
	return context.WithValue(ctx, requestKey{}, r), r
}

// lifeTransport ends requests with the life of a connection.
type lifeTransport struct {
	life context.Context //nolint:containedctx // it is a lifetime, not a request
	base http.RoundTripper
}

// RoundTrip sends the request.
func (t *lifeTransport) RoundTrip(request *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithCancelCause(request.Context())
	stop := context.AfterFunc(t.life, func() { cancel(context.Cause(t.life)) }) //nolint:contextcheck // the two are joined
	end := func() {
		stop()
		cancel(nil)
	}
	response, err := t.base.RoundTrip(request.WithContext(ctx))
	if err != nil {
		end()
		return nil, err
	}
	if r, ok := ctx.Value(requestKey{}).(*Request); ok && request.Method == http.MethodPost {
		r.status.Store(int64(response.StatusCode))
	}
	response.Body = &boundBody{ReadCloser: response.Body, end: end}
	return response, nil
}

// boundBody ends the bond of a request to the life of its connection.
type boundBody struct {
	io.ReadCloser

	end func()
}

// Close closes the body.
func (b *boundBody) Close() error {
	defer b.end()
	return b.ReadCloser.Close()
}

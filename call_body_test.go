package registry_test

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
)

// Variants: the fast path and the one with options, and a lease, whose body can be read.
func TestCall_BodyReadAfterItSaysWhatIsWrong(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.(http.Flusher).Flush()
		if r.URL.Path == "/endless" {
			<-r.Context().Done() // so that nothing but the end of the context can end the reading
		}
		_, _ = w.Write(make([]byte, 1<<22))
	}))
	defer server.Close()
	reg, err := registry.New(registry.Options{})
	require.NoError(t, err)
	clients := registry.NewService[*http.Client]("clients")
	_, err = clients.Register(t.Context(), reg, registry.Provider[*http.Client]{Name: "a", Instance: server.Client()})
	require.NoError(t, err)
	r := clients.Bind(reg, registry.Query{})
	get := func(ctx context.Context, c *http.Client, path string) (*http.Response, error) {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, server.URL+path, nil)
		if err != nil {
			return nil, err
		}
		return c.Do(request)
	}
	for _, options := range [][]registry.CallOption{nil, {registry.Caller("x")}} {
		var kept context.Context
		response, err := registry.Call(t.Context(), r, func(ctx context.Context, c *http.Client) (*http.Response, error) {
			kept = ctx //nolint:fatcontext // what a careless user does
			return get(ctx, c, "/endless")
		}, options...)
		require.NoError(t, err)
		_, err = io.ReadAll(response.Body)
		require.ErrorIs(t, err, context.Canceled)
		require.ErrorContains(t, context.Cause(kept), "needs Acquire or package stream")
		require.NoError(t, response.Body.Close())
	}
	lease, err := r.Acquire(t.Context())
	require.NoError(t, err)
	response, err := get(lease.Context(), lease.Value, "/whole")
	require.NoError(t, err)
	body, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	require.Len(t, body, 1<<22)
	require.NoError(t, response.Body.Close())
	lease.Done(nil)
	require.NoError(t, reg.Close(t.Context()))
}

package federation_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/federation"
	"github.com/capreg/registry/registrytest"
)

func offerAll(info registry.Info) (federation.Offer, bool) {
	return federation.Offer{Kind: "test", Address: "far:" + info.Name}, true
}

// served serves a peer over HTTP, in front of which a gate may be closed.
func served(tb testing.TB, reg *registry.Registry) (peer *federation.Peer, url string, shut func(bool)) {
	tb.Helper()
	peer, err := federation.NewPeer(reg, federation.PeerOptions{Node: "far", Offer: offerAll})
	require.NoError(tb, err)
	var isShut atomic.Bool
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if isShut.Load() {
			http.Error(w, "shut", http.StatusBadGateway)
			return
		}
		peer.ServeHTTP(w, r)
	}))
	tb.Cleanup(server.Close)
	tb.Cleanup(server.CloseClientConnections)
	return peer, server.URL, func(yes bool) {
		if isShut.Store(yes); yes {
			server.CloseClientConnections() // with the requests that wait
		}
	}
}

// listed runs a source over a listing.
func listed(tb testing.TB, reg *registry.Registry, l federation.Listing) *federation.Source {
	tb.Helper()
	source, err := federation.NewSource(federation.SourceOptions{
		Listings: []federation.Listing{l}, Bindings: []federation.Binding{federation.Dial(greets, "test", dial)},
	})
	require.NoError(tb, err)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- source.Run(ctx, reg) }()
	tb.Cleanup(func() {
		cancel()
		require.ErrorIs(tb, <-ended, context.Canceled)
	})
	return source
}

func eventually(tb testing.TB, holds func() bool) {
	tb.Helper()
	require.Eventually(tb, holds, 30*time.Second, 2*time.Millisecond)
}

func client(tb testing.TB) *http.Client {
	tb.Helper()
	transport := &http.Transport{}
	tb.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

func TestHTTPPeer_BehavesAsPackageRegistrytestExpects(t *testing.T) {
	t.Parallel()
	registrytest.TestSource(t, func(tb testing.TB) registrytest.Source {
		far := registrytest.New(tb, registry.Options{})
		_, url, shut := served(tb, far)
		l, err := federation.HTTPPeer(url, federation.HTTPPeerOptions{Client: client(tb), Wait: time.Second})
		require.NoError(tb, err)
		source, err := federation.NewSource(federation.SourceOptions{
			Listings: []federation.Listing{l}, Bindings: []federation.Binding{federation.Dial(greets, "test", dial)},
		})
		require.NoError(tb, err)
		return registrytest.Source{
			Run: source.Run, Set: func(names ...string) { offerOnly(tb, far, names) },
			Name: func(name string) string { return "far/" + name }, Unreachable: shut, Within: 3 * time.Second,
		}
	})
}

func TestPeer_TellsThatItLeaves(t *testing.T) {
	t.Parallel()
	far, near := registrytest.New(t, registry.Options{}), registrytest.New(t, registry.Options{})
	peer, url, _ := served(t, far)
	offerOnly(t, far, []string{"p"})
	l, err := federation.HTTPPeer(url+"?secret=x", federation.HTTPPeerOptions{Client: client(t)})
	require.NoError(t, err)
	require.NotContains(t, l.String(), "secret")
	source := listed(t, near, l)
	eventually(t, func() bool { return len(names(near)) == 1 })
	require.Equal(t, "far:p", source.Explain("far", "greet", "p").Address)
	peer.Leave()
	peer.Leave()
	eventually(t, func() bool { return len(names(near)) == 0 })
	require.Equal(t, "the node is leaving", source.Explain("far", "greet", "p").Reason)
}

func TestPeer_AnswersByTheRulesOfHTTP(t *testing.T) {
	t.Parallel()
	far := registrytest.New(t, registry.Options{})
	_, url, _ := served(t, far)
	ask := func(method, query, tag string) (status int, next string) {
		request, err := http.NewRequestWithContext(t.Context(), method, url+query, http.NoBody)
		require.NoError(t, err)
		request.Header.Set("If-None-Match", tag)
		response, err := client(t).Do(request)
		require.NoError(t, err)
		require.NoError(t, response.Body.Close())
		return response.StatusCode, response.Header.Get("ETag")
	}
	status, first := ask(http.MethodGet, "", "")
	require.Equal(t, http.StatusOK, status)
	status, _ = ask(http.MethodGet, "", first)
	require.Equal(t, http.StatusNotModified, status)
	status, _ = ask(http.MethodPost, "", "")
	require.Equal(t, http.StatusMethodNotAllowed, status)
	changed := make(chan string, 1)
	go func() {
		_, second := ask(http.MethodGet, "?wait=200", first)
		changed <- second
	}()
	offerOnly(t, far, []string{"p"})
	require.NotContains(t, []string{"", first}, <-changed)
}

func TestHTTPPeer_RefusesWhatIsNoList(t *testing.T) {
	t.Parallel()
	for body, want := range map[string]string{
		"{":                         "not JSON",
		`{"node":"a b"}`:            "names no node",
		strings.Repeat(" ", 17<<20): "more than 16 MiB",
	} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(body)) }))
		l, err := federation.HTTPPeer(server.URL, federation.HTTPPeerOptions{Client: client(t)})
		require.NoError(t, err)
		require.ErrorContains(t, l.Follow(t.Context(), func(federation.List) {}), want)
		server.Close()
	}
}

func TestHTTPPeer_RefusesBadOptions(t *testing.T) {
	t.Parallel()
	_, err := federation.HTTPPeer("ftp://x", federation.HTTPPeerOptions{})
	require.ErrorIs(t, err, registry.ErrInvalid)
	_, err = federation.HTTPPeer("http://x", federation.HTTPPeerOptions{Wait: time.Hour})
	require.ErrorContains(t, err, "HTTPPeerOptions.Wait is 1h0m0s")
	_, err = federation.NewPeer(nil, federation.PeerOptions{Node: "n", Offer: offerAll})
	require.ErrorIs(t, err, registry.ErrInvalid)
	_, err = federation.NewPeer(registrytest.New(t, registry.Options{}), federation.PeerOptions{Offer: offerAll})
	require.ErrorContains(t, err, "PeerOptions.Node")
}

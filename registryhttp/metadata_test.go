package registryhttp_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/internal/testkit"
	"github.com/capreg/registry/registryhttp"
)

const (
	traceParent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	traceState  = "vendor=value"
)

// received returns the context that a handler behind the middleware gets.
func received(t *testing.T, options registryhttp.MiddlewareOptions, header http.Header) (m registryhttp.Metadata, left time.Duration) {
	t.Helper()
	request := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil)
	request.Header = header
	handler := http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		m = registryhttp.MetadataOf(r.Context())
		if deadline, ok := r.Context().Deadline(); ok {
			left = time.Until(deadline)
		}
	})
	registryhttp.Middleware(options)(handler).ServeHTTP(httptest.NewRecorder(), request)
	return m, left
}

func TestMiddleware_TakesWhatTheTransportSends(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		want := registryhttp.Metadata{Correlation: "request-1", TraceParent: traceParent, TraceState: traceState}
		ctx, cancel := context.WithTimeout(registryhttp.WithMetadata(t.Context(), want), 7*time.Second)
		defer cancel()
		got := sent(t, "http://a", "", registryhttp.UpstreamOptions{Propagate: true}, ask(t, "http://c").WithContext(ctx))
		require.Equal(t, http.Header{
			"X-Request-Id": {"request-1"}, "Traceparent": {traceParent}, "Tracestate": {traceState}, registryhttp.HeaderTimeout: {"7000"},
		}, got.Header)
		m, left := received(t, registryhttp.MiddlewareOptions{Caller: func(*http.Request) string { return "alice" }}, got.Header)
		want.Caller = "alice"
		require.Equal(t, want, m)
		require.Equal(t, 7*time.Second, left)

		got = sent(t, "http://a", "", registryhttp.UpstreamOptions{}, ask(t, "http://c").WithContext(ctx))
		require.Empty(t, got.Header, "not unasked")
		own := ask(t, "http://c").WithContext(ctx)
		own.Header = http.Header{"Traceparent": {"mine"}, "X-Request-Id": {"mine"}}
		got = sent(t, "http://a", "", registryhttp.UpstreamOptions{Propagate: true}, own)
		require.Equal(t, http.Header{
			"X-Request-Id": {"mine"}, "Traceparent": {"mine"}, registryhttp.HeaderTimeout: {"7000"},
		}, got.Header, "those of the request stay")
	})
}

// Variants: a request without a trace, with one in its context, and with one in its headers, such as a proxy's.
func TestTransport_SendsThePlaceInATraceThatAHookHasGivenTheAttempt(t *testing.T) {
	t.Parallel()
	const ofAttempt = "00-0af7651916cd43dd8448eb211c80319c-00f067aa0ba902b7-01"
	give := func(ctx context.Context, _ registry.CallReport, _ registry.Attempt) context.Context {
		m := registryhttp.MetadataOf(ctx)
		m.TraceParent, m.TraceState = ofAttempt, ""
		return registryhttp.WithMetadata(ctx, m)
	}
	in := registryhttp.WithMetadata(t.Context(), registryhttp.Metadata{Correlation: "request-1", TraceParent: traceParent, TraceState: traceState})
	for name, row := range map[string]struct {
		ctx    context.Context
		header http.Header
	}{
		"no trace":       {t.Context(), nil},
		"of its context": {in, nil},
		"of its headers": {in, http.Header{"Traceparent": {traceParent}, "Tracestate": {traceState}}},
	} {
		var got http.Header
		s := with(t, testkit.New(t, registry.Options{Hooks: registry.Hooks{BeforeAttempt: give}}), registryhttp.Options{})
		s.add(registry.Provider[*registryhttp.Upstream]{Name: "a"}, "http://a", registryhttp.UpstreamOptions{
			Propagate: true,
			Transport: roundTrip(func(request *http.Request) (*http.Response, error) {
				got = request.Header
				return says("a")(request)
			}),
		})
		request := ask(t, "http://c").WithContext(row.ctx)
		request.Header = row.header
		response, err := s.transport().RoundTrip(request)
		require.Equal(t, "a", read(t, response, err))
		require.Equal(t, row.header, request.Header, "the request is as before")
		require.Equal(t, []string{ofAttempt}, got["Traceparent"], name)
		require.Empty(t, got["Tracestate"], name)
	}
}

func TestMiddleware_BoundsTheTime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		for _, c := range []struct {
			header     string
			most, want time.Duration
		}{
			{"", 0, 0},
			{"", time.Second, time.Second},
			{"1500", 0, 1500 * time.Millisecond},
			{"1500", time.Second, time.Second},
			{"0", 0, 0},
			{"-1", 0, 0},
			{"soon", time.Second, time.Second},
			{"1.5", 0, 0},
			{"", -1, 0},
			{"18446744073709551615", time.Hour, time.Hour},
			{"18446744073709551615", 0, 10 * 365 * 24 * time.Hour},
		} {
			_, left := received(t, registryhttp.MiddlewareOptions{MaxTimeout: c.most}, http.Header{registryhttp.HeaderTimeout: {c.header}})
			require.Equal(t, c.want, left, "%+v", c)
		}
	})
}

func TestWithMetadata_LeavesOutWhatIsMalformed(t *testing.T) {
	t.Parallel()
	of := func(m registryhttp.Metadata) registryhttp.Metadata {
		return registryhttp.MetadataOf(registryhttp.WithMetadata(t.Context(), m))
	}
	for _, bad := range []string{"", "two words", "line\n", "ü", "\x7f", strings.Repeat("x", 257)} {
		require.Empty(t, of(registryhttp.Metadata{Correlation: bad}).Correlation)
	}
	for _, bad := range []string{
		"", "00", strings.Repeat("-", 300), "ff" + traceParent[2:], strings.ToUpper(traceParent), traceParent + "-x", traceParent[:54],
		"00-00000000000000000000000000000000-b7ad6b7169203331-01", "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
	} {
		require.Equal(t, registryhttp.Metadata{}, of(registryhttp.Metadata{TraceParent: bad, TraceState: traceState}), bad)
	}
	for _, good := range []string{traceParent, "01" + traceParent[2:] + "-more"} {
		require.Equal(t, good, of(registryhttp.Metadata{TraceParent: good}).TraceParent)
	}
	for _, bad := range []string{"line\n", strings.Repeat("x", 513)} {
		require.Empty(t, of(registryhttp.Metadata{TraceParent: traceParent, TraceState: bad}).TraceState)
	}
	require.Equal(t, registryhttp.Metadata{}, registryhttp.MetadataOf(t.Context()))
}

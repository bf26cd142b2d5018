package registryhttp_test

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/internal/testkit"
	"github.com/capreg/registry/registryhttp"
)

// instant answers at once, in one read as net/http does with a short body.
type instant struct{}

func (instant) RoundTrip(request *http.Request) (*http.Response, error) {
	return &http.Response{StatusCode: http.StatusOK, Header: http.Header{}, Body: io.NopCloser(&short{}), ContentLength: 5, Request: request}, nil
}

type short struct{ read bool }

func (s *short) Read(p []byte) (int, error) {
	if s.read {
		return 0, io.EOF
	}
	s.read = true
	return copy(p, "hello"), io.EOF
}

// play returns a function that sends one request through a transport and reads the answer.
func play(tb testing.TB, transport http.RoundTripper) func() {
	tb.Helper()
	request, err := http.NewRequestWithContext(context.Background(), http.MethodPost, "http://client/v1/chat", http.NoBody)
	require.NoError(tb, err)
	request.Header = http.Header{"Authorization": {"Bearer client"}, "Content-Type": {"application/json"}, "Accept": {"*/*"}}
	buffer := make([]byte, 512)
	return func() {
		response, err := transport.RoundTrip(request)
		if err == nil {
			_, err = io.ReadFull(response.Body, buffer[:5])
			_ = response.Body.Close()
		}
		if err != nil || !bytes.Equal(buffer[:5], []byte("hello")) {
			tb.Fatal(err)
		}
	}
}

func newInstant(tb testing.TB) *registryhttp.Transport {
	tb.Helper()
	reg := testkit.New(tb, registry.Options{})
	for _, name := range []string{"a", "b", "c"} {
		upstream, err := registryhttp.NewUpstream("http://"+name+"/own", registryhttp.UpstreamOptions{Header: http.Header{"Authorization": {"Bearer " + name}}})
		require.NoError(tb, err)
		_, err = service.Register(tb.Context(), reg, registry.Provider[*registryhttp.Upstream]{Name: name, Instance: upstream})
		require.NoError(tb, err)
	}
	transport, err := registryhttp.NewTransport(service.Bind(reg, registry.Query{}), registryhttp.Options{Base: "/v1", Repeatable: all, Transport: instant{}})
	require.NoError(tb, err)
	return transport
}

func BenchmarkTransport_RoundTrip(b *testing.B) {
	for name, transport := range map[string]http.RoundTripper{"bare": instant{}, "failover": newInstant(b)} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for send := play(b, transport); b.Loop(); {
				send()
			}
		})
	}
	b.Run("lease", func(b *testing.B) {
		reg := testkit.New(b, registry.Options{})
		testkit.Add(b, reg, testkit.Provider{Name: "a"})
		r := testkit.Bind(reg)
		for b.Loop() {
			lease, err := r.Acquire(context.Background())
			if err != nil {
				b.Fatal(err)
			}
			lease.Done(nil)
		}
	})
}

// A timer for each read, or a buffer, would be seen here.
func TestTransport_ReadsOfABodyAllocateNothing(t *testing.T) { //nolint:paralleltest // it measures
	s := with(t, testkit.New(t, registry.Options{}), registryhttp.Options{}, roundTrip(func(*http.Request) (*http.Response, error) {
		return answer(http.StatusOK, endless{}), nil
	}))
	response, err := s.get()
	require.NoError(t, err)
	buffer := make([]byte, 8<<10)
	require.Zero(t, testing.AllocsPerRun(1000, func() {
		if _, err := response.Body.Read(buffer); err != nil {
			t.Fatal(err)
		}
	}))
	require.NoError(t, response.Body.Close())
}

func TestTransport_CostsFewAllocations(t *testing.T) { //nolint:paralleltest // it measures
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	bare := testing.AllocsPerRun(1000, play(t, instant{}))
	require.LessOrEqual(t, testing.AllocsPerRun(1000, play(t, newInstant(t))), bare+7)
}

package admin_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/admin"
)

// BenchmarkCall measures calls while clients follow the events and changes come in: by requests, most of which are refused for
// their rate, and by the program itself. The median is that of the calls, whatever else the machine does.
func BenchmarkCall(b *testing.B) {
	for _, clients := range []int{0, 32} {
		for _, changes := range []int{0, 100} {
			b.Run(fmt.Sprintf("Clients=%d/ChangesPerSecond=%d", clients, changes), func(b *testing.B) { benchmarkCall(b, clients, changes) })
		}
	}
}

func benchmarkCall(b *testing.B, clients, changes int) {
	b.Helper()
	s := newSite(b, admin.Options{Authorize: allow})
	ctx, stop := context.WithCancel(b.Context())
	var all sync.WaitGroup
	for range clients {
		answer, err := http.DefaultTransport.RoundTrip(s.request(http.MethodGet, "/v1/runtime/events", "").WithContext(ctx))
		require.NoError(b, err)
		all.Go(func() {
			_, _ = io.Copy(io.Discard, answer.Body) // until ctx ends
			_ = answer.Body.Close()
		})
	}
	if changes > 0 {
		handle := s.provider("c")
		all.Go(func() {
			ticker := time.NewTicker(time.Second / time.Duration(changes))
			defer ticker.Stop()
			for weight := 1.0; ; weight++ {
				select {
				case <-ctx.Done():
					return
				case <-ticker.C:
				}
				_, _ = handle.SetWeight(weight)
				_, _ = try(s.request(http.MethodPost, providerPath("b", "/undrain"), `{}`, "If-Match", "*")) //nolint:contextcheck // that of the benchmark
			}
		})
	}
	resolver := chat.Bind(s.reg, registry.Query{})
	work := func(context.Context, call) error { return nil }
	took := make([]time.Duration, 0, 1<<20)
	b.ReportAllocs()
	for b.Loop() {
		began := time.Now()
		err := resolver.Do(ctx, work)
		if len(took) < cap(took) {
			took = append(took, time.Since(began))
		}
		if err != nil {
			b.Fatal(err)
		}
	}
	b.StopTimer()
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2]), "p50-ns")
	stop()
	all.Wait()
}

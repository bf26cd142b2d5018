package admin_test

import (
	"context"
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

// BenchmarkCall_InAStorm measures calls of two registries in turn, whatever else the machine does meanwhile: one is left alone; the
// events of the other are followed by 32 clients while changes come in, by the program and by requests, most of which are refused for
// their rate. An operation is a window of each. The ratio is that of the medians.
func BenchmarkCall_InAStorm(b *testing.B) {
	const clients, window, pause = 32, 20 * time.Millisecond, 5 * time.Millisecond // between changes
	quiet, busy := newSite(b, admin.Options{Authorize: allow}), newSite(b, admin.Options{Authorize: allow})
	ctx, stop := context.WithCancel(b.Context())
	var all sync.WaitGroup
	for range clients {
		answer, err := http.DefaultTransport.RoundTrip(busy.request(http.MethodGet, "/v1/runtime/events", "").WithContext(ctx))
		require.NoError(b, err)
		all.Go(func() {
			_, _ = io.Copy(io.Discard, answer.Body) // until ctx ends
			_ = answer.Body.Close()
		})
	}
	changes := make(chan struct{}, 1)
	made, handle := 0, busy.provider("c")
	all.Go(func() {
		for range changes {
			made++
			_, _ = handle.SetWeight(float64(made))
			_, _ = try(busy.request(http.MethodPost, providerPath("b", "/undrain"), `{}`, "If-Match", "*"))
		}
	})
	work := func(context.Context, call) error { return nil }
	measure := func(s *site, took []time.Duration, storm bool) []time.Duration {
		resolver := chat.Bind(s.reg, registry.Query{})
		var changed time.Time
		for began := time.Now(); time.Since(began) < window; {
			if storm && time.Since(changed) >= pause {
				changed = time.Now()
				select {
				case changes <- struct{}{}:
				default: // the one before is still on its way
				}
			}
			for range 50 {
				start := time.Now()
				err := resolver.Do(ctx, work)
				took = append(took, time.Since(start))
				if err != nil {
					b.Fatal(err)
				}
			}
		}
		return took
	}
	median := func(took []time.Duration) float64 {
		slices.Sort(took)
		return float64(took[len(took)/2])
	}
	alone, inStorm := make([]time.Duration, 0, 1<<22), make([]time.Duration, 0, 1<<22)
	for b.Loop() {
		alone = measure(quiet, alone, false)
		inStorm = measure(busy, inStorm, true)
	}
	close(changes)
	stop()
	all.Wait()
	before, after := median(alone), median(inStorm)
	b.ReportMetric(before, "alone-p50-ns")
	b.ReportMetric(after, "storm-p50-ns")
	b.ReportMetric(after/before, "ratio")
	b.ReportMetric(float64(made), "changes")
}

package registryprom_test

import (
	"fmt"
	"net/http/httptest"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/stretchr/testify/require"

	registryprom "github.com/capreg/registry/contrib/prometheus"
)

// BenchmarkCollect reads a thousand providers that have had calls: the longest steps under a lock, which are the totals
// and the list, all that the registry does, the same with the collector and the client library, and all of a scrape,
// with its text. CPU time is that of all goroutines, those of the garbage collector among them.
func BenchmarkCollect(b *testing.B) {
	reg, _ := newRegistry(b, registryprom.Options{})
	gatherer := prometheus.NewRegistry()
	require.NoError(b, gatherer.Register(registryprom.New(reg, registryprom.Options{})))
	for i := range 1000 {
		add(b, reg, fmt.Sprint("p", i), nil)
	}
	for range 10_000 {
		require.NoError(b, ask(reg))
	}
	b.Run("totals under lock", func(b *testing.B) {
		measured(b, func() { reg.Stats() })
	})
	b.Run("list under lock", func(b *testing.B) {
		measured(b, func() { reg.Registrations() })
	})
	b.Run("snapshot", func(b *testing.B) {
		measured(b, func() { reg.Metrics() })
	})
	b.Run("gather", func(b *testing.B) {
		measured(b, func() {
			_, err := gatherer.Gather()
			require.NoError(b, err)
		})
	})
	handler := promhttp.HandlerFor(gatherer, promhttp.HandlerOpts{DisableCompression: true})
	b.Run("scrape", func(b *testing.B) {
		request := httptest.NewRequestWithContext(b.Context(), "GET", "/metrics", nil)
		measured(b, func() {
			to := httptest.NewRecorder()
			handler.ServeHTTP(to, request)
			b.ReportMetric(float64(to.Body.Len())/1e6, "MB/op")
		})
	})
}

// measured runs what is measured, and reports its CPU time.
func measured(b *testing.B, run func()) {
	b.Helper()
	b.ReportAllocs()
	begin := cpuTime(b)
	for b.Loop() {
		run()
	}
	b.ReportMetric(float64((cpuTime(b)-begin).Microseconds())/float64(b.N)/1e3, "cpu-ms/op")
}

// cpuTime returns what the process has used.
func cpuTime(b *testing.B) time.Duration {
	b.Helper()
	var usage syscall.Rusage
	require.NoError(b, syscall.Getrusage(syscall.RUSAGE_SELF, &usage))
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

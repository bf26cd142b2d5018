package registryprom_test

import (
	"fmt"
	"net/http"
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
// with its text, by the handler and by a registry of the client library. CPU time is that of all goroutines, those of the garbage collector among them.
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
	alone := registryprom.New(reg, registryprom.Options{})
	b.Run("gather alone", func(b *testing.B) {
		measured(b, func() {
			_, err := alone.Gather()
			require.NoError(b, err)
		})
	})
	for name, handler := range map[string]http.Handler{
		"scrape":               alone.Handler(prometheus.DefaultGatherer),
		"scrape registry":      promhttp.HandlerFor(gatherer, promhttp.HandlerOpts{DisableCompression: true}),
		"scrape registry gzip": promhttp.HandlerFor(gatherer, promhttp.HandlerOpts{}),
	} {
		b.Run(name, func(b *testing.B) {
			request := httptest.NewRequestWithContext(b.Context(), http.MethodGet, "/metrics", nil)
			request.Header.Set("Accept", acceptText) // as Prometheus asks
			request.Header.Set("Accept-Encoding", "gzip")
			measured(b, func() {
				to := &counting{}
				handler.ServeHTTP(to, request)
				b.ReportMetric(float64(to.written)/1e6, "MB/op")
			})
		})
	}
}

// counting is an answer whose body is counted alone.
type counting struct {
	header  http.Header
	written int
}

func (c *counting) Header() http.Header {
	if c.header == nil {
		c.header = make(http.Header)
	}
	return c.header
}

func (c *counting) Write(p []byte) (int, error) {
	c.written += len(p)
	return len(p), nil
}

func (c *counting) WriteHeader(int) {}

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

package main

import (
	"context"
	"net/http"
	"runtime"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/capreg/registry"
	"github.com/capreg/registry/benchmarks/internal/bars"
	"github.com/capreg/registry/benchmarks/internal/contest"
	registryprom "github.com/capreg/registry/contrib/prometheus"
)

const (
	providers      = 1000
	scrapeAtMost   = 20 * time.Millisecond
	lockHeldAtMost = time.Millisecond
)

// crowd is a registry with many providers that have all had calls.
type crowd struct {
	registry *registry.Registry
	metrics  http.Handler
}

func newCrowd() (*crowd, error) {
	reg, err := contest.Setting{Providers: providers, Strategy: registry.StrategyRoundRobin, Timeout: registry.NoTimeout, Probed: true}.Populate()
	if err != nil {
		return nil, err
	}
	contest.Calling(contest.Bind(reg))(10 * providers)
	collector := registryprom.New(reg, registryprom.Options{})
	return &crowd{reg, promhttp.HandlerFor(collector, promhttp.HandlerOpts{DisableCompression: true})}, nil
}

func (c *crowd) close() error { return c.registry.Close(context.Background()) }

// inARow is the number of scrapes in a round. The fastest counts, so that other load has no effect.
const inARow = 5

// measure returns the nanoseconds of a scrape, its text included, and those of the longest steps of one that hold a lock
// of the registry: the sums of all providers, and the list of them.
func (c *crowd) measure() (scrape, locked float64, err error) {
	request, err := http.NewRequestWithContext(context.Background(), http.MethodGet, "/metrics", http.NoBody)
	if err != nil {
		return 0, 0, err
	}
	request.Header.Set("Accept", "text/plain;version=1.0.0;escaping=allow-utf-8") // as Prometheus asks
	runtime.GC()
	whole := fastest(func() { c.metrics.ServeHTTP(discarding{http.Header{}}, request) })
	sums, list := fastest(func() { c.registry.Stats() }), fastest(func() { c.registry.Registrations() })
	return float64(whole), float64(max(sums, list)), nil
}

func fastest(work func()) time.Duration {
	took := make([]time.Duration, inARow)
	for i := range took {
		began := time.Now()
		work()
		took[i] = time.Since(began)
	}
	return slices.Min(took)
}

// discarding is an answer that nothing reads.
type discarding struct{ header http.Header }

func (d discarding) Header() http.Header         { return d.header }
func (d discarding) Write(p []byte) (int, error) { return len(p), nil }
func (d discarding) WriteHeader(int)             {}

// within compares a figure with the longest that it may be.
func within(ours int, atMost time.Duration) func([]float64) bars.Figure {
	return func(took []float64) bars.Figure { return bars.Figure{Ours: took[ours], Theirs: float64(atMost)} }
}

package main

import (
	"context"
	"net/http"
	"runtime"
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

// measure returns the nanoseconds of a scrape, its text included, and those of the longest steps of one that hold a lock
// of the registry: the sums of all providers, and the list of them.
func (c *crowd) measure() (scrape, locked float64, err error) {
	request, err := http.NewRequestWithContext(context.Background(), http.MethodGet, "/metrics", http.NoBody)
	if err != nil {
		return 0, 0, err
	}
	request.Header.Set("Accept", "text/plain;version=1.0.0;escaping=allow-utf-8") // as Prometheus asks
	runtime.GC()
	answer := discarding{http.Header{}}
	began := time.Now()
	c.metrics.ServeHTTP(answer, request)
	scrape = float64(time.Since(began))

	began = time.Now()
	c.registry.Stats()
	sums := time.Since(began)
	began = time.Now()
	c.registry.Registrations()
	return scrape, float64(max(sums, time.Since(began))), nil
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

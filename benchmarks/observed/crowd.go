package main

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"runtime"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

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

// crowd is a registry with many providers that have all had calls, and a server that shows its metrics as the guide does.
type crowd struct {
	registry *registry.Registry
	server   *httptest.Server
}

func newCrowd() (*crowd, error) {
	reg, err := contest.Setting{Providers: providers, Strategy: registry.StrategyRoundRobin, Timeout: registry.NoTimeout, Probed: true}.Populate()
	if err != nil {
		return nil, err
	}
	contest.Calling(contest.Bind(reg))(10 * providers)
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", registryprom.New(reg, registryprom.Options{}).Handler(prometheus.DefaultGatherer))
	return &crowd{reg, httptest.NewServer(mux)}, nil
}

func (c *crowd) close() error {
	c.server.Close()
	return c.registry.Close(context.Background())
}

// inARow is the number of scrapes in a round. The fastest counts, so that other load has no effect.
const inARow = 5

// measure returns the nanoseconds of a scrape over the network until its last byte is read, and those of the longest steps
// of one that hold a lock of the registry: the sums of all providers, and the list of them.
func (c *crowd) measure() (scrape, locked float64, err error) {
	runtime.GC()
	whole := fastest(func() { err = errors.Join(err, c.scrape()) })
	sums, list := fastest(func() { c.registry.Stats() }), fastest(func() { c.registry.Registrations() })
	return float64(whole), float64(max(sums, list)), err
}

// scrape asks as a Prometheus server does.
func (c *crowd) scrape() error {
	request, err := http.NewRequestWithContext(context.Background(), http.MethodGet, c.server.URL+"/metrics", http.NoBody)
	if err != nil {
		return err
	}
	request.Header.Set("Accept", "text/plain;version=1.0.0;escaping=allow-utf-8")
	request.Header.Set("Accept-Encoding", "gzip")
	answer, err := c.server.Client().Do(request)
	if err != nil {
		return err
	}
	defer func() { _ = answer.Body.Close() }()
	if answer.StatusCode != http.StatusOK {
		return errors.New(answer.Status)
	}
	_, err = io.Copy(io.Discard, answer.Body)
	return err
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

// within compares a figure with the longest that it may be.
func within(ours int, atMost time.Duration) func([]float64) bars.Figure {
	return func(took []float64) bars.Figure { return bars.Figure{Ours: took[ours], Theirs: float64(atMost)} }
}

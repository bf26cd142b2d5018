// This file shows the metrics of the runtime to Prometheus. The rules and the dashboard of contrib/prometheus are for them.

package main

import (
	"context"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/capreg/registry"
	registryprom "github.com/capreg/registry/contrib/prometheus"
)

// serveMetrics serves the measurements of the registry at /metrics of the address, until stop is called.
func serveMetrics(ctx context.Context, reg *registry.Registry, address string, s *screen) (stop func() error, err error) {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", registryprom.New(reg, registryprom.Options{}).Handler(prometheus.DefaultGatherer))
	url, stop, err := serveAt(ctx, mux, address)
	if err != nil {
		return nil, err
	}
	s.line("metrics   " + url + "/metrics")
	return stop, nil
}

// This file shows the metrics of the runtime to Prometheus. The rules and the dashboard of contrib/prometheus are for them.

package main

import (
	"context"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/capreg/registry"
	registryprom "github.com/capreg/registry/contrib/prometheus"
	"github.com/capreg/registry/registryhttp"
)

// serveMetrics serves the measurements of the registry at /metrics of the address, until stop is called.
func serveMetrics(ctx context.Context, reg *registry.Registry, address string, s *screen) (stop func() error, err error) {
	measured := prometheus.NewRegistry()
	if err := measured.Register(registryprom.New(reg, registryprom.Options{})); err != nil {
		return nil, err
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(measured, promhttp.HandlerOpts{EnableOpenMetrics: true}))
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	serving, end := context.WithCancel(context.WithoutCancel(ctx))
	ended := make(chan error, 1)
	go func() { ended <- registryhttp.Serve(serving, server, listener, time.Second) }()
	s.line("metrics   http://" + listener.Addr().String() + "/metrics")
	return func() error {
		end()
		return <-ended
	}, nil
}

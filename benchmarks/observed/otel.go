package main

import (
	"context"
	"errors"

	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"go.opentelemetry.io/otel/sdk/trace"
	api "go.opentelemetry.io/otel/trace"

	"github.com/capreg/registry"
	"github.com/capreg/registry/benchmarks/internal/contest"
	registryotel "github.com/capreg/registry/contrib/otel"
)

// observeByOTel has OpenTelemetry observe the contestant of that number.
func (c *contestant) observeByOTel(number int) error {
	spans, metrics := trace.NewTracerProvider(), metric.NewMeterProvider()
	options, calls := registryotel.Options{}, context.Background()
	switch number {
	case otelMetrics:
		reader := metric.NewManualReader()
		metrics = metric.NewMeterProvider(metric.WithReader(reader))
		options.MeterProvider = metrics
		c.observe = func() error {
			var read metricdata.ResourceMetrics
			return reader.Collect(context.Background(), &read)
		}
	case otelSampledOut:
		options.TracerProvider, options.Roots = spans, 1
		place := api.NewSpanContext(api.SpanContextConfig{TraceID: api.TraceID{1}, SpanID: api.SpanID{1}, Remote: true})
		calls = api.ContextWithRemoteSpanContext(calls, place)
	case otelNoRoot:
		options.TracerProvider, options.Roots = spans, 1e-9
	}
	observer, err := registryotel.Observe(c.registry, options)
	if err != nil {
		return err
	}
	c.loop = callingWith(calls, contest.Bind(c.registry))
	c.end = func() error {
		return errors.Join(observer.Close(context.Background()), spans.Shutdown(context.Background()), metrics.Shutdown(context.Background()))
	}
	return nil
}

// callingWith is [contest.Calling] with a context of the caller's.
//
//go:noinline
func callingWith(ctx context.Context, r *registry.Resolver[contest.Model]) contest.Loop {
	return func(n int) {
		for prompt := range n {
			_, err := registry.Call(ctx, r, func(ctx context.Context, m contest.Model) (int, error) { return m.Answer(ctx, prompt) })
			if err != nil {
				panic(err)
			}
		}
	}
}

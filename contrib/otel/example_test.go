package registryotel_test

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/capreg/registry"
	registryotel "github.com/capreg/registry/contrib/otel"
	"github.com/capreg/registry/registryhttp"
	"github.com/capreg/registry/verdict"
)

// A call that has moved on leaves three spans. A program gives its own TracerProvider, with an exporter to its collector.
func ExampleObserve() {
	ctx := context.Background()
	reg, err := registry.New(registry.Options{})
	if err != nil {
		panic(err)
	}
	spans := tracetest.NewInMemoryExporter()
	tracers := trace.NewTracerProvider(trace.WithSyncer(spans))
	observer, err := registryotel.Observe(reg, registryotel.Options{TracerProvider: tracers})
	if err != nil {
		panic(err)
	}
	models := registry.NewService[string]("models")
	for _, name := range []string{"cloud", "local"} {
		if _, err := models.Register(ctx, reg, registry.Provider[string]{Name: name, Instance: name}); err != nil {
			panic(err)
		}
	}
	answer, err := registry.Call(ctx, models.Bind(reg, registry.Query{}), func(_ context.Context, model string) (string, error) {
		if model == "cloud" {
			return "", verdict.As(errors.New("no"), verdict.Verdict{Class: verdict.ClassRateLimited})
		}
		return "hello", nil
	})
	fmt.Println(answer, err)
	for _, span := range spans.GetSpans() {
		attributes := attribute.NewSet(span.Attributes...)
		class, _ := attributes.Value("registry.class")
		fmt.Printf("%s: %s\n", span.Name, class.AsString())
	}
	fmt.Println(errors.Join(observer.Close(ctx), tracers.Shutdown(ctx), reg.Close(ctx)))
	// Output:
	// hello <nil>
	// attempt cloud: rate limited
	// attempt local: success
	// call models: success
	// <nil>
}

// Metrics are read when they are collected: a call pays nothing for them.
func ExampleObserver() {
	ctx := context.Background()
	reg, err := registry.New(registry.Options{})
	if err != nil {
		panic(err)
	}
	reader := metric.NewManualReader()
	observer, err := registryotel.Observe(reg, registryotel.Options{MeterProvider: metric.NewMeterProvider(metric.WithReader(reader))})
	if err != nil {
		panic(err)
	}
	models := registry.NewService[string]("models")
	if _, err := models.Register(ctx, reg, registry.Provider[string]{Name: "cloud", Instance: "a client"}); err != nil {
		panic(err)
	}
	for range 3 {
		if err := models.Bind(reg, registry.Query{}).Do(ctx, func(context.Context, string) error { return nil }); err != nil {
			panic(err)
		}
	}
	var collected metricdata.ResourceMetrics
	if err := reader.Collect(ctx, &collected); err != nil {
		panic(err)
	}
	for _, m := range collected.ScopeMetrics[0].Metrics {
		if sum, ok := m.Data.(metricdata.Sum[int64]); ok && m.Name == "registry.attempts" {
			fmt.Println(m.Name, sum.DataPoints[0].Value)
		}
	}
	fmt.Println(errors.Join(observer.Close(ctx), reg.Close(ctx)))
	// Output:
	// registry.attempts 3
	// <nil>
}

// Where a request comes in, its span is made known to the log and to what is sent on.
func ExampleWithTrace() {
	tracers := trace.NewTracerProvider()
	ctx, span := tracers.Tracer("program").Start(context.Background(), "GET /answer")
	defer span.End()
	ctx = registryotel.WithTrace(ctx)
	known := registryhttp.MetadataOf(ctx).TraceParent
	fmt.Println(strings.Contains(known, span.SpanContext().TraceID().String()))
	// Output: true
}

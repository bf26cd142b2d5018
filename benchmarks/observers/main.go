// Command observers measures what observers of a registry cost a call, side by side in one run.
//
//	go run ./benchmarks/observers
//
// It prints a line for each observer,
//
//	name observed-ns unobserved-ns ratio bar ok|short
//
// and ends with status 1 when a bar is short. A bar of 0 is none: the figure is for information. The call is one with a
// time limit, of a provider that answers at once, so that ratios are at their worst. Figures are medians of rounds in which
// all took turns, the fastest of which counts.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"time"

	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"go.opentelemetry.io/otel/sdk/trace"
	api "go.opentelemetry.io/otel/trace"

	"github.com/capreg/registry"
	"github.com/capreg/registry/benchmarks/internal/contest"
	registryotel "github.com/capreg/registry/contrib/otel"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "observers:", err)
		os.Exit(1) //nolint:gocritic // the process ends; stop has nothing left to undo
	}
}

// errShort reports a run with a bar that was missed.
var errShort = errors.New("a bar is short")

// observed is a way to observe the calls of a registry.
type observed struct {
	name    string
	bar     float64 // the greatest ratio; 0: none
	observe func(reg *registry.Registry) (calls context.Context, end func() error, err error)
}

func run(ctx context.Context, arguments []string, out io.Writer) (err error) {
	flags := flag.NewFlagSet("observers", flag.ContinueOnError)
	flags.SetOutput(out)
	settings := contest.Settings{}
	settings.Flags(flags)
	if err := flags.Parse(arguments); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return nil
		}
		return err
	}
	if err := settings.Check(); err != nil {
		return err
	}
	all := append([]observed{{"none", 0, unobserved}}, observers()...)
	runners := make([]contest.Runner, len(all))
	for i, o := range all {
		reg, err := contest.Setting{Probed: true}.Populate()
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, reg.Close(context.WithoutCancel(ctx))) }()
		calls, end, err := o.observe(reg)
		if err != nil {
			return fmt.Errorf("%s: %w", o.name, err)
		}
		defer func() { err = errors.Join(err, end()) }()
		runners[i] = contest.Runner{Loop: loop(calls, contest.Bind(reg)), Cores: 1}
	}
	times, err := contest.Race(ctx, settings, runners...)
	if err != nil {
		return err
	}
	for i, o := range all[1:] {
		ratio, word := times[i+1]/times[0], "ok"
		if o.bar > 0 && ratio > o.bar {
			word, err = "short", errShort
		}
		if _, failed := fmt.Fprintf(out, "%s %.1f %.1f %.3f %.3f %s\n", o.name, times[i+1], times[0], ratio, o.bar, word); failed != nil {
			return failed
		}
	}
	return err
}

//go:noinline
func loop(ctx context.Context, r *registry.Resolver[contest.Model]) contest.Loop {
	return func(n int) {
		for prompt := range n {
			_, err := registry.Call(ctx, r, func(ctx context.Context, m contest.Model) (int, error) { return m.Answer(ctx, prompt) })
			if err != nil {
				panic(err)
			}
		}
	}
}

func nothing() error { return nil }

func unobserved(*registry.Registry) (context.Context, func() error, error) {
	return context.Background(), nothing, nil
}

func observers() []observed {
	never := trace.WithSampler(trace.ParentBased(trace.NeverSample()))
	place := api.NewSpanContext(api.SpanContextConfig{TraceID: api.TraceID{1}, SpanID: api.SpanID{1}, Remote: true})
	return []observed{
		{"otel-metrics", 1.15, metrics},
		{"otel-sampled-out", 2, traces(api.ContextWithRemoteSpanContext(context.Background(), place), 1)},
		{"otel-no-root", 2, traces(context.Background(), 1e-9)},
		{"otel-asked-sampler", 0, traces(context.Background(), 1, never)},
		{"otel-recorded", 0, traces(context.Background(), 1, trace.WithSpanProcessor(discarding{}))},
	}
}

// metrics reads the metrics each second, as an exporter does.
func metrics(reg *registry.Registry) (context.Context, func() error, error) {
	provider := metric.NewMeterProvider(metric.WithReader(metric.NewPeriodicReader(discarding{}, metric.WithInterval(time.Second))))
	observer, err := registryotel.Observe(reg, registryotel.Options{MeterProvider: provider})
	return context.Background(), func() error {
		return errors.Join(observer.Close(context.Background()), provider.Shutdown(context.Background()))
	}, err
}

// traces makes spans of calls with that context, or of that part of them where it has no span.
func traces(calls context.Context, roots float64, options ...trace.TracerProviderOption) func(*registry.Registry) (context.Context, func() error, error) {
	return func(reg *registry.Registry) (context.Context, func() error, error) {
		provider := trace.NewTracerProvider(options...)
		observer, err := registryotel.Observe(reg, registryotel.Options{TracerProvider: provider, Roots: roots})
		return calls, func() error {
			return errors.Join(observer.Close(context.Background()), provider.Shutdown(context.Background()))
		}, err
	}
}

// discarding drops metrics and spans.
type discarding struct{}

func (discarding) OnStart(context.Context, trace.ReadWriteSpan)              {}
func (discarding) OnEnd(trace.ReadOnlySpan)                                  {}
func (discarding) Export(context.Context, *metricdata.ResourceMetrics) error { return nil }
func (discarding) ForceFlush(context.Context) error                          { return nil }
func (discarding) Shutdown(context.Context) error                            { return nil }
func (discarding) Temporality(k metric.InstrumentKind) metricdata.Temporality {
	return metric.DefaultTemporalitySelector(k)
}

func (discarding) Aggregation(k metric.InstrumentKind) metric.Aggregation {
	return metric.DefaultAggregationSelector(k)
}

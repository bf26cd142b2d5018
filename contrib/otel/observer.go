package registryotel

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/log"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"

	"github.com/capreg/registry"
)

// scope is the name of the instrumentation scope.
const scope = "github.com/capreg/registry/contrib/otel"

// Options configure [Observe]. The zero value of each field is its default.
type Options struct {
	// TracerProvider gets the spans of calls and attempts. Default: there are none.
	TracerProvider trace.TracerProvider
	// Roots is the part of the calls without a span in their context that may begin a trace, up to 1, where the sampler
	// wants it as well. The others cost little more than without an observer, while a sampler is asked with a span that is
	// made for it. Default: 1, all of them; a negative number: none.
	Roots float64
	// MeterProvider gets the instruments. Default: there are none.
	MeterProvider metric.MeterProvider
	// LoggerProvider gets a record of each event. Default: there are none.
	LoggerProvider log.LoggerProvider
	// MaxProviders bounds the providers with metrics of their own, the first in the order of all listings; those beyond
	// it are added up as [Other]. A negative number adds up all of them. Default: 100, with which no instrument has more
	// than the 2,000 sets of attributes beyond which the SDK drops what tells them apart.
	MaxProviders int
}

// Observer shows a registry to OpenTelemetry. Use [Observe] to create one, and Close to end it. It is safe for
// concurrent use.
type Observer struct {
	end   sync.Once
	ends  []func() error
	ended chan struct{} // the goroutine of the records has ended; nil: there is none
	err   error
}

// Observe shows the registry to the providers of OpenTelemetry that are given, from now on. It does not block. A goroutine
// runs for the log records until Close, or until the registry is closed. The error matches [registry.ErrInvalid], or is
// that of an instrument that the MeterProvider does not make.
func Observe(reg *registry.Registry, options Options) (*Observer, error) {
	if reg == nil {
		return nil, refuse("registry", "nil", "one made by New")
	}
	if options.TracerProvider == nil && options.MeterProvider == nil && options.LoggerProvider == nil {
		return nil, refuse("Options", "without a provider", "a TracerProvider, MeterProvider or LoggerProvider at least")
	}
	if !(options.Roots <= 1) {
		return nil, refuse("Options.Roots", fmt.Sprint(options.Roots), "1 or less")
	}
	o := &Observer{}
	if err := o.begin(reg, options); err != nil {
		return nil, errors.Join(err, o.Close(context.Background()))
	}
	return o, nil
}

func (o *Observer) begin(reg *registry.Registry, options Options) error {
	if options.TracerProvider != nil {
		t := &traces{tracer: options.TracerProvider.Tracer(scope), roots: cmp.Or(options.Roots, 1)}
		remove, err := reg.AddHooks(t.hooks())
		if err != nil {
			return err
		}
		o.ends = append(o.ends, func() error { remove(); return nil })
	}
	if options.MeterProvider != nil {
		unregister, err := observeMetrics(reg, options.MeterProvider.Meter(scope), options.MaxProviders)
		if err != nil {
			return err
		}
		o.ends = append(o.ends, unregister)
	}
	if options.LoggerProvider != nil {
		records := &records{logger: options.LoggerProvider.Logger(scope), from: reg.Subscribe(0)}
		o.ended = make(chan struct{})
		o.ends = append(o.ends, func() error { records.from.Close(); return nil })
		go func() {
			defer close(o.ended)
			records.emit()
		}()
	}
	return nil
}

// Close ends the observation: no further call is traced, metrics are not observed, and events are not recorded. Spans
// of calls in progress are not ended. It waits, within ctx, for a record that is being emitted; the error is that of ctx.
// It may be called any number of times.
func (o *Observer) Close(ctx context.Context) error {
	if o == nil {
		return nil
	}
	o.end.Do(func() {
		for _, end := range o.ends {
			o.err = errors.Join(o.err, end())
		}
	})
	if o.ended == nil {
		return o.err
	}
	select {
	case <-o.ended:
		return o.err
	default:
	}
	select {
	case <-o.ended:
		return o.err
	case <-ctx.Done():
		return fmt.Errorf("registryotel: a log record is still being emitted: %w", context.Cause(ctx))
	}
}

func refuse(field, value, bound string) error {
	return &registry.FieldError{Field: field, Value: value, Bound: bound, Err: registry.ErrInvalid}
}

// The attributes that spans, metrics and log records have.
const (
	keyService   = attribute.Key("registry.service.name")
	keyProvider  = attribute.Key("registry.provider.name")
	keyErrorType = attribute.Key("error.type")
)

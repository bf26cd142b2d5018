package registry

import (
	"context"
	"fmt"
	"io"
	"reflect"

	"github.com/capreg/registry/health"
	"github.com/capreg/registry/internal/fault"
)

// instance holds the value that serves the calls of a provider, without its Go type.
type instance struct {
	holder  any            // *holder[T]
	closer  io.Closer      // closes what a factory made; nil: nothing to close
	checker health.Checker // probes it; nil: it has no probe of its own
}

// holder keeps a value behind a pointer, so that an instance is typed again without an allocation.
type holder[T any] struct{ value T }

func wrap[T any](value T) *instance {
	wrapped := &instance{holder: &holder[T]{value: value}}
	wrapped.checker, _ = any(value).(health.Checker)
	return wrapped
}

// unwrap returns the value; the binding of the service guarantees its type.
func unwrap[T any](i *instance) T { return i.holder.(*holder[T]).value } //nolint:forcetypeassert // see above

// binding describes the Go type of a service.
type binding struct {
	goType reflect.Type
	// wrap wraps a value that was registered by the service's name only; false when it is of another type.
	wrap func(value any) (*instance, bool)
}

func bindingOf[T any]() binding {
	return binding{
		goType: reflect.TypeFor[T](),
		wrap: func(value any) (*instance, bool) {
			typed, ok := value.(T)
			if !ok {
				return nil, false
			}
			return wrap(typed), true
		},
	}
}

// typed returns an instance of the service's Go type for one of type any.
func (b binding) typed(untyped *instance) (*instance, error) {
	value := unwrap[any](untyped)
	wrapped, ok := b.wrap(value)
	if !ok {
		return nil, invalid("Instance", raw(fmt.Sprintf("of type %T", value)), "a "+b.goType.String())
	}
	wrapped.closer = untyped.closer
	return wrapped, nil
}

// adapt turns the instance and the factory of the entry into the service's Go type.
func (e *entry) adapt(b binding) (err error) {
	if e.instance != nil {
		if e.instance, err = b.typed(e.instance); err != nil {
			return err
		}
	}
	if build := e.build; build != nil {
		e.build = func(ctx context.Context) (*instance, error) { return b.typedBuild(ctx, build) }
	}
	return nil
}

// typedBuild runs a factory and closes what it made when that is of another type: nothing else refers to it.
func (b binding) typedBuild(ctx context.Context, build func(context.Context) (*instance, error)) (*instance, error) {
	made, err := build(ctx)
	if err != nil {
		return nil, err
	}
	wrapped, err := b.typed(made)
	if err != nil && made.closer != nil {
		err = fault.Join("", append([]error{err}, fault.List(fault.Run(made.closer.Close))...))
	}
	return wrapped, err
}

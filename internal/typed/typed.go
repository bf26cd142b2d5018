// Package typed keeps values of any Go type without that type, and gives them back with it.
//
// An [Instance] is what serves the calls of a provider; a [Binding] is the Go type of a service, into which what was
// registered by name alone is converted. The package owns the conversion, and closes what a factory made when it is
// of another type, since nothing else refers to that. It keeps nothing, and must not be called while a lock is held:
// factories and closers are users' code.
package typed

import (
	"context"
	"fmt"
	"io"
	"reflect"

	"github.com/capreg/registry/health"
	"github.com/capreg/registry/internal/check"
	"github.com/capreg/registry/internal/fault"
)

// Instance holds a value that serves calls, without its Go type.
type Instance struct {
	Closer  io.Closer      // closes what a factory made; nil: nothing to close
	Checker health.Checker // probes it; nil: it has no probe of its own
	holder  any            // *holder[T]
}

// holder keeps a value behind a pointer, so that an instance is typed again without an allocation.
type holder[T any] struct{ value T }

// Of returns the instance of a value.
func Of[T any](value T) *Instance {
	i := &Instance{holder: &holder[T]{value: value}}
	i.Checker, _ = any(value).(health.Checker)
	return i
}

func (h *holder[T]) untyped() any { return h.value }

// Untyped returns the value, as that of type any; nil for no instance.
func (i *Instance) Untyped() any {
	if i == nil {
		return nil
	}
	kept, _ := i.holder.(interface{ untyped() any })
	return kept.untyped()
}

// Same reports whether both instances have one value. Those that cannot be compared are not the same.
func (i *Instance) Same(other *Instance) bool { return check.Same(i.Untyped(), other.Untyped()) }

// Value returns the value of an instance that was made of a T, or converted by the binding of T; it panics for others.
func Value[T any](i *Instance) T { return i.holder.(*holder[T]).value } //nolint:forcetypeassert // see above

// Builder makes an instance, which belongs to its caller.
type Builder func(context.Context) (*Instance, error)

// untyped returns a factory of the values of which the builder makes instances.
func (b Builder) untyped() func(context.Context) (any, error) {
	return func(ctx context.Context) (any, error) {
		made, err := b(ctx)
		return made.Untyped(), err
	}
}

// Keep fills in the value of an instance or, where a builder made that, a factory like the builder, unless one is given.
func Keep(value *any, factory *func(context.Context) (any, error), i *Instance, build Builder) {
	switch {
	case *value != nil || *factory != nil:
	case build != nil:
		*factory = build.untyped()
	default:
		*value = i.Untyped()
	}
}

// Refuse turns a violation into the error of a builder.
type Refuse func(*check.Violation) error

// Source returns the instance of a value, or the builder that makes it with the factory: exactly one of them is set.
func Source[T any](value T, factory func(context.Context) (T, error), refuse Refuse) (*Instance, Builder, *check.Violation) {
	given := !check.IsNil(value)
	switch {
	case factory != nil && given && !reflect.ValueOf(&value).Elem().IsZero():
		return nil, nil, check.Refuse("Factory", check.Raw("set"), "either Instance or Factory, not both")
	case factory != nil:
		return nil, buildWith(factory, refuse), nil
	case !given:
		return nil, nil, check.Refuse("Instance", check.Raw(fmt.Sprintf("a nil %s", reflect.TypeFor[T]())), "an instance or a Factory")
	}
	return Of(value), nil, nil
}

func buildWith[T any](factory func(context.Context) (T, error), refuse Refuse) Builder {
	return func(ctx context.Context) (*Instance, error) {
		value, err := factory(ctx)
		if err != nil {
			return nil, err
		}
		if check.IsNil(value) {
			return nil, refuse(check.Refuse("Factory", check.Raw("making nil"), "an instance or an error"))
		}
		made := Of(value)
		made.Closer, _ = any(value).(io.Closer)
		return made, nil
	}
}

// Binding describes the Go type of a service.
type Binding struct {
	Type reflect.Type
	// of returns the instance of a value that was registered by the service's name only; false when it is of
	// another type.
	of func(value any) (*Instance, bool)
}

// Bind returns the binding of T.
func Bind[T any]() Binding {
	return Binding{
		Type: reflect.TypeFor[T](),
		of: func(value any) (*Instance, bool) {
			converted, ok := value.(T)
			if !ok {
				return nil, false
			}
			return Of(converted), true
		},
	}
}

// Convert returns an instance of the bound type for one of type any.
func (b Binding) Convert(untyped *Instance) (*Instance, *check.Violation) {
	value := Value[any](untyped)
	converted, ok := b.of(value)
	if !ok {
		return nil, check.Refuse("Instance", check.Raw(fmt.Sprintf("of type %T", value)), "a "+b.Type.String())
	}
	converted.Closer = untyped.Closer
	return converted, nil
}

// ConvertBuilder returns a builder of instances of the bound type for one of type any.
func (b Binding) ConvertBuilder(build Builder, refuse Refuse) Builder {
	return func(ctx context.Context) (*Instance, error) {
		made, err := build(ctx)
		if err != nil {
			return nil, err
		}
		converted, v := b.Convert(made)
		if v == nil {
			return converted, nil
		}
		err = refuse(v)
		if made.Closer != nil {
			err = fault.Join("", append([]error{err}, fault.List(fault.Run(made.Closer.Close))...))
		}
		return nil, err
	}
}

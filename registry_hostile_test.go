package registry_test

import (
	"context"
	"fmt"
	"reflect"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/event"
	"github.com/capreg/registry/health"
	"github.com/capreg/registry/internal/testkit"
	"github.com/capreg/registry/selection"
	"github.com/capreg/registry/startup"
	"github.com/capreg/registry/verdict"
)

// Variants: nil and zero receivers, zero receivers of values, each with zero arguments, of every exported method of
// every exported type of the root and of the vocabulary.
func TestRegistry_NilAndZeroValuesNeitherPanicNorHang(t *testing.T) {
	t.Parallel()
	for _, handle := range []any{
		&registry.Registry{}, &registry.Registration{}, &registry.Resolver[testkit.ChatModel]{}, &registry.Lease[testkit.ChatModel]{},
		&registry.Subscription{}, &registry.Orchestrator{}, &registry.Service[testkit.ChatModel]{}, &registry.CallReport{},
		&registry.Attempt{}, &registry.Candidate{}, &registry.Explanation{}, &registry.Query{}, &registry.Info{}, &registry.Definition{},
		&registry.FieldError{}, &registry.UnavailableError{}, &registry.CallError{}, &verdict.PanicError{}, &registry.CallOption{},
		&verdict.Verdict{}, new(verdict.Class), new(health.State), &event.Event{}, &startup.Report{}, &startup.Plan{},
		&selection.Decision{}, &selection.Analytics{}, &health.Overall{}, &selection.Requirements{},
	} {
		callAll(t, reflect.ValueOf(handle))
		if reflect.TypeOf(handle).Elem().Kind() == reflect.Struct && isHandle(handle) {
			callAll(t, reflect.Zero(reflect.TypeOf(handle)))
		}
	}
}

// isHandle reports whether nil pointers of the type are to be safe: those that do something, not those that are data.
func isHandle(value any) bool {
	switch value.(type) {
	case *registry.Registry, *registry.Registration, *registry.Resolver[testkit.ChatModel], *registry.Lease[testkit.ChatModel],
		*registry.Subscription, *registry.Orchestrator:
		return true
	}
	return false
}

// callAll calls every exported method of the receiver with zero arguments.
func callAll(t *testing.T, receiver reflect.Value) {
	t.Helper()
	for i := range receiver.NumMethod() {
		name := fmt.Sprintf("%v (nil: %v).%s", receiver.Type(), receiver.IsNil(), receiver.Type().Method(i).Name)
		method := receiver.Method(i)
		var arguments []reflect.Value
		for n := range method.Type().NumIn() {
			if in := method.Type().In(n); n < method.Type().NumIn()-1 || !method.Type().IsVariadic() {
				arguments = append(arguments, reflect.Zero(in))
			}
		}
		ended := make(chan any, 1)
		go func() {
			defer func() { ended <- recover() }()
			method.Call(arguments)
		}()
		select {
		case value := <-ended:
			if value != nil {
				t.Errorf("%s panics: %.80v", name, value)
			}
		case <-time.After(5 * time.Second):
			t.Errorf("%s hangs", name)
		}
	}
}

func TestRegistry_NilArgumentsAreErrorsOrNothing(t *testing.T) {
	t.Parallel()
	reg := testkit.New(t, registry.Options{})
	testkit.Add(t, reg, testkit.Provider{Name: "a"})
	var none context.Context
	_, err := reg.Subscribe(0).Next(none)
	require.ErrorIs(t, err, registry.ErrInvalid)
	require.Empty(t, registry.IdempotencyKey(none))
	require.NotPanics(t, func() { health.Use(none, "cpu", 1) })
	l, err := testkit.Bind(reg).Acquire(t.Context())
	require.NoError(t, err)
	require.ErrorIs(t, l.Guard(nil), registry.ErrInvalid)
	l.Done(nil)
	require.NoError(t, reg.Close(t.Context()))

	require.NoError(t, (*registry.Registry)(nil).Close(t.Context()))
	_, err = new(registry.Registry).Subscribe(0).Next(t.Context())
	require.ErrorIs(t, err, registry.ErrClosed)
	_, err = new(registry.Orchestrator).Start(t.Context())
	require.ErrorIs(t, err, registry.ErrInvalid)
	require.ErrorIs(t, new(registry.Registry).WaitReady(t.Context()), registry.ErrInvalid)
	require.Equal(t, verdict.Verdict{}, verdict.Of(statuslessError{}))
}

// statuslessError is an error like those of gRPC whose status is nil.
type statuslessError struct{}

func (statuslessError) Error() string                          { return "x" }
func (statuslessError) GRPCStatus() interface{ Code() uint32 } { return nil }

package typed_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/capreg/registry/internal/check"
	"github.com/capreg/registry/internal/typed"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type model interface{ Name() string }

// named is a model that can be probed and closed.
type named struct {
	name   string
	closed error
	closes int
}

func (n *named) Name() string                      { return n.name }
func (n *named) CheckHealth(context.Context) error { return nil }
func (n *named) Close() error                      { n.closes++; return n.closed }

var errBuild = errors.New("build failed")

func refuse(v *check.Violation) error {
	return fmt.Errorf("%s is %s: want %s", v.Field, v.Value, v.Bound)
}

// makes returns a factory of one value.
func makes[T any](value T, err error) func(context.Context) (T, error) {
	return func(context.Context) (T, error) { return value, err }
}

func TestValue_IsTheOneThatTheInstanceWasMadeOf(t *testing.T) {
	n := &named{name: "a"}
	i := typed.Of[model](n)
	require.Same(t, n, typed.Value[model](i))
	require.Equal(t, n, i.Checker)
	require.Nil(t, i.Closer, "the registry closes only what a factory made")
	require.Nil(t, typed.Of(42).Checker)
	require.Panics(t, func() { typed.Value[*named](i) })
	require.Zero(t, testing.AllocsPerRun(100, func() { typed.Value[model](i) }))
}

func TestSource_IsEitherTheValueOrTheFactory(t *testing.T) {
	ctx := t.Context()
	i, build, v := typed.Source[model](&named{name: "a"}, nil, refuse)
	require.Nil(t, v)
	require.Nil(t, build)
	require.Equal(t, "a", typed.Value[model](i).Name())

	i, build, v = typed.Source(nil, makes[model](&named{name: "b"}, nil), refuse)
	require.Nil(t, v)
	require.Nil(t, i)
	made, err := build(ctx)
	require.NoError(t, err)
	require.Equal(t, "b", typed.Value[model](made).Name())
	require.Implements(t, (*io.Closer)(nil), made.Closer, "the registry owns it")

	_, build, v = typed.Source(0, makes(1, nil), refuse) // the zero value is none beside a factory
	require.Nil(t, v)
	require.NotNil(t, build)
}

func TestSource_RefusesBothAndNeither(t *testing.T) {
	_, _, v := typed.Source[model](&named{}, makes[model](nil, nil), refuse)
	require.EqualError(t, refuse(v), "Factory is set: want either Instance or Factory, not both")
	_, _, v = typed.Source[model](nil, nil, refuse)
	require.EqualError(t, refuse(v), "Instance is a nil typed_test.model: want an instance or a Factory")
	_, _, v = typed.Source((*named)(nil), nil, refuse)
	require.Equal(t, "Instance", v.Field)
}

func TestSource_ABuilderFailsWithItsFactoryAndForNil(t *testing.T) {
	_, build, _ := typed.Source(nil, makes[model](nil, errBuild), refuse)
	_, err := build(t.Context())
	require.Equal(t, errBuild, err)
	_, build, _ = typed.Source(nil, makes[model]((*named)(nil), nil), refuse)
	_, err = build(t.Context())
	require.EqualError(t, err, "Factory is making nil: want an instance or an error")
}

func TestBinding_ConvertsWhatWasRegisteredByNameAlone(t *testing.T) {
	n := &named{name: "a"}
	untyped := typed.Of[any](n)
	untyped.Closer = n
	converted, v := typed.Bind[model]().Convert(untyped)
	require.Nil(t, v)
	require.Same(t, n, typed.Value[model](converted))
	require.Equal(t, n, converted.Closer)
	require.Equal(t, n, converted.Checker)

	_, v = typed.Bind[model]().Convert(typed.Of[any](42))
	require.EqualError(t, refuse(v), "Instance is of type int: want a typed_test.model")
	require.Equal(t, "string", typed.Bind[string]().Type.String())
}

func TestBinding_ConvertBuilderClosesAProductOfAnotherType(t *testing.T) {
	errClose := errors.New("close failed")
	for _, closed := range []error{nil, errClose} {
		n := &named{closed: closed}
		_, build, _ := typed.Source(nil, makes[any](n, nil), refuse)
		_, err := typed.Bind[fmt.Stringer]().ConvertBuilder(build, refuse)(t.Context())
		require.ErrorContains(t, err, "Instance is of type *typed_test.named: want a fmt.Stringer")
		require.Equal(t, 1, n.closes)
		if closed != nil {
			require.ErrorIs(t, err, closed)
		}
	}
	_, build, _ := typed.Source(nil, makes[any](42, nil), refuse)
	_, err := typed.Bind[string]().ConvertBuilder(build, refuse)(t.Context())
	require.ErrorContains(t, err, "want a string")
}

func TestBinding_ConvertBuilderKeepsAProductOfItsType(t *testing.T) {
	n := &named{name: "a"}
	_, build, _ := typed.Source(nil, makes[any](n, nil), refuse)
	made, err := typed.Bind[model]().ConvertBuilder(build, refuse)(t.Context())
	require.NoError(t, err)
	require.Same(t, n, typed.Value[model](made))
	require.Zero(t, n.closes)

	_, build, _ = typed.Source(nil, makes[any](nil, errBuild), refuse)
	_, err = typed.Bind[model]().ConvertBuilder(build, refuse)(t.Context())
	require.Equal(t, errBuild, err)
}

func TestInstance_IsTheSameAsOneOfAnEqualValue(t *testing.T) {
	t.Parallel()
	one, other := new(int), new(int)
	require.True(t, typed.Of(one).Same(typed.Of(one)))
	require.True(t, typed.Of[any](one).Same(typed.Of(one)), "whatever type it was given as")
	require.False(t, typed.Of(one).Same(typed.Of(other)))
	require.False(t, typed.Of(one).Same(nil))
	require.False(t, typed.Of([]int{1}).Same(typed.Of([]int{1})), "they cannot be compared")
	require.Nil(t, (*typed.Instance)(nil).Untyped())
}

func TestKeep_FillsInWhatIsNotGiven(t *testing.T) {
	t.Parallel()
	failed := errors.New("failed")
	_, build, v := typed.Source("", func(context.Context) (string, error) { return "made", nil }, nil)
	require.Nil(t, v)
	_, fails, _ := typed.Source("", func(context.Context) (string, error) { return "", failed }, nil)
	type factory = func(context.Context) (any, error)

	var value any
	var again factory
	typed.Keep(&value, &again, typed.Of("kept"), nil)
	require.Equal(t, "kept", value)
	typed.Keep(&value, &again, typed.Of("another"), build)
	require.Equal(t, "kept", value, "it is given")
	require.Nil(t, again)

	value = nil
	typed.Keep(&value, &again, typed.Of("made before"), build)
	made, err := again(t.Context())
	require.NoError(t, err)
	require.Equal(t, "made", made)
	typed.Keep(&value, &again, nil, fails)
	require.Nil(t, value)
	again = nil
	typed.Keep(&value, &again, nil, fails)
	made, err = again(t.Context())
	require.ErrorIs(t, err, failed)
	require.Nil(t, made)
}

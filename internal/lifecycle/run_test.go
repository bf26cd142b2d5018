package lifecycle_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry/startup"
)

func TestRun_EndsWithItsContext(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		var j journal
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		require.NoError(t, build(t, startup.Options{}, j.component("a", time.Second)).Run(ctx))
		require.Equal(t, []string{"+a", "-a"}, j.all())
	})
}

func TestRun_EndsWhenACriticalComponentFails(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		var j journal
		require.ErrorIs(t, build(t, startup.Options{}, j.ending("a", time.Second, startup.Restart{}), j.component("b", 0)).Run(t.Context()), errBroken)
		require.ElementsMatch(t, []string{"+a", "+b", "-b", "-a"}, j.all())
		require.ErrorIs(t, build(t, startup.Options{}, broken("c")).Run(t.Context()), errBroken)
	})
}

func TestRun_EndsWithAStop(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		e := build(t, startup.Options{}, component{Name: "a", Stop: func(context.Context) error { return errBroken }})
		done := make(chan error, 1)
		go func() { done <- e.Run(t.Context()) }()
		pass(time.Second)
		require.ErrorIs(t, e.Stop(t.Context()), errBroken)
		require.ErrorIs(t, <-done, errBroken)
	})
}

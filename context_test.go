package registry_test

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
)

type contextKey struct{}

// within runs test inside the function of a call of a provider that has the
// given attempt timeout.
func within(t *testing.T, timeout time.Duration, test func(t *testing.T, caller, attempt context.Context)) {
	t.Helper()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		t.Helper()
		add(t, reg, provider{Name: "a", AttemptTimeout: timeout})
		caller := context.WithValue(t.Context(), contextKey{}, "value")
		_, err := registry.Call(caller, bind(reg), func(ctx context.Context, _ chatModel) (int, error) {
			test(t, caller, ctx)
			return 0, nil
		})
		require.NoError(t, err)
	})
}

func TestAttemptHasTheValuesAndTheSoonerDeadline(t *testing.T) {
	t.Parallel()
	within(t, time.Second, func(t *testing.T, _, ctx context.Context) {
		t.Helper()
		require.Equal(t, "value", ctx.Value(contextKey{}), "before it is armed")
		deadline, ok := ctx.Deadline()
		require.True(t, ok)
		require.Equal(t, time.Second, time.Until(deadline))
		require.NoError(t, ctx.Err())
		require.Equal(t, "value", ctx.Value(contextKey{}), "after")
	})
}

func TestAttemptWithoutTimeoutGetsTheCallersContextItself(t *testing.T) {
	t.Parallel()
	within(t, registry.NoTimeout, func(t *testing.T, caller, attempt context.Context) {
		t.Helper()
		require.Equal(t, caller, attempt)
	})
}

func TestContextsDerivedFromAnAttemptEndWithIt(t *testing.T) {
	t.Parallel()
	within(t, time.Second, func(t *testing.T, _, ctx context.Context) {
		t.Helper()
		derived, cancel := context.WithCancel(ctx)
		defer cancel()
		deadline, stop := context.WithTimeout(derived, time.Hour)
		defer stop()
		time.Sleep(time.Second)
		synctest.Wait()
		require.ErrorIs(t, derived.Err(), context.DeadlineExceeded)
		require.ErrorIs(t, context.Cause(deadline), registry.ErrAttemptTimeout)
		require.ErrorIs(t, ctx.Err(), context.DeadlineExceeded)
	})
}

func TestContextOfAnAttemptThatIsOverHasEnded(t *testing.T) {
	t.Parallel()
	for name, asksBefore := range map[string]bool{"asked before": true, "asked only afterwards": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
				add(t, reg, provider{Name: "a"})
				var kept context.Context
				_, err := registry.Call(t.Context(), bind(reg), func(ctx context.Context, _ chatModel) (int, error) {
					kept = ctx //nolint:fatcontext // what a careless user does
					if asksBefore {
						require.NoError(t, ctx.Err())
					}
					return 0, nil
				})
				require.NoError(t, err)
				<-kept.Done()
				require.Equal(t, context.Canceled, kept.Err())
				require.EqualError(t, context.Cause(kept), "attempt is over: context canceled")
				derived, cancel := context.WithCancel(kept)
				defer cancel()
				<-derived.Done()
			})
		})
	}
}

func TestContextMayBeAskedFromManyGoroutinesWhileTheAttemptEnds(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		add(t, reg, provider{Name: "a"})
		var listeners sync.WaitGroup
		for range 50 {
			_, err := registry.Call(t.Context(), bind(reg), func(ctx context.Context, _ chatModel) (int, error) {
				for range 4 {
					listeners.Go(func() { <-ctx.Done() })
				}
				return 0, nil
			})
			require.NoError(t, err)
		}
		listeners.Wait()
	})
}

func TestCallerThatEndsIsToldFromTheAttemptThatEnds(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		add(t, reg, provider{Name: "a", AttemptTimeout: time.Minute})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		var cause error
		_, err := registry.Call(ctx, bind(reg), func(ctx context.Context, _ chatModel) (int, error) {
			<-ctx.Done()
			cause = context.Cause(ctx)
			return 0, ctx.Err()
		})
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.NotErrorIs(t, cause, registry.ErrAttemptTimeout)
	})
}

func TestContextThatHasRunOutOfTimeSaysSoAlsoWhenItsProviderIsRemoved(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a := add(t, reg, provider{Name: "a", AttemptTimeout: time.Second})
		var cause error
		var caller sync.WaitGroup
		caller.Go(func() {
			_, err := registry.Call(t.Context(), bind(reg), func(ctx context.Context, _ chatModel) (int, error) {
				<-ctx.Done()
				time.Sleep(10 * time.Second) // it takes its time
				cause = context.Cause(ctx)
				return 0, ctx.Err()
			})
			require.ErrorIs(t, err, registry.ErrAttemptTimeout)
		})
		synctest.Wait()
		drain, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		require.ErrorIs(t, a.Unregister(drain), registry.ErrStuck)
		caller.Wait()
		require.ErrorIs(t, cause, registry.ErrAttemptTimeout)
		require.NotErrorIs(t, cause, registry.ErrClosed)
	})
}

func TestRemovedProviderTellsItsAttemptsAtTheEndOfTheDrain(t *testing.T) {
	t.Parallel()
	for name, asksBefore := range map[string]bool{"waiting": true, "asking afterwards": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
				a := add(t, reg, provider{Name: "a", AttemptTimeout: time.Hour})
				add(t, reg, provider{Name: "b"})
				var cause error
				var caller sync.WaitGroup
				caller.Go(func() {
					answer, err := registry.Call(t.Context(), bind(reg), func(ctx context.Context, m chatModel) (string, error) {
						if answer, _ := m.Chat(ctx, "?"); answer == "b" {
							return answer, nil
						}
						if !asksBefore {
							time.Sleep(3 * time.Second)
						}
						derived, stop := context.WithCancel(ctx)
						defer stop()
						<-derived.Done()
						cause = context.Cause(ctx)
						require.Equal(t, context.Canceled, ctx.Err())
						require.Equal(t, context.Canceled, derived.Err())
						return "", ctx.Err()
					})
					require.NoError(t, err, "the call moves on")
					require.Equal(t, "b", answer)
				})
				synctest.Wait()
				drain, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				err := a.Unregister(drain)
				if asksBefore {
					require.NoError(t, err, "it heeded its context")
				} else {
					require.ErrorIs(t, err, registry.ErrStuck)
					require.ErrorIs(t, err, context.DeadlineExceeded)
					require.ErrorContains(t, err, `provider "a": still running: 1 call in flight`)
				}
				caller.Wait()
				require.ErrorIs(t, cause, registry.ErrClosed)
				require.NoError(t, a.Unregister(t.Context()), "now it has ended")
				requireCounts(t, a, 0, 0, 1, 0)
			})
		})
	}
}

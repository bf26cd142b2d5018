package registry_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/internal/testkit"
	"github.com/capreg/registry/verdict"
)

func TestOnceOnly_NeverRunsTwice(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		testkit.Add(t, reg, testkit.Provider{Name: "a", Instance: testkit.Fails(testkit.ErrDown)})
		b := testkit.Add(t, reg, testkit.Provider{Name: "b"})
		_, err := testkit.Ask(t.Context(), testkit.Bind(reg), registry.OnceOnly())
		require.ErrorIs(t, err, testkit.ErrDown)
		require.Zero(t, b.Info().Attempts)
	})
}

func TestOnceOnly_ErrorSaysWhyOthersWereNotTried(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		testkit.Add(t, reg, testkit.Provider{Name: "a", Instance: testkit.Fails(testkit.ErrDown)})
		testkit.Add(t, reg, testkit.Provider{Name: "b"})
		_, err := testkit.Ask(t.Context(), testkit.Bind(reg), registry.OnceOnly())
		require.ErrorContains(t, err, "not tried elsewhere: once only")
	})
}

func TestOnceOnly_FailsOverBeforeFunctionRuns(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		open := testkit.Add(t, reg, testkit.Provider{Name: "open"})
		ill := testkit.Add(t, reg, testkit.Provider{Name: "ill"})
		testkit.Add(t, reg, testkit.Provider{Name: "unmade", Factory: func(context.Context) (testkit.ChatModel, error) { return nil, testkit.ErrDown }})
		testkit.Add(t, reg, testkit.Provider{Name: "b"})
		require.NoError(t, open.ForceOpen(time.Hour, "test"))
		require.NoError(t, ill.MarkUnhealthy(testkit.ErrDown))
		require.Equal(t, "b", testkit.MustAsk(t, testkit.Bind(reg), registry.OnceOnly()))
	})
}

func TestOnceOnly_FailsOverWhenNothingWasSent(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a := testkit.Add(t, reg, testkit.Provider{Name: "a", Instance: testkit.Fails(verdict.NotSent(testkit.ErrDown))})
		testkit.Add(t, reg, testkit.Provider{Name: "b"})
		require.Equal(t, "b", testkit.MustAsk(t, testkit.Bind(reg), registry.OnceOnly()))
		testkit.RequireCounts(t, a, 0, 1, 0, 0)
	})
}

func TestOnceOnly_NotSentInTimeFailsOver(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		testkit.Add(t, reg, testkit.Provider{Name: "a", AttemptTimeout: time.Second, Instance: testkit.ChatFunc(func(ctx context.Context, _ string) (string, error) {
			<-ctx.Done() // a dial into a black hole
			return "", verdict.NotSent(ctx.Err())
		})})
		testkit.Add(t, reg, testkit.Provider{Name: "b"})
		got, err := testkit.Ask(t.Context(), testkit.Bind(reg), registry.OnceOnly())
		require.NoError(t, err)
		require.Equal(t, "b", got)
	})
}

func TestOnceOnly_HasWholeDeadline(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		slow := testkit.ChatFunc(func(ctx context.Context, _ string) (string, error) {
			select {
			case <-time.After(6 * time.Second):
				return "ok", nil
			case <-ctx.Done():
				return "", ctx.Err()
			}
		})
		testkit.Add(t, reg, testkit.Provider{Name: "a", Instance: slow})
		testkit.Add(t, reg, testkit.Provider{Name: "b", Instance: slow})
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		_, err := testkit.Ask(ctx, testkit.Bind(reg), registry.OnceOnly())
		require.NoError(t, err)
	})
}

func TestOnceOnly_ErrorIsNotAboutUntriedProviders(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		testkit.Add(t, reg, testkit.Provider{Name: "a", Instance: testkit.Fails(verdict.Fatal(testkit.ErrDown, 0))})
		testkit.Add(t, reg, testkit.Provider{Name: "b"})
		_, err := testkit.Ask(t.Context(), testkit.Bind(reg), registry.OnceOnly())
		require.NotErrorIs(t, err, registry.ErrCredentials)
	})
}

func TestOnceOnly_RateLimitErrorHasDelay(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		testkit.Add(t, reg, testkit.Provider{Name: "a", Instance: testkit.Fails(verdict.RateLimited(testkit.ErrDown, 10*time.Second))})
		_, err := testkit.Ask(t.Context(), testkit.Bind(reg), registry.OnceOnly())
		var c *registry.CallError
		require.ErrorAs(t, err, &c)
		require.Positive(t, c.RetryIn, "fail at once with the delay in the error")
	})
}

func TestOnceOnly_DoesNotWaitAfterRefusal(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a := testkit.Add(t, reg, testkit.Provider{Name: "a", Instance: testkit.Fails(verdict.RateLimited(testkit.ErrDown, time.Second))})
		_, err := testkit.Ask(t.Context(), testkit.Bind(reg), registry.WaitForCooldown(), registry.OnceOnly())
		require.ErrorIs(t, err, testkit.ErrDown)
		testkit.RequireCounts(t, a, 0, 0, 0, 1)
		_, err = testkit.Ask(t.Context(), testkit.Bind(reg), registry.WaitForCooldown(), registry.OnceOnly())
		require.ErrorIs(t, err, testkit.ErrDown, "not entered yet, it may wait")
		testkit.RequireCounts(t, a, 0, 0, 0, 2)
	})
}

func TestOnceOnly_RetriesOnlyWhenNothingWasSent(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		retry := registry.RetryPolicy{Retries: 3}
		a := testkit.Add(t, reg, testkit.Provider{Name: "a", Instance: testkit.FailsTimes(2, "a", verdict.NotSent(testkit.ErrDown)), Retry: retry})
		require.Equal(t, "a", testkit.MustAsk(t, testkit.Bind(reg), registry.OnceOnly()))
		testkit.RequireCounts(t, a, 1, 2, 0, 0)
		require.NoError(t, a.Unregister(t.Context()))
		b := testkit.Add(t, reg, testkit.Provider{Name: "b", Instance: testkit.Fails(testkit.ErrDown), Retry: retry})
		_, err := testkit.Ask(t.Context(), testkit.Bind(reg), registry.OnceOnly())
		require.ErrorContains(t, err, "once only")
		testkit.RequireCounts(t, b, 0, 1, 0, 0)
	})
}

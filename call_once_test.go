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

// A key that is dead, a rate, a refusal for lack of a right: nothing was processed, so that the next one is asked.
// Variants: every class whose rule says so (TestScenario_EveryVerdictRowHoldsForCalls), leases, statuses.
func TestOnceOnly_MovesOnWhereNothingWasProcessed(t *testing.T) {
	t.Parallel()
	for name, err := range map[string]error{
		"dead key": verdict.Fatal(testkit.ErrDown, 0), "rate": verdict.RateLimited(testkit.ErrDown, 0), "cannot": verdict.Cannot(testkit.ErrDown),
		"429": testkit.StatusError{Code: 429}, "401": testkit.StatusError{Code: 401}, "403": testkit.StatusError{Code: 403},
		"421": testkit.StatusError{Code: 421}, "425": testkit.StatusError{Code: 425}, "501": testkit.StatusError{Code: 501},
	} {
		testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
			a := testkit.Add(t, reg, testkit.Provider{Name: "a", Instance: testkit.Fails(err)})
			testkit.Add(t, reg, testkit.Provider{Name: "b"})
			text, failure := testkit.Ask(t.Context(), testkit.Bind(reg), registry.OnceOnly())
			require.NoError(t, failure, name)
			require.Equal(t, "b", text, name)
			require.Zero(t, a.Breaker().ConsecutiveFailures, name)
			require.NoError(t, a.Reset())
			lease, failure := testkit.Bind(reg).Acquire(t.Context(), registry.OnceOnly())
			require.NoError(t, failure)
			next, failure := lease.MoveOn(err)
			require.NoError(t, failure, name)
			require.Equal(t, "b", next.Provider(), name)
			next.Done(nil)
		})
	}
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

func TestOnceOnly_WaitsAfterARefusalThatProcessedNothing(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a := testkit.Add(t, reg, testkit.Provider{Name: "a", Instance: testkit.FailsTimes(1, "a", verdict.RateLimited(testkit.ErrDown, time.Second))})
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		text, err := testkit.Ask(ctx, testkit.Bind(reg), registry.WaitForCooldown(), registry.OnceOnly())
		require.NoError(t, err)
		require.Equal(t, "a", text)
		testkit.RequireCounts(t, a, 1, 0, 0, 1)
	})
}

// Of a server that is overloaded it is not known that it has done nothing.
func TestOnceOnly_DoesNotWaitAfterOverload(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a := testkit.Add(t, reg, testkit.Provider{Name: "a", Instance: testkit.Fails(testkit.StatusError{Code: 529})})
		b := testkit.Add(t, reg, testkit.Provider{Name: "b"})
		_, err := testkit.Ask(t.Context(), testkit.Bind(reg), registry.WaitForCooldown(), registry.OnceOnly())
		require.Error(t, err)
		testkit.RequireCounts(t, a, 0, 0, 0, 1)
		testkit.RequireCounts(t, b, 0, 0, 0, 0)
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

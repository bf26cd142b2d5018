package registry_test

import (
	"context"
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/event"
	"github.com/capreg/registry/internal/testkit"
	"github.com/capreg/registry/reason"
	"github.com/capreg/registry/status"
	"github.com/capreg/registry/verdict"
)

func TestRetry_ComesBeforeFailover(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		retry := registry.RetryPolicy{Retries: 2}
		a := testkit.Add(t, reg, testkit.Provider{Name: "a", Instance: testkit.FailsTimes(2, "a", testkit.ErrDown), Retry: retry})
		b := testkit.Add(t, reg, testkit.Provider{Name: "b"})
		var report registry.CallReport
		require.Equal(t, "a", testkit.MustAsk(t, testkit.Bind(reg), registry.ReportTo(&report)))
		testkit.RequireCounts(t, a, 1, 2, 0, 0)
		testkit.RequireCounts(t, b, 0, 0, 0, 0)
		why := []reason.Why{report.Attempts[0].Why, report.Attempts[1].Why, report.Attempts[2].Why}
		require.Equal(t, []reason.Why{reason.First, reason.Retry, reason.Retry}, why)

		require.NoError(t, a.Unregister(t.Context()))
		a = testkit.Add(t, reg, testkit.Provider{Name: "a", Instance: testkit.Fails(testkit.ErrDown), Retry: retry, Priority: registry.PriorityHigh})
		require.Equal(t, "b", testkit.MustAsk(t, testkit.Bind(reg)))
		testkit.RequireCounts(t, a, 0, 3, 0, 0)
	})
}

func TestRetry_DelaysGrowRandomlyUpToBound(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		testkit.Add(t, reg, testkit.Provider{Name: "a", Instance: testkit.Fails(testkit.ErrDown), Breaker: testkit.NeverOpens(), Retry: registry.RetryPolicy{
			Retries: 4, FirstDelay: time.Second, MaxDelay: 3 * time.Second, Budget: 1 << 20,
		}})
		longest := make([]time.Duration, 5)
		shortest := []time.Duration{0, time.Hour, time.Hour, time.Hour, time.Hour}
		for range 200 {
			var report registry.CallReport
			_, err := testkit.Ask(t.Context(), testkit.Bind(reg), registry.ReportTo(&report))
			require.Error(t, err)
			require.Len(t, report.Attempts, 5)
			for i, a := range report.Attempts {
				longest[i], shortest[i] = max(longest[i], a.Delay), min(shortest[i], a.Delay)
			}
		}
		for i, bound := range []time.Duration{0, time.Second, 2 * time.Second, 3 * time.Second, 3 * time.Second} {
			require.LessOrEqual(t, longest[i], bound)
			require.GreaterOrEqual(t, longest[i], bound*8/10)
			require.LessOrEqual(t, shortest[i], bound*2/10, "down to nothing: full jitter")
		}
	})
}

func TestRetry_StopsWhenBreakerOpens(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a := testkit.Add(t, reg, testkit.Provider{
			Name: "a", Instance: testkit.Fails(testkit.ErrDown), Retry: registry.RetryPolicy{Retries: 50},
			Breaker: registry.BreakerPolicy{FailureThreshold: 3},
		})
		_, err := testkit.Ask(t.Context(), testkit.Bind(reg))
		require.ErrorIs(t, err, testkit.ErrDown)
		testkit.RequireCounts(t, a, 0, 3, 0, 0)
	})
}

func TestRetry_UsesDelayOfServer(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		busy := verdict.As(testkit.ErrDown, verdict.Verdict{Class: verdict.ClassTransport, After: 7 * time.Second})
		retry := registry.RetryPolicy{Retries: 1, MaxDelay: time.Second}
		a := testkit.Add(t, reg, testkit.Provider{Name: "a", Instance: testkit.FailsTimes(1, "a", busy), Retry: retry})
		began := time.Now()
		require.Equal(t, "a", testkit.MustAsk(t, testkit.Bind(reg)))
		require.InDelta(t, 7350*time.Millisecond, time.Since(began), float64(360*time.Millisecond))

		require.NoError(t, a.Unregister(t.Context()))
		testkit.Add(t, reg, testkit.Provider{Name: "c", Instance: testkit.Fails(busy), Retry: retry})
		testkit.Add(t, reg, testkit.Provider{Name: "d"})
		began = time.Now()
		require.Equal(t, "d", testkit.MustAsk(t, testkit.Bind(reg)), "rather than wait, with another provider left")
		require.Equal(t, began, time.Now())
	})
}

func TestRetry_SkipsDelayBeyondDeadline(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		// Every delay but a handful of nanoseconds is longer than the deadline.
		retry := registry.RetryPolicy{Retries: 3, FirstDelay: 1e4 * time.Hour, MaxDelay: 1e4 * time.Hour}
		testkit.Add(t, reg, testkit.Provider{Name: "a", Instance: testkit.Fails(testkit.ErrDown), Retry: retry})
		testkit.Add(t, reg, testkit.Provider{Name: "b"})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		began := time.Now()
		answer, err := testkit.Ask(ctx, testkit.Bind(reg))
		require.NoError(t, err)
		require.Equal(t, "b", answer)
		require.Equal(t, began, time.Now())
	})
}

func TestRetry_OnlyForRetryableClasses(t *testing.T) {
	t.Parallel()
	for _, class := range verdict.Classes() {
		t.Run(class.String(), func(t *testing.T) {
			t.Parallel()
			testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
				a := testkit.Add(t, reg, testkit.Provider{
					Name: "a", Instance: testkit.Fails(verdict.As(testkit.ErrDown, verdict.Verdict{Class: class})), Breaker: testkit.NeverOpens(),
					Retry: registry.RetryPolicy{Retries: 1},
				})
				_, err := testkit.Ask(t.Context(), testkit.Bind(reg))
				require.ErrorIs(t, err, testkit.ErrDown)
				want := uint64(1)
				if class.Rule().RetryHere == verdict.RetryYes {
					want = 2
				}
				require.Equal(t, want, a.Info().Attempts)
			})
		})
	}
}

func TestRetry_BudgetBoundsRetriesAndFailover(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		testkit.Add(t, reg, testkit.Provider{Name: "a", Instance: testkit.Fails(testkit.ErrDown), Breaker: testkit.NeverOpens()})
		b := testkit.Add(t, reg, testkit.Provider{Name: "b", Instance: testkit.Fails(testkit.ErrDown), Breaker: testkit.NeverOpens(), Retry: registry.RetryPolicy{Retries: 5}})
		c := testkit.Add(t, reg, testkit.Provider{Name: "c"})
		for range 100 {
			require.Equal(t, "c", testkit.MustAsk(t, testkit.Bind(reg)), "the outage of others never keeps calls from a provider that answers")
		}
		require.LessOrEqual(t, b.Info().Attempts, uint64(5+60), "half of its budget, and a few a second")
		testkit.RequireCounts(t, c, 100, 0, 0, 0)
		require.NoError(t, c.Unregister(t.Context()))
		_, err := testkit.Ask(t.Context(), testkit.Bind(reg))
		require.ErrorIs(t, err, testkit.ErrDown, "the error that there is")
		require.ErrorIs(t, err, registry.ErrAtCapacity)
		require.ErrorContains(t, err, "b: budget for further attempts spent")
	})
}

func TestRetry_ClosingBreakerRefillsBudget(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		testkit.Add(t, reg, testkit.Provider{Name: "a", Instance: testkit.Fails(testkit.ErrDown), Breaker: testkit.NeverOpens()})
		sick := true
		b := testkit.Add(t, reg, testkit.Provider{Name: "b", Group: 1, Instance: testkit.Answers(func() (string, error) {
			if sick {
				return "", testkit.ErrDown
			}
			return "b", nil
		})})
		for b.Breaker().State != status.BreakerOpen {
			_, _ = testkit.Ask(t.Context(), testkit.Bind(reg))
		}
		sick = false
		testkit.Pass(time.Minute + 1)
		for range 50 { // the trials, and then at any speed
			require.Equal(t, "b", testkit.MustAsk(t, testkit.Bind(reg)))
		}
	})
}

func TestSetRetry_ChangesAtRunTime(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a := testkit.Add(t, reg, testkit.Provider{Name: "a", Instance: testkit.Fails(testkit.ErrDown), Breaker: testkit.NeverOpens()})
		events := reg.Subscribe(0)
		previous, err := a.SetRetry(registry.RetryPolicy{Retries: 2})
		require.NoError(t, err)
		require.Equal(t, registry.RetryPolicy{
			FirstDelay: 200 * time.Millisecond, MaxDelay: 5 * time.Second, Budget: 10, Refund: 0.1, Floor: 0.5,
		}, previous)
		require.Equal(t, []event.Kind{event.Changed}, testkit.Kinds(t, events))
		_, err = testkit.Ask(t.Context(), testkit.Bind(reg))
		require.Error(t, err)
		testkit.RequireCounts(t, a, 0, 3, 0, 0)
		_, err = a.SetRetry(registry.RetryPolicy{Retries: -1})
		require.ErrorIs(t, err, registry.ErrInvalid)
	})
}

func TestRetry_TotalOutageIsNotAmplified(t *testing.T) {
	t.Parallel()
	for name, breaker := range map[string]registry.BreakerPolicy{"default breakers": {}, "breakers that never open": testkit.NeverOpens()} {
		busy, quiet := testkit.AttemptsPerCall(t, 50, breaker), testkit.AttemptsPerCall(t, 1, breaker)
		t.Logf("%s: %.3f attempts for each of 50 calls a second, %.2f for one a second", name, busy, quiet)
		require.LessOrEqual(t, busy, 1.1, name)
		require.LessOrEqual(t, quiet, 3.5, name)
		require.Positive(t, quiet)
	}
}

func TestRetryPolicy_BoundsAreInclusive(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		p := testkit.Add(t, reg, testkit.Provider{Name: "p"})
		for _, good := range []registry.RetryPolicy{
			{Retries: 100},
			{Refund: 0.001},
			{Refund: 1},
			{FirstDelay: time.Hour},
			{FirstDelay: time.Second, MaxDelay: time.Second},
			{Budget: 1<<31 - 1},
			{Floor: 1<<31 - 1},
		} {
			_, err := p.SetRetry(good)
			require.NoError(t, err, "%+v", good)
		}
		for _, bad := range []registry.RetryPolicy{
			{Retries: 101}, {Refund: 0.0009}, {Refund: 1.001}, {FirstDelay: time.Second, MaxDelay: time.Second - 1}, {Budget: testkit.BeyondInt32()}, {Floor: 1 << 31},
		} {
			_, err := p.SetRetry(bad)
			require.ErrorIs(t, err, registry.ErrInvalid, "%+v", bad)
		}
		previous, err := p.SetRetry(registry.RetryPolicy{FirstDelay: time.Minute})
		require.NoError(t, err)
		require.InDelta(t, float64(1<<31-1), previous.Floor, 0.5)
		previous, err = p.SetRetry(registry.RetryPolicy{})
		require.NoError(t, err)
		require.Equal(t, time.Minute, previous.MaxDelay, "at least the first one")
	})
}

func TestRetryPolicy_LongestDelayDoesNotOverflow(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		_, err := testkit.Chat.Register(t.Context(), reg, testkit.Provider{Name: "a", Instance: testkit.Fails(testkit.ErrDown), Retry: registry.RetryPolicy{Retries: 1, FirstDelay: math.MaxInt64, MaxDelay: math.MaxInt64}})
		if err != nil {
			return
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		require.NotPanics(t, func() { _, _ = testkit.Ask(ctx, testkit.Bind(reg)) })
	})
}

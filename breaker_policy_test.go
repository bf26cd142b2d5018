package registry_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/internal/testkit"
	"github.com/capreg/registry/status"
)

func TestBreaker_FailureRateOpensAboveMinimumOfCalls(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		model, next := testkit.Settable()
		a := testkit.Add(t, reg, testkit.Provider{Name: "a", Instance: model, Breaker: registry.BreakerPolicy{FailureRate: 0.5, MinimumCalls: 10}})
		r := testkit.Bind(reg)
		for i := range 9 { // all the same failures in a row: no rule looks at them
			next(testkit.ErrDown)
			_, err := testkit.Ask(t.Context(), r)
			require.ErrorIs(t, err, testkit.ErrDown, i)
		}
		require.Equal(t, status.BreakerClosed, a.Breaker().State)
		next(nil)
		testkit.MustAsk(t, r)
		require.Equal(t, status.BreakerClosed, a.Breaker().State, "a success opens nothing")
		next(testkit.ErrDown)
		_, _ = testkit.Ask(t.Context(), r)
		require.Equal(t, status.BreakerOpen, a.Breaker().State)
		require.Equal(t, "10 of 11 outcomes failures within 30s", a.Breaker().Reason)
	})
}

func TestBreaker_FailureRateSeesPartialOutages(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		model, next := testkit.Settable()
		a := testkit.Add(t, reg, testkit.Provider{Name: "a", Instance: model, Breaker: registry.BreakerPolicy{FailureRate: 0.3}})
		for i := range 100_000 { // healthy for long: that must not dilute it
			_ = i
			if a.Breaker().State != status.BreakerClosed {
				break
			}
			next(nil)
			testkit.MustAsk(t, testkit.Bind(reg))
		}
		testkit.Pass(time.Minute)
		calls := 0
		for a.Breaker().State == status.BreakerClosed {
			calls++
			next(nil)
			if calls%3 == 0 {
				next(testkit.ErrDown)
			}
			_, _ = testkit.Ask(t.Context(), testkit.Bind(reg))
		}
		require.LessOrEqual(t, calls, 24)
	})
}

func TestBreaker_FailuresLongerThanWindowCountAtTheirEnd(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		slow := testkit.Answers(func() (string, error) {
			time.Sleep(19 * time.Second)
			return "", testkit.ErrDown
		})
		policy := registry.BreakerPolicy{FailureRate: 0.5, Window: 10 * time.Second, MinimumCalls: 5}
		a := testkit.Add(t, reg, testkit.Provider{Name: "a", Instance: slow, Breaker: policy})
		var callers sync.WaitGroup
		for range 5 {
			callers.Go(func() { _, _ = testkit.Ask(context.Background(), testkit.Bind(reg)) })
		}
		callers.Wait()
		require.Equal(t, status.BreakerOpen, a.Breaker().State)
	})
}

func TestBreaker_OldFailuresLeaveWindow(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		model, next := testkit.Settable()
		a := testkit.Add(t, reg, testkit.Provider{Name: "a", Instance: model, Breaker: registry.BreakerPolicy{FailureRate: 0.5, MinimumCalls: 10}})
		next(testkit.ErrDown)
		for range 8 {
			_, _ = testkit.Ask(t.Context(), testkit.Bind(reg))
		}
		testkit.Pass(time.Minute)
		for range 8 {
			_, _ = testkit.Ask(t.Context(), testkit.Bind(reg))
		}
		require.Equal(t, status.BreakerClosed, a.Breaker().State)
	})
}

func TestBreaker_ResetClearsWindow(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		p := testkit.Add(t, reg, testkit.Provider{Name: "p", Instance: testkit.Fails(testkit.ErrDown), Breaker: registry.BreakerPolicy{FailureRate: 0.5, MinimumCalls: 4}})
		for range 2 {
			for range 3 {
				_, err := testkit.Ask(t.Context(), testkit.Bind(reg))
				require.ErrorIs(t, err, testkit.ErrDown)
			}
			require.Equal(t, status.BreakerClosed, p.Breaker().State)
			require.NoError(t, p.Reset())
		}
		testkit.Trip(t, testkit.Bind(reg), p)
	})
}

func TestBreaker_SlowRateOpensOnSlowAnswers(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		delay := 3 * time.Second
		model := testkit.Answers(func() (string, error) {
			time.Sleep(delay)
			return "a", nil
		})
		policy := registry.BreakerPolicy{SlowRate: 0.8, SlowAfter: 2 * time.Second, MinimumCalls: 5, SuccessThreshold: 1}
		a := testkit.Add(t, reg, testkit.Provider{Name: "a", Instance: model, Breaker: policy})
		for range 4 {
			require.Equal(t, "a", testkit.MustAsk(t, testkit.Bind(reg)))
		}
		require.Equal(t, status.BreakerClosed, a.Breaker().State)
		require.Equal(t, "a", testkit.MustAsk(t, testkit.Bind(reg)), "the answer is an answer")
		require.Equal(t, status.BreakerOpen, a.Breaker().State)
		require.Equal(t, "5 of 5 outcomes slow within 30s", a.Breaker().Reason)
		testkit.RequireCounts(t, a, 5, 0, 0, 0)

		testkit.Pass(time.Minute + 1)
		testkit.MustAsk(t, testkit.Bind(reg))
		require.Equal(t, status.BreakerOpen, a.Breaker().State, "a slow trial is a failed one")
		delay = time.Second
		testkit.Pass(time.Minute + 1)
		testkit.MustAsk(t, testkit.Bind(reg))
		require.Equal(t, status.BreakerClosed, a.Breaker().State)
	})
}

func TestBreaker_SlowAnswersDoNotCountWithoutSlowRate(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a := testkit.Add(t, reg, testkit.Provider{Name: "a", Instance: testkit.Takes("a", 29*time.Second)})
		for range 50 {
			testkit.MustAsk(t, testkit.Bind(reg))
		}
		require.Equal(t, status.BreakerClosed, a.Breaker().State)
	})
}

func TestBreaker_RatesCombineWithFailuresInARow(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a := testkit.Add(t, reg, testkit.Provider{Name: "a", Instance: testkit.Fails(testkit.ErrDown), Breaker: registry.BreakerPolicy{FailureRate: 1, FailureThreshold: 3}})
		testkit.Trip(t, testkit.Bind(reg), a)
		testkit.RequireCounts(t, a, 0, 3, 0, 0)
	})
}

func TestBreaker_OpenTimeGrowsUpToCapUntilClosed(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		model, next := testkit.Settable()
		next(testkit.ErrDown)
		a := testkit.Add(t, reg, testkit.Provider{Name: "a", Instance: model, Breaker: registry.BreakerPolicy{
			FailureThreshold: 1, SuccessThreshold: 1, RecoveryTimeout: 10 * time.Second, RecoveryGrowth: 2, MaxRecoveryTimeout: 60 * time.Second,
		}})
		for _, seconds := range []int{10, 20, 40, 60, 60} {
			_, err := testkit.Ask(t.Context(), testkit.Bind(reg))
			require.ErrorIs(t, err, testkit.ErrDown)
			length := time.Duration(seconds) * time.Second
			require.Equal(t, length, a.Breaker().RetryIn)
			testkit.Pass(length)
			require.Equal(t, status.BreakerOpen, a.Breaker().State)
			testkit.Pass(1)
			require.Equal(t, status.BreakerHalfOpen, a.Breaker().State)
		}
		next(nil)
		testkit.MustAsk(t, testkit.Bind(reg))
		next(testkit.ErrDown)
		_, _ = testkit.Ask(t.Context(), testkit.Bind(reg))
		require.Equal(t, 10*time.Second, a.Breaker().RetryIn, "it has closed in between")
	})
}

func TestBreaker_OpenTimeGrowthIsTenfoldByDefault(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		p := testkit.Add(t, reg, testkit.Provider{Name: "p", Breaker: registry.BreakerPolicy{RecoveryTimeout: 3 * time.Second, RecoveryGrowth: 2}})
		require.Equal(t, 30*time.Second, p.Breaker().Policy.MaxRecoveryTimeout)
		_, err := p.SetBreakerPolicy(registry.BreakerPolicy{RecoveryTimeout: 3 * time.Second, RecoveryGrowth: 2, MaxRecoveryTimeout: 3 * time.Second})
		require.NoError(t, err, "as long as the first one is enough")
		_, err = p.SetBreakerPolicy(registry.BreakerPolicy{RecoveryTimeout: 3 * time.Second, RecoveryGrowth: 2, MaxRecoveryTimeout: 3*time.Second - 1})
		require.ErrorIs(t, err, registry.ErrInvalid)
	})
}

func TestBreaker_OpenTimeIsRandomWithinJitter(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a := testkit.Add(t, reg, testkit.Provider{Name: "a", Instance: testkit.Fails(testkit.ErrDown), Breaker: registry.BreakerPolicy{
			FailureThreshold: 1, RecoveryTimeout: 10 * time.Second, RecoveryJitter: 0.5,
		}})
		shortest, longest := time.Hour, time.Duration(0)
		for range 300 {
			_, err := testkit.Ask(t.Context(), testkit.Bind(reg))
			require.ErrorIs(t, err, testkit.ErrDown)
			length := a.Breaker().RetryIn
			shortest, longest = min(shortest, length), max(longest, length)
			testkit.Pass(length + 1)
			require.Equal(t, status.BreakerHalfOpen, a.Breaker().State)
		}
		require.GreaterOrEqual(t, shortest, 5*time.Second)
		require.Less(t, shortest, 6*time.Second)
		require.LessOrEqual(t, longest, 10*time.Second)
		require.Greater(t, longest, 9*time.Second)
	})
}

func TestSetBreaker_AddsAndRemovesRatesAtRunTime(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		model, next := testkit.Settable()
		a := testkit.Add(t, reg, testkit.Provider{Name: "a", Instance: model})
		_, err := a.SetBreakerPolicy(registry.BreakerPolicy{FailureRate: 0.5, MinimumCalls: 4})
		require.NoError(t, err)
		for i := range 4 {
			next(nil)
			if i%2 == 1 {
				next(errors.Join(testkit.ErrDown))
			}
			_, _ = testkit.Ask(t.Context(), testkit.Bind(reg))
		}
		require.Equal(t, status.BreakerOpen, a.Breaker().State)
		_, err = a.SetBreakerPolicy(registry.BreakerPolicy{})
		require.NoError(t, err)
		require.NoError(t, a.Reset())
		for i := range 100 {
			next(nil)
			if i%2 == 1 {
				next(testkit.ErrDown)
			}
			_, _ = testkit.Ask(t.Context(), testkit.Bind(reg))
		}
		require.Equal(t, status.BreakerClosed, a.Breaker().State)
	})
}

func TestSetBreaker_KeepsFailuresInARow(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a := testkit.Add(t, reg, testkit.Provider{Name: "a", Instance: testkit.Fails(testkit.ErrDown)})
		for range 3 {
			_, _ = testkit.Ask(t.Context(), testkit.Bind(reg))
		}
		previous, err := a.SetBreakerPolicy(registry.BreakerPolicy{FailureThreshold: 4, RecoveryTimeout: time.Second})
		require.NoError(t, err)
		require.Equal(t, 5, previous.FailureThreshold)
		require.Equal(t, 3, a.Breaker().ConsecutiveFailures)
		_, _ = testkit.Ask(t.Context(), testkit.Bind(reg))
		require.Equal(t, status.BreakerOpen, a.Breaker().State)
		require.Equal(t, "4 failures in a row", a.Breaker().Reason)
		require.Equal(t, time.Second, a.Breaker().RetryIn)
	})
}

func TestSetBreaker_LetsOpenTimeInProgressEnd(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a := testkit.Add(t, reg, testkit.Provider{Name: "a", Instance: testkit.Fails(testkit.ErrDown)})
		testkit.Trip(t, testkit.Bind(reg), a)
		_, err := a.SetBreakerPolicy(registry.BreakerPolicy{RecoveryTimeout: time.Second})
		require.NoError(t, err)
		require.Equal(t, time.Minute, a.Breaker().RetryIn)
		testkit.Pass(time.Minute + time.Nanosecond)
		_, err = testkit.Ask(t.Context(), testkit.Bind(reg))
		require.ErrorIs(t, err, testkit.ErrDown)
		require.Equal(t, time.Second, a.Breaker().RetryIn, "the next one follows the new policy")
	})
}

func TestSetBreaker_BadPolicyChangesNothing(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a := testkit.Add(t, reg, testkit.Provider{Name: "a"})
		before := a.Breaker().Policy
		_, err := a.SetBreakerPolicy(registry.BreakerPolicy{TrialSlots: 4})
		require.ErrorIs(t, err, registry.ErrInvalid)
		require.ErrorContains(t, err, "TrialSlots is 4: want at most SuccessThreshold (3)")
		require.Equal(t, before, a.Breaker().Policy)
	})
}

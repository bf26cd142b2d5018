package registry_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
)

// fate returns a model whose next outcome is what the returned function says.
func fate() (chatModel, func(error)) {
	var next error
	return answers(func() (string, error) { return "fate", next }), func(err error) { next = err }
}

func TestFailureRateOpensTheBreakerAboveItsMinimumOfCalls(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		model, next := fate()
		a := add(t, reg, provider{Name: "a", Instance: model, Breaker: registry.BreakerPolicy{FailureRate: 0.5, MinimumCalls: 10}})
		r := bind(reg)
		for i := range 9 { // all the same failures in a row: no rule looks at them
			next(errDown)
			_, err := ask(t.Context(), r)
			require.ErrorIs(t, err, errDown, i)
		}
		require.Equal(t, registry.BreakerClosed, a.Breaker().State)
		next(nil)
		asked(t, r)
		require.Equal(t, registry.BreakerClosed, a.Breaker().State, "a success opens nothing")
		next(errDown)
		_, _ = ask(t.Context(), r)
		require.Equal(t, registry.BreakerOpen, a.Breaker().State)
		require.Equal(t, "10 of 11 outcomes failures within 30s", a.Breaker().Reason)
	})
}

func TestFailureRateSeesPartialOutagesThatNeverFailInARow(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		model, next := fate()
		a := add(t, reg, provider{Name: "a", Instance: model, Breaker: registry.BreakerPolicy{FailureRate: 0.3}})
		for i := range 100_000 { // healthy for long: that must not dilute it
			_ = i
			if a.Breaker().State != registry.BreakerClosed {
				break
			}
			next(nil)
			asked(t, bind(reg))
		}
		pass(time.Minute)
		calls := 0
		for a.Breaker().State == registry.BreakerClosed {
			calls++
			next(nil)
			if calls%3 == 0 {
				next(errDown)
			}
			_, _ = ask(t.Context(), bind(reg))
		}
		require.LessOrEqual(t, calls, 24)
	})
}

func TestFailuresThatTakeLongerThanTheWindowCountWhenTheyEnd(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		slow := answers(func() (string, error) {
			time.Sleep(19 * time.Second)
			return "", errDown
		})
		policy := registry.BreakerPolicy{FailureRate: 0.5, Window: 10 * time.Second, MinimumCalls: 5}
		a := add(t, reg, provider{Name: "a", Instance: slow, Breaker: policy})
		var callers sync.WaitGroup
		for range 5 {
			callers.Go(func() { _, _ = ask(context.Background(), bind(reg)) })
		}
		callers.Wait()
		require.Equal(t, registry.BreakerOpen, a.Breaker().State)
	})
}

func TestOldFailuresLeaveTheWindow(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		model, next := fate()
		a := add(t, reg, provider{Name: "a", Instance: model, Breaker: registry.BreakerPolicy{FailureRate: 0.5, MinimumCalls: 10}})
		next(errDown)
		for range 8 {
			_, _ = ask(t.Context(), bind(reg))
		}
		pass(time.Minute)
		for range 8 {
			_, _ = ask(t.Context(), bind(reg))
		}
		require.Equal(t, registry.BreakerClosed, a.Breaker().State)
	})
}

func TestSlowAnswersOpenTheBreakerWhenThePolicySaysSo(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		delay := 3 * time.Second
		model := answers(func() (string, error) {
			time.Sleep(delay)
			return "a", nil
		})
		policy := registry.BreakerPolicy{SlowRate: 0.8, SlowAfter: 2 * time.Second, MinimumCalls: 5, SuccessThreshold: 1}
		a := add(t, reg, provider{Name: "a", Instance: model, Breaker: policy})
		for range 4 {
			require.Equal(t, "a", asked(t, bind(reg)))
		}
		require.Equal(t, registry.BreakerClosed, a.Breaker().State)
		require.Equal(t, "a", asked(t, bind(reg)), "the answer is an answer")
		require.Equal(t, registry.BreakerOpen, a.Breaker().State)
		require.Equal(t, "5 of 5 outcomes slow within 30s", a.Breaker().Reason)
		requireCounts(t, a, 5, 0, 0, 0)

		pass(time.Minute + 1)
		asked(t, bind(reg))
		require.Equal(t, registry.BreakerOpen, a.Breaker().State, "a slow trial is a failed one")
		delay = time.Second
		pass(time.Minute + 1)
		asked(t, bind(reg))
		require.Equal(t, registry.BreakerClosed, a.Breaker().State)
	})
}

func TestSlowAnswersAreAnswersWithoutSuchAPolicy(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a := add(t, reg, provider{Name: "a", Instance: takes("a", 29*time.Second)})
		for range 50 {
			asked(t, bind(reg))
		}
		require.Equal(t, registry.BreakerClosed, a.Breaker().State)
	})
}

func TestRatesAndFailuresInARowMayBeCombined(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a := add(t, reg, provider{Name: "a", Instance: fails(errDown), Breaker: registry.BreakerPolicy{FailureRate: 1, FailureThreshold: 3}})
		trip(t, bind(reg), a)
		requireCounts(t, a, 0, 3, 0, 0)
	})
}

func TestOpenTimeGrowsUpToItsCapUntilTheBreakerCloses(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		model, next := fate()
		next(errDown)
		a := add(t, reg, provider{Name: "a", Instance: model, Breaker: registry.BreakerPolicy{
			FailureThreshold: 1, SuccessThreshold: 1, RecoveryTimeout: 10 * time.Second, RecoveryGrowth: 2, MaxRecoveryTimeout: 60 * time.Second,
		}})
		for _, seconds := range []int{10, 20, 40, 60, 60} {
			_, err := ask(t.Context(), bind(reg))
			require.ErrorIs(t, err, errDown)
			length := time.Duration(seconds) * time.Second
			require.Equal(t, length, a.Breaker().RetryIn)
			pass(length)
			require.Equal(t, registry.BreakerOpen, a.Breaker().State)
			pass(1)
			require.Equal(t, registry.BreakerHalfOpen, a.Breaker().State)
		}
		next(nil)
		asked(t, bind(reg))
		next(errDown)
		_, _ = ask(t.Context(), bind(reg))
		require.Equal(t, 10*time.Second, a.Breaker().RetryIn, "it has closed in between")
	})
}

func TestOpenTimeIsRandomWithinItsJitter(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a := add(t, reg, provider{Name: "a", Instance: fails(errDown), Breaker: registry.BreakerPolicy{
			FailureThreshold: 1, RecoveryTimeout: 10 * time.Second, RecoveryJitter: 0.5,
		}})
		shortest, longest := time.Hour, time.Duration(0)
		for range 300 {
			_, err := ask(t.Context(), bind(reg))
			require.ErrorIs(t, err, errDown)
			length := a.Breaker().RetryIn
			shortest, longest = min(shortest, length), max(longest, length)
			pass(length + 1)
			require.Equal(t, registry.BreakerHalfOpen, a.Breaker().State)
		}
		require.GreaterOrEqual(t, shortest, 5*time.Second)
		require.Less(t, shortest, 6*time.Second)
		require.LessOrEqual(t, longest, 10*time.Second)
		require.Greater(t, longest, 9*time.Second)
	})
}

func TestPolicyOfABreakerMayGainAndLoseItsRatesAtRunTime(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		model, next := fate()
		a := add(t, reg, provider{Name: "a", Instance: model})
		_, err := a.SetBreaker(registry.BreakerPolicy{FailureRate: 0.5, MinimumCalls: 4})
		require.NoError(t, err)
		for i := range 4 {
			next(nil)
			if i%2 == 1 {
				next(errors.Join(errDown))
			}
			_, _ = ask(t.Context(), bind(reg))
		}
		require.Equal(t, registry.BreakerOpen, a.Breaker().State)
		_, err = a.SetBreaker(registry.BreakerPolicy{})
		require.NoError(t, err)
		require.NoError(t, a.Reset())
		for i := range 100 {
			next(nil)
			if i%2 == 1 {
				next(errDown)
			}
			_, _ = ask(t.Context(), bind(reg))
		}
		require.Equal(t, registry.BreakerClosed, a.Breaker().State)
	})
}

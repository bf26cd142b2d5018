package registry_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/event"
	"github.com/capreg/registry/verdict"
)

// failsTimes returns a model that fails so often and then answers its name.
func failsTimes(n int, name string, err error) chatModel {
	return answers(func() (string, error) {
		if n--; n >= 0 {
			return "", err
		}
		return name, nil
	})
}

// patient is a breaker that failures do not open.
func patient() registry.BreakerPolicy { return registry.BreakerPolicy{FailureThreshold: 1 << 30} }

func TestProviderIsTriedAgainAsItsPolicySaysBeforeTheNextOneIs(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		retry := registry.RetryPolicy{Retries: 2}
		a := add(t, reg, provider{Name: "a", Instance: failsTimes(2, "a", errDown), Retry: retry})
		b := add(t, reg, provider{Name: "b"})
		var report registry.CallReport
		require.Equal(t, "a", asked(t, bind(reg), registry.ReportTo(&report)))
		requireCounts(t, a, 1, 2, 0, 0)
		requireCounts(t, b, 0, 0, 0, 0)
		why := []string{report.Attempts[0].Why, report.Attempts[1].Why, report.Attempts[2].Why}
		require.Equal(t, []string{"first", "retry", "retry"}, why)

		require.NoError(t, a.Unregister(t.Context()))
		a = add(t, reg, provider{Name: "a", Instance: fails(errDown), Retry: retry, Priority: registry.PriorityHigh})
		require.Equal(t, "b", asked(t, bind(reg)))
		requireCounts(t, a, 0, 3, 0, 0)
	})
}

func TestDelaysBeforeRetriesGrowAndAreRandomUpToTheirBound(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		add(t, reg, provider{Name: "a", Instance: fails(errDown), Breaker: patient(), Retry: registry.RetryPolicy{
			Retries: 4, FirstDelay: time.Second, MaxDelay: 3 * time.Second, Budget: 1 << 20,
		}})
		longest := make([]time.Duration, 5)
		shortest := []time.Duration{0, time.Hour, time.Hour, time.Hour, time.Hour}
		for range 200 {
			var report registry.CallReport
			_, err := ask(t.Context(), bind(reg), registry.ReportTo(&report))
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

func TestRetryStopsWhenTheBreakerOpens(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a := add(t, reg, provider{
			Name: "a", Instance: fails(errDown), Retry: registry.RetryPolicy{Retries: 50},
			Breaker: registry.BreakerPolicy{FailureThreshold: 3},
		})
		_, err := ask(t.Context(), bind(reg))
		require.ErrorIs(t, err, errDown)
		requireCounts(t, a, 0, 3, 0, 0)
	})
}

func TestDelayTheServerAsksForWins(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		busy := verdict.As(errDown, verdict.Verdict{Class: verdict.ClassTransport, After: 7 * time.Second})
		retry := registry.RetryPolicy{Retries: 1, MaxDelay: time.Second}
		a := add(t, reg, provider{Name: "a", Instance: failsTimes(1, "a", busy), Retry: retry})
		began := time.Now()
		require.Equal(t, "a", asked(t, bind(reg)))
		require.InDelta(t, 7350*time.Millisecond, time.Since(began), float64(360*time.Millisecond))

		require.NoError(t, a.Unregister(t.Context()))
		add(t, reg, provider{Name: "c", Instance: fails(busy), Retry: retry})
		add(t, reg, provider{Name: "d"})
		began = time.Now()
		require.Equal(t, "d", asked(t, bind(reg)), "rather than wait, where somebody else is left")
		require.Equal(t, began, time.Now())
	})
}

func TestDelayThatOutlivesTheDeadlineIsNotSlept(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		// Every delay but a handful of nanoseconds is longer than the deadline.
		retry := registry.RetryPolicy{Retries: 3, FirstDelay: 1e4 * time.Hour, MaxDelay: 1e4 * time.Hour}
		add(t, reg, provider{Name: "a", Instance: fails(errDown), Retry: retry})
		add(t, reg, provider{Name: "b"})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		began := time.Now()
		answer, err := ask(ctx, bind(reg))
		require.NoError(t, err)
		require.Equal(t, "b", answer)
		require.Equal(t, began, time.Now())
	})
}

func TestOnlyWhatTheTableAllowsIsTriedAgain(t *testing.T) {
	t.Parallel()
	for _, class := range verdict.Classes() {
		t.Run(class.String(), func(t *testing.T) {
			t.Parallel()
			bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
				a := add(t, reg, provider{
					Name: "a", Instance: fails(verdict.As(errDown, verdict.Verdict{Class: class})), Breaker: patient(),
					Retry: registry.RetryPolicy{Retries: 1},
				})
				_, err := ask(t.Context(), bind(reg))
				require.ErrorIs(t, err, errDown)
				want := uint64(1)
				if class.Rule().RetryHere == verdict.RetryYes {
					want = 2
				}
				require.Equal(t, want, a.Info().Attempts)
			})
		})
	}
}

func TestOnceOnlyCallIsTriedAgainOnlyWhenNothingWasSent(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		retry := registry.RetryPolicy{Retries: 3}
		a := add(t, reg, provider{Name: "a", Instance: failsTimes(2, "a", verdict.NotSent(errDown)), Retry: retry})
		require.Equal(t, "a", asked(t, bind(reg), registry.OnceOnly()))
		requireCounts(t, a, 1, 2, 0, 0)
		require.NoError(t, a.Unregister(t.Context()))
		b := add(t, reg, provider{Name: "b", Instance: fails(errDown), Retry: retry})
		_, err := ask(t.Context(), bind(reg), registry.OnceOnly())
		require.ErrorContains(t, err, "once only")
		requireCounts(t, b, 0, 1, 0, 0)
	})
}

func TestBudgetOfAProviderBoundsItsRetriesAndItsFailover(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		add(t, reg, provider{Name: "a", Instance: fails(errDown), Breaker: patient()})
		b := add(t, reg, provider{Name: "b", Instance: fails(errDown), Breaker: patient(), Retry: registry.RetryPolicy{Retries: 5}})
		c := add(t, reg, provider{Name: "c"})
		for range 100 {
			require.Equal(t, "c", asked(t, bind(reg)), "the outage of others never keeps calls from who answers")
		}
		require.LessOrEqual(t, b.Info().Attempts, uint64(5+60), "half of its budget, and a few a second")
		requireCounts(t, c, 100, 0, 0, 0)
		require.NoError(t, c.Unregister(t.Context()))
		_, err := ask(t.Context(), bind(reg))
		require.ErrorIs(t, err, errDown, "the error that there is")
		require.ErrorIs(t, err, registry.ErrAtCapacity)
		require.ErrorContains(t, err, "b: budget for further attempts spent")
	})
}

func TestBreakerThatClosesFillsTheBudget(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		add(t, reg, provider{Name: "a", Instance: fails(errDown), Breaker: patient()})
		sick := true
		b := add(t, reg, provider{Name: "b", Group: 1, Instance: answers(func() (string, error) {
			if sick {
				return "", errDown
			}
			return "b", nil
		})})
		for b.Breaker().State != registry.BreakerOpen {
			_, _ = ask(t.Context(), bind(reg))
		}
		sick = false
		pass(time.Minute + 1)
		for range 50 { // the trials, and then as fast as anybody likes
			require.Equal(t, "b", asked(t, bind(reg)))
		}
	})
}

func TestRetryPolicyChangesAtRunTime(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a := add(t, reg, provider{Name: "a", Instance: fails(errDown), Breaker: patient()})
		events := reg.Subscribe(0)
		previous, err := a.SetRetry(registry.RetryPolicy{Retries: 2})
		require.NoError(t, err)
		require.Equal(t, registry.RetryPolicy{
			FirstDelay: 200 * time.Millisecond, MaxDelay: 5 * time.Second, Budget: 10, Refund: 0.1, Floor: 0.5,
		}, previous)
		require.Equal(t, []event.Kind{event.Changed}, kinds(t, events))
		_, err = ask(t.Context(), bind(reg))
		require.Error(t, err)
		requireCounts(t, a, 0, 3, 0, 0)
		_, err = a.SetRetry(registry.RetryPolicy{Retries: -1})
		require.ErrorIs(t, err, registry.ErrInvalid)
	})
}

// outage asks three providers that all fail, each tried up to three times, for a
// minute, and returns the attempts for each call.
func outage(t *testing.T, perSecond int, breaker registry.BreakerPolicy) (attemptsPerCall float64) {
	t.Helper()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		var all []*registry.Registration
		for _, name := range []string{"a", "b", "c"} {
			all = append(all, add(t, reg, provider{
				Name: name, Instance: fails(errDown), Breaker: breaker, Retry: registry.RetryPolicy{Retries: 2},
			}))
		}
		calls, done := 60*perSecond, make(chan struct{})
		for range calls {
			go func() {
				_, _ = ask(context.Background(), bind(reg))
				done <- struct{}{}
			}()
			time.Sleep(time.Second / time.Duration(perSecond))
		}
		for range calls {
			<-done
		}
		attempts := uint64(0)
		for _, registration := range all {
			attempts += registration.Info().Attempts
		}
		attemptsPerCall = float64(attempts) / float64(calls)
	})
	return attemptsPerCall
}

func TestTotalOutageIsNotAmplified(t *testing.T) {
	t.Parallel()
	for name, breaker := range map[string]registry.BreakerPolicy{"default breakers": {}, "breakers that never open": patient()} {
		busy, quiet := outage(t, 50, breaker), outage(t, 1, breaker)
		t.Logf("%s: %.3f attempts for each of 50 calls a second, %.2f for one a second", name, busy, quiet)
		require.LessOrEqual(t, busy, 1.1, name)
		require.LessOrEqual(t, quiet, 3.5, name)
		require.Positive(t, quiet)
	}
}

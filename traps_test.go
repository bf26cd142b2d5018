package registry_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/verdict"
)

// The traps that libraries of this kind fall into, one test for each.

// opened registers a provider whose breaker is half-open with one trial slot.
func opened(t *testing.T, reg *registry.Registry, p provider) *registry.Registration {
	t.Helper()
	registration := add(t, reg, p)
	require.NoError(t, registration.ForceOpen(time.Millisecond, "test"))
	pass(time.Millisecond + 1)
	require.Equal(t, registry.BreakerHalfOpen, registration.Breaker().State)
	return registration
}

func TestTrapLeaseLeakInHalfOpen(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a := opened(t, reg, provider{Name: "a", AttemptTimeout: time.Second})
		_, err := bind(reg).Acquire(t.Context()) // and forgotten
		require.NoError(t, err)
		_, err = bind(reg).Acquire(t.Context())
		require.ErrorIs(t, err, registry.ErrBreakerOpen)
		pass(2 * time.Second)
		require.Equal(t, registry.BreakerOpen, a.Breaker().State, "an expired trial is a failed one")
		pass(time.Minute + 1)
		require.Equal(t, "a", asked(t, bind(reg)))
	})
}

func TestTrapPermitsOnPanicAndGoexit(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a := add(t, reg, provider{Name: "a", Breaker: patient(), Limits: registry.LimitPolicy{MaxConcurrent: 2, NoQueue: true}})
		for _, end := range []func(){func() { panic("x") }, runtime.Goexit} {
			for range 5 {
				isolated(func() {
					_, _ = registry.Call(t.Context(), bind(reg), func(context.Context, chatModel) (int, error) { end(); return 0, nil })
				})
			}
		}
		requireCounts(t, a, 0, 10, 0, 0)
		require.Equal(t, "a", asked(t, bind(reg)))
	})
}

func TestTrapCallersCancellationBlamesTheProvider(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a := add(t, reg, provider{Name: "a", Instance: hangs()})
		for range 20 {
			ctx, cancel := context.WithCancel(t.Context())
			time.AfterFunc(time.Second, cancel)
			_, err := ask(ctx, bind(reg))
			require.ErrorIs(t, err, context.Canceled)
		}
		require.Equal(t, registry.BreakerClosed, a.Breaker().State)
		requireCounts(t, a, 0, 0, 20, 0)
	})
}

func TestTrapCallersDeadlineIsTheOnlySignOfAHungProvider(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a := add(t, reg, provider{Name: "a", Instance: hangs(), AttemptTimeout: 10 * time.Second})
		for range 5 {
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			_, _ = ask(ctx, bind(reg))
			cancel()
		}
		require.Equal(t, registry.BreakerOpen, a.Breaker().State)
	})
}

func TestTrapNoNeutralOutcome(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a := opened(t, reg, provider{Name: "a", Instance: hangs(), Breaker: registry.BreakerPolicy{SuccessThreshold: 1}})
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		_, _ = ask(ctx, bind(reg))
		require.Equal(t, registry.BreakerHalfOpen, a.Breaker().State, "neither closed nor opened")
		require.Zero(t, a.Breaker().TrialsInFlight)
	})
}

func TestTrapOrderOfThePolicies(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		retry := registry.RetryPolicy{Retries: 5, FirstDelay: time.Hour, MaxDelay: time.Hour}
		open := add(t, reg, provider{Name: "open", Retry: retry})
		require.NoError(t, open.ForceOpen(time.Hour, "test"))
		full := add(t, reg, provider{Name: "full", Retry: retry, Limits: registry.LimitPolicy{MaxConcurrent: 1}})
		lease, err := bind(reg).Acquire(t.Context())
		require.NoError(t, err)
		add(t, reg, provider{Name: "free"})
		began := time.Now()
		require.Equal(t, "free", asked(t, bind(reg)), "what cannot be entered is passed by")
		require.Equal(t, began, time.Now(), "without sleep")
		lease.Done(nil)
		requireCounts(t, open, 0, 0, 0, 0)
		requireCounts(t, full, 1, 0, 0, 0)
	})
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a := add(t, reg, provider{Name: "a", Instance: fails(errDown), Retry: registry.RetryPolicy{Retries: 2}})
		for a.Breaker().State == registry.BreakerClosed {
			_, _ = ask(t.Context(), bind(reg))
		}
		require.Equal(t, uint64(5), a.Info().Failures, "each attempt counts, not each call")
	})
}

func TestTrapTotalTimeOfManyTries(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		for _, name := range []string{"a", "b", "c"} {
			add(t, reg, provider{Name: name, Instance: hangs(), AttemptTimeout: 5 * time.Second, Retry: registry.RetryPolicy{Retries: 2}})
		}
		ctx, cancel := context.WithTimeout(t.Context(), 6*time.Second)
		defer cancel()
		began := time.Now()
		var report registry.CallReport
		_, err := ask(ctx, bind(reg), registry.ReportTo(&report))
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Equal(t, 6*time.Second, time.Since(began))
		require.Len(t, report.Attempts, 3, "the last one was not starved")
	})
}

func TestTrapSleepThatIsBlindToTheDeadlineAndLosesTheError(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		add(t, reg, provider{Name: "a", Instance: fails(errDown), Retry: registry.RetryPolicy{
			Retries: 3, FirstDelay: 1e4 * time.Hour, MaxDelay: 1e4 * time.Hour,
		}})
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		defer cancel()
		began := time.Now()
		_, err := ask(ctx, bind(reg))
		require.ErrorIs(t, err, errDown)
		require.NotErrorIs(t, err, context.DeadlineExceeded)
		require.Equal(t, began, time.Now())
	})
}

func TestTrapLateResultsOfAnotherGeneration(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a := add(t, reg, provider{Name: "a", AttemptTimeout: time.Hour, Breaker: registry.BreakerPolicy{SuccessThreshold: 1}})
		var early []*registry.Lease[chatModel]
		for range 20 {
			lease, err := bind(reg).Acquire(t.Context())
			require.NoError(t, err)
			early = append(early, lease)
		}
		for _, lease := range early[:5] {
			lease.Done(errDown)
		}
		opened := a.Breaker().Since
		for _, lease := range early[5:10] {
			lease.Done(errDown)
		}
		require.Equal(t, opened, a.Breaker().Since)
		pass(time.Minute + 1)
		for _, lease := range early[10:15] {
			lease.Done(nil)
		}
		require.Equal(t, registry.BreakerHalfOpen, a.Breaker().State)
		asked(t, bind(reg))
		for _, lease := range early[15:] {
			lease.Done(errDown)
		}
		require.Zero(t, a.Breaker().ConsecutiveFailures)
	})
}

func TestTrapDeadProviderUnderConcurrency(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		dead := add(t, reg, provider{Name: "dead", Instance: hangs(), AttemptTimeout: time.Second, Limits: registry.LimitPolicy{Bulkhead: true}})
		add(t, reg, provider{Name: "spare", Group: 1})
		var callers sync.WaitGroup
		for range 1000 {
			callers.Go(func() { asked(t, bind(reg)) })
		}
		callers.Wait()
		require.LessOrEqual(t, dead.Info().Attempts, uint64(10))
	})
}

func TestTrapRetryAmplification(t *testing.T) {
	t.Parallel()
	require.LessOrEqual(t, outage(t, 20, patient()), 1.2)
}

func TestTrapSideEffectsTwice(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		retry := registry.RetryPolicy{Retries: 3}
		a := add(t, reg, provider{Name: "a", Instance: fails(io.ErrUnexpectedEOF), Retry: retry})
		b := add(t, reg, provider{Name: "b"})
		_, err := ask(t.Context(), bind(reg), registry.OnceOnly())
		require.ErrorIs(t, err, io.ErrUnexpectedEOF)
		requireCounts(t, a, 0, 1, 0, 0)
		requireCounts(t, b, 0, 0, 0, 0)
	})
}

func TestTrapServersDelay(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		date := time.Now().Add(20 * time.Second).UTC().Format(http.TimeFormat)
		for header, asked := range map[string]time.Duration{"20": 20 * time.Second, date: 19 * time.Second} {
			a := add(t, reg, provider{Instance: fails(verdict.RateLimited(errDown, verdict.RetryAfter(header)))})
			_, _ = ask(t.Context(), bind(reg))
			left := time.Until(a.Info().CooldownUntil)
			require.GreaterOrEqual(t, left, asked, header)
			require.LessOrEqual(t, left, 22*time.Second, header)
			require.Zero(t, a.Breaker().ConsecutiveFailures)
			require.NoError(t, a.Unregister(t.Context()))
		}
	})
}

func TestTrapSharedBackoffState(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		add(t, reg, provider{Name: "a", Instance: fails(errDown), Breaker: patient(), Retry: registry.RetryPolicy{
			Retries: 1, FirstDelay: time.Second, MaxDelay: time.Hour, Budget: 1 << 20,
		}})
		var callers sync.WaitGroup
		for range 100 { // each begins with its own first delay, however many others fail
			callers.Go(func() {
				var report registry.CallReport
				_, _ = ask(t.Context(), bind(reg), registry.ReportTo(&report))
				if report.Attempts[1].Delay > time.Second {
					t.Error("the delay of somebody else:", report.Attempts[1].Delay)
				}
			})
		}
		callers.Wait()
	})
}

func TestTrapCallbacksUnderALock(t *testing.T) {
	t.Parallel()
	var reg *registry.Registry
	everything := func() {
		_ = reg.Stats()
		for info := range reg.All() {
			registration, ok := reg.Provider(info.Name)
			if ok {
				_, _ = registration.Breaker(), registration.Info()
			}
		}
		_ = bind(reg).Explain()
	}
	options := registry.Options{
		Admit:      func(context.Context, registry.Definition) error { everything(); return nil },
		Classify:   func(error) verdict.Verdict { everything(); return verdict.Verdict{} },
		Authorize:  func(context.Context, string, string, string) error { everything(); return nil },
		BeforeCall: func(ctx context.Context, _ registry.CallReport) context.Context { everything(); return ctx },
		BeforeAttempt: func(ctx context.Context, _ registry.CallReport, _ registry.Attempt) context.Context {
			everything()
			return ctx
		},
		AfterAttempt: func(context.Context, registry.CallReport, registry.Attempt) { everything() },
		AfterCall:    func(context.Context, registry.CallReport) { everything() },
	}
	synctest.Test(t, func(t *testing.T) {
		reg = newRegistry(t, options)
		a := add(t, reg, provider{Name: "a", Instance: answers(func() (string, error) { everything(); return "", errDown })})
		for a.Breaker().State != registry.BreakerOpen {
			_, err := ask(t.Context(), bind(reg))
			require.ErrorIs(t, err, errDown)
		}
		require.NoError(t, reg.Close(t.Context()))
	})
}

func TestTrapWindowsWithoutVolume(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a := add(t, reg, provider{Name: "a", Instance: fails(errDown), Breaker: registry.BreakerPolicy{FailureRate: 0.5}})
		for range 19 {
			_, _ = ask(t.Context(), bind(reg))
		}
		require.Equal(t, registry.BreakerClosed, a.Breaker().State)
		_, _ = ask(t.Context(), bind(reg))
		require.Equal(t, registry.BreakerOpen, a.Breaker().State)
	})
}

func TestTrapRoundRobinThatMovesWithEachAttempt(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		broken := add(t, reg, provider{Name: "broken", Instance: fails(errDown), Breaker: patient(), Strategy: registry.StrategyRoundRobin})
		add(t, reg, provider{Name: "good"})
		for range 10 {
			require.Equal(t, "good", asked(t, bind(reg)))
		}
		require.Equal(t, uint64(5), broken.Info().Attempts, "first for half of the calls, not for all")
	})
}

func TestTrapEverybodyOpen(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		for i, name := range []string{"a", "b"} {
			require.NoError(t, add(t, reg, provider{Name: name}).ForceOpen(time.Duration(2-i)*time.Minute, "test"))
		}
		_, err := ask(t.Context(), bind(reg))
		var unavailable *registry.UnavailableError
		require.ErrorAs(t, err, &unavailable)
		require.Equal(t, time.Minute, unavailable.RetryIn, "the earliest reopening")
	})
}

func TestTrapOneParentForAllContexts(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		add(t, reg, provider{Name: "a", AttemptTimeout: registry.NoTimeout})
		type key struct{}
		caller := context.WithValue(t.Context(), key{}, 1)
		_, err := registry.Call(caller, bind(reg), func(ctx context.Context, _ chatModel) (int, error) {
			require.Equal(t, caller, ctx, "the caller's own, and nothing of the registry's")
			return 0, nil
		})
		require.NoError(t, err)
	})
}

func TestTrapContextThatHasEndedRunsTheFunctionOnceAnyway(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a := add(t, reg, provider{Name: "a"})
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(errDown)
		_, err := ask(ctx, bind(reg))
		require.ErrorIs(t, err, context.Canceled)
		require.ErrorIs(t, err, errDown)
		requireCounts(t, a, 0, 0, 0, 0)
	})
}

func TestTrapFunctionThatIgnoresItsContext(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a := add(t, reg, provider{
			Name: "a", Instance: takes("late", 10*time.Second), AttemptTimeout: time.Second,
			Limits: registry.LimitPolicy{MaxConcurrent: 1, NoQueue: true},
		})
		var caller sync.WaitGroup
		caller.Go(func() { require.Equal(t, "late", asked(t, bind(reg)), "an answer is an answer") })
		time.Sleep(5 * time.Second)
		_, err := ask(t.Context(), bind(reg))
		require.ErrorIs(t, err, registry.ErrAtCapacity, "its place is taken until it returns")
		caller.Wait()
		requireCounts(t, a, 1, 0, 0, 0)
	})
}

func TestTrapMarksAndSentinelsUnderWrapping(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		deep := fmt.Errorf("outer: %w", fmt.Errorf("inner: %w", verdict.Permanent(fmt.Errorf("core: %w", errDown))))
		add(t, reg, provider{Name: "a", Instance: fails(deep)})
		b := add(t, reg, provider{Name: "b"})
		_, err := ask(t.Context(), bind(reg))
		require.ErrorIs(t, err, errDown)
		require.ErrorContains(t, err, "outer: inner: core: down")
		requireCounts(t, b, 0, 0, 0, 0)
		var failed *registry.CallError
		require.ErrorAs(t, fmt.Errorf("mine: %w", errors.Join(err)), &failed)
	})
}

func TestTrapTimeThatTestsCannotPass(t *testing.T) {
	t.Parallel()
	began := time.Now()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a := add(t, reg, provider{Name: "a"})
		require.NoError(t, a.ForceOpen(1000*time.Hour, "test"))
		pass(1000*time.Hour + 1)
		require.Equal(t, "a", asked(t, bind(reg)))
	})
	require.Less(t, time.Since(began), time.Minute)
}

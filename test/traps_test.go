package test_test

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
	"github.com/capreg/registry/internal/testkit"
	"github.com/capreg/registry/status"
	"github.com/capreg/registry/verdict"
)

func TestTrap_LeaseLeakInHalfOpen(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a := testkit.AddHalfOpen(t, reg, testkit.Provider{Name: "a", AttemptTimeout: time.Second})
		_, err := testkit.Bind(reg).Acquire(t.Context()) // and forgotten
		require.NoError(t, err)
		_, err = testkit.Bind(reg).Acquire(t.Context())
		require.ErrorIs(t, err, registry.ErrBreakerOpen)
		testkit.Pass(2 * time.Second)
		require.Equal(t, status.BreakerOpen, a.Breaker().State, "an expired trial is a failed one")
		testkit.Pass(time.Minute + 1)
		require.Equal(t, "a", testkit.MustAsk(t, testkit.Bind(reg)))
	})
}

func TestTrap_PermitsOnPanicAndGoexit(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a := testkit.Add(t, reg, testkit.Provider{Name: "a", Breaker: testkit.NeverOpens(), Limits: registry.LimitPolicy{MaxConcurrent: 2, NoQueue: true}})
		for _, end := range []func(){func() { panic("x") }, runtime.Goexit} {
			for range 5 {
				testkit.Isolated(func() {
					_, _ = registry.Call(t.Context(), testkit.Bind(reg), func(context.Context, testkit.ChatModel) (int, error) { end(); return 0, nil })
				})
			}
		}
		testkit.RequireCounts(t, a, 0, 10, 0, 0)
		require.Equal(t, "a", testkit.MustAsk(t, testkit.Bind(reg)))
	})
}

func TestTrap_CallersCancellationBlamesTheProvider(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a := testkit.Add(t, reg, testkit.Provider{Name: "a", Instance: testkit.Hangs()})
		for range 20 {
			ctx, cancel := context.WithCancel(t.Context())
			time.AfterFunc(time.Second, cancel)
			_, err := testkit.Ask(ctx, testkit.Bind(reg))
			require.ErrorIs(t, err, context.Canceled)
		}
		require.Equal(t, status.BreakerClosed, a.Breaker().State)
		testkit.RequireCounts(t, a, 0, 0, 20, 0)
	})
}

func TestTrap_CallersDeadlineIsTheOnlySignOfAHungProvider(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		calls := 0
		a := testkit.Add(t, reg, testkit.Provider{Name: "a", AttemptTimeout: 10 * time.Second, Instance: testkit.ChatFunc(func(ctx context.Context, _ string) (string, error) {
			if calls++; calls == 1 {
				time.Sleep(time.Second) // which the time of the others is far longer than
				return "a", nil
			}
			<-ctx.Done()
			return "", ctx.Err()
		})})
		testkit.MustAsk(t, testkit.Bind(reg))
		for range 5 {
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			_, _ = testkit.Ask(ctx, testkit.Bind(reg))
			cancel()
		}
		require.Equal(t, status.BreakerOpen, a.Breaker().State)
	})
}

func TestTrap_NoNeutralOutcome(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a := testkit.AddHalfOpen(t, reg, testkit.Provider{Name: "a", Instance: testkit.Hangs(), Breaker: registry.BreakerPolicy{SuccessThreshold: 1}})
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		_, _ = testkit.Ask(ctx, testkit.Bind(reg))
		require.Equal(t, status.BreakerHalfOpen, a.Breaker().State, "neither closed nor opened")
		require.Zero(t, a.Breaker().TrialsInFlight)
	})
}

func TestTrap_OrderOfThePolicies(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		retry := registry.RetryPolicy{Retries: 5, FirstDelay: time.Hour, MaxDelay: time.Hour}
		open := testkit.Add(t, reg, testkit.Provider{Name: "open", Retry: retry})
		require.NoError(t, open.ForceOpen(time.Hour, "test"))
		full := testkit.Add(t, reg, testkit.Provider{Name: "full", Retry: retry, Limits: registry.LimitPolicy{MaxConcurrent: 1}})
		lease, err := testkit.Bind(reg).Acquire(t.Context())
		require.NoError(t, err)
		testkit.Add(t, reg, testkit.Provider{Name: "free"})
		began := time.Now()
		require.Equal(t, "free", testkit.MustAsk(t, testkit.Bind(reg)), "what cannot be entered is passed by")
		require.Equal(t, began, time.Now(), "without sleep")
		lease.Done(nil)
		testkit.RequireCounts(t, open, 0, 0, 0, 0)
		testkit.RequireCounts(t, full, 1, 0, 0, 0)
	})
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a := testkit.Add(t, reg, testkit.Provider{Name: "a", Instance: testkit.Fails(testkit.ErrDown), Retry: registry.RetryPolicy{Retries: 2}})
		for a.Breaker().State == status.BreakerClosed {
			_, _ = testkit.Ask(t.Context(), testkit.Bind(reg))
		}
		require.Equal(t, uint64(5), a.Info().Failures, "each attempt counts, not each call")
	})
}

func TestTrap_TotalTimeOfManyTries(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		for _, name := range []string{"a", "b", "c"} {
			testkit.Add(t, reg, testkit.Provider{Name: name, Instance: testkit.Hangs(), Retry: registry.RetryPolicy{Retries: 2}})
		}
		ctx, cancel := context.WithTimeout(t.Context(), 6*time.Second)
		defer cancel()
		began := time.Now()
		var report registry.CallReport
		_, err := testkit.Ask(ctx, testkit.Bind(reg), registry.ReportTo(&report))
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Equal(t, 6*time.Second, time.Since(began))
		require.Len(t, report.Attempts, 3, "the last one was not starved")
	})
}

func TestTrap_SleepIgnoresDeadlineAndLosesError(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		testkit.Add(t, reg, testkit.Provider{Name: "a", Instance: testkit.Fails(testkit.ErrDown), Retry: registry.RetryPolicy{
			Retries: 3, FirstDelay: 1e4 * time.Hour, MaxDelay: 1e4 * time.Hour,
		}})
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		defer cancel()
		began := time.Now()
		_, err := testkit.Ask(ctx, testkit.Bind(reg))
		require.ErrorIs(t, err, testkit.ErrDown)
		require.NotErrorIs(t, err, context.DeadlineExceeded)
		require.Equal(t, began, time.Now())
	})
}

func TestTrap_LateResultsOfAnotherGeneration(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a := testkit.Add(t, reg, testkit.Provider{Name: "a", AttemptTimeout: time.Hour, Breaker: registry.BreakerPolicy{SuccessThreshold: 1}})
		var early []*registry.Lease[testkit.ChatModel]
		for range 20 {
			lease, err := testkit.Bind(reg).Acquire(t.Context())
			require.NoError(t, err)
			early = append(early, lease)
		}
		for _, lease := range early[:5] {
			lease.Done(testkit.ErrDown)
		}
		opened := a.Breaker().Since
		for _, lease := range early[5:10] {
			lease.Done(testkit.ErrDown)
		}
		require.Equal(t, opened, a.Breaker().Since)
		testkit.Pass(time.Minute + 1)
		for _, lease := range early[10:15] {
			lease.Done(nil)
		}
		require.Equal(t, status.BreakerHalfOpen, a.Breaker().State)
		testkit.MustAsk(t, testkit.Bind(reg))
		for _, lease := range early[15:] {
			lease.Done(testkit.ErrDown)
		}
		require.Zero(t, a.Breaker().ConsecutiveFailures)
	})
}

func TestTrap_DeadProviderUnderConcurrency(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		dead := testkit.Add(t, reg, testkit.Provider{Name: "dead", Instance: testkit.Hangs(), AttemptTimeout: time.Second, Limits: registry.LimitPolicy{Bulkhead: true}})
		testkit.Add(t, reg, testkit.Provider{Name: "spare", Group: 1})
		var callers sync.WaitGroup
		for range 1000 {
			callers.Go(func() { testkit.MustAsk(t, testkit.Bind(reg)) })
		}
		callers.Wait()
		require.LessOrEqual(t, dead.Info().Attempts, uint64(10))
	})
}

func TestTrap_RetryAmplification(t *testing.T) {
	t.Parallel()
	require.LessOrEqual(t, testkit.AttemptsPerCall(t, 20, testkit.NeverOpens()), 1.2)
}

func TestTrap_SideEffectsTwice(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		retry := registry.RetryPolicy{Retries: 3}
		a := testkit.Add(t, reg, testkit.Provider{Name: "a", Instance: testkit.Fails(io.ErrUnexpectedEOF), Retry: retry})
		b := testkit.Add(t, reg, testkit.Provider{Name: "b"})
		_, err := testkit.Ask(t.Context(), testkit.Bind(reg), registry.OnceOnly())
		require.ErrorIs(t, err, io.ErrUnexpectedEOF)
		testkit.RequireCounts(t, a, 0, 1, 0, 0)
		testkit.RequireCounts(t, b, 0, 0, 0, 0)
	})
}

func TestTrap_ServersDelay(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		date := time.Now().Add(20 * time.Second).UTC().Format(http.TimeFormat)
		for header, asked := range map[string]time.Duration{"20": 20 * time.Second, date: 19 * time.Second} {
			a := testkit.Add(t, reg, testkit.Provider{Instance: testkit.Fails(verdict.RateLimited(testkit.ErrDown, verdict.RetryAfter(header)))})
			_, _ = testkit.Ask(t.Context(), testkit.Bind(reg))
			left := time.Until(a.Info().Cooldown.Until)
			require.GreaterOrEqual(t, left, asked, header)
			require.LessOrEqual(t, left, 22*time.Second, header)
			require.Zero(t, a.Breaker().ConsecutiveFailures)
			require.NoError(t, a.Unregister(t.Context()))
		}
	})
}

func TestTrap_SharedBackoffState(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		testkit.Add(t, reg, testkit.Provider{Name: "a", Instance: testkit.Fails(testkit.ErrDown), Breaker: testkit.NeverOpens(), Retry: registry.RetryPolicy{
			Retries: 1, FirstDelay: time.Second, MaxDelay: time.Hour, Budget: 1 << 20,
		}})
		var callers sync.WaitGroup
		for range 100 { // each begins with its own first delay, however many others fail
			callers.Go(func() {
				var report registry.CallReport
				_, _ = testkit.Ask(t.Context(), testkit.Bind(reg), registry.ReportTo(&report))
				if report.Attempts[1].Delay > time.Second {
					t.Error("the delay of another call:", report.Attempts[1].Delay)
				}
			})
		}
		callers.Wait()
	})
}

func TestTrap_CallbacksUnderALock(t *testing.T) {
	t.Parallel()
	var reg *registry.Registry
	everything := func() {
		_ = reg.Stats()
		for info := range reg.All() {
			registration, ok := reg.Provider("chat", info.Name)
			if ok {
				_, _ = registration.Breaker(), registration.Info()
			}
		}
		_ = testkit.Bind(reg).Explain()
	}
	options := registry.Options{
		Admit:     func(context.Context, registry.Definition) error { everything(); return nil },
		Classify:  func(error) verdict.Verdict { everything(); return verdict.Verdict{} },
		Authorize: func(context.Context, string, string, string) error { everything(); return nil },
		Hooks: registry.Hooks{
			BeforeCall: func(ctx context.Context, _ registry.CallReport) context.Context { everything(); return ctx },
			BeforeAttempt: func(ctx context.Context, _ registry.CallReport, _ registry.Attempt) context.Context {
				everything()
				return ctx
			},
			AfterAttempt: func(context.Context, registry.CallReport, registry.Attempt) { everything() },
			AfterCall:    func(context.Context, registry.CallReport) { everything() },
		},
	}
	synctest.Test(t, func(t *testing.T) {
		reg = testkit.New(t, options)
		a := testkit.Add(t, reg, testkit.Provider{Name: "a", Instance: testkit.Answers(func() (string, error) { everything(); return "", testkit.ErrDown })})
		for a.Breaker().State != status.BreakerOpen {
			_, err := testkit.Ask(t.Context(), testkit.Bind(reg))
			require.ErrorIs(t, err, testkit.ErrDown)
		}
		require.NoError(t, reg.Close(t.Context()))
	})
}

func TestTrap_WindowsWithoutVolume(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a := testkit.Add(t, reg, testkit.Provider{Name: "a", Instance: testkit.Fails(testkit.ErrDown), Breaker: registry.BreakerPolicy{FailureRate: 0.5}})
		for range 19 {
			_, _ = testkit.Ask(t.Context(), testkit.Bind(reg))
		}
		require.Equal(t, status.BreakerClosed, a.Breaker().State)
		_, _ = testkit.Ask(t.Context(), testkit.Bind(reg))
		require.Equal(t, status.BreakerOpen, a.Breaker().State)
	})
}

func TestTrap_RoundRobinAdvancesWithEachAttempt(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		broken := testkit.Add(t, reg, testkit.Provider{Name: "broken", Instance: testkit.Fails(testkit.ErrDown), Breaker: testkit.NeverOpens(), Strategy: registry.StrategyRoundRobin})
		testkit.Add(t, reg, testkit.Provider{Name: "good"})
		for range 10 {
			require.Equal(t, "good", testkit.MustAsk(t, testkit.Bind(reg)))
		}
		require.Equal(t, uint64(5), broken.Info().Attempts, "first for half of the calls, not for all")
	})
}

func TestTrap_AllBreakersOpen(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		for i, name := range []string{"a", "b"} {
			require.NoError(t, testkit.Add(t, reg, testkit.Provider{Name: name}).ForceOpen(time.Duration(2-i)*time.Minute, "test"))
		}
		_, err := testkit.Ask(t.Context(), testkit.Bind(reg))
		var unavailable *registry.UnavailableError
		require.ErrorAs(t, err, &unavailable)
		require.Equal(t, time.Minute, unavailable.RetryIn, "the earliest reopening")
	})
}

func TestTrap_OneParentForAllContexts(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		testkit.Add(t, reg, testkit.Provider{Name: "a", AttemptTimeout: registry.NoTimeout})
		type key struct{}
		caller := context.WithValue(t.Context(), key{}, 1)
		_, err := registry.Call(caller, testkit.Bind(reg), func(ctx context.Context, _ testkit.ChatModel) (int, error) {
			require.Equal(t, caller, ctx, "the caller's own, and nothing of the registry's")
			return 0, nil
		})
		require.NoError(t, err)
	})
}

func TestTrap_EndedContextRunsFunctionOnce(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a := testkit.Add(t, reg, testkit.Provider{Name: "a"})
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(testkit.ErrDown)
		_, err := testkit.Ask(ctx, testkit.Bind(reg))
		require.ErrorIs(t, err, context.Canceled)
		require.ErrorIs(t, err, testkit.ErrDown)
		testkit.RequireCounts(t, a, 0, 0, 0, 0)
	})
}

func TestTrap_FunctionIgnoresItsContext(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a := testkit.Add(t, reg, testkit.Provider{
			Name: "a", Instance: testkit.Takes("late", 10*time.Second), AttemptTimeout: time.Second,
			Limits: registry.LimitPolicy{MaxConcurrent: 1, NoQueue: true},
		})
		var caller sync.WaitGroup
		caller.Go(func() { require.Equal(t, "late", testkit.MustAsk(t, testkit.Bind(reg)), "an answer is an answer") })
		time.Sleep(5 * time.Second)
		_, err := testkit.Ask(t.Context(), testkit.Bind(reg))
		require.ErrorIs(t, err, registry.ErrAtCapacity, "its permit is taken until it returns")
		caller.Wait()
		testkit.RequireCounts(t, a, 1, 0, 0, 0)
	})
}

func TestTrap_MarksAndSentinelsUnderWrapping(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		deep := fmt.Errorf("outer: %w", fmt.Errorf("inner: %w", verdict.Permanent(fmt.Errorf("core: %w", testkit.ErrDown))))
		testkit.Add(t, reg, testkit.Provider{Name: "a", Instance: testkit.Fails(deep)})
		b := testkit.Add(t, reg, testkit.Provider{Name: "b"})
		_, err := testkit.Ask(t.Context(), testkit.Bind(reg))
		require.ErrorIs(t, err, testkit.ErrDown)
		require.ErrorContains(t, err, "outer: inner: core: down")
		testkit.RequireCounts(t, b, 0, 0, 0, 0)
		var failed *registry.CallError
		require.ErrorAs(t, fmt.Errorf("mine: %w", errors.Join(err)), &failed)
	})
}

func TestTrap_TimeThatTestsCannotPass(t *testing.T) {
	t.Parallel()
	began := time.Now()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a := testkit.Add(t, reg, testkit.Provider{Name: "a"})
		require.NoError(t, a.ForceOpen(1000*time.Hour, "test"))
		testkit.Pass(1000*time.Hour + 1)
		require.Equal(t, "a", testkit.MustAsk(t, testkit.Bind(reg)))
	})
	require.Less(t, time.Since(began), time.Minute)
}

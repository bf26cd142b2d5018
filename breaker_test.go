package registry_test

import (
	"context"
	"errors"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/health"
	"github.com/capreg/registry/internal/testkit"
	"github.com/capreg/registry/reason"
	"github.com/capreg/registry/status"
	"github.com/capreg/registry/verdict"
)

func TestBreaker_TripsAtThresholdDespiteHealthyProbes(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a := testkit.Add(t, reg, testkit.Provider{Name: "a", Instance: testkit.Fails(testkit.ErrDown)})
		r := testkit.Bind(reg)
		probe := func(context.Context) error { return nil }
		opened := 0
		for round := 1; round <= 50; round++ {
			if opened == 0 {
				_, err := r.Get(t.Context())
				require.NoError(t, err)
			}
			require.NoError(t, probe(t.Context()))
			require.NoError(t, a.MarkHealthy())
			_, err := testkit.Ask(t.Context(), r)
			require.Error(t, err)
			if opened == 0 && a.Breaker().State == status.BreakerOpen {
				opened = round
			}
		}
		require.Equal(t, 5, opened)
		require.Equal(t, uint64(5), a.Info().Failures, "no call reached it afterwards")
		require.Equal(t, uint64(1), a.Breaker().Opened)
	})
}

func TestBreaker_OpensAtThresholdAndSuccessResetsCount(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		var next error
		a := testkit.Add(t, reg, testkit.Provider{Name: "a", Instance: testkit.Answers(func() (string, error) { return "", next })})
		r := testkit.Bind(reg)
		for range 10 {
			next = testkit.ErrDown
			for failures := range 4 {
				_, _ = testkit.Ask(t.Context(), r)
				require.Equal(t, failures+1, a.Breaker().ConsecutiveFailures)
			}
			require.Equal(t, status.BreakerClosed, a.Breaker().State)
			next = nil
			testkit.MustAsk(t, r)
			require.Zero(t, a.Breaker().ConsecutiveFailures)
		}
		next = testkit.ErrDown
		for range 5 {
			_, _ = testkit.Ask(t.Context(), r)
		}
		stats := a.Breaker()
		require.Equal(t, status.BreakerOpen, stats.State)
		require.Equal(t, "5 failures in a row", stats.Reason)
		require.Equal(t, time.Minute, stats.RetryIn)
		require.Equal(t, time.Now(), stats.LastFailure)
	})
}

func TestBreaker_RefusalNamesProviderReasonAndDelay(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a := testkit.Add(t, reg, testkit.Provider{Name: "a", Instance: testkit.Fails(testkit.ErrDown)})
		testkit.Trip(t, testkit.Bind(reg), a)
		testkit.Pass(20 * time.Second)
		_, err := testkit.Ask(t.Context(), testkit.Bind(reg))
		testkit.RequireOneLine(t, err)
		require.ErrorIs(t, err, registry.ErrUnavailable)
		require.ErrorIs(t, err, registry.ErrBreakerOpen)
		require.NotErrorIs(t, err, registry.ErrUnhealthy)
		var unavailable *registry.UnavailableError
		require.ErrorAs(t, err, &unavailable)
		require.Equal(t, 40*time.Second, unavailable.RetryIn)
		require.Len(t, unavailable.Candidates(), 1)
		require.Equal(t, "a", unavailable.Candidates()[0].Provider)
		require.Equal(t, status.BreakerOpen, unavailable.Candidates()[0].Breaker)
		require.Equal(t, 40*time.Second, unavailable.Candidates()[0].RetryIn)
		require.Equal(t, reason.BreakerOpen, unavailable.Candidates()[0].Code)
	})
}

func TestBreaker_HalfOpensAfterRecoveryTimeout(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a := testkit.Add(t, reg, testkit.Provider{Name: "a", Instance: testkit.Fails(testkit.ErrDown)})
		testkit.Trip(t, testkit.Bind(reg), a)
		testkit.Pass(time.Minute)
		require.Equal(t, status.BreakerOpen, a.Breaker().State)
		testkit.Pass(time.Nanosecond)
		require.Equal(t, status.BreakerHalfOpen, a.Breaker().State)
		require.Equal(t, time.Minute+time.Nanosecond, a.Breaker().TimeOpen)
	})
}

// recovering returns a provider that is half-open, and what it answers next.
func recovering(t *testing.T, reg *registry.Registry, policy registry.BreakerPolicy) (*registry.Registration, *atomic.Pointer[error]) {
	t.Helper()
	var next atomic.Pointer[error]
	next.Store(&testkit.ErrDown)
	a := testkit.Add(t, reg, testkit.Provider{Name: "recovering", Breaker: policy, Instance: testkit.Answers(func() (string, error) {
		if err := *next.Load(); err != nil {
			return "", err
		}
		return "back", nil
	})})
	testkit.Trip(t, testkit.Bind(reg), a)
	testkit.Pass(a.Breaker().Policy.RecoveryTimeout + time.Nanosecond)
	require.Equal(t, status.BreakerHalfOpen, a.Breaker().State)
	return a, &next
}

func TestBreaker_ClosesAfterEnoughGoodTrials(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a, next := recovering(t, reg, registry.BreakerPolicy{})
		next.Store(new(error))
		for trial := range 3 {
			require.Equal(t, trial, a.Breaker().TrialSuccesses)
			require.Equal(t, status.BreakerHalfOpen, a.Breaker().State)
			require.Equal(t, "back", testkit.MustAsk(t, testkit.Bind(reg)))
		}
		stats := a.Breaker()
		require.Equal(t, status.BreakerClosed, stats.State)
		require.Equal(t, []uint64{1, 1, 1}, []uint64{stats.Opened, stats.HalfOpened, stats.Closed})
	})
}

func TestBreaker_BadTrialReopensWithFreshTimer(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a, next := recovering(t, reg, registry.BreakerPolicy{})
		testkit.Pass(10 * time.Second)
		next.Store(new(error))
		testkit.MustAsk(t, testkit.Bind(reg))
		next.Store(&testkit.ErrDown)
		_, err := testkit.Ask(t.Context(), testkit.Bind(reg))
		require.ErrorIs(t, err, testkit.ErrDown)
		require.Equal(t, status.BreakerOpen, a.Breaker().State)
		require.Equal(t, time.Minute, a.Breaker().RetryIn)
		testkit.Pass(time.Minute + time.Nanosecond)
		require.Equal(t, status.BreakerHalfOpen, a.Breaker().State)
		require.Zero(t, a.Breaker().TrialSuccesses, "earlier successes do not count")
	})
}

func TestBreaker_TripsAgainAfterClosing(t *testing.T) {
	t.Parallel()
	for _, forced := range []bool{false, true} {
		testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
			a, next := recovering(t, reg, registry.BreakerPolicy{})
			if forced {
				require.NoError(t, a.ForceOpen(time.Second, "test"))
				testkit.Pass(time.Second + time.Nanosecond)
			}
			next.Store(new(error))
			for range 3 {
				testkit.MustAsk(t, testkit.Bind(reg))
			}
			next.Store(&testkit.ErrDown)
			for failures := range 5 {
				require.Equal(t, status.BreakerClosed, a.Breaker().State)
				require.Equal(t, failures, a.Breaker().ConsecutiveFailures)
				_, _ = testkit.Ask(t.Context(), testkit.Bind(reg))
			}
			require.Equal(t, status.BreakerOpen, a.Breaker().State)
			require.Equal(t, time.Minute, a.Breaker().RetryIn)
		})
	}
}

func TestBreaker_HalfOpenAdmitsOnlyTrialSlots(t *testing.T) {
	t.Parallel()
	for slots := 1; slots <= 3; slots++ {
		testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
			release := make(chan struct{})
			var inside, most atomic.Int64
			down := true
			a := testkit.Add(t, reg, testkit.Provider{Name: "a", Breaker: registry.BreakerPolicy{TrialSlots: slots}, Instance: testkit.Answers(func() (string, error) {
				if down {
					return "", testkit.ErrDown
				}
				defer inside.Add(-1)
				most.Store(max(most.Load(), inside.Add(1)))
				<-release
				return "a", nil
			})})
			testkit.Trip(t, testkit.Bind(reg), a)
			down = false
			b := testkit.Add(t, reg, testkit.Provider{Name: "b"})
			testkit.Pass(time.Minute + time.Nanosecond)
			var callers sync.WaitGroup
			for range 100 {
				callers.Go(func() { testkit.MustAsk(t, testkit.Bind(reg)) })
			}
			synctest.Wait()
			require.Equal(t, slots, a.Breaker().TrialsInFlight)
			require.Equal(t, int64(slots), inside.Load())
			require.Equal(t, uint64(100-slots), b.Info().Successes)
			_, err := testkit.Bind(reg).Get(t.Context())
			require.NoError(t, err, "b is closed")
			close(release)
			callers.Wait()
			require.Equal(t, int64(slots), most.Load())
			require.Zero(t, a.Breaker().TrialsInFlight)
			require.Equal(t, slots%3, a.Breaker().TrialSuccesses, "three close it")
		})
	}
}

func TestBreaker_TrialSlotIsFreedHoweverTrialEnds(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		trial func(t *testing.T, reg *registry.Registry)
		state status.BreakerState
	}{
		"cancelled by its caller": {func(t *testing.T, reg *registry.Registry) {
			t.Helper()
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			_, err := registry.Call(ctx, testkit.Bind(reg), func(ctx context.Context, _ testkit.ChatModel) (int, error) {
				<-ctx.Done()
				return 0, ctx.Err()
			})
			require.Error(t, err)
		}, status.BreakerHalfOpen},
		"ignored": {func(t *testing.T, reg *registry.Registry) {
			t.Helper()
			_, err := registry.Call(t.Context(), testkit.Bind(reg), func(context.Context, testkit.ChatModel) (int, error) {
				return 0, verdict.Ignore(testkit.ErrDown)
			})
			require.Error(t, err)
		}, status.BreakerHalfOpen},
		"panics": {func(t *testing.T, reg *registry.Registry) {
			t.Helper()
			require.Panics(t, func() {
				_, _ = registry.Call(t.Context(), testkit.Bind(reg), func(context.Context, testkit.ChatModel) (int, error) { panic("boom") })
			})
		}, status.BreakerOpen},
		"exits": {func(t *testing.T, reg *registry.Registry) {
			t.Helper()
			var exited sync.WaitGroup
			exited.Go(func() {
				_, _ = registry.Call(t.Context(), testkit.Bind(reg), func(context.Context, testkit.ChatModel) (int, error) {
					runtime.Goexit()
					return 0, nil
				})
			})
			exited.Wait()
		}, status.BreakerOpen},
		"hangs until its timeout": {func(t *testing.T, reg *registry.Registry) {
			t.Helper()
			_, err := registry.Call(t.Context(), testkit.Bind(reg), func(ctx context.Context, _ testkit.ChatModel) (int, error) {
				<-ctx.Done()
				return 0, ctx.Err()
			})
			require.Error(t, err)
		}, status.BreakerOpen},
		"is forgotten": {func(t *testing.T, reg *registry.Registry) {
			t.Helper()
			_, err := testkit.Bind(reg).Acquire(t.Context())
			require.NoError(t, err)
			testkit.Pass(31 * time.Second)
		}, status.BreakerOpen},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
				a, next := recovering(t, reg, registry.BreakerPolicy{})
				c.trial(t, reg)
				require.Equal(t, c.state, a.Breaker().State)
				require.Zero(t, a.Breaker().TrialsInFlight)
				require.Zero(t, a.Info().InFlight)
				if c.state == status.BreakerOpen {
					testkit.Pass(time.Minute + time.Nanosecond)
				}
				next.Store(new(error))
				require.Equal(t, "back", testkit.MustAsk(t, testkit.Bind(reg)), "the slot is free")
			})
		})
	}
}

func TestBreaker_HungTrialReturnsItsSlot(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		bad := atomic.Bool{}
		bad.Store(true)
		a := testkit.Add(t, reg, testkit.Provider{Name: "a", AttemptTimeout: time.Second, Instance: testkit.Answers(func() (string, error) {
			if bad.Load() {
				return "", testkit.ErrDown
			}
			return "a", nil
		})})
		r := testkit.Bind(reg)
		testkit.Trip(t, r, a)
		testkit.Pass(time.Minute + time.Second)
		require.Equal(t, status.BreakerHalfOpen, a.Breaker().State)
		release := make(chan struct{})
		var all sync.WaitGroup
		all.Go(func() {
			_, _ = registry.Call(context.Background(), r, func(context.Context, testkit.ChatModel) (string, error) {
				<-release // a client that ignores its context
				return "", testkit.ErrDown
			})
		})
		synctest.Wait()
		bad.Store(false)
		testkit.Pass(24 * time.Hour)
		_, err := testkit.Ask(t.Context(), r)
		require.NoError(t, err, "a day after a trial of one second hung")
		close(release)
		all.Wait()
	})
}

// openingContext opens and half-opens a breaker while it is asked for its deadline, which is
// after the gate of the provider was read.
type openingContext struct {
	context.Context

	open func()
}

func (c *openingContext) Deadline() (time.Time, bool) {
	if c.open != nil {
		open := c.open
		c.open = nil
		open()
	}
	return c.Context.Deadline()
}

func TestBreaker_HungTrialThatBeganAsAnOrdinaryAttemptReturnsItsSlot(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a := testkit.Add(t, reg, testkit.Provider{Name: "a", AttemptTimeout: time.Minute})
		ctx := &openingContext{Context: t.Context(), open: func() {
			require.NoError(t, a.ForceOpen(time.Second, "test"))
			testkit.Pass(2 * time.Second)
		}}
		release := make(chan struct{})
		go func() {
			_, _ = registry.Call(ctx, testkit.Bind(reg), func(context.Context, testkit.ChatModel) (string, error) {
				<-release // it ignores its context
				return "", nil
			})
		}()
		testkit.Pass(3 * time.Second)
		require.Equal(t, 1, a.Breaker().TrialsInFlight)
		testkit.Pass(time.Minute + time.Second)
		require.Equal(t, status.BreakerOpen, a.Breaker().State, "a trial that does not return has failed")
		close(release)
	})
}

func TestBreaker_SlowTrialCountsAsFailed(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a := testkit.Add(t, reg, testkit.Provider{Name: "a", Breaker: registry.BreakerPolicy{SlowRate: 0.5, SlowAfter: time.Second, SuccessThreshold: 1}})
		require.NoError(t, a.ForceOpen(time.Second, "x"))
		testkit.Pass(2 * time.Second)
		l, err := testkit.Bind(reg).Acquire(t.Context())
		require.NoError(t, err)
		time.Sleep(5 * time.Second)
		l.Done(verdict.Permanent(testkit.ErrDown))
		require.Equal(t, status.BreakerOpen, a.Breaker().State, "A slow trial then counts as a failed one, whatever it was")
	})
}

func TestBreaker_LastResortGetsNoMoreThanTrialSlots(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		var inside, most atomic.Int32
		a := testkit.Add(t, reg, testkit.Provider{Name: "a", LastResort: true, Instance: testkit.Answers(func() (string, error) {
			n := inside.Add(1)
			if n > most.Load() {
				most.Store(n)
			}
			time.Sleep(time.Second)
			inside.Add(-1)
			return "", testkit.ErrDown
		})})
		require.NoError(t, a.ForceOpen(time.Second, "x"))
		testkit.Pass(2 * time.Second)
		require.Equal(t, status.BreakerHalfOpen, a.Breaker().State)
		var all sync.WaitGroup
		for range 100 {
			all.Go(func() { _, _ = testkit.Ask(context.Background(), testkit.Bind(reg)) })
		}
		all.Wait()
		require.EqualValues(t, 1, most.Load(), "half-open with 1 slot")
	})
}

func TestBreaker_LastResortOutcomesDoNotCount(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a := testkit.Add(t, reg, testkit.Provider{Name: "a", LastResort: true, Instance: testkit.Fails(testkit.ErrDown)})
		require.NoError(t, a.MarkUnhealthy(testkit.ErrDown))
		r := testkit.Bind(reg)
		for range 10 {
			_, _ = testkit.Ask(t.Context(), r)
		}
		require.Equal(t, status.BreakerClosed, a.Breaker().State, "documented: the outcome moves no breaker")
	})
}

func TestBreaker_LateFailureDoesNotMoveRecoveryOrReopen(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a := testkit.Add(t, reg, testkit.Provider{Name: "a", AttemptTimeout: registry.NoTimeout})
		r := testkit.Bind(reg)
		var late sync.WaitGroup
		begin := func(d time.Duration) {
			late.Go(func() {
				_, err := registry.Call(t.Context(), r, func(context.Context, testkit.ChatModel) (int, error) {
					time.Sleep(d)
					return 0, testkit.ErrDown
				})
				require.ErrorIs(t, err, testkit.ErrDown)
			})
		}
		begin(30 * time.Second)             // ends while it is open
		begin(time.Minute + 10*time.Second) // ends while it is half-open
		synctest.Wait()
		for range 5 {
			_, err := registry.Call(t.Context(), r, func(context.Context, testkit.ChatModel) (int, error) { return 0, testkit.ErrDown })
			require.ErrorIs(t, err, testkit.ErrDown)
		}
		testkit.Pass(30 * time.Second)
		require.Equal(t, 30*time.Second, a.Breaker().RetryIn)
		testkit.Pass(30*time.Second + time.Nanosecond)
		require.Equal(t, status.BreakerHalfOpen, a.Breaker().State)
		late.Wait()
		require.Equal(t, status.BreakerHalfOpen, a.Breaker().State)
		testkit.RequireCounts(t, a, 0, 7, 0, 0)
	})
}

func TestBreaker_ReadingChangesNothing(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a, _ := recovering(t, reg, registry.BreakerPolicy{})
		for range 100 {
			_, _ = a.Breaker(), a.Info()
			_, _ = testkit.Bind(reg).Explain(), reg.Stats()
			_, err := testkit.Bind(reg).Get(t.Context())
			require.ErrorIs(t, err, registry.ErrBreakerOpen, "Get makes no trials")
		}
		stats := a.Breaker()
		require.Equal(t, status.BreakerHalfOpen, stats.State)
		require.Zero(t, stats.TrialsInFlight)
		require.Equal(t, uint64(1), stats.HalfOpened)
	})
}

func TestBreaker_IsIndependentOfHealth(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a := testkit.Add(t, reg, testkit.Provider{Name: "a", Instance: testkit.Fails(testkit.ErrDown)})
		testkit.Trip(t, testkit.Bind(reg), a)
		require.Equal(t, health.Healthy, a.Health().State)
		require.NoError(t, a.MarkHealthy())
		require.Equal(t, status.BreakerOpen, a.Breaker().State, "good health closes no breaker")
		errTired := errors.New("tired")
		require.NoError(t, a.MarkUnhealthy(errTired))
		require.NoError(t, a.Reset())
		require.Equal(t, health.Unhealthy, a.Health().State, "a reset does not change health")
		_, err := testkit.Ask(t.Context(), testkit.Bind(reg))
		require.ErrorIs(t, err, registry.ErrUnhealthy)
		require.ErrorIs(t, err, errTired)
		require.NotErrorIs(t, err, registry.ErrBreakerOpen)
		require.NoError(t, a.MarkHealthy())
		_, err = testkit.Ask(t.Context(), testkit.Bind(reg))
		require.ErrorIs(t, err, testkit.ErrDown)
	})
}

func TestBreakerState_HasNames(t *testing.T) {
	t.Parallel()
	for state, name := range map[status.BreakerState]string{
		status.BreakerClosed: "closed", status.BreakerOpen: "open",
		status.BreakerHalfOpen: "half-open",
	} {
		require.Equal(t, name, state.String())
		text, err := state.MarshalText()
		require.NoError(t, err)
		require.Equal(t, name, string(text))
		var back status.BreakerState
		require.NoError(t, back.UnmarshalText(text))
		require.Equal(t, state, back)
	}
	none := status.BreakerState(9)
	require.Equal(t, "state(9)", none.String())
	_, err := none.MarshalText()
	require.ErrorIs(t, err, registry.ErrInvalid)
	require.ErrorIs(t, none.UnmarshalText([]byte("ajar")), registry.ErrInvalid)
	require.Equal(t, status.BreakerState(9), none)
}

func TestBreaker_IsReadableAfterProviderLeft(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		gone := testkit.Add(t, reg, testkit.Provider{Name: "a"})
		require.NoError(t, gone.ForceOpen(time.Minute, "test"))
		require.NoError(t, gone.Unregister(t.Context()))
		testkit.Pass(2 * time.Minute) // the breaker's time is over
		require.False(t, gone.Info().Eligible)
		require.Contains(t, gone.Info().Reason, "breaker open (test)")
	})
}

package registry_test

import (
	"context"
	"errors"
	"math"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/event"
	"github.com/capreg/registry/health"
	"github.com/capreg/registry/verdict"
)

func TestAlternatingHealthyProbesAndFailingCallsTripAtTheThreshold(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a := add(t, reg, provider{Name: "a", Instance: fails(errDown)})
		r := bind(reg)
		probe := func(context.Context) error { return nil }
		opened := 0
		for round := 1; round <= 50; round++ {
			if opened == 0 {
				_, err := r.Get(t.Context())
				require.NoError(t, err)
			}
			require.NoError(t, probe(t.Context()))
			require.NoError(t, a.MarkHealthy())
			_, err := ask(t.Context(), r)
			require.Error(t, err)
			if opened == 0 && a.Breaker().State == registry.BreakerOpen {
				opened = round
			}
		}
		require.Equal(t, 5, opened)
		require.Equal(t, uint64(5), a.Info().Failures, "no call reached it afterwards")
		require.Equal(t, uint64(1), a.Breaker().Opened)
	})
}

func TestBreakerOpensAtTheThresholdAndASuccessStartsOver(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		var next error
		a := add(t, reg, provider{Name: "a", Instance: answers(func() (string, error) { return "", next })})
		r := bind(reg)
		for range 10 {
			next = errDown
			for failures := range 4 {
				_, _ = ask(t.Context(), r)
				require.Equal(t, failures+1, a.Breaker().ConsecutiveFailures)
			}
			require.Equal(t, registry.BreakerClosed, a.Breaker().State)
			next = nil
			asked(t, r)
			require.Zero(t, a.Breaker().ConsecutiveFailures)
		}
		next = errDown
		for range 5 {
			_, _ = ask(t.Context(), r)
		}
		stats := a.Breaker()
		require.Equal(t, registry.BreakerOpen, stats.State)
		require.Equal(t, "5 failures in a row", stats.Reason)
		require.Equal(t, time.Minute, stats.RetryIn)
		require.Equal(t, time.Now(), stats.LastFailure)
	})
}

func TestRefusedCallSaysWhoWhyAndWhenToRetry(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a := add(t, reg, provider{Name: "a", Instance: fails(errDown)})
		trip(t, bind(reg), a)
		pass(20 * time.Second)
		_, err := ask(t.Context(), bind(reg))
		requireOneLine(t, err)
		require.ErrorIs(t, err, registry.ErrUnavailable)
		require.ErrorIs(t, err, registry.ErrBreakerOpen)
		require.NotErrorIs(t, err, registry.ErrUnhealthy)
		var unavailable *registry.UnavailableError
		require.ErrorAs(t, err, &unavailable)
		require.Equal(t, 40*time.Second, unavailable.RetryIn)
		require.Len(t, unavailable.Candidates, 1)
		require.Equal(t, "a", unavailable.Candidates[0].Provider)
		require.Equal(t, registry.BreakerOpen, unavailable.Candidates[0].Breaker)
		require.Equal(t, 40*time.Second, unavailable.Candidates[0].RetryIn)
		require.Equal(t, "breaker_open", unavailable.Candidates[0].Code)
	})
}

func TestBreakerIsOpenUpToTheRecoveryTimeAndHalfOpenAfterIt(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a := add(t, reg, provider{Name: "a", Instance: fails(errDown)})
		trip(t, bind(reg), a)
		pass(time.Minute)
		require.Equal(t, registry.BreakerOpen, a.Breaker().State)
		pass(time.Nanosecond)
		require.Equal(t, registry.BreakerHalfOpen, a.Breaker().State)
		require.Equal(t, time.Minute+time.Nanosecond, a.Breaker().TimeOpen)
	})
}

// recovering returns a provider that is half-open, and what it answers next.
func recovering(t *testing.T, reg *registry.Registry, policy registry.BreakerPolicy) (*registry.Registration, *atomic.Pointer[error]) {
	t.Helper()
	var next atomic.Pointer[error]
	next.Store(&errDown)
	a := add(t, reg, provider{Name: "recovering", Breaker: policy, Instance: answers(func() (string, error) {
		if err := *next.Load(); err != nil {
			return "", err
		}
		return "back", nil
	})})
	trip(t, bind(reg), a)
	pass(a.Breaker().Policy.RecoveryTimeout + time.Nanosecond)
	require.Equal(t, registry.BreakerHalfOpen, a.Breaker().State)
	return a, &next
}

func TestEnoughGoodTrialsCloseTheBreaker(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a, next := recovering(t, reg, registry.BreakerPolicy{})
		next.Store(new(error))
		for trial := range 3 {
			require.Equal(t, trial, a.Breaker().TrialSuccesses)
			require.Equal(t, registry.BreakerHalfOpen, a.Breaker().State)
			require.Equal(t, "back", asked(t, bind(reg)))
		}
		stats := a.Breaker()
		require.Equal(t, registry.BreakerClosed, stats.State)
		require.Equal(t, []uint64{1, 1, 1}, []uint64{stats.Opened, stats.HalfOpened, stats.Closed})
	})
}

func TestOneBadTrialOpensTheBreakerWithAFreshTimer(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a, next := recovering(t, reg, registry.BreakerPolicy{})
		pass(10 * time.Second)
		next.Store(new(error))
		asked(t, bind(reg))
		next.Store(&errDown)
		_, err := ask(t.Context(), bind(reg))
		require.ErrorIs(t, err, errDown)
		require.Equal(t, registry.BreakerOpen, a.Breaker().State)
		require.Equal(t, time.Minute, a.Breaker().RetryIn)
		pass(time.Minute + time.Nanosecond)
		require.Equal(t, registry.BreakerHalfOpen, a.Breaker().State)
		require.Zero(t, a.Breaker().TrialSuccesses, "earlier successes do not count")
	})
}

func TestBreakerThatClosedTripsAgainAtItsThreshold(t *testing.T) {
	t.Parallel()
	for _, forced := range []bool{false, true} {
		bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
			a, next := recovering(t, reg, registry.BreakerPolicy{})
			if forced {
				require.NoError(t, a.ForceOpen(time.Second, "test"))
				pass(time.Second + time.Nanosecond)
			}
			next.Store(new(error))
			for range 3 {
				asked(t, bind(reg))
			}
			next.Store(&errDown)
			for failures := range 5 {
				require.Equal(t, registry.BreakerClosed, a.Breaker().State)
				require.Equal(t, failures, a.Breaker().ConsecutiveFailures)
				_, _ = ask(t.Context(), bind(reg))
			}
			require.Equal(t, registry.BreakerOpen, a.Breaker().State)
			require.Equal(t, time.Minute, a.Breaker().RetryIn)
		})
	}
}

func TestHalfOpenAdmitsOnlyItsSlotsAndTheRestGoToTheNextProvider(t *testing.T) {
	t.Parallel()
	for slots := 1; slots <= 3; slots++ {
		bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
			release := make(chan struct{})
			var inside, most atomic.Int64
			down := true
			a := add(t, reg, provider{Name: "a", Breaker: registry.BreakerPolicy{TrialSlots: slots}, Instance: answers(func() (string, error) {
				if down {
					return "", errDown
				}
				defer inside.Add(-1)
				most.Store(max(most.Load(), inside.Add(1)))
				<-release
				return "a", nil
			})})
			trip(t, bind(reg), a)
			down = false
			b := add(t, reg, provider{Name: "b"})
			pass(time.Minute + time.Nanosecond)
			var callers sync.WaitGroup
			for range 100 {
				callers.Go(func() { asked(t, bind(reg)) })
			}
			synctest.Wait()
			require.Equal(t, slots, a.Breaker().TrialsInFlight)
			require.Equal(t, int64(slots), inside.Load())
			require.Equal(t, uint64(100-slots), b.Info().Successes)
			_, err := bind(reg).Get(t.Context())
			require.NoError(t, err, "b is closed")
			close(release)
			callers.Wait()
			require.Equal(t, int64(slots), most.Load())
			require.Zero(t, a.Breaker().TrialsInFlight)
			require.Equal(t, slots%3, a.Breaker().TrialSuccesses, "three close it")
		})
	}
}

func TestTrialSlotIsFreeAgainHoweverTheTrialEnds(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		trial func(t *testing.T, reg *registry.Registry)
		state registry.BreakerState
	}{
		"cancelled by its caller": {func(t *testing.T, reg *registry.Registry) {
			t.Helper()
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			_, err := registry.Call(ctx, bind(reg), func(ctx context.Context, _ chatModel) (int, error) {
				<-ctx.Done()
				return 0, ctx.Err()
			})
			require.Error(t, err)
		}, registry.BreakerHalfOpen},
		"ignored": {func(t *testing.T, reg *registry.Registry) {
			t.Helper()
			_, err := registry.Call(t.Context(), bind(reg), func(context.Context, chatModel) (int, error) {
				return 0, verdict.Ignore(errDown)
			})
			require.Error(t, err)
		}, registry.BreakerHalfOpen},
		"panics": {func(t *testing.T, reg *registry.Registry) {
			t.Helper()
			require.Panics(t, func() {
				_, _ = registry.Call(t.Context(), bind(reg), func(context.Context, chatModel) (int, error) { panic("boom") })
			})
		}, registry.BreakerOpen},
		"exits": {func(t *testing.T, reg *registry.Registry) {
			t.Helper()
			var exited sync.WaitGroup
			exited.Go(func() {
				_, _ = registry.Call(t.Context(), bind(reg), func(context.Context, chatModel) (int, error) {
					runtime.Goexit()
					return 0, nil
				})
			})
			exited.Wait()
		}, registry.BreakerOpen},
		"hangs until its timeout": {func(t *testing.T, reg *registry.Registry) {
			t.Helper()
			_, err := registry.Call(t.Context(), bind(reg), func(ctx context.Context, _ chatModel) (int, error) {
				<-ctx.Done()
				return 0, ctx.Err()
			})
			require.Error(t, err)
		}, registry.BreakerOpen},
		"is forgotten": {func(t *testing.T, reg *registry.Registry) {
			t.Helper()
			_, err := bind(reg).Acquire(t.Context())
			require.NoError(t, err)
			pass(31 * time.Second)
		}, registry.BreakerOpen},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
				a, next := recovering(t, reg, registry.BreakerPolicy{})
				c.trial(t, reg)
				require.Equal(t, c.state, a.Breaker().State)
				require.Zero(t, a.Breaker().TrialsInFlight)
				require.Zero(t, a.Info().InFlight)
				if c.state == registry.BreakerOpen {
					pass(time.Minute + time.Nanosecond)
				}
				next.Store(new(error))
				require.Equal(t, "back", asked(t, bind(reg)), "the slot is free")
			})
		})
	}
}

func TestLateFailureNeitherMovesTheRecoveryTimeNorReopens(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a := add(t, reg, provider{Name: "a", AttemptTimeout: registry.NoTimeout})
		r := bind(reg)
		var late sync.WaitGroup
		begin := func(d time.Duration) {
			late.Go(func() {
				_, err := registry.Call(t.Context(), r, func(context.Context, chatModel) (int, error) {
					time.Sleep(d)
					return 0, errDown
				})
				require.ErrorIs(t, err, errDown)
			})
		}
		begin(30 * time.Second)             // ends while it is open
		begin(time.Minute + 10*time.Second) // ends while it is half-open
		synctest.Wait()
		for range 5 {
			_, err := registry.Call(t.Context(), r, func(context.Context, chatModel) (int, error) { return 0, errDown })
			require.ErrorIs(t, err, errDown)
		}
		pass(30 * time.Second)
		require.Equal(t, 30*time.Second, a.Breaker().RetryIn)
		pass(30*time.Second + time.Nanosecond)
		require.Equal(t, registry.BreakerHalfOpen, a.Breaker().State)
		late.Wait()
		require.Equal(t, registry.BreakerHalfOpen, a.Breaker().State)
		requireCounts(t, a, 0, 7, 0, 0)
	})
}

func TestForceOpenRefusesForItsTimeWhateverTheState(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		events := reg.Subscribe(0)
		a := add(t, reg, provider{Name: "a"})
		require.NoError(t, a.ForceOpen(5*time.Minute, "maintenance"))
		stats := a.Breaker()
		require.True(t, stats.Forced)
		require.Equal(t, "maintenance", stats.Reason)
		require.Equal(t, 5*time.Minute, stats.RetryIn)
		_, err := ask(t.Context(), bind(reg))
		require.ErrorIs(t, err, registry.ErrBreakerOpen)
		require.ErrorContains(t, err, "maintenance")
		pass(time.Minute)
		require.NoError(t, a.ForceOpen(2*time.Minute, "longer"), "while open")
		require.Equal(t, 2*time.Minute, a.Breaker().RetryIn)
		pass(2*time.Minute + time.Nanosecond)
		require.Equal(t, registry.BreakerHalfOpen, a.Breaker().State)
		require.NoError(t, a.ForceOpen(time.Minute, "again"), "while half-open")
		require.Equal(t, registry.BreakerOpen, a.Breaker().State)
		require.Equal(t, []event.Kind{
			event.Registered, event.BreakerOpened, event.BreakerOpened, event.BreakerHalfOpened, event.BreakerOpened,
		}, kinds(t, events))
		require.Equal(t, uint64(3), a.Breaker().ForcedOpen)
	})
}

func TestTrialAfterAForcedOpeningThatFailsOpensForTheOrdinaryTime(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a := add(t, reg, provider{Name: "a", Instance: fails(errDown)})
		require.NoError(t, a.ForceOpen(time.Hour, "test"))
		pass(time.Hour + time.Nanosecond)
		_, err := ask(t.Context(), bind(reg))
		require.ErrorIs(t, err, errDown)
		stats := a.Breaker()
		require.Equal(t, registry.BreakerOpen, stats.State)
		require.Equal(t, time.Minute, stats.RetryIn)
		require.False(t, stats.Forced)
		pass(time.Minute + time.Nanosecond)
		_, err = ask(t.Context(), bind(reg))
		require.ErrorIs(t, err, errDown)
		require.Equal(t, time.Minute, a.Breaker().RetryIn)
	})
}

func TestForceOpenWithoutTimeIsAnErrorAndChangesNothing(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a := add(t, reg, provider{Name: "a"})
		for _, d := range []time.Duration{0, -time.Second} {
			require.ErrorIs(t, a.ForceOpen(d, "test"), registry.ErrInvalid)
		}
		require.Equal(t, registry.BreakerClosed, a.Breaker().State)
		require.Zero(t, a.Breaker().ForcedOpen)
	})
}

func TestForceOpenForAVeryLongTimeIsEndedByReset(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a := add(t, reg, provider{Name: "a"})
		require.NoError(t, a.ForceOpen(math.MaxInt64, "for good"))
		require.Equal(t, registry.BreakerOpen, a.Breaker().State)
		pass(24 * time.Hour)
		require.Equal(t, registry.BreakerOpen, a.Breaker().State)
		require.NoError(t, a.Reset())
		require.Equal(t, "a", asked(t, bind(reg)))
	})
}

func TestResetClosesFromEveryStateWithCountsAtZero(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a, next := recovering(t, reg, registry.BreakerPolicy{})
		require.NoError(t, a.Reset(), "half-open")
		require.Equal(t, registry.BreakerClosed, a.Breaker().State)
		trip(t, bind(reg), a)
		require.Equal(t, uint64(10), a.Info().Failures, "the next trip needs the whole threshold")
		require.NoError(t, a.Reset(), "open")
		pass(time.Hour)
		require.Equal(t, registry.BreakerClosed, a.Breaker().State)
		for range 4 {
			_, _ = ask(t.Context(), bind(reg))
		}
		require.NoError(t, a.Reset(), "closed, with failures")
		require.Zero(t, a.Breaker().ConsecutiveFailures)
		for range 4 {
			_, _ = ask(t.Context(), bind(reg))
		}
		require.Equal(t, registry.BreakerClosed, a.Breaker().State)
		require.Equal(t, uint64(2), a.Breaker().Resets, "one that was closed does not count")
		next.Store(new(error))
		asked(t, bind(reg))
	})
}

func TestOutcomeOfACallThatBeganBeforeAResetDoesNotCount(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a := add(t, reg, provider{Name: "a", Breaker: registry.BreakerPolicy{FailureThreshold: 1}})
		require.NoError(t, a.ForceOpen(time.Minute, "test"))
		pass(time.Minute + time.Nanosecond)
		lease, err := bind(reg).Acquire(t.Context())
		require.NoError(t, err)
		require.Equal(t, 1, a.Breaker().TrialsInFlight)
		require.NoError(t, a.Reset())
		lease.Done(errDown)
		require.Equal(t, registry.BreakerClosed, a.Breaker().State)
		require.Zero(t, a.Breaker().TrialsInFlight)
		requireCounts(t, a, 0, 1, 0, 0)
	})
}

func TestNewBreakerPolicyKeepsTheFailuresInARow(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a := add(t, reg, provider{Name: "a", Instance: fails(errDown)})
		for range 3 {
			_, _ = ask(t.Context(), bind(reg))
		}
		previous, err := a.SetBreaker(registry.BreakerPolicy{FailureThreshold: 4, RecoveryTimeout: time.Second})
		require.NoError(t, err)
		require.Equal(t, 5, previous.FailureThreshold)
		require.Equal(t, 3, a.Breaker().ConsecutiveFailures)
		_, _ = ask(t.Context(), bind(reg))
		require.Equal(t, registry.BreakerOpen, a.Breaker().State)
		require.Equal(t, "4 failures in a row", a.Breaker().Reason)
		require.Equal(t, time.Second, a.Breaker().RetryIn)
	})
}

func TestNewBreakerPolicyLetsAnOpenTimeInProgressEndAsItBegan(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a := add(t, reg, provider{Name: "a", Instance: fails(errDown)})
		trip(t, bind(reg), a)
		_, err := a.SetBreaker(registry.BreakerPolicy{RecoveryTimeout: time.Second})
		require.NoError(t, err)
		require.Equal(t, time.Minute, a.Breaker().RetryIn)
		pass(time.Minute + time.Nanosecond)
		_, err = ask(t.Context(), bind(reg))
		require.ErrorIs(t, err, errDown)
		require.Equal(t, time.Second, a.Breaker().RetryIn, "the next one follows the new policy")
	})
}

func TestNewBreakerPolicyThatIsBadChangesNothing(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a := add(t, reg, provider{Name: "a"})
		before := a.Breaker().Policy
		_, err := a.SetBreaker(registry.BreakerPolicy{TrialSlots: 4})
		require.ErrorIs(t, err, registry.ErrInvalid)
		require.ErrorContains(t, err, "TrialSlots is 4: want at most SuccessThreshold (3)")
		require.Equal(t, before, a.Breaker().Policy)
	})
}

func TestReadingABreakerNeverMovesIt(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a, _ := recovering(t, reg, registry.BreakerPolicy{})
		for range 100 {
			_, _ = a.Breaker(), a.Info()
			_, _ = bind(reg).Explain(), reg.Stats()
			_, err := bind(reg).Get(t.Context())
			require.ErrorIs(t, err, registry.ErrBreakerOpen, "Get makes no trials")
		}
		stats := a.Breaker()
		require.Equal(t, registry.BreakerHalfOpen, stats.State)
		require.Zero(t, stats.TrialsInFlight)
		require.Equal(t, uint64(1), stats.HalfOpened)
	})
}

func TestHealthAndBreakerAreTwoSignals(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a := add(t, reg, provider{Name: "a", Instance: fails(errDown)})
		trip(t, bind(reg), a)
		require.Equal(t, health.Healthy, a.Health().State)
		require.NoError(t, a.MarkHealthy())
		require.Equal(t, registry.BreakerOpen, a.Breaker().State, "good health closes no breaker")
		errTired := errors.New("tired")
		require.NoError(t, a.MarkUnhealthy(errTired))
		require.NoError(t, a.Reset())
		require.Equal(t, health.Unhealthy, a.Health().State, "a reset cures nobody")
		_, err := ask(t.Context(), bind(reg))
		require.ErrorIs(t, err, registry.ErrUnhealthy)
		require.ErrorIs(t, err, errTired)
		require.NotErrorIs(t, err, registry.ErrBreakerOpen)
		require.NoError(t, a.MarkHealthy())
		_, err = ask(t.Context(), bind(reg))
		require.ErrorIs(t, err, errDown)
	})
}

func TestStatesOfABreakerHaveNames(t *testing.T) {
	t.Parallel()
	for state, name := range map[registry.BreakerState]string{
		registry.BreakerClosed: "closed", registry.BreakerOpen: "open",
		registry.BreakerHalfOpen: "half-open", 9: "state(9)",
	} {
		require.Equal(t, name, state.String())
		text, err := state.MarshalText()
		require.NoError(t, err)
		require.Equal(t, name, string(text))
	}
}

func TestProviderThatLeftWithAnOpenBreakerCanStillBeDescribed(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		gone := add(t, reg, provider{Name: "a"})
		require.NoError(t, gone.ForceOpen(time.Minute, "test"))
		require.NoError(t, gone.Unregister(t.Context()))
		pass(2 * time.Minute) // the breaker's time is over
		require.False(t, gone.Info().Eligible)
		require.Contains(t, gone.Info().Reason, "breaker open (test)")
	})
}

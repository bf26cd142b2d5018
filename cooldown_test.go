package registry_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/event"
	"github.com/capreg/registry/verdict"
)

func TestRateLimitedProviderIsSkippedUntilItsDelayIsOver(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		limited := true
		a := add(t, reg, provider{Name: "a", Instance: answers(func() (string, error) {
			if limited {
				return "", verdict.RateLimited(errDown, 30*time.Second)
			}
			return "a", nil
		})})
		add(t, reg, provider{Name: "b"})
		events := reg.Subscribe(0)
		for range 100 {
			require.Equal(t, "b", asked(t, bind(reg)))
			pass(100 * time.Millisecond)
		}
		requireCounts(t, a, 0, 0, 0, 1)
		require.Zero(t, a.Breaker().ConsecutiveFailures)
		limited = false
		pass(20*time.Second - 1)
		require.Equal(t, "b", asked(t, bind(reg)), "never earlier than asked")
		pass(3*time.Second + 1) // its jitter is at most a tenth
		require.Equal(t, "a", asked(t, bind(reg)))
		require.Equal(t, []event.Kind{event.Cooling, event.CooldownEnded}, kinds(t, events))
	})
}

func TestRateLimitWithNobodyLeftFailsAtOnceWithTheDelay(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		add(t, reg, provider{Name: "a", Instance: fails(verdict.RateLimited(errDown, time.Minute))})
		_, err := ask(t.Context(), bind(reg))
		require.ErrorIs(t, err, errDown)
		var failed *registry.CallError
		require.ErrorAs(t, err, &failed)
		require.GreaterOrEqual(t, failed.RetryIn, time.Minute)
		_, err = ask(t.Context(), bind(reg))
		var unavailable *registry.UnavailableError
		require.ErrorAs(t, err, &unavailable)
		require.ErrorIs(t, err, registry.ErrCoolingDown)
		require.GreaterOrEqual(t, unavailable.RetryIn, time.Minute)
	})
}

func TestCooldownsGrowUntilASuccess(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		var next error
		a := add(t, reg, provider{Name: "a", Instance: answers(func() (string, error) { return "a", next })})
		limit := func() time.Duration {
			next = verdict.RateLimited(errDown, 0)
			_, err := ask(t.Context(), bind(reg))
			require.Error(t, err)
			length := time.Until(a.Info().CooldownUntil)
			pass(length)
			require.True(t, a.Info().Eligible)
			return length
		}
		for _, seconds := range []int{2, 4, 8, 16, 32, 60, 60} {
			longest := time.Duration(seconds) * time.Second
			length := limit()
			require.LessOrEqual(t, length, longest)
			require.GreaterOrEqual(t, length, longest/2)
		}
		next = nil
		asked(t, bind(reg))
		require.LessOrEqual(t, limit(), 2*time.Second)
	})
}

func TestTheLatestDeadlineOfACooldownWins(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a := add(t, reg, provider{Name: "a"})
		leases := make([]*registry.Lease[chatModel], 3)
		for i := range leases {
			var err error
			leases[i], err = bind(reg).Acquire(t.Context())
			require.NoError(t, err)
		}
		leases[0].Done(verdict.RateLimited(errDown, 20*time.Second))
		until := a.Info().CooldownUntil
		leases[1].Done(verdict.RateLimited(errDown, time.Second))
		require.Equal(t, until, a.Info().CooldownUntil, "a shorter one changes nothing")
		leases[2].Done(verdict.RateLimited(errDown, 25*time.Second))
		require.GreaterOrEqual(t, time.Until(a.Info().CooldownUntil), 25*time.Second)
		pass(23 * time.Second)
		require.False(t, a.Info().Eligible)
		pass(5 * time.Second)
		require.True(t, a.Info().Eligible)
	})
}

func TestSuccessOfACallInFlightDoesNotShortenACooldown(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a := add(t, reg, provider{Name: "a"})
		first, err := bind(reg).Acquire(t.Context())
		require.NoError(t, err)
		second, err := bind(reg).Acquire(t.Context())
		require.NoError(t, err)
		first.Done(verdict.RateLimited(errDown, time.Minute))
		until := a.Info().CooldownUntil
		second.Done(nil)
		require.Equal(t, until, a.Info().CooldownUntil)
	})
}

func TestServerThatAsksForYearsIsLeftAloneForADay(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a := add(t, reg, provider{Name: "a", Instance: fails(verdict.RateLimited(errDown, 1<<62))})
		_, err := ask(t.Context(), bind(reg))
		require.Error(t, err)
		require.Equal(t, 24*time.Hour, time.Until(a.Info().CooldownUntil))
	})
}

func TestRefusedCredentialsParkTheProviderAndOthersAnswer(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		parked := statusError{code: 401}
		a := add(t, reg, provider{Name: "a", Instance: fails(parked)})
		add(t, reg, provider{Name: "b"})
		events := reg.Subscribe(0)
		for range 20 {
			require.Equal(t, "b", asked(t, bind(reg)))
		}
		requireCounts(t, a, 0, 0, 0, 1)
		require.Equal(t, registry.BreakerClosed, a.Breaker().State)
		require.Equal(t, []event.Kind{event.Parked}, kinds(t, events))
		require.GreaterOrEqual(t, time.Until(a.Info().CooldownUntil), 2*time.Minute)
		require.Contains(t, a.Info().Reason, "no usable credentials")
		require.NoError(t, a.Reset())
		require.True(t, a.Info().Eligible)
		require.Equal(t, []event.Kind{event.CooldownEnded}, kinds(t, events))
	})
}

func TestErrorSaysCredentialsWhenEverybodyIsParked(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		add(t, reg, provider{Name: "a", Instance: fails(statusError{code: 401})})
		add(t, reg, provider{Name: "b", Instance: fails(verdict.Fatal(errDown, time.Hour))})
		_, err := ask(t.Context(), bind(reg))
		requireOneLine(t, err)
		require.ErrorIs(t, err, registry.ErrCredentials, "the call that finds out")
		require.Contains(t, err.Error(), "no usable credentials")
		require.ErrorIs(t, err, errDown)
		_, err = ask(t.Context(), bind(reg))
		require.ErrorIs(t, err, registry.ErrCredentials, "the calls after it")
		require.ErrorIs(t, err, registry.ErrUnavailable)
		require.ErrorIs(t, err, registry.ErrCoolingDown)
		require.ErrorIs(t, err, errDown, "the cause is kept")
	})
}

func TestErrorDoesNotSayCredentialsWhenSomebodyFailedOtherwise(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		add(t, reg, provider{Name: "a", Instance: fails(statusError{code: 401})})
		add(t, reg, provider{Name: "b", Instance: fails(errDown)})
		_, err := ask(t.Context(), bind(reg))
		require.NotErrorIs(t, err, registry.ErrCredentials)
	})
}

func TestBareServiceUnavailableIsAFailureWithAShortRest(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a := add(t, reg, provider{Name: "a", Instance: fails(statusError{code: 503})})
		add(t, reg, provider{Name: "b"})
		require.Equal(t, "b", asked(t, bind(reg)))
		requireCounts(t, a, 0, 1, 0, 0)
		require.Equal(t, 1, a.Breaker().ConsecutiveFailures)
		require.InDelta(t, 4500*time.Millisecond, time.Until(a.Info().CooldownUntil), float64(500*time.Millisecond))
	})
}

func TestProviderThatCoolsDownAndIsOpenNeedsBothToEnd(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a := add(t, reg, provider{Name: "a", Instance: fails(verdict.RateLimited(errDown, 2*time.Minute))})
		_, _ = ask(t.Context(), bind(reg))
		require.NoError(t, a.ForceOpen(time.Minute, "test"))
		_, err := ask(t.Context(), bind(reg))
		require.ErrorIs(t, err, registry.ErrBreakerOpen)
		require.ErrorIs(t, err, registry.ErrCoolingDown)
		var unavailable *registry.UnavailableError
		require.ErrorAs(t, err, &unavailable)
		require.GreaterOrEqual(t, unavailable.RetryIn, 2*time.Minute)
		pass(time.Minute + 1)
		require.False(t, a.Info().Eligible)
	})
}

func TestRemovedProviderRaisesNoMoreEvents(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a := add(t, reg, provider{Name: "a", Breaker: registry.BreakerPolicy{FailureThreshold: 1}})
		limited, err := bind(reg).Acquire(t.Context())
		require.NoError(t, err)
		failed, err := bind(reg).Acquire(t.Context())
		require.NoError(t, err)
		events := reg.Subscribe(0)
		go func() { _ = a.Unregister(t.Context()) }()
		pass(time.Second)
		limited.Done(verdict.RateLimited(errDown, time.Minute))
		failed.Done(errDown)
		pass(time.Hour)
		require.Equal(t, []event.Kind{event.Draining, event.Drained}, kinds(t, events))
	})
}

// statusError is an error as HTTP clients have them.
type statusError struct {
	code  int
	after time.Duration
}

func (e statusError) Error() string             { return "status" }
func (e statusError) HTTPStatusCode() int       { return e.code }
func (e statusError) RetryAfter() time.Duration { return e.after }

package registry_test

import (
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/event"
	"github.com/capreg/registry/internal/testkit"
	"github.com/capreg/registry/status"
)

func TestForceOpen_RefusesForGivenTimeFromEveryState(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		events := reg.Subscribe(0)
		a := testkit.Add(t, reg, testkit.Provider{Name: "a"})
		require.NoError(t, a.ForceOpen(5*time.Minute, "maintenance"))
		stats := a.Breaker()
		require.True(t, stats.Forced)
		require.Equal(t, "maintenance", stats.Reason)
		require.Equal(t, 5*time.Minute, stats.RetryIn)
		_, err := testkit.Ask(t.Context(), testkit.Bind(reg))
		require.ErrorIs(t, err, registry.ErrBreakerOpen)
		require.ErrorContains(t, err, "maintenance")
		testkit.Pass(time.Minute)
		require.NoError(t, a.ForceOpen(2*time.Minute, "longer"), "while open")
		require.Equal(t, 2*time.Minute, a.Breaker().RetryIn)
		testkit.Pass(2*time.Minute + time.Nanosecond)
		require.Equal(t, status.BreakerHalfOpen, a.Breaker().State)
		require.NoError(t, a.ForceOpen(time.Minute, "again"), "while half-open")
		require.Equal(t, status.BreakerOpen, a.Breaker().State)
		require.Equal(t, []event.Kind{
			event.Registered, event.BreakerOpened, event.BreakerOpened, event.BreakerHalfOpened, event.BreakerOpened,
		}, testkit.Kinds(t, events))
		require.Equal(t, uint64(3), a.Breaker().ForcedOpen)
	})
}

func TestForceOpen_FailedTrialOpensForOrdinaryTime(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a := testkit.Add(t, reg, testkit.Provider{Name: "a", Instance: testkit.Fails(testkit.ErrDown)})
		require.NoError(t, a.ForceOpen(time.Hour, "test"))
		testkit.Pass(time.Hour + time.Nanosecond)
		_, err := testkit.Ask(t.Context(), testkit.Bind(reg))
		require.ErrorIs(t, err, testkit.ErrDown)
		stats := a.Breaker()
		require.Equal(t, status.BreakerOpen, stats.State)
		require.Equal(t, time.Minute, stats.RetryIn)
		require.False(t, stats.Forced)
		testkit.Pass(time.Minute + time.Nanosecond)
		_, err = testkit.Ask(t.Context(), testkit.Bind(reg))
		require.ErrorIs(t, err, testkit.ErrDown)
		require.Equal(t, time.Minute, a.Breaker().RetryIn)
	})
}

func TestForceOpen_WithoutTimeIsAnError(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a := testkit.Add(t, reg, testkit.Provider{Name: "a"})
		for _, d := range []time.Duration{0, -time.Second} {
			require.ErrorIs(t, a.ForceOpen(d, "test"), registry.ErrInvalid)
		}
		require.Equal(t, status.BreakerClosed, a.Breaker().State)
		require.Zero(t, a.Breaker().ForcedOpen)
	})
}

func TestForceOpen_ForVeryLongIsEndedByReset(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a := testkit.Add(t, reg, testkit.Provider{Name: "a"})
		require.NoError(t, a.ForceOpen(math.MaxInt64, "for good"))
		require.Equal(t, status.BreakerOpen, a.Breaker().State)
		testkit.Pass(24 * time.Hour)
		require.Equal(t, status.BreakerOpen, a.Breaker().State)
		require.NoError(t, a.Reset())
		require.Equal(t, "a", testkit.MustAsk(t, testkit.Bind(reg)))
	})
}

func TestReset_ClosesFromEveryStateWithZeroCounts(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a, next := recovering(t, reg, registry.BreakerPolicy{})
		require.NoError(t, a.Reset(), "half-open")
		require.Equal(t, status.BreakerClosed, a.Breaker().State)
		testkit.Trip(t, testkit.Bind(reg), a)
		require.Equal(t, uint64(10), a.Info().Failures, "the next trip needs the whole threshold")
		require.NoError(t, a.Reset(), "open")
		testkit.Pass(time.Hour)
		require.Equal(t, status.BreakerClosed, a.Breaker().State)
		for range 4 {
			_, _ = testkit.Ask(t.Context(), testkit.Bind(reg))
		}
		require.NoError(t, a.Reset(), "closed, with failures")
		require.Zero(t, a.Breaker().ConsecutiveFailures)
		for range 4 {
			_, _ = testkit.Ask(t.Context(), testkit.Bind(reg))
		}
		require.Equal(t, status.BreakerClosed, a.Breaker().State)
		require.Equal(t, uint64(2), a.Breaker().Resets, "one that was closed does not count")
		next.Store(new(error))
		testkit.MustAsk(t, testkit.Bind(reg))
	})
}

func TestReset_IgnoresSuccessOfEarlierCall(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a := testkit.Add(t, reg, testkit.Provider{Name: "a", Breaker: registry.BreakerPolicy{FailureThreshold: 1}})
		require.NoError(t, a.ForceOpen(time.Minute, "test"))
		testkit.Pass(time.Minute + time.Nanosecond)
		lease, err := testkit.Bind(reg).Acquire(t.Context())
		require.NoError(t, err)
		require.Equal(t, 1, a.Breaker().TrialsInFlight)
		require.NoError(t, a.Reset())
		lease.Done(testkit.ErrDown)
		require.Equal(t, status.BreakerClosed, a.Breaker().State)
		require.Zero(t, a.Breaker().TrialsInFlight)
		testkit.RequireCounts(t, a, 0, 1, 0, 0)
	})
}

func TestReset_IgnoresFailureOfEarlierCall(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		p := testkit.Add(t, reg, testkit.Provider{Name: "p", Breaker: registry.BreakerPolicy{FailureThreshold: 1}})
		l, _ := testkit.Bind(reg).Acquire(t.Context())
		require.NoError(t, p.Reset())
		l.Done(testkit.ErrDown)
		require.Equal(t, status.BreakerClosed, p.Breaker().State)
	})
}

package registry_test

import (
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/internal/testkit"
	"github.com/capreg/registry/status"
)

// Variants: an answer that begins before its outcome, never, twice, after the outcome, and after the breaker has moved on.
func TestLease_TrialKeepsNoOtherOutOnceItsAnswerHasBegun(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a := testkit.AddHalfOpen(t, reg, testkit.Provider{Name: "a", Breaker: registry.BreakerPolicy{SuccessThreshold: 2}})
		r := testkit.Bind(reg)
		first, err := r.Acquire(t.Context())
		require.NoError(t, err)
		_, err = r.Acquire(t.Context())
		require.ErrorIs(t, err, registry.ErrBreakerOpen, "no answer yet")
		first.Steps().Answered()
		first.Steps().Answered()
		second, err := r.Acquire(t.Context())
		require.NoError(t, err)
		_, err = r.Acquire(t.Context())
		require.ErrorIs(t, err, registry.ErrBreakerOpen, "one slot was given back, not two")
		second.Done(nil)
		second.Steps().Answered()
		require.Zero(t, a.Breaker().TrialsInFlight)
		require.Equal(t, status.BreakerHalfOpen, a.Breaker().State)
		third, err := r.Acquire(t.Context())
		require.NoError(t, err)
		first.Done(nil)
		synctest.Wait()
		require.Equal(t, status.BreakerClosed, a.Breaker().State, "two trials have succeeded")
		third.Steps().Answered() // of an earlier generation
		third.Done(testkit.ErrDown)
		require.Equal(t, status.BreakerClosed, a.Breaker().State)
		require.Zero(t, a.Breaker().TrialsInFlight)
	})
}

func TestLease_TrialThatFailsAfterItsAnswerHasBegunOpensTheBreaker(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a := testkit.AddHalfOpen(t, reg, testkit.Provider{Name: "a"})
		l, err := testkit.Bind(reg).Acquire(t.Context())
		require.NoError(t, err)
		l.Steps().Answered()
		l.Done(testkit.ErrDown)
		require.Equal(t, status.BreakerOpen, a.Breaker().State)
	})
}

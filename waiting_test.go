package registry_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/verdict"
)

func TestCallWaitsForTheEndOfACooldownWhenItIsAskedTo(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a := add(t, reg, provider{Name: "a", Instance: failsTimes(1, "a", verdict.RateLimited(errDown, 10*time.Second))})
		b := add(t, reg, provider{Name: "b", Instance: failsTimes(1, "b", verdict.RateLimited(errDown, 4*time.Second))})
		began := time.Now()
		var report registry.CallReport
		require.Equal(t, "b", asked(t, bind(reg), registry.WaitForCooldown(), registry.ReportTo(&report)))
		require.InDelta(t, 4200*time.Millisecond, time.Since(began), float64(210*time.Millisecond))
		require.Equal(t, "waited", report.Attempts[2].Why)
		require.GreaterOrEqual(t, report.Attempts[2].Delay, 4*time.Second)
		requireCounts(t, a, 0, 0, 0, 1)
		requireCounts(t, b, 1, 0, 0, 1)
	})
}

func TestCallThatWouldWaitLongerThanItsDeadlineFailsAtOnce(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		add(t, reg, provider{Name: "a", Instance: fails(verdict.RateLimited(errDown, 10*time.Second))})
		ctx, cancel := context.WithTimeout(t.Context(), 9*time.Second)
		defer cancel()
		began := time.Now()
		_, err := ask(ctx, bind(reg), registry.WaitForCooldown())
		require.ErrorIs(t, err, errDown)
		require.NotErrorIs(t, err, context.DeadlineExceeded)
		var failed *registry.CallError
		require.ErrorAs(t, err, &failed)
		require.GreaterOrEqual(t, failed.RetryIn, 10*time.Second)
		require.Equal(t, began, time.Now())
	})
}

func TestCallThatWaitsEndsWithItsContext(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		add(t, reg, provider{Name: "a", Instance: fails(verdict.RateLimited(errDown, time.Hour))})
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Minute, cancel)
		_, err := ask(ctx, bind(reg), registry.WaitForCooldown())
		require.ErrorIs(t, err, context.Canceled)
	})
}

func TestCallThatWaitsTakesWhoeverComesBackFirst(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		add(t, reg, provider{Name: "a", Instance: fails(verdict.RateLimited(errDown, time.Hour))})
		sick := add(t, reg, provider{Name: "sick"})
		require.NoError(t, sick.MarkUnhealthy(errDown))
		time.AfterFunc(time.Minute, func() { _ = sick.MarkHealthy() })
		began := time.Now()
		require.Equal(t, "sick", asked(t, bind(reg), registry.WaitForCooldown()))
		require.Equal(t, time.Minute, time.Since(began))
	})
}

func TestCallThatWaitedAsksOnlyThoseWhoTurnedItAway(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		limited := add(t, reg, provider{Name: "limited", Instance: failsTimes(1, "limited", verdict.RateLimited(errDown, time.Second))})
		broken := add(t, reg, provider{Name: "broken", Instance: fails(errDown)})
		require.Equal(t, "limited", asked(t, bind(reg), registry.WaitForCooldown()))
		requireCounts(t, limited, 1, 0, 0, 1)
		requireCounts(t, broken, 0, 1, 0, 0)
	})
}

func TestOnceOnlyCallThatWasTurnedAwayDoesNotWait(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a := add(t, reg, provider{Name: "a", Instance: fails(verdict.RateLimited(errDown, time.Second))})
		_, err := ask(t.Context(), bind(reg), registry.WaitForCooldown(), registry.OnceOnly())
		require.ErrorIs(t, err, errDown)
		requireCounts(t, a, 0, 0, 0, 1)
		_, err = ask(t.Context(), bind(reg), registry.WaitForCooldown(), registry.OnceOnly())
		require.ErrorIs(t, err, errDown, "not entered yet, it may wait")
		requireCounts(t, a, 0, 0, 0, 2)
	})
}

func TestLeaseWaitsToo(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		add(t, reg, provider{Name: "a", Instance: failsTimes(1, "a", verdict.RateLimited(errDown, time.Second))})
		_, _ = ask(t.Context(), bind(reg))
		lease, err := bind(reg).Acquire(t.Context(), registry.WaitForCooldown())
		require.NoError(t, err)
		lease.Done(nil)
	})
}

func TestLastResortIsTriedWhenNobodyAdmitsTheCall(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a := add(t, reg, provider{Name: "a", LastResort: true})
		b := add(t, reg, provider{Name: "b", LastResort: true})
		c := add(t, reg, provider{Name: "c"})
		require.NoError(t, a.ForceOpen(time.Hour, "test"))
		require.NoError(t, b.ForceOpen(time.Minute, "test"))
		require.Equal(t, "c", asked(t, bind(reg)))
		require.NoError(t, c.ForceOpen(time.Second, "test"))
		var report registry.CallReport
		require.Equal(t, "b", asked(t, bind(reg), registry.ReportTo(&report)), "the one that is back first")
		require.Equal(t, "last resort", report.Attempts[0].Why)
		require.Equal(t, registry.BreakerOpen, b.Breaker().State, "the outcome moves no breaker")
		requireCounts(t, b, 1, 0, 0, 0)
		_, err := bind(reg).Get(t.Context())
		require.ErrorIs(t, err, registry.ErrBreakerOpen, "a look-up has no outcome")
		pass(time.Second + 1)
		require.Equal(t, "c", asked(t, bind(reg)))
	})
}

func TestLastResortIsNotForWhoAskedToBeLeftAlone(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		model, next := fate()
		a := add(t, reg, provider{Name: "a", LastResort: true, Instance: model})
		next(verdict.RateLimited(errDown, time.Minute))
		_, _ = ask(t.Context(), bind(reg))
		_, err := ask(t.Context(), bind(reg))
		require.ErrorIs(t, err, registry.ErrCoolingDown)
		require.NoError(t, a.Reset())
		next(statusError{code: 503})
		_, _ = ask(t.Context(), bind(reg))
		next(nil)
		require.Equal(t, "fate", asked(t, bind(reg)), "a guess is no order")
		require.NoError(t, a.MarkUnhealthy(errors.New("bad")))
		require.Equal(t, "fate", asked(t, bind(reg)), "the least bad")
	})
}

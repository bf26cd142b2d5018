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

func TestLeaseReportsItsOutcomeOnce(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a := add(t, reg, provider{Name: "a"})
		lease, err := bind(reg).Acquire(t.Context())
		require.NoError(t, err)
		require.Equal(t, "a", lease.Provider())
		require.Equal(t, uint64(1), a.Info().InFlight)
		answer, err := lease.Value.Chat(lease.Context(), "?")
		require.NoError(t, err)
		require.Equal(t, "a", answer)
		lease.Done(nil)
		require.ErrorIs(t, lease.Context().Err(), context.Canceled, "its context ends with it")
		lease.Done(errDown)
		pass(time.Hour)
		requireCounts(t, a, 1, 0, 0, 0)
	})
}

func TestForgottenLeaseEndsAsAFailureAndAnEventSaysSo(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a := add(t, reg, provider{Name: "a", AttemptTimeout: 5 * time.Second})
		events := reg.Subscribe(0)
		lease, err := bind(reg).Acquire(t.Context())
		require.NoError(t, err)
		pass(6*time.Second - 1)
		require.Equal(t, uint64(1), a.Info().InFlight)
		pass(1)
		requireCounts(t, a, 0, 1, 0, 0)
		require.ErrorIs(t, lease.Context().Err(), context.DeadlineExceeded)
		require.ErrorIs(t, context.Cause(lease.Context()), registry.ErrAttemptTimeout)
		require.Equal(t, []event.Kind{event.LeaseExpired}, kinds(t, events))
		lease.Done(nil)
		requireCounts(t, a, 0, 1, 0, 0)
	})
}

func TestContextOfAnExpiredLeaseSaysThatItsTimeIsOver(t *testing.T) {
	t.Parallel()
	reg := newRegistry(t, registry.Options{})
	add(t, reg, provider{Name: "a", AttemptTimeout: time.Millisecond, Breaker: registry.BreakerPolicy{FailureThreshold: 1000}})
	for range 50 { // on the real clock: the two timers of a lease race
		lease, err := bind(reg).Acquire(t.Context())
		require.NoError(t, err)
		<-lease.Context().Done()
		require.ErrorIs(t, context.Cause(lease.Context()), registry.ErrAttemptTimeout)
		require.Equal(t, verdict.ClassAttemptTimeout, lease.Done(lease.Context().Err()), "it reports itself")
	}
	require.NoError(t, reg.Close(t.Context()))
}

func TestLeaseWithoutTimeoutExpiresAfterAnHour(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a := add(t, reg, provider{Name: "a", AttemptTimeout: registry.NoTimeout})
		_, err := bind(reg).Acquire(t.Context())
		require.NoError(t, err)
		pass(time.Hour - 1)
		require.Equal(t, uint64(1), a.Info().InFlight)
		pass(1)
		requireCounts(t, a, 0, 1, 0, 0)
	})
}

func TestLeaseMovesOnOnlyFromProvidersThatCannotBeEntered(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a := add(t, reg, provider{Name: "a"})
		b := add(t, reg, provider{Name: "b"})
		require.NoError(t, a.ForceOpen(time.Hour, "test"))
		lease, err := bind(reg).Acquire(t.Context())
		require.NoError(t, err)
		require.Equal(t, "b", lease.Provider())
		lease.Done(errDown)
		requireCounts(t, b, 0, 1, 0, 0)
		require.NoError(t, b.MarkUnhealthy(errDown))
		_, err = bind(reg).Acquire(t.Context())
		var unavailable *registry.UnavailableError
		require.ErrorAs(t, err, &unavailable)
		require.Len(t, unavailable.Candidates, 2)
	})
}

func TestLeaseOutcomesMeanWhatCallsMean(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a := add(t, reg, provider{Name: "a"})
		done := func(ctx context.Context, err error) {
			lease, acquireErr := bind(reg).Acquire(ctx)
			require.NoError(t, acquireErr)
			lease.Done(err)
		}
		done(t.Context(), verdict.Permanent(errDown))
		done(t.Context(), errDown)
		done(t.Context(), verdict.Ignore(errDown))
		requireCounts(t, a, 1, 1, 1, 0)
		ctx, cancel := context.WithCancel(t.Context())
		lease, err := bind(reg).Acquire(ctx)
		require.NoError(t, err)
		cancel()
		lease.Done(errDown)
		requireCounts(t, a, 1, 1, 2, 0)
		done(t.Context(), verdict.RateLimited(errDown, time.Minute))
		requireCounts(t, a, 1, 1, 2, 1)
		_, err = bind(reg).Acquire(t.Context())
		require.ErrorIs(t, err, registry.ErrCoolingDown)
	})
}

func TestLeaseGetsItsWholeTimeHoweverManyCouldBeAsked(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		add(t, reg, provider{Name: "a", AttemptTimeout: 8 * time.Second})
		add(t, reg, provider{Name: "b"})
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		lease, err := bind(reg).Acquire(ctx)
		require.NoError(t, err)
		deadline, ok := lease.Context().Deadline()
		require.True(t, ok)
		require.Equal(t, 8*time.Second, time.Until(deadline))
		lease.Done(nil)
	})
}

func TestAcquireManyLeasesEveryoneInOrder(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		late := add(t, reg, provider{Name: "late", Group: 3})
		first := add(t, reg, provider{Name: "first", Priority: registry.PriorityCritical})
		ill := add(t, reg, provider{Name: "ill"})
		require.NoError(t, ill.MarkUnhealthy(errDown))
		leases, err := bind(reg).AcquireMany(t.Context(), 0)
		require.NoError(t, err)
		require.Len(t, leases, 2)
		require.Equal(t, "first", leases[0].Provider())
		require.Equal(t, "late", leases[1].Provider())
		leases[0].Done(nil)
		leases[1].Done(errDown)
		requireCounts(t, first, 1, 0, 0, 0)
		requireCounts(t, late, 0, 1, 0, 0)
		leases, err = bind(reg).AcquireMany(t.Context(), 1)
		require.NoError(t, err)
		require.Len(t, leases, 1)
		leases[0].Done(nil)
		_, err = bind(reg, "nothing has this").AcquireMany(t.Context(), 0)
		require.ErrorIs(t, err, registry.ErrNoCapability)
	})
}

func TestBadLeaseIsAnError(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		r := chat.Bind(reg, registry.Query{Require: []string{""}})
		_, err := r.Acquire(t.Context())
		require.ErrorIs(t, err, registry.ErrInvalid)
		_, err = r.AcquireMany(t.Context(), 0)
		require.ErrorIs(t, err, registry.ErrInvalid)
		_, err = r.Many(t.Context(), 0)
		require.ErrorIs(t, err, registry.ErrInvalid)
		_, err = r.Get(t.Context())
		require.ErrorIs(t, err, registry.ErrInvalid)
		require.ErrorIs(t, r.Explain().Err, registry.ErrInvalid)
		_, err = bind(reg).Acquire(t.Context(), registry.AttemptTimeout(-1))
		var field *registry.FieldError
		require.ErrorAs(t, err, &field)
		require.Equal(t, "AttemptTimeout", field.Field)
	})
}

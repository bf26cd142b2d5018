package registry_test

import (
	"context"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/event"
	"github.com/capreg/registry/internal/testkit"
	"github.com/capreg/registry/reason"
	"github.com/capreg/registry/status"
	"github.com/capreg/registry/verdict"
)

func TestLease_ReportsOutcomeOnce(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a := testkit.Add(t, reg, testkit.Provider{Name: "a"})
		lease, err := testkit.Bind(reg).Acquire(t.Context())
		require.NoError(t, err)
		require.Equal(t, "a", lease.Provider())
		require.Equal(t, uint64(1), a.Info().InFlight)
		answer, err := lease.Value.Chat(lease.Context(), "?")
		require.NoError(t, err)
		require.Equal(t, "a", answer)
		lease.Done(nil)
		require.ErrorIs(t, lease.Context().Err(), context.Canceled, "its context ends with it")
		lease.Done(testkit.ErrDown)
		testkit.Pass(time.Hour)
		testkit.RequireCounts(t, a, 1, 0, 0, 0)
	})
}

func TestLease_ForgottenIsAFailureWithEvent(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a := testkit.Add(t, reg, testkit.Provider{Name: "a", AttemptTimeout: 5 * time.Second})
		events := reg.Subscribe(0)
		lease, err := testkit.Bind(reg).Acquire(t.Context())
		require.NoError(t, err)
		testkit.Pass(6*time.Second - 1)
		require.Equal(t, uint64(1), a.Info().InFlight)
		testkit.Pass(1)
		testkit.RequireCounts(t, a, 0, 1, 0, 0)
		require.ErrorIs(t, lease.Context().Err(), context.DeadlineExceeded)
		require.ErrorIs(t, context.Cause(lease.Context()), registry.ErrAttemptTimeout)
		require.Equal(t, []event.Kind{event.LeaseExpired}, testkit.Kinds(t, events))
		lease.Done(nil)
		testkit.RequireCounts(t, a, 0, 1, 0, 0)
	})
}

func TestLease_ForgottenAfterRemovalIsAnEvent(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		p := testkit.Add(t, reg, testkit.Provider{Name: "p"})
		sub := reg.Subscribe(0)
		defer sub.Close()
		_, err := testkit.Bind(reg).Acquire(t.Context())
		require.NoError(t, err)
		require.NoError(t, p.Unregister(t.Context()))
		info := p.Info()
		require.EqualValues(t, 1, info.Failures)
		require.Contains(t, testkit.Kinds(t, sub), event.LeaseExpired)
	})
}

func TestLease_ExpiredContextHasTimeoutCause(t *testing.T) {
	t.Parallel()
	reg := testkit.New(t, registry.Options{})
	testkit.Add(t, reg, testkit.Provider{Name: "a", AttemptTimeout: time.Millisecond, Breaker: registry.BreakerPolicy{FailureThreshold: 1000}})
	for range 50 { // on the real clock: the two timers of a lease race
		lease, err := testkit.Bind(reg).Acquire(t.Context())
		require.NoError(t, err)
		<-lease.Context().Done()
		require.ErrorIs(t, context.Cause(lease.Context()), registry.ErrAttemptTimeout)
		require.Equal(t, verdict.ClassAttemptTimeout, lease.Done(lease.Context().Err()), "it reports itself")
	}
	require.NoError(t, reg.Close(t.Context()))
}

func TestLease_ExpiresAfterAnHourWithoutTimeout(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a := testkit.Add(t, reg, testkit.Provider{Name: "a", AttemptTimeout: registry.NoTimeout})
		_, err := testkit.Bind(reg).Acquire(t.Context())
		require.NoError(t, err)
		testkit.Pass(time.Hour - 1)
		require.Equal(t, uint64(1), a.Info().InFlight)
		testkit.Pass(1)
		testkit.RequireCounts(t, a, 0, 1, 0, 0)
	})
}

func TestLease_ExpiresAfterCloseGaveUp(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		reg := testkit.New(t, registry.Options{})
		p := testkit.Add(t, reg, testkit.Provider{Name: "p"})
		_, err := testkit.Bind(reg).Acquire(t.Context())
		require.NoError(t, err)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		require.ErrorIs(t, reg.Close(ctx), registry.ErrStuck)
		testkit.Pass(time.Hour)
		require.Zero(t, p.Info().InFlight, "the lease never ends")
		require.NoError(t, p.Unregister(t.Context()))
	})
}

func TestLease_LongestTimeoutDoesNotOverflow(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		testkit.Add(t, reg, testkit.Provider{Name: "a"})
		l, err := testkit.Bind(reg).Acquire(t.Context(), registry.AttemptTimeout(registry.NoTimeout-1))
		require.NoError(t, err)
		synctest.Wait()
		require.NotEqual(t, verdict.ClassIgnored, l.Done(nil))
	})
}

func TestLease_ReportedAtTimeoutIsNotForgotten(t *testing.T) {
	t.Parallel()
	forgotten := 0
	for range 100 {
		testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
			s := reg.Subscribe(0)
			testkit.Add(t, reg, testkit.Provider{Name: "a", AttemptTimeout: time.Second})
			l, err := testkit.Bind(reg).Acquire(t.Context())
			require.NoError(t, err)
			<-l.Context().Done()
			l.Done(l.Context().Err())
			testkit.Pass(time.Second)
			for _, k := range testkit.Kinds(t, s) {
				if k == event.LeaseExpired {
					forgotten++
				}
			}
			s.Close()
		})
	}
}

func TestAcquire_FailsOverOnlyBeforeLeasing(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a := testkit.Add(t, reg, testkit.Provider{Name: "a"})
		b := testkit.Add(t, reg, testkit.Provider{Name: "b"})
		require.NoError(t, a.ForceOpen(time.Hour, "test"))
		lease, err := testkit.Bind(reg).Acquire(t.Context())
		require.NoError(t, err)
		require.Equal(t, "b", lease.Provider())
		lease.Done(testkit.ErrDown)
		testkit.RequireCounts(t, b, 0, 1, 0, 0)
		require.NoError(t, b.MarkUnhealthy(testkit.ErrDown))
		_, err = testkit.Bind(reg).Acquire(t.Context())
		var unavailable *registry.UnavailableError
		require.ErrorAs(t, err, &unavailable)
		require.Len(t, unavailable.Candidates(), 2)
	})
}

func TestLease_OutcomesMeanWhatCallsMean(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a := testkit.Add(t, reg, testkit.Provider{Name: "a"})
		done := func(ctx context.Context, err error) {
			lease, acquireErr := testkit.Bind(reg).Acquire(ctx)
			require.NoError(t, acquireErr)
			lease.Done(err)
		}
		done(t.Context(), verdict.Permanent(testkit.ErrDown))
		done(t.Context(), testkit.ErrDown)
		done(t.Context(), verdict.Ignore(testkit.ErrDown))
		testkit.RequireCounts(t, a, 1, 1, 1, 0)
		ctx, cancel := context.WithCancel(t.Context())
		lease, err := testkit.Bind(reg).Acquire(ctx)
		require.NoError(t, err)
		cancel()
		lease.Done(testkit.ErrDown)
		testkit.RequireCounts(t, a, 1, 1, 2, 0)
		done(t.Context(), verdict.RateLimited(testkit.ErrDown, time.Minute))
		testkit.RequireCounts(t, a, 1, 1, 2, 1)
		_, err = testkit.Bind(reg).Acquire(t.Context())
		require.ErrorIs(t, err, registry.ErrCoolingDown)
	})
}

func TestLease_HasWholeTimeoutDespiteOthers(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		testkit.Add(t, reg, testkit.Provider{Name: "a", AttemptTimeout: 8 * time.Second})
		testkit.Add(t, reg, testkit.Provider{Name: "b"})
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		lease, err := testkit.Bind(reg).Acquire(ctx)
		require.NoError(t, err)
		deadline, ok := lease.Context().Deadline()
		require.True(t, ok)
		require.Equal(t, 8*time.Second, time.Until(deadline))
		lease.Done(nil)
	})
}

func TestAcquire_BadInputIsAnError(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		r := testkit.Chat.Bind(reg, registry.Query{Require: []string{""}})
		_, err := r.Acquire(t.Context())
		require.ErrorIs(t, err, registry.ErrInvalid)
		_, err = r.AcquireAll(t.Context(), 0)
		require.ErrorIs(t, err, registry.ErrInvalid)
		_, err = r.GetAll(t.Context(), 0)
		require.ErrorIs(t, err, registry.ErrInvalid)
		_, err = r.Get(t.Context())
		require.ErrorIs(t, err, registry.ErrInvalid)
		require.ErrorIs(t, r.Explain().Err, registry.ErrInvalid)
		_, err = testkit.Bind(reg).Acquire(t.Context(), registry.AttemptTimeout(-1))
		var field *registry.FieldError
		require.ErrorAs(t, err, &field)
		require.Equal(t, "AttemptTimeout", field.Field)
	})
}

func TestLease_ForgottenFreesPlaceDespiteHooks(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		reg := testkit.New(t, registry.Options{Hooks: registry.Hooks{AfterCall: func(_ context.Context, r registry.CallReport) {
			if r.Attempts[0].Class == verdict.ClassForgotten {
				<-release
			}
		}}})
		a, _ := testkit.Chat.Register(t.Context(), reg, testkit.Provider{Name: "a", AttemptTimeout: time.Second, Instance: testkit.Says("a"), Limits: registry.LimitPolicy{MaxConcurrent: 2, NoQueue: true}})
		r := testkit.Bind(reg)
		_, _ = r.Acquire(t.Context())
		_, _ = r.Acquire(t.Context())
		time.Sleep(time.Hour)
		require.Zero(t, a.Info().InFlight, "two leases of one second, an hour ago")
		close(release)
		synctest.Wait()
		_ = reg.Close(t.Context())
	})
}

func TestLease_HookThatExitsGivesTheProviderBack(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{Hooks: registry.Hooks{BeforeAttempt: func(context.Context, registry.CallReport, registry.Attempt) context.Context {
		runtime.Goexit()
		return nil
	}}}, func(t *testing.T, reg *registry.Registry) {
		a := testkit.Add(t, reg, testkit.Provider{Name: "a", Limits: one})
		for i := range 3 {
			ended := make(chan struct{})
			go func() {
				defer close(ended)
				_, _ = testkit.Bind(reg).Acquire(t.Context())
			}()
			<-ended
			testkit.RequireCounts(t, a, 0, 0, i+1, 0)
		}
	})
}

func TestLease_BlockedHookAfterExpiryDoesNotBlockClose(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		reg := testkit.New(t, registry.Options{Hooks: registry.Hooks{AfterCall: func(context.Context, registry.CallReport) { <-release }}})
		_, err := testkit.Chat.Register(t.Context(), reg, testkit.Provider{Name: "a", AttemptTimeout: time.Second, Instance: testkit.Says("a")})
		require.NoError(t, err)
		_, err = testkit.Bind(reg).Acquire(t.Context()) // forgotten
		require.NoError(t, err)
		time.Sleep(2 * time.Second) // it expires, the hook blocks
		done := make(chan error, 1)
		go func() {
			ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
			defer cancel()
			done <- reg.Close(ctx)
		}()
		select {
		case err := <-done:
			require.ErrorIs(t, err, registry.ErrStuck)
		case <-time.After(time.Hour):
			t.Error("Close(10 s) has not returned within an hour")
		}
		close(release)
		synctest.Wait()
	})
}

func TestLease_BlockedHookAfterExpiryStopsNoTimer(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	testkit.Bubble(t, registry.Options{Hooks: registry.Hooks{AfterAttempt: func(ctx context.Context, r registry.CallReport, a registry.Attempt) {
		if a.Class == verdict.ClassForgotten {
			<-release
		}
	}}}, func(t *testing.T, reg *registry.Registry) {
		release = make(chan struct{})
		b := testkit.Add(t, reg, testkit.Provider{Name: "b", Instance: testkit.Fails(testkit.ErrDown), Breaker: registry.BreakerPolicy{RecoveryTimeout: time.Minute}})
		r := testkit.Bind(reg)
		testkit.Trip(t, r, b)
		testkit.Add(t, reg, testkit.Provider{Name: "a", AttemptTimeout: time.Second})
		_, err := r.Acquire(t.Context()) // forgotten
		require.NoError(t, err)
		testkit.Pass(24 * time.Hour)
		require.Equal(t, status.BreakerHalfOpen, b.Breaker().State, "a day after it opened for a minute")
		close(release)
		synctest.Wait()
	})
}

func TestLease_MoveOnAndBesideOfAnEndedLeaseSaySo(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		testkit.Add(t, reg, testkit.Provider{Name: "a", AttemptTimeout: time.Second})
		r := testkit.Bind(reg)
		for name, end := range map[string]func(*registry.Lease[testkit.ChatModel]){
			"reported": func(l *registry.Lease[testkit.ChatModel]) { l.Done(nil) },
			"expired":  func(*registry.Lease[testkit.ChatModel]) { testkit.Pass(3 * time.Second) },
		} {
			lease, err := r.Acquire(t.Context())
			require.NoError(t, err)
			end(lease)
			_, err = lease.MoveOn(testkit.ErrDown)
			require.ErrorIs(t, err, registry.ErrLeaseDone, name)
			require.Equal(t, `registry: lease of provider "a": lease is done`, err.Error())
			if name == "reported" {
				_, err = lease.Steps().Beside()
				require.ErrorIs(t, err, registry.ErrLeaseDone, name)
			}
		}
	})
}

func TestLease_ReportNamesThoseThatTurnedAwayItsLastSearch(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{Authorize: func(_ context.Context, _, _, provider string) error {
		if provider == "b" {
			return testkit.ErrDown
		}
		return nil
	}}, func(t *testing.T, reg *registry.Registry) {
		testkit.Add(t, reg, testkit.Provider{Name: "a"})
		testkit.Add(t, reg, testkit.Provider{Name: "b"})
		var report registry.CallReport
		lease, err := testkit.Bind(reg).Acquire(t.Context(), registry.ReportTo(&report))
		require.NoError(t, err)
		_, err = lease.MoveOn(testkit.ErrDown)
		require.ErrorIs(t, err, registry.ErrDenied)
		require.Len(t, report.Skipped(), 1)
		require.Equal(t, "b", report.Skipped()[0].Provider)
		require.Equal(t, reason.Denied, report.Skipped()[0].Code)
	})
}

package registry_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/event"
	"github.com/capreg/registry/internal/testkit"
	"github.com/capreg/registry/status"
	"github.com/capreg/registry/verdict"
)

func TestCooldown_SkipsRateLimitedUntilDelayEnds(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		limited := true
		a := testkit.Add(t, reg, testkit.Provider{Name: "a", Instance: testkit.Answers(func() (string, error) {
			if limited {
				return "", verdict.RateLimited(testkit.ErrDown, 30*time.Second)
			}
			return "a", nil
		})})
		testkit.Add(t, reg, testkit.Provider{Name: "b"})
		events := reg.Subscribe(0)
		for range 100 {
			require.Equal(t, "b", testkit.MustAsk(t, testkit.Bind(reg)))
			testkit.Pass(100 * time.Millisecond)
		}
		testkit.RequireCounts(t, a, 0, 0, 0, 1)
		require.Zero(t, a.Breaker().ConsecutiveFailures)
		limited = false
		testkit.Pass(20*time.Second - 1)
		require.Equal(t, "b", testkit.MustAsk(t, testkit.Bind(reg)), "never earlier than asked")
		testkit.Pass(3*time.Second + 1) // its jitter is at most a tenth
		require.Equal(t, "a", testkit.MustAsk(t, testkit.Bind(reg)))
		require.Equal(t, []event.Kind{event.Cooling, event.CooldownEnded}, testkit.Kinds(t, events))
	})
}

func TestCooldown_FailsAtOnceWithDelayWhenAlone(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		testkit.Add(t, reg, testkit.Provider{Name: "a", Instance: testkit.Fails(verdict.RateLimited(testkit.ErrDown, time.Minute))})
		_, err := testkit.Ask(t.Context(), testkit.Bind(reg))
		require.ErrorIs(t, err, testkit.ErrDown)
		var failed *registry.CallError
		require.ErrorAs(t, err, &failed)
		require.GreaterOrEqual(t, failed.RetryIn, time.Minute)
		_, err = testkit.Ask(t.Context(), testkit.Bind(reg))
		var unavailable *registry.UnavailableError
		require.ErrorAs(t, err, &unavailable)
		require.ErrorIs(t, err, registry.ErrCoolingDown)
		require.GreaterOrEqual(t, unavailable.RetryIn, time.Minute)
	})
}

func TestCooldown_GrowsUntilSuccess(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		var next error
		a := testkit.Add(t, reg, testkit.Provider{Name: "a", Instance: testkit.Answers(func() (string, error) { return "a", next })})
		limit := func() time.Duration {
			next = verdict.RateLimited(testkit.ErrDown, 0)
			_, err := testkit.Ask(t.Context(), testkit.Bind(reg))
			require.Error(t, err)
			length := time.Until(a.Info().Cooldown.Until)
			testkit.Pass(length)
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
		testkit.MustAsk(t, testkit.Bind(reg))
		require.LessOrEqual(t, limit(), 2*time.Second)
	})
}

func TestCooldown_LatestDeadlineWins(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a := testkit.Add(t, reg, testkit.Provider{Name: "a"})
		leases := make([]*registry.Lease[testkit.ChatModel], 3)
		for i := range leases {
			var err error
			leases[i], err = testkit.Bind(reg).Acquire(t.Context())
			require.NoError(t, err)
		}
		leases[0].Done(verdict.RateLimited(testkit.ErrDown, 20*time.Second))
		until := a.Info().Cooldown.Until
		leases[1].Done(verdict.RateLimited(testkit.ErrDown, time.Second))
		require.Equal(t, until, a.Info().Cooldown.Until, "a shorter one changes nothing")
		leases[2].Done(verdict.RateLimited(testkit.ErrDown, 25*time.Second))
		require.GreaterOrEqual(t, time.Until(a.Info().Cooldown.Until), 25*time.Second)
		testkit.Pass(23 * time.Second)
		require.False(t, a.Info().Eligible)
		testkit.Pass(5 * time.Second)
		require.True(t, a.Info().Eligible)
	})
}

func TestCooldown_SuccessInFlightDoesNotShortenIt(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a := testkit.Add(t, reg, testkit.Provider{Name: "a"})
		first, err := testkit.Bind(reg).Acquire(t.Context())
		require.NoError(t, err)
		second, err := testkit.Bind(reg).Acquire(t.Context())
		require.NoError(t, err)
		first.Done(verdict.RateLimited(testkit.ErrDown, time.Minute))
		until := a.Info().Cooldown.Until
		second.Done(nil)
		require.Equal(t, until, a.Info().Cooldown.Until)
	})
}

func TestCooldown_IsAtMostADay(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a := testkit.Add(t, reg, testkit.Provider{Name: "a", Instance: testkit.Fails(verdict.RateLimited(testkit.ErrDown, 1<<62))})
		_, err := testkit.Ask(t.Context(), testkit.Bind(reg))
		require.Error(t, err)
		require.Equal(t, 24*time.Hour, time.Until(a.Info().Cooldown.Until))
	})
}

func TestCooldown_RefusedCredentialsParkProvider(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		parked := testkit.StatusError{Code: 401}
		a := testkit.Add(t, reg, testkit.Provider{Name: "a", Instance: testkit.Fails(parked)})
		testkit.Add(t, reg, testkit.Provider{Name: "b"})
		events := reg.Subscribe(0)
		for range 20 {
			require.Equal(t, "b", testkit.MustAsk(t, testkit.Bind(reg)))
		}
		testkit.RequireCounts(t, a, 0, 0, 0, 3) // the first two may have been the callers' own
		require.Equal(t, status.BreakerClosed, a.Breaker().State)
		require.Equal(t, []event.Kind{event.Parked}, testkit.Kinds(t, events))
		require.GreaterOrEqual(t, time.Until(a.Info().Cooldown.Until), 2*time.Minute)
		require.Contains(t, a.Info().Reason, "no usable credentials")
		require.NoError(t, a.Reset())
		require.True(t, a.Info().Eligible)
		require.Equal(t, []event.Kind{event.CooldownEnded}, testkit.Kinds(t, events))
	})
}

func TestCooldown_RefusedCredentialsParkDuringRateLimit(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		p := testkit.Add(t, reg, testkit.Provider{Name: "p"})
		sub := reg.Subscribe(0)
		defer sub.Close()
		a, _ := testkit.Bind(reg).Acquire(t.Context())
		b, _ := testkit.Bind(reg).Acquire(t.Context())
		a.Done(verdict.RateLimited(testkit.ErrDown, 20*time.Minute))
		b.Done(verdict.Fatal(testkit.ErrDown, 0))
		_, err := testkit.Ask(t.Context(), testkit.Bind(reg))
		require.Contains(t, testkit.Kinds(t, sub), event.Parked)
		require.ErrorIs(t, err, registry.ErrCredentials)
		_ = p
	})
}

func TestCooldown_ConcurrentRefusalsParkOnce(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		hold := make(chan struct{})
		p := testkit.Add(t, reg, testkit.Provider{Name: "p", Instance: testkit.Answers(func() (string, error) { <-hold; return "", verdict.Fatal(testkit.ErrDown, 0) })})
		sub := reg.Subscribe(0)
		defer sub.Close()
		for range 50 {
			go func() { _, _ = testkit.Ask(context.Background(), testkit.Bind(reg)) }()
		}
		synctest.Wait()
		close(hold)
		synctest.Wait()
		parked := 0
		for _, k := range testkit.Kinds(t, sub) {
			if k == event.Parked {
				parked++
			}
		}
		require.LessOrEqual(t, time.Until(p.Info().Cooldown.Until), 5*time.Minute, "outcomes during a cooldown do not make it grow")
		require.Equal(t, 1, parked)
	})
}

func TestCooldown_ErrorIsCredentialsWhenAllAreParked(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		testkit.Add(t, reg, testkit.Provider{Name: "a", Instance: testkit.Fails(verdict.Fatal(testkit.StatusError{Code: 401}, 0))})
		testkit.Add(t, reg, testkit.Provider{Name: "b", Instance: testkit.Fails(verdict.Fatal(testkit.ErrDown, time.Hour))})
		_, err := testkit.Ask(t.Context(), testkit.Bind(reg))
		testkit.RequireOneLine(t, err)
		require.ErrorIs(t, err, registry.ErrCredentials, "the call that finds out")
		require.Contains(t, err.Error(), "no usable credentials")
		require.ErrorIs(t, err, testkit.ErrDown)
		_, err = testkit.Ask(t.Context(), testkit.Bind(reg))
		require.ErrorIs(t, err, registry.ErrCredentials, "the calls after it")
		require.ErrorIs(t, err, registry.ErrUnavailable)
		require.ErrorIs(t, err, registry.ErrCoolingDown)
		require.ErrorIs(t, err, testkit.ErrDown, "the cause is kept")
	})
}

func TestCooldown_ErrorIsNotCredentialsAfterOtherFailure(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		testkit.Add(t, reg, testkit.Provider{Name: "a", Instance: testkit.Fails(verdict.Fatal(testkit.StatusError{Code: 401}, 0))})
		testkit.Add(t, reg, testkit.Provider{Name: "b", Instance: testkit.Fails(testkit.ErrDown)})
		_, err := testkit.Ask(t.Context(), testkit.Bind(reg))
		require.NotErrorIs(t, err, registry.ErrCredentials)
	})
}

func TestCooldown_ServiceUnavailableIsAFailureWithoutRest(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a := testkit.Add(t, reg, testkit.Provider{Name: "a", Instance: testkit.Fails(testkit.StatusError{Code: 503})})
		testkit.Add(t, reg, testkit.Provider{Name: "b"})
		require.Equal(t, "b", testkit.MustAsk(t, testkit.Bind(reg)))
		testkit.RequireCounts(t, a, 0, 1, 0, 0)
		require.Equal(t, 1, a.Breaker().ConsecutiveFailures)
		require.Zero(t, a.Info().Cooldown.Until, "one answer takes no provider away")
	})
}

func TestCooldown_AndOpenBreakerBothHaveToEnd(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a := testkit.Add(t, reg, testkit.Provider{Name: "a", Instance: testkit.Fails(verdict.RateLimited(testkit.ErrDown, 2*time.Minute))})
		_, _ = testkit.Ask(t.Context(), testkit.Bind(reg))
		require.NoError(t, a.ForceOpen(time.Minute, "test"))
		_, err := testkit.Ask(t.Context(), testkit.Bind(reg))
		require.ErrorIs(t, err, registry.ErrBreakerOpen)
		require.ErrorIs(t, err, registry.ErrCoolingDown)
		var unavailable *registry.UnavailableError
		require.ErrorAs(t, err, &unavailable)
		require.GreaterOrEqual(t, unavailable.RetryIn, 2*time.Minute)
		testkit.Pass(time.Minute + 1)
		require.False(t, a.Info().Eligible)
	})
}

func TestCooldown_OfRemovedProviderRaisesNoEvents(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a := testkit.Add(t, reg, testkit.Provider{Name: "a", Breaker: registry.BreakerPolicy{FailureThreshold: 1}})
		limited, err := testkit.Bind(reg).Acquire(t.Context())
		require.NoError(t, err)
		failed, err := testkit.Bind(reg).Acquire(t.Context())
		require.NoError(t, err)
		events := reg.Subscribe(0)
		go func() { _ = a.Unregister(t.Context()) }()
		testkit.Pass(time.Second)
		limited.Done(verdict.RateLimited(testkit.ErrDown, time.Minute))
		failed.Done(testkit.ErrDown)
		testkit.Pass(time.Hour)
		require.Equal(t, []event.Kind{event.Draining, event.Drained}, testkit.Kinds(t, events))
	})
}

func TestCooldown_SuccessOfLateMemberEndsDomainGrowth(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		testkit.Add(t, reg, testkit.Provider{Name: "a", Domain: "d"})
		l, err := testkit.Bind(reg).Acquire(t.Context())
		require.NoError(t, err)
		l.Done(verdict.Fatal(testkit.ErrDown, 0)) // ~5 min
		testkit.Pass(6 * time.Minute)
		b := testkit.Add(t, reg, testkit.Provider{Name: "b", Domain: "d", Priority: registry.PriorityCritical})
		require.Equal(t, "b", testkit.MustAsk(t, testkit.Bind(reg))) // a success of the domain
		l, err = testkit.Bind(reg).Acquire(t.Context())
		require.NoError(t, err)
		l.Done(verdict.Fatal(testkit.ErrDown, 0))
		d := time.Until(b.Info().Cooldown.Until)
		require.LessOrEqual(t, d, 5*time.Minute, "success resets growth")
	})
}

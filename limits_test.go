package registry_test

import (
	"context"
	"errors"
	"math"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/internal/testkit"
	"github.com/capreg/registry/reason"
	"github.com/capreg/registry/status"
	"github.com/capreg/registry/verdict"
)

// one lets one in at a time.
var one = registry.LimitPolicy{MaxConcurrent: 1, MaxQueue: 5, MaxWait: time.Second}

func TestLimits_FullProviderFailsOverAtOnce(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a := testkit.Add(t, reg, testkit.Provider{Name: "a", Instance: testkit.Takes("a", time.Minute), Limits: registry.LimitPolicy{MaxConcurrent: 2}, AttemptTimeout: time.Hour})
		b := testkit.Add(t, reg, testkit.Provider{Name: "b", Group: 1})
		var inside sync.WaitGroup
		for range 2 {
			inside.Go(func() { require.Equal(t, "a", testkit.MustAsk(t, testkit.Bind(reg))) })
		}
		synctest.Wait()
		began := time.Now()
		for range 10 {
			require.Equal(t, "b", testkit.MustAsk(t, testkit.Bind(reg)))
		}
		require.Equal(t, began, time.Now())
		inside.Wait()
		require.Equal(t, "a", testkit.MustAsk(t, testkit.Bind(reg)))
		testkit.RequireCounts(t, a, 3, 0, 0, 0)
		testkit.RequireCounts(t, b, 10, 0, 0, 0)
	})
}

func TestLimits_FullProviderTakesNoTrialSlot(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a := testkit.Add(t, reg, testkit.Provider{Name: "a", Limits: registry.LimitPolicy{MaxConcurrent: 1, NoQueue: true}, Breaker: registry.BreakerPolicy{TrialSlots: 2}})
		lease, err := testkit.Bind(reg).Acquire(t.Context()) // from before the opening
		require.NoError(t, err)
		require.NoError(t, a.ForceOpen(time.Second, "test"))
		testkit.Pass(time.Second + 1)
		_, err = testkit.Ask(t.Context(), testkit.Bind(reg))
		require.ErrorIs(t, err, registry.ErrAtCapacity)
		require.Zero(t, a.Breaker().TrialsInFlight)
		lease.Done(nil)
		require.Equal(t, "a", testkit.MustAsk(t, testkit.Bind(reg)))
	})
}

func TestSetLimits_ChangesAtRunTime(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a := testkit.Add(t, reg, testkit.Provider{Name: "a", Limits: registry.LimitPolicy{MaxConcurrent: 1}})
		lease, err := testkit.Bind(reg).Acquire(t.Context())
		require.NoError(t, err)
		var callers sync.WaitGroup
		callers.Go(func() { testkit.MustAsk(t, testkit.Bind(reg)) })
		synctest.Wait()
		previous, err := a.SetLimits(registry.LimitPolicy{MaxConcurrent: 2})
		require.NoError(t, err)
		require.Equal(t, registry.LimitPolicy{Bulkhead: true, MaxConcurrent: 1, MaxQueue: 50, MaxWait: 30 * time.Second}, previous)
		callers.Wait() // it did not need the first to end
		_, err = a.SetLimits(registry.LimitPolicy{MaxConcurrent: -1})
		require.ErrorIs(t, err, registry.ErrInvalid)
		_, err = a.SetLimits(registry.LimitPolicy{})
		require.NoError(t, err)
		lease.Done(nil)
		require.Equal(t, "a", testkit.MustAsk(t, testkit.Bind(reg)))
		testkit.RequireCounts(t, a, 3, 0, 0, 0)
	})
}

func TestSetLimits_OffAndOnKeepsCallsInside(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a := testkit.Add(t, reg, testkit.Provider{Name: "a", Limits: one})
		r := testkit.Bind(reg)
		l1, err := r.Acquire(t.Context())
		require.NoError(t, err)
		_, err = a.SetLimits(registry.LimitPolicy{})
		require.NoError(t, err)
		_, err = a.SetLimits(registry.LimitPolicy{MaxConcurrent: 1, NoQueue: true})
		require.NoError(t, err)
		l2, err := r.Acquire(t.Context())
		require.Error(t, err, "two inside, one allowed")
		l1.Done(nil)
		if l2 != nil {
			l2.Done(nil)
		}
	})
}

func TestLimits_RateIsPerCaller(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a := testkit.Add(t, reg, testkit.Provider{Name: "a", Limits: registry.LimitPolicy{Rate: 2, Burst: 3}})
		r := testkit.Bind(reg)
		try := func(caller string) error {
			_, err := testkit.Ask(t.Context(), r, registry.Caller(caller))
			return err
		}
		for range 3 {
			require.NoError(t, try("x"))
		}
		err := try("x")
		require.ErrorIs(t, err, registry.ErrAtCapacity)
		var unavailable *registry.UnavailableError
		require.ErrorAs(t, err, &unavailable)
		require.Equal(t, 500*time.Millisecond, unavailable.RetryIn)
		require.Equal(t, reason.Throttled, unavailable.Candidates()[0].Code)
		require.NoError(t, try("y"), "another caller")
		testkit.Pass(500 * time.Millisecond)
		require.NoError(t, try("x"))
		require.Error(t, try("x"))
		testkit.RequireCounts(t, a, 5, 0, 0, 0) // refused calls touch no provider
		for i := range 3000 {                   // more callers than are remembered
			require.NoError(t, try(strconv.Itoa(i)))
		}
	})
}

func TestLimits_RateHoldsForThousandsOfCallers(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		testkit.Add(t, reg, testkit.Provider{Name: "a", Limits: registry.LimitPolicy{Rate: 0.0001, Burst: 1}})
		r := testkit.Bind(reg)
		allowed := 0
		for range 3 {
			for i := range 2000 {
				if _, err := testkit.Ask(t.Context(), r, registry.Caller(strconv.Itoa(i))); err == nil {
					allowed++
				}
			}
		}
		require.Equal(t, 2000, allowed)
	})
}

func TestCaller_IsHandlerByDefault(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		testkit.Add(t, reg, testkit.Provider{Name: "a", Limits: registry.LimitPolicy{Rate: 1}})
		h := testkit.Chat.Bind(reg, registry.Query{Handler: "h"})
		testkit.MustAsk(t, h)
		_, err := testkit.Ask(t.Context(), h)
		require.ErrorIs(t, err, registry.ErrAtCapacity)
		testkit.MustAsk(t, h, registry.Caller("another"))
	})
}

func TestAuthorize_KeepsCallersFromProviders(t *testing.T) {
	t.Parallel()
	errNo := errors.New("not for you")
	options := registry.Options{Authorize: func(_ context.Context, caller, service, provider string) error {
		require.Equal(t, "chat", service)
		switch {
		case provider == "a" && caller == "guest":
			return errNo
		case caller == "panic":
			panic("authorizer")
		}
		return nil
	}}
	testkit.Bubble(t, options, func(t *testing.T, reg *registry.Registry) {
		a := testkit.Add(t, reg, testkit.Provider{Name: "a"})
		b := testkit.Add(t, reg, testkit.Provider{Name: "b", Group: 1})
		require.Equal(t, "a", testkit.MustAsk(t, testkit.Bind(reg), registry.Caller("admin")))
		require.Equal(t, "b", testkit.MustAsk(t, testkit.Bind(reg), registry.Caller("guest")))
		_, err := testkit.Ask(t.Context(), testkit.Bind(reg), registry.Caller("panic"))
		require.ErrorIs(t, err, registry.ErrDenied)
		var panicked *verdict.PanicError
		require.ErrorAs(t, err, &panicked)
		require.NoError(t, b.Unregister(t.Context()))
		_, err = testkit.Ask(t.Context(), testkit.Bind(reg), registry.Caller("guest"))
		require.ErrorIs(t, err, registry.ErrDenied)
		require.ErrorIs(t, err, errNo)
		require.ErrorIs(t, err, registry.ErrUnavailable)
		require.ErrorContains(t, err, "a: denied: not for you")
		testkit.RequireCounts(t, a, 1, 0, 0, 0)
	})
}

func TestDomain_SharesLimitsAndCooldown(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		var next error
		shared := func(name string) testkit.Provider {
			return testkit.Provider{Name: name, Domain: "key-1", Instance: testkit.Answers(func() (string, error) { return name, next })}
		}
		first := shared("a")
		first.Limits = registry.LimitPolicy{MaxConcurrent: 1, NoQueue: true}
		a, b := testkit.Add(t, reg, first), testkit.Add(t, reg, shared("b"))
		testkit.Add(t, reg, testkit.Provider{Name: "other", Group: 1})

		lease, err := testkit.Bind(reg).Acquire(t.Context())
		require.NoError(t, err)
		require.Equal(t, "other", testkit.MustAsk(t, testkit.Bind(reg)), "a holds the place that b needs")
		lease.Done(nil)

		next = verdict.RateLimited(testkit.ErrDown, 10*time.Second)
		require.Equal(t, "other", testkit.MustAsk(t, testkit.Bind(reg)))
		testkit.RequireCounts(t, b, 0, 0, 0, 0)
		require.False(t, b.Info().Eligible, "it cools down together with a")
		late := testkit.Add(t, reg, shared("late"))
		require.False(t, late.Info().Eligible, "and so does a provider that joins now")
		testkit.Pass(11 * time.Second)
		for _, member := range []*registry.Registration{a, b, late} {
			require.True(t, member.Info().Eligible)
		}

		next = verdict.Fatal(testkit.ErrDown, time.Hour)
		require.Equal(t, "other", testkit.MustAsk(t, testkit.Bind(reg)))
		require.NoError(t, b.Reset(), "the key was mended")
		require.True(t, a.Info().Eligible)

		next = verdict.As(testkit.ErrDown, verdict.Verdict{Class: verdict.ClassNotFound})
		lease, err = testkit.Bind(reg).Acquire(t.Context())
		require.NoError(t, err)
		lease.Done(next)
		require.False(t, a.Info().Eligible)
		next = nil
		require.Equal(t, "b", testkit.MustAsk(t, testkit.Bind(reg)), "a model that is not there concerns one provider alone")
	})
}

func TestDomain_KeepsLimitsAndNamesTheirProvider(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		testkit.Add(t, reg, testkit.Provider{Name: "a", Domain: "d", Limits: registry.LimitPolicy{MaxConcurrent: 3}})
		testkit.Add(t, reg, testkit.Provider{Name: "b", Domain: "d", Limits: registry.LimitPolicy{MaxConcurrent: 3}})
		_, err := testkit.Chat.Register(t.Context(), reg, testkit.Provider{Name: "c", Domain: "d", Limits: registry.LimitPolicy{Rate: 1}, Instance: testkit.Says("c")})
		require.ErrorIs(t, err, registry.ErrConflict)
		require.ErrorContains(t, err, `provider "chat/a" set for domain "d"`)
		_, there := reg.Provider("chat", "c")
		require.False(t, there)
	})
}

func TestDomain_EndsWithLastMember(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		one := registry.LimitPolicy{MaxConcurrent: 1, NoQueue: true}
		a := testkit.Add(t, reg, testkit.Provider{Name: "a", Domain: "d", Limits: one})
		b := testkit.Add(t, reg, testkit.Provider{Name: "b", Domain: "d"})
		require.NoError(t, a.Unregister(t.Context()))
		_, err := testkit.Chat.Register(t.Context(), reg, testkit.Provider{Name: "c", Instance: testkit.Says("c"), Domain: "d", Limits: registry.LimitPolicy{MaxConcurrent: 2}})
		require.ErrorIs(t, err, registry.ErrConflict, "b keeps it")
		require.NoError(t, b.Unregister(t.Context()))
		testkit.Add(t, reg, testkit.Provider{Name: "c", Domain: "d", Limits: registry.LimitPolicy{MaxConcurrent: 2, NoQueue: true}})
		first, err := testkit.Bind(reg).Acquire(t.Context())
		require.NoError(t, err)
		second, err := testkit.Bind(reg).Acquire(t.Context())
		require.NoError(t, err)
		_, err = testkit.Bind(reg).Acquire(t.Context())
		require.ErrorIs(t, err, registry.ErrAtCapacity)
		first.Done(nil)
		second.Done(nil)
	})
}

func TestDomain_LaterMemberMaySetLimits(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a := testkit.Add(t, reg, testkit.Provider{Name: "a", Domain: "d"})
		require.Equal(t, "a", testkit.MustAsk(t, testkit.Bind(reg)))
		testkit.Add(t, reg, testkit.Provider{Name: "b", Domain: "d", Limits: registry.LimitPolicy{Rate: 0.001, Burst: 1}})
		require.Equal(t, "a", testkit.MustAsk(t, testkit.Bind(reg)))
		_, err := testkit.Ask(t.Context(), testkit.Bind(reg))
		require.ErrorIs(t, err, registry.ErrAtCapacity)
		previous, err := a.SetLimits(registry.LimitPolicy{})
		require.NoError(t, err)
		require.Equal(t, registry.LimitPolicy{Rate: 0.001, Burst: 1}, previous)
	})
}

func TestLimitPolicy_BadNamesFieldAndBound(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		for field, p := range map[string]testkit.Provider{
			"Limits.MaxConcurrent": {Limits: registry.LimitPolicy{MaxConcurrent: -1}},
			"Limits.MaxQueue":      {Limits: registry.LimitPolicy{MaxQueue: -1}},
			"Limits.MaxWait":       {Limits: registry.LimitPolicy{MaxWait: -1}},
			"Limits.NoQueue":       {Limits: registry.LimitPolicy{NoQueue: true, MaxQueue: 1}},
			"Limits.Rate":          {Limits: registry.LimitPolicy{Rate: math.NaN()}},
			"Limits.Burst":         {Limits: registry.LimitPolicy{Burst: 1}},
			"Retry.Retries":        {Retry: registry.RetryPolicy{Retries: 101}},
			"Retry.FirstDelay":     {Retry: registry.RetryPolicy{FirstDelay: -1}},
			"Retry.MaxDelay":       {Retry: registry.RetryPolicy{FirstDelay: time.Hour, MaxDelay: time.Second}},
			"Retry.Budget":         {Retry: registry.RetryPolicy{Budget: -1}},
			"Retry.Refund":         {Retry: registry.RetryPolicy{Refund: 1.5}},
			"Retry.Floor":          {Retry: registry.RetryPolicy{Floor: math.Inf(1)}},
			"Domain":               {Domain: " d"},

			"Breaker.FailureRate":        {Breaker: registry.BreakerPolicy{FailureRate: 1.1}},
			"Breaker.SlowRate":           {Breaker: registry.BreakerPolicy{SlowRate: math.NaN()}},
			"Breaker.SlowAfter":          {Breaker: registry.BreakerPolicy{SlowRate: 0.5}},
			"Breaker.Window":             {Breaker: registry.BreakerPolicy{Window: time.Second}},
			"Breaker.MinimumCalls":       {Breaker: registry.BreakerPolicy{MinimumCalls: 3}},
			"Breaker.RecoveryGrowth":     {Breaker: registry.BreakerPolicy{RecoveryGrowth: 0.5}},
			"Breaker.MaxRecoveryTimeout": {Breaker: registry.BreakerPolicy{RecoveryGrowth: 2, MaxRecoveryTimeout: time.Second}},
			"Breaker.RecoveryJitter":     {Breaker: registry.BreakerPolicy{RecoveryJitter: -0.1}},
		} {
			p.Instance = testkit.Says("x")
			_, err := testkit.Chat.Register(t.Context(), reg, p)
			var bad *registry.FieldError
			require.ErrorAs(t, err, &bad, field)
			require.Equal(t, field, bad.Field)
			require.ErrorIs(t, err, registry.ErrInvalid)
			testkit.RequireOneLine(t, err)
		}
		require.Zero(t, reg.Stats().Providers)
	})
}

func TestLimits_ThousandCallsReachDyingProviderAFewTimes(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		dying := testkit.Answers(func() (string, error) {
			time.Sleep(time.Second)
			return "", testkit.ErrDown
		})
		a := testkit.Add(t, reg, testkit.Provider{Name: "dying", Instance: dying, Limits: registry.LimitPolicy{Bulkhead: true}})
		var callers sync.WaitGroup
		for range 1000 {
			callers.Go(func() { _, _ = testkit.Ask(context.Background(), testkit.Bind(reg)) })
		}
		callers.Wait()
		const slots, threshold = 10, 5
		require.LessOrEqual(t, a.Info().Attempts, uint64(slots+threshold))
		require.Equal(t, status.BreakerOpen, a.Breaker().State)
	})
}

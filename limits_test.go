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
	"github.com/capreg/registry/verdict"
)

// takes returns a model that answers its name after a time.
func takes(name string, d time.Duration) chatModel {
	return answers(func() (string, error) {
		time.Sleep(d)
		return name, nil
	})
}

func TestFullBulkheadSendsCallsToTheNextProviderAtOnce(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a := add(t, reg, provider{Name: "a", Instance: takes("a", time.Minute), Limits: registry.LimitPolicy{MaxConcurrent: 2}, AttemptTimeout: time.Hour})
		b := add(t, reg, provider{Name: "b", Group: 1})
		var inside sync.WaitGroup
		for range 2 {
			inside.Go(func() { require.Equal(t, "a", asked(t, bind(reg))) })
		}
		synctest.Wait()
		began := time.Now()
		for range 10 {
			require.Equal(t, "b", asked(t, bind(reg)))
		}
		require.Equal(t, began, time.Now())
		inside.Wait()
		require.Equal(t, "a", asked(t, bind(reg)))
		requireCounts(t, a, 3, 0, 0, 0)
		requireCounts(t, b, 10, 0, 0, 0)
	})
}

func TestThoseWhoQueueForAPlaceAreServedFirstComeFirst(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		var served []int
		a := add(t, reg, provider{Name: "a", Limits: registry.LimitPolicy{MaxConcurrent: 1}})
		var callers sync.WaitGroup
		for i := range 6 {
			callers.Go(func() {
				_, err := registry.Call(t.Context(), bind(reg), func(context.Context, chatModel) (int, error) {
					served = append(served, i) // one at a time
					time.Sleep(time.Second)
					return 0, nil
				})
				require.NoError(t, err)
			})
			synctest.Wait()
		}
		require.Equal(t, uint64(1), a.Info().InFlight)
		callers.Wait()
		require.Equal(t, []int{0, 1, 2, 3, 4, 5}, served)
	})
}

func TestCallQueuesAtEveryFullProviderAndTakesTheFirstPlace(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		one := registry.LimitPolicy{MaxConcurrent: 1}
		add(t, reg, provider{Name: "a", Instance: takes("a", 10*time.Second), Limits: one})
		add(t, reg, provider{Name: "b", Instance: takes("b", 3*time.Second), Limits: one})
		var callers sync.WaitGroup
		for range 2 {
			callers.Go(func() { asked(t, bind(reg)) })
		}
		synctest.Wait()
		began := time.Now()
		var report registry.CallReport
		require.Equal(t, "b", asked(t, bind(reg), registry.ReportTo(&report)))
		require.Equal(t, 6*time.Second, time.Since(began))
		require.Equal(t, "queued", report.Attempts[0].Why)
		require.Equal(t, 3*time.Second, report.Attempts[0].Delay)
		callers.Wait()
	})
}

func TestQueueHasRoomForSoManyAndEachWaitsForSoLong(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a := add(t, reg, provider{
			Name: "a", Instance: takes("a", time.Minute), AttemptTimeout: time.Hour,
			Limits: registry.LimitPolicy{MaxConcurrent: 1, MaxQueue: 2, MaxWait: 5 * time.Second},
		})
		var callers sync.WaitGroup
		callers.Go(func() { asked(t, bind(reg)) })
		synctest.Wait()
		began := time.Now()
		for range 2 {
			callers.Go(func() {
				_, err := ask(t.Context(), bind(reg))
				require.ErrorIs(t, err, registry.ErrAtCapacity)
				require.ErrorIs(t, err, registry.ErrUnavailable)
				require.Equal(t, 5*time.Second, time.Since(began))
			})
		}
		synctest.Wait()
		_, err := ask(t.Context(), bind(reg))
		require.ErrorIs(t, err, registry.ErrAtCapacity)
		require.ErrorContains(t, err, "a: at capacity")
		require.Equal(t, began, time.Now(), "no room: at once")
		callers.Wait()
		requireCounts(t, a, 1, 0, 0, 0)
	})
}

func TestWithoutAQueueNobodyWaits(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		add(t, reg, provider{Name: "a", Limits: registry.LimitPolicy{MaxConcurrent: 1, NoQueue: true}})
		lease, err := bind(reg).Acquire(t.Context())
		require.NoError(t, err)
		_, err = bind(reg).Acquire(t.Context())
		require.ErrorIs(t, err, registry.ErrAtCapacity)
		lease.Done(nil)
		require.Equal(t, "a", asked(t, bind(reg)))
	})
}

func TestThoseWhoseTurnItIsLookAgainWhetherTheProviderAdmitsThem(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		one := registry.LimitPolicy{MaxConcurrent: 1}
		a := add(t, reg, provider{Name: "a", Limits: one})
		lease, err := bind(reg).Acquire(t.Context())
		require.NoError(t, err)
		var callers sync.WaitGroup
		for range 3 {
			callers.Go(func() {
				_, err := ask(t.Context(), bind(reg))
				require.ErrorIs(t, err, registry.ErrUnhealthy)
			})
		}
		synctest.Wait()
		require.NoError(t, a.MarkUnhealthy(errDown))
		lease.Done(nil)
		callers.Wait()
		requireCounts(t, a, 1, 0, 0, 0)
		require.NoError(t, a.MarkHealthy())
		require.Equal(t, "a", asked(t, bind(reg)), "no place was lost")
	})
}

func TestCallerThatGoesAwayLeavesTheQueue(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a := add(t, reg, provider{Name: "a", Limits: registry.LimitPolicy{MaxConcurrent: 1, MaxQueue: 1}})
		lease, err := bind(reg).Acquire(t.Context())
		require.NoError(t, err)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err = ask(ctx, bind(reg))
		require.ErrorIs(t, err, context.DeadlineExceeded)
		var callers sync.WaitGroup
		callers.Go(func() { require.Equal(t, "a", asked(t, bind(reg)), "there is room again") })
		synctest.Wait()
		lease.Done(nil)
		callers.Wait()
		requireCounts(t, a, 2, 0, 0, 0)
	})
}

func TestFullBulkheadTakesNoTrialSlot(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a := add(t, reg, provider{Name: "a", Limits: registry.LimitPolicy{MaxConcurrent: 1, NoQueue: true}, Breaker: registry.BreakerPolicy{TrialSlots: 2}})
		lease, err := bind(reg).Acquire(t.Context()) // from before the opening
		require.NoError(t, err)
		require.NoError(t, a.ForceOpen(time.Second, "test"))
		pass(time.Second + 1)
		_, err = ask(t.Context(), bind(reg))
		require.ErrorIs(t, err, registry.ErrAtCapacity)
		require.Zero(t, a.Breaker().TrialsInFlight)
		lease.Done(nil)
		require.Equal(t, "a", asked(t, bind(reg)))
	})
}

func TestLimitsChangeAtRunTime(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a := add(t, reg, provider{Name: "a", Limits: registry.LimitPolicy{MaxConcurrent: 1}})
		lease, err := bind(reg).Acquire(t.Context())
		require.NoError(t, err)
		var callers sync.WaitGroup
		callers.Go(func() { asked(t, bind(reg)) })
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
		require.Equal(t, "a", asked(t, bind(reg)))
		requireCounts(t, a, 3, 0, 0, 0)
	})
}

func TestRateIsKeptForEachCaller(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a := add(t, reg, provider{Name: "a", Limits: registry.LimitPolicy{Rate: 2, Burst: 3}})
		r := bind(reg)
		try := func(caller string) error {
			_, err := ask(t.Context(), r, registry.Caller(caller))
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
		require.Equal(t, "throttled", unavailable.Candidates[0].Code)
		require.NoError(t, try("y"), "somebody else")
		pass(500 * time.Millisecond)
		require.NoError(t, try("x"))
		require.Error(t, try("x"))
		requireCounts(t, a, 5, 0, 0, 0) // refused calls touch no provider
		for i := range 3000 {           // more callers than are remembered
			require.NoError(t, try(strconv.Itoa(i)))
		}
	})
}

func TestCallerIsTheHandlerUnlessItIsNamed(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		add(t, reg, provider{Name: "a", Limits: registry.LimitPolicy{Rate: 1}})
		h := chat.Bind(reg, registry.Query{Handler: "h"})
		asked(t, h)
		_, err := ask(t.Context(), h)
		require.ErrorIs(t, err, registry.ErrAtCapacity)
		asked(t, h, registry.Caller("somebody"))
	})
}

func TestAuthorizerKeepsCallersAwayFromProviders(t *testing.T) {
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
	bubble(t, options, func(t *testing.T, reg *registry.Registry) {
		a := add(t, reg, provider{Name: "a"})
		b := add(t, reg, provider{Name: "b", Group: 1})
		require.Equal(t, "a", asked(t, bind(reg), registry.Caller("admin")))
		require.Equal(t, "b", asked(t, bind(reg), registry.Caller("guest")))
		_, err := ask(t.Context(), bind(reg), registry.Caller("panic"))
		require.ErrorIs(t, err, registry.ErrDenied)
		var panicked *registry.PanicError
		require.ErrorAs(t, err, &panicked)
		require.NoError(t, b.Unregister(t.Context()))
		_, err = ask(t.Context(), bind(reg), registry.Caller("guest"))
		require.ErrorIs(t, err, registry.ErrDenied)
		require.ErrorIs(t, err, errNo)
		require.ErrorIs(t, err, registry.ErrUnavailable)
		require.ErrorContains(t, err, "a: denied: not for you")
		requireCounts(t, a, 1, 0, 0, 0)
	})
}

func TestDomainSharesLimitsAndCooldown(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		var next error
		shared := func(name string) provider {
			return provider{Name: name, Domain: "key-1", Instance: answers(func() (string, error) { return name, next })}
		}
		first := shared("a")
		first.Limits = registry.LimitPolicy{MaxConcurrent: 1, NoQueue: true}
		a, b := add(t, reg, first), add(t, reg, shared("b"))
		add(t, reg, provider{Name: "other", Group: 1})

		lease, err := bind(reg).Acquire(t.Context())
		require.NoError(t, err)
		require.Equal(t, "other", asked(t, bind(reg)), "the place of b is taken by a")
		lease.Done(nil)

		next = verdict.RateLimited(errDown, 10*time.Second)
		require.Equal(t, "other", asked(t, bind(reg)))
		requireCounts(t, b, 0, 0, 0, 0)
		require.False(t, b.Info().Eligible, "it cools down together with a")
		late := add(t, reg, shared("late"))
		require.False(t, late.Info().Eligible, "and so does who joins now")
		pass(11 * time.Second)
		for _, member := range []*registry.Registration{a, b, late} {
			require.True(t, member.Info().Eligible)
		}

		next = verdict.Fatal(errDown, time.Hour)
		require.Equal(t, "other", asked(t, bind(reg)))
		require.NoError(t, b.Reset(), "the key was mended")
		require.True(t, a.Info().Eligible)

		next = verdict.As(errDown, verdict.Verdict{Class: verdict.ClassNotFound})
		lease, err = bind(reg).Acquire(t.Context())
		require.NoError(t, err)
		lease.Done(next)
		require.False(t, a.Info().Eligible)
		next = nil
		require.Equal(t, "b", asked(t, bind(reg)), "a model that is not there concerns one provider alone")
	})
}

func TestDomainKeepsItsLimitsAndNamesWhoSetThem(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		add(t, reg, provider{Name: "a", Domain: "d", Limits: registry.LimitPolicy{MaxConcurrent: 3}})
		add(t, reg, provider{Name: "b", Domain: "d", Limits: registry.LimitPolicy{MaxConcurrent: 3}})
		_, err := chat.Register(t.Context(), reg, provider{Name: "c", Domain: "d", Limits: registry.LimitPolicy{Rate: 1}, Instance: says("c")})
		require.ErrorIs(t, err, registry.ErrConflict)
		require.ErrorContains(t, err, `provider "a" set for domain "d"`)
		_, there := reg.Provider("c")
		require.False(t, there)
	})
}

func TestBadPoliciesNameFieldAndBound(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		for field, p := range map[string]provider{
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
			p.Instance = says("x")
			_, err := chat.Register(t.Context(), reg, p)
			var bad *registry.FieldError
			require.ErrorAs(t, err, &bad, field)
			require.Equal(t, field, bad.Field)
			require.ErrorIs(t, err, registry.ErrInvalid)
			requireOneLine(t, err)
		}
		require.Zero(t, reg.Stats().Providers)
	})
}

func TestThousandCallsAtAProviderThatDiesReachItOnlySoOften(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		dying := answers(func() (string, error) {
			time.Sleep(time.Second)
			return "", errDown
		})
		a := add(t, reg, provider{Name: "dying", Instance: dying, Limits: registry.LimitPolicy{Bulkhead: true}})
		var callers sync.WaitGroup
		for range 1000 {
			callers.Go(func() { _, _ = ask(context.Background(), bind(reg)) })
		}
		callers.Wait()
		const slots, threshold = 10, 5
		require.LessOrEqual(t, a.Info().Attempts, uint64(slots+threshold))
		require.Equal(t, registry.BreakerOpen, a.Breaker().State)
	})
}

func TestLimitsMayBeSetByWhoeverJoinsADomainLater(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a := add(t, reg, provider{Name: "a", Domain: "d"})
		require.Equal(t, "a", asked(t, bind(reg)))
		add(t, reg, provider{Name: "b", Domain: "d", Limits: registry.LimitPolicy{Rate: 0.001, Burst: 1}})
		require.Equal(t, "a", asked(t, bind(reg)))
		_, err := ask(t.Context(), bind(reg))
		require.ErrorIs(t, err, registry.ErrAtCapacity)
		previous, err := a.SetLimits(registry.LimitPolicy{})
		require.NoError(t, err)
		require.Equal(t, registry.LimitPolicy{Rate: 0.001, Burst: 1}, previous)
	})
}

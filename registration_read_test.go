package registry_test

import (
	"context"
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/health"
	"github.com/capreg/registry/internal/testkit"
	"github.com/capreg/registry/reason"
	"github.com/capreg/registry/selection"
	"github.com/capreg/registry/status"
	"github.com/capreg/registry/verdict"
)

// For each setter: what is set is read back by the getter, the setter returns what the getter said before, and what
// the getter says can be set and changes nothing that the getter tells.
func TestRegistration_EverySetterHasItsGetter(t *testing.T) {
	t.Parallel()
	values := map[string]any{
		"Priority": registry.PriorityHigh, "Group": 3, "Strategy": registry.StrategyRoundRobin, "Weight": 0.0,
		"AttemptTimeout": time.Second, "Limits": registry.LimitPolicy{MaxConcurrent: 3, Rate: 2},
		"Retry": registry.RetryPolicy{Retries: 2}, "BreakerPolicy": registry.BreakerPolicy{FailureThreshold: 9},
		"HealthPolicy": health.Policy{Off: true, Groups: []string{"x"}},
	}
	handle := reflect.TypeFor[*registry.Registration]()
	for i := range handle.NumMethod() {
		name, isSetter := strings.CutPrefix(handle.Method(i).Name, "Set")
		if !isSetter {
			continue
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			require.Contains(t, values, name, "Set%s has no value in this test", name)
			testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
				a := reflect.ValueOf(testkit.Add(t, reg, testkit.Provider{Name: "a", Domain: "d"}))
				getter := a.MethodByName(name)
				require.True(t, getter.IsValid(), "Set%s has no getter", name)
				get := func() any { return getter.Call(nil)[0].Interface() }
				set := func(value any) (previous any) {
					results := a.MethodByName("Set" + name).Call([]reflect.Value{reflect.ValueOf(value)})
					require.True(t, results[1].IsNil(), "%v", results[1])
					return results[0].Interface()
				}
				original := get()
				require.Equal(t, original, set(values[name]))
				changed := get()
				require.NotEqual(t, original, changed)
				require.Equal(t, changed, set(changed), "with its defaults it is the same")
				require.Equal(t, changed, get())
				require.Equal(t, changed, set(original))
				require.Equal(t, original, get())
			})
		})
	}
}

func TestRegistration_GettersReadAfterLeaving(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a := testkit.Add(t, reg, testkit.Provider{Name: "a", AttemptTimeout: time.Second, Limits: registry.LimitPolicy{Rate: 1}})
		require.NoError(t, a.Unregister(t.Context()))
		require.Equal(t, time.Second, a.AttemptTimeout())
		require.InDelta(t, 1, a.Limits().Rate, 0)
		require.InDelta(t, 1, a.Weight(), 0)
		require.Equal(t, reason.Closed, a.Info().Code)
		var none *registry.Registration
		require.Zero(t, none.Limits())
		require.Equal(t, 5, none.BreakerPolicy().FailureThreshold)
	})
}

func TestRegistration_WhatGettersReturnIsACopy(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		probe := func(context.Context) error { return nil }
		a := testkit.Add(t, reg, testkit.Provider{
			Name: "a", Capabilities: []string{"x"},
			Health: health.Policy{Groups: []string{"g"}, Capabilities: map[string]health.Probe{"x": probe}},
		})
		synctest.Wait()
		policy := a.HealthPolicy()
		policy.Groups[0] = "!"
		delete(policy.Capabilities, "x")
		require.Equal(t, []string{"g"}, a.HealthPolicy().Groups)
		require.Contains(t, a.HealthPolicy().Capabilities, "x")
		require.Equal(t, []string{"g"}, a.Info().Health.Groups)
	})
}

func TestService_SelectionIsWhatIsInForce(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{Selection: selection.Policy{LeastBad: true, Seed: 7}}, func(t *testing.T, reg *registry.Registry) {
		policy, err := testkit.Chat.Selection(reg)
		require.NoError(t, err)
		require.Equal(t, selection.Policy{LeastBad: true, Seed: 7}, policy, "that of the registry")
		_, known := reg.Analytics(testkit.Chat.Name())
		require.False(t, known, "reading binds nothing")

		wanted := selection.Policy{MaxEjected: 0.5}
		previous, err := testkit.Chat.SetSelection(reg, wanted)
		require.NoError(t, err)
		require.Equal(t, policy, previous)
		policy, err = testkit.Chat.Selection(reg)
		require.NoError(t, err)
		require.Equal(t, wanted, policy)

		_, err = registry.NewService[int](testkit.Chat.Name()).Selection(reg)
		require.ErrorIs(t, err, registry.ErrConflict)
		_, err = registry.NewService[int]("").Selection(reg)
		require.ErrorIs(t, err, registry.ErrInvalid)
		_, err = testkit.Chat.Selection(nil)
		require.ErrorIs(t, err, registry.ErrInvalid)
	})
}

func TestInfo_ShowsWhatIsInUseOfLimits(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		limits := registry.LimitPolicy{MaxConcurrent: 1, Rate: 100}
		a := testkit.Add(t, reg, testkit.Provider{Name: "a", Domain: "gpu", Limits: limits})
		b := testkit.Add(t, reg, testkit.Provider{Name: "b", Domain: "gpu", Handler: "other"})
		free := testkit.Add(t, reg, testkit.Provider{Name: "free", Handler: "third"})
		require.Zero(t, a.Info().InUse)

		lease, err := testkit.Bind(reg).Acquire(t.Context(), registry.Caller("x"))
		require.NoError(t, err)
		for _, caller := range []string{"x", "y"} {
			go func() { _, _ = testkit.Ask(t.Context(), testkit.Bind(reg), registry.Caller(caller)) }()
		}
		synctest.Wait()
		for _, member := range []*registry.Registration{a, b} {
			info := member.Info()
			require.Equal(t, status.Use{Places: 1, Queued: 2, Callers: 2}, info.InUse, "of the domain")
			require.Equal(t, registry.LimitPolicy{Bulkhead: true, MaxConcurrent: 1, MaxQueue: 50, MaxWait: 30 * time.Second, Rate: 100, Burst: 100}, info.Limits)
			require.Equal(t, status.Domain{Members: 2, LimitsBy: status.ProviderID{Service: "chat", Name: "a"}}, info.Shared)
		}
		require.Zero(t, free.Info().InUse)
		require.Zero(t, free.Info().Limits)
		require.Equal(t, status.Domain{Members: 1}, free.Info().Shared)
		lease.Done(nil)
		synctest.Wait()
		require.Equal(t, status.Use{Callers: 2}, a.Info().InUse)
	})
}

func TestInfo_ShowsTheRetryBudget(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a := testkit.Add(t, reg, testkit.Provider{Name: "a", Instance: testkit.Fails(testkit.ErrDown), Breaker: registry.BreakerPolicy{FailureThreshold: 100}})
		require.Equal(t, status.Budget{Left: 10}, a.Info().Budget, "of the default policy")
		require.Equal(t, 10, a.Info().Retry.Budget)
		for range 5 {
			_, _ = testkit.Ask(t.Context(), testkit.Bind(reg))
		}
		require.Equal(t, status.Budget{Left: 5, Low: true}, a.Info().Budget)
		_, err := a.SetRetry(registry.RetryPolicy{Budget: 4})
		require.NoError(t, err)
		require.Equal(t, status.Budget{Left: 4}, a.Info().Budget, "the budget starts over")
	})
}

func TestInfo_ShowsTheCooldown(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		down := testkit.Fails(verdict.RateLimited(testkit.ErrDown, time.Hour))
		a := testkit.Add(t, reg, testkit.Provider{Name: "a", Domain: "key", Instance: down})
		b := testkit.Add(t, reg, testkit.Provider{Name: "b", Domain: "key", Handler: "other", Instance: testkit.Fails(verdict.As(testkit.ErrDown, verdict.Verdict{Class: verdict.ClassOverloaded, After: 2 * time.Hour}))})
		require.Zero(t, a.Info().Cooldown)
		_, _ = testkit.Ask(t.Context(), testkit.Chat.Bind(reg, registry.Query{Handler: "other", OwnOnly: true}))
		own := b.Info().Cooldown
		require.Equal(t, verdict.ScopeProvider, own.Scope)
		require.Equal(t, verdict.ClassOverloaded, own.Class)
		require.Zero(t, b.Info().Shared.Cooldown)

		testkit.Pass(time.Second)
		began := time.Now()
		_, _ = testkit.Ask(t.Context(), testkit.Bind(reg))
		shared := a.Info().Cooldown
		require.Equal(t, verdict.ScopeDomain, shared.Scope)
		require.Equal(t, verdict.ClassRateLimited, shared.Class)
		require.Equal(t, status.ProviderID{Service: "chat", Name: "a"}, shared.By)
		require.True(t, shared.Asked)
		require.False(t, shared.Parked)
		require.Equal(t, began, shared.Since)
		require.GreaterOrEqual(t, shared.Until.Sub(began), time.Hour)
		require.Equal(t, own, b.Info().Cooldown, "its own is longer")
		require.Equal(t, shared, b.Info().Shared.Cooldown)
		require.Equal(t, reason.CoolingDown, b.Info().Code)

		require.NoError(t, a.Reset())
		require.Zero(t, a.Info().Cooldown)
		require.Equal(t, own, b.Info().Cooldown)
	})
}

func TestInfo_ShowsTrialsAndWhetherTheTimeoutWasGiven(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a := testkit.Add(t, reg, testkit.Provider{Name: "a", AttemptTimeout: 30 * time.Second})
		b := testkit.Add(t, reg, testkit.Provider{Name: "b"})
		require.Equal(t, a.Info().AttemptTimeout, b.Info().AttemptTimeout)
		require.True(t, a.Info().TimeoutGiven)
		require.False(t, b.Info().TimeoutGiven)
		require.NoError(t, a.ForceOpen(time.Second, "test"))
		testkit.Pass(time.Second + 1)
		require.Equal(t, reason.Trial, a.Info().Code)
		lease, err := testkit.Bind(reg).Acquire(t.Context())
		require.NoError(t, err)
		require.Equal(t, 1, a.Info().Breaker.TrialsInFlight)
		require.Equal(t, reason.TrialsFull, a.Info().Code)
		lease.Done(nil)
	})
}

// JSON shows all that Info holds, functions apart, and reading it back gives the same.
func TestInfo_JSONIsComplete(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a := testkit.Add(t, reg, testkit.Provider{
			Name: "a", Domain: "key", Limits: registry.LimitPolicy{MaxConcurrent: 2}, Instance: testkit.Fails(verdict.Fatal(testkit.ErrDown, 0)),
			Health: health.Policy{Probe: func(context.Context) error { return nil }, Interval: time.Hour},
		})
		synctest.Wait()
		_, _ = testkit.Ask(t.Context(), testkit.Bind(reg))
		text, err := json.Marshal(a.Info())
		require.NoError(t, err)
		var fields map[string]json.RawMessage
		require.NoError(t, json.Unmarshal(text, &fields))
		for _, name := range []string{
			"code", "health_policy", "attempt_timeout", "timeout_given", "breaker", "limits", "retry", "budget", "cooldown", "shared", "last_error", "weight",
		} {
			require.Contains(t, fields, name)
		}
		require.JSONEq(t, `{"interval":"1h","fast_interval":"10m","idle_interval":"2h","timeout":"5s","groups":["readiness"],
			"fall":3,"rise":2,"recover_limit":5,"recover_timeout":"30s"}`, string(fields["health_policy"]))
		require.Contains(t, string(fields["cooldown"]), `"class":"fatal","by":{"service":"chat","name":"a"},"scope":"domain","parked":true`)
		var cooldown status.Cooldown
		require.NoError(t, json.Unmarshal(fields["cooldown"], &cooldown))
		require.Equal(t, verdict.ScopeDomain, cooldown.Scope)
		require.True(t, cooldown.Until.Equal(a.Info().Cooldown.Until))
	})
}

package registry_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/event"
	"github.com/capreg/registry/health"
	"github.com/capreg/registry/internal/testkit"
	"github.com/capreg/registry/reason"
	"github.com/capreg/registry/status"
)

func TestHealth_WithoutProbeIsHealthy(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a := testkit.Add(t, reg, testkit.Provider{Name: "a"})
		status := a.Health()
		require.Equal(t, health.Healthy, status.State)
		require.InDelta(t, 1, status.Score, 0)
		require.False(t, status.Probed)
		require.Equal(t, []string{health.Readiness}, status.Groups)
		require.Empty(t, a.HealthHistory())
	})
}

func TestMarkHealthy_SetsFullScoreWithoutFailures(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		p := testkit.Add(t, reg, testkit.Provider{Name: "p", Health: health.Policy{
			Probe: func(context.Context) error { return testkit.ErrDown }, Interval: time.Hour, FastInterval: time.Hour,
		}})
		testkit.Pass(time.Second)
		require.Equal(t, 1, p.Health().Failures)
		require.Less(t, p.Health().Score, 1.0)
		require.NoError(t, p.MarkHealthy())
		require.Zero(t, p.Health().Failures)
		require.InDelta(t, 1, p.Health().Score, 1e-9)
		require.Equal(t, health.Healthy, p.Health().State)
	})
}

func TestMarkUnhealthy_OverridesProbe(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		var p testkit.ProbeTarget
		a := testkit.AddProbed(t, reg, "a", &p, health.Policy{})
		require.NoError(t, a.MarkUnhealthy(testkit.ErrDown))
		p.Next(5)
		require.Equal(t, health.Unhealthy, a.Health().State)
		require.Equal(t, "down", a.Health().Reason)
		require.ErrorIs(t, a.Health().Err, testkit.ErrDown)
		require.Zero(t, a.Health().Score)
		require.NoError(t, a.MarkHealthy())
		require.Equal(t, health.Healthy, a.Health().State)
		p.SetErr(testkit.ErrDown)
		p.Next(3)
		require.Equal(t, health.Unhealthy, a.Health().State)
		require.NoError(t, a.MarkHealthy())
		require.Equal(t, health.Healthy, a.Health().State, "the program knows better")
		p.Next(2)
		require.Equal(t, health.Degraded, a.Health().State)
		p.Next(1)
		require.Equal(t, health.Unhealthy, a.Health().State, "failures afterwards count from the beginning")
	})
}

func TestHealth_ProbesAndBreakerAreIndependent(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		var p testkit.ProbeTarget
		a := testkit.Add(t, reg, testkit.Provider{Name: "a", Instance: testkit.Fails(testkit.ErrDown), Health: health.Policy{Probe: p.Probe}})
		synctest.Wait()
		testkit.Trip(t, testkit.Bind(reg), a)
		require.Equal(t, health.Healthy, a.Health().State)
		p.SetErr(testkit.ErrDown)
		p.Next(5)
		require.Equal(t, health.Unhealthy, a.Health().State)
		require.NoError(t, a.Reset())
		p.Next(5)
		require.Equal(t, status.BreakerClosed, a.Breaker().State)
		require.Zero(t, a.Breaker().ConsecutiveFailures)
	})
}

func TestHealth_ProviderIsPickedAfterFirstSuccess(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		p := testkit.ProbeTarget{Err: testkit.ErrDown}
		a := testkit.AddProbed(t, reg, "a", &p, health.Policy{Fall: 10})
		require.Equal(t, health.Starting, a.Health().State)
		_, err := testkit.Bind(reg).Get(t.Context())
		require.ErrorIs(t, err, registry.ErrNotReady)
		require.ErrorIs(t, err, testkit.ErrDown)
		require.NotErrorIs(t, err, registry.ErrUnhealthy)
		var unavailable *registry.UnavailableError
		require.ErrorAs(t, err, &unavailable)
		require.InDelta(t, 5, unavailable.RetryIn.Seconds(), 1, "the next probe")
		require.Equal(t, reason.Starting, unavailable.Candidates()[0].Code)
		p.SetErr(nil)
		p.Next(1)
		require.Equal(t, "a", testkit.MustGet(t, testkit.Bind(reg)))
	})
}

func TestHealth_StartTimeAllowsFailures(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		p := testkit.ProbeTarget{Err: testkit.ErrDown}
		a := testkit.AddProbed(t, reg, "a", &p, health.Policy{StartTime: time.Minute})
		p.Next(8)
		require.Equal(t, health.Starting, a.Health().State)
		testkit.Pass(time.Minute)
		require.Equal(t, health.Unhealthy, a.Health().State)
		p.SetErr(nil)
		p.Next(1)
		require.Equal(t, health.Unhealthy, a.Health().State, "two answers, now")
		p.Next(1)
		require.Equal(t, health.Healthy, a.Health().State)
	})
}

func TestGet_WaitsForFirstProbeOfUnknownCandidates(t *testing.T) {
	t.Parallel()
	lookUps := map[string]func(context.Context, *registry.Resolver[testkit.ChatModel]) error{
		"get": func(ctx context.Context, r *registry.Resolver[testkit.ChatModel]) error {
			_, err := r.Get(ctx)
			return err
		},
		"many": func(ctx context.Context, r *registry.Resolver[testkit.ChatModel]) error {
			_, err := r.GetAll(ctx, 0)
			return err
		},
		"call": func(ctx context.Context, r *registry.Resolver[testkit.ChatModel]) error {
			_, err := testkit.Ask(ctx, r)
			return err
		},
		"acquire": func(ctx context.Context, r *registry.Resolver[testkit.ChatModel]) error {
			lease, err := r.Acquire(ctx)
			if err == nil {
				lease.Done(nil)
			}
			return err
		},
		"acquire many": func(ctx context.Context, r *registry.Resolver[testkit.ChatModel]) error {
			leases, err := r.AcquireAll(ctx, 0)
			for _, lease := range leases {
				lease.Done(nil)
			}
			return err
		},
	}
	for name, lookUp := range lookUps {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
				slow, hanging := testkit.ProbeTarget{Takes: 2 * time.Second}, testkit.ProbeTarget{Takes: time.Hour}
				testkit.Add(t, reg, testkit.Provider{Name: "hanging", Health: health.Policy{Probe: hanging.Probe}})
				a := testkit.Add(t, reg, testkit.Provider{Name: "a", Health: health.Policy{Probe: slow.Probe}})
				began := time.Now()
				require.NoError(t, lookUp(t.Context(), testkit.Bind(reg)))
				require.Equal(t, 2*time.Second, time.Since(began))

				require.NoError(t, a.Unregister(t.Context()))
				began = time.Now()
				err := lookUp(t.Context(), testkit.Bind(reg))
				require.ErrorIs(t, err, registry.ErrNotReady)
				require.Equal(t, 3*time.Second, time.Since(began), "the rest of the probe's five seconds")
				began = time.Now()
				require.ErrorIs(t, lookUp(t.Context(), testkit.Bind(reg)), registry.ErrNotReady)
				require.Zero(t, time.Since(began), "only the first result is waited for")

				testkit.Add(t, reg, testkit.Provider{Name: "b", Health: health.Policy{Probe: hanging.Probe}})
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				require.Error(t, lookUp(ctx, testkit.Bind(reg)))
				require.Equal(t, time.Second, time.Since(began), "and within the context")

				testkit.Add(t, reg, testkit.Provider{Name: "ready"})
				began = time.Now()
				require.NoError(t, lookUp(t.Context(), testkit.Bind(reg)))
				require.Zero(t, time.Since(began), "no other look-up waits")
			})
		})
	}
}

func TestHealth_CallsReplaceProbesOnlyIfConfigured(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		var trusting, asking testkit.ProbeTarget
		testkit.AddProbed(t, reg, "a", &trusting, health.Policy{TrustCalls: true})
		for range 600 {
			_ = testkit.MustAsk(t, testkit.Bind(reg))
			testkit.Pass(time.Second)
		}
		n := len(trusting.Times())
		require.InDelta(t, 600/(6*30), n, 2, "every sixth")
		reg2 := testkit.New(t, registry.Options{})
		testkit.AddProbed(t, reg2, "a", &asking, health.Policy{})
		for range 600 {
			_ = testkit.MustAsk(t, testkit.Bind(reg2))
			testkit.Pass(time.Second)
		}
		require.InDelta(t, 600/30, len(asking.Times()), 3)
		require.NoError(t, reg2.Close(t.Context()))
	})
}

func TestHealth_CallsDoNotRaiseAndFailuresTriggerProbe(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		var p testkit.ProbeTarget
		var failing atomic.Bool
		a := testkit.Add(t, reg, testkit.Provider{Name: "a", Breaker: registry.BreakerPolicy{FailureThreshold: 1000}, Health: health.Policy{Probe: p.Probe, TrustCalls: true}, Instance: testkit.Answers(func() (string, error) {
			if failing.Load() {
				return "", testkit.ErrDown
			}
			return "a", nil
		})})
		synctest.Wait()
		failing.Store(true)
		for range 180 {
			_, _ = testkit.Ask(t.Context(), testkit.Bind(reg))
			testkit.Pass(time.Second)
		}
		require.Greater(t, len(p.Times()), 2)
		lease, err := testkit.Bind(reg).Acquire(t.Context())
		require.NoError(t, err)
		p.SetErr(testkit.ErrDown)
		p.Next(3)
		require.Equal(t, health.Unhealthy, a.Health().State)
		lease.Done(nil)
		require.Equal(t, health.Unhealthy, a.Health().State, "a success is no rise")
	})
}

func TestHealth_DegradedProviderStaysEligible(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		var p testkit.ProbeTarget
		var share atomic.Int32
		a := testkit.Add(t, reg, testkit.Provider{Name: "a", Health: health.Policy{
			Expected: 100 * time.Millisecond,
			Probe: func(ctx context.Context) error {
				health.Use(ctx, "gpu memory", float64(share.Load())/100)
				return p.Probe(ctx)
			},
		}})
		synctest.Wait()
		require.Equal(t, map[string]float64{"gpu memory": 0}, a.Health().Usage)
		well := func() {
			p.Next(2)
			require.Equal(t, health.Healthy, a.Health().State)
			require.Empty(t, a.Health().Reason)
		}
		p.SetTakes(150 * time.Millisecond)
		p.Next(1)
		testkit.Pass(time.Second)
		require.Equal(t, health.Healthy, a.Health().State)
		require.InDelta(t, 0.8, a.Health().Score, 1e-9)
		p.SetTakes(160 * time.Millisecond)
		p.Next(1)
		testkit.Pass(time.Second)
		require.Equal(t, health.Degraded, a.Health().State)
		require.Equal(t, "answered in 160ms, expected 100ms", a.Health().Reason)
		require.Equal(t, "a", testkit.MustGet(t, testkit.Bind(reg)))
		p.SetTakes(0)
		well()
		share.Store(95)
		p.Next(1)
		require.Equal(t, health.Degraded, a.Health().State)
		require.Equal(t, "95 % of gpu memory in use", a.Health().Reason)
		share.Store(50)
		well()
		p.SetErr(health.Limp(testkit.ErrDown))
		p.Next(5)
		require.Equal(t, health.Degraded, a.Health().State)
		require.Equal(t, "down", a.Health().Reason)
		require.ErrorIs(t, a.Health().Err, testkit.ErrDown)
		require.Zero(t, a.Health().Failures)
		p.SetErr(nil)
		well()
	})
}

func TestHealth_TrendWarnsWithoutEjecting(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		var p testkit.ProbeTarget
		p.SetTakes(10 * time.Millisecond)
		a := testkit.AddProbed(t, reg, "a", &p, health.Policy{Interval: time.Second, IdleInterval: time.Second, Timeout: time.Second})
		events := reg.Subscribe(1024)
		defer events.Close()
		random := rand.New(rand.NewPCG(1, 2))
		for range 200 {
			p.SetTakes(time.Duration(10e6 * (0.8 + 0.4*random.Float64())))
			p.Next(1)
		}
		require.Equal(t, health.Steady, a.Health().Trend)
		probes := 0
		for factor := 1.0; factor < 90; factor *= 1.06 { // towards the timeout
			p.SetTakes(time.Duration(factor * 10e6))
			p.Next(1)
			if a.Health().Trend == health.Steady {
				probes++
			}
			require.Equal(t, health.Healthy, a.Health().State)
			require.Equal(t, "a", testkit.MustGet(t, testkit.Bind(reg)))
		}
		testkit.Pass(2 * time.Second)
		require.Less(t, probes, 40, "of 77")
		require.Equal(t, health.AtRisk, a.Health().Trend)
		var trends []string
		for _, e := range testkit.Events(t, events) {
			if e.Kind == event.Trend {
				trends = append(trends, e.To)
			}
		}
		require.Equal(t, "at risk", trends[len(trends)-1])
		require.Equal(t, health.AtRisk, a.Info().Health.Trend)
	})
}

func TestHealth_NamesDependencyAtFault(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		var disk, db, app testkit.ProbeTarget
		register := func(name, provides string, needs []string, p *testkit.ProbeTarget) *registry.Registration {
			return testkit.Add(t, reg, testkit.Provider{Name: name, Capabilities: []string{provides}, Requires: needs, Health: health.Policy{Probe: p.Probe}})
		}
		register("disk", "storage", nil, &disk)
		database := register("db", "sql", []string{"storage"}, &db)
		a := register("app", "chat", []string{"sql", "mail"}, &app)
		synctest.Wait()
		for _, p := range []*testkit.ProbeTarget{&disk, &db, &app} {
			p.SetErr(testkit.ErrDown)
		}
		for range 3 {
			_, err := reg.CheckHealth(t.Context())
			require.NoError(t, err)
		}
		require.Equal(t, []string{"chat/disk"}, database.Health().Because)
		require.Equal(t, []string{"chat/disk", `no provider has "mail"`}, a.Health().Because)
		_, err := testkit.Bind(reg, "chat").Get(t.Context())
		require.ErrorContains(t, err, "because chat/disk")
		disk.SetErr(nil)
		disk.Next(2)
		require.Empty(t, database.Health().Because, "now it is itself to blame")
		require.Equal(t, []string{"chat/db", `no provider has "mail"`}, a.Health().Because)
	})
}

func TestHealth_CyclicDependenciesDoNotLoop(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		for _, name := range []string{"a", "b", "c"} {
			next := map[string]string{"a": "b", "b": "c", "c": "a"}[name]
			require.NoError(t, testkit.Add(t, reg, testkit.Provider{Name: name, Capabilities: []string{name}, Requires: []string{next}}).MarkUnhealthy(testkit.ErrDown))
		}
		a, _ := reg.Provider("chat", "a")
		require.Equal(t, []string{"chat/c"}, a.Health().Because, "the last one that is not a itself")
	})
}

func TestHealth_RootOfDiamondIsTheReason(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		down := func(context.Context) error { return testkit.ErrDown }
		for _, p := range []testkit.Provider{
			{Name: "db", Capabilities: []string{"z"}},
			{Name: "left", Capabilities: []string{"x"}, Requires: []string{"z"}},
			{Name: "right", Capabilities: []string{"y"}, Requires: []string{"z"}},
			{Name: "app", Requires: []string{"x", "y"}},
		} {
			p.Health = health.Policy{Probe: down, Fall: 1}
			testkit.Add(t, reg, p)
		}
		synctest.Wait()
		app, _ := reg.Provider("chat", "app")
		require.Equal(t, []string{"chat/db"}, app.Health().Because)
	})
}

func TestHealth_ResultOfOlderGenerationIsDropped(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		release := make(chan struct{})
		ended := make(chan error, 1)
		old := testkit.Add(t, reg, testkit.Provider{Name: "a", Health: health.Policy{Fall: 1, Probe: func(ctx context.Context) error {
			<-ctx.Done()
			ended <- context.Cause(ctx)
			<-release
			return testkit.ErrDown
		}}})
		synctest.Wait()
		require.NoError(t, old.Unregister(t.Context()))
		require.ErrorIs(t, <-ended, registry.ErrClosed, "removing a provider ends its probe")
		a := testkit.Add(t, reg, testkit.Provider{Name: "a"})
		var p testkit.ProbeTarget
		b := testkit.AddProbed(t, reg, "b", &p, health.Policy{})
		close(release)
		testkit.Pass(time.Minute)
		require.Equal(t, health.Healthy, a.Health().State)
		require.Equal(t, health.Draining, old.Health().State)
		require.Equal(t, health.Healthy, b.Health().State)

		replaced := make(chan struct{})
		testkit.Add(t, reg, testkit.Provider{Name: "b", Replace: true, AtOnce: true, Health: health.Policy{Fall: 1, Probe: func(ctx context.Context) error {
			<-replaced
			return testkit.ErrDown
		}}})
		again := testkit.Add(t, reg, testkit.Provider{Name: "b", Replace: true})
		close(replaced)
		testkit.Pass(time.Minute)
		require.Equal(t, health.Healthy, again.Health().State)
	})
}

func TestRegistryHealth_AgreesWithDetails(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{Required: []string{"chat"}}, func(t *testing.T, reg *registry.Registry) {
		overall := reg.Health()
		require.Equal(t, health.Unhealthy, overall.State, "a required service is missing")
		require.Equal(t, `service "chat" is unhealthy: no provider`, overall.Reason)
		require.Equal(t, []health.Service{{Name: "chat", State: health.Unhealthy, Reason: "no provider", Required: true, Providers: []health.Provider{}}}, overall.Services)

		a := testkit.Add(t, reg, testkit.Provider{Name: "a", Instance: testkit.Fails(testkit.ErrDown)})
		b := testkit.Add(t, reg, testkit.Provider{Name: "b", Group: 1})
		tools := registry.NewService[string]("tools")
		hammer, err := tools.Register(t.Context(), reg, registry.Provider[string]{Name: "hammer", Instance: "hammer"})
		require.NoError(t, err)
		check := func(state health.State, healthy, degraded, unhealthy int) {
			t.Helper()
			overall := reg.Health()
			require.Equal(t, state, overall.State, overall.Reason)
			require.Equal(t, []int{healthy, degraded, unhealthy}, []int{overall.Healthy, overall.Degraded, overall.Unhealthy})
			counted := make(map[health.State]int)
			for _, s := range overall.Services {
				counted[s.State]++
			}
			require.Equal(t, []int{healthy, degraded, unhealthy}, []int{counted[health.Healthy], counted[health.Degraded], counted[health.Unhealthy]})
			require.Equal(t, state == health.Healthy, overall.Reason == "")
		}
		check(health.Healthy, 2, 0, 0)
		require.NoError(t, b.MarkUnhealthy(testkit.ErrDown))
		check(health.Degraded, 1, 1, 0)
		require.NoError(t, b.Unregister(t.Context()))
		testkit.Trip(t, testkit.Bind(reg), a)
		check(health.Degraded, 1, 1, 0) // an open breaker alone
		require.NoError(t, hammer.MarkUnhealthy(testkit.ErrDown))
		check(health.Degraded, 0, 1, 1) // it is not required
		require.NoError(t, a.MarkUnhealthy(testkit.ErrDown))
		check(health.Unhealthy, 0, 0, 2)
	})
}

func TestRegistryHealth_EmptyIsNotHealthy(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		require.Equal(t, health.Unhealthy, reg.Health().State)
		require.Equal(t, health.Unhealthy, reg.Health(health.Readiness).State)
		require.Equal(t, health.Healthy, reg.Health(health.Liveness).State, "no probe reports it dead")
	})
}

func TestRegistryHealth_GroupCoversItsProvidersOnly(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{Required: []string{"chat"}}, func(t *testing.T, reg *registry.Registry) {
		testkit.Add(t, reg, testkit.Provider{Name: "a"})
		b := testkit.Add(t, reg, testkit.Provider{Name: "b", Health: health.Policy{Groups: []string{health.Liveness, "slow"}, Recover: func(context.Context) error { return testkit.ErrDown }}})
		require.NoError(t, b.MarkUnhealthy(testkit.ErrDown))
		require.Equal(t, health.Degraded, reg.Health().State)
		require.Equal(t, health.Healthy, reg.Health(health.Readiness).State)
		require.Equal(t, health.Unhealthy, reg.Health(health.Liveness).State)
		require.Equal(t, health.Unhealthy, reg.Health("slow").State)
		require.Equal(t, health.Healthy, reg.Health("other").State)
	})
}

func TestRegistryHealth_GroupsApplyWithoutProbe(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a := testkit.Add(t, reg, testkit.Provider{Name: "a", Health: health.Policy{Groups: []string{"payments"}}})
		require.NoError(t, a.MarkUnhealthy(testkit.ErrDown))
		require.Equal(t, health.Unhealthy, reg.Health("payments").State)
	})
}

func TestRegistryHealth_OnlyMocksNeedsAMock(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{OnlyMocks: true, Required: []string{"chat"}}, func(t *testing.T, reg *registry.Registry) {
		testkit.Add(t, reg, testkit.Provider{Name: "a"})
		_, err := testkit.Ask(t.Context(), testkit.Bind(reg))
		require.Error(t, err)
		require.NotEqual(t, health.Healthy, reg.Health().State)
	})
}

// Variants: a mock beside a real one, which is well, or ill; alone; where only mocks are picked; in a group.
func TestRegistryHealth_MocksAloneAreDegraded(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{Required: []string{"chat"}}, func(t *testing.T, reg *registry.Registry) {
		testkit.Add(t, reg, testkit.Provider{Name: "mock", Mock: true, Health: health.Policy{Groups: []string{"g", health.Readiness}}})
		for _, groups := range [][]string{nil, {health.Readiness}, {"g"}} {
			all := reg.Health(groups...)
			require.Equal(t, health.Degraded, all.State)
			require.Contains(t, all.Reason, "only mocks: mock")
			require.True(t, all.Services[0].Providers[0].Mock)
		}
		require.NoError(t, reg.WaitReady(t.Context(), "chat"), "it can be given calls")
		a := testkit.Add(t, reg, testkit.Provider{Name: "a"})
		require.Equal(t, health.Healthy, reg.Health().State)
		require.NoError(t, a.MarkUnhealthy(testkit.ErrDown))
		require.Equal(t, health.Degraded, reg.Health().State)
	})
	testkit.Bubble(t, registry.Options{OnlyMocks: true}, func(t *testing.T, reg *registry.Registry) {
		testkit.Add(t, reg, testkit.Provider{Name: "a"})
		testkit.Add(t, reg, testkit.Provider{Name: "mock", Mock: true})
		require.Equal(t, health.Degraded, reg.Health().State)
		require.Contains(t, reg.Health().Reason, "only mocks: mock")
	})
}

func TestRegistryHealth_HasNoGapDuringReplacement(t *testing.T) {
	t.Parallel()
	reg := testkit.New(t, registry.Options{Required: []string{"chat"}})
	defer func() { require.NoError(t, reg.Close(context.Background())) }()
	testkit.Add(t, reg, testkit.Provider{Name: "a"})
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-done:
				return
			default:
				testkit.Add(t, reg, testkit.Provider{Name: "a", Replace: true})
			}
		}
	})
	bad := ""
	for end := time.Now().Add(2 * time.Second); time.Now().Before(end) && bad == ""; {
		if o := reg.Health(); o.State != health.Healthy {
			bad = fmt.Sprintf("%+v", o)
		}
	}
	close(done)
	wg.Wait()
	require.Empty(t, bad)
}

func TestHealth_NaNUsageHidesNothing(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a := testkit.Add(t, reg, testkit.Provider{Name: "a", Health: health.Policy{Probe: func(ctx context.Context) error {
			zero := 0.0
			health.Use(ctx, "gpu", zero/zero)
			health.Use(ctx, "mem", 1)
			return nil
		}}})
		synctest.Wait()
		require.Equal(t, health.Degraded, a.Health().State, "%v", a.Health().Usage)
	})
}

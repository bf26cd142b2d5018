package registry_test

import (
	"context"
	"fmt"
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
)

func TestCapabilityProbe_FailureKeepsProviderEligible(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		var whole, vision testkit.ProbeTarget
		a := testkit.Add(t, reg, testkit.Provider{Name: "a", Capabilities: []string{"chat", "vision"}, Health: health.Policy{
			Probe: whole.Probe, Capabilities: map[string]health.Probe{"vision": vision.Probe},
		}})
		synctest.Wait()
		events := reg.Subscribe(0)
		defer events.Close()
		require.Equal(t, "a", testkit.MustGet(t, testkit.Bind(reg, "vision")))
		vision.SetErr(testkit.ErrDown)
		vision.Next(2)
		require.Equal(t, "a", testkit.MustGet(t, testkit.Bind(reg, "vision")), "two failures")
		vision.Next(1)
		_, err := testkit.Bind(reg, "vision").Get(t.Context())
		require.ErrorIs(t, err, registry.ErrUnhealthy)
		require.ErrorIs(t, err, testkit.ErrDown)
		require.Contains(t, err.Error(), `capability "vision" is unhealthy: down`)
		explanation := testkit.Bind(reg, "vision").Explain()
		require.Equal(t, reason.CapabilityOut, explanation.Candidates[0].Code)
		require.Equal(t, "a", testkit.MustGet(t, testkit.Bind(reg, "chat")))
		require.Equal(t, map[string]string{"vision": "down"}, a.Health().Out)
		require.Equal(t, health.Degraded, a.Health().State)
		require.Zero(t, a.Health().Score, "all that was checked is out")

		vision.SetErr(nil)
		vision.Next(2)
		require.Equal(t, "a", testkit.MustGet(t, testkit.Bind(reg, "vision")))
		whole.Next(2)
		require.Equal(t, health.Healthy, a.Health().State)
		seen := testkit.Kinds(t, events)
		require.Contains(t, seen, event.CapabilityOut)
		require.Contains(t, seen, event.CapabilityBack)
	})
}

func TestCapabilityProbe_FirstFailureIsOutAtOnce(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		vision := testkit.ProbeTarget{Err: testkit.ErrDown}
		a := testkit.Add(t, reg, testkit.Provider{Name: "a", Capabilities: []string{"vision"}, Health: health.Policy{
			Capabilities: map[string]health.Probe{"vision": vision.Probe},
		}})
		synctest.Wait()
		_, err := testkit.Bind(reg, "vision").Get(t.Context())
		require.ErrorIs(t, err, registry.ErrUnhealthy)
		require.Equal(t, "a", testkit.MustGet(t, testkit.Bind(reg)))
		vision.SetErr(nil)
		vision.Next(2)
		require.Equal(t, "a", testkit.MustGet(t, testkit.Bind(reg, "vision")))
		require.Equal(t, health.Healthy, a.Health().State)
	})
}

func TestCapabilityProbe_StaysOutAcrossPolicies(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		policy := health.Policy{Capabilities: map[string]health.Probe{"vision": func(ctx context.Context) error {
			time.Sleep(time.Second)
			return testkit.ErrDown
		}}}
		a := testkit.Add(t, reg, testkit.Provider{Name: "a", Capabilities: []string{"vision"}, Health: policy})
		testkit.Pass(2 * time.Second)
		_, err := testkit.Ask(t.Context(), testkit.Bind(reg, "vision"))
		require.Error(t, err)
		policy.Interval = 10 * time.Second
		_, err = a.SetHealthPolicy(policy)
		require.NoError(t, err)
		_, err = testkit.Ask(t.Context(), testkit.Bind(reg, "vision"))
		require.Error(t, err, "the provider stays as it is until the new policy's first result")
	})
}

func TestCapabilityProbe_OutageEndsWithThePolicyThatProbedIt(t *testing.T) {
	t.Parallel()
	for name, own := range map[string]*testkit.ProbeTarget{"with a probe of its own": {}, "without": nil} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
				vision, speech := testkit.ProbeTarget{Err: testkit.ErrDown}, testkit.ProbeTarget{}
				policy := health.Policy{Capabilities: map[string]health.Probe{"vision": vision.Probe, "speech": speech.Probe}}
				if own != nil {
					policy.Probe = own.Probe
				}
				a := testkit.Add(t, reg, testkit.Provider{Name: "a", Capabilities: []string{"vision", "speech"}, Health: policy})
				synctest.Wait()
				_, err := testkit.Bind(reg, "vision").Get(t.Context())
				require.ErrorIs(t, err, registry.ErrUnhealthy)
				require.Equal(t, health.Degraded, a.Health().State)

				policy.Capabilities = map[string]health.Probe{"speech": speech.Probe}
				_, err = a.SetHealthPolicy(policy)
				require.NoError(t, err)
				require.Equal(t, "a", testkit.MustGet(t, testkit.Bind(reg, "vision")), "nothing says that it is out")
				testkit.Pass(5 * time.Minute)
				require.Equal(t, health.Healthy, a.Health().State)
				require.InDelta(t, 1, a.Health().Score, 0)
			})
		})
	}
}

func TestCapabilityProbe_FailureIsAReason(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		down := func(context.Context) error { return testkit.ErrDown }
		var runs atomic.Int64
		testkit.Add(t, reg, testkit.Provider{Name: "db", Capabilities: []string{"sql"}, Health: health.Policy{Capabilities: map[string]health.Probe{"sql": down}}})
		synctest.Wait()
		a := testkit.Add(t, reg, testkit.Provider{Name: "app", Requires: []string{"sql"}, Health: health.Policy{Probe: down, Fall: 1, Recover: func(context.Context) error { runs.Add(1); return testkit.ErrDown }}})
		synctest.Wait()
		require.Equal(t, health.Unhealthy, a.Health().State)
		require.NotEmpty(t, a.Health().Because)
	})
}

func TestCapabilityProbe_LateTogetherChangesNoState(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		var paused atomic.Bool
		probe := func(ctx context.Context) error {
			if paused.Load() {
				<-ctx.Done()
				return ctx.Err()
			}
			return nil
		}
		for i := range 20 {
			testkit.Add(t, reg, testkit.Provider{Name: fmt.Sprint("p", i), Capabilities: []string{"x"}, Health: health.Policy{
				Interval: 10 * time.Second, IdleInterval: 10 * time.Second, Probe: probe, Capabilities: map[string]health.Probe{"x": probe},
			}})
		}
		testkit.Pass(30 * time.Second)
		paused.Store(true)
		testkit.Pass(60 * time.Second)
		out, down := 0, 0
		for info := range reg.All() {
			if len(info.Health.Out) > 0 {
				out++
			}
			if info.Health.State == health.Unhealthy {
				down++
			}
		}
		paused.Store(false)
		require.LessOrEqual(t, out, down)
	})
}

package registry_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/health"
	"github.com/capreg/registry/internal/testkit"
)

func TestSetHealth_ChangesAtRunTime(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		var first, second testkit.ProbeTarget
		a := testkit.AddProbed(t, reg, "a", &first, health.Policy{})
		previous, err := a.SetHealthPolicy(health.Policy{Probe: second.Probe, Interval: time.Second, IdleInterval: time.Second, Fall: 1})
		require.NoError(t, err)
		require.Equal(t, 30*time.Second, previous.Interval)
		require.Equal(t, 3, previous.Fall)
		synctest.Wait()
		require.Len(t, second.Times(), 1, "at once")
		testkit.Pass(time.Minute)
		require.Len(t, first.Times(), 1)
		require.Greater(t, len(second.Times()), 50)
		second.SetErr(testkit.ErrDown)
		second.Next(1)
		require.Equal(t, health.Unhealthy, a.Health().State)
		_, err = a.SetHealthPolicy(health.Policy{Probe: second.Probe})
		require.NoError(t, err)
		require.Equal(t, health.Unhealthy, a.Health().State, "as it was until the new policy's result")
		second.SetErr(nil)
		second.Next(2)
		require.Equal(t, health.Healthy, a.Health().State)
		_, err = a.SetHealthPolicy(health.Policy{Fall: -1})
		require.ErrorIs(t, err, registry.ErrInvalid)
		second.SetErr(testkit.ErrDown)
		second.Next(3)
		_, err = a.SetHealthPolicy(health.Policy{})
		require.NoError(t, err)
		require.Equal(t, health.Healthy, a.Health().State, "nothing is probed any more")
		require.Equal(t, "a", testkit.MustGet(t, testkit.Bind(reg)))
		require.NoError(t, a.Unregister(t.Context()))
		_, err = a.SetHealthPolicy(health.Policy{})
		require.ErrorIs(t, err, registry.ErrNotRegistered)
	})
}

func TestHealthPolicy_BadIsRefusedByField(t *testing.T) {
	t.Parallel()
	reg := testkit.New(t, registry.Options{})
	probe := func(context.Context) error { return nil }
	for field, policy := range map[string]health.Policy{
		"Health.Interval":             {Interval: -1},
		"Health.FastInterval":         {FastInterval: time.Microsecond},
		"Health.IdleInterval":         {IdleInterval: -time.Second},
		"Health.Timeout":              {Timeout: -time.Second},
		"Health.StartTime":            {StartTime: -time.Second},
		"Health.Expected":             {Expected: -time.Second},
		"Health.RecoverTimeout":       {RecoverTimeout: -time.Second},
		"Health.Fall":                 {Fall: -1},
		"Health.Rise":                 {Rise: -1},
		"Health.RecoverLimit":         {RecoverLimit: -1},
		"Health.Groups[0]":            {Groups: []string{" x"}},
		`Health.Capabilities["x"]`:    {Capabilities: map[string]health.Probe{"x": probe}},
		`Health.Capabilities["chat"]`: {Capabilities: map[string]health.Probe{"chat": nil}},
	} {
		_, err := testkit.Chat.Register(t.Context(), reg, testkit.Provider{Name: "a", Instance: testkit.Says("a"), Capabilities: []string{"chat"}, Health: policy})
		var refused *registry.FieldError
		require.ErrorAs(t, err, &refused, field)
		require.Equal(t, field, refused.Field)
		require.NotEmpty(t, refused.Bound)
	}
	_, err := registry.New(registry.Options{ProbeConcurrency: -1})
	require.ErrorContains(t, err, "Options.ProbeConcurrency")
	require.NoError(t, reg.Close(t.Context()))
}

func TestSetHealth_KeepsScore(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		of := &testkit.ProbeTarget{}
		a := testkit.AddProbed(t, reg, "a", of, health.Policy{})
		of.SetErr(health.Limp(testkit.ErrDown))
		of.Next(1)
		s := a.Health()
		require.Equal(t, health.Degraded, s.State)
		of.SetTakes(time.Second)
		_, err := a.SetHealthPolicy(health.Policy{Probe: of.Probe})
		require.NoError(t, err)
		s2 := a.Health()
		require.InDelta(t, s.Score, s2.Score, 0.01)
	})
}

func TestSetHealth_KeepsCause(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		of := &testkit.ProbeTarget{}
		of2 := testkit.Add(t, reg, testkit.Provider{Name: "db", Capabilities: []string{"sql"}})
		a := testkit.Add(t, reg, testkit.Provider{Name: "a", Requires: []string{"sql"}, Health: health.Policy{Probe: of.Probe}})
		synctest.Wait()
		_ = of2.MarkUnhealthy(testkit.ErrDown)
		of.SetErr(testkit.ErrDown)
		of.Next(3)
		require.ErrorIs(t, a.Health().Err, testkit.ErrDown)
		of.SetTakes(time.Second)
		_, err := a.SetHealthPolicy(health.Policy{Probe: of.Probe})
		require.NoError(t, err)
		require.ErrorIs(t, a.Health().Err, testkit.ErrDown)
	})
}

// Health policies that are accepted work in the same way.
func FuzzHealthPolicy(f *testing.F) {
	f.Add(int64(0), int64(0), int64(0), int64(0), int64(0), int64(0), 0, 0, 0, uint8(0))
	f.Add(int64(time.Second), int64(time.Millisecond), int64(time.Hour), int64(1), int64(1), int64(1), 1, 1, 1, uint8(255))
	f.Add(int64(-1), int64(1), int64(1), int64(1)<<62, int64(1)<<62, int64(1)<<62, 1<<30, 1<<30, -1, uint8(6))
	f.Fuzz(func(t *testing.T, interval, fast, idle, timeout, start, expected int64, fall, rise, recoveries int, flags uint8) {
		synctest.Test(t, func(t *testing.T) {
			reg := testkit.New(t, registry.Options{})
			policy := health.Policy{
				Interval: time.Duration(interval), FastInterval: time.Duration(fast), IdleInterval: time.Duration(idle),
				Timeout: time.Duration(timeout), StartTime: time.Duration(start), Expected: time.Duration(expected),
				Fall: fall, Rise: rise, RecoverLimit: recoveries, Off: flags&1 != 0, TrustCalls: flags&2 != 0,
				Probe: func(ctx context.Context) error {
					if flags&4 != 0 {
						return testkit.ErrDown
					}
					return ctx.Err()
				},
			}
			if flags&8 != 0 {
				policy.Recover = func(context.Context) error { return nil }
			}
			registration, err := testkit.Chat.Register(t.Context(), reg, testkit.Provider{Name: "p", Instance: testkit.Says("p"), Health: policy})
			if err != nil {
				testkit.RequireRefused(t, err)
			} else {
				testkit.Pass(20 * time.Millisecond) // an interval may be a millisecond
				previous, err := registration.SetHealthPolicy(health.Policy{Off: true})
				require.NoError(t, err)
				_, err = registration.SetHealthPolicy(previous)
				require.NoError(t, err, "what was in force is valid")
			}
			require.NoError(t, reg.Close(t.Context()))
		})
	})
}

package registry_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/event"
	"github.com/capreg/registry/health"
	"github.com/capreg/registry/internal/testkit"
)

func TestRecover_OneAtATimeWithDelaysAndLimit(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		var p testkit.ProbeTarget
		var runs []time.Time
		var inside atomic.Int32
		failing := true
		policy := health.Policy{Interval: time.Hour, FastInterval: time.Hour, Fall: 1, Rise: 1, RecoverLimit: 4, Recover: func(context.Context) error {
			require.Equal(t, int32(1), inside.Add(1))
			defer inside.Add(-1)
			runs = append(runs, time.Now())
			time.Sleep(100 * time.Millisecond)
			if failing {
				panic("cannot")
			}
			p.SetErr(nil)
			return nil
		}}
		a := testkit.AddProbed(t, reg, "a", &p, policy)
		events := reg.Subscribe(0)
		defer events.Close()
		ill := func() {
			p.SetErr(testkit.ErrDown)
			runs = nil
			_, err := a.CheckHealth(t.Context())
			require.NoError(t, err)
			require.Equal(t, health.Unhealthy, a.Health().State)
		}
		ill()
		testkit.Pass(10 * time.Minute)
		require.Len(t, runs, 4, "no more than the limit")
		for i := 1; i < len(runs); i++ {
			grown := float64(int(1) << (i - 1))
			require.InDelta(t, grown, runs[i].Sub(runs[i-1]).Seconds(), 0.5*grown+0.2)
		}
		require.NoError(t, a.MarkHealthy())
		failing = false
		ill()
		testkit.Pass(200 * time.Millisecond)
		require.Equal(t, health.Healthy, a.Health().State, "its success is followed by a probe")
		require.Len(t, runs, 1)
		seen := testkit.Kinds(t, events)
		require.Contains(t, seen, event.RecoveryFailed)
		require.Contains(t, seen, event.Recovered)
	})
}

func TestRecover_DoesNotRunForFailedDependency(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		db := testkit.Add(t, reg, testkit.Provider{Name: "db", Capabilities: []string{"sql"}})
		var runs atomic.Int32
		a := testkit.Add(t, reg, testkit.Provider{Name: "a", Requires: []string{"sql"}, Health: health.Policy{Recover: func(context.Context) error {
			runs.Add(1)
			return nil
		}}})
		require.NoError(t, db.MarkUnhealthy(testkit.ErrDown))
		require.NoError(t, a.MarkUnhealthy(testkit.ErrDown))
		testkit.Pass(time.Minute)
		require.Zero(t, runs.Load())
		require.NoError(t, errors.Join(db.MarkHealthy(), a.MarkHealthy(), a.MarkUnhealthy(testkit.ErrDown)))
		synctest.Wait()
		require.Equal(t, int32(1), runs.Load())
	})
}

func TestRecover_DoesNotRepeatAfterSuccess(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		var runs atomic.Int64
		a := testkit.Add(t, reg, testkit.Provider{Name: "a", Health: health.Policy{Recover: func(context.Context) error { runs.Add(1); return nil }}})
		require.NoError(t, a.MarkUnhealthy(testkit.ErrDown))
		testkit.Pass(10 * time.Minute)
		require.EqualValues(t, 1, runs.Load(), "only an error is tried again")
	})
}

func TestRecover_DoesNotRepeatOnceHealthy(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		of := &testkit.ProbeTarget{}
		runs := 0
		a := testkit.AddProbed(t, reg, "a", of, health.Policy{Recover: func(context.Context) error {
			runs++
			of.SetErr(nil)
			return nil
		}})
		of.SetErr(testkit.ErrDown)
		of.Next(3)
		testkit.Pass(20 * time.Second)
		require.Equal(t, health.Healthy, a.Health().State)
		require.Equal(t, 1, runs, "it succeeded, every probe since has answered")
	})
}

func TestRecover_ContinuesAcrossPolicies(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		of := &testkit.ProbeTarget{}
		var runs atomic.Int64
		policy := health.Policy{Probe: of.Probe, Recover: func(context.Context) error { runs.Add(1); return testkit.ErrDown }}
		a := testkit.AddProbed(t, reg, "a", of, policy)
		of.SetErr(testkit.ErrDown)
		of.Next(3)
		require.Equal(t, health.Unhealthy, a.Health().State)
		before := runs.Load()
		require.EqualValues(t, 1, before)
		policy.Interval = 20 * time.Second
		_, err := a.SetHealthPolicy(policy)
		require.NoError(t, err)
		testkit.Pass(10 * time.Minute)
		require.Greater(t, runs.Load(), before)
	})
}

func TestRecover_RunsOnceDependencyIsBack(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		of, db := &testkit.ProbeTarget{}, &testkit.ProbeTarget{}
		var runs atomic.Int64
		testkit.Add(t, reg, testkit.Provider{Name: "db", Capabilities: []string{"sql"}, Health: health.Policy{Probe: db.Probe}})
		a := testkit.Add(t, reg, testkit.Provider{Name: "a", Requires: []string{"sql"}, Health: health.Policy{Probe: of.Probe, Recover: func(context.Context) error { runs.Add(1); of.SetErr(nil); return nil }}})
		synctest.Wait()
		db.SetErr(testkit.ErrDown)
		db.Next(3)
		of.SetErr(testkit.ErrDown)
		of.Next(3)
		require.Equal(t, health.Unhealthy, a.Health().State)
		require.Zero(t, runs.Load())
		db.SetErr(nil)
		testkit.Pass(30 * time.Minute)
		require.Empty(t, a.Health().Because)
		require.Equal(t, health.Healthy, a.Health().State, "runs %d", runs.Load())
	})
}

func TestRecover_RetriesAfterDependencyFailure(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		of := &testkit.ProbeTarget{}
		var runs atomic.Int64
		db := testkit.Add(t, reg, testkit.Provider{Name: "db", Capabilities: []string{"sql"}})
		a := testkit.Add(t, reg, testkit.Provider{Name: "a", Requires: []string{"sql"}, Health: health.Policy{Probe: of.Probe, Recover: func(context.Context) error {
			if runs.Add(1) == 2 {
				of.SetErr(nil)
				return nil
			}
			return testkit.ErrDown
		}}})
		synctest.Wait()
		of.SetErr(testkit.ErrDown)
		of.Next(3)
		require.EqualValues(t, 1, runs.Load())
		require.NoError(t, db.MarkUnhealthy(testkit.ErrDown))
		testkit.Pass(5 * time.Second)
		require.NoError(t, db.MarkHealthy())
		testkit.Pass(30 * time.Minute)
		require.Equal(t, health.Healthy, a.Health().State, "runs %d", runs.Load())
	})
}

func TestRecover_OneAtATimeAcrossPolicies(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		of := &testkit.ProbeTarget{}
		var in, most atomic.Int64
		policy := health.Policy{Probe: of.Probe, RecoverTimeout: time.Hour, Recover: func(ctx context.Context) error {
			if n := in.Add(1); n > most.Load() {
				most.Store(n)
			}
			defer in.Add(-1)
			<-ctx.Done()
			time.Sleep(time.Minute) // rolling back takes its time
			return ctx.Err()
		}}
		a := testkit.AddProbed(t, reg, "a", of, policy)
		require.NoError(t, a.MarkUnhealthy(testkit.ErrDown))
		synctest.Wait()
		_, err := a.SetHealthPolicy(policy)
		require.NoError(t, err)
		require.NoError(t, a.MarkHealthy())
		require.NoError(t, a.MarkUnhealthy(testkit.ErrDown))
		synctest.Wait()
		require.EqualValues(t, 1, most.Load())
		_ = a.MarkHealthy()
		require.NoError(t, a.Unregister(t.Context()))
		time.Sleep(2 * time.Minute)
	})
}

func TestRecover_LimitAppliesToMarkUnhealthy(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		of := &testkit.ProbeTarget{}
		var runs atomic.Int64
		a := testkit.AddProbed(t, reg, "a", of, health.Policy{Interval: 10 * time.Second, Recover: func(context.Context) error { runs.Add(1); time.Sleep(25 * time.Second); return testkit.ErrDown }})
		require.NoError(t, a.MarkUnhealthy(testkit.ErrDown))
		testkit.Pass(time.Hour)
		require.LessOrEqual(t, runs.Load(), int64(5))
	})
}

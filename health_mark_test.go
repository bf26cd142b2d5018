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
	"github.com/capreg/registry/health"
	"github.com/capreg/registry/internal/testkit"
)

func TestMarkUnhealthy_WithAnotherReasonDoesNotEndTheRecovery(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		var runs atomic.Int64
		a := testkit.Add(t, reg, testkit.Provider{Name: "a", Health: health.Policy{Recover: func(context.Context) error { runs.Add(1); return testkit.ErrDown }}})
		require.NoError(t, a.MarkUnhealthy(testkit.ErrDown))
		synctest.Wait()
		require.EqualValues(t, 1, runs.Load())
		require.NoError(t, a.MarkUnhealthy(errors.New("still down")))
		require.Equal(t, "still down", a.Health().Reason)
		testkit.Pass(time.Hour)
		require.EqualValues(t, 5, runs.Load(), "an error is tried again up to the limit")
	})
}

func TestSetHealth_WithoutAProbeOfTheProviderForgetsItsFailures(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		var own, vision testkit.ProbeTarget
		own.SetErr(testkit.ErrDown)
		a := testkit.Add(t, reg, testkit.Provider{Name: "a", Capabilities: []string{"vision"}, Health: health.Policy{Fall: 1, Probe: own.Probe}})
		synctest.Wait()
		require.Equal(t, health.Unhealthy, a.Health().State)
		_, err := a.SetHealthPolicy(health.Policy{Capabilities: map[string]health.Probe{"vision": vision.Probe}})
		require.NoError(t, err)
		synctest.Wait()
		require.Equal(t, health.Healthy, a.Health().State)
		require.Empty(t, a.Health().Reason)
		require.InDelta(t, 1, a.Health().Score, 0)
		vision.SetErr(testkit.ErrDown)
		vision.Next(3)
		require.Equal(t, health.Degraded, a.Health().State)
		vision.SetErr(nil)
		vision.Next(2)
		require.Equal(t, health.Healthy, a.Health().State)
	})
}

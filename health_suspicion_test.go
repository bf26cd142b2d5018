package registry_test

import (
	"context"
	"fmt"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/event"
	"github.com/capreg/registry/health"
	"github.com/capreg/registry/internal/testkit"
)

func TestSuspicion_UnrelatedLateProbesChangeNoState(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		subjects := make([]testkit.ProbeTarget, 20)
		var all []*registry.Registration
		for i := range subjects {
			all = append(all, testkit.AddProbed(t, reg, strconv.Itoa(i), &subjects[i], health.Policy{Interval: 10 * time.Second, IdleInterval: 10 * time.Second}))
		}
		testkit.Pass(time.Minute)
		events := reg.Subscribe(1 << 14)
		defer events.Close()
		for i := range subjects {
			subjects[i].SetTakes(time.Hour)
		}
		testkit.Pass(2 * time.Minute)
		unhealthy := 0
		suspected := 0
		for _, a := range all {
			if a.Health().State == health.Unhealthy {
				unhealthy++
			}
			if a.Health().Suspected {
				suspected++
			}
		}
		require.Zero(t, unhealthy)
		require.Greater(t, suspected, 15)
		require.Contains(t, testkit.Kinds(t, events), event.MonitorLate)
		testkit.Pass(10 * time.Minute)
		for _, a := range all {
			require.Equal(t, health.Unhealthy, a.Health().State, "not for ever")
		}
	})
}

func TestSuspicion_SharedHostIsNotUnrelated(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		subjects := make([]testkit.ProbeTarget, 20)
		for i := range subjects {
			testkit.Add(t, reg, testkit.Provider{Name: strconv.Itoa(i), Domain: "host", Health: health.Policy{Probe: subjects[i].Probe, Interval: 10 * time.Second}})
		}
		testkit.Pass(time.Minute)
		for i := range subjects {
			subjects[i].SetTakes(time.Hour)
		}
		testkit.Pass(2 * time.Minute)
		for info := range reg.All() {
			require.Equal(t, health.Unhealthy, info.Health.State)
		}
	})
}

func TestSuspicion_ShortIntervalsAreNone(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		testkit.Add(t, reg, testkit.Provider{Name: "x", Health: health.Policy{Interval: time.Hour, IdleInterval: 2 * time.Second, Probe: func(context.Context) error {
			time.Sleep(time.Millisecond)
			return nil
		}}})
		var hang atomic.Bool
		y := testkit.Add(t, reg, testkit.Provider{Name: "y", Health: health.Policy{Interval: 10 * time.Second, IdleInterval: 10 * time.Second, Probe: func(ctx context.Context) error {
			if hang.Load() {
				<-ctx.Done()
			}
			return ctx.Err()
		}}})
		testkit.Pass(time.Minute)
		hang.Store(true)
		testkit.Pass(2 * time.Minute)
		require.Equal(t, health.Unhealthy, y.Health().State, "%s", y.Health().Reason)
	})
}

// Half of a fleet, or a little more, may hang, with short intervals or the usual ones, idle or not; while the others
// answer in time this machine is not the cause. When all hang, it is suspected.
func TestSuspicion_FallsOnNoMachineThatGetsAnswers(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		fleet, dark int
		interval    time.Duration
		within      time.Duration
		unhealthy   bool
	}{
		{10, 5, 5 * time.Second, 2 * time.Minute, true},
		{10, 6, 5 * time.Second, 2 * time.Minute, true},
		{40, 24, 5 * time.Second, 2 * time.Minute, true},
		{10, 6, 30 * time.Second, 4 * time.Minute, true},
		{10, 10, 5 * time.Second, 2 * time.Minute, false},
	} {
		t.Run(fmt.Sprint(test.dark, " of ", test.fleet, " every ", test.interval), func(t *testing.T) {
			t.Parallel()
			testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
				var dark atomic.Bool
				var all []*registry.Registration
				for i := range test.fleet {
					all = append(all, testkit.Add(t, reg, testkit.Provider{Name: strconv.Itoa(i), Health: health.Policy{
						Interval: test.interval, Probe: func(ctx context.Context) error {
							if dark.Load() && i < test.dark {
								<-ctx.Done()
								return ctx.Err()
							}
							return nil
						},
					}}))
				}
				testkit.Pass(5 * time.Minute)
				dark.Store(true)
				testkit.Pass(test.within)
				for i, a := range all[:test.dark] {
					require.Equal(t, test.unhealthy, a.Health().State == health.Unhealthy, "%d: %v", i, a.Health())
				}
				for _, a := range all[test.dark:] {
					require.Equal(t, health.Healthy, a.Health().State)
				}
			})
		})
	}
}

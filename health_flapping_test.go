package registry_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/event"
	"github.com/capreg/registry/health"
	"github.com/capreg/registry/internal/testkit"
)

// A provider or a capability can flap, quickly or slowly.
func TestProbe_FlappingIsDamped(t *testing.T) {
	t.Parallel()
	for name, of := range map[string]struct{ bad, cycle int }{"more bad than good": {3, 5}, "more good than bad": {3, 12}, "slowly": {3, 15}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
				i, j, outages := 0, 0, 0
				flap := func(n *int) health.Probe {
					return func(context.Context) error {
						if *n++; *n%of.cycle < of.bad {
							return testkit.ErrDown
						}
						return nil
					}
				}
				a := testkit.Add(t, reg, testkit.Provider{Name: "a", Health: health.Policy{Probe: flap(&i)}})
				testkit.Add(t, reg, testkit.Provider{Name: "b", Capabilities: []string{"c"}, Health: health.Policy{Capabilities: map[string]health.Probe{"c": flap(&j)}}})
				events := reg.Subscribe(100_000)
				defer events.Close()
				flips, last := 0, false
				for range 24 * 360 {
					time.Sleep(10 * time.Second)
					if isOut := a.Health().State == health.Unhealthy; isOut != last {
						flips, last = flips+1, isOut
					}
				}
				for _, kind := range testkit.Kinds(t, events) {
					if kind == event.CapabilityOut || kind == event.CapabilityBack {
						outages++
					}
				}
				require.Positive(t, flips)
				require.LessOrEqual(t, flips, 200)
				require.LessOrEqual(t, outages, 200)
			})
		})
	}
}

func TestProbe_HoldDownEndsWithProofAndIsForgiven(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		down, recoveries := false, 0
		a := testkit.Add(t, reg, testkit.Provider{Name: "a", Health: health.Policy{
			Recover: func(context.Context) error { recoveries++; return nil },
			Probe: func(context.Context) error {
				if down {
					return testkit.ErrDown
				}
				return nil
			},
		}})
		outage := func() time.Duration {
			down = true
			for a.Health().State != health.Unhealthy {
				testkit.Pass(time.Second)
			}
			down = false
			began, ran := time.Now(), recoveries
			for a.Health().State == health.Unhealthy {
				testkit.Pass(time.Second)
			}
			require.LessOrEqual(t, recoveries, ran+1, "it answers, and is not recovered again and again")
			return time.Since(began)
		}
		testkit.Pass(time.Minute)
		first := outage()
		require.Less(t, first, 15*time.Second)
		var last time.Duration
		for range 8 {
			last = outage()
		}
		require.Greater(t, last, 10*first)
		require.Less(t, last, 15*time.Minute)
		testkit.Pass(5 * time.Hour)
		require.Less(t, outage(), 15*time.Second, "forgiven")
	})
}

package registry_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/health"
	"github.com/capreg/registry/internal/testkit"
)

// A provider or a capability can be out, while it starts or is well, at once or after its time.
func TestProbe_OutNowCountsAtOnce(t *testing.T) {
	t.Parallel()
	gone := fmt.Errorf("node 7: %w", health.Out(errors.New("draining")))
	for name, test := range map[string]struct {
		wellFor int
		probe   func(ctx context.Context) error
	}{
		"while it starts": {0, func(context.Context) error { return gone }},
		"when it is well": {3, func(context.Context) error { return gone }},
		"too late":        {1, func(ctx context.Context) error { <-ctx.Done(); return gone }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
				var n, outs atomic.Int32 // which the registry's own probe counts too
				a := testkit.Add(t, reg, testkit.Provider{Name: "a", Health: health.Policy{StartTime: time.Hour, Probe: func(ctx context.Context) error {
					if int(n.Add(1)) <= test.wellFor {
						return nil
					}
					outs.Add(1)
					return test.probe(ctx)
				}}})
				for synctest.Wait(); outs.Load() == 0 || a.Health().CheckedAt.IsZero(); synctest.Wait() {
					_, err := a.CheckHealth(t.Context())
					require.NoError(t, err)
				}
				require.EqualValues(t, 1, outs.Load())
				require.Equal(t, health.Unhealthy, a.Health().State)
				require.Contains(t, a.Health().Reason, "node 7: draining")
				require.Zero(t, a.Health().Score)
			})
		})
	}
}

func TestCapabilityProbe_OutNowCountsAtOnce(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		var err error
		a := testkit.Add(t, reg, testkit.Provider{Name: "a", Capabilities: []string{"vision"}, Health: health.Policy{
			Capabilities: map[string]health.Probe{"vision": func(context.Context) error { return err }},
		}})
		testkit.Pass(time.Second)
		testkit.MustAsk(t, testkit.Bind(reg, "vision"))
		err = health.Out(testkit.ErrDown)
		_, checked := a.CheckHealth(t.Context())
		require.NoError(t, checked)
		_, refused := testkit.Bind(reg, "vision").Get(t.Context())
		require.ErrorIs(t, refused, registry.ErrUnhealthy)
	})
}

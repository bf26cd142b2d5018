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

// A probe of a provider or of a capability, and a recovery hook, can ignore their context, before and while the registry
// closes; Close is given a context without a deadline.
func TestClose_WithoutDeadlineGivesUpStuckProbes(t *testing.T) {
	t.Parallel()
	hang := func(stuck <-chan struct{}) health.Probe { return func(context.Context) error { <-stuck; return nil } }
	for name, policy := range map[string]func(stuck <-chan struct{}) health.Policy{
		"probe": func(stuck <-chan struct{}) health.Policy { return health.Policy{Probe: hang(stuck)} },
		"capability": func(stuck <-chan struct{}) health.Policy {
			return health.Policy{Capabilities: map[string]health.Probe{"c": hang(stuck)}}
		},
		"recovery": func(stuck <-chan struct{}) health.Policy {
			return health.Policy{Probe: func(context.Context) error { return testkit.ErrDown }, Recover: hang(stuck)}
		},
	} {
		for _, age := range []time.Duration{0, time.Minute} {
			t.Run(name+" "+age.String(), func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					stuck := make(chan struct{})
					defer close(stuck)
					reg := testkit.New(t, registry.Options{})
					testkit.Add(t, reg, testkit.Provider{Name: "a", Capabilities: []string{"c"}, Health: policy(stuck)})
					testkit.Pass(age)
					running := name != "recovery" || age > 0
					began := time.Now()
					err := reg.Close(context.Background())
					if running {
						require.ErrorIs(t, err, registry.ErrStuck)
						require.ErrorContains(t, err, `of provider "a"`)
						require.Equal(t, 10*time.Second, time.Since(began))
						require.ErrorIs(t, reg.Close(context.Background()), registry.ErrStuck, "again")
					} else {
						require.NoError(t, err)
					}
				})
			})
		}
	}
}

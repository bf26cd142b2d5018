package registry_test

import (
	"context"
	"sync/atomic"
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
						require.ErrorContains(t, err, `of provider "chat/a"`)
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

// Factories that ignore their context, of several providers, are given up together, and what they make later is closed.
// Variants: the end of the registry, of the provider, of its lifetime, a replacement before the end of the registry.
func TestClose_WithoutDeadlineGivesUpStuckFactories(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(t *testing.T, reg *registry.Registry, all []*registry.Registration) error{
		"close": func(t *testing.T, reg *registry.Registry, _ []*registry.Registration) error {
			return reg.Close(t.Context())
		},
		"unregister": func(t *testing.T, _ *registry.Registry, all []*registry.Registration) error {
			t.Helper()
			return all[0].Unregister(t.Context())
		},
		"close, replaced before": func(t *testing.T, reg *registry.Registry, all []*registry.Registration) error {
			t.Helper()
			for _, each := range all {
				testkit.Add(t, reg, testkit.Provider{Name: each.Name(), Replace: true})
			}
			return reg.Close(t.Context())
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				reg, late := testkit.New(t, registry.Options{}), make(chan struct{})
				var closed atomic.Int64
				closer := testkit.Closable{ChatModel: testkit.Says("late"), Do: func() error { closed.Add(1); return nil }}
				var all []*registry.Registration
				for _, name := range []string{"a", "b", "c"} {
					all = append(all, testkit.Add(t, reg, testkit.Provider{
						Name: name, AttemptTimeout: time.Second, Factory: func(context.Context) (testkit.ChatModel, error) { <-late; return closer, nil },
					}))
				}
				_, err := testkit.Ask(t.Context(), testkit.Bind(reg))
				require.ErrorIs(t, err, registry.ErrUnavailable)
				began := time.Now()
				err = end(t, reg, all)
				require.ErrorIs(t, err, registry.ErrStuck)
				require.ErrorContains(t, err, `"chat/a"`)
				require.Equal(t, 10*time.Second, time.Since(began))
				close(late)
				testkit.Pass(0)
				_ = reg.Close(t.Context())
				require.EqualValues(t, 3, closed.Load())
			})
		})
	}
}

// Without a deadline, a close waits for what a closer needs: it has no context that it could ignore.
func TestClose_WithoutDeadlineWaitsForClosers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		reg := testkit.New(t, registry.Options{})
		made := &testkit.Closer{Do: func() { time.Sleep(time.Hour) }}
		testkit.Add(t, reg, testkit.Provider{Name: "a", Factory: func(context.Context) (testkit.ChatModel, error) { return made, nil }})
		testkit.MustAsk(t, testkit.Bind(reg))
		began := time.Now()
		require.NoError(t, reg.Close(context.Background()))
		require.Equal(t, time.Hour, time.Since(began))
	})
}

package registry_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/internal/testkit"
	"github.com/capreg/registry/selectors"
)

// Variants: every way to look up, with a context that has ended before; cached or not.
func TestLookup_EndedContextIsAnError(t *testing.T) {
	t.Parallel()
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	for _, strategy := range append(selectors.All(), registry.StrategyFallback, registry.StrategyRoundRobin) {
		reg := testkit.New(t, registry.Options{})
		testkit.Add(t, reg, testkit.Provider{Name: "a", Strategy: strategy})
		testkit.Add(t, reg, testkit.Provider{Name: "b", Factory: func(context.Context) (testkit.ChatModel, error) { return testkit.Says("b"), nil }})
		r := testkit.Bind(reg)
		for name, ask := range map[string]func() error{
			"Get":         func() error { _, err := r.Get(ended); return err },
			"Service.Get": func() error { _, err := testkit.Chat.Get(ended, reg, registry.Query{}); return err },
			"GetAll":      func() error { _, err := r.GetAll(ended, 0); return err },
			"Acquire":     func() error { _, err := r.Acquire(ended); return err },
			"AcquireAll":  func() error { _, err := r.AcquireAll(ended, 0); return err },
			"Call":        func() error { _, err := testkit.Ask(ended, r); return err },
			"Call once":   func() error { _, err := testkit.Ask(ended, r, registry.OnceOnly()); return err },
		} {
			for range 3 {
				require.ErrorIs(t, ask(), context.Canceled, name)
				testkit.MustGet(t, r) // has the plan and the instances made
			}
		}
	}
}

package registry_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/internal/testkit"
	"github.com/capreg/registry/selection"
	"github.com/capreg/registry/selectors"
)

// Variants: every strategy that takes turns or draws; Get, calls, leases, least-bad; and the same with a seed.
func TestRotation_FirstPickIsAnywhere(t *testing.T) {
	t.Parallel()
	for _, strategy := range append(selectors.All(), registry.StrategyRoundRobin) {
		for _, ask := range []func(*registry.Resolver[testkit.ChatModel]) (string, error){
			func(r *registry.Resolver[testkit.ChatModel]) (string, error) { return testkit.MustGet(t, r), nil },
			func(r *registry.Resolver[testkit.ChatModel]) (string, error) { return testkit.Ask(t.Context(), r) },
		} {
			counts := make(map[string]int)
			for range 300 { // programs that ask once
				reg, err := registry.New(registry.Options{})
				require.NoError(t, err)
				for _, name := range []string{"a", "b", "c"} {
					testkit.Add(t, reg, testkit.Provider{Name: name, Strategy: strategy})
				}
				r := testkit.Bind(reg)
				winner := r.Explain().Winner
				name, err := ask(r)
				require.NoError(t, err)
				require.Equal(t, winner, name, "Explain knows the first pick")
				counts[name]++
			}
			for _, name := range []string{"a", "b", "c"} {
				require.InDelta(t, 100, counts[name], 60, "%v: %v", strategy, counts)
			}
		}
	}
}

func TestRotation_SeedSaysWhereItBegins(t *testing.T) {
	t.Parallel()
	for seed, want := range []string{1: "abcabc", 2: "bcabca", 3: "cabcab", 4: "abcabc"} {
		if seed == 0 {
			continue
		}
		reg := testkit.New(t, registry.Options{Selection: selection.Policy{Seed: uint64(seed)}})
		testkit.AddRing(t, reg, "a", "b", "c")
		require.Equal(t, want, testkit.Turns(t, testkit.Bind(reg), 6))
	}
}

package registry_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/health"
	"github.com/capreg/registry/internal/testkit"
	"github.com/capreg/registry/reason"
	"github.com/capreg/registry/selection"
	"github.com/capreg/registry/selectors"
)

// Variants: each strategy; calls, look-ups, GetAll, leases, failover, last resort; set later, and from the start.
func TestSetWeight_ZeroIsNoTraffic(t *testing.T) {
	t.Parallel()
	for _, strategy := range append(selectors.All(), registry.StrategyFallback, registry.StrategyRoundRobin) {
		t.Run(strategy.String(), func(t *testing.T) {
			t.Parallel()
			reg := testkit.New(t, registry.Options{Selection: selection.Policy{LeastBad: true}})
			canary := testkit.Add(t, reg, testkit.Provider{Name: "canary", Weight: 0.01, Strategy: strategy})
			old := testkit.Add(t, reg, testkit.Provider{Name: "old"})
			r := testkit.Bind(reg)
			previous, err := canary.SetWeight(0)
			require.NoError(t, err)
			require.InDelta(t, 0.01, previous, 0)
			for range 100 {
				require.Equal(t, "old", testkit.MustGet(t, r))
				require.Equal(t, "old", testkit.MustAsk(t, r))
			}
			many, err := r.GetAll(t.Context(), 0)
			require.NoError(t, err)
			require.Len(t, many, 1)
			require.Len(t, testkit.LeaseAll(t, r), 1)
			e := r.Explain()
			require.Equal(t, "old", e.Winner)
			require.Equal(t, reason.NoTraffic, e.Candidates[0].Code)
			require.Zero(t, canary.Info().Attempts)
			require.Equal(t, health.Healthy, reg.Health().State, "a weight of 0 is no illness")

			require.NoError(t, old.MarkUnhealthy(testkit.ErrDown))
			require.Equal(t, "old", testkit.MustAsk(t, r), "not even as the least bad")
			require.NoError(t, old.MarkHealthy())

			previous, err = canary.SetWeight(2)
			require.NoError(t, err)
			require.Zero(t, previous, "which SetWeight takes back")
			require.NoError(t, old.MarkUnhealthy(testkit.ErrDown))
			require.Equal(t, "canary", testkit.MustGet(t, r))
		})
	}
}

func TestRegister_NoTrafficIsAWeightOfZero(t *testing.T) {
	t.Parallel()
	reg := testkit.New(t, registry.Options{})
	a := testkit.Add(t, reg, testkit.Provider{Name: "a", NoTraffic: true, Weight: 3})
	r := testkit.Bind(reg)
	_, err := r.Get(t.Context())
	require.ErrorIs(t, err, registry.ErrUnavailable)
	require.ErrorContains(t, err, "weight is 0")
	require.Equal(t, health.Unhealthy, reg.Health().State)
	require.True(t, a.Definition().NoTraffic)
	require.True(t, testkit.Chat.Provider(a.Definition()).NoTraffic, "a definition keeps it")
	replacement := testkit.Add(t, reg, testkit.Provider{Name: "a", Replace: true})
	require.Equal(t, "a", testkit.MustGet(t, r), "the zero value of Weight is 1")
	previous, err := replacement.SetWeight(5)
	require.NoError(t, err)
	require.InDelta(t, 1, previous, 0)
}

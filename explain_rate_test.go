package registry_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/internal/testkit"
	"github.com/capreg/registry/reason"
	"github.com/capreg/registry/selectors"
)

// Variants: every strategy; a rate with and without a bulkhead; callers of other handlers, whose rates are their own.
func TestExplain_HeedsTheRateOfTheCaller(t *testing.T) {
	t.Parallel()
	for _, strategy := range append(selectors.All(), registry.StrategyFallback, registry.StrategyRoundRobin) {
		for _, places := range []int{0, 5} {
			testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
				limits := registry.LimitPolicy{Rate: 0.01, Burst: 1, MaxConcurrent: places}
				testkit.Add(t, reg, testkit.Provider{Name: "a", Strategy: strategy, Limits: limits})
				testkit.Add(t, reg, testkit.Provider{Name: "b", Limits: limits})
				r := testkit.Bind(reg)
				for range 2 {
					winner := r.Explain().Winner
					require.Equal(t, winner, r.Explain().Winner, "and uses nothing up")
					require.Equal(t, winner, testkit.MustAsk(t, r))
				}
				e := r.Explain()
				require.Empty(t, e.Winner)
				for _, c := range e.Candidates {
					require.Equal(t, reason.Throttled, c.Code)
					require.ErrorIs(t, c.Err, registry.ErrAtCapacity)
					require.Equal(t, 100*time.Second, c.RetryIn)
				}
				require.NotEmpty(t, testkit.Chat.Bind(reg, registry.Query{Handler: "other"}).Explain().Winner)
			})
		}
	}
}

package registry_test

import (
	"context"
	"fmt"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/internal/testkit"
	"github.com/capreg/registry/selection"
	"github.com/capreg/registry/selectors"
)

// Variants: every strategy; least-bad of the service, and last resorts; calls, leases that move on, groups of more
// than 64; a provider that fails, and one that hangs.
func TestLeastBad_StrategyTakesTurnsAndFailedOneIsMovedOnFrom(t *testing.T) {
	t.Parallel()
	for _, strategy := range append(selectors.All(), registry.StrategyFallback, registry.StrategyRoundRobin) {
		for _, policy := range []bool{false, true} {
			for _, size := range []int{3, 70} {
				t.Run(fmt.Sprint(strategy, " ", policy, " ", size), func(t *testing.T) {
					t.Parallel()
					testkit.Bubble(t, registry.Options{Selection: selection.Policy{LeastBad: policy}}, func(t *testing.T, reg *registry.Registry) {
						requireTurnsOfTheIll(t, reg, strategy, !policy, size)
					})
				})
			}
		}
	}
}

func requireTurnsOfTheIll(t *testing.T, reg *registry.Registry, strategy selection.Strategy, lastResort bool, size int) {
	t.Helper()
	asked := make(map[string]int)
	for i := range size {
		name := strconv.Itoa(i)
		member := testkit.Add(t, reg, testkit.Provider{Name: name, Strategy: strategy, LastResort: lastResort, Instance: testkit.Answers(func() (string, error) {
			asked[name]++
			if name == "0" {
				return "", testkit.ErrDown
			}
			return name, nil
		})})
		require.NoError(t, member.MarkUnhealthy(testkit.ErrDown))
	}
	r := testkit.Bind(reg)
	answered := 0
	for range 3 * size {
		winner := r.Explain().Winner
		before := asked[winner]
		if _, err := testkit.Ask(t.Context(), r); err == nil {
			answered++
		}
		require.Equal(t, before+1, asked[winner], "Explain names the one that is asked first")
		time.Sleep(time.Minute) // the budget for further attempts is not what this is about
	}
	require.GreaterOrEqual(t, answered, 3*size-11, "the budget for further attempts bears it at least then")
	if strategy.Same(registry.StrategyRoundRobin) {
		for name, times := range asked {
			require.GreaterOrEqual(t, times, 3, name)
		}
	}
	// Nothing else is asked a second time, and a call that is to run once moves on from none.
	clear(asked)
	_, _ = testkit.Ask(t.Context(), r, registry.OnceOnly())
	require.LessOrEqual(t, len(asked), 1)
	clear(asked)
	lease, err := r.Acquire(t.Context())
	require.NoError(t, err)
	next, err := lease.MoveOn(testkit.ErrDown)
	require.NoError(t, err, "a lease moves on as well")
	require.NotEqual(t, lease.Provider(), next.Provider())
	next.Done(nil)
}

func TestLeastBad_OneThatHangsLeavesTimeForTheNext(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{Selection: selection.Policy{LeastBad: true}}, func(t *testing.T, reg *registry.Registry) {
		for name, instance := range map[string]testkit.ChatModel{"a": testkit.Hangs(), "b": testkit.Says("b")} {
			require.NoError(t, testkit.Add(t, reg, testkit.Provider{Name: name, Strategy: registry.StrategyRoundRobin, Instance: instance}).MarkUnhealthy(testkit.ErrDown))
		}
		for range 4 {
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			answer, err := testkit.Ask(ctx, testkit.Bind(reg))
			cancel()
			require.NoError(t, err)
			require.Equal(t, "b", answer)
		}
	})
}

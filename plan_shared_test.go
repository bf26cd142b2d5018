package registry_test

import (
	"context"
	"fmt"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/internal/testkit"
	"github.com/capreg/registry/selection"
	"github.com/capreg/registry/selectors"
)

// Variants: handlers, excluded names and tags as kinds of query; ROUND_ROBIN and a selector; kept resolvers and
// look-ups in passing; members that join, leave and become ineligible while there are that many.
func TestQuery_AnyNumberOfKindsStaysFair(t *testing.T) {
	t.Parallel()
	kinds := map[string]func(i int) registry.Query{
		"handler": func(i int) registry.Query { return registry.Query{Handler: fmt.Sprint("h", i)} },
		"exclude": func(i int) registry.Query {
			return registry.Query{Where: selection.Requirements{Exclude: []string{fmt.Sprint("none", i)}}}
		},
	}
	for name, kind := range kinds {
		for _, strategy := range []selection.Strategy{registry.StrategyRoundRobin, selectors.WeightedRoundRobin()} {
			for _, n := range []int{256, 257, 600} {
				t.Run(fmt.Sprint(name, " ", strategy, " ", n), func(t *testing.T) {
					t.Parallel()
					reg := testkit.New(t, registry.Options{})
					for _, member := range []string{"a", "b", "c"} {
						testkit.Add(t, reg, testkit.Provider{Name: member, Strategy: strategy})
					}
					counts := make(map[string]int)
					ask := func(rounds int) {
						clear(counts)
						for i := range rounds * n {
							counts[testkit.MustGet(t, testkit.Chat.Bind(reg, kind(i%n)))]++
						}
					}
					ask(6)
					for _, member := range []string{"a", "b", "c"} {
						require.InDelta(t, 2*n, counts[member], float64(n)/4, "%v", counts)
					}
					c, _ := reg.Provider("chat", "c")
					require.NoError(t, c.MarkUnhealthy(testkit.ErrDown))
					testkit.Add(t, reg, testkit.Provider{Name: "d"})
					ask(6)
					require.Zero(t, counts["c"])
					require.InDelta(t, 2*n, counts["d"], float64(n)/2, "%v", counts)
					require.NoError(t, c.Unregister(t.Context()))
					own := testkit.Add(t, reg, testkit.Provider{Name: "own", Handler: fmt.Sprint("h", n-1)})
					r := testkit.Chat.Bind(reg, registry.Query{Handler: fmt.Sprint("h", n-1)})
					require.Equal(t, "own", testkit.MustGet(t, r), "a handler that gets a provider of its own sees it")
					require.NoError(t, own.Unregister(t.Context()))
					require.NotEqual(t, "own", testkit.MustGet(t, r))
				})
			}
		}
	}
}

func TestQuery_AnyNumberOfKindsCostsWhatOneCosts(t *testing.T) { //nolint:paralleltest // allocations of the process are counted
	reg := testkit.New(t, registry.Options{})
	for i := range 100 {
		testkit.Add(t, reg, testkit.Provider{Name: strconv.Itoa(i)})
	}
	for _, n := range []int{1, 256, 257, 1000} {
		var kept []*registry.Resolver[testkit.ChatModel]
		for i := range n {
			kept = append(kept, testkit.Chat.Bind(reg, registry.Query{Handler: fmt.Sprint(n, "/", i)}))
			testkit.MustGet(t, kept[i])
		}
		// A plan that was made anew would allocate: its sets, its tiers, its list of candidates.
		require.Zero(t, testing.AllocsPerRun(3, func() {
			for _, r := range kept {
				_, _ = r.Get(context.Background())
			}
		}), "%d kinds", n)
	}
}

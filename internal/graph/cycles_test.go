package graph_test

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry/internal/graph"
)

// requireCycle fails unless cycle is one of g without repetition, from its
// smallest node.
func requireCycle(t *testing.T, g *graph.Graph, cycle []int) {
	t.Helper()
	require.NotEmpty(t, cycle)
	require.Equal(t, cycle[0], slices.Min(cycle))
	seen := map[int]bool{}
	for i, node := range cycle {
		require.False(t, seen[node], "twice: %d", node)
		seen[node] = true
		_, found := slices.BinarySearch(g.Feeds(node), cycle[(i+1)%len(cycle)])
		require.True(t, found, "no edge after %d", node)
	}
}

func TestCycles_EachComponentHasItsShortestCycle(t *testing.T) {
	t.Parallel()
	g := graph.New(12)
	for _, edge := range [][2]int{
		{10, 11}, {11, 10}, // two
		{0, 1}, {1, 2}, {2, 3}, {3, 0}, {3, 1}, // a shorter one inside a longer
		{4, 5}, {5, 6}, {6, 4}, {4, 6}, // and one that starts with the same node
		{7, 7}, {7, 8}, {8, 7}, // a loop in company
		{3, 4}, {6, 7}, {8, 9}, {9, 10}, // what leads from one to the next is on none
	} {
		g.Add(edge[0], edge[1])
	}
	require.Equal(t, [][]int{{1, 2, 3}, {4, 6}, {7}, {10, 11}}, g.Cycles())
}

func TestCycles_PrefersSmallerNodes(t *testing.T) {
	t.Parallel()
	g := graph.New(8)
	for _, edge := range [][2]int{{0, 5}, {5, 3}, {3, 0}, {0, 4}, {4, 7}, {7, 0}, {4, 6}, {6, 0}, {1, 2}, {2, 7}, {7, 1}} {
		g.Add(edge[0], edge[1])
	}
	require.Equal(t, [][]int{{0, 4, 6}}, g.Cycles())
}

func TestCycles_OfLargeGraphsAreRealAndShortest(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(7, 8))
	for range 100 {
		m := random(rng, 60, 40+rng.IntN(120))
		g := m.graph(rng)
		distances := m.distances()
		together := func(a, b int) bool { return distances[a][b] <= len(m) && distances[b][a] <= len(m) }
		cycles := g.Cycles()
		for node := range m {
			of := slices.DeleteFunc(slices.Clone(cycles), func(cycle []int) bool { return !together(cycle[0], node) })
			if !together(node, node) {
				require.Empty(t, of)
				continue
			}
			require.Len(t, of, 1)
			requireCycle(t, g, of[0])
			require.LessOrEqual(t, len(of[0]), distances[node][node])
			require.Equal(t, len(of[0]), distances[of[0][0]][of[0][0]])
		}
	}
}

func TestCycles_CuttingAllGivesAnOrder(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(9, 10))
	for range 100 {
		m := random(rng, 40, 40+rng.IntN(80))
		for {
			g := m.graph(rng)
			cycles := g.Cycles()
			_, ok := g.Order()
			require.Equal(t, len(cycles) == 0, ok)
			if ok {
				break
			}
			for _, cycle := range cycles {
				requireCycle(t, g, cycle)
				m[cycle[len(cycle)-1]][cycle[0]] = false
			}
		}
	}
}

func TestCycles_RingIsOneCycle(t *testing.T) {
	t.Parallel()
	require.Equal(t, [][]int{ascending(long)}, ring(long).Cycles())
}

func TestCycles_FindsManySmallOnes(t *testing.T) {
	t.Parallel()
	g := graph.New(long)
	for node := 0; node < long; node += 4 {
		g.Add(node, node+1)
		g.Add(node+1, node+2)
		g.Add(node+2, node)
		if node > 0 {
			g.Add(node-4, node)
		}
	}
	cycles := g.Cycles()
	require.Len(t, cycles, long/4)
	for i, cycle := range cycles {
		require.Equal(t, []int{4 * i, 4*i + 1, 4*i + 2}, cycle)
	}
}

func TestCycles_FindsTheShortestOfAThousandNodes(t *testing.T) {
	t.Parallel()
	// The large cycles lead to one search through nearly everything after the
	// other, and only one of the last finds the small one.
	const nodes, steps = 1000, 31
	names := append(rand.New(rand.NewPCG(19, 20)).Perm(nodes-3), nodes-3, nodes-2, nodes-1)
	g := graph.New(nodes)
	for at := range nodes {
		for step := 1; step <= steps && at+step < nodes; step++ {
			g.Add(names[at], names[at+step])
		}
	}
	g.Add(names[nodes-1], names[0])
	g.Add(nodes-1, nodes-3)
	require.Equal(t, [][]int{{nodes - 3, nodes - 1}}, g.Cycles())
}

func TestCycles_BoundedSearchStillFindsACycle(t *testing.T) {
	t.Parallel()
	for _, seed := range []uint64{1, 2, 3} {
		rng := rand.New(rand.NewPCG(seed, 0))
		g := ring(long)
		// Shortcuts leave long ways round, so that hardly any search ends early.
		for range 2 * long {
			first := rng.IntN(long - 3)
			g.Add(first, first+1+rng.IntN(3))
		}
		cycles := g.Cycles()
		require.Len(t, cycles, 1)
		requireCycle(t, g, cycles[0])
		require.Less(t, len(cycles[0]), long)
	}
}

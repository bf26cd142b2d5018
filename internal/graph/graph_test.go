package graph_test

import (
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/capreg/registry/internal/graph"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const long = 100_000

func chain(nodes int) *graph.Graph {
	g := graph.New(nodes)
	for node := range nodes - 1 {
		g.Add(node, node+1)
	}

	return g
}

func ring(nodes int) *graph.Graph {
	g := chain(nodes)
	g.Add(nodes-1, 0)

	return g
}

func ascending(nodes int) []int {
	all := make([]int, nodes)
	for node := range all {
		all[node] = node
	}

	return all
}

func one(int) time.Duration { return 1 }

func TestGraph_WithoutNodes(t *testing.T) {
	t.Parallel()
	for _, g := range []*graph.Graph{graph.New(0), graph.New(-1), graph.New(math.MinInt), {}} {
		require.Zero(t, g.Len())
		order, ok := g.Order()
		require.Empty(t, order)
		require.True(t, ok)
		require.Empty(t, g.Layers())
		require.Empty(t, g.Cycles())
		require.Empty(t, g.Reaches())
		require.Empty(t, g.Ranks(one))
		path, length := g.Critical(one)
		require.Empty(t, path)
		require.Zero(t, length)
	}
}

func TestLayers_NodesWithoutEdgesAreOneLayer(t *testing.T) {
	t.Parallel()
	g := graph.New(1000)
	order, ok := g.Order()
	require.True(t, ok)
	require.Equal(t, ascending(1000), order)
	require.Equal(t, [][]int{ascending(1000)}, g.Layers())
	require.Empty(t, g.Cycles())
	require.Empty(t, g.Needs(0))
	require.Empty(t, g.Feeds(999))
}

func TestAdd_ParallelEdgesAreOne(t *testing.T) {
	t.Parallel()
	g := graph.New(3)
	for range 3 {
		g.Add(2, 1)
		g.Add(0, 1)
		g.Add(2, 2)
	}
	require.Equal(t, []int{0, 2}, g.Needs(1))
	require.Equal(t, []int{1, 2}, g.Feeds(2))
	require.Equal(t, []int{2}, g.Needs(2))
	require.Equal(t, []int{1}, g.Feeds(0))
}

func TestCycles_SelfEdgeIsACycleOfOne(t *testing.T) {
	t.Parallel()
	g := graph.New(4)
	g.Add(0, 1)
	g.Add(1, 1)
	g.Add(1, 2)
	require.Equal(t, [][]int{{1}}, g.Cycles())
	order, ok := g.Order()
	require.False(t, ok)
	require.Equal(t, []int{0, 3}, order, "neither the cycle nor what is behind it")
	require.Equal(t, [][]int{{0, 3}}, g.Layers())
}

func TestGraph_NodesOutOfRangePanic(t *testing.T) {
	t.Parallel()
	g := graph.New(2)
	for _, node := range []int{-1, 2, math.MinInt, math.MaxInt} {
		require.PanicsWithValue(t, "graph: node out of range", func() { g.Add(node, 0) })
		require.PanicsWithValue(t, "graph: node out of range", func() { g.Add(0, node) })
		require.Panics(t, func() { g.Needs(node) })
		require.Panics(t, func() { g.Feeds(node) })
		require.Panics(t, func() { g.Reaches(node) })
	}
	require.Empty(t, g.Feeds(0))
}

func TestAdd_AfterARead(t *testing.T) {
	t.Parallel()
	g := graph.New(3)
	g.Add(2, 0)
	before := g.Feeds(2)
	order, _ := g.Order()
	require.Equal(t, []int{1, 2, 0}, order)
	g.Add(2, 1)
	order, _ = g.Order()
	require.Equal(t, []int{2, 0, 1}, order)
	require.Equal(t, []int{0, 1}, g.Feeds(2))
	require.Equal(t, []int{0}, before)
}

func TestNeeds_AppendDoesNotChangeTheGraph(t *testing.T) {
	t.Parallel()
	g := graph.New(3)
	g.Add(0, 1)
	g.Add(1, 2)
	_ = append(g.Feeds(0), 0)
	_ = append(g.Needs(1), 1)
	require.Equal(t, []int{2}, g.Feeds(1))
	require.Equal(t, []int{1}, g.Needs(2))
}

func TestOrder_TakesTheSmallestThatIsReady(t *testing.T) {
	t.Parallel()
	g := graph.New(6)
	g.Add(5, 0)
	g.Add(2, 1)
	g.Add(3, 1)
	order, ok := g.Order()
	require.True(t, ok)
	require.Equal(t, []int{2, 3, 1, 4, 5, 0}, order)
}

func TestOrderAndLayers_RespectEveryEdgeOfALargeGraph(t *testing.T) {
	t.Parallel()
	g := large(10_000, 3)
	order, ok := g.Order()
	require.True(t, ok)
	require.Len(t, order, g.Len())
	place := make([]int, g.Len())
	for at, node := range order {
		place[node] = at
	}
	layer := make([]int, g.Len())
	nodes := 0
	for at, members := range g.Layers() {
		require.True(t, slices.IsSorted(members))
		nodes += len(members)
		for _, node := range members {
			layer[node] = at
		}
	}
	require.Equal(t, g.Len(), nodes)
	for node := range g.Len() {
		last := -1
		for _, need := range g.Needs(node) {
			require.Less(t, place[need], place[node])
			require.Contains(t, g.Feeds(need), node)
			last = max(last, layer[need])
		}
		require.Equal(t, last+1, layer[node], "no later than its needs ask for")
	}
}

func TestReaches_NothingFromNothing(t *testing.T) {
	t.Parallel()
	g := ring(3)
	require.Equal(t, []bool{false, false, false}, g.Reaches())
	require.Equal(t, []bool{true, true, true}, g.Reaches(1, 1))
}

func TestRanks_HeaviestPathToTheEnd(t *testing.T) {
	t.Parallel()
	weights := []time.Duration{1, 10, 2, 3, 4}
	weight := func(node int) time.Duration { return weights[node] }
	g := graph.New(5)
	g.Add(0, 1)
	g.Add(0, 2)
	g.Add(2, 3)
	g.Add(3, 4)
	require.Equal(t, []time.Duration{11, 10, 9, 7, 4}, g.Ranks(weight))
	path, length := g.Critical(weight)
	require.Equal(t, []int{0, 1}, path)
	require.Equal(t, time.Duration(11), length)
	weights[4] = 5
	path, _ = g.Critical(weight)
	require.Equal(t, []int{0, 1}, path, "of two that are as heavy the one with the smaller node")
	weights[4] = 6
	path, length = g.Critical(weight)
	require.Equal(t, []int{0, 2, 3, 4}, path)
	require.Equal(t, time.Duration(12), length)
}

func TestRanks_ClampsWeights(t *testing.T) {
	t.Parallel()
	weights := []time.Duration{5, math.MinInt64, math.MaxInt64, math.MaxInt64, -1}
	weight := func(node int) time.Duration { return weights[node] }
	ranks := chain(5).Ranks(weight)
	require.Equal(t, []time.Duration{math.MaxInt64, math.MaxInt64, math.MaxInt64, math.MaxInt64, 0}, ranks)
	path, length := chain(5).Critical(weight)
	require.Equal(t, ascending(5), path)
	require.Equal(t, time.Duration(math.MaxInt64), length)
}

func TestRanks_CallsWeightOnceForNodesWithAnOrder(t *testing.T) {
	t.Parallel()
	g := graph.New(5)
	g.Add(0, 1)
	g.Add(1, 2)
	g.Add(2, 1)
	g.Add(2, 3)
	asked := make([]int, 5)
	weight := func(node int) time.Duration {
		asked[node]++
		return 0
	}
	require.Equal(t, make([]time.Duration, 5), g.Ranks(weight))
	require.Equal(t, []int{1, 0, 0, 0, 1}, asked)
	path, length := g.Critical(weight)
	require.Equal(t, []int{0}, path, "the path leads into no cycle, though nothing weighs anything")
	require.Zero(t, length)
}

func TestCritical_GraphOfCyclesHasNone(t *testing.T) {
	t.Parallel()
	path, length := ring(3).Critical(one)
	require.Empty(t, path)
	require.Zero(t, length)
}

func TestGraph_LongChain(t *testing.T) {
	t.Parallel()
	g := chain(long)
	order, ok := g.Order()
	require.True(t, ok)
	require.Equal(t, ascending(long), order)
	layers := g.Layers()
	require.Len(t, layers, long)
	require.Equal(t, []int{long - 1}, layers[long-1])
	require.Empty(t, g.Cycles())
	require.Equal(t, time.Duration(long), g.Ranks(one)[0])
	path, length := g.Critical(one)
	require.Equal(t, order, path)
	require.Equal(t, time.Duration(long), length)
	reached := g.Reaches(long / 2)
	require.False(t, reached[long/2-1])
	require.True(t, reached[long-1])
}

func TestGraph_LongChainBackwards(t *testing.T) {
	t.Parallel()
	g := graph.New(long)
	for node := range long - 1 {
		g.Add(node+1, node)
	}
	order, ok := g.Order()
	require.True(t, ok)
	slices.Reverse(order)
	require.Equal(t, ascending(long), order)
	require.Empty(t, g.Cycles())
	require.Len(t, g.Layers(), long)
}

func TestGraph_Dense(t *testing.T) {
	t.Parallel()
	const nodes = 500
	g := graph.New(nodes)
	for node := range nodes {
		for before := range node {
			g.Add(before, node)
		}
	}
	order, ok := g.Order()
	require.True(t, ok)
	require.Equal(t, ascending(nodes), order)
	require.Len(t, g.Layers(), nodes)
	require.Empty(t, g.Cycles())
	path, _ := g.Critical(one)
	require.Equal(t, order, path)

	g.Add(nodes-1, nodes-1)
	require.Equal(t, [][]int{{nodes - 1}}, g.Cycles())
	g.Add(nodes-1, 0)
	require.Equal(t, [][]int{{nodes - 1}}, g.Cycles())
	order, ok = g.Order()
	require.Empty(t, order)
	require.False(t, ok)
}

func TestGraph_ConcurrentReadersSeeTheSame(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(5, 6))
	for range 20 {
		m := random(rng, 50, 80)
		g, alone := m.graph(rng), m.graph(rng)
		order, ok := alone.Order()
		layers, cycles, ranks, reached := alone.Layers(), alone.Cycles(), alone.Ranks(one), alone.Reaches(1)
		var readers sync.WaitGroup
		for range 8 {
			readers.Go(func() {
				gotOrder, gotOK := g.Order()
				equal := slices.Equal(order, gotOrder) && ok == gotOK &&
					slices.EqualFunc(layers, g.Layers(), slices.Equal) &&
					slices.EqualFunc(cycles, g.Cycles(), slices.Equal) &&
					slices.Equal(ranks, g.Ranks(one)) &&
					slices.Equal(reached, g.Reaches(1)) &&
					slices.Equal(alone.Needs(2), g.Needs(2)) && slices.Equal(alone.Feeds(2), g.Feeds(2))
				if !equal {
					t.Error("different")
				}
			})
		}
		readers.Wait()
	}
}

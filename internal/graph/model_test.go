package graph_test

import (
	"cmp"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry/internal/graph"
)

// model is a graph as a matrix: model[first][then]. Its methods are what those of
// a Graph are described to be, by recursion and trial of everything.
type model [][]bool

func newModel(nodes int) model {
	m := make(model, nodes)
	for node := range m {
		m[node] = make([]bool, nodes)
	}

	return m
}

// random returns a model with about so many edges, in a quarter of all cases
// without cycles.
func random(rng *rand.Rand, nodes, edges int) model {
	m := newModel(nodes)
	acyclic := rng.IntN(4) == 0
	names := rng.Perm(nodes)
	for range edges {
		first, then := rng.IntN(nodes), rng.IntN(nodes)
		if acyclic && first >= then {
			first, then = then, first
			if first == then {
				continue
			}
		}
		m[names[first]][names[then]] = true
	}

	return m
}

// graph adds the edges of m in random order, some of them twice.
func (m model) graph(rng *rand.Rand) *graph.Graph {
	var edges [][2]int
	for first := range m {
		for _, then := range m.feeds(first) {
			for range 1 + rng.IntN(2) {
				edges = append(edges, [2]int{first, then})
			}
		}
	}
	rng.Shuffle(len(edges), func(i, j int) { edges[i], edges[j] = edges[j], edges[i] })
	g := graph.New(len(m))
	for _, edge := range edges {
		g.Add(edge[0], edge[1])
	}

	return g
}

func (m model) feeds(node int) []int {
	feeds := []int{}
	for then, edge := range m[node] {
		if edge {
			feeds = append(feeds, then)
		}
	}

	return feeds
}

func (m model) needs(node int) []int {
	needs := []int{}
	for first := range m {
		if m[first][node] {
			needs = append(needs, first)
		}
	}

	return needs
}

// distances returns the least number of edges from each node to each, at least
// one, and more than there are nodes for those that are not reached.
func (m model) distances() [][]int {
	distances := make([][]int, len(m))
	for a := range m {
		distances[a] = make([]int, len(m))
		for b := range m {
			distances[a][b] = len(m) + 1
			if m[a][b] {
				distances[a][b] = 1
			}
		}
	}
	for via := range m {
		for a := range m {
			for b := range m {
				distances[a][b] = min(distances[a][b], distances[a][via]+distances[via][b])
			}
		}
	}

	return distances
}

// ordered returns the nodes that neither lie on a cycle nor need one that does.
func (m model) ordered() []bool {
	distances := m.distances()
	ordered := make([]bool, len(m))
	for node := range m {
		ordered[node] = distances[node][node] > len(m)
		for before := range m {
			if distances[before][before] <= len(m) && distances[before][node] <= len(m) {
				ordered[node] = false
			}
		}
	}

	return ordered
}

func (m model) order() []int {
	order := []int{}
	for {
		waits := func(node int) bool { return !slices.Contains(order, node) }
		next := 0
		for next < len(m) && (!waits(next) || slices.ContainsFunc(m.needs(next), waits)) {
			next++
		}
		if next == len(m) {
			return order
		}
		order = append(order, next)
	}
}

func (m model) layer(node int) int {
	layer := 0
	for _, need := range m.needs(node) {
		layer = max(layer, m.layer(need)+1)
	}

	return layer
}

func (m model) layers() [][]int {
	layers := [][]int{}
	for node, ordered := range m.ordered() {
		if !ordered {
			continue
		}
		for layer := m.layer(node); len(layers) <= layer; {
			layers = append(layers, nil)
		}
		layers[m.layer(node)] = append(layers[m.layer(node)], node)
	}

	return layers
}

// paths calls visit with each path of nodes with an order, from each of them to
// each that feeds no other.
func (m model) paths(visit func(path []int)) {
	ordered := m.ordered()
	var walk func(path []int)
	walk = func(path []int) {
		end := true
		for _, feed := range m.feeds(path[len(path)-1]) {
			if ordered[feed] {
				end = false
				walk(append(slices.Clone(path), feed))
			}
		}
		if end {
			visit(path)
		}
	}
	for node := range m {
		if ordered[node] {
			walk([]int{node})
		}
	}
}

// cycles returns the best cycle of each component, found among all cycles.
func (m model) cycles() [][]int {
	distances := m.distances()
	best := map[int][]int{} // by the smallest node of the component
	var walk func(path []int)
	walk = func(path []int) {
		for _, feed := range m.feeds(path[len(path)-1]) {
			switch {
			case feed == path[0]:
				component := 0
				for distances[component][feed] > len(m) || distances[feed][component] > len(m) {
					component++
				}
				if best[component] == nil || better(path, best[component]) {
					best[component] = path
				}
			case feed > path[0] && !slices.Contains(path, feed):
				walk(append(slices.Clone(path), feed))
			}
		}
	}
	for node := range m {
		walk([]int{node})
	}
	cycles := [][]int{}
	for _, cycle := range best {
		cycles = append(cycles, cycle)
	}
	slices.SortFunc(cycles, slices.Compare)

	return cycles
}

func better(a, b []int) bool { return cmp.Or(len(a)-len(b), slices.Compare(a, b)) < 0 }

// requireLike fails unless every method of g agrees with m, which is small.
func requireLike(t *testing.T, m model, g *graph.Graph) {
	t.Helper()
	require.Equal(t, len(m), g.Len())
	for node := range m {
		require.True(t, slices.Equal(m.needs(node), g.Needs(node)), "needs of %d: %v, %v", node, m, g.Needs(node))
		require.True(t, slices.Equal(m.feeds(node), g.Feeds(node)), "feeds of %d: %v, %v", node, m, g.Feeds(node))
	}
	want := m.order()
	order, ok := g.Order()
	require.Equal(t, want, order, "%v", m)
	require.Equal(t, len(want) == len(m), ok, "%v", m)
	require.Equal(t, m.layers(), g.Layers(), "%v", m)
	requireLikeWeights(t, m, g)

	cycles := m.cycles()
	require.Equal(t, len(cycles) == 0, ok, "%v", m)
	require.True(t, slices.EqualFunc(cycles, g.Cycles(), slices.Equal), "%v: %v, not %v", m, cycles, g.Cycles())

	distances := m.distances()
	for a := range m {
		b := (a * 7) % len(m)
		want := make([]bool, len(m))
		for node := range m {
			want[node] = node == a || node == b || distances[a][node] <= len(m) || distances[b][node] <= len(m)
		}
		require.Equal(t, want, g.Reaches(a, b), "from %d and %d: %v", a, b, m)
	}
}

func requireLikeWeights(t *testing.T, m model, g *graph.Graph) {
	t.Helper()
	weight := func(node int) time.Duration { return time.Duration(node * 7 % 3) } // some are zero, many sums the same
	ranks := make([]time.Duration, len(m))
	var critical []int
	var length time.Duration
	m.paths(func(path []int) {
		var sum time.Duration
		for _, node := range path {
			sum += weight(node)
		}
		ranks[path[0]] = max(ranks[path[0]], sum)
		if critical == nil || sum > length || sum == length && slices.Compare(path, critical) < 0 {
			critical, length = path, sum
		}
	})
	require.Equal(t, ranks, g.Ranks(weight), "%v", m)
	gotPath, gotLength := g.Critical(weight)
	require.Equal(t, critical, gotPath, "%v", m)
	require.Equal(t, length, gotLength, "%v", m)
}

func TestGraph_EveryGraphOfThreeNodesIsLikeTheModel(t *testing.T) {
	t.Parallel()
	requireAllLike(t, 3, 1)
}

func TestGraph_EveryFifthGraphOfFourNodesIsLikeTheModel(t *testing.T) {
	t.Parallel()
	requireAllLike(t, 4, 5)
}

// requireAllLike goes through the graphs of so many nodes, whose edges are the
// bits of a number, in steps.
func requireAllLike(t *testing.T, nodes, step int) {
	t.Helper()
	rng := rand.New(rand.NewPCG(1, 2))
	for edges := 0; edges < 1<<(nodes*nodes); edges += step {
		m := newModel(nodes)
		for i := range nodes * nodes {
			m[i/nodes][i%nodes] = edges>>i&1 == 1
		}
		requireLike(t, m, m.graph(rng))
	}
}

func TestGraph_RandomGraphsAreLikeTheModel(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(3, 4))
	for range 2000 {
		nodes := 1 + rng.IntN(9)
		m := random(rng, nodes, rng.IntN(2*nodes+1))
		requireLike(t, m, m.graph(rng))
	}
}

func FuzzModel_AnyGraph(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte{1, 0, 0})
	f.Add([]byte{3, 0, 1, 1, 2, 2, 0, 0, 1})
	f.Add([]byte{5, 4, 3, 3, 2, 2, 1, 1, 0})
	f.Add([]byte{6, 0, 1, 1, 0, 2, 3, 3, 4, 4, 2, 5, 5, 1, 2})
	f.Fuzz(func(t *testing.T, data []byte) {
		const most = 7 // nodes, so that there are not too many paths
		if len(data) == 0 {
			requireLike(t, newModel(0), graph.New(0))
			return
		}
		nodes := 1 + int(data[0])%most
		m, g := newModel(nodes), graph.New(nodes)
		for edge := range slices.Chunk(data[1:], 2) {
			if len(edge) < 2 {
				break
			}
			first, then := int(edge[0])%nodes, int(edge[1])%nodes
			m[first][then] = true
			g.Add(first, then)
			if edge[0] > 250 {
				g.Order() // what is added later must not be missed
			}
		}
		requireLike(t, m, g)
	})
}

package graph

import (
	"math"
	"slices"
)

// searchBudget bounds the nodes and edges that Cycles visits in search of the shortest cycles.
// The components share it by their size, which allows each the same number of searches through
// all of it.
const searchBudget = 1 << 25

// Cycles returns a cycle out of each set of nodes that all need each other, be
// it indirectly: none if the graph has an order. Each begins with its smallest
// node, each node in it is needed by the next one and the last by the first.
// They are sorted by where they begin.
//
// Each is the shortest of its set, and of several the one with the smallest node
// where they first differ. To find it may take a search from each node of the set.
// These are bounded: in the whole graph to 2²⁵ visits of nodes and edges, which is
// enough for sets of up to 1,000 nodes where there are 33,000 nodes and edges. In
// larger sets the search begins with the smallest nodes and may end before the last
// ones; what is returned is the shortest cycle found until then. That a set has
// one, and any cycle of one, is found however large it is.
func (g *Graph) Cycles() [][]int {
	built := g.adjacency()
	component, count := built.components()
	if count == 0 {
		return nil
	}
	s := search{
		adjacency: built,
		component: component,
		nodes:     make([]visit, g.nodes),
	}
	for node := range s.nodes {
		s.nodes[node] = visit{reached: none, closing: none}
	}
	searches := max(searchBudget/(g.nodes+len(built.feeds.values)), 1)
	cycles := make([][]int, count)
	for i, members := range groups(count, component).all() {
		cycles[i] = s.shortest(members, searches)
	}
	slices.SortFunc(cycles, func(a, b []int) int { return a[0] - b[0] })

	return cycles
}

// loops reports whether node needs itself.
func (a *adjacency) loops(node int) bool {
	_, found := slices.BinarySearch(a.feeds.of(node), node)
	return found
}

// components numbers the strongly connected components that have a cycle, and
// returns the number of each node's, none for a node without. It is Tarjan's
// algorithm with a path of its own in place of the call stack.
func (a *adjacency) components() (of []int, count int) {
	nodes := a.feeds.count()
	buffer := make([]int, 3*nodes)
	t := tarjan{
		adjacency: a, of: make([]int, nodes),
		entered: buffer[:nodes], lowest: buffer[nodes : 2*nodes], cursor: buffer[2*nodes:],
	}
	copy(t.cursor, a.feeds.starts)
	for root := range nodes {
		if t.entered[root] == 0 {
			t.enter(root)
		}
		for len(t.path) > 0 {
			node := t.path[len(t.path)-1]
			if t.cursor[node] == a.feeds.starts[node+1] {
				t.leave(node)
				continue
			}
			feed := a.feeds.values[t.cursor[node]]
			t.cursor[node]++
			if t.entered[feed] == 0 {
				t.enter(feed)
			} else {
				t.lowest[node] = min(t.lowest[node], t.lowest[feed])
			}
		}
	}

	return t.of, t.count
}

// tarjan is the state of the numbering of components. Nodes are entered from one on.
type tarjan struct {
	*adjacency
	of      []int // the numbers of the components
	count   int
	entered []int // when the node was reached
	lowest  []int // the earliest entered that is known to be in the component; closed: that is complete
	cursor  []int // which edge is next
	path    []int
	open    []int // reached, but of components that are not complete
	clock   int
}

const closed = math.MaxInt

// enter begins with a node.
func (t *tarjan) enter(node int) {
	t.clock++
	t.entered[node], t.lowest[node] = t.clock, t.clock
	t.path, t.open = append(t.path, node), append(t.open, node)
}

// leave ends the node at the end of the path, all edges of which were followed.
func (t *tarjan) leave(node int) {
	t.path = t.path[:len(t.path)-1]
	if t.lowest[node] == t.entered[node] {
		t.complete(node)
	}
	if len(t.path) > 0 {
		parent := t.path[len(t.path)-1]
		t.lowest[parent] = min(t.lowest[parent], t.lowest[node])
	}
}

// complete numbers the component that was entered at node.
func (t *tarjan) complete(node int) {
	start := len(t.open) - 1
	for t.open[start] != node {
		start--
	}
	number := none
	if start < len(t.open)-1 || t.loops(node) {
		number = t.count
		t.count++
	}
	for _, member := range t.open[start:] {
		t.of[member], t.lowest[member] = number, closed
	}
	t.open = t.open[:start]
}

// search looks for shortest cycles inside components, in breadth from one node
// after the other.
type search struct {
	*adjacency
	component []int
	nodes     []visit
	queue     []int
	visited   int // nodes and edges so far
}

// visit is the mark of a search at a node. The next search, which starts elsewhere,
// ignores it.
type visit struct {
	reached int // the start from which the node was last reached
	closing int // the last start that needs the node
	depth   int // distance from the start
	parent  int
}

// shortest returns the shortest cycle among members, which are ascending and
// need each other. Once it has looked at as much as there is in that many
// searches through all of them, it gives up to look for a shorter one.
func (s *search) shortest(members []int, searches int) (cycle []int) {
	bound := 0
	for _, node := range members {
		if s.loops(node) {
			return []int{node}
		}
		bound += (1 + len(s.feeds.of(node))) * searches
	}
	length := math.MaxInt
	s.visited = 0
	for _, start := range members {
		if length == 2 || s.visited >= bound {
			break
		}
		if last := s.from(start, length); last != none {
			length = s.nodes[last].depth + 1
			cycle = s.path(last)
		}
	}

	return cycle
}

// from returns the last node of the shortest cycle that begins with start and
// has no smaller node, if it has less than limit nodes.
//
// As rows are ascending, nodes enter the queue sorted by depth and then by the
// first difference of the best paths to them: the first that closes a cycle ends
// the best one.
func (s *search) from(start, limit int) int {
	if !s.markClosing(start) {
		return none
	}
	component := s.component[start]
	s.nodes[start].reached, s.nodes[start].depth = start, 0
	s.queue = append(s.queue[:0], start)
	for at := 0; at < len(s.queue); at++ {
		node := s.queue[at]
		depth := s.nodes[node].depth + 1
		if depth+1 >= limit {
			break
		}
		feeds := s.feeds.of(node)
		s.visited += 1 + len(feeds)
		for _, feed := range feeds {
			next := &s.nodes[feed]
			if feed < start || s.component[feed] != component || next.reached == start {
				continue
			}
			next.reached, next.depth, next.parent = start, depth, node
			if next.closing == start {
				return feed
			}
			s.queue = append(s.queue, feed)
		}
	}

	return none
}

// markClosing marks the nodes that close a cycle which begins with start and has no smaller node, and
// reports whether there are any.
func (s *search) markClosing(start int) (found bool) {
	for _, need := range s.needs.of(start) {
		if need > start && s.component[need] == s.component[start] {
			s.nodes[need].closing = start
			found = true
		}
	}

	return found
}

// path returns the nodes from the start of the last search to last.
func (s *search) path(last int) []int {
	path := make([]int, s.nodes[last].depth+1)
	for i := range slices.Backward(path) {
		path[i], last = last, s.nodes[last].parent
	}

	return path
}

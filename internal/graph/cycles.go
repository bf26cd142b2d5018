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
	const closed = math.MaxInt // lowest: its component is complete
	var (
		buffer  = make([]int, 3*nodes)
		entered = buffer[:nodes]          // when the node was reached, from one on
		lowest  = buffer[nodes : 2*nodes] // the earliest entered that is known to be in its component
		cursor  = buffer[2*nodes:]        // which edge is next
		path    []int
		open    []int // reached, but of components that are not complete
		clock   int
	)
	of = make([]int, nodes)
	copy(cursor, a.feeds.starts)
	enter := func(node int) {
		clock++
		entered[node], lowest[node] = clock, clock
		path, open = append(path, node), append(open, node)
	}
	leave := func(node int) {
		path = path[:len(path)-1]
		if lowest[node] == entered[node] {
			start := len(open) - 1
			for open[start] != node {
				start--
			}
			number := none
			if start < len(open)-1 || a.loops(node) {
				number = count
				count++
			}
			for _, member := range open[start:] {
				of[member], lowest[member] = number, closed
			}
			open = open[:start]
		}
		if len(path) > 0 {
			parent := path[len(path)-1]
			lowest[parent] = min(lowest[parent], lowest[node])
		}
	}
	for root := range nodes {
		if entered[root] == 0 {
			enter(root)
		}
		for len(path) > 0 {
			node := path[len(path)-1]
			if cursor[node] == a.feeds.starts[node+1] {
				leave(node)
				continue
			}
			feed := a.feeds.values[cursor[node]]
			cursor[node]++
			if entered[feed] == 0 {
				enter(feed)
			} else {
				lowest[node] = min(lowest[node], lowest[feed])
			}
		}
	}

	return of, count
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
	component := s.component[start]
	closable := false
	for _, need := range s.needs.of(start) {
		if need > start && s.component[need] == component {
			s.nodes[need].closing = start
			closable = true
		}
	}
	if !closable {
		return none
	}
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
			if feed < start || s.component[feed] != component {
				continue
			}
			next := &s.nodes[feed]
			if next.reached == start {
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

// path returns the nodes from the start of the last search to last.
func (s *search) path(last int) []int {
	path := make([]int, s.nodes[last].depth+1)
	for i := range slices.Backward(path) {
		path[i], last = last, s.nodes[last].parent
	}

	return path
}

// Package graph provides algorithms for dependency graphs: order, layers, priorities
// and cycles of the nodes. It also finds words similar to a misspelt one.
package graph

import (
	"slices"
	"sync"
	"sync/atomic"
)

// Graph is a directed graph of the nodes 0..Len()-1. An edge goes from a node to one that needs
// it and must come after it. Use New to make one.
//
// Cycles are allowed, but the nodes on them, and all that need one of those, have no order:
// they never become ready. Each method says how it treats them.
//
// Add must not be called while any other method is. All the others only read, and are safe for
// concurrent use. None of them recurses, and each takes time in proportion to the nodes and
// edges unless it says otherwise. Methods with a node as parameter panic if it is out of range.
type Graph struct {
	nodes int

	// The edges as they were added: edge i goes from firsts[i] to thens[i].
	firsts, thens []int

	// built is made from the edges by the first read after an Add. Concurrent reads
	// are serialised while it is built.
	built    atomic.Pointer[adjacency]
	building sync.Mutex
}

// adjacency is the read-only form of a Graph. It never changes, and each of its rows is
// ascending and without repetition.
type adjacency struct {
	needs, feeds rows
}

// New returns a graph of that many nodes and no edges. A negative number counts
// as zero. It is safe for concurrent use.
func New(nodes int) *Graph { return &Graph{nodes: max(nodes, 0)} }

// Add makes then need first. To add an edge again changes nothing; a node that
// needs itself is a cycle of one.
//
// The first read after an Add goes through all edges, so it is best to add them
// all before reading.
func (g *Graph) Add(first, then int) {
	if uint(first) >= uint(g.nodes) || uint(then) >= uint(g.nodes) {
		panic("graph: node out of range")
	}
	if len(g.firsts) == cap(g.firsts) { // append alone grows long slices in many small steps
		more := max(g.nodes, len(g.firsts))
		g.firsts, g.thens = slices.Grow(g.firsts, more), slices.Grow(g.thens, more)
	}
	g.firsts = append(g.firsts, first)
	g.thens = append(g.thens, then)
	if g.built.Load() != nil {
		g.built.Store(nil)
	}
}

// Len returns the number of nodes.
func (g *Graph) Len() int { return g.nodes }

// Needs returns the direct predecessors of node, ascending. The result belongs to the graph and
// must not be changed; a later Add does not change it either.
func (g *Graph) Needs(node int) []int { return g.adjacency().needs.of(node) }

// Feeds returns the direct successors of node, ascending. The result belongs to the graph and
// must not be changed; a later Add does not change it either.
func (g *Graph) Feeds(node int) []int { return g.adjacency().feeds.of(node) }

// Reaches reports for each node whether it is one of from or needs any of them, directly or
// not.
func (g *Graph) Reaches(from ...int) []bool {
	feeds := g.adjacency().feeds
	reached := make([]bool, g.nodes)
	pending := make([]int, 0, len(from))
	for _, node := range from {
		if !reached[node] {
			reached[node] = true
			pending = append(pending, node)
		}
	}
	for len(pending) > 0 {
		last := len(pending) - 1
		node := pending[last]
		pending = pending[:last]
		for _, feed := range feeds.of(node) {
			if !reached[feed] {
				reached[feed] = true
				pending = append(pending, feed)
			}
		}
	}

	return reached
}

func (g *Graph) adjacency() *adjacency {
	if built := g.built.Load(); built != nil {
		return built
	}

	return g.build()
}

func (g *Graph) build() *adjacency {
	g.building.Lock()
	defer g.building.Unlock()
	if built := g.built.Load(); built != nil {
		return built
	}
	// Gathering keeps the order of what it gathers, so that turning the rows
	// around sorts them: needs by what is first, then feeds by what is next.
	needs := gather(g.nodes, g.firsts, g.thens).folded().turned()
	built := &adjacency{needs: needs, feeds: needs.turned()}
	g.built.Store(built)

	return built
}

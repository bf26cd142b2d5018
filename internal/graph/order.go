package graph

import (
	"math"
	"slices"
	"time"

	"github.com/capreg/registry/internal/bitset"
)

// none stands for the absence of a node.
const none = -1

// Order returns all nodes, each after all it needs: always the smallest that is
// ready. With ok false there is a cycle, and the nodes that it leaves without an
// order are missing.
//
// It takes logarithmic time for each node, to a base so large that it hardly
// shows.
func (g *Graph) Order() (order []int, ok bool) {
	built := g.adjacency()
	ready := bitset.New(g.nodes)
	left := built.left()
	for node, needs := range left {
		if needs == 0 {
			ready.Add(node)
		}
	}
	order = make([]int, 0, g.nodes)
	for node := ready.Next(0, g.nodes); node >= 0; node = ready.Next(0, g.nodes) {
		ready.Remove(node)
		order = append(order, node)
		for _, feed := range built.feeds.of(node) {
			left[feed]--
			if left[feed] == 0 {
				ready.Add(feed)
			}
		}
	}

	return order, len(order) == g.nodes
}

// Layers returns the nodes in as few layers as there can be: each in the layer
// after the last that it needs, and ascending inside. Nodes without an order are
// in no layer.
func (g *Graph) Layers() [][]int {
	built := g.adjacency()
	layer := make([]int, g.nodes)
	for node := range layer {
		layer[node] = none
	}
	order, _ := built.topological()
	count := 0
	for _, node := range order {
		for _, need := range built.needs.of(node) {
			layer[node] = max(layer[node], layer[need])
		}
		layer[node]++
		count = max(count, layer[node]+1)
	}

	return groups(count, layer).all()
}

// Ranks returns for each node the weight of the heaviest path that starts there, its own weight
// included: the least time from its beginning to the end of all that need it. Taking the nodes
// with the highest rank first is critical-path scheduling.
//
// Negative weights count as zero, and a sum that exceeds a Duration as the longest one. Nodes
// without an order are on no path, and their rank is zero. weight is called at most once for
// each node.
func (g *Graph) Ranks(weight func(node int) time.Duration) []time.Duration {
	ranks, _, _ := g.adjacency().rank(weight)
	return ranks
}

// Critical returns the heaviest path, up to a node that no other with an order needs, and its
// weight. Of several it is the one with the smallest node where they first differ. Weights and
// nodes without an order are treated as in Ranks; if no node has an order, there is no path.
func (g *Graph) Critical(weight func(node int) time.Duration) (path []int, length time.Duration) {
	ranks, next, order := g.adjacency().rank(weight)
	start := none
	for _, node := range order {
		if start == none || ranks[node] > ranks[start] || ranks[node] == ranks[start] && node < start {
			start = node
		}
	}
	if start == none {
		return nil, 0
	}
	for node := start; node != none; node = next[node] {
		path = append(path, node)
	}

	return path, ranks[start]
}

// rank returns the ranks, what follows each node on its heaviest path, and the
// nodes for which that is so.
func (a *adjacency) rank(weight func(node int) time.Duration) (ranks []time.Duration, next, order []int) {
	order, left := a.topological()
	ranks = make([]time.Duration, len(left))
	next = make([]int, len(left))
	for _, node := range slices.Backward(order) {
		heaviest, follower := time.Duration(0), none
		for _, feed := range a.feeds.of(node) {
			if left[feed] == 0 && (follower == none || ranks[feed] > heaviest) {
				heaviest, follower = ranks[feed], feed
			}
		}
		next[node] = follower
		ranks[node] = heaviest + min(max(weight(node), 0), math.MaxInt64-heaviest)
	}

	return ranks, next, order
}

// topological returns the nodes that have an order, in one that is found faster than
// that of Order, and how many needs of each node are not among them.
func (a *adjacency) topological() (order, left []int) {
	left = a.left()
	order = make([]int, 0, len(left))
	for node, needs := range left {
		if needs == 0 {
			order = append(order, node)
		}
	}
	for at := 0; at < len(order); at++ {
		for _, feed := range a.feeds.of(order[at]) {
			left[feed]--
			if left[feed] == 0 {
				order = append(order, feed)
			}
		}
	}

	return order, left
}

// left returns the number of needs of each node.
func (a *adjacency) left() []int {
	left := make([]int, a.needs.count())
	for node := range left {
		left[node] = len(a.needs.of(node))
	}

	return left
}

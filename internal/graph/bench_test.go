package graph_test

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/capreg/registry/internal/graph"
)

// large returns a graph without cycles in which each node but the first has up to
// so many needs, anywhere.
func large(nodes, needs int) *graph.Graph {
	g := graph.New(nodes)
	for _, edge := range edgesOf(nodes, needs) {
		g.Add(edge[0], edge[1])
	}

	return g
}

func edgesOf(nodes, needs int) [][2]int {
	rng := rand.New(rand.NewPCG(13, 14))
	names := rng.Perm(nodes)
	edges := make([][2]int, 0, nodes*needs)
	for node := 1; node < nodes; node++ {
		for range needs {
			edges = append(edges, [2]int{names[rng.IntN(node)], names[node]})
		}
	}

	return edges
}

func BenchmarkPlan(b *testing.B) {
	edges := edgesOf(10_000, 3)
	plan := func() *graph.Graph {
		g := graph.New(10_000)
		for _, edge := range edges {
			g.Add(edge[0], edge[1])
		}

		return g
	}
	b.Run("edges", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			plan().Needs(0)
		}
	})
	b.Run("edges, order and layers", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			g := plan()
			g.Order()
			g.Layers()
		}
	})
}

func BenchmarkReading(b *testing.B) {
	weight := func(node int) time.Duration { return time.Duration(node) }
	for _, c := range []struct {
		name string
		g    *graph.Graph
	}{
		{"10000 nodes with 3 needs each", large(10_000, 3)},
		{"chain of 100000", chain(long)},
	} {
		for _, method := range []struct {
			name string
			call func()
		}{
			{"Order", func() { c.g.Order() }},
			{"Layers", func() { c.g.Layers() }},
			{"Cycles", func() { c.g.Cycles() }},
			{"Reaches", func() { c.g.Reaches(0) }},
			{"Ranks", func() { c.g.Ranks(weight) }},
			{"Critical", func() { c.g.Critical(weight) }},
		} {
			b.Run(method.name+" in "+c.name, func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					method.call()
				}
			})
		}
	}
}

func BenchmarkCycles(b *testing.B) {
	knot := func(nodes int) *graph.Graph {
		rng := rand.New(rand.NewPCG(15, 16))
		g := graph.New(nodes)
		for range 3 * nodes {
			g.Add(rng.IntN(nodes), rng.IntN(nodes))
		}

		return g
	}
	// Every cycle goes nearly all the way round, so that no search ends early, and
	// the numbers of the nodes say nothing of where they are.
	ladder := func(nodes, rungs int) *graph.Graph {
		names := rand.New(rand.NewPCG(17, 18)).Perm(nodes)
		g := graph.New(nodes)
		for node := range nodes {
			for rung := 1; rung <= rungs && node+rung < nodes; rung++ {
				g.Add(names[node], names[node+rung])
			}
		}
		g.Add(names[nodes-1], names[0])

		return g
	}
	for _, c := range []struct {
		name string
		g    *graph.Graph
	}{
		{"knot of 10000", knot(10_000)},
		{"ring of 1000", ladder(1000, 1)},
		{"ring of 100000", ladder(long, 1)},
		{"ladder of 1000", ladder(1000, 3)},
		{"ladder of 10000", ladder(10_000, 3)},
		{"ladder of 100000", ladder(long, 3)},
		{"steep ladder of 2000", ladder(2000, 500)},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				c.g.Cycles()
			}
		})
	}
}

func BenchmarkNearest(b *testing.B) {
	among := make([]string, 10_000)
	for i := range among {
		among[i] = fmt.Sprintf("component-of-many-%d", i*7919)
	}
	b.ReportAllocs()
	for b.Loop() {
		graph.Nearest("component-fo-many-79190", among, 3)
	}
}

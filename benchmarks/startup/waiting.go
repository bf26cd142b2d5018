package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/capreg/registry"
	"github.com/capreg/registry/startup"
)

const (
	waitingSize = 30
	mostNeeds   = 3
	shortest    = 5 * time.Millisecond
	longest     = 50 * time.Millisecond
)

// graph holds dependencies: each node needs some of those before it.
type graph struct {
	names []string
	needs [][]int
}

// drawGraph returns a random graph, the same one for the same seed.
func drawGraph(seed uint64, size int) graph {
	random := rand.New(rand.NewPCG(seed, uint64(size))) //nolint:gosec // the same graph each time
	g := graph{names: make([]string, size), needs: make([][]int, size)}
	for i := range size {
		g.names[i] = fmt.Sprintf("component-%d", i)
		g.needs[i] = random.Perm(i)[:random.IntN(min(mostNeeds, i)+1)]
	}
	return g
}

// component returns a node as a component with its needs.
func (g graph) component(i int, start func(context.Context) error) registry.Component {
	needs := make([]startup.Need, len(g.needs[i]))
	for at, need := range g.needs[i] {
		needs[at].Capability = g.names[need]
	}
	return registry.Component{
		Name: g.names[i], Provides: []string{g.names[i]}, Needs: needs,
		Start: func(ctx context.Context, _ *startup.Run) error { return start(ctx) },
	}
}

// longestChain returns the least time of a start.
func (g graph) longestChain(takes []time.Duration) (whole time.Duration) {
	ends := make([]time.Duration, len(takes))
	for i := range takes {
		for _, need := range g.needs[i] {
			ends[i] = max(ends[i], ends[need])
		}
		ends[i] += takes[i]
		whole = max(whole, ends[i])
	}
	return whole
}

// measureWaiting starts random graphs both ways, and returns the wall time of that
// as a multiple of the longest chain.
func measureWaiting(ctx context.Context, seed uint64, graphs, atOnce int) (eager, batches distribution, err error) {
	eagerly, byBatch := make([]float64, graphs), make([]float64, graphs)
	var group errgroup.Group
	group.SetLimit(atOnce)
	for i := range graphs {
		seed++
		graphSeed := seed
		group.Go(func() (err error) {
			if eagerly[i], err = startWaiting(ctx, graphSeed, startup.Options{}); err == nil {
				byBatch[i], err = startWaiting(ctx, graphSeed, startup.Options{Batches: true})
			}
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return distribution{}, distribution{}, err
	}
	return sumUp(eagerly), sumUp(byBatch), nil
}

func startWaiting(ctx context.Context, seed uint64, options startup.Options) (multiple float64, err error) {
	g := drawGraph(seed, waitingSize)
	random := rand.New(rand.NewPCG(seed, 0)) //nolint:gosec // the same durations each time
	takes := make([]time.Duration, waitingSize)
	components := make([]registry.Component, waitingSize)
	for i := range components {
		takes[i] = shortest + time.Duration(random.Int64N(int64(longest-shortest)+1))
		components[i] = g.component(i, func(ctx context.Context) error { return wait(ctx, takes[i]) })
	}
	o, err := registry.NewOrchestrator(nil, options, components...)
	if err != nil {
		return 0, err
	}
	began := time.Now()
	_, err = o.Start(ctx)
	wall := time.Since(began)
	if err != nil {
		return 0, err
	}
	return ratio(wall, g.longestChain(takes)), o.Stop(ctx)
}

func wait(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

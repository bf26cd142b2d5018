package selectors_test

import (
	"fmt"

	"github.com/capreg/registry/registrytest"
	"github.com/capreg/registry/selection"
	"github.com/capreg/registry/selectors"
)

func ExampleScored() {
	// Twice as much weight on cost, and a factor of one's own.
	factors := selectors.DefaultFactors()
	factors[4].Weight = 0.20
	factors = append(factors, selectors.Factor{Name: "own hardware", Weight: 0.10, Value: func(c selection.Candidate, _ selectors.Benchmark) float64 {
		if c.HasTag("own") {
			return 1
		}
		return 0
	}})
	strategy := selectors.Scored(factors...)
	fmt.Println(strategy, strategy.Check())
	// Output: SCORED(0.3 load, 0.25 performance, 0.15 proximity, 0.2 specialisation, 0.2 cost, 0.1 own hardware) <nil>
}

func ExampleAll() {
	// For registry.Options.Strategies: configuration can name them then.
	for _, strategy := range selectors.All() {
		fmt.Println(strategy)
	}
	// Output:
	// WEIGHTED_ROUND_ROBIN
	// RANDOM
	// LEAST_LOADED
	// LATENCY_AWARE
	// SCORED
	// STICKY
}

// A selector is tested without a registry.
func ExampleWeightedRoundRobin() {
	view := registrytest.NewView(selection.Request{}, registrytest.Candidate{Name: "a", Weight: 3}, registrytest.Candidate{Name: "b", Weight: 1})
	counts := make([]int, view.Len())
	for range 400 {
		counts[selectors.WeightedRoundRobin().Selector().Pick(view)]++
	}
	fmt.Println(counts)
	// Output: [300 100]
}

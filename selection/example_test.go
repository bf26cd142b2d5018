package selection_test

import (
	"context"
	"fmt"

	"github.com/capreg/registry/registrytest"
	"github.com/capreg/registry/selection"
)

func ExampleNew() {
	cheapest := selection.New("CHEAPEST", selection.Func(func(v selection.View) int {
		best := v.Next(0)
		for i := best; i >= 0; i = v.Next(i + 1) {
			if v.At(i).Cost() < v.At(best).Cost() {
				best = i
			}
		}
		return best
	}))
	view := registrytest.NewView(selection.Request{},
		registrytest.Candidate{Name: "dear", Cost: 3},
		registrytest.Candidate{Name: "cheap", Cost: 1},
		registrytest.Candidate{Name: "down", Down: true},
	)
	fmt.Println(cheapest, view.At(cheapest.Selector().Pick(view)).Name())
	// Output: CHEAPEST cheap
}

func ExampleWithKey() {
	ctx := selection.WithKey(context.Background(), "session 4711")
	fmt.Println(selection.KeyFrom(ctx))
	// Output: session 4711
}

package selection_test

import (
	"context"
	"fmt"

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
	set := selection.NewSet(selection.Request{}, selection.Policy{}, []selection.Member{
		{Profile: selection.Profile{Name: "dear", Cost: 3}},
		{Profile: selection.Profile{Name: "cheap", Cost: 1}},
		{Profile: selection.Profile{Name: "down", Cost: 0}},
	})
	view := set.View(selection.Look{Mask: 0b011, Cursor: selection.NewCursor(0)})
	fmt.Println(cheapest, view.At(cheapest.Selector().Pick(view)).Name())
	// Output: CHEAPEST cheap
}

func ExampleWithKey() {
	ctx := selection.WithKey(context.Background(), "session 4711")
	fmt.Println(selection.KeyFrom(ctx))
	// Output: session 4711
}

func ExampleCompareVersions() {
	fmt.Println(selection.CompareVersions("v1.10", "1.9.3"), selection.CompareVersions("2.0.0-rc.1", "2"))
	// Output: 1 -1
}

func ExampleProximity() {
	fmt.Printf("%.2f %.2f", selection.Proximity("eu-west-1", "eu-west-2"), selection.Proximity("eu-west-1", "us-east-1"))
	// Output: 0.67 0.00
}

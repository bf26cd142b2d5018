package registry_test

import (
	"context"
	"fmt"
	"time"

	"github.com/capreg/registry"
)

// A description that was read from a file says how the provider is to be now.
func ExampleRegistration_Apply() {
	ctx := context.Background()
	reg := registryOf()
	defer func() { _ = reg.Close(ctx) }()
	gpt, err := chat.Register(ctx, reg, registry.Provider[chatModel]{Name: "gpt", Instance: says("hi"), Version: "4"})
	if err != nil {
		panic(err)
	}
	for _, wanted := range []registry.Provider[any]{
		{Version: "4", Priority: registry.PriorityHigh, AttemptTimeout: time.Minute},
		{Version: "5", Priority: registry.PriorityHigh, AttemptTimeout: time.Minute},
		{Version: "5", Weight: -1},
	} {
		now, applied, err := gpt.Apply(ctx, wanted)
		if err != nil {
			fmt.Println(err)
			continue
		}
		for _, d := range applied.Differences {
			fmt.Printf("%s: %s to %s\n", d.Field, d.From, d.To)
		}
		fmt.Println("replaced:", applied.Replaced)
		gpt = now
	}
	// Output:
	// Priority: NORMAL to HIGH
	// AttemptTimeout: 0s to 1m0s
	// replaced: false
	// Version: 4 to 5
	// replaced: true
	// registry: invalid input: Weight is -1: want 0 (default 1) or more
}

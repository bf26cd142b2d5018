package registry_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/capreg/registry"
	"github.com/capreg/registry/health"
)

// A provider with a probe is picked from its first answer on, and left out when
// three probes in a row fail.
func ExampleRegistration_CheckHealth() {
	ctx := context.Background()
	reg, err := registry.New(registry.Options{})
	if err != nil {
		panic(err)
	}
	defer func() { _ = reg.Close(ctx) }()
	var down atomic.Bool
	cloud, err := chat.Register(ctx, reg, registry.Provider[chatModel]{
		Name: "cloud", Instance: says("cloud"),
		Health: health.Policy{Probe: func(context.Context) error {
			if down.Load() {
				return errors.New("no route")
			}
			return nil
		}},
	})
	if err != nil {
		panic(err)
	}
	llm := chat.Bind(reg, registry.Query{})
	fmt.Println(registry.Call(ctx, llm, greet)) // waits for the first answer

	down.Store(true)
	for range 3 { // rather than wait for the interval
		status, err := cloud.CheckHealth(ctx)
		fmt.Printf("%v, score %.2f: %s %v\n", status.State, status.Score, status.Reason, err)
	}
	fmt.Println(llm.Explain())
	// Output:
	// cloud <nil>
	// degraded, score 0.67: no route (1 of 3 failures) <nil>
	// degraded, score 0.33: no route (2 of 3 failures) <nil>
	// unhealthy, score 0.00: no route <nil>
	// service "chat"
	//   group 0 NORMAL   cloud: unhealthy: no route
}

// What a readiness endpoint tells: the health of the whole, with what is missing.
func ExampleRegistry_Health() {
	ctx := context.Background()
	reg, err := registry.New(registry.Options{Required: []string{"chat", "memory"}})
	if err != nil {
		panic(err)
	}
	defer func() { _ = reg.Close(ctx) }()
	spare, err := chat.Register(ctx, reg, registry.Provider[chatModel]{Name: "spare", Instance: says("spare")})
	if err != nil {
		panic(err)
	}
	if err := spare.MarkUnhealthy(errors.New("maintenance")); err != nil {
		panic(err)
	}
	overall := reg.Health(health.Readiness)
	fmt.Println(overall.State)
	fmt.Println(overall.Reason)
	// Output:
	// unhealthy
	// service "chat" is unhealthy: no provider is healthy: spare; service "memory" is unhealthy: no provider
}

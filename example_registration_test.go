package registry_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/capreg/registry"
	"github.com/capreg/registry/health"
)

func ExampleRegistry_Reset() {
	ctx := context.Background()
	reg := registryOf(registry.Provider[chatModel]{Name: "gpt"}, registry.Provider[chatModel]{Name: "claude"})
	defer func() { _ = reg.Close(ctx) }()

	for _, handle := range reg.Registrations("chat") {
		if err := handle.ForceOpen(time.Hour, "maintenance"); err != nil {
			panic(err)
		}
	}
	fmt.Println(reg.Reset())
	fmt.Println(reg.Reset())
	// Output:
	// [chat/gpt chat/claude]
	// []
}

func ExampleRegistration() {
	ctx := context.Background()
	reg := registryOf(registry.Provider[chatModel]{Name: "spare"})
	defer func() { _ = reg.Close(ctx) }()

	gpt, err := chat.Register(ctx, reg, registry.Provider[chatModel]{Name: "gpt", Instance: says("hi"), Priority: registry.PriorityHigh})
	if err != nil {
		panic(err)
	}
	llm := chat.Bind(reg, registry.Query{})
	fmt.Println(llm.Explain().Winner)

	if err := gpt.ForceOpen(10*time.Minute, "maintenance"); err != nil {
		panic(err)
	}
	fmt.Println(llm.Explain().Winner, "|", gpt.Breaker().State, gpt.Breaker().Reason)

	if err := gpt.Reset(); err != nil {
		panic(err)
	}
	previous, err := gpt.SetPriority(registry.PriorityLow)
	fmt.Println(llm.Explain().Winner, "|", previous, err)

	if err := gpt.Unregister(ctx); err != nil { // waits for its calls in flight
		panic(err)
	}
	fmt.Println(gpt.Reset())
	// Output:
	// gpt
	// spare | open maintenance
	// spare | HIGH <nil>
	// registry: provider "chat/gpt": not registered
}

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

func ExampleRegistry_WaitReady() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
	defer cancel()
	reg := registryOf()
	defer func() { _ = reg.Close(context.Background()) }()
	err := reg.WaitReady(ctx, "chat", "memory")
	fmt.Println(errors.Is(err, registry.ErrNotReady))
	fmt.Println(strings.Contains(err.Error(), "memory"))
	// Output:
	// true
	// true
}

func ExampleRegistry_Discover() {
	ctx := context.Background()
	reg := registryOf(
		registry.Provider[chatModel]{Name: "gpt", Capabilities: []string{"chat", "vision"}},
		registry.Provider[chatModel]{Name: "llama", Capabilities: []string{"chat"}},
	)
	defer func() { _ = reg.Close(ctx) }()
	healthy, err := reg.Discover(registry.Query{Require: []string{"vision"}}, health.Healthy, health.Degraded)
	if err != nil {
		panic(err)
	}
	for _, info := range healthy {
		fmt.Println(info.Service, info.Name)
	}
	_, err = reg.Discover(registry.Query{OwnOnly: true})
	fmt.Println(err)
	// Output:
	// chat gpt
	// registry: invalid input: Query.OwnOnly is true: want a Handler
}

// The dynamic path: a configuration names the service.
func ExampleRegistry_Register() {
	ctx := context.Background()
	reg := registryOf()
	defer func() { _ = reg.Close(ctx) }()
	llm := chat.Bind(reg, registry.Query{}) // binds the name "chat" to its Go type

	_, err := reg.Register(ctx, "chat", registry.Provider[any]{Name: "wrong", Instance: 42})
	fmt.Println(err)
	_, err = reg.Register(ctx, "chat", registry.Provider[any]{Name: "gpt", Instance: says("hi")})
	fmt.Println(llm.Explain().Winner, err)
	// Output:
	// registry: invalid input: Instance is of type int: want a registry_test.chatModel
	// gpt <nil>
}

package registry_test

import (
	"context"
	"fmt"
	"strings"

	"github.com/capreg/registry"
	"github.com/capreg/registry/selection"
	"github.com/capreg/registry/selectors"
)

// mustAsk makes a call that is answered.
func mustAsk(r *registry.Resolver[chatModel]) string {
	answer, err := registry.Call(context.Background(), r, greet)
	if err != nil {
		panic(err)
	}
	return answer
}

// Three strategies side by side: one that is ready to use, one of your own, and turns.
func Example_strategies() {
	cheapest := selection.New("CHEAPEST", selection.Func(func(v selection.View) int {
		best := v.Next(0)
		for i := best; i >= 0; i = v.Next(i + 1) {
			if v.At(i).Cost() < v.At(best).Cost() {
				best = i
			}
		}
		return best
	}))
	reg := registryOf(
		registry.Provider[chatModel]{Name: "west", Region: "us-west-2", Strategy: selectors.Scored()},
		registry.Provider[chatModel]{Name: "east", Region: "us-east-1", Tags: []string{"vision"}},
		registry.Provider[chatModel]{Name: "spot", Group: 1, Cost: 0.2, Strategy: cheapest},
		registry.Provider[chatModel]{Name: "steady", Group: 1, Cost: 0.9},
		registry.Provider[chatModel]{Name: "llama-a", Group: 2, Strategy: registry.StrategyRoundRobin},
		registry.Provider[chatModel]{Name: "llama-b", Group: 2},
	)
	defer func() { _ = reg.Close(context.Background()) }()

	near := chat.Bind(reg, registry.Query{Near: "us-west-1", Prefer: []string{"vision"}})
	fmt.Println(near.Explain())
	for _, name := range []string{"west", "east"} {
		p, _ := reg.Provider("chat", name)
		_ = p.MarkUnhealthy(nil)
	}
	fmt.Println(near.Explain().Winner)
	// Output:
	// service "chat" preferring vision near us-west-1
	//   group 0 NORMAL   west: eligible; score 0.75 = 0.30 load 1.00, 0.25 performance 1.00, 0.15 proximity 0.67, 0.20 specialisation 0.00, 0.10 cost 1.00
	// ▶ group 0 NORMAL   east: eligible; score 0.9 = 0.30 load 1.00, 0.25 performance 1.00, 0.15 proximity 0.33, 0.20 specialisation 1.00, 0.10 cost 1.00
	//   group 1 NORMAL   spot: eligible
	//   group 1 NORMAL   steady: eligible
	//   group 2 NORMAL   llama-a: eligible
	//   group 2 NORMAL   llama-b: eligible
	// spot
}

// What a query asks for beside capabilities filters first, whatever the strategy.
func Example_requirements() {
	reg := registryOf(
		registry.Provider[chatModel]{Name: "opus", Cost: 15, Version: "4.1"},
		registry.Provider[chatModel]{Name: "haiku", Cost: 1, Version: "3.5"},
		registry.Provider[chatModel]{Name: "sonnet", Cost: 3, Version: "4.0"},
	)
	defer func() { _ = reg.Close(context.Background()) }()

	thrifty := chat.Bind(reg, registry.Query{Where: selection.Requirements{MaxCost: 5, MinVersion: "4"}})
	fmt.Println(thrifty.Explain())
	// Output:
	// service "chat" where costing at most 5, from version 4
	// ▶ group 0 NORMAL   sonnet: eligible
	//   group 0 NORMAL   opus: costs 15, more than 5
	//   group 0 NORMAL   haiku: version "3.5", older than "4"
}

// Requests of one session stay with one provider as long as it can be asked.
func Example_sticky() {
	reg := registryOf(
		registry.Provider[chatModel]{Name: "a", Strategy: selectors.Sticky()},
		registry.Provider[chatModel]{Name: "b"},
		registry.Provider[chatModel]{Name: "c"},
	)
	defer func() { _ = reg.Close(context.Background()) }()

	model := chat.Bind(reg, registry.Query{})
	ask := func(session string) string {
		answer, err := registry.Call(selection.WithKey(context.Background(), session), model,
			func(ctx context.Context, m chatModel) (string, error) { return m.Chat(ctx, "hello") })
		if err != nil {
			panic(err)
		}
		return answer
	}
	home := ask("session 1")
	fmt.Println(ask("session 1") == home, ask("session 1") == home)

	pinned, _ := reg.Provider("chat", home)
	_ = pinned.MarkUnhealthy(nil)
	fmt.Println(ask("session 1") == home)
	_ = pinned.MarkHealthy()
	fmt.Println(ask("session 1") == home)
	// Output:
	// true true
	// false
	// true
}

// With two of three down, part of the load goes to the next group before the last one
// of the first is overrun.
func ExampleService_SetSelection() {
	reg := registryOf(
		registry.Provider[chatModel]{Name: "main"},
		registry.Provider[chatModel]{Name: "down-1"},
		registry.Provider[chatModel]{Name: "down-2"},
		registry.Provider[chatModel]{Name: "spare", Group: 1},
	)
	defer func() { _ = reg.Close(context.Background()) }()

	if _, err := chat.SetSelection(reg, selection.Policy{SpillOver: 1.4, MaxEjected: 0.5, Seed: 1}); err != nil {
		panic(err)
	}
	for _, name := range []string{"down-1", "down-2"} {
		p, _ := reg.Provider("chat", name)
		_ = p.MarkUnhealthy(nil)
	}
	counts := map[string]int{}
	for range 300 {
		counts[mustAsk(chat.Bind(reg, registry.Query{}))]++
	}
	fmt.Println(counts)
	// Output: map[main:140 spare:160]
}

func ExampleRegistry_Analytics() {
	reg := registryOf(
		registry.Provider[chatModel]{Name: "a", Weight: 3, Strategy: selectors.WeightedRoundRobin()},
		registry.Provider[chatModel]{Name: "b"},
	)
	defer func() { _ = reg.Close(context.Background()) }()

	for range 400 {
		mustAsk(chat.Bind(reg, registry.Query{}))
	}
	_, _ = chat.Get(context.Background(), reg, registry.Query{Require: []string{"vision"}})

	analytics, _ := reg.Analytics("chat")
	for _, p := range analytics.Providers {
		fmt.Printf("%s %.0f%%\n", p.Provider, 100*p.Share)
	}
	fmt.Println(analytics.MissesByReason)
	// Output:
	// a 75%
	// b 25%
	// map[capability_missing:1]
}

func ExampleRegistry_Decisions() {
	reg, err := registry.New(registry.Options{Decisions: 100})
	if err != nil {
		panic(err)
	}
	defer func() { _ = reg.Close(context.Background()) }()
	for _, name := range []string{"a", "b"} {
		if _, err := chat.Register(context.Background(), reg, registry.Provider[chatModel]{
			Name: name, Instance: says(name), Strategy: selectors.LeastLoaded(),
		}); err != nil {
			panic(err)
		}
	}
	mustAsk(chat.Bind(reg, registry.Query{}))
	for _, d := range reg.Decisions() {
		fmt.Printf("%s by %v, of %d eligible; %s\n", strings.Repeat("?", len(d.Provider)), d.Strategy, d.Eligible, d.Detail)
	}
	// Output: ? by LEAST_LOADED, of 2 eligible; load 1
}

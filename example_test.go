package registry_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/capreg/registry"
	"github.com/capreg/registry/event"
	"github.com/capreg/registry/verdict"
)

// registryOf returns a registry with the given providers of the chat service;
// those without an instance and a factory answer with their names.
func registryOf(providers ...registry.Provider[chatModel]) *registry.Registry {
	reg, err := registry.New(registry.Options{})
	if err != nil {
		panic(err)
	}
	for _, p := range providers {
		if p.Instance == nil && p.Factory == nil {
			p.Instance = says(p.Name)
		}
		if _, err := chat.Register(context.Background(), reg, p); err != nil {
			panic(err)
		}
	}
	return reg
}

// fails returns a model that always fails.
func fails(err error) chatModel {
	return chatFunc(func(context.Context, string) (string, error) { return "", err })
}

// greet makes a call that says hello.
func greet(ctx context.Context, m chatModel) (string, error) { return m.Chat(ctx, "hello") }

func ExampleRegistry() {
	ctx := context.Background()
	reg, err := registry.New(registry.Options{Required: []string{"chat"}})
	if err != nil {
		panic(err)
	}
	defer func() { _ = reg.Close(ctx) }()

	if _, err := chat.Register(ctx, reg, registry.Provider[chatModel]{Name: "gpt", Instance: says("hi")}); err != nil {
		panic(err)
	}
	if err := reg.WaitReady(ctx); err != nil {
		panic(err)
	}
	for info := range reg.All() {
		fmt.Println(info.Service, info.Name, info.Priority, info.Eligible)
	}
	stats := reg.Stats()
	fmt.Println(stats.Services, stats.Providers, stats.Eligible)
	// Output:
	// chat gpt NORMAL true
	// 1 1 1
}

func ExampleNew() {
	_, err := registry.New(registry.Options{DrainTimeout: -time.Second})
	fmt.Println(err)
	// Output:
	// registry: invalid input: Options.DrainTimeout is -1s: want 0 (default 30s) or more
}

func ExampleService() {
	ctx := context.Background()
	type embedder func(text string) int
	embeddings := registry.NewService[embedder]("embeddings") // usually a package-level variable

	reg := registryOf()
	defer func() { _ = reg.Close(ctx) }()
	_, err := embeddings.Register(ctx, reg, registry.Provider[embedder]{Instance: func(text string) int { return len(text) }})
	if err != nil {
		panic(err)
	}
	size, err := registry.Call(ctx, embeddings.Bind(reg, registry.Query{}), func(_ context.Context, embed embedder) (int, error) {
		return embed("word"), nil
	})
	fmt.Println(size, err)

	// A name is bound to one Go type per registry.
	other := registry.NewService[io.Reader]("embeddings")
	_, err = other.Get(ctx, reg, registry.Query{})
	fmt.Println(errors.Is(err, registry.ErrConflict))
	// Output:
	// 4 <nil>
	// true
}

// A factory makes the client when it is first needed.
func ExampleProvider_factory() {
	ctx := context.Background()
	reg := registryOf(registry.Provider[chatModel]{
		Name: "gpt",
		Factory: func(context.Context) (chatModel, error) {
			fmt.Println("connecting")
			return says("hi"), nil
		},
	})
	defer func() { _ = reg.Close(ctx) }()

	llm := chat.Bind(reg, registry.Query{})
	fmt.Println("nothing yet")
	for range 2 {
		fmt.Println(registry.Call(ctx, llm, greet))
	}
	// Output:
	// nothing yet
	// connecting
	// hi <nil>
	// hi <nil>
}

// Descriptions of providers can come from a file.
func ExampleDefinition() {
	ctx := context.Background()
	var definitions []registry.Definition
	if err := json.Unmarshal([]byte(`[
		{"name": "gpt", "priority": "CRITICAL", "capabilities": ["tools"], "metadata": {"model": "gpt-4o"}},
		{"name": "llama", "group": 1}
	]`), &definitions); err != nil {
		panic(err)
	}
	reg := registryOf()
	defer func() { _ = reg.Close(ctx) }()
	for _, definition := range definitions {
		p := chat.Provider(definition)
		p.Instance = says("I am " + definition.Name)
		registration, err := chat.Register(ctx, reg, p)
		if err != nil {
			panic(err)
		}
		text, _ := json.Marshal(registration.Definition())
		fmt.Println(string(text))
	}
	// Output:
	// {"service":"chat","name":"gpt","capabilities":["tools"],"priority":"CRITICAL","group":0,"strategy":"FALLBACK","weight":1,"metadata":{"model":"gpt-4o"}}
	// {"service":"chat","name":"llama","priority":"NORMAL","group":1,"strategy":"FALLBACK","weight":1}
}

// A handler sees its own providers before the global ones.
func ExampleQuery() {
	ctx := context.Background()
	reg := registryOf(
		registry.Provider[chatModel]{Name: "global", Capabilities: []string{"chat"}},
		registry.Provider[chatModel]{Name: "for-speech", Handler: "speak", Capabilities: []string{"chat", "voice"}},
	)
	defer func() { _ = reg.Close(ctx) }()

	for _, query := range []registry.Query{
		{},
		{Handler: "speak"},
		{Handler: "listen", Require: []string{"chat"}},
		{Require: []string{"voice"}},
	} {
		_, err := chat.Get(ctx, reg, query)
		fmt.Println(chat.Bind(reg, query).Explain().Winner, err)
	}
	// Output:
	// global <nil>
	// for-speech <nil>
	// global <nil>
	//  registry: no provider available: service "chat" requiring voice: global: capability missing: "voice"
}

func ExampleResolver_Get() {
	ctx := context.Background()
	reg := registryOf(registry.Provider[chatModel]{Name: "gpt"})
	defer func() { _ = reg.Close(ctx) }()

	llm := chat.Bind(reg, registry.Query{}) // keep it
	model, err := llm.Get(ctx)
	if err != nil {
		panic(err)
	}
	fmt.Println(model.Chat(ctx, "hello"))
	// Output:
	// gpt <nil>
}

func ExampleResolver_GetAll() {
	ctx := context.Background()
	reg := registryOf(
		registry.Provider[chatModel]{Name: "gpt"}, registry.Provider[chatModel]{Name: "claude"},
		registry.Provider[chatModel]{Name: "llama", Group: 1},
	)
	defer func() { _ = reg.Close(ctx) }()

	models, err := chat.Bind(reg, registry.Query{}).GetAll(ctx, 2)
	if err != nil {
		panic(err)
	}
	for _, model := range models {
		fmt.Println(model.Chat(ctx, "hello"))
	}
	// Output:
	// gpt <nil>
	// claude <nil>
}

// A test call to one provider, whatever the strategy would pick.
func ExampleQuery_only() {
	ctx := context.Background()
	reg := registryOf(registry.Provider[chatModel]{Name: "gpt"}, registry.Provider[chatModel]{Name: "claude"})
	defer func() { _ = reg.Close(ctx) }()

	claude := chat.Bind(reg, registry.Query{Only: []string{"claude"}})
	fmt.Println(registry.Call(ctx, claude, func(ctx context.Context, model chatModel) (string, error) {
		return model.Chat(ctx, "hello")
	}))
	// Output:
	// claude <nil>
}

func ExampleResolver_Do() {
	ctx := context.Background()
	reg := registryOf(
		registry.Provider[chatModel]{Name: "gpt", Instance: fails(errors.New("connection reset"))},
		registry.Provider[chatModel]{Name: "claude"},
	)
	defer func() { _ = reg.Close(ctx) }()

	err := chat.Bind(reg, registry.Query{}).Do(ctx, func(ctx context.Context, model chatModel) error {
		_, err := model.Chat(ctx, "hello")
		return err
	})
	fmt.Println(err)
	// Output:
	// <nil>
}

// A broadcast: every provider gets the message, and each outcome counts.
func ExampleResolver_Each() {
	ctx := context.Background()
	reg := registryOf(
		registry.Provider[chatModel]{Name: "terminal"},
		registry.Provider[chatModel]{Name: "mail", Instance: fails(errors.New("mailbox full"))},
		registry.Provider[chatModel]{Name: "pager"},
	)
	defer func() { _ = reg.Close(ctx) }()

	outcomes, err := chat.Bind(reg, registry.Query{}).Each(ctx, func(ctx context.Context, model chatModel) error {
		_, err := model.Chat(ctx, "fire!")
		return err
	}, registry.MaxParallel(8))
	fmt.Println(err != nil)
	for _, outcome := range outcomes {
		fmt.Println(outcome.Provider, outcome.Class, outcome.Err)
	}
	// Output:
	// true
	// terminal success <nil>
	// mail unknown mailbox full
	// pager success <nil>
}

// A fan-out whose outcomes are reported one by one, such as when each is known.
func ExampleResolver_AcquireAll() {
	ctx := context.Background()
	reg := registryOf(
		registry.Provider[chatModel]{Name: "terminal"},
		registry.Provider[chatModel]{Name: "mail", Instance: fails(errors.New("mailbox full"))},
		registry.Provider[chatModel]{Name: "pager"},
	)
	defer func() { _ = reg.Close(ctx) }()

	leases, err := chat.Bind(reg, registry.Query{}).AcquireAll(ctx, 0)
	if err != nil {
		panic(err)
	}
	for _, lease := range leases {
		_, err := lease.Value.Chat(lease.Context(), "fire!")
		lease.Done(err)
		fmt.Println(lease.Provider(), err)
	}
	// Output:
	// terminal <nil>
	// mail mailbox full
	// pager <nil>
}

func ExampleResolver_Explain() {
	ctx := context.Background()
	reg := registryOf(registry.Provider[chatModel]{Name: "gpt"}, registry.Provider[chatModel]{Name: "claude"})
	defer func() { _ = reg.Close(ctx) }()
	gpt, _ := reg.Provider("chat", "gpt")
	if err := gpt.MarkUnhealthy(errors.New("maintenance")); err != nil {
		panic(err)
	}
	fmt.Println(chat.Bind(reg, registry.Query{}).Explain())
	// Output:
	// service "chat"
	//   group 0 NORMAL   gpt: unhealthy: maintenance
	// ▶ group 0 NORMAL   claude: eligible
}

func ExampleCall() {
	ctx := context.Background()
	reg := registryOf(
		registry.Provider[chatModel]{Name: "gpt", Instance: fails(errors.New("connection reset"))},
		registry.Provider[chatModel]{Name: "claude"},
	)
	defer func() { _ = reg.Close(ctx) }()

	llm := chat.Bind(reg, registry.Query{})
	reply, err := registry.Call(ctx, llm, func(ctx context.Context, m chatModel) (string, error) {
		return m.Chat(ctx, "hello")
	})
	fmt.Println(reply, err)
	// Output:
	// claude <nil>
}

func ExampleCallError() {
	ctx := context.Background()
	errReset := errors.New("connection reset")
	reg := registryOf(
		registry.Provider[chatModel]{Name: "gpt", Instance: fails(errReset)},
		registry.Provider[chatModel]{Name: "claude", Instance: fails(verdict.RateLimited(errors.New("slow down"), time.Minute))},
	)
	defer func() { _ = reg.Close(ctx) }()

	_, err := registry.Call(ctx, chat.Bind(reg, registry.Query{}), greet)
	fmt.Println(errors.Is(err, errReset))
	var failed *registry.CallError
	if errors.As(err, &failed) {
		for _, attempt := range failed.Attempts {
			fmt.Println(attempt.Provider, "|", attempt.Class, "|", attempt.Err)
		}
	}
	// Output:
	// true
	// gpt | unknown | connection reset
	// claude | rate limited | slow down
}

func ExampleUnavailableError() {
	ctx := context.Background()
	reg := registryOf(registry.Provider[chatModel]{Name: "gpt"})
	defer func() { _ = reg.Close(ctx) }()
	gpt, _ := reg.Provider("chat", "gpt")
	if err := gpt.MarkUnhealthy(errors.New("maintenance")); err != nil {
		panic(err)
	}
	_, err := registry.Call(ctx, chat.Bind(reg, registry.Query{}), greet)
	fmt.Println(errors.Is(err, registry.ErrUnavailable), errors.Is(err, registry.ErrUnhealthy))
	var unavailable *registry.UnavailableError
	if errors.As(err, &unavailable) {
		fmt.Println(unavailable.Candidates()[0])
	}
	// Output:
	// true true
	// gpt: unhealthy: maintenance
}

func ExampleFieldError() {
	reg := registryOf()
	defer func() { _ = reg.Close(context.Background()) }()
	_, err := chat.Register(context.Background(), reg, registry.Provider[chatModel]{
		Instance: says("hi"), Capabilities: []string{"chat", " tools"},
	})
	var bad *registry.FieldError
	if errors.As(err, &bad) {
		fmt.Println(bad.Field, "|", bad.Value, "|", bad.Bound)
	}
	fmt.Println(errors.Is(err, registry.ErrInvalid))
	// Output:
	// Capabilities[1] | " tools" | no space at its ends
	// true
}

// A payment must not be made twice: once the function was entered, no other
// provider is tried, whatever the error.
func ExampleOnceOnly() {
	ctx := context.Background()
	reg := registryOf(
		registry.Provider[chatModel]{Name: "bank", Instance: fails(errors.New("connection reset"))},
		registry.Provider[chatModel]{Name: "other-bank"},
	)
	defer func() { _ = reg.Close(ctx) }()
	_, err := registry.Call(ctx, chat.Bind(reg, registry.Query{}), greet, registry.OnceOnly())
	var failed *registry.CallError
	fmt.Println(errors.As(err, &failed) && len(failed.Attempts) == 1)
	// Output:
	// true
}

// A lease is for work that does not fit into one function.
func ExampleLease() {
	ctx := context.Background()
	reg := registryOf(registry.Provider[chatModel]{Name: "gpt"})
	defer func() { _ = reg.Close(ctx) }()

	lease, err := chat.Bind(reg, registry.Query{}).Acquire(ctx)
	if err != nil {
		panic(err)
	}
	reply, err := lease.Value.Chat(lease.Context(), "hello")
	lease.Done(err) // once; forgotten, it would end as a failure when its time is over
	fmt.Println(lease.Provider(), reply, err)
	// Output:
	// gpt gpt <nil>
}

func ExampleBreakerPolicy() {
	ctx := context.Background()
	reg := registryOf(registry.Provider[chatModel]{
		Name: "gpt", Instance: fails(errors.New("connection reset")),
		Breaker: registry.BreakerPolicy{FailureThreshold: 3, RecoveryTimeout: 2 * time.Minute},
	})
	defer func() { _ = reg.Close(ctx) }()
	gpt, _ := reg.Provider("chat", "gpt")
	llm := chat.Bind(reg, registry.Query{})
	for range 3 {
		fmt.Print(gpt.Breaker().State, " ")
		_, _ = registry.Call(ctx, llm, greet)
	}
	fmt.Println(gpt.Breaker().State)
	_, err := registry.Call(ctx, llm, greet)
	fmt.Println(errors.Is(err, registry.ErrBreakerOpen))
	// Output:
	// closed closed closed open
	// true
}

func ExampleSubscription() {
	ctx := context.Background()
	reg := registryOf(registry.Provider[chatModel]{Name: "gpt"})
	changes := reg.Subscribe(0)
	defer changes.Close()
	for _, info := range changes.Snapshot() {
		fmt.Println("there is", info.Name)
	}
	gpt, _ := reg.Provider("chat", "gpt")
	if err := gpt.MarkUnhealthy(errors.New("maintenance")); err != nil {
		panic(err)
	}
	if err := reg.Close(ctx); err != nil {
		panic(err)
	}
	for e := range changes.All(ctx) {
		fmt.Println(e.Kind)
	}
	// Output:
	// there is gpt
	// unhealthy
	// closing
	// draining
	// drained
	// closed
}

// An alarm hears of what an operator has to act on, and of nothing else.
func ExampleRegistry_Subscribe() {
	ctx := context.Background()
	reg := registryOf(registry.Provider[chatModel]{Name: "gpt"}, registry.Provider[chatModel]{Name: "claude"})
	alarms := reg.Subscribe(0,
		event.Filter{Kinds: []event.Kind{event.Parked, event.SelectorFailed}},
		event.Filter{Kinds: []event.Kind{event.Unhealthy}, Providers: []string{"gpt"}},
	)
	for _, name := range []string{"gpt", "claude"} {
		p, _ := reg.Provider("chat", name)
		if err := p.MarkUnhealthy(errors.New("maintenance")); err != nil {
			panic(err)
		}
	}
	if err := reg.Close(ctx); err != nil {
		panic(err)
	}
	for e := range alarms.All(ctx) {
		fmt.Println(e.Provider, e.Kind)
	}
	// Output:
	// gpt unhealthy
}

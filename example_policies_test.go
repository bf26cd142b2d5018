package registry_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/capreg/registry"
	"github.com/capreg/registry/verdict"
)

// Two models behind one key share its concurrency and its rate limit.
func ExampleLimitPolicy() {
	ctx := context.Background()
	reg := registryOf(
		registry.Provider[chatModel]{Name: "large", Domain: "key-1", Limits: registry.LimitPolicy{MaxConcurrent: 1, NoQueue: true}},
		registry.Provider[chatModel]{Name: "small", Domain: "key-1"},
		registry.Provider[chatModel]{Name: "local", Group: 1},
	)
	defer func() { _ = reg.Close(ctx) }()
	llm := chat.Bind(reg, registry.Query{})

	lease, err := llm.Acquire(ctx) // takes the one place of key-1
	if err != nil {
		panic(err)
	}
	fmt.Println(lease.Provider())
	fmt.Println(registry.Call(ctx, llm, greet))
	lease.Done(nil)
	fmt.Println(registry.Call(ctx, llm, greet))
	// Output:
	// large
	// local <nil>
	// large <nil>
}

// What a provider has in force, and what is in use of it.
func ExampleInfo() {
	ctx := context.Background()
	reg := registryOf(registry.Provider[chatModel]{Name: "large", Limits: registry.LimitPolicy{MaxConcurrent: 4}})
	defer func() { _ = reg.Close(ctx) }()
	lease, err := chat.Bind(reg, registry.Query{}).Acquire(ctx)
	if err != nil {
		panic(err)
	}
	defer lease.Done(nil)

	large, _ := reg.Provider("chat", "large")
	info := large.Info()
	fmt.Printf("%v: %d of %d places\n", info.Code, info.InUse.Places, info.Limits.MaxConcurrent)
	fmt.Println("tokens for further attempts:", info.Budget.Left, "of", info.Retry.Budget)

	previous, err := large.SetLimits(registry.LimitPolicy{MaxConcurrent: 8})
	fmt.Println(previous.MaxConcurrent, large.Limits().MaxConcurrent, err)
	// Output:
	// eligible: 1 of 4 places
	// tokens for further attempts: 10 of 10
	// 4 8 <nil>
}

func ExampleRetryPolicy() {
	ctx := context.Background()
	calls := 0
	flaky := chatFunc(func(context.Context, string) (string, error) {
		if calls++; calls == 1 {
			return "", errors.New("connection reset")
		}
		return "flaky", nil
	})
	reg := registryOf(
		registry.Provider[chatModel]{
			Name: "flaky", Instance: flaky,
			Retry: registry.RetryPolicy{Retries: 2, FirstDelay: time.Millisecond},
		},
		registry.Provider[chatModel]{Name: "spare"},
	)
	defer func() { _ = reg.Close(ctx) }()
	fmt.Println(registry.Call(ctx, chat.Bind(reg, registry.Query{}), greet))
	// Output:
	// flaky <nil>
}

func ExampleReportTo() {
	ctx := context.Background()
	reg := registryOf(
		registry.Provider[chatModel]{Name: "gpt", Instance: fails(verdict.RateLimited(errors.New("slow down"), time.Minute))},
		registry.Provider[chatModel]{Name: "claude"},
	)
	defer func() { _ = reg.Close(ctx) }()
	var report registry.CallReport
	_, err := registry.Call(ctx, chat.Bind(reg, registry.Query{}), greet, registry.ReportTo(&report))
	if err != nil {
		panic(err)
	}
	for _, attempt := range report.Attempts {
		fmt.Println(attempt.Provider, "|", attempt.Why, "|", attempt.Class)
	}
	// Output:
	// gpt | first | rate limited
	// claude | failover | success
}

// The key is the same on whatever provider the call ends up, so that a server
// which has seen it does not do the work twice.
func ExampleIdempotencyKey() {
	ctx := context.Background()
	reg := registryOf(
		registry.Provider[chatModel]{Name: "bank"},
		registry.Provider[chatModel]{Name: "bank-2"},
	)
	defer func() { _ = reg.Close(ctx) }()
	keys := map[string]bool{}
	_, err := registry.Call(ctx, chat.Bind(reg, registry.Query{}), func(ctx context.Context, m chatModel) (string, error) {
		keys[registry.IdempotencyKey(ctx)] = true
		if name, _ := m.Chat(ctx, "pay"); name == "bank" {
			return "", errors.New("connection reset")
		}
		return "paid", nil
	})
	fmt.Println(len(keys), err)
	// Output:
	// 1 <nil>
}

// Hooks see every call and attempt, and add values to the context.
func ExampleOptions_hooks() {
	ctx := context.Background()
	type requestID struct{}
	reg, err := registry.New(registry.Options{
		Hooks: registry.Hooks{
			BeforeCall: func(ctx context.Context, _ registry.CallReport) context.Context {
				return context.WithValue(ctx, requestID{}, "request-7")
			},
			AfterAttempt: func(ctx context.Context, _ registry.CallReport, a registry.Attempt) {
				fmt.Println(ctx.Value(requestID{}), a.Provider, a.Class)
			},
		},
	})
	if err != nil {
		panic(err)
	}
	defer func() { _ = reg.Close(ctx) }()
	if _, err := chat.Register(ctx, reg, registry.Provider[chatModel]{Name: "gpt", Instance: says("hi")}); err != nil {
		panic(err)
	}
	fmt.Println(registry.Call(ctx, chat.Bind(reg, registry.Query{}), greet))
	// Output:
	// request-7 gpt success
	// hi <nil>
}

// An observer adds hooks of its own to a registry that another part of the program has made, and removes them when it
// has seen enough.
func ExampleRegistry_AddHooks() {
	ctx := context.Background()
	reg := registryOf(registry.Provider[chatModel]{Name: "gpt", Instance: says("hi")})
	defer func() { _ = reg.Close(ctx) }()
	for _, name := range []string{"tracer", "meter"} {
		remove, err := reg.AddHooks(registry.Hooks{
			BeforeCall: func(ctx context.Context, r registry.CallReport) context.Context {
				fmt.Println(name, "before a call of", r.Service)
				return ctx
			},
			AfterCall: func(_ context.Context, r registry.CallReport) { fmt.Println(name, "after", len(r.Attempts), "attempt") },
		})
		if err != nil {
			panic(err)
		}
		defer remove()
	}
	fmt.Println(registry.Call(ctx, chat.Bind(reg, registry.Query{}), greet))
	// Output:
	// tracer before a call of chat
	// meter before a call of chat
	// meter after 1 attempt
	// tracer after 1 attempt
	// hi <nil>
}

// Changes in the log, by the standard library. Warnings are for what an operator may want to act on.
func ExampleOptions_slog() {
	ctx := context.Background()
	handler := slog.NewTextHandler(os.Stdout, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey || a.Key == "until" {
			return slog.Attr{}
		}
		return a
	}})
	reg, err := registry.New(registry.Options{Slog: slog.New(handler)})
	if err != nil {
		panic(err)
	}
	gpt, err := chat.Register(ctx, reg, registry.Provider[chatModel]{Name: "gpt", Instance: says("hi")})
	if err != nil {
		panic(err)
	}
	if err := errors.Join(gpt.ForceOpen(time.Minute, "maintenance"), reg.Close(ctx)); err != nil {
		panic(err)
	}
	// Output:
	// level=INFO msg="registry registered" event=registry.registered sequence=1 service=chat provider=gpt
	// level=WARN msg="registry breaker_opened" event=registry.breaker_opened sequence=2 service=chat provider=gpt from=closed to=open reason=maintenance
	// level=INFO msg="registry closing" event=registry.closing sequence=3
	// level=INFO msg="registry draining" event=registry.draining sequence=4 service=chat provider=gpt reason="registry closing"
	// level=INFO msg="registry drained" event=registry.drained sequence=5 service=chat provider=gpt
	// level=INFO msg="registry closed" event=registry.closed sequence=6
}

// The last resort is tried although its breaker is open, when no other
// provider is left.
func ExampleProvider_lastResort() {
	ctx := context.Background()
	reg := registryOf(registry.Provider[chatModel]{Name: "only", LastResort: true})
	defer func() { _ = reg.Close(ctx) }()
	only, _ := reg.Provider("chat", "only")
	if err := only.ForceOpen(time.Hour, "maintenance"); err != nil {
		panic(err)
	}
	fmt.Println(registry.Call(ctx, chat.Bind(reg, registry.Query{}), greet))
	fmt.Println(only.Breaker().State)
	// Output:
	// only <nil>
	// open
}

// A new configuration comes into force at one moment, or not at all.
func ExampleUpdate() {
	ctx := context.Background()
	reg := registryOf(
		registry.Provider[chatModel]{Name: "first"},
		registry.Provider[chatModel]{Name: "second"},
	)
	defer func() { _ = reg.Close(ctx) }()
	llm := chat.Bind(reg, registry.Query{})

	var next registry.Update
	next.Remove("chat", "first")
	next.SetStrategy("chat", "second", registry.StrategyRoundRobin)
	chat.AddTo(&next, registry.Provider[chatModel]{
		Name: "third", Priority: registry.PriorityHigh, Strategy: registry.StrategyRoundRobin,
		Factory: func(context.Context) (chatModel, error) { return nil, errors.New("wrong key") },
	})
	fmt.Println(reg.Update(ctx, &next))
	fmt.Println(registry.Call(ctx, llm, greet))

	next = registry.Update{}
	next.Remove("chat", "first")
	next.SetPriority("chat", "second", registry.PriorityHigh)
	fmt.Println(reg.Update(ctx, &next))
	fmt.Println(registry.Call(ctx, llm, greet))
	// Output:
	// Update[2]: registry: provider "chat/third" has not proven itself: not ready: wrong key
	// first <nil>
	// <nil>
	// second <nil>
}

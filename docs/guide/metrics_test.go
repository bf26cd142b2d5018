package guide_test

import (
	"context"
	"errors"
	"expvar"
	"fmt"

	"github.com/capreg/registry"
)

// counters count calls and attempts, by labels that are few.
type counters struct{ calls, attempts expvar.Map }

// count puts the counters into the options of a registry.
func (c *counters) count(options registry.Options) registry.Options {
	options.Hooks.AfterCall = func(_ context.Context, r registry.CallReport) {
		outcome := "ok"
		if r.Err != nil {
			outcome = "failed"
		}
		c.calls.Add(r.Service+" "+outcome, 1)
	}
	options.Hooks.AfterAttempt = func(_ context.Context, r registry.CallReport, a registry.Attempt) {
		c.attempts.Add(r.Service+" "+a.Provider+" "+a.Class.String()+" "+string(a.Why), 1)
	}
	return options
}

// gauges returns what is read when the metrics are: it costs calls nothing.
func gauges(reg *registry.Registry) map[string]float64 {
	values := make(map[string]float64)
	for info := range reg.All() {
		labels := info.Service + " " + info.Name
		values["in flight "+labels] = float64(info.InFlight)
		values["latency "+labels] = info.MeanLatency.Seconds()
		values["breaker "+labels] = float64(info.Breaker.State)
		values["health "+labels] = info.Health.Score
	}
	return values
}

// transitions counts the changes of state, until ctx or the registry ends.
func transitions(ctx context.Context, changes *registry.Subscription, counts *expvar.Map) {
	defer changes.Close()
	for e := range changes.All(ctx) {
		counts.Add(string(e.Kind), 1)
		counts.Add("lost", int64(e.Lost)) // by a reader that is too slow
	}
}

func Example_metrics() {
	ctx := context.Background()
	var c counters
	reg, err := registry.New(c.count(registry.Options{}))
	if err != nil {
		panic(err)
	}
	changes := reg.Subscribe(1024)
	if err := registerModels(ctx, reg, model{"openai", errors.New("connection reset")}, model{"anthropic", nil}, model{"local", nil}); err != nil {
		panic(err)
	}
	if _, err := ask(ctx, LLM.Bind(reg, registry.Query{})); err != nil {
		panic(err)
	}
	fmt.Println(c.calls.String())
	fmt.Println(c.attempts.String())
	fmt.Println(gauges(reg)["health llm openai"])
	if err := reg.Close(ctx); err != nil {
		panic(err)
	}
	var kinds expvar.Map
	transitions(ctx, changes, &kinds) // in a program: in a goroutine of its own
	fmt.Println(kinds.Get("registered"), kinds.Get("lost"))
	// Output:
	// {"llm ok": 1}
	// {"llm anthropic success failover": 1, "llm openai unknown first": 1}
	// 1
	// 3 0
}

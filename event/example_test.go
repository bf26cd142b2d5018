package event_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/capreg/registry"
	"github.com/capreg/registry/event"
)

// A breaker opens, is reset by hand, and a weight is changed: what an alarm would hear of is the first.
func ExampleEvent() {
	ctx := context.Background()
	reg, err := registry.New(registry.Options{})
	if err != nil {
		panic(err)
	}
	changes := reg.Subscribe(0)
	cloud, err := registry.NewService[string]("llm").Register(ctx, reg, registry.Provider[string]{Name: "cloud", Instance: "a client"})
	if err != nil {
		panic(err)
	}
	_, changed := cloud.SetWeight(2)
	if err := errors.Join(cloud.ForceOpen(time.Minute, "maintenance"), cloud.Reset(), changed, reg.Close(ctx)); err != nil {
		panic(err)
	}
	for e := range changes.All(ctx) {
		switch e.Kind {
		case event.BreakerOpened, event.Unhealthy, event.Parked:
			fmt.Printf("ALARM %s: %s: %s\n", e.Provider, e.Kind, e.Reason)
		case event.Changed:
			fmt.Printf("%s: %s from %s to %s\n", e.Provider, e.Reason, e.From, e.To)
		case event.BreakerClosed:
			fmt.Printf("%s: %s\n", e.Provider, e.Kind)
		default: // the others are for the log
		}
	}
	// Output:
	// cloud: weight from 1 to 2
	// ALARM cloud: breaker_opened: maintenance
	// cloud: breaker_closed
}

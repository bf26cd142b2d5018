package registry_test

import (
	"context"
	"errors"
	"fmt"

	"github.com/capreg/registry"
	"github.com/capreg/registry/startup"
)

// The agent starts when its model is ready and registered, whatever the order in
// which they are given.
func ExampleOrchestrator() {
	ctx := context.Background()
	reg, err := registry.New(registry.Options{})
	if err != nil {
		panic(err)
	}
	defer func() { _ = reg.Close(ctx) }()

	agent := registry.Component{
		Name: "agent", Needs: startup.Capabilities("chat"),
		Start: func(ctx context.Context, _ *startup.Run) error {
			answer, err := registry.Call(ctx, chat.Bind(reg, registry.Query{}), greet)
			fmt.Println("agent started, asked", answer)
			return err
		},
		Stop: func(context.Context) error { fmt.Println("agent stopped"); return nil },
	}
	model := registry.Component{
		Name: "model", Provides: []string{"chat"},
		Start: func(context.Context, *startup.Run) error { fmt.Println("model loaded"); return nil },
		Stop:  func(context.Context) error { fmt.Println("model unloaded"); return nil },
		Register: []func(context.Context, *registry.Registry) (*registry.Registration, error){
			func(ctx context.Context, reg *registry.Registry) (*registry.Registration, error) {
				return chat.Register(ctx, reg, registry.Provider[chatModel]{Name: "llama", Instance: says("llama")})
			},
		},
	}
	o, err := registry.NewOrchestrator(reg, startup.Options{}, agent, model)
	if err != nil {
		panic(err)
	}
	fmt.Println(o.Plan())
	report, err := o.Start(ctx)
	fmt.Println(report.Chain, err)
	fmt.Println(o.Stop(ctx))
	// Output:
	// batch 1: model
	// batch 2: agent (after model)
	// model loaded
	// agent started, asked llama
	// [model agent] <nil>
	// agent stopped
	// model unloaded
	// <nil>
}

// Everything that is wrong with what components need is told at once.
func ExampleNewOrchestrator() {
	_, err := registry.NewOrchestrator(nil, startup.Options{},
		registry.Component{Name: "web", Needs: startup.Capabilities("sessions", "metrcs")},
		registry.Component{Name: "sessions", Provides: []string{"sessions"}, Needs: []startup.Need{{Component: "web"}}},
		registry.Component{Name: "metrics", Provides: []string{"metrics"}},
	)
	var wrong *startup.PlanError
	if errors.As(err, &wrong) {
		fmt.Println(wrong.Missing[0].Need, wrong.Missing[0].Nearest)
		fmt.Println(wrong.Cycles[0])
	}
	// Output:
	// "metrcs" [metrics]
	// "web" needs "sessions" of "sessions", which needs component "web" of "web"
}

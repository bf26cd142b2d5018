package startup_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/capreg/registry"
	"github.com/capreg/registry/startup"
)

// What a component waits for: a capability of any provider, one it can do without, and a component by name.
func ExampleNeed() {
	app := registry.Component{Name: "app", Needs: []startup.Need{
		{Capability: "sql", Any: true},
		{Capability: "cache", Optional: true},
		{Component: "migration"},
	}}
	for _, need := range app.Needs {
		fmt.Println(need)
	}
	o, err := registry.NewOrchestrator(nil, startup.Options{}, app,
		registry.Component{Name: "postgres", Provides: []string{"sql"}},
		registry.Component{Name: "replica", Provides: []string{"sql"}},
		registry.Component{Name: "migration", Needs: startup.Capabilities("sql")},
	)
	if err != nil {
		panic(err)
	}
	fmt.Println(o.Plan())
	// Output:
	// "sql" (any)
	// "cache" (optional)
	// component "migration"
	// batch 1: postgres, replica
	// batch 2: migration (after postgres, replica)
	// batch 3: app (after postgres, replica, migration)
}

// A server says itself when it is ready, and its work goes on until it is stopped.
func ExampleRun() {
	server := registry.Component{
		Name: "server", Notifies: true,
		Start: func(_ context.Context, run *startup.Run) error {
			run.Go(func(ctx context.Context) error {
				fmt.Println("listening")
				run.Ready()
				<-ctx.Done()
				fmt.Println("closed")
				return nil
			})
			return nil
		},
	}
	o, err := registry.NewOrchestrator(nil, startup.Options{}, server)
	if err != nil {
		panic(err)
	}
	report, err := o.Start(context.Background())
	fmt.Println(report.Chain, err)
	fmt.Println(o.Stop(context.Background()))
	// Output:
	// listening
	// [server] <nil>
	// closed
	// <nil>
}

// A start without one of its parts: what needs it is skipped, the others run.
func ExamplePolicy() {
	o, err := registry.NewOrchestrator(nil, startup.Options{OnFailure: startup.SkipDependants},
		registry.Component{Name: "search", Provides: []string{"search"}, Start: func(context.Context, *startup.Run) error {
			return errors.New("no index")
		}},
		registry.Component{Name: "suggestions", Needs: startup.Capabilities("search")},
		registry.Component{Name: "shop"},
	)
	if err != nil {
		panic(err)
	}
	_, err = o.Start(context.Background())
	fmt.Println(err)
	for _, name := range []string{"search", "suggestions", "shop"} {
		state, _ := o.State(name)
		fmt.Println(name, state)
	}
	fmt.Println(o.Stop(context.Background()))
	// Output:
	// <nil>
	// search failed
	// suggestions skipped
	// shop ready
	// <nil>
}

// A report that is printed has the critical chain, the last component first, and what did not become ready.
func ExampleReport() {
	report := startup.Report{
		Wall: 2700 * time.Millisecond, CriticalPath: 2700 * time.Millisecond, Efficiency: 1, Chain: []string{"db", "app", "web"},
		Components: []startup.Component{
			{Name: "db", State: startup.Ready, Ready: 1500 * time.Millisecond},
			{Name: "cache", State: startup.Ready, Ready: 100 * time.Millisecond},
			{Name: "app", State: startup.Ready, Started: 1500 * time.Millisecond, Ready: 2500 * time.Millisecond},
			{Name: "web", State: startup.Ready, Started: 2500 * time.Millisecond, Ready: 2700 * time.Millisecond},
		},
	}
	fmt.Println(report)
	// Output:
	// 4 components in 2.7s, critical path 2.7s, efficiency 100 %
	// web @2.5s +200ms
	//   app @1.5s +1s
	//     db @0s +1.5s
}

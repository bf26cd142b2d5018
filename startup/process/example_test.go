//go:build unix

package process_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"regexp"
	"time"

	"github.com/capreg/registry"
	"github.com/capreg/registry/startup"
	"github.com/capreg/registry/startup/process"
)

// A server that is a process, a migration that waits for it, and a function that waits for the migration.
func ExampleComponent() {
	server, err := process.Component(process.Options{
		Component: registry.Component{
			Name: "server", Provides: []string{"sql"},
			Restart: startup.Restart{Mode: startup.OnFailure},
		},
		Command: "/bin/sh", Args: []string{"-c", "echo ready to accept connections; exec sleep 1000"},
		Ready: process.Ready{Line: regexp.MustCompile("ready to accept")},
		Grace: 2 * time.Second,
	})
	if err != nil {
		panic(err)
	}
	migration, err := process.Component(process.Options{
		Component: registry.Component{
			Name: "migration", Needs: startup.Capabilities("sql"), Provides: []string{"schema"},
			Completes: true, // with status 0
		},
		Command: "/bin/sh", Args: []string{"-c", "echo 12 tables made"},
		Stdout: os.Stdout,
	})
	if err != nil {
		panic(err)
	}
	app := registry.Component{
		Name: "app", Needs: startup.Capabilities("schema"),
		Start: func(context.Context, *startup.Run) error { fmt.Println("app started"); return nil },
		Stop:  func(context.Context) error { fmt.Println("app stopped"); return nil },
	}
	o, err := registry.NewOrchestrator(nil, startup.Options{}, app, migration, server)
	if err != nil {
		panic(err)
	}
	report, err := o.Start(context.Background())
	fmt.Println(report.Chain, err)
	for _, name := range report.Chain {
		state, _ := o.State(name)
		fmt.Println(name, state)
	}
	fmt.Println(o.Stop(context.Background()))
	// Output:
	// 12 tables made
	// app started
	// [server migration app] <nil>
	// server ready
	// migration completed
	// app ready
	// app stopped
	// <nil>
}

// The end of a process that is a failure says how it ended and what it wrote last.
func ExampleExitError() {
	server, err := process.Component(process.Options{
		Component: registry.Component{Name: "server"},
		Command:   "/bin/sh", Args: []string{"-c", "echo cannot open server.conf >&2; exit 2"},
		Ready: process.Ready{Port: "127.0.0.1:50321"},
	})
	if err != nil {
		panic(err)
	}
	o, err := registry.NewOrchestrator(nil, startup.Options{}, server)
	if err != nil {
		panic(err)
	}
	_, err = o.Start(context.Background())
	var exit *process.ExitError
	if errors.As(err, &exit) {
		fmt.Println(exit.Command, exit.Code, exit.Lines)
	}
	// Output: sh 2 [cannot open server.conf]
}

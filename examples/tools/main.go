//go:build unix

// Command tools is an agent that works with the tools of three MCP servers, none of which can be relied on:
//
//   - files is a child process that speaks MCP through its standard input and output. It is killed once, and suspended
//     once, while it is called.
//   - search is a server of streamable HTTP in front of two indexes, of which one is broken. Its tool is a service of a registry.
//   - notes is a server of streamable HTTP that starts 20 s late.
//
// The agent starts without waiting for the last one, its calls wait for the servers that are away, and none is lost.
//
//	go run ./examples/tools
//	go run ./examples/tools -late 2s
//
// servers.go has the servers, which this program starts itself; agent.go has the agent.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"regexp"
	"syscall"
	"time"

	"github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/capreg/registry"
	registrymcp "github.com/capreg/registry/contrib/mcp"
	"github.com/capreg/registry/startup"
	"github.com/capreg/registry/startup/process"
)

// Tools is the service: its providers are the tools of the servers.
var Tools = registry.NewService[registrymcp.Tool]("tools")

func main() {
	if len(os.Args) > 1 && os.Args[1] == serveCommand {
		if err := serve(os.Args[2:]); err != nil {
			fmt.Fprintln(os.Stderr, "server:", err)
			os.Exit(1)
		}
		return
	}
	late := flag.Duration("late", 20*time.Second, "how late the server of notes starts")
	calls := flag.Int("calls", 60, "the number of calls to each server")
	flag.Parse()
	ctx, release := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Stdout, *late, *calls)
	release()
	if err != nil {
		fmt.Fprintln(os.Stderr, "tools:", err)
		os.Exit(1)
	}
}

// run starts the servers, lets the agent make its calls, and stops everything.
func run(ctx context.Context, out io.Writer, late time.Duration, calls int) (err error) {
	reg, err := registry.New(registry.Options{})
	if err != nil {
		return err
	}
	stopping := context.WithoutCancel(ctx)
	defer func() { err = errors.Join(err, reg.Close(stopping)) }()
	tools, err := registrymcp.NewTools(reg, Tools, registrymcp.ToolsOptions{Wait: late + 20*time.Second})
	if err != nil {
		return err
	}
	components, err := servers(tools, late)
	if err != nil {
		return err
	}
	orchestrator, err := registry.NewOrchestrator(reg, startup.Options{}, components...)
	if err != nil {
		return err
	}
	report, err := orchestrator.Start(ctx)
	defer func() { err = errors.Join(err, orchestrator.Stop(stopping)) }()
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintf(out, "%v\n\n", report); err != nil {
		return err
	}
	for _, c := range report.Components {
		if _, err := fmt.Fprintf(out, "%-15s %-8s %s\n", c.Name, c.Kind, c.Detail); err != nil {
			return err
		}
	}
	a := agent{tools: tools, out: out, calls: calls, began: time.Now()}
	a.work(ctx)
	return ctx.Err()
}

// servers returns the components: two for a server that is a child, its process and its tools, and as many for one that is
// reached by HTTP.
func servers(tools *registrymcp.Tools, late time.Duration) (all []registry.Component, err error) {
	program, err := os.Executable()
	if err != nil {
		return nil, err
	}
	command := func(name string, arguments ...string) process.Options {
		return process.Options{
			Component: registry.Component{Name: name, Restart: startup.Restart{Mode: startup.OnFailure}},
			Command:   program, Args: append([]string{serveCommand}, arguments...),
		}
	}
	files := command("files process", "files")
	searchAddress, err := freeAddress()
	if err != nil {
		return nil, err
	}
	search := command("search server", "search", searchAddress)
	search.Ready.Line = regexp.MustCompile("listening")
	notesAddress, err := freeAddress()
	if err != nil {
		return nil, err
	}
	notes := command("notes server", "notes", notesAddress, late.String())
	for _, o := range []registrymcp.Options{
		{
			Name: "files", Process: &files, Configure: configure,
			PingInterval: 500 * time.Millisecond, PingTimeout: 300 * time.Millisecond, Patience: time.Second,
		},
		{
			Name: "search", URL: "http://" + searchAddress, Configure: configure,
			Component: registry.Component{Needs: []startup.Need{{Component: search.Component.Name}}},
		},
		{
			Name: "notes", URL: "http://" + notesAddress, Late: true, Configure: configure,
			Component: registry.Component{Needs: []startup.Need{{Component: notes.Component.Name}}},
		},
	} {
		components, err := registrymcp.Components(tools, o)
		if err != nil {
			return nil, err
		}
		all = append(all, components...)
	}
	for _, o := range []process.Options{search, notes} {
		component, err := process.Component(o)
		if err != nil {
			return nil, err
		}
		all = append(all, component)
	}
	return all, nil
}

// configure bounds a call to one server: the tools of this example answer at once.
func configure(_ *mcp.Tool, p *registry.Provider[registrymcp.Tool]) { p.AttemptTimeout = time.Second }

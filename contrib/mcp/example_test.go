package registrymcp_test

import (
	"context"
	"fmt"

	"github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/capreg/registry"
	registrymcp "github.com/capreg/registry/contrib/mcp"
	"github.com/capreg/registry/startup"
)

// Greeter is a service of a program.
type Greeter interface {
	Greet(ctx context.Context, name string) (string, error)
}

type polite struct{}

func (polite) Greet(_ context.Context, name string) (string, error) { return "Good day, " + name, nil }

var greeters = registry.NewService[Greeter]("greeters")

type greeting struct {
	Text string `json:"text"`
}

// greetingServer offers the greeters of a registry as a tool.
func greetingServer(reg *registry.Registry) *mcp.Server {
	server := mcp.NewServer(&mcp.Implementation{Name: "greetings", Version: "1.0"}, nil)
	err := registrymcp.Offer(server, &mcp.Tool{Name: "greet", Annotations: &mcp.ToolAnnotations{ReadOnlyHint: true}},
		greeters.Bind(reg, registry.Query{}),
		func(ctx context.Context, g Greeter, in struct {
			Name string `json:"name" jsonschema:"the name to greet"`
		},
		) (greeting, error) {
			text, err := g.Greet(ctx, in.Name)
			return greeting{text}, err
		})
	if err != nil {
		panic(err)
	}
	return server
}

// A service of a registry is a tool of an MCP server, and that tool is a provider of another service. The server of this
// example runs in the same program; others are a Process or have a URL.
func Example() {
	ctx := context.Background()
	reg, err := registry.New(registry.Options{})
	if err != nil {
		panic(err)
	}
	if _, err := greeters.Register(ctx, reg, registry.Provider[Greeter]{Name: "polite", Instance: polite{}}); err != nil {
		panic(err)
	}
	server := greetingServer(reg)

	tools, err := registrymcp.NewTools(reg, registry.NewService[registrymcp.Tool]("tools"), registrymcp.ToolsOptions{})
	if err != nil {
		panic(err)
	}
	components, err := registrymcp.Components(tools, registrymcp.Options{
		Name: "greetings",
		Dial: func(ctx context.Context) (mcp.Transport, error) {
			ofServer, ofClient := mcp.NewInMemoryTransports()
			_, err := server.Connect(ctx, ofServer, nil)
			return ofClient, err
		},
	})
	if err != nil {
		panic(err)
	}
	orchestrator, err := registry.NewOrchestrator(reg, startup.Options{}, components...)
	if err != nil {
		panic(err)
	}
	if _, err := orchestrator.Start(ctx); err != nil {
		panic(err)
	}
	for _, tool := range tools.All(ctx) {
		fmt.Println(tool.Name, tool.Err)
	}
	result, err := tools.Call(ctx, "greetings/greet", map[string]string{"name": "Ada"})
	fmt.Println(result.StructuredContent, err)
	fmt.Println(orchestrator.Stop(ctx), reg.Close(ctx))
	// Output:
	// greetings/greet <nil>
	// map[text:Good day, Ada] <nil>
	// <nil> <nil>
}

// Package registrymcp makes the tools of MCP servers providers of a service, and the services of a registry tools of an
// MCP server.
//
// [Components] makes a server a part of an orchestrated start: a child process that speaks MCP through its standard
// input and output, or an endpoint of streamable HTTP. Each of its tools is a provider of a registry.Service[Tool] and
// a capability, SET/TOOL, with a breaker, limits and a timeout of its own; [Tools.Call] calls it:
//
//	var Service = registry.NewService[registrymcp.Tool]("tools")
//
//	tools, err := registrymcp.NewTools(reg, Service, registrymcp.ToolsOptions{})
//	...
//	files, err := registrymcp.Components(tools, registrymcp.Options{
//		Name: "files", Process: &process.Options{Command: "npx", Args: []string{"-y", "@modelcontextprotocol/server-filesystem", "."}},
//	})
//	...
//	orchestrator, err := registry.NewOrchestrator(reg, startup.Options{}, files...)
//	...
//	result, err := tools.Call(ctx, "files/read_file", map[string]any{"path": "go.mod"})
//
// # What it promises
//
//   - A server that goes down takes nothing with it. Its tools stay, marked out with the reason, and are up again when it
//     is back: a child is started again, a server elsewhere is connected again, once for all callers. A server
//     that is suspended or hangs is found out by questions whether it answers.
//   - A call ends with an answer or an error, by its context at the latest, whatever the server does: it is killed, it
//     reads nothing, it writes what is no message, it never answers. The error says what happened; where the server was
//     down it matches [ErrDown].
//   - A call fails over to the replicas of its server ([Options.Set]), and waits for a while when all are down. A tool is
//     called a second time only where that is safe: nothing was processed, or all its servers say that it only reads or
//     is idempotent.
//   - Calls are those of package registry: attempts, breakers, limits, hooks and reports are its own. Cancellation and
//     progress ([WithProgress]) are passed on.
//   - A list of tools counts when all its pages were read. A tool that is missing in one is suspected, and removed when later
//     lists confirm that, for [Options.ConfirmTime]; it may be called meanwhile. Lists are read again when the server
//     says that they have changed, and from time to time. A tool whose definition changes stays the provider that
//     it is, with its state.
//   - When the component stops, nothing of it is left: no goroutine, no process, no connection.
//
// That a server is down is no failure of the tools that were called, and no breaker hears of it. A tool whose calls have
// seen their server go down three times in a row is kept away from it for half a minute, by its breaker, for the sake of the
// others.
//
// # Servers
//
// [Offer] adds a tool to an MCP server whose calls are calls of a service. Its context passes progress on, so a
// gateway is a tool that calls [Tools.Call].
package registrymcp

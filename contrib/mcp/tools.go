package registrymcp

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/capreg/registry"
	"github.com/capreg/registry/internal/check"
	"github.com/capreg/registry/verdict"
)

// ToolsOptions configure [NewTools]. The zero value of each field is its default.
type ToolsOptions struct {
	// Query is that of every call, beside the tool, such as a handler. Default: the zero query.
	Query registry.Query
	// Wait bounds the time for which a call waits for a server of its tool to come back, or to come at all, within its
	// context. Default: 5 s; negative: it does not wait.
	Wait time.Duration
}

// Tools are the tools of MCP servers, the providers of one service. It is safe for concurrent use, and starts no goroutine.
type Tools struct {
	registry *registry.Registry
	service  registry.Service[Tool]
	options  ToolsOptions

	mu        sync.Mutex // guards the fields below; nothing else is locked while it is held
	servers   map[*server]struct{}
	byName    map[string][]*remoteTool // by capability
	resolvers map[string]*registry.Resolver[Tool]
}

// NewTools returns the tools of a service, which has none until a server of [Components] has. The error is a
// [registry.FieldError].
func NewTools(reg *registry.Registry, service registry.Service[Tool], options ToolsOptions) (*Tools, error) {
	if reg == nil {
		return nil, &registry.FieldError{Field: "reg", Value: "nil", Bound: "a registry", Err: registry.ErrInvalid}
	}
	if v := (check.Range[time.Duration]{Max: longestTime}).Check("ToolsOptions.Wait", max(options.Wait, 0)); v != nil {
		return nil, &registry.FieldError{Field: v.Field, Value: v.Value, Bound: v.Bound, Err: registry.ErrInvalid}
	}
	options.Wait = cmp.Or(options.Wait, 5*time.Second)
	return &Tools{
		registry: reg, service: service, options: options, servers: make(map[*server]struct{}),
		byName: make(map[string][]*remoteTool), resolvers: make(map[string]*registry.Resolver[Tool]),
	}, nil
}

// Service returns the service, for calls with queries, leases or hedges of one's own. Such a call has to be
// [registry.OnceOnly] unless the tool [IsRepeatable].
func (t *Tools) Service() registry.Service[Tool] { return t.service }

// Entry describes a tool.
type Entry struct {
	// Name is the name to call it by, SET/TOOL.
	Name string
	// Definition is that of its first server, by name. It is not to be changed.
	Definition *mcp.Tool
	// Servers are the names of its servers, in order.
	Servers []string
	// Suspected is the time since which all of its servers lack it in their lists; zero: they do not.
	Suspected time.Time
	// Err says why no call could be given to it now; nil when one could.
	Err error
}

// All returns the tools that are known, by name: also those whose servers are down.
func (t *Tools) All(ctx context.Context) (all []Entry) {
	t.mu.Lock()
	byName := make(map[string][]*remoteTool, len(t.byName))
	for name, tools := range t.byName {
		byName[name] = slices.SortedFunc(slices.Values(tools), func(a, b *remoteTool) int { return cmp.Compare(a.server.Name, b.server.Name) })
	}
	t.mu.Unlock()
	for _, name := range slices.Sorted(maps.Keys(byName)) {
		e := Entry{Name: name, Definition: byName[name][0].Definition(), Err: t.resolver(name).Ready()}
		for i, tool := range byName[name] {
			e.Servers = append(e.Servers, tool.server.Name)
			since := tool.server.catalog.suspectedSince(ctx, tool.Definition().Name)
			if i == 0 || since.IsZero() || !e.Suspected.IsZero() && since.After(e.Suspected) {
				e.Suspected = since
			}
		}
		all = append(all, e)
	}
	return all
}

// Call calls a tool, by its name SET/TOOL, on the best of its servers, and on the next one where the outcome allows it, as
// [registry.Call] does. A tool that is not repeatable by the word of each of its servers ([IsRepeatable]) is called with
// [registry.OnceOnly].
//
// When all servers of the tool are down, or nothing was processed, it waits for one to be back, for up to
// [ToolsOptions.Wait]; then it calls again, and so it does when a repeatable tool's server went down or was silent
// meanwhile. It does not wait for breakers and limits.
//
// arguments are an object: a struct, a map or [json.RawMessage]; nil is an empty one. A result with IsError is an answer.
// The error is that of [registry.Call]; it matches [ErrDown] where servers were down.
func (t *Tools) Call(ctx context.Context, name string, arguments any, options ...registry.CallOption) (*mcp.CallToolResult, error) {
	text, err := encoded(arguments)
	if err != nil {
		return nil, err
	}
	resolver := t.resolver(name)
	var waiting waiting
	for {
		isRepeatable := t.isRepeatable(name)
		asked := options
		if !isRepeatable {
			asked = append(slices.Clip(options), registry.OnceOnly())
		}
		result, err := registry.Call(ctx, resolver, func(ctx context.Context, tool Tool) (*mcp.CallToolResult, error) {
			return tool.Call(ctx, text)
		}, asked...)
		if err == nil || !t.mayAgain(err, name, isRepeatable) || !waiting.wait(ctx, resolver, t.options.Wait) {
			return result, err
		}
	}
}

// resolver returns the resolver of a tool, which is kept while the tool is known.
func (t *Tools) resolver(name string) *registry.Resolver[Tool] {
	t.mu.Lock()
	defer t.mu.Unlock()
	if r := t.resolvers[name]; r != nil {
		return r
	}
	query := t.options.Query
	query.Require = append(slices.Clip(query.Require), name)
	r := t.service.Bind(t.registry, query)
	if len(t.byName[name]) > 0 {
		t.resolvers[name] = r
	}
	return r
}

// isRepeatable reports whether a tool may be called twice, by the word of each of its servers.
func (t *Tools) isRepeatable(name string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.byName[name]) > 0 && !slices.ContainsFunc(t.byName[name], func(tool *remoteTool) bool { return !IsRepeatable(tool.Definition()) })
}

// isExpected reports whether a server of that tool's set has not been there yet.
func (t *Tools) isExpected(name string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	for s := range t.servers {
		if prefix := s.Set + "/"; len(name) > len(prefix) && name[:len(prefix)] == prefix && !s.hasListed() {
			return true
		}
	}
	return false
}

func (s *server) hasListed() bool {
	select {
	case <-s.listed:
		return true
	default:
		return false
	}
}

// mayAgain reports whether a call that has failed may and should be made again when a server is back.
func (t *Tools) mayAgain(err error, name string, isRepeatable bool) bool {
	var unavailable *registry.UnavailableError
	var failed *registry.CallError
	switch {
	case errors.As(err, &failed):
		return len(failed.Attempts) > 0 && !slices.ContainsFunc(failed.Attempts, func(a registry.Attempt) bool {
			switch a.Class {
			case verdict.ClassNotSent, verdict.ClassNotForMe, verdict.ClassCannot:
				return false
			case verdict.ClassRemoved, verdict.ClassTransport, verdict.ClassAttemptTimeout, verdict.ClassCut:
				return !isRepeatable
			default:
				return true
			}
		})
	case errors.As(err, &unavailable):
		return errors.Is(err, registry.ErrUnhealthy) || t.isExpected(name)
	}
	return false
}

// waiting is the patience of one call.
type waiting struct {
	since time.Time // of the first failure
	pause time.Duration
}

// wait waits for a provider, and reports whether there is one in time. Calls that fail again and again wait longer each time.
func (w *waiting) wait(ctx context.Context, resolver *registry.Resolver[Tool], most time.Duration) bool {
	if w.since.IsZero() {
		w.since, w.pause = time.Now(), 5*time.Millisecond
	}
	left := most - time.Since(w.since)
	if left <= 0 {
		return false
	}
	limited, cancel := context.WithTimeout(ctx, left)
	defer cancel()
	pause := time.NewTimer(w.pause)
	defer pause.Stop()
	w.pause *= 2
	select {
	case <-pause.C:
		return resolver.WaitReady(limited) == nil
	case <-limited.Done():
		return false
	}
}

func (t *Tools) join(s *server) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.servers[s] = struct{}{}
}

func (t *Tools) leave(s *server) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.servers, s)
}

func (t *Tools) add(name string, tool *remoteTool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.byName[name] = append(t.byName[name], tool)
}

func (t *Tools) drop(name string, tool *remoteTool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.byName[name] = slices.DeleteFunc(t.byName[name], func(other *remoteTool) bool { return other == tool })
	if len(t.byName[name]) == 0 {
		delete(t.byName, name)
		delete(t.resolvers, name)
	}
}

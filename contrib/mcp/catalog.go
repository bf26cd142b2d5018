package registrymcp

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/modelcontextprotocol/go-sdk/mcp"
	"go.uber.org/zap"

	"github.com/capreg/registry"
	"github.com/capreg/registry/contrib/mcp/internal/toollist"
	"github.com/capreg/registry/internal/fault"
	"github.com/capreg/registry/status"
)

// A tool that is called each time that its server goes down is kept away from it for a while, for the sake of the others.
const (
	mostLosses = 3
	keptAway   = 30 * time.Second
)

// catalog keeps the providers of a server's tools in step with what is known of them: they stay when the server is down,
// marked out, and come and go with its lists.
type catalog struct {
	server *server

	// changing is held by the change that goes on, which runs code of the user: a channel, so that to wait for it can
	// end. It guards the next four fields.
	changing chan struct{}
	isOpen   bool
	known    toollist.Known
	entries  map[string]*entry
	silent   time.Time // of the last answer before the server was down

	mu    sync.Mutex // guards the field below; nothing else is locked while it is held
	state error      // why the server is down; nil when it is up
}

// entry is a tool that is registered.
type entry struct {
	tool         *remoteTool
	registration *registry.Registration
}

func newCatalog(s *server) *catalog {
	return &catalog{server: s, changing: make(chan struct{}, 1), entries: make(map[string]*entry)}
}

// begin begins a change; the caller ends it with end, unless there is an error.
func (c *catalog) begin(ctx context.Context) error {
	select {
	case c.changing <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (c *catalog) end() { <-c.changing }

// reason returns why the server is down; nil when it is up.
func (c *catalog) reason() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.state
}

// open registers what is known, and what will be.
func (c *catalog) open(ctx context.Context) error {
	if err := c.begin(ctx); err != nil {
		return err
	}
	defer c.end()
	c.isOpen = true
	return c.register(ctx, c.known.Names())
}

// shut removes the providers, and waits for their calls within ctx.
func (c *catalog) shut(ctx context.Context) error {
	if err := c.begin(ctx); err != nil {
		return err
	}
	defer c.end()
	c.isOpen = false
	errs := make(chan error, len(c.entries))
	for name, e := range c.entries {
		c.server.tools.drop(c.server.capability(name), e.tool)
		go func() { errs <- e.registration.Unregister(ctx) }()
	}
	var all []error
	for range c.entries {
		if err := <-errs; err != nil {
			all = append(all, err)
		}
	}
	clear(c.entries)
	return errors.Join(all...)
}

// learn takes a complete list.
func (c *catalog) learn(ctx context.Context, list map[string]*mcp.Tool) error {
	if err := c.begin(ctx); err != nil {
		return err
	}
	defer c.end()
	change := c.known.Learn(list, time.Now(), c.server.ConfirmTime, isSame)
	c.server.log("list of tools", zap.Int("tools", len(list)), zap.Strings("added", change.Added), zap.Strings("changed", change.Changed),
		zap.Strings("suspected", change.Suspected), zap.Strings("removed", change.Removed))
	for _, name := range change.Changed {
		if e := c.entries[name]; e != nil {
			e.tool.definition.Store(c.known.Tool(name))
		}
	}
	c.remove(ctx, change.Removed)
	if !c.isOpen {
		return nil
	}
	return c.register(ctx, change.Added)
}

// isInDoubt reports whether a further list is wanted soon.
func (c *catalog) isInDoubt(ctx context.Context) bool {
	if c.begin(ctx) != nil {
		return false
	}
	defer c.end()
	return c.known.IsInDoubt()
}

// suspectedSince returns since when a tool is missing in lists.
func (c *catalog) suspectedSince(ctx context.Context, name string) (since time.Time) {
	if c.begin(ctx) == nil {
		defer c.end()
		since = c.known.SuspectedSince(name)
	}
	return since
}

// isSame reports whether two definitions are the same.
func isSame(a, b *mcp.Tool) bool {
	first, err := json.Marshal(a)
	second, err2 := json.Marshal(b)
	return err == nil && err2 == nil && string(first) == string(second)
}

// register registers tools that are known; the change is held.
func (c *catalog) register(ctx context.Context, names []string) error {
	var all []error
	for _, name := range names {
		if c.entries[name] != nil {
			continue
		}
		e, err := c.registerOne(ctx, name)
		if err != nil {
			all = append(all, fmt.Errorf("tool %q: %w", name, err))
			continue
		}
		c.entries[name] = e
		if why := c.reason(); why != nil {
			_ = e.registration.MarkUnhealthy(c.server.lost(why))
		}
	}
	err := errors.Join(all...)
	if err != nil {
		c.server.log("tools are not registered", zap.String("error", fault.Text(err)))
	}
	return err
}

func (c *catalog) registerOne(ctx context.Context, name string) (*entry, error) {
	s, definition := c.server, c.known.Tool(name)
	tool := &remoteTool{server: s}
	tool.definition.Store(definition)
	p := registry.Provider[Tool]{
		Name: s.Name + "/" + name, Instance: tool, Capabilities: []string{s.capability(name)}, Description: definition.Description,
		Tags: []string{s.Set}, Metadata: map[string]string{"server": s.Name, "tool": name},
	}
	if s.Configure != nil {
		if err := fault.Run(func() error { s.Configure(definition, &p); return nil }); err != nil {
			return nil, fault.Wrap("Configure: ", err)
		}
	}
	s.tools.add(s.capability(name), tool)
	registration, err := s.tools.service.Register(ctx, s.tools.registry, p)
	if err != nil {
		s.tools.drop(s.capability(name), tool)
		return nil, err
	}
	return &entry{tool, registration}, nil
}

// remove removes tools that are gone, without waiting for their calls; the change is held.
func (c *catalog) remove(ctx context.Context, names []string) {
	var gone registry.Update
	for _, name := range names {
		if e := c.entries[name]; e != nil {
			c.server.tools.drop(c.server.capability(name), e.tool)
			gone.Remove(c.server.tools.service.Name(), e.registration.Name())
			delete(c.entries, name)
		}
	}
	_ = c.server.tools.registry.Update(ctx, &gone) // what has left already is as gone
}

// markOut marks all tools out for a reason. The server's last answer was at the given time.
func (c *catalog) markOut(ctx context.Context, why error, silent time.Time) {
	if c.begin(ctx) != nil {
		return
	}
	defer c.end()
	if c.change(why) == nil {
		c.silent = silent
	}
	for _, e := range c.entries {
		_ = e.registration.MarkUnhealthy(c.server.lost(why))
	}
}

// change changes why the server is down, and returns why it was.
func (c *catalog) change(why error) (before error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	before, c.state = c.state, why
	return before
}

// markUp ends the marks. Breakers that have opened since the server was silent close: that was not the fault of the tools.
func (c *catalog) markUp(ctx context.Context) {
	if c.begin(ctx) != nil {
		return
	}
	defer c.end()
	_ = c.change(nil)
	for _, e := range c.entries {
		breaker := e.registration.Breaker()
		if breaker.State != status.BreakerClosed && !breaker.Forced && breaker.Since.After(c.silent) {
			_ = e.registration.Reset()
		}
		if losses := e.tool.losses.Load(); losses >= mostLosses && !breaker.Forced {
			_ = e.registration.ForceOpen(keptAway, fmt.Sprintf("its server went down during its calls, %d times in a row", losses))
		}
		_ = e.registration.MarkHealthy()
	}
}

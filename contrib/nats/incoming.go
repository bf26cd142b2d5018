package registrynats

import (
	"context"
	"sync"
	"time"

	"github.com/nats-io/nats.go/micro"

	"github.com/capreg/registry/registryhttp"
)

// incoming is the context of a request that is answered. It ends at the deadline of the caller, when the request was answered, and when the server
// ends its requests. Few providers wait for that, so there is a timer only for those that ask for Done.
type incoming struct {
	context.Context // of all requests, with what came with this one

	deadline time.Time

	mu     sync.Mutex      // guards what follows
	ended  context.Context // the context that ends; nil before the first Done
	cancel context.CancelFunc
	over   bool // it was answered
}

// incoming returns the context of a request, which is to be ended when that was answered.
func (s *Server) incoming(h micro.Headers) *incoming {
	m := registryhttp.Metadata{
		Correlation: h.Get(registryhttp.HeaderCorrelation),
		TraceParent: h.Get(registryhttp.HeaderTraceParent), TraceState: h.Get(registryhttp.HeaderTraceState),
	}
	if caller := h.Get(HeaderCaller); s.options.TrustCaller && isWord(caller) && len(caller) <= longestWord {
		m.Caller = caller
	}
	limit := milliseconds(h.Get(HeaderTimeout), longestRequest)
	if limit <= 0 {
		limit = longestRequest
	}
	c := &incoming{Context: s.living, deadline: time.Now().Add(limit)}
	if m != (registryhttp.Metadata{}) {
		c.Context = registryhttp.WithMetadata(c.Context, m)
	}
	if key := h.Get(HeaderIdempotencyKey); key != "" && len(key) <= longestWord && isWord(key) {
		c.Context = context.WithValue(c.Context, idempotencyKey{}, key)
	}
	return c
}

// Deadline returns the deadline of the caller.
func (c *incoming) Deadline() (time.Time, bool) { return c.deadline, true }

// Done returns the channel of a context with a timer, which it makes at first.
func (c *incoming) Done() <-chan struct{} { return c.end().Done() }

func (c *incoming) end() context.Context {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended == nil {
		c.ended, c.cancel = context.WithDeadline(c.Context, c.deadline)
		if c.over {
			c.cancel()
		}
	}
	return c.ended
}

// Err returns the error of the context that ends, which is made only where there is one.
func (c *incoming) Err() error {
	c.mu.Lock()
	goesOn := c.ended == nil && !c.over && c.Context.Err() == nil && time.Now().Before(c.deadline)
	c.mu.Unlock()
	if goesOn {
		return nil
	}
	return c.end().Err()
}

// Value returns what came with the request. Contexts that are derived from this one ask for the context that ends, after Done,
// and need no goroutine then.
func (c *incoming) Value(key any) any {
	c.mu.Lock()
	ended := c.ended
	c.mu.Unlock()
	if ended != nil {
		return ended.Value(key)
	}
	return c.Context.Value(key)
}

// answered ends the context.
func (c *incoming) answered() {
	c.mu.Lock()
	cancel := c.cancel
	c.over = true
	c.mu.Unlock()
	if cancel != nil {
		cancel()
	}
}

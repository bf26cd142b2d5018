package federation

import (
	"context"
	"encoding/base64"
	"fmt"
	"sync"
	"time"

	"github.com/capreg/registry"
	"github.com/capreg/registry/event"
	"github.com/capreg/registry/internal/fault"
	"github.com/capreg/registry/status"
	"github.com/capreg/registry/verdict"
)

const (
	cooldownPrefix   = "cooldown."
	longestCooldown  = 24 * time.Hour
	reasonOfReset    = "reset"
	waitingCooldowns = 1024
)

// CooldownOptions configures [Cooldowns].
type CooldownOptions struct {
	// Store has the cooldowns of all nodes.
	Store Store
	// Node is the name of this process.
	Node string
	// Openings shares forced openings of breakers, too. Default: they are of the process alone.
	Openings bool
}

// Cooldowns shares the cooldowns of failure domains between nodes: where one node is rate limited, or has a key refused,
// providers of a domain of that name cool down at every node. Use [NewCooldowns] to create one.
//
// A domain is shared if it has a name ([registry.Provider.Domain]), which has to mean the same at each node, such as a key or an
// account. A node that a cooldown began at tells its end to the others where it is reset ([registry.Registration.Reset]), so that
// a parked key comes back everywhere; there that resets the members of the domain, with their breakers. A cooldown that others have
// told is not told again.
//
// With [CooldownOptions.Openings], a provider whose breaker is forced open at one node ([registry.Registration.ForceOpen]) is forced
// open at all of them, its own included, until the time is over or it is reset at any of them. Which provider that is, is said by its
// node and the name that it has there, as sources name remote providers by default; providers of several nodes are the same
// if they have one service, name and domain. Openings by failures are never shared: each node sees its own.
//
// While the store cannot be reached each node goes on alone: its own cooldowns and openings hold, and those that it was told end
// in their time. What is still in force is told when it is back, with or without its data; so is a reset.
type Cooldowns struct {
	options CooldownOptions

	mu      sync.Mutex // guards what follows; no store and no registry is called with it
	running bool
	told    map[string]sharedCooldown // by domain: what other nodes have told
	own     map[string]bool           // domains whose record is this node's

	openings openings
	telling  *telling
}

// sharedCooldown is the record of a cooldown. The end of it is told in two ways, and the sooner one counts, so that a clock that is
// wrong makes no cooldown longer.
type sharedCooldown struct {
	Node   string        `json:"node"`
	Domain string        `json:"domain"`
	Class  verdict.Class `json:"class"`
	LeftMS int64         `json:"left_ms"` // when it was written
	Until  time.Time     `json:"until"`
	Reset  bool          `json:"reset,omitempty"` // it was ended, and has no time left
}

// toldError is the cause of a cooldown that another node has told.
type toldError struct{ node string }

func (e *toldError) Error() string { return "federation: node \"" + e.node + "\" has told so" }

// NewCooldowns returns a sharing of cooldowns, which does nothing before [Cooldowns.Run]. The error names the option and
// matches [registry.ErrInvalid].
func NewCooldowns(options CooldownOptions) (*Cooldowns, error) {
	if options.Store == nil {
		return nil, fmt.Errorf("federation: CooldownOptions needs a Store: %w", registry.ErrInvalid)
	}
	if err := checkNode("CooldownOptions.Node", options.Node); err != nil {
		return nil, err
	}
	return &Cooldowns{options: options}, nil
}

// Run shares cooldowns until ctx ends or the registry is closed, and returns the error of ctx or one that matches
// [registry.ErrClosed]. It runs once at a time, else the error matches [registry.ErrState]. A store that cannot be reached is
// tried again. It waits for the goroutines that it has started.
func (c *Cooldowns) Run(ctx context.Context, reg *registry.Registry) error {
	if ctx == nil || reg == nil {
		return fmt.Errorf("federation: Run needs a context and a registry: %w", registry.ErrInvalid)
	}
	c.mu.Lock()
	if c.running {
		c.mu.Unlock()
		return fmt.Errorf("federation: the cooldowns are shared already: %w", registry.ErrState)
	}
	c.running, c.told, c.own = true, map[string]sharedCooldown{}, map[string]bool{}
	c.telling = newTelling(c.options.Store)
	c.openings = openings{map[string]sharedOpening{}, map[string]bool{}, map[title]bool{}}
	c.mu.Unlock()
	living, end := context.WithCancel(ctx)
	var all sync.WaitGroup
	defer func() {
		end()
		all.Wait()
		c.mu.Lock()
		defer c.mu.Unlock()
		c.running = false
	}()
	kinds := []event.Kind{event.Cooling, event.Parked, event.CooldownEnded, event.Registered}
	if c.options.Openings {
		kinds = append(kinds, event.BreakerOpened, event.BreakerHalfOpened, event.BreakerClosed)
	}
	changes := reg.Subscribe(waitingCooldowns, event.Filter{Kinds: kinds})
	defer changes.Close()
	synced := make(chan struct{}, 1)
	all.Go(func() { c.watch(living, reg, synced) })
	all.Go(func() { c.tellAll(living, reg, synced) })
	all.Go(func() { c.telling.run(living) })
	for {
		e, err := changes.Next(ctx)
		if err != nil {
			return fmt.Errorf("federation: %w", err)
		}
		c.heard(reg, e)
	}
}

// heard tells the other nodes what an event says, as far as it is theirs to know.
func (c *Cooldowns) heard(reg *registry.Registry, e event.Event) {
	registration, there := reg.Provider(e.Service, e.Provider)
	if !there {
		return
	}
	ofBreaker := e.Kind == event.BreakerOpened || e.Kind == event.BreakerHalfOpened || e.Kind == event.BreakerClosed
	if c.options.Openings && (ofBreaker || e.Kind == event.Registered) {
		c.heardOpening(reg, registration, e)
	}
	if ofBreaker || registration.Definition().Domain == "" {
		return
	}
	domain := registration.Definition().Domain
	switch e.Kind {
	case event.Registered:
		c.mu.Lock()
		told, has := c.told[domain]
		c.mu.Unlock()
		if has {
			c.apply(reg, told)
		}
	case event.CooldownEnded:
		c.mu.Lock()
		_, told := c.told[domain]
		own := c.own[domain]
		delete(c.own, domain)
		delete(c.told, domain)
		c.mu.Unlock()
		switch {
		case e.Reason == reasonOfReset && (own || told):
			c.telling.put(cooldownKey(domain), sharedCooldown{Node: c.options.Node, Domain: domain, Reset: true})
		case own:
			c.telling.put(cooldownKey(domain), nil) // it is over, whatever the record says
		}
	default:
		c.tell(registration.Info())
	}
}

// tell tells a cooldown of a domain that began here.
func (c *Cooldowns) tell(info registry.Info) {
	now := info.Shared.Cooldown
	left := time.Until(now.Until)
	if info.Domain == "" || left <= 0 {
		return
	}
	c.mu.Lock()
	told, has := c.told[info.Domain]
	mine := !has || now.Until.After(told.Until.Add(time.Second))
	c.own[info.Domain] = c.own[info.Domain] || mine
	c.mu.Unlock()
	if mine {
		c.telling.put(cooldownKey(info.Domain), sharedCooldown{Node: c.options.Node, Domain: info.Domain, Class: now.Class, Until: now.Until})
	}
}

// now implements tellable.
func (s sharedCooldown) now() (record any, holds bool) {
	if !s.Reset {
		s.LeftMS = time.Until(s.Until).Milliseconds()
	}
	return s, s.Reset || s.LeftMS > 0
}

// resets implements tellable.
func (s sharedCooldown) resets() bool { return s.Reset }

// tellAll tells what is in force here whenever the store was read.
func (c *Cooldowns) tellAll(ctx context.Context, reg *registry.Registry, synced <-chan struct{}) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-synced:
			c.tellOpenings(reg)
			done := map[string]bool{}
			for info := range reg.All() {
				if info.Domain != "" && !done[info.Domain] {
					done[info.Domain] = true
					c.tell(info)
				}
			}
		}
	}
}

// watch follows what other nodes tell.
func (c *Cooldowns) watch(ctx context.Context, reg *registry.Registry, synced chan struct{}) {
	var all sync.WaitGroup
	defer all.Wait()
	if c.options.Openings {
		all.Go(func() {
			c.follow(ctx, openingPrefix, synced, func(record Record) {
				if s, ok := c.readOpening(record); ok && c.telling.yields(record.Key) {
					c.applyOpening(reg, &s, "")
				}
			})
		})
	}
	c.follow(ctx, cooldownPrefix, synced, func(record Record) {
		if s, ok := c.read(record); ok && c.telling.yields(record.Key) {
			c.apply(reg, s)
		}
	})
}

// follow watches the records of a prefix until ctx ends.
func (c *Cooldowns) follow(ctx context.Context, prefix string, synced chan struct{}, apply func(Record)) {
	for delay := shortestRetry; ; delay = min(2*delay, longestRetry) {
		_ = fault.Run(func() error {
			return c.options.Store.Watch(ctx, prefix, func(record Record) {
				delay = shortestRetry
				if record.Synced {
					wake(synced)
				} else {
					apply(record)
				}
			})
		})
		if !sleep(ctx, delay) {
			return
		}
	}
}

// read returns what another node tells. A record that is not of its form is left out, as is that of a cooldown that is over.
func (c *Cooldowns) read(record Record) (s sharedCooldown, ok bool) {
	if record.Deleted || decode(record.Value, &s) != nil || s.Node == c.options.Node || !isWord(s.Node) ||
		s.Domain == "" || record.Key != cooldownKey(s.Domain) || !isPlain(s.Domain) {
		return sharedCooldown{}, false
	}
	if s.Reset {
		return s, true
	}
	left := min(time.Duration(min(max(s.LeftMS, 0), longestCooldown.Milliseconds()))*time.Millisecond, time.Until(s.Until))
	s.Until = time.Now().Add(left)
	return s, left > 0
}

// apply makes the domain cool down here as another node tells, or resets it.
func (c *Cooldowns) apply(reg *registry.Registry, s sharedCooldown) {
	c.mu.Lock()
	_, was := c.told[s.Domain]
	own := c.own[s.Domain]
	if s.Reset {
		delete(c.told, s.Domain)
		delete(c.own, s.Domain)
	} else {
		c.told[s.Domain] = s
	}
	c.mu.Unlock()
	for _, registration := range reg.Registrations() {
		if registration.Definition().Domain != s.Domain {
			continue
		}
		if s.Reset {
			if was || own {
				_ = registration.Reset() // an error says that it has left
			}
			continue
		}
		_ = registration.CoolDown(status.Cooldown{Until: s.Until, Class: s.Class, Scope: verdict.ScopeDomain}, &toldError{s.Node})
		c.tell(registration.Info()) // it may be cooling down for longer, which others do not know then
		return                      // all members of the domain cool down
	}
}

func cooldownKey(domain string) string {
	return cooldownPrefix + base64.RawURLEncoding.EncodeToString([]byte(domain))
}

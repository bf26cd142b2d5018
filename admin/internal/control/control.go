// Package control is what operators can read of a registry and do to it: the one place that authorises, limits, audits
// and makes changes. The control API and the console stand on it; it knows nothing of HTTP.
package control

import (
	"context"
	"crypto/rand"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/capreg/registry"
	"github.com/capreg/registry/admin/action"
)

// Options configures a Control. Package admin fills in the defaults.
type Options struct {
	// Audit is called with each record, Logger gets one line for each. Both may be nil.
	Audit  func(action.Record)
	Logger *zap.Logger
	// Orchestrator, Configuration and Fleet are what else can be read and changed; nil: not here.
	Orchestrator  *registry.Orchestrator
	Configuration Configuration
	Fleet         Fleet
	// Events is the number of the latest events and records that are kept.
	Events int
	// ChangesPerSecond and ChangesAtOnce bound the changes of each actor, and the refused requests of each address.
	ChangesPerSecond float64
	ChangesAtOnce    int
}

// Control reads a registry and changes it for operators. Use New to create one, and Close to end it. It is safe for
// concurrent use.
type Control struct {
	registry *registry.Registry
	options  Options
	boot     string // of this process: tags and identifiers of another one mean nothing here

	feed       *feed
	snapshots  snapshots
	changes    *limiter
	refusals   *limiter
	suppressed atomic.Uint64
	revisions  revisions

	// mu makes a change and the check of what it is based on one step. It is taken before the locks of the registry, and
	// nothing that may block runs under it.
	mu      sync.Mutex
	weights map[uint64]float64 // of drained providers before that, by generation; guarded by mu

	// looking lets one at a time look at every provider for [Control.Health]: many that ask use no more than one core.
	looking sync.Mutex

	configuring chan struct{} // holds the one who applies a document
	documents   atomic.Uint64 // those that were applied here, so that a request that is sent again is based on another state

	stop context.CancelFunc
	over sync.WaitGroup
}

// New returns the control of a registry. It starts one goroutine, which ends with Close or with the registry.
func New(reg *registry.Registry, options Options) *Control {
	life, stop := context.WithCancel(context.Background())
	c := &Control{
		registry: reg, options: options, boot: rand.Text()[:10], stop: stop,
		changes:  newLimiter(options.ChangesPerSecond, options.ChangesAtOnce),
		refusals: newLimiter(options.ChangesPerSecond, options.ChangesAtOnce),
		weights:  make(map[uint64]float64), configuring: make(chan struct{}, 1),
	}
	c.feed = newFeed(c.boot, options.Events)
	c.snapshots.make = c.build
	events := reg.Subscribe(unread)
	c.over.Go(func() {
		defer events.Close()
		c.feed.follow(life, events)
	})
	return c
}

// Close ends what New has started, and wakes all readers of events for good. It may be called any number of times.
func (c *Control) Close() {
	c.stop()
	c.over.Wait()
	c.feed.end()
}

// Follow returns a cursor over the events and records that come after the one of that ID; see [Cursor].
func (c *Control) Follow(after string) *Cursor { return c.feed.at(after) }

// Latest returns the latest events and records of a service, newest first, at most limit; an empty service stands for
// all. With audits, only records.
func (c *Control) Latest(service string, audits bool, limit int) []*Entry {
	all := c.feed.latest()
	found := make([]*Entry, 0, min(limit, len(all)))
	for i := len(all) - 1; i >= 0 && len(found) < limit; i-- {
		if e := all[i]; e.Of(service) && (e.Audit != nil || !audits) {
			found = append(found, e)
		}
	}
	return found
}

// Registry returns the registry, for what is read of it as it is.
func (c *Control) Registry() *registry.Registry { return c.registry }

// unread is the number of events that may come at once without a loss, which event.Event.Lost counts.
const unread = 16_384

// snapshotAge is the age up to which a snapshot answers again: however many pages look, it is made four times a second.
const snapshotAge = 250 * time.Millisecond

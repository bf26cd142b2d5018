package registry

import (
	"context"
	"fmt"
	"hash/maphash"
	"sync"
	"sync/atomic"
	"time"

	"github.com/capreg/registry/event"
	"github.com/capreg/registry/internal/bus"
	"github.com/capreg/registry/internal/domain"
	"github.com/capreg/registry/internal/drain"
	"github.com/capreg/registry/internal/fault"
	"github.com/capreg/registry/internal/hook"
	"github.com/capreg/registry/internal/limit"
	"github.com/capreg/registry/internal/meter"
	"github.com/capreg/registry/internal/pick"
	"github.com/capreg/registry/internal/probe"
	"github.com/capreg/registry/internal/record"
	"github.com/capreg/registry/internal/schedule"
	"github.com/capreg/registry/internal/tasks"
	"github.com/capreg/registry/selection"
)

// Registry holds the providers of services and gives out the best one that is able, healthy and admitted now.
//
// Use [New] to create a Registry; it must not be copied. All methods are safe for
// concurrent use, and none runs user code under a lock. A goroutine of the registry
// ends with the work that it was started for; [Registry.Close] waits for all of them.
type Registry struct {
	options    Options
	strategies pick.Strategies
	seed       maphash.Seed
	epoch      time.Time // of now(); set in New, so that it belongs to a bubble of synctest
	schedule   *schedule.Scheduler
	services   atomic.Pointer[map[string]*service] // copied on write, under mu
	forgotten  meter.Forgotten                     // services that are no longer listed
	hooks      hook.List[CallReport, Attempt]
	serials    atomic.Uint64 // of calls: see [call.serial]
	probes     *probe.Queue
	decisions  *record.Latest[selection.Decision]     // nil: not recorded
	returns    limit.Turns[*domain.Domain[*provider]] // of calls that wait until one comes back

	// life is the context of factories and probes; end cancels it.
	life context.Context //nolint:containedctx // the registry's own lifetime
	end  context.CancelCauseFunc

	// mu guards membership and every gate, plan, rotation table, event sequence and subscriber, so that a change
	// and its event are one step. Picking does not take it. No code of a user runs while it is held, and nothing
	// waits. The locks of breakers, drains and factories are taken before it, never after. Functions whose names
	// end in Locked are called with it held.
	mu sync.Mutex
	membership

	orchestrated int  // orchestrators that have started and do not stop; guarded by mu
	stopping     bool // the last of them stops, or has: nothing is ready any more; guarded by mu

	tasks   tasks.Group    // the goroutines of the registry, but for
	probing tasks.Group    // those of probes, recovery hooks and factories, whose contexts end first
	leaving []*drain.Drain // in Close, newest first; readable when closed is closed
	closed  chan struct{}  // closed when the first Close has ended
}

// New returns an empty registry. It starts no goroutine. The error is a [FieldError]
// that names the option that is out of bounds, and matches [ErrInvalid].
func New(options Options) (*Registry, error) {
	options, err := options.checked()
	if err != nil {
		return nil, err
	}
	known, v := pick.NewStrategies(options.Strategies)
	if v != nil {
		return nil, asFieldError("Options.", v)
	}
	timers := schedule.New()
	r := &Registry{
		options: options, strategies: known, decisions: record.NewLatest[selection.Decision](options.Decisions),
		seed: maphash.MakeSeed(), epoch: timers.Epoch(), schedule: timers,
		membership: newMembership(), closed: make(chan struct{}),
	}
	r.life, r.end = context.WithCancelCause(context.Background())
	r.world = r.newWorld()
	r.services.Store(&map[string]*service{})
	r.addCallLog()
	if set := hook.Set[CallReport, Attempt](options.Hooks); !set.Empty() {
		r.hooks.Add(set)
	}
	if options.Authorize != nil || options.PanicsAsErrors {
		r.hooks.Attend()
	}
	r.bus = bus.New(engineHost{r}, bus.Loggers{Zap: options.Logger, Slog: options.Slog})
	r.probes = probe.NewQueue(r.life, probeHost{engineHost{r}}, options.ProbeConcurrency)
	return r, nil
}

// made reports whether the registry was created by New.
func (r *Registry) made() bool { return r != nil && r.schedule != nil }

// orClosed returns the registry, or for one that was not created by New one that is empty and closed.
func (r *Registry) orClosed() *Registry {
	if r.made() {
		return r
	}
	return notMade
}

//nolint:gochecknoglobals // closed, so that it never changes
var notMade, neverIn = func() (*Registry, *provider) {
	r, _ := New(Options{}) // the zero value is valid
	registration, _ := NewService[any]("none").Register(context.Background(), r, Provider[any]{Name: "none", Instance: 0})
	_ = r.Close(context.Background())
	return r, registration.provider
}()

// orLeft returns the provider, or for a handle that was not handed out one that has left.
func (r *Registration) orLeft() *provider {
	if r != nil && r.provider != nil {
		return r.provider
	}
	return neverIn
}

func errNotMade() error {
	return invalid("Registry", raw("nil or zero"), "a registry made by New")
}

// now is the registry's clock: monotonic, and half the price of time.Now.
func (r *Registry) now() time.Duration { return time.Since(r.epoch) }

// Close shuts the registry down and waits until nothing of it runs any more.
//
// It refuses new picks and registrations at once and waits for calls and leases in flight until ctx ends, then
// cancels their contexts. It cancels factories in progress. It closes the instances that factories made and that
// are io.Closers, in reverse order of registration; instances that were passed in remain the caller's.
//
// The errors of closers are joined. When user code still runs two seconds after ctx has ended, the error names it
// and matches [ErrStuck] and the context's error; a probe, recovery hook or factory that ignores the end of its
// context is given up after ten seconds, whatever ctx. Close may be called any number of times and concurrently: each call
// waits, within its own ctx, for the first one and, where that gave up, for what it waited for.
//
// ctx should not have ended yet: a program that stops on a signal passes a fresh one.
func (r *Registry) Close(ctx context.Context) error {
	switch {
	case ctx == nil:
		return errNilContext()
	case !r.made():
		return nil // nothing of it runs
	}
	left, first := r.removeAll()
	limit := tasks.WithGrace(ctx)
	defer limit.Stop()
	if first {
		r.leaving = drainsOf(left)
		drain.FinishAll(ctx, r.leaving)
		err := r.releaseAll(limit)
		close(r.closed)
		return err
	}
	select {
	case <-r.closed:
		return r.releaseAll(limit)
	case <-limit.Over:
		return fault.Join("registry: ", append([]error{ErrStuck}, fault.OfContext(ctx)...))
	}
}

// releaseAll releases the instances in order, ends everything else, and returns an error
// that names all that did not end. It may be called again, and concurrently.
func (r *Registry) releaseAll(limit tasks.GraceWait) error {
	began := time.Now()
	failures := drain.ReleaseAll(r.leaving, limit)
	r.end(fmt.Errorf("registry: %w", ErrClosed))
	if len(failures) == 0 {
		r.schedule.Close() // otherwise it still has to expire leases that are not reported
	}
	r.mu.Lock()
	if !r.bus.Closed() {
		r.bus.Publish(event.Event{Kind: event.Closed})
		r.bus.Close()
	}
	r.mu.Unlock()
	for _, err := range []error{r.probing.WaitAtMost(tasks.StuckAfter-time.Since(began), limit), r.tasks.Wait(limit)} {
		failures = append(failures, fault.List(err)...)
	}
	if len(failures) > 0 {
		return fault.Join("registry: ", failures)
	}
	return nil
}

package registry

import (
	"context"
	"fmt"
	"time"

	"github.com/capreg/registry/event"
	"github.com/capreg/registry/internal/drain"
	"github.com/capreg/registry/internal/refusal"
	"github.com/capreg/registry/internal/schedule"
	"github.com/capreg/registry/internal/tasks"
)

// drainHost lets the drain of a provider end what the registry does for it. The lock of the drain comes before
// Registry.mu.
//
// In [Registry.Close] the release waits until it is asked for: the instances are released in an order of their own.
type drainHost struct{ provider *provider }

// Quiesce ends the lifetime watch of the provider, the timers of its breaker, its probes, and the wait for its
// factory.
func (h drainHost) Quiesce() {
	p := h.provider
	p.unwatchLifetime()
	p.breaker.StopRecovery()
	p.unwatch()
	if p.lazy != nil {
		p.lazy.Stop(p.errReleased()) // those that wait for its factory move on
	}
}

func (h drainHost) InFlight() uint64 { return h.provider.meter.Totals().InFlight }

func (h drainHost) Drained() (holdRelease bool) {
	r := h.provider.registry
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.draining, h.provider)
	h.provider.meter.Left()
	if h.provider.gateNow()&refusal.Proving == 0 {
		r.bus.Publish(h.provider.event(event.Event{Kind: event.Drained}))
	}
	return r.closing
}

// GiveUp returns the closing of what a factory made, or the wait for a run of the factory whose product comes too
// late.
func (h drainHost) GiveUp() (finish func() error, blocks bool) {
	p := h.provider
	if p.lazy == nil { // it was passed in, and remains the caller's
		p.instance.Store(nil)
		return func() error { return nil }, false
	}
	ended := p.lazy.Release(p.errReleased()) // before the swap: it makes nothing more after this
	if made := p.instance.Swap(nil); made != nil && made.Closer != nil {
		return made.Closer.Close, true
	}
	return func() error { p.lazy.AwaitEnd(); return nil }, ended != nil && !tasks.IsClosed(ended)
}

// Unfinished returns what the factory has come to.
func (h drainHost) Unfinished() error { return h.provider.lazy.EndError() }

// After runs f in a goroutine of its own: the contexts that it cancels may have methods of users.
func (h drainHost) After(d time.Duration, f func()) *schedule.Timer {
	return h.provider.registry.schedule.After(d, func() { h.Go(fmt.Sprintf("drain of provider %q", h.provider.id()), f) })
}

func (h drainHost) Go(name string, f func()) { h.provider.registry.tasks.StartLast(name, f) }

// watchLifetime removes the provider when the context ends.
func (p *provider) watchLifetime(lifetime context.Context) {
	unwatch := context.AfterFunc(lifetime, func() {
		for _, left := range p.registry.unregister(p, "lifetime ended") {
			left.drain.StartWithin(p.registry.options.DrainTimeout)
		}
	})
	p.stopLifetime.Store(&unwatch)
	if p.hasLeft() { // perhaps before the function was stored
		unwatch()
	}
}

func (p *provider) unwatchLifetime() {
	if unwatch := p.stopLifetime.Load(); unwatch != nil {
		(*unwatch)()
	}
}

// quiesceAll drains providers that have left.
func quiesceAll(left []*provider) {
	for _, p := range left {
		p.drain.Start()
	}
}

// drainsOf returns the drains of providers, in their order.
func drainsOf(left []*provider) []*drain.Drain {
	drains := make([]*drain.Drain, len(left))
	for i, p := range left {
		drains[i] = &p.drain
	}
	return drains
}

// awaitReleased waits for calls in flight, which it cancels when ctx ends, and for the release of the instances.
func awaitReleased(ctx context.Context, left []*provider) error {
	return drain.AwaitAll(ctx, drainsOf(left))
}

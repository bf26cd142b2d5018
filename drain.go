package registry

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/capreg/registry/event"
	"github.com/capreg/registry/internal/attemptctx"
	"github.com/capreg/registry/internal/fault"
	"github.com/capreg/registry/internal/oneline"
	"github.com/capreg/registry/internal/schedule"
	"github.com/capreg/registry/internal/tasks"
)

// drain ends a provider. Its states follow one another and are visible as the gate and
// two channels:
//
//	state     shown by         entered when
//	serving                    the provider joined
//	draining  gateGone         it was removed (membership.remove): no call enters it any more
//	idle      idle closed      the last call in flight has ended
//	released  released closed  its instance was given up and, if a factory made it, closed
//
// The release follows idle at once, except in [Registry.Close], which releases all
// providers in its own order.
type drain struct {
	provider *provider
	calls    attemptctx.Set // contexts of the calls in flight

	idle           chan struct{}
	idleOnce       sync.Once
	released       chan struct{}
	releaseOnce    sync.Once
	err            error // of the release; readable when released is closed
	releaseAtOnce  bool  // release when idle, also in Close; guarded by Registry.mu
	callDeadline   atomic.Pointer[schedule.Timer]
	unwatchContext atomic.Pointer[func() bool] // stops the watch over Provider.Until
}

// quiesce ends what the provider does by itself: its lifetime watch, the timers of its
// breaker, its probes, and the wait for its factory.
func (d *drain) quiesce() {
	d.unwatchLifetime()
	d.provider.breaker.StopRecovery()
	d.provider.unwatch()
	if d.provider.lazy != nil {
		d.provider.lazy.Stop(d.provider.errReleased()) // those that wait for its factory move on
	}
}

// cancelAfter drains the provider: the calls in flight may go on for the given time, then
// their contexts are cancelled. It does not block.
func (d *drain) cancelAfter(limit time.Duration) {
	d.quiesce()
	deadline := d.provider.registry.schedule.After(limit, d.cancelCalls)
	d.callDeadline.Store(deadline)
	d.checkIdle()
	if isClosed(d.idle) { // perhaps before the deadline was stored
		deadline.Stop()
	}
}

// checkIdle moves on to idle when nothing is in flight. A call checks the gate after it
// has been counted, and the gate was closed before the counts are read here, so no call
// is missed.
func (d *drain) checkIdle() {
	if d.provider.totals().InFlight != 0 {
		return
	}
	d.idleOnce.Do(func() {
		r := d.provider.registry
		r.mu.Lock()
		delete(r.draining, d.provider)
		release := !r.closing || d.releaseAtOnce
		r.bus.Publish(d.provider.event(event.Event{Kind: event.Drained}))
		r.mu.Unlock()
		close(d.idle)
		if deadline := d.callDeadline.Load(); deadline != nil {
			deadline.Stop()
		}
		if release {
			d.startRelease()
		}
	})
}

func (d *drain) awaitIdle(ctx context.Context) {
	select {
	case <-d.idle:
	case <-ctx.Done():
	}
}

// cancelCalls cancels the contexts of the calls in flight.
func (d *drain) cancelCalls() {
	d.calls.Cancel(fault.Join(fmt.Sprintf("registry: provider %q: ", d.provider.name()), []error{ErrClosed}))
}

// startRelease gives up the instance: nothing of the registry refers to it afterwards.
// An instance that a factory made is closed, in a goroutine of its own.
func (d *drain) startRelease() {
	d.releaseOnce.Do(func() {
		p := d.provider
		var ended <-chan struct{}
		if p.lazy != nil {
			ended = p.lazy.Release(p.errReleased()) // before the swap: it makes nothing more after this
		}
		made := p.instance.Swap(nil)
		if (made == nil || made.closer == nil) && (ended == nil || isClosed(ended)) {
			d.finishRelease(nil)
			return
		}
		p.registry.tasks.StartLast(fmt.Sprintf("closing of provider %q", p.name()), func() { d.closeInstance(made, ended) })
	})
}

// closeInstance closes what the factory made, or waits for the end of a run of the
// factory whose product comes too late.
func (d *drain) closeInstance(made *instance, ended <-chan struct{}) {
	err := error(&PanicError{}) // remains when Close exits the goroutine
	defer func() { d.finishRelease(err) }()
	if made != nil && made.closer != nil {
		err = fault.Run(made.closer.Close)
		return
	}
	<-ended
	err = nil
}

// finishRelease moves on to released, with the error of the closer.
func (d *drain) finishRelease(err error) {
	p := d.provider
	if err == nil && p.lazy != nil {
		err = p.lazy.DiscardError()
	}
	if err != nil {
		d.err = fault.Wrap(fmt.Sprintf("closing provider %q: ", p.name()), err)
	}
	close(d.released)
}

// release releases the instance when the provider is idle, or when the limit is over,
// and returns the error of the closer or what the release still waits for.
func (d *drain) release(limit tasks.GraceWait) error {
	select {
	case <-d.idle:
	case <-limit.Over:
	}
	d.releaseWhenIdle()
	return d.awaitReleased(limit)
}

// releaseWhenIdle releases the instance now, or at the end of the last call in flight.
func (d *drain) releaseWhenIdle() {
	r := d.provider.registry
	r.mu.Lock()
	_, busy := r.draining[d.provider]
	d.releaseAtOnce = busy
	r.mu.Unlock()
	if !busy {
		d.startRelease()
	}
}

// awaitReleased returns the error of the closer, or what the release still waits for when
// the limit is over.
func (d *drain) awaitReleased(limit tasks.GraceWait) error {
	if isClosed(d.released) {
		return d.err
	}
	select {
	case <-d.released:
		return d.err
	case <-limit.Over:
	}
	what := "closing its instance"
	if calls := d.provider.totals().InFlight; calls > 0 {
		what = oneline.Plural(calls, "call") + " in flight"
	}
	stuck := fmt.Errorf("provider %q: %w: %s", d.provider.name(), ErrStuck, what)
	return fault.Join("", append([]error{stuck}, fault.OfContext(limit.Context)...))
}

// watchLifetime removes the provider when the context ends.
func (d *drain) watchLifetime(lifetime context.Context) {
	p := d.provider
	unwatch := context.AfterFunc(lifetime, func() {
		for _, left := range p.registry.unregister(p, "lifetime ended") {
			left.drain.cancelAfter(p.registry.options.DrainTimeout)
		}
	})
	d.unwatchContext.Store(&unwatch)
	if p.hasLeft() { // perhaps before the function was stored
		unwatch()
	}
}

func (d *drain) unwatchLifetime() {
	if unwatch := d.unwatchContext.Load(); unwatch != nil {
		(*unwatch)()
	}
}

// quiesceAll ends what providers that have left do by themselves.
func quiesceAll(left []*provider) {
	for _, p := range left {
		p.drain.quiesce()
		p.drain.checkIdle()
	}
}

// awaitReleased waits for the calls in flight on providers that have left, which it
// cancels when ctx ends, and for the release of their instances.
func awaitReleased(ctx context.Context, left []*provider) error {
	limit := tasks.WithGrace(ctx)
	defer limit.Stop()
	for _, p := range left {
		select {
		case <-p.drain.released:
		case <-ctx.Done():
			p.drain.cancelCalls()
		}
	}
	var failures []error
	for _, p := range left {
		if err := p.drain.awaitReleased(limit); err != nil {
			failures = append(failures, err)
		}
	}
	if len(failures) > 0 {
		return fault.Join("registry: ", failures)
	}
	return nil
}

// isClosed reports whether the channel is closed.
func isClosed(ended <-chan struct{}) bool {
	select {
	case <-ended:
		return true
	default:
		return false
	}
}

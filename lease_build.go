package registry

import (
	"fmt"
	"time"

	"github.com/capreg/registry/internal/fault"
	"github.com/capreg/registry/reason"
	"github.com/capreg/registry/verdict"
)

// The methods of this file are for packages that are built on leases, as stream and hedge are.

// More reports whether another provider could be asked when the lease was given.
func (l *Lease[T]) More() bool { return l.made() && l.held.hasNext }

// Answered tells that the answer has begun, such as with the first item of a stream: the time until the first such
// report is the latency of the provider, rather than the time until Done. The end of the attempt timeout, or of the lease, blames
// no provider from then on. A half-open provider's lease, a trial, then keeps no other one out; its outcome still counts.
func (l *Lease[T]) Answered() {
	if !l.made() {
		return
	}
	first := l.held.firstByte.CompareAndSwap(0, int64(max(l.held.attempt.elapsed(), 1)))
	if first && l.held.attempt.trial && l.held.freed.CompareAndSwap(false, true) {
		l.held.attempt.provider.breaker.FreeTrial(l.held.attempt.generation)
	}
}

// Share returns how long the answer may take to begin: most, or less where the caller's deadline
// has to leave time for another provider, as for an attempt of [Call] without a timeout of its
// own. In that case it is cut: a holder that gives up then reports [verdict.ClassCut].
func (l *Lease[T]) Share(most time.Duration) (limit time.Duration, cut bool) {
	if !l.made() {
		return most, false
	}
	deadline, bounded := l.held.ctx.Deadline()
	if l.held.next == nil || !l.held.hasNext || !bounded {
		return most, false
	}
	p := l.held.attempt.provider
	share := p.share(time.Until(deadline), p.registry.now(), l.held.attempt.trial, l.held.next)
	return min(most, share), share < most
}

// Patience sets the time that the provider may take, where it is another than the attempt timeout, such as the time
// to the next item of a stream. A caller's deadline that comes after it, and before the answer has begun, counts
// against the provider.
func (l *Lease[T]) Patience(d time.Duration) {
	if l.made() {
		l.held.patience.Store(int64(max(d, 0)))
	}
}

// Beside returns a lease of another provider for the same call while this one goes on, as a second opinion or a
// hedge; no provider is leased twice. It blocks as [Resolver.Acquire] does. For a call that is over, or must not
// run twice, the error is the one of the call so far, and matches [ErrLeaseDone] where there is none.
func (l *Lease[T]) Beside() (*Lease[T], error) {
	if !l.made() || l.held.call.options.OnceOnly || l.held.ended.Load() || !l.held.call.openSearch() {
		if err := l.Failure(); err != nil {
			return nil, err
		}
		return nil, fmt.Errorf("registry: no other provider can be asked for this call: %w", ErrLeaseDone)
	}
	defer l.held.call.close()
	c := l.held.call.nextSearch()
	c.attempt.lastResort = l.held.attempt.lastResort // which another one may follow
	if c.allowed.Final() {
		return nil, c.failure()
	}
	c.why = reason.Hedge
	return nextLease(&c, &Lease[T]{})
}

// Failure returns the error of the call as if it ended now: for a holder that asks no other
// provider. It is nil when no attempt of it has failed.
func (l *Lease[T]) Failure() error {
	attempts := l.Attempts()
	if len(attempts) == 0 {
		return nil
	}
	shared := l.held.call
	failure := &CallError{Service: shared.query.service.name, Attempts: attempts, OnceOnly: shared.options.OnceOnly, partial: true}
	if ctx := shared.caller.Ctx; ctx.Err() != nil {
		failure.ended = fault.OfContext(ctx)
	}
	return failure.withRetryIn(shared.query)
}

// Guard runs a part of the work, such as the provider's own code, and handles its panic. The panic goes on after it
// was recorded, or, as in [Call], becomes a [verdict.PanicError] ([Options.PanicsAsErrors]) that is yet to be
// reported. A nil work is an error that matches [ErrInvalid].
func (l *Lease[T]) Guard(work func() error) (err error) {
	if work == nil {
		return invalid("work", raw("nil"), "a function")
	}
	return fault.Guard(work, func(value any) (bool, error) {
		switch {
		case value != nil && l.made() && l.held.attempt.provider.registry.options.PanicsAsErrors:
			return true, fault.Bound(fault.Panicked(value))
		case l.made() && value == nil: // runtime.Goexit
			l.held.abort(verdict.ClassExit, nil)
		case l.made():
			l.held.abort(verdict.ClassPanic, fault.Panicked(value))
		}
		return false, nil
	})
}

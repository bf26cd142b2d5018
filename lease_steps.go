package registry

import (
	"fmt"
	"time"

	"github.com/capreg/registry/internal/fault"
	"github.com/capreg/registry/reason"
)

// LeaseSteps are for packages that are built on leases, as stream and hedge are: what a holder may ask and tell between
// [Resolver.Acquire] and [Lease.Done]. Use [Lease.Steps] to get them. They are safe for concurrent use.
type LeaseSteps[T any] struct{ l *Lease[T] }

// Steps returns what packages that are built on leases need beside the other methods; other code can do without.
func (l *Lease[T]) Steps() LeaseSteps[T] { return LeaseSteps[T]{l} }

// More reports whether another provider could be asked when the lease was given.
func (s LeaseSteps[T]) More() bool { return s.l.made() && s.l.held.hasNext }

// Answered tells that the answer has begun, such as with the first item of a stream: the time until the first such
// report is the latency of the provider, rather than the time until Done. The end of the attempt timeout, or of the lease, blames
// no provider from then on. A half-open provider's lease, a trial, then keeps no other one out; its outcome still counts.
func (s LeaseSteps[T]) Answered() {
	if !s.l.made() {
		return
	}
	first := s.l.held.firstByte.CompareAndSwap(0, int64(max(s.l.held.attempt.elapsed(), 1)))
	if first && s.l.held.attempt.trial && s.l.held.freed.CompareAndSwap(false, true) {
		s.l.held.attempt.provider.breaker.FreeTrial(s.l.held.attempt.generation)
	}
}

// Share returns how long the answer may take to begin: most, or less where the caller's deadline
// has to leave time for another provider, as for an attempt of [Call] without a timeout of its
// own. In that case it is cut: a holder that gives up then reports [verdict.ClassCut].
func (s LeaseSteps[T]) Share(most time.Duration) (limit time.Duration, cut bool) {
	if !s.l.made() {
		return most, false
	}
	deadline, bounded := s.l.held.ctx.Deadline()
	if s.l.held.next == nil || !s.l.held.hasNext || !bounded {
		return most, false
	}
	p := s.l.held.attempt.provider
	share := p.share(time.Until(deadline), p.registry.now(), s.l.held.attempt.trial, s.l.held.next)
	return min(most, share), share < most
}

// Patience sets the time that the provider may take, where it is another than the attempt timeout, such as the time
// to the next item of a stream. A caller's deadline that comes after it, and before the answer has begun, counts
// against the provider.
func (s LeaseSteps[T]) Patience(d time.Duration) {
	if s.l.made() {
		s.l.held.patience.Store(int64(max(d, 0)))
	}
}

// Beside returns a lease of another provider for the same call while this one goes on, as a second opinion or a
// hedge; no provider is leased twice. It blocks as [Resolver.Acquire] does. For a call that is over, or must not
// run twice, the error is the one of the call so far, and matches [ErrLeaseDone] where there is none.
func (s LeaseSteps[T]) Beside() (*Lease[T], error) {
	if !s.l.made() || s.l.held.call.options.OnceOnly || s.l.held.ended.Load() || !s.l.held.call.openSearch() {
		if err := s.Failure(); err != nil {
			return nil, err
		}
		return nil, fmt.Errorf("registry: no other provider can be asked for this call: %w", ErrLeaseDone)
	}
	defer s.l.held.call.close()
	c := s.l.held.call.nextSearch()
	c.attempt.lastResort = s.l.held.attempt.lastResort // which another one may follow
	if c.allowed.Final() {
		return nil, c.failure()
	}
	c.why = reason.Hedge
	return nextLease(&c, &Lease[T]{})
}

// Failure returns the error of the call as if it ended now: for a holder that asks no other
// provider. It is nil when no attempt of it has failed.
func (s LeaseSteps[T]) Failure() error {
	attempts := s.l.Attempts()
	if len(attempts) == 0 {
		return nil
	}
	shared := s.l.held.call
	failure := &CallError{Service: shared.query.service.name, Attempts: attempts, OnceOnly: shared.options.OnceOnly, partial: true}
	if ctx := shared.caller.Ctx; ctx.Err() != nil {
		failure.ended = fault.OfContext(ctx)
	}
	return failure.withRetryIn(shared.query)
}

package registry

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/capreg/registry/event"
	"github.com/capreg/registry/internal/schedule"
	"github.com/capreg/registry/verdict"
)

// Lease is a provider that was acquired and whose outcome will be reported: for
// work that does not fit into one function, such as a stream.
//
// It counts as a call in flight until Done, or until it expires: after the
// attempt timeout of its provider (after an hour with [NoTimeout]) it ends as a
// failure, and an event says so. Its methods are safe for concurrent use. Value
// may be used until Done.
type Lease[T any] struct {
	// Value is the provider's instance.
	Value T

	attempt  attempt
	observed *call // for hooks and the report; nil without them
	settled  atomic.Bool
	answered atomic.Int64 // when the answer began, since the attempt did

	// mu guards the fields below.
	mu      sync.Mutex
	expiry  *schedule.Timer
	expires time.Time
}

// Provider returns the name of the provider.
func (l *Lease[T]) Provider() string { return l.attempt.provider.name() }

// Context returns the context to work in: it has the values of the context that
// was acquired with and ends with it, with the lease, and when the provider is
// told to stop. With [NoTimeout] it is the context that was acquired with.
func (l *Lease[T]) Context() context.Context { return l.attempt.ctx }

// Answered says that the answer has begun, such as with the first item of a
// stream: the time until the first such report is the latency of the provider,
// rather than the time until Done.
func (l *Lease[T]) Answered() {
	l.answered.CompareAndSwap(0, int64(max(l.attempt.provider.registry.now()-l.attempt.began, 1)))
}

// Extend lets the lease expire that much later than it would have. Its context
// keeps its deadline. It does nothing when the lease has ended, and for times
// that are not positive.
func (l *Lease[T]) Extend(by time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if by <= 0 || l.settled.Load() {
		return
	}
	l.expiry.Stop()
	l.expires = l.expires.Add(by)
	l.expiry = l.attempt.provider.registry.schedule.After(time.Until(l.expires), l.expire)
}

// Done reports the outcome, as a function of [Call] would return it, frees the
// provider, and returns what the outcome means. Only the first report of a lease
// counts; one after its expiry is ignored, which [verdict.ClassIgnored] says.
func (l *Lease[T]) Done(err error) (class verdict.Class) {
	if !l.settled.CompareAndSwap(false, true) {
		return verdict.ClassIgnored
	}
	l.mu.Lock()
	l.expiry.Stop()
	l.mu.Unlock()
	elapsed := l.attempt.provider.registry.now() - l.attempt.began
	v := verdict.Verdict{Class: verdict.ClassUnknown}
	defer func() { class = l.settle(v, elapsed, err) }() // deferred: a classifier may exit the goroutine
	v = l.attempt.judge(err)
	return v.Class
}

func (l *Lease[T]) settle(v verdict.Verdict, elapsed time.Duration, err error) verdict.Class {
	l.attempt.latency = time.Duration(l.answered.Load())
	class := l.attempt.settle(v, elapsed, err)
	if c := l.observed; c != nil {
		c.attempt = l.attempt
		c.record(class, elapsed, err)
		var failure error
		if class.Rule().Blame == verdict.BlameFailure || err != nil {
			c.ended = true
			failure = c.failed()
		}
		c.finish(failure)
	}
	return class
}

func (l *Lease[T]) expire() {
	if !l.settled.CompareAndSwap(false, true) {
		return
	}
	if l.attempt.own != nil {
		l.attempt.own.expire()
	}
	p := l.attempt.provider
	elapsed := p.registry.now() - l.attempt.began
	p.registry.mu.Lock()
	p.registry.bus.publish(p.event(event.Event{
		Kind: event.LeaseExpired, Reason: fmt.Sprintf("not reported within %v", elapsed.Round(time.Millisecond)),
	}))
	p.registry.mu.Unlock()
	l.settle(verdict.Verdict{Class: verdict.ClassForgotten}, elapsed, nil)
}

// newLease hands out what the call has entered.
func newLease[T any](c *call) *Lease[T] {
	l := &Lease[T]{Value: held[T](c.attempt.instance), attempt: c.attempt}
	if c.observed {
		l.observed = c.clone()
	}
	expiry := l.attempt.timeout
	if expiry == NoTimeout {
		expiry = longestLeaseWithoutTimeout
	}
	l.mu.Lock() // the timer may fire before it is known
	defer l.mu.Unlock()
	l.expires = time.Now().Add(expiry)
	l.expiry = l.attempt.provider.registry.schedule.After(expiry, l.expire)
	return l
}

// Acquire returns the best provider as a lease, for work whose outcome will be
// reported with [Lease.Done]. Like [Call] it moves on from providers that cannot
// be entered; what happens after that is the caller's to report.
//
// It blocks only for a factory that has not run yet and for a place in a full
// bulkhead, within ctx. The error is an [UnavailableError], or a [CallError] when
// ctx had ended.
func (r *Resolver[T]) Acquire(ctx context.Context, options ...CallOption) (*Lease[T], error) {
	return r.AcquireOther(ctx, nil, options...)
}

// AcquireOther is [Resolver.Acquire] for a provider that is none of those named:
// a second opinion, or a second try elsewhere.
func (r *Resolver[T]) AcquireOther(ctx context.Context, except []string, options ...CallOption) (*Lease[T], error) {
	slot, err := r.bound()
	if err != nil {
		return nil, err
	}
	c := call{lease: true, except: except}
	if err := c.begin(ctx, slot, options); err != nil {
		return nil, err
	}
	if !c.next() { //nolint:contextcheck // the call has it
		err := c.failed()
		c.finish(err)
		return nil, err
	}
	return leaseEntered[T](&c), nil
}

// leaseEntered hands out what the call has entered, and gives it back when a hook
// exits the goroutine.
func leaseEntered[T any](c *call) *Lease[T] {
	if c.observed {
		returned := false
		defer func() {
			if !returned {
				c.attempt.settle(verdict.Verdict{Class: verdict.ClassExit}, 0, nil)
			}
		}()
		c.beforeAttempt()
		returned = true
	}
	return newLease[T](c)
}

// AcquireMany leases every provider that a call could enter, in order, at most
// limit of them; zero or less means all. It is what broadcast and fan-out are
// built on: each lease is to be reported by itself. Rotations do not move, and
// nobody queues.
func (r *Resolver[T]) AcquireMany(ctx context.Context, limit int, options ...CallOption) ([]*Lease[T], error) {
	slot, err := r.bound()
	if err != nil {
		return nil, err
	}
	c := call{lease: true}
	if err := c.begin(ctx, slot, options); err != nil {
		return nil, err
	}
	slot.awaitHealth(c.attempt.caller, false) //nolint:contextcheck // the call has it
	plan := slot.current()
	c.walk = plan.walk(plan.callable)
	var leases []*Lease[T]
	for at := plan.callable.Next(0, len(plan.candidates)); at >= 0; at = plan.callable.Next(at+1, len(plan.candidates)) {
		if c.attempt.caller.Err() != nil || len(leases) == limit && limit > 0 {
			break
		}
		if c.enter(plan.candidates[at], whyMany) { //nolint:contextcheck // the call has it
			leases = append(leases, leaseEntered[T](&c))
		}
	}
	cell := r.slot.service.registry.lookups.Local()
	if len(leases) == 0 {
		cell.misses.Add(1)
		err := c.failed()
		c.finish(err)
		return nil, err
	}
	cell.hits.Add(1)
	return leases, nil
}

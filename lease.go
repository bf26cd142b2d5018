package registry

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/capreg/registry/event"
	"github.com/capreg/registry/internal/fault"
	"github.com/capreg/registry/internal/schedule"
	"github.com/capreg/registry/internal/tasks"
	"github.com/capreg/registry/verdict"
)

// Lease is a provider that was acquired and whose outcome will be reported: for work that does
// not fit into one function, such as a stream.
//
// It counts as a call in flight until [Lease.Done] or [Lease.MoveOn], or until it expires: a
// second after the attempt timeout of its provider, at which its context ends (after an hour
// with [NoTimeout]), it ends as a failure, and an event says so. Its methods are safe for
// concurrent use. Value may be used until then.
//
// The leases that come from one another belong to one call: they share its search for
// providers, its report, its hooks and its idempotency key.
type Lease[T any] struct {
	// Value is the provider's instance.
	Value T

	attempt  attempt
	present  Attempt         // as it is told
	ctx      context.Context //nolint:containedctx // what the holder works in
	more     bool            // another provider could be asked
	cause    error           // why the registry ended the attempt, if it did
	retried  retried
	call     *leaseCall
	settled  atomic.Bool  // its outcome was reported, or it has expired
	freed    atomic.Bool  // the slot of its trial was given back, or will be with its outcome
	answered atomic.Int64 // when the answer began, since the attempt did
	expected atomic.Int64 // how long the work in progress would be waited for; see Patience
	expiry   atomic.Pointer[schedule.Timer]
}

// Acquire returns the best provider as a lease, for work whose outcome will be reported with
// [Lease.Done] or [Lease.MoveOn]. Like [Call] it moves on from providers that cannot be
// entered; what happens after that is the caller's to report.
//
// It blocks only for a factory or a first probe that has no result yet and for a place in a
// full bulkhead, within ctx. The error is an [UnavailableError], or a [CallError] when ctx had
// ended.
func (r *Resolver[T]) Acquire(ctx context.Context, options ...CallOption) (*Lease[T], error) {
	query, err := r.bound()
	if err != nil {
		return nil, err
	}
	c, err := newLeaseCall(ctx, query, r.key, options)
	if err != nil {
		return nil, err
	}
	defer c.close()
	return leaseNext[T](c, &c.first) //nolint:contextcheck // the call has it
}

// AcquireMany leases every provider that a call could enter, in order, at most limit of them;
// zero or less means all. It is the base of broadcast and fan-out: each lease is to be
// reported by itself. Rotations do not move, and the call does not queue. A provider that
// replaces another one meanwhile is among them, once, and perhaps out of order.
//
// It blocks for factories and first probes that have no result yet, within ctx. The error is
// an [UnavailableError], or a [CallError] when ctx had ended: there is at least one lease, or
// an error.
func (r *Resolver[T]) AcquireMany(ctx context.Context, limit int, options ...CallOption) ([]*Lease[T], error) {
	query, err := r.bound()
	if err != nil {
		return nil, err
	}
	shared, err := newLeaseCall(ctx, query, r.key, options)
	if err != nil {
		return nil, err
	}
	defer shared.close()
	c := shared.first
	query.awaitFirstProbe(c.caller.ctx, admitting) //nolint:contextcheck // the call has it
	c.providers = query.list(admitting)
	var leases []*Lease[T]
	for c.caller.ctx.Err() == nil && (limit <= 0 || len(leases) < limit) {
		p := c.providers.next(nil)
		if p == nil {
			break
		}
		switch {
		case c.providers.restarts > 0 && c.triedBefore(p):
		case c.claimAndEnter(p, admission{reason: attemptMany, paid: true, uncounted: true}): //nolint:contextcheck // the call has it
			c.providers.take()
			leases = append(leases, leaseEntered[T](shared, &c)) //nolint:contextcheck // the call has it
		default:
			c.providers.pass(p)
		}
	}
	lookups := query.service.lookups.Local()
	if len(leases) == 0 {
		lookups.misses.Add(1)
		c.skipFull()
		return nil, shared.failed(c.failure())
	}
	lookups.hits.Add(1)
	return leases, nil
}

// leaseNext enters the next provider of a search.
func leaseNext[T any](shared *leaseCall, c *call) (*Lease[T], error) {
	if c.nextAttempt() {
		return leaseEntered[T](shared, c), nil
	}
	return nil, shared.failed(c.failure())
}

// leaseEntered hands out the provider that the call has entered, and gives it back when a hook
// exits the goroutine.
func leaseEntered[T any](shared *leaseCall, c *call) *Lease[T] {
	if c.observed {
		returned := false
		defer func() {
			if !returned {
				shared.unclaim(c.attempt.provider)
				c.attempt.record(c.attempt.resolve(verdict.Verdict{Class: verdict.ClassIgnored}, 0, 0, nil))
			}
		}()
		c.prepareAttempt()
		returned = true
	}
	return newLease[T](shared, c)
}

// newLease makes the attempt of the call a lease.
func newLease[T any](shared *leaseCall, c *call) *Lease[T] {
	l := &Lease[T]{
		Value: unwrap[T](c.attempt.instance), attempt: c.attempt, ctx: c.functionContext(), present: c.present(), call: shared,
		more: !c.options.onceOnly && c.providers.more(), retried: c.retried,
	}
	c.attempt.place, c.delay, c.state = nil, 0, callChoosing // they are the lease's
	expiry := maxLeaseWithoutTimeout
	if l.attempt.timeout != NoTimeout {
		expiry = min(l.attempt.timeout, NoTimeout-tasks.Grace) + tasks.Grace // for those who heed the context
	}
	shared.mu.Lock()
	shared.open++
	shared.claims.Enter(l.attempt.provider)
	if shared.first.attempt.ctx == nil {
		shared.first.attempt.ctx = l.attempt.ctx // it has the key of the call
	}
	shared.mu.Unlock()
	timer := l.attempt.provider.registry.schedule.After(expiry, l.expire)
	l.expiry.Store(timer)
	if l.settled.Load() { // it has expired before the timer was known
		timer.Stop()
	}
	return l
}

// made reports whether the lease was handed out.
func (l *Lease[T]) made() bool { return l != nil && l.call != nil }

// Provider returns the name of the provider.
func (l *Lease[T]) Provider() string {
	if !l.made() {
		return ""
	}
	return l.attempt.provider.name()
}

// Context returns the context to work in: it has the values of the context that was acquired
// with and ends with it, at the attempt timeout, with the lease, and when the provider is told
// to stop. With [NoTimeout] it is the context that was acquired with.
func (l *Lease[T]) Context() context.Context {
	if !l.made() {
		return context.Background()
	}
	return l.ctx
}

// More reports whether another provider could be asked when the lease was given.
func (l *Lease[T]) More() bool { return l.made() && l.more }

// Attempts returns the tries of the call that have failed, in order; with hooks or a report,
// those that succeeded as well.
func (l *Lease[T]) Attempts() []Attempt {
	if !l.made() {
		return nil
	}
	l.call.mu.Lock()
	defer l.call.mu.Unlock()
	return slices.Clone(l.call.history.attempts)
}

// Answered tells that the answer has begun, such as with the first item of a stream: the time
// until the first such report is the latency of the provider, rather than the time until Done.
// The lease of a half-open provider is a trial, and keeps no other one out from then on; its
// outcome still counts.
func (l *Lease[T]) Answered() {
	if !l.made() {
		return
	}
	first := l.answered.CompareAndSwap(0, int64(max(l.attempt.elapsed(), 1)))
	if first && l.attempt.trial && l.freed.CompareAndSwap(false, true) {
		l.attempt.provider.breaker.FreeTrial(l.attempt.generation)
	}
}

// Patience tells how long the work in progress would be waited for, when that is not the
// attempt timeout: a caller's deadline that comes before, but not before half of it, counts
// against the provider.
func (l *Lease[T]) Patience(d time.Duration) {
	if !l.made() {
		return
	}
	l.expected.Store(int64(max(d, 0)))
}

// Done reports the outcome, as a function of [Call] would return it, frees the provider, and
// returns what the outcome means. The call is over with its last lease. Only the first report
// of a lease counts; one after its expiry is ignored, which [verdict.ClassIgnored] says.
func (l *Lease[T]) Done(err error) (class verdict.Class) {
	if !l.made() || !l.settled.CompareAndSwap(false, true) {
		return verdict.ClassIgnored
	}
	defer l.call.close() // deferred: a hook may exit the goroutine
	return l.conclude(err).Class
}

// MoveOn reports the outcome as [Lease.Done] does, and goes on with the call as [Call] does:
// with a retry, where the provider's policy has one, or with the next provider, as a new
// lease. It blocks as [Resolver.Acquire] does.
//
// It returns nil, nil after a success, the call's error when the outcome is final or no
// provider is left, and an error matching [ErrNotRegistered] if the lease was already
// reported.
func (l *Lease[T]) MoveOn(err error) (*Lease[T], error) {
	if !l.made() || !l.settled.CompareAndSwap(false, true) {
		return nil, fmt.Errorf("registry: lease of provider %q is over: %w", l.Provider(), ErrNotRegistered)
	}
	defer l.call.close()
	v := l.conclude(err)
	if isSuccess(v.Class) {
		return nil, nil //nolint:nilnil // the call is over, and well
	}
	c := l.call.search()
	c.attempt, c.retried = l.attempt, l.retried
	c.attempt.freed = false
	c.follow(v, c.options.onceOnly, c.query.query.TryRefused, l.attempt.provider.definition.Window)
	switch {
	case c.planRetry(v):
		c.state = callRetrying
	case c.final():
		c.state = callEnded
		return nil, c.failure()
	}
	return leaseNext[T](l.call, &c)
}

// Beside returns a lease of another provider for the same call while this one goes on, as a
// second opinion or a hedge; no provider is leased twice. It blocks as [Resolver.Acquire]
// does. For a call that is over, or must not run twice, the error is the one of the call so
// far, and matches [ErrNotRegistered] where there is none.
func (l *Lease[T]) Beside() (*Lease[T], error) {
	if !l.made() || l.call.first.options.onceOnly || l.settled.Load() || !l.call.openSearch() {
		if err := l.Failure(); err != nil {
			return nil, err
		}
		return nil, fmt.Errorf("registry: no other provider can be asked for this call: %w", ErrNotRegistered)
	}
	defer l.call.close()
	c := l.call.search()
	if c.final() {
		return nil, c.failure()
	}
	c.reason = attemptHedge
	return leaseNext[T](l.call, &c)
}

// Failure returns the error of the call as if it ended now: for a holder that asks no other
// provider. It is nil when no attempt of it has failed.
func (l *Lease[T]) Failure() error {
	attempts := l.Attempts()
	if len(attempts) == 0 {
		return nil
	}
	first := &l.call.first
	failure := &CallError{Service: first.query.service.name, Attempts: attempts, OnceOnly: first.options.onceOnly, partial: true}
	if ctx := first.caller.ctx; ctx.Err() != nil {
		failure.ended = fault.OfContext(ctx)
	}
	return failure.withRetryIn(first.query)
}

// Guard runs a part of the work, such as the provider's own code, and treats its panic as
// [Call] treats that of its function: it goes on after it was recorded, or becomes a
// [PanicError] ([Options.PanicsAsErrors]) that is yet to be reported. A nil work is an error that
// matches [ErrInvalid].
func (l *Lease[T]) Guard(work func() error) (err error) {
	if work == nil {
		return invalid("work", raw("nil"), "a function")
	}
	returned := false
	defer func() {
		if returned {
			return
		}
		value := recover()
		switch {
		case value == nil: // runtime.Goexit: the goroutine goes on exiting
			l.abort(verdict.ClassExit, nil)
		case l.made() && l.attempt.provider.registry.options.PanicsAsErrors:
			err = fault.Bound(newPanicError(value))
		default:
			l.abort(verdict.ClassPanic, newPanicError(value))
			panic(value)
		}
	}()
	err = fault.Bound(work())
	returned = true
	return err
}

// abort ends the lease with an outcome that needs no judgement.
func (l *Lease[T]) abort(class verdict.Class, err error) {
	if l.made() && l.settled.CompareAndSwap(false, true) {
		defer l.call.close()
		l.tell(l.record(verdict.Verdict{Class: class}, l.attempt.elapsed(), fault.Bound(err)))
	}
}

// conclude judges and records the outcome, also when a classifier exits the goroutine, and
// returns the verdict with the class as it was counted.
func (l *Lease[T]) conclude(err error) (v verdict.Verdict) {
	elapsed := l.attempt.elapsed()
	err = fault.Bound(err)
	defer func() {
		l.tell(l.record(v, elapsed, err))
		v.Class = l.present.Class
	}()
	v, l.cause = l.attempt.judge(&l.call.first.caller, err)
	return v
}

// record records the outcome, and returns what the hook is to be told.
func (l *Lease[T]) record(v verdict.Verdict, elapsed time.Duration, err error) (soFar CallReport) {
	if timer := l.expiry.Load(); timer != nil {
		timer.Stop()
	}
	a := &l.attempt
	a.freed = a.trial && !l.freed.CompareAndSwap(false, true)
	if expected := l.expected.Load(); expected > 0 {
		a.timeout = time.Duration(expected)
	}
	o := a.resolve(v, elapsed, time.Duration(l.answered.Load()), err)
	a.record(o)
	l.present.Class, l.present.Duration, l.present.Err = o.class, elapsed, err
	s := l.call
	s.unclaim(a.provider)
	return s.note(l.present, l.cause, a.provider.definition.Window)
}

// tell tells the hook of the attempt, which has ended.
func (l *Lease[T]) tell(soFar CallReport) {
	if c := &l.call.first; c.observed {
		c.tellAttempt(l.ctx, soFar, l.present)
	}
}

// expire ends a lease that was not reported. The hooks run in a goroutine of their own, and so do
// the methods of the caller's context: the one that expires leases is shared by all of them.
func (l *Lease[T]) expire() {
	if !l.settled.CompareAndSwap(false, true) {
		return
	}
	ended := l.attempt.ctx
	l.attempt.ctx = nil
	p, elapsed := l.attempt.provider, l.attempt.elapsed()
	p.registry.mu.Lock()
	p.registry.bus.Publish(p.event(event.Event{
		Kind: event.LeaseExpired, Reason: fmt.Sprintf("not reported within %v", elapsed.Round(time.Millisecond)),
	}))
	p.registry.mu.Unlock()
	soFar := l.record(verdict.Verdict{Class: verdict.ClassForgotten}, elapsed, nil)
	if ended != nil {
		p.registry.tasks.StartLast(fmt.Sprintf("context of an expired lease of provider %q", p.name()), ended.Expire)
	}
	if !l.call.first.observed {
		l.call.close()
		return
	}
	p.registry.tasks.StartLast(fmt.Sprintf("hooks of an expired lease of provider %q", p.name()), func() {
		defer l.call.close()
		l.tell(soFar)
	})
}

func isSuccess(class verdict.Class) bool {
	return class == verdict.ClassSuccess || class == verdict.ClassSlow
}

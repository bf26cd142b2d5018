package registry

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/capreg/registry/event"
	"github.com/capreg/registry/internal/fault"
	"github.com/capreg/registry/internal/outcome"
	"github.com/capreg/registry/internal/schedule"
	"github.com/capreg/registry/internal/tasks"
	"github.com/capreg/registry/internal/typed"
	"github.com/capreg/registry/verdict"
)

// Lease is a provider that was acquired and whose outcome will be reported: for work that does
// not fit into one function, such as a stream. Use [Resolver.Acquire] to get one, and report its
// outcome with [Lease.Done] or [Lease.MoveOn].
//
// A lease counts as a call in flight until it ends: when its outcome is reported, or when it
// expires, a second after its context has ended at the attempt timeout of its provider (after an
// hour with [NoTimeout]). One that expires ends as a failure, and an event says so. Value may be used until then. All
// methods are safe for concurrent use.
//
// The leases that come from one another belong to one call: they share its search for
// providers, its report, its hooks and its idempotency key.
type Lease[T any] struct {
	// Value is the provider's instance.
	Value T

	// Fixed when the lease is made.
	call    *leaseCall
	ctx     context.Context //nolint:containedctx // what the holder works in
	hasNext bool            // another provider could be asked
	another *provider       // the next one, if any could
	retried retried

	// ended is set once, by the report, the expiry or the interruption that ends the lease; see
	// [Lease.end]. What set it owns the fields below from then on. Until then they do not change.
	ended   atomic.Bool
	attempt attempt
	cause   error   // why the registry ended the attempt, if it did
	told    Attempt // the attempt as hooks and reports see it

	freed     atomic.Bool  // the slot of its trial was given back, or will be with its outcome
	firstByte atomic.Int64 // when the answer began, since the attempt did; 0: not yet
	allowed   atomic.Int64 // see Patience; 0: the attempt timeout
	expiry    atomic.Pointer[schedule.Timer]
}

// Acquire returns the best provider as a lease, for work whose outcome will be reported with
// [Lease.Done] or [Lease.MoveOn]. Like [Call] it moves on from providers that cannot be
// entered; what happens after that is the caller's to report.
//
// It blocks only for a factory or a first probe that has no result yet and for a place in a full bulkhead, within
// ctx. The error is an [UnavailableError], or a [CallError] when ctx had ended.
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
// It blocks for factories and first probes that have no result yet, within ctx. The error is an [UnavailableError],
// or a [CallError] when ctx had ended: there is at least one lease, or an error.
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
	query.awaitFirstProbe(c.caller.Ctx, admitting) //nolint:contextcheck // the call has it
	c.providers = query.list(admitting)
	var leases []*Lease[T]
	for c.caller.Ctx.Err() == nil && (limit <= 0 || len(leases) < limit) {
		p := c.providers.next(nil)
		if p == nil {
			break
		}
		switch {
		case c.providers.restarts > 0 && c.triedBefore(p): // offered again by the current plan
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

// leaseEntered hands out the provider that the call has entered, and gives it back when a hook exits the goroutine.
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
		Value: typed.Value[T](c.attempt.instance), call: shared, ctx: c.functionContext(),
		hasNext: !c.options.onceOnly && c.providers.more(), retried: c.retried,
		attempt: c.attempt, told: c.present(),
	}
	if c.reason != attemptMany { // else the others are asked as well
		l.another = c.providers.another()
	}
	c.handOver()
	shared.addLease(&l.attempt)
	l.startExpiry()
	return l
}

// startExpiry ends the lease a grace after the end of its context: a holder that heeds the context reports in time.
func (l *Lease[T]) startExpiry() {
	limit := maxLeaseWithoutTimeout
	if most := l.attempt.timeout.most; most != NoTimeout {
		limit = min(most, NoTimeout-tasks.Grace) + tasks.Grace
	}
	timer := l.attempt.provider.registry.schedule.After(limit, l.expire)
	l.expiry.Store(timer)
	if l.ended.Load() { // it has expired before the timer was known
		timer.Stop()
	}
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

// Done reports the outcome, as a function of [Call] would return it, frees the provider, and
// returns what the outcome means. The call is over with its last lease. Only the first report
// of a lease counts; one after its expiry is ignored, which [verdict.ClassIgnored] says.
func (l *Lease[T]) Done(err error) (class verdict.Class) {
	if !l.end() {
		return verdict.ClassIgnored
	}
	defer l.call.close() // deferred: a hook may exit the goroutine
	return l.conclude(err).Class
}

// MoveOn reports the outcome as [Lease.Done] does, and goes on with the call as [Call] does: with a retry, where
// the provider's policy has one, or with the next provider, as a new lease. It blocks as [Resolver.Acquire] does.
//
// It returns nil, nil after a success, the call's error when the outcome is final or no
// provider is left, and an error matching [ErrLeaseDone] if the lease has ended already.
func (l *Lease[T]) MoveOn(err error) (*Lease[T], error) {
	if !l.end() {
		return nil, fmt.Errorf("registry: lease of provider %q: %w", l.Provider(), ErrLeaseDone)
	}
	defer l.call.close()
	v := l.conclude(err)
	if outcome.IsSuccess(v.Class) {
		return nil, nil //nolint:nilnil // the call is over, and well
	}
	c := l.call.search()
	c.attempt, c.retried = l.attempt, l.retried
	c.attempt.freed = false
	c.Follow(v.Class, c.options.onceOnly, c.query.query.TryRefused, l.attempt.provider.definition.Window)
	switch {
	case c.planRetry(v):
		c.state = callRetrying
	case c.Final():
		c.state = callEnded
		return nil, c.failure()
	}
	return leaseNext[T](l.call, &c)
}

// end takes the right to record the outcome of the lease. It is given once.
func (l *Lease[T]) end() bool { return l.made() && l.ended.CompareAndSwap(false, true) }

// abort ends the lease with an outcome that needs no judgement.
func (l *Lease[T]) abort(class verdict.Class, err error) {
	if l.end() {
		defer l.call.close()
		l.runAfterAttempt(l.record(verdict.Verdict{Class: class}, l.attempt.elapsed(), fault.Bound(err)))
	}
}

// conclude judges and records the outcome, also when a classifier exits the goroutine, and
// returns the verdict with the class as it was counted.
func (l *Lease[T]) conclude(err error) (v verdict.Verdict) {
	err = fault.Bound(err)
	elapsed := l.attempt.elapsed()
	defer func() {
		l.runAfterAttempt(l.record(v, elapsed, err))
		v.Class = l.told.Class
	}()
	v, l.cause = l.attempt.judge(&l.call.first.caller, err)
	l.attempt.other = l.another
	return v
}

// record records the outcome, and returns what the hook is to be told.
func (l *Lease[T]) record(v verdict.Verdict, elapsed time.Duration, err error) (soFar CallReport) {
	if timer := l.expiry.Load(); timer != nil {
		timer.Stop()
	}
	a := &l.attempt
	a.freed = a.trial && !l.freed.CompareAndSwap(false, true)
	if allowed := l.allowed.Load(); allowed > 0 {
		a.timeout = attemptTimeout{time.Duration(allowed), true}
	}
	o := a.resolve(v, elapsed, time.Duration(l.firstByte.Load()), err)
	if o.Cooldown == verdict.CooldownThird {
		o.Call = l.call.serial()
	}
	a.record(o)
	l.told.Class, l.told.Duration, l.told.Err = o.Class, elapsed, err
	s := l.call
	s.unclaim(a.provider)
	return s.note(l.told, l.cause, a.provider.definition.Window)
}

// runAfterAttempt runs the hook after the attempt.
func (l *Lease[T]) runAfterAttempt(soFar CallReport) {
	if c := &l.call.first; c.observed {
		c.tellAttempt(l.ctx, soFar, l.told)
	}
}

// expire ends a lease that was not reported. The hooks run in a goroutine of their own, and so do
// the methods of the caller's context: the one that expires leases is shared by all of them.
func (l *Lease[T]) expire() {
	if !l.end() {
		return
	}
	expired := l.attempt.ctx
	l.attempt.ctx = nil
	p, elapsed := l.attempt.provider, l.attempt.elapsed()
	p.registry.mu.Lock()
	p.registry.bus.Publish(p.event(event.Event{
		Kind: event.LeaseExpired, Reason: fmt.Sprintf("not reported within %v", elapsed.Round(time.Millisecond)),
	}))
	p.registry.mu.Unlock()
	soFar := l.record(verdict.Verdict{Class: verdict.ClassForgotten}, elapsed, nil)
	if expired != nil {
		p.registry.tasks.StartLast(fmt.Sprintf("context of an expired lease of provider %q", p.name()), expired.Expire)
	}
	if !l.call.first.observed {
		l.call.close()
		return
	}
	p.registry.tasks.StartLast(fmt.Sprintf("hooks of an expired lease of provider %q", p.name()), func() {
		defer l.call.close()
		l.runAfterAttempt(soFar)
	})
}

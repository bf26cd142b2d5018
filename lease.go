package registry

import (
	"context"
	"fmt"
	"runtime/debug"
	"slices"
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
// It counts as a call in flight until [Lease.Done] or [Lease.MoveOn], or until it
// expires: a second after the attempt timeout of its provider, at which its context
// ends (after an hour with [NoTimeout]), it ends as a failure, and an event says
// so. Its methods are safe for concurrent use. Value may be used until then.
//
// The leases that come from one another belong to one call: they share its walk
// over the providers, its report, its hooks and its idempotency key.
type Lease[T any] struct {
	// Value is the provider's instance.
	Value T

	attempt  attempt
	present  Attempt // for the ledger
	more     bool    // somebody else could be asked
	call     *sharedCall
	settled  atomic.Bool
	answered atomic.Int64 // when the answer began, since the attempt did
	patience atomic.Int64 // what its holder says with Patience
	expiry   atomic.Pointer[schedule.Timer]
}

// sharedCall is a call whose attempts are leases.
type sharedCall struct {
	// turn is held by whoever walks on, which may take time; it guards call.
	turn chan struct{} // made when it is first taken, under mu
	call call

	// mu guards the fields below; nothing is called while it is held.
	mu     sync.Mutex
	ledger ledger // call has a copy while somebody walks
	open   int    // leases, and walks, in progress
}

func newSharedCall(ctx context.Context, s *slot, options []CallOption) (*sharedCall, error) {
	c := &sharedCall{open: 1}
	c.call.lease = true
	if err := c.call.begin(ctx, s, options); err != nil {
		return nil, err
	}
	return c, nil
}

// take waits for the turn to walk; false when the caller's context ends first.
func (c *sharedCall) take(caller context.Context) bool {
	c.mu.Lock()
	if c.turn == nil {
		c.turn = make(chan struct{}, 1)
	}
	c.mu.Unlock()
	select {
	case c.turn <- struct{}{}:
	case <-caller.Done():
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.call.ledger = c.ledger.clone()
	return true
}

func (c *sharedCall) give() { <-c.turn }

// enter notes a lease or a walk in progress.
func (c *sharedCall) enter() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.open++
}

// leave notes the end of a lease or a walk. The last one makes the report.
func (c *sharedCall) leave() {
	c.mu.Lock()
	c.open--
	last := c.open == 0
	if last {
		c.call.ledger = c.ledger
	}
	c.mu.Unlock()
	if last && c.call.observed {
		var failure error
		if n := len(c.ledger.ran); n == 0 || c.ledger.ran[n-1].Class.Rule().Blame == verdict.BlameFailure || c.ledger.ran[n-1].Err != nil {
			failure = c.call.failed()
		}
		c.call.finish(failure)
	}
}

// Provider returns the name of the provider.
func (l *Lease[T]) Provider() string { return l.attempt.provider.name() }

// Context returns the context to work in: it has the values of the context that
// was acquired with and ends with it, at the attempt timeout, with the lease, and
// when the provider is told to stop. With [NoTimeout] it is the context that was
// acquired with.
func (l *Lease[T]) Context() context.Context { return l.attempt.ctx }

// More reports whether somebody else could be asked when the lease was given.
func (l *Lease[T]) More() bool { return l.more }

// Attempts returns the tries of the call that have failed, in order; with hooks or
// a report, those that succeeded as well.
func (l *Lease[T]) Attempts() []Attempt {
	l.call.mu.Lock()
	defer l.call.mu.Unlock()
	return slices.Clone(l.call.ledger.ran)
}

// Answered says that the answer has begun, such as with the first item of a
// stream: the time until the first such report is the latency of the provider,
// rather than the time until Done.
func (l *Lease[T]) Answered() {
	l.answered.CompareAndSwap(0, int64(max(l.attempt.provider.registry.now()-l.attempt.began, 1)))
}

// Patience says how long the work in progress would be waited for, when that is
// not the attempt timeout: a caller's deadline that comes before, but not before
// half of it, counts against the provider.
func (l *Lease[T]) Patience(d time.Duration) { l.patience.Store(int64(max(d, 0))) }

// Done reports the outcome, as a function of [Call] would return it, frees the
// provider, and returns what the outcome means. The call is over with its last
// lease. Only the first report of a lease counts; one after its expiry is ignored,
// which [verdict.ClassIgnored] says.
func (l *Lease[T]) Done(err error) (class verdict.Class) {
	if !l.settled.CompareAndSwap(false, true) {
		return verdict.ClassIgnored
	}
	defer l.call.leave() // deferred: a hook may exit the goroutine
	class, _ = l.report(err)
	return class
}

// MoveOn reports the outcome as [Lease.Done] does, and goes on with the call as
// [Call] does: with a retry, where the provider's policy has one, or with the next
// provider, as a new lease. When the outcome ends the call, or nobody is left, the
// error is that of the call; after the report of a lease that had one already it
// matches [ErrNotRegistered]. It blocks as [Resolver.Acquire] does.
func (l *Lease[T]) MoveOn(err error) (*Lease[T], error) {
	if !l.settled.CompareAndSwap(false, true) {
		return nil, fmt.Errorf("registry: lease of provider %q is over: %w", l.Provider(), ErrNotRegistered)
	}
	defer l.call.leave()
	class, v := l.report(err)
	return l.walk(func(c *call) bool {
		c.attempt = l.attempt
		c.again = c.mayRetry(v)
		return c.again || !c.ended && class != verdict.ClassSuccess
	})
}

// Beside returns a lease of another provider for the same call while this one goes
// on, as a second opinion or a hedge; nobody is leased twice. It blocks as
// [Resolver.Acquire] does.
func (l *Lease[T]) Beside() (*Lease[T], error) {
	l.call.enter()
	defer l.call.leave()
	return l.walk(func(c *call) bool { return !c.ended })
}

// walk enters the next provider, where may says so.
func (l *Lease[T]) walk(may func(*call) bool) (*Lease[T], error) {
	s := l.call
	if !s.take(l.attempt.caller) {
		return nil, s.failure(l.attempt.caller)
	}
	defer s.give()
	if c := &s.call; may(c) && c.next() {
		return leaseEntered[T](s), nil
	}
	return nil, s.call.failed()
}

// failure is the error of a call whose caller went away while another one walked.
func (c *sharedCall) failure(caller context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return &CallError{Service: c.call.slot.service.name, Attempts: slices.Clone(c.ledger.ran), ended: endedBy(caller)}
}

// Failure returns the error of the call as if it ended now: for a holder that
// asks nobody else. It is nil when no attempt of it has failed.
func (l *Lease[T]) Failure() error {
	attempts := l.Attempts()
	if len(attempts) == 0 {
		return nil
	}
	failure := &CallError{Service: l.call.call.slot.service.name, Attempts: attempts, partial: true}
	if l.attempt.caller.Err() != nil {
		failure.ended = endedBy(l.attempt.caller)
	}
	return failure.withRetryIn(l.call.call.slot)
}

// Guard runs a part of the work, such as the provider's own code, and treats its
// panic as [Call] treats that of its function: it goes on after it was recorded,
// or becomes a [PanicError] ([Options.PanicsAsErrors]) that is yet to be reported.
func (l *Lease[T]) Guard(work func() error) (err error) {
	returned := false
	defer func() {
		if returned {
			return
		}
		value := recover()
		switch {
		case value == nil: // runtime.Goexit: the goroutine goes on exiting
			l.abort(verdict.ClassExit, nil)
		case l.attempt.provider.registry.options.PanicsAsErrors:
			err = &PanicError{Value: value, Stack: debug.Stack()}
		default:
			l.abort(verdict.ClassPanic, &PanicError{Value: value, Stack: debug.Stack()})
			panic(value)
		}
	}()
	err = work()
	returned = true
	return err
}

// abort ends the lease with an outcome that needs no judgement.
func (l *Lease[T]) abort(class verdict.Class, err error) {
	if l.settled.CompareAndSwap(false, true) {
		defer l.call.leave()
		l.tell(l.settle(verdict.Verdict{Class: class}, l.elapsed(), err))
	}
}

func (l *Lease[T]) elapsed() time.Duration {
	return l.attempt.provider.registry.now() - l.attempt.began
}

// report judges and records the outcome.
func (l *Lease[T]) report(err error) (class verdict.Class, v verdict.Verdict) {
	elapsed := l.elapsed()
	v = verdict.Verdict{Class: verdict.ClassUnknown}
	judged := false
	defer func() {
		if !judged { // a classifier exits the goroutine
			l.tell(l.settle(v, elapsed, err))
		}
	}()
	v = l.attempt.judge(err)
	judged = true
	l.tell(l.settle(v, elapsed, err))
	return l.present.Class, v
}

// settle records the outcome, and returns what the hook is to be told.
func (l *Lease[T]) settle(v verdict.Verdict, elapsed time.Duration, err error) (soFar CallReport) {
	if timer := l.expiry.Load(); timer != nil {
		timer.Stop()
	}
	a := &l.attempt
	a.latency = time.Duration(l.answered.Load())
	if patience := l.patience.Load(); patience > 0 {
		a.timeout = time.Duration(patience)
	}
	l.present.Class, l.present.Duration, l.present.Err = a.settle(v, elapsed, err), elapsed, err
	s := l.call
	c := &s.call
	s.mu.Lock()
	defer s.mu.Unlock()
	succeeded := l.present.Class == verdict.ClassSuccess || l.present.Class == verdict.ClassSlow
	if !succeeded || c.observed {
		s.ledger.add(l.present, a.ended)
	}
	if !succeeded {
		s.ledger.weigh(l.present.Class, a.provider.definition.Window, c.options.onceOnly, c.slot.query.TryRefused)
	}
	if c.observed {
		soFar = c.reportOf(s.ledger.ran)
	}
	return soFar
}

func (l *Lease[T]) tell(soFar CallReport) {
	if c := &l.call.call; c.observed {
		c.tellAttempt(l.attempt.ctx, soFar, l.present)
	}
}

// expire ends a lease that nobody reported. The hooks run in a goroutine of their
// own: the one that expires leases is everybody's.
func (l *Lease[T]) expire() {
	if !l.settled.CompareAndSwap(false, true) {
		return
	}
	if l.attempt.own != nil {
		l.attempt.own.expire()
	}
	p, elapsed := l.attempt.provider, l.elapsed()
	p.registry.mu.Lock()
	p.registry.bus.publish(p.event(event.Event{
		Kind: event.LeaseExpired, Reason: fmt.Sprintf("not reported within %v", elapsed.Round(time.Millisecond)),
	}))
	p.registry.mu.Unlock()
	soFar := l.settle(verdict.Verdict{Class: verdict.ClassForgotten}, elapsed, nil)
	if !l.call.call.observed {
		l.call.leave()
		return
	}
	p.registry.tasks.startLast(fmt.Sprintf("hooks of an expired lease of provider %q", p.name()), func() {
		defer l.call.leave()
		l.tell(soFar)
	})
}

// newLease hands out what the call has entered.
func newLease[T any](s *sharedCall) *Lease[T] {
	c := &s.call
	l := &Lease[T]{
		Value: held[T](c.attempt.instance), attempt: c.attempt, present: c.present(), call: s,
		more: !c.options.onceOnly && c.walk.more(),
	}
	c.attempt.slots, c.delay = nil, 0 // they are the lease's
	expiry := longestLeaseWithoutTimeout
	if l.attempt.timeout != NoTimeout {
		expiry = l.attempt.timeout + grace // for those who heed the context
	}
	s.enter()
	timer := l.attempt.provider.registry.schedule.After(expiry, l.expire)
	l.expiry.Store(timer)
	if l.settled.Load() { // it has expired before the timer was known
		timer.Stop()
	}
	return l
}

// Acquire returns the best provider as a lease, for work whose outcome will be
// reported with [Lease.Done] or [Lease.MoveOn]. Like [Call] it moves on from
// providers that cannot be entered; what happens after that is the caller's to
// report.
//
// It blocks only for a factory or a first probe that has no result yet and for a
// place in a full bulkhead, within ctx. The error is an [UnavailableError], or a
// [CallError] when ctx had ended.
func (r *Resolver[T]) Acquire(ctx context.Context, options ...CallOption) (*Lease[T], error) {
	slot, err := r.bound()
	if err != nil {
		return nil, err
	}
	s, err := newSharedCall(ctx, slot, options)
	if err != nil {
		return nil, err
	}
	defer s.leave()
	if !s.call.next() { //nolint:contextcheck // the call has it
		return nil, s.call.failed()
	}
	return leaseEntered[T](s), nil
}

// leaseEntered hands out what the call has entered, and gives it back when a hook
// exits the goroutine.
func leaseEntered[T any](s *sharedCall) *Lease[T] {
	if c := &s.call; c.observed {
		returned := false
		defer func() {
			if !returned {
				c.attempt.settle(verdict.Verdict{Class: verdict.ClassIgnored}, 0, nil)
			}
		}()
		c.beforeAttempt()
		returned = true
	}
	return newLease[T](s)
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
	s, err := newSharedCall(ctx, slot, options)
	if err != nil {
		return nil, err
	}
	defer s.leave()
	c := &s.call
	slot.awaitHealth(c.attempt.caller, false) //nolint:contextcheck // the call has it
	plan := slot.current()
	c.walk = plan.walk(plan.callable)
	var leases []*Lease[T]
	for at := plan.callable.Next(0, len(plan.candidates)); at >= 0; at = plan.callable.Next(at+1, len(plan.candidates)) {
		if c.attempt.caller.Err() != nil || len(leases) == limit && limit > 0 {
			break
		}
		if c.enter(plan.candidates[at], whyMany) { //nolint:contextcheck // the call has it
			leases = append(leases, leaseEntered[T](s))
		}
	}
	cell := r.slot.service.registry.lookups.Local()
	if len(leases) == 0 {
		cell.misses.Add(1)
		c.passFull()
		return nil, c.failed()
	}
	cell.hits.Add(1)
	return leases, nil
}

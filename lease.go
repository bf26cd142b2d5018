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
	"github.com/capreg/registry/internal/fault"
	"github.com/capreg/registry/internal/pick"
	"github.com/capreg/registry/internal/schedule"
	"github.com/capreg/registry/internal/tasks"
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
	again    retried // how often its provider was tried again
	call     *sharedCall
	settled  atomic.Bool
	answered atomic.Int64 // when the answer began, since the attempt did
	patience atomic.Int64 // what its holder says with Patience
	expiry   atomic.Pointer[schedule.Timer]
}

// sharedCall is a call whose attempts are leases.
type sharedCall struct {
	// first is the call as it began. Each walk works on a copy: it may take time, and
	// others may walk meanwhile.
	first call

	// mu guards the fields below; nothing is called while it is held.
	mu       sync.Mutex
	ledger   ledger
	given    []given  // who was entered, or is about to be
	room     [4]given // for the first of them
	open     int      // leases, and walks, in progress; zero again: the call is over
	answered bool     // one of them was a success
	failure  error    // of the last walk that found nobody
}

// given is a provider that a lease of a call has, or had.
type given struct {
	provider *provider
	held     bool // the lease goes on, or is being made
	entered  bool
}

func newSharedCall(ctx context.Context, s *queryPlan, key string, options []CallOption) (*sharedCall, error) {
	c := &sharedCall{open: 1}
	c.given = c.room[:0]
	c.first.lease, c.first.shared = true, c
	if err := c.first.begin(ctx, s, key, options); err != nil {
		return nil, err
	}
	return c, nil
}

// enter notes a walk in progress; false when the call is over.
func (c *sharedCall) enter() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.open == 0 {
		return false
	}
	c.open++
	return true
}

// claim takes a provider for a walk, unless another lease of the call has or had it;
// with again only one that has it is in the way.
func (c *sharedCall) claim(p *provider, again bool) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range c.given {
		if g := &c.given[i]; g.provider == p {
			if g.held || g.entered && !again {
				return false
			}
			g.held = true
			return true
		}
	}
	c.given = append(c.given, given{provider: p, held: true})
	return true
}

// gave reports whether somebody of the name was entered by the call, or is about to be.
func (c *sharedCall) gave(name string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.ContainsFunc(c.given, func(g given) bool { return (g.held || g.entered) && g.provider.name() == name })
}

// unclaim gives a provider back that was not entered, or whose lease is over.
func (c *sharedCall) unclaim(p *provider) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range c.given {
		if c.given[i].provider == p {
			c.given[i].held = false
		}
	}
}

// walker returns a copy of the call that walks on.
func (c *sharedCall) walker() call {
	c.mu.Lock()
	defer c.mu.Unlock()
	w := c.first
	w.ledger = c.ledger.clone()
	w.entered, w.probed, w.skips, w.refused, w.full = true, true, nil, nil, nil
	plan := w.slot.current()
	w.walk = plan.iterate(plan.Admitting)
	w.walk.Mode = c.fresh(plan) // a rotation moves once for a call
	return w
}

// fresh returns the mode of an iterator that takes turns behind the tiers that the call has
// entered. Caller holds mu.
func (c *sharedCall) fresh(p *plan) pick.Mode {
	for at, candidate := range slices.Backward(p.candidates) {
		if slices.ContainsFunc(c.given, func(g given) bool { return g.provider == candidate && g.entered }) {
			return pick.PeekUntil(p.TierOf(at) + 1)
		}
	}
	return pick.Peek
}

// had reports whether p was given to the call before.
func (c *sharedCall) had(p *provider) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.ContainsFunc(c.given, func(g given) bool { return g.provider == p && (g.held || g.entered) })
}

// leave notes the end of a lease or a walk. The last one makes the report.
func (c *sharedCall) leave() {
	c.mu.Lock()
	c.open--
	over := c.open == 0
	c.mu.Unlock()
	if !over || !c.first.observed {
		return
	}
	c.first.ledger, c.first.entered = c.ledger, len(c.ledger.ran) > 0 // nobody walks any more
	failure := c.failure
	switch {
	case c.answered:
		failure = nil
	case failure == nil:
		failure = c.first.failed()
	}
	c.first.finish(failure)
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
// provider, as a new lease. After a success there is neither a lease nor an error.
// When the outcome ends the call, or nobody is left, the error is that of the call; after the report of a lease that had one already it
// matches [ErrNotRegistered]. It blocks as [Resolver.Acquire] does.
func (l *Lease[T]) MoveOn(err error) (*Lease[T], error) {
	if !l.settled.CompareAndSwap(false, true) {
		return nil, fmt.Errorf("registry: lease of provider %q is over: %w", l.Provider(), ErrNotRegistered)
	}
	defer l.call.leave()
	class, v := l.report(err)
	if class == verdict.ClassSuccess || class == verdict.ClassSlow {
		return nil, nil //nolint:nilnil // the call is over, and well
	}
	w := l.call.walker()
	w.attempt, w.again = l.attempt, false
	w.repeated, w.tries, w.delays = l.attempt.provider, l.again.tries, l.again.delays
	w.weigh(class, l.attempt.provider.definition.Window, w.options.onceOnly, w.slot.query.TryRefused)
	w.again = w.mayRetry(v)
	if w.ended && !w.again {
		return nil, w.failed()
	}
	return walkOn[T](l.call, &w)
}

// Beside returns a lease of another provider for the same call while this one goes
// on, as a second opinion or a hedge; nobody is leased twice. It blocks as
// [Resolver.Acquire] does. For a call that is over, or must not run twice, the error
// is the one of the call so far, and matches [ErrNotRegistered] where there is none.
func (l *Lease[T]) Beside() (*Lease[T], error) {
	if l.call.first.options.onceOnly || l.settled.Load() || !l.call.enter() {
		if err := l.Failure(); err != nil {
			return nil, err
		}
		return nil, fmt.Errorf("registry: nobody else can be asked for this call: %w", ErrNotRegistered)
	}
	defer l.call.leave()
	w := l.call.walker()
	if w.ended {
		return nil, w.failed()
	}
	return walkOn[T](l.call, &w)
}

// walkOn enters the next provider.
func walkOn[T any](s *sharedCall, w *call) (*Lease[T], error) {
	if w.next() {
		return leaseEntered[T](s, w), nil
	}
	err := w.failed()
	s.mu.Lock()
	s.failure = err
	s.mu.Unlock()
	return nil, err
}

// Failure returns the error of the call as if it ended now: for a holder that
// asks nobody else. It is nil when no attempt of it has failed.
func (l *Lease[T]) Failure() error {
	attempts := l.Attempts()
	if len(attempts) == 0 {
		return nil
	}
	first := &l.call.first
	failure := &CallError{Service: first.slot.service.name, Attempts: attempts, OnceOnly: first.options.onceOnly, partial: true}
	if l.attempt.caller.Err() != nil {
		failure.ended = fault.OfContext(l.attempt.caller)
	}
	return failure.withRetryIn(first.slot)
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
	s.unclaim(a.provider)
	c := &s.first
	s.mu.Lock()
	defer s.mu.Unlock()
	succeeded := l.present.Class == verdict.ClassSuccess || l.present.Class == verdict.ClassSlow
	s.answered = s.answered || succeeded
	if !succeeded || c.observed {
		s.ledger.add(l.present, a.ended)
	}
	if !succeeded && l.present.Class.Rule().Blame == verdict.BlameSuccess {
		// It was about the request, so it holds for all leases of the call.
		s.ledger.weigh(l.present.Class, a.provider.definition.Window, c.options.onceOnly, c.slot.query.TryRefused)
	}
	if c.observed {
		soFar = c.reportOf(s.ledger.ran)
	}
	return soFar
}

func (l *Lease[T]) tell(soFar CallReport) {
	if c := &l.call.first; c.observed {
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
		l.attempt.own.Expire()
	}
	p, elapsed := l.attempt.provider, l.elapsed()
	p.registry.mu.Lock()
	p.registry.bus.publish(p.event(event.Event{
		Kind: event.LeaseExpired, Reason: fmt.Sprintf("not reported within %v", elapsed.Round(time.Millisecond)),
	}))
	p.registry.mu.Unlock()
	soFar := l.settle(verdict.Verdict{Class: verdict.ClassForgotten}, elapsed, nil)
	if !l.call.first.observed {
		l.call.leave()
		return
	}
	p.registry.tasks.StartLast(fmt.Sprintf("hooks of an expired lease of provider %q", p.name()), func() {
		defer l.call.leave()
		l.tell(soFar)
	})
}

// newLease hands out what the call has entered.
func newLease[T any](s *sharedCall, c *call) *Lease[T] {
	l := &Lease[T]{
		Value: held[T](c.attempt.instance), attempt: c.attempt, present: c.present(), call: s,
		more: !c.options.onceOnly && c.walk.More(), again: retried{c.tries, c.delays},
	}
	c.attempt.slots, c.delay = nil, 0 // they are the lease's
	expiry := longestLeaseWithoutTimeout
	if l.attempt.timeout != NoTimeout {
		expiry = min(l.attempt.timeout, NoTimeout-tasks.Grace) + tasks.Grace // for those who heed the context
	}
	s.mu.Lock()
	s.open++
	for i := range s.given {
		if s.given[i].provider == l.attempt.provider {
			s.given[i].entered = true
		}
	}
	if s.first.attempt.own == nil {
		s.first.attempt = l.attempt // whose context has the key of the call
		s.first.attempt.slots = nil
	}
	s.mu.Unlock()
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
	s, err := newSharedCall(ctx, slot, r.key, options)
	if err != nil {
		return nil, err
	}
	defer s.leave()
	return walkOn[T](s, &s.first) //nolint:contextcheck // the call has it
}

// leaseEntered hands out what the call has entered, and gives it back when a hook
// exits the goroutine.
func leaseEntered[T any](s *sharedCall, c *call) *Lease[T] {
	if c.observed {
		returned := false
		defer func() {
			if !returned {
				s.unclaim(c.attempt.provider)
				c.attempt.settle(verdict.Verdict{Class: verdict.ClassIgnored}, 0, nil)
			}
		}()
		c.beforeAttempt()
		returned = true
	}
	return newLease[T](s, c)
}

// AcquireMany leases every provider that a call could enter, in order, at most
// limit of them; zero or less means all. It is what broadcast and fan-out are
// built on: each lease is to be reported by itself. Rotations do not move, and
// nobody queues. Who replaces another while it looks is among them, once, and
// perhaps out of order.
func (r *Resolver[T]) AcquireMany(ctx context.Context, limit int, options ...CallOption) ([]*Lease[T], error) {
	slot, err := r.bound()
	if err != nil {
		return nil, err
	}
	s, err := newSharedCall(ctx, slot, r.key, options)
	if err != nil {
		return nil, err
	}
	defer s.leave()
	c := s.first
	slot.awaitHealth(c.attempt.caller, false) //nolint:contextcheck // the call has it
	plan := slot.current()
	c.walk = plan.iterate(plan.Admitting)
	c.walk.Mode = pick.Peek
	var leases []*Lease[T]
	for at := plan.Admitting.Next(0, len(plan.candidates)); at >= 0; at = plan.Admitting.Next(at+1, len(plan.candidates)) {
		if c.attempt.caller.Err() != nil || len(leases) == limit && limit > 0 {
			break
		}
		switch p := plan.candidates[at]; {
		case !plan.FastEnough(at) || c.anew > 0 && c.hadTurn(p):
		case c.enterClaimed(p, whyMany): //nolint:contextcheck // the call has it
			leases = append(leases, leaseEntered[T](s, &c)) //nolint:contextcheck // the call has it
		case p.displaced() && c.restart():
			c.walk.Mode, plan, at = pick.Peek, c.walk.plan, -1
		}
	}
	cell := r.slot.service.lookups.Local()
	if len(leases) == 0 {
		cell.misses.Add(1)
		c.passFull()
		err := c.failed()
		s.failure = err
		return nil, err
	}
	cell.hits.Add(1)
	return leases, nil
}

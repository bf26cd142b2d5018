package registry

import (
	"context"
	"fmt"
	"runtime/debug"
	"sync/atomic"
	"time"

	"github.com/capreg/registry/event"
	"github.com/capreg/registry/internal/schedule"
	"github.com/capreg/registry/verdict"
)

// CallOption varies one call or lease. Options cost no allocation.
type CallOption struct {
	onceOnly bool
	timed    bool
	timeout  time.Duration
}

// OnceOnly marks a call with side effects: once its function was entered, it is
// never run a second time, on no provider, unless the error says that nothing
// was sent ([verdict.NotSent], a refused connection). Before that the call is
// free to move on.
func OnceOnly() CallOption { return CallOption{onceOnly: true} }

// AttemptTimeout replaces the attempt timeout of whichever provider is asked,
// and the expiry of a lease. It must be more than zero; see also [NoTimeout].
func AttemptTimeout(timeout time.Duration) CallOption {
	return CallOption{timed: true, timeout: timeout}
}

func mergeOptions(options []CallOption) (merged CallOption, err error) {
	for _, option := range options {
		merged.onceOnly = merged.onceOnly || option.onceOnly
		if option.timed {
			merged.timed, merged.timeout = true, option.timeout
		}
	}
	if merged.timed && merged.timeout <= 0 {
		return merged, invalid("AttemptTimeout", merged.timeout, "more than 0, or NoTimeout")
	}
	return merged, nil
}

// Call runs function on the best provider and, when that fails in a way that
// the provider is to blame for, on the next one, each provider at most once.
//
// Each attempt is guarded by its provider's breaker, counted, and bounded by its
// context: the attempt timeout, or half of what remains of the caller's deadline
// while another provider could still be asked. What an outcome means, and
// whether the call moves on, is decided by the table of package verdict. The
// function must heed its context; one that does not cannot be cut short, and an
// answer that it gives after its time is returned all the same. ctx bounds the
// whole call, and its values reach the function.
//
// Call runs function in the caller's goroutine, starts none itself, and does
// not retain function. A panic goes on to the caller after it has been recorded
// as the provider's failure, unless [Options.PanicsAsErrors] is set.
//
// When no provider could be entered the error is an [UnavailableError]; when
// some were, or ctx had ended, it is a [CallError] with every attempt. Both
// unwrap to their causes.
func Call[T, R any](
	ctx context.Context, resolver *Resolver[T], function func(context.Context, T) (R, error), options ...CallOption,
) (R, error) {
	var c call
	slot, err := resolver.bound()
	if err == nil && function == nil {
		err = invalid("function", verbatim("nil"), "a function")
	}
	if err == nil {
		err = c.begin(ctx, slot, options)
	}
	for err == nil && c.next() {
		result, err := callOnce(&c, function)
		if c.over(err) {
			if err == nil {
				return result, nil
			}
			break
		}
	}
	var none R
	return none, c.failed(err)
}

// callOnce runs the function on the attempt's provider.
func callOnce[T, R any](c *call, function func(context.Context, T) (R, error)) (result R, err error) {
	returned := false
	defer func() {
		if !returned {
			err = c.interrupted(recover())
		}
	}()
	result, err = function(c.attempt.ctx, held[T](c.attempt.instance))
	returned = true
	return result, err
}

// call is one operation of a user: a walk over the candidates with an attempt
// on each. It lives on its caller's stack.
type call struct {
	attempt attempt
	slot    *slot
	walk    walk
	options CallOption
	lease   bool // what is entered is handed out; nobody else is asked after it

	entered bool // the function was entered at least once
	tooLong bool // only providers with a larger window remain
	window  int  // ... than this
	panic   *PanicError
	ran     []Attempt // the ones that failed
	causes  []error   // why the registry ended some of them
	ended   bool      // no further provider may be asked
	barred  bool      // ... because the call must not run twice
}

func (c *call) begin(ctx context.Context, s *slot, options []CallOption) (err error) {
	if c.options, err = mergeOptions(options); err != nil {
		return err
	}
	c.slot = s
	c.attempt.caller = ctx
	plan := s.current()
	c.walk = plan.walk(plan.callable)
	return nil
}

// next enters the next provider that admits the call.
func (c *call) next() bool {
	for !c.ended && c.attempt.caller.Err() == nil {
		p := c.walk.next()
		if p == nil {
			break
		}
		if c.tooLong && p.definition.Window <= c.window {
			continue
		}
		ahead := &c.walk
		if c.lease {
			ahead = nil
		}
		if c.attempt.enter(p, ahead, c.options.timeout) {
			if !c.entered {
				c.slot.service.registry.lookups.Local().hits.Add(1)
				c.entered = true
			}
			return true
		}
	}
	if !c.entered {
		c.slot.service.registry.lookups.Local().misses.Add(1)
	}
	return false
}

// over records the outcome of the attempt and reports whether the call ends with it.
func (c *call) over(err error) bool {
	a := &c.attempt
	elapsed := a.provider.registry.now() - a.began
	if err == nil {
		a.settle(verdict.Verdict{Class: verdict.ClassSuccess}, elapsed, nil)
		return true
	}
	v := c.judge(err, elapsed)
	c.ran = append(c.ran, Attempt{Provider: a.provider.name(), Class: v.Class, Duration: elapsed, Err: err})
	if a.ended != nil {
		c.causes = append(c.causes, a.ended)
	}
	c.ended = !c.mayMoveOn(v.Class)
	return c.ended
}

// judge settles the attempt with its verdict, also when a classifier exits the
// goroutine.
func (c *call) judge(err error, elapsed time.Duration) (v verdict.Verdict) {
	defer func() { c.attempt.settle(v, elapsed, err) }()
	if c.panic != nil {
		c.panic = nil
		return verdict.Verdict{Class: verdict.ClassPanic}
	}
	return c.attempt.judge(err)
}

func (c *call) mayMoveOn(class verdict.Class) bool {
	next := class.Rule().Next
	switch next {
	case verdict.NextAlways, verdict.NextYes, verdict.NextFree, verdict.NextBeforeFirstItem, verdict.NextByOption:
	case verdict.NextLargerWindow:
		c.tooLong, c.window = true, max(c.window, c.attempt.provider.definition.Window)
	case verdict.NextWhenAllowed:
		if !c.walk.plan.tryRefused {
			return false
		}
	case verdict.NextNo:
		return false
	}
	c.barred = c.options.onceOnly && next != verdict.NextAlways
	return !c.barred
}

// interrupted ends an attempt whose function did not return.
func (c *call) interrupted(value any) error {
	a := &c.attempt
	if value == nil { // runtime.Goexit: the goroutine goes on exiting
		a.settle(verdict.Verdict{Class: verdict.ClassExit}, a.provider.registry.now()-a.began, nil)
		return nil
	}
	c.panic = &PanicError{Value: value, Stack: debug.Stack()}
	if a.provider.registry.options.PanicsAsErrors {
		return c.panic
	}
	a.settle(verdict.Verdict{Class: verdict.ClassPanic}, a.provider.registry.now()-a.began, c.panic)
	panic(value)
}

// failed makes the error of a call that has none of its own.
func (c *call) failed(bad error) error {
	if bad != nil {
		return bad
	}
	caller := c.attempt.caller
	failure := &CallError{
		Service: c.slot.service.name, Attempts: c.ran, causes: c.causes, OnceOnly: c.barred,
	}
	if caller.Err() != nil {
		failure.ended = endedBy(caller)
		return failure
	}
	if c.entered && c.ended {
		return failure
	}
	unavailable := c.slot.unavailable(false)
	if !c.entered {
		return unavailable
	}
	failure.RetryIn = unavailable.RetryIn
	if unavailable.cause != nil {
		failure.causes = append(failure.causes, unavailable.cause)
	}
	for _, candidate := range unavailable.Candidates {
		if !failure.tried(candidate.Provider) {
			failure.Skipped = append(failure.Skipped, candidate)
		}
	}
	return failure
}

func (e *CallError) tried(provider string) bool {
	for _, attempt := range e.Attempts {
		if attempt.Provider == provider {
			return true
		}
	}
	return false
}

// attempt is one entry of one provider, by a call or a lease: from admission to
// the recording of its outcome.
type attempt struct {
	provider   *provider
	instance   *instance
	cell       *counts
	generation uint64 // of the breaker that admitted it
	trial      bool
	caller     context.Context //nolint:containedctx // lives as long as the call
	ctx        context.Context //nolint:containedctx // what the function gets
	own        *attemptContext // ctx, where it is not the caller's
	timeout    time.Duration
	began      time.Duration // on the registry's clock
	ended      error         // why the registry ended it, if it did
}

// enter counts the attempt in and admits it, or leaves no trace. It blocks only
// for a factory, within the caller's context and the attempt timeout.
//
// The order matters: first the count, then a look at the gate, so that a drain
// that closes the gate and then reads the counts misses nobody.
func (a *attempt) enter(p *provider, w *walk, timeout time.Duration) bool {
	a.provider = p
	a.cell = p.counts.Local()
	a.cell.attempts.Add(1)
	if p.gateNow()&gateBlocked != 0 {
		a.withdraw()
		return false
	}
	a.timeout = timeout
	if a.timeout == 0 {
		a.timeout = time.Duration(p.timeout.Load())
	}
	a.instance = p.instance.Load()
	if a.instance == nil && !a.awaitInstance(w) {
		a.withdraw()
		return false
	}
	var ok bool
	if a.generation, a.trial, ok = p.breaker.admit(); !ok {
		a.withdraw()
		return false
	}
	a.began, a.ended = p.registry.now(), nil
	a.giveContext(w)
	return true
}

// withdraw takes back the count of an attempt that was not admitted.
func (a *attempt) withdraw() {
	a.cell.attempts.Add(^uint64(0))
	a.provider.exit()
}

// awaitInstance waits for the provider's factory, for no longer than an attempt
// may take.
func (a *attempt) awaitInstance(w *walk) bool {
	if a.provider.maker == nil {
		return false // released meanwhile
	}
	ctx := a.caller
	if limit := a.limit(w, a.provider.registry.now()); limit != NoTimeout {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, limit, ErrAttemptTimeout)
		defer cancel()
	}
	var err error
	a.instance, err = a.provider.maker.wait(ctx)
	return err == nil
}

// limit returns the longest time that the attempt may take: its timeout, or half
// of what the caller has left while another candidate could be asked. It is
// NoTimeout where the caller's own deadline is limit enough.
func (a *attempt) limit(w *walk, now time.Duration) time.Duration {
	limit := a.timeout
	deadline, ok := a.caller.Deadline()
	if !ok {
		return limit
	}
	remaining := deadline.Sub(a.provider.registry.epoch) - now
	if w != nil && w.more() {
		limit = min(limit, remaining/2)
	}
	if limit >= remaining {
		return NoTimeout
	}
	return max(limit, 0)
}

// giveContext makes the context of the function.
func (a *attempt) giveContext(w *walk) {
	limit := a.limit(w, a.began)
	if a.timeout == NoTimeout && limit == NoTimeout {
		a.ctx, a.own = a.caller, nil
		return
	}
	var deadline time.Time
	if limit != NoTimeout {
		deadline = a.provider.registry.epoch.Add(a.began + limit)
	}
	a.own = newAttemptContext(a.caller, deadline, &a.provider.contexts)
	a.ctx = a.own
}

// settle records the outcome: the breaker learns, a cooldown begins or loses its
// growth, the count moves, and the place is free again.
func (a *attempt) settle(v verdict.Verdict, elapsed time.Duration, cause error) {
	p, rule := a.provider, v.Class.Rule()
	if a.own != nil {
		a.own.end()
	}
	blame, tally := rule.Blame, rule.Tally
	switch blame {
	case verdict.BlameWhenSlow:
		blame = verdict.BlameSuccess
	case verdict.BlameWhenLong:
		blame = verdict.BlameNeutral
		if elapsed >= a.timeout/2 {
			blame, tally = verdict.BlameFailure, verdict.TallyFailure
		}
	case verdict.BlameNotRecorded:
		blame = verdict.BlameNeutral
	case verdict.BlameNeutral, verdict.BlameSuccess, verdict.BlameFailure:
	}
	p.breaker.settle(a.generation, a.trial, blame)
	switch {
	case rule.Cooldown == verdict.CooldownReset:
		if p.grown.Load() {
			p.forgive()
		}
	case rule.Cooldown != verdict.CooldownNone || v.After > 0:
		p.cool(v, rule.Cooldown, cause)
	}
	switch tally {
	case verdict.TallySuccess:
		a.cell.latency.Add(uint64(max(elapsed, 0)))
		a.cell.successes.Add(1)
	case verdict.TallyFailure:
		a.cell.latency.Add(uint64(max(elapsed, 0)))
		a.cell.failures.Add(1)
	case verdict.TallyLimited:
		a.cell.limited.Add(1)
	case verdict.TallyIgnored, verdict.TallyNone:
		a.cell.ignored.Add(1)
	}
	p.exit()
}

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

	attempt attempt
	settled atomic.Bool
	expiry  *schedule.Timer
}

// Provider returns the name of the provider.
func (l *Lease[T]) Provider() string { return l.attempt.provider.name() }

// Context returns the context to work in: it has the values of the context that
// was acquired with and ends with it, with the lease, and when the provider is
// told to stop. With [NoTimeout] it is the context that was acquired with.
func (l *Lease[T]) Context() context.Context { return l.attempt.ctx }

// Done reports the outcome, as a function of [Call] would return it, and frees
// the provider. Only the first report of a lease counts; one after its expiry
// is ignored.
func (l *Lease[T]) Done(err error) {
	if !l.settled.CompareAndSwap(false, true) {
		return
	}
	l.expiry.Stop()
	elapsed := l.attempt.provider.registry.now() - l.attempt.began
	v := verdict.Verdict{Class: verdict.ClassUnknown}
	defer func() { l.attempt.settle(v, elapsed, err) }() // deferred: a classifier may exit the goroutine
	v = l.attempt.judge(err)
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
	p.shift(0, 0, &event.Event{
		Kind: event.LeaseExpired, Reason: fmt.Sprintf("not reported within %v", elapsed.Round(time.Millisecond)),
	})
	l.attempt.settle(verdict.Verdict{Class: verdict.ClassForgotten}, elapsed, nil)
}

func newLease[T any](a attempt) *Lease[T] {
	l := &Lease[T]{Value: held[T](a.instance), attempt: a}
	expiry := a.timeout
	if expiry == NoTimeout {
		expiry = longestLeaseWithoutTimeout
	}
	l.expiry = a.provider.registry.schedule.After(expiry, l.expire)
	return l
}

// Resolver gives out providers of one service for one query. It is made by
// [Service.Bind], is meant to be kept, and is safe for concurrent use.
type Resolver[T any] struct {
	slot    *slot
	service string
	query   Query
	err     error // what was wrong with the binding
}

// bound returns the slot, or what was wrong with the binding.
func (r *Resolver[T]) bound() (*slot, error) {
	if r == nil || r.slot == nil && r.err == nil {
		return nil, invalid("Resolver", verbatim("nil"), "a resolver made by Bind")
	}
	return r.slot, r.err
}

// Get returns the instance of the best provider now, for wiring: it looks only
// at providers that are ready, healthy and have a closed breaker, and records
// nothing but the look-up, so a failure of what the caller does with the
// instance reaches no breaker. Use [Call] or [Resolver.Acquire] for that.
//
// It blocks only for a factory that has not run yet, within ctx and the
// provider's attempt timeout. The error is an [UnavailableError].
func (r *Resolver[T]) Get(ctx context.Context) (T, error) {
	if r != nil && r.slot != nil {
		if plan := r.slot.plan.Load(); plan != nil {
			if at := plan.first(plan.steady, true); at >= 0 {
				if made := plan.candidates[at].instance.Load(); made != nil {
					r.slot.service.registry.lookups.Local().hits.Add(1)
					return held[T](made), nil
				}
				return r.find(ctx, plan.walkFrom(plan.steady, at))
			}
		}
	}
	slot, err := r.bound()
	if err != nil {
		var none T
		return none, err
	}
	plan := slot.current()
	return r.find(ctx, plan.walk(plan.steady))
}

// find is Get where a factory has to run, or nobody is eligible.
func (r *Resolver[T]) find(ctx context.Context, w walk) (none T, err error) {
	registry := r.slot.service.registry
	for p := w.next(); p != nil; p = w.next() {
		if made := p.obtain(ctx, &w); made != nil {
			registry.lookups.Local().hits.Add(1)
			return held[T](made), nil
		}
		if ctx.Err() != nil {
			break
		}
	}
	registry.lookups.Local().misses.Add(1)
	unavailable := r.slot.unavailable(true)
	if ctx.Err() != nil {
		return none, joined("registry: ", append(endedBy(ctx), unavailable))
	}
	return none, unavailable
}

// obtain returns the provider's instance, waiting for its factory within ctx
// and the attempt timeout; nil when there is none to be had.
func (p *provider) obtain(ctx context.Context, w *walk) *instance {
	if made := p.instance.Load(); made != nil {
		return made
	}
	a := attempt{provider: p, caller: ctx, timeout: time.Duration(p.timeout.Load())}
	a.awaitInstance(w)
	return a.instance
}

// Acquire returns the best provider as a lease, for work whose outcome will be
// reported with [Lease.Done]. Like [Call] it moves on from providers that cannot
// be entered; what happens after that is the caller's to report.
//
// It blocks only for a factory that has not run yet, within ctx. The error is an
// [UnavailableError], or a [CallError] when ctx had ended.
func (r *Resolver[T]) Acquire(ctx context.Context, options ...CallOption) (*Lease[T], error) {
	slot, err := r.bound()
	if err != nil {
		return nil, err
	}
	c := call{lease: true}
	if err := c.begin(ctx, slot, options); err != nil {
		return nil, err
	}
	if !c.next() {
		return nil, c.failed(nil)
	}
	return newLease[T](c.attempt), nil
}

// Many returns the instances of all providers that Get would give, in order, at
// most limit of them; zero or less means all. Rotations do not move. The error
// is an [UnavailableError]: there is at least one instance, or an error.
func (r *Resolver[T]) Many(ctx context.Context, limit int) ([]T, error) {
	slot, err := r.bound()
	if err != nil {
		return nil, err
	}
	plan := slot.current()
	var found []T
	for at := plan.steady.Next(0, len(plan.candidates)); at >= 0; at = plan.steady.Next(at+1, len(plan.candidates)) {
		if made := plan.candidates[at].obtain(ctx, nil); made != nil {
			found = append(found, held[T](made))
		}
		if len(found) == limit && limit > 0 || ctx.Err() != nil {
			break
		}
	}
	cell := r.slot.service.registry.lookups.Local()
	if len(found) == 0 {
		cell.misses.Add(1)
		return nil, r.slot.unavailable(true)
	}
	cell.hits.Add(1)
	return found, nil
}

// AcquireMany leases every provider that a call could enter, in order, at most
// limit of them; zero or less means all. It is what broadcast and fan-out are
// built on: each lease is to be reported by itself. Rotations do not move.
func (r *Resolver[T]) AcquireMany(ctx context.Context, limit int, options ...CallOption) ([]*Lease[T], error) {
	slot, err := r.bound()
	if err != nil {
		return nil, err
	}
	c := call{lease: true}
	if err := c.begin(ctx, slot, options); err != nil {
		return nil, err
	}
	plan := c.walk.plan
	var leases []*Lease[T]
	for at := plan.callable.Next(0, len(plan.candidates)); at >= 0; at = plan.callable.Next(at+1, len(plan.candidates)) {
		if ctx.Err() != nil || len(leases) == limit && limit > 0 {
			break
		}
		if c.attempt.enter(plan.candidates[at], nil, c.options.timeout) {
			leases = append(leases, newLease[T](c.attempt))
		}
	}
	cell := r.slot.service.registry.lookups.Local()
	if len(leases) == 0 {
		cell.misses.Add(1)
		return nil, c.failed(nil)
	}
	cell.hits.Add(1)
	return leases, nil
}

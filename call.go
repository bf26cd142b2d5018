package registry

import (
	"context"
	"slices"
	"time"

	"github.com/cenkalti/backoff/v4"

	"github.com/capreg/registry/internal/limit"
	"github.com/capreg/registry/internal/pick"
	"github.com/capreg/registry/verdict"
)

// Call runs function on the best provider and, when that fails in a way that the provider is
// to blame for, on the next one, each provider once or as often as its [RetryPolicy] says.
//
// Before each attempt come, in this order, the provider's budget for further attempts,
// [Options.Authorize], its limits and its breaker; what they keep away moves on to the next
// provider at no cost. Each attempt is counted, and bounded by its context: the attempt
// timeout, or half of what remains of the caller's deadline while another provider could
// still be asked. What an outcome means, and whether the call moves on, is decided by the
// table of package verdict. The function must heed its context; one that does not cannot be
// cut short, and an answer that it gives after its time is returned all the same. ctx bounds
// the whole call, and its values reach the function.
//
// Call runs function in the caller's goroutine, starts none itself, and does not retain
// function. It blocks for function, for delays between retries, for a place in a full
// bulkhead when no provider has a free one, for a factory, and for a first probe where no
// other provider is eligible. A panic goes on to the caller after it has been recorded as the
// provider's failure, unless [Options.PanicsAsErrors] is set.
//
// When no provider could be entered the error is an [UnavailableError]; when some were, or
// ctx had ended, it is a [CallError] with every attempt. Both unwrap to their causes.
func Call[T, R any](
	ctx context.Context, resolver *Resolver[T], function func(context.Context, T) (R, error), options ...CallOption,
) (result R, err error) {
	var first firstAttempt
	if len(options) == 0 && function != nil && resolver != nil && first.admit(ctx, resolver.plan) {
		defer first.recordUnlessFailed()
		result, err = function(first.context(ctx), unwrap[T](first.instance))
		if err == nil {
			first.state = attemptAnswered
			return result, nil
		}
	}
	return continueCall(ctx, resolver, function, options, &first, err)
}

// continueCall is Call from where the first attempt has left it: with its error, or before it. It is
// a function of its own so that a call that succeeds at once does not pay for the state of one
// that does not.
func continueCall[T, R any]( //nolint:gocognit // one body, so that the state of the call stays on its stack
	ctx context.Context, resolver *Resolver[T], function func(context.Context, T) (R, error), options []CallOption,
	first *firstAttempt, err error,
) (none R, _ error) {
	var c call
	if first.state == attemptRunning {
		c.continueFrom(ctx, resolver.plan, resolver.key, first)
		if c.concludeAttempt(err) {
			return none, c.fail()
		}
	} else {
		query, err := resolver.bound()
		if err == nil && function == nil {
			err = invalid("function", raw("nil"), "a function")
		}
		if err == nil {
			err = c.begin(ctx, query, resolver.key, options)
		}
		if err != nil {
			return none, err
		}
		c.beginWith(first)
	}
	for c.nextAttempt() {
		result, err := runAttempt(&c, function)
		if c.concludeAttempt(err) {
			if err == nil {
				return result, nil
			}
			break
		}
	}
	return none, c.fail()
}

// runAttempt runs the function on the attempt's provider.
func runAttempt[T, R any](c *call, function func(context.Context, T) (R, error)) (result R, err error) {
	returned := false
	defer func() {
		if !returned {
			err = c.concludeInterruption(recover())
		}
	}()
	c.prepareAttempt()
	result, err = function(c.functionContext(), unwrap[T](c.attempt.instance))
	returned = true
	return result, err
}

// firstAttempt is the first attempt of a call without options, hooks and limits, on the
// provider that the plan picks, which is all that nearly every call needs. What else a call
// needs is with its [call], which goes on from here when the attempt fails or is not admitted.
type firstAttempt struct {
	attempt

	plan   *plan
	picked int // in the plan
}

// admit admits the attempt if nothing keeps the picked provider away that a call would have
// to wait for, or to explain.
func (f *firstAttempt) admit(ctx context.Context, query *queryPlan) bool {
	if query == nil || ctx == nil || ctx.Err() != nil || !query.service.registry.unattended.Load() {
		return false
	}
	plan := query.plan.Load()
	if plan == nil {
		plan = query.service.rebuild(query)
	}
	picked := plan.Admitting.First()
	if !plan.InOrder {
		picked = plan.First(plan.Admitting, true)
	}
	if picked < 0 {
		return false
	}
	f.plan, f.picked = plan, picked
	p := plan.candidates[picked]
	if p.gateNow() != 0 || p.limits.Load() != nil || p.vitals.Load() != nil {
		return false
	}
	by := caller{ctx: ctx}
	if p.attemptTimeout() != NoTimeout { // else it need not be asked for
		by.deadline, by.hasDeadline = ctx.Deadline()
	}
	others := func() bool { return plan.moreBehind(picked) }
	if !f.attempt.admit(p, &by, others, 0, &query.service.lookups) {
		return false
	}
	if f.trial { // the breaker has opened and half-opened since the gate was read
		f.watchTrial()
	}
	return true
}

// recordUnlessFailed is deferred around the function. A failure is left to the call, which
// goes on from there.
func (f *firstAttempt) recordUnlessFailed() {
	switch f.state {
	case attemptAnswered:
		f.recordSuccess()
	case attemptRunning: // it panics, or exits its goroutine
		if panicked := f.recordInterruption(recover()); panicked != nil {
			panic(panicked.Value)
		}
	case attemptIdle, attemptOver:
	}
}

// call is one operation of a user: attempts on the providers that an iteration offers, until
// one answers or none is left. It lives on its caller's stack.
//
//	              admitted                     returned
//	choosing ───────────────▶ running ──────────────────────▶ ended: success, final outcome
//	▲   │  ▲                    │   │
//	│   │  └── moves on ────────┘   │ may retry
//	│   │                           ▼
//	│   │  ◀─── refused ──────── retrying ── admitted ──▶ running
//	│   │ no provider left
//	│   ▼
//	└─ waiting ─────────────▶ exhausted
//	   (for a first probe, a place, the end of a cooldown; a last resort)
//
// The state is in the field state; waiting is a part of choosing. Every attempt passes through
// [call.enter] and [call.concludeAttempt], those of leases as well.
type call struct {
	attempt   attempt
	state     callState
	observed  bool // hooks, observers or a report see it
	caller    caller
	query     *queryPlan
	by        pick.Caller // what selectors can know of it
	options   CallOption
	shared    *leaseCall // of leases; nil for a call that runs a function
	providers iterator
	began     time.Duration   // set when observed
	hookCtx   context.Context //nolint:containedctx // of the attempt, as a hook has changed it; nil: none has

	history

	entries   int  // of functions
	rounds    int  // of iterations that follow a wait for a cooldown
	comebacks int  // attempts that it has made after such a wait
	sawProbes bool // it has waited for first probes
	reason    attemptReason
	delay     time.Duration // before the present attempt
	retried   retried
	panicked  *PanicError
	skips     []Candidate // providers that were refused for a reason that no gate shows
	refused   []*provider // the same
	full      []*provider // had no place free
}

type callState uint8

const (
	callChoosing  callState = iota // the next provider is to be found
	callRetrying                   // the same provider is to be tried again
	callPreparing                  // a provider was entered, and the hook before the attempt runs
	callRunning                    // the function runs
	callExhausted                  // no provider is left
	callEnded                      // the outcome is final
)

// retried counts how often a call has tried one provider again.
type retried struct {
	provider *provider
	tries    int // beyond the first
	delays   *backoff.ExponentialBackOff
}

// begin prepares the first choice of a provider.
func (c *call) begin(ctx context.Context, query *queryPlan, key string, options []CallOption) (err error) {
	if ctx == nil {
		return errNilContext()
	}
	if len(options) > 0 { // else the price of copying none would be a tenth of the call's
		if c.options, err = mergeOptions(options); err != nil {
			return err
		}
	}
	c.query = query
	registry := query.service.registry
	if c.options.caller == "" {
		c.options.caller = query.query.Handler
	}
	c.observed = c.options.report != nil || registry.hooked || registry.observers.Load() != nil
	if c.observed {
		c.began = registry.now()
		ctx = c.beforeCall(ctx)
	}
	c.caller = newCaller(ctx)
	c.by = pick.Caller{Context: ctx, Key: key, Name: c.options.caller}
	c.iterate()
	return nil
}

// iterate begins an iteration over the providers of the query.
func (c *call) iterate() {
	c.providers = c.query.iterate(admitting)
	c.providers.shared = c.shared
}

// beginWith makes the iteration start with the provider that a first attempt has picked, whose
// turn it is, if it has.
func (c *call) beginWith(first *firstAttempt) {
	if first.plan != nil {
		c.providers = c.query.iterateFrom(first.plan, first.picked, admitting)
	}
}

// continueFrom makes the call one whose first attempt was that one.
func (c *call) continueFrom(ctx context.Context, query *queryPlan, key string, first *firstAttempt) {
	c.query, c.attempt = query, first.attempt
	c.caller = newCaller(ctx)
	first.state = attemptOver // not before: the context is a user's
	c.options.caller = query.query.Handler
	c.by = pick.Caller{Context: ctx, Key: key, Name: c.options.caller}
	c.state, c.reason, c.entries, c.retried.provider = callRunning, attemptFirst, 1, first.provider
	c.beginWith(first)
	c.providers.next(&c.by) // the picked one
	c.providers.take()
}

// nextAttempt enters the next provider that admits the call, or the same one again. On false
// the call is over.
func (c *call) nextAttempt() bool {
	if c.state == callRetrying {
		c.state = callChoosing
		if c.sleep(c.delay) && c.claimAndEnter(c.attempt.provider, admission{reason: attemptRetry, paid: true}) {
			return true
		}
	}
	for c.mayAsk() {
		p := c.providers.next(&c.by)
		if p == nil {
			switch c.waitForProvider() {
			case waitEntered:
				return true
			case waitAgain:
				continue
			case waitOver:
			}
			break
		}
		if c.tryProvider(p) {
			return true
		}
	}
	if c.entries == 0 {
		c.query.service.lookups.Local().misses.Add(1)
	}
	if !c.final() && c.caller.err() == nil {
		c.state = callExhausted
	}
	return false
}

// mayAsk reports whether another provider may be asked at all.
func (c *call) mayAsk() bool {
	return c.state == callChoosing && !c.final() && c.caller.ctx.Err() == nil
}

// tryProvider enters a provider that the iteration offers, or passes it by.
func (c *call) tryProvider(p *provider) bool {
	if c.providers.restarts > 0 && c.triedBefore(p) {
		return false
	}
	if c.wants(p) && c.claimAndEnter(p, admission{reason: c.nextReason()}) {
		c.providers.take()
		return true
	}
	if !c.tried(p.name()) {
		c.providers.pass(p)
	}
	return false
}

// wants reports whether the call has use for a provider: its window is large enough, and after
// a wait it was not asked before, or only turned the call away.
func (c *call) wants(p *provider) bool {
	if c.step == stepLargerWindow && p.definition.Window <= c.window {
		return false
	}
	return c.rounds == 0 || c.mayReturnTo(p)
}

// triedBefore reports whether p has failed, refused or been full before the iteration started over,
// or is another lease's of the call. One that failed may be returned to after a wait.
func (c *call) triedBefore(p *provider) bool {
	if slices.Contains(c.refused, p) || slices.Contains(c.full, p) {
		return true
	}
	if c.tried(p.name()) {
		return c.rounds == 0 || c.comebacks >= maxComebacks || !c.mayReturnTo(p)
	}
	return c.shared != nil && c.shared.claimed(p.name())
}

// mayReturnTo reports whether a call that has waited may ask the provider: it has not asked it
// yet, or was only turned away.
func (c *call) mayReturnTo(p *provider) bool {
	for _, ran := range slices.Backward(c.attempts) {
		if ran.Provider == p.name() {
			return ran.Class.Rule().RetryHere == verdict.RetryWhenWaiting
		}
	}
	return true
}

// nextReason returns why the next provider of the iteration is asked.
func (c *call) nextReason() attemptReason {
	switch {
	case c.rounds > 0:
		return attemptWaited
	case c.entries > 0:
		return attemptFailover
	}
	return attemptFirst
}

// concludeAttempt records the outcome of the attempt, decides what follows, and reports whether
// the call ends with it.
func (c *call) concludeAttempt(err error) (over bool) {
	a := &c.attempt
	elapsed := a.elapsed()
	if err == nil {
		o := a.resolve(verdict.Verdict{Class: verdict.ClassSuccess}, elapsed, 0, nil)
		a.record(o)
		if c.observed {
			c.noteAttempt(o.class, elapsed, nil)
			c.report(nil)
		}
		c.state = callEnded
		return true
	}
	v := c.judgeAndRecord(err, elapsed)
	c.noteAttempt(v.Class, elapsed, err)
	c.follow(v, c.options.onceOnly, c.query.query.TryRefused, a.provider.definition.Window)
	c.state = callChoosing
	switch {
	case c.planRetry(v):
		c.state = callRetrying
	case c.final():
		c.state = callEnded
	}
	return c.state == callEnded
}

// judgeAndRecord records the attempt with its verdict, also when a classifier exits the
// goroutine.
func (c *call) judgeAndRecord(err error, elapsed time.Duration) (v verdict.Verdict) {
	defer func() { c.attempt.record(c.attempt.resolve(v, elapsed, 0, err)) }()
	if c.panicked != nil {
		c.panicked = nil
		return verdict.Verdict{Class: verdict.ClassPanic}
	}
	v, c.cause = c.attempt.judge(&c.caller, err)
	return v
}

// concludeInterruption ends an attempt whose function did not return: value is what it panicked
// with, nil when it ended its goroutine.
func (c *call) concludeInterruption(value any) error {
	a := &c.attempt
	if value != nil && a.provider.registry.options.PanicsAsErrors {
		c.panicked = newPanicError(value)
		return c.panicked
	}
	elapsed := a.elapsed()
	if value == nil && c.state == callPreparing { // it was not the provider's code
		c.concludeAborted(a.resolve(verdict.Verdict{Class: verdict.ClassIgnored}, elapsed, 0, nil), elapsed)
		return nil
	}
	panicked := a.recordInterruption(value)
	if panicked == nil {
		c.noteAborted(verdict.ClassExit, elapsed, nil)
		return nil
	}
	c.noteAborted(verdict.ClassPanic, elapsed, panicked)
	panic(value)
}

// concludeAborted records an attempt that ends the goroutine before its function was entered.
func (c *call) concludeAborted(o outcome, elapsed time.Duration) {
	c.attempt.record(o)
	c.noteAborted(o.class, elapsed, nil)
}

// noteAborted tells of an attempt, and a call, that end the goroutine, or their caller.
func (c *call) noteAborted(class verdict.Class, elapsed time.Duration, cause error) {
	c.state = callEnded
	if c.observed {
		c.noteAttempt(class, elapsed, cause)
		c.report(cause)
	}
}

// planRetry reports whether the provider is to be tried again, after c.delay.
func (c *call) planRetry(v verdict.Verdict) bool {
	p, rule := c.attempt.provider, v.Class.Rule()
	known := p.effects.retry()
	if known == nil || c.retried.tries >= known.policy.Retries || rule.RetryHere != verdict.RetryYes ||
		c.options.onceOnly && rule.Next != verdict.NextAlways {
		return false
	}
	if c.retried.delays == nil {
		c.retried.delays = known.policy.delays()
	}
	delay := limit.FullJitter(c.retried.delays.NextBackOff())
	switch blocked := p.gateNow() & gateBlocked; {
	case blocked == gateCooling && v.After > 0 && !c.providers.more():
		// The server's delay wins, and has become a cooldown, which is over when its timer
		// has fired.
		cooldown, _ := p.returns()
		delay = cooldown + time.Millisecond
	case blocked != 0:
		return false
	}
	if c.caller.hasDeadline && delay >= time.Until(c.caller.deadline) || !known.Allow() {
		return false
	}
	c.retried.tries++
	c.delay = delay
	return true
}

// fail ends the call with its error.
func (c *call) fail() error {
	err := c.failure()
	if c.observed {
		c.report(err)
	}
	return err
}

// history holds the attempts of a call that have ended, and what may follow them.
type history struct {
	attempts []Attempt // the ones that failed; all when observed, or of leases
	causes   []error   // why the registry ended some of them
	cause    error     // why it ended the present one, if it did
	step     nextStep
	window   int // with stepLargerWindow: only providers with a larger one remain
}

// nextStep bounds the attempts that may follow those of a call so far. It only grows.
type nextStep uint8

const (
	stepAnyProvider  nextStep = iota
	stepLargerWindow          // only a provider with a larger window
	stepNone                  // the outcome is final
	stepOnceOnly              // another provider could be asked, but the call must not run twice
)

// final reports whether no further provider may be asked.
func (h *history) final() bool { return h.step >= stepNone }

func (h *history) clone() history {
	copied := *h
	copied.attempts, copied.causes = slices.Clone(h.attempts), slices.Clone(h.causes)
	return copied
}

// add notes an attempt that has ended, and why the registry ended it, if it did.
func (h *history) add(ended Attempt, cause error) {
	h.attempts = append(h.attempts, ended)
	if cause != nil {
		h.causes = append(h.causes, cause)
	}
}

// follow decides what may follow an attempt that was no success; window is that of its
// provider.
func (h *history) follow(v verdict.Verdict, onceOnly, tryRefused bool, window int) {
	next := v.Class.Rule().Next
	step := stepNone
	switch next {
	case verdict.NextAlways, verdict.NextYes, verdict.NextFree, verdict.NextBeforeFirstItem, verdict.NextByOption:
		step = stepAnyProvider
	case verdict.NextLargerWindow:
		step, h.window = stepLargerWindow, max(h.window, window)
	case verdict.NextWhenAllowed:
		if tryRefused {
			step = stepAnyProvider
		}
	case verdict.NextNo:
	}
	if step != stepNone && onceOnly && next != verdict.NextAlways {
		step = stepOnceOnly
	}
	h.step = max(h.step, step)
}

// tried reports whether the provider of that name was asked.
func (h *history) tried(provider string) bool {
	return slices.ContainsFunc(h.attempts, func(a Attempt) bool { return a.Provider == provider })
}

package registry

import (
	"context"

	"github.com/capreg/registry/internal/attemptctx"
	"github.com/capreg/registry/internal/histogram"
	"github.com/capreg/registry/internal/hook"
	"github.com/capreg/registry/internal/limit"
	"github.com/capreg/registry/internal/typed"
	"github.com/capreg/registry/verdict"
)

// Call runs function on the best provider, and on the next one where the outcome allows it. Each provider is tried
// once, or as often as its [RetryPolicy] says.
//
// Before each attempt come, in this order, the provider's budget for further attempts, [Options.Authorize], its limits
// and its breaker; what they keep away moves on to the next provider at no cost. Each attempt is counted, and bounded
// by its context. An attempt timeout that was given, by [Provider.AttemptTimeout] or the option [AttemptTimeout], is
// taken at its word. Where none was, an attempt may be cut to leave time for another provider before the caller's
// deadline: see below. What an outcome means, and whether the call moves on, is decided by the table of package
// verdict. The function must heed its context; one that does not cannot be cut short, and an answer that it gives
// after its time is returned all the same. ctx bounds the whole call, and its values reach the function.
//
// What function returns must not live on its context, which ends with the attempt: reading the body of an http.Response
// that was returned fails with [context.Canceled], unless it was short, and the cause of that context says why. Read it
// inside function, or use [Resolver.Acquire] or package stream; the check of contrib/registryvet finds such calls.
//
// Call runs function in the caller's goroutine, starts none itself, and does not retain function. It blocks for
// function, for delays between retries, for a place in a full bulkhead when no provider has a free one, for a
// factory, and for a first probe where no other provider is eligible. A panic goes on to the caller after it has
// been recorded as the provider's failure, unless [Options.PanicsAsErrors] is set.
//
// A cut leaves a provider the time of its longest answer of the last minutes and a quarter more, and a provider
// that has never answered three quarters of the time left; it has more where the next one needs less. One that has
// used up its time without an answer, for longer than the next one has, only gets what the next one does not need,
// until it answers. A cut says nothing about a provider that may just be slow ([verdict.ClassCut]); as many
// attempts without an answer in a row as its breaker's threshold open the breaker. So does what uses up the
// caller's deadline while another provider could have been asked. An attempt is cut too when its provider has become
// unhealthy and stays so for [Options.DrainTimeout], and for longer than its answers of late took, while every query in
// use has another provider; not where the call must not run twice, has no timeout or is a lease.
//
// When no provider could be entered the error is an [UnavailableError]; when some were, or
// ctx had ended, it is a [CallError] with every attempt. Both unwrap to their causes.
func Call[T, R any](
	ctx context.Context, resolver *Resolver[T], function func(context.Context, T) (R, error), options ...CallOption,
) (result R, err error) {
	var first firstAttempt
	if len(options) == 0 && function != nil && resolver != nil && first.admit(ctx, resolver.plan, nil) {
		defer first.recordUnlessFailed()
		result, err = function(first.context(ctx), typed.Value[T](first.instance))
		if err == nil {
			first.state = attemptAnswered
			return result, nil
		}
	}
	return continueCall(ctx, resolver, function, options, &first, err)
}

// continueCall is Call from where the first attempt has left it: with its error, or before it. It is a function of
// its own so that a call that succeeds at once does not pay for the state of one that does not.
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
			err = c.accept(ctx, query, resolver.key, options, &first.hooks)
		}
		if err != nil {
			return none, err
		}
		c.iterateWith(first)
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
	result, err = function(c.functionContext(), typed.Value[T](c.attempt.instance))
	returned = true
	return result, err
}

// firstAttempt is the first attempt of a call without options, hooks and rates, on the provider that the plan picks, which is all that nearly every call needs. What else a call
// needs is with its [call], which goes on from here when the attempt fails or is not admitted.
type firstAttempt struct {
	attempt

	plan   *plan
	picked int // in the plan
	hooks  hook.Asked[CallReport, Attempt]
}

// admit admits the attempt if nothing keeps the picked provider away that a call would have
// to wait for, or to explain. It is of a lease of leases where that is not nil.
func (f *firstAttempt) admit(ctx context.Context, query *queryPlan, leases *leaseCall) bool {
	if query == nil || ctx == nil || ctx.Err() != nil || !f.hooks.Unseen(ctx, &query.service.registry.hooks) {
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
	if p.gateNow() != 0 || p.vitals.Load() != nil {
		return false
	}
	var by attemptctx.Caller
	timeout := p.attemptTimeout()
	if leases != nil && leases.options.Timed {
		timeout = attemptTimeout{leases.options.Timeout, true}
	}
	if timeout.most != NoTimeout {
		by = attemptctx.CallerOf(ctx) // before anything is counted: its methods are a user's
	}
	if limits := p.limits.Load(); limits != nil && !f.takePlace(limits) || !f.attempt.admit(p, timeout) {
		f.leavePlace()
		return false
	}
	switch {
	case leases != nil: // it expires by itself, and leaves no time for others
		f.limitTime(&by, nil, &leases.room)
		f.ctx.StayIf(true)
		return true
	case f.trial: // its breaker has opened and half-opened since the gate was read
		f.watchTrial()
	}
	if timeout.most != NoTimeout {
		f.limitTime(&by, func() *provider { return plan.another(picked) }, nil)
	}
	return true
}

// takePlace takes a place if one is free or none is needed.
func (f *firstAttempt) takePlace(limits *limit.Limits) (ok bool) {
	f.place, ok = limits.TakePlace()
	return ok
}

// recordUnlessFailed is deferred around the function. A failure is left to the call, which
// goes on from there. A success like those before it teaches nothing but the counts.
func (f *firstAttempt) recordUnlessFailed() {
	if f.state != attemptAnswered {
		if f.state == attemptRunning { // it panics, or exits its goroutine
			value := recover()
			class, _ := f.recordInterruption(value)
			f.provider.service.meter.Single(class, f.elapsed())
			if value != nil {
				panic(value)
			}
		}
		return
	}
	p, now := f.provider, f.provider.registry.now()
	elapsed := now - f.began
	if !f.teachesNothing() {
		o := f.resolve(verdict.Verdict{Class: verdict.ClassSuccess}, elapsed, 0, nil)
		f.provider.service.meter.Single(o.Class, elapsed)
		f.record(o)
		return
	}
	if p.effects.NoteAnswer(elapsed) {
		p.service.pace.Answered(elapsed)
	}
	f.state = attemptOver
	f.cell.QuickLatency.Add(uint64(max(elapsed, 0)))
	if p.meter.Due(now) {
		elapsed = p.meter.Turn(elapsed, now)
	}
	f.cell.Quick[histogram.Index(elapsed)].Add(1)
	f.leavePlace()
	p.exit()
	if f.ctx != nil {
		f.ctx.End()
	}
}

// teachesNothing reports whether a success is recorded by counts alone.
func (a *attempt) teachesNothing() bool {
	return a.vitals == nil && !a.provider.effects.Tracked() && a.provider.breaker.Unaffected(a.generation)
}

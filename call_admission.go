package registry

import (
	"context"
	"time"

	"github.com/capreg/registry/internal/fault"
	"github.com/capreg/registry/internal/limit"
	"github.com/capreg/registry/internal/pick"
	"github.com/capreg/registry/internal/refusal"
	"github.com/capreg/registry/reason"
)

// admission says how a call asks to enter a provider.
type admission struct {
	why        reason.Why
	paid       bool // the budget for further attempts was asked already, or need not be
	placed     bool // the call holds a place there
	lastResort bool // whatever keeps others away
	uncounted  bool // the look-up is counted by its caller
}

// claimAndEnter is enter for a provider that no other lease of the call may have.
func (c *call) claimAndEnter(p *provider, e admission) (entered bool) {
	if c.shared == nil {
		return c.enter(p, e)
	}
	if !c.shared.claim(p, e.why == reason.Retry || c.rounds > 0 && c.tried(p.name())) {
		return false
	}
	defer func() { // deferred: an authoriser may exit the goroutine
		if !entered {
			c.shared.unclaim(p)
		}
	}()
	return c.enter(p, e)
}

// enter passes the call through everything that may keep it away from p, in the order that costs those it keeps
// away least: a full bulkhead takes no trial slot, and a caller that is not allowed to takes no place.
func (c *call) enter(p *provider, e admission) bool {
	a := &c.attempt
	if !e.placed {
		a.place = nil // that of the last attempt is not ours any more
	}
	if !e.lastResort && p.gateNow()&refusal.Blocked != 0 {
		return false // at no cost for what comes below
	}
	if !e.paid && c.entries > 0 && !c.withinBudget(p) {
		return false
	}
	if c.query.service.registry.options.Authorize != nil && (!c.authorized(p) || c.caller.Err() != nil) {
		return false
	}
	used, ok := c.passLimits(p, e)
	if !ok {
		return false
	}
	a.lastResort = e.lastResort
	others := func() *provider { return c.othersAfter(p, e.lastResort) }
	timeout := p.attemptTimeout()
	if c.options.Timed {
		timeout = attemptTimeout{c.options.Timeout, true}
	}
	if p.instance.Load() == nil && !p.makeInstance(&c.caller, others, timeout) || !a.admit(p, timeout) {
		used.GiveBack()
		a.leavePlace()
		return false
	}
	if c.shared != nil && c.entries == 0 && !e.uncounted { // a call counts at its end
		c.query.service.meter.Hit()
	}
	a.limitTime(&c.caller, others, c.room)
	c.room = nil
	c.noteEntry(p, e)
	return true
}

// noteEntry notes that the call has entered p.
func (c *call) noteEntry(p *provider, e admission) {
	a := &c.attempt
	c.state, c.hookCtx, c.why, c.cause = callRunning, nil, e.why, nil
	a.ctx.StayIf(c.options.OnceOnly || c.shared != nil || e.lastResort)
	if a.vitals != nil {
		a.track = c.providers.track(p)
	}
	if a.trial && c.shared == nil { // a lease expires by itself
		a.watchTrial()
	}
	p.meter.Entered(e.why)
	c.waiting.End() // an attempt that is reserved elsewhere
	if p != c.retried.provider {
		c.retried = retried{provider: p}
	}
	c.entries++
}

// withinBudget reports whether p bears another attempt that is not the first of its call. A trial is one that
// the breaker wants.
func (c *call) withinBudget(p *provider) bool {
	retry := p.effects.Retry()
	if retry == nil || p.gateNow()&refusal.HalfOpen != 0 || retry.Allow() {
		return true
	}
	c.skip(p, refusal.BudgetSpent(), 0)
	return false
}

// authorizedAt asks the authoriser about one provider. It is not inlined, so that [fault.Inside] finds it.
//
//go:noinline
func authorizedAt(ctx context.Context, caller string, p *provider) error {
	return fault.Run(func() error { return p.registry.options.Authorize(ctx, caller, p.service.name, p.name()) })
}

// authorized reports whether the caller may ask p.
func (c *call) authorized(p *provider) bool {
	err := authorizedAt(c.caller.Ctx, c.options.Caller, p)
	if err != nil {
		c.skip(p, refusal.Denied(err), 0)
	}
	return err == nil
}

// passLimits takes a place in the bulkhead, if there is one to be had at once, and uses the caller's rate.
func (c *call) passLimits(p *provider, e admission) (used limit.Spent, ok bool) {
	l := p.limits.Load()
	if l == nil {
		return limit.Spent{}, true
	}
	full := !e.placed && !c.takePlace(l)
	if full && c.waiting.Holds(l) { // it keeps what it has waited for
		c.full = append(c.full, p)
		return limit.Spent{}, false
	}
	used, retryIn := c.waiting.Take(l, c.options.Caller)
	switch {
	case retryIn > 0: // also where it is full: callers that have used up their rate do not queue
		c.attempt.leavePlace()
		c.skip(p, refusal.Throttled(), retryIn)
		if c.options.Wait {
			c.comebackWait().NoteThrottled(p)
		}
	case full:
		used.GiveBack()
		c.full = append(c.full, p)
	default:
		return used, true
	}
	return limit.Spent{}, false
}

// takePlace takes a place if one is free or none is needed.
func (c *call) takePlace(l *limit.Limits) bool {
	if l.Slots() == nil {
		return true
	}
	if !l.Slots().TryAcquire() {
		return false
	}
	c.attempt.place = l.Slots()
	return true
}

// othersAfter returns the provider for which an attempt on p has to leave time, since the call would
// move on to it; nil: none.
func (c *call) othersAfter(p *provider, lastResort bool) *provider {
	switch {
	case c.shared != nil || c.options.OnceOnly:
		return nil
	case c.allowed.NeedsLarger():
		return c.widerThan(p)
	case lastResort:
		return c.providers.plan.lastResort(&c.by, pick.Preview, func(other *provider) bool {
			return other != p && c.wantsLastResort(other)
		})
	}
	return c.providers.another()
}

// widerThan returns a candidate beside p that has a larger window than those that were too small; nil: none.
func (c *call) widerThan(p *provider) *provider {
	plan := c.providers.plan
	eligible := admitting.of(plan)
	for at := eligible.Next(0, len(plan.candidates)); at >= 0; at = eligible.Next(at+1, len(plan.candidates)) {
		if other := plan.candidates[at]; other != p && !c.allowed.TooSmall(other.definition.Window) {
			return other
		}
	}
	return nil
}

// skip notes why the call passed a provider by that looks eligible.
func (c *call) skip(p *provider, why *refusal.Reason, retryIn time.Duration) {
	p.meter.Refused(why.Code())
	c.refused = append(c.refused, p)
	c.skips = append(c.skips, refusedNow(p, why, retryIn))
}

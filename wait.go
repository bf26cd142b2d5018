package registry

import (
	"context"
	"slices"
	"time"

	"github.com/capreg/registry/internal/comeback"
	"github.com/capreg/registry/internal/domain"
	"github.com/capreg/registry/internal/limit"
	"github.com/capreg/registry/internal/pick"
	"github.com/capreg/registry/internal/refusal"
	"github.com/capreg/registry/reason"
)

// waitResult is the result of a call's wait for a provider.
type waitResult uint8

const (
	waitOver    waitResult = iota // there is nothing to wait for any more
	waitAgain                     // the next provider is to be chosen again
	waitEntered                   // a provider was entered
)

// waitForProvider waits, when the iteration has no provider left, for what the call may wait for, in this order:
//
//	what it waits for            | where         | turns                         | ends with
//	a place at a full provider   | awaitPlace    | by caller, first come         | a place, or another provider
//	the result of a first probe  | awaitFirstProbe | none                        | an eligible provider
//	nothing: a last resort       | tryLastResort | those of the strategy         | a provider that is not eligible
//	the end of a cooldown, or of | awaitReturn   | in the order of their coming, | a provider that is back
//	the caller's own rate limit  |               | spread over time              |
func (c *call) waitForProvider() waitResult {
	if c.awaitPlace() {
		return waitEntered
	}
	if c.awaitFirstProbe() {
		return waitAgain
	}
	if result := c.tryLastResort(); result != waitOver {
		return result
	}
	if c.awaitReturn() {
		return waitAgain
	}
	return waitOver
}

// sleep waits before a retry; false when the caller's context ended first.
func (c *call) sleep(delay time.Duration) bool {
	slept := delay <= 0 || comeback.Await(c.caller.Ctx, delay, nil) != comeback.Cancelled
	return slept && c.caller.Err() == nil
}

// awaitFirstProbe waits for the first results of probes when nothing was entered, and begins a new iteration
// where a provider can be.
func (c *call) awaitFirstProbe() bool {
	if c.entries > 0 || c.allowed.Final() || c.sawProbes || len(c.skips) > 0 {
		return false
	}
	c.sawProbes = true
	if !c.query.awaitFirstProbe(c.caller.Ctx, admitting) {
		return false
	}
	c.iterate()
	return true
}

// awaitFirstProbe waits, where the only hope is in providers that were never probed, for the first results of
// their probes, within ctx. It reports whether a provider is eligible.
func (q *queryPlan) awaitFirstProbe(ctx context.Context, want condition) bool {
	var deadline time.Time
	for {
		hope, eligible := q.firstProbes(want)
		if eligible || hope.changed == nil {
			return eligible
		}
		if deadline.IsZero() {
			deadline = time.Now().Add(hope.limit)
		}
		if comeback.Await(ctx, time.Until(deadline), hope.changed) != comeback.Woken {
			return false
		}
	}
}

// probeHope describes a wait for the first results of probes.
type probeHope struct {
	changed <-chan struct{} // closed when a provider may have become eligible; nil: no hope
	limit   time.Duration   // the longest time that it can take
}

// firstProbes reports whether a provider is eligible now and, if none is, what to hope for.
func (q *queryPlan) firstProbes(want condition) (hope probeHope, eligible bool) {
	plan := q.current()
	r := q.service.registry
	// Without the lock, which every refused call would take. The count is read after the view as well: a result that
	// arrives in between is in the count before it is in the view.
	if set := admitting.of(plan); set.Count() == 0 && !plan.view(r).Any(refusal.Unproven) && set.Count() == 0 {
		return probeHope{}, false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, p := range plan.candidates {
		now := p.gateNow()
		if now&want.refusing() == 0 {
			return probeHope{}, true
		}
		if now&refusal.Blocked == refusal.Unproven {
			hope.limit = max(hope.limit, p.health.Watch.FirstResultWithin())
		}
	}
	if hope.limit > 0 {
		hope.changed = r.changedLocked()
	}
	return hope, false
}

// tryLastResort enters, when nothing but last resorts was entered, the next provider that may be
// tried whatever keeps it away. Where it was replaced meanwhile, the iteration starts over.
func (c *call) tryLastResort() waitResult {
	if c.entries > 0 && !c.attempt.lastResort || c.allowed.Final() {
		return waitOver
	}
	mode := pick.Advance
	if c.entries > 0 {
		mode = pick.Peek // the call has had its turn
	}
	var passed []*provider
	untried := func(p *provider) bool { return !slices.Contains(passed, p) && c.wantsLastResort(p) }
	for {
		best := c.providers.plan.lastResort(&c.by, mode, untried)
		switch {
		case best == nil:
			return waitOver
		case c.claimAndEnter(best, admission{why: reason.LastResort, lastResort: true}):
			c.providers.take()
			return waitEntered
		case c.providers.restartIfReplaced(best):
			return waitAgain
		case c.caller.Err() != nil:
			return waitOver
		}
		passed, mode = append(passed, best), pick.Peek
	}
}

// wantsLastResort reports whether the call has use for a provider as a last resort.
func (c *call) wantsLastResort(p *provider) bool { return c.wants(p) && !c.tried(p.name()) }

// lastResort returns the provider that may be tried whatever keeps it away, among those wanted; nil: none. Some
// reasons cannot be helped, and a provider on trial is tried enough. Of the group of the one that is the first to
// come back by itself, its strategy picks, so that they take turns; FALLBACK picks that one.
func (p *plan) lastResort(by *pick.Caller, mode pick.Mode, wants func(*provider) bool) *provider {
	if !p.resorts {
		return nil
	}
	return p.candidate(p.PickSoonest(func(i int) (retryIn time.Duration, allowed bool) {
		other := p.candidates[i]
		now := other.gateNow()
		if !other.definition.LastResort && !p.leastBad || now&refusal.Blocked == 0 || now&(refusal.Helpless|refusal.HalfOpen) != 0 || !wants(other) {
			return 0, false
		}
		retryIn, asked := other.comesBackIn()
		return retryIn, !asked
	}, mode, by))
}

// comebackWait has the waits of a call for what comes back to it.
type comebackWait = comeback.Wait[*domain.Domain[*provider], *provider]

// awaitReturn waits for the first provider that comes back in time, and begins a new iteration. It returns
// false when there is none, or nothing to wait for. Only time bounds how often a call comes back; it pauses for
// longer each time, up to a second.
func (c *call) awaitReturn() bool {
	if !c.options.Wait {
		return false
	}
	registry, w := c.query.service.registry, c.comebackWait()
	began := registry.now()
	w.Reserve(&c.caller, c.options.Caller, c.limitsToReserve)
	if !w.ForFirst(&c.caller, func() time.Duration { return c.since(began) }, c.firstReturn) {
		w.End()
		return false
	}
	if c.rounds > 0 && !c.sleep(comeback.Pause(c.rounds)) {
		return false
	}
	c.delay += registry.now() - began
	c.iterate()
	c.rounds++
	c.refused = nil // those that refused are asked again
	w.ForgetThrottled()
	return true
}

// comebackWait returns the state of such waits of the call.
func (c *call) comebackWait() *comebackWait {
	if c.waiting == nil {
		c.waiting = comeback.New[*domain.Domain[*provider], *provider](c.query.service.registry.returns.Turn())
	}
	return c.waiting
}

// limitsToReserve returns the limits of a provider that turned the call away; nil: the call has no use for it now.
func (c *call) limitsToReserve(p *provider) *limit.Limits {
	if p.superseded() || c.allowed.NotLarger(p.definition.Window) {
		return nil
	}
	return p.limits.Load()
}

// firstReturn returns the provider whose cooldown, which alone keeps it away, ends first, of those that the
// call may ask, and a channel that is closed when a provider becomes eligible before.
func (c *call) firstReturn() (first comeback.Back[*domain.Domain[*provider]], changed <-chan struct{}) {
	registry, plan := c.query.service.registry, c.query.current()
	registry.mu.Lock()
	defer registry.mu.Unlock()
	for i, p := range plan.candidates {
		if !c.mayWaitFor(p) || !plan.FastEnough(i) {
			continue
		}
		blocked := p.gateNow() & refusal.Blocked
		if blocked == 0 { // it has just ended
			return comeback.Back[*domain.Domain[*provider]]{Key: p.domain, Known: true, Now: true}, registry.changedLocked()
		}
		if until := p.cooldownNow().Until(); blocked == refusal.Cooling && (!first.Known || until.Before(first.Until)) {
			first.Key, first.Known, first.Until = p.domain, true, until
		}
	}
	return first, registry.changedLocked()
}

// mayWaitFor reports whether the call may ask p once its cooldown is over.
func (c *call) mayWaitFor(p *provider) bool {
	if c.allowed.TooSmall(p.definition.Window) || slices.Contains(c.refused, p) || !c.mayReturnTo(p) {
		return false
	}
	return c.shared == nil || c.tried(p.name()) || !c.shared.claimed(p.name())
}

package registry

import (
	"context"
	"slices"
	"time"

	"github.com/capreg/registry/internal/pick"
)

// waitEnd is the way in which a wait ended.
type waitEnd uint8

const (
	waitWoken     waitEnd = iota // what was waited for may have happened
	waitTimedOut                 // its time is over
	waitCancelled                // the context has ended
)

// await waits until wake is closed, for at most limit, within ctx. wake may be nil.
func await(ctx context.Context, limit time.Duration, wake <-chan struct{}) waitEnd {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-wake:
		return waitWoken
	case <-timer.C:
		return waitTimedOut
	case <-ctx.Done():
		return waitCancelled
	}
}

// waitResult is the result of a call's wait for a provider.
type waitResult uint8

const (
	waitOver    waitResult = iota // there is nothing to wait for any more
	waitAgain                     // the next provider is to be chosen again
	waitEntered                   // a provider was entered
)

// waitForProvider waits, when the iteration has no provider left, for what the call may wait
// for: a place, a first probe, a last resort that need not be waited for, the end of a
// cooldown.
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
	if c.awaitCooldown() {
		return waitAgain
	}
	return waitOver
}

// sleep waits before a retry; false when the caller's context ended first.
func (c *call) sleep(delay time.Duration) bool {
	if delay > 0 && await(c.caller.ctx, delay, nil) == waitCancelled {
		return false
	}
	return c.caller.err() == nil
}

// awaitFirstProbe waits for the first results of probes when nothing was entered, and begins a
// new iteration where a provider can be.
func (c *call) awaitFirstProbe() bool {
	if c.entries > 0 || c.final() || c.sawProbes || len(c.skips) > 0 {
		return false
	}
	c.sawProbes = true
	if !c.query.awaitFirstProbe(c.caller.ctx, admitting) {
		return false
	}
	c.iterate()
	return true
}

// awaitFirstProbe waits, where the only hope is in providers that were never probed, for the
// first results of their probes, within ctx. It reports whether a provider is eligible.
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
		if await(ctx, time.Until(deadline), hope.changed) != waitWoken {
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
	if !plan.mayBecomeEligible() {
		return probeHope{}, false // without the lock, which every refused call would take
	}
	r := q.service.registry
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, p := range plan.candidates {
		now := p.gateNow()
		if now&want.blockers() == 0 {
			return probeHope{}, true
		}
		if now&gateBlocked == gateUnproven {
			hope.limit = max(hope.limit, p.health.watch.FirstResultWithin())
		}
	}
	if hope.limit > 0 {
		hope.changed = r.changedLocked()
	}
	return hope, false
}

// mayBecomeEligible reports whether a candidate can be entered, or was never probed.
func (p *plan) mayBecomeEligible() bool {
	return slices.ContainsFunc(p.candidates, func(candidate *provider) bool {
		now := candidate.gateNow()
		return now&gateBlocked == 0 || now&gateUnproven != 0
	})
}

// tryLastResort enters, when nothing but last resorts was entered, the next provider that may be
// tried whatever keeps it away. Where it was replaced meanwhile, the iteration starts over.
func (c *call) tryLastResort() waitResult {
	if c.entries > 0 && !c.attempt.lastResort || c.final() {
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
		case c.claimAndEnter(best, admission{reason: attemptLastResort, lastResort: true}):
			c.providers.take()
			return waitEntered
		case c.providers.restartIfReplaced(best):
			return waitAgain
		case c.caller.err() != nil:
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
	var soonest time.Duration
	var allowed []int
	best := -1
	for i, other := range p.candidates {
		now := other.gateNow()
		if !other.definition.LastResort && !p.leastBad || now&gateBlocked == 0 || now&(gateHelpless|gateHalfOpen) != 0 || !wants(other) {
			continue
		}
		retryIn, asked := other.comesBackIn()
		if asked {
			continue
		}
		allowed = append(allowed, i)
		if best < 0 || retryIn < soonest {
			best, soonest = i, retryIn
		}
	}
	if best < 0 {
		return nil
	}
	if picked := p.PickAmong(allowed, best, mode, by); picked >= 0 {
		best = picked
	}
	return p.candidates[best]
}

// maxComebacks bounds how many attempts one call makes after waiting for the end of a
// cooldown.
const maxComebacks = 16

// awaitCooldown waits for the first provider whose cooldown ends in time, and begins a new
// iteration. It returns false when there is none, or nothing to wait for.
func (c *call) awaitCooldown() bool {
	if !c.options.wait || c.comebacks >= maxComebacks {
		return false
	}
	until, changed := c.firstReturn()
	if until.IsZero() || c.caller.hasDeadline && !until.Before(c.caller.deadline) {
		return false
	}
	registry := c.query.service.registry
	began := registry.now()
	if await(c.caller.ctx, max(time.Until(until), time.Millisecond), changed) == waitCancelled {
		return false
	}
	c.delay += registry.now() - began
	c.iterate()
	c.rounds++
	c.refused = nil // those that refused are asked again
	return true
}

// firstReturn returns the earliest end of a cooldown that alone keeps away a provider that the
// call may ask, and a channel that is closed when a provider becomes eligible before.
func (c *call) firstReturn() (earliest time.Time, changed <-chan struct{}) {
	registry, plan := c.query.service.registry, c.query.current()
	registry.mu.Lock()
	defer registry.mu.Unlock()
	for _, p := range plan.candidates {
		if !c.mayWaitFor(p) {
			continue
		}
		blocked := p.gateNow() & gateBlocked
		if blocked == 0 { // it has just ended
			return time.Now(), registry.changedLocked()
		}
		if until := p.cooldownNow().Until(); blocked == gateCooling && (earliest.IsZero() || until.Before(earliest)) {
			earliest = until
		}
	}
	return earliest, registry.changedLocked()
}

// mayWaitFor reports whether the call may ask p once its cooldown is over.
func (c *call) mayWaitFor(p *provider) bool {
	if c.tooSmall(p) || slices.Contains(c.refused, p) || !c.mayReturnTo(p) {
		return false
	}
	return c.shared == nil || c.tried(p.name()) || !c.shared.claimed(p.name())
}

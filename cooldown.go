package registry

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/capreg/registry/event"
	"github.com/capreg/registry/internal/cooldown"
	"github.com/capreg/registry/internal/limit"
	"github.com/capreg/registry/internal/oneline"
	"github.com/capreg/registry/internal/schedule"
	"github.com/capreg/registry/verdict"
)

// domain is a failure domain: providers behind one key, host or GPU. It owns their limits, and their cooldown
// unless that concerns one of them alone. A provider that names no domain has one to itself.
type domain struct {
	name string // "" for a domain of one

	// Guarded by Registry.mu.
	limits   *limit.Limits          // nil: none; its members have it as well
	members  map[*provider]struct{} // nil for a domain of one
	limitsBy string                 // the provider whose registration or change set the limits
	cooldown timedCooldown
}

// timedCooldown is a cooldown and the timer that ends it. Guarded by Registry.mu.
type timedCooldown struct {
	cooldown.Cooldown
	timer *schedule.Timer // nil when idle
}

// start makes run the end of the cooldown, in place of an earlier one.
func (c *timedCooldown) start(s *schedule.Scheduler, run func()) {
	c.stopTimer()
	c.timer = s.After(time.Until(c.Until()), run)
}

// stopTimer leaves the cooldown without an end, as after the last of its members has left.
func (c *timedCooldown) stopTimer() {
	if c.timer != nil {
		c.timer.Stop()
		c.timer = nil
	}
}

// Why a cooldown ended, for its event.
const (
	endedInTime  = "its time is over"
	endedByReset = "reset"
)

// cooldownNow returns the cooldown that keeps the provider away for longest, its own or its domain's. Caller
// holds Registry.mu.
func (p *provider) cooldownNow() *cooldown.Cooldown {
	return cooldown.Latest(&p.cooldown.Cooldown, &p.domain.cooldown.Cooldown)
}

// coolingWith returns the providers that a cooldown keeps away: the provider alone, or all of its domain.
// Caller holds Registry.mu.
func (p *provider) coolingWith(c *timedCooldown) []*provider {
	if c == &p.cooldown || p.domain.members == nil {
		return []*provider{p}
	}
	return p.domain.sorted()
}

// sorted returns the members of a shared domain in the order of listings. Caller holds Registry.mu.
func (d *domain) sorted() []*provider {
	members := slices.Collect(maps.Keys(d.members))
	sortListing(members)
	return members
}

// cool leaves the provider alone as the verdict says, together with its domain unless that is about the
// provider alone.
func (p *provider) cool(v verdict.Verdict, kind verdict.Cooldown, cause error) {
	p.registry.mu.Lock()
	defer p.registry.mu.Unlock()
	if p.hasLeft() {
		return
	}
	c := &p.domain.cooldown
	if kind == verdict.CooldownModel {
		c = &p.cooldown
	}
	before := c.Cooldown
	if !c.Apply(cooldown.Request{Class: v.Class, Kind: kind, After: v.After, Cause: cause}, time.Now()) {
		return
	}
	members := p.coolingWith(c)
	if c.Growth() > before.Growth() {
		for _, member := range members {
			member.effects.setCooldownGrown(true)
		}
	}
	if c.Until().After(before.Until()) {
		c.start(p.registry.schedule, p.cooldownEnd(c))
	}
	parks := c.State() == cooldown.Parked && before.State() != cooldown.Parked
	for _, member := range members {
		var change *event.Event
		if parks || member.gateNow()&gateCooling == 0 {
			change = &event.Event{Kind: event.Cooling, Reason: v.Class.String(), Until: c.Until(), Err: cause}
			if parks {
				change.Kind = event.Parked
			}
		}
		member.changeGateLocked(0, gateCooling, change)
	}
}

// cooldownEnd returns what ends a cooldown when its time is over. It refers to a provider only if that is
// removed together with its timer: a domain may outlive the provider that began its cooldown.
func (p *provider) cooldownEnd(c *timedCooldown) func() {
	registry, shared := p.registry, p.domain
	members := shared.sorted
	if c == &p.cooldown || shared.members == nil {
		members = func() []*provider { return []*provider{p} }
	}
	return func() {
		registry.mu.Lock()
		defer registry.mu.Unlock()
		if c.Over(time.Now()) {
			c.endFor(members(), endedInTime)
		}
	}
}

// endFor ends the cooldown, and lets in those members that no other one keeps away. Caller holds Registry.mu.
func (c *timedCooldown) endFor(members []*provider, reason string) {
	if !c.Active() {
		return
	}
	c.End()
	c.stopTimer()
	for _, member := range members {
		if !member.cooldownNow().Active() {
			member.changeGateLocked(gateCooling, 0, &event.Event{Kind: event.CooldownEnded, Reason: reason})
		}
	}
}

// resetCooldown ends the cooldowns of the provider and of its domain, and their growth.
func (p *provider) resetCooldown() {
	p.registry.mu.Lock()
	defer p.registry.mu.Unlock()
	p.endGrowthLocked()
	p.cooldown.endFor([]*provider{p}, endedByReset)
	p.domain.cooldown.endFor(p.coolingWith(&p.domain.cooldown), endedByReset)
}

// endGrowth ends the growth of cooldowns after a success. One in progress stays.
func (p *provider) endGrowth() {
	p.registry.mu.Lock()
	defer p.registry.mu.Unlock()
	p.endGrowthLocked()
}

// endGrowthLocked is endGrowth for callers that hold Registry.mu.
func (p *provider) endGrowthLocked() {
	p.cooldown.ResetGrowth()
	p.domain.cooldown.ResetGrowth()
	for _, member := range p.coolingWith(&p.domain.cooldown) {
		member.effects.setCooldownGrown(member.cooldown.Growth() > 0)
	}
}

// checkDomain refuses limits that differ from those of the domain. Caller holds mu.
func (r *Registry) checkDomain(e entry, leaving *provider) error {
	d, ok := r.domains[domainKey(e.definition.Domain, e.overrideID > 0)]
	if !ok || e.limits == (LimitPolicy{}) {
		return nil
	}
	if len(d.members) == 1 && leaving != nil && leaving.domain == d {
		return nil
	}
	var present LimitPolicy
	if l := d.limits; l != nil {
		present = LimitPolicy(l.Policy())
	}
	if present == e.limits || d.limitsBy == "" {
		return nil
	}
	return refuse(ErrConflict, "Limits", raw(fmt.Sprintf("%+v", e.limits)),
		fmt.Sprintf("%+v, which provider %q set for domain %q", present, d.limitsBy, oneline.Cut(e.definition.Domain, 64)))
}

// enterDomain gives p its domain, which is made if p is the first member, and sets its limits unless the
// policy is zero or the domain has some. Caller holds mu.
func (r *Registry) enterDomain(p *provider, policy LimitPolicy) {
	p.domain = &p.alone
	if name := domainKey(p.definition.Domain, p.ofTest()); name != "" {
		shared, ok := r.domains[name]
		if !ok {
			shared = &domain{name: name, members: make(map[*provider]struct{})}
			r.domains[name] = shared
		}
		shared.members[p] = struct{}{}
		p.domain = shared
		if shared.cooldown.Active() {
			p.gate.Store(uint32(gateCooling))
		}
		p.effects.setCooldownGrown(shared.cooldown.Growth() > 0)
	}
	p.limits.Store(p.domain.limits)
	if policy != (LimitPolicy{}) && p.domain.limits == nil {
		p.limitDomain(policy)
	}
}

// limitDomain sets the limits of the provider's domain. Caller holds Registry.mu.
func (p *provider) limitDomain(policy LimitPolicy) {
	p.domain.limitsBy = p.name()
	p.domain.limits = limit.New(limit.Policy(policy), p.domain.limits)
	p.limits.Store(p.domain.limits)
	for member := range p.domain.members { // unsorted: p is in no group yet while it joins
		member.limits.Store(p.domain.limits)
	}
}

// leaveDomain takes p out of its domain, which ends with its last member. Caller holds mu.
func (r *Registry) leaveDomain(p *provider) {
	p.cooldown.stopTimer()
	shared := p.domain
	if shared.members == nil {
		shared.cooldown.stopTimer()
		return
	}
	delete(shared.members, p)
	if len(shared.members) == 0 {
		delete(r.domains, shared.name)
		shared.cooldown.stopTimer()
	}
}

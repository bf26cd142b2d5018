package registry

import (
	"slices"
	"time"

	"github.com/capreg/registry/event"
	"github.com/capreg/registry/internal/cooldown"
	"github.com/capreg/registry/internal/domain"
	"github.com/capreg/registry/internal/limit"
	"github.com/capreg/registry/internal/outcome"
	"github.com/capreg/registry/internal/override"
	"github.com/capreg/registry/verdict"
)

// Why a cooldown ended, for its event.
const (
	endedInTime  = "its time is over"
	endedByReset = "reset"
	endedByKey   = "replaced, with credentials that may be new"
)

// cooldownNow returns the cooldown that keeps the provider away for longest, its own or its domain's. Caller
// holds Registry.mu.
func (p *provider) cooldownNow() *cooldown.Cooldown {
	return cooldown.Latest(&p.cooldown.Cooldown, &p.domain.Cooldown.Cooldown)
}

// coolingWith returns the providers that a cooldown keeps away: the provider alone, or all of its domain.
// Caller holds Registry.mu.
func (p *provider) coolingWith(c *cooldown.Timed) []*provider {
	if c == &p.cooldown {
		return []*provider{p}
	}
	return sortedMembers(p.domain)
}

// sortedMembers returns the members of a domain in the order of listings. Caller holds Registry.mu.
func sortedMembers(d *domain.Domain[*provider]) []*provider {
	members := d.Members()
	sortListing(members)
	return members
}

// cool leaves the provider alone as the outcome says, or all of its domain.
func (p *provider) cool(o outcome.Outcome) {
	p.registry.mu.Lock()
	defer p.registry.mu.Unlock()
	if p.hasLeft() {
		return
	}
	c := &p.cooldown
	if o.Scope == verdict.ScopeDomain {
		c = &p.domain.Cooldown
	}
	before := c.Cooldown
	changed := c.Apply(cooldown.Request{Class: o.Class, Kind: o.Cooldown, After: o.After, Cause: o.Cause, By: p.name(), Call: o.Call}, time.Now())
	members := p.coolingWith(c)
	if c.Pending() {
		for _, member := range members {
			member.effects.SetCooldownGrown(true)
		}
	}
	if !changed {
		return
	}
	if c.Until().After(before.Until()) {
		c.StartTimer(p.registry.schedule, p.cooldownEnd(c))
	}
	parks := c.State() == cooldown.Parked && before.State() != cooldown.Parked
	for _, member := range members {
		var change *event.Event
		if parks || member.gateNow()&gateCooling == 0 {
			change = &event.Event{Kind: event.Cooling, Reason: o.Class.String(), Until: c.Until(), Err: o.Cause}
			if parks {
				change.Kind = event.Parked
			}
		}
		member.changeGateLocked(0, gateCooling, change)
	}
}

// cooldownEnd returns what ends a cooldown when its time is over. It refers to a provider only if that is
// removed together with its timer: a domain may outlive the provider that began its cooldown.
func (p *provider) cooldownEnd(c *cooldown.Timed) func() {
	registry, shared := p.registry, p.domain
	members := func() []*provider { return sortedMembers(shared) }
	if c == &p.cooldown {
		members = func() []*provider { return []*provider{p} }
	}
	return func() {
		registry.mu.Lock()
		defer registry.mu.Unlock()
		if c.Over(time.Now()) {
			endCooldown(c, members(), endedInTime)
		}
	}
}

// endCooldown ends a cooldown, and lets in those members that no other one keeps away. Caller holds Registry.mu.
func endCooldown(c *cooldown.Timed, members []*provider, reason string) {
	if !c.Active() {
		return
	}
	c.End()
	for _, member := range members {
		if renewRecord(member); !member.cooldownNow().Active() {
			member.changeGateLocked(gateCooling, 0, &event.Event{Kind: event.CooldownEnded, Reason: reason})
		}
	}
}

// resetCooldown ends the cooldowns of the provider and of its domain, and their growth.
func (p *provider) resetCooldown() {
	p.registry.mu.Lock()
	defer p.registry.mu.Unlock()
	p.endGrowthLocked()
	endCooldown(&p.cooldown, []*provider{p}, endedByReset)
	endCooldown(&p.domain.Cooldown, sortedMembers(p.domain), endedByReset)
}

// endGrowth ends the growth of cooldowns after a success, and after any answer the count of calls whose
// credentials were refused. A cooldown in progress stays.
func (p *provider) endGrowth(success bool) {
	p.registry.mu.Lock()
	defer p.registry.mu.Unlock()
	switch {
	case p.hasLeft(): // what it was asked with may have been replaced
	case success:
		p.endGrowthLocked()
	default:
		p.cooldown.ForgetRefusals()
		p.domain.Cooldown.ForgetRefusals()
	}
}

// forgiveKeyLocked ends what the registry holds against the credentials of the domain. Caller holds Registry.mu.
func (p *provider) forgiveKeyLocked() {
	shared := &p.domain.Cooldown
	shared.ForgetRefusals()
	if shared.State() == cooldown.Parked {
		endCooldown(shared, sortedMembers(p.domain), endedByKey)
	}
}

// endGrowthLocked is endGrowth for callers that hold Registry.mu.
func (p *provider) endGrowthLocked() {
	for _, c := range []*cooldown.Timed{&p.cooldown, &p.domain.Cooldown} {
		c.ResetGrowth()
		c.ForgetRefusals()
	}
	for _, member := range p.domain.Members() {
		member.effects.SetCooldownGrown(member.cooldown.Pending())
	}
}

// enterDomain gives p its domain, and sets its limits unless the policy is zero or the domain has some. Caller
// holds mu.
func (r *Registry) enterDomain(p *provider, policy LimitPolicy) {
	p.domain = r.domains.Join(override.DomainKey(p.definition.Domain, p.ofTest()), p)
	if p.domain.Cooldown.Active() {
		p.gate.Store(uint32(p.gateNow() | gateCooling))
	}
	p.effects.SetCooldownGrown(p.domain.Cooldown.Pending())
	p.limits.Store(p.domain.Limits())
	if policy != (LimitPolicy{}) && p.domain.Limits() == nil {
		p.limitDomain(policy)
	}
}

// limitDomain sets the limits of the provider's domain. Caller holds Registry.mu.
func (p *provider) limitDomain(policy LimitPolicy) {
	p.domain.SetLimits(limit.Policy(policy), p.name())
	for _, member := range p.domain.Members() { // unsorted: p is in no group yet while it joins
		member.limits.Store(p.domain.Limits())
	}
}

// moveQueueTo makes the calls that queue for p queue for its successor, each in its turn, unless p shares its
// places with others. Caller holds Registry.mu.
func (p *provider) moveQueueTo(successor *provider) {
	from, to := p.limits.Load(), successor.limits.Load()
	shared := slices.ContainsFunc(p.domain.Members(), func(other *provider) bool { return other != p })
	if shared || from == nil || to == nil || from.Slots() == nil || to.Slots() == nil {
		return
	}
	from.Slots().MoveQueue(to.Slots())
}

// leaveDomain takes p out of its domain. Caller holds mu.
func (r *Registry) leaveDomain(p *provider) {
	p.cooldown.StopTimer()
	r.domains.Leave(p.domain, p)
}

package registry

import (
	"slices"

	"github.com/capreg/registry/event"
	"github.com/capreg/registry/internal/cooldown"
	"github.com/capreg/registry/internal/domain"
	"github.com/capreg/registry/internal/limit"
	"github.com/capreg/registry/internal/outcome"
	"github.com/capreg/registry/internal/override"
	"github.com/capreg/registry/internal/refusal"
)

// cooldownNow returns the cooldown that keeps the provider away for longest, its own or its domain's. Caller
// holds Registry.mu.
func (p *provider) cooldownNow() *cooldown.Cooldown { return domain.Now(p) }

// The methods below implement [domain.Member], with Registry.mu held.

func (p *provider) Cooldowns() (own *cooldown.Timed, shared *domain.Domain[*provider]) {
	return &p.cooldown, p.domain
}
func (p *provider) NoteEnd()                     { renewRecord(p) }
func (p *provider) SetGrown(grown bool)          { p.effects.SetCooldownGrown(grown) }
func (p *provider) KeptAway() bool               { return p.gateNow()&refusal.Cooling != 0 }
func (p *provider) KeepAway(change *event.Event) { p.changeGateLocked(0, refusal.Cooling, change) }
func (p *provider) LetIn(change *event.Event)    { p.changeGateLocked(refusal.Cooling, 0, change) }

// cooling returns what the cooldowns of providers need of the registry.
func (r *Registry) cooling() domain.Owner[*provider] {
	return domain.Owner[*provider]{Sort: sortListing, Schedule: r.schedule, Lock: &r.mu}
}

// cool leaves the provider alone as the outcome says, or all of its domain.
func (p *provider) cool(o outcome.Outcome) {
	p.registry.mu.Lock()
	defer p.registry.mu.Unlock()
	if !p.hasLeft() {
		domain.Cool(p.registry.cooling(), p, o.Scope, cooldown.Request{
			Class: o.Class, Kind: o.Cooldown, After: o.After, Cause: o.Cause, By: p.id(), Call: o.Call,
		})
	}
}

// resetCooldown ends the cooldowns of the provider and of its domain, and their growth.
func (p *provider) resetCooldown() {
	p.registry.mu.Lock()
	defer p.registry.mu.Unlock()
	domain.Reset(p.registry.cooling(), p)
}

// endGrowth ends the growth of cooldowns after a success, and after any answer the count of calls whose
// credentials were refused. A cooldown in progress stays.
func (p *provider) endGrowth(success bool) {
	p.registry.mu.Lock()
	defer p.registry.mu.Unlock()
	switch {
	case p.hasLeft(): // what it was asked with may have been replaced
	case success:
		domain.EndGrowth(p)
	default:
		domain.ForgetRefusals(p)
	}
}

// enterDomain gives p its domain, and sets its limits unless the policy is zero or the domain has some. Caller
// holds mu.
func (r *Registry) enterDomain(p *provider, policy LimitPolicy) {
	if key := override.DomainKey(p.definition.Domain, p.ofTest()); p.domain == nil || key != "" {
		p.domain = r.domains.Join(key, p)
	}
	if p.domain.Cooldown.Active() {
		p.gate.Store(uint32(p.gateNow() | refusal.Cooling))
	}
	p.effects.SetCooldownGrown(p.domain.Cooldown.Pending())
	p.limits.Store(p.domain.Limits())
	if policy != (LimitPolicy{}) && p.domain.Limits() == nil {
		p.limitDomain(policy)
	}
}

// limitDomain sets the limits of the provider's domain. Caller holds Registry.mu.
func (p *provider) limitDomain(policy LimitPolicy) {
	p.domain.SetLimits(limit.Policy(policy), p.id())
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

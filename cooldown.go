package registry

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/capreg/registry/event"
	"github.com/capreg/registry/internal/oneline"
	"github.com/capreg/registry/internal/schedule"
	"github.com/capreg/registry/verdict"
)

// The cooldowns that no server has stated: first, then doubled each time up to
// the last.
const (
	firstShortCooldown = 5 * time.Second
	lastShortCooldown  = 30 * time.Second
	firstAskedCooldown = 2 * time.Second
	lastAskedCooldown  = time.Minute
	firstModelCooldown = time.Minute
	lastModelCooldown  = 10 * time.Minute
	firstLongCooldown  = 5 * time.Minute
	lastLongCooldown   = time.Hour

	longestCooldown = 24 * time.Hour // whatever a server says
)

// domain is what providers share that stand behind one key, host or GPU: their
// limits, and their cooldown unless that concerns one of them alone. A provider
// that names no domain has one to itself.
type domain struct {
	name string // "" for a domain of one

	// Guarded by Registry.mu.
	limits   *limits                // nil: none; its members have it as well
	members  map[*provider]struct{} // nil for a domain of one
	limitsBy string                 // the provider whose registration or change set the limits
	cooldown cooldown
}

// cooldown is how long providers are left alone. Guarded by Registry.mu.
type cooldown struct {
	until  time.Time // zero: not cooling down
	class  verdict.Class
	reason error
	guess  bool // no server has asked for it
	grown  int  // cooldowns since the last success
	timer  *schedule.Timer
}

// active reports whether the time of the cooldown is not over.
func (c *cooldown) active() bool { return !c.until.IsZero() }

// parked says that only an operator can end the reason for the cooldown.
func (c *cooldown) parked() bool { return c.class == verdict.ClassFatal }

// cooldownNow returns the cooldown that keeps the provider away for longest; its
// own or its domain's. Caller holds Registry.mu.
func (p *provider) cooldownNow() *cooldown {
	if p.cooldown.until.After(p.domain.cooldown.until) {
		return &p.cooldown
	}
	return &p.domain.cooldown
}

// sharing returns those whom a cooldown keeps away: the provider alone, or all of
// its domain. Caller holds Registry.mu.
func (p *provider) sharing(c *cooldown) []*provider {
	if c == &p.cooldown || p.domain.members == nil {
		return []*provider{p}
	}
	return p.domain.sorted()
}

// sorted returns the members of a shared domain in the one order. Caller holds
// Registry.mu.
func (d *domain) sorted() []*provider {
	members := slices.Collect(maps.Keys(d.members))
	sortListing(members)
	return members
}

// coolingEnd returns what ends a cooldown when its time is over. It holds a
// provider only where that is removed together with its timer.
func (p *provider) coolingEnd(c *cooldown) func() {
	shared := p.domain
	if c == &p.cooldown || shared.members == nil {
		return func() { p.cooled(c) }
	}
	registry := p.registry
	return func() {
		registry.mu.Lock()
		defer registry.mu.Unlock()
		if c.active() && !time.Now().Before(c.until) {
			c.end(shared.sorted(), endOfTime)
		}
	}
}

const endOfTime = "its time is over"

// cool leaves the provider alone as the verdict says, together with its domain
// unless that is about the provider alone. The latest deadline wins; outcomes
// during a cooldown prolong it at most and do not make it grow.
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
	length, cooling := v.After, c.active()
	step := c.grown
	if cooling {
		step = max(step-1, 0) // the step of the cooldown in progress
	}
	switch kind {
	case verdict.CooldownShort:
		length = c.length(v.After, step, firstShortCooldown, lastShortCooldown)
	case verdict.CooldownAsked:
		length = c.length(v.After, step, firstAskedCooldown, lastAskedCooldown)
	case verdict.CooldownModel:
		length = c.length(v.After, step, firstModelCooldown, lastModelCooldown)
	case verdict.CooldownLong:
		length = c.length(v.After, step, firstLongCooldown, lastLongCooldown)
	case verdict.CooldownNone, verdict.CooldownReset:
	}
	length = min(length, longestCooldown)
	until := time.Now().Add(length)
	parks := v.Class == verdict.ClassFatal && (!cooling || !c.parked())
	later := !cooling || until.After(c.until)
	if length <= 0 || !later && !parks {
		return
	}
	members := p.sharing(c)
	if !cooling && kind != verdict.CooldownNone {
		c.grown++
		for _, member := range members {
			member.setGrown(true)
		}
	}
	// Providers that are parked stay so in name when a rate limit prolongs it.
	if !cooling || !c.parked() {
		c.class, c.reason = v.Class, cause
	}
	if later {
		c.until, c.guess = until, v.After <= 0
		if c.timer != nil {
			c.timer.Stop()
		}
		c.timer = p.registry.schedule.After(length, p.coolingEnd(c))
	}
	for _, member := range members {
		var change *event.Event
		if parks || member.gateNow()&gateCooling == 0 {
			change = &event.Event{Kind: event.Cooling, Reason: v.Class.String(), Until: c.until, Err: cause}
			if parks {
				change.Kind = event.Parked
			}
		}
		member.changeGateLocked(0, gateCooling, change)
	}
}

// length is what the server asked for plus up to a tenth, never less, so that
// its clients do not return together; without that, a growing length of which
// up to a fifth is random.
func (c *cooldown) length(asked time.Duration, step int, first, last time.Duration) time.Duration {
	if asked > 0 {
		asked = min(asked, longestCooldown)
		return asked + rand.N(asked/10+1) //nolint:gosec // jitter
	}
	grown := last
	if step < 16 && first<<step < last {
		grown = first << step
	}
	return grown - rand.N(grown/5+1) //nolint:gosec // jitter
}

// cooled ends a cooldown when its time is over.
func (p *provider) cooled(c *cooldown) {
	p.registry.mu.Lock()
	defer p.registry.mu.Unlock()
	if c.active() && !time.Now().Before(c.until) {
		c.end(p.sharing(c), endOfTime)
	}
}

// end ends the cooldown of its members. Caller holds Registry.mu.
func (c *cooldown) end(members []*provider, reason string) {
	if !c.active() {
		return
	}
	c.until, c.reason = time.Time{}, nil
	if c.timer != nil {
		c.timer.Stop()
		c.timer = nil
	}
	for _, member := range members {
		if !member.cooldownNow().active() {
			member.changeGateLocked(gateCooling, 0, &event.Event{Kind: event.CooldownEnded, Reason: reason})
		}
	}
}

// endCooldown ends the cooldowns of the provider and of its domain, and their growth.
func (p *provider) endCooldown() {
	p.registry.mu.Lock()
	defer p.registry.mu.Unlock()
	p.forgiveLocked()
	p.cooldown.end([]*provider{p}, "reset")
	p.domain.cooldown.end(p.sharing(&p.domain.cooldown), "reset")
}

func (p *provider) setGrown(grown bool) {
	if grown {
		p.learns.Store(true)
	}
	p.grown.Store(grown)
}

// forgive ends the growth of cooldowns after a success; one in progress stays.
func (p *provider) forgive() {
	p.registry.mu.Lock()
	defer p.registry.mu.Unlock()
	p.forgiveLocked()
}

func (p *provider) forgiveLocked() {
	p.cooldown.grown, p.domain.cooldown.grown = 0, 0
	for _, member := range p.sharing(&p.domain.cooldown) {
		member.setGrown(member.cooldown.grown > 0)
	}
}

// checkDomain refuses other limits than the domain has. Caller holds mu.
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
		present = l.policy
	}
	if present == e.limits || d.limitsBy == "" {
		return nil
	}
	return refuse(ErrConflict, "Limits", raw(fmt.Sprintf("%+v", e.limits)),
		fmt.Sprintf("%+v, which provider %q set for domain %q", present, d.limitsBy, oneline.Cut(e.definition.Domain, 64)))
}

// enterDomain gives p its domain, which is made when p is its first member, and
// sets its limits unless p leaves that to others. Caller holds mu.
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
		if shared.cooldown.active() {
			p.gate.Store(uint32(gateCooling))
		}
		p.setGrown(shared.cooldown.grown > 0)
	}
	p.limits.Store(p.domain.limits)
	if policy != (LimitPolicy{}) && p.domain.limits == nil {
		p.limitDomain(policy)
	}
}

// limitDomain sets the limits of the provider's domain. Caller holds Registry.mu.
func (p *provider) limitDomain(policy LimitPolicy) {
	p.domain.limitsBy = p.name()
	p.domain.limits = newLimits(policy, p.domain.limits)
	p.limits.Store(p.domain.limits)
	for member := range p.domain.members { // in any order: p has no place in the one order while it joins
		member.limits.Store(p.domain.limits)
	}
}

// leaveDomain ends the domain with its last member. Caller holds mu.
func (r *Registry) leaveDomain(p *provider) {
	p.cooldown.stop()
	shared := p.domain
	if shared.members == nil {
		shared.cooldown.stop()
		return
	}
	delete(shared.members, p)
	if len(shared.members) == 0 {
		delete(r.domains, shared.name)
		shared.cooldown.stop()
	}
}

// stop ends the wait for the end of the cooldown: nobody is left to tell. Caller
// holds Registry.mu.
func (c *cooldown) stop() {
	if c.timer != nil {
		c.timer.Stop()
		c.timer = nil
	}
}

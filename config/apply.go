package config

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/capreg/registry"
	"github.com/capreg/registry/selection"
)

// Apply makes the providers of the registry those of the document, at one moment or not at all, and returns what was
// changed.
//
// Providers that are new or replaced are made first, and prove themselves: factory and first probe, each within its
// prove_within (30 s) and all within ctx. Meanwhile the old ones serve. Then all changes of providers, groups and
// domains are made in one step of [registry.Registry.Update]; selection policies follow right after it, and so does
// the end of the limits of a domain whose members are all new. The calls in flight of those that leave are drained
// afterwards; Apply does not wait for them.
//
// The error is an [Error], or that of ctx. Nothing has changed then, and instances that were made in vain are closed.
func (m *Manager) Apply(ctx context.Context, d *Document) (*Plan, error) {
	return m.applyFrom(ctx, "", d)
}

func (m *Manager) applyFrom(ctx context.Context, source string, d *Document) (*Plan, error) {
	release, err := m.take(ctx)
	if err != nil {
		return nil, err
	}
	defer release()
	plan, err := m.apply(ctx, d)
	e := Event{Kind: Applied, Source: source, Plan: plan, Err: err}
	if err != nil {
		e.Kind = Refused
	}
	m.tell(e)
	if err != nil {
		return nil, err
	}
	return plan, nil
}

// apply plans and applies. Caller has the turn.
func (m *Manager) apply(ctx context.Context, d *Document) (*Plan, error) {
	p, err := m.plan(d)
	if err != nil {
		return nil, err
	}
	set := &p.set
	before := p.lastBefore(m.registry)
	if len(set.of) > 0 {
		if err := m.registry.Update(ctx, &set.update); err != nil {
			if ended := ctx.Err(); ended != nil && errors.Is(err, ended) {
				return p.plan, err
			}
			return p.plan, refusal(problemsOf(err, p.next.places, set.of))
		}
	}
	for id, state := range m.keep(p, before) {
		state.giveTo(set.handles[id], time.Now())
	}
	for domain, handle := range set.unlimited {
		if !set.limited[domain] {
			_, _ = handle.SetLimits(registry.LimitPolicy{}) // it may have left meanwhile
		}
	}
	m.mu.Lock()
	if !p.plan.Empty() {
		m.before, m.sharesBefore = p.old, p.now.shares
	}
	m.applied = p.next
	m.mu.Unlock()
	return p.plan, m.selectAll(p.old, p.next)
}

// selectAll sets the selection policies that change. They were tried before, so that only a closed registry refuses.
func (m *Manager) selectAll(old, next *prepared) error {
	for _, name := range slices.Sorted(maps.Keys(m.kinds)) {
		before, after := old.Services[name].Selection, next.Services[name].Selection
		if before == nil && after == nil || before != nil && after != nil && *before == *after {
			continue
		}
		var policy selection.Policy
		if after != nil {
			policy = *after
		} else {
			policy = m.usual[name]
		}
		previous, err := m.kinds.selects(name)(m.registry, policy)
		if err != nil {
			return err
		}
		if before == nil {
			m.usual[name] = previous
		}
	}
	return nil
}

// selects returns the function that sets the selection policy of a service.
func (k kinds) selects(service string) func(*registry.Registry, selection.Policy) (selection.Policy, error) {
	for _, kind := range k[service] {
		return kind.selects
	}
	return nil
}

// changes collects the set of changes of a plan.
type changes struct {
	old, next *prepared
	unmade    bool // no instance is made
	update    registry.Update
	of        []identity // by change of the set
	handles   map[identity]*registry.Registration
	grouped   map[group]bool
	limited   map[string]bool
	// unlimited are members of domains that lose their limits. One that joins cannot say so: no limits are those that
	// the domain has.
	unlimited map[string]*registry.Registration
}

// group identifies a priority group.
type group struct {
	service, handler string
	number           int
}

func (s *spec) group() group { return group{s.service, s.Handler, s.Group} }

// joinerOf returns what adds the provider.
func (c *changes) joinerOf(s *spec) joiner {
	if c.unmade {
		return unmade{}
	}
	return s.joiner
}

func (c *changes) note(id identity) { c.of = append(c.of, id) }

func (c *changes) collect(plan *Plan) {
	c.handles = make(map[identity]*registry.Registration)
	c.grouped, c.limited, c.unlimited = make(map[group]bool), make(map[string]bool), make(map[string]*registry.Registration)
	for i := range plan.Changes {
		change := &plan.Changes[i]
		id := identity{change.Service, change.Provider}
		switch s := c.next.by[id]; change.Action {
		case Add, Replace:
			handle := c.joinerOf(s).addTo(&c.update, s, change.Action == Replace)
			c.note(id)
			c.handles[id] = handle
			if s.Domain != "" && s.limits == (registry.LimitPolicy{}) && c.old.Domains[s.Domain] != (Domain{}) {
				c.unlimited[s.Domain] = handle
			}
		case Remove:
			c.update.Remove(id.service, id.name)
			c.note(id)
		case Keep, Alter:
			if s != nil {
				c.stay(s, change)
			}
		}
	}
}

// stay adds the changes in place of a provider that stays, and those of its group and domain that it is to tell.
func (c *changes) stay(s *spec, change *Change) {
	before := c.old.by[s.identity]
	service, name := s.service, s.name
	for _, setting := range []struct {
		fields []string
		change func()
	}{
		{[]string{"priority"}, func() { c.update.SetPriority(service, name, s.Priority) }},
		{[]string{"group"}, func() { c.update.SetGroup(service, name, s.Group) }},
		{[]string{"weight", "no_traffic"}, func() { c.update.SetWeight(service, name, s.weight()) }},
		{[]string{"attempt_timeout", "no_timeout"}, func() { c.update.SetAttemptTimeout(service, name, s.timeout()) }},
		{[]string{"limits"}, func() { c.update.SetLimits(service, name, s.limits) }},
		{[]string{"retry"}, func() { c.update.SetRetry(service, name, s.Retry) }},
		{[]string{"breaker"}, func() { c.update.SetBreakerPolicy(service, name, s.Breaker) }},
		{[]string{"health"}, func() { c.update.SetHealthPolicy(service, name, c.joinerOf(s).healthPolicy(s)) }},
	} {
		if slices.ContainsFunc(setting.fields, change.changesPolicy) {
			setting.change()
			c.note(s.identity)
		}
	}
	if moved := s.group() != before.group(); (moved || !s.strategy.Same(before.strategy)) && !c.grouped[s.group()] {
		c.grouped[s.group()] = true
		c.update.SetStrategy(service, name, s.strategy)
		c.note(s.identity)
	}
	if s.Domain != "" && s.limits != before.limits && !c.limited[s.Domain] {
		c.limited[s.Domain] = true
		c.update.SetLimits(service, name, s.limits)
		c.note(s.identity)
	}
}

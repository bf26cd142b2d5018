package registry

import (
	"context"
	"fmt"
	"reflect"

	"github.com/capreg/registry/event"
	"github.com/capreg/registry/internal/changeset"
	"github.com/capreg/registry/internal/override"
	"github.com/capreg/registry/internal/refusal"
	"github.com/capreg/registry/internal/typed"
	"github.com/capreg/registry/status"
)

// hides returns the reason why a member is not picked, however healthy it is; nil: it is visible.
func (s *serviceState) hides(p *provider) *refusal.Reason {
	if why := s.overrides.Hides(p.overrideID); why != nil {
		return why
	}
	switch {
	case p.replacement.Replaced():
		return refusal.Replaced()
	case p.registry.options.OnlyMocks && !p.shownAsMock():
		return refusal.MocksOnly()
	}
	return nil
}

// beginOverride puts an override in force: of a provider or, without a name, of a service.
func (m *membership) beginOverride(owner string, of status.ProviderID) (*override.Override, error) {
	if owner == "" { // a name of a test may be of any length
		return nil, invalid("by", owner, "a name")
	}
	if m.closing {
		return nil, fmt.Errorf("registry: %w", ErrClosed)
	}
	begun, v := m.overrides.Begin(owner, of)
	return begun, asConflict(v)
}

// updateHidden makes the gate of a provider follow the overrides in force.
func (m *membership) updateHidden(p *provider) {
	var now gate
	if p.service.hides(p) != nil {
		now = refusal.Hidden
	}
	p.changeGateLocked(refusal.Hidden, now, nil)
}

// updateHiddenOf does so for all providers of the service.
func (m *membership) updateHiddenOf(svc *service) {
	svc.outdate() // first: a plan in force would offer some of them and hide others
	for member := range svc.members {
		for _, p := range member.chain() {
			m.updateHidden(p)
		}
	}
	m.wakeWaiters()
}

// Testing returns the functions by which package registrytest replaces the providers of the service, for tests.
func (s Service[T]) Testing(r *Registry) override.Door[T, Provider[T]] {
	return override.Door[T, Provider[T]]{
		Swap: func(by, name string, instance T) (override.Undo, error) {
			svc, _, err := s.find(r)
			if err != nil {
				return nil, err
			}
			if isNil(instance) {
				return nil, invalid("instance", raw(fmt.Sprintf("a nil %s", reflect.TypeFor[T]())), "an instance")
			}
			return svc.swap(by, name, typed.Of(instance))
		},
		Override: func(by string, providers ...Provider[T]) (override.Undo, error) {
			svc, err := s.in(r)
			if err != nil {
				return nil, err
			}
			entries, err := entriesOfOverride(s.name, providers)
			if err != nil {
				return nil, err
			}
			return svc.override(by, entries)
		},
	}
}

// entriesOfOverride returns the checked entries of providers that hide others.
func entriesOfOverride[T any](service string, providers []Provider[T]) (entries []entry, err error) {
	entries = make([]entry, len(providers))
	for i, p := range providers {
		if p.Replace {
			return nil, invalid("Replace", true, "false in an override")
		}
		if entries[i], err = newEntry(service, p); err != nil {
			return nil, err
		}
		entries[i].definition.Mock = true
	}
	return entries, nil
}

func (s *service) swap(by, name string, fake *typed.Instance) (override.Undo, error) {
	r := s.registry
	r.mu.Lock()
	replaced := r.providers[status.ProviderID{Service: s.name, Name: name}]
	if replaced == nil || replaced.service != s {
		defer r.mu.Unlock()
		return nil, fmt.Errorf("registry: provider %q of service %q: %w: there are %s",
			shortName(name), shortName(s.name), ErrNotRegistered, s.names())
	}
	r.mu.Unlock()
	policy := replaced.breaker.stats().Policy // its lock comes before the registry's
	p, o, err := r.replace(replaced, fake, policy, by)
	if err != nil {
		return nil, err
	}
	return undoing([]*provider{p}, func() []*provider { return r.undoReplace(p, o) }), nil
}

// undoing returns the function that calls undo, drains those that leave by it, and waits for all of them.
func undoing(fakes []*provider, undo func() []*provider) override.Undo {
	return func(ctx context.Context) error {
		if ctx == nil {
			return errNilContext()
		}
		quiesceAll(undo())
		return awaitReleased(ctx, fakes)
	}
}

// replace replaces a provider that was current just now.
func (r *Registry) replace(replaced *provider, fake *typed.Instance, policy BreakerPolicy, owner string) (*provider, *override.Override, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.providers[replaced.id()] != replaced {
		return nil, nil, refuse(ErrConflict, "name", replaced.name(), "a provider that is not removed or swapped at the same time")
	}
	o, err := r.beginOverride(owner, replaced.id())
	if err != nil {
		return nil, nil, err
	}
	p := r.newReplacement(replaced, fake, policy)
	r.substitute(replaced, p)
	replaced.replacement.Lead(p)
	r.updateHidden(replaced)
	r.updateHidden(p)
	replaced.moveQueueTo(p)
	r.bus.Publish(replaced.event(event.Event{Kind: event.Changed, Reason: "swap", To: owner}))
	r.bus.Publish(p.event(event.Event{Kind: event.Registered}))
	p.watchFirst()
	r.wakeWaiters()
	return p, o, nil
}

// newReplacement returns a provider with the name, order and settings of another one, and with state of its own.
func (m *membership) newReplacement(of *provider, fake *typed.Instance, policy BreakerPolicy) *provider {
	e := entry{
		definition: of.definition.clone(), instance: fake, overrideID: of.overrideID,
		breaker: policy, health: of.health.Policy, classify: of.classify,
	}
	if known := of.effects.Retry(); known != nil {
		e.retry = RetryPolicy(known.Policy)
	}
	e.health.Probe, e.health.Capabilities, e.health.Recover = nil, nil, nil
	m.generation++
	p := newProvider(of.service, &e, m.generation)
	p.timeout.Store(of.timeout.Load())
	p.order, p.matchesAny = of.order, of.matchesAny
	p.replacement.Follow(of)
	return p
}

// substitute makes a provider the member of its name, instead of another one.
func (m *membership) substitute(from, to *provider) {
	svc := from.service
	m.unindex(from)
	m.index(to)
	joined := to.group // of one that returns
	if joined == nil {
		joined = from.group
	}
	svc.assign(to, joined.GroupID, joined.Strategy) // first: a group ends with its last member
	svc.groups.Leave(from.group)
	if to.domain == nil {
		svc.registry.enterDomain(to, LimitPolicy(from.domain.Policy()))
	}
	svc.outdate()
}

// undoReplace removes a replacement, which it returns, and puts back what it replaced; nil when it had left.
func (r *Registry) undoReplace(p *provider, o *override.Override) (left []*provider) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.overrides.End(o)
	if p.hasLeft() {
		return nil
	}
	of, by := override.Unlink(p)
	if by == nil {
		r.substitute(p, of)
	}
	r.leaveDomain(p)
	r.beginDrain(p, "swap undone")
	if by == nil {
		r.updateHidden(of)
		p.moveQueueTo(of)
		r.bus.Publish(of.event(event.Event{Kind: event.Changed, Reason: "swap", From: o.Owner}))
	}
	r.wakeWaiters()
	return []*provider{p}
}

func (s *service) override(by string, entries []entry) (override.Undo, error) {
	r := s.registry
	r.mu.Lock()
	o, err := r.beginOverride(by, status.ProviderID{Service: s.name})
	if err != nil {
		r.mu.Unlock()
		return nil, err
	}
	r.mu.Unlock()

	// They join before the others are hidden, so that the service is never without a provider.
	t := &transaction{Registry: r}
	changes := make([]changeset.Change, len(entries))
	for i := range entries {
		entries[i].overrideID, changes[i].Kind = o.ID, changeset.Join
		t.steps = append(t.steps, step{entry: &entries[i], service: s, handle: &Registration{}})
	}
	if err := t.run(context.Background(), changes); err != nil { // it waits for nothing
		s.undoOverride(o, nil)
		return nil, err
	}
	fakes := make([]*provider, len(t.steps))
	for i := range t.steps {
		fakes[i] = t.steps[i].provider
	}
	r.mu.Lock()
	s.overrides.Push(o)
	r.updateHiddenOf(s)
	r.bus.Publish(event.Event{Kind: event.Changed, Service: s.name, Reason: "override", To: by})
	r.mu.Unlock()
	return undoing(fakes, func() []*provider { return s.undoOverride(o, fakes) }), nil
}

// undoOverride removes the providers of an override, which it returns, and stops hiding
// the others. Only the first call does so.
func (s *service) undoOverride(o *override.Override, fakes []*provider) (left []*provider) {
	r := s.registry
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.overrides.End(o) {
		return nil
	}
	s.overrides.Remove(o)
	for _, fake := range fakes {
		if !fake.hasLeft() {
			left = append(left, fake.chain()...)
			r.remove(fake.current(), "override undone")
		}
	}
	r.updateHiddenOf(s)
	r.bus.Publish(event.Event{Kind: event.Changed, Service: s.name, Reason: "override", From: o.Owner})
	return left
}

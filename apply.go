package registry

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/capreg/registry/internal/changeset"
	"github.com/capreg/registry/internal/check"
	"github.com/capreg/registry/internal/probe"
	"github.com/capreg/registry/status"
)

// Apply makes the provider as p describes it, in place where that is possible and else by a replacement, and reports
// what it has done. It returns the handle of the provider: r itself, unless the provider was replaced.
//
// Priority, Group, Strategy, Weight, NoTraffic, AttemptTimeout, Limits, Retry, Breaker and Health change in place, all at
// one moment, as the setters make it: for the whole group or failure domain where these share them. All else, and
// [Provider.Replace], needs a replacement, which serves when it has proven itself and until then leaves everything as it
// is; see there for what it keeps.
//
// Fields of p that are not set have their defaults, as in [Service.Register], but what is no data is kept: the instance or
// factory, Classify, Until and the functions of Health. Instances and contexts are compared; a function is always taken
// for another one. Name may be left out, and no other is accepted.
//
// Apply blocks while a replacement proves itself, and on the admission hook for it, within ctx. Its errors are those of
// [Service.Register], or match [ErrNotRegistered]; nothing has changed then. Of two at a time, one may be refused.
func (r *Registration) Apply(ctx context.Context, p Provider[any]) (*Registration, status.Applied, error) {
	if ctx == nil {
		return r, status.Applied{}, errNilContext()
	}
	now, e, applied, err := r.compare(p)
	t := &transaction{Registry: now.registry}
	var changes []changeset.Change
	handle := r
	switch {
	case err != nil:
		return r, status.Applied{}, err
	case applied.Replaced:
		handle = &Registration{}
		t.steps, changes = []step{joining(now.service, &e, handle)}, []changeset.Change{{Kind: changeset.Join}}
	default:
		u := &Update{}
		setters := e.setters(u)
		for _, differing := range applied.Differences {
			setters[differing.Field]()
		}
		t.steps, changes = u.steps, u.changes
	}
	for i := range t.steps {
		t.steps[i].only = now
	}
	if err := t.run(ctx, changes); err != nil {
		return r, status.Applied{}, err
	}
	return handle, applied, nil
}

// described is a provider as far as [Registration.Apply] compares it.
type described struct {
	Definition

	AttemptTimeout time.Duration
	Limits         LimitPolicy
	Retry          RetryPolicy
	Breaker        BreakerPolicy
	Health         probe.Description

	Instance, Factory, Classify, Until changeset.Another
}

// compare returns the provider that r is of, the entry of what is given, with what is kept, and how they differ.
func (r *Registration) compare(given Provider[any]) (p *provider, e entry, found status.Applied, err error) {
	p = r.current()
	now := described{Breaker: p.breaker.stats().Policy} // its lock comes before the registry's
	p.registry.mu.Lock()
	err = p.describeLocked(&now)
	wanted := described{
		Instance: given.Instance != nil, Factory: given.Factory != nil, Classify: given.Classify != nil,
		Health: probe.Keep(&given.Health, p.health.policy, given.Capabilities),
		Until:  given.Until != nil && changeset.Another(!check.Same(given.Until, p.until)),
	}
	p.keepLocked(&given)
	p.registry.mu.Unlock()
	if given.Name != p.name() && err == nil {
		err = invalid("Name", given.Name, fmt.Sprintf("%q, or none", shortName(p.name())))
	}
	if err == nil {
		e, err = newEntry(p.service.name, given)
	}
	if err == nil {
		err = e.adapt(p.service.binding)
	}
	if err != nil {
		return p, e, found, err
	}
	e.replace = true
	wanted.Definition, wanted.AttemptTimeout, wanted.Limits, wanted.Breaker = e.definition, e.timeout, e.limits, e.breaker
	wanted.Retry, wanted.Health.Policy = e.retry, probe.Data(e.health)
	wanted.Instance = wanted.Instance && changeset.Another(!e.instance.Same(p.instance.Load()))
	if e.retry == (RetryPolicy{}) {
		wanted.Retry, _ = e.retry.withDefaults()
	}
	if s := p.registry.strategies.Resolve(wanted.Strategy); s.IsZero() || s.Same(now.Strategy) {
		wanted.Strategy = now.Strategy
	}
	if e.limits == (LimitPolicy{}) && e.definition.Domain != "" {
		wanted.Limits = now.Limits
	}
	setters := e.setters(nil)
	found.Differences = changeset.Differences(now, wanted, func(field string) bool { return setters[field] != nil })
	found.Replaced = given.Replace || slices.ContainsFunc(found.Differences, func(d status.Difference) bool { return !d.InPlace })
	return p, e, found, nil
}

// describeLocked fills in how the provider is, but for its breaker.
func (p *provider) describeLocked(now *described) error {
	retry, _ := p.effects.RetryPolicy()
	now.Definition, now.AttemptTimeout = p.definition.clone(), time.Duration(p.timeout.Load())
	now.Strategy, now.Limits, now.Retry = p.group.Strategy, LimitPolicy(p.domain.Policy()), RetryPolicy(retry)
	now.Health.Policy = probe.Data(p.health.policy)
	return (&Registration{provider: p}).presentLocked()
}

// keepLocked fills in what is kept of the provider where it is not given.
func (p *provider) keepLocked(given *Provider[any]) {
	given.Name = cmp.Or(given.Name, p.name())
	switch {
	case given.Instance != nil || given.Factory != nil:
	case p.build != nil:
		given.Factory = p.build.Untyped()
	default:
		given.Instance = p.instance.Load().Untyped()
	}
	if given.Classify == nil {
		given.Classify = p.classify
	}
	if given.Until == nil {
		given.Until = p.until
	}
}

// setters returns what adds the change in place of a field to u, by the field's name.
func (e *entry) setters(u *Update) map[string]func() {
	d := &e.definition
	return map[string]func(){
		"Priority":       func() { u.SetPriority(d.Name, d.Priority) },
		"Group":          func() { u.SetGroup(d.Name, d.Group) },
		"Strategy":       func() { u.SetStrategy(d.Name, d.Strategy) },
		"Weight":         func() { u.SetWeight(d.Name, d.Weight) },
		"NoTraffic":      func() {}, // that is the weight, too
		"AttemptTimeout": func() { u.SetAttemptTimeout(d.Name, e.timeout) },
		"Limits":         func() { u.SetLimits(d.Name, e.limits) },
		"Retry":          func() { u.SetRetry(d.Name, e.retry) },
		"Breaker":        func() { u.SetBreakerPolicy(d.Name, e.breaker) },
		"Health":         func() { u.SetHealthPolicy(d.Name, e.health) },
	}
}

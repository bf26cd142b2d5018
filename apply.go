package registry

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/capreg/registry/health"
	"github.com/capreg/registry/internal/changeset"
	"github.com/capreg/registry/internal/check"
	"github.com/capreg/registry/internal/probe"
	"github.com/capreg/registry/internal/typed"
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
		t.steps, changes = []step{{entry: &e, service: now.service, handle: handle}}, []changeset.Change{{Kind: changeset.Join}}
	default:
		u := &Update{}
		setters := e.setters(u)
		for _, differing := range applied.Differences {
			setters[differing.Field]()
		}
		t.steps, changes = u.stepsOnce(), u.changes
	}
	for i := range t.steps {
		t.steps[i].only = now
	}
	if err := t.run(ctx, changes); err != nil {
		return r, status.Applied{}, err
	}
	return handle, applied, nil
}

// compare returns the provider that r is of, the entry of what is given, with what is kept, and how they differ.
func (r *Registration) compare(given Provider[any]) (p *provider, e entry, found status.Applied, err error) {
	p = r.current()
	breaker := p.breaker.stats().Policy // its lock comes before the registry's
	retry, _ := p.effects.RetryPolicy()
	p.registry.mu.Lock()
	now := inputOf(p.definition, time.Duration(p.timeout.Load()), LimitPolicy(p.domain.Policy()), RetryPolicy(retry), breaker, p.health.Policy)
	now.Strategy = p.group.Strategy
	asked, until, probes := given, p.until, probe.Keep(&given.Health, p.health.Policy, given.Capabilities)
	typed.Keep(&given.Instance, &given.Factory, p.instance.Load(), p.build)
	err = r.presentLocked()
	p.registry.mu.Unlock()
	if given.Name = cmp.Or(given.Name, now.Name); given.Classify == nil {
		given.Classify = p.classify
	}
	if given.Until == nil {
		given.Until = until
	}
	switch {
	case err != nil:
	case given.Name != now.Name:
		err = invalid("Name", given.Name, fmt.Sprintf("%q, or none", shortName(now.Name)))
	default:
		e, err = newUntypedEntry(p.service, given)
	}
	if err != nil {
		return p, e, found, err
	}
	e.replace = true
	byDefault, _ := RetryPolicy{}.withDefaults()
	wanted := inputOf(e.definition, e.timeout, e.limits, cmp.Or(e.retry, byDefault), e.breaker, e.health)
	if s := p.registry.strategies.Resolve(wanted.Strategy); s.IsZero() || s.Same(now.Strategy) {
		wanted.Strategy = now.Strategy
	}
	if e.limits == (LimitPolicy{}) && e.definition.Domain != "" {
		wanted.Limits = now.Limits
	}
	if wanted.Factory, wanted.Classify = asked.Factory, asked.Classify; !probes {
		wanted.Health = e.health
	}
	if asked.Instance != nil && !e.instance.Same(p.instance.Load()) {
		wanted.Instance = asked.Instance
	}
	if asked.Until != nil && !check.Same(asked.Until, until) {
		wanted.Until = asked.Until
	}
	setters := e.setters(nil)
	found.Differences = changeset.Differences(now, wanted, func(field string) bool { return setters[field] != nil })
	found.Replaced = given.Replace || slices.ContainsFunc(found.Differences, func(d status.Difference) bool { return !d.InPlace })
	return p, e, found, nil
}

// inputOf returns the data of an input, without what [Registration.Apply] keeps.
func inputOf(d Definition, timeout time.Duration, l LimitPolicy, retry RetryPolicy, b BreakerPolicy, h health.Policy) Provider[any] {
	in := Service[any]{}.Provider(d)
	in.AttemptTimeout, in.Limits, in.Retry, in.Breaker, in.Health = timeout, l, retry, b, probe.Data(h)
	return in
}

// setters returns what adds the change in place of a field to u, by the field's name.
func (e *entry) setters(u *Update) map[string]func() {
	d := &e.definition
	return map[string]func(){
		"Priority":       func() { u.SetPriority(d.Service, d.Name, d.Priority) },
		"Group":          func() { u.SetGroup(d.Service, d.Name, d.Group) },
		"Strategy":       func() { u.SetStrategy(d.Service, d.Name, d.Strategy) },
		"Weight":         func() { u.SetWeight(d.Service, d.Name, d.Weight) },
		"NoTraffic":      func() {}, // that is the weight, too
		"AttemptTimeout": func() { u.SetAttemptTimeout(d.Service, d.Name, e.timeout) },
		"Limits":         func() { u.SetLimits(d.Service, d.Name, e.limits) },
		"Retry":          func() { u.SetRetry(d.Service, d.Name, e.retry) },
		"Breaker":        func() { u.SetBreakerPolicy(d.Service, d.Name, e.breaker) },
		"Health":         func() { u.SetHealthPolicy(d.Service, d.Name, e.health) },
	}
}

package registry

import (
	"fmt"
	"time"

	"github.com/capreg/registry/event"
	"github.com/capreg/registry/health"
	"github.com/capreg/registry/internal/changeset"
	"github.com/capreg/registry/internal/limit"
	"github.com/capreg/registry/internal/pick"
	"github.com/capreg/registry/internal/probe"
	"github.com/capreg/registry/internal/refusal"
	"github.com/capreg/registry/selection"
)

// setting is a change of a provider in place, alone or as a part of an [Update]. Its functions are called with
// Registry.mu held.
type setting struct {
	what   string
	kind   changeset.Kind
	checks func(*provider) error // what depends on the provider; nil: nothing
	apply  func(*provider) (from, to any)
	after  func(*provider) // runs without the lock, when the change is in force; nil: nothing does
}

func (s setting) check(p *provider) error {
	if s.checks == nil {
		return nil
	}
	return s.checks(p)
}

// applyTo makes the change and publishes it.
func (s setting) applyTo(p *provider) {
	if s.apply == nil {
		return
	}
	from, to := s.apply(p)
	p.service.outdate()
	p.publishLocked(event.Event{Kind: event.Changed, Reason: s.what, From: fmt.Sprint(from), To: fmt.Sprint(to)})
}

func prioritySetting(priority Priority, previous *Priority) (setting, error) {
	if !priority.valid() {
		return setting{}, errBadPriority(priority)
	}
	return setting{what: "priority", kind: changeset.Set, apply: func(p *provider) (from, to any) {
		*previous, p.definition.Priority = p.definition.Priority, priority
		return *previous, priority
	}}, nil
}

func groupSetting(number int, previous *int) setting {
	return setting{what: "group", kind: changeset.Move, apply: func(p *provider) (from, to any) {
		*previous = p.group.Number
		strategy := p.group.Strategy
		p.service.groups.Leave(p.group)
		p.service.assign(p, pick.GroupID{Handler: p.definition.Handler, Number: number, Override: p.overrideID}, strategy)
		return *previous, number
	}}
}

func strategySetting(strategy selection.Strategy, previous *selection.Strategy) (setting, error) {
	if strategy.IsZero() {
		return setting{}, invalid("Strategy", strategy.String(), "a strategy")
	}
	if err := checkStrategy(strategy); err != nil {
		return setting{}, err
	}
	known := func(p *provider) selection.Strategy { // that of the group stands for its name
		if resolved := p.registry.strategies.Resolve(strategy); !resolved.Named() || !resolved.Same(p.group.Strategy) {
			return resolved
		}
		return p.group.Strategy
	}
	return setting{
		what: "strategy of the group", kind: changeset.SetStrategy,
		checks: func(p *provider) error { return asFieldError("", p.registry.strategies.Check(known(p))) },
		apply: func(p *provider) (from, to any) {
			*previous, p.group.Strategy = p.group.Strategy, known(p)
			p.group.SetBy = p.name()
			return *previous, p.group.Strategy
		},
	}, nil
}

func weightSetting(weight float64, previous *float64) (setting, error) {
	return setting{what: "weight", kind: changeset.Set, apply: func(p *provider) (from, to any) {
		*previous = p.definition.Weight
		p.definition.Weight, p.definition.NoTraffic = weight, weight == 0
		if weight == 0 {
			p.changeGateLocked(0, refusal.NoTraffic, nil)
		} else {
			p.changeGateLocked(refusal.NoTraffic, 0, nil)
		}
		return *previous, weight
	}}, checkWeight(weight)
}

func timeoutSetting(timeout time.Duration, previous *time.Duration) (setting, error) {
	most, err := checkTimeout("AttemptTimeout", timeout)
	return setting{what: "attempt timeout", kind: changeset.Set, apply: func(p *provider) (from, to any) {
		before := p.attemptTimeout().most
		*previous = time.Duration(p.timeout.Swap(int64(timeout)))
		return before, most
	}}, err
}

func limitsSetting(policy LimitPolicy, previous *LimitPolicy) (setting, error) {
	policy, err := policy.withDefaults()
	return setting{what: "limits of the domain", kind: changeset.SetLimits, apply: func(p *provider) (from, to any) {
		*previous = LimitPolicy(p.domain.Policy())
		p.limitDomain(policy)
		return fmt.Sprintf("%+v", *previous), fmt.Sprintf("%+v", policy)
	}}, err
}

func retrySetting(policy RetryPolicy, previous *RetryPolicy) (setting, error) {
	policy, err := policy.withDefaults()
	return setting{what: "retry", kind: changeset.Set, apply: func(p *provider) (from, to any) {
		*previous = RetryPolicy(p.effects.SetRetryPolicy(limit.RetryPolicy(policy)))
		return fmt.Sprintf("%+v", *previous), fmt.Sprintf("%+v", policy)
	}}, err
}

// breakerSetting is a change of a breaker in an update: its lock comes before the registry's, so that it is changed
// right after the step.
func breakerSetting(policy BreakerPolicy) (setting, error) {
	_, err := policy.withDefaults()
	return setting{what: "breaker", kind: changeset.Set, after: func(p *provider) {
		_, _ = (&Registration{provider: p}).SetBreakerPolicy(policy) // it may have left meanwhile
	}}, err
}

func healthSetting(policy health.Policy, previous *health.Policy) setting {
	var checked health.Policy
	var end func(cause error)
	return setting{
		what: "health", kind: changeset.Set,
		checks: func(p *provider) (err error) {
			checked, err = withProbeDefaults(policy, p.definition.Capabilities)
			return err
		},
		apply: func(p *provider) (from, to any) {
			*previous = p.health.Policy
			p.health.Policy = checked
			end = p.followPolicy(health.Healthy)
			p.publishHealth()
			p.health.Watch.Recover()
			return probe.Settings(*previous), probe.Settings(checked)
		},
		after: func(*provider) { end(errPolicyChanged) },
	}
}

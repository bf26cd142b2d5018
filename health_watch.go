package registry

import (
	"errors"
	"time"

	"github.com/capreg/registry/event"
	"github.com/capreg/registry/health"
	"github.com/capreg/registry/internal/probe"
	"github.com/capreg/registry/internal/refusal"
	"github.com/capreg/registry/internal/schedule"
)

// engineHost lets the queue of probes and the bus use the lock, clock and goroutines of the registry.
type engineHost struct{ registry *Registry }

func (h engineHost) Lock()              { h.registry.mu.Lock() }
func (h engineHost) Unlock()            { h.registry.mu.Unlock() }
func (h engineHost) Now() time.Duration { return h.registry.now() }

func (h engineHost) After(d time.Duration, run func()) *schedule.Timer {
	return h.registry.schedule.After(d, run)
}

func (h engineHost) Go(name string, f func()) bool { return h.registry.tasks.Start(name, f) }
func (h engineHost) Publish(change event.Event)    { h.registry.bus.Publish(change) }

// probeHost is engineHost for probes and recovery hooks, all of which end with the life of the registry.
type probeHost struct{ engineHost }

func (h probeHost) Go(name string, f func()) bool { return h.registry.probing.Start(name, f) }

// probeSubject lets the watch over a provider publish what it finds. Its methods are called with Registry.mu held.
type probeSubject struct{ provider *provider }

func (s probeSubject) Left() bool { return s.provider.hasLeft() }

func (s probeSubject) ProbePlanned() { renewRecord(s.provider) }

func (s probeSubject) HealthChanged() {
	s.provider.publishHealth()
	if s.provider.gateNow()&refusal.Proving != 0 {
		s.provider.registry.wakeWaiters() // the result of a capability may be what is waited for
	}
}

func (s probeSubject) Totals() probe.Totals {
	totals := s.provider.meter.Totals()
	return probe.Totals{Attempts: totals.Attempts, Successes: totals.Successes, Failures: totals.Failures}
}

// Publish publishes a change, and makes plans and waiting calls follow a change of capabilities.
func (s probeSubject) Publish(change event.Event) {
	p := s.provider
	if change.Kind == event.CapabilityOut || change.Kind == event.CapabilityBack {
		p.service.outdate()
		p.registry.causes.Add(1)
	}
	p.publishLocked(change)
	if change.Kind == event.CapabilityBack {
		p.registry.wakeWaiters()
	}
}

func (s probeSubject) RecoveryNeed() probe.RecoveryNeed {
	switch {
	case !s.provider.health.IsUnhealthy():
		return probe.RecoveryNotNeeded
	case len(s.provider.because()) > 0:
		return probe.RecoveryPostponed
	}
	return probe.RecoveryNeeded
}

var errPolicyChanged = errors.New("registry: health policy changed")

// followPolicy makes the provider's health follow the policy in force; state is the health that is assumed where
// nothing was watched before. Caller holds Registry.mu, and calls the result without it to end the previous watch.
func (p *provider) followPolicy(state health.State) (end func(cause error)) {
	h := &p.health
	own := h.Policy.Probe
	if own == nil {
		if made := p.instance.Load(); made != nil && made.Checker != nil {
			own = made.Checker.CheckHealth
		}
	}
	if h.Watch == nil {
		if !probe.Needed(h.Policy, own) {
			return func(error) {} // as with most providers: they cost nothing
		}
		h.Watch = p.registry.probes.NewWatch(probeSubject{p}, probe.Identity{
			Name: p.id().String(), Domain: p.definition.Domain, Generation: p.generation,
		})
	}
	return h.Watch.Configure(h.Policy, own, state)
}

// watchFirst begins the watch over a provider that has joined. Caller holds Registry.mu.
func (p *provider) watchFirst() {
	p.followPolicy(health.Unknown)
	if p.health.AwaitFirst() {
		p.changeGateLocked(0, refusal.Unproven, nil)
	}
}

// watchMade begins the probes of an instance that a factory has made and that implements [health.Checker]. Its
// making counts as the first success.
func (p *provider) watchMade() {
	p.registry.mu.Lock()
	defer p.registry.mu.Unlock()
	made, h := p.instance.Load(), &p.health
	if h.Policy.Off || h.Policy.Probe != nil || made == nil || made.Checker == nil || p.hasLeft() {
		return
	}
	if h.Watch.Active() {
		h.Watch.AddProbe(made.Checker.CheckHealth)
	} else {
		p.followPolicy(health.Healthy)
	}
}

// unwatch ends the watch over a provider that has left, and drops all references to its probes and its factory.
func (p *provider) unwatch() {
	p.registry.mu.Lock()
	end := p.health.Watch.Stop()
	p.health.Policy = health.Policy{Groups: p.health.Policy.Groups}
	p.build, p.until = nil, nil
	p.registry.mu.Unlock()
	if end != nil {
		end(p.errReleased())
	}
}

package registry

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/capreg/registry/event"
	"github.com/capreg/registry/health"
	"github.com/capreg/registry/internal/fault"
	"github.com/capreg/registry/internal/oneline"
	"github.com/capreg/registry/internal/probe"
	"github.com/capreg/registry/internal/refusal"
)

// healthState is the health of one provider. Registry.mu guards all of it.
type healthState struct {
	probe.Condition

	causes   []string // as because returns them
	causesAt uint64   // membership.causes at that time
}

// publishHealth makes gate, history and events follow the state. Caller holds Registry.mu.
func (p *provider) publishHealth() {
	p.showVitals()
	if p.health.Changed(p.hasLeft()) {
		p.registry.causes.Add(1)
	}
	renewRecord(p)
	now, cause, tell := p.health.Publish(p.hasLeft(), func(reason string) string { return refusal.Because(reason, p.because()) })
	if !tell {
		return
	}
	set := refusal.OfHealth(now.To)
	p.changeGateLocked((refusal.Unhealthy|refusal.Unproven)&^set, set, &event.Event{
		Kind: probe.KindOf(now.To), Reason: now.Reason, Err: cause, From: now.From.String(), To: now.To.String(),
	})
	if now.From == health.Unknown {
		p.registry.wakeWaiters() // calls that wait for a first result have it
	}
	if now.To == health.Unhealthy && now.From != now.To {
		p.health.Watch.Recover()
		known := p.effects.KnownPace(p.registry.now())
		p.drain.MoveCallsOn(max(p.registry.options.DrainTimeout, known.WithMargin()), p.stillOut(now.Time))
	}
}

// stillOut tells whether the provider has been unhealthy since then, and every plan in force has another one to enter.
func (p *provider) stillOut(since time.Time) func() bool {
	return func() bool {
		p.registry.mu.Lock()
		defer p.registry.mu.Unlock()
		alone := func(at position) bool { return at.plan.Admitting.First() < 0 }
		return p.health.UnhealthySince(since) && len(p.positions) > 0 && !slices.ContainsFunc(p.positions, alone)
	}
}

// because returns the providers that this one requires and that are the reason, as far as is known: the first 16, and
// how many there are besides. They are found once for each change. Caller holds Registry.mu, and must not change them.
func (p *provider) because() []string {
	if len(p.definition.Requires) == 0 {
		return nil
	}
	if now := p.registry.causes.Load(); p.health.causesAt != now {
		found := p.registry.causesOf.Of(p, dependencies{&p.registry.membership}, now)
		p.health.causes, p.health.causesAt = slices.Clip(oneline.First(found, refusal.MostNamed, "and ")), now
	}
	return p.health.causes
}

// dependencies lets the search for causes see the members. Its methods are called with Registry.mu held.
type dependencies struct{ members *membership }

func (dependencies) Name(p *provider) string       { return p.id().String() }
func (dependencies) Requires(p *provider) []string { return p.definition.Requires }

func (d dependencies) Having(capability string) map[*provider]struct{} {
	return d.members.byCapability[capability]
}

func (dependencies) Works(p *provider, capability string) bool {
	return p.health.Answers(p.hasLeft()) && p.outage([]string{capability}) == nil
}

// MarkUnhealthy takes the provider out of every pick until [Registration.MarkHealthy], for the given reason,
// whatever its probes say. Health is a signal of its own: the breaker and its counts stay as they are, and calls in
// flight go on. Marking again replaces the reason; nil stands for one that is not given.
func (r *Registration) MarkUnhealthy(reason error) error {
	if reason == nil {
		reason = errors.New("no reason given")
	}
	return r.mark(reason)
}

// MarkHealthy removes the mark of [Registration.MarkUnhealthy], and counts as the successes that an unhealthy
// provider needs; probes that fail afterwards count from the beginning. Its breaker stays as it is: good health
// closes no breaker, as it says nothing about calls.
func (r *Registration) MarkHealthy() error { return r.mark(nil) }

func (r *Registration) mark(unhealthy error) error {
	unhealthy = fault.Bound(unhealthy)
	text := shortReason(fault.Text(unhealthy)) // a user's method: outside the lock
	r.orLeft().registry.mu.Lock()
	defer r.orLeft().registry.mu.Unlock()
	p := r.current()
	if err := r.presentLocked(); err != nil {
		return err
	}
	p.health.Mark(unhealthy, text)
	p.publishHealth()
	return nil
}

// Health returns the provider's health as far as it is known. It probes nothing and changes nothing.
func (r *Registration) Health() health.Status { return r.Info().Health }

// HealthHistory returns the last transitions of the provider's health, oldest first, at most 32.
func (r *Registration) HealthHistory() []health.Transition {
	r.orLeft().registry.mu.Lock()
	defer r.orLeft().registry.mu.Unlock()
	return r.current().health.History()
}

// HealthPolicy returns the health policy, with its defaults.
func (r *Registration) HealthPolicy() health.Policy { return r.Info().HealthPolicy }

// SetHealthPolicy changes the health policy and returns the previous one, with its
// defaults. The provider stays as it is until the new policy's first result,
// which comes at once; a probe in progress is cancelled and its result dropped.
func (r *Registration) SetHealthPolicy(policy health.Policy) (previous health.Policy, err error) {
	err = r.change(healthSetting(policy, &previous), nil)
	return previous, err
}

// CheckHealth probes the provider now, whenever its next probe is due, and returns the health that is known
// afterwards. It waits for a probe in progress rather than begin another, and not for one that is stuck. When ctx
// ends first, the error is the context's; for a provider that has left it matches [ErrNotRegistered].
func (r *Registration) CheckHealth(ctx context.Context) (health.Status, error) {
	if ctx == nil {
		return health.Status{}, errNilContext()
	}
	for {
		r.orLeft().registry.mu.Lock()
		p := r.current()
		err := r.presentLocked()
		watch := p.health.Watch
		revision := watch.Revision()
		var results []<-chan struct{}
		if err == nil {
			results = watch.CheckNow()
		}
		p.registry.mu.Unlock()
		if err == nil {
			err = probe.AwaitAll(ctx, results)
		}
		p.registry.mu.Lock()
		same := p.health.Watch.Revision() == revision
		p.registry.mu.Unlock()
		if err != nil || same { // else the policy was changed, or the provider has left
			return r.Health(), err
		}
	}
}

// CheckHealth probes every provider now, and returns the result of [Registry.Health]
// afterwards. Its probes count for [Options.ProbeConcurrency] like all others.
func (r *Registry) CheckHealth(ctx context.Context) (health.Overall, error) {
	if !r.made() {
		return health.Overall{}, errNotMade()
	}
	if ctx == nil {
		return health.Overall{}, errNilContext()
	}
	r.mu.Lock()
	var results []<-chan struct{}
	for _, p := range r.listingLocked() {
		results = append(results, p.health.Watch.CheckNow()...)
	}
	r.mu.Unlock()
	err := probe.AwaitAll(ctx, results)
	return r.Health(), err
}

// outage returns the reason why one of the capabilities does not work; nil when all do. Caller holds Registry.mu.
func (p *provider) outage(capabilities []string) *refusal.Reason {
	out := p.health.Watch.Outage(capabilities)
	if out == nil {
		return nil
	}
	return refusal.CapabilityOut(out.Capability, out.Reason, out.Err)
}

// showVitals copies the provider's health to its vitals, if it has any. Caller holds Registry.mu.
func (p *provider) showVitals() {
	if known := p.vitals.Load(); known != nil {
		known.SetHealth(p.health.Score(), p.health.Watch.Trend())
	}
}

package registry

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/capreg/registry/event"
	"github.com/capreg/registry/internal/bus"
	"github.com/capreg/registry/internal/choice"
	"github.com/capreg/registry/internal/cooldown"
	"github.com/capreg/registry/internal/domain"
	"github.com/capreg/registry/internal/drain"
	"github.com/capreg/registry/internal/effects"
	"github.com/capreg/registry/internal/lazy"
	"github.com/capreg/registry/internal/limit"
	"github.com/capreg/registry/internal/meter"
	"github.com/capreg/registry/internal/override"
	"github.com/capreg/registry/internal/pick"
	"github.com/capreg/registry/internal/refusal"
	"github.com/capreg/registry/internal/sight"
	"github.com/capreg/registry/internal/typed"
	"github.com/capreg/registry/status"
	"github.com/capreg/registry/verdict"
)

// gate has the reasons that keep calls away from a provider.
type gate = refusal.Gate

// provider is one registration, from joining to the end of its last call.
type provider struct {
	identity
	eligibility
	measurements

	// What a call reads.
	instance atomic.Pointer[typed.Instance] // nil before a factory's success and after release
	timeout  atomic.Int64                   // of one attempt, in nanoseconds; zero: none was given
	breaker  providerBreaker
	limits   atomic.Pointer[limit.Limits]       // of its domain; nil: none
	last     *atomic.Pointer[verdict.LastError] // apart: errors of look-ups keep it, and not the provider
	effects  effects.Effects

	replacement override.Link[provider]         // changed under Registry.mu
	lazy        *lazy.Instance[*typed.Instance] // nil for instances that were passed in
	drain       drain.Drain

	// definition is immutable but for Priority, Group, Strategy, Weight and NoTraffic; those, group
	// and the fields below are guarded by Registry.mu.
	definition Definition
	group      *pick.Group
	health     healthState
	notReady   lazy.Failure              // of its factory
	opening    refusal.Opening           // of the breaker, the last time
	domain     *domain.Domain[*provider] // never another one
	origin
	cooldown cooldown.Timed // the provider's own, beside its domain's
}

// identity distinguishes a registration from all others. It never changes.
type identity struct {
	registry   *Registry
	service    *service
	generation uint64
	order      uint64 // among equals: the generation, for a replacement that of the original
	overrideID uint64 // of the override that it was registered by; zero: of none
	matchesAny bool   // it matches every query: an override without capabilities
	classify   verdict.Classifier
}

// origin holds the builder and the lifetime of a provider, which a description without them keeps.
type origin struct {
	build        typed.Builder               // of its factory, and until it has left, as is; guarded by Registry.mu
	until        context.Context             //nolint:containedctx // its lifetime
	stopLifetime atomic.Pointer[func() bool] // of the watch over that
}

// eligibility holds the reasons that keep calls away from a provider, and the plans that follow them.
type eligibility struct {
	gate atomic.Uint32 // written under Registry.mu

	// Guarded by Registry.mu.
	held       []event.Event             // published when it joins
	positions  []position                // in the plans in force
	seen       bus.Place[provider, Info] // by subscriptions
	record     *sight.Record             // how it stood when it was last looked at
	recordedAt uint64                    // the version of the plans then
	ready      time.Duration             // when breaker and health last let calls in again
}

func (e *eligibility) gateNow() gate { return gate(e.gate.Load()) }

// hasLeft reports whether the provider was removed.
func (e *eligibility) hasLeft() bool { return e.gateNow()&refusal.Gone != 0 }

// superseded reports whether the provider has left, or is overridden. A plan that offers it then is stale.
func (e *eligibility) superseded() bool { return e.gateNow()&(refusal.Gone|refusal.Hidden) != 0 }

// measurements holds the counts and metrics of a provider.
type measurements struct {
	meter      meter.Provider
	vitals     atomic.Pointer[choice.Vitals] // nil: no strategy reads them
	heldClosed atomic.Uint64                 // times its breaker stayed closed for the sake of the group
}

func newProvider(svc *service, e *entry, generation uint64) *provider {
	p := &provider{
		identity: identity{
			registry: svc.registry, service: svc, generation: generation, order: generation, overrideID: e.overrideID,
			matchesAny: e.overrideID > 0 && len(e.definition.Capabilities) == 0, classify: e.classify,
		},
		definition: e.definition,
	}
	p.build, p.until = e.build, e.until
	p.last = &atomic.Pointer[verdict.LastError]{}
	p.drain.Init(drainHost{p}, p.id())
	p.ready = svc.registry.now()
	p.meter.Init(svc.meter, p.ready, !svc.registry.options.NoDurations)
	if e.definition.NoTraffic {
		p.gate.Store(uint32(refusal.NoTraffic))
	}
	p.timeout.Store(int64(e.timeout))
	if e.retry != (RetryPolicy{}) {
		p.effects.SetRetryPolicy(limit.RetryPolicy(e.retry))
	}
	p.breaker.init(p, e.breaker)
	p.health.Begin(e.health)
	if e.instance != nil {
		p.instance.Store(e.instance)
	} else {
		p.lazy = newLazyInstance(p, e.build)
	}
	return p
}

// attemptTimeout is the longest time of one attempt.
type attemptTimeout struct {
	most     time.Duration
	explicit bool // the user has chosen it
}

// defaultAttemptTimeout bounds the attempts on a provider for which none was given.
const defaultAttemptTimeout = 30 * time.Second

func (p *provider) attemptTimeout() attemptTimeout {
	if most := p.timeout.Load(); most != 0 {
		return attemptTimeout{time.Duration(most), true}
	}
	return attemptTimeout{most: defaultAttemptTimeout}
}

func (p *provider) name() string { return p.definition.Name }
func (p *provider) id() status.ProviderID {
	return status.ProviderID{Service: p.service.name, Name: p.name()}
}
func (p *provider) mock() bool { return p.definition.Mock }

// shownAsMock reports whether listings mark the provider as a mock: it is one, or it replaces another provider.
func (p *provider) shownAsMock() bool { return p.mock() || p.replacement.Of() != nil }

// ofTest reports whether the provider is the work of an override.
func (p *provider) ofTest() bool { return p.overrideID > 0 || p.replacement.Of() != nil }

// Replacements links the providers of one name from the original to the current one, by which tests replace it.
func (p *provider) Replacements() *override.Link[provider] { return &p.replacement }

// current returns the latest replacement of p, or p itself when it has none.
func (p *provider) current() *provider { return override.Current(p) }

// chain returns the current provider and those that it replaces, down to the original.
func (p *provider) chain() []*provider { return override.Chain(p) }

// original returns the provider that was registered, which all others of the chain replace.
func (p *provider) original() *provider { all := p.chain(); return all[len(all)-1] }

// exit lets a drain end with the last attempt in flight. It is called after the end of an attempt was counted.
func (p *provider) exit() {
	if p.hasLeft() {
		p.drain.CheckIdle()
	}
}

// changeGate clears and sets reasons in the gate of the provider and in the plans in force, and publishes the
// change, all in one step. A provider that has left stays as it is.
func (p *provider) changeGate(cleared, set gate, change *event.Event) {
	p.registry.mu.Lock()
	defer p.registry.mu.Unlock()
	p.changeGateLocked(cleared, set, change)
}

func (p *provider) changeGateLocked(cleared, set gate, change *event.Event) {
	before := p.gateNow()
	if before&refusal.Gone != 0 {
		return
	}
	now := before&^cleared | set
	p.gate.Store(uint32(now))
	if before&refusal.Away != 0 && now&refusal.Away == 0 {
		p.ready = p.registry.now()
		if measured := p.vitals.Load(); measured != nil {
			measured.Ready(p.ready)
		}
	}
	for _, at := range p.positions {
		at.plan.set(at.at, now)
	}
	renewRecord(p)
	if change != nil {
		p.publishLocked(*change)
	}
	if before&refusal.Blocked != 0 && now&refusal.Blocked == 0 || before&refusal.Unproven != 0 && now != before || before&refusal.Proving != 0 {
		p.registry.wakeWaiters() // also those that wait for a first probe no longer
	}
}

// mostHeld bounds the events of a provider that has not joined yet.
const mostHeld = 16

// publishLocked publishes a change of the provider, once it has joined.
func (p *provider) publishLocked(change event.Event) {
	if p.gateNow()&refusal.Proving == 0 {
		p.registry.bus.Publish(p.event(change))
	} else if len(p.held) < mostHeld {
		p.held = append(p.held, change)
	}
}

// event completes a change, which has been made, with the service, name and generation of the provider.
func (p *provider) event(change event.Event) event.Event {
	p.registry.views.Change(&p.seen)
	change.Service, change.Provider, change.Generation = p.service.name, p.name(), p.generation
	return change
}

// tryEject keeps calls away from the provider and returns true, unless its breaker may not open because of
// selection.Policy.MaxEjected. Both are one step, so that no other provider uses up the bound meanwhile.
// Caller holds breaker.mu.
func (p *provider) tryEject() bool {
	p.registry.mu.Lock()
	defer p.registry.mu.Unlock()
	policy := p.service.policy
	if policy.MaxEjected == 0 || p.hasLeft() {
		return true
	}
	ejected, members := 0, 0
	for other := range p.service.members {
		if other.group != p.group || other.mock() != p.mock() || other.gateNow()&refusal.NoTraffic != 0 {
			continue
		}
		members++
		if other != p && other.gateNow()&(refusal.Open|refusal.HalfOpen) != 0 {
			ejected++
		}
	}
	if !policy.MayEject(ejected, members) {
		p.heldClosed.Add(1)
		return false
	}
	p.opening = refusal.NewOpening("", time.Time{}) // until the breaker itself is open
	p.changeGateLocked(0, refusal.Open, nil)
	return true
}

func (p *provider) info() Info {
	breaker := p.breaker.stats() // its lock comes before the registry's
	p.registry.mu.Lock()
	defer p.registry.mu.Unlock()
	return p.infoLocked(breaker)
}

func (p *provider) infoLocked(breaker BreakerStats) Info {
	sum, timeout := p.meter.Totals(), p.attemptTimeout()
	retry, budget := p.effects.RetryPolicy()
	now := recordLocked(p)
	return Info{
		Definition: p.definitionLocked(), Generation: p.generation,
		Eligible: now.Eligible, Code: now.Code, Reason: now.Words,
		Health: p.health.Status(p.hasLeft(), p.because), HealthPolicy: p.health.Policy.Clone(), Breaker: breaker,
		Limits: LimitPolicy(p.domain.Policy()), InUse: p.limits.Load().Use(), Retry: RetryPolicy(retry), Budget: budget,
		Cooldown: cooldown.Shown(&p.cooldown, &p.domain.Cooldown), Shared: p.domain.Status(),
		Made: p.instance.Load() != nil, AttemptTimeout: timeout.most, TimeoutGiven: timeout.explicit,
		Attempts: sum.Attempts, Successes: sum.Successes, Failures: sum.Failures, Ignored: sum.Ignored, Limited: sum.Limited,
		InFlight: sum.InFlight, MeanLatency: sum.MeanLatency, LastMinute: p.meter.LastMinute(p.registry.now()), LastError: p.last.Load(),
	}
}

// definitionLocked returns a copy of the definition as it is now.
func (p *provider) definitionLocked() Definition {
	d := p.definition.clone()
	d.Group, d.Strategy, d.Mock = p.group.Number, p.group.Strategy, p.shownAsMock()
	return d
}

// full reports whether an attempt would find no free place now.
func (p *provider) full() bool { return p.limits.Load().Full() }

// errReleased returns the cause with which the contexts of the provider's factory and of its instance end.
func (p *provider) errReleased() error {
	return fmt.Errorf("registry: provider %q: %w", p.id(), ErrClosed)
}

// comesBackIn returns the time until the provider comes back by itself, and whether it has asked for that time.
func (p *provider) comesBackIn() (retryIn time.Duration, asked bool) {
	circuit := p.breaker.stats()
	p.registry.mu.Lock()
	defer p.registry.mu.Unlock()
	cooling := p.cooldownNow()
	return max(circuit.RetryIn, time.Until(cooling.Until())), cooling.Active() && !cooling.Guessed()
}

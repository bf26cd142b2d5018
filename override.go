package registry

import (
	"context"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/capreg/registry/event"
	"github.com/capreg/registry/internal/fault"
	"github.com/capreg/registry/internal/oneline"
)

// tenure is what one test has put in the place of providers. As long as it lasts,
// only that test and those inside it may do the like, and the name that it has
// swapped is not given to another provider.
type tenure struct{ by, what, swapped string }

// override hides the providers of a service that were there before it, or are not
// of it or of a later one.
type override struct {
	layer uint64
	by    string
}

const overriddenBy = "overridden by "

// hidden says why the provider is not to be picked although it may be well; empty
// when it may be. Caller holds Registry.mu.
func (p *provider) hidden() string {
	for _, over := range slices.Backward(p.service.overrides) {
		if over.layer > p.layer {
			return fmt.Sprintf("%s%q", overriddenBy, oneline.Cut(over.by, 64))
		}
	}
	switch {
	case p.standIn.Load() != nil:
		return overriddenBy + "a stand-in"
	case p.registry.options.OnlyMocks && !p.shownAsMock():
		return notAMock
	}
	return ""
}

// show makes the gate follow hidden. Caller holds Registry.mu.
func (p *provider) show() {
	if p.hidden() != "" {
		p.shiftLocked(0, gateReal, nil)
	} else {
		p.shiftLocked(gateReal, 0, nil)
	}
}

// shownAsMock says that the instance is no real one, whatever place it has.
func (p *provider) shownAsMock() bool { return p.mock() || p.below != nil }

// acting returns who has the provider's place.
func (p *provider) acting() *provider {
	for {
		above := p.standIn.Load()
		if above == nil {
			return p
		}
		p = above
	}
}

// stack returns all that have the provider's place, who acts in it first.
func (p *provider) stack() (all []*provider) {
	for at := p.acting(); at != nil; at = at.below {
		all = append(all, at)
	}
	return all
}

// bottom returns the provider that the place is of.
func (p *provider) bottom() *provider {
	for p.below != nil {
		p = p.below
	}
	return p
}

// acting returns the provider that the handle speaks of now.
func (r *Registration) acting() *provider { return r.provider.acting() }

// serveAnything returns the providers that serve queries of every handler. Caller
// holds Registry.mu.
func (s *service) serveAnything() (all []*provider) {
	for _, p := range s.sorted[""] {
		if p.anything {
			all = append(all, p)
		}
	}
	return all
}

// hold begins a tenure. Caller holds mu.
func (r *Registry) hold(by, what, swapped string) (*tenure, error) {
	if by == "" { // the names of tests may be of any length
		return nil, invalid("by", by, "a name")
	}
	if r.closing {
		return nil, fmt.Errorf("registry: %w", ErrClosed)
	}
	for _, other := range r.holds {
		if by != other.by && !strings.HasPrefix(by, other.by+"/") {
			return nil, refuse(ErrConflict, "by", by, fmt.Sprintf(
				"%q or a part of it, which has put something in the place of %s: others at the same time need a registry of their own",
				oneline.Cut(other.by, 64), other.what,
			))
		}
	}
	begun := &tenure{by, what, swapped}
	r.holds = append(r.holds, begun)
	return begun, nil
}

// checkSwapped refuses a name that something stands in for, or did until its provider
// left: a test would not notice that it speaks to another one. Caller holds mu.
func (r *Registry) checkSwapped(name string) error {
	for _, t := range r.holds {
		if t.swapped == name {
			return refuse(ErrConflict, "Name", name, fmt.Sprintf("a name that nobody has swapped; %q has", oneline.Cut(t.by, 64)))
		}
	}
	return nil
}

// release ends a tenure. Caller holds mu.
func (r *Registry) release(t *tenure) {
	r.holds = slices.DeleteFunc(r.holds, func(other *tenure) bool { return other == t })
}

// Swap puts a stand-in in the place of the named provider, for as long as a test
// takes, and returns what ends that. Package registrytest calls it.
//
// The stand-in has the provider's name, definition, order and policies, but for its
// probes and recovery hook; it is probed where it is a [health.Checker]. Breaker,
// counts, cooldown and health begin afresh, also those of its [Provider.Domain],
// which it shares with other stand-ins alone. Resolvers that were bound before see
// it from the next look-up on, and a [Registration] speaks of it. Calls in flight
// on the provider go on there. A listing marks it as a mock, and it is picked where
// only mocks are.
//
// by names who does it, such as a test. While something of it is in force, others
// are refused, but for those whose name begins with it and a slash, as that of a
// subtest does. Stand-ins may be swapped in turn.
//
// undo takes the stand-in out, waits for its calls in flight as
// [Registration.Unregister] does, and puts back what was there, with all it knew.
// What was changed through the handle meanwhile (priority, group, policies) goes
// with the stand-in, but for a group's strategy. undo may be called in any order and
// any number of times. When the provider leaves meanwhile, the stand-in leaves with
// it. Until undo is called nobody else can register the name.
//
// The errors match [ErrInvalid], [ErrConflict], [ErrNotRegistered] or [ErrClosed],
// and change nothing.
func (s Service[T]) Swap(r *Registry, by, name string, instance T) (undo func(context.Context) error, err error) {
	svc, err := s.known(r)
	if err != nil {
		return nil, err
	}
	if isNil(instance) {
		return nil, invalid("instance", verbatim(fmt.Sprintf("a nil %s", reflect.TypeFor[T]())), "an instance")
	}
	return svc.swap(by, name, hold(instance))
}

// Override puts the given providers, if any, in the place of all others of the
// service, those that are registered later included, for as long as a test takes,
// and returns what ends that. Package registrytest calls it.
//
// They are mocks, whatever [Options.ForbidMocks] says, and are not shown to
// [Options.Admit]. One without capabilities has every capability that is asked for and
// meets every requirement, and one without a handler is seen by every query. Their
// groups are their own, with strategies of their own, and so are their domains but for
// other stand-ins. The others stay as they are, which includes that they are probed,
// and are not picked. Overrides may be overridden in turn, and swapped.
//
// by, undo and the errors are as in [Service.Swap]; a name that is taken is
// [ErrExists].
func (s Service[T]) Override(r *Registry, by string, providers ...Provider[T]) (undo func(context.Context) error, err error) {
	svc, err := s.known(r)
	if err != nil {
		return nil, err
	}
	entries := make([]entry, len(providers))
	for i, p := range providers {
		if p.Replace {
			return nil, invalid("Replace", true, "false in an override")
		}
		if entries[i], err = newEntry(s.name, p); err != nil {
			return nil, err
		}
		entries[i].definition.Mock = true
	}
	return svc.override(by, entries)
}

// known returns the service of the key in that registry.
func (s Service[T]) known(r *Registry) (*service, error) {
	if !r.made() {
		return nil, errNotMade()
	}
	if err := checkServiceName(s.name); err != nil {
		return nil, err
	}
	return r.bindService(s.name, bindingOf[T]())
}

func (s *service) swap(by, name string, fake *instance) (undo func(context.Context) error, err error) {
	r := s.registry
	r.mu.Lock()
	known := r.providers[name]
	r.mu.Unlock()
	if known == nil || known.service != s {
		return nil, fmt.Errorf("registry: provider %q of service %q: %w: there are %s",
			oneline.Cut(name, 64), oneline.Cut(s.name, 64), ErrNotRegistered, s.names())
	}
	policy := known.breaker.read().Policy // its lock comes before the registry's
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.providers[name] != known {
		return nil, refuse(ErrConflict, "name", name, "a provider that nobody removes or swaps at the same time")
	}
	held, err := r.hold(by, fmt.Sprintf("provider %q", oneline.Cut(name, 64)), name)
	if err != nil {
		return nil, err
	}
	q := known.standInOf(fake, policy)
	s.exchange(known, q)
	known.standIn.Store(q)
	known.show()
	q.show()
	r.bus.publish(known.event(event.Event{Kind: event.Changed, Reason: "stand-in", To: by}))
	r.bus.publish(q.event(event.Event{Kind: event.Registered}))
	q.watchFirst()
	r.wakeWaiters()
	return func(ctx context.Context) error {
		if ctx == nil {
			return invalid("ctx", verbatim("nil"), "a context")
		}
		if q.stepDown(held) {
			retireAll([]*provider{q})
		}
		return awaitReleased(ctx, []*provider{q})
	}, nil
}

// standInOf returns a provider with the place and the settings of p and a life of
// its own. Caller holds Registry.mu.
func (p *provider) standInOf(fake *instance, policy BreakerPolicy) *provider {
	e := entry{
		definition: p.definition.clone(), instance: fake, timeout: 0, breaker: policy, classify: p.classify, health: p.health.policy, layer: p.layer,
	}
	if known := p.retries.Load(); known != nil {
		e.retry = known.policy
	}
	e.health.Probe, e.health.Capabilities, e.health.Recover = nil, nil, nil
	p.registry.generation++
	q := newProvider(p.service, e, p.registry.generation)
	q.timeout.Store(p.timeout.Load())
	q.order, q.anything, q.below = p.order, p.anything, p
	return q
}

// exchange gives the place of one provider to another of the same name. Caller
// holds Registry.mu.
func (s *service) exchange(from, to *provider) {
	r := s.registry
	r.providers[from.name()] = to
	for _, capability := range from.definition.Capabilities {
		delete(r.byCapability[capability], from)
		r.byCapability[capability][to] = struct{}{}
	}
	delete(s.members, from)
	s.members[to] = struct{}{}
	group := to.group
	if group == nil {
		group = from.group
	}
	s.enterGroup(to, group.key, group.strategy) // first: a group ends with its last member
	s.leaveGroup(from)
	if to.domain == nil {
		r.enterShadow(to, from.domain)
	}
	s.outdate()
}

// domainKey returns what a domain is found by: what tests have put in the place of
// providers shares one of its own.
func domainKey(name string, ofTest bool) string {
	if name == "" || !ofTest {
		return name
	}
	return "\x00" + name // no other has such a name
}

// enterShadow gives a stand-in its domain, with the limits of the one it stands for.
// Caller holds mu.
func (r *Registry) enterShadow(p *provider, of *domain) {
	var limits LimitPolicy
	if l := of.limits; l != nil {
		limits = l.policy
	}
	r.enterDomain(p, limits)
}

// stepDown takes a stand-in out and puts back what was there; false when it had
// left.
func (p *provider) stepDown(held *tenure) bool {
	r := p.registry
	r.mu.Lock()
	defer r.mu.Unlock()
	r.release(held)
	if p.hasLeft() {
		return false
	}
	above, below := p.standIn.Load(), p.below // who looks through p meanwhile still finds above
	below.standIn.Store(above)
	if above != nil {
		above.below = below
	} else {
		p.service.exchange(p, below)
	}
	r.leaveDomain(p)
	r.gone(p, "stand-in taken out")
	if above == nil {
		below.show()
		r.bus.publish(below.event(event.Event{Kind: event.Changed, Reason: "stand-in", From: held.by}))
	}
	r.wakeWaiters()
	return true
}

// names lists the providers of the service, for an error.
func (s *service) names() string {
	s.registry.mu.Lock()
	defer s.registry.mu.Unlock()
	var names []string
	for member := range s.members {
		names = append(names, fmt.Sprintf("%q", oneline.Cut(member.name(), 64)))
	}
	if len(names) == 0 {
		return "none"
	}
	slices.Sort(names)
	if len(names) > mostNamed {
		names = append(names[:mostNamed], fmt.Sprintf("%d more", len(names)-mostNamed))
	}
	return strings.Join(names, ", ")
}

func (s *service) override(by string, entries []entry) (undo func(context.Context) error, err error) {
	r := s.registry
	r.mu.Lock()
	held, err := r.hold(by, fmt.Sprintf("service %q", oneline.Cut(s.name, 64)), "")
	if err != nil {
		r.mu.Unlock()
		return nil, err
	}
	r.layers++
	over := &override{layer: r.layers, by: by}
	r.mu.Unlock()

	// They join before the others are hidden, so that those who look find somebody.
	var fakes []*provider
	end := func() (left []*provider) {
		r.mu.Lock()
		defer r.mu.Unlock()
		if !slices.Contains(r.holds, held) {
			return nil
		}
		r.release(held)
		s.overrides = slices.DeleteFunc(s.overrides, func(other *override) bool { return other == over })
		for _, fake := range fakes {
			if !fake.hasLeft() {
				left = append(left, fake.stack()...)
				r.leave(fake.acting(), "override taken out")
			}
		}
		s.showAll()
		r.bus.publish(event.Event{Kind: event.Changed, Service: s.name, Reason: "override", From: by})
		return left
	}
	for _, e := range entries {
		e.layer = over.layer
		fake, _, err := r.join(s, e)
		if err != nil {
			retireAll(end())
			return nil, err
		}
		if e.until != nil {
			fake.endWith(e.until)
		}
		fakes = append(fakes, fake)
	}
	r.mu.Lock()
	s.overrides = append(s.overrides, over)
	s.showAll()
	r.bus.publish(event.Event{Kind: event.Changed, Service: s.name, Reason: "override", To: by})
	r.mu.Unlock()
	return func(ctx context.Context) error {
		if ctx == nil {
			return invalid("ctx", verbatim("nil"), "a context")
		}
		retireAll(end())
		return awaitReleased(ctx, fakes)
	}, nil
}

// showAll makes every provider of the service be picked or not as the overrides in
// force say. Caller holds Registry.mu.
func (s *service) showAll() {
	s.outdate() // first: a plan in force would show some of them hidden, and others not yet
	for member := range s.members {
		for at := member; at != nil; at = at.below {
			at.show()
		}
	}
	s.registry.wakeWaiters()
}

// observer is told of calls.
type observer struct {
	after func(ctx context.Context, r CallReport)
}

// Observe has after told of every call and lease that begins from now on, when it
// is over, as [Options.AfterCall] is, until stop is called. It is for what comes to
// a registry that it has not made, such as a recorder in a test. The report must
// not be changed. While somebody observes, calls pay for their reports.
func (r *Registry) Observe(after func(ctx context.Context, r CallReport)) (stop func(), err error) {
	if !r.made() {
		return nil, errNotMade()
	}
	if after == nil {
		return nil, invalid("after", verbatim("nil"), "a function")
	}
	added := &observer{after}
	r.changeObservers(func(all []*observer) []*observer { return append(all, added) })
	return func() {
		r.changeObservers(func(all []*observer) []*observer {
			return slices.DeleteFunc(all, func(other *observer) bool { return other == added })
		})
	}, nil
}

func (r *Registry) changeObservers(change func([]*observer) []*observer) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var all []*observer
	if present := r.observers.Load(); present != nil {
		all = slices.Clone(*present)
	}
	if all = change(all); len(all) == 0 {
		r.observers.Store(nil)
	} else {
		r.observers.Store(&all)
	}
	r.sprints.Store(r.maySprint())
}

func (r *Registry) tellObservers(ctx context.Context, report CallReport) {
	all := r.observers.Load()
	if all == nil {
		return
	}
	for _, o := range *all {
		_ = fault.Run(func() error { o.after(ctx, report); return nil })
	}
}

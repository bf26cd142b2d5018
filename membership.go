package registry

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync/atomic"

	"github.com/capreg/registry/event"
	"github.com/capreg/registry/internal/bus"
	"github.com/capreg/registry/internal/changeset"
	"github.com/capreg/registry/internal/domain"
	"github.com/capreg/registry/internal/fault"
	"github.com/capreg/registry/internal/overall"
	"github.com/capreg/registry/internal/override"
	"github.com/capreg/registry/internal/pick"
	"github.com/capreg/registry/internal/query"
	"github.com/capreg/registry/internal/refusal"
	"github.com/capreg/registry/status"
)

// membership is the part of a [Registry] that its mutex guards: which providers there are and how they are found,
// the overrides of tests, and the events. All its methods are called with Registry.mu held.
type membership struct {
	providers    map[status.ProviderID]*provider
	byCapability query.Index[*provider]
	domains      domain.Set[*provider]  // the shared ones, by key; see override.DomainKey
	proving      map[*provider]struct{} // made, and not joined yet
	draining     map[*provider]struct{} // removed, with calls in flight
	overrides    override.Set           // in force
	world        changeset.Members[*provider]
	waiters      chan struct{} // closed when a provider becomes eligible or leaves; nil while nothing waits
	bus          *bus.Bus
	order        []*provider               // of the listing; nil: to be sorted
	views        bus.Views[provider, Info] // of subscriptions
	causesOf     overall.Causes[*provider] // for those that require others
	causes       atomic.Uint64             // grows when the reasons of those that require others may change
	closing      bool

	generation uint64 // of the latest provider
	unnamed    uint64 // providers that were given a name
}

func newMembership() membership {
	return membership{
		providers:    make(map[status.ProviderID]*provider),
		byCapability: make(query.Index[*provider]),
		domains:      make(domain.Set[*provider]),
		proving:      make(map[*provider]struct{}),
		draining:     make(map[*provider]struct{}),
	}
}

// askAdmission calls the admission hook.
func (r *Registry) askAdmission(ctx context.Context, d *Definition) error {
	if r.options.Admit == nil {
		return nil
	}
	err := fault.Run(func() error { return r.options.Admit(ctx, d.clone()) })
	if err != nil {
		return fault.Wrap(fmt.Sprintf("registry: registration of provider %q for service %q refused: ",
			shortName(d.Name), shortName(d.Service)), err)
	}
	return nil
}

// make makes the provider of a checked entry, which is watched from now on and joins or is dropped later.
func (m *membership) make(svc *service, e *entry) *provider {
	m.generation++
	p := newProvider(svc, e, m.generation)
	p.gate.Store(uint32(p.gateNow() | refusal.Proving))
	p.domain = m.domains.Join("", p) // until it joins
	m.proving[p] = struct{}{}
	svc.proving++
	p.watchFirst()
	return p
}

// join makes a provider that was made a member, and removes the one that it replaces, if any.
func (m *membership) join(p, replaced *provider, e *entry) {
	svc := p.service
	if replaced != nil {
		m.remove(replaced, "replaced")
		p.order = replaced.order
	}
	delete(m.proving, p)
	svc.proving--
	svc.registry.enterDomain(p, e.limits)
	if svc.hides(p) != nil {
		p.gate.Store(uint32(p.gateNow() | refusal.Hidden))
	}
	p.gate.Store(uint32(p.gateNow() &^ refusal.Proving))
	p.ready = svc.registry.now()
	m.index(p)
	svc.assign(p, e.groupID(), e.definition.Strategy)
	svc.outdate()
	if replaced != nil {
		replaced.moveQueueTo(p)
	}
	p.publishLocked(event.Event{Kind: event.Registered})
	for _, change := range p.held {
		p.publishLocked(change)
	}
	p.held = nil
	if replaced != nil && replaced.domain == p.domain {
		domain.ForgiveKey(p.registry.cooling(), p)
	}
	m.wakeWaiters()
}

// groupID returns the group that the entry joins.
func (e *entry) groupID() pick.GroupID {
	return pick.GroupID{Handler: e.definition.Handler, Number: e.definition.Group, Override: e.overrideID}
}

// drop gives up a provider that has not joined. It remains to be drained.
func (m *membership) drop(p *provider) {
	if _, ok := m.proving[p]; !ok {
		return
	}
	delete(m.proving, p)
	p.service.proving--
	m.beginDrain(p, "")
}

// index enters p under its name, its capabilities and its service.
func (m *membership) index(p *provider) {
	m.providers[p.id()] = p
	m.byCapability.Insert(p, p.definition.Capabilities)
	p.service.members[p] = struct{}{}
	m.views.Reset()
	m.causesOf = overall.Causes[*provider]{} // it keeps no provider that has left
	m.causes.Add(1)
}

func (m *membership) unindex(p *provider) {
	delete(m.providers, p.id())
	m.byCapability.Delete(p, p.definition.Capabilities)
	delete(p.service.members, p)
	m.views.Reset()
	m.causesOf = overall.Causes[*provider]{} // it keeps no provider that has left
	m.causes.Add(1)
}

// remove takes a current provider, together with those that it has replaced for a test,
// out of everything that picks. It remains to be drained.
func (m *membership) remove(p *provider, reason string) {
	m.unindex(p)
	p.service.groups.Leave(p.group)
	p.registry.leaveDomain(p)
	p.service.outdate() // before any gate changes: a plan that is still iterated over stays as it was
	m.beginDrain(p, reason)
	for _, replaced := range p.chain()[1:] {
		replaced.replacement.Lead(nil)
		p.registry.leaveDomain(replaced)
		m.beginDrain(replaced, reason)
	}
	m.wakeWaiters()
}

// beginDrain closes the gate of a provider that nothing picks any more.
func (m *membership) beginDrain(p *provider, reason string) {
	m.draining[p] = struct{}{}
	p.gate.Store(uint32(p.gateNow() | refusal.Gone))
	if p.gateNow()&refusal.Proving == 0 {
		p.publishLocked(event.Event{Kind: event.Draining, Reason: reason})
	}
}

// unregister takes the provider out of the registry together with its replacements, and
// returns all of them; none when it has left before. They remain to be drained.
func (r *Registry) unregister(p *provider, reason string) (left []*provider) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if p.hasLeft() {
		return nil
	}
	left = p.chain()
	r.remove(left[0], reason)
	p.service.forgetIdle()
	return left
}

// removeAll closes the registry for registrations and takes every provider out. It returns them, together with
// those that have left before and have calls in flight, newest first. Only the first call does so.
func (r *Registry) removeAll() (left []*provider, first bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closing {
		return nil, false
	}
	r.closing = true
	r.bus.Publish(event.Event{Kind: event.Closing})
	for _, p := range slices.SortedFunc(maps.Values(r.providers), byGeneration) {
		r.remove(p, "registry closing")
	}
	for p := range r.proving {
		r.drop(p)
	}
	for _, svc := range *r.services.Load() {
		svc.outdate()
	}
	r.wakeWaiters()
	left = slices.SortedFunc(maps.Keys(r.draining), byGeneration)
	slices.Reverse(left)
	return left, true
}

// wakeWaiters makes those that wait for an eligible provider look at the plan again.
func (m *membership) wakeWaiters() {
	if m.waiters != nil {
		close(m.waiters)
		m.waiters = nil
	}
}

// changed returns a channel that is closed when a provider becomes eligible or leaves.
func (r *Registry) changed() <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.changedLocked()
}

func (m *membership) changedLocked() <-chan struct{} {
	if m.waiters == nil {
		m.waiters = make(chan struct{})
	}
	return m.waiters
}

// having returns current providers, in any order, among them all that have the capabilities.
func (m *membership) having(capabilities []string) []*provider {
	if len(capabilities) == 0 {
		return slices.Collect(maps.Values(m.providers))
	}
	return slices.Collect(maps.Keys(m.byCapability.Fewest(capabilities)))
}

// listingLocked returns every current provider in the one order. The list is shared until that changes.
func (m *membership) listingLocked() []*provider {
	if m.order == nil {
		m.order = slices.AppendSeq(make([]*provider, 0, len(m.providers)), maps.Values(m.providers))
		sortListing(m.order)
	}
	return m.order
}

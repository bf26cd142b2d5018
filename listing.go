package registry

import (
	"cmp"
	"context"
	"fmt"
	"iter"
	"slices"

	"github.com/capreg/registry/health"
	"github.com/capreg/registry/internal/fault"
	"github.com/capreg/registry/internal/pick"
	"github.com/capreg/registry/internal/query"
	"github.com/capreg/registry/internal/refusal"
	"github.com/capreg/registry/reason"
	"github.com/capreg/registry/status"
)

// Provider returns the handle of the provider of the service with that name, and false when there is none.
func (r *Registry) Provider(service, name string) (*Registration, bool) {
	r = r.orClosed()
	r.mu.Lock()
	defer r.mu.Unlock()
	p, ok := r.providers[status.ProviderID{Service: service, Name: name}]
	if !ok {
		return nil, false
	}
	return &Registration{provider: p.original()}, true
}

// All yields every provider in the one order of all listings: by service name, by handler with the global ones
// last, then by group, priority and registration. Which providers it yields is decided when the iteration begins;
// each is read when it is yielded.
func (r *Registry) All() iter.Seq[Info] {
	return func(yield func(Info) bool) {
		for _, p := range r.listing() {
			if !yield(p.info()) {
				return
			}
		}
	}
}

// Registrations returns the handles of all providers, or of those of the named services, in the order of
// [Registry.All].
func (r *Registry) Registrations(services ...string) (handles []*Registration) {
	for _, p := range r.listing() {
		if len(services) == 0 || slices.Contains(services, p.service.name) {
			handles = append(handles, &Registration{provider: p.original()})
		}
	}
	return handles
}

// Reset closes the breakers of all providers, or of those of the named services, and ends their cooldowns, as
// [Registration.Reset] does. It returns the providers that were kept away by one of them.
func (r *Registry) Reset(services ...string) (wereKeptAway []status.ProviderID) {
	for _, h := range r.Registrations(services...) {
		kept := h.current().gateNow()&(refusal.Open|refusal.HalfOpen|refusal.Cooling) != 0
		if h.Reset() == nil && kept {
			wereKeptAway = append(wereKeptAway, h.orLeft().id())
		}
	}
	return wereKeptAway
}

// Discover returns the providers of all services that the query accepts and, where states are given, whose health is one
// of them. They are in the order of [Registry.All]; whether one could be given a call now is in [Info.Eligible]. The zero
// query accepts every provider.
//
// Handler accepts the handler's own providers and the global ones, "*" the global ones alone, and an empty one, unlike in
// a look-up, those of all handlers. OwnOnly, Only, in each service, Require and Where are as in a look-up; what does not
// depend on the provider alone is ignored: Where.MaxLatency, Prefer, Near, Key and TryRefused.
//
// The errors match [ErrInvalid] (a [FieldError] that names the field) or [ErrClosed]. Discover runs no code of providers.
func (r *Registry) Discover(q Query, states ...health.State) ([]Info, error) {
	if !r.made() {
		return nil, errNotMade()
	}
	asked := (*query.Query)(&q)
	if v := cmp.Or(asked.Check(), query.CheckStates(states)); v != nil {
		return nil, asInvalid(v)
	}
	r.mu.Lock()
	if r.closing {
		r.mu.Unlock()
		return nil, fmt.Errorf("registry: %w", ErrClosed)
	}
	found := slices.DeleteFunc(r.having(q.Require), func(p *provider) bool {
		return !asked.Lists(p.definition.Handler) || p.service.unmet(p, q) != nil
	})
	sortListing(found)
	r.mu.Unlock()
	infos := make([]Info, 0, len(found))
	for _, p := range found {
		if info := p.info(); len(states) == 0 || slices.Contains(states, info.Health.State) {
			infos = append(infos, info)
		}
	}
	return infos, nil
}

func (r *Registry) listing() []*provider {
	r = r.orClosed()
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.listingLocked()
}

// sortListing sorts into the one order of all listings. Caller holds Registry.mu.
func sortListing(all []*provider) {
	slices.SortFunc(all, func(a, b *provider) int {
		return cmp.Or(
			cmp.Compare(a.service.name, b.service.name),
			pick.CompareBool(a.definition.Handler == "", b.definition.Handler == ""),
			cmp.Compare(a.definition.Handler, b.definition.Handler),
			compareProviders(a, b),
		)
	})
}

// byGeneration orders providers by registration, oldest first.
func byGeneration(a, b *provider) int { return cmp.Compare(a.generation, b.generation) }

// Stats returns the totals of the registry. It changes nothing.
func (r *Registry) Stats() status.Totals {
	r = r.orClosed()
	r.mu.Lock()
	services := *r.services.Load()
	stats := status.Totals{Draining: len(r.draining), Providers: len(r.providers)}
	stats.Hits, stats.Misses = r.forgotten.Lookups()
	if stats.Providers > 0 {
		stats.ByCode = make(map[reason.Code]int)
	}
	for _, p := range r.providers {
		stats.ByCode[refusal.CodeOf(p.gateNow(), facts{p})]++
	}
	for _, svc := range services {
		stats.Services += min(len(svc.members), 1)
	}
	r.mu.Unlock()
	for _, svc := range services { // without the lock: it reads the counters of all providers
		hits, misses := svc.meter.Lookups()
		stats.Hits, stats.Misses = stats.Hits+hits, stats.Misses+misses
	}
	stats.Lookups = stats.Hits + stats.Misses
	stats.Eligible = stats.ByCode[reason.Eligible] + stats.ByCode[reason.Trial]
	return stats
}

// WaitReady blocks until each of the named services has an eligible provider, whatever its handler and
// capabilities. A provider whose factory has not run yet counts. Without names WaitReady waits for
// [Options.Required]; with nothing required it returns at once. It wakes on changes, without polling.
//
// When ctx ends first, the error matches [ErrNotReady] and the context's error and
// cause, and unwraps to one [UnavailableError] for each missing service. On a registry
// that is closing, or whose [Orchestrator] stops, it matches [ErrClosed].
func (r *Registry) WaitReady(ctx context.Context, services ...string) error {
	if !r.made() {
		return errNotMade()
	}
	if len(services) == 0 {
		services = r.options.Required
	}
	if ctx == nil {
		return errNilContext()
	}
	for i, name := range services {
		if err := checkName(fmt.Sprintf("services[%d]", i), name); err != nil {
			return err
		}
	}
	var missing []string
	return r.awaitReady(ctx, func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		missing = slices.DeleteFunc(slices.Clone(services), func(name string) bool {
			svc := r.knownService(name)
			return svc != nil && svc.served()
		})
		return len(missing) == 0
	}, func() (causes []error) {
		for _, name := range missing {
			causes = append(causes, r.unavailableService(name))
		}
		return causes
	})
}

// awaitReady blocks until ready returns true, which is asked after each change. When ctx ends first, the error unwraps to
// what missing returns.
func (r *Registry) awaitReady(ctx context.Context, ready func() bool, missing func() []error) error {
	for {
		r.mu.Lock()
		changed := r.changedLocked()
		r.mu.Unlock()
		if err := r.errStopping(); err != nil || ready() {
			return err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fault.Join("registry: ", slices.Concat([]error{ErrNotReady}, fault.OfContext(ctx), missing()))
		}
	}
}

package registry

import (
	"cmp"
	"context"
	"fmt"
	"iter"
	"slices"

	"github.com/capreg/registry/internal/fault"
	"github.com/capreg/registry/internal/pick"
	"github.com/capreg/registry/internal/refusal"
	"github.com/capreg/registry/reason"
	"github.com/capreg/registry/status"
)

// Provider returns the handle of the provider with that name, and false when there is none.
func (r *Registry) Provider(name string) (*Registration, bool) {
	r = r.orClosed()
	r.mu.Lock()
	defer r.mu.Unlock()
	p, ok := r.providers[name]
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
// [Registration.Reset] does. It returns the names of the providers that were kept away by one of them.
func (r *Registry) Reset(services ...string) (wereKeptAway []string) {
	for _, h := range r.Registrations(services...) {
		kept := h.current().gateNow()&(refusal.Open|refusal.HalfOpen|refusal.Cooling) != 0
		if h.Reset() == nil && kept {
			wereKeptAway = append(wereKeptAway, h.Name())
		}
	}
	return wereKeptAway
}

// Discover returns the providers of all services that have all the given capabilities, in the order of
// [Registry.All]. Without capabilities it returns every provider.
func (r *Registry) Discover(capabilities ...string) []Info {
	r = r.orClosed()
	r.mu.Lock()
	found := r.having(capabilities)
	sortListing(found)
	r.mu.Unlock()
	infos := make([]Info, 0, len(found))
	for _, p := range found {
		infos = append(infos, p.info())
	}
	return infos
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
	defer r.mu.Unlock()
	stats := status.Totals{Draining: len(r.draining)}
	stats.Hits, stats.Misses = r.forgotten.Lookups()
	for _, svc := range *r.services.Load() {
		hits, misses := svc.meter.Lookups()
		stats.Hits, stats.Misses = stats.Hits+hits, stats.Misses+misses
		if len(svc.members) > 0 {
			stats.Services++
		}
	}
	stats.Lookups = stats.Hits + stats.Misses
	stats.Providers = len(r.providers)
	if stats.Providers > 0 {
		stats.ByCode = make(map[reason.Code]int)
	}
	for _, p := range r.providers {
		stats.ByCode[refusal.CodeOf(p.gateNow(), facts{p})]++
	}
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
	for {
		missing, changed, err := r.unserved(services)
		if err != nil || len(missing) == 0 {
			return err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return r.notReady(ctx, missing)
		}
	}
}

// unserved returns the services without an eligible provider, and a channel that is closed when that may have changed.
func (r *Registry) unserved(services []string) (missing []string, changed <-chan struct{}, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.errStoppingLocked(); err != nil {
		return nil, nil, err
	}
	for _, name := range services {
		if svc := r.knownService(name); svc == nil || !svc.served() {
			missing = append(missing, name)
		}
	}
	if len(missing) > 0 {
		changed = r.changedLocked()
	}
	return missing, changed, nil
}

func (r *Registry) notReady(ctx context.Context, missing []string) error {
	causes := append([]error{ErrNotReady}, fault.OfContext(ctx)...)
	for _, name := range missing {
		causes = append(causes, r.unavailableService(name))
	}
	return fault.Join("registry: ", causes)
}

package registry

import (
	"maps"
	"slices"
	"time"

	"github.com/capreg/registry/internal/pick"
	"github.com/capreg/registry/metrics"
	"github.com/capreg/registry/reason"
	"github.com/capreg/registry/selection"
)

// Analytics returns the outcomes of the look-ups and the shares of the attempts of a
// service so far, and false for an unknown service. It changes nothing.
func (r *Registry) Analytics(serviceName string) (selection.Analytics, bool) {
	r = r.orClosed()
	svc := r.knownService(serviceName)
	if svc == nil {
		return selection.Analytics{}, false
	}
	var sums pick.Sums
	a := &sums.Analytics
	a.Service, a.MissesByReason = serviceName, svc.meter.MissesByReason()
	a.Hits, a.Misses = svc.meter.Lookups()
	a.Lookups = a.Hits + a.Misses

	r.mu.Lock()
	defer r.mu.Unlock()
	members := slices.Collect(maps.Keys(svc.members))
	sortListing(members)
	for _, p := range members {
		sums.Add(p.group, selection.Share{
			Provider: p.name(), Handler: p.definition.Handler, Group: p.group.Number, Weight: p.definition.Weight,
			Attempts: p.meter.Totals().Attempts, TookOver: p.meter.Attempted(reason.Failover), HeldClosed: p.heldClosed.Load(),
		})
	}
	return sums.Result(), true
}

// Metrics returns what was measured so far, for a tool that collects it. It changes nothing, and holds the lock of the
// registry for one provider at a time. See package metrics; contrib/prometheus and contrib/otel hand it on.
func (r *Registry) Metrics() metrics.Snapshot {
	r = r.orClosed()
	snapshot := metrics.Snapshot{Totals: r.Stats()}
	r.mu.Lock()
	snapshot.Events = r.bus.Kinds()
	r.mu.Unlock()
	services := *r.services.Load()
	for _, name := range slices.Sorted(maps.Keys(services)) {
		snapshot.Services = append(snapshot.Services, services[name].meter.Read(name))
	}
	for _, p := range r.listing() {
		i := p.info()
		shown := metrics.Provider{
			Service: i.Service, Name: i.Name, Handler: i.Handler, Group: i.Group, Generation: i.Generation,
			Eligible: i.Eligible, Code: i.Code, Health: i.Health.State,
			Breaker: i.Breaker.State.String(), Opened: i.Breaker.Opened, HalfOpened: i.Breaker.HalfOpened, Closed: i.Breaker.Closed,
			Places: i.Limits.MaxConcurrent, Queue: i.Limits.MaxQueue, InUse: i.InUse,
			Budget: i.Budget, BudgetSize: i.Retry.Budget,
		}
		if in, _ := p.comesBackIn(); in > 0 {
			shown.BackAt = time.Now().Add(in).Round(time.Millisecond)
		}
		p.meter.Read(&shown, r.now())
		snapshot.Providers = append(snapshot.Providers, shown)
	}
	return snapshot
}

// Decisions returns the latest picks, oldest first, at most [Options.Decisions]. It
// contains a pick for each look-up and for each attempt that a strategy chose the
// provider of; GetAll, AcquireAll, Each, retries and last resorts are not picks.
func (r *Registry) Decisions() []selection.Decision {
	return r.orClosed().decisions.Values()
}

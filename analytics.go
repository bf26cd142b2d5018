package registry

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/capreg/registry/internal/check"
	"github.com/capreg/registry/internal/pace"
	"github.com/capreg/registry/internal/pick"
	"github.com/capreg/registry/metrics"
	"github.com/capreg/registry/reason"
	"github.com/capreg/registry/selection"
	"github.com/capreg/registry/status"
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
	totals := r.Stats()
	snapshot := metrics.Snapshot{Totals: totals, Providers: make([]metrics.Provider, 0, totals.Providers)}
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
			Service: i.Service, Name: i.Name, Handler: i.Handler, Group: i.Group, Generation: i.Generation, Eligible: i.Eligible, Code: i.Code,
			Health: i.Health.State, Breaker: i.Breaker.State.String(), Opened: i.Breaker.Opened, HalfOpened: i.Breaker.HalfOpened, Closed: i.Breaker.Closed,
			Places: i.Limits.MaxConcurrent, Queue: i.Limits.MaxQueue, InUse: i.InUse, Rate: i.Limits.Rate, Authorized: r.options.Authorize != nil,
			Budget: i.Budget, BudgetSize: i.Retry.Budget, Retries: i.Retry.Retries, InFlight: i.InFlight, LastMinute: i.LastMinute,
		}
		if in, _ := p.comesBackIn(); in > 0 {
			shown.BackAt = time.Now().Add(in).Round(time.Millisecond)
		}
		p.meter.Read(&shown, i.Attempts)
		snapshot.Providers = append(snapshot.Providers, shown)
	}
	return snapshot
}

// Performance returns what the attempts on the provider have taught so far. It changes nothing. A later registration of the
// same provider, such as in another process, goes on from there by [Registration.ContinueFrom].
func (r *Registration) Performance() status.Performance {
	p := r.current()
	now := p.registry.now()
	known := p.effects.KnownPace(now)
	shown := status.Performance{At: time.Now(), Longest: known.Longest, Waited: known.Waited}
	if measured := p.vitals.Load(); measured != nil {
		latency, failing, _ := measured.Performance(now, nil)
		shown.Latency, shown.Failing = time.Duration(latency), failing
	}
	p.registry.mu.Lock()
	defer p.registry.mu.Unlock()
	shown.LastTurn = slices.ContainsFunc(p.positions, func(at position) bool { return at.plan.LastTurn(at.at) })
	return shown
}

// longestMemory is the age from which on a [status.Performance] says nothing of a provider.
const longestMemory = time.Hour

// ContinueFrom makes the provider go on from what was known of it before, as far as its own attempts have not told yet.
//
// Latency and Failing have faded since known.At, as they do without attempts ([selection.Policy]), and are dropped when less
// than a hundredth is left; everything is after an hour. Of several that had a turn, one counts, for the next query that
// takes turns in the group. The errors match [ErrInvalid] (a [FieldError]) or [ErrNotRegistered], and change nothing.
func (r *Registration) ContinueFrom(known status.Performance) error {
	p, err := r.member()
	if err = cmp.Or(asInvalid(cmp.Or(
		check.Range[time.Duration]{}.Check("Latency", known.Latency), check.Range[float64]{Max: 1}.Check("Failing", known.Failing),
		check.Range[time.Duration]{}.Check("Longest", known.Longest), check.Range[time.Duration]{}.Check("Waited", known.Waited),
	)), err); err != nil {
		return err
	}
	age, now := time.Since(known.At), p.registry.now()
	if age >= longestMemory {
		return nil
	}
	p.effects.ContinuePace(pace.Known{Longest: known.Longest, Waited: known.Waited}, now, &p.service.pace)
	p.registry.mu.Lock()
	defer p.registry.mu.Unlock()
	if known.Latency > 0 || known.Failing > 0 {
		vitalsOf(p).Continue(now, age, known.Latency, known.Failing)
	}
	if known.LastTurn {
		p.group.Had.Set(rankOf(p).Key())
	}
	return nil
}

// Decisions returns the latest picks, oldest first, at most [Options.Decisions]. It
// contains a pick for each look-up and for each attempt that a strategy chose the
// provider of; GetAll, AcquireAll, Each, retries and last resorts are not picks.
func (r *Registry) Decisions() []selection.Decision {
	return r.orClosed().decisions.Values()
}

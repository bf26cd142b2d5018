package registry

import (
	"maps"
	"slices"

	"github.com/capreg/registry/internal/pick"
	"github.com/capreg/registry/internal/record"
	"github.com/capreg/registry/reason"
	"github.com/capreg/registry/selection"
)

// missCounter counts the look-ups of a service that found no provider, by code.
type missCounter struct{ record.Counter[reason.Code] }

// count counts a look-up that found no provider, once for each code among its candidates.
// For nil, its context had ended.
func (m *missCounter) count(why *UnavailableError) {
	switch {
	case why == nil:
		m.Add(reason.ContextEnded)
	case why.sight.Cause == ErrClosed: //nolint:errorlint // the sentinel itself
		m.Add(reason.Closed)
	case why.sight.Cause == ErrUnknownService: //nolint:errorlint // the sentinel itself
		m.Add(reason.UnknownService)
	case why.sight.Cause != nil:
		m.Add(reason.NoneInSight)
	default:
		m.Add(why.sight.Codes...)
	}
}

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
	a.Service = serviceName
	for cell := range svc.lookups.Each {
		a.Hits += cell.hits.Load()
		a.Misses += cell.misses.Load()
	}
	a.Lookups, a.MissesByReason = a.Hits+a.Misses, svc.misses.ByReason()

	r.mu.Lock()
	defer r.mu.Unlock()
	members := slices.Collect(maps.Keys(svc.members))
	sortListing(members)
	for _, p := range members {
		sums.Add(p.group, selection.Share{
			Provider: p.name(), Handler: p.definition.Handler, Group: p.group.Number, Weight: p.definition.Weight,
			Attempts: p.totals().Attempts, TookOver: p.tookOver.Load(), HeldClosed: p.heldClosed.Load(),
		})
	}
	return sums.Result(), true
}

// Decisions returns the latest picks, oldest first, at most [Options.Decisions]. It
// contains a pick for each look-up and for each attempt that a strategy chose the
// provider of; GetAll, AcquireAll, Each, retries and last resorts are not picks.
func (r *Registry) Decisions() []selection.Decision {
	return r.orClosed().decisions.Values()
}

package registry

import (
	"fmt"
	"slices"
	"strings"

	"github.com/capreg/registry/health"
	"github.com/capreg/registry/internal/overall"
	"github.com/capreg/registry/internal/refusal"
)

// Health returns the health of the registry with its details; with groups, that of the providers in any of them
// alone ([health.Policy.Groups]). It probes nothing and changes nothing.
//
// A provider counts as unhealthy when its health is, or is not known yet, and as degraded when it is degraded or
// cannot be given a call for another reason, such as an open breaker. A service is unhealthy when every provider
// is, and degraded when any is not healthy, or all are mocks. The registry is unhealthy when a required service is
// ([Options.Required]; without groups and for [health.Readiness]), or every service is; it is degraded when any is
// not healthy. A registry without providers is unhealthy, and so is one whose [Orchestrator] stops, from the first
// moment of that on, until another one starts. A group without providers is healthy, unless it is Readiness. So a
// misspelt group is always healthy; use the constants of package health, or your own.
func (r *Registry) Health(groups ...string) health.Overall {
	r = r.orClosed()
	all := overall.Of(r.healthViews(), r.options.Required, groups)
	if (len(groups) == 0 || slices.Contains(groups, health.Readiness)) && r.errStopping() != nil {
		all.State = health.Unhealthy
		all.Reason = strings.TrimSuffix(stoppingText+"; "+all.Reason, "; ")
	}
	return all
}

const stoppingText = "the program is stopping"

// errStopping returns the error of a registry that closes, or whose components are being stopped; nil for another.
func (r *Registry) errStopping() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.closing:
		return fmt.Errorf("registry: %w", ErrClosed)
	case r.stopping:
		return fmt.Errorf("registry: %w: %s", ErrClosed, stoppingText)
	}
	return nil
}

// orchestrate notes that the components of an orchestrator are being started (1), or stopped (-1).
func (r *Registry) orchestrate(more int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.orchestrated += more
	r.stopping = r.orchestrated == 0
	r.wakeWaiters()
}

// healthViews returns the health of every provider at one moment, in the one order.
func (r *Registry) healthViews() []overall.Provider {
	r.mu.Lock()
	defer r.mu.Unlock()
	var views []overall.Provider
	for _, p := range r.listingLocked() {
		known, stands := p.health.Status(p.hasLeft(), p.because), recordLocked(p)
		views = append(views, overall.Provider{
			Provider: health.Provider{
				Name: p.name(), State: known.State, Score: known.Score, Trend: known.Trend,
				Eligible: stands.Eligible, Mock: p.mock() && !p.ofTest(), Reason: stands.Words,
			},
			Service: p.service.name, Groups: known.Groups,
			Hidden: p.gateNow()&(refusal.Hidden|refusal.NoTraffic) != 0,
		})
	}
	return views
}

package registry

import (
	"fmt"
	"slices"
	"strings"

	"github.com/capreg/registry/health"
	"github.com/capreg/registry/internal/oneline"
)

// Health returns the health of the registry with its details; with groups, that
// of the providers in any of them alone ([health.Policy.Groups]). It probes
// nothing and changes nothing.
//
// A provider counts as unhealthy when its health is, or is not known yet, and as
// degraded when it is degraded or cannot be given a call for another reason, such
// as an open breaker. A service is unhealthy when every provider is, and degraded
// when any is not healthy. The registry is unhealthy when a required service is
// ([Options.Required]; without groups and for [health.Readiness]), or every
// service is; it is degraded when any is not healthy. A registry without
// providers is unhealthy. A group without providers is healthy, unless it is
// Readiness. So a misspelt group is always healthy; use the constants of package
// health, or your own.
func (r *Registry) Health(groups ...string) health.Overall {
	ready := len(groups) == 0 || slices.Contains(groups, health.Readiness)
	infos, hidden := r.infosAndHidden()
	var services []health.Service
	for _, info := range infos {
		if len(groups) > 0 && !slices.ContainsFunc(info.Health.Groups, func(of string) bool { return slices.Contains(groups, of) }) {
			continue
		}
		if n := len(services); n == 0 || services[n-1].Name != info.Service {
			services = append(services, health.Service{Name: info.Service})
		}
		last := &services[len(services)-1]
		last.Providers = append(last.Providers, health.Provider{
			Name: info.Name, State: info.Health.State, Score: info.Health.Score, Trend: info.Health.Trend,
			Eligible: info.Eligible, Reason: info.Reason,
		})
		if info.Eligible {
			last.Eligible++
		}
	}
	if ready {
		services = r.required(services)
	}
	return summarise(services, ready, hidden)
}

// infosAndHidden returns the view of every provider at one moment, in the one order, and the names of those that are
// hidden by an override or because only mocks are picked: they do not count for the health of their service.
func (r *Registry) infosAndHidden() (infos []Info, hidden map[string]bool) {
	breakers := r.breakers()
	r.mu.Lock()
	defer r.mu.Unlock()
	hidden = make(map[string]bool)
	for name, p := range r.providers {
		if p.gateNow()&gateHidden != 0 {
			hidden[name] = true
		}
	}
	return r.infosLocked(breakers), hidden
}

// required marks the services that are required, and adds those that have no
// provider.
func (r *Registry) required(services []health.Service) []health.Service {
	for _, name := range r.options.Required {
		at, found := slices.BinarySearchFunc(services, name, func(s health.Service, name string) int { return strings.Compare(s.Name, name) })
		if !found {
			services = slices.Insert(services, at, health.Service{Name: name, Providers: []health.Provider{}})
		}
		services[at].Required = true
	}
	return services
}

// summarise fills in the state of each service and returns that of all.
func summarise(services []health.Service, ready bool, hidden map[string]bool) health.Overall {
	o := health.Overall{State: health.Healthy, Services: services}
	var reasons []string
	missing := false
	for i := range services {
		s := &services[i]
		s.State, s.Reason = stateOfService(s.Providers, hidden)
		switch s.State {
		case health.Unhealthy:
			o.Unhealthy++
			missing = missing || s.Required
		case health.Degraded:
			o.Degraded++
		default:
			o.Healthy++
		}
		if s.State != health.Healthy {
			reasons = append(reasons, fmt.Sprintf("service %q is %v: %s", oneline.Cut(s.Name, 64), s.State, s.Reason))
		}
	}
	switch {
	case missing, o.Unhealthy == len(services) && len(services) > 0:
		o.State = health.Unhealthy
	case len(services) == 0 && ready:
		o.State, reasons = health.Unhealthy, []string{"nothing is registered"}
	case len(reasons) > 0:
		o.State = health.Degraded
	}
	if len(reasons) > mostNamed {
		reasons = append(reasons[:mostNamed], fmt.Sprintf("and %d more", len(reasons)-mostNamed))
	}
	o.Reason = strings.Join(reasons, "; ")
	return o
}

// stateOfService returns the state of a service with the given providers, of which hidden ones do not count.
func stateOfService(providers []health.Provider, hidden map[string]bool) (state health.State, reason string) {
	var unhealthy, degraded []string
	counted := 0
	for _, p := range providers {
		if hidden[p.Name] {
			continue
		}
		counted++
		switch {
		case p.State != health.Healthy && p.State != health.Degraded:
			unhealthy = append(unhealthy, p.Name)
		case p.State == health.Degraded || !p.Eligible:
			degraded = append(degraded, p.Name)
		}
	}
	switch {
	case counted == 0:
		return health.Unhealthy, "no provider"
	case len(unhealthy) == counted:
		return health.Unhealthy, "no provider is healthy: " + oneline.Cut(strings.Join(unhealthy, ", "), 200)
	case len(unhealthy)+len(degraded) > 0:
		return health.Degraded, oneline.Cut(strings.Join(append(unhealthy, degraded...), ", "), 200)
	}
	return health.Healthy, ""
}

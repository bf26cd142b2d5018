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
// Readiness: nobody says otherwise. So a misspelt group is always healthy; use the
// constants of package health, or your own.
func (r *Registry) Health(groups ...string) health.Overall {
	ready := len(groups) == 0 || slices.Contains(groups, health.Readiness)
	var services []health.Service
	for _, info := range r.infos() {
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
	return summarise(services, ready)
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

func summarise(services []health.Service, ready bool) health.Overall {
	o := health.Overall{State: health.Healthy, Services: services}
	var unwell []string
	missing := false
	for i := range services {
		s := &services[i]
		s.State, s.Reason = stateOf(s.Providers)
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
			unwell = append(unwell, fmt.Sprintf("service %q is %v: %s", oneline.Cut(s.Name, 64), s.State, s.Reason))
		}
	}
	switch {
	case missing, o.Unhealthy == len(services) && len(services) > 0:
		o.State = health.Unhealthy
	case len(services) == 0 && ready:
		o.State, unwell = health.Unhealthy, []string{"nothing is registered"}
	case len(unwell) > 0:
		o.State = health.Degraded
	}
	if len(unwell) > mostNamed {
		unwell = append(unwell[:mostNamed], fmt.Sprintf("and %d more", len(unwell)-mostNamed))
	}
	o.Reason = strings.Join(unwell, "; ")
	return o
}

// stateOf is the state of a service with the given providers.
func stateOf(providers []health.Provider) (state health.State, reason string) {
	var down, limping []string
	asked := 0
	for _, p := range providers {
		if strings.HasPrefix(p.Reason, notAMock) || strings.HasPrefix(p.Reason, overriddenBy) {
			continue
		}
		asked++
		switch {
		case p.State != health.Healthy && p.State != health.Degraded:
			down = append(down, p.Name)
		case p.State == health.Degraded || !p.Eligible:
			limping = append(limping, p.Name)
		}
	}
	switch {
	case asked == 0:
		return health.Unhealthy, "no provider"
	case len(down) == asked:
		return health.Unhealthy, "no provider is healthy: " + oneline.Cut(strings.Join(down, ", "), 200)
	case len(down)+len(limping) > 0:
		return health.Degraded, oneline.Cut(strings.Join(append(down, limping...), ", "), 200)
	}
	return health.Healthy, ""
}

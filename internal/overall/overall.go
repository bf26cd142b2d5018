// Package overall derives the health of services, and of a registry, from the health of its providers.
//
// It is one function of plain values, [Of]: it probes nothing, keeps nothing and locks nothing.
package overall

import (
	"fmt"
	"slices"
	"strings"

	"github.com/capreg/registry/health"
	"github.com/capreg/registry/internal/oneline"
	"github.com/capreg/registry/status"
)

const (
	maxReasons     = 16  // services that a reason names
	maxNameText    = 64  // of a service in a reason
	maxServiceText = 200 // of the names of providers in the reason of a service
)

// Provider is the health of one provider at some moment.
type Provider struct {
	health.Provider

	Service string
	Groups  []string // of its health policy
	Hidden  bool     // a test or a weight of 0 keeps calls away: it is listed and does not count
}

// Of returns the health of the providers, which are ordered by service, and of the required services; with groups,
// that of the providers in any of them. Without groups, and for [health.Readiness], a missing service counts.
//
//	a provider is   unhealthy  if its state is, or is not known yet
//	                degraded   if its state is, or it is not eligible
//	a service is    unhealthy  if all its providers are, or none counts
//	                degraded   if any of them is not healthy, or all are mocks
//	all is          unhealthy  if a required service is, or every service is, or nothing is registered
//	                degraded   if any service is not healthy
func Of(providers []Provider, required, groups []string) health.Overall {
	ready := len(groups) == 0 || slices.Contains(groups, health.Readiness)
	services := servicesOf(providers, groups)
	if ready {
		services = addRequired(services, required)
	}
	if ready && len(services) == 0 {
		return health.Overall{State: health.Unhealthy, Reason: "nothing is registered", Services: services}
	}
	return summarise(services, hiddenOf(providers))
}

// servicesOf returns the services of the providers in any of the groups. Their states remain to be filled in.
func servicesOf(providers []Provider, groups []string) (services []health.Service) {
	for _, p := range providers {
		if len(groups) > 0 && !slices.ContainsFunc(p.Groups, func(of string) bool { return slices.Contains(groups, of) }) {
			continue
		}
		if n := len(services); n == 0 || services[n-1].Name != p.Service {
			services = append(services, health.Service{Name: p.Service})
		}
		last := &services[len(services)-1]
		last.Providers = append(last.Providers, p.Provider)
		if p.Eligible {
			last.Eligible++
		}
	}
	return services
}

// addRequired marks the services that are required, and adds those that have no provider.
func addRequired(services []health.Service, required []string) []health.Service {
	for _, name := range required {
		at, found := slices.BinarySearchFunc(services, name, func(s health.Service, name string) int { return strings.Compare(s.Name, name) })
		if !found {
			services = slices.Insert(services, at, health.Service{Name: name, Providers: []health.Provider{}})
		}
		services[at].Required = true
	}
	return services
}

func hiddenOf(providers []Provider) map[status.ProviderID]bool {
	hidden := make(map[status.ProviderID]bool)
	for _, p := range providers {
		if p.Hidden {
			hidden[status.ProviderID{Service: p.Service, Name: p.Name}] = true
		}
	}
	return hidden
}

// summarise fills in the state of each service, and returns that of all.
func summarise(services []health.Service, hidden map[status.ProviderID]bool) health.Overall {
	all := health.Overall{State: health.Healthy, Services: services}
	var reasons []string
	missing := false // a required service
	for i := range services {
		s := &services[i]
		s.State, s.Reason = stateOf(s, hidden)
		switch s.State {
		case health.Unhealthy:
			all.Unhealthy++
			missing = missing || s.Required
		case health.Degraded:
			all.Degraded++
		default:
			all.Healthy++
			continue
		}
		reasons = append(reasons, fmt.Sprintf("service %q is %v: %s", oneline.Cut(s.Name, maxNameText), s.State, s.Reason))
	}
	switch {
	case missing, len(services) > 0 && all.Unhealthy == len(services):
		all.State = health.Unhealthy
	case len(reasons) > 0:
		all.State = health.Degraded
	}
	all.Reason = strings.Join(oneline.First(reasons, maxReasons, "and "), "; ")
	return all
}

// stateOf returns the state of a service, by that of its providers, and the reason unless it is healthy.
func stateOf(s *health.Service, hidden map[status.ProviderID]bool) (state health.State, reason string) {
	var unhealthy, degraded, mocks []string
	counted := 0
	for _, p := range s.Providers {
		if hidden[status.ProviderID{Service: s.Name, Name: p.Name}] {
			continue
		}
		counted++
		if p.Mock {
			mocks = append(mocks, p.Name)
		}
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
		return health.Unhealthy, "no provider is healthy: " + oneline.Cut(strings.Join(unhealthy, ", "), maxServiceText)
	case len(unhealthy)+len(degraded) > 0:
		return health.Degraded, oneline.Cut(strings.Join(append(unhealthy, degraded...), ", "), maxServiceText)
	case len(mocks) == counted:
		return health.Degraded, "only mocks: " + oneline.Cut(strings.Join(mocks, ", "), maxServiceText)
	}
	return health.Healthy, ""
}

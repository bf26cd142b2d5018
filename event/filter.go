package event

import "slices"

// Kinds returns every kind of event, in the order of the constants. The list is the caller's.
func Kinds() []Kind {
	return []Kind{
		Registered, Refused, Draining, Drained, Changed, BreakerOpened, BreakerHalfOpened, BreakerClosed, Starting,
		Healthy, Degraded, Unhealthy, Trend, CapabilityOut, CapabilityBack, ProbeStuck, MonitorLate, Recovered,
		RecoveryFailed, Cooling, Parked, CooldownEnded, NotReady, Ready, SelectorFailed, LeaseExpired, Closing,
		Closed,
	}
}

// Filter selects events. An event passes when each field that is not empty has its value. The zero value lets all pass.
// Events of the whole registry, such as Closed, have neither a service nor a provider, and those of a whole
// service, such as SelectorFailed, have no provider.
type Filter struct {
	// Kinds are the kinds of event that pass; each must be one of [Kinds]. Default: all.
	Kinds []Kind `json:"kinds,omitempty"`
	// Services are the services whose events pass. Default: all, and events of none.
	Services []string `json:"services,omitempty"`
	// Providers are the names of the providers whose events pass. Default: all, and events of none.
	Providers []string `json:"providers,omitempty"`
}

// Accepts reports whether the event passes.
func (f Filter) Accepts(e Event) bool {
	return (len(f.Kinds) == 0 || slices.Contains(f.Kinds, e.Kind)) && f.AcceptsProvider(e.Service, e.Provider)
}

// AcceptsProvider reports whether events of the provider pass, if they are of the kinds.
func (f Filter) AcceptsProvider(service, provider string) bool {
	return (len(f.Services) == 0 || slices.Contains(f.Services, service)) &&
		(len(f.Providers) == 0 || slices.Contains(f.Providers, provider))
}

package registryprom

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/capreg/registry"
	"github.com/capreg/registry/event"
	"github.com/capreg/registry/health"
	"github.com/capreg/registry/metrics"
	"github.com/capreg/registry/reason"
	"github.com/capreg/registry/status"
	"github.com/capreg/registry/verdict"
)

// Other is the provider label of all providers beyond [Options.MaxProviders] together.
const Other = "other"

// DefaultMaxProviders is the bound of [Options.MaxProviders] unless another is given.
const DefaultMaxProviders = 1000

// Options configures a [Collector].
type Options struct {
	// MaxProviders bounds the providers that have series of their own, the first in the order of all listings; those
	// beyond it are added up as [Other]. A negative number adds up all of them. Default: 1,000.
	MaxProviders int
}

// Collector shows the measurements of a registry. It implements [prometheus.Collector], is safe for concurrent use,
// starts no goroutine and holds no state: a scrape reads the registry. Use [New] to create one.
type Collector struct {
	registry *registry.Registry
	most     int
}

// New returns a collector of the registry, to be registered once. A registry that is nil or closed shows no providers.
func New(r *registry.Registry, options Options) *Collector {
	most := options.MaxProviders
	if most == 0 {
		most = DefaultMaxProviders
	}
	return &Collector{registry: r, most: max(most, 0)}
}

// desc describes a metric of that name and with those labels.
func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("registry_"+name, help, labels, nil)
}

//nolint:gochecknoglobals // descriptions, immutable
var (
	callDuration = desc("call_duration_seconds", "Time of calls as their callers saw it, by the class of the outcome; empty for an answer.", "service", "error_type")
	callAttempts = desc("call_attempts", "Attempts of calls.", "service")
	callWaits    = desc("call_wait_duration_seconds", "Times that calls waited before an attempt: queued, for a cooldown or limit, before a retry.", "service")
	lookups      = desc("lookups_total", "Look-ups, by whether they gave out a provider.", "service", "result")
	lookupFails  = desc("lookup_failures_total", "Look-ups that gave out no provider, once for each reason among the candidates.", "service", "reason")
	lookupTime   = desc("lookup_duration_seconds", "Time of look-ups, of a sample of them.", "service")
	groupActive  = desc("priority_group_active", "Lowest group with a provider that could be given a call; none is shown if there is no such provider.", "service")
	served       = desc("service_eligible_providers", "Providers that could be given a call.", "service")

	attemptDuration = desc("attempt_duration_seconds", "Time of attempts until the answer began, by the class of the outcome; empty for an answer.", "service", "provider", "error_type")
	attemptActive   = desc("attempt_active", "Attempts in progress.", "service", "provider")
	selections      = desc("selections_total", "Attempts, by what they were made for.", "service", "provider", "reason")
	rejections      = desc("attempt_rejections_total", "Calls that were turned away by a provider that looked eligible.", "service", "provider", "reason")
	breakerStatus   = desc("circuit_breaker_status", "1 for the present state of the breaker.", "service", "provider", "state")
	breakerChanges  = desc("circuit_breaker_transitions_total", "Changes of the breaker to the state.", "service", "provider", "state")
	providerStatus  = desc("provider_status", "1 for the present health of the provider.", "service", "provider", "state")
	providerCode    = desc("provider_standing", "1 for the word that says how the provider stands to a call.", "service", "provider", "reason")
	backAt          = desc("provider_back_timestamp_seconds", "When the provider comes back by itself, if that is known.", "service", "provider")
	places          = desc("limit_places", "Attempts that the failure domain of the provider admits at a time.", "service", "provider")
	placesUsed      = desc("limit_places_used", "Places taken of these.", "service", "provider")
	queueRoom       = desc("queue_limit", "Calls that may wait for a place.", "service", "provider")
	queued          = desc("queue_calls", "Calls that wait for a place.", "service", "provider")
	budget          = desc("retry_budget_tokens", "Tokens left for further attempts.", "service", "provider")
	budgetSize      = desc("retry_budget_limit", "Tokens of a full budget.", "service", "provider")

	events    = desc("events_total", "Changes, by kind.", "kind")
	draining  = desc("draining_providers", "Providers that have left and have calls in flight.")
	described = []*prometheus.Desc{
		callDuration, callAttempts, callWaits, lookups, lookupFails, lookupTime, groupActive, served,
		attemptDuration, attemptActive, selections, rejections, breakerStatus, breakerChanges, providerStatus, providerCode, backAt,
		places, placesUsed, queueRoom, queued, budget, budgetSize, events, draining,
	}
	refusals = []reason.Code{reason.Denied, reason.Throttled, reason.BudgetSpent, reason.AtCapacity}
	breakers = []string{status.BreakerClosed.String(), status.BreakerOpen.String(), status.BreakerHalfOpen.String()}
	healths  = []health.State{health.Healthy, health.Degraded, health.Unhealthy, health.Unknown, health.Starting, health.Draining}
)

// Describe sends the descriptions of all metrics.
func (c *Collector) Describe(to chan<- *prometheus.Desc) {
	for _, d := range described {
		to <- d
	}
}

// Collect sends the present measurements. It does not block on calls.
func (c *Collector) Collect(to chan<- prometheus.Metric) {
	snapshot := c.registry.Metrics()
	s := newSeries()
	for _, kind := range event.Kinds() {
		s.count(events, float64(snapshot.Events[kind]), string(kind))
	}
	s.gauge(draining, float64(snapshot.Totals.Draining))
	for i := range snapshot.Services {
		s.service(&snapshot.Services[i])
	}
	lowest := make(map[string]int)
	for i := range snapshot.Providers {
		p := &snapshot.Providers[i]
		if group, known := lowest[p.Service]; p.Eligible && (!known || p.Group < group) {
			lowest[p.Service] = p.Group
		}
		name := p.Name
		if i >= c.most {
			name = Other
		}
		s.provider(p, name)
	}
	for service, group := range lowest {
		s.gauge(groupActive, float64(group), service)
	}
	s.send(to)
}

// errorType returns the label of a class: none for an answer, as is the custom.
func errorType(class verdict.Class) string {
	if class == verdict.ClassSuccess {
		return ""
	}
	return class.String()
}

func (s *series) service(m *metrics.Service) {
	s.durations(callDuration, metrics.Histogram{}, m.Name, "")
	for _, o := range m.Calls {
		s.durations(callDuration, o.Duration, m.Name, errorType(o.Class))
	}
	s.durations(callWaits, m.Waits, m.Name)
	s.durations(lookupTime, m.LookupTime, m.Name)
	s.amounts(callAttempts, m.Attempts, m.Name)
	s.count(lookups, float64(m.Hits), m.Name, "hit")
	s.count(lookups, float64(m.Misses), m.Name, "miss")
	for code, times := range m.MissesByReason {
		s.count(lookupFails, float64(times), m.Name, string(code))
	}
	s.gauge(served, 0, m.Name)
}

func (s *series) provider(p *metrics.Provider, name string) {
	by := []string{p.Service, name}
	with := func(label string) []string { return []string{p.Service, name, label} }
	s.durations(attemptDuration, metrics.Histogram{}, with("")...)
	for _, o := range p.Attempts {
		s.durations(attemptDuration, o.Duration, with(errorType(o.Class))...)
	}
	s.gauge(attemptActive, float64(p.InFlight), by...)
	for _, why := range reason.Whys() {
		s.count(selections, float64(p.Whys[why]), with(string(why))...)
	}
	for _, code := range refusals {
		s.count(rejections, float64(p.Refusals[code]), with(string(code))...)
	}
	for i, state := range breakers {
		s.gauge(breakerStatus, is(p.Breaker == state), with(state)...)
		s.count(breakerChanges, float64([]uint64{p.Closed, p.Opened, p.HalfOpened}[i]), with(state)...)
	}
	for _, state := range healths {
		s.gauge(providerStatus, is(p.Health == state), with(fmt.Sprint(state))...)
	}
	s.gauge(providerCode, 1, with(string(p.Code))...)
	if !p.BackAt.IsZero() && name != Other {
		s.gauge(backAt, float64(p.BackAt.UnixMilli())/1000, by...)
	}
	s.gauge(places, float64(p.Places), by...)
	s.gauge(placesUsed, float64(p.InUse.Places), by...)
	s.gauge(queueRoom, float64(p.Queue), by...)
	s.gauge(queued, float64(p.InUse.Queued), by...)
	s.gauge(budget, p.Budget.Left, by...)
	s.gauge(budgetSize, float64(p.BudgetSize), by...)
	s.gauge(served, is(p.Eligible), p.Service)
}

func is(yes bool) float64 {
	if yes {
		return 1
	}
	return 0
}

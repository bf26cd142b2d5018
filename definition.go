package registry

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/capreg/registry/health"
	"github.com/capreg/registry/selection"
	"github.com/capreg/registry/verdict"
)

// Definition is the serialisable description of a provider. Its fields have the
// meaning and the defaults of those of [Provider]; Service is the name of the service.
type Definition struct {
	Service      string             `json:"service"`
	Name         string             `json:"name"`
	Handler      string             `json:"handler,omitempty"`
	Capabilities []string           `json:"capabilities,omitempty"`
	Priority     Priority           `json:"priority"`
	Group        int                `json:"group"`
	Strategy     selection.Strategy `json:"strategy,omitzero"`
	Weight       float64            `json:"weight,omitempty"`
	NoTraffic    bool               `json:"no_traffic,omitempty"`
	Mock         bool               `json:"mock,omitempty"`
	LastResort   bool               `json:"last_resort,omitempty"`
	Window       int                `json:"window,omitempty"`
	Domain       string             `json:"domain,omitempty"`
	Version      string             `json:"version,omitempty"`
	Description  string             `json:"description,omitempty"`
	Endpoint     string             `json:"endpoint,omitempty"`
	Requires     []string           `json:"requires,omitempty"`
	Metadata     map[string]string  `json:"metadata,omitempty"`
	Tags         []string           `json:"tags,omitempty"`
	Region       string             `json:"region,omitempty"`
	Cost         float64            `json:"cost,omitempty"`
}

// share returns the weight in force: 0 for no traffic, 1 by default.
func (d Definition) share() float64 {
	if d.NoTraffic {
		return 0
	}
	return cmp.Or(d.Weight, 1)
}

func (d Definition) clone() Definition {
	d.Capabilities = slices.Clone(d.Capabilities)
	d.Requires = slices.Clone(d.Requires)
	d.Metadata = maps.Clone(d.Metadata)
	d.Tags = slices.Clone(d.Tags)
	return d
}

// Info is the view of a provider at one moment. It is a copy: changing it changes nothing in the registry.
type Info struct {
	Definition

	// Generation tells registrations of one name apart; it grows with every registration of the registry.
	Generation uint64 `json:"generation"`
	// Eligible reports whether a call could be given to the provider now. Otherwise
	// Reason states what keeps calls away.
	Eligible bool   `json:"eligible"`
	Reason   string `json:"reason,omitempty"`
	// Health is the result of its probes and of marks ([Registration.MarkUnhealthy]).
	Health health.Status `json:"health"`
	// Made reports whether the instance exists. It is false before the first need of a factory.
	Made bool `json:"made"`
	// AttemptTimeout is the longest time of one attempt.
	AttemptTimeout time.Duration `json:"attempt_timeout"`
	// Breaker is the state of the provider's breaker.
	Breaker BreakerStats `json:"breaker"`
	// CooldownUntil is the end of its cooldown; zero when it is not cooling down.
	CooldownUntil time.Time `json:"cooldown_until,omitzero"`

	// Attempts counts the attempts and leases on the provider. At rest it is
	// Successes + Failures + Ignored + Limited.
	Attempts uint64 `json:"attempts"`
	// Successes counts answers, including those that refuse the request.
	Successes uint64 `json:"successes"`
	// Failures counts the outcomes that were the provider's fault.
	Failures uint64 `json:"failures"`
	// Ignored counts the outcomes that say nothing about the provider, such as cancelled calls.
	Ignored uint64 `json:"ignored"`
	// Limited counts refusals for load, limits and credentials.
	Limited uint64 `json:"limited"`
	// InFlight counts the attempts and leases that have not ended.
	InFlight uint64 `json:"in_flight"`
	// MeanLatency is the mean duration of the successes; zero before the first.
	MeanLatency time.Duration `json:"mean_latency"`
	// LastError is the latest error of an attempt, those of cancelled ones apart; nil before the first. It is not
	// to be changed.
	LastError *verdict.LastError `json:"last_error,omitempty"`
}

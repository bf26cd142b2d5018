package registry

import (
	"maps"
	"slices"
	"time"

	"github.com/capreg/registry/health"
	"github.com/capreg/registry/metrics"
	"github.com/capreg/registry/reason"
	"github.com/capreg/registry/selection"
	"github.com/capreg/registry/status"
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
	Endpoints    map[string]string  `json:"endpoints,omitempty"`
	Requires     []string           `json:"requires,omitempty"`
	Metadata     map[string]string  `json:"metadata,omitempty"`
	Tags         []string           `json:"tags,omitempty"`
	Region       string             `json:"region,omitempty"`
	Cost         float64            `json:"cost,omitempty"`
	Team         string             `json:"team,omitempty"`

	Documentation    string        `json:"documentation,omitempty"`
	ExpectedResponse time.Duration `json:"expected_response_time,omitempty"`
}

func (d Definition) clone() Definition {
	d.Capabilities = slices.Clone(d.Capabilities)
	d.Requires = slices.Clone(d.Requires)
	d.Metadata, d.Endpoints = maps.Clone(d.Metadata), maps.Clone(d.Endpoints)
	d.Tags = slices.Clone(d.Tags)
	return d
}

// Info is the view of a provider at one moment. It is a copy: changing it changes nothing in the registry.
type Info struct {
	Definition

	// Generation tells registrations of one name apart; it grows with every registration of the registry.
	Generation uint64 `json:"generation"`
	// Eligible reports whether a call could be given to the provider now. Code says in one
	// word how it stands, and Reason states in one line all that keeps calls away.
	Eligible bool        `json:"eligible"`
	Code     reason.Code `json:"code"`
	Reason   string      `json:"reason,omitempty"`
	// Health is the result of its probes and of marks ([Registration.MarkUnhealthy]), by the policy in force.
	Health       health.Status `json:"health"`
	HealthPolicy health.Policy `json:"health_policy"`
	// Made reports whether the instance exists. It is false before the first need of a factory.
	Made bool `json:"made"`
	// AttemptTimeout is the longest time of one attempt, and TimeoutGiven reports that it is no default.
	AttemptTimeout time.Duration `json:"attempt_timeout"`
	TimeoutGiven   bool          `json:"timeout_given"`
	// Breaker is the state of the provider's breaker, with its policy and its trials in flight.
	Breaker BreakerStats `json:"breaker"`
	// Limits are those of the domain in force, and InUse what is taken of them.
	Limits LimitPolicy `json:"limits,omitzero"`
	InUse  status.Use  `json:"in_use,omitzero"`
	// Retry is the retry policy in force, and Budget what is left for further attempts.
	Retry  RetryPolicy   `json:"retry"`
	Budget status.Budget `json:"budget"`
	// Cooldown keeps the provider away for longest, of its own and its domain's; zero without any.
	Cooldown status.Cooldown `json:"cooldown,omitzero"`
	// Shared holds what the members of its domain have in common.
	Shared status.Domain `json:"shared"`

	// Attempts counts the attempts and leases on the provider. At rest it is Successes + Failures + Ignored + Limited.
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
	// LastMinute summarises the attempts of late; it is zero with [Options.NoDurations].
	LastMinute metrics.Minute `json:"last_minute,omitzero"`
	// LastError is the latest error of an attempt, those of cancelled ones apart; nil before the first. It is not
	// to be changed.
	LastError *verdict.LastError `json:"last_error,omitempty"`
}

// Package event names the changes of a registry.
package event

import (
	"time"

	"github.com/capreg/registry/internal/jsonform"
)

// Kind names a kind of change. Kinds are stable words, fit for logs and metrics.
type Kind string

// The kinds of event.
const (
	// Registered: a provider joined.
	Registered Kind = "registered"
	// Refused: a provider that was to join, or to replace another, has not proven itself, and
	// does not join; Reason says why, Err is the cause.
	Refused Kind = "refused"
	// Draining: a provider left; new picks stop, calls in flight go on.
	Draining Kind = "draining"
	// Drained: the last call of a provider that left has ended.
	Drained Kind = "drained"
	// Changed: a setting was changed; Reason names it, From and To are its values.
	Changed Kind = "changed"
	// BreakerOpened: calls to the provider are refused until Until; Err is its last error, a
	// verdict.LastError, unless it was forced open.
	BreakerOpened Kind = "breaker_opened"
	// BreakerHalfOpened: the provider gets trial calls.
	BreakerHalfOpened Kind = "breaker_half_opened"
	// BreakerClosed: the provider gets calls again.
	BreakerClosed Kind = "breaker_closed"
	// Starting: the provider's first probe failed; it may still become healthy.
	Starting Kind = "starting"
	// Healthy: the provider's health is good.
	Healthy Kind = "healthy"
	// Degraded: the provider answers, but not as expected.
	Degraded Kind = "degraded"
	// Unhealthy: the provider's health went bad; Err is the cause.
	Unhealthy Kind = "unhealthy"
	// Trend: the trend of the provider's probes changed from From to To.
	Trend Kind = "trend"
	// CapabilityOut: a capability of the provider does not work; Reason names it.
	CapabilityOut Kind = "capability_out"
	// CapabilityBack: the capability that Reason names works again.
	CapabilityBack Kind = "capability_back"
	// ProbeStuck: a probe of the provider ignores its context.
	ProbeStuck Kind = "probe_stuck"
	// MonitorLate: many unrelated probes are late together, so that this machine is the likely
	// cause; such results are not counted for a while.
	MonitorLate Kind = "monitor_late"
	// Recovered: the provider's recovery hook returned without an error.
	Recovered Kind = "recovered"
	// RecoveryFailed: the provider's recovery hook failed with Err.
	RecoveryFailed Kind = "recovery_failed"
	// Cooling: the provider asked to be left alone until Until.
	Cooling Kind = "cooling"
	// Parked: the provider refuses this client (credentials, quota, billing); it
	// is left alone until Until, or until it is reset.
	Parked Kind = "parked"
	// CooldownEnded: the provider may be called again.
	CooldownEnded Kind = "cooldown_ended"
	// NotReady: the provider's factory failed with Err; it is tried again after Until.
	NotReady Kind = "not_ready"
	// Ready: the provider's factory made its instance.
	Ready Kind = "ready"
	// SelectorFailed: a group's strategy gave an invalid answer, for which the group's order
	// was used, or was slow in two timed picks in a row; Reason names the fault. There is at
	// most one such event a minute for each group.
	SelectorFailed Kind = "selector_failed"
	// LeaseExpired: a lease was not reported in time and counts as a failure.
	LeaseExpired Kind = "lease_expired"
	// Closing: the registry refuses new picks; after it come only the drains of its providers
	// and Closed.
	Closing Kind = "closing"
	// Closed: the registry is closed.
	Closed Kind = "closed"
)

// Event is one change. Fields that do not apply to its kind are zero.
type Event struct {
	// Sequence numbers the events of one registry from 1, without a gap.
	Sequence uint64 `json:"sequence"`
	// Time is the moment of the change.
	Time time.Time `json:"time"`
	// Kind is the kind of change.
	Kind Kind `json:"kind"`
	// Service is the service of the provider.
	Service string `json:"service,omitempty"`
	// Provider is the provider's name.
	Provider string `json:"provider,omitempty"`
	// Generation tells registrations of one name apart.
	Generation uint64 `json:"generation,omitempty"`
	// From and To are the values before and after.
	From string `json:"from,omitempty"`
	To   string `json:"to,omitempty"`
	// Reason explains the change, in words.
	Reason string `json:"reason,omitempty"`
	// Until is the moment at which the new state ends by itself.
	Until time.Time `json:"until,omitzero"`
	// Err is the cause, if there is one.
	Err error `json:"error,omitempty"`
	// Lost counts the events that this subscriber missed just before this one.
	Lost uint64 `json:"lost,omitempty"`
}

// MarshalJSON returns the fields by their tags, with Err as its text.
func (e Event) MarshalJSON() ([]byte, error) { return jsonform.Marshal(e) }

// UnmarshalJSON reads what MarshalJSON writes. Its errors name field, value and bound, match registry.ErrInvalid and change nothing.
func (e *Event) UnmarshalJSON(text []byte) error { return jsonform.Unmarshal(text, e) }

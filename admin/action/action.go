// Package action names what can be asked of the control API of package admin: what an authoriser decides about, and
// what an audit tells.
//
// All types are plain data. The package has no state.
package action

import "time"

// Verb names a kind of action. Verbs are stable words, fit for logs, rules and metrics.
type Verb string

const (
	// Read looks at the registry and changes nothing. Events, explanations and pages are read as well.
	Read Verb = "read"
	// SetPriority changes priority, group or strategy.
	SetPriority Verb = "set_priority"
	// SetWeight changes the share among others.
	SetWeight Verb = "set_weight"
	// SetLimits changes the limits of a provider's failure domain.
	SetLimits Verb = "set_limits"
	// Drain gives a provider no new calls.
	Drain Verb = "drain"
	// Undrain gives it calls again.
	Undrain Verb = "undrain"
	// Reset closes breakers and ends cooldowns: of one provider, of a service, or of all.
	Reset Verb = "reset"
	// ForceOpen opens the breaker of a provider for a time.
	ForceOpen Verb = "force_open"
	// ClearCooldown ends the cooldowns of a provider and its failure domain, and leaves the breaker alone.
	ClearCooldown Verb = "clear_cooldown"
	// MarkUnhealthy takes a provider out of every pick.
	MarkUnhealthy Verb = "mark_unhealthy"
	// MarkHealthy ends that.
	MarkHealthy Verb = "mark_healthy"
	// CheckHealth probes a provider now.
	CheckHealth Verb = "check_health"
	// Restart restarts a component.
	Restart Verb = "restart"
	// Plan checks and plans a document of configuration. Nothing is changed, but files and environment variables of the
	// program are looked at where the document refers to them.
	Plan Verb = "plan"
	// Configure applies a document of configuration.
	Configure Verb = "configure"
)

// Verbs returns every verb, in the order of the constants. The list is the caller's.
func Verbs() []Verb {
	return []Verb{
		Read, SetPriority, SetWeight, SetLimits, Drain, Undrain, Reset, ForceOpen, ClearCooldown, MarkUnhealthy, MarkHealthy,
		CheckHealth, Restart, Plan, Configure,
	}
}

// Changes reports whether actions of the verb change something.
func (v Verb) Changes() bool { return v != Read && v != Plan }

// Action names something that is asked for, by a verb and its target. Fields that do not apply are empty.
type Action struct {
	Verb Verb `json:"verb"`
	// Service and Provider name the target. With neither, a Reset is one of all providers, and with Service alone of
	// those of the service.
	Service  string `json:"service,omitempty"`
	Provider string `json:"provider,omitempty"`
	// Component names the component of a Restart.
	Component string `json:"component,omitempty"`
}

// Outcome is the result of an action.
type Outcome string

const (
	// Done was carried out.
	Done Outcome = "done"
	// Refused was not allowed to the actor, or came without one.
	Refused Outcome = "refused"
	// Conflict was asked of a state that is no longer there.
	Conflict Outcome = "conflict"
	// Invalid had a wrong value or an unknown target.
	Invalid Outcome = "invalid"
	// Limited came too often.
	Limited Outcome = "limited"
	// Failed was begun and has failed.
	Failed Outcome = "failed"
)

// Record tells of one action that changes something, or was to.
type Record struct {
	// Sequence numbers the records from 1, without a gap.
	Sequence uint64    `json:"sequence"`
	Time     time.Time `json:"time"`
	Action
	Outcome Outcome `json:"outcome"`
	// Actor is the name that the authoriser has given; empty for a party without one.
	Actor string `json:"actor,omitempty"`
	// Remote is the network address that the request came from.
	Remote string `json:"remote,omitempty"`
	// Reason is the one that the actor gave, cut to one line.
	Reason string `json:"reason,omitempty"`
	// Detail states what was changed, or why nothing was.
	Detail string `json:"detail,omitempty"`
	// Suppressed counts refused requests just before this one that have no record of their own, as they came too often.
	Suppressed uint64 `json:"suppressed,omitempty"`
}

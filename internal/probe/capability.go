package probe

import (
	"maps"
	"slices"
	"time"

	"github.com/capreg/registry/event"
	"github.com/capreg/registry/health"
)

// The states of a capability with a probe of its own, by the results of that probe:
//
//	state     answer                     failure
//	--------  -------------------------  -------------------------
//	untested  works                      out
//	works     works                      out (Fall in a row)
//	out       works (Rise in a row;      out
//	          more after a flap)
//
// An untested capability counts as working.
type capabilityState uint8

const (
	capabilityUntested capabilityState = iota
	capabilityWorks
	capabilityOut
)

// capability holds the state that a [Machine] has for one capability.
type capability struct {
	name   string
	state  capabilityState
	streak streak
	damper damper
	reason string // of the last failure
	err    error
}

// Outage says that a capability does not work.
type Outage struct {
	// Capability is its name.
	Capability string
	// Reason is the text of Err in one line.
	Reason string
	// Err is the error of the last failed probe.
	Err error
}

func capabilitiesOf(policy health.Policy) []capability {
	if policy.Off || len(policy.Capabilities) == 0 {
		return nil
	}
	names := slices.Sorted(maps.Keys(policy.Capabilities))
	capabilities := make([]capability, len(names))
	for i, name := range names {
		capabilities[i].name = name
	}
	return capabilities
}

// inherit takes over what was known of the capability under an older policy.
func (c *capability) inherit(before []capability) {
	for _, old := range before {
		if old.name == c.name {
			*c = old
			c.streak.successes = 0
		}
	}
}

func (c *capability) next(now time.Duration, policy *health.Policy, failed bool) capabilityState {
	switch {
	case failed && (c.state == capabilityUntested || c.streak.failures >= policy.Fall):
		return capabilityOut
	case !failed && (c.state != capabilityOut || c.damper.lets(now, policy.Interval, c.streak.successes, policy.Rise)):
		return capabilityWorks
	}
	return c.state
}

// capability returns what is known of the named capability; nil when it has no probe.
func (m *Machine) capability(name string) *capability {
	for i := range m.capabilities {
		if m.capabilities[i].name == name {
			return &m.capabilities[i]
		}
	}
	return nil
}

func (m *Machine) countOut() (out int) {
	for _, c := range m.capabilities {
		if c.state == capabilityOut {
			out++
		}
	}
	return out
}

// ObserveCapability takes a result of the probe of a capability. It returns the change to publish when the capability
// went out or came back, else nil. Results of capabilities without a probe are ignored.
func (m *Machine) ObserveCapability(now time.Duration, name string, r Result) (change *event.Event) {
	c := m.capability(name)
	if c == nil || r.Outcome == Suspected {
		return nil
	}
	failed := r.Outcome.failed()
	c.streak.count(failed)
	if r.Out {
		c.streak.failures = max(c.streak.failures, m.policy.Fall)
	}
	if failed {
		c.reason, c.err = r.Text, r.Err
	}
	wasOut := c.state == capabilityOut
	c.state = c.next(now, m.policy, failed)
	isOut := c.state == capabilityOut
	switch {
	case isOut == wasOut:
		return nil
	case isOut:
		c.damper.fall(now, m.policy.Interval)
		change = &event.Event{Kind: event.CapabilityOut, Reason: name + ": " + r.Text, Err: r.Err}
	default:
		c.damper.comeBack(now)
		change = &event.Event{Kind: event.CapabilityBack, Reason: name}
	}
	m.facts.Out = m.countOut()
	m.followCapabilities()
	return change
}

// followCapabilities moves a provider that answers between healthy and degraded after a change of capabilities.
func (m *Machine) followCapabilities() {
	if !m.facts.Known {
		return
	}
	m.rescore()
	switch {
	case m.state != health.Healthy && m.state != health.Degraded:
		return
	case m.own:
		m.state = m.byScoreInARow()
	default: // no result of the provider itself would bring it back
		m.state = m.byScore()
	}
	m.reason = m.whyDegraded(Result{})
}

// Outage returns the first of the capabilities that is out, and why; nil when all work.
func (m *Machine) Outage(among []string) *Outage {
	if m.facts.Out == 0 {
		return nil
	}
	for _, c := range m.capabilities {
		if c.state == capabilityOut && slices.Contains(among, c.name) {
			return &Outage{Capability: c.name, Reason: c.reason, Err: c.err}
		}
	}
	return nil
}

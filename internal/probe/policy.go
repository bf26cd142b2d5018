package probe

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/capreg/registry/health"
	bounds "github.com/capreg/registry/internal/check"
)

const (
	shortestInterval = time.Millisecond
	longestInterval  = 10 * 365 * 24 * time.Hour
)

// Checked returns a copy of a policy with its defaults filled in, or the first field that is out of bounds. The
// capabilities are those of the provider, which may have probes.
func Checked(p health.Policy, capabilities []string) (health.Policy, *bounds.Violation) {
	if v := fillTimes(&p); v != nil {
		return p, v
	}
	p.FastInterval = cmp.Or(p.FastInterval, max(p.Interval/6, shortestInterval))
	p.IdleInterval = cmp.Or(p.IdleInterval, 2*p.Interval)
	p.Capabilities = maps.Clone(p.Capabilities)
	v := cmp.Or(
		bounds.Range[int]{Default: 3}.Fill("Fall", &p.Fall),
		bounds.Range[int]{Default: 2}.Fill("Rise", &p.Rise),
		bounds.Range[int]{Default: 5}.Fill("RecoverLimit", &p.RecoverLimit),
		checkCapabilities(p.Capabilities, capabilities),
		bounds.Words("Groups", &p.Groups),
	)
	if v == nil && len(p.Groups) == 0 {
		p.Groups = []string{health.Readiness}
	}
	return p, v
}

// fillTimes checks the times of a policy, and fills in the defaults that depend on no other field.
func fillTimes(p *health.Policy) *bounds.Violation {
	for _, field := range [...]struct {
		name   string
		value  *time.Duration
		preset time.Duration
		least  time.Duration
	}{
		{"Interval", &p.Interval, 30 * time.Second, shortestInterval},
		{"FastInterval", &p.FastInterval, 0, shortestInterval},
		{"IdleInterval", &p.IdleInterval, 0, shortestInterval},
		{"Timeout", &p.Timeout, 5 * time.Second, 0},
		{"StartTime", &p.StartTime, 0, 0},
		{"Expected", &p.Expected, 0, 0},
		{"RecoverTimeout", &p.RecoverTimeout, 30 * time.Second, 0},
	} {
		allowed := bounds.Range[time.Duration]{Default: field.preset, Min: field.least, Max: longestInterval}
		if v := allowed.Fill(field.name, field.value); v != nil {
			v.Bound = fmt.Sprintf("0 (default), or %v to %v", allowed.Min, allowed.Max)
			return v
		}
	}
	return nil
}

// checkCapabilities checks that the provider has the capabilities that have a probe.
func checkCapabilities(probes map[string]health.Probe, capabilities []string) *bounds.Violation {
	for capability, run := range probes {
		switch field := "Capabilities"; {
		case !slices.Contains(capabilities, capability):
			return bounds.Refuse(bounds.Key(field, capability), bounds.Raw("unknown"), "one of the provider's Capabilities")
		case run == nil:
			return bounds.Refuse(bounds.Key(field, capability), bounds.Raw("nil"), "a probe")
		}
	}
	return nil
}

// Settings returns what a policy decides as text, for events.
func Settings(p health.Policy) string {
	if p.Off {
		return "off"
	}
	return fmt.Sprintf("interval %v timeout %v fall %d rise %d", p.Interval, p.Timeout, p.Fall, p.Rise)
}

// Data returns the policy without its functions.
func Data(p health.Policy) health.Policy {
	p = p.Clone()
	p.Probe, p.Recover, p.Capabilities = nil, nil, nil
	return p
}

// Keep keeps the functions of the policy in force, as far as the capabilities are there, unless others are given.
func Keep(given *health.Policy, now health.Policy, capabilities []string) (kept bool) {
	if given.Probe != nil || given.Recover != nil || len(given.Capabilities) > 0 {
		return false
	}
	given.Probe, given.Recover, given.Capabilities = now.Probe, now.Recover, maps.Clone(now.Capabilities)
	maps.DeleteFunc(given.Capabilities, func(capability string, _ health.Probe) bool { return !slices.Contains(capabilities, capability) })
	return true
}

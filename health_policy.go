package registry

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/capreg/registry/health"
	"github.com/capreg/registry/internal/oneline"
)

const (
	defaultProbeConcurrency = 32
	defaultProbeInterval    = 30 * time.Second
	defaultProbeTimeout     = 5 * time.Second
	defaultFall             = 3
	defaultRise             = 2
	defaultRecoverLimit     = 5
	defaultRecoverTime      = 30 * time.Second
	shortestInterval        = time.Millisecond
	longestInterval         = maxRetryDelay
)

// withProbeDefaults returns a checked copy of the policy with its defaults filled in.
func withProbeDefaults(p health.Policy, capabilities []string) (health.Policy, error) {
	for _, field := range []struct {
		name     string
		value    *time.Duration
		shortest time.Duration
		usual    time.Duration
	}{
		{"Health.Interval", &p.Interval, shortestInterval, defaultProbeInterval},
		{"Health.FastInterval", &p.FastInterval, shortestInterval, 0},
		{"Health.IdleInterval", &p.IdleInterval, shortestInterval, 0},
		{"Health.Timeout", &p.Timeout, 0, defaultProbeTimeout},
		{"Health.StartTime", &p.StartTime, 0, 0},
		{"Health.Expected", &p.Expected, 0, 0},
		{"Health.RecoverTimeout", &p.RecoverTimeout, 0, defaultRecoverTime},
	} {
		if *field.value < field.shortest && *field.value != 0 || *field.value > longestInterval {
			return p, invalid(field.name, *field.value, fmt.Sprintf("0 (default), or %v to %v", field.shortest, longestInterval))
		}
		*field.value = cmp.Or(*field.value, field.usual)
	}
	p.FastInterval = cmp.Or(p.FastInterval, max(p.Interval/6, shortestInterval))
	p.IdleInterval = cmp.Or(p.IdleInterval, 2*p.Interval)
	for _, field := range []struct {
		name  string
		value *int
		usual int
	}{
		{"Health.Fall", &p.Fall, defaultFall}, {"Health.Rise", &p.Rise, defaultRise}, {"Health.RecoverLimit", &p.RecoverLimit, defaultRecoverLimit},
	} {
		if *field.value < 0 {
			return p, invalid(field.name, *field.value, fmt.Sprintf("0 (default %d) or more", field.usual))
		}
		*field.value = cmp.Or(*field.value, field.usual)
	}
	p.Capabilities = maps.Clone(p.Capabilities)
	for capability, check := range p.Capabilities {
		field := fmt.Sprintf("Health.Capabilities[%q]", oneline.Cut(capability, 64))
		if !slices.Contains(capabilities, capability) {
			return p, invalid(field, raw("unknown"), "one of the provider's Capabilities")
		}
		if check == nil {
			return p, invalid(field, raw("nil"), "a probe")
		}
	}
	var err error
	if p.Groups, err = checkWords("Health.Groups", p.Groups); err != nil {
		return p, err
	}
	if len(p.Groups) == 0 {
		p.Groups = []string{health.Readiness}
	}
	return p, nil
}

// healthSettings returns what a policy decides as text, for events.
func healthSettings(p health.Policy) string {
	if p.Off {
		return "off"
	}
	return fmt.Sprintf("interval %v timeout %v fall %d rise %d", p.Interval, p.Timeout, p.Fall, p.Rise)
}

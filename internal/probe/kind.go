package probe

import (
	"github.com/capreg/registry/event"
	"github.com/capreg/registry/health"
)

// KindOf returns the kind of event for a state that was reached; empty for states that have none.
func KindOf(state health.State) event.Kind {
	switch state {
	case health.Starting:
		return event.Starting
	case health.Healthy:
		return event.Healthy
	case health.Degraded:
		return event.Degraded
	case health.Unhealthy:
		return event.Unhealthy
	case health.Unknown, health.Draining:
	}
	return ""
}

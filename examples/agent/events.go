// This file shows which events of the registry are worth a line, and in which words.

package main

import (
	"fmt"
	"time"

	"github.com/capreg/registry/event"
)

// describe describes an event; "" for events that are not printed.
func describe(e event.Event) string {
	switch e.Kind {
	case event.BreakerOpened:
		return fmt.Sprintf("opened    %s: %s", e.Provider, e.Reason)
	case event.BreakerHalfOpened:
		return "on trial  " + e.Provider
	case event.BreakerClosed:
		return fmt.Sprintf("recovered %s: %s", e.Provider, e.Reason)
	case event.Cooling:
		return fmt.Sprintf("cooling   %s: %s, for %v", e.Provider, e.Reason, e.Until.Sub(e.Time).Round(100*time.Millisecond))
	case event.CooldownEnded:
		return fmt.Sprintf("cooled    %s may be asked again", e.Provider)
	case event.Parked:
		return fmt.Sprintf("parked    %s: %s", e.Provider, e.Reason)
	case event.Ready:
		return "ready     " + e.Provider
	case event.NotReady, event.Unhealthy, event.Healthy, event.LeaseExpired:
		return fmt.Sprintf("%-9s %s: %s", e.Kind, e.Provider, e.Reason)
	default:
		return ""
	}
}

package registry

import "github.com/capreg/registry/internal/refusal"

// gate has the reasons that keep calls away from a provider.
type gate = refusal.Gate

const (
	gateGone       = refusal.Gone
	gateNotReady   = refusal.NotReady
	gateUnproven   = refusal.Unproven
	gateUnhealthy  = refusal.Unhealthy
	gateOpen       = refusal.Open
	gateHalfOpen   = refusal.HalfOpen
	gateTrialsFull = refusal.TrialsFull
	gateCooling    = refusal.Cooling
	gateHidden     = refusal.Hidden
	gateNoTraffic  = refusal.NoTraffic
	gateProving    = refusal.Proving
	gateAway       = refusal.Away
	gateHelpless   = refusal.Helpless
	gateBlocked    = refusal.Blocked
)

package registry

// gate has the reasons that keep calls away from a provider, as bits. Zero is healthy, ready and with a
// closed breaker.
type gate uint32

const (
	gateGone       gate = 1 << iota // removed, or the registry is closing
	gateNotReady                    // its factory failed and waits for its next try
	gateUnproven                    // no probe of it has succeeded yet
	gateUnhealthy                   // its health is bad
	gateOpen                        // its breaker is open
	gateHalfOpen                    // its breaker is half-open: calls may be trials
	gateTrialsFull                  // ... and all trial slots are taken
	gateCooling                     // it asked to be left alone
	gateHidden                      // a test has replaced it, or only mocks are picked
	gateNoTraffic                   // its weight is 0
	gateProving                     // it has not joined yet, and is in no plan

	// gateAway has the reasons after which a provider comes back to a slow start.
	gateAway = gateUnproven | gateUnhealthy | gateOpen | gateHalfOpen
	// gateHelpless has the reasons that keep even a last resort away.
	gateHelpless = gateGone | gateNotReady | gateHidden | gateNoTraffic
	// gateBlocked has the reasons that keep every call away.
	gateBlocked = gateGone | gateNotReady | gateUnproven | gateUnhealthy | gateOpen | gateTrialsFull | gateCooling | gateHidden |
		gateNoTraffic
)

// breaker returns the state of the breaker as far as calls see it.
func (g gate) breaker() BreakerState {
	switch {
	case g&gateOpen != 0:
		return BreakerOpen
	case g&gateHalfOpen != 0:
		return BreakerHalfOpen
	default:
		return BreakerClosed
	}
}

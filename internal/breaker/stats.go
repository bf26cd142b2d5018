package breaker

import "time"

// Stats is the state of a breaker at one moment.
type Stats struct {
	State               State
	Since               time.Time
	Reason              string // why the state began; empty before the first transition
	Forced              bool   // opened by ForceOpen
	RetryIn             time.Duration
	ConsecutiveFailures int // while closed
	TrialSuccesses      int // while half-open
	TrialsInFlight      int // while half-open
	Totals
	Policy Policy
}

// Totals are the sums over the life of a breaker.
type Totals struct {
	Opened, HalfOpened, Closed uint64 // transitions into each state
	Resets, ForcedOpen         uint64
	TimeOpen                   time.Duration
	LastFailure                time.Time // zero: never
}

// Stats returns the state of the breaker. It changes nothing.
func (b *Breaker) Stats() Stats {
	b.mu.Lock()
	defer b.mu.Unlock()
	stats := Stats{
		State: b.period.state, Since: b.period.since, Reason: b.period.reason, Forced: b.period.forced,
		ConsecutiveFailures: b.failuresInARow(), TrialsInFlight: b.period.trials, Totals: b.totals, Policy: b.policy,
	}
	switch stats.State {
	case Open:
		stats.TimeOpen += time.Since(b.period.since)
		stats.RetryIn = max(time.Until(b.period.until), 0)
	case HalfOpen:
		stats.TrialSuccesses = b.machine.Successes()
	case Closed:
	}
	return stats
}

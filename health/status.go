package health

import "time"

// DegradedBelow is the score under which a provider is degraded.
const DegradedBelow = 0.8

// Status is what is known of one provider's health.
type Status struct {
	// State is how it is, Since when, and Reason says why in words.
	State  State     `json:"state"`
	Since  time.Time `json:"since"`
	Reason string    `json:"reason,omitempty"`
	// Err is the cause: of the last failure, or what the program said.
	Err error `json:"-"`
	// Because names the providers that this one depends on and that are the reason
	// as far as anybody knows.
	Because []string `json:"because,omitempty"`
	// Score is from 0, for dead, to 1, for as it should be. See [Score].
	Score float64 `json:"score"`
	// Trend is where it seems to go.
	Trend Trend `json:"trend"`

	// Probed says whether there is a probe; what follows is zero without one.
	Probed bool `json:"probed"`
	// CheckedAt is when the last probe ended, and Took how long it took.
	CheckedAt time.Time     `json:"checked_at,omitzero"`
	Took      time.Duration `json:"took,omitempty"`
	// NextCheck is when the next one is due.
	NextCheck time.Time `json:"next_check,omitzero"`
	// Failures is how many have failed in a row.
	Failures int `json:"failures,omitempty"`
	// StuckSince is when a probe began that has not returned although its time is
	// over; zero when there is none.
	StuckSince time.Time `json:"stuck_since,omitzero"`
	// Suspected says that the last failure was not counted: many unrelated probes
	// were late together, so that the reason is likely this machine.
	Suspected bool `json:"suspected,omitempty"`
	// Out are the capabilities that do not work, with the reason.
	Out map[string]string `json:"out,omitempty"`
	// Usage is what the probe told with [Use].
	Usage map[string]float64 `json:"usage,omitempty"`
	// Groups are what it counts for.
	Groups []string `json:"groups,omitempty"`
}

// Transition is one change of state.
type Transition struct {
	// Time is when it happened.
	Time time.Time `json:"time"`
	// From and To are the states before and after.
	From State `json:"from"`
	To   State `json:"to"`
	// Reason says why.
	Reason string `json:"reason,omitempty"`
	// Score is that after the change.
	Score float64 `json:"score"`
}

// Facts are what a score is made of.
type Facts struct {
	// Known says whether there was any result.
	Known bool
	// Failures is how many probes have failed in a row, of the Fall that make it
	// unhealthy.
	Failures, Fall int
	// Limps says that the last answer was made with [Limp].
	Limps bool
	// Took is the time of the last answer, Expected what is usual; zero: anything.
	Took, Expected time.Duration
	// Usage is the highest share of a resource that is in use.
	Usage float64
	// Out is how many capabilities of those Checked do not work.
	Out, Checked int
}

// Score returns the product of four factors, so that none can hide another, each
// from 0 to 1:
//
//   - connectivity: 1 when the last probe was answered, 1/2 when it was answered
//     with [Limp], 1 − failures/fall after failures, 0 before the first result;
//   - response time: 1 up to what is expected, then falling in a straight line to
//     0.8 at one and a half of it, and as 1.2 × expected / took from there;
//   - resources: 1 up to 0.8 of the most used one, then falling in a straight line
//     to 0.5 when all of it is in use;
//   - capabilities: the share of those checked that work.
func Score(f Facts) float64 {
	connectivity := 1.0
	switch {
	case !f.Known:
		connectivity = 0
	case f.Failures > 0:
		connectivity = max(0, 1-float64(f.Failures)/float64(max(f.Fall, 1)))
	case f.Limps:
		connectivity = 0.5
	}
	response := 1.0
	if f.Expected > 0 && f.Took > f.Expected {
		ratio := float64(f.Took) / float64(f.Expected)
		response = 1 - 0.4*(ratio-1)
		if ratio > 1.5 {
			response = 1.2 / ratio
		}
	}
	resources := 1.0
	if f.Usage > 0.8 {
		resources = 1 - 2.5*(min(f.Usage, 1)-0.8)
	}
	capabilities := 1.0
	if f.Checked > 0 {
		capabilities = 1 - float64(f.Out)/float64(f.Checked)
	}
	return connectivity * response * resources * capabilities
}

// Overall is the health of a registry, or of a group within it.
type Overall struct {
	// State is Healthy, Degraded or Unhealthy.
	State State `json:"state"`
	// Reason says why it is not healthy.
	Reason string `json:"reason,omitempty"`
	// Healthy, Degraded and Unhealthy count the services below.
	Healthy   int `json:"healthy"`
	Degraded  int `json:"degraded"`
	Unhealthy int `json:"unhealthy"`
	// Services are the details, by name; required ones that are missing are among
	// them.
	Services []Service `json:"services"`
}

// Service is the health of one service.
type Service struct {
	Name     string `json:"name"`
	State    State  `json:"state"`
	Reason   string `json:"reason,omitempty"`
	Required bool   `json:"required,omitempty"`
	// Eligible is how many of the providers could be given a call now.
	Eligible int `json:"eligible"`
	// Providers are in the order in which they would be asked.
	Providers []Provider `json:"providers"`
}

// Provider is the health of one provider within its service.
type Provider struct {
	Name     string  `json:"name"`
	State    State   `json:"state"`
	Score    float64 `json:"score"`
	Trend    Trend   `json:"trend"`
	Eligible bool    `json:"eligible"`
	Reason   string  `json:"reason,omitempty"`
}

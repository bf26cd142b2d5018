package health

import (
	"time"

	"github.com/capreg/registry/internal/jsonform"
)

// DegradedBelow is the score below which a provider is degraded.
const DegradedBelow = 0.8

// Status is a snapshot of one provider's health.
type Status struct {
	// State is the current state, Since the moment it began, and Reason its cause in words.
	State  State     `json:"state"`
	Since  time.Time `json:"since"`
	Reason string    `json:"reason,omitempty"`
	// Err is the cause: the error of the last failure, or the one the program gave.
	Err error `json:"error,omitempty"`
	// Because names the providers that this one depends on and that are the known cause, each with its service, such as
	// "storage/disk"; a capability that no provider has is told in words.
	Because []string `json:"because,omitempty"`
	// Score is from 0, for dead, to 1, for as it should be. See [Score].
	Score float64 `json:"score"`
	// Trend compares the latest probes with their history.
	Trend Trend `json:"trend"`

	// Probed reports whether there is a probe; the fields that follow are zero without one.
	Probed bool `json:"probed"`
	// CheckedAt is the end of the last probe, and Took its duration.
	CheckedAt time.Time     `json:"checked_at,omitzero"`
	Took      time.Duration `json:"took,omitempty"`
	// NextCheck is the time of the next probe.
	NextCheck time.Time `json:"next_check,omitzero"`
	// Failures is the number of probes that have failed in a row.
	Failures int `json:"failures,omitempty"`
	// StuckSince is the start of a probe that has not returned although its time is over; zero
	// without one.
	StuckSince time.Time `json:"stuck_since,omitzero"`
	// Suspected reports that the last failure was not counted: many unrelated probes were late
	// together, so that the likely cause is this machine.
	Suspected bool `json:"suspected,omitempty"`
	// Out are the capabilities that do not work, with the reason.
	Out map[string]string `json:"out,omitempty"`
	// Usage holds the shares that the probe reported with [Use].
	Usage map[string]float64 `json:"usage,omitempty"`
	// Groups are the groups that the provider counts for.
	Groups []string `json:"groups,omitempty"`
}

// MarshalJSON returns the fields by their tags, with durations as text such as "1m30s" and Err as its text.
func (s Status) MarshalJSON() ([]byte, error) { return jsonform.Marshal(s) }

// UnmarshalJSON reads what MarshalJSON writes. Its errors name field, value and bound, match registry.ErrInvalid and change nothing.
func (s *Status) UnmarshalJSON(text []byte) error { return jsonform.Unmarshal(text, s) }

// Transition is one change of state.
type Transition struct {
	// Time is the moment of the change.
	Time time.Time `json:"time"`
	// From and To are the states before and after.
	From State `json:"from"`
	To   State `json:"to"`
	// Reason is the cause.
	Reason string `json:"reason,omitempty"`
	// Score is the score after the change.
	Score float64 `json:"score"`
}

// Facts are the input of [Score].
type Facts struct {
	// Known reports whether there was any result.
	Known bool
	// Failures is the number of failures in a row, and Fall the number that makes the provider
	// unhealthy.
	Failures, Fall int
	// Limps reports that the last answer was made with [Limp].
	Limps bool
	// Took is the time of the last answer, Expected the usual one; zero for no expectation.
	Took, Expected time.Duration
	// Usage is the highest share of a resource that is in use.
	Usage float64
	// Out is the number of capabilities that do not work, of those Checked.
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

// Overall is the health of a registry, or of one group of its providers.
type Overall struct {
	// State is Healthy, Degraded or Unhealthy.
	State State `json:"state"`
	// Reason is the cause, unless it is healthy.
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
	// Eligible is the number of providers that could get a call now.
	Eligible int `json:"eligible"`
	// Providers are in the order in which they would be tried.
	Providers []Provider `json:"providers"`
}

// Provider is the health of one provider within its service.
type Provider struct {
	Name     string  `json:"name"`
	State    State   `json:"state"`
	Score    float64 `json:"score"`
	Trend    Trend   `json:"trend"`
	Eligible bool    `json:"eligible"`
	Mock     bool    `json:"mock,omitempty"` // it stands in for a real one
	Reason   string  `json:"reason,omitempty"`
}

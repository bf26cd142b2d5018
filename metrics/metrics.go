// Package metrics holds the measurements of a registry, as its method Metrics returns them for tools that collect
// them: nothing is pushed, and nothing is lost between two readers.
//
// Counts only grow for as long as what they belong to is there: a provider with its name and generation, a service
// with its name. The words are those of the packages reason, verdict, event and health. All types are plain data,
// copied when they are read: changing one changes nothing in a registry. The package has no state.
package metrics

import (
	"time"

	"github.com/capreg/registry/event"
	"github.com/capreg/registry/health"
	"github.com/capreg/registry/internal/jsonform"
	"github.com/capreg/registry/reason"
	"github.com/capreg/registry/status"
	"github.com/capreg/registry/verdict"
)

// Snapshot holds the measurements of a registry. Each service and provider is read at one moment of its own.
type Snapshot struct {
	// Totals are those of the registry.
	Totals status.Totals `json:"totals"`
	// Events counts the events by kind; kinds that have not occurred are left out.
	Events map[event.Kind]uint64 `json:"events,omitempty"`
	// Services are the services that the registry knows, by name.
	Services []Service `json:"services"`
	// Providers are the present providers, in the order of all listings.
	Providers []Provider `json:"providers"`
}

// Service holds the measurements of one service.
type Service struct {
	Name string `json:"name"`
	// Hits counts the look-ups that gave out a provider, Misses those that did not, and MissesByReason these by the
	// codes that blocked the candidates, a miss once for each code among them. A call counts when it has a provider,
	// one without options at its end.
	Hits           uint64                 `json:"hits"`
	Misses         uint64                 `json:"misses"`
	MissesByReason map[reason.Code]uint64 `json:"misses_by_reason,omitempty"`
	// LookupTime has the durations of some of Get's look-ups: one of 1,024 is done again, with a clock at its sides and
	// without effects. Its bounds are those of the others, divided by 4,096.
	LookupTime Histogram `json:"lookup_time"`
	// Calls has the calls that have ended, the leases of one together, by the class of the outcome: that of its last
	// attempt, or what ended it before. A call is an answer if any of its attempts was.
	Calls []Outcomes `json:"calls,omitempty"`
	// Attempts counts these calls by their attempts.
	Attempts Amounts `json:"attempts"`
	// Waits has the times for which attempts were kept waiting by their call: in a queue, for the end of a cooldown or
	// of a limit, before a retry. Those that did not wait are left out.
	Waits Histogram `json:"waits"`
}

// Provider holds the measurements of one provider, and how it stands.
type Provider struct {
	Service    string `json:"service"`
	Name       string `json:"name"`
	Handler    string `json:"handler,omitempty"`
	Group      int    `json:"group"`
	Generation uint64 `json:"generation"`

	// Eligible reports whether a call could be given to it now, and Code says how it stands.
	Eligible bool         `json:"eligible"`
	Code     reason.Code  `json:"code"`
	Health   health.State `json:"health"`
	// Breaker is the name of the state of its breaker; Opened, HalfOpened and Closed count the changes to each.
	Breaker    string `json:"breaker"`
	Opened     uint64 `json:"opened"`
	HalfOpened uint64 `json:"half_opened"`
	Closed     uint64 `json:"closed"`
	// BackAt is the moment at which it comes back by itself: its breaker half-opens, or its cooldown ends. Zero: nothing is known.
	BackAt time.Time `json:"back_at,omitzero"`

	// Attempts has the attempts and leases that have ended, by class, with the time until the answer began or, without
	// one, until their end.
	Attempts []Outcomes `json:"attempts,omitempty"`
	// InFlight counts those that have not ended.
	InFlight uint64 `json:"in_flight"`
	// Whys counts the attempts by what they were made for, and Refusals the calls that were turned away, although the
	// provider looked eligible, by the reason.
	Whys     map[reason.Why]uint64  `json:"whys"`
	Refusals map[reason.Code]uint64 `json:"refusals,omitempty"`
	// LastMinute summarises the attempts of late.
	LastMinute Minute `json:"last_minute"`

	// Places counts the attempts that its domain admits at a time, Queue the calls that may wait there, and InUse
	// what is taken of them; zero without limits.
	Places int        `json:"places,omitempty"`
	Queue  int        `json:"queue,omitempty"`
	InUse  status.Use `json:"in_use,omitzero"`
	// Rate is the number of attempts that its domain admits of each caller in a second; zero without a bound.
	Rate float64 `json:"rate,omitempty"`
	// Authorized reports whether an authoriser is asked before each attempt.
	Authorized bool `json:"authorized,omitempty"`
	// Retries bounds the attempts of one call after its first one there; zero without retries.
	Retries int `json:"retries,omitempty"`
	// Budget has the tokens that are left for further attempts; a full one has BudgetSize.
	Budget     status.Budget `json:"budget"`
	BudgetSize int           `json:"budget_size"`
}

// Outcomes has what ended with one class.
type Outcomes struct {
	Class    verdict.Class `json:"class"`
	Duration Histogram     `json:"duration"`
}

// Minute summarises the attempts that have ended in the last minute, in slices of ten seconds: one counts no longer
// when it is between 50 and 60 seconds old.
type Minute struct {
	// Rate is the number of attempts in a second, and Errors the share of them that was the provider's fault, from 0
	// to 1.
	Rate   float64 `json:"rate"`
	Errors float64 `json:"errors"`
	// P50 and P99 are the times within which half and 99 % of the answers began, exact to a part of a bucket of
	// [Histogram]; zero without an answer.
	P50 time.Duration `json:"p50"`
	P99 time.Duration `json:"p99"`
	// Slices has the attempts of each ten seconds, oldest first, for spark lines. Its bounds are exact to ten seconds.
	Slices [6]Slice `json:"slices,omitzero"`
}

// Slice counts the attempts that have ended within ten seconds.
type Slice struct {
	// Ended counts them all, and Failed those that were the provider's fault.
	Ended  uint32 `json:"ended"`
	Failed uint32 `json:"failed"`
}

// Histogram is a distribution of durations.
type Histogram struct {
	// Count counts them all, and Sum is their sum.
	Count uint64        `json:"count"`
	Sum   time.Duration `json:"sum"`
	// Buckets are those with something in them, in order. Their bounds never change: two for each doubling, of which
	// one is 5 ms, or half, double and so on of it, and the other a power of two of seconds.
	Buckets []Bucket `json:"buckets,omitempty"`
}

// Bucket counts the durations above one bound and not above the other one.
type Bucket struct {
	// Above and AtMost are in seconds. AtMost is 0 in the last bucket, which has no upper bound.
	Above  float64 `json:"above"`
	AtMost float64 `json:"at_most,omitempty"`
	Count  uint64  `json:"count"`
}

// Amounts is a distribution of small numbers.
type Amounts struct {
	// Count counts them all, and Sum is their sum.
	Count uint64 `json:"count"`
	Sum   uint64 `json:"sum"`
	// AtMost counts those that are not above each bound of [AmountBounds]; the others are above the last one.
	AtMost []uint64 `json:"at_most"`
}

// AmountBounds returns the bounds of [Amounts].
func AmountBounds() []uint64 { return []uint64{1, 2, 3, 5, 8} }

// Quantile returns the duration within which the share q of all lies, from 0 to 1, as if those of a bucket were spread
// evenly over it. The last bucket counts as its lower bound. It is zero for an empty histogram.
func (h Histogram) Quantile(q float64) time.Duration {
	wanted, below := min(max(q, 0), 1)*float64(h.Count), uint64(0)
	for i, b := range h.Buckets {
		if reached := below + b.Count; wanted <= float64(reached) || i == len(h.Buckets)-1 {
			part := min((wanted-float64(below))/float64(b.Count), 1)
			return time.Duration((b.Above + max(b.AtMost-b.Above, 0)*part) * float64(time.Second))
		}
		below += b.Count
	}
	return 0
}

// MarshalJSON returns the fields by their tags, with durations as texts.
func (m Minute) MarshalJSON() ([]byte, error) { return jsonform.Marshal(m) }

// UnmarshalJSON reads what MarshalJSON writes. Its errors name field, value and bound, match registry.ErrInvalid and change nothing.
func (m *Minute) UnmarshalJSON(text []byte) error { return jsonform.Unmarshal(text, m) }

// MarshalJSON returns the fields by their tags, with durations as texts.
func (h Histogram) MarshalJSON() ([]byte, error) { return jsonform.Marshal(h) }

// UnmarshalJSON reads what MarshalJSON writes. Its errors name field, value and bound, match registry.ErrInvalid and change nothing.
func (h *Histogram) UnmarshalJSON(text []byte) error { return jsonform.Unmarshal(text, h) }

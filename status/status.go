// Package status holds what a registry shows of the state that it keeps: what is in use of a provider's limits, the
// cooldown that keeps it away, what its failure domain shares, and the totals of the registry.
//
// All types are plain data, copied when they are read and marshalled under stable names: changing one changes nothing
// in a registry. The package has no state.
package status

import (
	"time"

	"github.com/capreg/registry/internal/jsonform"
	"github.com/capreg/registry/reason"
	"github.com/capreg/registry/verdict"
)

// ProviderID identifies a provider in a registry: its name is unique in its service.
type ProviderID struct {
	Service string `json:"service"`
	Name    string `json:"name"`
}

// String returns the service and the name, with a slash between them. It is for texts: both may contain one.
func (id ProviderID) String() string { return id.Service + "/" + id.Name }

// Use counts what is in use of the limits of a provider's failure domain, by all members together. All fields are
// zero without limits.
type Use struct {
	// Places counts the places taken. For a time it is more than the limits have, when these were lowered.
	Places int `json:"places,omitempty"`
	// Queued counts the calls that wait for a place. A call that waits for several providers counts at each of them.
	Queued int `json:"queued,omitempty"`
	// Callers counts the callers whose use of the rate is known, at most 65,536; the ones beyond it share one.
	Callers int `json:"callers,omitempty"`
}

// Budget is the state of the budget for further attempts on a provider, retries and failover alike.
type Budget struct {
	// Left is the number of tokens left, with their parts; a full budget has those of the retry policy.
	Left float64 `json:"left"`
	// Low reports whether half of the tokens or fewer are left, so that only the floor of the policy is allowed.
	Low bool `json:"low,omitempty"`
}

// Cooldown describes a cooldown in progress. The zero value is none.
type Cooldown struct {
	// Since is the moment at which it began, Until its end.
	Since time.Time `json:"since"`
	Until time.Time `json:"until"`
	// Class is the class of the outcome that it is for, and By the provider of that outcome.
	Class verdict.Class `json:"class"`
	By    ProviderID    `json:"by"`
	// Scope says what it keeps away: the provider alone, or all of its failure domain.
	Scope verdict.Scope `json:"scope"`
	// Parked reports that it is long because of something that an operator has to mend: a key, a quota, an account.
	Parked bool `json:"parked,omitempty"`
	// Asked reports that the server has asked for that time; otherwise it is a guess, which grows each time.
	Asked bool `json:"asked,omitempty"`
}

// Performance holds what the attempts on a provider have taught: strategies, limits of time and rotations go by it. The
// zero value knows nothing.
type Performance struct {
	// At is the moment of which Latency and Failing are; they fade from then on.
	At time.Time `json:"at,omitzero"`
	// Latency and Failing are those of selection.Candidate, of all kinds of query together. Both are zero where no strategy
	// measures the provider.
	Latency time.Duration `json:"latency,omitempty"`
	Failing float64       `json:"failing,omitempty"`
	// Longest is the longest answer of late, and Waited the longest attempt that has ended without an answer since the last
	// one: a call with less time than it wants divides its time by them.
	Longest time.Duration `json:"longest,omitempty"`
	Waited  time.Duration `json:"waited,omitempty"`
	// LastTurn reports that it was the last of its group to have a turn, for one of the queries that take turns.
	LastTurn bool `json:"last_turn,omitempty"`
}

// MarshalJSON returns the fields by their tags, with durations as text.
func (p Performance) MarshalJSON() ([]byte, error) { return jsonform.Marshal(p) }

// UnmarshalJSON reads what MarshalJSON writes; its errors match registry.ErrInvalid and change nothing.
func (p *Performance) UnmarshalJSON(text []byte) error { return jsonform.Unmarshal(text, p) }

// Domain describes what a provider shares with the others of its failure domain. One without a name is that of the
// provider alone.
type Domain struct {
	// Members counts the providers of the domain, this one included.
	Members int `json:"members"`
	// LimitsBy is the member that has set the limits, by its registration or later; empty without limits.
	LimitsBy ProviderID `json:"limits_by,omitzero"`
	// Cooldown is that of all members; zero without one.
	Cooldown Cooldown `json:"cooldown,omitzero"`
}

// Totals are those of a registry at one moment.
type Totals struct {
	// Services counts the services with providers, Providers all providers, and Eligible those that a call could be
	// given to now.
	Services  int `json:"services"`
	Providers int `json:"providers"`
	Eligible  int `json:"eligible"`
	// ByCode counts the providers by the first reason of each, as in Info.Code of package registry: their sum is
	// Providers. Codes without a provider are left out.
	ByCode map[reason.Code]int `json:"by_code,omitempty"`
	// Draining counts the providers that have left and still have calls in flight; they are not among Providers.
	Draining int `json:"draining"`
	// Lookups counts every Get, Acquire, Many and Call. At rest it is Hits, the look-ups that gave out a provider,
	// plus Misses, those that did not.
	Lookups uint64 `json:"lookups"`
	Hits    uint64 `json:"hits"`
	Misses  uint64 `json:"misses"`
}

// Applied is the outcome of Registration.Apply of package registry. Without differences nothing was changed.
type Applied struct {
	// Differences are the fields in which the provider was not as described, in the order of the fields of Definition, then
	// the policies.
	Differences []Difference `json:"differences"`
	// Replaced reports that the provider was replaced by a new one. Otherwise all changes were made in place.
	Replaced bool `json:"replaced"`
}

// Difference is a field of a provider that was not as described.
type Difference struct {
	// Field is the name of the field, as that of Provider in package registry.
	Field string `json:"field"`
	// From and To are the values as text, cut to 256 bytes.
	From string `json:"from"`
	To   string `json:"to"`
	// InPlace reports that the field can change while the provider stays.
	InPlace bool `json:"in_place"`
}

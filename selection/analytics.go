package selection

import "time"

// Analytics is what became of the look-ups and attempts of one service.
type Analytics struct {
	// Service is its name.
	Service string `json:"service"`
	// Lookups counts every look-up and call; at rest each was a hit, when a provider
	// was given, or a miss.
	Lookups uint64 `json:"lookups"`
	Hits    uint64 `json:"hits"`
	Misses  uint64 `json:"misses"`
	// MissesByReason counts the misses by the codes of what kept the candidates away,
	// a miss once for each code among them; and "context_ended", "unknown_service",
	// "nobody_in_sight" and "closed".
	MissesByReason map[string]uint64 `json:"misses_by_reason,omitempty"`
	// Attempts counts the attempts and leases of the present members, and Failovers
	// those of them that were made because another provider had failed.
	Attempts  uint64 `json:"attempts"`
	Failovers uint64 `json:"failovers"`
	// Providers are the present members, in the order of every listing.
	Providers []Share `json:"providers"`
	// Groups are the groups of the members with what their selectors did wrong.
	Groups []GroupFaults `json:"groups"`
}

// Share is one provider's part in the attempts of its service.
type Share struct {
	// Provider, Handler and Group say whose part it is, Weight what it is to be
	// weighed with.
	Provider string  `json:"provider"`
	Handler  string  `json:"handler,omitempty"`
	Group    int     `json:"group"`
	Weight   float64 `json:"weight"`
	// Attempts is how many it was given, Share which part of all, from 0 to 1.
	Attempts uint64  `json:"attempts"`
	Share    float64 `json:"share"`
	// TookOver is how many of them another provider had failed before.
	TookOver uint64 `json:"took_over"`
	// HeldClosed is how often its breaker would have opened and did not, for
	// [Policy.MaxEjected].
	HeldClosed uint64 `json:"held_closed,omitempty"`
}

// GroupFaults is what the selector of one group did wrong; the order of the group stood
// in for an answer that was none.
type GroupFaults struct {
	// Handler and Group name the group, Strategy is what it picks with.
	Handler  string   `json:"handler,omitempty"`
	Group    int      `json:"group"`
	Strategy Strategy `json:"strategy"`
	// Panics, Exits and OutOfRange count panics, calls of runtime.Goexit, and answers
	// that were no eligible candidate.
	Panics     uint64 `json:"panics,omitempty"`
	Exits      uint64 `json:"exits,omitempty"`
	OutOfRange uint64 `json:"out_of_range,omitempty"`
	// Slow counts picks that took a millisecond or longer. One pick in 32, at random,
	// is timed. A few may be pauses of the goroutine, as for a collection of garbage.
	Slow uint64 `json:"slow,omitempty"`
}

// Decision is one pick that was made.
type Decision struct {
	// Time is when.
	Time time.Time `json:"time"`
	// Service and Query are what was asked, the query in words.
	Service string `json:"service"`
	Query   string `json:"query,omitempty"`
	// Provider is who was picked, of which Group, by which Strategy.
	Provider string   `json:"provider"`
	Group    int      `json:"group"`
	Strategy Strategy `json:"strategy"`
	// Eligible and Candidates are how many of the group could be picked, and how many
	// it had.
	Eligible   int `json:"eligible"`
	Candidates int `json:"candidates"`
	// Asked is how many of the group the same call was given before.
	Asked int `json:"asked,omitempty"`
	// Detail is what the strategy thought of the one picked, right afterwards.
	Detail *Detail `json:"detail,omitempty"`
}

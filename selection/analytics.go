package selection

import (
	"time"

	"github.com/capreg/registry/reason"
)

// Analytics counts the look-ups and attempts of one service.
type Analytics struct {
	// Service is the name of the service.
	Service string `json:"service"`
	// Lookups counts every look-up and call; at rest each was a hit, which gave a provider, or
	// a miss.
	Lookups uint64 `json:"lookups"`
	Hits    uint64 `json:"hits"`
	Misses  uint64 `json:"misses"`
	// MissesByReason counts the misses by the codes of the reasons that blocked the candidates,
	// a miss once for each code among them; and those that saw no provider.
	MissesByReason map[reason.Code]uint64 `json:"misses_by_reason,omitempty"`
	// Attempts counts the attempts and leases of the present members, and Failovers those of
	// them that followed the failure of another provider.
	Attempts  uint64 `json:"attempts"`
	Failovers uint64 `json:"failovers"`
	// Providers are the present members, in the order of every listing.
	Providers []Share `json:"providers"`
	// Groups are the groups of the members with the faults of their selectors.
	Groups []GroupFaults `json:"groups"`
}

// Share is one provider's part in the attempts of its service.
type Share struct {
	// Provider, Handler and Group identify the provider; Weight is its configured weight.
	Provider string  `json:"provider"`
	Handler  string  `json:"handler,omitempty"`
	Group    int     `json:"group"`
	Weight   float64 `json:"weight"`
	// Attempts is the number of its attempts, Share their part of all, from 0 to 1.
	Attempts uint64  `json:"attempts"`
	Share    float64 `json:"share"`
	// TookOver is the number of its attempts that followed the failure of another provider.
	TookOver uint64 `json:"took_over"`
	// HeldClosed is the number of times its breaker would have opened and did not, because of
	// [Policy.MaxEjected].
	HeldClosed uint64 `json:"held_closed,omitempty"`
}

// GroupFaults counts the faults of the selector of one group; after an invalid answer the order
// of the group is used.
type GroupFaults struct {
	// Handler and Group name the group, Strategy its strategy.
	Handler  string   `json:"handler,omitempty"`
	Group    int      `json:"group"`
	Strategy Strategy `json:"strategy"`
	// Panics, Exits and OutOfRange count panics, calls of runtime.Goexit, and answers that were
	// no eligible candidate.
	Panics     uint64 `json:"panics,omitempty"`
	Exits      uint64 `json:"exits,omitempty"`
	OutOfRange uint64 `json:"out_of_range,omitempty"`
	// Slow counts picks that took a millisecond or longer. One pick in 32, at random, is timed.
	// A few may be pauses of the goroutine, such as for garbage collection.
	Slow uint64 `json:"slow,omitempty"`
}

// Decision records one pick.
type Decision struct {
	// Time is the moment of the pick.
	Time time.Time `json:"time"`
	// Service and Query are the query, Query in words.
	Service string `json:"service"`
	Query   string `json:"query,omitempty"`
	// Provider is the picked provider, Group its group and Strategy the one that picked it.
	Provider string   `json:"provider"`
	Group    int      `json:"group"`
	Strategy Strategy `json:"strategy"`
	// Eligible and Candidates are the numbers of eligible and of all candidates of the group.
	Eligible   int `json:"eligible"`
	Candidates int `json:"candidates"`
	// Asked is the number of candidates of the group that the same call had tried before.
	Asked int `json:"asked,omitempty"`
	// Detail is the strategy's rating of the picked candidate, right afterwards.
	Detail *Detail `json:"detail,omitempty"`
}

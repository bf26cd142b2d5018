package registry

import (
	"github.com/capreg/registry/internal/jsonform"
	"github.com/capreg/registry/internal/ranked"
	"github.com/capreg/registry/selection"
)

// Priority orders the providers of one group: those of better priority are asked first.
//
// The zero value is [PriorityNormal]. In text and JSON a Priority is its name (CRITICAL, HIGH, NORMAL, LOW,
// FALLBACK, read in any case); its rank (0, 1, 2, 3, 9) is read as well.
type Priority int8

// The priorities, best first, with their ranks.
const (
	PriorityCritical Priority = iota - 2 // rank 0
	PriorityHigh                         // rank 1
	PriorityNormal                       // rank 2, the default
	PriorityLow                          // rank 3
	PriorityFallback                     // rank 9
)

//nolint:gochecknoglobals // immutable
var priorities = ranked.Names{
	First: int(PriorityCritical), Names: []string{"CRITICAL", "HIGH", "NORMAL", "LOW", "FALLBACK"}, Ranks: []int{0, 1, 2, 3, 9},
}

// Rank returns the rank of the priority: 0, 1, 2, 3 or 9; lower is asked first. The rank of an invalid value is 255.
func (p Priority) Rank() int { return priorities.Rank(int(p)) }

// String returns the name of the priority, such as "CRITICAL".
func (p Priority) String() string { return priorities.String("priority", int(p)) }

// MarshalText returns the name of the priority. For an invalid value the error matches [ErrInvalid].
func (p Priority) MarshalText() ([]byte, error) {
	if !p.valid() {
		return nil, errBadPriority(p)
	}
	return []byte(p.String()), nil
}

// UnmarshalText accepts a name in any case, or a rank. For any other text the error
// matches [ErrInvalid], and p is not changed.
func (p *Priority) UnmarshalText(text []byte) error {
	value, ok := priorities.Read(string(text))
	if !ok {
		return invalid("Priority", string(text), "one of CRITICAL, HIGH, NORMAL, LOW, FALLBACK or 0, 1, 2, 3, 9")
	}
	*p = Priority(value) //nolint:gosec // one of five
	return nil
}

// UnmarshalJSON accepts a JSON string like [Priority.UnmarshalText], and the rank as a
// JSON number; null does not change p.
func (p *Priority) UnmarshalJSON(data []byte) error {
	return jsonform.UnmarshalText(data, p.UnmarshalText)
}

func (p Priority) valid() bool { return priorities.Valid(int(p)) }

// The strategies that every registry knows, beside those of package selectors and your own ([selection.New]).
// Do not assign to them.
//
//nolint:gochecknoglobals // a strategy holds a selector, so it cannot be a constant
var (
	// StrategyFallback picks the first eligible provider in the order of priority and
	// registration, the same one as long as it stays eligible.
	StrategyFallback = selection.Fallback()
	// StrategyRoundRobin rotates over the eligible providers. Priorities do not matter inside such a group.
	StrategyRoundRobin = selection.RoundRobin()
)

package registry

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"github.com/capreg/registry/selection"
)

// Priority orders the providers of one group: the better priority is asked first.
//
// The zero value is [PriorityNormal]. A Priority reads and writes text and JSON
// as its name (CRITICAL, HIGH, NORMAL, LOW, FALLBACK, in any case) and also
// reads its rank (0, 1, 2, 3, 9).
type Priority int8

// The priorities, best first, with their ranks.
const (
	PriorityCritical Priority = iota - 2 // rank 0
	PriorityHigh                         // rank 1
	PriorityNormal                       // rank 2, the default
	PriorityLow                          // rank 3
	PriorityFallback                     // rank 9
)

// Rank returns the number that stands for the priority: 0, 1, 2, 3 or 9; lower
// is asked first. A value that is no priority ranks last, at 255.
func (p Priority) Rank() int {
	switch p {
	case PriorityCritical, PriorityHigh, PriorityNormal, PriorityLow:
		return int(p - PriorityCritical)
	case PriorityFallback:
		return 9
	}
	return 255
}

// String returns the name of the priority, such as "CRITICAL".
func (p Priority) String() string {
	switch p {
	case PriorityCritical:
		return "CRITICAL"
	case PriorityHigh:
		return "HIGH"
	case PriorityNormal:
		return "NORMAL"
	case PriorityLow:
		return "LOW"
	case PriorityFallback:
		return "FALLBACK"
	}
	return fmt.Sprintf("priority(%d)", int8(p))
}

// MarshalText returns the name of the priority, or an error wrapping
// [ErrInvalid] for a value that is none.
func (p Priority) MarshalText() ([]byte, error) {
	if !p.valid() {
		return nil, invalid("Priority", p, "one of CRITICAL, HIGH, NORMAL, LOW, FALLBACK")
	}
	return []byte(p.String()), nil
}

// UnmarshalText accepts a name in any case, or a rank. Any other text is an
// error wrapping [ErrInvalid] and changes nothing.
func (p *Priority) UnmarshalText(text []byte) error {
	for candidate := PriorityCritical; candidate <= PriorityFallback; candidate++ {
		if strings.EqualFold(string(text), candidate.String()) || string(text) == strconv.Itoa(candidate.Rank()) {
			*p = candidate
			return nil
		}
	}
	return invalid("Priority", string(text), "one of CRITICAL, HIGH, NORMAL, LOW, FALLBACK or 0, 1, 2, 3, 9")
}

// UnmarshalJSON accepts what UnmarshalText does, as a JSON string, and the rank
// as a JSON number; null leaves the value as it is.
func (p *Priority) UnmarshalJSON(data []byte) error {
	text := string(data)
	if text == "null" {
		return nil
	}
	if strings.HasPrefix(text, `"`) {
		if err := json.Unmarshal(data, &text); err != nil {
			return invalid("Priority", string(data), "a JSON string or number")
		}
	}
	return p.UnmarshalText([]byte(text))
}

func (p Priority) valid() bool { return p >= PriorityCritical && p <= PriorityFallback }

// Strategy is how a group picks among its eligible providers: one of the two below,
// one of package selectors, or one of your own ([selection.New]).
//
// The zero value means "whatever the group has"; a new group then gets
// [StrategyFallback]. A Strategy reads and writes text and JSON as its name; names
// beyond these two are looked up in [Options.Strategies].
type Strategy = selection.Strategy

// The strategies that every registry knows. They must not be changed.
//
//nolint:gochecknoglobals // a strategy holds a selector, so it cannot be a constant
var (
	// StrategyFallback takes the first eligible provider in the order of
	// priority and registration, always the same while it stays eligible.
	StrategyFallback = selection.Fallback()
	// StrategyRoundRobin rotates over the eligible providers; priorities do not
	// matter inside such a group.
	StrategyRoundRobin = selection.RoundRobin()
)

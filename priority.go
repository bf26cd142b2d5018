package registry

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
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

// Strategy is how a group picks among its eligible providers.
//
// The zero value means "whatever the group has"; a new group then gets
// [StrategyFallback]. A Strategy reads and writes text and JSON as its name, in
// any case; the zero value is the empty text.
type Strategy uint8

// The strategies.
const (
	// StrategyFallback takes the first eligible provider in the order of
	// priority and registration, always the same while it stays eligible.
	StrategyFallback Strategy = iota + 1
	// StrategyRoundRobin rotates over the eligible providers; priorities do not
	// matter inside such a group.
	StrategyRoundRobin
)

// String returns the name of the strategy, such as "ROUND_ROBIN".
func (s Strategy) String() string {
	switch s {
	case 0:
		return ""
	case StrategyFallback:
		return "FALLBACK"
	case StrategyRoundRobin:
		return "ROUND_ROBIN"
	}
	return fmt.Sprintf("strategy(%d)", uint8(s))
}

// MarshalText returns the name of the strategy, or an error wrapping
// [ErrInvalid] for a value that is none.
func (s Strategy) MarshalText() ([]byte, error) {
	if !s.valid() {
		return nil, invalid("Strategy", s, "one of FALLBACK, ROUND_ROBIN")
	}
	return []byte(s.String()), nil
}

// UnmarshalText accepts a name in any case. Any other text is an error wrapping
// [ErrInvalid] and changes nothing.
func (s *Strategy) UnmarshalText(text []byte) error {
	for candidate := Strategy(0); candidate.valid(); candidate++ {
		if strings.EqualFold(string(text), candidate.String()) {
			*s = candidate
			return nil
		}
	}
	return invalid("Strategy", string(text), "one of FALLBACK, ROUND_ROBIN")
}

func (s Strategy) valid() bool { return s <= StrategyRoundRobin }

package pick

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/capreg/registry/internal/check"
	"github.com/capreg/registry/selection"
)

// Strategies are the strategies that configuration can name beside the built-in ones. They never change.
type Strategies map[string]selection.Strategy

// NewStrategies returns the strategies of a list by name, or what is wrong with the list.
func NewStrategies(all []selection.Strategy) (Strategies, *check.Violation) {
	byName := make(Strategies)
	for i, s := range all {
		field := check.Item("Strategies", i)
		if err := s.Check(); err != nil || s.IsZero() || s.Named() {
			return nil, check.Refuse(field, s.String(), "a strategy with a selector and a printable name")
		}
		if _, taken := byName[s.String()]; taken {
			return nil, check.Refuse(field, s.String(), "a name that no strategy before it has")
		}
		byName[s.String()] = s
	}
	return byName, nil
}

// Resolve returns the strategy that a mere name stands for. An unknown name and a strategy with a selector are
// returned as they are.
func (known Strategies) Resolve(s selection.Strategy) selection.Strategy {
	if found, ok := known[s.String()]; ok && s.Named() {
		return found
	}
	return s
}

// Check returns a violation for a name that Resolve did not know.
func (known Strategies) Check(s selection.Strategy) *check.Violation {
	if !s.Named() {
		return nil
	}
	names := append([]string{selection.Fallback().String(), selection.RoundRobin().String()}, slices.Sorted(maps.Keys(known))...)
	return check.Refuse("Strategy", s.String(), fmt.Sprintf("one of %s (see Options.Strategies)", strings.Join(names, ", ")))
}

package testkit

import (
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/selection"
)

// LastStrategy is one value of [NewLast].
var LastStrategy = NewLast()

// NewStrategy returns a strategy of the test's own.
func NewStrategy(name string, pick func(v selection.View) int) selection.Strategy {
	return selection.New(name, selection.Func(pick))
}

// NewLast returns a strategy that picks the last eligible candidate.
func NewLast() selection.Strategy {
	return NewStrategy("LAST", func(v selection.View) int {
		at := -1
		for i := v.Next(0); i >= 0; i = v.Next(i + 1) {
			at = i
		}
		return at
	})
}

// PanickingSelector is a selector that panics with [ErrDown].
type PanickingSelector struct{}

// Pick panics.
func (PanickingSelector) Pick(selection.View) int { panic(ErrDown) }

// StrategyNumber returns the built-in strategies for 1 and 2, [LastStrategy] for 3, none for 0, and a strategy
// that no registry accepts for any other number.
func StrategyNumber(n int) selection.Strategy {
	switch n {
	case 0:
		return selection.Strategy{}
	case 1:
		return registry.StrategyFallback
	case 2:
		return registry.StrategyRoundRobin
	case 3:
		return LastStrategy
	}
	return selection.New(strconv.Itoa(n), nil)
}

// GroupFaults returns the faults of the selector of the chat service's only group.
func GroupFaults(tb testing.TB, reg *registry.Registry) selection.GroupFaults {
	tb.Helper()
	a, ok := reg.Analytics("chat")
	require.True(tb, ok)
	require.Len(tb, a.Groups, 1)
	return a.Groups[0]
}

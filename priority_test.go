package registry_test

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
)

func TestPrioritiesAreOrderedByRankAndNormalIsTheZeroValue(t *testing.T) {
	t.Parallel()
	ranks := map[registry.Priority]int{
		registry.PriorityCritical: 0, registry.PriorityHigh: 1, registry.PriorityNormal: 2,
		registry.PriorityLow: 3, registry.PriorityFallback: 9,
	}
	for priority, rank := range ranks {
		require.Equal(t, rank, priority.Rank())
	}
	var zero registry.Priority
	require.Equal(t, registry.PriorityNormal, zero)
	require.Equal(t, 255, registry.Priority(77).Rank())
	require.Equal(t, "priority(77)", registry.Priority(77).String())
}

func TestPriorityIsReadFromNameOrRankAndWrittenAsName(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		`"CRITICAL"`: "CRITICAL", `"high"`: "HIGH", `"Normal"`: "NORMAL", `3`: "LOW", `"9"`: "FALLBACK", `0`: "CRITICAL",
		`"\u0048IGH"`: "HIGH", `null`: "NORMAL",
	} {
		var priority registry.Priority
		require.NoError(t, json.Unmarshal([]byte(text), &priority), text)
		require.Equal(t, want, priority.String(), text)
		written, err := json.Marshal(priority)
		require.NoError(t, err)
		require.Equal(t, `"`+want+`"`, string(written))
	}
}

func TestTextThatIsNoPriorityIsAnErrorAndChangesNothing(t *testing.T) {
	t.Parallel()
	for _, text := range []string{`"URGENT"`, `4`, `-1`, `""`, `1.5`, `true`, `{}`, `[1]`, `"\ud800x"`} {
		priority := registry.PriorityHigh
		require.ErrorIs(t, json.Unmarshal([]byte(text), &priority), registry.ErrInvalid, text)
		require.Equal(t, registry.PriorityHigh, priority)
	}
	_, err := registry.Priority(5).MarshalText()
	require.ErrorIs(t, err, registry.ErrInvalid)
	var priority registry.Priority
	require.ErrorIs(t, priority.UnmarshalJSON([]byte(`"open`)), registry.ErrInvalid)
}

func TestStrategyIsReadAndWrittenByName(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]registry.Strategy{
		`"FALLBACK"`: registry.StrategyFallback, `"round_robin"`: registry.StrategyRoundRobin, `""`: {},
	} {
		var strategy registry.Strategy
		require.NoError(t, json.Unmarshal([]byte(text), &strategy), text)
		require.Equal(t, want, strategy)
		written, err := strategy.MarshalText()
		require.NoError(t, err)
		require.Equal(t, want.String(), string(written))
	}
	strategy := registry.StrategyFallback
	require.Error(t, json.Unmarshal([]byte(`" RANDOM"`), &strategy))
	require.Equal(t, registry.StrategyFallback, strategy)
	require.NoError(t, json.Unmarshal([]byte(`"RANDOM"`), &strategy), "a name that somebody else may know")
	require.Equal(t, "RANDOM", strategy.String())
	_, err := strategyNumber(99).MarshalText()
	require.ErrorContains(t, err, "no selector")
}

package registry_test

import (
	"encoding/json"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/internal/testkit"
	"github.com/capreg/registry/selection"
)

func TestPriority_IsOrderedByRank(t *testing.T) {
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

func TestPriority_ReadsNameOrRankAndWritesName(t *testing.T) {
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

func TestPriority_BadTextChangesNothing(t *testing.T) {
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

func TestStrategy_ReadsAndWritesName(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]selection.Strategy{
		`"FALLBACK"`: registry.StrategyFallback, `"round_robin"`: registry.StrategyRoundRobin, `""`: {},
	} {
		var strategy selection.Strategy
		require.NoError(t, json.Unmarshal([]byte(text), &strategy), text)
		require.Equal(t, want, strategy)
		written, err := strategy.MarshalText()
		require.NoError(t, err)
		require.Equal(t, want.String(), string(written))
	}
	strategy := registry.StrategyFallback
	require.Error(t, json.Unmarshal([]byte(`" RANDOM"`), &strategy))
	require.Equal(t, registry.StrategyFallback, strategy)
	require.NoError(t, json.Unmarshal([]byte(`"RANDOM"`), &strategy), "a name that another registry may know")
	require.Equal(t, "RANDOM", strategy.String())
	_, err := testkit.StrategyNumber(99).MarshalText()
	require.ErrorContains(t, err, "no selector")
}

func FuzzPriority_RoundTrips(f *testing.F) {
	for _, text := range []string{"CRITICAL", "high", "9", "4", "-1", "", " normal", "1.0", "null", "FALLBACK\x00", "İ"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		p := registry.PriorityLow
		err := p.UnmarshalText([]byte(text))
		if err != nil {
			require.ErrorIs(t, err, registry.ErrInvalid)
			testkit.RequireOneLine(t, err)
			require.Equal(t, registry.PriorityLow, p, "nothing is changed")
		} else {
			written, err := p.MarshalText()
			require.NoError(t, err)
			require.True(t, strings.EqualFold(string(written), text) || strconv.Itoa(p.Rank()) == text, "%q is %s", text, written)
		}
		quoted, marshalErr := json.Marshal(text)
		require.NoError(t, marshalErr)
		var fromJSON registry.Priority
		if strings.ToValidUTF8(text, "") == text {
			require.Equal(t, err == nil, json.Unmarshal(quoted, &fromJSON) == nil, "JSON and text agree on %q", text)
		}
	})
}

func FuzzStrategy_RoundTrips(f *testing.F) {
	for _, text := range []string{"FALLBACK", "round_robin", "", " x", "x\n", "\xff", "least-loaded", strings.Repeat("n", 257)} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		s := registry.StrategyRoundRobin
		if err := s.UnmarshalText([]byte(text)); err != nil {
			require.Equal(t, registry.StrategyRoundRobin, s, "nothing is changed")
			require.NotContains(t, err.Error(), "\n")
			return
		}
		written, err := s.MarshalText()
		require.NoError(t, err)
		require.True(t, strings.EqualFold(string(written), text))
		var again selection.Strategy
		require.NoError(t, again.UnmarshalText(written))
		require.True(t, s.Same(again) || s.IsZero() && again.IsZero())
	})
}

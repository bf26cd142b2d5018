package bars_test

import (
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/capreg/registry/benchmarks/internal/bars"
	"github.com/capreg/registry/benchmarks/internal/contest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestBar_FailsAboveItsRatio(t *testing.T) {
	t.Parallel()
	b := bars.Bar{Name: "call", Ratio: 0.6}
	require.Equal(t, "call 60.0 100.0 0.600 0.600 ok", b.Line(bars.Figure{Ours: 60, Theirs: 100}))
	require.Equal(t, "call 61.0 100.0 0.610 0.600 short", b.Line(bars.Figure{Ours: 61, Theirs: 100}))
	none := bars.Bar{Name: "allocs", Ratio: 1}
	require.True(t, none.Met(bars.Figure{}))
	require.False(t, none.Met(bars.Figure{Ours: 1}))
}

func TestBars_NamesAreUnique(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for _, r := range bars.Races(1) {
		for _, b := range r.Bars {
			require.False(t, seen[b.Name], b.Name)
			seen[b.Name] = true
		}
	}
}

// Named from here, a peer costs what it costs where its contestants are written.
func TestBars_PeersBreakerDoesNotAllocate(t *testing.T) {
	loop, free, err := contest.Gobreaker().Make()
	require.NoError(t, err)
	require.Zero(t, testing.AllocsPerRun(100, func() { loop(1) }))
	require.NoError(t, free())
}

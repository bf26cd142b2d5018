package record_test

import (
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry/internal/record"
	"github.com/capreg/registry/internal/striped"
)

func TestSum_AddsCellsAndCountsInFlight(t *testing.T) {
	t.Parallel()
	var cells striped.Cells[record.Outcomes]
	require.Zero(t, record.Sum(&cells))
	cells.Local()
	two := slices.Collect(cells.Each)[:2]
	a, b := two[0], two[1]
	require.Zero(t, record.Sum(&cells))
	a.Attempts.Add(10)
	a.Successes.Add(1)
	a.Latency.Add(uint64(time.Minute))
	require.Equal(t, time.Minute, record.Sum(&cells).MeanLatency, "of one")
	a.Latency.Store(0)
	b.Attempts.Add(1)
	b.Successes.Add(2)
	b.Latency.Add(uint64(3 * time.Second))
	a.Failures.Add(1)
	a.Ignored.Add(2)
	b.Limited.Add(1)
	require.Equal(t, record.Totals{
		Attempts: 11, Successes: 3, Failures: 1, Ignored: 2, Limited: 1, InFlight: 4, MeanLatency: time.Second,
	}, record.Sum(&cells))
}

func TestSum_PassesOverCellsWithoutAnAttempt(t *testing.T) {
	t.Parallel()
	var cells striped.Cells[record.Outcomes]
	cells.Local()
	last := slices.Collect(cells.Each)[1]
	require.True(t, last.Untouched())
	last.Attempts.Add(2)
	last.Successes.Add(1)
	require.False(t, last.Untouched())
	require.Equal(t, record.Totals{Attempts: 2, Successes: 1, InFlight: 1}, record.Sum(&cells))
}

func TestSum_QuickCallsAreSuccesses(t *testing.T) {
	t.Parallel()
	var cells striped.Cells[record.Outcomes]
	cell := cells.Local()
	cell.Attempts.Add(4)
	cell.Successes.Add(1)
	cell.Latency.Add(uint64(3 * time.Second))
	for i := range 2 {
		cell.Quick[i].Add(1)
		cell.QuickLatency.Add(uint64(3 * time.Second))
	}
	require.Equal(t, record.Totals{Attempts: 4, Successes: 3, InFlight: 1, MeanLatency: 3 * time.Second}, record.Sum(&cells))
}

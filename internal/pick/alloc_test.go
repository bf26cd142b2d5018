//go:build !race

package pick_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry/internal/pick"
)

// The race detector allocates by itself, so this runs without it.
func TestPicks_AllocateNothing(t *testing.T) { //nolint:paralleltest // AllocsPerRun counts all goroutines
	plans := map[string]*pick.Plan{
		"in order": of(fallback(8)).plan(), "rotation": of(roundRobin(8)).plan(), "large rotation": of(roundRobin(1000)).plan(),
		"selector": of(chosen(8, last)).plan(), "large selector": of(chosen(100, last)).plan(),
	}
	spilling := of(roundRobin(8), fallback(8))
	spilling.config.Policy.SpillOver = 1.4
	plans["spill-over"] = spilling.plan()
	for name, p := range plans {
		require.Zero(t, testing.AllocsPerRun(100, func() { p.First(p.Healthy, true) }), "%s: First", name)
		require.Zero(t, testing.AllocsPerRun(100, func() {
			it := p.Iterate(p.Admitting)
			it.Next(&pick.Caller{Key: "key"})
			it.More()
		}), "%s: Next", name)
	}
	for _, name := range []string{"in order", "rotation", "large rotation", "selector", "spill-over"} {
		p := plans[name]
		require.Zero(t, testing.AllocsPerRun(100, func() {
			it := p.Iterate(p.Healthy)
			for it.Next(&pick.Caller{}) >= 0 {
				it.More()
			}
		}), "%s: all", name)
	}
}

//go:build !race

package graph_test

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// The race detector allocates by itself, so this runs without it.
func TestNeeds_AllocatesNothing(t *testing.T) { //nolint:paralleltest // AllocsPerRun counts all goroutines
	g := large(100, 3)
	g.Order()
	sum := 0
	require.Zero(t, testing.AllocsPerRun(100, func() {
		for node := range g.Len() {
			sum += len(g.Needs(node)) + len(g.Feeds(node))
		}
	}))
	require.Positive(t, sum)
}

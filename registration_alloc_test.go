//go:build !race

package registry_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry/internal/testkit"
)

// The race detector allocates by itself, so this runs without it.
func TestRegistration_JoinsAndLeavesWithFewAllocations(t *testing.T) { //nolint:paralleltest // AllocsPerRun counts all goroutines
	reg := populated(t, 10, 1, testkit.Provider{})
	provider := testkit.Provider{Name: "comes and goes", Instance: testkit.Says("hello")}
	require.LessOrEqual(t, testing.AllocsPerRun(1000, func() {
		registration, err := testkit.Chat.Register(context.Background(), reg, provider)
		if err == nil {
			err = registration.Unregister(context.Background())
		}
		if err != nil {
			panic(err)
		}
	}), 13.0)
	require.Zero(t, reg.Stats().Draining)
}

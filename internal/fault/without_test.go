package fault_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry/internal/fault"
)

func TestWithout_HidesOneErrorAlone(t *testing.T) {
	t.Parallel()
	err := fault.Without(errors.Join(fault.ErrStuck, fmt.Errorf("x: %w", fault.ErrClosed)), fault.ErrStuck)
	require.NotErrorIs(t, err, fault.ErrStuck)
	require.ErrorIs(t, err, fault.ErrClosed)
	require.Equal(t, "still running\nx: shutting down", err.Error())
	var joined interface{ Unwrap() []error }
	require.ErrorAs(t, err, &joined)
}

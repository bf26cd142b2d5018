package attemptctx_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry/internal/attemptctx"
)

// lateContext is one whose timer has yet to fire.
type lateContext struct{ context.Context }

func (lateContext) Deadline() (time.Time, bool) { return time.Now().Add(-time.Second), true }

func TestCaller_ErrIsThatOfItsContext(t *testing.T) {
	t.Parallel()
	open := attemptctx.CallerOf(t.Context())
	require.NoError(t, open.Err())
	require.False(t, open.HasDeadline)

	ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
	bounded := attemptctx.CallerOf(ctx)
	require.True(t, bounded.HasDeadline)
	require.NoError(t, bounded.Err())
	cancel()
	require.ErrorIs(t, bounded.Err(), context.Canceled)

	late := attemptctx.CallerOf(lateContext{t.Context()})
	require.Equal(t, context.DeadlineExceeded, late.Err())
}

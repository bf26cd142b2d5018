package lifecycle_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry/internal/fault"
	"github.com/capreg/registry/internal/lifecycle"
)

type named struct{ left chan struct{} }

func (named) Name() string            { return "a" }
func (n named) Left() <-chan struct{} { return n.left }
func (named) Why() string             { return "its probe fails" }

func TestAwait_EndsWhenEligibleGoneOrOutOfTime(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		eligibleAfter := func(looks int) func() (bool, <-chan struct{}) {
			return func() (bool, <-chan struct{}) {
				changed := make(chan struct{})
				time.AfterFunc(time.Second, func() { close(changed) })
				looks--
				return looks == 0, changed
			}
		}
		began := time.Now()
		require.NoError(t, lifecycle.Await(t.Context(), named{}, eligibleAfter(3)))
		require.Equal(t, 2*time.Second, time.Since(began))

		gone := named{make(chan struct{})}
		close(gone.left)
		never := func() (bool, <-chan struct{}) { return false, nil }
		err := lifecycle.Await(t.Context(), gone, never)
		require.ErrorIs(t, err, fault.ErrNotReady)
		require.EqualError(t, err, `provider "a": not ready: it has left`)

		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		err = lifecycle.Await(ctx, named{}, never)
		require.ErrorIs(t, err, fault.ErrNotReady)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.ErrorContains(t, err, `provider "a": not ready: its probe fails`)
		time.Sleep(time.Minute)
	})
}

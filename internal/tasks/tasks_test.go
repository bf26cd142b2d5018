package tasks_test

import (
	"context"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/capreg/registry/internal/fault"
	"github.com/capreg/registry/internal/tasks"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestGroup_WaitReturnsWhenTheLastOneHasEnded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var group tasks.Group
		ended := 0
		require.True(t, group.Start("sleeper", func() { time.Sleep(time.Second); ended++ }))
		require.True(t, group.Start("exits", func() { runtime.Goexit() }))
		limit := tasks.WithGrace(t.Context())
		defer limit.Stop()
		require.NoError(t, group.Wait(limit))
		require.Equal(t, 1, ended)
	})
}

func TestGroup_WaitNamesThoseThatDoNotEndWithinTheGrace(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var group tasks.Group
		release := make(chan struct{})
		require.True(t, group.Start("b", func() { <-release }))
		require.True(t, group.Start("a", func() { <-release }))
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		limit := tasks.WithGrace(ctx)
		defer limit.Stop()
		began := time.Now()
		err := group.Wait(limit)
		require.Equal(t, time.Second+tasks.Grace, time.Since(began))
		require.ErrorIs(t, err, fault.ErrStuck)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.EqualError(t, err, "a, b: still running; context deadline exceeded")

		began = time.Now()
		again := limit.Again()
		defer again.Stop()
		require.Error(t, group.Wait(again))
		require.Equal(t, tasks.Grace, time.Since(began))
		close(release)
		require.NoError(t, group.Wait(tasks.WithGrace(context.Background())))
	})
}

func TestGroup_StartsNothingAfterWaitButWhatMustBeLast(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var group tasks.Group
		limit := tasks.WithGrace(t.Context())
		defer limit.Stop()
		require.NoError(t, group.Wait(limit))
		require.False(t, group.Start("late", func() { t.Error("started") }))
		ran := false
		group.StartLast("last", func() { ran = true })
		require.NoError(t, group.Wait(limit))
		synctest.Wait()
		require.True(t, ran)
	})
}

func TestIsClosed_TellsAChannelThatIsClosed(t *testing.T) {
	t.Parallel()
	ended := make(chan struct{})
	require.False(t, tasks.IsClosed(ended))
	close(ended)
	require.True(t, tasks.IsClosed(ended))
	require.False(t, tasks.IsClosed(nil))
}

package tasks_test

import (
	"context"
	"errors"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry/internal/tasks"
	"github.com/capreg/registry/verdict"
)

func TestFan_RunsABoundedNumberAndTellsEachEnd(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var group tasks.Group
		fan := tasks.NewFan(&group, 2)
		var mu sync.Mutex
		var ends []error
		var running, most atomic.Int32
		failure := errors.New("failed")
		began := time.Now()
		for i := range 5 {
			fan.AwaitFree()
			fan.Go("work", func() error {
				most.Store(max(most.Load(), running.Add(1)))
				defer running.Add(-1)
				time.Sleep(time.Second)
				if i == 3 {
					runtime.Goexit()
				}
				return failure
			}, func(err error, panicked bool) bool {
				mu.Lock()
				defer mu.Unlock()
				ends = append(ends, err)
				return panicked // an exit does not go on elsewhere
			})
		}
		fan.Wait()
		require.Equal(t, 3*time.Second, time.Since(began))
		require.EqualValues(t, 2, most.Load())
		require.Len(t, ends, 5)
		var exited *verdict.PanicError
		require.ErrorAs(t, errors.Join(ends...), &exited)
		limit := tasks.WithGrace(context.Background())
		defer limit.Stop()
		require.NoError(t, group.Wait(limit))
	})
}

func TestFan_WaitPanicsWhenAllHaveEnded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var group tasks.Group
		fan := tasks.NewFan(&group, 0)
		ended := false
		fan.AwaitFree()
		fan.Go("panics", func() error { panic("boom") }, func(_ error, panicked bool) bool { return panicked })
		fan.AwaitFree()
		fan.Go("goes on", func() error { time.Sleep(time.Second); ended = true; return nil },
			func(_ error, panicked bool) bool { return panicked })
		require.PanicsWithValue(t, "boom", fan.Wait)
		require.True(t, ended)
	})
}

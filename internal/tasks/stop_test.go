package tasks_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry/internal/fault"
	"github.com/capreg/registry/internal/tasks"
)

func TestGroup_WaitsForTheLastOfEachWait(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var group tasks.Group
		limit := tasks.WithGrace(t.Context())
		defer limit.Stop()
		require.True(t, group.Start("first", func() { time.Sleep(time.Second) }))
		require.NoError(t, group.Wait(limit))
		began := time.Now()
		group.StartLast("second", func() { time.Sleep(time.Second) })
		require.NoError(t, group.Wait(limit))
		require.Equal(t, time.Second, time.Since(began))
		group.StartLast("third", func() {})
		synctest.Wait()
		require.NoError(t, group.Wait(limit))
	})
}

// The wait is over in the moment in which the goroutine ends: the one or the other may be first.
func TestGroup_WaitNamesNoneThatHasEnded(t *testing.T) {
	t.Parallel()
	for range 200 {
		var group tasks.Group
		over, waiting := make(chan struct{}), make(chan struct{})
		group.Start("a", func() { <-waiting; close(over) })
		time.AfterFunc(100*time.Microsecond, func() { close(waiting) })
		err := group.Wait(tasks.GraceWait{Context: t.Context(), Over: over})
		if err != nil {
			require.EqualError(t, err, "a: still running")
		}
	}
}

func TestGraceWait_IsNeverOverOnceStopped(t *testing.T) {
	t.Parallel()
	for name, begin := range map[string]func(cancel context.CancelFunc, limit tasks.GraceWait) tasks.GraceWait{
		"before its context ends": func(_ context.CancelFunc, limit tasks.GraceWait) tasks.GraceWait {
			return limit
		},
		"as its context ends": func(cancel context.CancelFunc, limit tasks.GraceWait) tasks.GraceWait {
			cancel()
			return limit
		},
		"within the grace": func(cancel context.CancelFunc, limit tasks.GraceWait) tasks.GraceWait {
			cancel()
			time.Sleep(tasks.Grace / 2)
			return limit
		},
		"within one more grace": func(cancel context.CancelFunc, limit tasks.GraceWait) tasks.GraceWait {
			cancel()
			limit.Stop()
			more := limit.Again()
			time.Sleep(tasks.Grace / 2)
			return more
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				for range 20 {
					ctx, cancel := context.WithCancel(t.Context())
					limit := begin(cancel, tasks.WithGrace(ctx))
					limit.Stop()
					cancel()
					time.Sleep(2 * tasks.Grace)
					select {
					case <-limit.Over:
						t.Fatal("over")
					default:
					}
				}
			})
		})
	}
}

func TestGroup_WaitAtMostEndsAfterItsTimeWhateverTheLimit(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var group tasks.Group
		limit := tasks.WithGrace(t.Context())
		defer limit.Stop()
		require.True(t, group.Start("a", func() { time.Sleep(3 * time.Second) }))
		began := time.Now()
		err := group.WaitAtMost(time.Second, limit)
		require.EqualError(t, err, "a: still running", "its context has not ended")
		require.ErrorIs(t, err, fault.ErrStuck)
		require.Equal(t, time.Second, time.Since(began))
		require.NoError(t, group.WaitAtMost(time.Minute, limit))
		require.Equal(t, 3*time.Second, time.Since(began))
	})
}

package cooldown_test

import (
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry/internal/cooldown"
	"github.com/capreg/registry/internal/schedule"
)

// timedCooldown returns one that ends in a minute, and the number of times that its timer has run.
func timedCooldown(t *testing.T) (c *cooldown.Timed, timers *schedule.Scheduler, runs *atomic.Int64) {
	t.Helper()
	c, timers, runs = &cooldown.Timed{}, schedule.New(), new(atomic.Int64)
	t.Cleanup(timers.Close)
	require.True(t, c.Apply(cooldown.Request{After: time.Minute}, time.Now()))
	c.StartTimer(timers, func() { runs.Add(1) })
	return c, timers, runs
}

func TestTimed_RunsAtDeadline(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c, _, runs := timedCooldown(t)
		time.Sleep(time.Minute - time.Nanosecond)
		require.Zero(t, runs.Load())
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		require.EqualValues(t, 1, runs.Load())
		require.True(t, c.Over(time.Now()), "its owner ends it")
	})
}

func TestTimed_LaterDeadlineReplacesTimer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c, timers, runs := timedCooldown(t)
		require.True(t, c.Apply(cooldown.Request{After: time.Hour}, time.Now()))
		c.StartTimer(timers, func() { runs.Add(10) })
		time.Sleep(2 * time.Hour)
		require.EqualValues(t, 10, runs.Load())
	})
}

func TestTimed_StopTimerLeavesCooldown(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c, _, runs := timedCooldown(t)
		c.StopTimer()
		c.StopTimer()
		time.Sleep(time.Hour)
		require.Zero(t, runs.Load())
		require.True(t, c.Active())
	})
}

func TestTimed_EndStopsTimer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c, _, runs := timedCooldown(t)
		c.End()
		time.Sleep(time.Hour)
		require.Zero(t, runs.Load())
		require.False(t, c.Active())
	})
}

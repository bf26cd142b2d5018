package schedule_test

import (
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
	"weak"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry/internal/schedule"
)

func TestClose_WaitsForTheRunInProgress(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, s *schedule.Scheduler) {
		release := make(chan struct{})
		ended := false
		s.After(0, func() {
			<-release
			ended = true
		})
		s.After(0, func() { require.Fail(t, "a run began after Close") })
		late := s.After(time.Second, func() { require.Fail(t, "a run began after Close") })
		synctest.Wait()

		var closers sync.WaitGroup
		var closed atomic.Int32
		for range 3 {
			closers.Go(func() {
				s.Close()
				closed.Add(1)
			})
		}
		elapse(time.Hour)
		require.Zero(t, closed.Load())
		close(release)
		closers.Wait()
		require.True(t, ended)
		require.False(t, late.Stop())
	})
}

func TestClose_DropsAllTimers(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, s *schedule.Scheduler) {
		timers := make([]*schedule.Timer, 100)
		for i := range timers {
			timers[i] = s.After(time.Duration(i+1), func() { require.Fail(t, "fired after Close") })
		}
		s.Close()
		elapse(time.Second)
		for _, timer := range timers {
			require.False(t, timer.Stop())
		}
		s.Close()
	})
}

func TestAfter_OnAClosedSchedulerNeverFires(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, s *schedule.Scheduler) {
		s.Close()
		timer := s.After(0, func() { require.Fail(t, "fired after Close") })
		elapse(time.Second)
		require.False(t, timer.Stop())
	})
}

func TestClose_TimerOfTheLastRunNeverFires(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, s *schedule.Scheduler) {
		release := make(chan struct{})
		s.After(0, func() {
			<-release
			s.After(0, func() { require.Fail(t, "a run began after Close") })
		})
		synctest.Wait()
		go func() {
			synctest.Wait()
			close(release)
		}()
		s.Close()
		elapse(time.Second)
	})
}

func TestClose_LeavesNothingUnderContention(t *testing.T) {
	t.Parallel()
	for range 200 {
		s := schedule.New()
		var closed, late atomic.Bool
		var all sync.WaitGroup
		for range 3 {
			all.Go(func() {
				for i := range 50 {
					s.After(time.Duration(i)*time.Microsecond, func() {
						late.CompareAndSwap(false, closed.Load())
					}).Stop()
					s.After(0, func() {
						late.CompareAndSwap(false, closed.Load())
					})
				}
			})
		}
		s.Close()
		closed.Store(true)
		all.Wait()
		require.False(t, late.Load(), "running after Close")
	}
}

// value is something that a run refers to.
type value struct{ calls [8]int }

// requireGone fails if v is still in use.
func requireGone[T any](t *testing.T, v weak.Pointer[T]) {
	t.Helper()
	runtime.GC()
	runtime.GC()
	require.Nil(t, v.Value())
}

func TestTimer_LetsGoOfItsRun(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(*schedule.Scheduler, *schedule.Timer){
		"stopped": func(_ *schedule.Scheduler, timer *schedule.Timer) { timer.Stop() },
		"fired":   func(*schedule.Scheduler, *schedule.Timer) { elapse(time.Hour) },
		"closed":  func(s *schedule.Scheduler, _ *schedule.Timer) { s.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			inBubble(t, func(t *testing.T, s *schedule.Scheduler) {
				timer, v := func() (*schedule.Timer, weak.Pointer[value]) {
					v := &value{}
					return s.After(time.Hour, func() { v.calls[0]++ }), weak.Make(v)
				}()
				end(s, timer)
				requireGone(t, v)
				require.False(t, timer.Stop())
			})
		})
	}
}

func TestScheduler_LetsGoOfAStoppedTimer(t *testing.T) {
	t.Parallel()
	s := schedule.New()
	defer s.Close()
	defer s.After(time.Hour, func() {}).Stop()
	stopped := func() weak.Pointer[schedule.Timer] {
		timer := s.After(2*time.Hour, func() {})
		defer timer.Stop()
		return weak.Make(timer)
	}()
	requireGone(t, stopped)
}

func TestClose_LetsGoOfTheScheduler(t *testing.T) {
	t.Parallel()
	closed := func() weak.Pointer[schedule.Scheduler] {
		s := schedule.New()
		s.After(time.Hour, func() {})
		s.Close()
		return weak.Make(s)
	}()
	requireGone(t, closed)
}

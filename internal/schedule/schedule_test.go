package schedule_test

import (
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/capreg/registry/internal/schedule"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// inBubble runs body with a scheduler in a bubble of its own, where time is
// virtual: sleeping there waits for nothing.
func inBubble(t *testing.T, body func(t *testing.T, s *schedule.Scheduler)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := schedule.New()
		defer s.Close()
		body(t, s)
	})
}

// elapse lets d go by and everything happen that is due by then.
func elapse(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func TestScheduler_FiresInOrderOfDeadlines(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, s *schedule.Scheduler) {
		var fired []int
		for _, i := range rand.Perm(1000) {
			s.After(time.Duration(i)*time.Millisecond, func() { fired = append(fired, i) })
		}
		elapse(time.Second)
		require.Len(t, fired, 1000)
		require.True(t, slices.IsSorted(fired))
	})
}

func TestScheduler_FiresEqualDeadlinesInOrderOfCreation(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, s *schedule.Scheduler) {
		var fired []int
		for i := range 1000 {
			s.After(time.Second, func() { fired = append(fired, i) })
		}
		elapse(time.Second)
		require.Len(t, fired, 1000)
		require.True(t, slices.IsSorted(fired))
	})
}

func TestAfter_FiresExactlyAtItsDeadline(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, s *schedule.Scheduler) {
		start := time.Now()
		for _, d := range []time.Duration{1, 2, time.Microsecond, time.Second, 30 * 24 * time.Hour} {
			s.After(d, func() { require.Equal(t, d, time.Since(start)) })
		}
		var fired atomic.Bool
		s.After(time.Hour, func() { fired.Store(true) })
		elapse(time.Hour - 1)
		require.False(t, fired.Load())
		elapse(1)
		require.True(t, fired.Load())
		elapse(30 * 24 * time.Hour)
	})
}

func TestAfter_NeverFiresEarlyByTheRealClock(t *testing.T) {
	t.Parallel()
	s := schedule.New()
	defer s.Close()
	elapsed := make(chan [2]time.Duration)
	for i := range 50 {
		d := time.Duration(i) * 37 * time.Microsecond
		start := time.Now()
		s.After(d, func() { elapsed <- [2]time.Duration{d, time.Since(start)} })
	}
	for range 50 {
		pair := <-elapsed
		require.GreaterOrEqual(t, pair[1], pair[0])
	}
}

func TestAfter_WithoutDelayFiresAtOnceButNotInside(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, s *schedule.Scheduler) {
		start := time.Now()
		var fired []time.Duration
		for _, d := range []time.Duration{0, -1, math.MinInt64} {
			s.After(d, func() { fired = append(fired, d) })
		}
		synctest.Wait()
		require.Equal(t, []time.Duration{0, -1, math.MinInt64}, fired)
		require.Zero(t, time.Since(start))
	})
}

func TestAfter_EndOfTimeDoesNotFire(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, s *schedule.Scheduler) {
		elapse(time.Hour)
		timer := s.After(math.MaxInt64, func() { require.Fail(t, "fired") })
		var fired atomic.Bool
		s.After(time.Minute, func() { fired.Store(true) })
		elapse(1000 * time.Hour)
		require.True(t, fired.Load())
		require.True(t, timer.Stop())
	})
}

func TestStop_OthersKeepTheirOrder(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, s *schedule.Scheduler) {
		var fired []int
		timers := make([]*schedule.Timer, 1000)
		for _, i := range rand.Perm(len(timers)) {
			timers[i] = s.After(time.Duration(i)*time.Second, func() { fired = append(fired, i) })
		}
		var want []int
		for i, timer := range timers {
			if i%3 == 0 {
				want = append(want, i)

				continue
			}
			require.True(t, timer.Stop())
			require.False(t, timer.Stop())
		}
		elapse(1000 * time.Second)
		require.Equal(t, want, fired)
	})
}

func TestStop_IsTooLateAfterTheRun(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, s *schedule.Scheduler) {
		var self atomic.Pointer[schedule.Timer]
		self.Store(s.After(time.Second, func() { require.False(t, self.Load().Stop()) }))
		elapse(time.Second)
		require.False(t, self.Load().Stop())
	})
}

func TestStop_InsideARunStopsTimersDueAtTheSameInstant(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, s *schedule.Scheduler) {
		var second atomic.Pointer[schedule.Timer]
		s.After(time.Second, func() { require.True(t, second.Load().Stop()) })
		second.Store(s.After(time.Second, func() { require.Fail(t, "fired after Stop") }))
		elapse(time.Second)
	})
}

func TestAfter_EarlierDeadlineMovesTheAlarm(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, s *schedule.Scheduler) {
		start := time.Now()
		var fired []time.Duration
		note := func() { fired = append(fired, time.Since(start)) }
		s.After(time.Hour, note)
		elapse(time.Second)
		s.After(time.Minute, note)
		s.After(time.Second, note)
		elapse(2 * time.Hour)
		require.Equal(t, []time.Duration{2 * time.Second, 61 * time.Second, time.Hour}, fired)
	})
}

func TestStop_MovesTheAlarmToTheNextDeadline(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, s *schedule.Scheduler) {
		start := time.Now()
		var fired time.Duration
		first := s.After(time.Second, func() { require.Fail(t, "fired after Stop") })
		s.After(time.Minute, func() { fired = time.Since(start) })
		require.True(t, first.Stop())
		elapse(time.Hour)
		require.Equal(t, time.Minute, fired)
	})
}

func TestAfter_InsideARun(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, s *schedule.Scheduler) {
		start := time.Now()
		var fired []time.Duration
		var again func()
		again = func() {
			if fired = append(fired, time.Since(start)); len(fired) < 5 {
				s.After(time.Duration(len(fired)%2)*time.Second, again)
			}
		}
		s.After(0, again)
		elapse(time.Minute)
		require.Equal(t, []time.Duration{0, time.Second, time.Second, 2 * time.Second, 2 * time.Second}, fired)
	})
}

func TestScheduler_RunsUnderNoLock(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, s *schedule.Scheduler) {
		release := make(chan struct{})
		s.After(0, func() { <-release })
		synctest.Wait()
		var fired atomic.Bool
		require.True(t, s.After(0, func() {}).Stop())
		s.After(0, func() { fired.Store(true) })
		elapse(time.Second)
		require.False(t, fired.Load(), "two runs at a time")
		close(release)
		synctest.Wait()
		require.True(t, fired.Load())
	})
}

func TestScheduler_LateAlarmRunsNothing(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, s *schedule.Scheduler) {
		var fired atomic.Int32
		count := func() { fired.Add(1) }
		s.After(time.Second, count)
		s.LateAlarm()
		require.Zero(t, fired.Load(), "nothing was due")

		release := make(chan struct{})
		s.After(0, func() { <-release })
		synctest.Wait()
		s.After(0, count)
		s.LateAlarm()
		require.Zero(t, fired.Load(), "two runs at a time")
		close(release)
		elapse(time.Second)
		require.EqualValues(t, 2, fired.Load())

		s.After(0, count)
		s.Close()
		before := fired.Load()
		s.LateAlarm()
		require.Equal(t, before, fired.Load(), "a run began after Close")
	})
}

func goroutine() string {
	stack := make([]byte, 64)

	return strings.Fields(string(stack[:runtime.Stack(stack, false)]))[1]
}

func TestScheduler_RunsThousandsOnOneGoroutine(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, s *schedule.Scheduler) {
		seen := map[string]int{}
		for range 5000 {
			s.After(time.Second, func() { seen[goroutine()]++ })
		}
		elapse(time.Second)
		require.Len(t, seen, 1)
		for _, runs := range seen {
			require.Equal(t, 5000, runs)
		}
	})
}

// workers counts the goroutines of schedulers in the process.
func workers() int {
	stacks := make([]byte, 1<<20)
	stacks = stacks[:runtime.Stack(stacks, true)]
	return strings.Count(string(stacks), "created by github.com/capreg/registry/internal/schedule.") +
		strings.Count(string(stacks), "schedule.(*Scheduler).runDue")
}

// It is not parallel: it counts all goroutines of the process.
func TestScheduler_HasNoGoroutineWhileNothingIsDue(t *testing.T) {
	inBubble(t, func(t *testing.T, s *schedule.Scheduler) {
		for i := range 1000 {
			s.After(time.Duration(1+i%10)*time.Second, func() {})
		}
		require.Zero(t, workers())
		s.After(time.Millisecond, func() { require.Equal(t, 1, workers(), "the count counts") })
		elapse(5 * time.Second)
		require.Zero(t, workers())
	})
}

func TestScheduler_GoesOnAfterARunThatExits(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, s *schedule.Scheduler) {
		fired := 0
		s.After(time.Second, runtime.Goexit)
		s.After(time.Second, func() { fired++ })
		s.After(time.Minute, func() { fired++ })
		elapse(time.Hour)
		require.Equal(t, 2, fired)
		s.After(0, runtime.Goexit)
		synctest.Wait()
		s.Close()
	})
}

// It uses the actual clock, to have goroutines of the alarm overtaken by calls of
// After, Stop and Close.
func TestScheduler_EveryTimerIsFiredOrStoppedUnderContention(t *testing.T) {
	t.Parallel()
	s := schedule.New()
	const goroutines, timers = 8, 2000
	var fired, stopped, running atomic.Int64
	var all, pending sync.WaitGroup
	for g := range goroutines {
		all.Go(func() {
			random := rand.New(rand.NewPCG(uint64(g), 0))
			var last *schedule.Timer
			for range timers {
				pending.Add(1)
				timer := s.After(time.Duration(random.IntN(200_000)), func() {
					defer pending.Done()
					if running.Add(1) != 1 {
						panic("two runs at a time")
					}
					fired.Add(1)
					running.Add(-1)
				})
				if random.IntN(2) == 0 {
					last, timer = timer, last
				}
				if timer != nil && timer.Stop() {
					stopped.Add(1)
					pending.Done()
				}
			}
		})
	}
	all.Wait()
	pending.Wait()
	require.EqualValues(t, goroutines*timers, fired.Load()+stopped.Load())
	s.Close()
}

func TestScheduler_StopLeavesTheAlarmForLaterTimers(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, s *schedule.Scheduler) {
		var fired time.Duration
		start := time.Now()
		require.True(t, s.After(time.Minute, func() {}).Stop())
		elapse(10 * time.Second)
		s.After(time.Minute, func() { fired = time.Since(start) })
		require.Equal(t, 50*time.Second, s.AlarmIn(), "it is not set again")
		elapse(time.Minute)
		require.Equal(t, 70*time.Second, fired)
	})
}

func TestAt_FiresAtATimeOfTheScheduler(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, s *schedule.Scheduler) {
		elapse(time.Second)
		var fired []time.Duration
		s.At(s.Now()+time.Second, func() { fired = append(fired, s.Now()) })
		s.At(0, func() { fired = append(fired, s.Now()) })
		elapse(time.Hour)
		require.Equal(t, []time.Duration{time.Second, 2 * time.Second}, fired)
	})
}

func TestStart_TimerOfAnotherStructWaitsFiresAndStartsAgain(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, s *schedule.Scheduler) {
		var holder struct{ timer schedule.Timer }
		require.False(t, holder.timer.Stop(), "it was not started")
		var fired atomic.Int64
		run := func() { fired.Add(1) }
		s.Start(&holder.timer, s.Now()+time.Second, schedule.Func(run))
		s.Start(&holder.timer, s.Now()+time.Minute, schedule.Func(run))
		elapse(time.Second)
		require.Zero(t, fired.Load(), "the second start has stopped the first")
		elapse(time.Minute)
		require.EqualValues(t, 1, fired.Load())
		s.Start(&holder.timer, s.Now()+time.Second, schedule.Func(run))
		require.True(t, holder.timer.Stop())
		require.False(t, holder.timer.Stop())
		elapse(time.Minute)
		require.EqualValues(t, 1, fired.Load())
		s.Close()
		s.Start(&holder.timer, s.Now(), schedule.Func(run))
		elapse(time.Second)
		require.EqualValues(t, 1, fired.Load())
	})
}

func TestEpoch_IsTheBeginningOfTheClock(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, s *schedule.Scheduler) {
		elapse(time.Hour)
		require.Equal(t, time.Hour, s.Now())
		require.Equal(t, time.Now(), s.Epoch().Add(s.Now()))
	})
}

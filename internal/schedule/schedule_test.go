package schedule_test

import (
	"fmt"
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

func TestTimer_FiresInOrderOfDeadlines(t *testing.T) {
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

func TestTimer_EqualDeadlinesFireInOrderOfCreation(t *testing.T) {
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

func TestTimer_FiresExactlyAtItsTime(t *testing.T) {
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

func TestTimer_NeverFiresEarlyOnRealClock(t *testing.T) {
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

func TestTimer_ZeroDelayFiresAtOnceOutsideAfter(t *testing.T) {
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

func TestTimer_LongestDelayDoesNotFire(t *testing.T) {
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

func TestStop_KeepsOrderOfOthers(t *testing.T) {
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

func TestStop_IsTooLateAfterFiring(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, s *schedule.Scheduler) {
		var self atomic.Pointer[schedule.Timer]
		self.Store(s.After(time.Second, func() { require.False(t, self.Load().Stop()) }))
		elapse(time.Second)
		require.False(t, self.Load().Stop())
	})
}

func TestStop_FromRunReachesTimersDueNow(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, s *schedule.Scheduler) {
		var second atomic.Pointer[schedule.Timer]
		s.After(time.Second, func() { require.True(t, second.Load().Stop()) })
		second.Store(s.After(time.Second, func() { require.Fail(t, "fired after Stop") }))
		elapse(time.Second)
	})
}

func TestTimer_EarlierDeadlineIsServedFirst(t *testing.T) {
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

func TestTimer_LaterDeadlineIsServedAfterStop(t *testing.T) {
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

func TestTimer_RunMayCreateTimers(t *testing.T) {
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

func TestTimer_RunHoldsNoLock(t *testing.T) {
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

func TestTimer_StaleAlarmRunsNothing(t *testing.T) {
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

func TestTimer_ThousandsDueAtOnceUseOneGoroutine(t *testing.T) {
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

// It is not parallel: it looks at all goroutines of the process.
func TestScheduler_HasNoGoroutineWhileIdle(t *testing.T) {
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

func TestTimer_GoexitLeavesNoOtherBehind(t *testing.T) {
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

func TestClose_WaitsForRunInProgress(t *testing.T) {
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

func TestClose_LaterTimersNeverFire(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, s *schedule.Scheduler) {
		s.Close()
		timer := s.After(0, func() { require.Fail(t, "fired after Close") })
		elapse(time.Second)
		require.False(t, timer.Stop())
	})
}

func TestClose_TimersOfLastRunNeverFire(t *testing.T) {
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

// It uses the actual clock, to have goroutines of the alarm overtaken by calls of
// After, Stop and Close.
func TestStop_OrFireUnderContention(t *testing.T) {
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

// It is not parallel: counting allocations counts those of all goroutines.
func TestTimer_CostsOneAllocation(t *testing.T) {
	s := schedule.New()
	defer s.Close()
	run := func() {}
	s.After(time.Hour, run)
	require.InDelta(t, 1, testing.AllocsPerRun(100, func() {
		s.After(time.Minute, run).Stop()
	}), 0.01)
}

func BenchmarkAfterAndStop(b *testing.B) {
	for _, waiting := range []int{0, 1, 1000, 100_000} {
		for _, first := range []bool{true, false} {
			b.Run(fmt.Sprintf("waiting=%d/first=%t", waiting, first), func(b *testing.B) {
				s := schedule.New()
				defer s.Close()
				run := func() {}
				for range waiting {
					s.After(time.Hour, run)
				}
				d := 2 * time.Hour
				if first {
					d = time.Minute
				}
				b.ReportAllocs()
				for b.Loop() {
					s.After(d, run).Stop()
				}
			})
		}
	}
}

func BenchmarkAfterAndFire(b *testing.B) {
	const burst = 1000
	s := schedule.New()
	defer s.Close()
	var fired sync.WaitGroup
	b.ReportAllocs()
	for b.Loop() {
		fired.Add(burst)
		for range burst {
			s.After(0, fired.Done)
		}
		fired.Wait()
	}
	b.ReportMetric(float64(b.Elapsed())/float64(b.N)/burst, "ns/timer")
}

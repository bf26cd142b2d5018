package schedule_test

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry/internal/schedule"
)

// It is not parallel: counting allocations counts those of all goroutines.
func TestAfter_CostsOneAllocation(t *testing.T) {
	s := schedule.New()
	defer s.Close()
	run := func() {}
	s.After(time.Hour, run)
	require.InDelta(t, 1, testing.AllocsPerRun(100, func() {
		s.After(time.Minute, run).Stop()
	}), 0.01)
}

// It is not parallel: counting allocations counts those of all goroutines.
func TestStart_CostsNoAllocation(t *testing.T) {
	s := schedule.New()
	defer s.Close()
	run := func() {}
	var timer schedule.Timer
	s.After(time.Hour, run)
	require.Zero(t, testing.AllocsPerRun(100, func() {
		s.Start(&timer, s.Now()+time.Minute, schedule.Func(run))
		timer.Stop()
	}))
}

// It is not parallel: counting allocations counts those of all goroutines.
func TestAfter_AnEarlierDeadlineMovesTheOneAlarm(t *testing.T) {
	s := schedule.New()
	defer s.Close()
	run, d := func() {}, 1000*time.Hour
	s.After(d, run)
	require.InDelta(t, 1, testing.AllocsPerRun(100, func() {
		d -= time.Hour
		s.After(d, run).Stop()
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

//go:build unix

package registry_test

import (
	"context"
	"runtime"
	"strconv"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/health"
	"github.com/capreg/registry/internal/testkit"
)

// BenchmarkMonitor probes 10,000 providers every 30 s for a while, and reports
// the share of one core that it takes and the goroutines that there are.
func BenchmarkMonitor(b *testing.B) {
	const providers, interval = 10_000, 30 * time.Second
	reg := testkit.New(b, registry.Options{ProbeConcurrency: providers})
	var probes atomic.Int64
	for i := range providers {
		testkit.Add(b, reg, testkit.Provider{Name: strconv.Itoa(i), Health: health.Policy{
			Probe:    func(context.Context) error { probes.Add(1); return nil },
			Interval: interval, IdleInterval: interval,
		}})
	}
	for probes.Load() < providers {
		time.Sleep(time.Millisecond)
	}
	most := runtime.NumGoroutine()
	for b.Loop() {
		before, cpu := probes.Load(), cpuTime(b)
		time.Sleep(2 * time.Second)
		ran := probes.Load() - before
		share := (cpuTime(b) - cpu).Seconds() / 2
		b.ReportMetric(100*share, "%CPU")
		b.ReportMetric(float64(ran)/2, "probes/s")
		most = max(most, runtime.NumGoroutine())
	}
	b.ReportMetric(float64(most), "goroutines")
	b.StopTimer()
	require.NoError(b, reg.Close(context.Background()))
}

// cpuTime returns how long this process has used processors.
func cpuTime(tb testing.TB) time.Duration {
	tb.Helper()
	var usage syscall.Rusage
	require.NoError(tb, syscall.Getrusage(syscall.RUSAGE_SELF, &usage))
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

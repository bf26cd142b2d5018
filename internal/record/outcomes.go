package record

import (
	"sync/atomic"
	"time"

	"github.com/capreg/registry/internal/histogram"
	"github.com/capreg/registry/internal/striped"
)

// Outcomes counts attempts. Each attempt adds one to Attempts when it begins, and one to another count when it ends.
type Outcomes struct {
	Attempts, Successes, Failures, Ignored, Limited atomic.Uint64

	Latency atomic.Uint64 // sum over these successes, in nanoseconds

	// Quick are the other successes, those of quick calls, by their duration: one count says both. QuickLatency is
	// their sum, in nanoseconds.
	QuickLatency atomic.Uint64
	Quick        [histogram.Size]atomic.Uint64
}

// Untouched reports whether no attempt has begun here, so that nothing else needs to be read: most stripes of a provider
// that has few callers are.
func (o *Outcomes) Untouched() bool { return o.Attempts.Load() == 0 }

// Totals are sums of outcomes.
type Totals struct {
	Attempts, Successes, Failures, Ignored, Limited, InFlight uint64
	MeanLatency                                               time.Duration
}

// Sum sums the counts of the cells. The ends of attempts are read before the beginnings, so that the number in flight
// is never too low.
func Sum(cells *striped.Cells[Outcomes]) (sum Totals) {
	var latency uint64
	for cell := range cells.Each {
		if cell.Untouched() {
			continue
		}
		sum.Successes += cell.Successes.Load()
		sum.Failures += cell.Failures.Load()
		sum.Ignored += cell.Ignored.Load()
		sum.Limited += cell.Limited.Load()
		for i := range cell.Quick {
			sum.Successes += cell.Quick[i].Load()
		}
		latency += cell.Latency.Load() + cell.QuickLatency.Load()
	}
	for cell := range cells.Each {
		sum.Attempts += cell.Attempts.Load()
	}
	sum.InFlight = sum.Attempts - sum.Successes - sum.Failures - sum.Ignored - sum.Limited
	if sum.Successes > 0 {
		sum.MeanLatency = time.Duration(latency / sum.Successes) //nolint:gosec // a mean of durations
	}
	return sum
}

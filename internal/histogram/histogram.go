// Package histogram counts durations in buckets that grow exponentially and are the same everywhere.
//
// There are two buckets for each doubling: their upper bounds are 78.125 µs · 2ⁿ and, between two of these, a power of
// two of seconds. Every other bound is therefore one of the doublings of 5 ms that dashboards use, and every other one
// a bound of the exponential histograms of Prometheus and OpenTelemetry: both are exact sums of these buckets.
package histogram

import (
	"math/bits"
	"sync/atomic"
	"time"
)

const (
	// least is the upper bound of the first bucket.
	least = 78125 * time.Nanosecond
	// doublings counts its doublings, up to 81.92 s.
	doublings = 20
	// middle is the power of two of seconds that follows it, 2⁻¹³ s, in sixteenths of a nanosecond, of which it is a
	// whole number.
	middle = 1e9 >> 9

	// Size is the number of buckets. The bound of the last but one is 128 s, and the last one has none.
	Size = 2*doublings + 3
)

// Index returns the bucket of a duration. It is small, to be inlined.
func Index(d time.Duration) int {
	if d <= least {
		return 0
	}
	n := min(bits.Len64(uint64(d-1)/uint64(least)), doublings+1)
	above := (middle<<uint(n)>>5 - int64(d)) >> 63 // -1 when it is above the middle, else 0
	return 2*n - 1 - int(above)
}

// Bound returns the upper bound of a bucket, which belongs to it, in nanoseconds; false for the last one, which has none.
func Bound(bucket int) (nanoseconds float64, bounded bool) {
	if bucket >= Size-1 {
		return 0, false
	}
	doubled := float64(uint64(1) << (bucket / 2))
	if bucket%2 == 1 {
		return middle / 16.0 * doubled, true
	}
	return float64(least) * doubled, true
}

// Histogram counts durations and adds them up. The zero value is empty and ready to use; it must not be copied. All
// methods are safe for concurrent use.
type Histogram struct {
	buckets [Size]atomic.Uint64
	sum     atomic.Uint64 // in nanoseconds
}

// Add counts a duration; one below zero counts as zero.
func (h *Histogram) Add(d time.Duration) {
	h.sum.Add(uint64(max(d, 0)))
	h.buckets[Index(d)].Add(1)
}

// Counts are the contents of histograms at one moment.
type Counts struct {
	Buckets [Size]uint64
	Sum     time.Duration
}

// Add adds what the histogram has now.
func (c *Counts) Add(h *Histogram) {
	c.AddBuckets(&h.buckets)
	c.Sum += time.Duration(h.sum.Load()) //nolint:gosec // a sum of durations
}

// AddBuckets adds buckets that are kept without a histogram.
func (c *Counts) AddBuckets(buckets *[Size]atomic.Uint64) {
	for i := range buckets {
		c.Buckets[i] += buckets[i].Load()
	}
}

// Total returns how many durations were counted.
func (c *Counts) Total() (total uint64) {
	for _, count := range c.Buckets {
		total += count
	}
	return total
}

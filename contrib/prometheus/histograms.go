package registryprom

import (
	"math"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/capreg/registry/metrics"
)

// scale has the buckets of durations, classic and native ones: the bounds of the registry are those of one or the
// other, so that both are exact.
type scale struct {
	bounds []float64
	// zero is the exponent of the upper bound of the bucket of zero in the native histogram.
	zero      int
	threshold float64
}

// Numbers of buckets of both scales; one may have fewer.
const classicBuckets, nativeBuckets = 15, 22

//nolint:gochecknoglobals // immutable
var (
	// ofCalls has the doublings of 5 ms up to 81.92 s.
	ofCalls = scale{prometheus.ExponentialBuckets(0.005, 2, classicBuckets), -13, math.Ldexp(1, -13)}
	// ofAttempts has every other one of these: each provider has them. Its native histogram has as many as that of calls.
	ofAttempts = scale{prometheus.ExponentialBuckets(0.005, 4, 8), ofCalls.zero, ofCalls.threshold}
	// ofLookups has powers of four, from 60 ns to 3.9 ms.
	ofLookups = scale{prometheus.ExponentialBuckets(math.Ldexp(1, -24), 4, 9), -25, math.Ldexp(1, -25)}

	schema = new(int32(0)) // a native bucket for each doubling
)

// durations is a histogram of both kinds.
type durations struct {
	of     *prometheus.Desc
	labels []*dto.LabelPair
	scale  *scale
	count  uint64
	sum    float64
	below  [classicBuckets]uint64 // cumulative
	native [nativeBuckets]uint64  // the first is that of zero
	out    *dto.Histogram
}

func (d *durations) add(h *metrics.Histogram) {
	d.count += h.Count
	d.sum += h.Sum.Seconds()
	for _, b := range h.Buckets {
		d.native[min(max(exponent(b)-d.scale.zero, 0), nativeBuckets-1)] += b.Count
		if b.AtMost == 0 {
			continue
		}
		for i, bound := range d.scale.bounds {
			if b.AtMost <= bound*(1+1e-9) {
				d.below[i] += b.Count
			}
		}
	}
}

func (d *durations) merge(other *durations) {
	d.count += other.count
	d.sum += other.sum
	for i, count := range other.below {
		d.below[i] += count
	}
	for i, count := range other.native {
		d.native[i] += count
	}
}

// exponent returns the bucket of the native histogram: that of the durations up to 2 to that power, in seconds. Those
// without an upper bound count to the first one above.
func exponent(b metrics.Bucket) int {
	if b.AtMost == 0 {
		_, above := math.Frexp(b.Above)
		return above
	}
	fraction, power := math.Frexp(b.AtMost)
	if fraction == 0.5 {
		return power - 1
	}
	return power
}

// Desc returns the description.
func (d *durations) Desc() *prometheus.Desc { return d.of }

// Write writes the histogram.
func (d *durations) Write(out *dto.Metric) error {
	out.Label, out.Histogram = d.labels, d.out
	return nil
}

// histogramOf returns what is sent of durations.
func (m *memory) histogramOf(d *durations) *dto.Histogram {
	h := &m.histograms.take(1)[0]
	h.SampleCount, h.SampleSum = &d.count, &d.sum
	buckets := m.buckets.take(len(d.scale.bounds))
	h.Bucket = m.classic.take(len(buckets))
	for i := range buckets {
		buckets[i].UpperBound, buckets[i].CumulativeCount = &d.scale.bounds[i], &d.below[i]
		h.Bucket[i] = &buckets[i]
	}
	h.Schema, h.ZeroThreshold, h.ZeroCount = schema, &d.scale.threshold, &d.native[0]
	m.addNative(h, d)
	return h
}

// addNative adds the buckets above that of zero: as spans, with the differences between neighbours.
func (m *memory) addNative(h *dto.Histogram, d *durations) {
	spans, filled := 0, 0
	for i, count := range d.native[1:] {
		if count > 0 {
			filled++
		}
		if count > 0 && (i == 0 || d.native[i] == 0) {
			spans++
		}
	}
	h.PositiveSpan, h.PositiveDelta = m.native.take(spans)[:0], m.deltas.take(filled)[:0]
	before, next := uint64(0), 0 // the bucket after the last span
	var span *dto.BucketSpan
	for i, count := range d.native[1:] {
		if count == 0 {
			span = nil
			continue
		}
		if at := d.scale.zero + 1 + i; span == nil {
			span = &m.spans.take(1)[0]
			span.Offset, span.Length = &m.offsets.take(1)[0], &m.lengths.take(1)[0]
			*span.Offset = int32(at - next) //nolint:gosec // small
			h.PositiveSpan = append(h.PositiveSpan, span)
			next = at
		}
		*span.Length++
		next++
		h.PositiveDelta = append(h.PositiveDelta, int64(count)-int64(before)) //nolint:gosec // counts
		before = count
	}
}

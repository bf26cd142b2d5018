package registryprom

import (
	"math"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/capreg/registry/metrics"
)

// series are the samples of one scrape. Those with the same labels are added up.
type series struct {
	all   map[key]*sample
	order []*sample
}

type key struct {
	of     *prometheus.Desc
	labels string
}

type sample struct {
	of     *prometheus.Desc
	kind   prometheus.ValueType // zero: it is a histogram
	labels []string
	value  float64

	count   uint64
	sum     float64
	buckets []metrics.Bucket // of durations, in any order
	atMost  []uint64         // of amounts
}

func newSeries() *series { return &series{all: make(map[key]*sample)} }

func (s *series) at(of *prometheus.Desc, kind prometheus.ValueType, labels []string) *sample {
	k := key{of, strings.Join(labels, "\xff")} // which is in no label
	known := s.all[k]
	if known == nil {
		known = &sample{of: of, kind: kind, labels: labels}
		s.all[k] = known
		s.order = append(s.order, known)
	}
	return known
}

func (s *series) count(of *prometheus.Desc, value float64, labels ...string) {
	s.at(of, prometheus.CounterValue, labels).value += value
}

func (s *series) gauge(of *prometheus.Desc, value float64, labels ...string) {
	s.at(of, prometheus.GaugeValue, labels).value += value
}

func (s *series) durations(of *prometheus.Desc, h metrics.Histogram, labels ...string) {
	known := s.at(of, 0, labels)
	known.count += h.Count
	known.sum += h.Sum.Seconds()
	known.buckets = append(known.buckets, h.Buckets...)
}

func (s *series) amounts(of *prometheus.Desc, a metrics.Amounts, labels ...string) {
	known := s.at(of, 0, labels)
	known.count, known.sum, known.atMost = a.Count, float64(a.Sum), a.AtMost
}

func (s *series) send(to chan<- prometheus.Metric) {
	for _, one := range s.order {
		to <- one.metric()
	}
}

// metric returns the sample as a constant metric.
func (s *sample) metric() prometheus.Metric {
	switch {
	case s.kind != 0:
		return prometheus.MustNewConstMetric(s.of, s.kind, s.value, s.labels...)
	case s.atMost != nil:
		buckets := make(map[float64]uint64)
		for i, bound := range metrics.AmountBounds() {
			buckets[float64(bound)] = s.atMost[i]
		}
		return prometheus.MustNewConstHistogram(s.of, s.count, s.sum, buckets, s.labels...)
	}
	return &durations{sample: s}
}

// durations is a histogram of both kinds, exact in both: the bounds of the registry are those of one or the other.
type durations struct{ *sample }

// Desc returns the description.
func (d *durations) Desc() *prometheus.Desc { return d.of }

// smallest are the exponents of the bucket of zero in the native histograms.
const smallest, smallestLookup = -13, -25

// Write writes the histogram.
func (d *durations) Write(out *dto.Metric) error {
	bounds, zero := callBounds, smallest
	if d.of == lookupTime {
		bounds, zero = lookupBounds, smallestLookup
	}
	native := make(map[int]int64)
	var zeros uint64
	for _, b := range d.buckets {
		if at := exponent(b); at <= zero {
			zeros += b.Count
		} else {
			native[at] += int64(b.Count) //nolint:gosec // a count
		}
	}
	made, err := prometheus.NewConstNativeHistogram(d.of, d.count, d.sum, native, nil, zeros, 0, math.Ldexp(1, zero), time.Time{}, d.labels...)
	if err != nil {
		return err
	}
	if err := made.Write(out); err != nil {
		return err
	}
	out.Histogram.CreatedTimestamp = nil
	for _, bound := range bounds {
		var below uint64
		for _, b := range d.buckets {
			if b.AtMost > 0 && b.AtMost <= bound*(1+1e-9) {
				below += b.Count
			}
		}
		out.Histogram.Bucket = append(out.Histogram.Bucket, &dto.Bucket{UpperBound: new(bound), CumulativeCount: new(below)})
	}
	return nil
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

//nolint:gochecknoglobals // immutable
var (
	// callBounds are the doublings of 5 ms up to 81.92 s.
	callBounds = prometheus.ExponentialBuckets(0.005, 2, 15)
	// lookupBounds are powers of four, from 60 ns to 3.9 ms.
	lookupBounds = prometheus.ExponentialBuckets(math.Ldexp(1, -24), 4, 9)
)

package registryprom

import (
	"math"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/capreg/registry/metrics"
)

// scrape sends the series of one scrape. They write what is sent over the wire without a copy, and are cut from
// larger pieces: a thousand providers have some thirty thousand of them.
type scrape struct {
	send      func(prometheus.Metric)
	exemplars *exemplars
	pairs     pieces[dto.LabelPair]
	lists     pieces[*dto.LabelPair]
	strings   pieces[string]
	gauges    pieces[gauge]
	counters  pieces[counter]
}

// pieces are the rest of a larger allocation.
type pieces[T any] []T

// take returns n of them, with no room behind.
func (p *pieces[T]) take(n int) []T {
	if len(*p) < n {
		*p = make([]T, max(n, 256))
	}
	taken := (*p)[:n:n]
	*p = (*p)[n:]
	return taken
}

//nolint:gochecknoglobals // immutable
var labelNames = map[string]*string{"component": new("component"), "provider": new("provider"), "service": new("service")}

// pair returns a label.
func (s *scrape) pair(label, value string) *dto.LabelPair {
	text, pair := &s.strings.take(1)[0], &s.pairs.take(1)[0]
	*text = value
	pair.Name, pair.Value = labelNames[label], text
	return pair
}

// labels returns a list of labels, which are in the order of their names.
func (s *scrape) labels(pairs ...*dto.LabelPair) []*dto.LabelPair {
	list := s.lists.take(len(pairs))
	copy(list, pairs)
	return list
}

func (s *scrape) number(f *family, value float64, labels []*dto.LabelPair) {
	if f.counter {
		s.counterOf(f.of, value, labels)
	} else {
		s.gaugeOf(f.of, value, labels)
	}
}

func (s *scrape) count(of *prometheus.Desc, value float64, pairs ...*dto.LabelPair) {
	s.counterOf(of, value, s.labels(pairs...))
}

func (s *scrape) gauge(of *prometheus.Desc, value float64, pairs ...*dto.LabelPair) {
	s.gaugeOf(of, value, s.labels(pairs...))
}

func (s *scrape) counterOf(of *prometheus.Desc, value float64, labels []*dto.LabelPair) {
	c := &s.counters.take(1)[0]
	c.of, c.labels, c.value = of, labels, value
	s.send(c)
}

func (s *scrape) gaugeOf(of *prometheus.Desc, value float64, labels []*dto.LabelPair) {
	g := &s.gauges.take(1)[0]
	g.of, g.labels, g.value = of, labels, value
	s.send(g)
}

func (s *scrape) durations(d *durations, pairs ...*dto.LabelPair) {
	d.labels = s.labels(pairs...)
	s.send(d)
}

// outcomes sends the durations of one class of a service or, with a name, of a provider, with their exemplars.
func (s *scrape) outcomes(o outcomes, service, provider string, pairs ...*dto.LabelPair) {
	o.durations.labels = s.labels(pairs...)
	if exemplars := s.exemplars.of(service, provider, o.class); exemplars != nil {
		if with, err := prometheus.NewMetricWithExemplars(o.durations, exemplars...); err == nil {
			s.send(with)
			return
		}
	}
	s.send(o.durations)
}

func (s *scrape) amounts(of *prometheus.Desc, a *metrics.Amounts, pairs ...*dto.LabelPair) {
	s.send(&amounts{of: of, labels: s.labels(pairs...), of0: a, sum: float64(a.Sum)})
}

type counter struct {
	of     *prometheus.Desc
	labels []*dto.LabelPair
	value  float64
	out    dto.Counter
}

// Desc returns the description.
func (c *counter) Desc() *prometheus.Desc { return c.of }

// Write writes the number.
func (c *counter) Write(out *dto.Metric) error {
	c.out.Value = &c.value
	out.Label, out.Counter = c.labels, &c.out
	return nil
}

type gauge struct {
	of     *prometheus.Desc
	labels []*dto.LabelPair
	value  float64
	out    dto.Gauge
}

// Desc returns the description.
func (g *gauge) Desc() *prometheus.Desc { return g.of }

// Write writes the number.
func (g *gauge) Write(out *dto.Metric) error {
	g.out.Value = &g.value
	out.Label, out.Gauge = g.labels, &g.out
	return nil
}

// amounts is a classic histogram of small numbers.
type amounts struct {
	of     *prometheus.Desc
	labels []*dto.LabelPair
	of0    *metrics.Amounts
	sum    float64
}

// Desc returns the description.
func (a *amounts) Desc() *prometheus.Desc { return a.of }

// Write writes the histogram.
func (a *amounts) Write(out *dto.Metric) error {
	h := &dto.Histogram{SampleCount: &a.of0.Count, SampleSum: &a.sum}
	for i, bound := range metrics.AmountBounds() {
		h.Bucket = append(h.Bucket, &dto.Bucket{UpperBound: new(float64(bound)), CumulativeCount: &a.of0.AtMost[i]})
	}
	out.Label, out.Histogram = a.labels, h
	return nil
}

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
	made := &struct {
		histogram dto.Histogram
		list      [classicBuckets]*dto.Bucket
		buckets   [classicBuckets]dto.Bucket
	}{}
	for i := range d.scale.bounds {
		made.buckets[i].UpperBound, made.buckets[i].CumulativeCount = &d.scale.bounds[i], &d.below[i]
		made.list[i] = &made.buckets[i]
	}
	h := &made.histogram
	h.SampleCount, h.SampleSum, h.Bucket = &d.count, &d.sum, made.list[:len(d.scale.bounds)]
	h.Schema, h.ZeroThreshold, h.ZeroCount = schema, &d.scale.threshold, &d.native[0]
	d.writeNative(h)
	out.Label, out.Histogram = d.labels, h
	return nil
}

// writeNative writes the buckets above that of zero: as spans, with the differences between neighbours.
func (d *durations) writeNative(h *dto.Histogram) {
	var span *dto.BucketSpan
	before, last := uint64(0), 0
	for i, count := range d.native[1:] {
		if count == 0 {
			continue
		}
		at := d.scale.zero + 1 + i
		if span == nil || at != last+1 {
			gap := at - last - 1
			if span == nil {
				gap = at
			}
			span = &dto.BucketSpan{Offset: new(int32(gap)), Length: new(uint32(0))} //nolint:gosec // small
			h.PositiveSpan = append(h.PositiveSpan, span)
		}
		*span.Length++
		h.PositiveDelta = append(h.PositiveDelta, int64(count)-int64(before)) //nolint:gosec // counts
		before, last = count, at
	}
}

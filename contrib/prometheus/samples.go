package registryprom

import (
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/capreg/registry/metrics"
)

// scrape sends the series of one scrape. They write what is sent over the wire without a copy.
type scrape struct {
	send      func(prometheus.Metric)
	exemplars *exemplars
	*memory
}

func (s *scrape) number(f *family, value float64, labels []*dto.LabelPair) {
	if f.counter {
		s.counterOf(f.of, value, labels)
	} else {
		s.gaugeOf(f.of, value, labels)
	}
}

func (s *scrape) count(of *prometheus.Desc, value float64, pairs ...*dto.LabelPair) {
	s.counterOf(of, value, s.list(pairs...))
}

func (s *scrape) gauge(of *prometheus.Desc, value float64, pairs ...*dto.LabelPair) {
	s.gaugeOf(of, value, s.list(pairs...))
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

func (s *scrape) histogram(d *durations, pairs ...*dto.LabelPair) {
	d.labels, d.out = s.list(pairs...), s.histogramOf(d)
	s.send(d)
}

// ended sends the durations of one class of a service or, with a name, of a provider, with their exemplars.
func (s *scrape) ended(o outcomes, service, provider string, pairs ...*dto.LabelPair) {
	exemplars := s.exemplars.of(service, provider, o.class)
	if exemplars == nil {
		s.histogram(o.durations, pairs...)
		return
	}
	o.durations.labels, o.durations.out = s.list(pairs...), s.histogramOf(o.durations)
	with, err := prometheus.NewMetricWithExemplars(o.durations, exemplars...)
	if err != nil {
		with = o.durations
	}
	s.send(with)
}

func (s *scrape) amounts(of *prometheus.Desc, a *metrics.Amounts, pairs ...*dto.LabelPair) {
	s.send(&amounts{of: of, labels: s.list(pairs...), of0: a, sum: float64(a.Sum)})
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

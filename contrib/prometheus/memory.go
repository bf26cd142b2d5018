package registryprom

import (
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

// memory has the values of a scrape, cut from larger pieces: a thousand providers have some fifteen thousand series. It is
// not safe for concurrent use.
type memory struct {
	rows     pieces[providerRow]
	cells    pieces[cell]
	outcomes pieces[outcomes]

	pairs   pieces[dto.LabelPair]
	labels  pieces[*dto.LabelPair]
	strings pieces[string]

	gauges    pieces[gauge]
	counters  pieces[counter]
	durations pieces[durations]
	metrics   pieces[dto.Metric]

	histograms pieces[dto.Histogram]
	buckets    pieces[dto.Bucket]
	classic    pieces[*dto.Bucket]
	spans      pieces[dto.BucketSpan]
	native     pieces[*dto.BucketSpan]
	offsets    pieces[int32]
	lengths    pieces[uint32]
	deltas     pieces[int64]
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
func (m *memory) pair(label, value string) *dto.LabelPair {
	text, pair := &m.strings.take(1)[0], &m.pairs.take(1)[0]
	*text = value
	pair.Name, pair.Value = labelNames[label], text
	return pair
}

// list returns a list of labels, which are in the order of their names.
func (m *memory) list(pairs ...*dto.LabelPair) []*dto.LabelPair {
	list := m.labels.take(len(pairs))
	copy(list, pairs)
	return list
}

// durationsFor returns empty durations.
func (m *memory) durationsFor(of *prometheus.Desc, scale *scale) *durations {
	d := &m.durations.take(1)[0]
	d.of, d.scale = of, scale
	return d
}

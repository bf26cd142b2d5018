package registryprom

import (
	"bufio"
	"net/http"
	"slices"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	dto "github.com/prometheus/client_model/go"
)

// Handler returns a handler that answers a scrape with the present measurements and, in the same answer, with what others
// gather, such as prometheus.DefaultGatherer.
//
// A scrape of many providers takes it half the time of a [prometheus.Registry] with the collector in it, which checks and
// sorts every series. Nor does it compress the answer, which takes longer than all else: a handler that does is
// promhttp.HandlerFor, of the collector as well. The error of another gatherer fails the scrape with status 500, and so does a
// series that two of them have. With [Options.Exemplar] it speaks OpenMetrics with those that ask for it: exemplars need that.
//
// It does not block on calls, and is safe for concurrent use.
func (c *Collector) Handler(others ...prometheus.Gatherer) http.Handler {
	all := together{c, slices.DeleteFunc(slices.Clone(others), func(g prometheus.Gatherer) bool { return g == nil })}
	answer := promhttp.HandlerFor(all, promhttp.HandlerOpts{DisableCompression: true, EnableOpenMetrics: c.exemplars != nil})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		to := buffered{w, bufio.NewWriterSize(w, bufferSize)}
		answer.ServeHTTP(to, r)
		_ = to.buffer.Flush() // it fails when the client has gone
	})
}

// bufferSize makes a large answer some forty writes to the network.
const bufferSize = 64 << 10

// buffered is an answer whose text is written in small parts.
type buffered struct {
	http.ResponseWriter
	buffer *bufio.Writer
}

// Write writes a part.
func (b buffered) Write(part []byte) (int, error) { return b.buffer.Write(part) }

// WriteString writes a part.
func (b buffered) WriteString(part string) (int, error) { return b.buffer.WriteString(part) }

// WriteByte writes a part.
func (b buffered) WriteByte(part byte) error { return b.buffer.WriteByte(part) }

// together gathers what a collector and others have.
type together struct {
	collector *Collector
	others    []prometheus.Gatherer
}

// Gather returns the families of all. Only names that several have are checked by series.
func (t together) Gather() ([]*dto.MetricFamily, error) {
	own, _ := t.collector.Gather() // its error is always nil
	lists, all := prometheus.Gatherers{gathered(own)}, slices.Clone(own)
	for _, other := range t.others {
		families, err := other.Gather()
		if err != nil {
			return nil, err
		}
		lists, all = append(lists, gathered(families)), append(all, families...)
	}
	slices.SortStableFunc(all, func(a, b *dto.MetricFamily) int { return strings.Compare(a.GetName(), b.GetName()) })
	for i := range len(all) - 1 {
		if all[i].GetName() == all[i+1].GetName() {
			return lists.Gather()
		}
	}
	return all, nil
}

// gathered holds the families of a gatherer.
type gathered []*dto.MetricFamily

// Gather returns them.
func (g gathered) Gather() ([]*dto.MetricFamily, error) { return g, nil }

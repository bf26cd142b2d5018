package registryprom

import (
	"bufio"
	"bytes"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
)

// Handler returns a handler that answers a scrape with the present measurements and, in the same answer, with what others
// gather, such as prometheus.DefaultGatherer.
//
// A scrape of many providers takes it about half the time of a [prometheus.Registry] with the collector in it, which checks
// and sorts every series. Nor does it compress the answer, which takes longer than all else: a handler that does is
// promhttp.HandlerFor, of the collector as well. The error of another gatherer fails the scrape with status 500, and so does a
// series that two of them have; a family without a name or series, which only others can have, cuts the answer off. With
// [Options.Exemplar] it speaks OpenMetrics with those that ask for it: exemplars need that. Parameters name[] of a request
// name the families wanted.
//
// It does not block on calls, and is safe for concurrent use.
func (c *Collector) Handler(others ...prometheus.Gatherer) http.Handler {
	all := together{c, slices.DeleteFunc(slices.Clone(others), func(g prometheus.Gatherer) bool { return g == nil })}
	formats := expfmt.DefaultAcceptedFormats()
	if c.exemplars != nil {
		formats = expfmt.DefaultOpenMetricsAcceptedFormats()
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		families, err := all.Gather()
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		if wanted := r.URL.Query()["name[]"]; len(wanted) > 0 {
			families = slices.DeleteFunc(families, func(f *dto.MetricFamily) bool { return !slices.Contains(wanted, f.GetName()) })
		}
		a := answer{families, expfmt.NegotiateAccept(r.Header, formats...)}
		w.Header().Set("Vary", "Accept")
		w.Header().Set("Content-Type", string(a.format))
		a.writeTo(w)
	})
}

// answer holds the families of a scrape, and the format in which they are sent.
type answer struct {
	families []*dto.MetricFamily
	format   expfmt.Format
}

// bufferSize makes a large answer some forty writes to the network.
const bufferSize = 64 << 10

// writeTo writes the families, while a second goroutine encodes the latter half of them.
func (a answer) writeTo(w http.ResponseWriter) {
	middle, size := a.middle()
	var latter bytes.Buffer
	latter.Grow(size)
	var second error
	var both sync.WaitGroup
	both.Go(func() {
		defer func() { // nothing else keeps what others gather from ending the program
			if value := recover(); value != nil {
				second = fmt.Errorf("registryprom: encoding the families from %q on panicked: %v", a.families[middle].GetName(), value)
			}
		}()
		to := expfmt.NewEncoder(&latter, a.format)
		if second = encode(to, a.families[middle:]); second != nil {
			return
		}
		if end, ends := to.(expfmt.Closer); ends {
			second = end.Close()
		}
	})
	to := bufio.NewWriterSize(w, bufferSize)
	first := encode(expfmt.NewEncoder(to, a.format), a.families[:middle])
	both.Wait()
	if first == nil {
		_, first = latter.WriteTo(to)
	}
	if to.Flush() == nil && (first != nil || second != nil) {
		panic(http.ErrAbortHandler) // the client is there, and is not to take the part for the whole
	}
}

func encode(to expfmt.Encoder, families []*dto.MetricFamily) error {
	for _, family := range families {
		if err := to.Encode(family); err != nil {
			return err
		}
	}
	return nil
}

// bytesOfLine is somewhat more than those of most lines.
const bytesOfLine = 128

// middle returns the first family of the latter half, and about the bytes of this half.
func (a answer) middle() (middle, size int) {
	all, before := 0, 0
	for _, family := range a.families {
		all += linesOf(family)
	}
	for ; before < all/2; middle++ {
		before += linesOf(a.families[middle])
	}
	return middle, (all - before) * bytesOfLine
}

// linesOf returns the lines of a family as text.
func linesOf(family *dto.MetricFamily) int {
	all := family.GetMetric()
	if len(all) == 0 || all[0].GetHistogram() == nil {
		return len(all)
	}
	return len(all) * (len(all[0].GetHistogram().GetBucket()) + 3)
}

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

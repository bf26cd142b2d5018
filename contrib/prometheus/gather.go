package registryprom

import (
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

// Gather returns the present measurements, as [prometheus.Gatherer] does: for a handler of promhttp with options of its own.
// See [Collector.Handler] for what it saves. It does not block on calls. The error is always nil.
func (c *Collector) Gather() ([]*dto.MetricFamily, error) {
	durations, others := newGathering(c.exemplars), newGathering(c.exemplars) // of about the same size
	r := c.read(others.memory)
	var both sync.WaitGroup
	both.Go(func() { durations.attempts(r.providers) })
	others.others(&r)
	both.Wait()
	maps.Copy(others.families, durations.families)
	sorted := make([]*dto.MetricFamily, 0, len(others.families))
	for of, family := range others.families {
		about := abouts[of]
		family.Name, family.Help, family.Type = &about.name, &about.help, typeOf(family.Metric[0])
		sorted = append(sorted, family)
	}
	slices.SortFunc(sorted, func(a, b *dto.MetricFamily) int { return strings.Compare(a.GetName(), b.GetName()) })
	return sorted, nil
}

// gathering is a scrape that puts its series into families.
type gathering struct {
	*scrape
	families map[*prometheus.Desc]*dto.MetricFamily
}

func newGathering(e *exemplars) *gathering {
	g := &gathering{families: make(map[*prometheus.Desc]*dto.MetricFamily, len(described))}
	g.scrape = &scrape{send: g.add, exemplars: e, memory: &memory{}}
	return g
}

// add adds a series. One that cannot be written is left out.
func (g *gathering) add(m prometheus.Metric) {
	out := &g.metrics.take(1)[0]
	if m.Write(out) != nil {
		return
	}
	family := g.families[m.Desc()]
	if family == nil {
		family = &dto.MetricFamily{}
		g.families[m.Desc()] = family
	}
	family.Metric = append(family.Metric, out)
}

func typeOf(m *dto.Metric) *dto.MetricType {
	switch {
	case m.Counter != nil:
		return dto.MetricType_COUNTER.Enum()
	case m.Gauge != nil:
		return dto.MetricType_GAUGE.Enum()
	}
	return dto.MetricType_HISTOGRAM.Enum()
}

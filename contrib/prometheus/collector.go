package registryprom

import (
	"cmp"
	"context"
	"slices"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/capreg/registry"
	"github.com/capreg/registry/event"
	"github.com/capreg/registry/metrics"
	"github.com/capreg/registry/startup"
)

// Other is the label of everything beyond [Options.MaxProviders] and [Options.MaxServices] together.
const Other = "other"

// Defaults of the bounds of [Options].
const (
	DefaultMaxProviders = 1000
	DefaultMaxServices  = 200
)

// Options configures a [Collector].
type Options struct {
	// MaxProviders bounds the providers that have series of their own, the first in the order of all listings; those
	// beyond it are added up as [Other]. A negative number adds up all of them. Default: 1,000.
	MaxProviders int
	// MaxServices bounds the services that have series of their own, the first by name; those beyond it, and their
	// providers, are added up as [Other]. A negative number adds up all of them. Default: 200.
	MaxServices int
	// AllBuckets gives the durations of attempts the fifteen buckets of those of calls, the doublings of 5 ms. Default: every
	// other one, eight; native histograms have a bucket for each doubling anyway.
	AllBuckets bool
	// Exemplar returns the labels of the trace that ctx is part of, such as trace_id and span_id, and nil where there is
	// none or it is not sampled. It is called after each call and attempt, in their goroutine, with what the hooks before
	// them have added to the context. The latest one of each bucket is an exemplar of the durations, in OpenMetrics and
	// native histograms; labels with more than 128 characters in all are left out. Default: none, and calls have no hook for
	// it. With one they are not on the fast path of calls without hooks.
	Exemplar func(ctx context.Context) prometheus.Labels
	// Orchestrator is the one whose components are shown, too. Default: none.
	Orchestrator *registry.Orchestrator
}

// Collector shows the measurements of a registry. Serve it with [Collector.Handler]; it implements [prometheus.Collector]
// and [prometheus.Gatherer] as well. It is safe for concurrent use, starts no goroutine that outlives a scrape, and holds no
// state but exemplars: a scrape reads the registry. Use [New] to create one.
type Collector struct {
	registry     *registry.Registry
	orchestrator *registry.Orchestrator
	exemplars    *exemplars
	ofAttempts   *scale
	providers    int // that have series of their own
	services     int
}

// New returns a collector of the registry, to be served or registered once. A registry that is nil or closed shows no providers.
func New(r *registry.Registry, options Options) *Collector {
	c := &Collector{
		registry: r, orchestrator: options.Orchestrator, ofAttempts: &ofAttempts,
		providers: max(cmp.Or(options.MaxProviders, DefaultMaxProviders), 0),
		services:  max(cmp.Or(options.MaxServices, DefaultMaxServices), 0),
	}
	if options.AllBuckets {
		c.ofAttempts = &ofCalls
	}
	if options.Exemplar != nil {
		c.exemplars = watch(r, options.Exemplar, c.ofAttempts)
	}
	return c
}

// Describe sends the descriptions of all metrics.
func (c *Collector) Describe(to chan<- *prometheus.Desc) {
	for _, d := range described {
		to <- d
	}
}

// Collect sends the present measurements. It does not block on calls.
//
// Series are sent in the order of their labels, as far as that costs nothing: what receives them sorts them.
func (c *Collector) Collect(to chan<- prometheus.Metric) {
	s := &scrape{send: func(m prometheus.Metric) { to <- m }, exemplars: c.exemplars, memory: &memory{}}
	r := c.read(s.memory)
	s.attempts(r.providers)
	s.others(&r)
}

// reading has the rows of one scrape.
type reading struct {
	snapshot   metrics.Snapshot
	services   []*serviceRow
	providers  []*providerRow
	components []startup.Component
}

func (c *Collector) read(to *memory) reading {
	r := reading{snapshot: c.registry.Metrics()}
	c.exemplars.forget(&r.snapshot)
	r.services, r.providers = c.serviceRows(&r.snapshot, to), c.providerRows(&r.snapshot, to)
	if c.orchestrator != nil {
		r.components = c.orchestrator.Report().Components
	}
	return r
}

// others sends all but the durations of attempts.
func (s *scrape) others(r *reading) {
	for i, kind := range kinds.texts {
		s.count(events, float64(r.snapshot.Events[event.Kind(kind)]), kinds.pairs[i])
	}
	s.gauge(draining, float64(r.snapshot.Totals.Draining))
	s.services(r.services)
	for _, row := range r.providers {
		s.numbers(row)
	}
	s.components(r.components)
}

// serviceRows returns the services, those beyond the bound as one, by label.
func (c *Collector) serviceRows(snapshot *metrics.Snapshot, to *memory) []*serviceRow {
	rows := make(map[string]*serviceRow)
	at := func(name string) *serviceRow {
		known := rows[name]
		if known == nil {
			known = &serviceRow{service: name}
			rows[name] = known
		}
		return known
	}
	for i := range snapshot.Services {
		m := &snapshot.Services[i]
		at(c.serviceLabel(snapshot, m.Name)).add(m, to)
	}
	for i := range snapshot.Providers {
		if p := &snapshot.Providers[i]; p.Eligible {
			at(c.serviceLabel(snapshot, p.Service)).serves(p.Group)
		}
	}
	sorted := make([]*serviceRow, 0, len(rows))
	for _, r := range rows {
		sorted = append(sorted, r)
	}
	slices.SortFunc(sorted, func(a, b *serviceRow) int { return cmp.Compare(a.service, b.service) })
	return sorted
}

// serviceLabel returns the label of a service.
func (c *Collector) serviceLabel(snapshot *metrics.Snapshot, name string) string {
	// One that is not in the snapshot came while it was made; it is behind all others only in this scrape.
	at, known := slices.BinarySearchFunc(snapshot.Services, name, func(s metrics.Service, name string) int { return cmp.Compare(s.Name, name) })
	if at >= c.services || !known && len(snapshot.Services) >= c.services {
		return Other
	}
	return name
}

// providerRows returns the providers, those beyond the bounds as one for each service, by their labels.
func (c *Collector) providerRows(snapshot *metrics.Snapshot, to *memory) []*providerRow {
	sorted := make([]*providerRow, len(snapshot.Providers))
	for i := range sorted {
		p, r := &snapshot.Providers[i], &to.rows.take(1)[0]
		r.cells, r.attempts = to.cells.take(usualCells)[:0], to.outcomes.take(usualOutcomes)[:0]
		r.service, r.provider = p.Service, p.Name
		if len(snapshot.Services) > c.services {
			r.service = c.serviceLabel(snapshot, p.Service)
		}
		if i >= c.providers || r.service != p.Service {
			r.provider = Other
		}
		r.add(p, to, c.ofAttempts)
		sorted[i] = r
	}
	slices.SortStableFunc(sorted, func(a, b *providerRow) int {
		return cmp.Or(cmp.Compare(a.provider, b.provider), cmp.Compare(a.service, b.service))
	})
	merged := sorted[:0]
	for _, r := range sorted {
		if n := len(merged); n > 0 && merged[n-1].provider == r.provider && merged[n-1].service == r.service {
			merged[n-1].merge(r)
		} else {
			merged = append(merged, r)
		}
	}
	for _, r := range merged {
		r.labels = to.list(to.pair("provider", r.provider), to.pair("service", r.service))
	}
	return merged
}

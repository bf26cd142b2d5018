package registryprom

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/capreg/registry"
	"github.com/capreg/registry/metrics"
	"github.com/capreg/registry/verdict"
)

// exemplars keeps the latest exemplar of each bucket of the durations of calls and attempts, from hooks. One that is nil
// has none.
type exemplars struct {
	labels     func(context.Context) prometheus.Labels
	ofAttempts *scale

	// mu guards the fields below. No user code runs while it is held.
	mu     sync.Mutex
	latest map[exemplarKey]*[classicBuckets + 1]prometheus.Exemplar
}

// exemplarKey is a series: of a service, or of a provider.
type exemplarKey struct {
	service, provider string // provider is empty for that of a service
	class             int    // of errorTypes
}

// watch has the registry tell of its calls from now on. One that was not made with registry.New has none.
func watch(r *registry.Registry, labels func(context.Context) prometheus.Labels, ofAttempts *scale) *exemplars {
	e := &exemplars{labels: labels, ofAttempts: ofAttempts, latest: make(map[exemplarKey]*[classicBuckets + 1]prometheus.Exemplar)}
	_, err := r.AddHooks(registry.Hooks{
		AfterCall: func(ctx context.Context, c registry.CallReport) {
			class := verdict.ClassSuccess
			if c.Err != nil && len(c.Attempts) > 0 {
				class = c.Attempts[len(c.Attempts)-1].Class
			} else if c.Err != nil {
				class = verdict.ClassCannot
			}
			e.note(ctx, c.Service, "", class, c.Duration)
		},
		AfterAttempt: func(ctx context.Context, c registry.CallReport, a registry.Attempt) {
			e.note(ctx, c.Service, a.Provider, a.Class, a.Duration)
		},
	})
	if err != nil {
		return nil
	}
	return e
}

func (e *exemplars) note(ctx context.Context, service, provider string, class verdict.Class, took time.Duration) {
	labels := e.labels(ctx)
	if len(labels) == 0 {
		return
	}
	made := prometheus.Exemplar{Value: took.Seconds(), Labels: labels, Timestamp: time.Now()}
	if _, err := prometheus.NewMetricWithExemplars(&durations{}, made); err != nil {
		return // such as of labels that are too long: it would make the scrape fail
	}
	scale := &ofCalls
	if provider != "" {
		scale = e.ofAttempts
	}
	bucket, _ := slices.BinarySearch(scale.bounds, made.Value)
	key := exemplarKey{service, provider, errorTypes.at[errorType(class)]}
	e.mu.Lock()
	defer e.mu.Unlock()
	known := e.latest[key]
	if known == nil {
		known = &[classicBuckets + 1]prometheus.Exemplar{}
		e.latest[key] = known
	}
	known[bucket] = made
}

// of returns the exemplars of a series.
func (e *exemplars) of(service, provider string, class int) (all []prometheus.Exemplar) {
	if e == nil {
		return nil
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	known := e.latest[exemplarKey{service, provider, class}]
	if known == nil {
		return nil
	}
	for _, one := range known {
		if one.Labels != nil {
			all = append(all, one)
		}
	}
	return all
}

// forget removes those of services and providers that are not in the snapshot.
func (e *exemplars) forget(snapshot *metrics.Snapshot) {
	if e == nil {
		return
	}
	present := make(map[[2]string]bool)
	for i := range snapshot.Services {
		present[[2]string{snapshot.Services[i].Name}] = true
	}
	for i := range snapshot.Providers {
		present[[2]string{snapshot.Providers[i].Service, snapshot.Providers[i].Name}] = true
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	for key := range e.latest {
		if !present[[2]string{key.service, key.provider}] {
			delete(e.latest, key)
		}
	}
}

package registryprom

import (
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/capreg/registry/metrics"
	"github.com/capreg/registry/reason"
	"github.com/capreg/registry/startup"
)

// about holds the name and the help of a description, which does not give them out again.
type about struct{ name, help string }

//nolint:gochecknoglobals // complete once the package is initialised
var abouts = make(map[*prometheus.Desc]about)

// desc describes a metric of that name and with those labels. It is for the initialisation of the package alone.
func desc(name, help string, labels ...string) *prometheus.Desc {
	name = "registry_" + name
	d := prometheus.NewDesc(name, help, labels, nil)
	abouts[d] = about{name, help}
	return d
}

//nolint:gochecknoglobals // descriptions, immutable
var (
	calls        = desc("calls_total", "Calls that have ended, by the class of the outcome; empty for an answer.", "service", "error_type")
	callDuration = desc("call_duration_seconds", "Time of calls as their callers saw it, by the class of the outcome; empty for an answer.", "service", "error_type")
	callAttempts = desc("call_attempts", "Attempts of calls.", "service")
	callWaits    = desc("call_wait_duration_seconds", "Times that calls waited before an attempt: queued, for a cooldown or limit, before a retry.", "service")
	lookups      = desc("lookups_total", "Look-ups, by whether they gave out a provider.", "service", "result")
	lookupFails  = desc("lookup_failures_total", "Look-ups that gave out no provider, once for each reason among the candidates.", "service", "reason")
	lookupTime   = desc("lookup_duration_seconds", "Time of look-ups, of a sample of them.", "service")
	groupActive  = desc("priority_group_active", "Lowest group with a provider that could be given a call; none is shown if there is no such provider.", "service")
	served       = desc("service_eligible_providers", "Providers that could be given a call.", "service")

	attemptDuration = desc("attempt_duration_seconds", "Time of attempts until the answer began, by the class of the outcome; empty for an answer.", "service", "provider", "error_type")

	events   = desc("events_total", "Changes, by kind.", "kind")
	draining = desc("draining_providers", "Providers that have left and have calls in flight.")

	componentStatus   = desc("component_status", "1 for the present state of the component.", "component", "state")
	componentRestarts = desc("component_restarts_total", "Restarts of the component.", "component")
	componentReady    = desc("component_start_duration_seconds", "Time from the beginning of the start until the component was ready; none is shown before.", "component")

	described = func() []*prometheus.Desc {
		all := []*prometheus.Desc{
			calls, callDuration, callAttempts, callWaits, lookups, lookupFails, lookupTime, groupActive, served, attemptDuration,
			events, draining, componentStatus, componentRestarts, componentReady,
		}
		for i := range families {
			all = append(all, families[i].of)
		}
		return all
	}()
)

// providerRow has the numbers of the providers with one pair of labels, mostly a single one.
type providerRow struct {
	service, provider string
	labels            []*dto.LabelPair // provider and service
	cells             []cell
	merged            bool
	attempts          []outcomes
}

// outcomes are durations of one class.
type outcomes struct {
	class     int // of errorTypes
	durations *durations
}

func (r *providerRow) add(p *metrics.Provider, m *memory, scale *scale) {
	first := 0
	for i := range families {
		families[i].add(p, cells{r, first})
		first += families[i].width()
	}
	r.attempts = addOutcomes(r.attempts, m, attemptDuration, scale, p.Attempts)
}

func (r *providerRow) increase(at int, by float64) {
	for i := range r.cells {
		if r.cells[i].at == at {
			r.cells[i].value += by
			return
		}
	}
	r.cells = append(r.cells, cell{at, by})
}

func (r *providerRow) merge(other *providerRow) {
	for _, c := range other.cells {
		r.increase(c.at, c.value)
	}
	r.merged = true
	for _, o := range other.attempts {
		known := durationsOf(r.attempts, o.class)
		if known == nil {
			r.attempts = append(r.attempts, o)
		} else {
			known.merge(o.durations)
		}
	}
}

// addOutcomes adds durations by class. That of answers is always there.
func addOutcomes(to []outcomes, m *memory, of *prometheus.Desc, scale *scale, measured []metrics.Outcomes) []outcomes {
	at := func(class int) *durations {
		known := durationsOf(to, class)
		if known == nil {
			known = m.durationsFor(of, scale)
			to = append(to, outcomes{class, known})
		}
		return known
	}
	at(errorTypes.at[""])
	for i := range measured {
		at(errorTypes.at[errorType(measured[i].Class)]).add(&measured[i].Duration)
	}
	return to
}

// durationsOf returns those of a class; nil if there are none.
func durationsOf(all []outcomes, class int) *durations {
	for _, o := range all {
		if o.class == class {
			return o.durations
		}
	}
	return nil
}

// serviceRow has the numbers of the services with one label, mostly a single one.
type serviceRow struct {
	service      string
	known        bool // to the registry, at the beginning of the snapshot
	hits, misses uint64
	failures     map[reason.Code]uint64
	calls        []outcomes
	lookupTime   durations
	waits        durations
	attempts     metrics.Amounts
	eligible     int
	group        int
}

func (r *serviceRow) add(m *metrics.Service, from *memory) {
	if !r.known {
		r.known = true
		r.failures = make(map[reason.Code]uint64)
		r.lookupTime = durations{of: lookupTime, scale: &ofLookups}
		r.waits = durations{of: callWaits, scale: &ofCalls}
		r.attempts.AtMost = make([]uint64, len(metrics.AmountBounds()))
	}
	r.hits, r.misses = r.hits+m.Hits, r.misses+m.Misses
	for code, times := range m.MissesByReason {
		r.failures[code] += times
	}
	r.calls = addOutcomes(r.calls, from, callDuration, &ofCalls, m.Calls)
	r.lookupTime.add(&m.LookupTime)
	r.waits.add(&m.Waits)
	r.attempts.Count, r.attempts.Sum = r.attempts.Count+m.Attempts.Count, r.attempts.Sum+m.Attempts.Sum
	for i, below := range m.Attempts.AtMost {
		r.attempts.AtMost[i] += below
	}
}

// serves notes a provider that could be given a call.
func (r *serviceRow) serves(group int) {
	if r.eligible == 0 || group < r.group {
		r.group = group
	}
	r.eligible++
}

func (s *scrape) services(rows []*serviceRow) {
	for _, r := range rows {
		service := s.pair("service", r.service)
		s.gauge(served, float64(r.eligible), service)
		if r.eligible > 0 {
			s.gauge(groupActive, float64(r.group), service)
		}
		if !r.known {
			continue
		}
		s.count(lookups, float64(r.hits), results.pairs[0], service)
		s.count(lookups, float64(r.misses), results.pairs[1], service)
		for i, code := range codes.texts {
			if code := reason.Code(code); code != reason.Eligible && code != reason.Trial { // which fail no look-up
				s.count(lookupFails, float64(r.failures[code]), codes.pairs[i], service)
			}
		}
		var ended [256]uint64 // there are fewer classes
		for _, o := range r.calls {
			ended[o.class] = o.durations.count
			s.ended(o, r.service, "", errorTypes.pairs[o.class], service)
		}
		for class := range errorTypes.texts {
			s.count(calls, float64(ended[class]), errorTypes.pairs[class], service)
		}
		s.histogram(&r.waits, service)
		s.histogram(&r.lookupTime, service)
		s.amounts(callAttempts, &r.attempts, service)
	}
}

// attempts sends the durations of attempts, by class.
func (s *scrape) attempts(rows []*providerRow) {
	byClass := make([][]*providerRow, len(errorTypes.texts))
	for _, r := range rows {
		for _, o := range r.attempts {
			byClass[o.class] = append(byClass[o.class], r)
		}
	}
	for class, with := range byClass {
		for _, r := range with {
			o := outcomes{class, durationsOf(r.attempts, class)}
			s.ended(o, r.service, r.provider, errorTypes.pairs[class], r.labels[0], r.labels[1])
		}
	}
}

func (s *scrape) numbers(r *providerRow) {
	for _, c := range r.cells {
		f, word := places[c.at].family, places[c.at].word
		if !r.merged || !f.single {
			s.number(f, c.value, s.wordLabels(f, r, word))
		}
	}
}

// wordLabels returns the labels of a number of a provider, in their order.
func (s *scrape) wordLabels(f *family, r *providerRow, word int) []*dto.LabelPair {
	if f.words == nil {
		return r.labels
	}
	pair := f.words.pairs[word]
	if pair.GetName() < "service" {
		return s.list(r.labels[0], pair, r.labels[1])
	}
	return s.list(r.labels[0], r.labels[1], pair)
}

func (s *scrape) components(all []startup.Component) {
	for i := range all {
		component := s.pair("component", all[i].Name)
		for word, state := range components.texts {
			value := 0.0
			if all[i].State.String() == state {
				value = 1
			}
			s.gauge(componentStatus, value, component, components.pairs[word])
		}
		s.count(componentRestarts, float64(all[i].Restarts), component)
		if all[i].Ready > 0 {
			s.gauge(componentReady, all[i].Ready.Seconds(), component)
		}
	}
}

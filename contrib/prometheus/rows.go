package registryprom

import (
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/capreg/registry/metrics"
	"github.com/capreg/registry/reason"
	"github.com/capreg/registry/startup"
	"github.com/capreg/registry/status"
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

// family is a metric of every provider: a number, or one for each word of a list.
type family struct {
	of      *prometheus.Desc
	counter bool
	words   *words // nil: one number without a word
	from0   []bool // words that are always shown; the others are when they are not 0
	single  bool   // several providers have no sum of it
	// add adds the numbers of a provider, and reports whether it has the metric at all.
	add func(p *metrics.Provider, to []float64) bool
}

// families are sent in this order.
//
//nolint:gochecknoglobals // immutable
var families = []family{
	{of: perProvider("attempt_active", "Attempts in progress."), add: func(p *metrics.Provider, to []float64) bool {
		to[0] += float64(p.InFlight)
		return true
	}},
	{of: perProvider("selections_total", "Attempts, by what they were made for.", "reason"), counter: true, words: &whys, from0: whys.some(texts(whysFrom0)), add: func(p *metrics.Provider, to []float64) bool {
		for why, times := range p.Whys {
			to[whys.at[string(why)]] += float64(times)
		}
		return true
	}},
	{of: perProvider("attempt_rejections_total", "Calls that were turned away by a provider that looked eligible.", "reason"), counter: true, words: &codes, from0: codes.some(texts(refusalsFrom0)), add: func(p *metrics.Provider, to []float64) bool {
		for code, times := range p.Refusals {
			to[codes.at[string(code)]] += float64(times)
		}
		return true
	}},
	{of: perProvider("circuit_breaker_status", "1 for the present state of the breaker.", "state"), words: &breakers, from0: breakers.some(breakers.texts), add: func(p *metrics.Provider, to []float64) bool {
		to[breakers.at[p.Breaker]]++
		return true
	}},
	{of: perProvider("circuit_breaker_transitions_total", "Changes of the breaker to the state.", "state"), counter: true, words: &breakers, from0: breakers.some(breakers.texts), add: addTransitions},
	{of: perProvider("provider_status", "1 for the present health of the provider.", "state"), words: &healths, from0: healths.some(healthsFrom0), add: func(p *metrics.Provider, to []float64) bool {
		to[healths.at[p.Health.String()]]++
		return true
	}},
	{of: perProvider("provider_standing", "1 for the word that says how the provider stands to a call.", "reason"), words: &codes, add: func(p *metrics.Provider, to []float64) bool {
		to[codes.at[string(p.Code)]]++
		return true
	}},
	{of: perProvider("provider_back_timestamp_seconds", "When the provider comes back by itself, if that is known."), single: true, add: func(p *metrics.Provider, to []float64) bool {
		to[0] = float64(p.BackAt.UnixMilli()) / 1000
		return !p.BackAt.IsZero()
	}},
	{of: perProvider("limit_places", "Attempts that the failure domain of the provider admits at a time, if that is limited."), add: func(p *metrics.Provider, to []float64) bool {
		to[0] += float64(p.Places)
		return p.Places > 0
	}},
	{of: perProvider("limit_places_used", "Places taken of these."), add: func(p *metrics.Provider, to []float64) bool {
		to[0] += float64(p.InUse.Places)
		return p.Places > 0
	}},
	{of: perProvider("queue_limit", "Calls that may wait for a place, if places are limited."), add: func(p *metrics.Provider, to []float64) bool {
		to[0] += float64(p.Queue)
		return p.Places > 0
	}},
	{of: perProvider("queue_calls", "Calls that wait for a place, if places are limited."), add: func(p *metrics.Provider, to []float64) bool {
		to[0] += float64(p.InUse.Queued)
		return p.Places > 0
	}},
	{of: perProvider("retry_budget_tokens", "Tokens left for further attempts, if these are limited."), add: func(p *metrics.Provider, to []float64) bool {
		to[0] += p.Budget.Left
		return p.BudgetSize > 0
	}},
	{of: perProvider("retry_budget_limit", "Tokens of a full budget, if there is one."), add: func(p *metrics.Provider, to []float64) bool {
		to[0] += float64(p.BudgetSize)
		return p.BudgetSize > 0
	}},
}

func perProvider(name, help string, word ...string) *prometheus.Desc {
	return desc(name, help, append([]string{"service", "provider"}, word...)...)
}

func addTransitions(p *metrics.Provider, to []float64) bool {
	for state, times := range map[status.BreakerState]uint64{
		status.BreakerClosed: p.Closed, status.BreakerOpen: p.Opened, status.BreakerHalfOpen: p.HalfOpened,
	} {
		to[breakers.at[state.String()]] += float64(times)
	}
	return true
}

// width is the number of values of a provider.
//
//nolint:gochecknoglobals // immutable
var width = func() (sum int) {
	for i := range families {
		sum += families[i].width()
	}
	return sum
}()

func (f *family) width() int {
	if f.words == nil {
		return 1
	}
	return len(f.words.texts)
}

// shows reports whether a number of the row is shown.
func (f *family) shows(r *providerRow, word int, value float64) bool {
	if f.words == nil {
		return !r.merged || !f.single
	}
	return value != 0 || f.from0 != nil && f.from0[word]
}

// providerRow has the numbers of the providers with one pair of labels, mostly a single one.
type providerRow struct {
	service, provider string
	labels            []*dto.LabelPair // provider and service
	values            []float64        // of all families
	has               uint64           // a bit for each family
	merged            bool
	attempts          []outcomes
}

// outcomes are durations of one class.
type outcomes struct {
	class     int // of errorTypes
	durations *durations
}

func (r *providerRow) add(p *metrics.Provider) {
	to := r.values
	for i := range families {
		f := &families[i]
		if f.add(p, to[:f.width()]) {
			r.has |= 1 << i
		}
		to = to[f.width():]
	}
	r.attempts = addOutcomes(r.attempts, attemptDuration, p.Attempts)
}

func (r *providerRow) merge(other *providerRow) {
	for i, value := range other.values {
		r.values[i] += value
	}
	r.has |= other.has
	r.merged = true
	for _, o := range other.attempts {
		durationsOf(&r.attempts, attemptDuration, o.class).merge(o.durations)
	}
}

// addOutcomes adds durations by class. That of answers is always there.
func addOutcomes(to []outcomes, of *prometheus.Desc, measured []metrics.Outcomes) []outcomes {
	durationsOf(&to, of, errorTypes.at[""])
	for i := range measured {
		durationsOf(&to, of, errorTypes.at[errorType(measured[i].Class)]).add(&measured[i].Duration)
	}
	return to
}

func durationsOf(all *[]outcomes, of *prometheus.Desc, class int) *durations {
	for _, o := range *all {
		if o.class == class {
			return o.durations
		}
	}
	made := &durations{of: of, scale: &ofCalls}
	*all = append(*all, outcomes{class, made})
	return made
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

func (r *serviceRow) add(m *metrics.Service) {
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
	r.calls = addOutcomes(r.calls, callDuration, m.Calls)
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
			s.outcomes(o, r.service, "", errorTypes.pairs[o.class], service)
		}
		for class := range errorTypes.texts {
			s.count(calls, float64(ended[class]), errorTypes.pairs[class], service)
		}
		s.durations(&r.waits, service)
		s.durations(&r.lookupTime, service)
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
			s.outcomes(outcomes{class, durationsOf(&r.attempts, attemptDuration, class)}, r.service, r.provider, errorTypes.pairs[class], r.labels[0], r.labels[1])
		}
	}
}

func (s *scrape) numbers(r *providerRow) {
	at := 0
	for i := range families {
		f := &families[i]
		for word := range f.width() {
			if value := r.values[at]; r.has&(1<<i) != 0 && f.shows(r, word, value) {
				s.number(f, value, s.wordLabels(f, r, word))
			}
			at++
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
		return s.labels(r.labels[0], pair, r.labels[1])
	}
	return s.labels(r.labels[0], r.labels[1], pair)
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

package registryotel

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strconv"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/capreg/registry"
	"github.com/capreg/registry/event"
	"github.com/capreg/registry/health"
	"github.com/capreg/registry/metrics"
	"github.com/capreg/registry/reason"
	"github.com/capreg/registry/status"
)

// Other is the provider attribute of all providers beyond [Options.MaxProviders] together.
const Other = "other"

// DefaultMaxProviders is the bound of [Options.MaxProviders] unless another is given.
const DefaultMaxProviders = 100

// The attributes of metrics beside those that spans and records have.
const (
	keyOf       = attribute.Key("registry.reason")
	keyState    = attribute.Key("registry.state")
	keyKind     = attribute.Key("registry.event.kind")
	keyAtMost   = attribute.Key("le")
	keyQuantile = attribute.Key("quantile")
)

// kind says how the values of an instrument belong together.
type kind uint8

const (
	counter kind = iota // only grows
	upDown              // can be added up
	gauge               // cannot
)

// instrument is one of the instruments of an [Observer].
type instrument struct {
	name, unit, description string
	kind                    kind
	whole                   bool // its values are whole numbers
}

func whole(kind kind, name, unit, description string) *instrument {
	return &instrument{"registry." + name, unit, description, kind, true}
}

func seconds(kind kind, name, description string) *instrument {
	return &instrument{"registry." + name, "s", description, kind, false}
}

//nolint:gochecknoglobals // descriptions, immutable
var (
	calls         = whole(counter, "calls", "{call}", "Calls that have ended; error.type is the class of those without an answer.")
	callTime      = seconds(counter, "call.time", "Time of calls as their callers saw it.")
	callDurations = whole(counter, "call.durations", "{call}", "Calls that took no longer than the bound.")
	callAttempts  = whole(counter, "call.attempts", "{attempt}", "Attempts of calls that have ended.")
	callWaits     = whole(counter, "call.waits", "{wait}", "Waits before attempts: queued, for a cooldown or limit, before a retry.")
	callWaitTime  = seconds(counter, "call.wait.time", "Time of these waits.")
	hits          = whole(counter, "lookup.hits", "{lookup}", "Look-ups that gave out a provider.")
	misses        = whole(counter, "lookup.misses", "{lookup}", "Look-ups that gave out none.")
	missReasons   = whole(counter, "lookup.failures", "{lookup}", "Look-ups that gave out none, once for each reason among the candidates.")
	groupActive   = whole(gauge, "priority_group.active", "1", "Lowest group with a provider that could be given a call.")
	eligible      = whole(upDown, "service.eligible_providers", "{provider}", "Providers that could be given a call.")

	attempts         = whole(counter, "attempts", "{attempt}", "Attempts that have ended; error.type is the class of those without an answer.")
	attemptTime      = seconds(counter, "attempt.time", "Time of attempts until the answer began.")
	attemptDurations = whole(counter, "attempt.durations", "{attempt}", "Attempts that took no longer than the bound.")
	attemptQuantiles = seconds(gauge, "attempt.duration.quantile", "Time within which that part of the answers of the last minute began.")
	attemptActive    = whole(upDown, "attempt.active", "{attempt}", "Attempts in progress.")
	selections       = whole(counter, "selections", "{selection}", "Attempts, by what they were made for.")
	rejections       = whole(counter, "attempt.rejections", "{attempt}", "Calls that were turned away by a provider that looked eligible.")
	breakerStatus    = whole(upDown, "circuit_breaker.status", "1", "1 for the present state of the breaker.")
	breakerChanges   = whole(counter, "circuit_breaker.transitions", "{transition}", "Changes of the breaker to the state.")
	providerStatus   = whole(upDown, "provider.status", "1", "1 for the present health of the provider.")
	standing         = whole(upDown, "provider.standing", "1", "1 for the word that says how the provider stands to a call.")
	backAt           = seconds(gauge, "provider.back_timestamp", "When the provider comes back by itself, in seconds since 1970, if that is known.")
	places           = whole(upDown, "limit.places", "{place}", "Attempts that the failure domain of the provider admits at a time.")
	placesUsed       = whole(upDown, "limit.places_used", "{place}", "Places taken of these.")
	queueRoom        = whole(upDown, "queue.limit", "{call}", "Calls that may wait for a place.")
	queued           = whole(upDown, "queue.calls", "{call}", "Calls that wait for a place.")
	budget           = &instrument{"registry.retry_budget.tokens", "{token}", "Tokens left for further attempts.", upDown, false}
	budgetSize       = whole(upDown, "retry_budget.limit", "{token}", "Tokens of a full budget.")

	events   = whole(counter, "events", "{event}", "Changes, by kind.")
	draining = whole(upDown, "draining_providers", "{provider}", "Providers that have left and have calls in flight.")

	instruments = []*instrument{
		calls, callTime, callDurations, callAttempts, callWaits, callWaitTime, hits, misses, missReasons, groupActive, eligible,
		attempts, attemptTime, attemptDurations, attemptQuantiles, attemptActive, selections, rejections, breakerStatus,
		breakerChanges, providerStatus, standing, backAt, places, placesUsed, queueRoom, queued, budget, budgetSize,
		events, draining,
	}

	refusals = []reason.Code{reason.Denied, reason.Throttled, reason.BudgetSpent, reason.AtCapacity}
	healths  = []health.State{health.Healthy, health.Degraded, health.Unhealthy, health.Unknown, health.Starting, health.Draining}
)

// bounds returns the upper bounds of durations: the doublings of 5 ms up to 81.92 s, and none.
func bounds() []float64 {
	all := make([]float64, 0, 16)
	for bound := 0.005; len(all) < cap(all)-1; bound *= 2 {
		all = append(all, bound)
	}
	return append(all, math.Inf(1))
}

// observeMetrics makes the instruments and observes them until unregister is called.
func observeMetrics(reg *registry.Registry, meter metric.Meter, most int) (unregister func() error, err error) {
	if most == 0 {
		most = DefaultMaxProviders
	}
	made := make(map[*instrument]metric.Observable, len(instruments))
	all := make([]metric.Observable, 0, len(instruments))
	for _, i := range instruments {
		one, err := i.make(meter)
		if err != nil {
			return nil, fmt.Errorf("registryotel: instrument %s: %w", i.name, err)
		}
		made[i] = one
		all = append(all, one)
	}
	registered, err := meter.RegisterCallback(func(_ context.Context, to metric.Observer) error {
		snapshot := reg.Metrics()
		s := newSamples()
		s.registry(&snapshot, max(most, 0))
		s.observe(to, made)
		return nil
	}, all...)
	if err != nil {
		return nil, fmt.Errorf("registryotel: metrics: %w", err)
	}
	return registered.Unregister, nil
}

func (i *instrument) make(meter metric.Meter) (metric.Observable, error) {
	described, unit := metric.WithDescription(i.description), metric.WithUnit(i.unit)
	switch {
	case i.kind == counter && i.whole:
		return meter.Int64ObservableCounter(i.name, described, unit)
	case i.kind == counter:
		return meter.Float64ObservableCounter(i.name, described, unit)
	case i.kind == upDown && i.whole:
		return meter.Int64ObservableUpDownCounter(i.name, described, unit)
	case i.kind == upDown:
		return meter.Float64ObservableUpDownCounter(i.name, described, unit)
	case i.whole:
		return meter.Int64ObservableGauge(i.name, described, unit)
	}
	return meter.Float64ObservableGauge(i.name, described, unit)
}

// samples are the values of one reading. Those with the same attributes are added up.
type samples struct {
	all   map[sampleKey]*sample
	order []*sample
}

type sampleKey struct {
	of  *instrument
	set attribute.Distinct
}

type sample struct {
	of    *instrument
	set   attribute.Set
	value float64
}

func newSamples() *samples { return &samples{all: make(map[sampleKey]*sample)} }

// add adds a value to the one with the attributes.
func (s *samples) add(of *instrument, value float64, attributes ...attribute.KeyValue) {
	set := attribute.NewSet(slices.Clone(attributes)...) // it sorts them
	key := sampleKey{of, set.Equivalent()}
	one := s.all[key]
	if one == nil {
		one = &sample{of: of, set: set}
		s.all[key] = one
		s.order = append(s.order, one)
	}
	one.value += value
}

func (s *samples) observe(to metric.Observer, made map[*instrument]metric.Observable) {
	for _, one := range s.order {
		with := metric.WithAttributeSet(one.set)
		switch i := made[one.of].(type) {
		case metric.Int64Observable:
			to.ObserveInt64(i, int64(one.value), with)
		case metric.Float64Observable:
			to.ObserveFloat64(i, one.value, with)
		}
	}
}

func (s *samples) registry(m *metrics.Snapshot, most int) {
	for _, kind := range event.Kinds() {
		s.add(events, float64(m.Events[kind]), keyKind.String(string(kind)))
	}
	s.add(draining, float64(m.Totals.Draining))
	for i := range m.Services {
		s.service(&m.Services[i])
	}
	lowest := make(map[string]int)
	for i := range m.Providers {
		p := &m.Providers[i]
		if group, known := lowest[p.Service]; p.Eligible && (!known || p.Group < group) {
			lowest[p.Service] = p.Group
		}
		name := p.Name
		if i >= most {
			name = Other
		}
		s.provider(p, name)
	}
	for service, group := range lowest {
		s.add(groupActive, float64(group), keyService.String(service))
	}
}

func (s *samples) service(m *metrics.Service) {
	by := keyService.String(m.Name)
	s.outcomes(calls, callTime, callDurations, m.Calls, by)
	s.add(callAttempts, float64(m.Attempts.Sum), by)
	s.add(callWaits, float64(m.Waits.Count), by)
	s.add(callWaitTime, m.Waits.Sum.Seconds(), by)
	s.add(hits, float64(m.Hits), by)
	s.add(misses, float64(m.Misses), by)
	for code, times := range m.MissesByReason {
		s.add(missReasons, float64(times), by, keyOf.String(string(code)))
	}
	s.add(eligible, 0, by)
}

func (s *samples) provider(p *metrics.Provider, name string) {
	by := []attribute.KeyValue{keyService.String(p.Service), keyProvider.String(name)}
	with := func(key attribute.Key, word string) []attribute.KeyValue {
		return []attribute.KeyValue{by[0], by[1], key.String(word)}
	}
	s.outcomes(attempts, attemptTime, attemptDurations, p.Attempts, by...)
	if minute := p.LastMinute; name != Other && minute.P99 > 0 {
		s.add(attemptQuantiles, minute.P50.Seconds(), with(keyQuantile, "0.5")...)
		s.add(attemptQuantiles, minute.P99.Seconds(), with(keyQuantile, "0.99")...)
	}
	s.add(attemptActive, float64(p.InFlight), by...)
	for _, why := range reason.Whys() {
		s.add(selections, float64(p.Whys[why]), with(keyOf, string(why))...)
	}
	for _, code := range refusals {
		s.add(rejections, float64(p.Refusals[code]), with(keyOf, string(code))...)
	}
	for state, changes := range map[status.BreakerState]uint64{
		status.BreakerClosed: p.Closed, status.BreakerOpen: p.Opened, status.BreakerHalfOpen: p.HalfOpened,
	} {
		s.add(breakerStatus, is(p.Breaker == state.String()), with(keyState, state.String())...)
		s.add(breakerChanges, float64(changes), with(keyState, state.String())...)
	}
	for _, state := range healths {
		s.add(providerStatus, is(p.Health == state), with(keyState, state.String())...)
	}
	s.add(standing, 1, with(keyOf, string(p.Code))...)
	if !p.BackAt.IsZero() && name != Other {
		s.add(backAt, float64(p.BackAt.UnixMilli())/1000, by...)
	}
	s.add(places, float64(p.Places), by...)
	s.add(placesUsed, float64(p.InUse.Places), by...)
	s.add(queueRoom, float64(p.Queue), by...)
	s.add(queued, float64(p.InUse.Queued), by...)
	s.add(budget, p.Budget.Left, by...)
	s.add(budgetSize, float64(p.BudgetSize), by...)
	s.add(eligible, is(p.Eligible), by[0])
}

// outcomes adds counts by class, their time, and their durations. Those of answers begin at 0.
func (s *samples) outcomes(count, time, durations *instrument, all []metrics.Outcomes, by ...attribute.KeyValue) {
	s.add(count, 0, by...)
	s.add(time, 0, by...)
	for _, o := range all {
		with := slices.Clone(by)
		if !isAnswer(o.Class) {
			with = append(with, keyErrorType.String(o.Class.String()))
		}
		s.add(count, float64(o.Duration.Count), with...)
		s.add(time, o.Duration.Sum.Seconds(), with...)
	}
	for _, bound := range bounds() {
		within := 0.0
		for _, o := range all {
			within += float64(atMost(o.Duration, bound))
		}
		s.add(durations, within, append(slices.Clip(by), keyAtMost.String(strconv.FormatFloat(bound, 'g', -1, 64)))...)
	}
}

// atMost counts the durations that are not above the bound, which is one of the buckets.
func atMost(h metrics.Histogram, bound float64) (count uint64) {
	for _, b := range h.Buckets {
		if b.AtMost > 0 && b.AtMost <= bound*(1+1e-9) || math.IsInf(bound, 1) {
			count += b.Count
		}
	}
	return count
}

func is(yes bool) float64 {
	if yes {
		return 1
	}
	return 0
}

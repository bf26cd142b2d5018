package registry

import (
	"context"
	"iter"
	"slices"

	"github.com/capreg/registry/event"
	"github.com/capreg/registry/internal/bus"
)

// Subscription is a subscriber's view of a registry: the providers at its beginning,
// then every change since, in order. Use [Registry.Subscribe] to begin one.
//
// It buffers a bounded number of unread events. When it is full the oldest are dropped, and the next event read
// carries their number in Lost. It never blocks the registry, and needs no goroutine. Its methods are safe for
// concurrent use; each event is read once, by one of the readers.
type Subscription struct {
	seen   []*seenProvider // which others share
	reader *bus.Reader
}

// Subscribe begins a subscription to the events that one of the filters accepts, or to all without any. It buffers up
// to the given number of unread events, at most 1,048,576; zero or less means 256. On a registry that is closed it has
// ended already, and with a filter that is refused: Next then returns the [FieldError]. Close it when it is no longer
// read. Subscribers share what they know of the providers: for one more nothing is copied but for what has changed.
func (r *Registry) Subscribe(buffer int, filters ...event.Filter) *Subscription {
	r = r.orClosed()
	if err := asInvalid(bus.CheckFilters(filters)); err != nil {
		return &Subscription{reader: r.bus.Refuse(err)}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, p := range r.views.Outdated(r.listingLocked(), placeOf) { // each by itself: there may be many
		r.mu.Unlock()
		breaker := p.breaker.stats()
		r.mu.Lock()
		p.seen.Look(p, func(Info) Info { return see(p, breaker) })
	}
	seen := r.views.All(r.listingLocked(), placeOf, func(p *provider, before Info) Info { return see(p, before.Breaker) })
	return &Subscription{seen: seen, reader: r.bus.Subscribe(buffer, filters)}
}

// Snapshot returns the providers at the moment the subscription began, in the order of [Registry.All], without those
// whose events its filters keep away. The events are all changes since. What no event tells, such as counts, is as it is
// now, and so is all of a provider without an event since. The list and what it holds are the caller's.
func (s *Subscription) Snapshot() []Info {
	s = s.orEnded()
	infos := make([]Info, 0, len(s.seen))
	for _, seen := range s.seen {
		if was := seen.Was(); s.reader.AcceptsProvider(was.Service, was.Name) {
			infos = append(infos, readSeen(seen))
		}
	}
	return infos
}

// Next returns the next event. It blocks while there is none, until ctx ends (the error then is the context's) or
// until the registry or the subscription is closed and all events are read (the error then matches [ErrClosed]).
func (s *Subscription) Next(ctx context.Context) (event.Event, error) {
	return s.orEnded().reader.Next(ctx)
}

// All yields the events that [Subscription.Next] returns, and stops at its first error.
func (s *Subscription) All(ctx context.Context) iter.Seq[event.Event] {
	return s.orEnded().reader.All(ctx)
}

// Close ends the subscription. Unread events can still be read. It may be called any number of times.
func (s *Subscription) Close() { s.orEnded().reader.Close() }

// orEnded returns the subscription, or one that has ended for one that was not handed out.
func (s *Subscription) orEnded() *Subscription {
	if s != nil && s.reader != nil {
		return s
	}
	return notMade.Subscribe(0)
}

// seenProvider is a provider as it was between two of its events. All subscriptions that begin between them share it.
type seenProvider = bus.View[provider, Info]

// readSeen returns the provider as it was, with the present counts.
func readSeen(seen *seenProvider) Info {
	was := seen.Was()
	was.Definition, was.HealthPolicy = was.clone(), was.HealthPolicy.Clone()
	was.Health.Groups, was.Health.Because = slices.Clone(was.Health.Groups), slices.Clone(was.Health.Because)
	p := seen.Of()
	if p == nil {
		return was
	}
	now := p.info()
	p.registry.mu.Lock()
	defer p.registry.mu.Unlock()
	if !p.seen.Shows(seen) {
		now.Definition, now.Generation, now.Made, now.Cooldown = was.Definition, was.Generation, was.Made, was.Cooldown
		now.Eligible, now.Code, now.Reason = was.Eligible, was.Code, was.Reason
		now.Health, now.HealthPolicy, now.Breaker, now.Retry = was.Health, was.HealthPolicy, was.Breaker, was.Retry
		now.Limits, now.AttemptTimeout, now.TimeoutGiven = was.Limits, was.AttemptTimeout, was.TimeoutGiven
	}
	return now
}

func placeOf(p *provider) *bus.Place[provider, Info] { return &p.seen }

// see returns the view of the provider as it is now. The state of the breaker is taken from the gate. Caller holds
// Registry.mu.
func see(p *provider, breaker BreakerStats) Info {
	breaker.State = p.gateNow().Breaker()
	return p.infoLocked(breaker)
}

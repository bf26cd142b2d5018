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
	snapshot []Info
	reader   *bus.Reader
}

// Subscribe begins a subscription that buffers up to the given number of unread events, at most 1,048,576; zero or
// less means 256. On a registry that is closed the subscription has ended already. Close it when it is no longer read.
func (r *Registry) Subscribe(buffer int) *Subscription {
	r = r.orClosed()
	breakers := r.breakers()
	r.mu.Lock()
	defer r.mu.Unlock()
	return &Subscription{snapshot: r.infosLocked(breakers), reader: r.bus.Subscribe(buffer)}
}

// Snapshot returns the providers at the moment the subscription began, in the order of
// [Registry.All]. The events are all changes since. It is a copy.
func (s *Subscription) Snapshot() []Info {
	infos := slices.Clone(s.orEnded().snapshot)
	for i := range infos {
		infos[i].Definition = infos[i].clone()
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

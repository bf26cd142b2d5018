package main

import (
	"context"
	"sync"

	"github.com/capreg/registry"
	"github.com/capreg/registry/event"
	"github.com/capreg/registry/status"
)

// history is the state of a registry according to its events.
type history struct {
	name   string
	ledger *ledger

	mu       sync.Mutex // guards the fields below
	sequence uint64
	missed   uint64
	last     event.Kind
	present  map[uint64]*past // by generation
	draining map[uint64]*past
	kinds    map[event.Kind]uint64
}

// past is the state of one provider according to the events.
type past struct {
	provider string
	breaker  string
	health   string // empty: no event so far
}

func newHistory(name string, books *ledger) *history {
	return &history{
		name: name, ledger: books, present: make(map[uint64]*past), draining: make(map[uint64]*past), kinds: make(map[event.Kind]uint64),
	}
}

// follow reads until the registry has closed.
func (h *history) follow(events *registry.Subscription) {
	for e := range events.All(context.Background()) {
		h.note(e)
	}
}

// note takes in one event and checks that it follows from those before.
func (h *history) note(e event.Event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if e.Sequence != h.sequence+1+e.Lost {
		h.ledger.broke("%s: event %d after %d, with %d lost", h.name, e.Sequence, h.sequence, e.Lost)
	}
	h.sequence, h.last = e.Sequence, e.Kind
	h.missed += e.Lost
	h.kinds[e.Kind]++
	if h.missed > 0 {
		return // events were missed
	}
	switch e.Kind {
	case event.Registered:
		if h.present[e.Generation] != nil {
			h.ledger.broke("%s: %s was registered twice", h.name, e.Provider)
		}
		h.present[e.Generation] = &past{provider: e.Provider, breaker: status.BreakerClosed.String()}
	case event.Draining:
		p := h.present[e.Generation]
		if p == nil {
			h.ledger.broke("%s: %s left without having been there", h.name, e.Provider)
			return
		}
		delete(h.present, e.Generation)
		h.draining[e.Generation] = p
	case event.Drained:
		if h.draining[e.Generation] == nil {
			h.ledger.broke("%s: %s has drained twice, or had not left", h.name, e.Provider)
		}
		delete(h.draining, e.Generation)
	case event.BreakerOpened, event.BreakerHalfOpened, event.BreakerClosed:
		h.turn(e, func(p *past) *string { return &p.breaker })
	case event.Healthy, event.Degraded, event.Unhealthy, event.Starting:
		h.turn(e, func(p *past) *string { return &p.health })
	default:
	}
}

// turn follows a state from one event to the next.
func (h *history) turn(e event.Event, state func(*past) *string) {
	p := h.present[e.Generation]
	if p == nil {
		h.ledger.broke("%s: %s has left, and then: %s", h.name, e.Provider, e.Kind)
		return
	}
	if now := state(p); *now != "" && *now != e.From {
		h.ledger.broke("%s: %s was %s, and then %s from %s to %s", h.name, e.Provider, *now, e.Kind, e.From, e.To)
	}
	*state(p) = e.To
}

// counts returns the numbers of present members, and of those that have left and not drained.
func (h *history) counts() (present, draining int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.present), len(h.draining)
}

// of returns the state of a provider by its events; whole is false when some were missed.
func (h *history) of(generation uint64) (p past, known, whole bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if found := h.present[generation]; found != nil {
		p, known = *found, true
	}
	return p, known, h.missed == 0
}

package registry

import (
	"errors"

	"github.com/capreg/registry/event"
)

// MarkUnhealthy takes the provider out of every pick until [Registration.MarkHealthy],
// for the given reason. Health is a signal of its own: the breaker and its counts
// stay as they are, and calls in flight go on. Marking again replaces the reason.
func (r *Registration) MarkUnhealthy(reason error) error {
	if reason == nil {
		reason = errors.New("no reason given")
	}
	return r.setHealth(reason)
}

// MarkHealthy makes the provider healthy again. Its breaker stays as it is: good
// health closes no breaker, as it says nothing of the calls.
func (r *Registration) MarkHealthy() error { return r.setHealth(nil) }

func (r *Registration) setHealth(illness error) error {
	p := r.provider
	text := cut(errorText(illness), 300) // a user's method: outside the lock
	p.registry.mu.Lock()
	defer p.registry.mu.Unlock()
	if err := r.presentLocked(); err != nil {
		return err
	}
	was := p.illness != nil
	p.illness = illness
	switch {
	case illness != nil:
		p.illnessText = text
		p.shiftLocked(0, gateUnhealthy, &event.Event{Kind: event.Unhealthy, Reason: text, Err: illness})
	case was:
		p.illnessText = ""
		p.shiftLocked(gateUnhealthy, 0, &event.Event{Kind: event.Healthy})
	}
	return nil
}

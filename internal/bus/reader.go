package bus

import (
	"cmp"
	"context"
	"fmt"
	"iter"

	"github.com/capreg/registry/event"
	"github.com/capreg/registry/internal/fault"
	"github.com/capreg/registry/internal/ring"
)

// Numbers of unread events that a [Reader] buffers.
const (
	DefaultBuffer = 256
	MaxBuffer     = 1 << 20
)

// Reader is one subscriber's place in the sequence of events. When its buffer is full the oldest event is dropped,
// and the next one that is read carries the number of those dropped in Lost. Use [Bus.Subscribe] to create one. All
// methods are safe for concurrent use, and called without the owner's lock. Each event is read once, by one of
// several goroutines that read.
//
//	state    event                next     effect
//	reading  Publish              reading  one goroutine in Next wakes
//	reading  Close, Bus.Close     ended    all goroutines in Next wake; unread events remain
//	ended    Next, nothing left   ended    the error is fault.ErrClosed
type Reader struct {
	bus     *Bus
	filters Filters
	refused error         // why it never began; nil: it has
	awake   chan struct{} // buffers one signal; each goroutine that leaves more to do passes it on

	// Guarded by the owner's lock.
	unread *ring.Ring[event.Event]
	ended  bool
}

// AcceptsProvider reports whether the filters of the reader may accept an event of the provider.
func (r *Reader) AcceptsProvider(service, provider string) bool {
	return r.filters.AcceptsProvider(service, provider)
}

// Next returns the next event. It blocks while there is none, until ctx ends (the error then is the context's) or
// until the reader has ended and nothing is left (the error then matches [fault.ErrClosed], or is why it was refused).
func (r *Reader) Next(ctx context.Context) (event.Event, error) {
	if ctx == nil {
		return event.Event{}, fmt.Errorf("registry: subscription: %w: nil context", fault.ErrInvalid)
	}
	for {
		e, ok, ended := r.pop()
		switch {
		case ok:
			return e, nil
		case ended:
			return event.Event{}, cmp.Or(r.refused, fmt.Errorf("registry: subscription: %w", fault.ErrClosed))
		}
		select {
		case <-r.awake:
		case <-ctx.Done():
			return event.Event{}, fault.Join("registry: subscription: ", fault.OfContext(ctx))
		}
	}
}

// All yields the events that [Reader.Next] returns, and stops at its first error.
func (r *Reader) All(ctx context.Context) iter.Seq[event.Event] {
	return func(yield func(event.Event) bool) {
		for {
			e, err := r.Next(ctx)
			if err != nil || !yield(e) {
				return
			}
		}
	}
}

// Close ends the reader. Unread events can still be read.
func (r *Reader) Close() {
	r.bus.host.Lock()
	defer r.bus.host.Unlock()
	r.end()
}

// end detaches the reader from the bus. Caller holds the lock.
func (r *Reader) end() {
	delete(r.bus.readers, r)
	r.ended = true
	r.wake()
}

func (r *Reader) pop() (e event.Event, ok, ended bool) {
	r.bus.host.Lock()
	defer r.bus.host.Unlock()
	e, lost, ok := r.unread.Pop()
	e.Lost = lost
	if r.ended || r.unread.Len() > 0 {
		r.wake() // another goroutine in Next
	}
	return e, ok, r.ended
}

func (r *Reader) wake() {
	select {
	case r.awake <- struct{}{}:
	default:
	}
}

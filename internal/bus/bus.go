// Package bus numbers events and delivers them to readers and to a log.
//
// A [Bus] is a part of its owner's state: the owner publishes each change in the step that makes it, with its own
// lock held, so that all readers see the changes in their one order. A [Reader] buffers a bounded number of events
// and counts those that it loses. The package owns the buffers and the goroutine that writes the log, which runs
// while there is something to write. It never blocks a publisher, and never calls the logger while the lock is held.
package bus

import (
	"maps"
	"sync"
	"time"

	"github.com/capreg/registry/event"
	"github.com/capreg/registry/internal/ring"
	"github.com/capreg/registry/internal/schedule"
)

// Host connects a [Bus] to its owner.
type Host interface {
	// Locker is the lock that guards the bus.
	sync.Locker
	// Go runs f in a goroutine that the host waits for. It returns false if it starts no more of them. It is
	// called with the lock held.
	Go(name string, f func()) bool
	// After runs f after d, without the lock. It must not block.
	After(d time.Duration, f func()) *schedule.Timer
}

// Bus is a sequence of events and its readers. Use [New] to create one. Its methods are called with the owner's lock
// held.
type Bus struct {
	host     Host
	log      *log // nil: no logger
	sequence uint64
	kinds    map[event.Kind]uint64 // how many there were
	readers  map[*Reader]struct{}
	closed   bool
}

// New returns an open bus, which writes to the loggers.
func New(host Host, loggers Loggers) *Bus {
	b := &Bus{host: host, kinds: make(map[event.Kind]uint64), readers: make(map[*Reader]struct{})}
	if !loggers.none() {
		b.log = newLog(host, loggers)
	}
	return b
}

// Publish gives the event its number and time, and delivers it to all readers and the log.
func (b *Bus) Publish(e event.Event) {
	b.sequence++
	b.kinds[e.Kind]++
	e.Sequence, e.Time = b.sequence, time.Now()
	for r := range b.readers {
		if r.filters.accepts(e) {
			r.unread.Push(e)
			r.wake()
		}
	}
	if b.log != nil {
		if e.Kind == event.Closing {
			b.log.flushAll()
		}
		b.log.add(entry{Event: e})
	}
}

// Kinds returns how many events of each kind there were.
func (b *Bus) Kinds() map[event.Kind]uint64 { return maps.Clone(b.kinds) }

// Subscribe returns a reader of the events from now on that the filters accept. It buffers up to the given number of
// them: at least one and at most [MaxBuffer], zero or less means [DefaultBuffer]. The reader of a closed bus has ended.
func (b *Bus) Subscribe(buffer int, filters Filters) *Reader {
	if buffer <= 0 {
		buffer = DefaultBuffer
	}
	r := &Reader{
		bus: b, filters: filters.clone(), ended: b.closed,
		awake: make(chan struct{}, 1), unread: ring.New[event.Event](min(buffer, MaxBuffer)),
	}
	if !b.closed {
		b.readers[r] = struct{}{}
	}
	return r
}

// Refuse returns a reader that has ended before it began, with the error.
func (b *Bus) Refuse(why error) *Reader {
	return &Reader{bus: b, refused: why, ended: true, awake: make(chan struct{}, 1), unread: ring.New[event.Event](1)}
}

// Close ends the readers after their last event. What is published afterwards reaches only the log.
func (b *Bus) Close() {
	for r := range b.readers {
		r.end()
	}
	b.closed = true
	if b.log != nil {
		b.log.flushAll()
	}
}

// Closed reports whether the bus is closed.
func (b *Bus) Closed() bool { return b.closed }

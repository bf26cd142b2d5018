package lifecycle

import (
	"sync"
	"time"

	"github.com/capreg/registry/internal/fault"
	"github.com/capreg/registry/internal/ring"
	"github.com/capreg/registry/startup"
)

// maxEvents bounds how many events wait for a slow listener.
const maxEvents = 1 << 16

// slowListener is the time of a listener for one event after which it is not waited for: it may wait for a start or a stop
// itself.
const slowListener = 10 * time.Second

// listener calls the listener of the program with one event after the other, in a goroutine that exists only while
// there is one. A nil one has no listener. Its methods take mu; the lock of the engine may be held, but for await.
type listener struct {
	listen func(startup.Event)

	// mu guards the fields below; nothing is called while it is held.
	mu         sync.Mutex
	events     *ring.Ring[startup.Event]
	delivering bool
	pushed     uint64        // how many events there were
	popped     uint64        // ... and were given to listen, or dropped
	heard      uint64        // ... after which it has returned
	progress   chan struct{} // closed when heard grows; nil while nothing waits
}

// newListener returns a listener that calls listen; nil for nil.
func newListener(listen func(startup.Event)) *listener {
	if listen == nil {
		return nil
	}
	return &listener{listen: listen, events: ring.New[startup.Event](maxEvents)}
}

// push gives it an event.
func (l *listener) push(event startup.Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.events.Push(event)
	l.pushed++
	if !l.delivering {
		l.delivering = true
		go l.deliver()
	}
}

// deliver calls the listener with events until there are none.
func (l *listener) deliver() {
	exited := true
	defer func() {
		if exited { // a listener that exits its goroutine loses no other event
			go l.deliver()
		}
	}()
	for event, ok := l.next(); ok; event, ok = l.next() {
		_ = fault.Run(func() error { l.listen(event); return nil })
	}
	exited = false
}

// next returns the oldest event that was not delivered; false when there is none.
func (l *listener) next() (startup.Event, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	event, lost, ok := l.events.Pop()
	event.Lost = lost
	l.delivering = ok
	l.heard = l.popped
	if ok {
		l.popped += lost + 1
	}
	if l.progress != nil {
		close(l.progress)
		l.progress = nil
	}
	return event, ok
}

// await waits until the listener has heard of everything that has happened so far, unless the wait is over before, or
// it takes too long for one event.
func (l *listener) await(over <-chan struct{}) {
	if l == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for until := l.pushed; l.heard < until; {
		if l.progress == nil {
			l.progress = make(chan struct{})
		}
		progress := l.progress
		l.mu.Unlock()
		patient := awaitProgress(progress, over)
		l.mu.Lock()
		if !patient {
			return
		}
	}
}

// awaitProgress reports whether there was progress, before the wait was over or took too long.
func awaitProgress(progress, over <-chan struct{}) bool {
	slow := time.NewTimer(slowListener)
	defer slow.Stop()
	select {
	case <-progress:
		return true
	case <-over:
	case <-slow.C:
	}
	return false
}

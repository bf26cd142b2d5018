package registry

import (
	"context"
	"fmt"
	"iter"
	"slices"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/capreg/registry/event"
	"github.com/capreg/registry/internal/fault"
	"github.com/capreg/registry/internal/oneline"
	"github.com/capreg/registry/internal/ring"
)

const (
	defaultSubscriptionBuffer = 256
	largestSubscriptionBuffer = 1 << 20
	logBuffer                 = 1024
)

// bus numbers the events of a registry and delivers them to its subscribers. Registry.mu
// guards it: all its methods are called with that mutex held, in the step that made the
// change itself.
type bus struct {
	registry    *Registry
	sequence    uint64
	subscribers map[*Subscription]struct{}
	closed      bool

	log     *ring.Ring[event.Event] // not logged yet; nil without a logger
	logging bool                    // a goroutine writes the log
}

func newBus(r *Registry) bus {
	b := bus{registry: r, subscribers: make(map[*Subscription]struct{})}
	if r.options.Logger != nil {
		b.log = ring.New[event.Event](logBuffer)
	}
	return b
}

// publish delivers the event to all subscribers and the log. It does not block.
func (b *bus) publish(e event.Event) {
	b.sequence++
	e.Sequence, e.Time = b.sequence, time.Now()
	for s := range b.subscribers {
		s.unread.Push(e)
		s.wake()
	}
	if b.log == nil {
		return
	}
	b.log.Push(e)
	if !b.logging {
		b.logging = b.registry.tasks.Start("logger", b.registry.writeLog)
	}
}

// close ends the subscriptions behind their last event.
func (b *bus) close() {
	for s := range b.subscribers {
		s.ended = true
		s.wake()
	}
	clear(b.subscribers)
	b.closed = true
}

// writeLog passes events to the logger until there are none left.
func (r *Registry) writeLog() {
	next := func() (event.Event, bool) {
		r.mu.Lock()
		defer r.mu.Unlock()
		e, lost, ok := r.bus.log.Pop()
		e.Lost = lost
		r.bus.logging = ok
		return e, ok
	}
	exited := true
	defer func() {
		if exited { // the logger has exited its goroutine: the next event starts another one
			r.mu.Lock()
			defer r.mu.Unlock()
			r.bus.logging = false
		}
	}()
	for e, ok := next(); ok; e, ok = next() {
		_ = fault.Run(func() error { logEvent(r.options.Logger, e); return nil })
	}
	exited = false // next has cleared logging, and another goroutine may be writing by now
}

func logEvent(logger *zap.Logger, e event.Event) {
	level := zapcore.InfoLevel
	switch e.Kind {
	case event.BreakerOpened, event.Unhealthy, event.Degraded, event.Trend, event.CapabilityOut, event.ProbeStuck, event.MonitorLate,
		event.RecoveryFailed, event.Parked, event.NotReady, event.LeaseExpired, event.SelectorFailed:
		level = zapcore.WarnLevel
	default:
	}
	entry := logger.Check(level, "registry "+string(e.Kind))
	if entry == nil {
		return
	}
	fields := make([]zap.Field, 0, 10)
	fields = append(fields, zap.String("event", "registry."+string(e.Kind)), zap.Uint64("sequence", e.Sequence))
	for _, text := range []struct{ key, value string }{
		{"service", e.Service}, {"provider", e.Provider}, {"from", e.From}, {"to", e.To}, {"reason", e.Reason},
	} {
		if text.value != "" {
			fields = append(fields, zap.String(text.key, text.value))
		}
	}
	if !e.Until.IsZero() {
		fields = append(fields, zap.Time("until", e.Until))
	}
	if e.Err != nil {
		fields = append(fields, zap.String("error", oneline.Of(oneline.Cut(fault.Text(e.Err), 300))))
	}
	if e.Lost > 0 {
		fields = append(fields, zap.Uint64("lost", e.Lost))
	}
	entry.Write(fields...)
}

// Subscription is a subscriber's view of a registry: the providers at its beginning,
// then every change since, in order. Use [Registry.Subscribe] to begin one.
//
// It buffers a bounded number of unread events. When it is full the oldest are dropped,
// and the next event read carries their number in Lost. It never blocks the registry,
// and needs no goroutine. Its methods are safe for concurrent use; each event is read
// once, by one of the readers.
type Subscription struct {
	registry *Registry
	snapshot []Info
	awake    chan struct{} // buffers one signal

	// Guarded by Registry.mu.
	unread *ring.Ring[event.Event]
	ended  bool
}

// Subscribe begins a subscription that buffers up to the given number of unread events,
// at most 1,048,576; zero or less means 256. On a registry that is closed the
// subscription has ended already. Close it when it is no longer read.
func (r *Registry) Subscribe(buffer int) *Subscription {
	if buffer <= 0 {
		buffer = defaultSubscriptionBuffer
	}
	s := &Subscription{
		registry: r, awake: make(chan struct{}, 1),
		unread: ring.New[event.Event](min(buffer, largestSubscriptionBuffer)),
	}
	breakers := r.breakers()
	r.mu.Lock()
	defer r.mu.Unlock()
	s.snapshot = r.infosLocked(breakers)
	if r.bus.closed {
		s.ended = true
		return s
	}
	r.bus.subscribers[s] = struct{}{}
	return s
}

// Snapshot returns the providers at the moment the subscription began, in the order of
// [Registry.All]. The events are all changes since. It is a copy.
func (s *Subscription) Snapshot() []Info {
	infos := slices.Clone(s.snapshot)
	for i := range infos {
		infos[i].Definition = infos[i].clone()
	}
	return infos
}

// Next returns the next event. It blocks while there is none, until ctx ends (the error
// then is the context's) or until the registry or the subscription is closed and all
// events are read (the error then matches [ErrClosed]).
func (s *Subscription) Next(ctx context.Context) (event.Event, error) {
	for {
		e, ok, ended := s.pop()
		switch {
		case ok:
			return e, nil
		case ended:
			return event.Event{}, fmt.Errorf("registry: subscription: %w", ErrClosed)
		}
		select {
		case <-s.awake:
		case <-ctx.Done():
			return event.Event{}, fault.Join("registry: subscription: ", fault.OfContext(ctx))
		}
	}
}

// All yields the events that [Subscription.Next] returns, and stops at its first error.
func (s *Subscription) All(ctx context.Context) iter.Seq[event.Event] {
	return func(yield func(event.Event) bool) {
		for {
			e, err := s.Next(ctx)
			if err != nil || !yield(e) {
				return
			}
		}
	}
}

// Close ends the subscription. Unread events can still be read. It may be called any
// number of times.
func (s *Subscription) Close() {
	s.registry.mu.Lock()
	defer s.registry.mu.Unlock()
	delete(s.registry.bus.subscribers, s)
	s.ended = true
	s.wake()
}

func (s *Subscription) pop() (e event.Event, ok, ended bool) {
	s.registry.mu.Lock()
	defer s.registry.mu.Unlock()
	e, lost, ok := s.unread.Pop()
	e.Lost = lost
	if s.ended || s.unread.Len() > 0 {
		s.wake() // for another reader
	}
	return e, ok, s.ended
}

func (s *Subscription) wake() {
	select {
	case s.awake <- struct{}{}:
	default:
	}
}

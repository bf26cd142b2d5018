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

// bus numbers the events of a registry and gives them to its subscribers.
// Everything in it is guarded by Registry.mu.
type bus struct {
	registry    *Registry
	sequence    uint64
	subscribers map[*Subscription]struct{}
	closed      bool

	log     *ring.Ring[event.Event] // what the logger has not got yet; nil without a logger
	logging bool                    // a goroutine is at it
}

func (b *bus) init(r *Registry) {
	b.registry = r
	b.subscribers = make(map[*Subscription]struct{})
	if r.options.Logger != nil {
		b.log = ring.New[event.Event](logBuffer)
	}
}

// publish gives the event to everybody, waiting for nobody. Caller holds
// Registry.mu, under which the change itself was made.
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

// close ends the subscriptions behind their last event. Caller holds Registry.mu.
func (b *bus) close() {
	for s := range b.subscribers {
		s.ended = true
		s.wake()
	}
	clear(b.subscribers)
	b.closed = true
}

// writeLog hands events to the logger until there are none left.
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
		if exited { // a logger that exits its goroutine must not be the last one
			r.mu.Lock()
			defer r.mu.Unlock()
			r.bus.logging = false
		}
	}()
	for e, ok := next(); ok; e, ok = next() {
		_ = fault.Run(func() error { logEvent(r.options.Logger, e); return nil })
	}
	exited = false // next has said so, and another may be writing by now
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

// Subscription is a subscriber's view of a registry: the providers there were
// when it began, then every change since, in order.
//
// It holds a bounded number of events that were not read yet; when it is full
// the oldest are dropped, and the next one read counts them in Lost. It never
// holds up the registry, and needs no goroutine. Its methods are safe for
// concurrent use, but two readers share the events between them.
type Subscription struct {
	registry *Registry
	snapshot []Info
	awake    chan struct{} // has room for one signal

	// Guarded by Registry.mu.
	unread *ring.Ring[event.Event]
	ended  bool
}

// Subscribe begins a subscription that holds up to buffer unread events (zero:
// 256, at most 1,048,576; a negative number is taken as zero). On a registry
// that is closed it has ended already. Close it when it is no longer read.
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

// Snapshot returns the providers at the moment the subscription began, in the
// order of [Registry.All]; the events tell all that changed after it.
func (s *Subscription) Snapshot() []Info {
	infos := slices.Clone(s.snapshot)
	for i := range infos {
		infos[i].Definition = infos[i].clone()
	}
	return infos
}

// Next returns the next event and waits for it if there is none, until ctx
// ends (then the error is the context's), or until the registry or the
// subscription is closed and all events are read (then the error matches
// [ErrClosed]).
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

// All yields the events as Next returns them, and stops at its first error.
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

// Close ends the subscription; what was not read can still be. It may be called
// any number of times.
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

package bus

import (
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/capreg/registry/event"
	"github.com/capreg/registry/internal/fault"
	"github.com/capreg/registry/internal/oneline"
	"github.com/capreg/registry/internal/ring"
)

const (
	logBuffer    = 1024 // events that the logger may be late by
	maxErrorText = 300
)

// logState is the state of a [log].
//
//	state    event                    next     effect
//	idle     add                      writing  goroutine begins
//	idle     add, no goroutine        idle     the event stays buffered
//	writing  add                      writing  none
//	writing  nothing left             idle     goroutine ends
//	writing  logger exits goroutine   idle     the next event starts another one
type logState uint8

const (
	idle logState = iota
	writing
)

// log passes events to a logger, one at a time and in order, in a goroutine that runs while there are any.
type log struct {
	host   Host
	logger *zap.Logger

	// Guarded by the owner's lock.
	unwritten *ring.Ring[event.Event]
	state     logState
}

func newLog(host Host, logger *zap.Logger) *log {
	return &log{host: host, logger: logger, unwritten: ring.New[event.Event](logBuffer)}
}

// add buffers an event, in place of the oldest when the logger is too slow. Caller holds the lock.
func (l *log) add(e event.Event) {
	l.unwritten.Push(e)
	if l.state == idle && l.host.Go("logger", l.drain) {
		l.state = writing
	}
}

// drain writes until nothing is left.
func (l *log) drain() {
	exited := true
	defer func() {
		if exited {
			l.writerExited()
		}
	}()
	for e, ok := l.next(); ok; e, ok = l.next() {
		_ = fault.Run(func() error { write(l.logger, e); return nil })
	}
	exited = false // next has made the log idle: another goroutine may be writing by now
}

// next returns the next event to write. When there is none, the log is idle in the same step.
func (l *log) next() (event.Event, bool) {
	l.host.Lock()
	defer l.host.Unlock()
	e, lost, ok := l.unwritten.Pop()
	e.Lost = lost
	if !ok {
		l.state = idle
	}
	return e, ok
}

func (l *log) writerExited() {
	l.host.Lock()
	defer l.host.Unlock()
	l.state = idle
}

// write logs one event. It is user code: the core of a logger may do anything.
func write(logger *zap.Logger, e event.Event) {
	entry := logger.Check(levelOf(e.Kind), "registry "+string(e.Kind))
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
		fields = append(fields, zap.String("error", oneline.Of(oneline.Cut(fault.Text(e.Err), maxErrorText))))
	}
	if e.Lost > 0 {
		fields = append(fields, zap.Uint64("lost", e.Lost))
	}
	entry.Write(fields...)
}

// levelOf returns the level of a kind of event: a warning where an operator may want to act.
func levelOf(kind event.Kind) zapcore.Level {
	switch kind {
	case event.BreakerOpened, event.Unhealthy, event.Degraded, event.Trend, event.CapabilityOut, event.ProbeStuck, event.MonitorLate,
		event.RecoveryFailed, event.Parked, event.NotReady, event.LeaseExpired, event.SelectorFailed:
		return zapcore.WarnLevel
	default:
		return zapcore.InfoLevel
	}
}

package bus

import (
	"context"
	"log/slog"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/capreg/registry/event"
	"github.com/capreg/registry/internal/fault"
	"github.com/capreg/registry/internal/oneline"
)

// Loggers write the log. Each may be nil; both get the same lines.
type Loggers struct {
	Zap  *zap.Logger
	Slog *slog.Logger
}

// none reports whether there is nothing to write to.
func (l Loggers) none() bool { return l.Zap == nil && l.Slog == nil }

// want reports whether one of them writes lines of that level. It is called without the lock.
func (l Loggers) want(ctx context.Context, level slog.Level) (wanted bool) {
	_ = fault.Run(func() error { wanted = l.Zap != nil && l.Zap.Core().Enabled(zapLevel(level)); return nil })
	if !wanted {
		_ = fault.Run(func() error { wanted = l.Slog != nil && l.Slog.Enabled(ctx, level); return nil })
	}
	return wanted
}

// levels has the level of each kind of event: a warning where an operator may want to act.
//
//nolint:gochecknoglobals // a table
var levels = map[event.Kind]slog.Level{
	event.Registered: slog.LevelInfo, event.Refused: slog.LevelWarn, event.Draining: slog.LevelInfo, event.Drained: slog.LevelInfo,
	event.Changed: slog.LevelInfo, event.BreakerOpened: slog.LevelWarn, event.BreakerHalfOpened: slog.LevelInfo,
	event.BreakerClosed: slog.LevelInfo, event.Starting: slog.LevelInfo, event.Healthy: slog.LevelInfo,
	event.Degraded: slog.LevelWarn, event.Unhealthy: slog.LevelWarn, event.Trend: slog.LevelWarn,
	event.CapabilityOut: slog.LevelWarn, event.CapabilityBack: slog.LevelInfo, event.ProbeStuck: slog.LevelWarn,
	event.MonitorLate: slog.LevelWarn, event.Recovered: slog.LevelInfo, event.RecoveryFailed: slog.LevelWarn,
	event.Cooling: slog.LevelInfo, event.Parked: slog.LevelWarn, event.CooldownEnded: slog.LevelInfo,
	event.NotReady: slog.LevelWarn, event.Ready: slog.LevelInfo, event.SelectorFailed: slog.LevelWarn,
	CallFailed: slog.LevelWarn, CallSlow: slog.LevelInfo,
	event.LeaseExpired: slog.LevelWarn, event.Closing: slog.LevelInfo, event.Closed: slog.LevelInfo,
}

// LevelOf returns the level of the lines about a kind of event, and whether the kind is known.
func LevelOf(kind event.Kind) (level slog.Level, known bool) {
	level, known = levels[kind]
	return level, known
}

// line holds the fields of one event in a log, made when a logger wants them.
type line struct {
	event entry
	level slog.Level
	attrs []slog.Attr
}

// write writes one event. All that a logger does is user code, and a fault of one keeps no line from the other.
func (l Loggers) write(e entry) {
	of := line{event: e}
	of.level, _ = LevelOf(e.Kind)
	defer func() { // deferred: a logger may end the goroutine
		_ = fault.Run(func() error { return of.toSlog(l.Slog) })
	}()
	_ = fault.Run(func() error { of.toZap(l.Zap); return nil })
}

func (l *line) message() string { return "registry " + string(l.event.Kind) }

// fields returns what the line has beside its time, level and message.
func (l *line) fields() []slog.Attr {
	if l.attrs != nil {
		return l.attrs
	}
	e := &l.event
	attrs := append(make([]slog.Attr, 0, 10), slog.String("event", "registry."+string(e.Kind)))
	if e.Sequence > 0 {
		attrs = append(attrs, slog.Uint64("sequence", e.Sequence))
	}
	for _, text := range []struct{ key, value string }{
		{"service", e.Service}, {"provider", e.Provider}, {"from", e.From}, {"to", e.To}, {"reason", e.Reason},
	} {
		if text.value != "" {
			attrs = append(attrs, slog.String(text.key, text.value))
		}
	}
	if !e.Until.IsZero() {
		attrs = append(attrs, slog.Time("until", e.Until))
	}
	if e.Err != nil {
		attrs = append(attrs, slog.String("error", oneline.Of(oneline.Cut(fault.Text(e.Err), maxErrorText))))
	}
	attrs = append(attrs, e.more...)
	if e.suppressed > 0 {
		attrs = append(attrs, slog.Uint64("suppressed", e.suppressed))
	}
	if e.Lost > 0 {
		attrs = append(attrs, slog.Uint64("lost", e.Lost))
	}
	l.attrs = attrs
	return attrs
}

func (l *line) toSlog(logger *slog.Logger) error {
	if logger == nil || !logger.Enabled(context.Background(), l.level) {
		return nil
	}
	record := slog.NewRecord(l.event.Time, l.level, l.message(), 0)
	record.AddAttrs(l.fields()...)
	return logger.Handler().Handle(context.Background(), record)
}

func (l *line) toZap(logger *zap.Logger) {
	if logger == nil {
		return
	}
	entry := logger.Check(zapLevel(l.level), l.message())
	if entry == nil {
		return
	}
	entry.Time = l.event.Time
	fields := make([]zap.Field, len(l.fields()))
	for i, a := range l.fields() {
		switch a.Value.Kind() {
		case slog.KindString:
			fields[i] = zap.String(a.Key, a.Value.String())
		case slog.KindUint64:
			fields[i] = zap.Uint64(a.Key, a.Value.Uint64())
		case slog.KindInt64:
			fields[i] = zap.Int64(a.Key, a.Value.Int64())
		case slog.KindFloat64:
			fields[i] = zap.Float64(a.Key, a.Value.Float64())
		case slog.KindTime:
			fields[i] = zap.Time(a.Key, a.Value.Time())
		default:
			fields[i] = zap.Any(a.Key, a.Value.Resolve().Any()) // of the user's
		}
	}
	entry.Write(fields...)
}

func zapLevel(level slog.Level) zapcore.Level {
	if level >= slog.LevelWarn {
		return zapcore.WarnLevel
	}
	return zapcore.InfoLevel
}

package bus

import (
	"context"
	"log/slog"
	"strings"
	"time"

	"github.com/capreg/registry/event"
	"github.com/capreg/registry/internal/fault"
	"github.com/capreg/registry/internal/request"
	"github.com/capreg/registry/verdict"
)

// The kinds of line about calls, which are no events.
const (
	CallFailed event.Kind = "call_failed"
	CallSlow   event.Kind = "call_slow"
)

const (
	// quietFor is the time after a line about a call in which others like it are counted and not written.
	quietFor = 10 * time.Second
	// maxKinds bounds the kinds of line that are counted apart.
	maxKinds = 1024
)

// Call describes a call that has failed, or was slow, where it has no Err.
type Call struct {
	Service, Provider string // the provider is the last one that was tried
	Class             verdict.Class
	Attempts          int
	Duration          time.Duration
	Err               error
	Caller            string
	Context           context.Context                       //nolint:containedctx // of the call, until the line is made
	Values            func(ctx context.Context) []slog.Attr // of the user; may be nil
}

// entry is a line that is to be written.
type entry struct {
	event.Event

	more       []slog.Attr // of a line about a call
	suppressed uint64      // lines like it that are not written
}

// callKind identifies lines of which the repeats are suppressed.
type callKind struct {
	kind              event.Kind
	service, provider string
	class             verdict.Class
}

// repeats are the lines of one kind since the last one that was written.
type repeats struct {
	quietUntil time.Time
	latest     *entry // nil: there are none
	suppressed uint64 // before the latest
}

// LogCall writes a line about a call. It is called without the lock. Of those that are alike, the first is written at once, and then the latest each ten
// seconds, with the number of those between them. A line that no logger wants for its level is not made.
func (b *Bus) LogCall(c *Call) {
	if b.log == nil {
		return
	}
	kind := callKind{CallFailed, c.Service, c.Provider, c.Class}
	if c.Err == nil {
		kind.kind = CallSlow
	}
	if level, _ := LevelOf(kind.kind); !b.log.loggers.want(c.Context, level) {
		return
	}
	now := time.Now()
	line := entry{Event: event.Event{Time: now, Kind: kind.kind, Service: c.Service, Provider: c.Provider, Err: c.Err}, more: c.attrs()}
	b.host.Lock()
	defer b.host.Unlock()
	b.log.addCall(kind, &line, now)
}

func (c *Call) attrs() []slog.Attr {
	attrs := make([]slog.Attr, 0, 8)
	if c.Attempts > 0 {
		attrs = append(attrs, slog.String("class", c.Class.String()))
	}
	attrs = append(attrs, slog.Int("attempts", c.Attempts),
		slog.Float64("duration_ms", float64(c.Duration.Microseconds())/1000)) // a number that all encoders write alike
	of := request.Of(c.Context)
	trace, span := placeInTrace(of.TraceParent)
	for _, text := range []struct{ key, value string }{
		{"caller", c.Caller}, {"correlation_id", of.Correlation}, {"trace_id", trace}, {"span_id", span},
	} {
		if text.value != "" {
			attrs = append(attrs, slog.String(text.key, text.value))
		}
	}
	if c.Values != nil {
		_ = fault.Run(func() error { attrs = append(attrs, c.Values(c.Context)...); return nil })
	}
	return attrs
}

// placeInTrace returns the parts of a traceparent: version, trace, span, flags.
func placeInTrace(parent string) (trace, span string) {
	if parts := strings.Split(parent, "-"); len(parts) >= 4 {
		return parts[1], parts[2]
	}
	return "", ""
}

// addCall adds a line, or keeps it for later. Caller holds the lock.
func (l *log) addCall(kind callKind, line *entry, now time.Time) {
	seen := l.calls[kind]
	if seen == nil {
		if len(l.calls) >= maxKinds {
			l.forgetCalls(now)
		}
		if len(l.calls) >= maxKinds {
			kind = callKind{} // all others together
			seen = l.calls[kind]
		}
		if seen == nil {
			seen = &repeats{}
			l.calls[kind] = seen
		}
	}
	switch {
	case !now.Before(seen.quietUntil) && seen.latest == nil:
		seen.quietUntil = now.Add(quietFor)
		l.add(*line)
	case seen.latest == nil:
		seen.latest = line
		l.host.After(seen.quietUntil.Sub(now), func() { l.tellRepeats(seen) })
	default:
		seen.latest = line
		seen.suppressed++
	}
}

// forgetCalls forgets the kinds of which there was no line of late. Caller holds the lock.
func (l *log) forgetCalls(now time.Time) {
	for kind, seen := range l.calls {
		if seen.latest == nil && !now.Before(seen.quietUntil) {
			delete(l.calls, kind)
		}
	}
}

// tellRepeats writes the latest line of a kind.
func (l *log) tellRepeats(of *repeats) {
	l.host.Lock()
	defer l.host.Unlock()
	l.flush(of)
}

// flush writes the latest line of a kind, if there is one. Caller holds the lock.
func (l *log) flush(of *repeats) {
	if of.latest == nil {
		return
	}
	line := *of.latest
	line.suppressed = of.suppressed
	of.latest, of.suppressed, of.quietUntil = nil, 0, time.Now().Add(quietFor)
	l.add(line)
}

// flushAll writes the latest lines of all kinds. Caller holds the lock.
func (l *log) flushAll() {
	for _, of := range l.calls {
		l.flush(of)
	}
}

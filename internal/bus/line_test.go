package bus_test

import (
	"context"
	"errors"
	"log/slog"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/capreg/registry/event"
	"github.com/capreg/registry/internal/bus"
	"github.com/capreg/registry/internal/request"
	"github.com/capreg/registry/verdict"
)

// handler keeps the records that it gets, from one level on.
type handler struct {
	slog.Handler

	from    slog.Level
	do      func()
	mu      sync.Mutex
	records []slog.Record
}

func (h *handler) Enabled(_ context.Context, level slog.Level) bool { return level >= h.from }

func (h *handler) Handle(_ context.Context, r slog.Record) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.records = append(h.records, r)
	if h.do != nil {
		h.do()
	}
	return nil
}

// all returns the records so far.
func (h *handler) all() []slog.Record {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.records)
}

// fieldsOf returns the fields of a record with their values as zap has them.
func fieldsOf(r slog.Record) map[string]any {
	fields := make(map[string]any)
	r.Attrs(func(a slog.Attr) bool {
		fields[a.Key] = a.Value.Any()
		return true
	})
	return fields
}

// The list of kinds is that of package event, so that a kind without a level fails.
func TestLog_ZapAndSlogHaveTheSameLinesForEachKind(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		core, logs := observer.New(zapcore.DebugLevel)
		h := &handler{from: slog.LevelDebug}
		o := newOwner(t, nil)
		o.bus = bus.New(o, bus.Loggers{Zap: zap.New(core), Slog: slog.New(h)})
		for _, kind := range event.Kinds() {
			o.publish(event.Event{
				Kind: kind, Service: "llm", Provider: "a", From: "x", To: "y", Reason: "test", Until: time.Now().Add(time.Minute),
				Err: errors.New("two\nlines"),
			}, event.Event{Kind: kind})
			time.Sleep(time.Second)
		}
		lines := logs.All()
		require.Len(t, lines, 2*len(event.Kinds()))
		require.Len(t, h.all(), len(lines))
		for i, line := range lines {
			kind, record := event.Kinds()[i/2], h.all()[i]
			level, known := bus.LevelOf(kind)
			require.True(t, known, "%s has no level", kind)
			require.Equal(t, "registry "+string(kind), line.Message)
			require.Equal(t, line.Message, record.Message)
			require.Equal(t, level, record.Level, kind)
			require.Equal(t, level.String(), line.Level.CapitalString(), kind)
			require.Equal(t, line.Time, record.Time)
			require.Equal(t, line.ContextMap(), fieldsOf(record))
			require.Equal(t, "registry."+string(kind), line.ContextMap()["event"])
		}
		require.Len(t, lines[0].ContextMap(), 9)
		require.Len(t, lines[1].ContextMap(), 2, "a field that does not apply is left out")
	})
}

func TestLogCall_ZapAndSlogHaveTheSameLines(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		core, logs := observer.New(zapcore.DebugLevel)
		h := &handler{from: slog.LevelDebug}
		o := newOwner(t, nil)
		o.bus = bus.New(o, bus.Loggers{Zap: zap.New(core), Slog: slog.New(h)})
		call := bus.Call{
			Service: "llm", Provider: "a", Class: verdict.ClassUnknown, Attempts: 2, Duration: time.Second, Err: errTest, Caller: "me",
			Context: request.With(t.Context(), request.Metadata{Correlation: "r", TraceParent: "00-t-s-01"}),
			Values: func(context.Context) []slog.Attr {
				return []slog.Attr{slog.Bool("b", true), slog.Duration("d", time.Second), slog.Any("any", 'x')}
			},
		}
		o.bus.LogCall(&call)
		call.Err = nil
		o.bus.LogCall(&call)
		synctest.Wait()
		require.Equal(t, 2, logs.Len())
		for i, line := range logs.All() {
			require.Equal(t, h.all()[i].Message, line.Message)
			require.Equal(t, h.all()[i].Level.String(), line.Level.CapitalString())
			got := line.ContextMap()
			require.Equal(t, fieldsOf(h.all()[i]), got)
			require.Len(t, got, 14-i, "the slow one has no error")
		}
	})
}

// Variants: the level of each logger, and of both.
func TestLogCall_MakesNoLineThatNoLoggerWants(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		loggers := func(zapFrom zapcore.Level, slogFrom slog.Level) (bus.Loggers, func() int) {
			core, logs := observer.New(zapFrom)
			h := &handler{from: slogFrom}
			return bus.Loggers{Zap: zap.New(core), Slog: slog.New(h)}, func() int { return logs.Len() + len(h.all()) }
		}
		for _, row := range []struct {
			zap   zapcore.Level
			slog  slog.Level
			err   error
			made  bool
			lines int
		}{
			{zap: zapcore.WarnLevel, slog: slog.LevelWarn, err: errTest, made: true, lines: 2},
			{zap: zapcore.ErrorLevel, slog: slog.LevelWarn, err: errTest, made: true, lines: 1},
			{zap: zapcore.WarnLevel, slog: slog.LevelError, err: errTest, made: true, lines: 1},
			{zap: zapcore.ErrorLevel, slog: slog.LevelError, err: errTest},
			{zap: zapcore.WarnLevel, slog: slog.LevelWarn}, // a slow one is for information
		} {
			o := newOwner(t, nil)
			to, lines := loggers(row.zap, row.slog)
			o.bus = bus.New(o, to)
			made := false
			for range 2 {
				o.bus.LogCall(&bus.Call{Context: t.Context(), Err: row.err, Values: func(context.Context) []slog.Attr { made = true; return nil }})
				synctest.Wait()
			}
			require.Equal(t, row.made, made, "%+v", row)
			require.Equal(t, row.lines, lines(), "%+v", row)
			time.Sleep(time.Minute)
			require.Equal(t, 2*row.lines, lines(), "%+v", row)
		}
	})
}

func TestLogCall_WithoutALoggerThatWantsItAllocatesNothing(t *testing.T) { //nolint:paralleltest // AllocsPerRun counts all goroutines
	o := newOwner(t, nil)
	o.bus = bus.New(o, bus.Loggers{Slog: slog.New(&handler{from: slog.LevelError})})
	call := &bus.Call{Context: t.Context(), Err: errTest, Service: "llm"}
	require.Zero(t, testing.AllocsPerRun(100, func() { o.bus.LogCall(call) }))
}

// More kinds than are counted apart: those beyond share one count.
func TestLogCall_KindsThatAreCountedApartAreBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := &handler{from: slog.LevelDebug}
		o := newOwner(t, nil)
		o.bus = bus.New(o, bus.Loggers{Slog: slog.New(h)})
		log := func(prefix string, times int) {
			for i := range times {
				o.bus.LogCall(&bus.Call{Context: t.Context(), Err: errTest, Provider: prefix + strconv.Itoa(i)})
				synctest.Wait()
			}
		}
		log("a", 1100)
		require.Equal(t, 1025, len(h.all())) //nolint:testifylint // Len would print them all
		time.Sleep(20 * time.Second)
		synctest.Wait()
		require.Equal(t, 1026, len(h.all()), "the latest of the others") //nolint:testifylint // see above
		time.Sleep(20 * time.Second)
		log("b", 1000)
		require.Equal(t, 1026+1000, len(h.all()), "those before are forgotten") //nolint:testifylint // see above
	})
}

func TestLog_EachLoggerHasItsOwnLevel(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		core, logs := observer.New(zapcore.ErrorLevel)
		h := &handler{from: slog.LevelWarn}
		o := newOwner(t, nil)
		o.bus = bus.New(o, bus.Loggers{Zap: zap.New(core), Slog: slog.New(h)})
		o.publish(event.Event{Kind: event.Registered}, event.Event{Kind: event.Parked})
		synctest.Wait()
		require.Zero(t, logs.Len())
		require.Len(t, h.all(), 1)
	})
}

func TestLog_FaultOfOneLoggerKeepsNoLineFromTheOther(t *testing.T) {
	t.Parallel()
	for name, do := range map[string]func(){"panics": func() { panic("logger") }, "exits": runtime.Goexit} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				quiet := &handler{from: slog.LevelDebug}
				o := newOwner(t, nil)
				o.bus = bus.New(o, bus.Loggers{Zap: zap.New(core{zapcore.DebugLevel, do}), Slog: slog.New(quiet)})
				observed, logs := observer.New(zapcore.DebugLevel)
				other := newOwner(t, nil)
				other.bus = bus.New(other, bus.Loggers{Zap: zap.New(observed), Slog: slog.New(&handler{from: slog.LevelDebug, do: do})})
				for range 3 {
					o.publish(event.Event{Kind: event.Parked})
					other.publish(event.Event{Kind: event.Parked})
					synctest.Wait()
				}
				require.Len(t, quiet.records, 3)
				require.Equal(t, 3, logs.Len())
			})
		})
	}
}

func TestPublish_WithoutLoggersAllocatesNothing(t *testing.T) { //nolint:paralleltest // AllocsPerRun counts all goroutines
	o := newOwner(t, nil)
	e := event.Event{Kind: event.Parked, Service: "llm", Provider: "a", Err: errTest}
	require.Zero(t, testing.AllocsPerRun(100, func() {
		o.Lock()
		o.bus.Publish(e)
		o.Unlock()
	}))
	require.Empty(t, o.started)
}

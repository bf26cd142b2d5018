package bus_test

import (
	"log/slog"
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

// logging returns an owner whose bus writes to the handler.
func logging(t *testing.T) (*owner, *handler) {
	t.Helper()
	o, h := newOwner(t, nil), &handler{from: slog.LevelDebug}
	o.bus = bus.New(o, bus.Loggers{Slog: slog.New(h)})
	return o, h
}

// linesOf returns what the handler got: message, attempts and the number of lines that were suppressed.
func linesOf(h *handler) (lines [][3]any) {
	for _, r := range h.all() {
		fields := fieldsOf(r)
		lines = append(lines, [3]any{r.Message, fields["attempts"], fields["suppressed"]})
	}
	return lines
}

func TestLogCall_SaysWhatIsKnownOfTheCall(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		o, h := logging(t)
		o.bus.LogCall(&bus.Call{
			Service: "llm", Provider: "a", Class: verdict.ClassTransport, Attempts: 2, Duration: 1500 * time.Microsecond, Err: errTest, Caller: "me",
			Context: request.With(t.Context(), request.Metadata{Correlation: "r", TraceParent: "00-trace-span-01"}),
		})
		o.bus.LogCall(&bus.Call{Service: "llm", Context: request.With(t.Context(), request.Metadata{TraceParent: "00-trace"})})
		synctest.Wait()
		require.Equal(t, map[string]any{
			"event": "registry.call_failed", "service": "llm", "provider": "a", "error": "test", "class": "transport", "attempts": int64(2),
			"duration_ms": 1.5, "caller": "me", "correlation_id": "r", "trace_id": "trace", "span_id": "span",
		}, fieldsOf(h.all()[0]))
		require.Equal(t, map[string]any{
			"event": "registry.call_slow", "service": "llm", "attempts": int64(0), "duration_ms": 0.0,
		}, fieldsOf(h.all()[1]), "nothing was tried, and that is no place in a trace")
	})
}

func TestLogCall_WritesTheFirstAndThenTheLatestOfTenSeconds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		o, h := logging(t)
		call := func(attempts int) {
			o.bus.LogCall(&bus.Call{Context: t.Context(), Err: errTest, Attempts: attempts})
			synctest.Wait()
		}
		for attempts := range 5 {
			call(attempts + 1)
		}
		const failed = "registry call_failed"
		want := [][3]any{{failed, int64(1), nil}}
		require.Equal(t, want, linesOf(h))
		time.Sleep(10*time.Second - 1)
		synctest.Wait()
		require.Equal(t, want, linesOf(h))
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		want = append(want, [3]any{failed, int64(5), uint64(3)})
		require.Equal(t, want, linesOf(h))

		call(6)
		require.Equal(t, want, linesOf(h), "ten seconds begin anew")
		time.Sleep(10 * time.Second)
		synctest.Wait()
		want = append(want, [3]any{failed, int64(6), nil})
		require.Equal(t, want, linesOf(h))
		time.Sleep(10 * time.Second)
		call(7)
		want = append(want, [3]any{failed, int64(7), nil})
		require.Equal(t, want, linesOf(h), "it was quiet")
	})
}

func TestLogCall_WhatIsHeldBackIsWrittenAtTheEnd(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(*owner){
		"closing": func(o *owner) { o.publish(event.Event{Kind: event.Registered}, event.Event{Kind: event.Closing}) },
		"closed":  func(o *owner) { o.close() },
	} {
		synctest.Test(t, func(t *testing.T) {
			o, h := logging(t)
			for attempts := range 3 {
				o.bus.LogCall(&bus.Call{Context: t.Context(), Err: errTest, Attempts: attempts + 1})
			}
			end(o)
			synctest.Wait()
			var messages []any
			for _, line := range linesOf(h) {
				messages = append(messages, line[0])
			}
			if name == "closing" {
				require.Equal(t, []any{"registry call_failed", "registry registered", "registry call_failed", "registry closing"}, messages)
			} else {
				require.Equal(t, []any{"registry call_failed", "registry call_failed"}, messages)
			}
			time.Sleep(time.Minute)
			synctest.Wait()
			require.Len(t, h.all(), len(messages), "once")
		})
	}
}

func TestLog_LinesHaveTheTimesOfTheirEvents(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		observed, logs := observer.New(zapcore.DebugLevel)
		o := newOwner(t, zap.New(zapcore.NewTee(core{zapcore.DebugLevel, func() { time.Sleep(time.Minute) }}, observed)))
		began := time.Now()
		o.publish(event.Event{}, event.Event{})
		time.Sleep(time.Hour)
		require.Equal(t, 2, logs.Len())
		for _, line := range logs.All() {
			require.Equal(t, began, line.Time, "however slow the logger is")
		}
	})
}

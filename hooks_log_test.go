package registry_test

import (
	"context"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/capreg/registry"
	"github.com/capreg/registry/internal/testkit"
	"github.com/capreg/registry/registryhttp"
)

// callLines returns the lines about calls since the last time.
func callLines(logs *observer.ObservedLogs) (lines []observer.LoggedEntry) {
	synctest.Wait()
	for _, line := range logs.TakeAll() {
		if line.ContextMap()["attempts"] != nil {
			lines = append(lines, line)
		}
	}
	return lines
}

func TestLogFailed_LineHasWhatBelongsToTheRequest(t *testing.T) {
	t.Parallel()
	core, logs := observer.New(zapcore.DebugLevel)
	options := registry.Options{Logger: zap.New(core), LogFailed: true, LogValues: func(ctx context.Context) []slog.Attr {
		if ctx.Value(traceKey{}) == nil {
			panic("a user's")
		}
		return []slog.Attr{slog.Any("tenant", ctx.Value(traceKey{}))}
	}}
	testkit.Bubble(t, options, func(t *testing.T, reg *registry.Registry) {
		testkit.Add(t, reg, testkit.Provider{Name: "a", Instance: testkit.Answers(func() (string, error) {
			time.Sleep(1500 * time.Microsecond)
			return "", testkit.ErrDown
		})})
		ctx := registryhttp.WithMetadata(context.WithValue(t.Context(), traceKey{}, "t1"), registryhttp.Metadata{
			Correlation: "r7", TraceParent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
		})
		_, err := testkit.Ask(ctx, testkit.Bind(reg), registry.Caller("me"))
		require.ErrorIs(t, err, testkit.ErrDown)
		lines := callLines(logs)
		require.Len(t, lines, 1)
		require.Equal(t, zapcore.WarnLevel, lines[0].Level)
		require.Equal(t, "registry call_failed", lines[0].Message)
		fields := lines[0].ContextMap()
		require.Contains(t, fields["error"], "down")
		delete(fields, "error")
		require.Equal(t, map[string]any{
			"event": "registry.call_failed", "service": "chat", "provider": "a", "class": "unknown", "attempts": int64(1),
			"duration_ms": 1.5, "caller": "me", "correlation_id": "r7", "trace_id": "0af7651916cd43dd8448eb211c80319c",
			"span_id": "b7ad6b7169203331", "tenant": "t1",
		}, fields)

		_, err = testkit.Ask(t.Context(), testkit.Bind(reg, "vision"))
		require.ErrorIs(t, err, registry.ErrUnavailable)
		lines = callLines(logs)
		require.Len(t, lines, 1, "also where no provider was tried, and LogValues panics")
		require.NotContains(t, lines[0].ContextMap(), "provider")
		require.NotContains(t, lines[0].ContextMap(), "class")
	})
}

func TestLogFailed_RepeatsAreCountedAndTheLatestIsWritten(t *testing.T) {
	t.Parallel()
	core, logs := observer.New(zapcore.DebugLevel)
	testkit.Bubble(t, registry.Options{Logger: zap.New(core), LogFailed: true}, func(t *testing.T, reg *registry.Registry) {
		p := testkit.Provider{Instance: testkit.Fails(testkit.ErrDown), Breaker: testkit.NeverOpens()}
		for _, name := range []string{"a", "b"} {
			p.Name = name
			testkit.Add(t, reg, p)
		}
		fail := func(name string, times int) {
			for range times {
				_, err := testkit.Ask(t.Context(), testkit.Chat.Bind(reg, registry.Query{Only: []string{name}}))
				require.Error(t, err)
			}
		}
		suppressed := func() (all []any) {
			for _, line := range callLines(logs) {
				all = append(all, line.ContextMap()["provider"], line.ContextMap()["suppressed"])
			}
			return all
		}
		fail("a", 100)
		fail("b", 1)
		require.Equal(t, []any{"a", nil, "b", nil}, suppressed())
		testkit.Pass(10 * time.Second)
		require.Equal(t, []any{"a", uint64(98)}, suppressed(), "the latest, and those between")
		testkit.Pass(time.Hour)
		require.Empty(t, suppressed())
		fail("a", 3)
		require.Equal(t, []any{"a", nil}, suppressed())
		require.NoError(t, reg.Close(t.Context()))
		require.Equal(t, []any{"a", uint64(1)}, suppressed(), "none is lost at the end")
	})
}

func TestLogSlow_LineOfEachOtherCallThatTakesAsLong(t *testing.T) {
	t.Parallel()
	core, logs := observer.New(zapcore.DebugLevel)
	testkit.Bubble(t, registry.Options{Logger: zap.New(core), LogSlow: time.Second}, func(t *testing.T, reg *registry.Registry) {
		testkit.Add(t, reg, testkit.Provider{Name: "quick"})
		testkit.Add(t, reg, testkit.Provider{Name: "slow", Instance: testkit.Takes("slow", time.Second), Handler: "h"})
		testkit.MustAsk(t, testkit.Bind(reg))
		_, err := registry.Call(t.Context(), testkit.Bind(reg), testkit.Fail)
		require.Error(t, err)
		require.Empty(t, callLines(logs), "failures are not asked for")
		testkit.MustAsk(t, testkit.Chat.Bind(reg, registry.Query{Handler: "h"}))
		lines := callLines(logs)
		require.Len(t, lines, 1)
		require.Equal(t, zapcore.InfoLevel, lines[0].Level)
		require.Equal(t, "registry.call_slow", lines[0].ContextMap()["event"])
		require.Equal(t, "slow", lines[0].ContextMap()["provider"])
		require.Equal(t, "success", lines[0].ContextMap()["class"])
		require.InDelta(t, 1000, lines[0].ContextMap()["duration_ms"], 0)
	})
	_, err := registry.New(registry.Options{LogSlow: -1})
	testkit.RequireRefused(t, err)
}

func TestLogFailed_WithoutALoggerCallsPayNothing(t *testing.T) { //nolint:paralleltest // AllocsPerRun counts all goroutines
	reg := testkit.New(t, registry.Options{LogFailed: true, LogSlow: time.Nanosecond})
	testkit.Add(t, reg, testkit.Provider{Name: "p", AttemptTimeout: registry.NoTimeout})
	r := testkit.Bind(reg)
	require.Zero(t, testing.AllocsPerRun(100, func() { mustCall(r) }))
	require.NoError(t, reg.Close(context.Background()))
}

package bus_test

import (
	"errors"
	"runtime"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/capreg/registry/event"
)

func TestLog_HasFieldsOfEvent(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		core, logs := observer.New(zapcore.DebugLevel)
		o := newOwner(t, zap.New(core))
		until := time.Now().Add(time.Minute)
		o.publish(
			event.Event{Kind: event.Registered, Service: "chat", Provider: "a"},
			event.Event{Kind: event.BreakerOpened, From: "closed", To: "open", Reason: "test", Until: until, Err: errors.New("two\nlines")},
		)
		synctest.Wait()
		lines := logs.AllUntimed()
		require.Len(t, lines, 2)
		require.Equal(t, zapcore.InfoLevel, lines[0].Level)
		require.Equal(t, "registry registered", lines[0].Message)
		require.Equal(t, map[string]any{
			"event": "registry.registered", "sequence": uint64(1), "service": "chat", "provider": "a",
		}, lines[0].ContextMap())
		require.Equal(t, zapcore.WarnLevel, lines[1].Level)
		require.Equal(t, map[string]any{
			"event": "registry.breaker_opened", "sequence": uint64(2), "from": "closed", "to": "open", "reason": "test",
			"until": until, "error": "two lines",
		}, lines[1].ContextMap())
		require.Equal(t, []string{"logger"}, o.started, "one goroutine for both")

		o.publish(event.Event{Kind: event.Closed})
		synctest.Wait()
		require.Equal(t, 3, logs.Len())
		require.Equal(t, []string{"logger", "logger"}, o.started, "the first one has ended")
	})
}

func TestLog_LevelOfLoggerApplies(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		core, logs := observer.New(zapcore.WarnLevel)
		o := newOwner(t, zap.New(core))
		o.publish(event.Event{Kind: event.Registered}, event.Event{Kind: event.Parked})
		synctest.Wait()
		require.Equal(t, 1, logs.Len())
	})
}

// core is a logger that calls a function instead of logging.
type core struct {
	zapcore.LevelEnabler

	write func()
}

func (c core) With([]zapcore.Field) zapcore.Core { return c }

func (c core) Sync() error { return nil }

func (c core) Check(e zapcore.Entry, checked *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	return checked.AddCore(e, c)
}

func (c core) Write(zapcore.Entry, []zapcore.Field) error {
	c.write()
	return nil
}

func TestLog_SlowLoggerLosesOldestAndBlocksNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		var writes atomic.Int64
		logger := zap.New(core{zapcore.DebugLevel, func() { writes.Add(1); <-release }})
		observed, logs := observer.New(zapcore.DebugLevel)
		logger = logger.WithOptions(zap.WrapCore(func(c zapcore.Core) zapcore.Core { return zapcore.NewTee(c, observed) }))
		o := newOwner(t, logger)
		o.publish(event.Event{})
		synctest.Wait()
		require.EqualValues(t, 1, writes.Load())
		for range 1034 {
			o.publish(event.Event{})
		}
		close(release)
		synctest.Wait()
		require.EqualValues(t, 1+1024, writes.Load())
		require.Equal(t, uint64(10), logs.All()[1].ContextMap()["lost"])
		require.NotContains(t, logs.All()[2].ContextMap(), "lost")
	})
}

func TestLog_PanicOrGoexitOfLoggerIsContained(t *testing.T) {
	t.Parallel()
	for name, do := range map[string]func(){"panics": func() { panic("logger") }, "exits": runtime.Goexit} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				writes := 0
				o := newOwner(t, zap.New(core{zapcore.DebugLevel, func() { writes++; do() }}))
				for range 3 {
					o.publish(event.Event{})
					synctest.Wait()
				}
				require.Equal(t, 3, writes)
			})
		})
	}
}

func TestLog_KeepsEventsWhileHostStartsNoGoroutine(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		core, logs := observer.New(zapcore.DebugLevel)
		o := newOwner(t, zap.New(core))
		o.refuses = true
		o.publish(event.Event{})
		synctest.Wait()
		require.Zero(t, logs.Len())
		o.refuses = false
		o.publish(event.Event{})
		synctest.Wait()
		require.Equal(t, 2, logs.Len())
	})
}

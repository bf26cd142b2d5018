package registry_test

import (
	"context"
	"errors"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/capreg/registry"
	"github.com/capreg/registry/internal/testkit"
)

func TestLogger_GetsALineForEachEvent(t *testing.T) {
	t.Parallel()
	core, logs := observer.New(zapcore.DebugLevel)
	testkit.Bubble(t, registry.Options{Logger: zap.New(core)}, func(t *testing.T, reg *registry.Registry) {
		a := testkit.Add(t, reg, testkit.Provider{Name: "a"})
		require.NoError(t, a.ForceOpen(time.Minute, "maintenance"))
		require.NoError(t, a.MarkUnhealthy(errors.New("multi\nline")))
		synctest.Wait()
		lines := logs.AllUntimed()
		require.Len(t, lines, 3)
		require.Equal(t, "registry registered", lines[0].Message)
		require.Equal(t, zapcore.InfoLevel, lines[0].Level)
		require.Equal(t, zapcore.WarnLevel, lines[1].Level)
		fields := lines[1].ContextMap()
		require.Equal(t, "registry.breaker_opened", fields["event"])
		require.Equal(t, "a", fields["provider"])
		require.Equal(t, "chat", fields["service"])
		require.Equal(t, "maintenance", fields["reason"])
		require.Equal(t, "closed", fields["from"])
		require.Equal(t, "multi line", lines[2].ContextMap()["error"])
	})
	last := logs.All()[logs.Len()-1]
	require.Equal(t, "registry closed", last.Message)
}

// badCore is a logger that does what it is told instead of logging.
type badCore struct {
	zapcore.LevelEnabler

	do func()
}

func (c badCore) With([]zapcore.Field) zapcore.Core { return c }

func (c badCore) Sync() error { return nil }

func (c badCore) Check(e zapcore.Entry, checked *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	return checked.AddCore(e, c)
}

func (c badCore) Write(zapcore.Entry, []zapcore.Field) error {
	c.do()
	return nil
}

func TestLogger_PanicOrGoexitIsContained(t *testing.T) {
	t.Parallel()
	for name, do := range map[string]func(){"panics": func() { panic("logger") }, "exits": runtime.Goexit} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			logger := zap.New(badCore{zapcore.DebugLevel, do})
			testkit.Bubble(t, registry.Options{Logger: logger}, func(t *testing.T, reg *registry.Registry) {
				for i := range 5 {
					testkit.Add(t, reg, testkit.Provider{Name: strconv.Itoa(i)})
					synctest.Wait()
				}
				require.Equal(t, "0", testkit.MustAsk(t, testkit.Bind(reg)))
			})
		})
	}
}

func TestLogger_BlockedIsNamedByClose(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		reg := testkit.New(t, registry.Options{Logger: zap.New(badCore{zapcore.DebugLevel, func() { <-release }})})
		for i := range 2000 { // more than it may fall behind
			testkit.Add(t, reg, testkit.Provider{Name: strconv.Itoa(i)})
		}
		require.Equal(t, "0", testkit.MustAsk(t, testkit.Bind(reg)))
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		err := reg.Close(ctx)
		require.ErrorIs(t, err, registry.ErrStuck)
		require.ErrorContains(t, err, "logger: still running")
		close(release)
		synctest.Wait()
	})
}

// overlapCore counts the writes that begin while another is in progress.
type overlapCore struct {
	zapcore.Core

	inside, overlaps atomic.Int64
}

func (c *overlapCore) Enabled(zapcore.Level) bool { return true }

func (c *overlapCore) With([]zapcore.Field) zapcore.Core { return c }

func (c *overlapCore) Sync() error { return nil }

func (c *overlapCore) Check(e zapcore.Entry, checked *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	return checked.AddCore(e, c)
}

func (c *overlapCore) Write(zapcore.Entry, []zapcore.Field) error {
	if c.inside.Add(1) > 1 {
		c.overlaps.Add(1)
	}
	runtime.Gosched()
	c.inside.Add(-1)
	return nil
}

func TestLogger_IsCalledByOneGoroutineAtATime(t *testing.T) {
	t.Parallel()
	core := &overlapCore{}
	reg := testkit.New(t, registry.Options{Logger: zap.New(core)})
	p := testkit.Add(t, reg, testkit.Provider{Name: "p"})
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for i := range 4000 {
				_ = p.MarkUnhealthy(testkit.ErrDown)
				for range (i % 11) * 20 {
					runtime.Gosched()
				}
			}
		})
	}
	wg.Wait()
	_ = reg.Close(t.Context())
	require.Zero(t, core.overlaps.Load())
}

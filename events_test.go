package registry_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/capreg/registry"
	"github.com/capreg/registry/event"
)

// drained returns the events that were not read yet.
func drained(tb testing.TB, s *registry.Subscription) []event.Event {
	tb.Helper()
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	var all []event.Event
	for e := range s.All(ended) {
		all = append(all, e)
	}
	return all
}

func TestSubscriberGetsTheSnapshotAndThenEveryChangeInOrder(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		b := add(t, reg, provider{Name: "b"})
		add(t, reg, provider{Name: "a", Group: 1})
		require.NoError(t, b.ForceOpen(time.Minute, "test"))
		events := reg.Subscribe(0)
		snapshot := events.Snapshot()
		require.Len(t, snapshot, 2)
		require.Equal(t, "b", snapshot[0].Name)
		require.Equal(t, registry.BreakerOpen, snapshot[0].Breaker.State)
		require.False(t, snapshot[0].Eligible)
		require.Equal(t, "a", snapshot[1].Name)

		c := add(t, reg, provider{Name: "c"})
		require.NoError(t, c.MarkUnhealthy(errDown))
		require.NoError(t, c.MarkHealthy())
		require.NoError(t, c.MarkHealthy(), "no change, no event")
		require.NoError(t, b.Reset())
		require.NoError(t, c.Unregister(t.Context()))
		all := drained(t, events)
		var got []string
		for i, e := range all {
			got = append(got, fmt.Sprint(e.Provider, " ", e.Kind))
			require.Equal(t, all[0].Sequence+uint64(i), e.Sequence, "without a gap")
			require.Equal(t, "chat", e.Service)
			require.Equal(t, time.Now(), e.Time)
		}
		require.Equal(t, []string{
			"c registered", "c unhealthy", "c healthy", "b breaker_closed", "c draining", "c drained",
		}, got)
		require.ErrorIs(t, all[1].Err, errDown)
		require.Equal(t, "down", all[1].Reason)
	})
}

func TestSnapshotAndEventsTogetherMissNothingAndRepeatNothing(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		var workers sync.WaitGroup
		for i := range 4 {
			workers.Go(func() {
				for j := range 100 {
					a := add(t, reg, provider{Name: fmt.Sprint(i, "-", j)})
					if j%2 == 0 {
						if err := a.Unregister(t.Context()); err != nil {
							t.Error(err)
						}
					}
				}
			})
		}
		subscriptions := make([]*registry.Subscription, 20)
		for i := range subscriptions {
			runtime.Gosched()
			subscriptions[i] = reg.Subscribe(10_000)
		}
		workers.Wait()
		want := make(map[string]bool)
		for info := range reg.All() {
			want[info.Name] = true
		}
		for _, s := range subscriptions {
			present := make(map[string]bool)
			for _, info := range s.Snapshot() {
				present[info.Name] = true
			}
			for _, e := range drained(t, s) {
				switch e.Kind {
				case event.Registered:
					require.False(t, present[e.Provider], "registered twice")
					present[e.Provider] = true
				case event.Draining:
					require.True(t, present[e.Provider], "left without having been there")
					delete(present, e.Provider)
				default:
				}
			}
			require.Equal(t, want, present)
		}
	})
}

func TestSlowSubscriberLosesTheOldestAndIsToldHowMany(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		slow, quick := reg.Subscribe(3), reg.Subscribe(100)
		for i := range 10 {
			add(t, reg, provider{Name: strconv.Itoa(i)})
		}
		all := drained(t, slow)
		require.Len(t, all, 3)
		require.Equal(t, uint64(7), all[0].Lost)
		require.Equal(t, "7", all[0].Provider)
		require.Zero(t, all[1].Lost)
		require.Len(t, drained(t, quick), 10)
	})
}

func TestNextWaitsForAnEventWithinItsContext(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		events := reg.Subscribe(0)
		errBored := errors.New("bored")
		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Second, errBored)
		defer cancel()
		_, err := events.Next(ctx)
		require.ErrorIs(t, err, errBored)
		time.AfterFunc(time.Second, func() { add(t, reg, provider{Name: "a"}) })
		e, err := events.Next(t.Context())
		require.NoError(t, err)
		require.Equal(t, event.Registered, e.Kind)
	})
}

func TestSubscriptionEndsBehindTheLastEventOfTheRegistry(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		reg := newRegistry(t, registry.Options{})
		add(t, reg, provider{Name: "a"})
		events := reg.Subscribe(0)
		var readers sync.WaitGroup
		var read []event.Kind
		readers.Go(func() {
			for e := range events.All(t.Context()) {
				read = append(read, e.Kind)
			}
		})
		synctest.Wait()
		require.NoError(t, reg.Close(t.Context()))
		readers.Wait()
		require.Equal(t, []event.Kind{event.Closing, event.Draining, event.Drained, event.Closed}, read)
		_, err := events.Next(t.Context())
		require.ErrorIs(t, err, registry.ErrClosed)
		_, err = reg.Subscribe(0).Next(t.Context())
		require.ErrorIs(t, err, registry.ErrClosed)
	})
}

func TestClosedSubscriptionEndsAllItsReadersAndHoldsNothingUp(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		events := reg.Subscribe(-5)
		var readers sync.WaitGroup
		for range 3 {
			readers.Go(func() {
				_, err := events.Next(t.Context())
				require.ErrorIs(t, err, registry.ErrClosed)
			})
		}
		synctest.Wait()
		events.Close()
		events.Close()
		readers.Wait()
		add(t, reg, provider{Name: "a"})
		require.Empty(t, drained(t, events))
	})
}

func TestLoggerGetsALineForEachEvent(t *testing.T) {
	t.Parallel()
	core, logs := observer.New(zapcore.DebugLevel)
	bubble(t, registry.Options{Logger: zap.New(core)}, func(t *testing.T, reg *registry.Registry) {
		a := add(t, reg, provider{Name: "a"})
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
func (c badCore) Sync() error                       { return nil }
func (c badCore) Check(e zapcore.Entry, checked *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	return checked.AddCore(e, c)
}

func (c badCore) Write(zapcore.Entry, []zapcore.Field) error {
	c.do()
	return nil
}

func TestLoggerThatPanicsOrExitsHarmsNobody(t *testing.T) {
	t.Parallel()
	for name, do := range map[string]func(){"panics": func() { panic("logger") }, "exits": runtime.Goexit} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			logger := zap.New(badCore{zapcore.DebugLevel, do})
			bubble(t, registry.Options{Logger: logger}, func(t *testing.T, reg *registry.Registry) {
				for i := range 5 {
					add(t, reg, provider{Name: strconv.Itoa(i)})
					synctest.Wait()
				}
				require.Equal(t, "0", asked(t, bind(reg)))
			})
		})
	}
}

func TestLoggerThatBlocksHoldsUpNobodyAndIsNamedByClose(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		reg := newRegistry(t, registry.Options{Logger: zap.New(badCore{zapcore.DebugLevel, func() { <-release }})})
		for i := range 2000 { // more than it may fall behind
			add(t, reg, provider{Name: strconv.Itoa(i)})
		}
		require.Equal(t, "0", asked(t, bind(reg)))
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		err := reg.Close(ctx)
		require.ErrorIs(t, err, registry.ErrStuck)
		require.ErrorContains(t, err, "logger: still running")
		close(release)
		synctest.Wait()
	})
}

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

	"github.com/capreg/registry"
	"github.com/capreg/registry/event"
	"github.com/capreg/registry/internal/testkit"
	"github.com/capreg/registry/status"
)

func TestSubscribe_SnapshotThenEveryChangeInOrder(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		b := testkit.Add(t, reg, testkit.Provider{Name: "b"})
		testkit.Add(t, reg, testkit.Provider{Name: "a", Group: 1})
		require.NoError(t, b.ForceOpen(time.Minute, "test"))
		events := reg.Subscribe(0)
		snapshot := events.Snapshot()
		require.Len(t, snapshot, 2)
		require.Equal(t, "b", snapshot[0].Name)
		require.Equal(t, status.BreakerOpen, snapshot[0].Breaker.State)
		require.False(t, snapshot[0].Eligible)
		require.Equal(t, "a", snapshot[1].Name)

		c := testkit.Add(t, reg, testkit.Provider{Name: "c"})
		require.NoError(t, c.MarkUnhealthy(testkit.ErrDown))
		require.NoError(t, c.MarkHealthy())
		require.NoError(t, c.MarkHealthy(), "no change, no event")
		require.NoError(t, b.Reset())
		require.NoError(t, c.Unregister(t.Context()))
		all := testkit.Events(t, events)
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
		require.ErrorIs(t, all[1].Err, testkit.ErrDown)
		require.Equal(t, "down", all[1].Reason)
	})
}

func TestSubscribe_SnapshotAndEventsHaveNoGap(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		var workers sync.WaitGroup
		for i := range 4 {
			workers.Go(func() {
				for j := range 100 {
					a := testkit.Add(t, reg, testkit.Provider{Name: fmt.Sprint(i, "-", j)})
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
			for _, e := range testkit.Events(t, s) {
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

func TestSubscribe_SlowReaderLosesOldestAndLearnsCount(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		slow, quick := reg.Subscribe(3), reg.Subscribe(100)
		for i := range 10 {
			testkit.Add(t, reg, testkit.Provider{Name: strconv.Itoa(i)})
		}
		all := testkit.Events(t, slow)
		require.Len(t, all, 3)
		require.Equal(t, uint64(7), all[0].Lost)
		require.Equal(t, "7", all[0].Provider)
		require.Zero(t, all[1].Lost)
		require.Len(t, testkit.Events(t, quick), 10)
	})
}

func TestSubscription_NextWaitsWithinContext(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		events := reg.Subscribe(0)
		errBored := errors.New("bored")
		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Second, errBored)
		defer cancel()
		_, err := events.Next(ctx)
		require.ErrorIs(t, err, errBored)
		time.AfterFunc(time.Second, func() { testkit.Add(t, reg, testkit.Provider{Name: "a"}) })
		e, err := events.Next(t.Context())
		require.NoError(t, err)
		require.Equal(t, event.Registered, e.Kind)
	})
}

func TestSubscription_EndsAfterLastEventOfRegistry(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		reg := testkit.New(t, registry.Options{})
		testkit.Add(t, reg, testkit.Provider{Name: "a"})
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

func TestSubscription_CloseEndsAllReaders(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
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
		testkit.Add(t, reg, testkit.Provider{Name: "a"})
		require.Empty(t, testkit.Events(t, events))
	})
}

func TestSubscribe_SnapshotIsACopy(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		testkit.Add(t, reg, testkit.Provider{Name: "p", Metadata: map[string]string{"k": "v"}})
		s := reg.Subscribe(0)
		defer s.Close()
		s.Snapshot()[0].Metadata["k"] = "changed"
		require.Equal(t, "v", s.Snapshot()[0].Metadata["k"])
	})
}

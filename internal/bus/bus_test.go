package bus_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"go.uber.org/zap"

	"github.com/capreg/registry/event"
	"github.com/capreg/registry/internal/bus"
	"github.com/capreg/registry/internal/fault"
	"github.com/capreg/registry/internal/schedule"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var errTest = errors.New("test")

// owner is a lock with a bus behind it.
type owner struct {
	sync.Mutex

	bus     *bus.Bus
	timers  *schedule.Scheduler
	refuses bool // starts no goroutines
	started []string
	running sync.WaitGroup
}

func newOwner(t *testing.T, logger *zap.Logger) *owner {
	t.Helper()
	o := &owner{timers: schedule.New()}
	t.Cleanup(o.timers.Close)
	o.bus = bus.New(o, bus.Loggers{Zap: logger})
	t.Cleanup(o.running.Wait)
	return o
}

func (o *owner) Go(name string, f func()) bool {
	if o.refuses {
		return false
	}
	o.started = append(o.started, name)
	o.running.Go(f)
	return true
}

func (o *owner) After(d time.Duration, f func()) *schedule.Timer { return o.timers.After(d, f) }

func (o *owner) publish(all ...event.Event) {
	o.Lock()
	defer o.Unlock()
	for _, e := range all {
		o.bus.Publish(e)
	}
}

func (o *owner) subscribe(buffer int, filters ...event.Filter) *bus.Reader {
	o.Lock()
	defer o.Unlock()
	return o.bus.Subscribe(buffer, filters)
}

func (o *owner) close() {
	o.Lock()
	defer o.Unlock()
	o.bus.Close()
}

// rest returns the events that a reader has left.
func rest(t *testing.T, r *bus.Reader) (all []event.Event) {
	t.Helper()
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	for {
		e, err := r.Next(ended)
		if err != nil {
			return all
		}
		all = append(all, e)
	}
}

func TestPublish_NumbersEventsForAllReaders(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		o := newOwner(t, nil)
		o.publish(event.Event{Kind: event.Registered})
		a, b := o.subscribe(0), o.subscribe(0)
		o.publish(event.Event{Kind: event.Draining, Provider: "p"})
		time.Sleep(time.Second)
		o.publish(event.Event{Kind: event.Drained, Provider: "p"})
		want := []event.Event{
			{Kind: event.Draining, Provider: "p", Sequence: 2, Time: time.Now().Add(-time.Second)},
			{Kind: event.Drained, Provider: "p", Sequence: 3, Time: time.Now()},
		}
		require.Equal(t, want, rest(t, a))
		require.Equal(t, want, rest(t, b))
	})
}

func TestSubscribe_BoundsBuffer(t *testing.T) {
	t.Parallel()
	for _, row := range []struct{ buffer, events, want int }{
		{buffer: 0, events: bus.DefaultBuffer + 10, want: bus.DefaultBuffer},
		{buffer: -1, events: bus.DefaultBuffer + 10, want: bus.DefaultBuffer},
		{buffer: 3, events: 10, want: 3},
	} {
		o := newOwner(t, nil)
		r := o.subscribe(row.buffer)
		for range row.events {
			o.publish(event.Event{})
		}
		all := rest(t, r)
		require.Len(t, all, row.want)
		require.EqualValues(t, row.events-row.want, all[0].Lost, "the first one tells the loss")
		require.EqualValues(t, row.events-row.want+1, all[0].Sequence, "the oldest were dropped")
		require.Zero(t, all[1].Lost)
	}
}

func TestSubscribe_AfterCloseHasEnded(t *testing.T) {
	t.Parallel()
	o := newOwner(t, nil)
	require.False(t, o.bus.Closed())
	o.close()
	require.True(t, o.bus.Closed())
	r := o.subscribe(0)
	o.publish(event.Event{})
	_, err := r.Next(t.Context())
	require.ErrorIs(t, err, fault.ErrClosed)
}

func TestReader_NextWaitsWithinContext(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		o := newOwner(t, nil)
		r := o.subscribe(0)
		errBored := errors.New("bored")
		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Second, errBored)
		defer cancel()
		_, err := r.Next(ctx)
		require.ErrorIs(t, err, errBored)
		require.EqualError(t, err, "registry: subscription: context deadline exceeded; bored")
		time.AfterFunc(time.Second, func() { o.publish(event.Event{Kind: event.Registered}) })
		e, err := r.Next(t.Context())
		require.NoError(t, err)
		require.Equal(t, event.Registered, e.Kind)
	})
}

func TestReader_EachEventIsReadOnceByOneOfSeveral(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		o := newOwner(t, nil)
		r := o.subscribe(0)
		const readers, events = 4, 100
		read := make([][]uint64, readers)
		var reading sync.WaitGroup
		for i := range readers {
			reading.Go(func() {
				for e := range r.All(t.Context()) {
					read[i] = append(read[i], e.Sequence)
				}
			})
		}
		synctest.Wait()
		o.publish(make([]event.Event, events)...)
		synctest.Wait()
		o.close()
		reading.Wait()
		seen := map[uint64]int{}
		for _, numbers := range read {
			require.IsIncreasing(t, append([]uint64{0}, numbers...))
			for _, number := range numbers {
				seen[number]++
			}
		}
		require.Len(t, seen, events)
		for number, times := range seen {
			require.Equal(t, 1, times, number)
		}
	})
}

func TestReader_CloseEndsAllAndLeavesUnreadEvents(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		o := newOwner(t, nil)
		r := o.subscribe(0)
		var reading sync.WaitGroup
		for range 3 {
			reading.Go(func() {
				for range r.All(t.Context()) {
					t.Error("an event")
				}
			})
		}
		synctest.Wait()
		r.Close()
		r.Close()
		reading.Wait()

		r = o.subscribe(0)
		o.publish(event.Event{Kind: event.Closing})
		r.Close()
		o.publish(event.Event{Kind: event.Closed})
		e, err := r.Next(t.Context())
		require.NoError(t, err)
		require.Equal(t, event.Closing, e.Kind)
		_, err = r.Next(t.Context())
		require.EqualError(t, err, "registry: subscription: shutting down")
	})
}

func TestReader_AllStopsWithItsLoop(t *testing.T) {
	t.Parallel()
	o := newOwner(t, nil)
	r := o.subscribe(0)
	o.publish(event.Event{}, event.Event{})
	for e := range r.All(t.Context()) {
		require.EqualValues(t, 1, e.Sequence)
		break
	}
	require.Len(t, rest(t, r), 1)
}

func TestNew_WithoutLoggerStartsNoGoroutine(t *testing.T) {
	t.Parallel()
	o := newOwner(t, nil)
	o.publish(event.Event{})
	require.Empty(t, o.started)
}

// lateContext blocks its Done method until open is closed.
type lateContext struct {
	context.Context

	open <-chan struct{}
}

func (c lateContext) Done() <-chan struct{} {
	<-c.open
	return c.Context.Done()
}

func TestReader_PassesTheSignalOnWhenOneEventIsLeft(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		o := newOwner(t, nil)
		r := o.subscribe(0)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		open := make(chan struct{})
		var late context.Context = lateContext{ctx, open}
		read := make(chan uint64, 2)
		for range 2 {
			go func() {
				if e, err := r.Next(late); err == nil {
					read <- e.Sequence
				}
			}()
		}
		synctest.Wait() // both have found nothing, and are about to wait for the signal
		o.publish(event.Event{}, event.Event{})
		close(open)
		synctest.Wait()
		require.Len(t, read, 2)
	})
}

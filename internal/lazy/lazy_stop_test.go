package lazy_test

import (
	"context"
	"errors"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry/internal/fault"
	"github.com/capreg/registry/internal/lazy"
	"github.com/capreg/registry/internal/tasks"
)

func TestInstance_StopWhileMakingWakesWaitersAndDiscardsALateProduct(t *testing.T) {
	t.Parallel()
	errClosing := errors.New("closing failed")
	for name, row := range map[string]struct {
		late      factory
		discard   func(*product) error
		discarded int64
		failure   func(*testing.T, error)
	}{
		"product": {late: func(context.Context) (*product, error) { return &product{}, nil }, discarded: 1},
		"error":   {late: func(context.Context) (*product, error) { return nil, errFactory }},
		"panic":   {late: func(context.Context) (*product, error) { panic(errFactory) }},
		"exit":    {late: func(context.Context) (*product, error) { runtime.Goexit(); return nil, nil }},
		"closing fails": {
			late:    func(context.Context) (*product, error) { return &product{}, nil },
			discard: func(*product) error { return errClosing }, discarded: 1,
			failure: func(t *testing.T, err error) { t.Helper(); require.ErrorIs(t, err, errClosing) },
		},
		"closing panics": {
			late:    func(context.Context) (*product, error) { return &product{}, nil },
			discard: func(*product) error { panic(errClosing) }, discarded: 1,
			failure: func(t *testing.T, err error) { t.Helper(); require.ErrorIs(t, err, errClosing) },
		},
		"closing exits": {
			late:    func(context.Context) (*product, error) { return &product{}, nil },
			discard: func(*product) error { runtime.Goexit(); return nil }, discarded: 1,
			failure: func(t *testing.T, err error) { t.Helper(); require.Error(t, err) },
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				h := newHost(t)
				h.discard = row.discard
				var cause error
				i := lazy.New[*product](h, func(ctx context.Context) (*product, error) {
					<-ctx.Done()
					cause = context.Cause(ctx)
					time.Sleep(time.Minute) // it hangs on
					return row.late(ctx)
				})
				var waiting sync.WaitGroup
				for range 5 {
					waiting.Go(func() {
						_, ok := i.Get(t.Context())
						require.False(t, ok)
					})
				}
				synctest.Wait()
				began := time.Now()
				i.Stop(errGone)
				waiting.Wait()
				_, ok := i.Get(t.Context())
				require.False(t, ok)
				require.Equal(t, began, time.Now(), "no caller waits any longer")
				ended := i.Release(errors.New("too late to be the cause"))
				synctest.Wait()
				select {
				case <-ended:
					require.Fail(t, "the factory still runs")
				default:
				}
				for range 2 {
					i.AwaitEnd()
					require.ErrorIs(t, i.EndError(), fault.ErrStuck)
					require.Equal(t, tasks.StuckAfter, time.Since(began), "it is given up, once")
				}
				<-ended
				require.Equal(t, time.Minute, time.Since(began))
				require.Equal(t, errGone, cause)
				require.Equal(t, row.discarded, h.discarded.Load())
				if row.failure != nil {
					row.failure(t, i.EndError())
				} else {
					require.NoError(t, i.EndError())
				}
				_, ok = i.Get(t.Context())
				require.False(t, ok)
				require.Empty(t, h.seen(), "nothing is reported of it any more")
			})
		})
	}
}

func TestInstance_StopWithoutARunLetsNoneBegin(t *testing.T) {
	t.Parallel()
	for name, stop := range map[string]func(*testing.T, *lazy.Instance[*product]){
		"stop":    func(_ *testing.T, i *lazy.Instance[*product]) { i.Stop(errGone); i.Stop(errGone) },
		"release": func(t *testing.T, i *lazy.Instance[*product]) { t.Helper(); require.Nil(t, i.Release(errGone)) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHost(t)
			i := lazy.New[*product](h, func(context.Context) (*product, error) {
				t.Error("the factory ran")
				return nil, nil
			})
			stop(t, i)
			i.AwaitEnd() // of nothing
			require.NoError(t, i.EndError())
			_, ok := i.Get(t.Context())
			require.False(t, ok)
			require.Empty(t, h.seen())
		})
	}
}

func TestInstance_StopDuringTheDelayEndsIt(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t)
		i := lazy.New[*product](h, func(context.Context) (*product, error) { return nil, errFactory })
		_, ok := i.Get(t.Context())
		require.False(t, ok)
		require.Equal(t, 1, h.pendingTimers())
		<-i.Release(errGone)
		require.Zero(t, h.pendingTimers())
		time.Sleep(time.Hour)
		_, ok = i.Get(t.Context())
		require.False(t, ok)
		require.Equal(t, []string{"not ready"}, h.seen())
	})
}

// A timer that cannot be stopped any more must not bring a stopped instance back.
func TestInstance_DelayThatEndsAsItIsStoppedChangesNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t)
		var end func()
		late := &lateTimers{host: h, end: &end}
		i := lazy.New[*product](late, func(context.Context) (*product, error) { return nil, errFactory })
		_, ok := i.Get(t.Context())
		require.False(t, ok)
		i.Stop(errGone)
		end()
		_, ok = i.Get(t.Context())
		require.False(t, ok)
		require.Equal(t, []string{"not ready"}, h.seen())
	})
}

type lateTimers struct {
	*host
	end *func()
}

func (h *lateTimers) After(_ time.Duration, f func()) func() bool {
	*h.end = f
	return func() bool { return false }
}

func TestInstance_HostThatStartsNoGoroutineStopsIt(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.refuses = true
	i := lazy.New[*product](h, func(context.Context) (*product, error) { return &product{}, nil })
	_, ok := i.Get(t.Context())
	require.False(t, ok)
	h.refuses = false
	_, ok = i.Get(t.Context())
	require.False(t, ok)
	<-i.Release(errGone)
	require.Empty(t, h.seen())
}

// countedLife counts what follows it.
type countedLife struct {
	context.Context

	done      chan struct{}
	followers atomic.Int64
}

func (c *countedLife) Done() <-chan struct{} { return c.done }

func (c *countedLife) AfterFunc(func()) (stop func() bool) {
	c.followers.Add(1)
	return sync.OnceValue(func() bool { c.followers.Add(-1); return true })
}

func TestInstance_RunThatCannotBeginLeavesNothingAtTheLifeOfItsHost(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	life := &countedLife{Context: context.Background(), done: make(chan struct{})}
	h.life = life
	i := lazy.New[*product](h, func(context.Context) (*product, error) { return &product{}, nil })
	_, ok := i.Get(t.Context())
	require.True(t, ok)
	require.EqualValues(t, 1, life.followers.Load(), "a product lives with it")
	<-i.Release(errGone)
	require.Zero(t, life.followers.Load())

	h.refuses = true
	lazy.New[*product](h, func(context.Context) (*product, error) { return &product{}, nil }).Start()
	require.Zero(t, life.followers.Load())
}

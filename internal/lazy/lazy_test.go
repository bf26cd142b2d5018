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
	"go.uber.org/goleak"

	"github.com/capreg/registry/internal/fault"
	"github.com/capreg/registry/internal/lazy"
	"github.com/capreg/registry/verdict"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	errFactory = errors.New("factory failed")
	errGone    = errors.New("gone")
)

type factory = func(context.Context) (*product, error)

func TestInstance_MakesOnceWhileAllWait(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h, want := newHost(t), &product{}
		var runs atomic.Int64
		i := lazy.New[*product](h, func(context.Context) (*product, error) {
			runs.Add(1)
			time.Sleep(10 * time.Second)
			return want, nil
		})
		require.Zero(t, runs.Load(), "not before it is needed")
		var waiting sync.WaitGroup
		for range 20 {
			waiting.Go(func() {
				made, ok := i.Get(t.Context())
				require.True(t, ok)
				require.Same(t, want, made)
			})
		}
		waiting.Wait()
		made, ok := i.Get(t.Context())
		require.True(t, ok)
		require.Same(t, want, made)
		require.Equal(t, int64(1), runs.Load())
		require.Equal(t, []string{"ready"}, h.seen())
	})
}

func TestInstance_WaitersSeeWhatTheHostDidOnReady(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	for range 300 { // on real goroutines: the end of the run races with the waiters
		i := lazy.New[*product](h, func(context.Context) (*product, error) { return &product{}, nil })
		before := len(h.seen())
		var waiting sync.WaitGroup
		for range 8 {
			waiting.Go(func() {
				if _, ok := i.Get(t.Context()); !ok || len(h.seen()) == before {
					t.Error("a waiter came before Ready")
				}
			})
		}
		waiting.Wait()
		<-i.Release(errGone)
	}
	require.Len(t, h.seen(), 300)
}

func TestInstance_ContextOfAWaiterEndsOnlyItsWait(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t)
		i := lazy.New[*product](h, func(ctx context.Context) (*product, error) {
			time.Sleep(20 * time.Second)
			return &product{}, ctx.Err()
		})
		impatient, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		began := time.Now()
		_, ok := i.Get(impatient)
		require.False(t, ok)
		require.Equal(t, time.Second, time.Since(began))
		require.Empty(t, h.seen())
		_, ok = i.Get(t.Context())
		require.True(t, ok)
		require.Equal(t, 20*time.Second, time.Since(began))
	})
}

func TestInstance_IsSlowOnceAWaiterTimesOut(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t)
		i := lazy.New[*product](h, func(context.Context) (*product, error) {
			time.Sleep(10 * time.Second)
			return &product{}, nil
		})
		attempt, cancel := context.WithTimeoutCause(t.Context(), time.Second, fault.ErrAttemptTimeout)
		defer cancel()
		_, ok := i.Get(attempt)
		require.False(t, ok)
		require.Equal(t, []string{"not ready"}, h.seen())
		require.Equal(t, lazy.Failure{Err: lazy.ErrSlow, Text: lazy.ErrSlow.Error()}, h.last())
		_, ok = i.Get(t.Context())
		require.True(t, ok)
		require.Equal(t, []string{"not ready", "ready"}, h.seen())

		_, ok = i.Get(attempt)
		require.True(t, ok, "a context that has ended does not hide the product")
		require.Equal(t, []string{"not ready", "ready"}, h.seen())
	})
}

func TestInstance_SlowIsNotReportedOfARunThatWasStopped(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t)
		// Both ends of the wait come at once; whichever the waiter sees, nothing is reported.
		for range 20 {
			i := lazy.New[*product](h, func(ctx context.Context) (*product, error) {
				<-ctx.Done()
				return nil, ctx.Err()
			})
			attempt, cancel := context.WithCancelCause(t.Context())
			go func() {
				_, _ = i.Get(attempt)
			}()
			synctest.Wait()
			i.Stop(errGone)
			cancel(fault.ErrAttemptTimeout)
			synctest.Wait()
		}
		require.Empty(t, h.seen())
	})
}

// The factory fails in every way in which user code can, and works in the end.
func TestInstance_FactoryThatFailsIsRunAgainAtTheNextNeedAfterItsDelay(t *testing.T) {
	t.Parallel()
	for name, fails := range map[string]factory{
		"error":          func(context.Context) (*product, error) { return nil, errFactory },
		"panic":          func(context.Context) (*product, error) { panic(errFactory) },
		"panic with nil": func(context.Context) (*product, error) { panic(nil) }, //nolint:govet // what users do
		"exit":           func(context.Context) (*product, error) { runtime.Goexit(); return nil, nil },
		"both":           func(context.Context) (*product, error) { return &product{}, errFactory },
		"bad error":      func(context.Context) (*product, error) { return nil, panickingError{} },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				h := newHost(t)
				runs, works := 0, false
				i := lazy.New[*product](h, func(ctx context.Context) (*product, error) {
					runs++
					if works {
						return &product{}, nil
					}
					return fails(ctx)
				})
				for range 50 {
					_, ok := i.Get(t.Context())
					require.False(t, ok)
				}
				require.Equal(t, 1, runs)
				require.Equal(t, []string{"not ready"}, h.seen())
				failure := h.last()
				require.Error(t, failure.Err)
				require.NotEmpty(t, failure.Text)
				require.NotContains(t, failure.Text, "\n")
				switch name {
				case "error", "panic", "both":
					require.ErrorIs(t, failure.Err, errFactory)
				case "exit":
					var panicked *verdict.PanicError
					require.ErrorAs(t, failure.Err, &panicked)
				}
				works = true
				time.Sleep(time.Until(failure.Until) - 1)
				_, ok := i.Get(t.Context())
				require.False(t, ok, "not before the delay is over")
				time.Sleep(time.Nanosecond)
				synctest.Wait()
				require.Equal(t, []string{"not ready", "retry"}, h.seen())
				require.Equal(t, 1, runs, "only at need")
				_, ok = i.Get(t.Context())
				require.True(t, ok)
				require.Equal(t, 2, runs)
				require.Equal(t, []string{"not ready", "retry", "ready"}, h.seen())
				require.Zero(t, h.discarded.Load())
			})
		})
	}
}

type panickingError struct{}

func (panickingError) Error() string { panic("in Error") }

func TestInstance_NilProductWithoutAnErrorIsAProduct(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t)
		i := lazy.New[*product](h, func(context.Context) (*product, error) { return nil, nil })
		made, ok := i.Get(t.Context())
		require.True(t, ok, "the factory's error says that it made nothing")
		require.Nil(t, made)
	})
}

func TestInstance_DelaysGrowToAMinute(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t)
		i := lazy.New[*product](h, func(context.Context) (*product, error) { return nil, errFactory })
		for _, seconds := range []int{1, 2, 4, 8, 16, 32, 60, 60, 60} {
			_, ok := i.Get(t.Context())
			require.False(t, ok)
			delay := time.Until(h.last().Until)
			require.InDelta(t, seconds, delay.Seconds(), float64(seconds)/2)
			time.Sleep(delay)
			synctest.Wait()
		}
	})
}

func TestInstance_ContextOfARunEndsWithItsFailureAndOfAProductWithItsRelease(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t)
		var contexts []context.Context
		i := lazy.New[*product](h, func(ctx context.Context) (*product, error) {
			if contexts = append(contexts, ctx); len(contexts) == 1 {
				return nil, errFactory
			}
			return &product{}, nil
		})
		_, ok := i.Get(t.Context())
		require.False(t, ok)
		require.ErrorIs(t, context.Cause(contexts[0]), context.Canceled)
		time.Sleep(time.Minute)
		_, ok = i.Get(t.Context())
		require.True(t, ok)
		i.Stop(errGone)
		require.NoError(t, contexts[1].Err(), "what was made goes on")
		_, ok = i.Get(t.Context())
		require.True(t, ok)
		<-i.Release(errGone)
		require.ErrorIs(t, context.Cause(contexts[1]), errGone)
		_, ok = i.Get(t.Context())
		require.False(t, ok)
		require.Zero(t, h.discarded.Load(), "it was ready: its owner closes it")
	})
}

func TestInstance_RunEndsWithTheLifeOfItsHost(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t)
		life, end := context.WithCancelCause(t.Context())
		h.life = life
		i := lazy.New[*product](h, func(ctx context.Context) (*product, error) {
			<-ctx.Done()
			return nil, context.Cause(ctx)
		})
		time.AfterFunc(time.Second, func() { end(errGone) })
		_, ok := i.Get(t.Context())
		require.False(t, ok)
		require.ErrorIs(t, h.last().Err, errGone)
		i.Stop(errGone)
		require.Zero(t, h.pendingTimers())
	})
}

func TestStart_RunsTheFactoryWithoutWaitingForIt(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t)
		i := lazy.New[*product](h, func(context.Context) (*product, error) {
			time.Sleep(time.Second)
			return &product{}, nil
		})
		began := time.Now()
		i.Start()
		i.Start()
		require.Equal(t, began, time.Now())
		time.Sleep(time.Second)
		synctest.Wait()
		require.Equal(t, []string{"ready"}, h.seen())
	})
}

func TestInstance_OfNoneHasNothingToGetStopOrRelease(t *testing.T) {
	t.Parallel()
	var none *lazy.Instance[*product]
	_, ok := none.Get(t.Context())
	require.False(t, ok)
	none.Stop(errGone)
	require.Nil(t, none.Release(errGone))
	require.NoError(t, none.EndError())
}

func TestInstance_LetsGoOfItsFactoryAndItsProduct(t *testing.T) {
	t.Parallel()
	freed := make(chan struct{}, 2)
	h := newHost(t)
	i := func() *lazy.Instance[*product] {
		captured, made := &product{}, &product{}
		runtime.AddCleanup(captured, func(int) { freed <- struct{}{} }, 0)
		runtime.AddCleanup(made, func(int) { freed <- struct{}{} }, 0)
		return lazy.New[*product](h, func(context.Context) (*product, error) {
			captured.closed++
			kept := made
			made = nil
			return kept, nil
		})
	}()
	_, ok := i.Get(t.Context())
	require.True(t, ok)
	<-i.Release(errGone)
	for n := 0; n < cap(freed); { // until the test's own deadline
		runtime.GC()
		select {
		case <-freed:
			n++
		default:
		}
	}
	_, ok = i.Get(t.Context())
	require.False(t, ok)
}

func TestInstance_ConcurrentUse(t *testing.T) {
	t.Parallel()
	for range 200 {
		h := newHost(t)
		var running, made, runs atomic.Int64
		i := lazy.New[*product](h, func(context.Context) (*product, error) {
			if running.Add(1) > 1 {
				t.Error("two runs at once")
			}
			defer running.Add(-1)
			if runs.Add(1) == 1 {
				runtime.Gosched()
			}
			made.Add(1)
			return &product{}, nil
		})
		var users sync.WaitGroup
		for n := range 6 {
			users.Go(func() {
				if n == 4 {
					i.Stop(errGone)
				}
				attempt, cancel := context.WithCancelCause(t.Context())
				if n == 3 {
					cancel(fault.ErrAttemptTimeout)
				}
				i.Get(attempt)
				cancel(nil)
			})
		}
		users.Wait()
		if ended := i.Release(errGone); ended != nil {
			<-ended
		}
		ready := 0
		for _, what := range h.seen() {
			if what == "ready" {
				ready++
			}
		}
		require.LessOrEqual(t, runs.Load(), int64(1))
		require.Equal(t, made.Load(), int64(ready)+h.discarded.Load(), "each product is handed over or discarded")
		_, ok := i.Get(t.Context())
		require.False(t, ok)
	}
}

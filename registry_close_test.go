package registry_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/internal/testkit"
	"github.com/capreg/registry/verdict"
)

func TestClose_RefusesEverythingAfterwards(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		reg := testkit.New(t, registry.Options{})
		a, r := testkit.Add(t, reg, testkit.Provider{Name: "a"}), testkit.Bind(reg)
		require.Equal(t, "a", testkit.MustAsk(t, r))
		require.NoError(t, reg.Close(t.Context()))
		_, err := testkit.Ask(t.Context(), r)
		require.ErrorIs(t, err, registry.ErrClosed)
		require.ErrorIs(t, err, registry.ErrUnavailable)
		_, err = r.Get(t.Context())
		require.ErrorIs(t, err, registry.ErrClosed)
		_, err = r.Acquire(t.Context())
		require.ErrorIs(t, err, registry.ErrClosed)
		_, err = testkit.Bind(reg, "new query").Get(t.Context())
		require.ErrorIs(t, err, registry.ErrClosed)
		_, err = testkit.Chat.Register(t.Context(), reg, testkit.Provider{Instance: testkit.Says("x")})
		require.ErrorIs(t, err, registry.ErrClosed)
		require.ErrorIs(t, reg.WaitReady(t.Context(), "chat"), registry.ErrClosed)
		require.ErrorIs(t, r.Explain().Err, registry.ErrClosed)
		require.NoError(t, a.Unregister(t.Context()))
		require.Zero(t, reg.Stats().Providers)
		require.NoError(t, reg.Close(t.Context()), "twice")
	})
}

func TestClose_WaitsForCallsAndLeases(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		reg := testkit.New(t, registry.Options{})
		testkit.Add(t, reg, testkit.Provider{Name: "a", Instance: testkit.Answers(func() (string, error) { time.Sleep(3 * time.Second); return "a", nil })})
		var caller sync.WaitGroup
		caller.Go(func() { testkit.MustAsk(t, testkit.Bind(reg)) })
		lease, err := testkit.Bind(reg).Acquire(t.Context())
		require.NoError(t, err)
		time.AfterFunc(5*time.Second, func() { lease.Done(nil) })
		synctest.Wait()
		began := time.Now()
		var closers sync.WaitGroup
		for range 5 {
			closers.Go(func() {
				if err := reg.Close(t.Context()); err != nil {
					t.Error(err)
				}
			})
		}
		closers.Wait()
		require.Equal(t, 5*time.Second, time.Since(began))
		caller.Wait()
	})
}

func TestClose_EndsContextsOfCallsAtDeadline(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		reg := testkit.New(t, registry.Options{})
		a := testkit.Add(t, reg, testkit.Provider{Name: "a", Instance: testkit.Hangs(), AttemptTimeout: time.Hour})
		var caller sync.WaitGroup
		caller.Go(func() {
			_, err := testkit.Ask(t.Context(), testkit.Bind(reg))
			require.ErrorIs(t, err, registry.ErrClosed)
		})
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		require.NoError(t, reg.Close(ctx), "code that heeds its context is not stuck")
		caller.Wait()
		<-a.Left()
		require.NoError(t, a.Unregister(t.Context()))
	})
}

func TestClose_NamesStuckUserCode(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		reg := testkit.New(t, registry.Options{})
		release := make(chan struct{})
		wait := func() { <-release }
		deaf := testkit.Add(t, reg, testkit.Provider{Name: "deaf", Instance: testkit.Answers(func() (string, error) { wait(); return "", nil })})
		testkit.Add(t, reg, testkit.Provider{Name: "closer", Capabilities: []string{"c"}, Factory: func(context.Context) (testkit.ChatModel, error) {
			return &testkit.Closer{Do: wait}, nil
		}})
		testkit.Add(t, reg, testkit.Provider{Name: "maker", Capabilities: []string{"m"}, AttemptTimeout: time.Second, Factory: func(context.Context) (testkit.ChatModel, error) {
			wait()
			return nil, testkit.ErrDown
		}})
		testkit.MustAsk(t, testkit.Bind(reg, "c"))
		_, err := testkit.Ask(t.Context(), testkit.Bind(reg, "m"))
		require.Error(t, err)
		var caller sync.WaitGroup
		caller.Go(func() { testkit.MustAsk(t, testkit.Bind(reg)) })
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		err = reg.Close(ctx)
		testkit.RequireOneLine(t, err)
		require.ErrorIs(t, err, registry.ErrStuck)
		require.ErrorContains(t, err, `provider "chat/deaf": still running: 1 call in flight`)
		require.ErrorContains(t, err, `provider "chat/closer": still running: closing its instance`)
		require.ErrorContains(t, err, `factory of provider "chat/maker"`)
		again, cancelAgain := context.WithTimeout(t.Context(), time.Minute)
		defer cancelAgain()
		began := time.Now()
		require.ErrorIs(t, reg.Close(again), registry.ErrStuck, "waited for again")
		require.Equal(t, time.Minute+2*time.Second, time.Since(began))
		close(release)
		caller.Wait()
		<-deaf.Left()
		synctest.Wait() // the factory has returned, too
		require.NoError(t, reg.Close(t.Context()))
	})
}

func TestClose_ClosesInstancesInReverseAndJoinsErrors(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		reg := testkit.New(t, registry.Options{})
		var order []string
		errA := errors.New("a failed")
		for _, name := range []string{"a", "b", "c", "d"} {
			product := &testkit.Closer{Do: func() {
				order = append(order, name)
				switch name {
				case "b":
					panic("b panicked")
				case "c":
					runtime.Goexit()
				}
			}}
			if name == "a" {
				product.Err = errA
			}
			testkit.Add(t, reg, testkit.Provider{Name: name, Capabilities: []string{name}, Factory: func(context.Context) (testkit.ChatModel, error) {
				return product, nil
			}})
			testkit.MustAsk(t, testkit.Bind(reg, name))
		}
		err := reg.Close(t.Context())
		testkit.RequireOneLine(t, err)
		require.Equal(t, []string{"d", "c", "b", "a"}, order)
		require.ErrorIs(t, err, errA)
		var panicked *verdict.PanicError
		require.ErrorAs(t, err, &panicked)
		require.ErrorContains(t, err, `closing provider "chat/b": registry: panic: b panicked`)
		require.ErrorContains(t, err, `closing provider "chat/c": registry: goroutine exited`)
	})
}

func TestClose_EndedContextStillClosesIdle(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		reg := testkit.New(t, registry.Options{})
		testkit.Add(t, reg, testkit.Provider{Name: "a"})
		product := &testkit.Closer{}
		testkit.Add(t, reg, testkit.Provider{Name: "b", Group: -1, Factory: func(context.Context) (testkit.ChatModel, error) { return product, nil }})
		testkit.MustAsk(t, testkit.Bind(reg))
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		require.NoError(t, reg.Close(ctx))
		require.Equal(t, 1, product.Closed)
	})
}

func TestClose_WaitsForProvidersThatLeftBefore(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		reg := testkit.New(t, registry.Options{})
		a := testkit.Add(t, reg, testkit.Provider{Name: "a"})
		lease, err := testkit.Bind(reg).Acquire(t.Context())
		require.NoError(t, err)
		testkit.Add(t, reg, testkit.Provider{Name: "a", Replace: true})
		time.AfterFunc(2*time.Second, func() { lease.Done(nil) })
		began := time.Now()
		require.NoError(t, reg.Close(t.Context()))
		require.Equal(t, 2*time.Second, time.Since(began))
		<-a.Left()
	})
}

func TestRegistry_HasNoGoroutineAtRest(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		reg := testkit.New(t, registry.Options{})
		for i := range 100 {
			a := testkit.Add(t, reg, testkit.Provider{Name: strconv.Itoa(i)})
			require.NoError(t, a.ForceOpen(time.Hour, "test"))
		}
		// A bubble whose test returns while a goroutine is blocked fails: a
		// registry that was dropped without Close must not do that.
	})
}

func TestClose_ReleasesProviderThatLeavesMeanwhile(t *testing.T) {
	t.Parallel()
	lost := 0
	const n = 3000
	for range n {
		reg := testkit.New(t, registry.Options{})
		var closed atomic.Bool
		p := testkit.Add(t, reg, testkit.Provider{Name: "p", Factory: func(context.Context) (testkit.ChatModel, error) {
			return testkit.Closable{ChatModel: testkit.Says("x"), Do: func() error { closed.Store(true); return nil }}, nil
		}})
		testkit.MustAsk(t, testkit.Bind(reg))
		var wg sync.WaitGroup
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
			defer cancel()
			_ = p.Unregister(ctx)
		})
		wg.Go(func() { _ = reg.Close(t.Context()) })
		wg.Wait()
		if !closed.Load() {
			lost++
		}
	}
	require.Zero(t, lost, "instances never closed of %d", n)
}

func TestClose_InstanceClosesWhenCallEndsAtDeadline(t *testing.T) {
	t.Parallel()
	lost, hung := 0, 0
	const n = 100
	for range n {
		reg := testkit.New(t, registry.Options{})
		var closed atomic.Bool
		p := testkit.Add(t, reg, testkit.Provider{Name: "p", Factory: func(context.Context) (testkit.ChatModel, error) {
			return testkit.Closable{ChatModel: testkit.Hangs(), Do: func() error { closed.Store(true); return nil }}, nil
		}})
		entered := make(chan struct{})
		done := make(chan struct{})
		go func() {
			defer close(done)
			_, _ = registry.Call(context.Background(), testkit.Bind(reg), func(ctx context.Context, m testkit.ChatModel) (string, error) {
				close(entered)
				return m.Chat(ctx, "")
			})
		}()
		<-entered
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		_ = reg.Close(ended)
		<-done
		<-p.Left()
		ctx, cancel2 := context.WithTimeout(t.Context(), 20*time.Millisecond)
		if err := p.Unregister(ctx); err != nil {
			hung++
		}
		cancel2()
		if !closed.Load() {
			lost++
		}
	}
	require.Zero(t, lost, "never closed of %d; Unregister hung: %d", n, hung)
}

func TestClose_InstanceClosesAfterDeadline(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		reg := testkit.New(t, registry.Options{})
		var closed atomic.Bool
		release := make(chan struct{})
		p := testkit.Add(t, reg, testkit.Provider{Name: "p", Factory: func(context.Context) (testkit.ChatModel, error) {
			return testkit.Closable{ChatModel: testkit.Answers(func() (string, error) { <-release; return "", nil }), Do: func() error { closed.Store(true); return nil }}, nil
		}})
		go func() { _, _ = testkit.Ask(context.Background(), testkit.Bind(reg)) }()
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		require.ErrorIs(t, reg.Close(ctx), registry.ErrStuck)
		close(release)
		synctest.Wait()
		require.NoError(t, p.Unregister(t.Context()))
		require.True(t, closed.Load(), "instance is never closed")
	})
}

func TestClose_NamesOnlyTheHungCloser(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		reg := testkit.New(t, registry.Options{})
		release := make(chan struct{})
		for i := range 4 {
			testkit.Add(t, reg, testkit.Provider{Name: fmt.Sprintf("p%d", i), Factory: func(context.Context) (testkit.ChatModel, error) {
				return testkit.Closable{ChatModel: testkit.Says("x"), Do: func() error {
					if i == 3 {
						<-release
					}
					return nil
				}}, nil
			}})
		}
		_, err := testkit.Bind(reg).GetAll(t.Context(), 0)
		require.NoError(t, err)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		err = reg.Close(ctx)
		close(release)
		synctest.Wait()
		require.NotContains(t, err.Error(), `"p0"`)
	})
}

type closerFunc func() error

func (f closerFunc) Close() error { return f() }

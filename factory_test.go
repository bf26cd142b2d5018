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

	"github.com/capreg/registry"
	"github.com/capreg/registry/event"
	"github.com/capreg/registry/internal/testkit"
	"github.com/capreg/registry/reason"
)

func TestFactory_RunsOnceAtFirstNeed(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		var runs atomic.Int64
		a := testkit.Add(t, reg, testkit.Provider{Name: "a", Factory: func(context.Context) (testkit.ChatModel, error) {
			runs.Add(1)
			time.Sleep(10 * time.Second)
			return testkit.Says("made"), nil
		}})
		testkit.Pass(time.Minute)
		require.Zero(t, runs.Load(), "not before it is needed")
		require.False(t, a.Info().Made)
		require.True(t, a.Info().Eligible)
		var callers sync.WaitGroup
		for range 20 {
			callers.Go(func() { testkit.MustAsk(t, testkit.Bind(reg)) })
			callers.Go(func() { testkit.MustGet(t, testkit.Bind(reg)) })
		}
		callers.Wait()
		require.Equal(t, int64(1), runs.Load())
		require.True(t, a.Info().Made)
	})
}

func TestFactory_WaitersEndWithTheirContexts(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a := testkit.Add(t, reg, testkit.Provider{Name: "a", Factory: func(context.Context) (testkit.ChatModel, error) {
			time.Sleep(20 * time.Second)
			return testkit.Says("made"), nil
		}})
		impatient, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		began := time.Now()
		_, err := testkit.Ask(impatient, testkit.Bind(reg))
		require.ErrorIs(t, err, context.DeadlineExceeded)
		_, err = testkit.Bind(reg).Get(impatient)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Equal(t, time.Second, time.Since(began))
		require.Equal(t, "made", testkit.MustAsk(t, testkit.Bind(reg)), "their leaving did not end it")
		require.Equal(t, 20*time.Second, time.Since(began))
		testkit.RequireCounts(t, a, 1, 0, 0, 0)
	})
}

func TestFactory_SlowerThanAttemptIsSkipped(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		testkit.Add(t, reg, testkit.Provider{Name: "slow", AttemptTimeout: time.Second, Factory: func(context.Context) (testkit.ChatModel, error) {
			time.Sleep(10 * time.Second)
			return testkit.Says("slow"), nil
		}})
		testkit.Add(t, reg, testkit.Provider{Name: "b", Group: 1})
		require.Equal(t, "b", testkit.MustAsk(t, testkit.Bind(reg)))
		require.Equal(t, "b", testkit.MustGet(t, testkit.Bind(reg)))
		testkit.Pass(10 * time.Second)
		require.Equal(t, "slow", testkit.MustAsk(t, testkit.Bind(reg)))
	})
}

func TestFactory_FailureMakesIneligibleAndIsRetried(t *testing.T) {
	t.Parallel()
	for name, failure := range map[string]func() (testkit.ChatModel, error){
		"error":  func() (testkit.ChatModel, error) { return nil, testkit.ErrDown },
		"panic":  func() (testkit.ChatModel, error) { panic(testkit.ErrDown) },
		"nil":    func() (testkit.ChatModel, error) { var none *testkit.NilModel; return none, nil },
		"goexit": func() (testkit.ChatModel, error) { runtime.Goexit(); return nil, nil },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
				var runs int
				works := false
				a := testkit.Add(t, reg, testkit.Provider{Name: "a", Factory: func(context.Context) (testkit.ChatModel, error) {
					runs++
					if works {
						return testkit.Says("made"), nil
					}
					return failure()
				}})
				events := reg.Subscribe(0)
				_, err := testkit.Ask(t.Context(), testkit.Bind(reg))
				testkit.RequireOneLine(t, err)
				require.ErrorIs(t, err, registry.ErrUnavailable)
				require.ErrorIs(t, err, registry.ErrNotReady)
				if name == "error" || name == "panic" {
					require.ErrorIs(t, err, testkit.ErrDown)
				}
				var unavailable *registry.UnavailableError
				require.ErrorAs(t, err, &unavailable)
				require.Positive(t, unavailable.RetryIn)
				require.Equal(t, reason.NotReady, unavailable.Candidates()[0].Code)
				for range 50 {
					_, err = testkit.Ask(t.Context(), testkit.Bind(reg))
					require.ErrorIs(t, err, registry.ErrNotReady)
				}
				require.Equal(t, 1, runs, "not before its delay is over")
				require.Zero(t, a.Info().Attempts, "the breaker saw nothing")

				testkit.Pass(2 * time.Second)
				_, err = testkit.Ask(t.Context(), testkit.Bind(reg))
				require.Error(t, err)
				require.Equal(t, 2, runs)
				works = true
				testkit.Pass(time.Minute)
				require.Equal(t, 2, runs, "only at need")
				require.Equal(t, "made", testkit.MustAsk(t, testkit.Bind(reg)))
				require.Equal(t, []event.Kind{event.NotReady, event.NotReady, event.Ready}, testkit.Kinds(t, events))
			})
		})
	}
}

func TestFactory_RetryDelayGrowsToAMinute(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a := testkit.Add(t, reg, testkit.Provider{Name: "a", Factory: func(context.Context) (testkit.ChatModel, error) { return nil, testkit.ErrDown }})
		var last time.Duration
		for range 12 {
			_, err := testkit.Ask(t.Context(), testkit.Bind(reg))
			var unavailable *registry.UnavailableError
			require.ErrorAs(t, err, &unavailable)
			last = unavailable.RetryIn
			require.LessOrEqual(t, last, 90*time.Second)
			testkit.Pass(last)
			require.True(t, a.Info().Eligible)
		}
		require.Greater(t, last, 20*time.Second)
	})
}

func TestFactory_OfRemovedProviderIsCancelled(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		product := &testkit.Closer{}
		var cause error
		a := testkit.Add(t, reg, testkit.Provider{Name: "a", Factory: func(ctx context.Context) (testkit.ChatModel, error) {
			<-ctx.Done()
			cause = context.Cause(ctx)
			return product, nil // late, and all the same
		}})
		testkit.Add(t, reg, testkit.Provider{Name: "b"})
		var caller sync.WaitGroup
		caller.Go(func() { require.Equal(t, "b", testkit.MustAsk(t, testkit.Bind(reg)), "the waiting call fails over") })
		synctest.Wait()
		drain, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		require.NoError(t, a.Unregister(drain))
		caller.Wait()
		require.ErrorIs(t, cause, registry.ErrClosed)
		synctest.Wait()
		require.Equal(t, 1, product.Closed)
	})
}

func TestFactory_IsCancelledByClose(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		testkit.Add(t, reg, testkit.Provider{Name: "a", AttemptTimeout: time.Second, Factory: func(ctx context.Context) (testkit.ChatModel, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}})
		_, err := testkit.Ask(t.Context(), testkit.Bind(reg))
		require.ErrorIs(t, err, registry.ErrUnavailable)
	})
}

func TestFactory_InstanceIsClosedAfterLastCall(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		errClosing := errors.New("closing failed")
		product, given := &testkit.Closer{Err: errClosing}, &testkit.Closer{}
		a := testkit.Add(t, reg, testkit.Provider{Name: "a", Factory: func(context.Context) (testkit.ChatModel, error) { return product, nil }})
		b := testkit.Add(t, reg, testkit.Provider{Name: "b", Instance: given})
		lease, err := testkit.Bind(reg).Acquire(t.Context())
		require.NoError(t, err)
		var waiting sync.WaitGroup
		waiting.Go(func() { require.ErrorIs(t, a.Unregister(t.Context()), errClosing) })
		synctest.Wait()
		require.Zero(t, product.Closed, "not while a call is in flight")
		lease.Done(nil)
		waiting.Wait()
		require.Equal(t, 1, product.Closed)
		require.NoError(t, b.Unregister(t.Context()))
		require.Zero(t, given.Closed, "what was passed in remains the caller's")
	})
}

func TestFactory_WaitersGetItsInstance(t *testing.T) {
	t.Parallel()
	reg := testkit.New(t, registry.Options{})
	for i := range 300 { // on real goroutines: the end of the factory races with the waiters
		a := testkit.Add(t, reg, testkit.Provider{Name: strconv.Itoa(i), Factory: func(context.Context) (testkit.ChatModel, error) { return testkit.Says("made"), nil }})
		var waiting sync.WaitGroup
		for range 8 {
			waiting.Go(func() {
				if answer, err := testkit.Ask(t.Context(), testkit.Bind(reg)); err != nil || answer != "made" {
					t.Error(answer, err)
				}
			})
		}
		waiting.Wait()
		require.NoError(t, a.Unregister(t.Context()))
	}
	require.NoError(t, reg.Close(t.Context()))
}

func TestFactory_ContextLastsAsLongAsInstance(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		var life context.Context
		testkit.Add(t, reg, testkit.Provider{Name: "p", Factory: func(ctx context.Context) (testkit.ChatModel, error) {
			life = ctx //nolint:fatcontext // what a client does
			return testkit.Says("x"), nil
		}})
		testkit.MustAsk(t, testkit.Bind(reg))
		require.NoError(t, life.Err(), "doc: its context ends when the provider is removed")
	})
}

func TestFactory_IsEndedByUnregisterWhileCallWaits(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		reg := testkit.New(t, registry.Options{})
		p := testkit.Add(t, reg, testkit.Provider{Name: "p", AttemptTimeout: registry.NoTimeout, Factory: func(ctx context.Context) (testkit.ChatModel, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}})
		go func() { _, _ = testkit.Ask(context.Background(), testkit.Bind(reg)) }()
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		err := p.Unregister(ctx)
		_ = reg.Close(t.Context())
		require.NoError(t, err)
	})
}

func TestFactory_UnregisterWaitsAndClosesInstance(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		var closed atomic.Bool
		p := testkit.Add(t, reg, testkit.Provider{Name: "p", Factory: func(ctx context.Context) (testkit.ChatModel, error) {
			<-ctx.Done()
			time.Sleep(time.Second)
			return testkit.Closable{ChatModel: testkit.Says("x"), Do: func() error { closed.Store(true); return testkit.ErrDown }}, nil
		}})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := testkit.Bind(reg).Get(ctx)
		require.Error(t, err)
		err = p.Unregister(t.Context())
		c := closed.Load()
		testkit.Pass(2 * time.Second)
		require.True(t, c, "Unregister returned %v before the closing", err)
	})
}

func TestFactory_InstanceMadeDuringRemovalIsClosed(t *testing.T) {
	t.Parallel()
	lost := 0
	const n = 30
	for range n {
		reg := testkit.New(t, registry.Options{})
		var closed atomic.Bool
		made := make(chan struct{})
		p := testkit.Add(t, reg, testkit.Provider{Name: "p", Factory: func(ctx context.Context) (testkit.ChatModel, error) {
			for range 20000 { // children make the end of the factory's context slow
				c, cancel := context.WithCancel(ctx)
				_, _ = c, cancel
			}
			close(made)
			return testkit.Closable{ChatModel: testkit.Says("x"), Do: func() error { closed.Store(true); return nil }}, nil
		}})
		var asking sync.WaitGroup
		asking.Go(func() { _, _ = testkit.Bind(reg).Get(t.Context()) })
		<-made
		time.Sleep(300 * time.Microsecond)
		_ = p.Unregister(t.Context())
		_ = reg.Close(t.Context())
		asking.Wait()
		if !closed.Load() {
			lost++
		}
	}
	require.Zero(t, lost, "made but never closed, of %d", n)
}

func TestFactory_InstanceOfWrongTypeIsClosed(t *testing.T) {
	t.Parallel()
	reg := testkit.New(t, registry.Options{})
	testkit.Chat.Bind(reg, registry.Query{})
	var closed atomic.Bool
	_, err := reg.Register(t.Context(), testkit.Chat.Name(), registry.Provider[any]{Name: "p", Factory: func(context.Context) (any, error) {
		return closerFunc(func() error { closed.Store(true); return nil }), nil
	}})
	require.NoError(t, err)
	_, err = testkit.Bind(reg).Get(t.Context())
	require.Error(t, err)
	require.NoError(t, reg.Close(t.Context()))
	require.True(t, closed.Load(), "what a factory made belongs to the registry")
}

func TestFactory_ProviderUnhealthyMeanwhileIsSkipped(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		p := testkit.Add(t, reg, testkit.Provider{Name: "p", Factory: func(context.Context) (testkit.ChatModel, error) {
			time.Sleep(time.Second)
			return testkit.Says("p"), nil
		}})
		testkit.Add(t, reg, testkit.Provider{Name: "q"})
		done := make(chan string)
		go func() { a, _ := testkit.Ask(context.Background(), testkit.Bind(reg)); done <- a }()
		synctest.Wait()
		_ = p.MarkUnhealthy(testkit.ErrDown)
		require.Equal(t, "q", <-done)
	})
}

func TestFactory_HangCostsOneCallItsTime(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		testkit.Add(t, reg, testkit.Provider{Name: "hung", Factory: func(ctx context.Context) (testkit.ChatModel, error) { <-ctx.Done(); return nil, ctx.Err() }})
		testkit.Add(t, reg, testkit.Provider{Name: "good"})
		start := time.Now()
		for range 10 {
			require.Equal(t, "good", testkit.MustAsk(t, testkit.Bind(reg)))
		}
		require.Less(t, time.Since(start), 2*time.Minute, "10 calls")
	})
}

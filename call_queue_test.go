package registry_test

import (
	"context"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/internal/testkit"
	"github.com/capreg/registry/reason"
	"github.com/capreg/registry/verdict"
)

func TestQueue_ServesInOrderOfArrival(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		var served []int
		a := testkit.Add(t, reg, testkit.Provider{Name: "a", Limits: registry.LimitPolicy{MaxConcurrent: 1}})
		var callers sync.WaitGroup
		for i := range 6 {
			callers.Go(func() {
				_, err := registry.Call(t.Context(), testkit.Bind(reg), func(context.Context, testkit.ChatModel) (int, error) {
					served = append(served, i) // one at a time
					time.Sleep(time.Second)
					return 0, nil
				})
				require.NoError(t, err)
			})
			synctest.Wait()
		}
		require.Equal(t, uint64(1), a.Info().InFlight)
		callers.Wait()
		require.Equal(t, []int{0, 1, 2, 3, 4, 5}, served)
	})
}

func TestQueue_CallQueuesAtEveryFullProvider(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		one := registry.LimitPolicy{MaxConcurrent: 1}
		testkit.Add(t, reg, testkit.Provider{Name: "a", Instance: testkit.Takes("a", 10*time.Second), Limits: one})
		testkit.Add(t, reg, testkit.Provider{Name: "b", Instance: testkit.Takes("b", 3*time.Second), Limits: one})
		var callers sync.WaitGroup
		for range 2 {
			callers.Go(func() { testkit.MustAsk(t, testkit.Bind(reg)) })
		}
		synctest.Wait()
		began := time.Now()
		var report registry.CallReport
		require.Equal(t, "b", testkit.MustAsk(t, testkit.Bind(reg), registry.ReportTo(&report)))
		require.Equal(t, 6*time.Second, time.Since(began))
		require.Equal(t, reason.Queued, report.Attempts[0].Why)
		require.Equal(t, 3*time.Second, report.Attempts[0].Delay)
		callers.Wait()
	})
}

func TestQueue_IsBoundedInLengthAndTime(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a := testkit.Add(t, reg, testkit.Provider{
			Name: "a", Instance: testkit.Takes("a", time.Minute), AttemptTimeout: time.Hour,
			Limits: registry.LimitPolicy{MaxConcurrent: 1, MaxQueue: 2, MaxWait: 5 * time.Second},
		})
		var callers sync.WaitGroup
		callers.Go(func() { testkit.MustAsk(t, testkit.Bind(reg)) })
		synctest.Wait()
		began := time.Now()
		for range 2 {
			callers.Go(func() {
				_, err := testkit.Ask(t.Context(), testkit.Bind(reg))
				require.ErrorIs(t, err, registry.ErrAtCapacity)
				require.ErrorIs(t, err, registry.ErrUnavailable)
				require.Equal(t, 5*time.Second, time.Since(began))
			})
		}
		synctest.Wait()
		_, err := testkit.Ask(t.Context(), testkit.Bind(reg))
		require.ErrorIs(t, err, registry.ErrAtCapacity)
		require.ErrorContains(t, err, "a: at capacity")
		require.Equal(t, began, time.Now(), "no room: at once")
		callers.Wait()
		testkit.RequireCounts(t, a, 1, 0, 0, 0)
	})
}

func TestQueue_NoQueueRefusesAtOnce(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		testkit.Add(t, reg, testkit.Provider{Name: "a", Limits: registry.LimitPolicy{MaxConcurrent: 1, NoQueue: true}})
		lease, err := testkit.Bind(reg).Acquire(t.Context())
		require.NoError(t, err)
		_, err = testkit.Bind(reg).Acquire(t.Context())
		require.ErrorIs(t, err, registry.ErrAtCapacity)
		lease.Done(nil)
		require.Equal(t, "a", testkit.MustAsk(t, testkit.Bind(reg)))
	})
}

func TestQueue_ChecksAdmissionAgainAtItsTurn(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		one := registry.LimitPolicy{MaxConcurrent: 1}
		a := testkit.Add(t, reg, testkit.Provider{Name: "a", Limits: one})
		lease, err := testkit.Bind(reg).Acquire(t.Context())
		require.NoError(t, err)
		var callers sync.WaitGroup
		for range 3 {
			callers.Go(func() {
				_, err := testkit.Ask(t.Context(), testkit.Bind(reg))
				require.ErrorIs(t, err, registry.ErrUnhealthy)
			})
		}
		synctest.Wait()
		require.NoError(t, a.MarkUnhealthy(testkit.ErrDown))
		lease.Done(nil)
		callers.Wait()
		testkit.RequireCounts(t, a, 1, 0, 0, 0)
		require.NoError(t, a.MarkHealthy())
		require.Equal(t, "a", testkit.MustAsk(t, testkit.Bind(reg)), "no place was lost")
	})
}

func TestQueue_CancelledCallLeaves(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a := testkit.Add(t, reg, testkit.Provider{Name: "a", Limits: registry.LimitPolicy{MaxConcurrent: 1, MaxQueue: 1}})
		lease, err := testkit.Bind(reg).Acquire(t.Context())
		require.NoError(t, err)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err = testkit.Ask(ctx, testkit.Bind(reg))
		require.ErrorIs(t, err, context.DeadlineExceeded)
		var callers sync.WaitGroup
		callers.Go(func() { require.Equal(t, "a", testkit.MustAsk(t, testkit.Bind(reg)), "there is room again") })
		synctest.Wait()
		lease.Done(nil)
		callers.Wait()
		testkit.RequireCounts(t, a, 2, 0, 0, 0)
	})
}

func TestQueue_KeepsPositionAfterRefusalElsewhere(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		lim := registry.LimitPolicy{MaxConcurrent: 1, MaxQueue: 10, MaxWait: time.Hour}
		a := testkit.Add(t, reg, testkit.Provider{Name: "a", Limits: lim, AttemptTimeout: time.Hour})
		testkit.Add(t, reg, testkit.Provider{Name: "b", Limits: lim, AttemptTimeout: time.Hour, Capabilities: []string{"x"}})
		both, onlyB := testkit.Bind(reg), testkit.Bind(reg, "x")
		la, _ := both.Acquire(t.Context())
		lb, _ := onlyB.Acquire(t.Context())
		var order []int
		var mu sync.Mutex
		var all sync.WaitGroup
		for i, r := range []*registry.Resolver[testkit.ChatModel]{both, onlyB} {
			all.Go(func() {
				time.Sleep(time.Duration(i+1) * time.Second)
				_, err := registry.Call(context.Background(), r, func(context.Context, testkit.ChatModel) (string, error) {
					mu.Lock()
					order = append(order, i)
					mu.Unlock()
					time.Sleep(time.Second)
					return "", nil
				})
				require.NoError(t, err)
			})
		}
		time.Sleep(5 * time.Second)
		require.NoError(t, a.MarkUnhealthy(testkit.ErrDown))
		la.Done(nil)
		time.Sleep(time.Second)
		lb.Done(nil)
		all.Wait()
		require.Equal(t, []int{0, 1}, order, "first come first served")
	})
}

func TestQueue_CallTakesProviderThatRecovers(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		// A call waits in queue of a although b comes back meanwhile.
		testkit.Add(t, reg, testkit.Provider{Name: "a", Limits: registry.LimitPolicy{MaxConcurrent: 1, MaxWait: time.Hour}, AttemptTimeout: time.Hour})
		b := testkit.Add(t, reg, testkit.Provider{Name: "b"})
		require.NoError(t, b.MarkUnhealthy(testkit.ErrDown))
		r := testkit.Bind(reg)
		l, err := r.Acquire(t.Context())
		require.NoError(t, err)
		go func() { time.Sleep(time.Second); _ = b.MarkHealthy() }()
		go func() { time.Sleep(30 * time.Minute); l.Done(nil) }()
		began := time.Now()
		require.Equal(t, "b", testkit.MustAsk(t, r))
		require.Less(t, time.Since(began), time.Minute, "b is free and healthy after a second")
	})
}

func TestQueue_CallLeavesWhenProviderIsRemoved(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a := testkit.Add(t, reg, testkit.Provider{Name: "a", Limits: registry.LimitPolicy{MaxConcurrent: 1, MaxWait: time.Hour}, AttemptTimeout: time.Hour})
		r := testkit.Bind(reg)
		l, err := r.Acquire(t.Context())
		require.NoError(t, err)
		var took time.Duration
		var all sync.WaitGroup
		all.Go(func() {
			began := time.Now()
			_, err := testkit.Ask(context.Background(), r)
			require.Error(t, err)
			took = time.Since(began)
		})
		time.Sleep(time.Second)
		go func() { time.Sleep(30 * time.Minute); l.Done(nil) }()
		go func() { _ = a.Unregister(context.Background()) }()
		all.Wait()
		require.Less(t, took, time.Minute, "no provider is left")
	})
}

func TestQueue_WaitingCallsEndWithRegistry(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		testkit.Add(t, reg, testkit.Provider{Name: "a", Limits: registry.LimitPolicy{MaxConcurrent: 1, MaxWait: time.Hour}, AttemptTimeout: time.Hour})
		r := testkit.Bind(reg)
		l, err := r.Acquire(t.Context())
		require.NoError(t, err)
		var all sync.WaitGroup
		all.Go(func() {
			began := time.Now()
			_, err := testkit.Ask(context.Background(), r)
			require.ErrorIs(t, err, registry.ErrClosed)
			require.Less(t, time.Since(began), time.Minute)
		})
		all.Go(func() {
			began := time.Now()
			ctx, cancel := context.WithTimeout(context.Background(), time.Hour*3)
			defer cancel()
			_, err := testkit.Ask(ctx, r, registry.WaitForCooldown())
			require.ErrorIs(t, err, registry.ErrClosed)
			require.Less(t, time.Since(began), time.Minute)
		})
		time.Sleep(time.Second)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		require.ErrorIs(t, reg.Close(ctx), registry.ErrStuck)
		time.Sleep(30 * time.Minute)
		l.Done(nil)
		all.Wait()
	})
}

func TestQueue_RetriesStayBounded(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		var tries atomic.Int32
		testkit.Add(t, reg, testkit.Provider{
			Name: "a", Limits: registry.LimitPolicy{MaxConcurrent: 1, MaxQueue: 5, MaxWait: time.Hour},
			Retry:   registry.RetryPolicy{Retries: 1, FirstDelay: time.Second, Budget: 1000},
			Breaker: registry.BreakerPolicy{FailureThreshold: 1000},
			Instance: testkit.Answers(func() (string, error) {
				tries.Add(1)
				return "", testkit.ErrDown
			}),
		})
		r := testkit.Bind(reg)
		stop := make(chan struct{})
		var all sync.WaitGroup
		// other calls, which take the place whenever it is free
		all.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				_, _ = registry.Call(context.Background(), r, func(ctx context.Context, m testkit.ChatModel) (string, error) {
					time.Sleep(2 * time.Second)
					return "", nil
				})
			}
		})
		time.Sleep(time.Second)
		var rep registry.CallReport
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
		defer cancel()
		_, err := testkit.Ask(ctx, r, registry.ReportTo(&rep))
		require.Error(t, err)
		close(stop)
		all.Wait()
		require.LessOrEqual(t, tries.Load(), int32(2), "Retries: 1 is two attempts in all")
	})
}

func TestQueue_LeadsToNoSmallerWindow(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		testkit.Add(t, reg, testkit.Provider{Name: "small", Window: 10, Limits: one})
		testkit.Add(t, reg, testkit.Provider{Name: "big", Window: 100, Instance: testkit.Fails(verdict.As(testkit.ErrDown, verdict.Verdict{Class: verdict.ClassTooLong}))})
		r := testkit.Bind(reg)
		l, err := r.Acquire(t.Context())
		require.NoError(t, err)
		require.Equal(t, "small", l.Provider())
		go func() { time.Sleep(500 * time.Millisecond); l.Done(nil) }()
		_, err = testkit.Ask(t.Context(), r)
		require.Error(t, err, "too long for 100, then asked small (window 10)")
	})
}

func TestQueue_CallTakesOnePositionPerDomain(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		l2 := registry.LimitPolicy{MaxConcurrent: 1, MaxQueue: 2, MaxWait: time.Minute}
		testkit.Add(t, reg, testkit.Provider{Name: "a", Domain: "key", Limits: l2})
		testkit.Add(t, reg, testkit.Provider{Name: "b", Domain: "key"})
		r := testkit.Bind(reg)
		l, err := r.Acquire(t.Context())
		require.NoError(t, err)
		var failed atomic.Int32
		var all sync.WaitGroup
		for range 2 {
			all.Go(func() {
				if _, err := testkit.Ask(context.Background(), r); err != nil {
					failed.Add(1)
				}
			})
		}
		time.Sleep(time.Second)
		l.Done(nil)
		all.Wait()
		require.Zero(t, failed.Load(), "MaxQueue is 2, and two waited")
	})
}

func TestQueue_WaitsInEachForItsOwnMaxWait(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		testkit.Add(t, reg, testkit.Provider{Name: "a", Limits: registry.LimitPolicy{MaxConcurrent: 1, MaxQueue: 1, MaxWait: 100 * time.Millisecond}})
		testkit.Add(t, reg, testkit.Provider{Name: "b", Limits: registry.LimitPolicy{MaxConcurrent: 1, MaxQueue: 1, MaxWait: 10 * time.Second}})
		r := testkit.Bind(reg)
		la, err := r.Acquire(t.Context())
		require.NoError(t, err)
		lb, err := r.Acquire(t.Context())
		require.NoError(t, err)
		go func() { time.Sleep(5 * time.Second); la.Done(nil) }()
		got, err := testkit.Ask(t.Context(), r)
		require.ErrorIs(t, err, registry.ErrAtCapacity)
		require.NotEqual(t, "a", got, "waited 5s in a queue where each waits 100ms at most")
		lb.Done(nil)
	})
}

func TestQueue_DoesNotRunCallWithEndedContext(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		testkit.Add(t, reg, testkit.Provider{Name: "a", Limits: one})
		r := testkit.Bind(reg)
		entered := 0
		for range 100 {
			l, err := r.Acquire(t.Context())
			require.NoError(t, err)
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan struct{})
			go func() {
				defer close(done)
				_, _ = registry.Call(ctx, r, func(ctx context.Context, m testkit.ChatModel) (string, error) {
					if ctx.Err() != nil {
						entered++
					}
					return "", nil
				})
			}()
			synctest.Wait()
			cancel()
			l.Done(nil)
			<-done
		}
		require.Zero(t, entered, "functions entered whose ctx had ended before")
	})
}

func TestQueue_AuthorizerGoexitKeepsNoPlace(t *testing.T) {
	t.Parallel()
	var exits atomic.Bool
	testkit.Bubble(t, registry.Options{Authorize: func(context.Context, string, string, string) error {
		if exits.Load() {
			runtime.Goexit()
		}
		return nil
	}}, func(t *testing.T, reg *registry.Registry) {
		testkit.Add(t, reg, testkit.Provider{Name: "a", Limits: one})
		r := testkit.Bind(reg)
		l, err := r.Acquire(t.Context())
		require.NoError(t, err)
		go func() { _, _ = testkit.Ask(context.Background(), r) }()
		synctest.Wait() // it was authorized and queues
		exits.Store(true)
		l.Done(nil)
		synctest.Wait()
		exits.Store(false)
		_, err = testkit.Ask(t.Context(), r)
		require.NoError(t, err, "a is idle")
	})
}

func TestQueue_ThrottledCallerDoesNotWait(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		testkit.Add(t, reg, testkit.Provider{Name: "a", AttemptTimeout: time.Hour, Limits: registry.LimitPolicy{MaxConcurrent: 1, MaxQueue: 1, MaxWait: 20 * time.Second, Rate: 0.001, Burst: 1}})
		r := testkit.Bind(reg)
		l, err := r.Acquire(t.Context())
		require.NoError(t, err)
		go func() { time.Sleep(10 * time.Second); l.Done(nil) }()
		began := time.Now()
		_, err = testkit.Ask(t.Context(), r)
		require.Error(t, err)
		require.Zero(t, time.Since(began), "a throttled caller does not use up the queue")
	})
}

func TestQueue_DoesNotWaitForFullQueue(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		r := testkit.Bind(reg)
		busy := testkit.Provider{Name: "b", AttemptTimeout: registry.NoTimeout, Instance: testkit.Takes("", 2*time.Hour)}
		busy.Limits = registry.LimitPolicy{MaxConcurrent: 1, MaxQueue: 1, MaxWait: time.Hour}
		testkit.Add(t, reg, busy)
		testkit.ConcurrentCalls(t, r, 2) // one is in, one queues
		synctest.Wait()
		busy.Name, busy.Group, busy.Limits = "a", -1, registry.LimitPolicy{MaxConcurrent: 1, MaxQueue: 9, MaxWait: 5 * time.Second}
		testkit.Add(t, reg, busy)
		synctest.Wait()                  // the queued call is in, and its position in the queue of b free
		testkit.ConcurrentCalls(t, r, 1) // queues at both
		synctest.Wait()
		began := time.Now()
		_, err := testkit.Ask(t.Context(), r)
		require.ErrorIs(t, err, registry.ErrAtCapacity)
		require.Equal(t, 5*time.Second, time.Since(began))
		testkit.Pass(6 * time.Hour)
	})
}

// A place that is granted as the caller leaves is given back, and the call ends: it must not take the same place for ever.
func TestCall_PlaceThatComesWithTheEndOfItsCallerEndsTheWait(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a := testkit.Add(t, reg, testkit.Provider{Name: "a", Limits: registry.LimitPolicy{MaxConcurrent: 1}})
		r := testkit.Bind(reg)
		for range 100 {
			holder, err := r.Acquire(t.Context())
			require.NoError(t, err)
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error)
			for range 3 {
				go func() {
					_, err := registry.Call(ctx, r, testkit.Return)
					done <- err
				}()
			}
			synctest.Wait()
			holder.Done(nil)
			cancel() // before the waiter that has the place now looks
			for range 3 {
				if err := <-done; err != nil { // the waiter may have looked before
					require.ErrorIs(t, err, context.Canceled)
				}
			}
			require.Zero(t, a.Info().InFlight)
		}
	})
}

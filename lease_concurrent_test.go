package registry_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
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

func TestBeside_QueueingDoesNotDelayRetry(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		testkit.Add(t, reg, testkit.Provider{Name: "a", Priority: registry.PriorityHigh, Retry: registry.RetryPolicy{Retries: 1}})
		testkit.Add(t, reg, testkit.Provider{Name: "b", Capabilities: []string{"b"}, Limits: registry.LimitPolicy{MaxConcurrent: 1, MaxQueue: 1, MaxWait: time.Minute}})
		full, err := testkit.Bind(reg, "b").Acquire(t.Context(), registry.AttemptTimeout(time.Hour))
		require.NoError(t, err)
		a, err := testkit.Bind(reg).Acquire(t.Context(), registry.AttemptTimeout(time.Hour))
		require.NoError(t, err)
		require.Equal(t, "a", a.Provider())
		done := make(chan struct{})
		go func() {
			defer close(done)
			if b, err := a.Steps().Beside(); err == nil {
				b.Done(nil)
			}
		}()
		testkit.Pass(time.Second)
		began := time.Now()
		again, err := a.MoveOn(testkit.ErrDown)
		waited := time.Since(began)
		if err == nil {
			again.Done(nil)
		}
		full.Done(nil)
		<-done
		require.NoError(t, err)
		require.Less(t, waited, time.Second)
	})
}

func TestBeside_CountsStayRightUnderStress(t *testing.T) {
	t.Parallel()
	var afterCalls, calls, after, before atomic.Int64
	reg, err := registry.New(registry.Options{
		Hooks: registry.Hooks{
			AfterCall: func(context.Context, registry.CallReport) { afterCalls.Add(1) },
			BeforeAttempt: func(ctx context.Context, _ registry.CallReport, _ registry.Attempt) context.Context {
				before.Add(1)
				return ctx
			},
			AfterAttempt: func(context.Context, registry.CallReport, registry.Attempt) { after.Add(1) },
		},
	})
	require.NoError(t, err)
	for i := range 4 {
		testkit.Add(t, reg, testkit.Provider{
			Name: fmt.Sprint("p", i), AttemptTimeout: time.Second, Retry: registry.RetryPolicy{Retries: 2, FirstDelay: time.Millisecond, Budget: 1 << 20},
			Breaker: registry.BreakerPolicy{FailureThreshold: 3, RecoveryTimeout: 2 * time.Millisecond},
			Limits:  registry.LimitPolicy{MaxConcurrent: 3, MaxQueue: 5, MaxWait: 5 * time.Millisecond},
		})
	}
	r := testkit.Bind(reg)
	var wg sync.WaitGroup
	var own func(l *registry.Lease[testkit.ChatModel], depth int)
	own = func(l *registry.Lease[testkit.ChatModel], depth int) {
		defer wg.Done()
		for cur := l; cur != nil; {
			switch rand.IntN(4) {
			case 0:
				cur.Done(nil)
				cur = nil
			case 1:
				next, err := cur.MoveOn(testkit.ErrDown)
				if err != nil {
					next = nil
				}
				cur = next
			case 2:
				_ = cur.Steps().Failure()
				_ = cur.Attempts()
				if depth < 3 {
					if b, err := cur.Steps().Beside(); err == nil {
						wg.Add(1)
						go own(b, depth+1)
					}
				}
			case 3:
				cur.Done(testkit.ErrDown)
				cur = nil
			}
		}
	}
	for range 12 {
		wg.Go(func() {
			for range 300 {
				ctx, cancel := context.WithTimeout(context.Background(), time.Duration(1+rand.IntN(30))*time.Millisecond)
				calls.Add(1)
				if l, err := r.Acquire(ctx); err == nil {
					wg.Add(1)
					own(l, 0)
				}
				cancel()
			}
		})
	}
	wg.Wait()
	for info := range reg.All() {
		require.Zero(t, info.InFlight)
		require.Equal(t, info.Attempts, info.Successes+info.Failures+info.Ignored+info.Limited)
		p, _ := reg.Provider("chat", info.Name)
		require.NoError(t, p.Reset())
	}
	require.Equal(t, calls.Load(), afterCalls.Load(), "calls, AfterCall")
	require.Equal(t, before.Load(), after.Load())
	var held []*registry.Lease[testkit.ChatModel]
	for range 12 {
		l, err := r.Acquire(t.Context())
		require.NoError(t, err)
		held = append(held, l)
	}
	for _, l := range held {
		l.Done(nil)
	}
	require.NoError(t, reg.Close(context.Background()))
}

func TestBeside_FailsAfterLeaseExpired(t *testing.T) {
	t.Parallel()
	var n atomic.Int64
	testkit.Bubble(t, registry.Options{Hooks: registry.Hooks{AfterCall: func(context.Context, registry.CallReport) { n.Add(1) }}}, func(t *testing.T, reg *registry.Registry) {
		testkit.Add(t, reg, testkit.Provider{Name: "a"})
		testkit.Add(t, reg, testkit.Provider{Name: "b"})
		l, err := testkit.Bind(reg).Acquire(t.Context(), registry.AttemptTimeout(time.Second))
		require.NoError(t, err)
		testkit.Pass(3 * time.Second)
		b, err := l.Steps().Beside()
		if err == nil {
			b.Done(nil)
		}
		require.EqualValues(t, 1, n.Load(), "Beside: %v", err)
	})
}

func TestBeside_FailsForOnceOnlyCall(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		testkit.Add(t, reg, testkit.Provider{Name: "a"})
		testkit.Add(t, reg, testkit.Provider{Name: "b"})
		a, err := testkit.Bind(reg).Acquire(t.Context(), registry.OnceOnly())
		require.NoError(t, err)
		b, err := a.Steps().Beside()
		a.Done(nil)
		if err == nil {
			b.Done(nil)
		}
		require.Error(t, err, "a call marked once-only runs on no second provider")
	})
}

func TestBeside_FailsAfterCallEnded(t *testing.T) {
	t.Parallel()
	var calls atomic.Int64
	testkit.Bubble(t, registry.Options{Hooks: registry.Hooks{AfterCall: func(context.Context, registry.CallReport) { calls.Add(1) }}}, func(t *testing.T, reg *registry.Registry) {
		testkit.Add(t, reg, testkit.Provider{Name: "a"})
		testkit.Add(t, reg, testkit.Provider{Name: "b"})
		a, err := testkit.Bind(reg).Acquire(t.Context())
		require.NoError(t, err)
		a.Done(nil)
		require.EqualValues(t, 1, calls.Load())
		b, err := a.Steps().Beside()
		if err == nil {
			b.Done(nil)
		}
		require.EqualValues(t, 1, calls.Load(), "AfterCall runs once for each call (Beside err: %v)", err)
	})
}

func TestBeside_EndedCallIsReportedOnce(t *testing.T) {
	t.Parallel()
	var calls atomic.Int64
	testkit.Bubble(t, registry.Options{Hooks: registry.Hooks{AfterCall: func(context.Context, registry.CallReport) { calls.Add(1) }}}, func(t *testing.T, reg *registry.Registry) {
		testkit.Add(t, reg, testkit.Provider{Name: "a"})
		a, err := testkit.Bind(reg).Acquire(t.Context())
		require.NoError(t, err)
		a.Done(testkit.ErrDown)
		_, err = a.Steps().Beside()
		require.Error(t, err)
		require.EqualValues(t, 1, calls.Load())
	})
}

func TestBeside_RetriesAreBounded(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		retry := registry.RetryPolicy{Retries: 1, Budget: 10000}
		never := registry.BreakerPolicy{FailureThreshold: 100000}
		testkit.Add(t, reg, testkit.Provider{Name: "a", Retry: retry, Breaker: never})
		testkit.Add(t, reg, testkit.Provider{Name: "b", Retry: retry, Breaker: never})
		a, err := testkit.Bind(reg).Acquire(t.Context())
		require.NoError(t, err)
		b, err := a.Steps().Beside()
		require.NoError(t, err)
		asked := map[string]int{a.Provider(): 1, b.Provider(): 1}
		for i := 0; i < 100 && (a != nil || b != nil); i++ {
			if a != nil {
				if a, err = a.MoveOn(testkit.ErrDown); err == nil {
					asked[a.Provider()]++
				} else {
					a = nil
				}
			}
			if b != nil {
				if b, err = b.MoveOn(testkit.ErrDown); err == nil {
					asked[b.Provider()]++
				} else {
					b = nil
				}
			}
		}
		if a != nil {
			a.Done(nil)
		}
		if b != nil {
			b.Done(nil)
		}
		require.LessOrEqual(t, asked["a"], 2)
		require.LessOrEqual(t, asked["b"], 2)
	})
}

func TestBeside_RetryIsNotLost(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		retry := registry.RetryPolicy{Retries: 1, Budget: 10000}
		testkit.Add(t, reg, testkit.Provider{Name: "a", Retry: retry})
		testkit.Add(t, reg, testkit.Provider{Name: "b", Retry: retry})
		a, err := testkit.Bind(reg).Acquire(t.Context())
		require.NoError(t, err)
		b, err := a.Steps().Beside()
		require.NoError(t, err)
		b, err = b.MoveOn(testkit.ErrDown) // b's one retry
		require.NoError(t, err)
		defer b.Done(nil)
		a, err = a.MoveOn(testkit.ErrDown) // a's one retry
		require.NoError(t, err)
		a.Done(nil)
	})
}

func TestBeside_FailureIsNotInCallError(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		testkit.Add(t, reg, testkit.Provider{Name: "a"})
		b := testkit.Add(t, reg, testkit.Provider{Name: "b"})
		require.NoError(t, b.MarkUnhealthy(testkit.ErrDown))
		bad := verdict.As(errors.New("bad"), verdict.Verdict{Class: verdict.ClassBadRequest})
		one, err := testkit.Bind(reg).Acquire(t.Context())
		require.NoError(t, err)
		_, want := one.MoveOn(bad)
		two, err := testkit.Bind(reg).Acquire(t.Context())
		require.NoError(t, err)
		_, err = two.Steps().Beside()
		require.Error(t, err)
		_, got := two.MoveOn(bad)
		require.Equal(t, errors.Is(want, registry.ErrUnhealthy), errors.Is(got, registry.ErrUnhealthy))
	})
}

func TestBeside_FailureCostsNoFailover(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		testkit.Add(t, reg, testkit.Provider{Name: "a", Priority: registry.PriorityHigh})
		b := testkit.Add(t, reg, testkit.Provider{Name: "b"})
		require.NoError(t, b.MarkUnhealthy(testkit.ErrDown))
		l, err := testkit.Bind(reg).Acquire(t.Context())
		require.NoError(t, err)
		_, err = l.Steps().Beside()
		require.Error(t, err)
		require.NoError(t, b.MarkHealthy())
		next, err := l.MoveOn(testkit.ErrDown)
		require.NoError(t, err, "b was never asked and is eligible")
		next.Done(nil)
	})
}

func TestMoveOn_AfterSuccessHasNoLease(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		testkit.Add(t, reg, testkit.Provider{Name: "a", Breaker: registry.BreakerPolicy{SlowAfter: time.Second, SlowRate: 0.9}})
		testkit.Add(t, reg, testkit.Provider{Name: "b"})
		l, err := testkit.Bind(reg).Acquire(t.Context())
		require.NoError(t, err)
		time.Sleep(2 * time.Second)
		next, err := l.MoveOn(nil)
		require.ErrorIs(t, err, registry.ErrLeaseDone)
		require.Nil(t, next)
	})
}

func TestBeside_AnsweredCallReportsNoError(t *testing.T) {
	t.Parallel()
	var report registry.CallReport
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		testkit.Add(t, reg, testkit.Provider{Name: "a"})
		testkit.Add(t, reg, testkit.Provider{Name: "b"})
		a, err := testkit.Bind(reg).Acquire(t.Context(), registry.ReportTo(&report))
		require.NoError(t, err)
		b, err := a.Steps().Beside()
		require.NoError(t, err)
		b.Done(nil)
		a.Done(verdict.As(errors.New("lost"), verdict.Verdict{Class: verdict.ClassHedgeLoser}))
		require.NoError(t, report.Err)
	})
}

func TestBeside_GivenUpLeaseDoesNotEndCall(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		for _, n := range []string{"a", "b", "c"} {
			testkit.Add(t, reg, testkit.Provider{Name: n})
		}
		a, err := testkit.Bind(reg).Acquire(t.Context())
		require.NoError(t, err)
		b, err := a.Steps().Beside()
		require.NoError(t, err)
		b.Done(verdict.Ignore(errors.New("not needed")))
		c, err := a.MoveOn(testkit.ErrDown)
		require.NoError(t, err, "a second opinion that was given up does not end the call")
		c.Done(nil)
	})
}

func TestBeside_PlaceOfAProviderThatTheCallHasAlreadyEndsTheWait(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		limited := testkit.Add(t, reg, testkit.Provider{Name: "limited", Limits: registry.LimitPolicy{MaxConcurrent: 2}})
		held, err := testkit.Bind(reg).AcquireAll(t.Context(), 0)
		require.NoError(t, err)
		again, err := testkit.Bind(reg).Acquire(t.Context())
		require.NoError(t, err)
		testkit.Add(t, reg, testkit.Provider{Name: "a"})
		testkit.Add(t, reg, testkit.Provider{Name: "b"})
		first, err := testkit.Bind(reg).Acquire(t.Context())
		require.NoError(t, err)
		second, err := first.Steps().Beside()
		require.NoError(t, err)
		moved := make(chan *registry.Lease[testkit.ChatModel], 1)
		go func() {
			next, _ := first.MoveOn(testkit.ErrDown) // nil with an error
			moved <- next
		}()
		synctest.Wait()
		time.AfterFunc(time.Second, func() { held[0].Done(nil) })
		time.AfterFunc(2*time.Second, func() { again.Done(nil) })
		began := time.Now()
		_, err = second.MoveOn(testkit.ErrDown)
		require.Error(t, err, "its place would be the second one of the call at that provider")
		require.Equal(t, 2*time.Second, time.Since(began))
		next := <-moved
		require.NotNil(t, next)
		require.Equal(t, limited.Name(), next.Provider())
		next.Done(nil)
	})
}

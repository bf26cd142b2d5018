package registry_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/internal/testkit"
	"github.com/capreg/registry/verdict"
)

// replacedByFactory returns a provider whose factory registers another provider under its name while a
// call waits for it, and makes nothing.
func replacedByFactory(t *testing.T, reg *registry.Registry, name string, next testkit.Provider) testkit.Provider {
	t.Helper()
	next.Name, next.Replace = name, true
	return testkit.Provider{Name: name, Factory: func(ctx context.Context) (testkit.ChatModel, error) {
		time.Sleep(time.Second)
		testkit.Add(t, reg, next) //nolint:contextcheck // a registration has none of its own
		<-ctx.Done()
		return nil, ctx.Err()
	}}
}

// joinAfter registers a provider after a while.
func joinAfter(t *testing.T, reg *registry.Registry, d time.Duration, p testkit.Provider) {
	t.Helper()
	go func() {
		time.Sleep(d)
		if _, err := testkit.Chat.Register(t.Context(), reg, p); err != nil {
			t.Error(err)
		}
	}()
}

// replaceBoth replaces a and c, and returns b some time later.
func replaceBoth(t *testing.T, reg *registry.Registry) testkit.ChatModel {
	t.Helper()
	for _, name := range []string{"a", "c"} {
		testkit.Add(t, reg, testkit.Provider{Name: name, Replace: true, Instance: testkit.Says("new " + name)})
	}
	time.Sleep(time.Second)
	return testkit.Says("b")
}

func TestCallReplace_SuccessorIsTriedAfterFailure(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a := testkit.Add(t, reg, testkit.Provider{Name: "a", Instance: testkit.Fails(testkit.ErrDown)})
		testkit.Add(t, reg, replacedByFactory(t, reg, "b", testkit.Provider{Instance: testkit.Says("new b")}))
		testkit.Add(t, reg, testkit.Provider{Name: "worse", Group: 1})
		require.Equal(t, "new b", testkit.MustAsk(t, testkit.Bind(reg)))
		require.Equal(t, uint64(1), a.Info().Attempts, "once")
	})
}

func TestCallReplace_ReportSkipsNoTriedProvider(t *testing.T) {
	t.Parallel()
	var replace func() error
	replaced := 0
	authorize := func(_ context.Context, _, _, name string) error {
		if name != "a" || replaced == 3 {
			return nil
		}
		replaced++
		return errors.Join(testkit.ErrDown, replace())
	}
	testkit.Bubble(t, registry.Options{Authorize: authorize}, func(t *testing.T, reg *registry.Registry) {
		replace = func() error {
			_, err := testkit.Chat.Register(t.Context(), reg, testkit.Provider{Name: "a", Replace: true, Instance: testkit.Says("new a")})
			return err
		}
		testkit.Add(t, reg, testkit.Provider{Name: "a"})
		testkit.Add(t, reg, testkit.Provider{Name: "b", Group: 1})
		var report registry.CallReport
		require.Equal(t, "new a", testkit.MustAsk(t, testkit.Bind(reg), registry.ReportTo(&report)))
		require.Empty(t, report.Skipped())
	})
}

func TestCallReplace_FindsSuccessorAfterDeniedOrFull(t *testing.T) {
	t.Parallel()
	for name, denied := range map[string]bool{"denied": true, "full": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			authorize := func(_ context.Context, _, _, name string) error {
				if denied && name == "a" {
					return testkit.ErrDown
				}
				return nil
			}
			testkit.Bubble(t, registry.Options{Authorize: authorize}, func(t *testing.T, reg *registry.Registry) {
				r := testkit.Bind(reg)
				a := testkit.Provider{Name: "a"}
				if !denied {
					a.Limits.MaxConcurrent = 1
				}
				testkit.Add(t, reg, a)
				if !denied {
					held, err := r.Acquire(t.Context())
					require.NoError(t, err)
					defer held.Done(nil)
				}
				testkit.Add(t, reg, replacedByFactory(t, reg, "b", testkit.Provider{Instance: testkit.Says("new b")}))
				testkit.Add(t, reg, testkit.Provider{Name: "worse", Group: 1})
				require.Equal(t, "new b", testkit.MustAsk(t, r))
			})
		})
	}
}

func TestCallReplace_QueuedCallsWaitAtSuccessor(t *testing.T) {
	t.Parallel()
	limits := registry.LimitPolicy{MaxConcurrent: 1, MaxQueue: 10, MaxWait: time.Hour}
	for name, replaceOrSwap := range map[string]func(t *testing.T, reg *registry.Registry) (undo func(context.Context) error){
		"replaced": func(t *testing.T, reg *registry.Registry) func(context.Context) error {
			t.Helper()
			testkit.Add(t, reg, testkit.Provider{Name: "a", Replace: true, Limits: limits, Instance: testkit.Takes("new", 10*time.Second)})
			return func(context.Context) error { return nil }
		},
		"swapped": func(t *testing.T, reg *registry.Registry) func(context.Context) error {
			t.Helper()
			undo, err := testkit.Chat.Testing(reg).Swap("test", "a", testkit.Takes("new", 10*time.Second))
			require.NoError(t, err)
			return undo
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
				testkit.Add(t, reg, testkit.Provider{Name: "a", Limits: limits, Instance: testkit.Takes("old", 10*time.Second)})
				r := testkit.Bind(reg)
				began := time.Now()
				said := make(chan string, 4)
				for range cap(said) {
					go func() {
						text, err := testkit.Ask(t.Context(), r)
						said <- fmt.Sprint(text, err)
					}()
				}
				testkit.Pass(time.Second)
				undo := replaceOrSwap(t, reg)
				counts := map[string]int{}
				for range cap(said) {
					counts[<-said]++
				}
				require.Equal(t, map[string]int{"old<nil>": 1, "new<nil>": 3}, counts)
				require.Equal(t, 31*time.Second, time.Since(began))
				require.NoError(t, undo(t.Context()))
			})
		})
	}
}

func TestCallReplace_QueuedCallsReturnAfterSwapEnds(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		limits := registry.LimitPolicy{MaxConcurrent: 1, MaxQueue: 10, MaxWait: time.Hour}
		testkit.Add(t, reg, testkit.Provider{Name: "a", Limits: limits, Instance: testkit.Says("real")})
		r := testkit.Bind(reg)
		undo, err := testkit.Chat.Testing(reg).Swap("test", "a", testkit.Takes("fake", 10*time.Second))
		require.NoError(t, err)
		said := make(chan string, 3)
		for range cap(said) {
			go func() {
				text, err := testkit.Ask(t.Context(), r)
				said <- fmt.Sprint(text, err)
			}()
		}
		testkit.Pass(time.Second)
		require.NoError(t, undo(t.Context()))
		counts := map[string]int{}
		for range cap(said) {
			counts[<-said]++
		}
		require.Equal(t, map[string]int{"fake<nil>": 1, "real<nil>": 2}, counts)
	})
}

func TestCallReplace_DoesNotQueueAgainAfterMaxWait(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		r := testkit.Bind(reg)
		for name, wait := range map[string]time.Duration{"a": 5 * time.Second, "b": 20 * time.Second} {
			testkit.Add(t, reg, testkit.Provider{
				Name: name, Limits: registry.LimitPolicy{MaxConcurrent: 1, MaxQueue: 10, MaxWait: wait},
				Instance: testkit.Takes(name, time.Hour), AttemptTimeout: registry.NoTimeout,
			})
		}
		var busy sync.WaitGroup
		for range 2 {
			busy.Go(func() { testkit.MustAsk(t, r) })
		}
		synctest.Wait()
		joinAfter(t, reg, 10*time.Second, testkit.Provider{
			Name: "b", Replace: true, Group: 1, Limits: registry.LimitPolicy{MaxConcurrent: 1}, Instance: testkit.Says("new b"),
		})
		began := time.Now()
		require.Equal(t, "new b", testkit.MustAsk(t, r))
		require.Equal(t, 10*time.Second, time.Since(began))
		busy.Wait()
	})
}

func TestCallReplace_CostsNoTokenBeforeAttempt(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		limits := registry.LimitPolicy{Rate: 0.01, Burst: 1}
		testkit.Add(t, reg, testkit.Provider{Name: "keeps the domain", Domain: "d", Limits: limits, Handler: "other"})
		a := replacedByFactory(t, reg, "a", testkit.Provider{Domain: "d", Limits: limits, Instance: testkit.Says("new a")})
		a.Domain, a.Limits = "d", limits
		testkit.Add(t, reg, a)
		testkit.Add(t, reg, testkit.Provider{Name: "worse", Group: 1})
		require.Equal(t, "new a", testkit.MustAsk(t, testkit.Bind(reg)))
		require.Equal(t, "worse", testkit.MustAsk(t, testkit.Bind(reg)), "the second call has none left")
	})
}

func TestCallReplace_ReturnsTokenWithThrottledOthers(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		limits := registry.LimitPolicy{Rate: 0.01, Burst: 1}
		testkit.Add(t, reg, testkit.Provider{Name: "keeps the domain", Domain: "d", Limits: limits, Handler: "other"})
		a := replacedByFactory(t, reg, "a", testkit.Provider{Domain: "d", Limits: limits, Instance: testkit.Says("new a")})
		a.Domain, a.Limits = "d", limits
		testkit.Add(t, reg, a)
		testkit.Add(t, reg, testkit.Provider{Name: "worse", Group: 1})
		r := testkit.Bind(reg)
		said := make(chan string, 1)
		go func() {
			time.Sleep(500 * time.Millisecond)
			text, err := testkit.Ask(t.Context(), r)
			said <- fmt.Sprint(text, err)
		}()
		require.Equal(t, "new a", testkit.MustAsk(t, r))
		require.Equal(t, "worse<nil>", <-said)
	})
}

func TestCallReplace_WaitsForCooldownAfterRestart(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		calls := 0
		testkit.Add(t, reg, testkit.Provider{Name: "a", Instance: testkit.Answers(func() (string, error) {
			if calls++; calls == 1 {
				return "", verdict.RateLimited(testkit.ErrDown, 10*time.Second)
			}
			return "a", nil
		})})
		testkit.Add(t, reg, replacedByFactory(t, reg, "b", testkit.Provider{Instance: testkit.Fails(testkit.ErrDown)}))
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		text, err := testkit.Ask(ctx, testkit.Bind(reg), registry.WaitForCooldown())
		require.NoError(t, err)
		require.Equal(t, "a", text)
	})
}

func TestCallReplace_TriesFullProviderAfterCooldownWait(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		r := testkit.Bind(reg)
		testkit.Add(t, reg, testkit.Provider{Name: "full", Limits: registry.LimitPolicy{MaxConcurrent: 1, NoQueue: true}})
		held, err := r.Acquire(t.Context())
		require.NoError(t, err)
		time.AfterFunc(5*time.Second, func() { held.Done(nil) })
		testkit.Add(t, reg, testkit.Provider{Name: "a", Instance: testkit.Fails(verdict.RateLimited(testkit.ErrDown, 10*time.Second))})
		testkit.Add(t, reg, replacedByFactory(t, reg, "b", testkit.Provider{Instance: testkit.Fails(testkit.ErrDown)}))
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		text, err := testkit.Ask(ctx, r, registry.WaitForCooldown())
		require.NoError(t, err)
		require.Equal(t, "full", text)
	})
}

func TestCallReplace_WaitsForSuccessorInCooldown(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		testkit.Add(t, reg, testkit.Provider{Name: "keeps the domain", Domain: "d", Handler: "other"})
		testkit.Add(t, reg, testkit.Provider{Name: "a", Domain: "d", Instance: testkit.Fails(verdict.RateLimited(testkit.ErrDown, 10*time.Second))})
		testkit.Add(t, reg, testkit.Provider{Name: "b", Group: 1, Instance: testkit.Answers(func() (string, error) {
			testkit.Add(t, reg, testkit.Provider{Name: "a", Domain: "d", Replace: true, Instance: testkit.Says("new a")})
			return "", testkit.ErrDown
		})})
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		text, err := testkit.Ask(ctx, testkit.Bind(reg), registry.WaitForCooldown())
		require.NoError(t, err)
		require.Equal(t, "new a", text)
	})
}

func TestCallReplace_WaitsForSuccessorOfDenied(t *testing.T) {
	t.Parallel()
	var replace func() error
	authorize := func(_ context.Context, _, _, name string) error {
		if name != "a" || replace == nil {
			return nil
		}
		err := errors.Join(testkit.ErrDown, replace())
		replace = nil
		return err
	}
	testkit.Bubble(t, registry.Options{Authorize: authorize}, func(t *testing.T, reg *registry.Registry) {
		testkit.Add(t, reg, testkit.Provider{Name: "other", Domain: "d", Handler: "h", Instance: testkit.Fails(verdict.RateLimited(testkit.ErrDown, 10*time.Second))})
		testkit.Add(t, reg, testkit.Provider{Name: "a"})
		replace = func() error {
			_, err := testkit.Chat.Register(t.Context(), reg, testkit.Provider{Name: "a", Domain: "d", Replace: true, Instance: testkit.Says("new a")})
			return err
		}
		_, err := testkit.Ask(t.Context(), testkit.Chat.Bind(reg, registry.Query{Handler: "h", OwnOnly: true}))
		require.Error(t, err, "the domain cools down")
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		text, err := testkit.Ask(ctx, testkit.Bind(reg), registry.WaitForCooldown())
		require.NoError(t, err)
		require.Equal(t, "new a", text)
	})
}

func TestCallReplace_QueueTimeStaysBounded(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		limits := registry.LimitPolicy{MaxConcurrent: 1, MaxQueue: 10, MaxWait: 10 * time.Second}
		busy := testkit.Provider{Name: "a", Replace: true, Limits: limits, Instance: testkit.Takes("", time.Minute), AttemptTimeout: registry.NoTimeout}
		testkit.Add(t, reg, busy)
		r := testkit.Bind(reg)
		queued := make(chan time.Duration, 5)
		for range cap(queued) {
			go func() {
				began := time.Now()
				var report registry.CallReport
				_, err := testkit.Ask(t.Context(), r, registry.ReportTo(&report))
				after := time.Since(began)
				if err == nil {
					after -= time.Minute
					assert.Equal(t, after, report.Attempts[0].Delay)
				}
				queued <- after
			}()
		}
		for range 3 {
			testkit.Pass(9 * time.Second)
			testkit.Add(t, reg, busy)
		}
		for range cap(queued) {
			require.LessOrEqual(t, <-queued, limits.MaxWait)
		}
	})
}

func TestCallReplace_DomainQueueKeepsOrder(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		limits := registry.LimitPolicy{MaxConcurrent: 1, MaxQueue: 10, MaxWait: time.Hour}
		testkit.Add(t, reg, testkit.Provider{Name: "keeps the domain", Domain: "d", Handler: "other", Limits: limits})
		a := testkit.Provider{Name: "a", Domain: "d", Replace: true, Limits: limits, Instance: testkit.Takes("", 10*time.Second)}
		testkit.Add(t, reg, a)
		r := testkit.Bind(reg)
		order := make(chan int, 6)
		for i := range cap(order) {
			go func() {
				_, err := testkit.Ask(t.Context(), r)
				assert.NoError(t, err)
				order <- i
			}()
			testkit.Pass(time.Millisecond)
		}
		testkit.Add(t, reg, a)
		for i := range cap(order) {
			require.Equal(t, i, <-order)
		}
	})
}

func TestCallReplace_QueuedCallFollowsAfterFailure(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		limits := registry.LimitPolicy{MaxConcurrent: 1, MaxQueue: 10, MaxWait: time.Hour}
		testkit.Add(t, reg, testkit.Provider{Name: "first", Instance: testkit.Fails(testkit.ErrDown)})
		testkit.Add(t, reg, testkit.Provider{Name: "a", Group: 1, Limits: limits, Instance: testkit.Takes("old", 10*time.Second)})
		said := testkit.ConcurrentCalls(t, testkit.Bind(reg), 4)
		testkit.Pass(time.Second)
		testkit.Add(t, reg, testkit.Provider{Name: "a", Group: 1, Replace: true, Limits: limits, Instance: testkit.Takes("new", 10*time.Second)})
		require.Equal(t, map[string]int{
			"old<nil> after 10s": 1, "new<nil> after 11s": 1, "new<nil> after 21s": 1, "new<nil> after 31s": 1,
		}, testkit.CountResults(said))
	})
}

func TestCallReplace_CallInTwoQueuesFollowsSuccessor(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		limits := registry.LimitPolicy{MaxConcurrent: 1, MaxQueue: 10, MaxWait: time.Hour}
		for _, name := range []string{"a", "b"} {
			testkit.Add(t, reg, testkit.Provider{Name: name, Limits: limits, Instance: testkit.Takes("old", time.Hour), AttemptTimeout: registry.NoTimeout})
		}
		said := testkit.ConcurrentCalls(t, testkit.Bind(reg), 4)
		testkit.Pass(time.Second)
		testkit.Add(t, reg, testkit.Provider{Name: "a", Replace: true, Limits: limits, Instance: testkit.Takes("new", 10*time.Second)})
		require.Equal(t, map[string]int{"old<nil> after 1h0m0s": 2, "new<nil> after 11s": 1, "new<nil> after 21s": 1}, testkit.CountResults(said))
	})
}

func TestCallReplace_KeepsQueueThroughShortSwap(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		limits := registry.LimitPolicy{MaxConcurrent: 1, MaxQueue: 10, MaxWait: time.Hour}
		testkit.Add(t, reg, testkit.Provider{Name: "a", Limits: limits, Instance: testkit.Takes("real", 20*time.Second)})
		said := testkit.ConcurrentCalls(t, testkit.Bind(reg), 3)
		testkit.Pass(time.Second)
		undo, err := testkit.Chat.Testing(reg).Swap("test", "a", testkit.Takes("fake", 10*time.Second))
		require.NoError(t, err)
		testkit.Pass(time.Second)
		require.NoError(t, undo(t.Context()))
		require.Equal(t, map[string]int{"real<nil> after 20s": 1, "fake<nil> after 11s": 1, "real<nil> after 40s": 1}, testkit.CountResults(said))
	})
}

func TestCallReplace_FindsSuccessorBeforeQueueing(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		r := testkit.Bind(reg)
		testkit.Add(t, reg, testkit.Provider{Name: "a", Limits: registry.LimitPolicy{MaxConcurrent: 1}})
		held, err := r.Acquire(t.Context())
		require.NoError(t, err)
		defer held.Done(nil)
		testkit.Add(t, reg, testkit.Provider{Name: "b", Group: 1, Factory: func(context.Context) (testkit.ChatModel, error) {
			testkit.Add(t, reg, testkit.Provider{Name: "a", Replace: true, Instance: testkit.Says("new a")}) //nolint:contextcheck // a registration has none of its own
			return nil, testkit.ErrDown
		}})
		require.Equal(t, "new a", testkit.MustAsk(t, r))
	})
}

func TestCallReplace_TriesSuccessorOfLastResort(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		testkit.Add(t, reg, testkit.Provider{Name: "other", Domain: "d", Handler: "h", Instance: testkit.Fails(verdict.RateLimited(testkit.ErrDown, 0))})
		a := replacedByFactory(t, reg, "a", testkit.Provider{Domain: "d", LastResort: true, Instance: testkit.Says("new a")})
		a.Domain, a.LastResort = "d", true
		testkit.Add(t, reg, a)
		_, err := testkit.Ask(t.Context(), testkit.Chat.Bind(reg, registry.Query{Handler: "h", OwnOnly: true}))
		require.Error(t, err, "the domain cools down")
		require.Equal(t, "new a", testkit.MustAsk(t, testkit.Bind(reg)))
	})
}

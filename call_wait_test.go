package registry_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/internal/testkit"
	"github.com/capreg/registry/reason"
	"github.com/capreg/registry/selection"
	"github.com/capreg/registry/status"
	"github.com/capreg/registry/verdict"
)

func TestWaitForCooldown_NeverMissesItsEnd(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		var asked atomic.Int32
		testkit.Add(t, reg, testkit.Provider{Name: "a", Breaker: registry.BreakerPolicy{FailureThreshold: 1 << 20}, Instance: testkit.Answers(func() (string, error) {
			if asked.Add(1)%4 != 0 {
				return "", verdict.RateLimited(testkit.ErrDown, time.Millisecond)
			}
			return "a", nil
		})})
		var all sync.WaitGroup
		for range 50 {
			all.Go(func() {
				for range 5 {
					ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
					_, err := testkit.Ask(ctx, testkit.Bind(reg), registry.WaitForCooldown())
					cancel()
					var failed *registry.CallError
					if err != nil && errors.As(err, &failed) && len(failed.Attempts) < 16 {
						t.Errorf("gave up after %d attempts: %v", len(failed.Attempts), err)
					}
				}
			})
		}
		all.Wait()
	})
}

func TestWaitForCooldown_AsksSelectorsOncePerWait(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		picks := 0
		counting := testkit.NewStrategy("COUNTING", func(v selection.View) int {
			picks++
			return v.Next(0)
		})
		testkit.Add(t, reg, testkit.Provider{Name: "a", Strategy: counting, Instance: testkit.FailsTimes(1, "a", verdict.RateLimited(testkit.ErrDown, time.Second))})
		b := testkit.Add(t, reg, testkit.Provider{Name: "b", Strategy: counting, Instance: testkit.Fails(testkit.ErrDown)})
		go func() {
			time.Sleep(time.Second / 2)
			_ = b.MarkUnhealthy(testkit.ErrDown)
			_ = b.MarkHealthy() // ends the wait, for a provider that the call has no use for
		}()
		require.Equal(t, "a", testkit.MustAsk(t, testkit.Bind(reg), registry.WaitForCooldown()))
		require.LessOrEqual(t, picks, 6, "a, b; b again, which was tried, after each end of a wait; a")
	})
}

func TestWaitForCooldown_WaitsForItsEnd(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a := testkit.Add(t, reg, testkit.Provider{Name: "a", Instance: testkit.FailsTimes(1, "a", verdict.RateLimited(testkit.ErrDown, 10*time.Second))})
		b := testkit.Add(t, reg, testkit.Provider{Name: "b", Instance: testkit.FailsTimes(1, "b", verdict.RateLimited(testkit.ErrDown, 4*time.Second))})
		began := time.Now()
		var report registry.CallReport
		require.Equal(t, "b", testkit.MustAsk(t, testkit.Bind(reg), registry.WaitForCooldown(), registry.ReportTo(&report)))
		require.InDelta(t, 4200*time.Millisecond, time.Since(began), float64(210*time.Millisecond))
		require.Equal(t, reason.Waited, report.Attempts[2].Why)
		require.GreaterOrEqual(t, report.Attempts[2].Delay, 4*time.Second)
		testkit.RequireCounts(t, a, 0, 0, 0, 1)
		testkit.RequireCounts(t, b, 1, 0, 0, 1)
	})
}

func TestWaitForCooldown_FailsAtOnceBeyondDeadline(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		testkit.Add(t, reg, testkit.Provider{Name: "a", Instance: testkit.Fails(verdict.RateLimited(testkit.ErrDown, 10*time.Second))})
		ctx, cancel := context.WithTimeout(t.Context(), 9*time.Second)
		defer cancel()
		began := time.Now()
		_, err := testkit.Ask(ctx, testkit.Bind(reg), registry.WaitForCooldown())
		require.ErrorIs(t, err, testkit.ErrDown)
		require.NotErrorIs(t, err, context.DeadlineExceeded)
		var failed *registry.CallError
		require.ErrorAs(t, err, &failed)
		require.GreaterOrEqual(t, failed.RetryIn, 10*time.Second)
		require.Equal(t, began, time.Now())
	})
}

func TestWaitForCooldown_EndsWithContext(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		testkit.Add(t, reg, testkit.Provider{Name: "a", Instance: testkit.Fails(verdict.RateLimited(testkit.ErrDown, time.Hour))})
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Minute, cancel)
		_, err := testkit.Ask(ctx, testkit.Bind(reg), registry.WaitForCooldown())
		require.ErrorIs(t, err, context.Canceled)
	})
}

func TestWaitForCooldown_TakesFirstToRecover(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		testkit.Add(t, reg, testkit.Provider{Name: "a", Instance: testkit.Fails(verdict.RateLimited(testkit.ErrDown, time.Hour))})
		sick := testkit.Add(t, reg, testkit.Provider{Name: "sick"})
		require.NoError(t, sick.MarkUnhealthy(testkit.ErrDown))
		time.AfterFunc(time.Minute, func() { _ = sick.MarkHealthy() })
		began := time.Now()
		require.Equal(t, "sick", testkit.MustAsk(t, testkit.Bind(reg), registry.WaitForCooldown()))
		require.Equal(t, time.Minute, time.Since(began))
	})
}

func TestWaitForCooldown_RetriesOnlyThoseThatRefused(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		limited := testkit.Add(t, reg, testkit.Provider{Name: "limited", Instance: testkit.FailsTimes(1, "limited", verdict.RateLimited(testkit.ErrDown, time.Second))})
		broken := testkit.Add(t, reg, testkit.Provider{Name: "broken", Instance: testkit.Fails(testkit.ErrDown)})
		require.Equal(t, "limited", testkit.MustAsk(t, testkit.Bind(reg), registry.WaitForCooldown()))
		testkit.RequireCounts(t, limited, 1, 0, 0, 1)
		testkit.RequireCounts(t, broken, 0, 1, 0, 0)
	})
}

func TestWaitForCooldown_AppliesToAcquire(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		testkit.Add(t, reg, testkit.Provider{Name: "a", Instance: testkit.FailsTimes(1, "a", verdict.RateLimited(testkit.ErrDown, time.Second))})
		_, _ = testkit.Ask(t.Context(), testkit.Bind(reg))
		lease, err := testkit.Bind(reg).Acquire(t.Context(), registry.WaitForCooldown())
		require.NoError(t, err)
		lease.Done(nil)
	})
}

func TestWaitForCooldown_StopsWhenProviderIsRemoved(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a := testkit.Add(t, reg, testkit.Provider{Name: "a"})
		r := testkit.Bind(reg)
		l, err := r.Acquire(t.Context())
		require.NoError(t, err)
		l.Done(verdict.RateLimited(testkit.ErrDown, time.Hour))
		var all sync.WaitGroup
		all.Go(func() {
			began := time.Now()
			_, err := testkit.Ask(context.Background(), r, registry.WaitForCooldown())
			require.ErrorIs(t, err, registry.ErrUnavailable)
			require.Less(t, time.Since(began), time.Minute, "it never comes back")
		})
		time.Sleep(time.Second)
		require.NoError(t, a.Unregister(t.Context()))
		all.Wait()
	})
}

func TestWaitForCooldown_FirstAttemptNeedsNoBudget(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		var err0 atomic.Value
		err0.Store(testkit.ErrDown)
		var ok atomic.Bool
		testkit.Add(t, reg, testkit.Provider{Name: "a", Breaker: registry.BreakerPolicy{FailureThreshold: 1000}, Instance: testkit.Answers(func() (string, error) {
			if ok.Load() {
				return "a", nil
			}
			return "", err0.Load().(error)
		})})
		r := testkit.Bind(reg)
		for range 20 {
			_, _ = testkit.Ask(t.Context(), r)
		}
		ok.Store(true)
		testkit.MustAsk(t, r) // first attempts are not bounded by the budget
		ok.Store(false)
		func() {
			l, err := r.Acquire(t.Context())
			require.NoError(t, err)
			l.Done(verdict.RateLimited(testkit.ErrDown, 10*time.Second))
		}()
		ok.Store(true)
		var failed atomic.Int32
		var all sync.WaitGroup
		for range 10 {
			all.Go(func() {
				if _, err := testkit.Ask(context.Background(), r, registry.WaitForCooldown()); err != nil {
					failed.Add(1)
				}
			})
		}
		all.Wait()
		require.Zero(t, failed.Load(), "calls that waited for their first attempt")
	})
}

func TestLastResort_IsTriedWhenNoProviderAdmits(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a := testkit.Add(t, reg, testkit.Provider{Name: "a", LastResort: true})
		b := testkit.Add(t, reg, testkit.Provider{Name: "b", LastResort: true})
		c := testkit.Add(t, reg, testkit.Provider{Name: "c"})
		require.NoError(t, a.ForceOpen(time.Hour, "test"))
		require.NoError(t, b.ForceOpen(time.Minute, "test"))
		require.Equal(t, "c", testkit.MustAsk(t, testkit.Bind(reg)))
		require.NoError(t, c.ForceOpen(time.Second, "test"))
		var report registry.CallReport
		require.Equal(t, "b", testkit.MustAsk(t, testkit.Bind(reg), registry.ReportTo(&report)), "the one that is back first")
		require.Equal(t, reason.LastResort, report.Attempts[0].Why)
		require.Equal(t, status.BreakerOpen, b.Breaker().State, "the outcome moves no breaker")
		testkit.RequireCounts(t, b, 1, 0, 0, 0)
		_, err := testkit.Bind(reg).Get(t.Context())
		require.ErrorIs(t, err, registry.ErrBreakerOpen, "a look-up has no outcome")
		testkit.Pass(time.Second + 1)
		require.Equal(t, "c", testkit.MustAsk(t, testkit.Bind(reg)))
	})
}

func TestLastResort_IsSkippedDuringRequestedDelay(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		model, next := testkit.Settable()
		a := testkit.Add(t, reg, testkit.Provider{Name: "a", LastResort: true, Instance: model})
		next(verdict.RateLimited(testkit.ErrDown, time.Minute))
		_, _ = testkit.Ask(t.Context(), testkit.Bind(reg))
		_, err := testkit.Ask(t.Context(), testkit.Bind(reg))
		require.ErrorIs(t, err, registry.ErrCoolingDown)
		require.NoError(t, a.Reset())
		next(testkit.StatusError{Code: 503})
		_, _ = testkit.Ask(t.Context(), testkit.Bind(reg))
		next(nil)
		require.Equal(t, "fate", testkit.MustAsk(t, testkit.Bind(reg)), "a guess is no order")
		require.NoError(t, a.MarkUnhealthy(errors.New("bad")))
		require.Equal(t, "fate", testkit.MustAsk(t, testkit.Bind(reg)), "the least bad")
	})
}

func TestLastResort_IsNoProviderWithFailedFactory(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{Selection: selection.Policy{LeastBad: true}}, func(t *testing.T, reg *registry.Registry) {
		testkit.Add(t, reg, testkit.Provider{Name: "a", Factory: func(context.Context) (testkit.ChatModel, error) { return nil, testkit.ErrDown }})
		b := testkit.Add(t, reg, testkit.Provider{Name: "b"})
		require.NoError(t, b.ForceOpen(time.Minute, "test"))
		r := testkit.Bind(reg)
		_, err := r.Get(t.Context())
		require.ErrorIs(t, err, testkit.ErrDown)
		require.Equal(t, "b", r.Explain().Winner)
		require.Equal(t, "b", testkit.MustAsk(t, r))
	})
}

// A provider that nothing keeps away, but that the call has no use for, is nothing to wait for. Variants: too slow for
// the query, by a strategy and without one; with a budget that is used up; denied; full without a queue; throttled, whose
// next attempt is beyond the deadline; of a selector that picks none; asked before.
func TestWaitForCooldown_DoesNotWaitForWhatNothingKeepsAway(t *testing.T) {
	t.Parallel()
	deny := func(context.Context, string, string, string) error { return testkit.ErrDown }
	none := testkit.NewStrategy("NONE", func(selection.View) int { return -1 })
	for name, row := range map[string]struct {
		options  registry.Options
		provider testkit.Provider
		query    registry.Query
		before   func(t *testing.T, r *registry.Resolver[testkit.ChatModel]) (after func())
	}{
		"too slow": {
			query:    registry.Query{Where: selection.Requirements{MaxLatency: time.Millisecond}},
			provider: testkit.Provider{Instance: testkit.Takes("a", time.Second)}, before: askOnce,
		},
		"too slow, in turns": {
			query:    registry.Query{Where: selection.Requirements{MaxLatency: time.Millisecond}},
			provider: testkit.Provider{Instance: testkit.Takes("a", time.Second), Strategy: registry.StrategyRoundRobin}, before: askOnce,
		},
		"denied":     {options: registry.Options{Authorize: deny}},
		"picks none": {provider: testkit.Provider{Strategy: none}},
		"fails":      {provider: testkit.Provider{Instance: testkit.Fails(testkit.ErrDown)}},
		"full": {
			provider: testkit.Provider{Limits: registry.LimitPolicy{MaxConcurrent: 1, NoQueue: true}},
			before: func(t *testing.T, r *registry.Resolver[testkit.ChatModel]) func() {
				t.Helper()
				held, err := r.Acquire(t.Context())
				require.NoError(t, err)
				return func() { held.Done(nil) }
			},
		},
		"throttled": {provider: testkit.Provider{Limits: registry.LimitPolicy{Rate: 0.001, Burst: 1}}, before: askOnce},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			testkit.Bubble(t, row.options, func(t *testing.T, reg *registry.Registry) {
				row.provider.Name = "a"
				testkit.Add(t, reg, row.provider)
				r := testkit.Chat.Bind(reg, row.query)
				if row.before != nil {
					if after := row.before(t, r); after != nil {
						defer after()
					}
				}
				ctx, cancel := context.WithTimeout(t.Context(), 100*time.Second)
				defer cancel()
				began := time.Now()
				_, err := testkit.Ask(ctx, r, registry.WaitForCooldown())
				if name != "picks none" {
					require.Error(t, err)
				}
				require.Equal(t, began, time.Now())
			})
		})
	}
}

func askOnce(t *testing.T, r *registry.Resolver[testkit.ChatModel]) (after func()) {
	t.Helper()
	require.NotEmpty(t, r.Explain().Winner) // from now on it is measured
	_ = testkit.MustAsk(t, r)
	return nil
}

package registry_test

import (
	"context"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/event"
	"github.com/capreg/registry/health"
	"github.com/capreg/registry/internal/testkit"
	"github.com/capreg/registry/metrics"
	"github.com/capreg/registry/reason"
	"github.com/capreg/registry/selectors"
	"github.com/capreg/registry/status"
	"github.com/capreg/registry/verdict"
)

// byClass counts outcomes, without classes that have none.
func byClass(outcomes []metrics.Outcomes) map[verdict.Class]uint64 {
	counts := make(map[verdict.Class]uint64)
	for _, o := range outcomes {
		counts[o.Class] += o.Duration.Count
	}
	return counts
}

func TestMetrics_CountEveryKindOfCall(t *testing.T) {
	t.Parallel()
	ended, end := context.WithCancel(t.Context())
	end()
	panicking := testkit.Answers(func() (string, error) { panic("boom") })
	exiting := testkit.Answers(func() (string, error) { runtime.Goexit(); return "", nil })
	for name, c := range map[string]struct {
		providers []testkit.Provider
		call      func(t *testing.T, r *registry.Resolver[testkit.ChatModel])
		calls     map[verdict.Class]uint64
		attempts  metrics.Amounts
		hits      uint64
		misses    uint64
	}{
		"quick": {
			[]testkit.Provider{{Name: "a"}},
			func(t *testing.T, r *registry.Resolver[testkit.ChatModel]) { testkit.MustAsk(t, r) },
			map[verdict.Class]uint64{verdict.ClassSuccess: 1},
			metrics.Amounts{Count: 1, Sum: 1, AtMost: []uint64{1, 1, 1, 1, 1}},
			1, 0,
		},
		"with an option": {
			[]testkit.Provider{{Name: "a"}},
			func(t *testing.T, r *registry.Resolver[testkit.ChatModel]) {
				testkit.MustAsk(t, r, registry.OnceOnly())
			},
			map[verdict.Class]uint64{verdict.ClassSuccess: 1},
			metrics.Amounts{Count: 1, Sum: 1, AtMost: []uint64{1, 1, 1, 1, 1}},
			1, 0,
		},
		"with a bulkhead": {
			[]testkit.Provider{{Name: "a", Limits: registry.LimitPolicy{MaxConcurrent: 1}}},
			func(t *testing.T, r *registry.Resolver[testkit.ChatModel]) { testkit.MustAsk(t, r) },
			map[verdict.Class]uint64{verdict.ClassSuccess: 1},
			metrics.Amounts{Count: 1, Sum: 1, AtMost: []uint64{1, 1, 1, 1, 1}},
			1, 0,
		},
		"that fails over twice": {
			[]testkit.Provider{
				{Name: "a", Instance: testkit.Fails(testkit.ErrDown)}, {Name: "b", Instance: testkit.Fails(testkit.StatusError{Code: 503})}, {Name: "c"},
			},
			func(t *testing.T, r *registry.Resolver[testkit.ChatModel]) { testkit.MustAsk(t, r) },
			map[verdict.Class]uint64{verdict.ClassSuccess: 1},
			metrics.Amounts{Count: 1, Sum: 3, AtMost: []uint64{0, 0, 1, 1, 1}},
			1, 0,
		},
		"that fails": {
			[]testkit.Provider{{Name: "a", Instance: testkit.Fails(testkit.StatusError{Code: 500})}},
			func(t *testing.T, r *registry.Resolver[testkit.ChatModel]) {
				_, err := testkit.Ask(t.Context(), r)
				require.Error(t, err)
			},
			map[verdict.Class]uint64{verdict.ClassServerError: 1},
			metrics.Amounts{Count: 1, Sum: 1, AtMost: []uint64{1, 1, 1, 1, 1}},
			1, 0,
		},
		"that panics": {
			[]testkit.Provider{{Name: "a", Instance: panicking}},
			func(t *testing.T, r *registry.Resolver[testkit.ChatModel]) {
				require.Equal(t, "boom", testkit.Recovered(func() { _, _ = testkit.Ask(t.Context(), r) }))
			},
			map[verdict.Class]uint64{verdict.ClassPanic: 1},
			metrics.Amounts{Count: 1, Sum: 1, AtMost: []uint64{1, 1, 1, 1, 1}},
			1, 0,
		},
		"that exits": {
			[]testkit.Provider{{Name: "a", Instance: exiting}},
			func(t *testing.T, r *registry.Resolver[testkit.ChatModel]) {
				testkit.Isolated(func() { _, _ = testkit.Ask(t.Context(), r) })
				testkit.Isolated(func() { _, _ = testkit.Ask(t.Context(), r, registry.OnceOnly()) })
			},
			map[verdict.Class]uint64{verdict.ClassExit: 2},
			metrics.Amounts{Count: 2, Sum: 2, AtMost: []uint64{2, 2, 2, 2, 2}},
			2, 0,
		},
		"whose classifier exits": {
			[]testkit.Provider{{
				Name: "a", Instance: testkit.Fails(testkit.ErrDown),
				Classify: func(error) verdict.Verdict { runtime.Goexit(); return verdict.Verdict{} },
			}},
			func(t *testing.T, r *registry.Resolver[testkit.ChatModel]) {
				testkit.Isolated(func() { _, _ = testkit.Ask(t.Context(), r) })
			},
			map[verdict.Class]uint64{verdict.ClassUnknown: 1},
			metrics.Amounts{Count: 1, Sum: 1, AtMost: []uint64{1, 1, 1, 1, 1}},
			1, 0,
		},
		"that nothing admits": {
			[]testkit.Provider{{Name: "a", NoTraffic: true}},
			func(t *testing.T, r *registry.Resolver[testkit.ChatModel]) {
				_, err := testkit.Ask(t.Context(), r)
				require.ErrorIs(t, err, registry.ErrUnavailable)
			},
			map[verdict.Class]uint64{verdict.ClassCannot: 1},
			metrics.Amounts{Count: 1, Sum: 0, AtMost: []uint64{1, 1, 1, 1, 1}},
			0, 1,
		},
		"that has ended before": {
			[]testkit.Provider{{Name: "a"}},
			func(t *testing.T, r *registry.Resolver[testkit.ChatModel]) {
				_, err := testkit.Ask(ended, r)
				require.ErrorIs(t, err, context.Canceled)
			},
			map[verdict.Class]uint64{verdict.ClassCancelled: 1},
			metrics.Amounts{Count: 1, Sum: 0, AtMost: []uint64{1, 1, 1, 1, 1}},
			0, 1,
		},
		"of leases that move on": {
			[]testkit.Provider{{Name: "a"}, {Name: "b"}},
			func(t *testing.T, r *registry.Resolver[testkit.ChatModel]) {
				lease, err := r.Acquire(t.Context())
				require.NoError(t, err)
				next, err := lease.MoveOn(testkit.ErrDown)
				require.NoError(t, err)
				next.Done(nil)
			},
			map[verdict.Class]uint64{verdict.ClassSuccess: 1},
			metrics.Amounts{Count: 1, Sum: 2, AtMost: []uint64{0, 1, 1, 1, 1}},
			1, 0,
		},
		"of a lease that fails": {
			[]testkit.Provider{{Name: "a"}},
			func(t *testing.T, r *registry.Resolver[testkit.ChatModel]) {
				lease, err := r.Acquire(t.Context())
				require.NoError(t, err)
				lease.Done(testkit.StatusError{Code: 500})
			},
			map[verdict.Class]uint64{verdict.ClassServerError: 1},
			metrics.Amounts{Count: 1, Sum: 1, AtMost: []uint64{1, 1, 1, 1, 1}},
			1, 0,
		},
		"on each": {
			[]testkit.Provider{{Name: "a"}, {Name: "b", Instance: testkit.Fails(testkit.ErrDown)}},
			func(t *testing.T, r *registry.Resolver[testkit.ChatModel]) {
				_, err := r.Each(t.Context(), func(ctx context.Context, m testkit.ChatModel) error {
					_, err := m.Chat(ctx, "")
					return err
				})
				require.Error(t, err)
			},
			map[verdict.Class]uint64{verdict.ClassSuccess: 1},
			metrics.Amounts{Count: 1, Sum: 2, AtMost: []uint64{0, 1, 1, 1, 1}},
			1, 0,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			reg := testkit.New(t, registry.Options{})
			for _, p := range c.providers {
				testkit.Add(t, reg, p)
			}
			c.call(t, testkit.Bind(reg))
			got := reg.Metrics().Services[0]
			require.Equal(t, c.calls, byClass(got.Calls))
			require.Equal(t, c.attempts, got.Attempts)
			require.Equal(t, []uint64{c.hits, c.misses}, []uint64{got.Hits, got.Misses})
			var attempts uint64
			for i, p := range reg.Metrics().Providers {
				attempts += reg.Registrations()[i].Info().Attempts
				require.Zero(t, p.InFlight)
			}
			require.Equal(t, c.attempts.Sum, attempts)

			for _, p := range reg.Registrations() { // the service keeps what they leave
				require.NoError(t, p.Unregister(t.Context()))
			}
			after := reg.Metrics()
			require.Empty(t, after.Providers)
			require.Equal(t, []metrics.Service{got}, after.Services)
			require.Equal(t, c.hits, after.Totals.Hits)
		})
	}
}

// chaos makes calls of every kind at once, and returns how many there were, and how many reached a backend.
func chaos(t *testing.T, reg *registry.Registry) (calls, served uint64) {
	var reached atomic.Uint64
	for i := range 4 {
		var n atomic.Uint64
		testkit.Add(t, reg, testkit.Provider{
			Name: string(rune('a' + i)), Strategy: selectors.Random(),
			Breaker: registry.BreakerPolicy{RecoveryTimeout: time.Millisecond},
			Limits:  registry.LimitPolicy{MaxConcurrent: 3},
			Retry:   registry.RetryPolicy{Retries: 1, FirstDelay: time.Microsecond},
			Instance: testkit.Answers(func() (string, error) {
				reached.Add(1)
				if code := []int{0, 500, 0, 408, 400, 0, 0, 404, 0, 0}[n.Add(1)%10]; code > 0 {
					return "", testkit.StatusError{Code: code}
				}
				return "ok", nil
			}),
		})
	}
	const workers, each = 8, 200
	r := testkit.Bind(reg)
	var calling sync.WaitGroup
	for range workers {
		calling.Go(func() {
			for i := range each {
				switch i % 4 {
				case 0, 1:
					_, _ = testkit.Ask(t.Context(), r)
				case 2:
					_, _ = testkit.Ask(t.Context(), r, registry.OnceOnly())
				default:
					if lease, err := r.Acquire(t.Context()); err == nil {
						_, err := lease.Value.Chat(lease.Context(), "")
						lease.Done(err)
					}
				}
			}
		})
	}
	calling.Wait()
	return workers * each, reached.Load()
}

func TestMetrics_AgreeWithInfoHooksAndBackendsUnderChaos(t *testing.T) {
	t.Parallel()
	var calls, attempts atomic.Uint64
	classes := make([]atomic.Uint64, len(verdict.Classes()))
	for name, options := range map[string]registry.Options{
		"without hooks": {},
		"with hooks": {Hooks: registry.Hooks{
			AfterCall: func(context.Context, registry.CallReport) { calls.Add(1) },
			AfterAttempt: func(_ context.Context, _ registry.CallReport, a registry.Attempt) {
				attempts.Add(1)
				classes[a.Class].Add(1)
			},
		}},
	} {
		reg := testkit.New(t, options)
		made, served := chaos(t, reg)
		snapshot := reg.Metrics()
		var ended, known uint64
		all := make(map[verdict.Class]uint64)
		for i, p := range snapshot.Providers {
			info := reg.Registrations()[i].Info()
			known += info.Attempts
			var first uint64
			for class, count := range byClass(p.Attempts) {
				ended += count
				all[class] += count
			}
			for _, count := range p.Whys {
				first += count
			}
			require.Equal(t, info.Attempts, first, name)
		}
		require.Equal(t, served, ended, name)
		require.Equal(t, served, known, name)
		svc := snapshot.Services[0]
		require.Equal(t, made, svc.Attempts.Count, name)
		require.Equal(t, served, svc.Attempts.Sum, name)
		require.Equal(t, made, svc.Hits+svc.Misses, name)
		if options.Hooks.AfterCall != nil {
			require.Equal(t, made, calls.Load())
			require.Equal(t, served, attempts.Load())
			for class, count := range all {
				require.Equal(t, count, classes[class].Load(), class)
			}
		}
	}
}

func TestMetrics_ShowHowProvidersStand(t *testing.T) {
	t.Parallel()
	authorize := func(context.Context, string, string, string) error { return nil }
	testkit.Bubble(t, registry.Options{Authorize: authorize}, func(t *testing.T, reg *registry.Registry) {
		a := testkit.Add(t, reg, testkit.Provider{
			Name: "a", Limits: registry.LimitPolicy{MaxConcurrent: 2, MaxQueue: 7, Rate: 3}, Retry: registry.RetryPolicy{Budget: 5, Retries: 1},
		})
		lease, err := testkit.Bind(reg).Acquire(t.Context())
		require.NoError(t, err)
		require.NoError(t, a.ForceOpen(time.Minute, "maintenance"))
		p := reg.Metrics().Providers[0]
		require.Equal(t, metrics.Provider{
			Service: "chat", Name: "a", Generation: p.Generation, Code: reason.BreakerOpen, Health: health.Healthy,
			Breaker: status.BreakerOpen.String(), Opened: 1, BackAt: time.Now().Add(time.Minute), InFlight: 1,
			Whys: p.Whys, Places: 2, Queue: 7, InUse: status.Use{Places: 1, Callers: 1}, Rate: 3, Authorized: true,
			Budget: status.Budget{Left: 5}, BudgetSize: 5, Retries: 1,
		}, p)
		require.EqualValues(t, 1, p.Whys[reason.First])
		events := reg.Metrics().Events
		require.EqualValues(t, 1, events[event.Registered])
		require.EqualValues(t, 1, events[event.BreakerOpened])
		time.Sleep(time.Second)
		lease.Done(nil)
		require.Equal(t, time.Second, reg.Metrics().Providers[0].Attempts[0].Duration.Sum)
		require.InDelta(t, 1, a.Info().LastMinute.Rate, 0.01)
		require.InDelta(t, 1e9, a.Info().LastMinute.P50, 3e8)
	})
}

func TestMetrics_ServicesShowWaitsAndLookups(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		testkit.Add(t, reg, testkit.Provider{Name: "a", Limits: registry.LimitPolicy{MaxConcurrent: 1}, Instance: testkit.Takes("a", time.Second)})
		r := testkit.Bind(reg)
		testkit.CountResults(testkit.ConcurrentCalls(t, r, 3))
		svc := reg.Metrics().Services[0]
		require.EqualValues(t, 2, svc.Waits.Count)
		require.Equal(t, 3*time.Second, svc.Waits.Sum)
		require.EqualValues(t, 3, byClass(svc.Calls)[verdict.ClassSuccess])
		require.Equal(t, 6*time.Second, svc.Calls[0].Duration.Sum)
		for range 1 << 15 {
			testkit.MustGet(t, r)
		}
		require.NotZero(t, reg.Metrics().Services[0].LookupTime.Count)
	})
}

func TestMetrics_DurationsCanBeLeftOut(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{NoDurations: true}, func(t *testing.T, reg *registry.Registry) {
		a := testkit.Add(t, reg, testkit.Provider{Name: "a", Instance: testkit.Takes("a", time.Second)})
		testkit.MustAsk(t, testkit.Bind(reg))
		p := reg.Metrics().Providers[0]
		require.EqualValues(t, 1, byClass(p.Attempts)[verdict.ClassSuccess])
		require.Less(t, p.Attempts[0].Duration.Quantile(1), time.Millisecond)
		require.Zero(t, p.LastMinute)
		require.Equal(t, time.Second, a.Info().MeanLatency)
	})
}

func TestMetrics_OfNoRegistryAreEmpty(t *testing.T) {
	t.Parallel()
	var none *registry.Registry
	require.Empty(t, none.Metrics().Providers)
}

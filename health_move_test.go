package registry_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/health"
	"github.com/capreg/registry/internal/testkit"
	"github.com/capreg/registry/status"
	"github.com/capreg/registry/verdict"
)

// A call does not wait for a provider that stays unhealthy, where another one can be asked. Variants: marked, found by a
// probe; with options and without; a shorter drain; answers that are known to take longer; not where it has come back,
// where no other one is there for the query or that is unhealthy as well, for calls that must not run twice or were
// given no timeout, and for leases, whose holders decide.
func TestHealth_CallsMoveOnFromOneThatStaysUnhealthy(t *testing.T) {
	t.Parallel()
	const minute = time.Minute
	for name, row := range map[string]struct {
		drain   time.Duration
		query   registry.Query
		options []registry.CallOption
		backup  func(t *testing.T, b *registry.Registration)
		a       testkit.Provider
		before  func(t *testing.T, r *registry.Resolver[testkit.ChatModel])
		after   func(t *testing.T, a *registry.Registration)
		moves   time.Duration // since the begin of the call; zero: never
	}{
		"marked":          {moves: 31 * time.Second},
		"with options":    {options: []registry.CallOption{registry.Caller("x")}, moves: 31 * time.Second},
		"shorter drain":   {drain: time.Second, moves: 2 * time.Second},
		"none for query":  {query: registry.Query{Require: []string{"c"}}},
		"once only":       {options: []registry.CallOption{registry.OnceOnly()}},
		"without timeout": {options: []registry.CallOption{registry.AttemptTimeout(registry.NoTimeout)}},
		"backup is ill": {backup: func(t *testing.T, b *registry.Registration) {
			t.Helper()
			require.NoError(t, b.MarkUnhealthy(testkit.ErrDown))
		}},
		"backup has no traffic": {backup: func(t *testing.T, b *registry.Registration) {
			t.Helper()
			_, err := b.SetWeight(0)
			require.NoError(t, err)
		}},
		"it has come back": {after: func(t *testing.T, a *registry.Registration) {
			t.Helper()
			time.Sleep(20 * time.Second)
			require.NoError(t, a.MarkHealthy())
		}},
		"it has come back for a while": {
			after: func(t *testing.T, a *registry.Registration) {
				t.Helper()
				time.Sleep(20 * time.Second)
				require.NoError(t, a.MarkHealthy())
				require.NoError(t, a.MarkUnhealthy(testkit.ErrDown))
			},
			moves: 51 * time.Second,
		},
		"answers take long": {
			a: testkit.Provider{Instance: takes("a", 2*minute, -1)},
			before: func(t *testing.T, r *registry.Resolver[testkit.ChatModel]) {
				t.Helper()
				testkit.MustAsk(t, r)
			},
			moves: 150*time.Second + time.Second,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			testkit.Bubble(t, registry.Options{DrainTimeout: row.drain}, func(t *testing.T, reg *registry.Registry) {
				row.a.Name, row.a.AttemptTimeout, row.a.Capabilities = "a", 10*minute, []string{"c"}
				if row.a.Instance == nil {
					row.a.Instance = testkit.Hangs()
				}
				a := testkit.Add(t, reg, row.a)
				b := testkit.Add(t, reg, testkit.Provider{Name: "b", Group: 1})
				r := testkit.Chat.Bind(reg, row.query)
				if row.before != nil {
					row.before(t, r)
				}
				if row.backup != nil {
					row.backup(t, b)
				}
				ctx, cancel := context.WithTimeout(t.Context(), 5*minute)
				defer cancel()
				began := time.Now()
				var took time.Duration
				var answer string
				var err error
				var asking sync.WaitGroup
				asking.Go(func() {
					answer, err = testkit.Ask(ctx, r, row.options...)
					took = time.Since(began)
				})
				time.Sleep(time.Second)
				require.NoError(t, a.MarkUnhealthy(testkit.ErrDown))
				if row.after != nil {
					row.after(t, a)
				}
				asking.Wait()
				if row.moves == 0 {
					require.ErrorIs(t, err, context.DeadlineExceeded)
					require.Equal(t, 5*minute, took)
					return
				}
				require.NoError(t, err)
				require.Equal(t, "b", answer)
				require.Equal(t, row.moves, took)
				require.Equal(t, uint64(1), a.Info().Ignored)
				require.Zero(t, a.Info().Failures)
				require.Equal(t, status.BreakerClosed, a.Breaker().State, "it is not blamed by one call")
			})
		})
	}
}

func TestHealth_CallsMoveOnFromOneThatAProbeFindsOut(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		down := false
		a := testkit.Add(t, reg, testkit.Provider{
			Name: "a", Instance: testkit.Hangs(), AttemptTimeout: time.Hour, Breaker: registry.BreakerPolicy{FailureThreshold: 2},
			Health: health.Policy{Interval: 10 * time.Second, Probe: func(context.Context) error {
				if down {
					return testkit.ErrDown
				}
				return nil
			}},
		})
		testkit.Add(t, reg, testkit.Provider{Name: "b", Group: 1})
		testkit.Pass(time.Second)
		lease, err := testkit.Bind(reg).Acquire(t.Context())
		require.NoError(t, err)
		require.Equal(t, "a", lease.Provider())
		down = true
		answers := make(chan string, 3)
		for range cap(answers) {
			go func() { answers <- testkit.MustAsk(t, testkit.Bind(reg)) }()
		}
		time.Sleep(2 * time.Minute)
		require.Len(t, answers, cap(answers))
		require.NoError(t, lease.Context().Err(), "its holder decides")
		require.Equal(t, verdict.ClassSuccess, lease.Done(nil))
		require.EqualValues(t, 1, a.Breaker().Opened, "calls in a row without an answer")
		require.Equal(t, verdict.ClassCut, a.Info().LastError.Class)
	})
}

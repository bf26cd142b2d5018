package registry_test

import (
	"fmt"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/internal/testkit"
	"github.com/capreg/registry/internal/version"
	"github.com/capreg/registry/reason"
	"github.com/capreg/registry/selection"
	"github.com/capreg/registry/selectors"
	"github.com/capreg/registry/verdict"
)

func TestRequirements_FilterFirstAndNameUnmet(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		testkit.Add(t, reg, testkit.Provider{Name: "dear", Cost: 9, Strategy: testkit.NewLast()})
		testkit.Add(t, reg, testkit.Provider{Name: "old", Version: "1.9.3"})
		testkit.Add(t, reg, testkit.Provider{Name: "unversioned", Tags: []string{"gpu"}})
		testkit.Add(t, reg, testkit.Provider{Name: "far", Region: "us-east-1"})
		testkit.Add(t, reg, testkit.Provider{Name: "fine", Version: "v2.10.0", Tags: []string{"gpu", "eu"}, Region: "eu-west-1", Cost: 1})
		for _, c := range []struct {
			where selection.Requirements
			codes []string
		}{
			{selection.Requirements{MaxCost: 5}, []string{"too_expensive", "", "", "", ""}},
			{selection.Requirements{MinVersion: "2.0"}, []string{"too_old", "too_old", "too_old", "too_old", ""}},
			{selection.Requirements{Tags: []string{"gpu"}}, []string{"tag_missing", "tag_missing", "", "tag_missing", ""}},
			{selection.Requirements{Tags: []string{"gpu", "eu"}}, []string{"tag_missing", "tag_missing", "tag_missing", "tag_missing", ""}},
			{selection.Requirements{Regions: []string{"eu-west-1", "eu-west-2"}}, []string{"other_region", "other_region", "other_region", "other_region", ""}},
			{selection.Requirements{Exclude: []string{"fine", "dear"}}, []string{"excluded", "", "", "", "excluded"}},
		} {
			r := testkit.Chat.Bind(reg, registry.Query{Where: c.where})
			codes := make(map[string]string)
			e := r.Explain()
			for _, candidate := range e.Candidates {
				if !candidate.Eligible {
					codes[candidate.Provider] = string(candidate.Code)
					require.ErrorIs(t, candidate.Err, selection.ErrUnmet)
				}
			}
			want := make(map[string]string)
			for i, name := range []string{"dear", "old", "unversioned", "far", "fine"} {
				if c.codes[i] != "" {
					want[name] = c.codes[i]
				}
			}
			require.Equal(t, want, codes)
			require.Equal(t, e.Winner, testkit.MustAsk(t, r))
			require.NotContains(t, want, testkit.MustAsk(t, r))
		}
		_, err := testkit.Chat.Get(t.Context(), reg, registry.Query{Where: selection.Requirements{MaxCost: 0.5, Exclude: []string{"old", "unversioned", "far"}}})
		require.ErrorIs(t, err, registry.ErrUnavailable)
		require.ErrorIs(t, err, selection.ErrUnmet)
		require.NotErrorIs(t, err, registry.ErrNoCapability)
		require.ErrorContains(t, err, "where costing at most 0.5, without far, old, unversioned")
		testkit.RequireOneLine(t, err)
		for field, q := range map[string]registry.Query{
			"Query.Where.MaxLatency": {Where: selection.Requirements{MaxLatency: -1}},
			"Query.Where.MaxCost":    {Where: selection.Requirements{MaxCost: -1}},
			"Query.Where.MinVersion": {Where: selection.Requirements{MinVersion: "\xff"}},
			"Query.Where.Tags[0]":    {Where: selection.Requirements{Tags: []string{""}}},
			"Query.Prefer[1]":        {Prefer: []string{"a", " b"}},
			"Query.Near":             {Near: " "},
		} {
			_, err := testkit.Chat.Get(t.Context(), reg, q)
			var bad *registry.FieldError
			require.ErrorAs(t, err, &bad)
			require.Equal(t, field, bad.Field)
		}
	})
}

func TestRequirements_TooSlowIsSkippedUntilForgotten(t *testing.T) {
	t.Parallel()
	for _, strategy := range []selection.Strategy{registry.StrategyFallback, registry.StrategyRoundRobin, selectors.Random()} {
		for _, extra := range []int{0, 80} {
			testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
				takes := func(d time.Duration, name string) testkit.ChatModel {
					return testkit.Answers(func() (string, error) { time.Sleep(d); return name, nil })
				}
				testkit.Add(t, reg, testkit.Provider{Name: "slow", Strategy: strategy, Instance: takes(400*time.Millisecond, "slow")})
				testkit.Add(t, reg, testkit.Provider{Name: "fast", Instance: takes(10*time.Millisecond, "fast")})
				for i := range extra {
					sick := testkit.Add(t, reg, testkit.Provider{Name: strconv.Itoa(i)})
					require.NoError(t, sick.MarkUnhealthy(testkit.ErrDown))
				}
				quick := testkit.Chat.Bind(reg, registry.Query{Where: selection.Requirements{MaxLatency: 200 * time.Millisecond}})
				all := testkit.Bind(reg)
				// Measured from the first query on that asks for it.
				require.NotEmpty(t, quick.Explain().Winner)
				for range 40 {
					testkit.MustAsk(t, all)
					testkit.MustAsk(t, quick)
				}
				for range 20 {
					require.Equal(t, "fast", testkit.MustAsk(t, quick))
					require.Equal(t, "fast", testkit.MustGet(t, quick))
				}
				many, err := quick.GetAll(t.Context(), 0)
				require.NoError(t, err)
				require.Len(t, many, 1)
				leases, err := quick.AcquireAll(t.Context(), 0)
				require.NoError(t, err)
				require.Len(t, leases, 1)
				leases[0].Done(nil)
				e := quick.Explain()
				require.Equal(t, "fast", e.Winner)
				require.Equal(t, reason.TooSlow, e.Candidates[0].Code)
				require.ErrorIs(t, e.Candidates[0].Err, selection.ErrUnmet)
				wait := e.Candidates[0].RetryIn
				require.Greater(t, wait, 6*time.Second)
				require.LessOrEqual(t, wait, 7*time.Second) // 10 s · ln 2
				fast, _ := reg.Provider("chat", "fast")
				require.NoError(t, fast.MarkUnhealthy(testkit.ErrDown))
				_, err = quick.Get(t.Context())
				require.ErrorIs(t, err, selection.ErrUnmet)
				var unavailable *registry.UnavailableError
				require.ErrorAs(t, err, &unavailable)
				require.Equal(t, wait.Round(100*time.Millisecond), unavailable.RetryIn.Round(100*time.Millisecond))
				testkit.Pass(wait + 10*time.Millisecond)
				require.Equal(t, "slow", testkit.MustAsk(t, quick), "it may prove itself again")
			})
		}
	}
}

func TestSelector_MeasurementsSurviveMembershipChanges(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		var state []string
		look := testkit.NewStrategy("LOOK", func(v selection.View) int {
			if v.Peeking() {
				return 0
			}
			at := -1
			for i := range v.Len() {
				if v.At(i).Name() == "a" {
					c := v.At(i)
					_, here := c.PerformanceHere()
					state = append(state, fmt.Sprintf("%v %.2f %.2f %d", c.Latency().Round(time.Millisecond), c.Failing(), here, c.InFlight()))
					at = i
				}
			}
			v.Turn()
			v.State().CompareAndSwap(nil, "remembered")
			state = append(state, fmt.Sprint(v.State().Load()))
			return at
		})
		failing := false
		a := testkit.Add(t, reg, testkit.Provider{Name: "a", Strategy: look, Instance: testkit.Answers(func() (string, error) {
			time.Sleep(30 * time.Millisecond)
			if failing {
				return "", testkit.ErrDown
			}
			return "a", nil
		})})
		r := testkit.Bind(reg)
		testkit.MustAsk(t, r)
		failing = true
		_, err := testkit.Ask(t.Context(), r)
		require.Error(t, err)
		lease, err := r.Acquire(t.Context())
		require.NoError(t, err)
		state = nil
		for i := range 5 {
			other := testkit.Add(t, reg, testkit.Provider{Name: strconv.Itoa(i), Priority: registry.PriorityCritical})
			_, err := r.Get(t.Context())
			require.NoError(t, err)
			require.NoError(t, other.Unregister(t.Context()))
			_, err = a.SetWeight(float64(i + 1))
			require.NoError(t, err)
		}
		for i := 0; i < len(state); i += 2 {
			require.Equal(t, []string{"30ms 0.20 0.20 1", "remembered"}, state[i:i+2])
		}
		lease.Done(nil)
	})
}

// A refusal counts as a failure does for strategies: a provider that says no at once must not look fast.
func TestSelector_RefusalsAreNoAnswers(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		var mu sync.Mutex
		var c selection.Candidate
		outcome := error(nil)
		a := testkit.Add(t, reg, testkit.Provider{Name: "a", Limits: registry.LimitPolicy{MaxConcurrent: 1, MaxQueue: 10, MaxWait: time.Minute}, Strategy: testkit.NewStrategy("LOOK", func(v selection.View) int {
			mu.Lock()
			defer mu.Unlock()
			c = v.At(0)
			return 0
		}), Instance: testkit.Answers(func() (string, error) {
			time.Sleep(100 * time.Millisecond)
			return "a", outcome
		})})
		r := testkit.Bind(reg)
		testkit.MustAsk(t, r)
		require.Equal(t, 100*time.Millisecond, c.Latency().Round(time.Millisecond), "as it is now, not when it was picked")
		// Ten at once: the last one waits for a second in the queue.
		var waiting sync.WaitGroup
		for range 10 {
			waiting.Go(func() { testkit.MustAsk(t, r) })
		}
		waiting.Wait()
		testkit.MustGet(t, r)
		require.LessOrEqual(t, c.Latency().Round(time.Millisecond), 101*time.Millisecond, "queueing is not charged")
		require.Zero(t, c.InFlight())
		for _, err := range []error{verdict.RateLimited(testkit.ErrDown, time.Millisecond), verdict.Permanent(testkit.ErrDown)} {
			outcome = err
			_, _ = testkit.Ask(t.Context(), r)
			require.Greater(t, c.Failing(), 0.19, "%v", err)
			require.NoError(t, a.Reset())
			testkit.Pass(5 * time.Minute)
			outcome = nil
			testkit.MustAsk(t, r)
			require.Zero(t, c.Failing())
		}
		outcome = testkit.ErrDown
		_, _ = testkit.Ask(t.Context(), r)
		require.InDelta(t, 0.2, c.Failing(), 1e-3)
	})
}

func TestSelector_MeasuresUnpickedProviderPerQuery(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		var here float64
		for _, name := range []string{"a", "b"} {
			testkit.Add(t, reg, testkit.Provider{
				Name: name, Limits: registry.LimitPolicy{MaxConcurrent: 1, MaxQueue: 1, MaxWait: time.Minute}, Instance: testkit.Fails(testkit.ErrDown),
				Breaker: registry.BreakerPolicy{FailureThreshold: 10},
				Strategy: testkit.NewStrategy("LOOK", func(v selection.View) int {
					_, here = v.At(0).PerformanceHere()
					return v.Next(0)
				}),
			})
		}
		look := func() float64 {
			_, err := testkit.Bind(reg).Get(t.Context())
			require.NoError(t, err)
			return here
		}
		_, err := testkit.Ask(t.Context(), testkit.Bind(reg), registry.OnceOnly())
		require.ErrorIs(t, err, testkit.ErrDown)
		require.InDelta(t, 0.2, look(), 1e-3)
		all, err := testkit.Bind(reg).AcquireAll(t.Context(), 0)
		require.NoError(t, err)
		done := make(chan struct{})
		go func() { // it queues, and a is the first to be free
			defer close(done)
			_, _ = testkit.Ask(t.Context(), testkit.Bind(reg), registry.OnceOnly())
		}()
		testkit.Pass(time.Second)
		all[0].Done(testkit.ErrDown)
		<-done
		require.InDelta(t, 0.488, look(), 0.05, "all three count")
		all[1].Done(nil)
	})
}

func TestSticky_KeyStaysAcrossSpillOver(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{Selection: selection.Policy{SpillOver: 1.4}}, func(t *testing.T, reg *registry.Registry) {
		for _, p := range []testkit.Provider{{Name: "a"}, {Name: "b"}, {Name: "c", Group: 1}, {Name: "d", Group: 1}} {
			p.Strategy = selectors.Sticky()
			testkit.Add(t, reg, p)
		}
		b, _ := reg.Provider("chat", "b")
		require.NoError(t, b.MarkUnhealthy(testkit.ErrDown))
		homes := make(map[string]int)
		for i := range 500 {
			key := string(rune('0' + i))
			r := testkit.Chat.Bind(reg, registry.Query{Key: key})
			home := testkit.MustAsk(t, r)
			homes[home]++
			for range 5 {
				require.Equal(t, home, r.Explain().Winner)
				require.Equal(t, home, testkit.MustAsk(t, r))
				answer, err := testkit.Ask(selection.WithKey(t.Context(), key), testkit.Bind(reg))
				require.NoError(t, err)
				require.Equal(t, home, answer)
			}
		}
		require.InDelta(t, 350, homes["a"], 70, "1.4 halves of all, by chance: seven deviations of its binomial")
	})
}

func FuzzVersions_AreOrdered(f *testing.F) {
	f.Add("1.2.3", "v1.2.3", "1.2.3-rc.1")
	f.Add("", "0", "00.0")
	f.Add("1.10", "1.9", "1.x")
	f.Add("1-", "1-0", "1+b")
	f.Fuzz(func(t *testing.T, a, b, c string) {
		ab, bc, ac := version.Compare(a, b), version.Compare(b, c), version.Compare(a, c)
		require.Zero(t, version.Compare(a, a))
		require.Equal(t, -ab, version.Compare(b, a), "%q and %q", a, b)
		if ab <= 0 && bc <= 0 {
			require.LessOrEqual(t, ac, 0, "%q, %q, %q", a, b, c)
		}
	})
}

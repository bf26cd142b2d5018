package registry_test

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/event"
	"github.com/capreg/registry/selection"
	"github.com/capreg/registry/selectors"
	"github.com/capreg/registry/verdict"
)

// choosing returns a strategy of the test's own.
func choosing(name string, pick func(v selection.View) int) registry.Strategy {
	return selection.New(name, selection.Func(pick))
}

// last is a strategy that takes the last eligible candidate.
func last() registry.Strategy {
	return choosing("LAST", func(v selection.View) int {
		at := -1
		for i := v.Next(0); i >= 0; i = v.Next(i + 1) {
			at = i
		}
		return at
	})
}

// faultsOf returns what the selector of the only group did wrong.
func faultsOf(t *testing.T, reg *registry.Registry) selection.GroupFaults {
	t.Helper()
	a, ok := reg.Selection("chat")
	require.True(t, ok)
	require.Len(t, a.Groups, 1)
	return a.Groups[0]
}

func TestAUsersSelectorPicksForLookupsCallsAndLeases(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		add(t, reg, provider{Name: "a", Strategy: last()})
		add(t, reg, provider{Name: "b"})
		c := add(t, reg, provider{Name: "c"})
		add(t, reg, provider{Name: "d", Group: 1})
		r := bind(reg)
		require.Equal(t, "LAST", c.Info().Strategy.String())
		require.Equal(t, "c", got(t, r))
		require.Equal(t, "c", asked(t, r))
		require.Equal(t, "c", r.Explain().Winner)
		lease, err := r.Acquire(t.Context())
		require.NoError(t, err)
		require.Equal(t, "c", lease.Provider())
		next, err := lease.MoveOn(errDown)
		require.NoError(t, err)
		require.Equal(t, "b", next.Provider(), "without those that had their turn")
		next.Done(nil)
		require.NoError(t, c.MarkUnhealthy(errDown))
		require.Equal(t, "b", asked(t, r))
		require.NoError(t, c.MarkHealthy())
		require.Equal(t, []string{"c", "b", "a", "d"}, order(t, reg, registry.Query{}))
	})
}

func TestWhatASelectorDoesWrongIsCountedAndTheGroupsOrderStandsIn(t *testing.T) {
	t.Parallel()
	faults := map[string]func(v selection.View) int{
		"panics":          func(selection.View) int { panic("broken") },
		"panics with nil": func(selection.View) int { panic(nil) }, //nolint:govet // on purpose
		"too low":         func(selection.View) int { return -1 },
		"lowest":          func(selection.View) int { return -1 << 63 },
		"too high":        func(v selection.View) int { return v.Len() },
		"highest":         func(selection.View) int { return 1<<63 - 1 },
		"not eligible":    func(selection.View) int { return 0 },
	}
	for name, pick := range faults {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
				sick := add(t, reg, provider{Name: "sick", Strategy: choosing("BROKEN", pick)})
				require.NoError(t, sick.MarkUnhealthy(errDown))
				add(t, reg, provider{Name: "b"})
				add(t, reg, provider{Name: "c"})
				events := reg.Subscribe(0)
				r := bind(reg)
				for range 3 {
					require.Equal(t, "b", r.Explain().Winner)
				}
				require.Zero(t, faultsOf(t, reg).Panics+faultsOf(t, reg).OutOfRange, "who only asks counts nothing")
				require.Equal(t, "b", got(t, r))
				require.Equal(t, "b", asked(t, r))
				require.Equal(t, []string{"b", "c"}, order(t, reg, registry.Query{}))
				counted := faultsOf(t, reg)
				require.Equal(t, uint64(4), counted.Panics+counted.OutOfRange)
				require.Equal(t, strings.HasPrefix(name, "panics"), counted.Panics > 0)
				told := kinds(t, events)
				require.Equal(t, []event.Kind{event.SelectorFailed}, told, "once a minute")
				pass(time.Minute + 1)
				require.Equal(t, "b", got(t, r))
				require.Equal(t, []event.Kind{event.SelectorFailed}, kinds(t, events))
				events.Close()
			})
		})
	}
}

func TestASelectorThatExitsItsGoroutineHoldsNothing(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a := add(t, reg, provider{Name: "a", Strategy: choosing("EXITS", func(v selection.View) int {
			if selection.KeyFrom(v.Context()) == "exit" {
				runtime.Goexit()
			}
			return 0
		})})
		r := bind(reg)
		exit := selection.WithKey(t.Context(), "exit")
		for _, use := range []func(){
			func() { _, _ = r.Get(exit) },
			func() { _, _ = ask(exit, r) },
			func() { _, _ = r.Acquire(exit) },
		} {
			done := make(chan struct{})
			go func() {
				defer close(done)
				use()
				t.Error("it returned")
			}()
			<-done
		}
		require.Equal(t, uint64(3), faultsOf(t, reg).Exits)
		require.Equal(t, "a", asked(t, r))
		requireCounts(t, a, 1, 0, 0, 0)
		require.NoError(t, a.Unregister(t.Context()))
	})
}

func TestASlowSelectorBlocksNobodyElseAndIsCounted(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		var slow sync.Map
		a := add(t, reg, provider{Name: "a", Strategy: choosing("SLOW", func(v selection.View) int {
			if _, ok := slow.Load(v.Key()); ok {
				time.Sleep(time.Second)
			}
			return v.Next(0)
		})})
		slow.Store("slow", nil)
		r := bind(reg)
		stuck := make(chan struct{})
		go func() {
			defer close(stuck)
			for range 500 {
				_, _ = ask(selection.WithKey(t.Context(), "slow"), r)
			}
		}()
		began := time.Now()
		require.Equal(t, "a", asked(t, r))
		require.NoError(t, a.MarkUnhealthy(errDown))
		require.NoError(t, a.MarkHealthy())
		add(t, reg, provider{Name: "b"})
		require.Zero(t, time.Since(began), "nobody waited for it")
		<-stuck
		// One pick in 32 is timed: of 500 about 16, and hardly ever none.
		require.Positive(t, faultsOf(t, reg).Slow)
		require.Less(t, faultsOf(t, reg).Slow, uint64(100))
	})
}

func TestOnlyTheSecondSlowPickInARowIsTold(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		slowly func(timed uint64) bool // by how many picks that were timed and slow were before
		told   []event.Kind
	}{
		"always":                  {func(uint64) bool { return true }, []event.Kind{event.SelectorFailed}},
		"once, as for a pause":    {func(timed uint64) bool { return timed == 0 }, nil},
		"twice in a row at least": {func(timed uint64) bool { return timed < 2 }, []event.Kind{event.SelectorFailed}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
				slow := false
				add(t, reg, provider{Name: "a", Strategy: choosing("SLOW", func(v selection.View) int {
					if slow {
						time.Sleep(time.Millisecond)
					}
					return v.Next(0)
				})})
				events := reg.Subscribe(0)
				defer events.Close()
				r := bind(reg)
				for range 1000 {
					slow = test.slowly(faultsOf(t, reg).Slow)
					require.Equal(t, "a", asked(t, r))
				}
				require.Positive(t, faultsOf(t, reg).Slow)
				require.Equal(t, test.told, kinds(t, events))
			})
		})
	}
}

func TestASelectorMayUseTheRegistryItPicksFor(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		var b *registry.Registration
		r := bind(reg)
		add(t, reg, provider{Name: "a", Strategy: choosing("CURIOUS", func(v selection.View) int {
			if v.Peeking() {
				return 0
			}
			_ = reg.Stats()
			_ = r.Explain()
			_, _ = reg.Selection("chat")
			_ = b.MarkUnhealthy(errDown)
			_ = b.MarkHealthy()
			return 0
		})})
		b = add(t, reg, provider{Name: "b"})
		require.Equal(t, "a", asked(t, r))
	})
}

func TestWhatASelectorSees(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		seen := make(map[string]any)
		add(t, reg, provider{
			Name: "a", Handler: "h", Capabilities: []string{"chat", "tools"}, Tags: []string{"gpu"}, Version: "1.2", Region: "eu-west-1",
			Weight: 2, Cost: 3, Metadata: map[string]string{"model": "m"}, Strategy: choosing("CURIOUS", func(v selection.View) int {
				c := v.At(0)
				seen = map[string]any{
					"name": c.Name(), "handler": c.Handler(), "tools": c.HasCapability("tools"), "gpu": c.HasTag("gpu"),
					"version": c.Version(), "region": c.Region(), "weight": c.Weight(), "cost": c.Cost(), "model": c.Metadata("model"),
					"fit": c.Fit(), "near": c.Proximity(), "thrift": c.Thrift(), "in flight": c.InFlight(), "cold": c.Cold(),
					"latency": c.Latency(), "failing": c.Failing(), "health": c.Health(), "since": c.RecoveredFor(),
					"service": v.Request().Service, "require": v.Request().Require, "key": v.Key(), "caller": v.Caller(), "asked": v.Asked(),
				}
				return 0
			}),
		})
		pass(time.Minute)
		r := chat.Bind(reg, registry.Query{Handler: "h", Require: []string{"chat"}, Prefer: []string{"gpu", "vision"}, Near: "eu-west-2", Key: "session"})
		asked(t, r, registry.Caller("alice"))
		require.Equal(t, map[string]any{
			"name": "a", "handler": "h", "tools": true, "gpu": true, "version": "1.2", "region": "eu-west-1", "weight": 2.0, "cost": 3.0,
			"model": "m", "fit": 0.5, "near": 2.0 / 3, "thrift": 0.0, "in flight": 0, "cold": true, "latency": time.Duration(0), "failing": 0.0,
			"health": 1.0, "since": time.Minute, "service": "chat", "require": []string{"chat"}, "key": "session", "caller": "alice", "asked": 0,
		}, seen)
		asked(t, r)
		require.Equal(t, "h", seen["caller"])
		require.Equal(t, false, seen["cold"])
	})
}

func TestStrategiesCanBeNamedInConfiguration(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{Strategies: selectors.All()}, func(t *testing.T, reg *registry.Registry) {
		var d registry.Definition
		named := func(name string) provider {
			require.NoError(t, d.Strategy.UnmarshalText([]byte(name)))
			p := chat.Provider(d)
			p.Instance = says(name)
			return p
		}
		a, err := chat.Register(t.Context(), reg, named("LEAST_LOADED"))
		require.NoError(t, err)
		require.NotNil(t, a.Info().Strategy.Selector())
		_, err = chat.Register(t.Context(), reg, named("LEAST_LOADED"))
		require.NoError(t, err)
		_, err = chat.Register(t.Context(), reg, named("STICKY"))
		require.ErrorIs(t, err, registry.ErrConflict)
		d.Group = 1
		_, err = chat.Register(t.Context(), reg, named("UNHEARD_OF"))
		require.ErrorIs(t, err, registry.ErrInvalid)
		require.ErrorContains(t, err, "LEAST_LOADED")
		require.ErrorContains(t, err, "Strategy")
		_, err = chat.Register(t.Context(), reg, provider{Name: "x", Group: 2, Strategy: last(), Instance: says("x")})
		require.NoError(t, err)
		d.Group = 2
		_, err = chat.Register(t.Context(), reg, named("LAST"))
		require.NoError(t, err, "the group knows it")
		_, err = a.SetStrategy(named("UNHEARD_OF").Strategy)
		require.ErrorIs(t, err, registry.ErrInvalid)
		previous, err := a.SetStrategy(named("SCORED").Strategy)
		require.NoError(t, err)
		require.Equal(t, "LEAST_LOADED", previous.String())
		require.NotNil(t, a.Info().Strategy.Selector())
	})
	for field, options := range map[string]registry.Options{
		"Options.Strategies[0]":        {Strategies: []registry.Strategy{{}}},
		"Options.Strategies[1]":        {Strategies: []registry.Strategy{last(), last()}},
		"Options.Decisions":            {Decisions: -1},
		"Options.Selection.SpillOver":  {Selection: selection.Policy{SpillOver: 0.5}},
		"Options.Selection.MaxEjected": {Selection: selection.Policy{MaxEjected: 2}},
		"Options.Selection.SlowStart":  {Selection: selection.Policy{SlowStart: -1}},
		"Options.Selection.Decay":      {Selection: selection.Policy{Decay: 1}},
	} {
		_, err := registry.New(options)
		var bad *registry.FieldError
		require.ErrorAs(t, err, &bad)
		require.Equal(t, field, bad.Field)
	}
}

func TestBadStrategiesAreRefusedByWhateverUsesThem(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a := add(t, reg, provider{Name: "a"})
		pick := selection.Func(func(selection.View) int { return 0 })
		for _, s := range []registry.Strategy{
			selection.New("", pick), selection.New("X", nil), selection.New("X", selection.Func(nil)), selection.New(" X", pick),
			selection.New("round_robin", pick), selection.New("a\nb", pick), selection.New(strings.Repeat("x", 257), pick), selection.New("\xff", pick),
		} {
			_, err := chat.Register(t.Context(), reg, provider{Instance: says("x"), Group: 1, Strategy: s})
			require.ErrorIs(t, err, registry.ErrInvalid, "%q", s)
			requireOneLine(t, err)
			_, err = a.SetStrategy(s)
			require.ErrorIs(t, err, registry.ErrInvalid, "%q", s)
		}
		require.Equal(t, 1, reg.Stats().Providers)
	})
}

func TestRequirementsFilterFirstAndSayWhatIsNotMet(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		add(t, reg, provider{Name: "dear", Cost: 9, Strategy: last()})
		add(t, reg, provider{Name: "old", Version: "1.9.3"})
		add(t, reg, provider{Name: "unversioned", Tags: []string{"gpu"}})
		add(t, reg, provider{Name: "far", Region: "us-east-1"})
		add(t, reg, provider{Name: "fine", Version: "v2.10.0", Tags: []string{"gpu", "eu"}, Region: "eu-west-1", Cost: 1})
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
			r := chat.Bind(reg, registry.Query{Where: c.where})
			codes := make(map[string]string)
			e := r.Explain()
			for _, candidate := range e.Candidates {
				if !candidate.Eligible {
					codes[candidate.Provider] = candidate.Code
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
			require.Equal(t, e.Winner, asked(t, r))
			require.NotContains(t, want, asked(t, r))
		}
		_, err := chat.Get(t.Context(), reg, registry.Query{Where: selection.Requirements{MaxCost: 0.5, Exclude: []string{"old", "unversioned", "far"}}})
		require.ErrorIs(t, err, registry.ErrUnavailable)
		require.ErrorIs(t, err, selection.ErrUnmet)
		require.NotErrorIs(t, err, registry.ErrNoCapability)
		require.ErrorContains(t, err, "where costing at most 0.5, without far, old, unversioned")
		requireOneLine(t, err)
		for field, q := range map[string]registry.Query{
			"Query.Where.MaxLatency": {Where: selection.Requirements{MaxLatency: -1}},
			"Query.Where.MaxCost":    {Where: selection.Requirements{MaxCost: -1}},
			"Query.Where.MinVersion": {Where: selection.Requirements{MinVersion: "\xff"}},
			"Query.Where.Tags[0]":    {Where: selection.Requirements{Tags: []string{""}}},
			"Query.Prefer[1]":        {Prefer: []string{"a", " b"}},
			"Query.Near":             {Near: " "},
		} {
			_, err := chat.Get(t.Context(), reg, q)
			var bad *registry.FieldError
			require.ErrorAs(t, err, &bad)
			require.Equal(t, field, bad.Field)
		}
	})
}

func TestWhoIsTooSlowForTheQueryIsLeftOutUntilThatIsForgotten(t *testing.T) {
	t.Parallel()
	for _, strategy := range []registry.Strategy{registry.StrategyFallback, registry.StrategyRoundRobin, selectors.Random()} {
		for _, extra := range []int{0, 80} {
			bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
				takes := func(d time.Duration, name string) chatModel {
					return answers(func() (string, error) { time.Sleep(d); return name, nil })
				}
				add(t, reg, provider{Name: "slow", Strategy: strategy, Instance: takes(400*time.Millisecond, "slow")})
				add(t, reg, provider{Name: "fast", Instance: takes(10*time.Millisecond, "fast")})
				for i := range extra {
					sick := add(t, reg, provider{Name: strconv.Itoa(i)})
					require.NoError(t, sick.MarkUnhealthy(errDown))
				}
				quick := chat.Bind(reg, registry.Query{Where: selection.Requirements{MaxLatency: 200 * time.Millisecond}})
				all := bind(reg)
				// Measured from the first query on that asks for it.
				require.NotEmpty(t, quick.Explain().Winner)
				for range 40 {
					asked(t, all)
					asked(t, quick)
				}
				for range 20 {
					require.Equal(t, "fast", asked(t, quick))
					require.Equal(t, "fast", got(t, quick))
				}
				many, err := quick.Many(t.Context(), 0)
				require.NoError(t, err)
				require.Len(t, many, 1)
				leases, err := quick.AcquireMany(t.Context(), 0)
				require.NoError(t, err)
				require.Len(t, leases, 1)
				leases[0].Done(nil)
				e := quick.Explain()
				require.Equal(t, "fast", e.Winner)
				require.Equal(t, "too_slow", e.Candidates[0].Code)
				require.ErrorIs(t, e.Candidates[0].Err, selection.ErrUnmet)
				wait := e.Candidates[0].RetryIn
				require.Greater(t, wait, 6*time.Second)
				require.LessOrEqual(t, wait, 7*time.Second) // 10 s · ln 2
				fast, _ := reg.Provider("fast")
				require.NoError(t, fast.MarkUnhealthy(errDown))
				_, err = quick.Get(t.Context())
				require.ErrorIs(t, err, selection.ErrUnmet)
				var unavailable *registry.UnavailableError
				require.ErrorAs(t, err, &unavailable)
				require.Equal(t, wait.Round(100*time.Millisecond), unavailable.RetryIn.Round(100*time.Millisecond))
				pass(wait + 10*time.Millisecond)
				require.Equal(t, "slow", asked(t, quick), "it may prove itself again")
			})
		}
	}
}

func TestStateOfAProviderSurvivesChangesOfMembership(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		var state []string
		look := choosing("LOOK", func(v selection.View) int {
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
		a := add(t, reg, provider{Name: "a", Strategy: look, Instance: answers(func() (string, error) {
			time.Sleep(30 * time.Millisecond)
			if failing {
				return "", errDown
			}
			return "a", nil
		})})
		r := bind(reg)
		asked(t, r)
		failing = true
		_, err := ask(t.Context(), r)
		require.Error(t, err)
		lease, err := r.Acquire(t.Context())
		require.NoError(t, err)
		state = nil
		for i := range 5 {
			other := add(t, reg, provider{Name: strconv.Itoa(i), Priority: registry.PriorityCritical})
			_, err := r.Get(t.Context())
			require.NoError(t, err)
			require.NoError(t, other.Unregister(t.Context()))
			_, err = a.SetWeight(float64(i))
			require.NoError(t, err)
		}
		for i := 0; i < len(state); i += 2 {
			require.Equal(t, []string{"30ms 0.20 0.20 1", "remembered"}, state[i:i+2])
		}
		lease.Done(nil)
	})
}

func TestStrategiesMayChangeWhileCallsAreUnderWay(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a := add(t, reg, provider{Name: "a"})
		add(t, reg, provider{Name: "b"})
		all := append(selectors.All(), registry.StrategyFallback, registry.StrategyRoundRobin, last())
		var waiting sync.WaitGroup
		for range 4 {
			waiting.Go(func() {
				r := bind(reg)
				for range 500 {
					if _, err := ask(context.Background(), r); err != nil {
						t.Error(err)
					}
				}
			})
		}
		for i := range 300 {
			_, err := a.SetStrategy(all[i%len(all)])
			require.NoError(t, err)
		}
		waiting.Wait()
		_, err := a.SetStrategy(choosing("IDLE", func(v selection.View) int {
			for i := range v.Len() {
				if n := v.At(i).InFlight(); n != 0 {
					t.Errorf("%d in flight at rest", n)
				}
			}
			return 0
		}))
		require.NoError(t, err)
		got(t, bind(reg))
	})
}

func TestCallsThatAreNobodysFaultAreNotLearnedFrom(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		var mu sync.Mutex
		var c selection.Candidate
		outcome := error(nil)
		a := add(t, reg, provider{Name: "a", Limits: registry.LimitPolicy{MaxConcurrent: 1, MaxQueue: 10, MaxWait: time.Minute}, Strategy: choosing("LOOK", func(v selection.View) int {
			mu.Lock()
			defer mu.Unlock()
			c = v.At(0)
			return 0
		}), Instance: answers(func() (string, error) {
			time.Sleep(100 * time.Millisecond)
			return "a", outcome
		})})
		r := bind(reg)
		asked(t, r)
		require.Equal(t, 100*time.Millisecond, c.Latency().Round(time.Millisecond), "as it is now, not when it was picked")
		// Ten at once: the last one waits for a second in the queue.
		var waiting sync.WaitGroup
		for range 10 {
			waiting.Go(func() { asked(t, r) })
		}
		waiting.Wait()
		got(t, r)
		require.LessOrEqual(t, c.Latency().Round(time.Millisecond), 101*time.Millisecond, "queueing is not charged")
		require.Zero(t, c.InFlight())
		for _, err := range []error{verdict.RateLimited(errDown, time.Millisecond), verdict.Permanent(errDown)} {
			outcome = err
			_, _ = ask(t.Context(), r)
			require.Zero(t, c.Failing(), "%v", err)
			require.NoError(t, a.Reset())
		}
		outcome = errDown
		_, _ = ask(t.Context(), r)
		require.InDelta(t, 0.2, c.Failing(), 1e-3)
	})
}

func TestACallThatFailsEverywhereAsksEachOfALargeGroupOnce(t *testing.T) {
	t.Parallel()
	for _, strategy := range append(selectors.All(), last()) {
		bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
			for i := range 100 {
				member := add(t, reg, provider{Name: strconv.Itoa(i), Strategy: strategy, Weight: float64(i % 3)})
				if i%4 == 0 {
					require.NoError(t, member.MarkUnhealthy(errDown))
				}
			}
			add(t, reg, provider{Name: "next group", Group: 1})
			asked := order(t, reg, registry.Query{})
			require.Len(t, asked, 76, "%v", strategy)
			require.Equal(t, "next group", asked[75])
			slices.Sort(asked)
			require.Len(t, slices.Compact(asked), 76)
		})
	}
}

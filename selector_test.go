package registry_test

import (
	"context"
	"encoding/json"
	"math"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/event"
	"github.com/capreg/registry/internal/testkit"
	"github.com/capreg/registry/selection"
	"github.com/capreg/registry/selectors"
)

func TestSelector_PicksForLookupsCallsAndLeases(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		testkit.Add(t, reg, testkit.Provider{Name: "a", Strategy: testkit.NewLast()})
		testkit.Add(t, reg, testkit.Provider{Name: "b"})
		c := testkit.Add(t, reg, testkit.Provider{Name: "c"})
		testkit.Add(t, reg, testkit.Provider{Name: "d", Group: 1})
		r := testkit.Bind(reg)
		require.Equal(t, "LAST", c.Info().Strategy.String())
		require.Equal(t, "c", testkit.MustGet(t, r))
		require.Equal(t, "c", testkit.MustAsk(t, r))
		require.Equal(t, "c", r.Explain().Winner)
		lease, err := r.Acquire(t.Context())
		require.NoError(t, err)
		require.Equal(t, "c", lease.Provider())
		next, err := lease.MoveOn(testkit.ErrDown)
		require.NoError(t, err)
		require.Equal(t, "b", next.Provider(), "without those that had their turn")
		next.Done(nil)
		require.NoError(t, c.MarkUnhealthy(testkit.ErrDown))
		require.Equal(t, "b", testkit.MustAsk(t, r))
		require.NoError(t, c.MarkHealthy())
		require.Equal(t, []string{"c", "b", "a", "d"}, testkit.CallOrder(t, reg, registry.Query{}))
	})
}

func TestSelector_FaultsAreCountedAndOrderIsUsed(t *testing.T) {
	t.Parallel()
	faults := map[string]func(v selection.View) int{
		"panics":          func(selection.View) int { panic("broken") },
		"panics with nil": func(selection.View) int { panic(nil) }, //nolint:govet // on purpose
		"too low":         func(selection.View) int { return -1 },
		"lowest":          func(selection.View) int { return math.MinInt },
		"too high":        func(v selection.View) int { return v.Len() },
		"highest":         func(selection.View) int { return math.MaxInt },
		"not eligible":    func(selection.View) int { return 0 },
	}
	for name, pick := range faults {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
				sick := testkit.Add(t, reg, testkit.Provider{Name: "sick", Strategy: testkit.NewStrategy("BROKEN", pick)})
				require.NoError(t, sick.MarkUnhealthy(testkit.ErrDown))
				testkit.Add(t, reg, testkit.Provider{Name: "b"})
				testkit.Add(t, reg, testkit.Provider{Name: "c"})
				events := reg.Subscribe(0)
				r := testkit.Bind(reg)
				for range 3 {
					require.Equal(t, "b", r.Explain().Winner)
				}
				require.Zero(t, testkit.GroupFaults(t, reg).Panics+testkit.GroupFaults(t, reg).OutOfRange, "Explain counts nothing")
				require.Equal(t, "b", testkit.MustGet(t, r))
				require.Equal(t, "b", testkit.MustAsk(t, r))
				require.Equal(t, []string{"b", "c"}, testkit.CallOrder(t, reg, registry.Query{}))
				counted := testkit.GroupFaults(t, reg)
				require.Equal(t, uint64(4), counted.Panics+counted.OutOfRange)
				require.Equal(t, strings.HasPrefix(name, "panics"), counted.Panics > 0)
				told := testkit.Kinds(t, events)
				require.Equal(t, []event.Kind{event.SelectorFailed}, told, "once a minute")
				testkit.Pass(time.Minute + 1)
				require.Equal(t, "b", testkit.MustGet(t, r))
				require.Equal(t, []event.Kind{event.SelectorFailed}, testkit.Kinds(t, events))
				events.Close()
			})
		})
	}
}

func TestSelector_GoexitHoldsNothing(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a := testkit.Add(t, reg, testkit.Provider{Name: "a", Strategy: testkit.NewStrategy("EXITS", func(v selection.View) int {
			if selection.KeyFrom(v.Context()) == "exit" {
				runtime.Goexit()
			}
			return 0
		})})
		r := testkit.Bind(reg)
		exit := selection.WithKey(t.Context(), "exit")
		for _, use := range []func(){
			func() { _, _ = r.Get(exit) },
			func() { _, _ = testkit.Ask(exit, r) },
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
		require.Equal(t, uint64(3), testkit.GroupFaults(t, reg).Exits)
		require.Equal(t, "a", testkit.MustAsk(t, r))
		testkit.RequireCounts(t, a, 1, 0, 0, 0)
		require.NoError(t, a.Unregister(t.Context()))
	})
}

func TestSelector_SlowBlocksNoOtherAndIsCounted(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		var slow sync.Map
		a := testkit.Add(t, reg, testkit.Provider{Name: "a", Strategy: testkit.NewStrategy("SLOW", func(v selection.View) int {
			if _, ok := slow.Load(v.Key()); ok {
				time.Sleep(time.Second)
			}
			return v.Next(0)
		})})
		slow.Store("slow", nil)
		r := testkit.Bind(reg)
		stuck := make(chan struct{})
		go func() {
			defer close(stuck)
			for range 500 {
				_, _ = testkit.Ask(selection.WithKey(t.Context(), "slow"), r)
			}
		}()
		began := time.Now()
		require.Equal(t, "a", testkit.MustAsk(t, r))
		require.NoError(t, a.MarkUnhealthy(testkit.ErrDown))
		require.NoError(t, a.MarkHealthy())
		testkit.Add(t, reg, testkit.Provider{Name: "b"})
		require.Zero(t, time.Since(began), "no call waited for it")
		<-stuck
		// One pick in 32 is timed: of 500 about 16, and hardly ever none.
		require.Positive(t, testkit.GroupFaults(t, reg).Slow)
		require.Less(t, testkit.GroupFaults(t, reg).Slow, uint64(100))
	})
}

func TestSelector_SecondSlowPickInARowIsReported(t *testing.T) {
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
			testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
				slow := false
				testkit.Add(t, reg, testkit.Provider{Name: "a", Strategy: testkit.NewStrategy("SLOW", func(v selection.View) int {
					if slow {
						time.Sleep(time.Millisecond)
					}
					return v.Next(0)
				})})
				events := reg.Subscribe(0)
				defer events.Close()
				r := testkit.Bind(reg)
				for range 1000 {
					slow = test.slowly(testkit.GroupFaults(t, reg).Slow)
					require.Equal(t, "a", testkit.MustAsk(t, r))
				}
				require.Positive(t, testkit.GroupFaults(t, reg).Slow)
				require.Equal(t, test.told, testkit.Kinds(t, events))
			})
		})
	}
}

func TestSelector_FaultsAreReportedOnceAMinute(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		strategy := selection.New("broken", testkit.PanickingSelector{})
		testkit.Add(t, reg, testkit.Provider{Name: "a", Strategy: strategy})
		testkit.Add(t, reg, testkit.Provider{Name: "b"})
		events := reg.Subscribe(0)
		defer events.Close()
		told := func() (count int) {
			for _, kind := range testkit.Kinds(t, events) {
				if kind == event.SelectorFailed {
					count++
				}
			}
			return count
		}
		testkit.Pass(time.Hour)
		for range 5 {
			testkit.MustAsk(t, testkit.Bind(reg))
		}
		require.Equal(t, 1, told())
		testkit.Pass(59 * time.Second)
		testkit.MustAsk(t, testkit.Bind(reg))
		require.Zero(t, told())
		testkit.Pass(2 * time.Second)
		testkit.MustAsk(t, testkit.Bind(reg))
		require.Equal(t, 1, told())
	})
}

func TestSelector_MayUseItsRegistry(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		var b *registry.Registration
		r := testkit.Bind(reg)
		testkit.Add(t, reg, testkit.Provider{Name: "a", Strategy: testkit.NewStrategy("CURIOUS", func(v selection.View) int {
			if v.Peeking() {
				return 0
			}
			_ = reg.Stats()
			_ = r.Explain()
			_, _ = reg.Analytics("chat")
			_ = b.MarkUnhealthy(testkit.ErrDown)
			_ = b.MarkHealthy()
			return 0
		})})
		b = testkit.Add(t, reg, testkit.Provider{Name: "b"})
		require.Equal(t, "a", testkit.MustAsk(t, r))
	})
}

func TestSelector_SeesDocumentedView(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		seen := make(map[string]any)
		testkit.Add(t, reg, testkit.Provider{
			Name: "a", Handler: "h", Capabilities: []string{"chat", "tools"}, Tags: []string{"gpu"}, Version: "1.2", Region: "eu-west-1",
			Weight: 2, Cost: 3, Metadata: map[string]string{"model": "m"}, Strategy: testkit.NewStrategy("CURIOUS", func(v selection.View) int {
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
		testkit.Pass(time.Minute)
		r := testkit.Chat.Bind(reg, registry.Query{Handler: "h", Require: []string{"chat"}, Prefer: []string{"gpu", "vision"}, Near: "eu-west-2", Key: "session"})
		testkit.MustAsk(t, r, registry.Caller("alice"))
		require.Equal(t, map[string]any{
			"name": "a", "handler": "h", "tools": true, "gpu": true, "version": "1.2", "region": "eu-west-1", "weight": 2.0, "cost": 3.0,
			"model": "m", "fit": 0.5, "near": 2.0 / 3, "thrift": 0.0, "in flight": 0, "cold": true, "latency": time.Duration(0), "failing": 0.0,
			"health": 1.0, "since": time.Minute, "service": "chat", "require": []string{"chat"}, "key": "session", "caller": "alice", "asked": 0,
		}, seen)
		testkit.MustAsk(t, r)
		require.Equal(t, "h", seen["caller"])
		require.Equal(t, false, seen["cold"])
	})
}

// vague picks the first and thinks what cannot be written as JSON.
type vague struct{ factors []selection.FactorValue }

func (vague) Pick(v selection.View) int { return v.Next(0) }

func (s vague) Describe(selection.View, int) selection.Detail {
	return selection.Detail{Score: math.NaN(), Words: "?", Factors: s.factors}
}

func TestSelector_DescriptionIsAlwaysJSON(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{Decisions: 10}, func(t *testing.T, reg *registry.Registry) {
		mine := []selection.FactorValue{{Name: "x", Weight: math.Inf(1), Value: math.Inf(-1)}}
		testkit.Add(t, reg, testkit.Provider{Name: "a", Strategy: selection.New("VAGUE", vague{mine})})
		r := testkit.Bind(reg)
		testkit.MustGet(t, r)
		_, err := json.Marshal(r.Explain())
		require.NoError(t, err)
		_, err = json.Marshal(reg.Decisions())
		require.NoError(t, err)
		require.True(t, math.IsInf(mine[0].Weight, 1), "the selector's own stays as it is")
	})
}

func TestSelector_FaultsOfMockGroupAreCounted(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		testkit.Add(t, reg, testkit.Provider{Name: "a", Mock: true, Strategy: testkit.NewStrategy("BROKEN", func(selection.View) int { panic("broken") })})
		testkit.Add(t, reg, testkit.Provider{Name: "own", Handler: "h"})
		testkit.Add(t, reg, testkit.Provider{Name: "own mock", Handler: "h", Mock: true})
		testkit.MustGet(t, testkit.Bind(reg))
		a, ok := reg.Analytics("chat")
		require.True(t, ok)
		require.Len(t, a.Groups, 2)
		require.Equal(t, uint64(1), a.Groups[1].Panics)
	})
}

func TestSelector_CannotChangeQuery(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		testkit.Add(t, reg, testkit.Provider{Name: "a", Capabilities: []string{"x"}, Tags: []string{"t"}, Strategy: testkit.NewStrategy("RUDE", func(v selection.View) int {
			q := v.Request()
			q.Require[0], q.Prefer[0], q.Where.Tags[0] = "y", "y", "y"
			return 0
		})})
		r := testkit.Chat.Bind(reg, registry.Query{Require: []string{"x"}, Prefer: []string{"x"}, Where: selection.Requirements{Tags: []string{"t"}}})
		testkit.MustGet(t, r)
		testkit.Add(t, reg, testkit.Provider{Name: "b", Capabilities: []string{"z"}}) // a new plan
		require.Equal(t, "a", testkit.MustGet(t, r))
		require.Equal(t, []string{"x"}, r.Explain().Query.Require)
	})
}

func TestStrategy_CanBeNamedInConfiguration(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{Strategies: selectors.All()}, func(t *testing.T, reg *registry.Registry) {
		var d registry.Definition
		named := func(name string) testkit.Provider {
			require.NoError(t, d.Strategy.UnmarshalText([]byte(name)))
			p := testkit.Chat.Provider(d)
			p.Instance = testkit.Says(name)
			return p
		}
		a, err := testkit.Chat.Register(t.Context(), reg, named("LEAST_LOADED"))
		require.NoError(t, err)
		require.NotNil(t, a.Info().Strategy.Selector())
		_, err = testkit.Chat.Register(t.Context(), reg, named("LEAST_LOADED"))
		require.NoError(t, err)
		_, err = testkit.Chat.Register(t.Context(), reg, named("STICKY"))
		require.ErrorIs(t, err, registry.ErrConflict)
		d.Group = 1
		_, err = testkit.Chat.Register(t.Context(), reg, named("UNHEARD_OF"))
		require.ErrorIs(t, err, registry.ErrInvalid)
		require.ErrorContains(t, err, "LEAST_LOADED")
		require.ErrorContains(t, err, "Strategy")
		_, err = testkit.Chat.Register(t.Context(), reg, testkit.Provider{Name: "x", Group: 2, Strategy: testkit.NewLast(), Instance: testkit.Says("x")})
		require.NoError(t, err)
		d.Group = 2
		_, err = testkit.Chat.Register(t.Context(), reg, named("LAST"))
		require.NoError(t, err, "the group knows it")
		_, err = a.SetStrategy(named("UNHEARD_OF").Strategy)
		require.ErrorIs(t, err, registry.ErrInvalid)
		previous, err := a.SetStrategy(named("SCORED").Strategy)
		require.NoError(t, err)
		require.Equal(t, "LEAST_LOADED", previous.String())
		require.NotNil(t, a.Info().Strategy.Selector())
	})
	for field, options := range map[string]registry.Options{
		"Options.Strategies[0]":        {Strategies: []selection.Strategy{{}}},
		"Options.Strategies[1]":        {Strategies: []selection.Strategy{testkit.NewLast(), testkit.NewLast()}},
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

func TestStrategy_BadIsRefused(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a := testkit.Add(t, reg, testkit.Provider{Name: "a"})
		pick := selection.Func(func(selection.View) int { return 0 })
		for _, s := range []selection.Strategy{
			selection.New("", pick), selection.New("X", nil), selection.New("X", selection.Func(nil)), selection.New(" X", pick),
			selection.New("round_robin", pick), selection.New("a\nb", pick), selection.New(strings.Repeat("x", 257), pick), selection.New("\xff", pick),
		} {
			_, err := testkit.Chat.Register(t.Context(), reg, testkit.Provider{Instance: testkit.Says("x"), Group: 1, Strategy: s})
			require.ErrorIs(t, err, registry.ErrInvalid, "%q", s)
			testkit.RequireOneLine(t, err)
			_, err = a.SetStrategy(s)
			require.ErrorIs(t, err, registry.ErrInvalid, "%q", s)
		}
		require.Equal(t, 1, reg.Stats().Providers)
	})
}

// beginning is a context that runs a function when a call that begins asks for its deadline.
type beginning struct {
	context.Context

	run func()
}

func (b beginning) Deadline() (time.Time, bool) {
	b.run()
	return b.Context.Deadline()
}

func TestStrategy_ThatArrivesWhileACallBeginsSeesItEnd(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a := testkit.Add(t, reg, testkit.Provider{Name: "a"})
		inFlight := make([]int, 0, 2)
		var arrives sync.Once
		ctx := beginning{t.Context(), func() {
			arrives.Do(func() {
				_, err := a.SetStrategy(testkit.NewStrategy("SEES", func(v selection.View) int {
					inFlight = append(inFlight, v.At(0).InFlight())
					return 0
				}))
				require.NoError(t, err)
				testkit.Add(t, reg, testkit.Provider{Name: "b"}) // a choice of one asks no strategy
				_ = testkit.MustGet(t, testkit.Bind(reg))
			})
		}}
		_, err := testkit.Ask(ctx, testkit.Bind(reg))
		require.NoError(t, err)
		_ = testkit.MustGet(t, testkit.Bind(reg))
		require.Equal(t, []int{0, 0}, inFlight)
	})
}

func TestStrategy_MayChangeDuringCalls(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a := testkit.Add(t, reg, testkit.Provider{Name: "a"})
		testkit.Add(t, reg, testkit.Provider{Name: "b"})
		all := append(selectors.All(), registry.StrategyFallback, registry.StrategyRoundRobin, testkit.NewLast())
		var waiting sync.WaitGroup
		for range 4 {
			waiting.Go(func() {
				r := testkit.Bind(reg)
				for range 500 {
					if _, err := testkit.Ask(context.Background(), r); err != nil {
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
		_, err := a.SetStrategy(testkit.NewStrategy("IDLE", func(v selection.View) int {
			for i := range v.Len() {
				if n := v.At(i).InFlight(); n != 0 {
					t.Errorf("%d in flight at rest", n)
				}
			}
			return 0
		}))
		require.NoError(t, err)
		testkit.MustGet(t, testkit.Bind(reg))
	})
}

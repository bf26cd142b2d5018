package registry_test

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/event"
	"github.com/capreg/registry/health"
	"github.com/capreg/registry/internal/testkit"
)

// other is a second service, of another Go type.
var other = registry.NewService[string]("other")

func mustUpdate(t *testing.T, reg *registry.Registry, collect func(u *registry.Update)) {
	t.Helper()
	var u registry.Update
	collect(&u)
	require.NoError(t, reg.Update(t.Context(), &u))
}

// picture returns all that can be read of a registry, but for the counts of look-ups.
func picture(t *testing.T, reg *registry.Registry) string {
	t.Helper()
	var infos []registry.Info
	for info := range reg.All() {
		infos = append(infos, info)
	}
	stats := reg.Stats()
	stats.Hits, stats.Misses, stats.Lookups = 0, 0, 0
	text, err := json.MarshalIndent([]any{infos, stats, testkit.Bind(reg).Explain(), reg.Health().State}, "", " ")
	require.NoError(t, err)
	return string(text)
}

func TestUpdate_MakesAllChangesOfAllServicesAtOnce(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		testkit.Add(t, reg, testkit.Provider{Name: "kept"})
		gone := testkit.Add(t, reg, testkit.Provider{Name: "gone"})
		replaced := testkit.Add(t, reg, testkit.Provider{Name: "replaced", Priority: registry.PriorityLow})
		events := reg.Subscribe(0)
		defer events.Close()
		var u registry.Update
		added := testkit.Chat.AddTo(&u, testkit.Provider{Instance: testkit.Says("added"), Group: 3})
		elsewhere := other.AddTo(&u, registry.Provider[string]{Name: "elsewhere", Instance: "x"})
		fresh := testkit.Chat.AddTo(&u, testkit.Provider{Name: "replaced", Instance: testkit.Says("fresh"), Replace: true})
		u.Remove("chat", "gone")
		u.SetPriority("chat", "kept", registry.PriorityHigh)
		u.SetGroup("chat", "kept", 2)
		u.SetWeight("chat", "kept", 3)
		u.SetAttemptTimeout("chat", "kept", time.Minute)
		u.SetLimits("chat", "kept", registry.LimitPolicy{MaxConcurrent: 7})
		u.SetRetry("chat", "kept", registry.RetryPolicy{Retries: 2})
		u.SetBreakerPolicy("chat", "kept", registry.BreakerPolicy{FailureThreshold: 9})
		u.SetHealthPolicy("chat", "kept", health.Policy{Groups: []string{"g"}})
		u.SetStrategy("chat", "kept", registry.StrategyRoundRobin)
		require.ErrorIs(t, second(added.SetGroup(1)), registry.ErrNotRegistered, "it has not joined")
		require.NoError(t, reg.Update(t.Context(), &u))

		require.Equal(t, "chat-1", added.Name())
		require.True(t, elsewhere.Info().Eligible)
		require.True(t, fresh.Info().Eligible)
		<-gone.Left()
		<-replaced.Left()
		kept, _ := reg.Provider("chat", "kept")
		info := kept.Info()
		require.Equal(t, registry.PriorityHigh, info.Priority)
		require.Equal(t, 2, info.Group)
		require.Equal(t, registry.StrategyRoundRobin, info.Strategy)
		require.InEpsilon(t, 3.0, info.Weight, 0)
		require.Equal(t, time.Minute, info.AttemptTimeout)
		require.Equal(t, 9, info.Breaker.Policy.FailureThreshold)
		require.Equal(t, []string{"g"}, info.Health.Groups)
		previous, err := kept.SetLimits(registry.LimitPolicy{})
		require.NoError(t, err)
		require.Equal(t, 7, previous.MaxConcurrent)
		retry, err := kept.SetRetry(registry.RetryPolicy{})
		require.NoError(t, err)
		require.Equal(t, 2, retry.Retries)

		kinds := make(map[event.Kind]int)
		for range 2 + 2 + 3 + 9 {
			e, err := events.Next(t.Context())
			require.NoError(t, err)
			kinds[e.Kind]++
		}
		require.Equal(t, map[event.Kind]int{event.Draining: 2, event.Drained: 2, event.Registered: 3, event.Changed: 9}, kinds)
	})
}

// What belongs to a whole group or domain changes with all its members, whichever way that is said.
func TestUpdate_ChangesWhatMembersShareTogetherWithAllOfThem(t *testing.T) {
	t.Parallel()
	few, many := registry.LimitPolicy{MaxConcurrent: 1}, registry.LimitPolicy{MaxConcurrent: 6}
	before := func(name string) testkit.Provider {
		return testkit.Provider{Name: name, Instance: testkit.Says(name), Strategy: registry.StrategyRoundRobin, Domain: "key", Limits: few}
	}
	after := func(name string) testkit.Provider {
		p := before(name)
		p.Strategy, p.Limits, p.Replace = registry.StrategyFallback, many, true
		return p
	}
	for name, collect := range map[string]func(u *registry.Update){
		"all replaced": func(u *registry.Update) {
			testkit.Chat.AddTo(u, after("a"))
			testkit.Chat.AddTo(u, after("b"))
		},
		"one replaced, one changed": func(u *registry.Update) {
			testkit.Chat.AddTo(u, after("a"))
			u.SetLimits("chat", "b", many)
			u.SetStrategy("chat", "b", registry.StrategyFallback)
		},
		"changed alone": func(u *registry.Update) {
			u.SetLimits("chat", "b", many)
			u.SetStrategy("chat", "a", registry.StrategyFallback)
		},
		"removed and added": func(u *registry.Update) {
			u.Remove("chat", "a")
			u.Remove("chat", "b")
			for _, name := range []string{"a", "b"} {
				p := after(name)
				p.Replace = false
				testkit.Chat.AddTo(u, p)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
				testkit.Add(t, reg, before("a"))
				testkit.Add(t, reg, before("b"))
				_, err := testkit.Chat.Register(t.Context(), reg, after("a"))
				require.ErrorIs(t, err, registry.ErrConflict, "alone it cannot")
				require.ErrorContains(t, err, `which provider "b" set`, "a is the one that leaves")
				mustUpdate(t, reg, collect)
				for _, name := range []string{"a", "b"} {
					p, _ := reg.Provider("chat", name)
					require.Equal(t, registry.StrategyFallback, p.Info().Strategy)
				}
				b, _ := reg.Provider("chat", "b")
				previous, err := b.SetLimits(few)
				require.NoError(t, err)
				require.Equal(t, 6, previous.MaxConcurrent)
				require.Equal(t, "aa", testkit.Turns(t, testkit.Bind(reg), 2))
			})
		})
	}
}

func TestUpdate_NameMayGoToAnotherService(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		testkit.Add(t, reg, testkit.Provider{Name: "a"})
		testkit.Add(t, reg, testkit.Provider{Name: "b"})
		mustUpdate(t, reg, func(u *registry.Update) {
			other.AddTo(u, registry.Provider[string]{Name: "a", Instance: "x"})
			u.Remove("chat", "a")
		})
		require.Equal(t, "b", testkit.MustAsk(t, testkit.Bind(reg)))
		x, err := other.Get(t.Context(), reg, registry.Query{})
		require.NoError(t, err)
		require.Equal(t, "x", x)
	})
}

// Variants: each kind of change that is refused, beside good ones of each kind; newcomers that do not prove themselves.
func TestUpdate_RefusedChangesNothing(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		options registry.Options
		bad     func(u *registry.Update)
		kind    error
		text    string
	}{
		"invalid input":   {bad: func(u *registry.Update) { testkit.Chat.AddTo(u, testkit.Provider{Name: "x"}) }, kind: registry.ErrInvalid, text: "Update[5].Instance"},
		"invalid setting": {bad: func(u *registry.Update) { u.SetWeight("chat", "b", -1) }, kind: registry.ErrInvalid, text: "Update[5].Weight is -1"},
		"invalid health": {bad: func(u *registry.Update) {
			u.SetHealthPolicy("chat", "b", health.Policy{Capabilities: map[string]health.Probe{"none": slowly}})
		}, kind: registry.ErrInvalid, text: "Update[5].Health."},
		"invalid breaker": {bad: func(u *registry.Update) {
			u.SetBreakerPolicy("chat", "b", registry.BreakerPolicy{FailureThreshold: -1})
		}, kind: registry.ErrInvalid, text: "Update[5]."},
		"name taken": {bad: func(u *registry.Update) {
			testkit.Chat.AddTo(u, testkit.Provider{Name: "b", Instance: testkit.Says("x")})
		}, kind: registry.ErrExists, text: "Update[5].Name"},
		"unknown name":       {bad: func(u *registry.Update) { u.Remove("chat", "x") }, kind: registry.ErrNotRegistered, text: "Update[5].Name"},
		"setting of unknown": {bad: func(u *registry.Update) { u.SetGroup("chat", "x", 1) }, kind: registry.ErrNotRegistered, text: "Update[5].Name"},
		"bad service": {bad: func(u *registry.Update) {
			registry.NewService[string]("").AddTo(u, registry.Provider[string]{Instance: "x"})
		}, kind: registry.ErrInvalid, text: "Update[5].Service"},
		"another type": {bad: func(u *registry.Update) {
			registry.NewService[int]("chat").AddTo(u, registry.Provider[int]{Instance: 1})
		}, kind: registry.ErrConflict, text: "Update[5].Service"},
		"two types of a name": {bad: func(u *registry.Update) {
			registry.NewService[int]("other").AddTo(u, registry.Provider[int]{Instance: 1})
		}, kind: registry.ErrConflict, text: "Update[5].Service"},
		"admission": {options: registry.Options{Admit: func(_ context.Context, d registry.Definition) error {
			return map[string]error{"x": testkit.ErrDown}[d.Name]
		}}, bad: func(u *registry.Update) {
			testkit.Chat.AddTo(u, testkit.Provider{Name: "x", Instance: testkit.Says("x")})
		}, kind: testkit.ErrDown, text: "Update[5]: "},
		"mock": {options: registry.Options{ForbidMocks: true}, bad: func(u *registry.Update) {
			testkit.Chat.AddTo(u, testkit.Provider{Name: "x", Mock: true, Instance: testkit.Says("x")})
		}, kind: registry.ErrConflict, text: "Update[5].Mock"},
		"ill newcomer": {bad: func(u *registry.Update) {
			testkit.Chat.AddTo(u, testkit.Provider{Name: "x", Instance: testkit.Says("x"), Health: health.Policy{Probe: func(context.Context) error { return health.Out(testkit.ErrDown) }}})
		}, kind: registry.ErrNotReady, text: `provider "chat/x" has not proven itself`},
		"factory that fails": {bad: func(u *registry.Update) {
			testkit.Chat.AddTo(u, testkit.Provider{Name: "b", Replace: true, Factory: func(context.Context) (testkit.ChatModel, error) { return nil, testkit.ErrDown }})
		}, kind: testkit.ErrDown, text: `provider "chat/b" has not proven itself`},
		"factory that hangs": {bad: func(u *registry.Update) {
			testkit.Chat.AddTo(u, testkit.Provider{Name: "x", ProveWithin: time.Second, Factory: func(ctx context.Context) (testkit.ChatModel, error) { <-ctx.Done(); return nil, ctx.Err() }})
		}, kind: registry.ErrNotReady, text: "its time is over"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			testkit.Bubble(t, row.options, func(t *testing.T, reg *registry.Registry) {
				testkit.AddRing(t, reg, "a", "b", "c")
				testkit.Turns(t, testkit.Bind(reg), 5)
				a, _ := reg.Provider("chat", "a")
				require.NoError(t, a.MarkUnhealthy(testkit.ErrDown))
				synctest.Wait()
				before := picture(t, reg)
				made := probed("made", slowly)
				var u registry.Update
				u.SetPriority("chat", "a", registry.PriorityHigh)
				u.Remove("chat", "c")
				other.AddTo(&u, registry.Provider[string]{Name: "new", Instance: "x"})
				testkit.Chat.AddTo(&u, testkit.Provider{Name: "made", Factory: madeSlowly(made)})
				u.SetStrategy("chat", "a", registry.StrategyFallback)
				row.bad(&u)
				err := reg.Update(t.Context(), &u)
				require.ErrorIs(t, err, row.kind)
				require.ErrorContains(t, err, row.text)
				require.NotContains(t, err.Error(), "\n")
				synctest.Wait()
				require.Equal(t, before, picture(t, reg))
				_, known := reg.Analytics("other")
				require.False(t, known, "nothing is left of a new service")
				_, err = other.Get(t.Context(), reg, registry.Query{})
				require.ErrorIs(t, err, registry.ErrUnknownService)
			})
		})
	}
}

func TestUpdate_ReportsEveryRefusal(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		testkit.Add(t, reg, testkit.Provider{Name: "a"})
		var u registry.Update
		u.SetWeight("chat", "a", -1)
		u.SetPriority("chat", "a", 77)
		err := reg.Update(t.Context(), &u)
		require.ErrorContains(t, err, "Update[0].Weight")
		require.ErrorContains(t, err, "Update[1].Priority")
		u = registry.Update{}
		u.Remove("chat", "x")
		testkit.Chat.AddTo(&u, testkit.Provider{Name: "a", Instance: testkit.Says("x")})
		err = reg.Update(t.Context(), &u)
		require.ErrorIs(t, err, registry.ErrNotRegistered)
		require.ErrorIs(t, err, registry.ErrExists)
	})
}

func TestUpdate_NewcomersProveThemselvesAtTheSameTime(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		began := time.Now()
		var u registry.Update
		for i := range 50 {
			testkit.Chat.AddTo(&u, testkit.Provider{Name: fmt.Sprint("p", i), Factory: madeSlowly(testkit.Says("x"))})
		}
		testkit.Chat.AddTo(&u, testkit.Provider{Name: "probed", Instance: testkit.Says("x"), Health: health.Policy{Probe: slowly}})
		lazy := testkit.Chat.AddTo(&u, testkit.Provider{Name: "lazy", AtOnce: true, Factory: madeSlowly(testkit.Says("x"))})
		halfway := make(chan int, 1)
		go func() {
			time.Sleep(time.Second / 2)
			halfway <- reg.Stats().Providers
		}()
		require.NoError(t, reg.Update(t.Context(), &u))
		require.Zero(t, <-halfway)
		require.Equal(t, time.Second, time.Since(began))
		require.Equal(t, 52, reg.Stats().Eligible)
		require.False(t, lazy.Info().Made)
		var order []string
		for info := range reg.All() {
			order = append(order, info.Name)
		}
		require.Equal(t, []string{"p0", "p1", "p2"}, order[:3], "in the order of the set")
		require.Equal(t, []string{"probed", "lazy"}, order[50:])
	})
}

// One that was well while others still proved themselves has to be so at the moment of the change.
func TestUpdate_NewcomerThatFallsIllMeanwhileRefusesIt(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		target := &testkit.ProbeTarget{}
		var u registry.Update
		testkit.Chat.AddTo(&u, testkit.Provider{Name: "a", Instance: testkit.Says("x"), Health: health.Policy{
			Probe: target.Probe, Fall: 1, Interval: time.Second, FastInterval: time.Second,
		}})
		testkit.Chat.AddTo(&u, testkit.Provider{Name: "b", Factory: func(ctx context.Context) (testkit.ChatModel, error) {
			target.SetErr(testkit.ErrDown)
			time.Sleep(5 * time.Second)
			return testkit.Says("x"), nil
		}})
		target.SetErr(nil)
		err := reg.Update(t.Context(), &u)
		require.ErrorContains(t, err, `provider "chat/a" has not proven itself: unhealthy`)
		require.Zero(t, reg.Stats().Providers)
	})
}

func TestUpdate_EndsWithItsContextAndWithTheRegistry(t *testing.T) {
	t.Parallel()
	hangs := func(ctx context.Context) (testkit.ChatModel, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	for name, row := range map[string]struct {
		end  func(t *testing.T, reg *registry.Registry, cancel context.CancelCauseFunc)
		want error
	}{
		"context": {func(_ *testing.T, _ *registry.Registry, cancel context.CancelCauseFunc) { cancel(testkit.ErrDown) }, testkit.ErrDown},
		"close": {func(t *testing.T, reg *registry.Registry, _ context.CancelCauseFunc) {
			t.Helper()
			require.NoError(t, reg.Close(t.Context()))
		}, registry.ErrClosed},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
				ctx, cancel := context.WithCancelCause(t.Context())
				defer cancel(nil)
				var u registry.Update
				made := probed("made", func(context.Context) error { return nil })
				testkit.Chat.AddTo(&u, testkit.Provider{Name: "made", Factory: func(context.Context) (testkit.ChatModel, error) { return made, nil }})
				testkit.Chat.AddTo(&u, testkit.Provider{Name: "hangs", Factory: hangs})
				result := make(chan error)
				go func() { result <- reg.Update(ctx, &u) }()
				synctest.Wait()
				row.end(t, reg, cancel)
				require.ErrorIs(t, <-result, row.want)
				<-made.closed
				if name == "context" {
					require.Zero(t, reg.Stats().Providers)
				}
				require.NoError(t, reg.Close(t.Context()))
			})
		})
	}
}

func TestUpdate_SetCanBeUsedAgain(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		var u registry.Update
		unnamed := testkit.Chat.AddTo(&u, testkit.Provider{Instance: testkit.Says("x")})
		testkit.Chat.AddTo(&u, testkit.Provider{Name: "a", Instance: testkit.Says("a")})
		taken := testkit.Add(t, reg, testkit.Provider{Name: "a"})
		require.ErrorIs(t, reg.Update(t.Context(), &u), registry.ErrExists)
		require.NoError(t, taken.Unregister(t.Context()))
		require.NoError(t, reg.Update(t.Context(), &u))
		require.Equal(t, 2, reg.Stats().Providers)
		require.ErrorIs(t, reg.Update(t.Context(), &u), registry.ErrExists, "a is there")
		require.NotEmpty(t, unnamed.Name())
		elsewhere := testkit.New(t, registry.Options{})
		require.NoError(t, elsewhere.Update(t.Context(), &u))
		require.Equal(t, 2, elsewhere.Stats().Providers)
		require.NoError(t, elsewhere.Close(t.Context()))
	})
}

func TestUpdate_GeneratedNamesDoNotCollideWithThoseOfTheSet(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		mustUpdate(t, reg, func(u *registry.Update) {
			testkit.Chat.AddTo(u, testkit.Provider{Instance: testkit.Says("x")})
			testkit.Chat.AddTo(u, testkit.Provider{Name: "chat-1", Instance: testkit.Says("x")})
			testkit.Chat.AddTo(u, testkit.Provider{Instance: testkit.Says("x")})
		})
		require.Equal(t, 3, reg.Stats().Providers)
	})
}

func TestUpdate_LifetimesAndSwapsAreHeeded(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		testkit.Add(t, reg, testkit.Provider{Name: "a"})
		undo, err := testkit.Chat.Testing(reg).Swap("test", "a", testkit.Says("fake"))
		require.NoError(t, err)
		var u registry.Update
		testkit.Chat.AddTo(&u, testkit.Provider{Name: "a", Replace: true, Instance: testkit.Says("new")})
		require.ErrorIs(t, reg.Update(t.Context(), &u), registry.ErrConflict)
		life, end := context.WithCancel(t.Context())
		mustUpdate(t, reg, func(u *registry.Update) {
			u.SetPriority("chat", "a", registry.PriorityHigh) // of the replacement
			testkit.Chat.AddTo(u, testkit.Provider{Name: "short", Until: life, Instance: testkit.Says("short")})
		})
		a, _ := reg.Provider("chat", "a")
		require.Equal(t, registry.PriorityHigh, a.Info().Priority)
		end()
		synctest.Wait()
		_, there := reg.Provider("chat", "short")
		require.False(t, there)
		mustUpdate(t, reg, func(u *registry.Update) { u.Remove("chat", "a") }) // with what it replaces
		require.Zero(t, reg.Stats().Providers)
		require.NoError(t, undo(t.Context()))
		require.Zero(t, reg.Stats().Providers)
	})
}

func TestUpdate_BadUseIsAnError(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		require.NoError(t, reg.Update(t.Context(), &registry.Update{}))
		require.ErrorIs(t, reg.Update(t.Context(), nil), registry.ErrInvalid)
		require.ErrorIs(t, reg.Update(nil, &registry.Update{}), registry.ErrInvalid) //nolint:staticcheck // what is tested
		require.ErrorIs(t, (*registry.Registry)(nil).Update(t.Context(), &registry.Update{}), registry.ErrInvalid)
		var none *registry.Update
		none.Remove("chat", "x")
		require.ErrorIs(t, second(testkit.Chat.AddTo(none, testkit.Provider{}).SetGroup(1)), registry.ErrNotRegistered)
		require.NoError(t, reg.Close(t.Context()))
		require.ErrorIs(t, reg.Update(t.Context(), &registry.Update{}), registry.ErrClosed)
	})
}

// Calls that queue keep their turn when all members of their domain are replaced, and leases go on.
func TestUpdate_QueuesAndLeasesSurviveReplacementOfWholeDomain(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		limits := registry.LimitPolicy{MaxConcurrent: 1}
		p := func(name, says string, limits registry.LimitPolicy) testkit.Provider {
			return testkit.Provider{Name: name, Domain: "key", Limits: limits, Instance: testkit.Takes(says, 10*time.Second)}
		}
		testkit.Add(t, reg, p("a", "old", limits))
		testkit.Add(t, reg, p("b", "old", limits))
		results := testkit.ConcurrentCalls(t, testkit.Bind(reg), 3)
		synctest.Wait()
		mustUpdate(t, reg, func(u *registry.Update) {
			limits.MaxConcurrent = 3
			for _, name := range []string{"a", "b"} {
				next := p(name, "new", limits)
				next.Replace = true
				testkit.Chat.AddTo(u, next)
			}
		})
		require.Equal(t, map[string]int{"old<nil> after 10s": 1, "new<nil> after 10s": 2}, testkit.CountResults(results))
	})
}

// Versions of two services are changed together, over and over. Each look-up finds all of one version, never an older
// one than a look-up before it found, of either service; no call fails.
func TestUpdate_LookUpsSeeTheOldOrTheNewSet(t *testing.T) {
	t.Parallel()
	reg := testkit.New(t, registry.Options{})
	counters := registry.NewService[int]("counters")
	versions := registry.NewService[int]("versions")
	members := 0
	update := func(version int) error {
		var u registry.Update
		for i := range members {
			u.Remove("counters", fmt.Sprint(version-1, "-", i))
			u.Remove("versions", fmt.Sprint(version-1, "-", i))
		}
		members = 1 + version%4
		for i := range members {
			p := registry.Provider[int]{Instance: version, Strategy: registry.StrategyRoundRobin}
			if version%2 == 0 {
				p.Strategy = registry.StrategyFallback
			}
			if i%2 == 1 {
				p.Health.Probe = func(context.Context) error { return nil }
			}
			p.Name = fmt.Sprint(version, "-", i) // in both services
			counters.AddTo(&u, p)
			p.Factory, p.Instance = func(context.Context) (int, error) { return version, nil }, 0
			versions.AddTo(&u, p)
		}
		return reg.Update(t.Context(), &u)
	}
	require.NoError(t, update(1))
	var done atomic.Bool
	var readers sync.WaitGroup
	for i := range 4 {
		readers.Go(func() {
			resolvers := []*registry.Resolver[int]{counters.Bind(reg, registry.Query{}), versions.Bind(reg, registry.Query{})}
			last := 0
			for turn := i; !done.Load(); turn++ {
				all, err := resolvers[turn%2].GetAll(t.Context(), 0)
				if !assertSame(t, all, err) {
					return
				}
				if all[0] < last || len(all) != 1+all[0]%4 {
					t.Errorf("found %v after version %d", all, last)
					return
				}
				last = all[0]
				got, err := registry.Call(t.Context(), resolvers[turn/2%2], func(_ context.Context, v int) (int, error) { return v, nil })
				if err != nil || got < last {
					t.Errorf("called %d after version %d: %v", got, last, err)
					return
				}
				last = got
			}
		})
	}
	for version := 2; version < 100 && !t.Failed(); version++ {
		require.NoError(t, update(version))
	}
	done.Store(true)
	readers.Wait()
	require.NoError(t, reg.Close(t.Context()))
}

func assertSame(t *testing.T, all []int, err error) bool {
	t.Helper()
	if err != nil || len(all) == 0 {
		t.Errorf("found %v: %v", all, err)
		return false
	}
	for _, v := range all {
		if v != all[0] {
			t.Errorf("found parts of two sets: %v", all)
			return false
		}
	}
	return true
}

// Traffic moves from one provider to the other and back: at no moment has neither any.
func TestUpdate_TrafficMovesWithoutAGap(t *testing.T) {
	t.Parallel()
	reg := testkit.New(t, registry.Options{})
	testkit.Add(t, reg, testkit.Provider{Name: "a"})
	testkit.Add(t, reg, testkit.Provider{Name: "b", NoTraffic: true})
	var done atomic.Bool
	var readers sync.WaitGroup
	for range 3 {
		readers.Go(func() {
			for r := testkit.Bind(reg); !done.Load(); {
				_, err := r.Get(t.Context())
				_, called := testkit.Ask(t.Context(), r)
				if err != nil || called != nil {
					t.Errorf("no traffic: %v, %v", err, called)
					return
				}
			}
		})
	}
	for i := range 2000 {
		mustUpdate(t, reg, func(u *registry.Update) {
			u.SetWeight("chat", "a", float64(i%2))
			u.SetWeight("chat", "b", float64(1-i%2))
		})
	}
	done.Store(true)
	readers.Wait()
	require.NoError(t, reg.Close(t.Context()))
}

package registry_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/health"
	"github.com/capreg/registry/internal/testkit"
	"github.com/capreg/registry/reason"
	"github.com/capreg/registry/selection"
	"github.com/capreg/registry/verdict"
)

func TestOverride_HidesPresentAndLaterProviders(t *testing.T) {
	t.Parallel()
	for name, options := range map[string]registry.Options{
		"default": {}, "forbid": {ForbidMocks: true},
		"admit": {Admit: func(_ context.Context, d registry.Definition) error {
			if d.Name == "fake" {
				return testkit.ErrDown
			}
			return nil
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			testkit.Bubble(t, options, func(t *testing.T, reg *registry.Registry) {
				genuine := testkit.Add(t, reg, testkit.Provider{Name: "real", Capabilities: []string{"tools"}})
				testkit.Add(t, reg, testkit.Provider{Name: "own", Handler: "h", Capabilities: []string{"vision"}})
				tools := testkit.Bind(reg, "tools")
				own := testkit.Chat.Bind(reg, registry.Query{Handler: "h", OwnOnly: true, Require: []string{"vision"}})
				require.Equal(t, "own", testkit.MustAsk(t, own))
				undo, err := testkit.Chat.Testing(reg).Override("T", testkit.Provider{Name: "fake", Instance: testkit.Says("fake")})
				require.NoError(t, err)
				later := testkit.Add(t, reg, testkit.Provider{Name: "later", Capabilities: []string{"tools"}, Priority: registry.PriorityCritical})
				demanding := testkit.Chat.Bind(reg, registry.Query{Where: selection.Requirements{MinVersion: "v7", Tags: []string{"eu"}, Regions: []string{"eu"}}})
				for _, r := range []*registry.Resolver[testkit.ChatModel]{tools, own, testkit.Bind(reg, "anything"), demanding} {
					require.Equal(t, "fake", testkit.MustAsk(t, r))
					require.Equal(t, "fake", testkit.MustGet(t, r))
				}
				info := genuine.Info()
				require.False(t, info.Eligible)
				require.Equal(t, `overridden by "T"`, info.Reason)
				require.Equal(t, health.Healthy, reg.Health().State, "those that are hidden are not asked how they are")
				require.NoError(t, undo(t.Context()))
				require.NoError(t, undo(t.Context()))
				require.Equal(t, "later", testkit.MustAsk(t, tools))
				require.True(t, later.Info().Eligible)
				require.True(t, genuine.Info().Eligible)
				require.Equal(t, "own", testkit.MustAsk(t, own))
				require.Equal(t, 3, reg.Stats().Providers)
			})
		})
	}
}

func TestOverride_HasOwnGroupsAndDomains(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		limits := registry.LimitPolicy{MaxConcurrent: 3}
		a := testkit.Add(t, reg, testkit.Provider{Name: "a", Strategy: registry.StrategyRoundRobin, Domain: "key", Limits: limits})
		r := testkit.Bind(reg)
		override := func(providers ...testkit.Provider) (undo func()) {
			end, err := testkit.Chat.Testing(reg).Override("T", providers...)
			require.NoError(t, err)
			return func() { require.NoError(t, end(context.Background())) }
		}
		undo := override(testkit.Provider{Instance: testkit.Says("one")}, testkit.Provider{Instance: testkit.Says("two")})
		for range 3 {
			require.Equal(t, "one", testkit.MustAsk(t, r), "the turns are those of the others")
		}
		undoInner := override(
			testkit.Provider{Name: "x", Instance: testkit.Says("x"), Strategy: selection.New("LAST", selection.Func(func(v selection.View) int { return v.Len() - 1 }))},
			testkit.Provider{Name: "y", Instance: testkit.Says("y")},
		)
		require.Equal(t, "y", testkit.MustAsk(t, r))
		testkit.Add(t, reg, testkit.Provider{Name: "b", Strategy: registry.StrategyRoundRobin})
		undo()
		require.Equal(t, "y", testkit.MustAsk(t, r))
		undoInner()
		require.Equal(t, []string{"a", "b", "a"}, []string{testkit.MustAsk(t, r), testkit.MustAsk(t, r), testkit.MustAsk(t, r)})

		undo = override(testkit.Provider{
			Name: "z", Domain: "key", Limits: registry.LimitPolicy{MaxConcurrent: 1}, Instance: testkit.Fails(verdict.RateLimited(testkit.ErrDown, time.Hour)),
		})
		_, err := testkit.Ask(t.Context(), r)
		require.ErrorIs(t, err, testkit.ErrDown)
		z, ok := reg.Provider("chat", "z")
		require.True(t, ok)
		require.Equal(t, "key", z.Definition().Domain)
		undo()
		require.True(t, a.Info().Eligible, "the key of the real ones was never used")
	})
}

func TestOverride_BeforeRegistrationsRefusesNone(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		end, err := testkit.Chat.Testing(reg).Override("T", testkit.Provider{Name: "fake", Domain: "key", Limits: registry.LimitPolicy{MaxConcurrent: 1}})
		require.ErrorIs(t, err, registry.ErrInvalid)
		require.Nil(t, end)
		end, err = testkit.Chat.Testing(reg).Override("T", testkit.Provider{
			Name: "fake", Instance: testkit.Says("fake"), Domain: "key", Limits: registry.LimitPolicy{MaxConcurrent: 1},
		})
		require.NoError(t, err)
		testkit.Add(t, reg, testkit.Provider{Name: "a", Strategy: registry.StrategyRoundRobin, Domain: "key", Limits: registry.LimitPolicy{MaxConcurrent: 3}})
		require.Equal(t, "fake", testkit.MustAsk(t, testkit.Bind(reg)))
		require.NoError(t, end(t.Context()))
		require.Equal(t, "a", testkit.MustAsk(t, testkit.Bind(reg)))
	})
}

func TestOverride_WithoutProvidersIsAnOutage(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		testkit.Add(t, reg, testkit.Provider{Name: "real", LastResort: true})
		undo, err := testkit.Chat.Testing(reg).Override("T")
		require.NoError(t, err)
		_, err = testkit.Ask(t.Context(), testkit.Bind(reg))
		require.ErrorIs(t, err, registry.ErrUnavailable)
		require.ErrorContains(t, err, `overridden by "T"`)
		e := testkit.Bind(reg).Explain()
		require.Equal(t, reason.Overridden, e.Candidates[0].Code)
		require.NoError(t, undo(t.Context()))
		require.Equal(t, "real", testkit.MustAsk(t, testkit.Bind(reg)))
	})
}

func TestOverride_MayBeOverriddenAndSwapped(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		testkit.Add(t, reg, testkit.Provider{Name: "real"})
		r := testkit.Bind(reg)
		outer, err := testkit.Chat.Testing(reg).Override("T", testkit.Provider{Name: "outer", Instance: testkit.Says("outer")})
		require.NoError(t, err)
		undoReal := swap(t, reg, "T", "real", testkit.Says("hidden"))
		require.Equal(t, "outer", testkit.MustAsk(t, r), "a swap has the position of its provider")
		undoOuter := swap(t, reg, "T/sub", "outer", testkit.Says("swapped"))
		require.Equal(t, "swapped", testkit.MustAsk(t, r))
		inner, err := testkit.Chat.Testing(reg).Override("T/sub", testkit.Provider{Name: "inner", Instance: testkit.Says("inner")})
		require.NoError(t, err)
		require.Equal(t, "inner", testkit.MustAsk(t, r))
		require.NoError(t, outer(t.Context()))
		require.Equal(t, "inner", testkit.MustAsk(t, r))
		require.NoError(t, inner(t.Context()))
		require.Equal(t, "hidden", testkit.MustAsk(t, r))
		undoOuter()
		undoReal()
		require.Equal(t, "real", testkit.MustAsk(t, r))
	})
}

func TestOverride_IsSafeDuringCalls(t *testing.T) {
	t.Parallel()
	reg := testkit.New(t, registry.Options{})
	for _, name := range []string{"a", "b"} {
		testkit.Add(t, reg, testkit.Provider{Name: name, Domain: "key", Strategy: registry.StrategyRoundRobin})
	}
	r := testkit.Bind(reg)
	stop := make(chan struct{})
	var callers sync.WaitGroup
	for range 4 {
		callers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if _, err := testkit.Ask(context.Background(), r); err != nil && !errors.Is(err, registry.ErrUnavailable) {
					t.Error(err)
				}
				for range reg.All() {
				}
			}
		})
	}
	for range 100 {
		undo := swap(t, reg, "T", "a", testkit.Says("fake"))
		over, err := testkit.Chat.Testing(reg).Override("T", testkit.Provider{Name: "fake", Instance: testkit.Says("x")})
		require.NoError(t, err)
		undo()
		require.NoError(t, over(t.Context()))
	}
	close(stop)
	callers.Wait()
	require.Equal(t, 2, reg.Stats().Eligible)
	for info := range reg.All() {
		require.Zero(t, info.InFlight)
		require.Equal(t, info.Attempts, info.Successes)
	}
	require.NoError(t, reg.Close(t.Context()))
}

// place is a provider in the naive list: the last stage is the one in force.
type place struct {
	name   string
	acting []string
}

// stage is what is there without an override, or one override.
type stage struct {
	places []*place
	undo   func(context.Context) error
}

// swapped is a swap in force, whatever became of its provider.
type swapped struct {
	at     *place
	answer string
	undo   func()
}

func TestOverride_RandomSequencesMatchModel(t *testing.T) {
	t.Parallel()
	const seeds, steps = 60, 80
	for seed := range uint64(seeds) {
		testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
			random := rand.New(rand.NewPCG(seed, 1))
			base, made := &stage{}, 0
			stages := []*stage{base} // the last one is seen
			var swaps []*swapped
			fresh := func(kind string) string {
				made++
				return fmt.Sprintf("%s%d", kind, made)
			}
			present := func() (all []*place) {
				for _, s := range stages {
					all = append(all, s.places...)
				}
				return all
			}
			isSwapped := func(name string) bool {
				return slices.ContainsFunc(swaps, func(s *swapped) bool { return s.at.name == name })
			}
			r := testkit.Bind(reg)
			for range steps {
				switch random.IntN(7) {
				case 0: // a name of its own
					name := fresh("p")
					testkit.Add(t, reg, testkit.Provider{Name: name})
					base.places = append(base.places, &place{name, []string{name}})
				case 1: // a name that was there before
					if len(swaps) == 0 {
						continue
					}
					name := swaps[random.IntN(len(swaps))].at.name
					_, err := testkit.Chat.Register(t.Context(), reg, testkit.Provider{Name: name, Instance: testkit.Says("anew")})
					require.Error(t, err)
				case 2:
					all := present()
					if len(all) == 0 {
						continue
					}
					at, answer := all[random.IntN(len(all))], fresh("s")
					at.acting = append(at.acting, answer)
					swaps = append(swaps, &swapped{at, answer, swap(t, reg, "T", at.name, testkit.Says(answer))})
				case 3:
					if len(swaps) == 0 {
						continue
					}
					i := random.IntN(len(swaps))
					ended := swaps[i]
					swaps = slices.Delete(swaps, i, i+1)
					ended.undo()
					ended.at.acting = slices.DeleteFunc(ended.at.acting, func(answer string) bool { return answer == ended.answer })
				case 4:
					over := &stage{}
					var fakes []testkit.Provider
					for range random.IntN(3) {
						name := fresh("f")
						fakes = append(fakes, testkit.Provider{Name: name, Instance: testkit.Says(name)})
						over.places = append(over.places, &place{name, []string{name}})
					}
					var err error
					over.undo, err = testkit.Chat.Testing(reg).Override("T", fakes...)
					require.NoError(t, err)
					stages = append(stages, over)
				case 5:
					if len(stages) == 1 {
						continue
					}
					i := 1 + random.IntN(len(stages)-1)
					require.NoError(t, stages[i].undo(t.Context()))
					stages = slices.Delete(stages, i, i+1)
				case 6:
					if len(base.places) == 0 {
						continue
					}
					i := random.IntN(len(base.places))
					gone := base.places[i]
					base.places = slices.Delete(base.places, i, i+1)
					handle, ok := reg.Provider("chat", gone.name)
					require.True(t, ok)
					require.NoError(t, handle.Unregister(t.Context()))
					if !isSwapped(gone.name) && random.IntN(2) == 0 {
						testkit.Add(t, reg, testkit.Provider{Name: gone.name})
						base.places = append(base.places, &place{gone.name, []string{gone.name}})
					}
				}
				var want, have []string
				for _, p := range stages[len(stages)-1].places {
					want = append(want, p.acting[len(p.acting)-1])
				}
				models, err := r.GetAll(t.Context(), 1000)
				require.Equal(t, len(want) == 0, err != nil, "%v", err)
				for _, m := range models {
					answer, err := m.Chat(t.Context(), "?")
					require.NoError(t, err)
					have = append(have, answer)
				}
				require.Equal(t, want, have, "seed %d", seed)
				require.Equal(t, len(present()), reg.Stats().Providers)
				require.Equal(t, len(want), reg.Stats().Eligible)
			}
			for _, s := range swaps {
				s.undo()
			}
			for _, s := range stages[1:] {
				require.NoError(t, s.undo(t.Context()))
			}
			require.Equal(t, len(base.places), reg.Stats().Eligible, "as if nothing had been")
		})
	}
}

func TestOverride_HandleAlwaysShowsCurrentInstance(t *testing.T) {
	t.Parallel()
	reg := testkit.New(t, registry.Options{})
	handle := testkit.Add(t, reg, testkit.Provider{Name: "p"})
	for range 20 {
		var beneath []func()
		for range 100 { // a long way to look
			beneath = append(beneath, swap(t, reg, "T", "p", testkit.Says("beneath")))
		}
		top := swap(t, reg, "T", "p", testkit.Says("top"))
		acting := handle.Info().Generation
		ended := make(chan struct{})
		var other atomic.Uint64
		var readers sync.WaitGroup
		for range 2 {
			readers.Go(func() {
				for {
					if seen := handle.Info().Generation; seen != acting {
						other.Store(seen)
					}
					select {
					case <-ended:
						return
					default:
					}
				}
			})
		}
		for _, undo := range beneath {
			undo()
		}
		close(ended)
		readers.Wait()
		require.Zero(t, other.Load())
		top()
	}
	require.NoError(t, reg.Close(t.Context()))
}

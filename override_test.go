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
	"github.com/capreg/registry/event"
	"github.com/capreg/registry/health"
	"github.com/capreg/registry/selection"
	"github.com/capreg/registry/verdict"
)

// swap puts a stand-in in the place of a provider, and returns what takes it out.
func swap(tb testing.TB, reg *registry.Registry, by, name string, m chatModel) (undo func()) {
	tb.Helper()
	end, err := chat.Swap(reg, by, name, m)
	require.NoError(tb, err)
	return func() { require.NoError(tb, end(context.Background())) }
}

// candidatesOf returns the names of the candidates, in the order of the plan.
func candidatesOf(r *registry.Resolver[chatModel]) (names []string) {
	for _, c := range r.Explain().Candidates {
		names = append(names, c.Provider)
	}
	return names
}

func TestAStandInHasThePlaceOfItsProvider(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{ForbidMocks: true}, func(t *testing.T, reg *registry.Registry) {
		first := add(t, reg, provider{
			Name: "first", Capabilities: []string{"tools"}, Priority: registry.PriorityHigh, AttemptTimeout: 7 * time.Second,
			Breaker: registry.BreakerPolicy{FailureThreshold: 2}, Limits: registry.LimitPolicy{MaxConcurrent: 3},
			Metadata: map[string]string{"model": "m"},
		})
		add(t, reg, provider{Name: "second", Capabilities: []string{"tools"}, Priority: registry.PriorityHigh})
		r := bind(reg, "tools") // before
		before := first.Info()
		require.Equal(t, "first", asked(t, r))

		undo := swap(t, reg, "T", "first", says("fake"))
		require.Equal(t, "fake", asked(t, r))
		require.Equal(t, "fake", got(t, r))
		require.Equal(t, []string{"first", "second"}, candidatesOf(r))
		now := first.Info()
		require.True(t, now.Mock)
		require.Greater(t, now.Generation, before.Generation)
		require.Equal(t, before.AttemptTimeout, now.AttemptTimeout)
		require.Equal(t, before.Breaker.Policy, now.Breaker.Policy)
		require.Equal(t, before.Metadata, now.Metadata)
		require.Len(t, reg.Discover("tools"), 2)
		require.Equal(t, 2, reg.Stats().Providers)

		undo()
		undo()
		require.Equal(t, "first", asked(t, r))
		after := first.Info()
		require.Equal(t, before.Generation, after.Generation)
		require.Equal(t, before.Attempts+2, after.Attempts, "one before the swap and one after it")
		require.False(t, after.Mock)
		require.Equal(t, []string{"first", "second"}, candidatesOf(r))
	})
}

func TestWhatAStandInLearnsIsForgottenWithIt(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a := add(t, reg, provider{Name: "a", Domain: "key", Breaker: registry.BreakerPolicy{FailureThreshold: 1}})
		b := add(t, reg, provider{Name: "b", Domain: "key", Group: 1})
		r := bind(reg)
		undo := swap(t, reg, "T", "a", fails(errDown))
		require.Equal(t, "b", asked(t, r))
		require.Equal(t, registry.BreakerOpen, a.Breaker().State, "the handle is the stand-in's")
		undo()
		require.Equal(t, registry.BreakerClosed, a.Breaker().State)
		require.Equal(t, "a", asked(t, r))

		undo = swap(t, reg, "T", "a", fails(verdict.RateLimited(errDown, time.Hour)))
		require.Equal(t, "b", asked(t, r), "the key is the stand-ins' own")
		require.False(t, a.Info().Eligible)
		require.True(t, b.Info().Eligible)
		_, err := a.SetPriority(registry.PriorityLow)
		require.NoError(t, err)
		_, err = a.SetGroup(4)
		require.NoError(t, err)
		require.NoError(t, a.MarkUnhealthy(errDown))
		undo()
		require.True(t, a.Info().Eligible)
		require.Equal(t, registry.PriorityNormal, a.Definition().Priority)
		require.Zero(t, a.Definition().Group)
		require.Equal(t, "a", asked(t, r))
	})
}

func TestStandInsOfOneDomainCoolDownTogether(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		add(t, reg, provider{Name: "a", Domain: "key"})
		b := add(t, reg, provider{Name: "b", Domain: "key"})
		c := add(t, reg, provider{Name: "c", Domain: "key"})
		undoA := swap(t, reg, "T", "a", fails(verdict.RateLimited(errDown, time.Hour)))
		undoB := swap(t, reg, "T", "b", says("fake b"))
		require.Equal(t, "c", asked(t, bind(reg)))
		require.False(t, b.Info().Eligible)
		require.True(t, c.Info().Eligible)
		undoA()
		undoB()
		require.Equal(t, "a", asked(t, bind(reg)))
	})
}

func TestAStandInForAStandInIsOfTheSameDomain(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		add(t, reg, provider{Name: "a", Domain: "key"})
		b := add(t, reg, provider{Name: "b", Domain: "key"})
		add(t, reg, provider{Name: "c"})
		undoB := swap(t, reg, "T", "b", says("fake b"))
		undoOuter := swap(t, reg, "T", "a", says("outer"))
		undoInner := swap(t, reg, "T/inner", "a", fails(verdict.RateLimited(errDown, time.Hour)))
		require.Equal(t, "c", asked(t, bind(reg)))
		require.False(t, b.Info().Eligible)
		require.Equal(t, "key", b.Definition().Domain)
		undoInner()
		undoOuter()
		undoB()
		require.Equal(t, "a", asked(t, bind(reg)))
	})
}

func TestStateOfAProviderGoesOnWhileSomethingStandsInForIt(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		genuine := add(t, reg, provider{Name: "real", Instance: fails(errDown)})
		r := bind(reg)
		trip(t, r, genuine)
		undo := swap(t, reg, "T", "real", says("fake"))
		require.Equal(t, "fake", asked(t, r))
		undo()
		require.Equal(t, registry.BreakerOpen, genuine.Breaker().State)
		undo = swap(t, reg, "T", "real", says("fake"))
		pass(time.Minute + time.Second)
		undo()
		require.Equal(t, registry.BreakerHalfOpen, genuine.Breaker().State, "its time went on")
	})
}

func TestCallsInFlightStayWhereTheyAreWhenSomethingIsSwapped(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		genuine := add(t, reg, provider{Name: "real"})
		r := bind(reg)
		lease, err := r.Acquire(t.Context())
		require.NoError(t, err)
		undo := swap(t, reg, "T", "real", says("fake"))
		inFake, err := r.Acquire(t.Context())
		require.NoError(t, err)
		answer, err := inFake.Value.Chat(t.Context(), "?")
		require.NoError(t, err)
		require.Equal(t, "fake", answer)
		lease.Done(errDown)

		ended := make(chan struct{})
		go func() {
			defer close(ended)
			undo()
		}()
		pass(time.Second)
		select {
		case <-ended:
			t.Fatal("the stand-in has a call in flight")
		default:
		}
		require.Equal(t, "real", asked(t, r), "new calls go to the real one at once")
		inFake.Done(nil)
		<-ended
		requireCounts(t, genuine, 1, 1, 0, 0)
	})
}

func TestStandInsMayBeSwappedInTurnAndTakenOutInAnyOrder(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		add(t, reg, provider{Name: "p"})
		r := bind(reg)
		one := swap(t, reg, "T", "p", says("one"))
		two := swap(t, reg, "T/sub", "p", says("two"))
		require.Equal(t, "two", asked(t, r))
		two()
		require.Equal(t, "one", asked(t, r))
		two = swap(t, reg, "T/sub", "p", says("two"))
		one()
		require.Equal(t, "two", asked(t, r))
		two()
		require.Equal(t, "p", asked(t, r))
	})
}

func TestOthersMayNotPutSomethingInThePlaceOfProvidersAtTheSameTime(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		add(t, reg, provider{Name: "p"})
		undo := swap(t, reg, "TestA", "p", says("fake"))
		for _, other := range []string{"TestB", "TestA2", "Test"} {
			_, err := chat.Swap(reg, other, "p", says("x"))
			require.ErrorIs(t, err, registry.ErrConflict)
			require.ErrorContains(t, err, `"TestA"`)
			require.ErrorContains(t, err, `provider "p"`)
			requireOneLine(t, err)
			_, err = chat.Override(reg, other)
			require.ErrorIs(t, err, registry.ErrConflict)
		}
		undo()
		swap(t, reg, "TestB", "p", says("fake"))()
	})
}

func TestSwapsInWrongUseAreRefusedAndChangeNothing(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		add(t, reg, provider{Name: "p"})
		_, err := chat.Swap(reg, "T", "q", says("x"))
		require.ErrorIs(t, err, registry.ErrNotRegistered)
		require.ErrorContains(t, err, `"p"`, "who there is")
		_, err = registry.NewService[int]("n").Swap(reg, "T", "p", 1)
		require.ErrorIs(t, err, registry.ErrNotRegistered)
		require.ErrorContains(t, err, "none")
		_, err = chat.Swap(reg, "", "p", says("x"))
		require.ErrorIs(t, err, registry.ErrInvalid)
		_, err = chat.Swap(reg, "T", "p", nil)
		require.ErrorIs(t, err, registry.ErrInvalid)
		_, err = chat.Swap(nil, "T", "p", says("x"))
		require.ErrorIs(t, err, registry.ErrInvalid)
		_, err = registry.NewService[int]("chat").Swap(reg, "T", "p", 1)
		require.ErrorIs(t, err, registry.ErrConflict)
		_, err = chat.Override(reg, "T", provider{Name: "new"}, provider{Name: "p", Instance: says("x")})
		require.ErrorIs(t, err, registry.ErrInvalid)
		_, err = chat.Override(reg, "T", provider{Name: "new", Instance: says("x")}, provider{Name: "p", Instance: says("x")})
		require.ErrorIs(t, err, registry.ErrExists)
		_, err = chat.Override(reg, "T", provider{Name: "p", Instance: says("x"), Replace: true})
		require.ErrorIs(t, err, registry.ErrInvalid)
		require.Equal(t, "p", asked(t, bind(reg)))
		require.Equal(t, []string{"p"}, candidatesOf(bind(reg)))
		undo, err := chat.Swap(reg, "T", "p", says("fake"))
		require.NoError(t, err, "nobody holds the registry")
		require.ErrorIs(t, undo(nil), registry.ErrInvalid)
		_, err = chat.Register(t.Context(), reg, provider{Name: "p", Instance: says("x"), Replace: true})
		require.ErrorIs(t, err, registry.ErrConflict, "the stand-in would be gone unnoticed")
		require.NoError(t, undo(t.Context()))
		for n := range 20 {
			add(t, reg, provider{Name: fmt.Sprintf("one of many %d", n)})
		}
		_, err = chat.Swap(reg, "T", "q", says("x"))
		require.ErrorContains(t, err, "5 more")
		_, err = chat.Override(nil, "T")
		require.ErrorIs(t, err, registry.ErrInvalid)
		_, err = registry.NewService[int]("").Swap(reg, "T", "p", 1)
		require.ErrorIs(t, err, registry.ErrInvalid)
		undo, err = chat.Override(reg, "T")
		require.NoError(t, err)
		require.ErrorIs(t, undo(nil), registry.ErrInvalid)
		_, err = new(registry.Registry).Observe(func(context.Context, registry.CallReport) {})
		require.ErrorIs(t, err, registry.ErrInvalid)
		require.NoError(t, reg.Close(t.Context()))
		_, err = chat.Override(reg, "T")
		require.ErrorIs(t, err, registry.ErrClosed)
		_, err = chat.Swap(reg, "T", "p", says("x"))
		require.ErrorIs(t, err, registry.ErrNotRegistered, "everybody has left")
	})
}

func TestAProviderThatLeavesTakesItsStandInsWithIt(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		until, leave := context.WithCancel(t.Context())
		registration := add(t, reg, provider{Name: "p", Domain: "key", Until: until})
		one := swap(t, reg, "T", "p", says("one"))
		undo := swap(t, reg, "T", "p", says("two"))
		found, ok := reg.Provider("p")
		require.True(t, ok)
		require.NoError(t, found.Unregister(t.Context()))
		<-registration.Left()
		_, err := ask(t.Context(), bind(reg))
		require.ErrorIs(t, err, registry.ErrUnknownService)
		require.ErrorIs(t, registration.Reset(), registry.ErrNotRegistered)
		_, err = chat.Register(t.Context(), reg, provider{Name: "p", Instance: says("anew")})
		require.ErrorIs(t, err, registry.ErrConflict, "its test would speak to it unknowingly")
		require.ErrorContains(t, err, `"T" has`)
		undo()
		one()
		add(t, reg, provider{Name: "p", Until: until})
		undo = swap(t, reg, "T", "p", says("fake"))
		leave()
		pass(0)
		require.Zero(t, reg.Stats().Providers)
		undo()
	})
}

func TestAProviderThatLeavesBeneathAStandInDrains(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		registration := add(t, reg, provider{Name: "p"})
		lease, err := bind(reg).Acquire(t.Context())
		require.NoError(t, err)
		undo := swap(t, reg, "T", "p", says("fake"))
		s := reg.Subscribe(0)
		ended := make(chan error, 1)
		go func() { ended <- registration.Unregister(t.Context()) }()
		pass(time.Second)
		require.Empty(t, ended, "the call on the real one goes on")
		require.Equal(t, []event.Kind{event.Draining, event.Draining, event.Drained}, kinds(t, s))
		lease.Done(nil)
		pass(0)
		require.NoError(t, <-ended)
		require.Equal(t, []event.Kind{event.Drained}, kinds(t, s))
		undo()
	})
}

func TestARegistryClosesWithSomethingInThePlaceOfProviders(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		add(t, reg, provider{Name: "p"})
		add(t, reg, provider{Name: "q", Domain: "key"})
		one := swap(t, reg, "T", "p", says("one"))
		two := swap(t, reg, "T", "q", says("two"))
		over, err := chat.Override(reg, "T", provider{Name: "fake", Instance: says("x")})
		require.NoError(t, err)
		require.NoError(t, reg.Close(t.Context()))
		require.NoError(t, over(t.Context()))
		one()
		two()
	})
}

type checkerModel struct {
	chatModel

	ill atomic.Bool
}

func (c *checkerModel) CheckHealth(context.Context) error {
	if c.ill.Load() {
		return errDown
	}
	return nil
}

func TestProbesOfTheRealOneDoNotSpeakForItsStandIn(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		genuine := add(t, reg, provider{Name: "p", Health: health.Policy{
			Probe: func(context.Context) error { return errDown }, Fall: 1, Interval: time.Second,
		}})
		pass(time.Second)
		require.Equal(t, health.Unhealthy, genuine.Health().State)
		undo := swap(t, reg, "T", "p", says("fake"))
		require.Equal(t, "fake", asked(t, bind(reg)))
		undo()
		fake := &checkerModel{chatModel: says("fake")}
		undo = swap(t, reg, "T", "p", fake)
		pass(time.Second)
		require.Equal(t, health.Healthy, genuine.Health().State)
		fake.ill.Store(true)
		pass(2500 * time.Millisecond)
		require.Equal(t, health.Unhealthy, genuine.Health().State, "one failure is enough, as for the real one")
		undo()
		require.Equal(t, health.Unhealthy, genuine.Health().State)
	})
}

func TestTurnsGoOnThroughASwap(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		for _, name := range []string{"a", "b", "c"} {
			add(t, reg, provider{Name: name, Strategy: registry.StrategyRoundRobin})
		}
		r := bind(reg)
		require.Equal(t, "a", asked(t, r))
		undo := swap(t, reg, "T", "b", says("fake b"))
		require.Equal(t, "fake b", asked(t, r))
		require.Equal(t, "c", asked(t, r))
		require.Equal(t, "a", asked(t, r))
		undo()
		require.Equal(t, "b", asked(t, r))
	})
}

func TestAnOverrideHidesWhatIsThereAndWhatComes(t *testing.T) {
	t.Parallel()
	for name, options := range map[string]registry.Options{
		"default": {}, "forbid": {ForbidMocks: true},
		"admit": {Admit: func(_ context.Context, d registry.Definition) error {
			if d.Name == "fake" {
				return errDown
			}
			return nil
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bubble(t, options, func(t *testing.T, reg *registry.Registry) {
				genuine := add(t, reg, provider{Name: "real", Capabilities: []string{"tools"}})
				add(t, reg, provider{Name: "own", Handler: "h", Capabilities: []string{"vision"}})
				tools := bind(reg, "tools")
				own := chat.Bind(reg, registry.Query{Handler: "h", OwnOnly: true, Require: []string{"vision"}})
				require.Equal(t, "own", asked(t, own))
				undo, err := chat.Override(reg, "T", provider{Name: "fake", Instance: says("fake")})
				require.NoError(t, err)
				later := add(t, reg, provider{Name: "later", Capabilities: []string{"tools"}, Priority: registry.PriorityCritical})
				demanding := chat.Bind(reg, registry.Query{Where: selection.Requirements{MinVersion: "v7", Tags: []string{"eu"}, Regions: []string{"eu"}}})
				for _, r := range []*registry.Resolver[chatModel]{tools, own, bind(reg, "anything"), demanding} {
					require.Equal(t, "fake", asked(t, r))
					require.Equal(t, "fake", got(t, r))
				}
				info := genuine.Info()
				require.False(t, info.Eligible)
				require.Equal(t, `overridden by "T"`, info.Reason)
				require.Equal(t, health.Healthy, reg.Health().State, "those that are hidden are not asked how they are")
				require.NoError(t, undo(t.Context()))
				require.NoError(t, undo(t.Context()))
				require.Equal(t, "later", asked(t, tools))
				require.True(t, later.Info().Eligible)
				require.True(t, genuine.Info().Eligible)
				require.Equal(t, "own", asked(t, own))
				require.Equal(t, 3, reg.Stats().Providers)
			})
		})
	}
}

func TestAnOverrideHasGroupsAndDomainsOfItsOwn(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		limits := registry.LimitPolicy{MaxConcurrent: 3}
		a := add(t, reg, provider{Name: "a", Strategy: registry.StrategyRoundRobin, Domain: "key", Limits: limits})
		r := bind(reg)
		override := func(providers ...provider) (undo func()) {
			end, err := chat.Override(reg, "T", providers...)
			require.NoError(t, err)
			return func() { require.NoError(t, end(context.Background())) }
		}
		undo := override(provider{Instance: says("one")}, provider{Instance: says("two")})
		for range 3 {
			require.Equal(t, "one", asked(t, r), "the turns are those of the others")
		}
		undoInner := override(
			provider{Name: "x", Instance: says("x"), Strategy: selection.New("LAST", selection.Func(func(v selection.View) int { return v.Len() - 1 }))},
			provider{Name: "y", Instance: says("y")},
		)
		require.Equal(t, "y", asked(t, r))
		add(t, reg, provider{Name: "b", Strategy: registry.StrategyRoundRobin})
		undo()
		require.Equal(t, "y", asked(t, r))
		undoInner()
		require.Equal(t, []string{"a", "b", "a"}, []string{asked(t, r), asked(t, r), asked(t, r)})

		undo = override(provider{
			Name: "z", Domain: "key", Limits: registry.LimitPolicy{MaxConcurrent: 1}, Instance: fails(verdict.RateLimited(errDown, time.Hour)),
		})
		_, err := ask(t.Context(), r)
		require.ErrorIs(t, err, errDown)
		z, ok := reg.Provider("z")
		require.True(t, ok)
		require.Equal(t, "key", z.Definition().Domain)
		undo()
		require.True(t, a.Info().Eligible, "the key of the real ones was never used")
	})
}

func TestAnOverrideBeforeTheOthersKeepsNoneOut(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		end, err := chat.Override(reg, "T", provider{Name: "fake", Domain: "key", Limits: registry.LimitPolicy{MaxConcurrent: 1}})
		require.ErrorIs(t, err, registry.ErrInvalid)
		require.Nil(t, end)
		end, err = chat.Override(reg, "T", provider{
			Name: "fake", Instance: says("fake"), Domain: "key", Limits: registry.LimitPolicy{MaxConcurrent: 1},
		})
		require.NoError(t, err)
		add(t, reg, provider{Name: "a", Strategy: registry.StrategyRoundRobin, Domain: "key", Limits: registry.LimitPolicy{MaxConcurrent: 3}})
		require.Equal(t, "fake", asked(t, bind(reg)))
		require.NoError(t, end(t.Context()))
		require.Equal(t, "a", asked(t, bind(reg)))
	})
}

func TestAnOverrideByNobodyIsAnOutageOfTheService(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		add(t, reg, provider{Name: "real", LastResort: true})
		undo, err := chat.Override(reg, "T")
		require.NoError(t, err)
		_, err = ask(t.Context(), bind(reg))
		require.ErrorIs(t, err, registry.ErrUnavailable)
		require.ErrorContains(t, err, `overridden by "T"`)
		e := bind(reg).Explain()
		require.Equal(t, "overridden", e.Candidates[0].Code)
		require.NoError(t, undo(t.Context()))
		require.Equal(t, "real", asked(t, bind(reg)))
	})
}

func TestOverridesMayBeOverriddenAndSwapped(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		add(t, reg, provider{Name: "real"})
		r := bind(reg)
		outer, err := chat.Override(reg, "T", provider{Name: "outer", Instance: says("outer")})
		require.NoError(t, err)
		undoReal := swap(t, reg, "T", "real", says("hidden"))
		require.Equal(t, "outer", asked(t, r), "a stand-in is where its provider is")
		undoOuter := swap(t, reg, "T/sub", "outer", says("swapped"))
		require.Equal(t, "swapped", asked(t, r))
		inner, err := chat.Override(reg, "T/sub", provider{Name: "inner", Instance: says("inner")})
		require.NoError(t, err)
		require.Equal(t, "inner", asked(t, r))
		require.NoError(t, outer(t.Context()))
		require.Equal(t, "inner", asked(t, r))
		require.NoError(t, inner(t.Context()))
		require.Equal(t, "hidden", asked(t, r))
		undoOuter()
		undoReal()
		require.Equal(t, "real", asked(t, r))
	})
}

func TestAStandInIsChosenAsItsProviderWouldBeAndMeasuredByItself(t *testing.T) {
	t.Parallel()
	least := selection.New("LEAST_ASKED", selection.Func(func(v selection.View) int {
		best := v.Next(0)
		for i := best; i >= 0; i = v.Next(i + 1) {
			if v.At(i).Latency() < v.At(best).Latency() {
				best = i
			}
		}
		return best
	}))
	bubble(t, registry.Options{Selection: selection.Policy{LeastBad: true}}, func(t *testing.T, reg *registry.Registry) {
		slow := func(name string) chatModel {
			return answers(func() (string, error) { time.Sleep(time.Second); return name, nil })
		}
		add(t, reg, provider{Name: "a", Strategy: least, Instance: slow("a")})
		add(t, reg, provider{Name: "b", Instance: slow("b")})
		r := bind(reg)
		require.Equal(t, "a", asked(t, r))
		require.Equal(t, "b", asked(t, r), "a has taken a second")
		undo := swap(t, reg, "T", "a", says("fake"))
		require.Equal(t, "fake", asked(t, r), "nobody has measured it yet")
		require.Equal(t, "fake", asked(t, r))
		undo()
		require.Equal(t, "a", asked(t, r), "it was measured first")
		over, err := chat.Override(reg, "T")
		require.NoError(t, err)
		_, err = ask(t.Context(), r)
		require.ErrorIs(t, err, registry.ErrUnavailable, "not even the least bad")
		require.NoError(t, over(t.Context()))
	})
}

func TestAStandInIsPickedWhereOnlyMocksAre(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{OnlyMocks: true}, func(t *testing.T, reg *registry.Registry) {
		add(t, reg, provider{Name: "real"})
		undo := swap(t, reg, "T", "real", says("fake"))
		require.Equal(t, "fake", asked(t, bind(reg)))
		undo()
		_, err := ask(t.Context(), bind(reg))
		require.ErrorContains(t, err, "only mocks")
	})
}

func TestASwapIsToldToSubscribers(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		add(t, reg, provider{Name: "real"})
		s := reg.Subscribe(0)
		swap(t, reg, "T", "real", says("fake"))()
		require.Equal(t, []event.Kind{
			event.Changed, event.Registered, event.Draining, event.Changed, event.Drained,
		}, kinds(t, s))
		undo, err := chat.Override(reg, "T")
		require.NoError(t, err)
		require.NoError(t, undo(t.Context()))
		begun, err := s.Next(t.Context())
		require.NoError(t, err)
		ended, err := s.Next(t.Context())
		require.NoError(t, err)
		require.Equal(t, []string{"override", "", "T", "T", ""}, []string{begun.Reason, begun.From, begun.To, ended.From, ended.To})
	})
}

func TestSwapsAreSafeWhileCallsGoOn(t *testing.T) {
	t.Parallel()
	reg := newRegistry(t, registry.Options{})
	for _, name := range []string{"a", "b"} {
		add(t, reg, provider{Name: name, Domain: "key", Strategy: registry.StrategyRoundRobin})
	}
	r := bind(reg)
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
				if _, err := ask(context.Background(), r); err != nil && !errors.Is(err, registry.ErrUnavailable) {
					t.Error(err)
				}
				for range reg.All() {
				}
			}
		})
	}
	for range 100 {
		undo := swap(t, reg, "T", "a", says("fake"))
		over, err := chat.Override(reg, "T", provider{Name: "fake", Instance: says("x")})
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

// place is a provider as a naive list has it: who acts is the last.
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

func TestRandomSwapsAndOverridesAgreeWithANaiveList(t *testing.T) {
	t.Parallel()
	const seeds, steps = 60, 80
	for seed := range uint64(seeds) {
		bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
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
			r := bind(reg)
			for range steps {
				switch random.IntN(7) {
				case 0: // a name of its own
					name := fresh("p")
					add(t, reg, provider{Name: name})
					base.places = append(base.places, &place{name, []string{name}})
				case 1: // a name that was there before
					if len(swaps) == 0 {
						continue
					}
					name := swaps[random.IntN(len(swaps))].at.name
					_, err := chat.Register(t.Context(), reg, provider{Name: name, Instance: says("anew")})
					require.Error(t, err)
				case 2:
					all := present()
					if len(all) == 0 {
						continue
					}
					at, answer := all[random.IntN(len(all))], fresh("s")
					at.acting = append(at.acting, answer)
					swaps = append(swaps, &swapped{at, answer, swap(t, reg, "T", at.name, says(answer))})
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
					var fakes []provider
					for range random.IntN(3) {
						name := fresh("f")
						fakes = append(fakes, provider{Name: name, Instance: says(name)})
						over.places = append(over.places, &place{name, []string{name}})
					}
					var err error
					over.undo, err = chat.Override(reg, "T", fakes...)
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
					handle, ok := reg.Provider(gone.name)
					require.True(t, ok)
					require.NoError(t, handle.Unregister(t.Context()))
					if !isSwapped(gone.name) && random.IntN(2) == 0 {
						add(t, reg, provider{Name: gone.name})
						base.places = append(base.places, &place{gone.name, []string{gone.name}})
					}
				}
				var want, have []string
				for _, p := range stages[len(stages)-1].places {
					want = append(want, p.acting[len(p.acting)-1])
				}
				models, err := r.Many(t.Context(), 1000)
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

func TestAHandleNeverSpeaksOfOneThatDoesNotAct(t *testing.T) {
	t.Parallel()
	reg := newRegistry(t, registry.Options{})
	handle := add(t, reg, provider{Name: "p"})
	for range 20 {
		var beneath []func()
		for range 100 { // a long way to look
			beneath = append(beneath, swap(t, reg, "T", "p", says("beneath")))
		}
		top := swap(t, reg, "T", "p", says("top"))
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

func TestObserversAreToldOfEveryCallThatBeginsAfterThem(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		add(t, reg, provider{Name: "bad", Instance: fails(errDown)})
		add(t, reg, provider{Name: "good", Group: 1})
		r := bind(reg)
		asked(t, r)
		var seen []registry.CallReport
		stop, err := reg.Observe(func(_ context.Context, report registry.CallReport) { seen = append(seen, report) })
		require.NoError(t, err)
		broken, err := reg.Observe(func(context.Context, registry.CallReport) { panic("not the caller's") })
		require.NoError(t, err)
		asked(t, r)
		lease, err := r.Acquire(t.Context())
		require.NoError(t, err)
		lease.Done(nil)
		require.Len(t, seen, 2)
		require.Len(t, seen[0].Attempts, 2)
		require.Equal(t, "good", seen[0].Attempts[1].Provider)
		stop()
		stop()
		asked(t, r)
		require.Len(t, seen, 2)
		broken()
		_, err = reg.Observe(nil)
		require.ErrorIs(t, err, registry.ErrInvalid)
	})
}

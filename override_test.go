package registry_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/event"
	"github.com/capreg/registry/health"
	"github.com/capreg/registry/internal/testkit"
	"github.com/capreg/registry/selection"
	"github.com/capreg/registry/status"
	"github.com/capreg/registry/verdict"
)

// swap replaces a provider for the test and returns a function that ends the swap.
func swap(tb testing.TB, reg *registry.Registry, by, name string, m testkit.ChatModel) (undo func()) {
	tb.Helper()
	end, err := testkit.Chat.Testing(reg).Swap(by, name, m)
	require.NoError(tb, err)
	return func() { require.NoError(tb, end(context.Background())) }
}

// candidatesOf returns the names of the candidates, in the order of the plan.
func candidatesOf(r *registry.Resolver[testkit.ChatModel]) (names []string) {
	for _, c := range r.Explain().Candidates {
		names = append(names, c.Provider)
	}
	return names
}

func TestSwap_TakesPositionOfProvider(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{ForbidMocks: true}, func(t *testing.T, reg *registry.Registry) {
		first := testkit.Add(t, reg, testkit.Provider{
			Name: "first", Capabilities: []string{"tools"}, Priority: registry.PriorityHigh, AttemptTimeout: 7 * time.Second,
			Breaker: registry.BreakerPolicy{FailureThreshold: 2}, Limits: registry.LimitPolicy{MaxConcurrent: 3},
			Metadata: map[string]string{"model": "m"},
		})
		testkit.Add(t, reg, testkit.Provider{Name: "second", Capabilities: []string{"tools"}, Priority: registry.PriorityHigh})
		r := testkit.Bind(reg, "tools") // before
		before := first.Info()
		require.Equal(t, "first", testkit.MustAsk(t, r))

		undo := swap(t, reg, "T", "first", testkit.Says("fake"))
		require.Equal(t, "fake", testkit.MustAsk(t, r))
		require.Equal(t, "fake", testkit.MustGet(t, r))
		require.Equal(t, []string{"first", "second"}, candidatesOf(r))
		now := first.Info()
		require.True(t, now.Mock)
		require.Greater(t, now.Generation, before.Generation)
		require.Equal(t, before.AttemptTimeout, now.AttemptTimeout)
		require.Equal(t, before.Breaker.Policy, now.Breaker.Policy)
		require.Equal(t, before.Metadata, now.Metadata)
		require.Len(t, testkit.Discovered(t, reg, "tools"), 2)
		require.Equal(t, 2, reg.Stats().Providers)

		undo()
		undo()
		require.Equal(t, "first", testkit.MustAsk(t, r))
		after := first.Info()
		require.Equal(t, before.Generation, after.Generation)
		require.Equal(t, before.Attempts+2, after.Attempts, "one before the swap and one after it")
		require.False(t, after.Mock)
		require.Equal(t, []string{"first", "second"}, candidatesOf(r))
	})
}

func TestSwap_ProviderThatIsRemovedMeanwhileLeavesItsDomain(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a := testkit.Add(t, reg, testkit.Provider{Name: "a", Domain: "key"})
		b := testkit.Add(t, reg, testkit.Provider{Name: "b", Domain: "key"})
		swap(t, reg, "T", "a", testkit.Says("fake"))
		require.Equal(t, 2, b.Info().Shared.Members)
		require.NoError(t, a.Unregister(t.Context()))
		require.Equal(t, 1, b.Info().Shared.Members)
	})
}

func TestSwap_StateEndsWithIt(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a := testkit.Add(t, reg, testkit.Provider{Name: "a", Domain: "key", Breaker: registry.BreakerPolicy{FailureThreshold: 1}})
		b := testkit.Add(t, reg, testkit.Provider{Name: "b", Domain: "key", Group: 1})
		r := testkit.Bind(reg)
		undo := swap(t, reg, "T", "a", testkit.Fails(testkit.ErrDown))
		require.Equal(t, "b", testkit.MustAsk(t, r))
		require.Equal(t, status.BreakerOpen, a.Breaker().State, "the handle shows the swap")
		undo()
		require.Equal(t, status.BreakerClosed, a.Breaker().State)
		require.Equal(t, "a", testkit.MustAsk(t, r))

		undo = swap(t, reg, "T", "a", testkit.Fails(verdict.RateLimited(testkit.ErrDown, time.Hour)))
		require.Equal(t, "b", testkit.MustAsk(t, r), "swaps have a domain of their own")
		require.False(t, a.Info().Eligible)
		require.True(t, b.Info().Eligible)
		_, err := a.SetPriority(registry.PriorityLow)
		require.NoError(t, err)
		_, err = a.SetGroup(4)
		require.NoError(t, err)
		require.NoError(t, a.MarkUnhealthy(testkit.ErrDown))
		undo()
		undo = swap(t, reg, "T", "a", testkit.Says("again"))
		require.Equal(t, "again", testkit.MustAsk(t, r), "the cooldown of a swap is not the next one's")
		require.Equal(t, 1, a.Info().Shared.Members)
		undo()
		require.True(t, a.Info().Eligible)
		require.Equal(t, registry.PriorityNormal, a.Definition().Priority)
		require.Zero(t, a.Definition().Group)
		require.Equal(t, "a", testkit.MustAsk(t, r))
	})
}

func TestSwap_FakesOfOneDomainCoolDownTogether(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		testkit.Add(t, reg, testkit.Provider{Name: "a", Domain: "key"})
		b := testkit.Add(t, reg, testkit.Provider{Name: "b", Domain: "key"})
		c := testkit.Add(t, reg, testkit.Provider{Name: "c", Domain: "key"})
		undoA := swap(t, reg, "T", "a", testkit.Fails(verdict.RateLimited(testkit.ErrDown, time.Hour)))
		undoB := swap(t, reg, "T", "b", testkit.Says("fake b"))
		require.Equal(t, "c", testkit.MustAsk(t, testkit.Bind(reg)))
		require.False(t, b.Info().Eligible)
		require.True(t, c.Info().Eligible)
		undoA()
		undoB()
		require.Equal(t, "a", testkit.MustAsk(t, testkit.Bind(reg)))
	})
}

func TestSwap_NestedSwapHasSameDomain(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		testkit.Add(t, reg, testkit.Provider{Name: "a", Domain: "key"})
		b := testkit.Add(t, reg, testkit.Provider{Name: "b", Domain: "key"})
		testkit.Add(t, reg, testkit.Provider{Name: "c"})
		undoB := swap(t, reg, "T", "b", testkit.Says("fake b"))
		undoOuter := swap(t, reg, "T", "a", testkit.Says("outer"))
		undoInner := swap(t, reg, "T/inner", "a", testkit.Fails(verdict.RateLimited(testkit.ErrDown, time.Hour)))
		require.Equal(t, "c", testkit.MustAsk(t, testkit.Bind(reg)))
		require.False(t, b.Info().Eligible)
		require.Equal(t, "key", b.Definition().Domain)
		undoInner()
		undoOuter()
		undoB()
		require.Equal(t, "a", testkit.MustAsk(t, testkit.Bind(reg)))
	})
}

func TestSwap_OriginalStateContinues(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		genuine := testkit.Add(t, reg, testkit.Provider{Name: "real", Instance: testkit.Fails(testkit.ErrDown)})
		r := testkit.Bind(reg)
		testkit.Trip(t, r, genuine)
		undo := swap(t, reg, "T", "real", testkit.Says("fake"))
		require.Equal(t, "fake", testkit.MustAsk(t, r))
		undo()
		require.Equal(t, status.BreakerOpen, genuine.Breaker().State)
		undo = swap(t, reg, "T", "real", testkit.Says("fake"))
		testkit.Pass(time.Minute + time.Second)
		undo()
		require.Equal(t, status.BreakerHalfOpen, genuine.Breaker().State, "its time went on")
	})
}

func TestSwap_CallsInFlightStay(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		genuine := testkit.Add(t, reg, testkit.Provider{Name: "real"})
		r := testkit.Bind(reg)
		lease, err := r.Acquire(t.Context())
		require.NoError(t, err)
		undo := swap(t, reg, "T", "real", testkit.Says("fake"))
		inFake, err := r.Acquire(t.Context())
		require.NoError(t, err)
		answer, err := inFake.Value.Chat(t.Context(), "?")
		require.NoError(t, err)
		require.Equal(t, "fake", answer)
		lease.Done(testkit.ErrDown)

		ended := make(chan struct{})
		go func() {
			defer close(ended)
			undo()
		}()
		testkit.Pass(time.Second)
		select {
		case <-ended:
			t.Fatal("the swap has a call in flight")
		default:
		}
		require.Equal(t, "real", testkit.MustAsk(t, r), "new calls go to the real one at once")
		inFake.Done(nil)
		<-ended
		testkit.RequireCounts(t, genuine, 1, 1, 0, 0)
	})
}

func TestSwap_NestsAndEndsInAnyOrder(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		testkit.Add(t, reg, testkit.Provider{Name: "p"})
		r := testkit.Bind(reg)
		one := swap(t, reg, "T", "p", testkit.Says("one"))
		two := swap(t, reg, "T/sub", "p", testkit.Says("two"))
		require.Equal(t, "two", testkit.MustAsk(t, r))
		two()
		require.Equal(t, "one", testkit.MustAsk(t, r))
		two = swap(t, reg, "T/sub", "p", testkit.Says("two"))
		one()
		require.Equal(t, "two", testkit.MustAsk(t, r))
		two()
		require.Equal(t, "p", testkit.MustAsk(t, r))
	})
}

func TestSwap_SecondOwnerIsRefused(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		testkit.Add(t, reg, testkit.Provider{Name: "p"})
		undo := swap(t, reg, "TestA", "p", testkit.Says("fake"))
		for _, other := range []string{"TestB", "TestA2", "Test"} {
			_, err := testkit.Chat.Testing(reg).Swap(other, "p", testkit.Says("x"))
			require.ErrorIs(t, err, registry.ErrConflict)
			require.ErrorContains(t, err, `"TestA"`)
			require.ErrorContains(t, err, `provider "p"`)
			testkit.RequireOneLine(t, err)
			_, err = testkit.Chat.Testing(reg).Override(other)
			require.ErrorIs(t, err, registry.ErrConflict)
		}
		undo()
		swap(t, reg, "TestB", "p", testkit.Says("fake"))()
	})
}

func TestSwap_WrongUseIsRefused(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		testkit.Add(t, reg, testkit.Provider{Name: "p"})
		_, err := testkit.Chat.Testing(reg).Swap("T", "q", testkit.Says("x"))
		require.ErrorIs(t, err, registry.ErrNotRegistered)
		require.ErrorContains(t, err, `"p"`, "the registered names")
		_, err = registry.NewService[int]("n").Testing(reg).Swap("T", "p", 1)
		require.ErrorIs(t, err, registry.ErrNotRegistered)
		require.ErrorContains(t, err, "none")
		_, err = testkit.Chat.Testing(reg).Swap("", "p", testkit.Says("x"))
		require.ErrorIs(t, err, registry.ErrInvalid)
		_, err = testkit.Chat.Testing(reg).Swap("T", "p", nil)
		require.ErrorIs(t, err, registry.ErrInvalid)
		_, err = testkit.Chat.Testing(nil).Swap("T", "p", testkit.Says("x"))
		require.ErrorIs(t, err, registry.ErrInvalid)
		_, err = registry.NewService[int]("chat").Testing(reg).Swap("T", "p", 1)
		require.ErrorIs(t, err, registry.ErrConflict)
		_, err = testkit.Chat.Testing(reg).Override("T", testkit.Provider{Name: "new"}, testkit.Provider{Name: "p", Instance: testkit.Says("x")})
		require.ErrorIs(t, err, registry.ErrInvalid)
		_, err = testkit.Chat.Testing(reg).Override("T", testkit.Provider{Name: "new", Instance: testkit.Says("x")}, testkit.Provider{Name: "p", Instance: testkit.Says("x")})
		require.ErrorIs(t, err, registry.ErrExists)
		_, err = testkit.Chat.Testing(reg).Override("T", testkit.Provider{Name: "p", Instance: testkit.Says("x"), Replace: true})
		require.ErrorIs(t, err, registry.ErrInvalid)
		require.Equal(t, "p", testkit.MustAsk(t, testkit.Bind(reg)))
		require.Equal(t, []string{"p"}, candidatesOf(testkit.Bind(reg)))
		undo, err := testkit.Chat.Testing(reg).Swap("T", "p", testkit.Says("fake"))
		require.NoError(t, err, "no override is in force")
		require.ErrorIs(t, undo(nil), registry.ErrInvalid)
		_, err = testkit.Chat.Register(t.Context(), reg, testkit.Provider{Name: "p", Instance: testkit.Says("x"), Replace: true})
		require.ErrorIs(t, err, registry.ErrConflict, "the swap would be lost unnoticed")
		require.NoError(t, undo(t.Context()))
		for n := range 20 {
			testkit.Add(t, reg, testkit.Provider{Name: fmt.Sprintf("one of many %d", n)})
		}
		_, err = testkit.Chat.Testing(reg).Swap("T", "q", testkit.Says("x"))
		require.ErrorContains(t, err, "5 more")
		_, err = testkit.Chat.Testing(nil).Override("T")
		require.ErrorIs(t, err, registry.ErrInvalid)
		_, err = registry.NewService[int]("").Testing(reg).Swap("T", "p", 1)
		require.ErrorIs(t, err, registry.ErrInvalid)
		undo, err = testkit.Chat.Testing(reg).Override("T")
		require.NoError(t, err)
		require.ErrorIs(t, undo(nil), registry.ErrInvalid)
		require.NoError(t, reg.Close(t.Context()))
		_, err = testkit.Chat.Testing(reg).Override("T")
		require.ErrorIs(t, err, registry.ErrClosed)
		_, err = testkit.Chat.Testing(reg).Swap("T", "p", testkit.Says("x"))
		require.ErrorIs(t, err, registry.ErrNotRegistered, "no provider is left")
	})
}

func TestSwap_EndsWhenProviderLeaves(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		until, leave := context.WithCancel(t.Context())
		registration := testkit.Add(t, reg, testkit.Provider{Name: "p", Domain: "key", Until: until})
		one := swap(t, reg, "T", "p", testkit.Says("one"))
		undo := swap(t, reg, "T", "p", testkit.Says("two"))
		found, ok := reg.Provider("chat", "p")
		require.True(t, ok)
		require.NoError(t, found.Unregister(t.Context()))
		<-registration.Left()
		_, err := testkit.Ask(t.Context(), testkit.Bind(reg))
		require.ErrorIs(t, err, registry.ErrUnknownService)
		require.ErrorIs(t, registration.Reset(), registry.ErrNotRegistered)
		_, err = testkit.Chat.Register(t.Context(), reg, testkit.Provider{Name: "p", Instance: testkit.Says("anew")})
		require.ErrorIs(t, err, registry.ErrConflict, "its test would speak to it unknowingly")
		require.ErrorContains(t, err, `"T" has`)
		undo()
		one()
		testkit.Add(t, reg, testkit.Provider{Name: "p", Until: until})
		undo = swap(t, reg, "T", "p", testkit.Says("fake"))
		leave()
		testkit.Pass(0)
		require.Zero(t, reg.Stats().Providers)
		undo()
	})
}

func TestSwap_OriginalDrainsWhenUnregistered(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		registration := testkit.Add(t, reg, testkit.Provider{Name: "p"})
		lease, err := testkit.Bind(reg).Acquire(t.Context())
		require.NoError(t, err)
		undo := swap(t, reg, "T", "p", testkit.Says("fake"))
		s := reg.Subscribe(0)
		ended := make(chan error, 1)
		go func() { ended <- registration.Unregister(t.Context()) }()
		testkit.Pass(time.Second)
		require.Empty(t, ended, "the call on the real one goes on")
		require.Equal(t, []event.Kind{event.Draining, event.Draining, event.Drained}, testkit.Kinds(t, s))
		lease.Done(nil)
		testkit.Pass(0)
		require.NoError(t, <-ended)
		require.Equal(t, []event.Kind{event.Drained}, testkit.Kinds(t, s))
		undo()
	})
}

func TestSwap_RegistryClosesWithSwapsInForce(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		testkit.Add(t, reg, testkit.Provider{Name: "p"})
		testkit.Add(t, reg, testkit.Provider{Name: "q", Domain: "key"})
		one := swap(t, reg, "T", "p", testkit.Says("one"))
		two := swap(t, reg, "T", "q", testkit.Says("two"))
		over, err := testkit.Chat.Testing(reg).Override("T", testkit.Provider{Name: "fake", Instance: testkit.Says("x")})
		require.NoError(t, err)
		require.NoError(t, reg.Close(t.Context()))
		require.NoError(t, over(t.Context()))
		one()
		two()
	})
}

type checkerModel struct {
	testkit.ChatModel

	ill atomic.Bool
}

func (c *checkerModel) CheckHealth(context.Context) error {
	if c.ill.Load() {
		return testkit.ErrDown
	}
	return nil
}

func TestSwap_OriginalProbesDoNotApply(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		genuine := testkit.Add(t, reg, testkit.Provider{Name: "p", Health: health.Policy{
			Probe: func(context.Context) error { return testkit.ErrDown }, Fall: 1, Interval: time.Second,
		}})
		testkit.Pass(time.Second)
		require.Equal(t, health.Unhealthy, genuine.Health().State)
		undo := swap(t, reg, "T", "p", testkit.Says("fake"))
		require.Equal(t, "fake", testkit.MustAsk(t, testkit.Bind(reg)))
		undo()
		fake := &checkerModel{ChatModel: testkit.Says("fake")}
		undo = swap(t, reg, "T", "p", fake)
		testkit.Pass(time.Second)
		require.Equal(t, health.Healthy, genuine.Health().State)
		fake.ill.Store(true)
		testkit.Pass(2500 * time.Millisecond)
		require.Equal(t, health.Unhealthy, genuine.Health().State, "one failure is enough, as for the real one")
		undo()
		require.Equal(t, health.Unhealthy, genuine.Health().State)
	})
}

func TestSwap_RotationContinues(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		for _, name := range []string{"a", "b", "c"} {
			testkit.Add(t, reg, testkit.Provider{Name: name, Strategy: registry.StrategyRoundRobin})
		}
		r := testkit.Bind(reg)
		require.Equal(t, "a", testkit.MustAsk(t, r))
		undo := swap(t, reg, "T", "b", testkit.Says("fake b"))
		require.Equal(t, "fake b", testkit.MustAsk(t, r))
		require.Equal(t, "c", testkit.MustAsk(t, r))
		require.Equal(t, "a", testkit.MustAsk(t, r))
		undo()
		require.Equal(t, "b", testkit.MustAsk(t, r))
	})
}

func TestSwap_StrategySetMeanwhileStays(t *testing.T) {
	t.Parallel()
	for _, members := range []int{1, 2} {
		testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
			a := testkit.Add(t, reg, testkit.Provider{Name: "a"})
			if members > 1 {
				testkit.Add(t, reg, testkit.Provider{Name: "b"})
			}
			undo, err := testkit.Chat.Testing(reg).Swap("test", "a", testkit.Says("fake"))
			require.NoError(t, err)
			_, err = a.SetStrategy(registry.StrategyRoundRobin)
			require.NoError(t, err)
			require.NoError(t, undo(t.Context()))
			require.Equal(t, registry.StrategyRoundRobin, a.Info().Strategy, "%d members", members)
		})
	}
}

func TestSwap_IsChosenAsProviderAndMeasuredAlone(t *testing.T) {
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
	testkit.Bubble(t, registry.Options{Selection: selection.Policy{LeastBad: true}}, func(t *testing.T, reg *registry.Registry) {
		slow := func(name string) testkit.ChatModel {
			return testkit.Answers(func() (string, error) { time.Sleep(time.Second); return name, nil })
		}
		testkit.Add(t, reg, testkit.Provider{Name: "a", Strategy: least, Instance: slow("a")})
		testkit.Add(t, reg, testkit.Provider{Name: "b", Instance: slow("b")})
		r := testkit.Bind(reg)
		require.Equal(t, "a", testkit.MustAsk(t, r))
		require.Equal(t, "b", testkit.MustAsk(t, r), "a has taken a second")
		undo := swap(t, reg, "T", "a", testkit.Says("fake"))
		require.Equal(t, "fake", testkit.MustAsk(t, r), "it is not measured yet")
		require.Equal(t, "fake", testkit.MustAsk(t, r))
		undo()
		require.Equal(t, "a", testkit.MustAsk(t, r), "it was measured first")
		over, err := testkit.Chat.Testing(reg).Override("T")
		require.NoError(t, err)
		_, err = testkit.Ask(t.Context(), r)
		require.ErrorIs(t, err, registry.ErrUnavailable, "not even the least bad")
		require.NoError(t, over(t.Context()))
	})
}

func TestSwap_IsEligibleUnderOnlyMocks(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{OnlyMocks: true}, func(t *testing.T, reg *registry.Registry) {
		testkit.Add(t, reg, testkit.Provider{Name: "real"})
		undo := swap(t, reg, "T", "real", testkit.Says("fake"))
		require.Equal(t, "fake", testkit.MustAsk(t, testkit.Bind(reg)))
		undo()
		_, err := testkit.Ask(t.Context(), testkit.Bind(reg))
		require.ErrorContains(t, err, "only mocks")
	})
}

func TestSwap_RaisesEvents(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		testkit.Add(t, reg, testkit.Provider{Name: "real"})
		s := reg.Subscribe(0)
		swap(t, reg, "T", "real", testkit.Says("fake"))()
		require.Equal(t, []event.Kind{
			event.Changed, event.Registered, event.Draining, event.Changed, event.Drained,
		}, testkit.Kinds(t, s))
		undo, err := testkit.Chat.Testing(reg).Override("T")
		require.NoError(t, err)
		require.NoError(t, undo(t.Context()))
		begun, err := s.Next(t.Context())
		require.NoError(t, err)
		ended, err := s.Next(t.Context())
		require.NoError(t, err)
		require.Equal(t, []string{"override", "", "T", "T", ""}, []string{begun.Reason, begun.From, begun.To, ended.From, ended.To})
	})
}

func TestSwap_HasRetryPolicyOfProvider(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		testkit.Add(t, reg, testkit.Provider{Name: "p", Retry: registry.RetryPolicy{Retries: 2}})
		tries := 0
		defer swap(t, reg, "T", "p", testkit.Answers(func() (string, error) {
			if tries++; tries < 3 {
				return "", testkit.ErrDown
			}
			return "third", nil
		}))()
		require.Equal(t, "third", testkit.MustAsk(t, testkit.Bind(reg)))
	})
}

package registry_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/event"
	"github.com/capreg/registry/health"
)

func TestProviderWithOnlyAnInstanceHasTheDefaults(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		info := add(t, reg, provider{Instance: says("hello")}).Info()
		require.NotEmpty(t, info.Name)
		require.Equal(t, registry.Definition{Service: "chat", Name: info.Name, Strategy: registry.StrategyFallback}, info.Definition)
		require.Equal(t, registry.PriorityNormal, info.Priority)
		require.Equal(t, registry.BreakerClosed, info.Breaker.State)
		require.True(t, info.Eligible)
		require.Equal(t, health.Healthy, info.Health.State)
		require.True(t, info.Made)
		require.Empty(t, info.Reason)
	})
}

func TestUnnamedProvidersNeverCollide(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		seen := make(map[string]bool)
		add(t, reg, provider{Name: "chat-3"})
		for range 100 {
			name := add(t, reg, provider{Instance: says("hello")}).Name()
			require.False(t, seen[name])
			seen[name] = true
		}
		require.False(t, seen["chat-3"])
		require.Equal(t, 101, reg.Stats().Providers)
	})
}

func TestNameThatIsTakenIsAnErrorAndChangesNothing(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		first := add(t, reg, provider{Name: "a", Capabilities: []string{"x"}})
		events := reg.Subscribe(0)
		_, err := chat.Register(t.Context(), reg, provider{Name: "a", Instance: says("b"), Capabilities: []string{"y"}})
		require.ErrorIs(t, err, registry.ErrExists)
		requireOneLine(t, err)
		require.Equal(t, []string{"x"}, first.Info().Capabilities)
		require.Equal(t, "a", asked(t, bind(reg)))
		require.Empty(t, kinds(t, events))
	})
}

func TestReplacingStartsAfreshAndDrainsTheOld(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		old := add(t, reg, provider{Name: "a", Instance: fails(errDown)})
		for range 4 {
			_, _ = ask(t.Context(), bind(reg))
		}
		lease, err := bind(reg).Acquire(t.Context())
		require.NoError(t, err)
		fresh := add(t, reg, provider{Name: "a", Replace: true})
		require.Greater(t, fresh.Info().Generation, old.Info().Generation)
		require.Zero(t, fresh.Breaker().ConsecutiveFailures)
		require.Equal(t, "a", asked(t, bind(reg)), "new picks go to the new one")
		require.Equal(t, uint64(1), old.Info().InFlight)
		require.ErrorIs(t, old.Reset(), registry.ErrNotRegistered)
		lease.Done(errDown)
		<-old.Left()
		require.Equal(t, uint64(1), fresh.Info().Attempts)
		require.Zero(t, fresh.Breaker().ConsecutiveFailures, "an old outcome does not reach the new one")
		require.Equal(t, 1, reg.Stats().Providers)
	})
}

func TestReplacedProviderIsCutAtTheEndOfTheDrainTimeout(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{DrainTimeout: 5 * time.Second}, func(t *testing.T, reg *registry.Registry) {
		add(t, reg, provider{Name: "a"})
		lease, err := bind(reg).Acquire(t.Context(), registry.AttemptTimeout(time.Hour))
		require.NoError(t, err)
		add(t, reg, provider{Name: "a", Replace: true})
		pass(5*time.Second - 1)
		require.NoError(t, lease.Context().Err())
		pass(1)
		require.ErrorIs(t, context.Cause(lease.Context()), registry.ErrClosed)
		lease.Done(lease.Context().Err())
	})
}

func TestReplaceNeedsANameAndTheSameService(t *testing.T) {
	t.Parallel()
	other := registry.NewService[chatModel]("other")
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		add(t, reg, provider{Name: "a"})
		_, err := chat.Register(t.Context(), reg, provider{Instance: says("x"), Replace: true})
		require.ErrorIs(t, err, registry.ErrInvalid)
		_, err = other.Register(t.Context(), reg, provider{Name: "a", Instance: says("x"), Replace: true})
		require.ErrorIs(t, err, registry.ErrConflict)
		require.ErrorContains(t, err, `that one serves "chat"`)
	})
}

func TestSameInstanceUnderTwoServicesIsTwoProviders(t *testing.T) {
	t.Parallel()
	other := registry.NewService[chatModel]("other")
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		shared := fails(errDown)
		a := add(t, reg, provider{Name: "a", Instance: shared})
		b, err := other.Register(t.Context(), reg, provider{Name: "b", Instance: shared})
		require.NoError(t, err)
		trip(t, bind(reg), a)
		require.NoError(t, a.MarkUnhealthy(errDown))
		require.Equal(t, registry.BreakerClosed, b.Breaker().State)
		require.True(t, b.Info().Eligible)
		require.NoError(t, a.Unregister(t.Context()))
		_, err = other.Bind(reg, registry.Query{}).Get(t.Context())
		require.NoError(t, err)
	})
}

func TestBadInputNamesFieldValueAndBoundAndLeavesNoTrace(t *testing.T) {
	t.Parallel()
	ok := says("x")
	long := strings.Repeat("n", 257)
	var typedNil *nilModel
	for field, p := range map[string]provider{
		"Name":                        {Name: " a", Instance: ok},
		"Name ":                       {Name: long, Instance: ok},
		"Name  ":                      {Name: "a\xff", Instance: ok},
		"Handler":                     {Handler: "h ", Instance: ok},
		"Instance":                    {},
		"Instance ":                   {Instance: typedNil},
		"Factory":                     {Instance: ok, Factory: func(context.Context) (chatModel, error) { return ok, nil }},
		"Capabilities[1]":             {Instance: ok, Capabilities: []string{"a", ""}},
		"Capabilities[0]":             {Instance: ok, Capabilities: []string{"a "}},
		"Capabilities[2]":             {Instance: ok, Capabilities: []string{"a", "a", "\xff"}},
		"Requires[0]":                 {Instance: ok, Requires: []string{""}},
		"Priority":                    {Instance: ok, Priority: 77},
		"Strategy":                    {Instance: ok, Strategy: strategyNumber(77)},
		"Window":                      {Instance: ok, Window: -1},
		"AttemptTimeout":              {Instance: ok, AttemptTimeout: -1},
		"Breaker.FailureThreshold":    {Instance: ok, Breaker: registry.BreakerPolicy{FailureThreshold: -1}},
		"Breaker.SuccessThreshold":    {Instance: ok, Breaker: registry.BreakerPolicy{SuccessThreshold: math.MaxInt}},
		"Breaker.RecoveryTimeout":     {Instance: ok, Breaker: registry.BreakerPolicy{RecoveryTimeout: -1}},
		"Breaker.TrialSlots":          {Instance: ok, Breaker: registry.BreakerPolicy{TrialSlots: 2, SuccessThreshold: 1}},
		"Endpoint":                    {Instance: ok, Endpoint: "localhost"},
		"Endpoint ":                   {Instance: ok, Endpoint: "http://a b"},
		"Version":                     {Instance: ok, Version: "\xff"},
		"Description":                 {Instance: ok, Description: "\xff"},
		`Metadata[""]`:                {Instance: ok, Metadata: map[string]string{"": "x"}},
		`Metadata["model"]`:           {Instance: ok, Metadata: map[string]string{"model": "\xff"}},
		"Replace":                     {Instance: ok, Replace: true},
		"Breaker.FailureThreshold   ": {Instance: ok, Breaker: registry.BreakerPolicy{FailureThreshold: math.MaxInt}},
	} {
		t.Run(field, func(t *testing.T) {
			t.Parallel()
			bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
				events := reg.Subscribe(0)
				_, err := chat.Register(t.Context(), reg, p)
				requireOneLine(t, err)
				require.ErrorIs(t, err, registry.ErrInvalid)
				var invalid *registry.FieldError
				require.ErrorAs(t, err, &invalid)
				require.Equal(t, strings.TrimRight(field, " "), invalid.Field)
				require.NotEmpty(t, invalid.Value)
				require.NotEmpty(t, invalid.Bound)
				require.Less(t, len(err.Error()), 400)
				require.Empty(t, slices.Collect(reg.All()))
				require.Zero(t, reg.Stats())
				require.Empty(t, kinds(t, events))
			})
		})
	}
}

type nilModel struct{}

func (*nilModel) Chat(context.Context, string) (string, error) { return "", nil }

func TestBadServiceNameIsAnErrorOfWhateverUsesTheKey(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		for _, name := range []string{"", " x", "x\n", "\xff", strings.Repeat("s", 257)} {
			service := registry.NewService[chatModel](name)
			_, err := service.Register(t.Context(), reg, provider{Instance: says("x")})
			require.ErrorIs(t, err, registry.ErrInvalid, "%q", name)
			_, err = service.Bind(reg, registry.Query{}).Get(t.Context())
			require.ErrorIs(t, err, registry.ErrInvalid, "%q", name)
			_, err = service.Get(t.Context(), reg, registry.Query{})
			require.ErrorIs(t, err, registry.ErrInvalid, "%q", name)
			_, err = reg.Register(t.Context(), name, registry.Provider[any]{Instance: says("x")})
			require.ErrorIs(t, err, registry.ErrInvalid, "%q", name)
		}
		require.Zero(t, reg.Stats().Services)
	})
}

func TestRegistryThatWasNotMadeByNewIsAnError(t *testing.T) {
	t.Parallel()
	for _, reg := range []*registry.Registry{nil, {}} {
		_, err := chat.Register(t.Context(), reg, provider{Instance: says("x")})
		require.ErrorIs(t, err, registry.ErrInvalid)
		_, err = reg.Register(t.Context(), "chat", registry.Provider[any]{Instance: says("x")})
		require.ErrorIs(t, err, registry.ErrInvalid)
		_, err = bind(reg).Get(t.Context())
		require.ErrorIs(t, err, registry.ErrInvalid)
	}
}

func TestBadOptionsNameTheField(t *testing.T) {
	t.Parallel()
	for field, options := range map[string]registry.Options{
		"Options.DrainTimeout": {DrainTimeout: -1},
		"Options.OnlyMocks":    {OnlyMocks: true, ForbidMocks: true},
		"Options.Required[1]":  {Required: []string{"a", ""}},
	} {
		_, err := registry.New(options)
		var invalid *registry.FieldError
		require.ErrorAs(t, err, &invalid)
		require.Equal(t, field, invalid.Field)
	}
}

func TestCapabilitiesGivenTwiceAreFolded(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		info := add(t, reg, provider{Name: "a", Capabilities: []string{"b", "a", "b"}}).Info()
		require.Equal(t, []string{"b", "a"}, info.Capabilities)
	})
}

func TestGroupKeepsItsStrategyAndNamesWhoSetIt(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		first := add(t, reg, provider{Name: "first", Strategy: registry.StrategyRoundRobin})
		follower := add(t, reg, provider{Name: "follower"})
		require.Equal(t, registry.StrategyRoundRobin, follower.Info().Strategy)
		_, err := chat.Register(t.Context(), reg, provider{Name: "x", Instance: says("x"), Strategy: registry.StrategyFallback})
		require.ErrorIs(t, err, registry.ErrConflict)
		require.ErrorContains(t, err, `ROUND_ROBIN, which provider "first" set for group 0`)
		add(t, reg, provider{Name: "elsewhere", Group: 1, Strategy: registry.StrategyFallback})
		add(t, reg, provider{Name: "scoped", Handler: "h", Strategy: registry.StrategyFallback})
		require.NoError(t, first.Unregister(t.Context()))
		require.NoError(t, follower.Unregister(t.Context()))
		add(t, reg, provider{Name: "x", Strategy: registry.StrategyFallback}) // the group was gone
	})
}

func TestLastMemberMayBeReplacedWithAnotherStrategy(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		add(t, reg, provider{Name: "a"})
		a := add(t, reg, provider{Name: "a", Strategy: registry.StrategyRoundRobin, Replace: true})
		require.Equal(t, registry.StrategyRoundRobin, a.Info().Strategy)
	})
}

func TestRegisteringByNameChecksTheType(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		_, err := reg.Register(t.Context(), "chat", registry.Provider[any]{Instance: says("x")})
		require.ErrorIs(t, err, registry.ErrUnknownService)
		r := bind(reg)
		_, err = reg.Register(t.Context(), "chat", registry.Provider[any]{Instance: 7})
		require.ErrorIs(t, err, registry.ErrInvalid)
		require.ErrorContains(t, err, "Instance is of type int: want a registry_test.chatModel")
		_, err = reg.Register(t.Context(), "chat", registry.Provider[any]{})
		require.ErrorIs(t, err, registry.ErrInvalid)
		_, err = reg.Register(t.Context(), "chat", registry.Provider[any]{Name: "a", Instance: says("dynamic")})
		require.NoError(t, err)
		require.Equal(t, "dynamic", asked(t, r))
		_, err = reg.Register(t.Context(), "chat", registry.Provider[any]{
			Name: "b", Group: -1, Factory: func(context.Context) (any, error) { return "not a model", nil },
		})
		require.NoError(t, err)
		require.Equal(t, "dynamic", asked(t, r))
		require.Contains(t, r.Explain().Candidates[0].Reason, "of type string")
		_, err = reg.Register(t.Context(), "chat", registry.Provider[any]{
			Name: "c", Group: -2, Factory: func(context.Context) (any, error) { return says("made"), nil },
		})
		require.NoError(t, err)
		require.Equal(t, "made", asked(t, r))
	})
}

func TestServiceIsBoundToOneGoType(t *testing.T) {
	t.Parallel()
	wrong := registry.NewService[func()]("chat")
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		add(t, reg, provider{Name: "a"})
		_, err := wrong.Register(t.Context(), reg, registry.Provider[func()]{Instance: func() {}})
		require.ErrorIs(t, err, registry.ErrConflict)
		_, err = wrong.Bind(reg, registry.Query{}).Get(t.Context())
		require.ErrorIs(t, err, registry.ErrConflict)
	})
}

func TestMocksComeAfterAllRealProviders(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		add(t, reg, provider{Name: "mock", Mock: true, Group: -5, Priority: registry.PriorityCritical, Handler: "h"})
		genuine := add(t, reg, provider{Name: "real", Group: 9, Priority: registry.PriorityFallback})
		r := chat.Bind(reg, registry.Query{Handler: "h"})
		require.Equal(t, "real", asked(t, r))
		require.NoError(t, genuine.MarkUnhealthy(errDown))
		require.Equal(t, "mock", asked(t, r))
	})
}

func TestMocksMayBeForbiddenBesideRealProviders(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{ForbidMocks: true}, func(t *testing.T, reg *registry.Registry) {
		genuine := add(t, reg, provider{Name: "real"})
		_, err := chat.Register(t.Context(), reg, provider{Name: "mock", Mock: true, Instance: says("x")})
		require.ErrorIs(t, err, registry.ErrConflict)
		require.ErrorContains(t, err, `"real"`)
		require.NoError(t, genuine.Unregister(t.Context()))
		add(t, reg, provider{Name: "mock", Mock: true})
		_, err = chat.Register(t.Context(), reg, provider{Name: "real", Instance: says("x")})
		require.ErrorIs(t, err, registry.ErrConflict)
		add(t, reg, provider{Name: "mock", Replace: true}) // a real one in place of the last mock
	})
}

func TestOnlyMocksArePickedWhenTheOptionsSaySo(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{OnlyMocks: true}, func(t *testing.T, reg *registry.Registry) {
		add(t, reg, provider{Name: "real"})
		_, err := ask(t.Context(), bind(reg))
		require.ErrorIs(t, err, registry.ErrUnavailable)
		require.ErrorContains(t, err, "real: not a mock")
		add(t, reg, provider{Name: "mock", Mock: true, Group: 3})
		require.Equal(t, "mock", asked(t, bind(reg)))
	})
}

func TestAdmissionHookRefusesWithoutATrace(t *testing.T) {
	t.Parallel()
	errProhibited := errors.New("prohibited")
	admit := func(_ context.Context, d registry.Definition) error {
		switch {
		case slices.Contains(d.Capabilities, "shell"):
			return errProhibited
		case slices.Contains(d.Capabilities, "panic"):
			panic("hook")
		}
		d.Capabilities[0] = "changed"
		return nil
	}
	bubble(t, registry.Options{Admit: admit}, func(t *testing.T, reg *registry.Registry) {
		events := reg.Subscribe(0)
		_, err := chat.Register(t.Context(), reg, provider{Name: "a", Instance: says("x"), Capabilities: []string{"shell"}})
		require.ErrorIs(t, err, errProhibited)
		requireOneLine(t, err)
		_, err = chat.Register(t.Context(), reg, provider{Name: "a", Instance: says("x"), Capabilities: []string{"panic"}})
		var panicked *registry.PanicError
		require.ErrorAs(t, err, &panicked)
		require.Empty(t, slices.Collect(reg.All()))
		require.Empty(t, kinds(t, events))
		require.Equal(t, []string{"chat"}, add(t, reg, provider{Name: "a", Capabilities: []string{"chat"}}).Info().Capabilities)
	})
}

func TestRegistrationLeavesWhenItsLifetimeEnds(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{DrainTimeout: time.Second}, func(t *testing.T, reg *registry.Registry) {
		life, end := context.WithCancel(t.Context())
		a := add(t, reg, provider{Name: "a", Until: life})
		lease, err := bind(reg).Acquire(t.Context(), registry.AttemptTimeout(time.Hour))
		require.NoError(t, err)
		end()
		synctest.Wait()
		_, err = ask(t.Context(), bind(reg))
		require.ErrorIs(t, err, registry.ErrUnknownService)
		require.NoError(t, lease.Context().Err(), "what is in flight goes on")
		pass(time.Second)
		require.ErrorIs(t, context.Cause(lease.Context()), registry.ErrClosed, "for the drain timeout")
		lease.Done(nil)
		<-a.Left()

		ended, err := chat.Register(t.Context(), reg, provider{Name: "b", Instance: says("b"), Until: life})
		require.NoError(t, err)
		synctest.Wait()
		<-ended.Left()
	})
}

func TestUnregisteredInstanceIsNotKeptAlive(t *testing.T) {
	t.Parallel()
	reg := newRegistry(t, registry.Options{})
	r := bind(reg)
	kept := reg.Subscribe(0)
	freed := make(chan struct{})
	var handle *registry.Registration
	func() {
		model := &bigModel{}
		runtime.AddCleanup(model, func(done chan struct{}) { close(done) }, freed)
		handle = add(t, reg, provider{Name: "a", Instance: model})
		require.Equal(t, "big", asked(t, r))
		_ = r.Explain()
	}()
	require.NoError(t, handle.Unregister(t.Context()))
	for {
		runtime.GC()
		select {
		case <-freed:
			require.NoError(t, reg.Close(t.Context()))
			kept.Close()
			runtime.KeepAlive(handle)
			return
		default:
			runtime.Gosched()
		}
	}
}

type bigModel struct{ _ [1 << 16]byte }

func (*bigModel) Chat(context.Context, string) (string, error) { return "big", nil }

func TestSettingsChangeAtRunTimeAndReturnWhatTheyWere(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a := add(t, reg, provider{Name: "a"})
		b := add(t, reg, provider{Name: "b"})
		asked(t, bind(reg))
		lease, err := bind(reg).Acquire(t.Context())
		require.NoError(t, err)
		events := reg.Subscribe(0)

		priority, err := b.SetPriority(registry.PriorityHigh)
		require.NoError(t, err)
		require.Equal(t, registry.PriorityNormal, priority)
		require.Equal(t, "b", asked(t, bind(reg)))
		group, err := b.SetGroup(4)
		require.NoError(t, err)
		require.Equal(t, 0, group)
		require.Equal(t, "a", asked(t, bind(reg)))
		group, err = b.SetGroup(0)
		require.NoError(t, err)
		require.Equal(t, 4, group)
		strategy, err := b.SetStrategy(registry.StrategyRoundRobin)
		require.NoError(t, err)
		require.Equal(t, registry.StrategyFallback, strategy)
		require.Equal(t, registry.StrategyRoundRobin, a.Info().Strategy, "the whole group's")
		timeout, err := a.SetAttemptTimeout(time.Second)
		require.NoError(t, err)
		require.Equal(t, 30*time.Second, timeout)
		require.Equal(t, time.Second, a.Info().AttemptTimeout)
		_, err = a.SetBreaker(registry.BreakerPolicy{FailureThreshold: 9})
		require.NoError(t, err)

		require.Equal(t, uint64(3), a.Info().Attempts, "counts are kept")
		require.Equal(t, uint64(1), a.Info().InFlight)
		lease.Done(nil)
		var changes []string
		for _, e := range drained(t, events) {
			require.Equal(t, event.Changed, e.Kind)
			changes = append(changes, fmt.Sprintf("%s %s: %s → %s", e.Provider, e.Reason, e.From, e.To))
		}
		require.Equal(t, []string{
			"b priority: NORMAL → HIGH", "b group: 0 → 4", "b group: 4 → 0",
			"b strategy of the group: FALLBACK → ROUND_ROBIN", "a attempt timeout: 30s → 1s",
		}, changes[:5])
		require.Contains(t, changes[5], "FailureThreshold:9")
	})
}

func TestBadChangesAreErrorsAndChangeNothing(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a := add(t, reg, provider{Name: "a"})
		before, events := a.Info(), reg.Subscribe(0)
		_, err := a.SetPriority(77)
		require.ErrorIs(t, err, registry.ErrInvalid)
		_, err = a.SetStrategy(registry.Strategy{})
		require.ErrorIs(t, err, registry.ErrInvalid)
		_, err = a.SetStrategy(strategyNumber(77))
		require.ErrorIs(t, err, registry.ErrInvalid)
		_, err = a.SetAttemptTimeout(-1)
		require.ErrorIs(t, err, registry.ErrInvalid)
		_, err = a.SetBreaker(registry.BreakerPolicy{RecoveryTimeout: -1})
		require.ErrorIs(t, err, registry.ErrInvalid)
		require.Equal(t, before, a.Info())
		require.Empty(t, kinds(t, events))
	})
}

func TestProviderThatLeftCannotBeChanged(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a := add(t, reg, provider{Name: "a"})
		require.NoError(t, a.Unregister(t.Context()))
		require.NoError(t, a.Unregister(t.Context()), "again")
		_, err := a.SetPriority(registry.PriorityHigh)
		require.ErrorIs(t, err, registry.ErrNotRegistered)
		_, err = a.SetGroup(1)
		require.ErrorIs(t, err, registry.ErrNotRegistered)
		_, err = a.SetStrategy(registry.StrategyRoundRobin)
		require.ErrorIs(t, err, registry.ErrNotRegistered)
		_, err = a.SetBreaker(registry.BreakerPolicy{})
		require.ErrorIs(t, err, registry.ErrNotRegistered)
		_, err = a.SetAttemptTimeout(time.Second)
		require.ErrorIs(t, err, registry.ErrNotRegistered)
		require.ErrorIs(t, a.ForceOpen(time.Second, "x"), registry.ErrNotRegistered)
		require.ErrorIs(t, a.Reset(), registry.ErrNotRegistered)
		require.ErrorIs(t, a.MarkUnhealthy(nil), registry.ErrNotRegistered)
		require.ErrorIs(t, a.MarkHealthy(), registry.ErrNotRegistered)
		require.Equal(t, "a", a.Info().Name, "reading still works")
		require.False(t, a.Info().Eligible)
		_, ok := reg.Provider("a")
		require.False(t, ok)
	})
}

func TestWhatCallersChangeAfterwardsChangesNothing(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		p := provider{
			Name: "a", Instance: says("a"), Capabilities: []string{"x"}, Requires: []string{"r"},
			Metadata: map[string]string{"k": "v"},
		}
		a := add(t, reg, p)
		query := registry.Query{Require: []string{"x"}}
		r := chat.Bind(reg, query)
		want := a.Definition()
		scribble := func(capabilities, requires []string, metadata map[string]string) {
			capabilities[0], requires[0], metadata["k"], metadata["new"] = "!", "!", "!", "!"
		}
		scribble(p.Capabilities, p.Requires, p.Metadata)
		query.Require[0] = "!"
		info := a.Info()
		scribble(info.Capabilities, info.Requires, info.Metadata)
		definition := a.Definition()
		scribble(definition.Capabilities, definition.Requires, definition.Metadata)
		for info := range reg.All() {
			scribble(info.Capabilities, info.Requires, info.Metadata)
		}
		require.Equal(t, want, a.Definition())
		require.Equal(t, "a", asked(t, r))
		explained := r.Explain()
		explained.Candidates[0].Provider = "!"
		require.Equal(t, "a", r.Explain().Candidates[0].Provider)
		snapshot := reg.Subscribe(0)
		snapshot.Snapshot()[0].Name = "!"
		require.Equal(t, "a", snapshot.Snapshot()[0].Name)
	})
}

func TestDefinitionTravelsAsJSONAndBackIntoAProvider(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a := add(t, reg, provider{
			Name: "a", Handler: "h", Capabilities: []string{"x"}, Priority: registry.PriorityHigh, Group: 2,
			Strategy: registry.StrategyRoundRobin, Mock: true, Window: 5, Version: "1.2", Description: "d",
			Endpoint: "https://host/v1", Requires: []string{"r"}, Metadata: map[string]string{"k": "v"},
		})
		text, err := json.Marshal(a.Definition())
		require.NoError(t, err)
		var back registry.Definition
		require.NoError(t, json.Unmarshal(text, &back))
		require.Equal(t, a.Definition(), back)
		again := chat.Provider(back)
		again.Name, again.Instance = "b", says("b")
		b := add(t, reg, again)
		want := a.Definition()
		want.Name = "b"
		require.Equal(t, want, b.Definition())
	})
}

func TestProvidersMayComeAndGoFromManyGoroutines(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		r := bind(reg)
		add(t, reg, provider{Name: "steady", Group: 1})
		var workers sync.WaitGroup
		for i := range 8 {
			workers.Go(func() {
				for range 30 {
					a, err := chat.Register(t.Context(), reg, provider{Name: fmt.Sprint("p", i%4), Instance: says("x"), Replace: true})
					if err != nil {
						continue
					}
					asked(t, r)
					if err := a.Unregister(t.Context()); err != nil {
						t.Error(err)
					}
				}
			})
		}
		workers.Wait()
		require.Equal(t, 1, reg.Stats().Providers)
		require.Equal(t, "steady", asked(t, r))
	})
}

func FuzzRegistration(f *testing.F) {
	f.Add("a", "cap", "handler", 0, 0, uint8(0), "https://x", true)
	f.Add("", " ", "*", -1, 9, uint8(3), "", false)
	f.Fuzz(func(t *testing.T, name, capability, handler string, group, priority int, strategy uint8, endpoint string, mock bool) {
		reg := newRegistry(t, registry.Options{})
		p := provider{
			Name: name, Instance: says("x"), Capabilities: []string{capability}, Handler: handler, Group: group,
			Priority: registry.Priority(priority), Strategy: strategyNumber(int(strategy)), Endpoint: endpoint, Mock: mock,
		}
		registration, err := chat.Register(t.Context(), reg, p)
		if err != nil {
			requireOneLine(t, err)
			require.Zero(t, reg.Stats())
			return
		}
		require.Len(t, reg.Discover(capability), 1)
		r := chat.Bind(reg, registry.Query{Handler: handler, Require: []string{capability}})
		require.Equal(t, registration.Name(), r.Explain().Winner)
		_, err = json.Marshal(registration.Info())
		require.NoError(t, err)
		require.NoError(t, reg.Close(t.Context()))
	})
}

package registry_test

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/health"
	"github.com/capreg/registry/internal/testkit"
	"github.com/capreg/registry/status"
	"github.com/capreg/registry/verdict"
)

func TestRegister_InstanceAloneGetsDefaults(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		info := testkit.Add(t, reg, testkit.Provider{Instance: testkit.Says("hello")}).Info()
		require.NotEmpty(t, info.Name)
		require.Equal(t, registry.Definition{Service: "chat", Name: info.Name, Strategy: registry.StrategyFallback, Weight: 1}, info.Definition)
		require.Equal(t, registry.PriorityNormal, info.Priority)
		require.Equal(t, status.BreakerClosed, info.Breaker.State)
		require.True(t, info.Eligible)
		require.Equal(t, health.Healthy, info.Health.State)
		require.True(t, info.Made)
		require.Empty(t, info.Reason)
	})
}

func TestRegister_UnnamedProvidersNeverCollide(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		seen := make(map[string]bool)
		testkit.Add(t, reg, testkit.Provider{Name: "chat-3"})
		for range 100 {
			name := testkit.Add(t, reg, testkit.Provider{Instance: testkit.Says("hello")}).Name()
			require.False(t, seen[name])
			seen[name] = true
		}
		require.False(t, seen["chat-3"])
		require.Equal(t, 101, reg.Stats().Providers)
	})
}

func TestRegister_TakenNameIsAnError(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		first := testkit.Add(t, reg, testkit.Provider{Name: "a", Capabilities: []string{"x"}})
		events := reg.Subscribe(0)
		_, err := testkit.Chat.Register(t.Context(), reg, testkit.Provider{Name: "a", Instance: testkit.Says("b"), Capabilities: []string{"y"}})
		require.ErrorIs(t, err, registry.ErrExists)
		testkit.RequireOneLine(t, err)
		require.Equal(t, []string{"x"}, first.Info().Capabilities)
		require.Equal(t, "a", testkit.MustAsk(t, testkit.Bind(reg)))
		require.Empty(t, testkit.Kinds(t, events))
	})
}

func TestReplace_StartsFreshAndDrainsOld(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		old := testkit.Add(t, reg, testkit.Provider{Name: "a", Instance: testkit.Fails(testkit.ErrDown)})
		for range 4 {
			_, _ = testkit.Ask(t.Context(), testkit.Bind(reg))
		}
		lease, err := testkit.Bind(reg).Acquire(t.Context())
		require.NoError(t, err)
		fresh := testkit.Add(t, reg, testkit.Provider{Name: "a", Replace: true})
		require.Greater(t, fresh.Info().Generation, old.Info().Generation)
		require.Zero(t, fresh.Breaker().ConsecutiveFailures)
		require.Equal(t, "a", testkit.MustAsk(t, testkit.Bind(reg)), "new picks go to the new one")
		require.Equal(t, uint64(1), old.Info().InFlight)
		require.ErrorIs(t, old.Reset(), registry.ErrNotRegistered)
		lease.Done(testkit.ErrDown)
		<-old.Left()
		require.Equal(t, uint64(1), fresh.Info().Attempts)
		require.Zero(t, fresh.Breaker().ConsecutiveFailures, "an old outcome does not reach the new one")
		require.Equal(t, 1, reg.Stats().Providers)
	})
}

func TestReplace_EndsOldCallsAtDrainTimeout(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{DrainTimeout: 5 * time.Second}, func(t *testing.T, reg *registry.Registry) {
		testkit.Add(t, reg, testkit.Provider{Name: "a"})
		lease, err := testkit.Bind(reg).Acquire(t.Context(), registry.AttemptTimeout(time.Hour))
		require.NoError(t, err)
		testkit.Add(t, reg, testkit.Provider{Name: "a", Replace: true})
		testkit.Pass(5*time.Second - 1)
		require.NoError(t, lease.Context().Err())
		testkit.Pass(1)
		require.ErrorIs(t, context.Cause(lease.Context()), registry.ErrClosed)
		lease.Done(lease.Context().Err())
	})
}

func TestReplace_NeedsANameAndReplacesInItsServiceOnly(t *testing.T) {
	t.Parallel()
	other := registry.NewService[testkit.ChatModel]("other")
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a := testkit.Add(t, reg, testkit.Provider{Name: "a"})
		_, err := testkit.Chat.Register(t.Context(), reg, testkit.Provider{Instance: testkit.Says("x"), Replace: true})
		require.ErrorIs(t, err, registry.ErrInvalid)
		_, err = other.Register(t.Context(), reg, testkit.Provider{Name: "a", Instance: testkit.Says("x"), Replace: true})
		require.NoError(t, err)
		require.NoError(t, a.Reset(), "it is still there")
		require.Equal(t, 2, reg.Stats().Providers)
	})
}

func TestRegister_InstanceMayServeTwoServices(t *testing.T) {
	t.Parallel()
	other := registry.NewService[testkit.ChatModel]("other")
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		shared := testkit.Fails(testkit.ErrDown)
		a := testkit.Add(t, reg, testkit.Provider{Name: "a", Instance: shared})
		b, err := other.Register(t.Context(), reg, testkit.Provider{Name: "b", Instance: shared})
		require.NoError(t, err)
		testkit.Trip(t, testkit.Bind(reg), a)
		require.NoError(t, a.MarkUnhealthy(testkit.ErrDown))
		require.Equal(t, status.BreakerClosed, b.Breaker().State)
		require.True(t, b.Info().Eligible)
		require.NoError(t, a.Unregister(t.Context()))
		_, err = other.Bind(reg, registry.Query{}).Get(t.Context())
		require.NoError(t, err)
	})
}

func TestRegister_BadInputNamesFieldValueAndBound(t *testing.T) {
	t.Parallel()
	ok := testkit.Says("x")
	long := strings.Repeat("n", 257)
	var typedNil *testkit.NilModel
	for field, p := range map[string]testkit.Provider{
		"Name":                        {Name: " a", Instance: ok},
		"Name ":                       {Name: long, Instance: ok},
		"Name  ":                      {Name: "a\xff", Instance: ok},
		"Handler":                     {Handler: "h ", Instance: ok},
		"Instance":                    {},
		"Instance ":                   {Instance: typedNil},
		"Factory":                     {Instance: ok, Factory: func(context.Context) (testkit.ChatModel, error) { return ok, nil }},
		"Capabilities[1]":             {Instance: ok, Capabilities: []string{"a", ""}},
		"Capabilities[0]":             {Instance: ok, Capabilities: []string{"a "}},
		"Capabilities[2]":             {Instance: ok, Capabilities: []string{"a", "a", "\xff"}},
		"Requires[0]":                 {Instance: ok, Requires: []string{""}},
		"Priority":                    {Instance: ok, Priority: 77},
		"Strategy":                    {Instance: ok, Strategy: testkit.StrategyNumber(77)},
		"Window":                      {Instance: ok, Window: -1},
		"AttemptTimeout":              {Instance: ok, AttemptTimeout: -1},
		"Breaker.FailureThreshold":    {Instance: ok, Breaker: registry.BreakerPolicy{FailureThreshold: -1}},
		"Breaker.SuccessThreshold":    {Instance: ok, Breaker: registry.BreakerPolicy{SuccessThreshold: testkit.BeyondInt32()}},
		"Breaker.RecoveryTimeout":     {Instance: ok, Breaker: registry.BreakerPolicy{RecoveryTimeout: -1}},
		"Breaker.TrialSlots":          {Instance: ok, Breaker: registry.BreakerPolicy{TrialSlots: 2, SuccessThreshold: 1}},
		"Endpoint":                    {Instance: ok, Endpoint: "localhost"},
		"Endpoint ":                   {Instance: ok, Endpoint: "http://a b"},
		"Endpoints[\"health\"]":       {Instance: ok, Endpoints: map[string]string{"health": "/healthz?"}},
		"Endpoints[\"metrics\"]":      {Instance: ok, Endpoints: map[string]string{"metrics": ""}},
		"Documentation":               {Instance: ok, Documentation: "see the wiki"},
		"ExpectedResponse":            {Instance: ok, ExpectedResponse: -1},
		"Version":                     {Instance: ok, Version: "\xff"},
		"Description":                 {Instance: ok, Description: "\xff"},
		`Metadata[""]`:                {Instance: ok, Metadata: map[string]string{"": "x"}},
		`Metadata["model"]`:           {Instance: ok, Metadata: map[string]string{"model": "\xff"}},
		"Replace":                     {Instance: ok, Replace: true},
		"Breaker.FailureThreshold   ": {Instance: ok, Breaker: registry.BreakerPolicy{FailureThreshold: testkit.BeyondInt32()}},
	} {
		t.Run(field, func(t *testing.T) {
			t.Parallel()
			testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
				events := reg.Subscribe(0)
				_, err := testkit.Chat.Register(t.Context(), reg, p)
				testkit.RequireOneLine(t, err)
				require.ErrorIs(t, err, registry.ErrInvalid)
				var invalid *registry.FieldError
				require.ErrorAs(t, err, &invalid)
				require.Equal(t, strings.TrimRight(field, " "), invalid.Field)
				require.NotEmpty(t, invalid.Value)
				require.NotEmpty(t, invalid.Bound)
				require.Less(t, len(err.Error()), 400)
				require.Empty(t, slices.Collect(reg.All()))
				require.Zero(t, reg.Stats())
				require.Empty(t, testkit.Kinds(t, events))
			})
		})
	}
}

func TestService_BadNameIsAnErrorEverywhere(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		for _, name := range []string{"", " x", "x\n", "\xff", strings.Repeat("s", 257)} {
			service := registry.NewService[testkit.ChatModel](name)
			_, err := service.Register(t.Context(), reg, testkit.Provider{Instance: testkit.Says("x")})
			require.ErrorIs(t, err, registry.ErrInvalid, "%q", name)
			_, err = service.Bind(reg, registry.Query{}).Get(t.Context())
			require.ErrorIs(t, err, registry.ErrInvalid, "%q", name)
			_, err = service.Get(t.Context(), reg, registry.Query{})
			require.ErrorIs(t, err, registry.ErrInvalid, "%q", name)
			_, err = reg.Register(t.Context(), name, registry.Provider[any]{Instance: testkit.Says("x")})
			require.ErrorIs(t, err, registry.ErrInvalid, "%q", name)
		}
		require.Zero(t, reg.Stats().Services)
	})
}

func TestRegister_DuplicateCapabilitiesAreMerged(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		info := testkit.Add(t, reg, testkit.Provider{Name: "a", Capabilities: []string{"b", "a", "b"}}).Info()
		require.Equal(t, []string{"b", "a"}, info.Capabilities)
	})
}

func TestRegister_GroupKeepsStrategyOfFirstMember(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		first := testkit.Add(t, reg, testkit.Provider{Name: "first", Strategy: registry.StrategyRoundRobin})
		follower := testkit.Add(t, reg, testkit.Provider{Name: "follower"})
		require.Equal(t, registry.StrategyRoundRobin, follower.Info().Strategy)
		_, err := testkit.Chat.Register(t.Context(), reg, testkit.Provider{Name: "x", Instance: testkit.Says("x"), Strategy: registry.StrategyFallback})
		require.ErrorIs(t, err, registry.ErrConflict)
		require.ErrorContains(t, err, `ROUND_ROBIN, which provider "first" set for group 0`)
		testkit.Add(t, reg, testkit.Provider{Name: "elsewhere", Group: 1, Strategy: registry.StrategyFallback})
		testkit.Add(t, reg, testkit.Provider{Name: "scoped", Handler: "h", Strategy: registry.StrategyFallback})
		require.NoError(t, first.Unregister(t.Context()))
		require.NoError(t, follower.Unregister(t.Context()))
		testkit.Add(t, reg, testkit.Provider{Name: "x", Strategy: registry.StrategyFallback}) // the group was gone
	})
}

func TestReplace_LastMemberMayChangeStrategy(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		testkit.Add(t, reg, testkit.Provider{Name: "a"})
		a := testkit.Add(t, reg, testkit.Provider{Name: "a", Strategy: registry.StrategyRoundRobin, Replace: true})
		require.Equal(t, registry.StrategyRoundRobin, a.Info().Strategy)
	})
}

func TestRegister_ByNameChecksType(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		_, err := reg.Register(t.Context(), "chat", registry.Provider[any]{Instance: testkit.Says("x")})
		require.ErrorIs(t, err, registry.ErrUnknownService)
		r := testkit.Bind(reg)
		_, err = reg.Register(t.Context(), "chat", registry.Provider[any]{Instance: 7})
		require.ErrorIs(t, err, registry.ErrInvalid)
		require.ErrorContains(t, err, "Instance is of type int: want a testkit.ChatModel")
		_, err = reg.Register(t.Context(), "chat", registry.Provider[any]{})
		require.ErrorIs(t, err, registry.ErrInvalid)
		_, err = reg.Register(t.Context(), "chat", registry.Provider[any]{Name: "a", Instance: testkit.Says("dynamic")})
		require.NoError(t, err)
		require.Equal(t, "dynamic", testkit.MustAsk(t, r))
		_, err = reg.Register(t.Context(), "chat", registry.Provider[any]{
			Name: "b", Group: -1, Factory: func(context.Context) (any, error) { return "not a model", nil },
		})
		require.NoError(t, err)
		require.Equal(t, "dynamic", testkit.MustAsk(t, r))
		require.Contains(t, r.Explain().Candidates[0].Reason, "of type string")
		_, err = reg.Register(t.Context(), "chat", registry.Provider[any]{
			Name: "c", Group: -2, Factory: func(context.Context) (any, error) { return testkit.Says("made"), nil },
		})
		require.NoError(t, err)
		require.Equal(t, "made", testkit.MustAsk(t, r))
	})
}

func TestService_IsBoundToOneGoType(t *testing.T) {
	t.Parallel()
	wrong := registry.NewService[func()]("chat")
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		testkit.Add(t, reg, testkit.Provider{Name: "a"})
		_, err := wrong.Register(t.Context(), reg, registry.Provider[func()]{Instance: func() {}})
		require.ErrorIs(t, err, registry.ErrConflict)
		_, err = wrong.Bind(reg, registry.Query{}).Get(t.Context())
		require.ErrorIs(t, err, registry.ErrConflict)
	})
}

func TestMock_ComesAfterRealProviders(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		testkit.Add(t, reg, testkit.Provider{Name: "mock", Mock: true, Group: -5, Priority: registry.PriorityCritical, Handler: "h"})
		genuine := testkit.Add(t, reg, testkit.Provider{Name: "real", Group: 9, Priority: registry.PriorityFallback})
		r := testkit.Chat.Bind(reg, registry.Query{Handler: "h"})
		require.Equal(t, "real", testkit.MustAsk(t, r))
		require.NoError(t, genuine.MarkUnhealthy(testkit.ErrDown))
		require.Equal(t, "mock", testkit.MustAsk(t, r))
	})
}

func TestMock_MayBeForbiddenBesideRealProviders(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{ForbidMocks: true}, func(t *testing.T, reg *registry.Registry) {
		genuine := testkit.Add(t, reg, testkit.Provider{Name: "real"})
		_, err := testkit.Chat.Register(t.Context(), reg, testkit.Provider{Name: "mock", Mock: true, Instance: testkit.Says("x")})
		require.ErrorIs(t, err, registry.ErrConflict)
		require.ErrorContains(t, err, `"real"`)
		require.NoError(t, genuine.Unregister(t.Context()))
		testkit.Add(t, reg, testkit.Provider{Name: "mock", Mock: true})
		_, err = testkit.Chat.Register(t.Context(), reg, testkit.Provider{Name: "real", Instance: testkit.Says("x")})
		require.ErrorIs(t, err, registry.ErrConflict)
		testkit.Add(t, reg, testkit.Provider{Name: "mock", Replace: true}) // a real one in place of the last mock
	})
}

func TestMock_OnlyMocksAreEligibleUnderOnlyMocks(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{OnlyMocks: true}, func(t *testing.T, reg *registry.Registry) {
		testkit.Add(t, reg, testkit.Provider{Name: "real"})
		_, err := testkit.Ask(t.Context(), testkit.Bind(reg))
		require.ErrorIs(t, err, registry.ErrUnavailable)
		require.ErrorContains(t, err, "real: not a mock")
		testkit.Add(t, reg, testkit.Provider{Name: "mock", Mock: true, Group: 3})
		require.Equal(t, "mock", testkit.MustAsk(t, testkit.Bind(reg)))
	})
}

func TestMock_RealProviderIsIneligibleUnderOnlyMocks(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{OnlyMocks: true}, func(t *testing.T, reg *registry.Registry) {
		p := testkit.Add(t, reg, testkit.Provider{Name: "p"})
		_, err := testkit.Ask(t.Context(), testkit.Bind(reg))
		require.Error(t, err)
		require.False(t, p.Info().Eligible)
		require.Zero(t, reg.Stats().Eligible)
	})
}

func TestAdmit_RefusesWithoutTrace(t *testing.T) {
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
	testkit.Bubble(t, registry.Options{Admit: admit}, func(t *testing.T, reg *registry.Registry) {
		events := reg.Subscribe(0)
		_, err := testkit.Chat.Register(t.Context(), reg, testkit.Provider{Name: "a", Instance: testkit.Says("x"), Capabilities: []string{"shell"}})
		require.ErrorIs(t, err, errProhibited)
		testkit.RequireOneLine(t, err)
		_, err = testkit.Chat.Register(t.Context(), reg, testkit.Provider{Name: "a", Instance: testkit.Says("x"), Capabilities: []string{"panic"}})
		var panicked *verdict.PanicError
		require.ErrorAs(t, err, &panicked)
		require.Empty(t, slices.Collect(reg.All()))
		require.Empty(t, testkit.Kinds(t, events))
		require.Equal(t, []string{"chat"}, testkit.Add(t, reg, testkit.Provider{Name: "a", Capabilities: []string{"chat"}}).Info().Capabilities)
	})
}

func FuzzRegistration(f *testing.F) {
	f.Add("a", "cap", "handler", 0, 0, uint8(0), "https://x", true)
	f.Add("", " ", "*", -1, 9, uint8(3), "", false)
	f.Fuzz(func(t *testing.T, name, capability, handler string, group, priority int, strategy uint8, endpoint string, mock bool) {
		reg := testkit.New(t, registry.Options{})
		p := testkit.Provider{
			Name: name, Instance: testkit.Says("x"), Capabilities: []string{capability}, Handler: handler, Group: group,
			Priority: registry.Priority(priority), Strategy: testkit.StrategyNumber(int(strategy)), Endpoint: endpoint, Mock: mock,
		}
		registration, err := testkit.Chat.Register(t.Context(), reg, p)
		if err != nil {
			testkit.RequireOneLine(t, err)
			require.Zero(t, reg.Stats())
			return
		}
		require.Len(t, testkit.Discovered(t, reg, capability), 1)
		r := testkit.Chat.Bind(reg, registry.Query{Handler: handler, Require: []string{capability}})
		require.Equal(t, registration.Name(), r.Explain().Winner)
		_, err = json.Marshal(registration.Info())
		require.NoError(t, err)
		require.NoError(t, reg.Close(t.Context()))
	})
}

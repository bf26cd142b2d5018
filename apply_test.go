package registry_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
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

// input is a description without a type, as a configuration has it.
type input = registry.Provider[any]

func fieldsOf(a status.Applied) (fields []string) {
	for _, d := range a.Differences {
		fields = append(fields, d.Field)
	}
	return fields
}

func TestApply_ChangesInPlaceWhatHasASetter(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a := testkit.Add(t, reg, testkit.Provider{Name: "a", Instance: testkit.Says("a"), Capabilities: []string{"x"}, Tags: []string{"t"}})
		testkit.Add(t, reg, testkit.Provider{Name: "b", Instance: testkit.Says("b")})
		testkit.MustAsk(t, testkit.Bind(reg))
		before, events := a.Info(), reg.Subscribe(0)
		same, applied, err := a.Apply(t.Context(), input{
			Name: "a", Capabilities: []string{"x"}, Tags: []string{"t"}, Priority: registry.PriorityLow, Group: 3,
			Strategy: registry.StrategyRoundRobin, Weight: 2, AttemptTimeout: time.Minute,
			Limits: registry.LimitPolicy{MaxConcurrent: 7}, Retry: registry.RetryPolicy{Retries: 2},
			Breaker: registry.BreakerPolicy{FailureThreshold: 9}, Health: health.Policy{Interval: time.Hour},
		})
		require.NoError(t, err)
		require.Same(t, a, same)
		require.False(t, applied.Replaced)
		require.Equal(t, []string{"Priority", "Group", "Strategy", "Weight", "Limits", "Retry", "AttemptTimeout", "Breaker", "Health"}, fieldsOf(applied))
		require.Equal(t, status.Difference{Field: "Weight", From: "1", To: "2", InPlace: true}, applied.Differences[3])
		require.Contains(t, applied.Differences[8].To, `"interval":"1h"`)

		now := a.Info()
		require.Equal(t, before.Generation, now.Generation)
		require.Equal(t, uint64(1), now.Successes, "counts are kept")
		require.Equal(t, []any{registry.PriorityLow, 3, 2.0, time.Minute}, []any{now.Priority, now.Group, now.Weight, now.AttemptTimeout})
		require.True(t, now.Strategy.Same(registry.StrategyRoundRobin))
		require.Equal(t, []int{7, 2, 9}, []int{now.Limits.MaxConcurrent, now.Retry.Retries, now.Breaker.Policy.FailureThreshold})
		require.Equal(t, time.Hour, now.HealthPolicy.Interval)
		kinds := testkit.Kinds(t, events)
		require.Len(t, kinds, len(applied.Differences))
		require.NotContains(t, kinds, event.Registered)

		same, applied, err = a.Apply(t.Context(), input{Capabilities: []string{"x"}, Tags: []string{"t"}, Group: 3, NoTraffic: true})
		require.NoError(t, err)
		require.Same(t, a, same)
		require.Equal(t, []string{"Priority", "Weight", "NoTraffic", "Limits", "Retry", "AttemptTimeout", "Breaker", "Health"}, fieldsOf(applied),
			"what is not set has its default, but for the strategy of the group")
		require.Zero(t, a.Weight())
		require.Equal(t, registry.LimitPolicy{}, a.Limits())
	})
}

func TestApply_OfTheSameChangesNothing(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		model := probed("a", func(context.Context) error { return nil })
		a := testkit.Add(t, reg, testkit.Provider{
			Name: "a", Instance: model, Domain: "key", Limits: registry.LimitPolicy{MaxConcurrent: 2}, Until: t.Context(),
			Classify: func(error) verdict.Verdict { return verdict.Verdict{} },
			Health:   health.Policy{Probe: func(context.Context) error { return nil }},
		})
		synctest.Wait()
		events := reg.Subscribe(0)
		for _, p := range []input{{Domain: "key"}, {Name: "a", Domain: "key", Handler: "*", Instance: model, Until: t.Context(), Capabilities: []string{}}} {
			same, applied, err := a.Apply(t.Context(), p)
			require.NoError(t, err)
			require.Same(t, a, same)
			require.Equal(t, status.Applied{}, applied)
		}
		require.Empty(t, testkit.Events(t, events))
		require.Equal(t, 2, a.Limits().MaxConcurrent, "those of a domain that others may share")
	})
}

func TestApply_ReplacesWhereAFieldHasNoSetter(t *testing.T) {
	t.Parallel()
	for name, p := range map[string]input{
		"Capabilities": {Capabilities: []string{"y"}},
		"Handler":      {Handler: "speak"},
		"Window":       {Window: 9},
		"Metadata":     {Metadata: map[string]string{"model": "x"}},
		"Domain":       {Domain: "key"},
		"Mock":         {Mock: true},
		"Instance":     {Instance: testkit.Says("another")},
		"Factory":      {Factory: func(context.Context) (any, error) { return testkit.Says("made"), nil }},
		"Classify":     {Classify: func(error) verdict.Verdict { return verdict.Verdict{} }},
		"":             {Replace: true},
	} {
		testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
			life, end := context.WithCancel(t.Context())
			a := testkit.Add(t, reg, testkit.Provider{Name: "a", Instance: testkit.Says("a"), Until: life})
			generation := a.Info().Generation
			now, applied, err := a.Apply(t.Context(), p)
			require.NoError(t, err, name)
			require.True(t, applied.Replaced, name)
			if name != "" {
				require.Equal(t, []string{name}, fieldsOf(applied))
				require.False(t, applied.Differences[0].InPlace)
			}
			<-a.Left()
			require.ErrorIs(t, a.Reset(), registry.ErrNotRegistered, name)
			require.Greater(t, now.Info().Generation, generation, name)
			require.NoError(t, now.Reset(), name)
			end()
			<-now.Left() // its lifetime is kept
		})
	}
}

func TestApply_KeepsWhatIsNoData(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		classified, made, probes := 0, 0, 0
		a := testkit.Add(t, reg, testkit.Provider{
			Name: "a", Capabilities: []string{"x"}, Breaker: testkit.NeverOpens(),
			Factory: func(context.Context) (testkit.ChatModel, error) {
				made++
				return testkit.Fails(testkit.ErrDown), nil
			},
			Classify: func(error) verdict.Verdict { classified++; return verdict.Verdict{} },
			Health: health.Policy{
				Probe:        func(context.Context) error { probes++; return nil },
				Capabilities: map[string]health.Probe{"x": func(context.Context) error { return nil }},
			},
		})
		_, err := testkit.Ask(t.Context(), testkit.Bind(reg))
		require.Error(t, err)
		require.Equal(t, []int{1, 1}, []int{made, classified})

		probes = 0
		now, applied, err := a.Apply(t.Context(), input{Capabilities: []string{"y"}, Breaker: testkit.NeverOpens()})
		require.NoError(t, err)
		require.Equal(t, []string{"Capabilities"}, fieldsOf(applied))
		require.Equal(t, 2, made, "the factory, which proves it")
		require.Positive(t, probes)
		require.NotContains(t, now.HealthPolicy().Capabilities, "x", "a probe of what it has no more")
		_, err = testkit.Ask(t.Context(), testkit.Bind(reg))
		require.Error(t, err)
		require.Equal(t, 2, classified)

		probes = 0
		same, applied, err := now.Apply(t.Context(), input{
			Capabilities: []string{"y"}, Breaker: testkit.NeverOpens(), Health: health.Policy{Probe: func(context.Context) error { return nil }},
		})
		require.NoError(t, err)
		require.Same(t, now, same)
		require.Equal(t, []string{"Health"}, fieldsOf(applied), "another function")
		testkit.Pass(time.Hour)
		require.Zero(t, probes)
	})
}

func TestApply_ThatFailsChangesNothing(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		p    input
		want error
		text string
	}{
		"another name":                           {input{Name: "b"}, registry.ErrInvalid, `Name is "b": want "a", or none`},
		"bad weight":                             {input{Weight: -1}, registry.ErrInvalid, "Weight is -1: want"},
		"bad breaker":                            {input{Priority: registry.PriorityLow, Breaker: registry.BreakerPolicy{FailureThreshold: -1}}, registry.ErrInvalid, "Breaker.FailureThreshold is -1: want"},
		"unknown strategy":                       {input{Priority: registry.PriorityLow, Strategy: named(t, "UNKNOWN")}, registry.ErrInvalid, `Strategy is "UNKNOWN": want one of`},
		"typed nil":                              {input{Instance: (*testkit.NilModel)(nil)}, registry.ErrInvalid, "Instance is a nil"},
		"another type":                           {input{Instance: 1}, registry.ErrInvalid, "Instance is of type int: want a testkit.ChatModel"},
		"strategy of others, with a replacement": {input{Window: 1, Strategy: registry.StrategyRoundRobin}, registry.ErrConflict, "Strategy is ROUND_ROBIN: want FALLBACK"},
		"not proven":                             {input{Factory: func(context.Context) (any, error) { return nil, testkit.ErrDown }}, testkit.ErrDown, "has not proven itself"},
		"refused":                                {input{Description: "refused"}, errors.ErrUnsupported, "refused"},
	} {
		testkit.Bubble(t, registry.Options{Admit: func(_ context.Context, d registry.Definition) error {
			return map[string]error{"refused": errors.ErrUnsupported}[d.Description]
		}}, func(t *testing.T, reg *registry.Registry) {
			a := testkit.Add(t, reg, testkit.Provider{Name: "a", Instance: testkit.Says("a")})
			testkit.Add(t, reg, testkit.Provider{Name: "b", Instance: testkit.Says("b")})
			before := testkit.Infos(reg)
			same, applied, err := a.Apply(t.Context(), row.p)
			require.ErrorIs(t, err, row.want, name)
			require.ErrorContains(t, err, row.text, name)
			require.Same(t, a, same, name)
			require.Equal(t, status.Applied{}, applied, name)
			require.Equal(t, before, testkit.Infos(reg), name)
		})
	}
}

func TestApply_IsOfOneRegistration(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a := testkit.Add(t, reg, testkit.Provider{Name: "a", Instance: testkit.Says("a")})
		_, _, err := a.Apply(nil, input{}) //nolint:staticcheck // a nil context
		require.ErrorIs(t, err, registry.ErrInvalid)
		for _, none := range []*registry.Registration{nil, {}} {
			_, _, err = none.Apply(t.Context(), input{})
			require.ErrorIs(t, err, registry.ErrNotRegistered)
		}
		begun, proven := make(chan struct{}), make(chan struct{})
		first := make(chan error, 1)
		go func() {
			_, _, err := a.Apply(t.Context(), input{Factory: func(context.Context) (any, error) {
				close(begun)
				<-proven
				return testkit.Says("made"), nil
			}})
			first <- err
		}()
		<-begun
		_, _, err = a.Apply(t.Context(), input{Weight: 3})
		require.NoError(t, err)
		now, _, err := a.Apply(t.Context(), input{Window: 3})
		require.NoError(t, err)
		close(proven)
		require.ErrorIs(t, <-first, registry.ErrNotRegistered, "it would replace another one")
		_, _, err = a.Apply(t.Context(), input{})
		require.ErrorIs(t, err, registry.ErrNotRegistered)
		require.Equal(t, 3, now.Info().Window)
	})
}

func TestApply_KeepsASwappedProvider(t *testing.T) {
	t.Parallel()
	reg := testkit.New(t, registry.Options{})
	a := testkit.Add(t, reg, testkit.Provider{Name: "a", Instance: testkit.Says("a")})
	undo, err := testkit.Chat.Testing(reg).Swap(t.Name(), "a", testkit.Says("fake"))
	require.NoError(t, err)
	_, applied, err := a.Apply(t.Context(), input{Weight: 2})
	require.NoError(t, err)
	require.False(t, applied.Replaced)
	_, _, err = a.Apply(t.Context(), input{Weight: 2, Window: 1})
	require.ErrorIs(t, err, registry.ErrConflict)
	require.Equal(t, "fake", testkit.MustAsk(t, testkit.Bind(reg)))
	require.NoError(t, undo(t.Context()))
}

func named(t *testing.T, name string) (s selection.Strategy) {
	t.Helper()
	require.NoError(t, s.UnmarshalText([]byte(name)))
	return s
}

package config_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/config"
	"github.com/capreg/registry/health"
	"github.com/capreg/registry/registrytest"
)

func TestKind_SettingsReachTheFactoryInItsType(t *testing.T) {
	t.Setenv("CONFIG_TEST_PORT", "8080")
	reg, m, w := manage(t)
	apply(t, m, models("name: a, settings: {model: big, port: '${env:CONFIG_TEST_PORT}', cache: 16MiB}"))
	require.Equal(t, modelSettings{Model: "big", Port: 8080, Cache: 16 << 20}, w.last())
	require.Equal(t, "big", ask(t, reg))
}

func TestKind_WrongSettingsAreProblemsOfTheDocument(t *testing.T) {
	t.Parallel()
	reg, m, w := manage(t, config.BindImplementation(llm, "refuses", func(struct{}) (config.Implementation[model], error) {
		return config.Implementation[model]{}, errors.New("not today")
	}), config.BindImplementation(llm, "panics", func(struct{}) (config.Implementation[model], error) { panic("oh") }),
		config.Bind(llm, "needs", func(context.Context, struct {
			URL string `json:"url" jsonschema:"required"`
		},
		) (model, error) {
			return &fakeModel{}, nil
		}))
	_, err := m.Plan(t.Context(), parse(t, models("name: a, settings: {modell: big}", "name: b, settings: {port: many}", "name: c, settings: {port: -1}")+
		"    - {name: d, kind: modell}\n    - {name: e, kind: refuses}\n    - {name: f, kind: panics}\n    - {name: g, kind: needs}\n"))
	var refused *config.Error
	require.ErrorAs(t, err, &refused)
	var lines []string
	for _, p := range refused.Problems {
		lines = append(lines, p.String())
	}
	require.Equal(t, []string{
		`a.yaml:4:41: services.llm.providers[a].settings.modell: unknown field, did you mean "model"?`,
		`a.yaml:5:47: services.llm.providers[b].settings.port: is "many": want a whole number`,
		`a.yaml:6:40: services.llm.providers[c].settings: port is negative`,
		`a.yaml:7:23: services.llm.providers[d].kind: service "llm" has no kind "modell": want one of model, needs, panics, refuses, did you mean "model"?`,
		`a.yaml:8:7: services.llm.providers[e].settings: not today`,
		`a.yaml:9:7: services.llm.providers[f].settings: panic: oh`,
		`a.yaml:10:7: services.llm.providers[g].settings: url is missing`,
	}, lines)
	require.Empty(t, listing(reg))
	require.Zero(t, w.count())
}

func TestKind_ImplementationsHaveProbesOfTheirOwn(t *testing.T) {
	t.Parallel()
	probed := make(chan struct{}, 100)
	var sick atomic.Bool
	reg, m, _ := manage(t, config.BindImplementation(llm, "probed", func(modelSettings) (config.Implementation[model], error) {
		return config.Implementation[model]{
			Instance: &fakeModel{modelSettings: modelSettings{Model: "mine"}, of: &workshop{}},
			Probe: func(context.Context) error {
				probed <- struct{}{}
				if sick.Load() {
					return errors.New("ill")
				}
				return nil
			},
			CapabilityProbes: map[string]health.Probe{"chat": func(context.Context) error { return nil }},
		}, nil
	}))
	apply(t, m, "services: {llm: {providers: [{name: a, kind: probed, capabilities: [chat], health: {interval: 1h, fall: 7}}]}}")
	<-probed
	require.Equal(t, "mine", ask(t, reg))
	require.Equal(t, 7, listing(reg)[0].HealthPolicy.Fall)
	sick.Store(true)
	_, err := m.Apply(t.Context(), parse(t, "services: {llm: {providers: [{name: a, kind: probed, tags: [x], capabilities: [chat], health: {interval: 1h, fall: 1}}]}}"))
	require.ErrorIs(t, err, registry.ErrNotReady)
	require.ErrorContains(t, err, "ill")
	require.Equal(t, "mine", ask(t, reg))
}

func TestKind_OnesThatCannotBeBoundAreRefused(t *testing.T) {
	t.Parallel()
	reg := registrytest.New(t, registry.Options{})
	w := &workshop{}
	kind := config.Bind(llm, "model", w.make)
	_, err := config.New(reg, config.Options{Kinds: []config.Kind{kind, kind}})
	require.ErrorIs(t, err, registry.ErrConflict)
	for _, wrong := range []config.Kind{{}, config.Bind(llm, "", w.make)} {
		_, err = config.New(reg, config.Options{Kinds: []config.Kind{wrong}})
		require.ErrorIs(t, err, registry.ErrInvalid)
	}
	_, err = config.New(nil, config.Options{})
	require.ErrorIs(t, err, registry.ErrInvalid)
}

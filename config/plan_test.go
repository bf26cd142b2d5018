package config_test

import (
	"encoding/json"
	"errors"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/config"
	"github.com/capreg/registry/registrytest"
	"github.com/capreg/registry/status"
)

const before = `
domains: {key: {limits: {max_concurrent: 8}}}
services:
  llm:
    groups: {1: {strategy: ROUND_ROBIN}}
    providers:
      - {name: kept, kind: model, settings: {model: kept}}
      - {name: altered, kind: model, settings: {model: altered}, weight: 2, domain: key}
      - {name: replaced, kind: model, settings: {model: small, key: "${env:CONFIG_TEST_ABSENT:-k}"}, domain: key, tags: [a]}
      - {name: removed, kind: model, group: 1}
queries:
  any: {service: llm}
  cheap: {service: llm, where: {tags: [a]}}
`

const after = `
domains: {key: {limits: {max_concurrent: 4}}}
required: [llm]
services:
  llm:
    selection: {spill_over: 1.4}
    groups: {1: {strategy: FALLBACK}}
    providers:
      - {name: kept, kind: model, settings: {model: kept}}
      - name: altered
        kind: model
        settings: {model: altered}
        weight: 3
        priority: HIGH
        domain: key
        breaker: {failure_threshold: 3}
      - {name: replaced, kind: model, settings: {model: big, key: "${env:CONFIG_TEST_ABSENT:-k}"}, domain: key, tags: [a, b], priority: LOW}
      - {name: added, kind: model, group: 1}
queries:
  any: {service: llm}
  cheap: {service: llm, where: {tags: [a]}}
`

func TestPlan_NamesEveryChangeAndWhatIsKept(t *testing.T) {
	t.Parallel()
	reg, m, w := manage(t)
	apply(t, m, before)
	was, made := listing(reg), w.count()
	plan, err := m.Plan(t.Context(), parse(t, after))
	require.NoError(t, err)
	require.Equal(t, `~ domains.key: alter limits.max_concurrent 8 → 4; keeps everything
~ services.llm.selection: alter spill_over (default) → 1.4; keeps everything
~ services.llm.groups.1: alter strategy ROUND_ROBIN → FALLBACK; keeps everything
~ services.llm.providers[altered]: alter breaker.failure_threshold (default) → 3, priority (default) → HIGH, weight 2 → 3; keeps everything
± services.llm.providers[replaced]: replace priority (default) → LOW, tags ["a"] → ["a","b"], settings.model small → big; not in place: tags, settings.model; keeps position, turn in rotations, queue, limits in use and cooldown of its domain
+ services.llm.providers[added]: add
- services.llm.providers[removed]: remove
1 to add, 4 to alter, 1 to replace, 1 to remove, 1 kept
picked for any: kept → altered
picked for cheap: replaced
`, plan.String())
	require.Equal(t, was, listing(reg), "a plan changes nothing")
	require.Equal(t, made, w.count())
	text, err := json.Marshal(plan)
	require.NoError(t, err)
	var again config.Plan
	require.NoError(t, json.Unmarshal(text, &again))
	require.Equal(t, plan, &again)

	done, err := m.Apply(t.Context(), parse(t, after))
	require.NoError(t, err)
	require.Equal(t, plan, done, "what was planned is done")
	again2, err := m.Plan(t.Context(), parse(t, after))
	require.NoError(t, err)
	require.True(t, again2.Empty(), "%v", again2)
	require.Equal(t, again2.Picks[0].After, done.Picks[0].After)
}

func TestPlan_ProvidersOfOneNameInTwoServicesAreTwo(t *testing.T) {
	t.Parallel()
	mail := registry.NewService[model]("mail")
	w := &workshop{}
	reg, m, _ := manage(t, config.Bind(mail, "model", w.make))
	both := func(chat, mail string) string {
		return "services:\n  llm:\n    providers:\n    - {kind: model, name: a" + chat + "}\n" +
			"  mail:\n    providers:\n    - {kind: model, name: a" + mail + "}\n"
	}
	apply(t, m, both("", ""))
	llmA, ok := reg.Provider("llm", "a")
	require.True(t, ok)
	mailA, ok := reg.Provider("mail", "a")
	require.True(t, ok)
	require.NoError(t, mailA.ForceOpen(time.Hour, "test"))
	file := filepath.Join(t.TempDir(), "state")
	require.NoError(t, m.Save(file))

	next := both("", ", weight: 3, retry: {retries: 2}")
	plan, err := m.Plan(t.Context(), parse(t, next))
	require.NoError(t, err)
	for _, c := range plan.Changes {
		require.Equal(t, c.Service == "mail", c.Action == config.Alter, "%+v", c)
	}
	apply(t, m, next)
	require.InDelta(t, 1, llmA.Weight(), 0)
	require.InDelta(t, 3, mailA.Weight(), 0)
	apply(t, m, "services:\n  llm:\n    providers:\n    - {kind: model, name: a, version: '2'}\n")
	<-mailA.Left()
	require.Equal(t, 1, reg.Stats().Providers)

	reg, m, _ = manage(t, config.Bind(mail, "model", w.make))
	restored, err := m.Restore(file)
	require.NoError(t, err)
	require.Equal(t, 1, restored.Providers)
	apply(t, m, both("", ""))
	llmA, _ = reg.Provider("llm", "a")
	mailA, _ = reg.Provider("mail", "a")
	require.Equal(t, status.BreakerClosed, llmA.Breaker().State)
	require.Equal(t, status.BreakerOpen, mailA.Breaker().State)
}

func TestPlan_PicksFollowStrategyHealthAndTheProgramsOwnProviders(t *testing.T) {
	t.Parallel()
	reg, m, _ := manage(t)
	own, err := llm.Register(t.Context(), reg, registry.Provider[model]{Name: "own", Instance: &fakeModel{}, Priority: registry.PriorityCritical})
	require.NoError(t, err)
	document := models("name: a, group: 0", "name: b, group: 1", "name: c, group: 1") +
		"    groups: {1: {strategy: ROUND_ROBIN}}\nqueries: {q: {service: llm}}\n"
	plan, err := m.Plan(t.Context(), parse(t, document))
	require.NoError(t, err)
	require.Equal(t, config.Pick{Query: "q", Before: []string{"own"}, After: []string{"own"}}, plan.Picks[0])
	require.NoError(t, own.MarkUnhealthy(errors.New("ill")))
	plan = apply(t, m, document)
	require.Equal(t, config.Pick{Query: "q", Before: []string{}, After: []string{"a"}}, plan.Picks[0])

	a, _ := reg.Provider("llm", "a")
	require.NoError(t, a.MarkUnhealthy(errors.New("ill")))
	plan, err = m.Plan(t.Context(), parse(t, document))
	require.NoError(t, err)
	require.Equal(t, []string{"b", "c"}, plan.Picks[0].After, "all that take turns")
	require.True(t, plan.Empty())
}

func TestPlan_WarnsOfWhatMayNotBeMeant(t *testing.T) {
	t.Parallel()
	reg, m, _ := manage(t)
	apply(t, m, models("name: a", "name: b, group: 1"))
	for document, want := range map[string]string{
		models("name: b, group: 1"):                 `service "llm" falls back from group 0 to group 1`,
		models("name: a, no_traffic: true"):         `service "llm" has no healthy provider afterwards`,
		models("name: a, settings: {key: literal}"): `services.llm.providers[a].settings.key is written in the document`,
	} {
		plan, err := m.Plan(t.Context(), parse(t, document))
		require.NoError(t, err)
		require.Len(t, plan.Warnings, 1, "%v", plan)
		require.Contains(t, plan.Warnings[0], want)
	}
	a, _ := reg.Provider("llm", "a")
	require.NoError(t, a.MarkUnhealthy(errors.New("ill")))
	plan, err := m.Plan(t.Context(), parse(t, models("name: a")))
	require.NoError(t, err)
	require.Equal(t, []string{`service "llm" has no healthy provider afterwards`}, plan.Warnings)
}

func TestPlan_WhatARegistryWouldRefuseIsRefusedWithItsPlace(t *testing.T) {
	t.Parallel()
	_, m, _ := manage(t)
	for fields, want := range map[string]string{
		"name: a, breaker: {failure_threshold: -1}": `a.yaml:4:59: services.llm.providers[a].breaker.failure_threshold: is -1: want`,
		"name: a, health: {interval: -1s}":          `services.llm.providers[a].health.interval: is -1s: want`,
		"name: a, limits: {rate: -2}":               `services.llm.providers[a].limits.rate: is -2: want`,
		"name: a, retry: {retries: 1000}":           `services.llm.providers[a].retry.retries: is 1000: want`,
		"name: a, attempt_timeout: -1s":             `services.llm.providers[a].attempt_timeout: is -1s: want`,
		"name: a, endpoint: 'no url'":               `services.llm.providers[a].endpoint: is "no url": want`,
		"name: a, weight: -1":                       `services.llm.providers[a].weight: is -1: want`,
		"name: ' a'":                                `services.llm.providers[ a].name: is " a": want`,
		"name: a, capabilities: ['']":               `services.llm.providers[a].capabilities[0]: is "": want`,
	} {
		_, err := m.Plan(t.Context(), parse(t, models(fields)))
		require.ErrorContains(t, err, want)
		require.ErrorIs(t, err, registry.ErrInvalid, fields)
	}
	_, err := m.Plan(t.Context(), parse(t, models("name: a")+"    groups: {0: {strategy: NO_SUCH}}\n    selection: {spill_over: 0.5}\n"))
	require.ErrorContains(t, err, "NO_SUCH")
	require.ErrorContains(t, err, "spill_over", "all at once")
	_, err = m.Plan(t.Context(), parse(t, models("name: a")+"    selection: {spill_over: 0.5}\n"))
	require.ErrorContains(t, err, "a.yaml:5:29: services.llm.selection.spill_over: is 0.5: want")
	_, err = m.Plan(t.Context(), nil)
	require.ErrorIs(t, err, registry.ErrInvalid)
}

// Options of the registry that a document on its own cannot know of.
func TestPlan_WhatThisRegistryForbidsIsRefusedWithItsPlace(t *testing.T) {
	t.Parallel()
	w := &workshop{}
	reg := registrytest.New(t, registry.Options{ForbidMocks: true})
	m, err := config.New(reg, config.Options{Kinds: []config.Kind{config.Bind(llm, "model", w.make)}})
	require.NoError(t, err)
	for providers, want := range map[string]string{
		models("name: a", "name: b, mock: true"):                           "services.llm.providers[b]",
		models("name: a") + "    groups: {0: {strategy: LATENCY_AWARE}}\n": `services.llm.providers[a].strategy: is "LATENCY_AWARE": want`,
	} {
		_, err := m.Plan(t.Context(), parse(t, providers))
		require.ErrorContains(t, err, want)
	}
	_, err = llm.Register(t.Context(), reg, registry.Provider[model]{Name: "own", Instance: &fakeModel{of: w}})
	require.NoError(t, err)
	_, err = m.Plan(t.Context(), parse(t, models("name: own")))
	require.ErrorContains(t, err, "services.llm.providers[own].name")
	require.ErrorIs(t, err, registry.ErrExists)
	require.Zero(t, w.count(), "no factory has run")
}

func TestPlan_SettingsMadeByAProgramAreCheckedToo(t *testing.T) {
	t.Parallel()
	reg, m, w := manage(t)
	d := &config.Document{Services: map[string]config.Service{"llm": {Providers: []config.Provider{
		{Name: "a", Kind: "model", Settings: config.SettingsOf(modelSettings{Model: "made"})},
	}}}}
	_, err := m.Apply(t.Context(), d)
	require.NoError(t, err)
	require.Equal(t, "made", ask(t, reg))
	require.Equal(t, "made", w.last().Model)
	d.Services["llm"].Providers[0].Settings = config.SettingsOf(func() {})
	_, err = m.Plan(t.Context(), d)
	require.ErrorContains(t, err, "services.llm.providers[a].settings: is empty: want fields")
	_, err = m.Plan(t.Context(), &config.Document{})
	require.ErrorContains(t, err, "services: there are none")
}

func TestManager_NilAndEndedContextsAreRefused(t *testing.T) {
	t.Parallel()
	_, m, _ := manage(t)
	require.Nil(t, m.Current())
	_, err := m.Plan(nil, parse(t, models("name: a"))) //nolint:staticcheck // it is what is tested
	require.ErrorIs(t, err, registry.ErrInvalid)
	require.NoError(t, m.WaitReady(t.Context()))
	reg := registrytest.New(t, registry.Options{})
	require.NoError(t, reg.Close(t.Context()))
	closed, err := config.New(reg, config.Options{Kinds: []config.Kind{config.Bind(llm, "model", (&workshop{}).make)}})
	require.NoError(t, err)
	_, err = closed.Apply(t.Context(), parse(t, models("name: a")))
	require.ErrorIs(t, err, registry.ErrClosed)
}

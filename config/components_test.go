package config_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/config"
	"github.com/capreg/registry/startup"
)

const arranged = `
components:
  web:
    needs: [{component: database}, {capability: search, optional: true}]
    start_timeout: 5s
    restart: {mode: always, max_restarts: 9, decay: 1m}
  database: {non_critical: true, stop_timeout: 1m30s}
`

func starts(name string, started *[]string, provides ...string) registry.Component {
	return registry.Component{Name: name, Provides: provides, Start: func(context.Context, *startup.Run) error {
		*started = append(*started, name)
		return nil
	}}
}

func TestComponents_StartInTheOrderOfTheDocument(t *testing.T) {
	t.Parallel()
	d := parse(t, models("name: a")+arranged)
	var started []string
	web, database, other := starts("web", &started), starts("database", &started), starts("other", &started)
	web.Needs = []startup.Need{{Component: "other"}}
	web.StopTimeout = time.Minute
	other.Needs = []startup.Need{{Component: "database"}}
	all, err := d.Arrange(web, other, database)
	require.NoError(t, err)
	require.Len(t, all, 3)
	require.Equal(t, []startup.Need{{Component: "other"}, {Component: "database"}, {Capability: "search", Optional: true}}, all[0].Needs)
	require.Equal(t, 5*time.Second, all[0].StartTimeout)
	require.Equal(t, time.Minute, all[0].StopTimeout, "of the program")
	require.Equal(t, startup.Restart{Mode: startup.Always, MaxRestarts: 9, Decay: time.Minute}, all[0].Restart)
	require.True(t, all[2].NonCritical)
	require.Equal(t, 90*time.Second, all[2].StopTimeout)
	require.Len(t, web.Needs, 1, "those of the program are as they were")

	o, err := registry.NewOrchestrator(nil, startup.Options{}, all...)
	require.NoError(t, err)
	_, err = o.Start(t.Context())
	require.NoError(t, err)
	require.Equal(t, []string{"database", "other", "web"}, started)
	require.NoError(t, o.Stop(t.Context()))
}

func TestComponents_WhatDoesNotFitTheProgramIsToldWithItsPlace(t *testing.T) {
	t.Parallel()
	var started []string
	web, database := starts("web", &started), starts("database", &started)
	for text, want := range map[string]string{
		"components: {webb: {}}":                             `a.yaml:5:20: components.webb: the program has no component of that name, did you mean "web"?`,
		"components: {web: {needs: [{component: databse}]}}": `components.web.needs: nothing provides component "databse", did you mean "database"?`,
		"components: {web: {needs: [{capability: sql}]}}":    `components.web.needs: nothing provides "sql"`,
	} {
		_, err := parse(t, models("name: a")+text).Arrange(web, database)
		require.ErrorContains(t, err, want)
	}
	database.Needs = []startup.Need{{Component: "web"}}
	_, err := parse(t, models("name: a")+"components: {web: {needs: [{component: database}]}}").Arrange(web, database)
	require.ErrorContains(t, err, `they wait for each other: "web" needs component "database" of "database", which needs component "web" of "web"`)
	var plan *startup.PlanError
	require.ErrorAs(t, err, &plan)
}

func TestComponents_WhatIsWrongByItselfIsAProblemOfTheDocument(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"components: {a: {needs: [{component: b}]}, b: {needs: [{component: a}]}}": `a.yaml:5:17: components.a: they wait for each other`,
		"components: {a: {needs: [{component: a}]}}":                               `components.a: they wait for each other: "a" needs component "a" of itself`,
		"components: {a: {needs: [{}]}}":                                           `components.a.needs[0]: is`,
		"components: {a: {needs: [{component: b, capability: c}]}}":                `components.a.needs[0]: is`,
		"components: {a: {start_timeout: -1s}}":                                    `components.a.start_timeout: is -1s`,
		"components: {a: {restart: {mode: sometimes}}}":                            `components.a.restart.mode: is "sometimes"`,
		"components: {a: {restart: {max_restarts: -1}}}":                           `components.a.restart.max_restarts: is -1`,
		"components: {a: {need: []}}":                                              `components.a.need: unknown field, did you mean "needs"?`,
	} {
		d, err := config.Parse("a.yaml", []byte(models("name: a")+text))
		if err == nil {
			err = config.Check(d, config.Options{})
		}
		var refused *config.Error
		require.ErrorAs(t, err, &refused, text)
		require.Len(t, refused.Problems, 1, text)
		require.ErrorContains(t, err, want)
	}
}

func TestComponents_ChangesAreForTheNextStart(t *testing.T) {
	t.Parallel()
	_, m, _ := manage(t)
	first := apply(t, m, models("name: a")+arranged)
	require.Equal(t, 1, first.Count(config.Add))
	require.Zero(t, first.Count(config.Alter))
	plan := apply(t, m, models("name: a")+"components: {web: {start_timeout: 6s}, database: {non_critical: true, stop_timeout: 1m30s}}\n")
	require.Contains(t, plan.String(), "~ components.web: alter needs")
	require.Contains(t, plan.String(), "start_timeout 5s → 6s; keeps everything until the next start")
	require.Equal(t, 1, plan.Count(config.Alter))
	require.Equal(t, 1, plan.Count(config.Keep))
}

func TestComponents_OfSeveralFilesAreOneDocument(t *testing.T) {
	t.Parallel()
	dir := write(t, map[string]string{"1.yaml": models("name: a"), "2.yaml": arranged, "3.yaml": "components: {cache: {}}\n"})
	d, err := config.Load(dir)
	require.NoError(t, err)
	require.Len(t, d.Components, 3)
	dir = write(t, map[string]string{"1.yaml": models("name: a"), "2.yaml": arranged, "3.yaml": "components: {web: {}}\n"})
	_, err = config.Load(dir)
	require.ErrorContains(t, err, "components.web: is there twice")
}

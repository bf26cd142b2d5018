package registry_test

import (
	"context"
	"encoding/json"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/internal/testkit"
	"github.com/capreg/registry/startup"
)

func TestPlan_ShowsBatchesAndOrder(t *testing.T) {
	t.Parallel()
	var j testkit.Journal
	optional := j.Component("web", 0, "app")
	optional.Needs = append(optional.Needs, startup.Need{Capability: "metrics", Optional: true})
	o := testkit.Orchestrate(t, startup.Options{}, optional, j.Component("app", 0, "db", "cache"), j.Component("db", 0), j.Component("cache", 0))
	plan := o.Plan()
	require.Equal(t, [][]string{{"db", "cache"}, {"app"}, {"web"}}, plan.Batches)
	require.Equal(t, "batch 1: db, cache\nbatch 2: app (after db, cache)\nbatch 3: web (after app)", plan.String())
	require.Equal(t, "metrics", plan.Steps[3].Absent[0].Capability)
	text, err := json.Marshal(plan)
	require.NoError(t, err)
	require.Contains(t, string(text), `"batches":[["db","cache"],["app"],["web"]]`)
	require.NoError(t, o.Stop(t.Context()))
}

func TestPlan_ReportsAllErrorsAtOnce(t *testing.T) {
	t.Parallel()
	var j testkit.Journal
	self := j.Component("self", 0, "self")
	_, err := registry.NewOrchestrator(nil, startup.Options{},
		j.Component("a", 0, "b"), j.Component("b", 0, "c"), j.Component("c", 0, "a", "b"),
		j.Component("database", 0), j.Component("app", 0, "databse", "nothing"), self,
		j.Component("twice", 0), j.Component("twice", 0),
		registry.Component{Name: "named", Needs: []startup.Need{{Component: "ap"}}})
	testkit.RequireOneLine(t, err)
	require.ErrorIs(t, err, startup.ErrPlan)
	var wrong *startup.PlanError
	require.ErrorAs(t, err, &wrong)
	require.Equal(t, []string{"twice"}, wrong.Duplicates)
	require.Len(t, wrong.Missing, 3)
	require.Equal(t, []string{"database"}, wrong.Missing[0].Nearest)
	require.Empty(t, wrong.Missing[1].Nearest)
	require.Contains(t, wrong.Missing[2].Nearest, "app")
	require.Len(t, wrong.Cycles, 2)
	for _, part := range []string{
		`there are several components "twice"`, `"app" needs "databse", which no component provides: did you mean database?`,
		`"self" needs "self" of itself`, `"b" needs "c" of "c", which needs "b" of "b"`,
	} {
		require.Contains(t, err.Error(), part)
	}
}

func TestPlan_HasNoEmptyBatchAfterRemoval(t *testing.T) {
	t.Parallel()
	b := registry.Component{Name: "b", Needs: []startup.Need{{Component: "a", OrderOnly: true}}}
	o := testkit.Orchestrate(t, startup.Options{}, registry.Component{Name: "a"}, b)
	require.NoError(t, o.Remove(t.Context(), "a"))
	require.Equal(t, "batch 1: b", o.Plan().String())
}

func TestNeeds_OptionalOrderedAndAny(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var j testkit.Journal
		failing := func(name string, provides ...string) registry.Component {
			return registry.Component{Name: name, Provides: provides, NonCritical: true, Start: func(context.Context, *startup.Run) error {
				time.Sleep(time.Second)
				return testkit.ErrDown
			}}
		}
		app := j.Component("app", 0)
		app.Needs = []startup.Need{
			{Capability: "llm", Any: true},
			{Capability: "metrics", Optional: true},
			{Capability: "absent", Optional: true},
			{Component: "first", OrderOnly: true},
			{Component: "no such", OrderOnly: true},
		}
		quick, slow := j.Component("quick", 2*time.Second), j.Component("slow", time.Hour)
		quick.Provides, slow.Provides = []string{"llm"}, []string{"llm"}
		all := j.Component("all", 0, "llm")
		all.NonCritical = true
		needy := j.Component("needy", 0, "metrics")
		o := testkit.Orchestrate(t, startup.Options{StartTimeout: 2 * time.Hour}, app, quick, slow, all, needy,
			failing("broken", "llm"), failing("metrics", "metrics"), j.Component("first", 3*time.Second))
		done := make(chan error, 1)
		go func() { _, err := o.Start(t.Context()); done <- err }()
		testkit.Pass(3 * time.Second)
		require.Equal(t, "ready", testkit.StateOf(t, o, "app"))
		require.Equal(t, "skipped", testkit.StateOf(t, o, "all"), "one of all failed")
		require.Equal(t, "skipped", testkit.StateOf(t, o, "needy"))
		require.NoError(t, o.Stop(t.Context()))
		require.ErrorIs(t, <-done, registry.ErrClosed)
		report := o.Report()
		for _, c := range report.Components {
			switch c.Name {
			case "app":
				require.Equal(t, []string{
					`"absent" (optional)`, `"metrics" (optional) of "metrics", which failed`, `component "no such" (order only)`,
				}, sorted(c.Absent))
				require.Equal(t, "first", c.BlockedBy)
			case "needy":
				require.Equal(t, `needs "metrics" of "metrics", which failed`, c.Reason)
			}
		}
	})
}

func TestNeeds_AnyFailsOnlyWhenAllFailed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		broken := func(name string) registry.Component {
			return registry.Component{Name: name, Provides: []string{"x"}, Start: func(context.Context, *startup.Run) error { return testkit.ErrDown }}
		}
		app := registry.Component{Name: "app", Needs: []startup.Need{{Capability: "x", Any: true}}}
		o := testkit.Orchestrate(t, startup.Options{OnFailure: startup.SkipDependants}, app, broken("a"), broken("b"))
		_, err := o.Start(t.Context())
		require.NoError(t, err)
		require.Equal(t, "skipped", testkit.StateOf(t, o, "app"))
		require.NoError(t, o.Stop(t.Context()))
	})
}

func TestNewOrchestrator_BadInputIsRefusedByField(t *testing.T) {
	t.Parallel()
	for field, c := range map[string]registry.Component{
		"Component.Name":                     {},
		`Component["a"].Provides[0]`:         {Name: "a", Provides: []string{" x"}},
		`Component["a"].Needs[0]`:            {Name: "a", Needs: []startup.Need{{}}},
		`Component["a"].StartTimeout`:        {Name: "a", StartTimeout: -1},
		`Component["a"].StopTimeout`:         {Name: "a", StopTimeout: -1},
		`Component["a"].Restart.MaxRestarts`: {Name: "a", Restart: startup.Restart{MaxRestarts: -1}},
		`Component["a"].Restart.Mode`:        {Name: "a", Restart: startup.Restart{Mode: 9}},
		`Component["a"].Restart.FirstDelay`:  {Name: "a", Restart: startup.Restart{FirstDelay: -1}},
		`Component["a"].Register`:            {Name: "a", Register: make([]func(context.Context, *registry.Registry) (*registry.Registration, error), 1)},
	} {
		_, err := registry.NewOrchestrator(nil, startup.Options{}, c)
		var refused *registry.FieldError
		require.ErrorAs(t, err, &refused, field)
		require.Contains(t, refused.Field, field)
	}
	for field, options := range map[string]startup.Options{
		"Options.MaxConcurrent": {MaxConcurrent: -1}, "Options.OnFailure": {OnFailure: 9},
		"Options.StartTimeout": {StartTimeout: -1}, "Options.StopTimeout": {StopTimeout: -1},
	} {
		_, err := registry.NewOrchestrator(nil, options)
		require.ErrorContains(t, err, field)
	}
}

func TestComponent_MapsFromDefinition(t *testing.T) {
	t.Parallel()
	var d startup.Definition
	require.NoError(t, json.Unmarshal([]byte(`{"name":"memory","version":"1.2","description":"remembers","capabilities":["memory"],"required_capabilities":["sql"]}`), &d))
	c := registry.Component{Description: "mine"}.From(d)
	require.Equal(t, registry.Component{
		Name: "memory", Version: "1.2", Description: "mine", Provides: []string{"memory"}, Needs: startup.Capabilities("sql"),
	}, c)
}

func TestComponent_IsCopiedWhenAdded(t *testing.T) {
	t.Parallel()
	components := []registry.Component{
		{Name: "app", Needs: startup.Capabilities("app", "sql")},
		{Name: "db", Provides: []string{"sql", "app", "sql"}},
		{Name: "late", Provides: []string{"app"}, Needs: startup.Capabilities("sql")},
	}
	o := testkit.Orchestrate(t, startup.Options{}, components...)
	components[0].Name, components[1].Provides[0], components[2].Needs[0].Capability = "changed", "changed", "changed"
	require.Equal(t, "batch 1: db\nbatch 2: late (after db)\nbatch 3: app (after db, late, db)", o.Plan().String())
	require.NoError(t, o.Stop(t.Context()))
}

func TestPlan_NamesProvidersOfCapabilityInOrder(t *testing.T) {
	t.Parallel()
	o := testkit.Orchestrate(t, startup.Options{},
		registry.Component{Name: "first", Provides: []string{"llm"}}, registry.Component{Name: "llm", Provides: []string{"llm"}},
		registry.Component{Name: "last", Provides: []string{"llm"}}, registry.Component{Name: "app", Needs: startup.Capabilities("llm")},
		registry.Component{Name: "named", Needs: []startup.Need{{Component: "llm"}}})
	require.Equal(t, "batch 1: first, llm, last\nbatch 2: app (after first, llm, last), named (after llm)", o.Plan().String())
	require.NoError(t, o.Stop(t.Context()))
}

func TestNeeds_OptionalSelfIsAbsent(t *testing.T) {
	t.Parallel()
	_, err := registry.NewOrchestrator(nil, startup.Options{}, registry.Component{Name: "a", Provides: []string{"x"}, Needs: []startup.Need{{Capability: "x", Optional: true}}})
	require.NoError(t, err)
}

func sorted(words []string) []string {
	slices.Sort(words)
	return words
}

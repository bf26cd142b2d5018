package lifecycle_test

import (
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry/internal/lifecycle"
	"github.com/capreg/registry/startup"
)

func planError(t *testing.T, components ...component) *startup.PlanError {
	t.Helper()
	_, err := lifecycle.New(startup.Options{}, withDefaults(components))
	var wrong *startup.PlanError
	require.ErrorAs(t, err, &wrong)
	return wrong
}

func TestPlan_HasEachComponentInTheBatchAfterItsNeeds(t *testing.T) {
	t.Parallel()
	var j journal
	web := j.component("web", 0, "app")
	web.Version = "2"
	web.Needs = append(web.Needs, startup.Need{Capability: "metrics", Optional: true}, startup.Need{Component: "nothing", OrderOnly: true})
	plan := build(t, startup.Options{}, web, j.component("app", 0, "db", "cache"), j.component("db", 0), j.component("cache", 0)).Plan()
	require.Equal(t, [][]string{{"db", "cache"}, {"app"}, {"web"}}, plan.Batches)
	require.Equal(t, "batch 1: db, cache\nbatch 2: app (after db, cache)\nbatch 3: web (after app)", plan.String())
	require.Equal(t, []startup.Need{{Capability: "metrics", Optional: true}, {Component: "nothing", OrderOnly: true}}, plan.Steps[3].Absent)
	require.Equal(t, "2", plan.Steps[3].Version)
}

func TestPlan_KeepsNothingOfTheCallersNeeds(t *testing.T) {
	t.Parallel()
	var j journal
	app := j.component("app", 0, "db")
	needs := app.Needs
	plan := build(t, startup.Options{}, j.component("db", 0), app).Plan
	needs[0] = startup.Need{Component: "nothing", Any: true}
	require.Equal(t, []startup.Link{{Name: "db", Need: startup.Need{Capability: "db"}}}, plan().Steps[1].After)
}

func TestPlan_ShowsNeedsAsTheyWereWritten(t *testing.T) {
	t.Parallel()
	var j journal
	for _, need := range []startup.Need{
		{Capability: "db"}, {Component: "db"}, {Capability: "db", Any: true}, {Component: "db", Optional: true}, {Capability: "db", OrderOnly: true},
	} {
		app := component{Name: "app", Needs: []startup.Need{need}}
		require.Equal(t, []startup.Link{{Name: "db", Need: need}}, build(t, startup.Options{}, j.component("db", 0), app).Plan().Steps[1].After)
	}
}

func TestPlan_ResolvesCapabilitiesOfSeveralProvidersInTheirOrder(t *testing.T) {
	t.Parallel()
	e := build(t, startup.Options{},
		component{Name: "first", Provides: []string{"llm"}}, component{Name: "llm", Provides: []string{"llm"}},
		component{Name: "last", Provides: []string{"llm"}, Needs: startup.Capabilities("llm")},
		component{Name: "app", Needs: startup.Capabilities("llm")},
		component{Name: "named", Needs: []startup.Need{{Component: "llm"}}})
	require.Equal(t, "batch 1: first, llm\nbatch 2: last (after first, llm), named (after llm)\nbatch 3: app (after first, llm, last)", e.Plan().String())
}

func TestPlan_ReportsEverythingThatIsWrong(t *testing.T) {
	t.Parallel()
	var j journal
	wrong := planError(t,
		j.component("a", 0, "b"), j.component("b", 0, "c"), j.component("c", 0, "a", "b"), j.component("self", 0, "self"),
		j.component("database", 0), j.component("app", 0, "databse", "nothing"), j.component("twice", 0), j.component("twice", 0),
		component{Name: "named", Needs: []startup.Need{{Component: "ap"}}})
	require.Equal(t, []string{"twice"}, wrong.Duplicates)
	require.Len(t, wrong.Missing, 3)
	require.Equal(t, []string{"database"}, wrong.Missing[0].Nearest)
	require.Empty(t, wrong.Missing[1].Nearest)
	require.Contains(t, wrong.Missing[2].Nearest, "app")
	require.Len(t, wrong.Cycles, 2)
	require.Contains(t, wrong.Error(), `"b" needs "c" of "c", which needs "b" of "b"`)
	require.Contains(t, wrong.Error(), `"self" needs "self" of itself`)
}

func TestPlan_SuggestsNoNamesForManyMissingOnes(t *testing.T) {
	t.Parallel()
	var j journal
	components := []component{j.component("database", 0)}
	for i := range 150 {
		components = append(components, j.component(strconv.Itoa(i), 0, "databse"))
	}
	wrong := planError(t, components...)
	require.Len(t, wrong.Missing, 150)
	require.NotEmpty(t, wrong.Missing[99].Nearest)
	require.Empty(t, wrong.Missing[100].Nearest)
}

func TestPlan_TreatsAnOptionalNeedOfItselfAsAbsent(t *testing.T) {
	t.Parallel()
	e := build(t, startup.Options{}, component{Name: "a", Provides: []string{"x"}, Needs: []startup.Need{{Capability: "x", Optional: true}}})
	require.Len(t, e.Plan().Steps[0].Absent, 1)
}

func TestPlan_PlacesAnAnyNeedAfterItsFirstMember(t *testing.T) {
	t.Parallel()
	var j journal
	late := j.component("late", 0, "first")
	late.Provides = []string{"x"}
	first := j.component("first", 0)
	first.Provides = append(first.Provides, "x")
	e := build(t, startup.Options{MaxConcurrent: 1}, component{Name: "app", Needs: []startup.Need{{Capability: "x", Any: true}}}, late, first)
	require.Equal(t, [][]string{{"first"}, {"app", "late"}}, e.Plan().Batches)
}

func TestPlan_LongestPathByAnEarlierReportStartsFirst(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		var j journal
		last := &startup.Report{Components: []startup.Component{{Name: "y", Ready: 1<<63 - 1}, {Name: "x", Ready: time.Second}}}
		e := started(t, startup.Options{MaxConcurrent: 1, Last: last}, j.component("z", 0), j.component("x", 0), j.component("y", 0))
		require.Equal(t, []string{"+y", "+x", "+z"}, j.all())
		require.NoError(t, stopped(t, e))
	})
}

func TestPlan_OfNoComponentsIsEmpty(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		e := started(t, startup.Options{})
		require.Empty(t, e.Plan().Steps)
		require.Empty(t, e.Report().Chain)
		require.NoError(t, stopped(t, e))
	})
}

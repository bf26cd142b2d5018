package startup_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/capreg/registry/startup"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestState_MarshalsAsItsName(t *testing.T) {
	t.Parallel()
	for state := startup.Waiting; state <= startup.Stuck; state++ {
		text, err := state.MarshalText()
		require.NoError(t, err)
		var back startup.State
		require.NoError(t, back.UnmarshalText(text))
		require.Equal(t, state, back)
	}
	require.Equal(t, "state(99)", startup.State(99).String())
	require.Error(t, new(startup.State).UnmarshalText([]byte("up")))
}

func TestNeed_String(t *testing.T) {
	t.Parallel()
	require.Equal(t, `"sql"`, startup.Capabilities("sql")[0].String())
	require.Equal(t, `component "db" (any) (optional) (order only)`, startup.Need{Component: "db", Any: true, Optional: true, OrderOnly: true}.String())
}

func TestReport_JSONHasTheError(t *testing.T) {
	t.Parallel()
	text, err := json.Marshal(startup.Report{Err: errors.New("no disk"), Components: []startup.Component{{Name: "a", State: startup.Failed}}})
	require.NoError(t, err)
	require.Contains(t, string(text), `"error":"no disk"`)
	require.Contains(t, string(text), `"state":"failed"`)
}

func TestProgress_WritesALineForEachEvent(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	show := startup.Progress(&out)
	show(startup.Event{Component: "db", State: startup.Ready, Took: 1500 * time.Millisecond, Settled: 1, Total: 2})
	show(startup.Event{Component: "app", State: startup.Failed, Settled: 2, Total: 2, Reason: "no disk"})
	show(startup.Event{State: startup.Stopped, Settled: 2, Total: 2})
	require.Equal(t, "[1/2] ready db (1.5s)\n[2/2] failed app: no disk\n[2/2] stopped in 0s\n", out.String())
}

// alone is a supervisor for the test of a component without an orchestrator.
type alone struct {
	ready  bool
	detail string
	ended  []error
	ran    chan struct{}
}

func (a *alone) RunContext() context.Context { return context.Background() }
func (a *alone) ComponentReady()             { a.ready = true }
func (a *alone) ComponentEnded(err error)    { a.ended = append(a.ended, err) }
func (a *alone) ComponentDetail(text string) { a.detail = text }

func (a *alone) ComponentGo(f func(context.Context) error) {
	_ = f(a.RunContext())
	close(a.ran)
}

func TestRun_ReportsToItsSupervisorAndEndsOnce(t *testing.T) {
	t.Parallel()
	a := &alone{ran: make(chan struct{})}
	run := startup.NewRun(a)
	require.NoError(t, run.Context().Err())
	run.Ready()
	require.True(t, a.ready)
	run.Detail("process 1")
	require.Equal(t, "process 1", a.detail)
	run.Go(func(context.Context) error { return nil })
	<-a.ran
	run.Ended(errors.New("first"))
	run.Ended(errors.New("second"))
	require.Len(t, a.ended, 1)
}

func TestStrings_HaveALineForEachComponentWithAnyName(t *testing.T) {
	t.Parallel()
	const name = "a\nb\x1b[2J"
	var out bytes.Buffer
	startup.Progress(&out)(startup.Event{Component: name, State: startup.Failed, Reason: "x\ny"})
	require.Equal(t, "[0/0] failed a b [2J: x y\n", out.String())
	plan := startup.Plan{Batches: [][]string{{name}}, Steps: []startup.Step{{Name: name, After: []startup.Link{{Name: name}}}}}
	require.Equal(t, "batch 1: a b [2J (after a b [2J)", plan.String())
	report := startup.Report{Chain: []string{name}, Components: []startup.Component{{Name: name, State: startup.Failed, Reason: "x\ny", Absent: []string{"z"}}}}
	require.Equal(t, 3, strings.Count(report.String(), "\n"), report.String())
	require.NotContains(t, report.String(), "\x1b")
}

func TestReport_StringHasWhatComponentsSayAboutThemselves(t *testing.T) {
	t.Parallel()
	report := startup.Report{Chain: []string{"db", "schema", "cache", "app"}, Components: []startup.Component{
		{Name: "db", Kind: "process", Detail: "process 4711\n", State: startup.Ready},
		{Name: "schema", Kind: "process", State: startup.Completed},
		{Name: "cache", State: startup.Completed},
		{Name: "app", State: startup.Ready},
	}}
	require.Equal(t, "4 components in 0s, critical path 0s, efficiency 0 %\napp @0s +0s\n"+
		"  cache @0s +0s (completed)\n    schema @0s +0s (process, completed)\n      db @0s +0s (process 4711 )", report.String())
}

func TestReport_StringOfALongChainGrowsWithItsLength(t *testing.T) {
	t.Parallel()
	report := startup.Report{Chain: make([]string, 10_000)}
	require.Less(t, len(report.String()), 2_000_000)
}

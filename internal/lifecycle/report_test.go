package lifecycle_test

import (
	"context"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry/internal/lifecycle"
	"github.com/capreg/registry/startup"
)

func TestReport_HasTheCriticalPath(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		var j journal
		e := build(t, startup.Options{},
			j.component("web", 200*time.Millisecond, "app"), j.component("app", time.Second, "db", "cache"),
			j.component("db", 1500*time.Millisecond), j.component("cache", time.Second))
		done := startAside(t, e)
		pass(time.Second)
		require.Equal(t, time.Second, e.Report().Wall, "so far")
		require.NoError(t, <-done)
		report := e.Report()
		require.Equal(t, []string{"db", "app", "web"}, report.Chain)
		require.Equal(t, 2700*time.Millisecond, report.CriticalPath)
		require.InDelta(t, 1, report.Efficiency, 0)
		require.Equal(t, startup.Component{
			Name: "app", State: startup.Ready, Batch: 2, Queued: 1500 * time.Millisecond, Started: 1500 * time.Millisecond,
			Returned: 2500 * time.Millisecond, Ready: 2500 * time.Millisecond, BlockedBy: "db",
		}, report.Components[2])
		require.NoError(t, stopped(t, e))
	})
}

func TestReport_FollowsAnAnyNeedThatFellBack(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		var j journal
		late := j.component("late", 2*time.Second, "b")
		late.Provides = []string{"x"}
		app := j.component("app", time.Second)
		app.Needs = []startup.Need{{Capability: "x", Any: true}}
		e := started(t, startup.Options{}, failingAfter(0, "failing", "x"), late, j.component("b", 2*time.Second, "a"), j.component("a", 2*time.Second), app)
		require.Equal(t, []string{"a", "b", "late", "app"}, e.Report().Chain)
		require.NoError(t, stopped(t, e))
	})
}

func TestReport_StaysThatOfTheStart(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		var j journal
		e := started(t, startup.Options{}, j.component("db", 3*time.Second), j.component("app", time.Second, "db"),
			j.ending("ends", 10*time.Second, startup.Restart{Mode: startup.Always}))
		first := e.Report()
		pass(time.Minute)
		require.NoError(t, add(t.Context(), e, j.component("later", 10*time.Second, "db")))
		second := e.Report()
		require.Equal(t, first.Chain, second.Chain)
		require.Equal(t, first.CriticalPath, second.CriticalPath)
		require.Equal(t, first.Work, second.Work)
		require.Positive(t, second.Components[1].Restarts)
		require.NoError(t, stopped(t, e))
	})
}

func TestListener_GetsEveryChangeInOrder(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		var seen, j journal
		e := build(t, startup.Options{Listen: func(e startup.Event) {
			seen.note("%s %v %d/%d %v%s", e.Component, e.State, e.Settled, e.Total, e.Took, e.Reason)
			switch e.State {
			case startup.Starting:
				panic("listener")
			case startup.Stopping:
				_ = exits()
			default:
			}
		}}, j.component("a", time.Second), j.component("b", time.Second, "a"))
		_, err := e.Start(t.Context())
		require.NoError(t, err)
		require.NoError(t, stopped(t, e))
		pass(0)
		require.Equal(t, []string{
			"a starting 0/2 0s", "a ready 1/2 1s", "b starting 1/2 0s", "b ready 2/2 1s", " ready 2/2 2s",
			"b stopping 0/2 0s", "b stopped 1/2 0s", "a stopping 1/2 0s", "a stopped 2/2 0s", " stopped 2/2 0s",
		}, seen.all())
	})
}

// The listener can be slow, exit its goroutine, or wait for a stop itself.
func TestListener_HearsEverythingBeforeStartAndStopReturn(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		var j, seen journal
		e := build(t, startup.Options{Listen: func(e startup.Event) {
			time.Sleep(time.Second)
			seen.note("%s %v", e.Component, e.State)
			runtime.Goexit()
		}}, j.component("a", 0), j.component("b", 0, "a"))
		_, err := e.Start(t.Context())
		require.NoError(t, err)
		require.Equal(t, []string{"a starting", "a ready", "b starting", "b ready", " ready"}, seen.all())
		require.NoError(t, stopped(t, e))
		require.Equal(t, []string{"b stopping", "b stopped", "a stopping", "a stopped", " stopped"}, seen.all()[5:])
	})
	bubble(t, func(t *testing.T) {
		var j journal
		var e *lifecycle.Engine
		e = build(t, startup.Options{Listen: func(event startup.Event) {
			if event.Component == "" && event.State == startup.Ready {
				_ = e.Stop(t.Context())
				j.note("stopped")
			}
		}}, j.component("a", 0))
		_, err := e.Start(t.Context())
		require.NoError(t, err)
		pass(time.Minute)
		require.Contains(t, j.all(), "stopped")
	})
}

func TestListener_ThatFallsBehindLosesTheOldest(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		var lost uint64
		e := build(t, startup.Options{Listen: func(e startup.Event) { lost += e.Lost; time.Sleep(time.Millisecond) }}, component{Name: "a"})
		ended := make(chan struct{})
		c := component{Name: "b", Restart: &startup.Restart{Mode: startup.Always, MaxRestarts: 1 << 30, FirstDelay: 1, MaxDelay: 1}}
		runs := 0
		c.Start = func(_ context.Context, run *startup.Run) error {
			if runs++; runs == 70_000 {
				close(ended)
				return nil
			}
			time.AfterFunc(1, func() { run.Ended(nil) })
			return nil
		}
		_, err := e.Start(t.Context())
		require.NoError(t, err)
		require.NoError(t, add(t.Context(), e, c))
		<-ended
		require.NoError(t, stopped(t, e))
		pass(time.Hour)
		require.Positive(t, lost)
	})
}

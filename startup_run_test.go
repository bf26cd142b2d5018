package registry_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/internal/testkit"
	"github.com/capreg/registry/startup"
)

func TestRun_EndsWithContextAndCriticalComponent(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var j testkit.Journal
		o := testkit.Orchestrate(t, startup.Options{}, j.Component("a", time.Second))
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		require.NoError(t, o.Run(ctx))
		require.Equal(t, []string{"+a", "-a"}, j.All())

		var starts atomic.Int32
		o = testkit.Orchestrate(t, startup.Options{}, testkit.Crashing(&starts, time.Second, startup.Restart{}), j.Component("b", 0))
		require.ErrorIs(t, o.Run(t.Context()), testkit.ErrDown)
		require.Equal(t, []string{"+a", "-a", "+b", "-b"}, j.All())

		o = testkit.Orchestrate(t, startup.Options{}, registry.Component{Name: "c", Start: func(context.Context, *startup.Run) error { return testkit.ErrDown }})
		require.ErrorIs(t, o.Run(t.Context()), testkit.ErrDown)
	})
}

func TestRun_EndsWhenStopIsCalled(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		o := testkit.Orchestrate(t, startup.Options{}, registry.Component{Name: "a"})
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		done := make(chan error, 1)
		go func() { done <- o.Run(ctx) }()
		testkit.Pass(time.Second)
		require.NoError(t, o.Stop(t.Context()))
		require.NoError(t, <-done)
	})
}

func TestRun_ReportHasNoRollback(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var starts atomic.Int32
		o := testkit.Orchestrate(t, startup.Options{}, testkit.Crashing(&starts, time.Hour, startup.Restart{}))
		_, err := o.Start(t.Context())
		require.NoError(t, err)
		<-o.Failed()
		require.NoError(t, o.Stop(t.Context()))
		require.False(t, o.Report().RolledBack, "the start did not fail")
	})
}

func TestRun_OfEarlierStartIsOver(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var old *startup.Run
		c := registry.Component{Name: "a", Restart: startup.Restart{Mode: startup.Always}}
		c.Start = func(_ context.Context, run *startup.Run) error {
			if old == nil {
				old = run
				time.AfterFunc(time.Second, func() { run.Ended(testkit.ErrDown) })
				return nil
			}
			_ = run.Context()
			return nil
		}
		o := testkit.Orchestrate(t, startup.Options{}, c)
		_, err := o.Start(t.Context())
		require.NoError(t, err)
		testkit.Pass(time.Minute)
		require.Error(t, old.Context().Err())
		require.NoError(t, o.Stop(t.Context()))
	})
}

func TestStartReport_ShowsWhereTimeWent(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var j testkit.Journal
		o := testkit.Orchestrate(t, startup.Options{},
			j.Component("web", 200*time.Millisecond, "app"), j.Component("app", time.Second, "db", "cache"), j.Component("db", 1500*time.Millisecond), j.Component("cache", time.Second))
		report, err := o.Start(t.Context())
		require.NoError(t, err)
		require.Equal(t, []string{"db", "app", "web"}, report.Chain)
		require.Equal(t, "4 components in 2.7s, critical path 2.7s, efficiency 100 %\nweb @2.5s +200ms\n  app @1.5s +1s\n    db @0s +1.5s", report.String())
		require.Equal(t, startup.Component{
			Name: "app", State: startup.Ready, Batch: 2, Queued: 1500 * time.Millisecond, Started: 1500 * time.Millisecond,
			Returned: 2500 * time.Millisecond, Ready: 2500 * time.Millisecond, BlockedBy: "db",
		}, report.Components[2])
		text, err := json.Marshal(report)
		require.NoError(t, err)
		require.Contains(t, string(text), `"blocked_by":"db"`)
		require.NoError(t, o.Stop(t.Context()))
	})
}

func TestStartReport_EarlierDurationsMayBeAnything(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var j testkit.Journal
		last := &startup.Report{Components: []startup.Component{{Name: "y", Ready: 1<<63 - 1}, {Name: "x", Ready: time.Second}}}
		o := testkit.Orchestrate(t, startup.Options{MaxConcurrent: 1, Last: last}, j.Component("x", 0), j.Component("y", 0))
		_, err := o.Start(t.Context())
		require.NoError(t, err)
		_ = o.Stop(t.Context())
		require.Equal(t, "+y", j.All()[0])
	})
}

func TestStartReport_FollowsAnyNeedThatFellBack(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var j testkit.Journal
		q := registry.Component{Name: "q", Provides: []string{"x"}, NonCritical: true, Start: func(context.Context, *startup.Run) error { return testkit.ErrDown }}
		s := j.Component("s", 2*time.Second, "b")
		s.Provides = []string{"x"}
		app := j.Component("app", time.Second)
		app.Needs = []startup.Need{{Capability: "x", Any: true}}
		o := testkit.Orchestrate(t, startup.Options{}, q, s, j.Component("b", 2*time.Second, "a"), j.Component("a", 2*time.Second), app)
		r, err := o.Start(t.Context())
		require.NoError(t, err)
		_ = o.Stop(t.Context())
		require.Equal(t, []string{"a", "b", "s", "app"}, r.Chain, "wall %v, critical path %v, efficiency %v", r.Wall, r.CriticalPath, r.Efficiency)
	})
}

func TestStartReport_IsUnchangedByRestarts(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var j testkit.Journal
		var run atomic.Pointer[startup.Run]
		db := j.Component("db", 3*time.Second)
		start := db.Start
		db.Start = func(ctx context.Context, r *startup.Run) error { run.Store(r); return start(ctx, r) }
		db.Restart = startup.Restart{Mode: startup.Always, Dependants: true}
		o := testkit.Orchestrate(t, startup.Options{}, db, j.Component("cache", time.Second), j.Component("app", time.Second, "db", "cache"))
		first, err := o.Start(t.Context())
		require.NoError(t, err)
		run.Load().Ended(testkit.ErrDown)
		testkit.Pass(time.Second)
		second := o.Report()
		require.Equal(t, first.Chain, second.Chain)
		require.Equal(t, first.CriticalPath, second.CriticalPath)
		require.Equal(t, first.Work, second.Work)
		testkit.Pass(time.Minute)
		second = o.Report()
		require.Equal(t, first.Chain, second.Chain)
		for i := range second.Components {
			second.Components[i].Restarts = 0
		}
		require.Equal(t, first, second)
		require.NoError(t, o.Stop(t.Context()))
	})
}

func TestStartReport_OmitsLaterAdditions(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var j testkit.Journal
		o := testkit.Orchestrate(t, startup.Options{}, j.Component("db", 3*time.Second))
		first, err := o.Start(t.Context())
		require.NoError(t, err)
		testkit.Pass(time.Minute)
		require.NoError(t, o.Add(t.Context(), j.Component("app", 10*time.Second, "db")))
		second := o.Report()
		require.Equal(t, first.Chain, second.Chain)
		require.LessOrEqual(t, second.CriticalPath, second.Wall)
		require.NoError(t, o.Stop(t.Context()))
	})
}

func TestListener_GetsEventsInOrderAndIsContained(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var lines testkit.Journal
		var j testkit.Journal
		var text strings.Builder
		progress := startup.Progress(&text)
		o := testkit.Orchestrate(t, startup.Options{Listen: func(e startup.Event) {
			lines.Note(fmt.Sprintf("%s %v %d/%d", e.Component, e.State, e.Settled, e.Total))
			progress(e)
			if e.Component == "a" && e.State == startup.Starting {
				panic("listener")
			}
		}}, j.Component("a", time.Second), j.Component("b", time.Second, "a"))
		_, err := o.Start(t.Context())
		require.NoError(t, err)
		synctest.Wait()
		require.Equal(t, []string{"a starting 0/2", "a ready 1/2", "b starting 1/2", "b ready 2/2", " ready 2/2"}, lines.All())
		require.Contains(t, text.String(), "[2/2] ready in 2s\n")
		require.NoError(t, o.Stop(t.Context()))
	})
}

func TestListener_GoexitLosesNoOtherEvent(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var seen testkit.Journal
		var once sync.Once
		o := testkit.Orchestrate(t, startup.Options{Listen: func(e startup.Event) {
			seen.Note(fmt.Sprint(e.Component, " ", e.State))
			once.Do(func() { time.Sleep(time.Second); runtime.Goexit() })
		}}, registry.Component{Name: "a"})
		_, err := o.Start(t.Context())
		require.NoError(t, err)
		testkit.Pass(time.Hour)
		require.Contains(t, seen.All(), " ready")
		require.NoError(t, o.Stop(t.Context()))
	})
}

func TestListener_SeesSkippedComponents(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var seen testkit.Journal
		var j testkit.Journal
		bad := registry.Component{Name: "bad", Start: func(context.Context, *startup.Run) error { return testkit.ErrDown }}
		o := testkit.Orchestrate(t, startup.Options{Listen: func(e startup.Event) { seen.Note(fmt.Sprint(e.Component, " ", e.State)) }}, bad, j.Component("first", time.Hour), j.Component("user", 0, "first"))
		_, _ = o.Start(t.Context())
		testkit.Pass(time.Second)
		require.Equal(t, "skipped", testkit.StateOf(t, o, "user"))
		require.Contains(t, seen.All(), "user skipped")
	})
}

func TestListener_EachEventIsAChange(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var seen testkit.Journal
		var starts atomic.Int32
		c := testkit.Crashing(&starts, time.Second, startup.Restart{Mode: startup.Always})
		c.Stop = func(context.Context) error { time.Sleep(time.Second); return nil }
		o := testkit.Orchestrate(t, startup.Options{Listen: func(e startup.Event) { seen.Note(fmt.Sprint(e.Component, " ", e.State)) }}, c, registry.Component{Name: "x", NonCritical: true, StartTimeout: time.Second, Ready: func(context.Context) error { return testkit.ErrDown }})
		_, _ = o.Start(t.Context())
		testkit.Pass(7 * time.Second)
		_ = o.Stop(t.Context())
		testkit.Pass(time.Second)
		last := map[string]string{}
		for _, line := range seen.All() {
			name, state, _ := strings.Cut(line, " ")
			if last[name] == state {
				t.Errorf("twice %s: %v", line, seen.All())
			}
			last[name] = state
		}
	})
}

type nosyError struct{ ask func() }

func (e nosyError) Error() string { e.ask(); return "nosy" }

func TestOrchestrator_ErrorTextMayCallIt(t *testing.T) {
	t.Parallel()
	var o *registry.Orchestrator
	c := registry.Component{Name: "a", StartTimeout: 50 * time.Millisecond, Start: func(ctx context.Context, _ *startup.Run) error {
		<-ctx.Done()
		return errors.Join(ctx.Err(), nosyError{func() { o.State("a") }})
	}}
	o = testkit.Orchestrate(t, startup.Options{}, c)
	_, err := o.Start(t.Context())
	require.ErrorIs(t, err, context.DeadlineExceeded)
}

// asking is an error whose text asks the orchestrator.
type asking struct{ o **registry.Orchestrator }

func (a asking) Error() string { (*a.o).State("a"); return "asked" }

func TestOrchestrator_AddCauseMayCallIt(t *testing.T) {
	t.Parallel()
	for _, needs := range [][]string{nil, {"x"}} {
		var j testkit.Journal
		o := testkit.Orchestrate(t, startup.Options{}, registry.Component{Name: "y"})
		_, err := o.Start(t.Context())
		require.NoError(t, err)
		ctx, cancel := context.WithCancelCause(t.Context())
		done := make(chan error, 1)
		go func() { done <- o.Add(ctx, j.Component("x", time.Hour), j.Component("z", time.Hour, needs...)) }()
		for state, _ := o.State("x"); state != startup.Starting; state, _ = o.State("x") {
			runtime.Gosched()
		}
		cancel(asking{&o})
		select {
		case err := <-done:
			require.ErrorContains(t, err, "asked")
		case <-time.After(time.Minute):
			t.Fatal("hangs")
		}
		require.NoError(t, o.Stop(t.Context()))
	}
}

// reentrant is an error whose text reports an end.
type reentrant struct{ run *startup.Run }

func (r reentrant) Error() string { r.run.Ended(nil); return "x" }

func TestOrchestrator_EndErrorTextMayReportEnd(t *testing.T) {
	t.Parallel()
	o := testkit.Orchestrate(t, startup.Options{}, registry.Component{Name: "a", Start: func(_ context.Context, run *startup.Run) error {
		run.Ended(reentrant{run})
		return nil
	}})
	done := testkit.StartAsync(t, o)
	select {
	case err := <-done:
		require.Error(t, err)
	case <-time.After(5 * time.Second):
		t.Fatal("hangs")
	}
}

func TestOrchestrator_ComponentFunctionsMayCallIt(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var o *registry.Orchestrator
		var once sync.Once
		c := registry.Component{Name: "a", Start: func(ctx context.Context, run *startup.Run) error {
			o.State("a")
			o.Report()
			o.Plan()
			_, _ = o.Start(ctx)
			_ = o.Add(ctx, registry.Component{Name: "n"})
			_ = o.Remove(ctx, "a")
			run.Go(func(ctx context.Context) error {
				time.Sleep(time.Minute)
				go func() { _ = o.Stop(context.WithoutCancel(ctx)) }()
				return nil
			})
			return nil
		}, Ready: func(context.Context) error { o.Report(); return nil }, Stop: func(ctx context.Context) error {
			_ = o.Add(ctx, registry.Component{Name: "n"})
			return nil
		}}
		o = testkit.Orchestrate(t, startup.Options{Listen: func(startup.Event) {
			o.Report()
			once.Do(func() { _ = o.Add(t.Context(), registry.Component{Name: "m"}) })
		}}, c)
		_, err := o.Start(t.Context())
		require.NoError(t, err)
		testkit.Pass(2 * time.Minute)
		require.NoError(t, o.Stop(t.Context()))
		require.Equal(t, "stopped", testkit.StateOf(t, o, "a"))
	})
}

func TestOrchestrator_ConcurrentChanges(t *testing.T) {
	t.Parallel()
	var starts atomic.Int32
	o := testkit.Orchestrate(t, startup.Options{MaxConcurrent: 2, Listen: func(startup.Event) {}}, testkit.Crashing(&starts, 2*time.Millisecond, startup.Restart{Mode: startup.Always, MaxRestarts: 1 << 30, FirstDelay: time.Millisecond, MaxDelay: time.Millisecond}))
	_, err := o.Start(t.Context())
	require.NoError(t, err)
	var all sync.WaitGroup
	for g := range 8 {
		all.Go(func() {
			for i := range 200 {
				name := fmt.Sprint(g, "-", i)
				_ = o.Add(t.Context(), registry.Component{Name: name, NonCritical: i%2 == 0, Start: func(context.Context, *startup.Run) error {
					if i%3 == 0 {
						return testkit.ErrDown
					}
					return nil
				}})
				o.Report()
				_ = o.Remove(t.Context(), name)
			}
		})
	}
	all.Wait()
	require.NoError(t, o.Stop(t.Context()))
}

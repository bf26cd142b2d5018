package registry_test

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/internal/testkit"
	"github.com/capreg/registry/startup"
)

func TestStart_RollbackWaitsForReadinessProbe(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var j testkit.Journal
		c := j.Component("a", 0)
		c.Ready = func(context.Context) error { time.Sleep(2 * time.Second); return nil }
		bad := registry.Component{Name: "bad", Start: func(context.Context, *startup.Run) error { time.Sleep(time.Second); return testkit.ErrDown }}
		o := testkit.Orchestrate(t, startup.Options{}, c, bad)
		done := testkit.StartAsync(t, o)
		require.ErrorIs(t, <-done, testkit.ErrDown)
		require.Equal(t, []string{"+a", "-a"}, j.All())
	})
}

func TestStart_FailsWhenCriticalComponentEnds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var starts atomic.Int32
		var j testkit.Journal
		o := testkit.Orchestrate(t, startup.Options{}, testkit.Crashing(&starts, time.Second, startup.Restart{}), j.Component("slow", 10*time.Second))
		require.ErrorIs(t, o.Run(t.Context()), testkit.ErrDown)
		require.Equal(t, []string{"+slow"}, j.All(), "its start was aborted")
		require.Equal(t, "failed", testkit.StateOf(t, o, "slow"))
	})
}

func TestStart_SkipsComponentWhoseNeedEnded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var starts atomic.Int32
		var j testkit.Journal
		o := testkit.Orchestrate(t, startup.Options{OnFailure: startup.SkipDependants}, func() registry.Component {
			c := testkit.Crashing(&starts, time.Second, startup.Restart{})
			c.NonCritical = true
			return c
		}(), j.Component("slow", 10*time.Second), j.Component("user", 0, "crashing", "slow"))
		_, err := o.Start(t.Context())
		require.NoError(t, err)
		require.Equal(t, "skipped", testkit.StateOf(t, o, "user"))
		require.NoError(t, o.Stop(t.Context()))
		require.NotContains(t, j.All(), "+user")
	})
}

func TestStart_WorkerEndingFirstIsAFailure(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := registry.Component{Name: "a", Start: func(_ context.Context, run *startup.Run) error {
			run.Go(func(context.Context) error { return testkit.ErrDown })
			time.Sleep(time.Second)
			return nil
		}}
		o := testkit.Orchestrate(t, startup.Options{}, c)
		_, err := o.Start(t.Context())
		require.ErrorIs(t, err, testkit.ErrDown)
		require.Equal(t, "failed", testkit.StateOf(t, o, "a"))
	})
}

func TestStart_FailureEndsRun(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var running atomic.Int32
		c := registry.Component{Name: "a", Start: func(_ context.Context, run *startup.Run) error {
			run.Go(func(ctx context.Context) error {
				running.Add(1)
				defer running.Add(-1)
				select {
				case <-ctx.Done():
				case <-time.After(1000 * time.Hour):
				}
				return nil
			})
			return testkit.ErrDown
		}}
		o := testkit.Orchestrate(t, startup.Options{}, c)
		_, err := o.Start(t.Context())
		require.Error(t, err)
		require.NoError(t, o.Stop(t.Context()))
		testkit.Pass(time.Hour)
		require.Zero(t, running.Load(), "workers of a component that is down")
	})
}

func TestStart_ContextEndsWithStart(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var startCtx context.Context
		o := testkit.Orchestrate(t, startup.Options{}, registry.Component{Name: "a", Start: func(ctx context.Context, _ *startup.Run) error {
			startCtx = ctx //nolint:fatcontext // the test looks at it from outside
			return nil
		}})
		_, err := o.Start(t.Context())
		require.NoError(t, err)
		testkit.Pass(time.Second)
		require.Error(t, startCtx.Err())
		require.NoError(t, o.Stop(t.Context()))
	})
}

func TestStart_BatchesContinueWithLaterProvider(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		q := registry.Component{Name: "q", Provides: []string{"x"}, NonCritical: true, Start: func(context.Context, *startup.Run) error { return testkit.ErrDown }}
		s := registry.Component{Name: "s", Provides: []string{"x"}, Needs: startup.Capabilities("b")}
		b := registry.Component{Name: "b", Provides: []string{"b"}, Needs: startup.Capabilities("a")}
		a := registry.Component{Name: "a", Provides: []string{"a"}}
		app := registry.Component{Name: "app", Needs: []startup.Need{{Capability: "x", Any: true}}}
		o := testkit.Orchestrate(t, startup.Options{Batches: true}, q, s, b, a, app)
		_, err := o.Start(t.Context())
		require.NoError(t, err)
		require.Equal(t, "ready", testkit.StateOf(t, o, "app"))
		require.NoError(t, o.Stop(t.Context()))
	})
}

func TestStart_MutualWaitAfterFailureFails(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := registry.Component{Name: "c", Provides: []string{"x"}, NonCritical: true, Start: func(context.Context, *startup.Run) error { return testkit.ErrDown }}
		b := registry.Component{Name: "b", Provides: []string{"x"}, Needs: []startup.Need{{Component: "a"}}}
		a := registry.Component{Name: "a", Needs: []startup.Need{{Capability: "x", Any: true}}}
		o := testkit.Orchestrate(t, startup.Options{}, c, b, a)
		_, err := o.Start(t.Context())
		require.ErrorContains(t, err, "deadlock: waits for components that wait for it")
		require.NoError(t, o.Stop(t.Context()))
	})
}

func TestStart_EndedContextStartsNothing(t *testing.T) {
	t.Parallel()
	for range 20 {
		synctest.Test(t, func(t *testing.T) {
			var j testkit.Journal
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			o := testkit.Orchestrate(t, startup.Options{}, registry.Component{Name: "a", Start: func(context.Context, *startup.Run) error { j.Note("a"); return nil }}, j.Component("b", 0, "c"), registry.Component{Name: "c", Provides: []string{"c"}})
			_, err := o.Start(ctx)
			require.ErrorIs(t, err, context.Canceled)
			require.Empty(t, j.All())
		})
	}
}

func TestStart_EndAfterSuccessIsNoFailure(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var o *registry.Orchestrator
		var run atomic.Pointer[startup.Run]
		o = testkit.Orchestrate(t, startup.Options{}, registry.Component{Name: "a", Start: func(_ context.Context, r *startup.Run) error { run.Store(r); return nil }})
		_, err := o.Start(hookedContext{t.Context(), func() {
			if state, _ := o.State("a"); state == startup.Ready {
				run.Load().Ended(testkit.ErrDown)
			}
		}})
		<-o.Failed()
		require.NoError(t, err, "nothing was rolled back")
		require.NoError(t, o.Stop(t.Context()))
	})
}

func TestStart_RunOfStuckStartEnds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		release, told := make(chan struct{}), make(chan struct{})
		o := testkit.Orchestrate(t, startup.Options{}, registry.Component{Name: "a", StartTimeout: time.Second, Start: func(_ context.Context, run *startup.Run) error {
			run.Go(func(ctx context.Context) error { <-ctx.Done(); close(told); return nil })
			<-release
			return nil
		}})
		_, err := o.Start(t.Context())
		require.Error(t, err)
		testkit.Pass(time.Minute)
		select {
		case <-told:
		default:
			t.Error("its goroutines run on")
		}
		close(release)
		testkit.Pass(time.Minute)
		require.NoError(t, o.Stop(t.Context()))
	})
}

func TestStart_LateFailureIsNoLongerStuck(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		o := testkit.Orchestrate(t, startup.Options{}, registry.Component{Name: "a", StartTimeout: time.Second, Start: func(_ context.Context, run *startup.Run) error {
			time.Sleep(time.Minute)
			return testkit.ErrDown
		}})
		_, err := o.Start(t.Context())
		require.Error(t, err)
		require.Equal(t, "stuck", testkit.StateOf(t, o, "a"))
		testkit.Pass(2 * time.Minute)
		require.Equal(t, "failed", testkit.StateOf(t, o, "a"))
		require.NoError(t, o.Stop(t.Context()))
	})
}

func TestStart_SkipsDependantsOfAbandoned(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var starts atomic.Int32
		var j testkit.Journal
		c := registry.Component{Name: "c", Provides: []string{"c"}, NonCritical: true, Restart: startup.Restart{Mode: startup.Always, Dependants: true}}
		c.Start = func(_ context.Context, run *startup.Run) error {
			if starts.Add(1) > 1 {
				return testkit.ErrDown
			}
			time.AfterFunc(time.Minute, func() { run.Ended(testkit.ErrDown) })
			return nil
		}
		o := testkit.Orchestrate(t, startup.Options{}, c, j.Component("user", 0, "c"))
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		time.AfterFunc(59*time.Minute, func() {
			require.Equal(t, "failed", testkit.StateOf(t, o, "c"))
			require.Equal(t, "skipped", testkit.StateOf(t, o, "user"))
			require.Contains(t, o.Report().Components[1].Reason, `"c"`)
		})
		require.NoError(t, o.Run(ctx))
	})
}

// hookedContext does something when it is asked whether it has ended.
type hookedContext struct {
	context.Context

	hook func()
}

func (c hookedContext) Err() error { c.hook(); return c.Context.Err() }

package registry_test

import (
	"context"
	"runtime"
	"strconv"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/internal/testkit"
	"github.com/capreg/registry/startup"
)

func TestAdd_AndRemoveWhileOthersRun(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var j testkit.Journal
		o := testkit.Orchestrate(t, startup.Options{}, j.Component("db", 0))
		_, err := o.Start(t.Context())
		require.NoError(t, err)
		require.NoError(t, o.Add(t.Context(), j.Component("web", time.Second, "app"), j.Component("app", time.Second, "db")))
		require.Equal(t, []string{"+db", "+app", "+web"}, j.All())
		require.ErrorIs(t, o.Remove(t.Context(), "db"), registry.ErrConflict)
		require.ErrorIs(t, o.Remove(t.Context(), "unknown"), registry.ErrNotRegistered)
		require.NoError(t, o.Remove(t.Context(), "web"))
		require.Equal(t, "-web", j.All()[3])
		_, ok := o.State("web")
		require.False(t, ok)

		require.ErrorIs(t, o.Add(t.Context(), j.Component("x", 0, "nothing")), startup.ErrPlan)
		bad := j.Component("bad", 0, "good")
		bad.Start = func(context.Context, *startup.Run) error { return testkit.ErrDown }
		require.ErrorIs(t, o.Add(t.Context(), j.Component("good", 0, "app"), bad), testkit.ErrDown)
		require.Equal(t, []string{"+good", "-good"}, j.All()[4:])
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		require.ErrorIs(t, o.Add(ctx, j.Component("slow", time.Hour, "app")), context.DeadlineExceeded)
		testkit.Pass(time.Minute)
		_, ok = o.State("slow")
		require.False(t, ok)
		require.NoError(t, o.Add(t.Context(), j.Component("web", 0, "app")), "its name is free again")
		require.NoError(t, o.Stop(t.Context()))
		lines := j.All()
		require.Equal(t, []string{"-web", "-app", "-db"}, lines[len(lines)-3:])
		require.ErrorIs(t, o.Add(t.Context(), j.Component("late", 0)), registry.ErrState)
	})
}

func TestAdd_WaitsForAllNeedsWhenOneRestarts(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var starts atomic.Int32
		var j testkit.Journal
		one := testkit.Crashing(&starts, time.Minute, startup.Restart{Mode: startup.Always})
		one.Provides = []string{"x"}
		o := testkit.Orchestrate(t, startup.Options{}, one)
		_, err := o.Start(t.Context())
		require.NoError(t, err)
		testkit.Pass(50 * time.Second)
		two := j.Component("two", 20*time.Second)
		two.Provides = []string{"x"}
		two.Ready = func(context.Context) error { j.Note("two ready"); return nil }
		require.NoError(t, o.Add(t.Context(), two, j.Component("user", 0, "x")))
		require.NoError(t, testkit.StopInTime(t, o))
		require.Equal(t, []string{"+two", "two ready", "+user"}, j.All()[:3])
	})
}

func TestAdd_KeepsRestartingComponent(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var starts atomic.Int32
		var j testkit.Journal
		o := testkit.Orchestrate(t, startup.Options{})
		_, err := o.Start(t.Context())
		require.NoError(t, err)
		c := testkit.Crashing(&starts, 10*time.Second-1, startup.Restart{Mode: startup.Always, MaxRestarts: 1000, FirstDelay: time.Second})
		require.NoError(t, o.Add(t.Context(), c, j.Component("slow", 10*time.Second)))
		testkit.Pass(time.Minute)
		require.Greater(t, starts.Load(), int32(3))
		require.NoError(t, testkit.StopInTime(t, o))
		after := starts.Load()
		testkit.Pass(time.Minute)
		require.Equal(t, after, starts.Load())
	})
}

func TestAdd_FailureKeepsSharedNeeds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var j testkit.Journal
		o := testkit.Orchestrate(t, startup.Options{})
		_, err := o.Start(t.Context())
		require.NoError(t, err)
		bad := j.Component("bad", 0)
		bad.Start = func(context.Context, *startup.Run) error { time.Sleep(10 * time.Second); return testkit.ErrDown }
		done := make(chan error, 1)
		go func() { done <- o.Add(t.Context(), j.Component("a", 0), bad) }()
		testkit.Pass(time.Second)
		require.NoError(t, o.Add(t.Context(), j.Component("user", 0, "a")))
		require.ErrorIs(t, <-done, testkit.ErrDown)
		require.Equal(t, "ready", testkit.StateOf(t, o, "user"))
		require.Equal(t, "ready", testkit.StateOf(t, o, "a"))
		_, known := o.State("bad")
		require.False(t, known)
		require.NoError(t, testkit.StopInTime(t, o))
		require.Equal(t, []string{"+a", "+user", "-user", "-a"}, j.All())
	})
}

func TestAdd_LateAndStuckIsNamed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		c := registry.Component{
			Name: "late", StartTimeout: 5 * time.Second,
			Start: func(context.Context, *startup.Run) error { time.Sleep(time.Minute); return nil },
			Stop:  func(context.Context) error { <-release; return nil },
		}
		o := testkit.Orchestrate(t, startup.Options{}, registry.Component{Name: "x"})
		_, err := o.Start(t.Context())
		require.NoError(t, err)
		require.ErrorIs(t, o.Add(t.Context(), c), registry.ErrNotReady)
		testkit.Pass(time.Hour)
		err = testkit.StopInTime(t, o)
		require.ErrorIs(t, err, registry.ErrStuck)
		require.ErrorContains(t, err, `"late"`)
		close(release)
	})
}

func TestAdd_WaitsForRestartingNeed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var starts atomic.Int32
		var j testkit.Journal
		o := testkit.Orchestrate(t, startup.Options{}, testkit.Crashing(&starts, time.Minute, startup.Restart{Mode: startup.Always, FirstDelay: 10 * time.Second}))
		_, err := o.Start(t.Context())
		require.NoError(t, err)
		testkit.Pass(time.Minute + time.Second)
		require.NoError(t, o.Add(t.Context(), j.Component("user", 0, "crashing")))
		require.NoError(t, testkit.StopInTime(t, o))
	})
}

func TestAdd_EndsWithContextWhileNeedRestarts(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var starts atomic.Int32
		a := registry.Component{Name: "a", StartTimeout: 23 * time.Hour, Restart: startup.Restart{Mode: startup.Always, Dependants: true}}
		a.Start = func(ctx context.Context, run *startup.Run) error {
			if starts.Add(1) == 1 {
				time.AfterFunc(2*time.Second, func() { run.Ended(testkit.ErrDown) })
				return nil
			}
			<-ctx.Done()
			return ctx.Err()
		}
		o := testkit.Orchestrate(t, startup.Options{}, a)
		_, err := o.Start(t.Context())
		require.NoError(t, err)
		b := registry.Component{Name: "b", Notifies: true, Needs: []startup.Need{{Component: "a"}}, Stop: func(context.Context) error { time.Sleep(5 * time.Second); return nil }}
		ctx, cancel := context.WithTimeout(t.Context(), 4*time.Second)
		defer cancel()
		began := time.Now()
		err = o.Add(ctx, b)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Less(t, time.Since(began), time.Minute)
		require.NoError(t, o.Stop(t.Context()))
	})
}

func TestAdd_EndedByStopIsAnError(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var j testkit.Journal
		o := testkit.Orchestrate(t, startup.Options{})
		_, err := o.Start(t.Context())
		require.NoError(t, err)
		added := make(chan error, 2)
		go func() { added <- o.Add(t.Context(), j.Component("x", time.Minute), j.Component("y", 0, "x")) }()
		testkit.Pass(time.Second)
		require.NoError(t, o.Stop(t.Context()))
		err = <-added
		require.ErrorIs(t, err, registry.ErrClosed)
	})
}

func TestAdd_EndedContextStartsNothing(t *testing.T) {
	t.Parallel()
	for range 20 {
		synctest.Test(t, func(t *testing.T) {
			var j testkit.Journal
			o := testkit.Orchestrate(t, startup.Options{})
			_, err := o.Start(t.Context())
			require.NoError(t, err)
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			err = o.Add(ctx, registry.Component{Name: "a", Start: func(context.Context, *startup.Run) error { j.Note("a"); return nil }})
			require.ErrorIs(t, err, context.Canceled)
			require.Empty(t, j.All())
			require.NoError(t, o.Stop(t.Context()))
		})
	}
}

func TestRemove_StoppedComponent(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var j testkit.Journal
		o := testkit.Orchestrate(t, startup.Options{}, j.Component("a", 0), registry.Component{Name: "bad", NonCritical: true, Start: func(context.Context, *startup.Run) error { return testkit.ErrDown }})
		require.NoError(t, o.Remove(t.Context(), "a"))
		if _, ok := o.State("a"); ok {
			t.Error("a is there after Remove before the start")
		}
		_, err := o.Start(t.Context())
		require.NoError(t, err)
		require.NoError(t, o.Remove(t.Context(), "bad"))
		if _, ok := o.State("bad"); ok {
			t.Error("bad is there after Remove")
		}
		if err := o.Add(t.Context(), registry.Component{Name: "bad"}); err != nil {
			t.Error(err)
		}
		_ = o.Stop(t.Context())
	})
}

func TestRemove_OrderOnlyPredecessor(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		o := testkit.Orchestrate(t, startup.Options{}, registry.Component{Name: "a"},
			registry.Component{Name: "u", Needs: []startup.Need{{Component: "a", OrderOnly: true}}})
		_, err := o.Start(t.Context())
		require.NoError(t, err)
		require.NoError(t, o.Remove(t.Context(), "a"))
		require.NoError(t, o.Add(t.Context(), registry.Component{Name: "x"}))
		require.Equal(t, [][]string{{"u", "x"}}, o.Plan().Batches)
		require.NoError(t, o.Stop(t.Context()))
	})
}

func TestRemove_OneOfSeveralPredecessorsIsRefused(t *testing.T) {
	t.Parallel()
	c := registry.Component{Name: "c", Provides: []string{"y"}, Needs: []startup.Need{{Capability: "x", Any: true, OrderOnly: true}}}
	b := registry.Component{Name: "b", Provides: []string{"x"}, Needs: startup.Capabilities("y")}
	o := testkit.Orchestrate(t, startup.Options{}, registry.Component{Name: "a", Provides: []string{"x"}}, b, c)
	require.ErrorIs(t, o.Remove(t.Context(), "a"), registry.ErrConflict)
	require.NoError(t, o.Add(t.Context(), registry.Component{Name: "d"}))
	require.Equal(t, "batch 1: a, d\nbatch 2: c (after a, b)\nbatch 3: b (after c)", o.Plan().String())
}

func TestRemove_DependantWhileNeedRestarts(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var starts atomic.Int32
		var j testkit.Journal
		user := j.Component("user", 0, "crashing")
		user.Stop = func(context.Context) error { j.Note("-user"); time.Sleep(5 * time.Second); return nil }
		o := testkit.Orchestrate(t, startup.Options{}, testkit.Crashing(&starts, time.Minute, startup.Restart{Mode: startup.Always, Dependants: true}), user)
		_, err := o.Start(t.Context())
		require.NoError(t, err)
		testkit.Pass(time.Minute + time.Second)
		require.NoError(t, o.Remove(t.Context(), "user"))
		_, known := o.State("user")
		require.False(t, known)
		testkit.Pass(10 * time.Second)
		require.NoError(t, testkit.StopInTime(t, o))
		require.Equal(t, []string{"+user", "-user"}, j.All())
	})
}

func TestRemove_HungStopIsAnError(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		o := testkit.Orchestrate(t, startup.Options{}, registry.Component{Name: "a", Stop: func(context.Context) error { <-release; return nil }})
		_, err := o.Start(t.Context())
		require.NoError(t, err)
		require.ErrorIs(t, o.Remove(t.Context(), "a"), registry.ErrStuck)
		require.Equal(t, "stuck", testkit.StateOf(t, o, "a"))
		require.ErrorIs(t, o.Stop(t.Context()), registry.ErrStuck)
		close(release)
	})
}

// Not beside others, whose memory would count.
//
//nolint:paralleltest // see above
func TestRemove_LeavesNothingBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := testkit.Orchestrate(t, startup.Options{}, registry.Component{Name: "root"})
		_, err := o.Start(t.Context())
		require.NoError(t, err)
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		const n = 2000
		for i := range n {
			c := registry.Component{Name: strconv.Itoa(i), Start: func(ctx context.Context, _ *startup.Run) error {
				held := make([]byte, 0, 1)
				_ = held
				return ctx.Err()
			}}
			require.NoError(t, o.Add(t.Context(), c))
			require.NoError(t, o.Remove(t.Context(), c.Name))
			synctest.Wait() // the runtime keeps what a goroutine took, for the next one
		}
		testkit.Pass(time.Hour)
		runtime.GC()
		runtime.ReadMemStats(&after)
		require.Less(t, (int64(after.HeapAlloc)-int64(before.HeapAlloc))/n, int64(300))
		_ = o.Stop(t.Context())
	})
}

// Before its restart, and, where stopping takes long, while it stops.
func TestRemove_PredecessorLetsOthersStart(t *testing.T) {
	t.Parallel()
	for _, stopping := range []time.Duration{0, 5 * time.Second} {
		synctest.Test(t, func(t *testing.T) {
			var j testkit.Journal
			var starts atomic.Int32
			a := testkit.Crashing(&starts, time.Second, startup.Restart{Mode: startup.Always, FirstDelay: time.Hour, MaxDelay: time.Hour})
			a.Stop = func(context.Context) error { time.Sleep(stopping); return nil }
			o := testkit.Orchestrate(t, startup.Options{}, a)
			_, err := o.Start(t.Context())
			require.NoError(t, err)
			testkit.Pass(2 * time.Second)
			added := make(chan error, 1)
			b := j.Component("b", 0)
			b.Needs = []startup.Need{{Component: "crashing", OrderOnly: true}}
			go func() { added <- o.Add(t.Context(), b) }()
			testkit.Pass(time.Second)
			require.NoError(t, o.Remove(t.Context(), "crashing"))
			testkit.Pass(time.Minute)
			select {
			case err := <-added:
				require.NoError(t, err)
			default:
				t.Error("waits for ever")
			}
			require.NoError(t, o.Stop(t.Context()))
		})
	}
}

func TestRemove_QueuedComponentLeavesItsTurn(t *testing.T) {
	t.Parallel()
	for _, hangs := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			var j testkit.Journal
			var starts atomic.Int32
			a := registry.Component{Name: "a", Notifies: true, StartTimeout: time.Hour, Restart: startup.Restart{Mode: startup.Always}}
			a.Start = func(ctx context.Context, run *startup.Run) error {
				if starts.Add(1) == 1 {
					run.Ready()
					time.AfterFunc(time.Second, func() { run.Ended(testkit.ErrDown) })
				} else if hangs {
					<-ctx.Done()
				}
				return nil
			}
			o := testkit.Orchestrate(t, startup.Options{MaxConcurrent: 1}, a)
			_, err := o.Start(t.Context())
			require.NoError(t, err)
			testkit.Pass(2 * time.Second)
			require.Equal(t, "starting", testkit.StateOf(t, o, "a"))
			added := make(chan error, 1)
			go func() { added <- o.Add(t.Context(), j.Component("b", 0)) }()
			testkit.Pass(time.Second)
			require.NoError(t, o.Remove(t.Context(), "a"))
			testkit.Pass(time.Minute)
			select {
			case err := <-added:
				require.NoError(t, err)
			default:
				t.Error("waits for ever")
			}
			require.NoError(t, o.Stop(t.Context()))
		})
	}
}

func TestRemove_EndsStopContextWithItsOwn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := registry.Component{Name: "a", Stop: func(ctx context.Context) error { <-ctx.Done(); return nil }}
		o := testkit.Orchestrate(t, startup.Options{StopTimeout: time.Hour}, c)
		_, err := o.Start(t.Context())
		require.NoError(t, err)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		require.NoError(t, o.Remove(ctx, "a"))
		require.NoError(t, o.Stop(t.Context()))
	})
}

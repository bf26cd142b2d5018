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

func TestRestart_DelaysUpToLimit(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var starts atomic.Int32
		o := testkit.Orchestrate(t, startup.Options{}, testkit.Crashing(&starts, time.Second, startup.Restart{Mode: startup.OnFailure, MaxRestarts: 3, Decay: time.Hour}))
		_, err := o.Start(t.Context())
		require.NoError(t, err)
		<-o.Failed()
		require.Equal(t, int32(4), starts.Load())
		require.Equal(t, "failed", testkit.StateOf(t, o, "crashing"))
		require.ErrorIs(t, o.Report().Err, testkit.ErrDown)
		require.NoError(t, o.Stop(t.Context()))
	})
}

func TestRestart_RareCrashesNeverGiveUp(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var starts atomic.Int32
		o := testkit.Orchestrate(t, startup.Options{}, testkit.Crashing(&starts, 30*time.Second, startup.Restart{Mode: startup.OnFailure, MaxRestarts: 3}))
		_, err := o.Start(t.Context())
		require.NoError(t, err)
		testkit.Pass(time.Hour)
		require.InDelta(t, 119, starts.Load(), 2)
		require.NoError(t, o.Stop(t.Context()))
		require.Positive(t, o.Report().Components[0].Restarts)
	})
}

func TestRestart_DependantsOnlyIfConfigured(t *testing.T) {
	t.Parallel()
	for _, dependants := range []bool{false, true} {
		t.Run(strconv.FormatBool(dependants), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var starts atomic.Int32
				var j testkit.Journal
				o := testkit.Orchestrate(t, startup.Options{}, testkit.Crashing(&starts, 10*time.Second, startup.Restart{Mode: startup.Always, Dependants: dependants}),
					j.Component("user", time.Second, "crashing"), j.Component("its user", time.Second, "user"), registry.Component{Name: "other"})
				_, err := o.Start(t.Context())
				require.NoError(t, err)
				testkit.Pass(15 * time.Second)
				require.Equal(t, int32(2), starts.Load())
				want := []string{"+user", "+its user"}
				if dependants {
					want = append(want, "-its user", "-user", "+user", "+its user")
				}
				require.Equal(t, want, j.All())
				require.Equal(t, "ready", testkit.StateOf(t, o, "its user"))
				require.NoError(t, o.Stop(t.Context()))
			})
		})
	}
}

func TestRestart_WhileOthersStart(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var starts atomic.Int32
		var j testkit.Journal
		o := testkit.Orchestrate(t, startup.Options{}, testkit.Crashing(&starts, time.Second, startup.Restart{Mode: startup.Always, MaxRestarts: 100}), j.Component("slow", 10*time.Second))
		_, err := o.Start(t.Context())
		require.NoError(t, err)
		testkit.Pass(time.Minute)
		require.Greater(t, starts.Load(), int32(10))
		require.NoError(t, testkit.StopInTime(t, o))
	})
}

func TestRestart_HungIsAbandonedAndUndone(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var starts, inside atomic.Int32
		var j testkit.Journal
		c := registry.Component{Name: "a", StartTimeout: 5 * time.Second, Restart: startup.Restart{Mode: startup.Always}}
		c.Start = func(_ context.Context, run *startup.Run) error {
			if inside.Add(1) > 1 {
				t.Error("two Starts of one component at the same time")
			}
			defer inside.Add(-1)
			switch starts.Add(1) {
			case 1:
				run.Go(func(ctx context.Context) error {
					select {
					case <-time.After(time.Second):
					case <-ctx.Done():
					}
					return testkit.ErrDown
				})
			case 2:
				time.Sleep(5 * time.Minute)
			}
			return nil
		}
		c.Stop = func(context.Context) error { j.Note("-a"); return nil }
		o := testkit.Orchestrate(t, startup.Options{StartTimeout: 5 * time.Second}, c)
		_, err := o.Start(t.Context())
		require.NoError(t, err)
		testkit.Pass(4 * time.Minute)
		require.Equal(t, "stuck", testkit.StateOf(t, o, "a"))
		<-o.Failed()
		testkit.Pass(10 * time.Minute)
		require.Equal(t, "stopped", testkit.StateOf(t, o, "a"))
		require.Equal(t, int32(2), starts.Load())
		require.Len(t, j.All(), 2, "each start that succeeded was stopped once")
		require.NoError(t, testkit.StopInTime(t, o))
	})
}

func TestRestart_FollowsStopOfPreviousAttempt(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var starts atomic.Int32
		var stopping atomic.Bool
		c := registry.Component{Name: "a", Notifies: true, StartTimeout: time.Second, Restart: startup.Restart{Mode: startup.Always}}
		c.Start = func(_ context.Context, run *startup.Run) error {
			if stopping.Load() {
				t.Errorf("start %d while Stop runs", starts.Load()+1)
			}
			switch starts.Add(1) {
			case 1:
				run.Ready()
				time.AfterFunc(time.Minute, func() { run.Ended(testkit.ErrDown) })
			case 2: // never ready
			default:
				run.Ready()
			}
			return nil
		}
		c.Stop = func(context.Context) error {
			stopping.Store(true)
			defer stopping.Store(false)
			time.Sleep(5 * time.Second)
			return nil
		}
		o := testkit.Orchestrate(t, startup.Options{StartTimeout: time.Second}, c)
		_, err := o.Start(t.Context())
		require.NoError(t, err)
		testkit.Pass(10 * time.Minute)
		require.NoError(t, testkit.StopInTime(t, o))
	})
}

func TestRestart_FailedCriticalDependantEndsRun(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var starts, users atomic.Int32
		user := registry.Component{Name: "user", Needs: startup.Capabilities("crashing"), Start: func(context.Context, *startup.Run) error {
			if users.Add(1) > 1 {
				return testkit.ErrDown
			}
			return nil
		}}
		o := testkit.Orchestrate(t, startup.Options{}, testkit.Crashing(&starts, time.Hour, startup.Restart{Mode: startup.Always, Dependants: true}), user)
		ctx, cancel := context.WithTimeout(t.Context(), 90*time.Minute)
		defer cancel()
		err := o.Run(ctx)
		require.ErrorIs(t, err, testkit.ErrDown)
		require.NoError(t, ctx.Err(), "it ended by itself")
	})
}

func TestRestart_WaitsForRestartingNeeds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var starts, users atomic.Int32
		db := testkit.Crashing(&starts, time.Hour, startup.Restart{Mode: startup.Always, FirstDelay: time.Minute, MaxDelay: time.Minute})
		user := registry.Component{Name: "user", Needs: startup.Capabilities("crashing"), Restart: startup.Restart{Mode: startup.Always}}
		user.Start = func(_ context.Context, run *startup.Run) error {
			if users.Add(1) == 1 {
				time.AfterFunc(time.Hour+time.Millisecond, func() { run.Ended(testkit.ErrDown) })
			}
			return nil
		}
		o := testkit.Orchestrate(t, startup.Options{}, db, user)
		_, err := o.Start(t.Context())
		require.NoError(t, err)
		testkit.Pass(time.Hour + 10*time.Minute)
		require.Equal(t, "ready", testkit.StateOf(t, o, "user"))
		require.NoError(t, testkit.StopInTime(t, o))
	})
}

func TestRestart_HasStartTimeout(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var starts atomic.Int32
		c := registry.Component{Name: "a", Notifies: true, StartTimeout: time.Second, Restart: startup.Restart{Mode: startup.Always}}
		var at []time.Time
		c.Start = func(_ context.Context, run *startup.Run) error {
			at = append(at, time.Now())
			if starts.Add(1) == 1 {
				run.Ready()
				time.AfterFunc(time.Minute, func() { run.Ended(testkit.ErrDown) })
			}
			return nil
		}
		o := testkit.Orchestrate(t, startup.Options{StartTimeout: time.Hour}, c)
		_, err := o.Start(t.Context())
		require.NoError(t, err)
		testkit.Pass(10 * time.Hour)
		require.NoError(t, testkit.StopInTime(t, o))
		require.Greater(t, len(at), 3)
		for i := 2; i < len(at); i++ {
			require.Less(t, at[i].Sub(at[i-1]), time.Minute, "start %d", i)
		}
	})
}

func TestRestart_EndedDependantStartsOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var dbs, apps, up atomic.Int32
		var j testkit.Journal
		db := registry.Component{Name: "db", Provides: []string{"db"}, Restart: startup.Restart{Mode: startup.Always, Dependants: true, FirstDelay: 100 * time.Millisecond}}
		db.Start = func(_ context.Context, run *startup.Run) error {
			if dbs.Add(1) == 1 {
				time.AfterFunc(time.Minute, func() { run.Ended(testkit.ErrDown) })
			}
			return nil
		}
		app := registry.Component{Name: "app", Provides: []string{"app"}, Needs: startup.Capabilities("db"), Restart: startup.Restart{Mode: startup.Always, FirstDelay: 2 * time.Second}}
		app.Start = func(_ context.Context, run *startup.Run) error {
			j.Note("+app")
			if up.Add(1) > 1 {
				t.Error("app is started twice without a stop in between")
			}
			if apps.Add(1) == 1 {
				time.AfterFunc(time.Minute+time.Second, func() { run.Ended(testkit.ErrDown) })
			}
			return nil
		}
		app.Stop = func(context.Context) error { j.Note("-app"); up.Add(-1); return nil }
		web := j.Component("web", 0, "app")
		web.Stop = func(context.Context) error { j.Note("-web"); time.Sleep(5 * time.Second); return nil }
		o := testkit.Orchestrate(t, startup.Options{}, db, app, web)
		_, err := o.Start(t.Context())
		require.NoError(t, err)
		testkit.Pass(10 * time.Minute)
		require.NoError(t, testkit.StopInTime(t, o))
	})
}

func TestRestart_AfterPredecessorWasRemoved(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var starts atomic.Int32
		u := testkit.Crashing(&starts, time.Minute, startup.Restart{Mode: startup.Always})
		u.Needs = []startup.Need{{Component: "a", OrderOnly: true}}
		o := testkit.Orchestrate(t, startup.Options{}, registry.Component{Name: "a"}, u)
		_, err := o.Start(t.Context())
		require.NoError(t, err)
		require.NoError(t, o.Remove(t.Context(), "a"))
		require.NoError(t, o.Add(t.Context(), registry.Component{Name: "x"}))
		testkit.Pass(time.Minute + time.Second)
		require.Equal(t, int32(2), starts.Load())
		require.NoError(t, o.Stop(t.Context()))
	})
}

func TestRestart_QueuedComponentWaitsForNeed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var starts atomic.Int32
		var j testkit.Journal
		c := testkit.Crashing(&starts, 5*time.Second, startup.Restart{Mode: startup.Always, FirstDelay: time.Hour, MaxDelay: time.Hour})
		o := testkit.Orchestrate(t, startup.Options{MaxConcurrent: 1}, c)
		_, err := o.Start(t.Context())
		require.NoError(t, err)
		hog := j.Component("hog", 10*time.Second)
		user := j.Component("user", 0, "crashing")
		began := time.Now()
		require.NoError(t, o.Add(t.Context(), hog, user))
		require.Greater(t, time.Since(began), 30*time.Minute)
		require.NoError(t, o.Stop(t.Context()))
	})
}

func TestRestart_DependantOfTwoStartsAfterBoth(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var j testkit.Journal
		crash := func(name string, after, delay time.Duration) registry.Component {
			first := true
			return registry.Component{
				Name: name, Provides: []string{name}, Restart: startup.Restart{Mode: startup.Always, Dependants: true, FirstDelay: delay},
				Start: func(_ context.Context, run *startup.Run) error {
					if first {
						first = false
						time.AfterFunc(after, func() { run.Ended(testkit.ErrDown) })
					}
					return nil
				},
			}
		}
		o := testkit.Orchestrate(t, startup.Options{}, crash("a", time.Minute, 100*time.Millisecond), crash("b", time.Minute+10*time.Millisecond, 10*time.Second), j.Component("user", 0, "a", "b"))
		_, err := o.Start(t.Context())
		require.NoError(t, err)
		testkit.Pass(time.Hour)
		require.Equal(t, "ready", testkit.StateOf(t, o, "user"))
		require.Equal(t, []string{"+user", "-user", "+user"}, j.All())
		require.NoError(t, testkit.StopInTime(t, o))
	})
}

func TestRestart_OneAtATime(t *testing.T) {
	t.Parallel()
	var o *registry.Orchestrator
	var up, starts atomic.Int32
	c := registry.Component{Name: "a", Restart: startup.Restart{Mode: startup.Always, MaxRestarts: 1 << 30, FirstDelay: 1, MaxDelay: 1}}
	c.Start = func(_ context.Context, run *startup.Run) error {
		starts.Add(1)
		if up.Add(1) > 1 {
			t.Error("started again without a stop in between, at start", starts.Load())
		}
		run.Go(func(ctx context.Context) error {
			for ctx.Err() == nil {
				if s, _ := o.State("a"); s == startup.Ready {
					return testkit.ErrDown
				}
				runtime.Gosched()
			}
			return nil
		})
		return nil
	}
	c.Stop = func(context.Context) error { up.Add(-1); return nil }
	o = testkit.Orchestrate(t, startup.Options{}, c)
	_, err := o.Start(t.Context())
	require.NoError(t, err)
	for starts.Load() < 1000 && !t.Failed() {
		runtime.Gosched()
	}
	require.NoError(t, o.Stop(t.Context()))
	require.Zero(t, up.Load())
}

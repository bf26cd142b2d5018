package lifecycle_test

import (
	"context"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry/internal/fault"
	"github.com/capreg/registry/internal/lifecycle"
	"github.com/capreg/registry/startup"
)

func count(j *journal, line string) (n int) {
	for _, l := range j.all() {
		if l == line {
			n++
		}
	}
	return n
}

func TestRestart_IsUpToALimitWithGrowingDelays(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		var j journal
		var at []time.Time
		c := j.ending("a", time.Second, startup.Restart{Mode: startup.OnFailure, MaxRestarts: 3, Decay: time.Hour, FirstDelay: 10 * time.Second, MaxDelay: 15 * time.Second})
		start := c.Start
		c.Start = func(ctx context.Context, run *startup.Run) error { at = append(at, time.Now()); return start(ctx, run) }
		c.Notifies = true // so that it is never ready again, and its delay grows
		c.StartTimeout = 2 * time.Second
		c.Start = func(ctx context.Context, run *startup.Run) error {
			at = append(at, time.Now())
			if len(at) == 1 {
				run.Ready()
				return start(ctx, run)
			}
			return errBroken
		}
		e := started(t, startup.Options{}, c)
		<-e.Failed()
		require.Len(t, at, 4)
		requireState(t, e, "a", startup.Failed)
		require.ErrorIs(t, e.Report().Err, errBroken)
		require.InDelta(t, 10, at[1].Sub(at[0]).Seconds(), 2)
		require.InDelta(t, 13.5, at[2].Sub(at[1]).Seconds(), 2)
		require.InDelta(t, 13.5, at[3].Sub(at[2]).Seconds(), 2)
		require.NoError(t, stopped(t, e))
	})
}

func TestRestart_OfRareEndsIsUnlimited(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		var j journal
		e := started(t, startup.Options{}, j.ending("a", 30*time.Second, startup.Restart{Mode: startup.OnFailure, MaxRestarts: 3}))
		pass(time.Hour)
		require.InDelta(t, 119, count(&j, "+a"), 2)
		require.InDelta(t, 118, e.Report().Components[0].Restarts, 2)
		require.NoError(t, stopped(t, e))
		require.Equal(t, count(&j, "+a"), count(&j, "-a"))
	})
}

func TestRestart_ModeDecidesByTheEnd(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		mode  startup.RestartMode
		ends  error
		state startup.State
	}{
		{startup.Never, nil, startup.Stopped},
		{startup.Never, errBroken, startup.Failed},
		{startup.OnFailure, nil, startup.Stopped},
		{startup.OnFailure, errBroken, startup.Restarting},
		{startup.Always, nil, startup.Restarting},
		{startup.Always, errBroken, startup.Restarting},
	} {
		bubble(t, func(t *testing.T) {
			c := component{Name: "a", NonCritical: true, Restart: &startup.Restart{Mode: test.mode, FirstDelay: time.Hour}}
			c.Start = func(_ context.Context, run *startup.Run) error {
				time.AfterFunc(time.Second, func() { run.Ended(test.ends); run.Ended(nil) })
				return nil
			}
			e := started(t, startup.Options{}, c)
			pass(time.Minute)
			requireState(t, e, "a", test.state)
			if test.state == startup.Stopped {
				require.Equal(t, "ended by itself", e.Report().Components[0].Reason)
			}
			require.NoError(t, stopped(t, e))
		})
	}
}

func TestRestart_OfDependantsIsByPolicy(t *testing.T) {
	t.Parallel()
	for _, dependants := range []bool{false, true} {
		t.Run(strconv.FormatBool(dependants), func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T) {
				var j journal
				after := j.component("after", 0)
				after.Needs = []startup.Need{{Component: "db", OrderOnly: true}}
				e := started(t, startup.Options{}, j.ending("db", 10*time.Second, startup.Restart{Mode: startup.Always, Dependants: dependants}),
					j.component("user", time.Second, "db"), j.component("its user", time.Second, "user", "db"), after)
				pass(15 * time.Second)
				var want []string
				if dependants {
					want = []string{"-its user", "-user", "-db", "+db", "+user", "+its user"}
				} else {
					want = []string{"-db", "+db"}
				}
				require.Equal(t, want, j.all()[4:])
				requireState(t, e, "its user", startup.Ready)
				require.NoError(t, stopped(t, e))
			})
		})
	}
}

func TestRestart_AbortsDependantsThatStart(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		var j journal
		notifies := j.component("notifies", 0, "db")
		notifies.Notifies = true
		notifies.StartTimeout = time.Hour
		e := build(t, startup.Options{}, j.ending("db", 10*time.Second, startup.Restart{Mode: startup.Always, Dependants: true, MaxRestarts: 1, FirstDelay: time.Hour, MaxDelay: time.Hour}),
			j.component("slow", 12*time.Second, "db"), notifies)
		done := startAside(t, e)
		pass(11 * time.Second)
		requireState(t, e, "slow", startup.Waiting)
		requireState(t, e, "notifies", startup.Waiting)
		require.Equal(t, 1, count(&j, "-notifies"))
		require.Equal(t, 0, count(&j, "-slow"))
		pass(time.Hour)
		require.Equal(t, 2, count(&j, "+slow"))
		require.NoError(t, stopped(t, e))
		require.ErrorIs(t, <-done, fault.ErrClosed)
	})
}

func TestRestart_OfTwoNeedsStartsADependantAfterBoth(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		var j journal
		once := func(name string, after, delay time.Duration) component {
			c := component{Name: name, Provides: []string{name}, Restart: &startup.Restart{Mode: startup.Always, Dependants: true, FirstDelay: delay}}
			first := true
			c.Start = func(_ context.Context, run *startup.Run) error {
				if first {
					first = false
					time.AfterFunc(after, func() { run.Ended(errBroken) })
				}
				return nil
			}
			return c
		}
		user := j.component("user", 0, "a", "b")
		user.Stop = func(ctx context.Context) error { j.note("-user"); return sleep(ctx, time.Second) }
		e := started(t, startup.Options{}, once("a", time.Minute, 100*time.Millisecond), once("b", time.Minute+10*time.Millisecond, 10*time.Second), user)
		pass(time.Minute + 20*time.Millisecond)
		requireState(t, e, "b", startup.Restarting)
		pass(time.Hour)
		requireState(t, e, "user", startup.Ready)
		require.Equal(t, []string{"+user", "-user", "+user"}, j.all())
		require.NoError(t, stopped(t, e))
	})
}

func TestRestart_ThatFailsForGoodSkipsDependants(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		var j journal
		starts := 0
		db := component{Name: "db", Provides: []string{"db"}, NonCritical: true, Restart: &startup.Restart{Mode: startup.Always, Dependants: true}}
		db.Start = func(_ context.Context, run *startup.Run) error {
			if starts++; starts > 1 {
				return errBroken
			}
			time.AfterFunc(time.Minute, func() { run.Ended(errBroken) })
			return nil
		}
		e := started(t, startup.Options{}, db, j.component("user", 0, "db"))
		pass(time.Hour)
		requireState(t, e, "db", startup.Failed)
		requireState(t, e, "user", startup.Skipped)
		require.Contains(t, e.Report().Components[1].Reason, `"db"`)
		require.NoError(t, stopped(t, e))
	})
}

func TestRestart_OfADependantThatFailsEndsTheProgram(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		var j journal
		starts := 0
		user := component{Name: "user", Needs: startup.Capabilities("db"), Start: func(context.Context, *startup.Run) error {
			if starts++; starts > 1 {
				return errBroken
			}
			return nil
		}}
		e := started(t, startup.Options{}, j.ending("db", time.Hour, startup.Restart{Mode: startup.Always, Dependants: true}), user)
		<-e.Failed()
		require.ErrorIs(t, e.Report().Err, errBroken)
		require.False(t, e.Report().RolledBack)
		require.NoError(t, stopped(t, e))
	})
}

func TestRestart_WhoseStartDoesNotReturnIsStuckAndUndoneLater(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		var j journal
		c := j.ending("a", time.Second, startup.Restart{Mode: startup.Always})
		c.StartTimeout = 5 * time.Second
		start := c.Start
		c.Start = func(ctx context.Context, run *startup.Run) error {
			if count(&j, "+a") == 1 {
				j.note("+a")
				time.Sleep(5 * time.Minute)
				return nil
			}
			return start(ctx, run)
		}
		e := started(t, startup.Options{}, c)
		pass(time.Minute)
		requireState(t, e, "a", startup.Stuck)
		<-e.Failed()
		pass(10 * time.Minute)
		requireState(t, e, "a", startup.Stopped)
		require.Equal(t, []string{"+a", "-a", "+a", "-a"}, j.all())
		require.NoError(t, stopped(t, e))
	})
}

func TestRestart_WaitsForTheStopAndIsStuckWithoutIt(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		var j journal
		release := make(chan struct{})
		c := j.ending("a", time.Second, startup.Restart{Mode: startup.Always})
		c.Stop = func(context.Context) error { <-release; return nil }
		e := started(t, startup.Options{}, c)
		pass(time.Hour)
		requireState(t, e, "a", startup.Stuck)
		require.Equal(t, []string{"+a"}, j.all())
		require.ErrorIs(t, stopped(t, e), fault.ErrStuck)
		close(release)
	})
}

func TestRestart_IsStuckWhileCodeOfTheLastRunDoesNotReturn(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		var j journal
		c := j.ending("a", time.Second, startup.Restart{Mode: startup.Always})
		c.StartTimeout = 5 * time.Second
		c.Ready = func(context.Context) error {
			if count(&j, "+a") > 1 {
				time.Sleep(time.Minute)
			}
			return nil
		}
		e := started(t, startup.Options{}, c)
		pass(30 * time.Second)
		requireState(t, e, "a", startup.Stuck)
		require.Contains(t, e.Report().String(), "code of its last run does not return")
		pass(time.Hour)
		require.Equal(t, []string{"+a", "-a", "+a", "-a"}, j.all())
		require.ErrorIs(t, stopped(t, e), fault.ErrStuck)
	})
}

func TestRestart_ThatIsStoppedIsNoFailure(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		var j journal
		c := j.ending("a", time.Minute, startup.Restart{Mode: startup.Always})
		start := c.Start
		c.Start = func(ctx context.Context, run *startup.Run) error {
			if count(&j, "+a") == 1 {
				return sleep(ctx, 10*time.Second)
			}
			return start(ctx, run)
		}
		e := started(t, startup.Options{}, c)
		pass(time.Minute + 5*time.Second)
		requireState(t, e, "a", startup.Starting)
		require.NoError(t, stopped(t, e))
		requireState(t, e, "a", startup.Stopped)
		require.NoError(t, e.Report().Err)
	})
}

func TestRun_EndBeforeReadyIsAFailedStart(t *testing.T) {
	t.Parallel()
	for name, start := range map[string]func(ctx context.Context, run *startup.Run) error{
		"goroutine": func(_ context.Context, run *startup.Run) error {
			run.Go(func(context.Context) error { return errBroken })
			time.Sleep(time.Second)
			return nil
		},
		"report, and Start fails": func(_ context.Context, run *startup.Run) error {
			run.Ended(errBroken)
			return context.Canceled
		},
		"while it is awaited": func(_ context.Context, run *startup.Run) error {
			run.Go(func(context.Context) error { time.Sleep(time.Second); return errBroken })
			return nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T) {
				e := build(t, startup.Options{}, component{Name: "a", Start: start, Notifies: true})
				_, err := e.Start(t.Context())
				require.ErrorIs(t, err, errBroken)
				requireState(t, e, "a", startup.Failed)
			})
		})
	}
}

func TestRun_EndWithoutAnErrorBeforeReadyIsAFailedStart(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		e := build(t, startup.Options{}, component{Name: "a", Notifies: true, Start: func(_ context.Context, run *startup.Run) error {
			for range 2 {
				run.Go(func(context.Context) error { return nil })
			}
			time.Sleep(time.Second)
			return nil
		}})
		_, err := e.Start(t.Context())
		require.ErrorIs(t, err, fault.ErrNotReady)
		require.ErrorContains(t, err, "it ended before it was ready")
	})
}

func TestRun_OfAnEarlierLifeIsOver(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		var j journal
		var old *startup.Run
		c := component{Name: "a", Restart: &startup.Restart{Mode: startup.Always}}
		c.Start = func(_ context.Context, run *startup.Run) error {
			if old == nil {
				old = run
				time.AfterFunc(time.Second, func() { run.Ended(errBroken) })
				return nil
			}
			return run.Context().Err()
		}
		e := started(t, startup.Options{}, c)
		pass(time.Minute)
		old.Go(func(context.Context) error { j.note("runs"); return nil })
		old.Ready()
		old.Ended(errBroken)
		require.ErrorIs(t, context.Cause(old.Context()), fault.ErrClosed)
		require.Empty(t, j.all())
		requireState(t, e, "a", startup.Ready)
		require.NoError(t, stopped(t, e))
	})
}

func TestRun_OfWhatIsDownGivesAContextThatHasEnded(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		var run *startup.Run
		e := started(t, startup.Options{}, component{Name: "a", Start: func(_ context.Context, r *startup.Run) error { run = r; return nil }})
		require.NoError(t, stopped(t, e))
		require.Error(t, run.Context().Err())
	})
}

func TestRestart_ThatIsOvertakenByAStopKeepsTheOrder(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		var j journal
		slow := func(c component) component {
			stop := c.Stop
			c.Stop = func(ctx context.Context) error { time.Sleep(2 * time.Second); return stop(ctx) }
			return c
		}
		failed := slow(slow(j.ending("failed", time.Second, startup.Restart{}, "base"))) // stops only with everything
		failed.NonCritical = true
		e := started(t, startup.Options{}, j.ending("base", 2*time.Second, startup.Restart{Mode: startup.Always, Dependants: true}),
			failed, slow(j.component("user", 0, "base")))
		pass(3 * time.Second)
		requireState(t, e, "failed", startup.Failed)
		requireState(t, e, "base", startup.Restarting)
		require.NoError(t, stopped(t, e))
		require.Equal(t, []string{"-user", "-failed", "-base"}, j.all()[3:])
	})
}

func TestRestart_LetsTwoThatUseEachOtherStop(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		var j journal
		first := j.ending("first", time.Second, startup.Restart{Mode: startup.OnFailure, MaxRestarts: 1})
		first.Provides, first.Needs = []string{"x"}, []startup.Need{{Capability: "y", Any: true}}
		again := first.Start
		first.Start = func(ctx context.Context, run *startup.Run) error {
			if count(&j, "+first") == 1 {
				j.note("+first")
				return nil
			}
			return again(ctx, run)
		}
		second := j.component("second", time.Millisecond)
		second.Provides, second.Needs = []string{"y"}, []startup.Need{{Capability: "x", Any: true}, {Component: "late", OrderOnly: true}}
		other := j.component("other", 0)
		other.Provides = []string{"x", "y"}
		e := started(t, startup.Options{}, first, second, other, component{Name: "late", Start: func(ctx context.Context, _ *startup.Run) error { return sleep(ctx, time.Millisecond) }})
		pass(5 * time.Second)
		requireState(t, e, "first", startup.Ready)
		require.NoError(t, stopped(t, e))
		require.Equal(t, "-second -first -other", strings.Join(j.all()[len(j.all())-3:], " "))
	})
}

func TestRestart_AtOnceIsOneAtATime(t *testing.T) {
	t.Parallel()
	var e *lifecycle.Engine
	var up, starts atomic.Int32
	c := component{Name: "a", Restart: &startup.Restart{Mode: startup.Always, MaxRestarts: 1 << 30, FirstDelay: 1, MaxDelay: 1}}
	c.Start = func(_ context.Context, run *startup.Run) error {
		starts.Add(1)
		if up.Add(1) > 1 {
			t.Error("started twice without a stop in between")
		}
		run.Go(func(ctx context.Context) error {
			for ctx.Err() == nil {
				if state, _ := e.State("a"); state == startup.Ready {
					return errBroken
				}
				runtime.Gosched()
			}
			return nil
		})
		return nil
	}
	c.Stop = func(context.Context) error { up.Add(-1); return nil }
	e = build(t, startup.Options{}, c)
	_, err := e.Start(t.Context())
	require.NoError(t, err)
	for starts.Load() < 500 && !t.Failed() {
		runtime.Gosched()
	}
	require.NoError(t, e.Stop(t.Context()))
	require.Zero(t, up.Load())
}

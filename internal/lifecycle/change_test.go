package lifecycle_test

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry/internal/fault"
	"github.com/capreg/registry/internal/lifecycle"
	"github.com/capreg/registry/startup"
)

func add(ctx context.Context, e *lifecycle.Engine, components ...component) error {
	return e.Add(ctx, withDefaults(components))
}

func requireUnknown(t *testing.T, e *lifecycle.Engine, name string) {
	t.Helper()
	_, ok := e.State(name)
	require.False(t, ok, name)
}

func TestAdd_StartsAndRemoveStopsWhileOthersRun(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		var j journal
		e := started(t, startup.Options{}, j.component("db", 0))
		require.NoError(t, add(t.Context(), e, j.component("web", time.Second, "app"), j.component("app", time.Second, "db")))
		require.Equal(t, []string{"+db", "+app", "+web"}, j.all())
		err := e.Remove(t.Context(), "db")
		var inUse *lifecycle.InUseError
		require.ErrorAs(t, err, &inUse)
		require.ErrorIs(t, err, fault.ErrConflict)
		require.ErrorContains(t, err, "needed by app")
		require.Equal(t, []string{"app"}, inUse.Users)
		require.ErrorIs(t, e.Remove(t.Context(), "none"), fault.ErrNotRegistered)
		require.NoError(t, e.Remove(t.Context(), "web"))
		requireUnknown(t, e, "web")
		require.ErrorIs(t, add(t.Context(), e, j.component("x", 0, "nothing")), startup.ErrPlan)
		require.NoError(t, add(t.Context(), e, j.component("web", 0, "app")), "its name is free again")
		require.NoError(t, stopped(t, e))
		require.Equal(t, []string{"-web", "+web", "-web", "-app", "-db"}, j.all()[3:])
		require.ErrorIs(t, add(t.Context(), e, j.component("late", 0)), fault.ErrState)
		require.ErrorIs(t, e.Remove(t.Context(), "web"), fault.ErrState, "it has been stopped")
	})
}

func TestAdd_BeforeTheStartJoinsThePlan(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		var j journal
		e := build(t, startup.Options{}, j.component("a", 0), component{Name: "after", Needs: []startup.Need{{Component: "b", OrderOnly: true}}})
		require.NoError(t, add(t.Context(), e, j.component("b", 0, "a"), component{Name: "x", Needs: []startup.Need{{Component: "b", OrderOnly: true}}}))
		require.Equal(t, [][]string{{"a", "after"}, {"b"}, {"x"}}, e.Plan().Batches)
		require.NoError(t, e.Remove(t.Context(), "b"))
		require.Equal(t, "batch 1: a, after, x", e.Plan().String(), "no empty batch")
		require.Empty(t, j.all())
	})
}

func TestAdd_ThatFailsUndoesAllThatWasAdded(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		var j journal
		e := started(t, startup.Options{}, j.component("app", 0))
		bad := broken("bad")
		bad.Needs = startup.Capabilities("good")
		require.ErrorIs(t, add(t.Context(), e, j.component("good", 0, "app"), bad, j.component("user", 0, "good")), errBroken)
		require.Equal(t, []string{"+good", "+user", "-user", "-good"}, j.all()[1:])
		requireUnknown(t, e, "good")
		requireUnknown(t, e, "bad")

		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		require.ErrorIs(t, add(ctx, e, j.component("slow", time.Hour, "app"), j.component("user", 0, "slow")), context.DeadlineExceeded)
		requireUnknown(t, e, "slow")
		requireUnknown(t, e, "user")
		require.ErrorIs(t, add(ctx, e, j.component("never", 0)), context.DeadlineExceeded)
		require.NotContains(t, j.all(), "+never")
		require.NoError(t, stopped(t, e))
	})
}

func TestAdd_ThatFailsKeepsWhatOthersHaveComeToUse(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		var j journal
		e := started(t, startup.Options{})
		bad := component{Name: "bad", Start: func(context.Context, *startup.Run) error { time.Sleep(10 * time.Second); return errBroken }}
		done := make(chan error, 1)
		go func() { done <- add(t.Context(), e, j.component("base", 0), j.component("a", 0, "base"), bad) }()
		pass(time.Second)
		require.NoError(t, add(t.Context(), e, j.component("user", 0, "a")))
		require.ErrorIs(t, <-done, errBroken)
		requireState(t, e, "user", startup.Ready)
		requireState(t, e, "a", startup.Ready)
		requireState(t, e, "base", startup.Ready)
		requireUnknown(t, e, "bad")
		require.NoError(t, stopped(t, e))
	})
}

func TestAdd_KeepsWhatIsNotCritical(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		e := started(t, startup.Options{})
		bad := broken("bad")
		bad.NonCritical = true
		require.NoError(t, add(t.Context(), e, bad))
		requireState(t, e, "bad", startup.Failed)
		require.NoError(t, e.Remove(t.Context(), "bad"))
		requireUnknown(t, e, "bad")
		require.NoError(t, stopped(t, e))
	})
}

func TestAdd_ThatAStopEndsMatchesClosed(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		var j journal
		e := started(t, startup.Options{})
		added := make(chan error, 1)
		go func() { added <- add(t.Context(), e, j.component("x", time.Minute), j.component("y", 0, "x")) }()
		pass(time.Second)
		require.ErrorIs(t, e.Remove(t.Context(), "y"), fault.ErrState, "it starts")
		require.NoError(t, stopped(t, e))
		require.ErrorIs(t, <-added, fault.ErrClosed)
	})
}

func TestAdd_EndsWithItsContextWhileANeedRestarts(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		var j journal
		db := j.ending("db", 2*time.Second, startup.Restart{Mode: startup.Always, Dependants: true, FirstDelay: time.Hour, MaxDelay: time.Hour})
		e := started(t, startup.Options{}, db)
		user := j.component("user", 0, "db")
		user.Notifies = true
		user.Stop = func(ctx context.Context) error { return sleep(ctx, 5*time.Second) }
		ctx, cancel := context.WithTimeout(t.Context(), 4*time.Second)
		defer cancel()
		began := time.Now()
		require.ErrorIs(t, add(ctx, e, user), context.DeadlineExceeded)
		require.Less(t, time.Since(began), time.Minute)
		requireUnknown(t, e, "user")
		require.NoError(t, stopped(t, e))
	})
}

func TestAdd_AbortsAStartForAGraceOnly(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		var j journal
		e := started(t, startup.Options{})
		deaf := component{Name: "deaf", Start: func(context.Context, *startup.Run) error { time.Sleep(10 * time.Second); return nil }}
		deaf.Stop = func(context.Context) error { j.note("-deaf"); return nil }
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		began := time.Now()
		require.ErrorIs(t, add(ctx, e, deaf), context.DeadlineExceeded)
		require.Equal(t, 2*time.Second, time.Since(began))
		requireState(t, e, "deaf", startup.Stuck)
		pass(time.Minute)
		require.Equal(t, []string{"-deaf"}, j.all())
		require.NoError(t, stopped(t, e))
	})
}

func TestAdd_ThatIsAbortedWhileANeedRestartsFailsAtOnce(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		var j, seen journal
		db := j.ending("db", 2*time.Second, startup.Restart{Mode: startup.Always, Dependants: true, FirstDelay: time.Hour, MaxDelay: time.Hour})
		e := started(t, startup.Options{Listen: func(e startup.Event) { seen.note("%s %v", e.Component, e.State) }}, db)
		user := j.component("user", 0, "db")
		user.Start = func(context.Context, *startup.Run) error { time.Sleep(2500 * time.Millisecond); return nil }
		ctx, cancel := context.WithTimeout(t.Context(), 2200*time.Millisecond)
		defer cancel()
		require.ErrorIs(t, add(ctx, e, user), context.DeadlineExceeded)
		pass(0)
		require.NotContains(t, seen.all(), "user restarting")
		require.Contains(t, seen.all(), "user failed")
		require.NoError(t, stopped(t, e))
	})
}

// nosyError is an error whose text asks the engine.
type nosyError struct{ e *lifecycle.Engine }

func (n nosyError) Error() string { n.e.State("x"); return "nosy" }

func TestAdd_CauseOfItsEndMayAskTheEngine(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		var j journal
		e := started(t, startup.Options{})
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(time.Second, func() { cancel(nosyError{e}) })
		require.ErrorContains(t, add(ctx, e, j.component("x", time.Hour), j.component("y", time.Hour, "x")), "nosy")
		require.NoError(t, stopped(t, e))
	})
}

func TestRemove_OfAComponentThatDoesNotStopIsStuck(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		release := make(chan struct{})
		e := started(t, startup.Options{}, component{Name: "a", Stop: func(context.Context) error { <-release; return nil }})
		require.ErrorIs(t, e.Remove(t.Context(), "a"), fault.ErrStuck)
		requireState(t, e, "a", startup.Stuck)
		require.ErrorIs(t, e.Stop(t.Context()), fault.ErrStuck)
		close(release)
	})
}

func TestRemove_EndsTheContextOfTheStopWithItsOwn(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		e := started(t, startup.Options{}, component{Name: "a", StopTimeout: time.Hour, Stop: func(ctx context.Context) error { <-ctx.Done(); return errBroken }})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		began := time.Now()
		require.ErrorIs(t, e.Remove(ctx, "a"), errBroken)
		require.Equal(t, time.Second, time.Since(began))
		requireUnknown(t, e, "a")
		require.NoError(t, stopped(t, e))
	})
}

func TestRemove_WaitsNoLongerThanAGrace(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		release := make(chan struct{})
		e := started(t, startup.Options{}, component{Name: "a", StopTimeout: time.Hour, Stop: func(context.Context) error { <-release; return nil }})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		require.ErrorIs(t, e.Remove(ctx, "a"), fault.ErrStuck)
		close(release)
		require.NoError(t, stopped(t, e))
	})
}

func TestRemove_WhileItRestarts(t *testing.T) {
	t.Parallel()
	for name, slow := range map[string]struct{ stop, start time.Duration }{
		"before the delay is over": {}, "while it stops": {stop: 8 * time.Second}, "while it starts": {start: time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T) {
				var j journal
				restart := startup.Restart{Mode: startup.Always, FirstDelay: time.Hour, MaxDelay: time.Hour}
				if slow.start > 0 {
					restart.FirstDelay, restart.MaxDelay = 1, 1
				}
				a := j.ending("a", time.Second, restart)
				start := a.Start
				a.StartTimeout = time.Hour
				a.Start = func(ctx context.Context, run *startup.Run) error {
					if count(&j, "+a") > 0 {
						j.note("+a")
						return sleep(ctx, slow.start)
					}
					return start(ctx, run)
				}
				a.Stop = func(ctx context.Context) error { return sleep(ctx, slow.stop) }
				e := started(t, startup.Options{MaxConcurrent: 1}, a)
				pass(2 * time.Second)
				added := make(chan error, 1)
				b := j.component("b", 0)
				b.Needs = []startup.Need{{Component: "a", OrderOnly: true}}
				go func() { added <- add(t.Context(), e, b) }()
				pass(time.Second)
				requireState(t, e, "b", startup.Waiting)
				require.NoError(t, e.Remove(t.Context(), "a"))
				require.NoError(t, <-added)
				requireUnknown(t, e, "a")
				require.NoError(t, stopped(t, e))
			})
		})
	}
}

func TestRemove_OfADependantWhileItsNeedRestarts(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		var j journal
		user := j.component("user", 0, "db")
		user.Stop = func(ctx context.Context) error { j.note("-user"); return sleep(ctx, 5*time.Second) }
		e := started(t, startup.Options{}, j.ending("db", time.Minute, startup.Restart{Mode: startup.Always, Dependants: true}), user)
		pass(time.Minute + time.Second)
		require.NoError(t, e.Remove(t.Context(), "user"))
		requireUnknown(t, e, "user")
		pass(10 * time.Second)
		require.NoError(t, stopped(t, e))
		require.Equal(t, 1, count(&j, "+user"))
	})
}

func TestRemove_OfARestartThatIsStuckIsNoFailureOfTheProgram(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		var j journal
		release := make(chan struct{})
		a := j.ending("a", time.Second, startup.Restart{Mode: startup.Always})
		a.Stop = func(context.Context) error { <-release; return nil }
		e := started(t, startup.Options{}, a)
		pass(2 * time.Second)
		require.ErrorIs(t, e.Remove(t.Context(), "a"), fault.ErrStuck)
		select {
		case <-e.Failed():
			t.Error("the program is to end")
		default:
		}
		close(release)
		pass(0)
		require.NoError(t, stopped(t, e))
	})
}

func TestRemove_OfOneThatIsProbedAgain(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		var j journal
		a := j.ending("a", time.Second, startup.Restart{Mode: startup.Always})
		a.Notifies = true
		start := a.Start
		a.Start = func(ctx context.Context, run *startup.Run) error {
			if count(&j, "+a") == 0 {
				run.Ready()
			}
			return start(ctx, run)
		}
		e := started(t, startup.Options{}, a)
		pass(1500 * time.Millisecond)
		requireState(t, e, "a", startup.Starting)
		require.NoError(t, e.Remove(t.Context(), "a"))
		require.Equal(t, []string{"+a", "-a", "+a", "-a"}, j.all())
		require.NoError(t, stopped(t, e))
	})
}

func TestRemove_IsRefusedWhereOthersCouldWaitForEachOther(t *testing.T) {
	t.Parallel()
	e := build(t, startup.Options{}, component{Name: "a", Provides: []string{"x"}},
		component{Name: "b", Provides: []string{"x"}, Needs: startup.Capabilities("y")},
		component{Name: "c", Provides: []string{"y"}, Needs: []startup.Need{{Capability: "x", Any: true, OrderOnly: true}}})
	require.ErrorIs(t, e.Remove(t.Context(), "a"), fault.ErrConflict)
}

func TestEngine_HoldsUnderConcurrentChanges(t *testing.T) {
	t.Parallel()
	var j journal
	e := started(t, startup.Options{MaxConcurrent: 2, Listen: func(startup.Event) {}},
		j.ending("a", 2*time.Millisecond, startup.Restart{Mode: startup.Always, MaxRestarts: 1 << 30, FirstDelay: time.Millisecond, MaxDelay: time.Millisecond}))
	var all sync.WaitGroup
	for g := range 8 {
		all.Go(func() {
			for i := range 50 {
				name := fmt.Sprint(g, "-", strconv.Itoa(i))
				_ = add(t.Context(), e, component{Name: name, NonCritical: i%2 == 0, Start: func(context.Context, *startup.Run) error {
					if i%3 == 0 {
						return errBroken
					}
					return nil
				}})
				e.Report()
				_ = e.Remove(t.Context(), name)
			}
		})
	}
	all.Wait()
	require.NoError(t, errors.Join(e.Stop(t.Context()), e.Check()))
}

package registry_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/startup"
)

// stopPatiently stops, and fails the test when that ended only with its context.
func stopPatiently(tb testing.TB, o *registry.Orchestrator) error {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 240*time.Hour)
	defer cancel()
	began := time.Now()
	err := o.Stop(ctx)
	require.Less(tb, time.Since(began), time.Hour, "the stop came to no end: %v", err)
	return err
}

// startBeside starts in a goroutine.
func startBeside(tb testing.TB, o *registry.Orchestrator) <-chan error {
	tb.Helper()
	done := make(chan error, 1)
	go func() { _, err := o.Start(tb.Context()); done <- err }()
	return done
}

func TestStopWaitsForAReadinessProbeInFlightAndStopsWhatItIsAbout(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T) {
		var j journal
		c := j.component("a", 0)
		c.Ready = func(context.Context) error { time.Sleep(2 * time.Second); return nil }
		o := orchestrate(t, startup.Options{}, c)
		done := startBeside(t, o)
		pass(time.Second)
		require.NoError(t, stopPatiently(t, o))
		require.Equal(t, []string{"+a", "-a"}, j.all())
		require.ErrorIs(t, <-done, registry.ErrClosed)
	})
}

func TestRollbackWaitsForAReadinessProbeInFlight(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T) {
		var j journal
		c := j.component("a", 0)
		c.Ready = func(context.Context) error { time.Sleep(2 * time.Second); return nil }
		bad := registry.Component{Name: "bad", Start: func(context.Context, *startup.Run) error { time.Sleep(time.Second); return errDown }}
		o := orchestrate(t, startup.Options{}, c, bad)
		done := startBeside(t, o)
		require.ErrorIs(t, <-done, errDown)
		require.Equal(t, []string{"+a", "-a"}, j.all())
	})
}

func TestStopDoesNotAskAgainWhetherAComponentIsReady(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T) {
		var j journal
		probes := 0
		c := j.component("a", 0)
		c.Ready = func(ctx context.Context) error {
			probes++
			select {
			case <-time.After(2 * time.Second):
				return errDown
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		o := orchestrate(t, startup.Options{}, c)
		done := startBeside(t, o)
		pass(time.Second)
		began := time.Now()
		require.NoError(t, stopPatiently(t, o))
		require.Less(t, time.Since(began), 2*time.Second)
		require.Equal(t, 1, probes)
		require.ErrorIs(t, <-done, registry.ErrClosed)
	})
}

func TestStopTakesOutWhatWasBeingRegistered(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T) {
		var j journal
		reg := newRegistry(t, registry.Options{})
		c := j.component("a", 0)
		c.Register = []func(context.Context, *registry.Registry) (*registry.Registration, error){
			func(ctx context.Context, r *registry.Registry) (*registry.Registration, error) {
				time.Sleep(2 * time.Second)
				return chat.Register(context.WithoutCancel(ctx), r, provider{Name: "model", Instance: says("model")})
			},
		}
		o, err := registry.NewOrchestrator(reg, startup.Options{}, c)
		require.NoError(t, err)
		done := startBeside(t, o)
		pass(time.Second)
		require.NoError(t, stopPatiently(t, o))
		require.Equal(t, []string{"+a", "-a"}, j.all())
		require.ErrorIs(t, <-done, registry.ErrClosed)
		_, err = chat.Get(t.Context(), reg, registry.Query{})
		require.ErrorIs(t, err, registry.ErrUnavailable)
		require.NoError(t, reg.Close(t.Context()))
	})
}

func TestComponentWhoseProbeDoesNotReturnIsStopped(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T) {
		var j journal
		var life context.Context
		c := j.component("a", 0)
		c.StartTimeout = 5 * time.Second
		c.Start = func(_ context.Context, run *startup.Run) error {
			life = run.Context() //nolint:fatcontext // the test looks at it from outside
			return nil
		}
		c.Ready = func(context.Context) error { time.Sleep(time.Minute); return errDown }
		o := orchestrate(t, startup.Options{}, c)
		_, err := o.Start(t.Context())
		require.ErrorIs(t, err, registry.ErrNotReady)
		pass(time.Hour)
		require.NoError(t, o.Stop(t.Context()))
		require.Equal(t, []string{"-a"}, j.all())
		require.Error(t, life.Err())
	})
}

func TestComponentThatEndsWhileOthersStartIsRestarted(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T) {
		var starts atomic.Int32
		var j journal
		o := orchestrate(t, startup.Options{}, crashing(&starts, time.Second, startup.Restart{Mode: startup.Always, Limit: 100}), j.component("slow", 10*time.Second))
		_, err := o.Start(t.Context())
		require.NoError(t, err)
		pass(time.Minute)
		require.Greater(t, starts.Load(), int32(10))
		require.NoError(t, stopPatiently(t, o))
	})
}

func TestStartFailsWhenACriticalComponentEndsMeanwhile(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T) {
		var starts atomic.Int32
		var j journal
		o := orchestrate(t, startup.Options{}, crashing(&starts, time.Second, startup.Restart{}), j.component("slow", 10*time.Second))
		require.ErrorIs(t, o.Run(t.Context()), errDown)
		require.Equal(t, []string{"+slow"}, j.all(), "its start was aborted")
		require.Equal(t, "failed", stateOf(t, o, "slow"))
	})
}

func TestComponentIsSkippedWhenItsNeedEndsBeforeItsTurn(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T) {
		var starts atomic.Int32
		var j journal
		o := orchestrate(t, startup.Options{OnFailure: startup.SkipDependants}, func() registry.Component {
			c := crashing(&starts, time.Second, startup.Restart{})
			c.NonCritical = true
			return c
		}(), j.component("slow", 10*time.Second), j.component("user", 0, "crashing", "slow"))
		_, err := o.Start(t.Context())
		require.NoError(t, err)
		require.Equal(t, "skipped", stateOf(t, o, "user"))
		require.NoError(t, o.Stop(t.Context()))
		require.NotContains(t, j.all(), "+user")
	})
}

func TestWorkerThatEndsBeforeStartReturnsIsAFailedStart(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T) {
		c := registry.Component{Name: "a", Start: func(_ context.Context, run *startup.Run) error {
			run.Go(func(context.Context) error { return errDown })
			time.Sleep(time.Second)
			return nil
		}}
		o := orchestrate(t, startup.Options{}, c)
		_, err := o.Start(t.Context())
		require.ErrorIs(t, err, errDown)
		require.Equal(t, "failed", stateOf(t, o, "a"))
	})
}

func TestFailedStartEndsItsRun(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T) {
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
			return errDown
		}}
		o := orchestrate(t, startup.Options{}, c)
		_, err := o.Start(t.Context())
		require.Error(t, err)
		require.NoError(t, o.Stop(t.Context()))
		pass(time.Hour)
		require.Zero(t, running.Load(), "workers of a component that is down")
	})
}

func TestRestartThatDoesNotReturnIsGivenUpAndUndoneWhenItDoes(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T) {
		var starts, inside atomic.Int32
		var j journal
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
					return errDown
				})
			case 2:
				time.Sleep(5 * time.Minute)
			}
			return nil
		}
		c.Stop = func(context.Context) error { j.note("-a"); return nil }
		o := orchestrate(t, startup.Options{StartTimeout: 5 * time.Second}, c)
		_, err := o.Start(t.Context())
		require.NoError(t, err)
		pass(4 * time.Minute)
		require.Equal(t, "stuck", stateOf(t, o, "a"))
		<-o.Failed()
		pass(10 * time.Minute)
		require.Equal(t, "stopped", stateOf(t, o, "a"))
		require.Equal(t, int32(2), starts.Load())
		require.Len(t, j.all(), 2, "each start that succeeded was stopped once")
		require.NoError(t, stopPatiently(t, o))
	})
}

func TestStopThatDoesNotReturnInARestartIsStuck(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T) {
		var starts atomic.Int32
		release := make(chan struct{})
		c := crashing(&starts, time.Second, startup.Restart{Mode: startup.Always})
		c.Stop = func(context.Context) error { <-release; return nil }
		o := orchestrate(t, startup.Options{}, c)
		_, err := o.Start(t.Context())
		require.NoError(t, err)
		pass(time.Hour)
		require.Equal(t, "stuck", stateOf(t, o, "crashing"))
		require.ErrorIs(t, stopPatiently(t, o), registry.ErrStuck)
		close(release)
	})
}

func TestStopThatExitsItsGoroutineInARestartHoldsNothingUp(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T) {
		var starts atomic.Int32
		c := crashing(&starts, time.Second, startup.Restart{Mode: startup.Always, Limit: 100})
		c.Stop = func(context.Context) error { runtime.Goexit(); return nil }
		o := orchestrate(t, startup.Options{}, c)
		_, err := o.Start(t.Context())
		require.NoError(t, err)
		pass(time.Minute)
		require.Greater(t, starts.Load(), int32(10))
		var exit *registry.PanicError
		require.ErrorAs(t, stopPatiently(t, o), &exit)
	})
}

func TestRestartComesAfterTheStopOfTheAttemptBefore(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T) {
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
				time.AfterFunc(time.Minute, func() { run.Ended(errDown) })
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
		o := orchestrate(t, startup.Options{StartTimeout: time.Second}, c)
		_, err := o.Start(t.Context())
		require.NoError(t, err)
		pass(10 * time.Minute)
		require.NoError(t, stopPatiently(t, o))
	})
}

func TestStopWaitsForTheStopOfAFailedRestart(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T) {
		var starts atomic.Int32
		var stopping atomic.Bool
		c := registry.Component{Name: "a", Notifies: true, StartTimeout: time.Second, Restart: startup.Restart{Mode: startup.Always, FirstDelay: 10 * time.Second}}
		c.Start = func(_ context.Context, run *startup.Run) error {
			if starts.Add(1) == 1 {
				run.Ready()
				time.AfterFunc(time.Minute, func() { run.Ended(errDown) })
			}
			return nil
		}
		c.Stop = func(context.Context) error {
			stopping.Store(true)
			defer stopping.Store(false)
			time.Sleep(5 * time.Second)
			return nil
		}
		o := orchestrate(t, startup.Options{StartTimeout: time.Second}, c)
		_, err := o.Start(t.Context())
		require.NoError(t, err)
		for starts.Load() < 2 {
			time.Sleep(time.Second)
		}
		pass(2 * time.Second) // the second start timed out, and is being stopped
		require.True(t, stopping.Load())
		require.NoError(t, stopPatiently(t, o))
		require.False(t, stopping.Load())
	})
}

func TestStopDuringARestartIsAnOrdinaryEnd(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T) {
		var starts atomic.Int32
		var j journal
		c := registry.Component{Name: "a", Restart: startup.Restart{Mode: startup.Always}}
		c.Start = func(ctx context.Context, run *startup.Run) error {
			if starts.Add(1) == 1 {
				time.AfterFunc(time.Minute, func() { run.Ended(errDown) })
				return nil
			}
			time.Sleep(10 * time.Second)
			return nil
		}
		c.Stop = func(context.Context) error { j.note("-a"); time.Sleep(time.Second); return nil }
		o := orchestrate(t, startup.Options{}, c)
		_, err := o.Start(t.Context())
		require.NoError(t, err)
		for starts.Load() < 2 {
			time.Sleep(time.Second)
		}
		require.NoError(t, stopPatiently(t, o))
		pass(time.Minute)
		select {
		case <-o.Failed():
			t.Error("an ordinary stop is no failure")
		default:
		}
		require.Equal(t, "stopped", stateOf(t, o, "a"))
		require.NoError(t, o.Report().Err)
	})
}

func TestStopAtTheEndOfARestartDelayIsAnOrdinaryEnd(t *testing.T) {
	t.Parallel()
	for range 20 {
		inBubble(t, func(t *testing.T) {
			c := registry.Component{Name: "a", Restart: startup.Restart{Mode: startup.Always, FirstDelay: 1, MaxDelay: 1}}
			c.Start = func(_ context.Context, run *startup.Run) error {
				time.AfterFunc(time.Second, func() { run.Ended(errDown) })
				return nil
			}
			o := orchestrate(t, startup.Options{}, c)
			_, err := o.Start(t.Context())
			require.NoError(t, err)
			time.Sleep(time.Second + 1)
			require.NoError(t, stopPatiently(t, o))
			require.Equal(t, "stopped", stateOf(t, o, "a"))
		})
	}
}

func TestWhatIsNotUpCanBeRemoved(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T) {
		var j journal
		o := orchestrate(t, startup.Options{}, j.component("a", 0), registry.Component{Name: "bad", NonCritical: true, Start: func(context.Context, *startup.Run) error { return errDown }})
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

func TestWhatOthersOnlyComeAfterCanBeRemoved(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T) {
		o := orchestrate(t, startup.Options{}, registry.Component{Name: "a"},
			registry.Component{Name: "u", Needs: []startup.Need{{Component: "a", OrderOnly: true}}})
		_, err := o.Start(t.Context())
		require.NoError(t, err)
		require.NoError(t, o.Remove(t.Context(), "a"))
		require.NoError(t, o.Add(t.Context(), registry.Component{Name: "x"}))
		require.Equal(t, [][]string{{"u", "x"}}, o.Plan().Batches)
		require.NoError(t, o.Stop(t.Context()))
	})
}

func TestDependantCanBeRemovedWhileItsNeedRestarts(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T) {
		var starts atomic.Int32
		var j journal
		user := j.component("user", 0, "crashing")
		user.Stop = func(context.Context) error { j.note("-user"); time.Sleep(5 * time.Second); return nil }
		o := orchestrate(t, startup.Options{}, crashing(&starts, time.Minute, startup.Restart{Mode: startup.Always, Dependants: true}), user)
		_, err := o.Start(t.Context())
		require.NoError(t, err)
		pass(time.Minute + time.Second)
		require.NoError(t, o.Remove(t.Context(), "user"))
		_, known := o.State("user")
		require.False(t, known)
		pass(10 * time.Second)
		require.NoError(t, stopPatiently(t, o))
		require.Equal(t, []string{"+user", "-user"}, j.all())
	})
}

func TestCriticalDependantThatFailsToStartAgainEndsTheRun(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T) {
		var starts, users atomic.Int32
		user := registry.Component{Name: "user", Needs: startup.Capabilities("crashing"), Start: func(context.Context, *startup.Run) error {
			if users.Add(1) > 1 {
				return errDown
			}
			return nil
		}}
		o := orchestrate(t, startup.Options{}, crashing(&starts, time.Hour, startup.Restart{Mode: startup.Always, Dependants: true}), user)
		ctx, cancel := context.WithTimeout(t.Context(), 90*time.Minute)
		defer cancel()
		err := o.Run(ctx)
		require.ErrorIs(t, err, errDown)
		require.NoError(t, ctx.Err(), "it ended by itself")
	})
}

func TestRestartWaitsForNeedsThatRestart(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T) {
		var starts, users atomic.Int32
		db := crashing(&starts, time.Hour, startup.Restart{Mode: startup.Always, FirstDelay: time.Minute, MaxDelay: time.Minute})
		user := registry.Component{Name: "user", Needs: startup.Capabilities("crashing"), Restart: startup.Restart{Mode: startup.Always}}
		user.Start = func(_ context.Context, run *startup.Run) error {
			if users.Add(1) == 1 {
				time.AfterFunc(time.Hour+time.Millisecond, func() { run.Ended(errDown) })
			}
			return nil
		}
		o := orchestrate(t, startup.Options{}, db, user)
		_, err := o.Start(t.Context())
		require.NoError(t, err)
		pass(time.Hour + 10*time.Minute)
		require.Equal(t, "ready", stateOf(t, o, "user"))
		require.NoError(t, stopPatiently(t, o))
	})
}

func TestBatchesGoOnWhereOnlyALaterProviderIsLeft(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T) {
		q := registry.Component{Name: "q", Provides: []string{"x"}, NonCritical: true, Start: func(context.Context, *startup.Run) error { return errDown }}
		s := registry.Component{Name: "s", Provides: []string{"x"}, Needs: startup.Capabilities("b")}
		b := registry.Component{Name: "b", Provides: []string{"b"}, Needs: startup.Capabilities("a")}
		a := registry.Component{Name: "a", Provides: []string{"a"}}
		app := registry.Component{Name: "app", Needs: []startup.Need{{Capability: "x", Any: true}}}
		o := orchestrate(t, startup.Options{Batches: true}, q, s, b, a, app)
		_, err := o.Start(t.Context())
		require.NoError(t, err)
		require.Equal(t, "ready", stateOf(t, o, "app"))
		require.NoError(t, o.Stop(t.Context()))
	})
}

func TestComponentsThatWaitForEachOtherAfterAFailureFail(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T) {
		c := registry.Component{Name: "c", Provides: []string{"x"}, NonCritical: true, Start: func(context.Context, *startup.Run) error { return errDown }}
		b := registry.Component{Name: "b", Provides: []string{"x"}, Needs: []startup.Need{{Component: "a"}}}
		a := registry.Component{Name: "a", Needs: []startup.Need{{Capability: "x", Any: true}}}
		o := orchestrate(t, startup.Options{}, c, b, a)
		_, err := o.Start(t.Context())
		require.ErrorContains(t, err, "deadlock: waits for components that wait for it")
		require.NoError(t, o.Stop(t.Context()))
	})
}

func TestAddedComponentWaitsForAllItsNeedsAlsoWhenOneRestarts(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T) {
		var starts atomic.Int32
		var j journal
		one := crashing(&starts, time.Minute, startup.Restart{Mode: startup.Always})
		one.Provides = []string{"x"}
		o := orchestrate(t, startup.Options{}, one)
		_, err := o.Start(t.Context())
		require.NoError(t, err)
		pass(50 * time.Second)
		two := j.component("two", 20*time.Second)
		two.Provides = []string{"x"}
		two.Ready = func(context.Context) error { j.note("two ready"); return nil }
		require.NoError(t, o.Add(t.Context(), two, j.component("user", 0, "x")))
		require.NoError(t, stopPatiently(t, o))
		require.Equal(t, []string{"+two", "two ready", "+user"}, j.all()[:3])
	})
}

func TestAddKeepsAComponentThatRestartsMeanwhile(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T) {
		var starts atomic.Int32
		var j journal
		o := orchestrate(t, startup.Options{})
		_, err := o.Start(t.Context())
		require.NoError(t, err)
		c := crashing(&starts, 10*time.Second-1, startup.Restart{Mode: startup.Always, Limit: 1000, FirstDelay: time.Second})
		require.NoError(t, o.Add(t.Context(), c, j.component("slow", 10*time.Second)))
		pass(time.Minute)
		require.Greater(t, starts.Load(), int32(3))
		require.NoError(t, stopPatiently(t, o))
		after := starts.Load()
		pass(time.Minute)
		require.Equal(t, after, starts.Load())
	})
}

func TestFailedAddKeepsWhatOthersUse(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T) {
		var j journal
		o := orchestrate(t, startup.Options{})
		_, err := o.Start(t.Context())
		require.NoError(t, err)
		bad := j.component("bad", 0)
		bad.Start = func(context.Context, *startup.Run) error { time.Sleep(10 * time.Second); return errDown }
		done := make(chan error, 1)
		go func() { done <- o.Add(t.Context(), j.component("a", 0), bad) }()
		pass(time.Second)
		require.NoError(t, o.Add(t.Context(), j.component("user", 0, "a")))
		require.ErrorIs(t, <-done, errDown)
		require.Equal(t, "ready", stateOf(t, o, "user"))
		require.Equal(t, "ready", stateOf(t, o, "a"))
		_, known := o.State("bad")
		require.False(t, known)
		require.NoError(t, stopPatiently(t, o))
		require.Equal(t, []string{"+a", "+user", "-user", "-a"}, j.all())
	})
}

func TestAddedComponentThatIsLateAndStuckIsNamed(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T) {
		release := make(chan struct{})
		c := registry.Component{
			Name: "late", StartTimeout: 5 * time.Second,
			Start: func(context.Context, *startup.Run) error { time.Sleep(time.Minute); return nil },
			Stop:  func(context.Context) error { <-release; return nil },
		}
		o := orchestrate(t, startup.Options{}, registry.Component{Name: "x"})
		_, err := o.Start(t.Context())
		require.NoError(t, err)
		require.ErrorIs(t, o.Add(t.Context(), c), registry.ErrNotReady)
		pass(time.Hour)
		err = stopPatiently(t, o)
		require.ErrorIs(t, err, registry.ErrStuck)
		require.ErrorContains(t, err, `"late"`)
		close(release)
	})
}

func TestRemoveOfAComponentThatDoesNotStopSaysSo(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T) {
		release := make(chan struct{})
		o := orchestrate(t, startup.Options{}, registry.Component{Name: "a", Stop: func(context.Context) error { <-release; return nil }})
		_, err := o.Start(t.Context())
		require.NoError(t, err)
		require.ErrorIs(t, o.Remove(t.Context(), "a"), registry.ErrStuck)
		require.Equal(t, "stuck", stateOf(t, o, "a"))
		require.ErrorIs(t, o.Stop(t.Context()), registry.ErrStuck)
		close(release)
	})
}

func TestGoroutineOfARunThatDoesNotEndIsNamed(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T) {
		release := make(chan struct{})
		o := orchestrate(t, startup.Options{}, registry.Component{Name: "a", Start: func(_ context.Context, run *startup.Run) error {
			run.Go(func(context.Context) error { <-release; return nil })
			return nil
		}})
		_, err := o.Start(t.Context())
		require.NoError(t, err)
		require.ErrorIs(t, o.Stop(t.Context()), registry.ErrStuck)
		close(release)
	})
}

func TestStartTimeoutHoldsInRestarts(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T) {
		var starts atomic.Int32
		c := registry.Component{Name: "a", Notifies: true, StartTimeout: time.Second, Restart: startup.Restart{Mode: startup.Always}}
		var at []time.Time
		c.Start = func(_ context.Context, run *startup.Run) error {
			at = append(at, time.Now())
			if starts.Add(1) == 1 {
				run.Ready()
				time.AfterFunc(time.Minute, func() { run.Ended(errDown) })
			}
			return nil
		}
		o := orchestrate(t, startup.Options{StartTimeout: time.Hour}, c)
		_, err := o.Start(t.Context())
		require.NoError(t, err)
		pass(10 * time.Hour)
		require.NoError(t, stopPatiently(t, o))
		require.Greater(t, len(at), 3)
		for i := 2; i < len(at); i++ {
			require.Less(t, at[i].Sub(at[i-1]), time.Minute, "start %d", i)
		}
	})
}

func TestStartContextEndsWithTheStart(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T) {
		var startCtx context.Context
		o := orchestrate(t, startup.Options{}, registry.Component{Name: "a", Start: func(ctx context.Context, _ *startup.Run) error {
			startCtx = ctx //nolint:fatcontext // the test looks at it from outside
			return nil
		}})
		_, err := o.Start(t.Context())
		require.NoError(t, err)
		pass(time.Second)
		require.Error(t, startCtx.Err())
		require.NoError(t, o.Stop(t.Context()))
	})
}

type nosyError struct{ ask func() }

func (e nosyError) Error() string { e.ask(); return "nosy" }

func TestTextOfAnErrorMayAskTheOrchestrator(t *testing.T) {
	t.Parallel()
	var o *registry.Orchestrator
	c := registry.Component{Name: "a", StartTimeout: 50 * time.Millisecond, Start: func(ctx context.Context, _ *startup.Run) error {
		<-ctx.Done()
		return errors.Join(ctx.Err(), nosyError{func() { o.State("a") }})
	}}
	o = orchestrate(t, startup.Options{}, c)
	_, err := o.Start(t.Context())
	require.ErrorIs(t, err, context.DeadlineExceeded)
}

func TestListenerThatExitsLosesNoOtherEvent(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T) {
		var seen journal
		var once sync.Once
		o := orchestrate(t, startup.Options{Listen: func(e startup.Event) {
			seen.note(fmt.Sprint(e.Component, " ", e.State))
			once.Do(func() { time.Sleep(time.Second); runtime.Goexit() })
		}}, registry.Component{Name: "a"})
		_, err := o.Start(t.Context())
		require.NoError(t, err)
		pass(time.Hour)
		require.Contains(t, seen.all(), " ready")
		require.NoError(t, o.Stop(t.Context()))
	})
}

func TestDependantThatEndedByItselfIsStartedOnce(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T) {
		var dbs, apps, up atomic.Int32
		var j journal
		db := registry.Component{Name: "db", Provides: []string{"db"}, Restart: startup.Restart{Mode: startup.Always, Dependants: true, FirstDelay: 100 * time.Millisecond}}
		db.Start = func(_ context.Context, run *startup.Run) error {
			if dbs.Add(1) == 1 {
				time.AfterFunc(time.Minute, func() { run.Ended(errDown) })
			}
			return nil
		}
		app := registry.Component{Name: "app", Provides: []string{"app"}, Needs: startup.Capabilities("db"), Restart: startup.Restart{Mode: startup.Always, FirstDelay: 2 * time.Second}}
		app.Start = func(_ context.Context, run *startup.Run) error {
			j.note("+app")
			if up.Add(1) > 1 {
				t.Error("app is started twice without a stop in between")
			}
			if apps.Add(1) == 1 {
				time.AfterFunc(time.Minute+time.Second, func() { run.Ended(errDown) })
			}
			return nil
		}
		app.Stop = func(context.Context) error { j.note("-app"); up.Add(-1); return nil }
		web := j.component("web", 0, "app")
		web.Stop = func(context.Context) error { j.note("-web"); time.Sleep(5 * time.Second); return nil }
		o := orchestrate(t, startup.Options{}, db, app, web)
		_, err := o.Start(t.Context())
		require.NoError(t, err)
		pass(10 * time.Minute)
		require.NoError(t, stopPatiently(t, o))
	})
}

func TestRunEndsWhenSomebodyElseStops(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T) {
		o := orchestrate(t, startup.Options{}, registry.Component{Name: "a"})
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		done := make(chan error, 1)
		go func() { done <- o.Run(ctx) }()
		pass(time.Second)
		require.NoError(t, o.Stop(t.Context()))
		require.NoError(t, <-done)
	})
}

func TestStopGivesUpAStartThatDoesNotReturn(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T) {
		release := make(chan struct{})
		o := orchestrate(t, startup.Options{StartTimeout: 24 * time.Hour}, registry.Component{Name: "a", Start: func(context.Context, *startup.Run) error { <-release; return nil }})
		done := startBeside(t, o)
		pass(time.Second)
		began := time.Now()
		require.ErrorIs(t, stopPatiently(t, o), registry.ErrStuck)
		require.Less(t, time.Since(began), 15*time.Second, "its stop timeout, and a little more")
		close(release)
		require.ErrorIs(t, <-done, registry.ErrClosed)
	})
}

func TestReportOfARunThatEndedSaysNothingOfARollback(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T) {
		var starts atomic.Int32
		o := orchestrate(t, startup.Options{}, crashing(&starts, time.Hour, startup.Restart{}))
		_, err := o.Start(t.Context())
		require.NoError(t, err)
		<-o.Failed()
		require.NoError(t, o.Stop(t.Context()))
		require.False(t, o.Report().RolledBack, "the start did not fail")
	})
}

func TestDependantsOfAComponentThatIsGivenUpAreSkipped(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T) {
		var starts atomic.Int32
		var j journal
		c := registry.Component{Name: "c", Provides: []string{"c"}, NonCritical: true, Restart: startup.Restart{Mode: startup.Always, Dependants: true}}
		c.Start = func(_ context.Context, run *startup.Run) error {
			if starts.Add(1) > 1 {
				return errDown
			}
			time.AfterFunc(time.Minute, func() { run.Ended(errDown) })
			return nil
		}
		o := orchestrate(t, startup.Options{}, c, j.component("user", 0, "c"))
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		time.AfterFunc(59*time.Minute, func() {
			require.Equal(t, "failed", stateOf(t, o, "c"))
			require.Equal(t, "skipped", stateOf(t, o, "user"))
			require.Contains(t, o.Report().Components[1].Reason, `"c"`)
		})
		require.NoError(t, o.Run(ctx))
	})
}

func TestAddWaitsForANeedThatRestarts(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T) {
		var starts atomic.Int32
		var j journal
		o := orchestrate(t, startup.Options{}, crashing(&starts, time.Minute, startup.Restart{Mode: startup.Always, FirstDelay: 10 * time.Second}))
		_, err := o.Start(t.Context())
		require.NoError(t, err)
		pass(time.Minute + time.Second)
		require.NoError(t, o.Add(t.Context(), j.component("user", 0, "crashing")))
		require.NoError(t, stopPatiently(t, o))
	})
}

func TestComponentRestartsAfterTheOneItCameAfterWasRemoved(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T) {
		var starts atomic.Int32
		u := crashing(&starts, time.Minute, startup.Restart{Mode: startup.Always})
		u.Needs = []startup.Need{{Component: "a", OrderOnly: true}}
		o := orchestrate(t, startup.Options{}, registry.Component{Name: "a"}, u)
		_, err := o.Start(t.Context())
		require.NoError(t, err)
		require.NoError(t, o.Remove(t.Context(), "a"))
		require.NoError(t, o.Add(t.Context(), registry.Component{Name: "x"}))
		pass(time.Minute + time.Second)
		require.Equal(t, int32(2), starts.Load())
		require.NoError(t, o.Stop(t.Context()))
	})
}

func TestQueuedComponentWaitsForANeedThatRestartsMeanwhile(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T) {
		var starts atomic.Int32
		var j journal
		c := crashing(&starts, 5*time.Second, startup.Restart{Mode: startup.Always, FirstDelay: time.Hour, MaxDelay: time.Hour})
		o := orchestrate(t, startup.Options{MaxConcurrent: 1}, c)
		_, err := o.Start(t.Context())
		require.NoError(t, err)
		hog := j.component("hog", 10*time.Second)
		user := j.component("user", 0, "crashing")
		began := time.Now()
		require.NoError(t, o.Add(t.Context(), hog, user))
		require.Greater(t, time.Since(began), 30*time.Minute)
		require.NoError(t, o.Stop(t.Context()))
	})
}

// Not beside others, whose memory would count.
//
//nolint:paralleltest // see above
func TestComponentsThatWereRemovedLeaveNothingBehind(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		o := orchestrate(t, startup.Options{}, registry.Component{Name: "root"})
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
		pass(time.Hour)
		runtime.GC()
		runtime.ReadMemStats(&after)
		require.Less(t, (int64(after.HeapAlloc)-int64(before.HeapAlloc))/n, int64(300))
		_ = o.Stop(t.Context())
	})
}

func TestRunOfAnEarlierLifeSaysThatItIsOver(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T) {
		var old *startup.Run
		c := registry.Component{Name: "a", Restart: startup.Restart{Mode: startup.Always}}
		c.Start = func(_ context.Context, run *startup.Run) error {
			if old == nil {
				old = run
				time.AfterFunc(time.Second, func() { run.Ended(errDown) })
				return nil
			}
			_ = run.Context()
			return nil
		}
		o := orchestrate(t, startup.Options{}, c)
		_, err := o.Start(t.Context())
		require.NoError(t, err)
		pass(time.Minute)
		require.Error(t, old.Context().Err())
		require.NoError(t, o.Stop(t.Context()))
	})
}

func TestDurationsOfAnEarlierReportMayBeAnything(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T) {
		var j journal
		last := &startup.Report{Components: []startup.Component{{Name: "y", Ready: 1<<63 - 1}, {Name: "x", Ready: time.Second}}}
		o := orchestrate(t, startup.Options{MaxConcurrent: 1, Last: last}, j.component("x", 0), j.component("y", 0))
		_, err := o.Start(t.Context())
		require.NoError(t, err)
		_ = o.Stop(t.Context())
		require.Equal(t, "+y", j.all()[0])
	})
}

func TestSkippedComponentsAreEvents(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T) {
		var seen journal
		var j journal
		bad := registry.Component{Name: "bad", Start: func(context.Context, *startup.Run) error { return errDown }}
		o := orchestrate(t, startup.Options{Listen: func(e startup.Event) { seen.note(fmt.Sprint(e.Component, " ", e.State)) }}, bad, j.component("first", time.Hour), j.component("user", 0, "first"))
		_, _ = o.Start(t.Context())
		pass(time.Second)
		require.Equal(t, "skipped", stateOf(t, o, "user"))
		require.Contains(t, seen.all(), "user skipped")
	})
}

func TestReportFollowsAnAnyNeedThatFellBack(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T) {
		var j journal
		q := registry.Component{Name: "q", Provides: []string{"x"}, NonCritical: true, Start: func(context.Context, *startup.Run) error { return errDown }}
		s := j.component("s", 2*time.Second, "b")
		s.Provides = []string{"x"}
		app := j.component("app", time.Second)
		app.Needs = []startup.Need{{Capability: "x", Any: true}}
		o := orchestrate(t, startup.Options{}, q, s, j.component("b", 2*time.Second, "a"), j.component("a", 2*time.Second), app)
		r, err := o.Start(t.Context())
		require.NoError(t, err)
		_ = o.Stop(t.Context())
		require.Equal(t, []string{"a", "b", "s", "app"}, r.Chain, "wall %v, critical path %v, efficiency %v", r.Wall, r.CriticalPath, r.Efficiency)
	})
}

func TestDependantOfTwoThatRestartStartsAfterBoth(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T) {
		var j journal
		crash := func(name string, after, delay time.Duration) registry.Component {
			first := true
			return registry.Component{
				Name: name, Provides: []string{name}, Restart: startup.Restart{Mode: startup.Always, Dependants: true, FirstDelay: delay},
				Start: func(_ context.Context, run *startup.Run) error {
					if first {
						first = false
						time.AfterFunc(after, func() { run.Ended(errDown) })
					}
					return nil
				},
			}
		}
		o := orchestrate(t, startup.Options{}, crash("a", time.Minute, 100*time.Millisecond), crash("b", time.Minute+10*time.Millisecond, 10*time.Second), j.component("user", 0, "a", "b"))
		_, err := o.Start(t.Context())
		require.NoError(t, err)
		pass(time.Hour)
		require.Equal(t, "ready", stateOf(t, o, "user"))
		require.Equal(t, []string{"+user", "-user", "+user"}, j.all())
		require.NoError(t, stopPatiently(t, o))
	})
}

func TestOptionalNeedOfItselfIsAbsent(t *testing.T) {
	t.Parallel()
	_, err := registry.NewOrchestrator(nil, startup.Options{}, registry.Component{Name: "a", Provides: []string{"x"}, Needs: []startup.Need{{Capability: "x", Optional: true}}})
	require.NoError(t, err)
}

func TestFunctionsOfComponentsMayCallTheOrchestrator(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T) {
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
		o = orchestrate(t, startup.Options{Listen: func(startup.Event) {
			o.Report()
			once.Do(func() { _ = o.Add(t.Context(), registry.Component{Name: "m"}) })
		}}, c)
		_, err := o.Start(t.Context())
		require.NoError(t, err)
		pass(2 * time.Minute)
		require.NoError(t, o.Stop(t.Context()))
		require.Equal(t, "stopped", stateOf(t, o, "a"))
	})
}

func TestOrchestratorHoldsUnderConcurrentChanges(t *testing.T) {
	t.Parallel()
	var starts atomic.Int32
	o := orchestrate(t, startup.Options{MaxConcurrent: 2, Listen: func(startup.Event) {}}, crashing(&starts, 2*time.Millisecond, startup.Restart{Mode: startup.Always, Limit: 1 << 30, FirstDelay: time.Millisecond, MaxDelay: time.Millisecond}))
	_, err := o.Start(t.Context())
	require.NoError(t, err)
	var all sync.WaitGroup
	for g := range 8 {
		all.Go(func() {
			for i := range 200 {
				name := fmt.Sprint(g, "-", i)
				_ = o.Add(t.Context(), registry.Component{Name: name, NonCritical: i%2 == 0, Start: func(context.Context, *startup.Run) error {
					if i%3 == 0 {
						return errDown
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

func TestComponentThatEndsAtOnceIsRestartedOneAtATime(t *testing.T) {
	t.Parallel()
	var o *registry.Orchestrator
	var up, starts atomic.Int32
	c := registry.Component{Name: "a", Restart: startup.Restart{Mode: startup.Always, Limit: 1 << 30, FirstDelay: 1, MaxDelay: 1}}
	c.Start = func(_ context.Context, run *startup.Run) error {
		starts.Add(1)
		if up.Add(1) > 1 {
			t.Error("started again without a stop in between, at start", starts.Load())
		}
		run.Go(func(ctx context.Context) error {
			for ctx.Err() == nil {
				if s, _ := o.State("a"); s == startup.Ready {
					return errDown
				}
				runtime.Gosched()
			}
			return nil
		})
		return nil
	}
	c.Stop = func(context.Context) error { up.Add(-1); return nil }
	o = orchestrate(t, startup.Options{}, c)
	_, err := o.Start(t.Context())
	require.NoError(t, err)
	for starts.Load() < 1000 && !t.Failed() {
		runtime.Gosched()
	}
	require.NoError(t, o.Stop(t.Context()))
	require.Zero(t, up.Load())
}

func TestStopEndsWhereARestartLetTwoUseEachOther(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T) {
		var j journal
		first := j.component("first", 0)
		first.Provides, first.Needs = []string{"x"}, []startup.Need{{Capability: "y", Any: true}}
		first.Restart.Mode = startup.OnFailure
		var lives atomic.Int32
		start := first.Start
		first.Start = func(ctx context.Context, run *startup.Run) error {
			if lives.Add(1) == 1 {
				run.Go(func(ctx context.Context) error {
					time.Sleep(time.Second)
					return errDown
				})
			}
			return start(ctx, run)
		}
		second := j.component("second", time.Millisecond)
		second.Provides, second.Needs = []string{"y"}, []startup.Need{{Capability: "x", Any: true}, {Component: "late", OrderOnly: true}}
		other := j.component("other", 0)
		other.Provides = []string{"x", "y"}
		late := registry.Component{Name: "late", Start: func(context.Context, *startup.Run) error { time.Sleep(time.Millisecond); return nil }}
		o := orchestrate(t, startup.Options{}, first, second, other, late) // so that second uses first from the beginning
		_, err := o.Start(t.Context())
		require.NoError(t, err)
		time.Sleep(5 * time.Second)
		require.Equal(t, "ready", stateOf(t, o, "first"))
		require.EqualValues(t, 2, lives.Load())
		require.NoError(t, o.Stop(t.Context()))
		require.Equal(t, []string{"-second", "-first", "-other"}, j.all()[len(j.all())-3:])
	})
}

func TestComponentThatIsToStartAgainIsStillStoppedAfterItsUsers(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T) {
		var j journal
		below := j.component("below", 0)
		below.Restart = startup.Restart{Mode: startup.Always, Dependants: true}
		ends := make(chan struct{})
		start := below.Start
		below.Start = func(ctx context.Context, run *startup.Run) error {
			go func() {
				<-ends
				run.Ended(errDown)
			}()
			return start(ctx, run)
		}
		slow := func(c registry.Component) registry.Component {
			stop := c.Stop
			c.Stop = func(ctx context.Context) error {
				time.Sleep(2 * time.Second)
				return stop(ctx)
			}
			return c
		}
		lost := slow(slow(j.component("lost", 0, "below")))
		lost.NonCritical = true
		lost.Start = func(_ context.Context, run *startup.Run) error {
			run.Go(func(context.Context) error { return errDown })
			return nil
		}
		o := orchestrate(t, startup.Options{}, below, lost, slow(j.component("user", 0, "below")))
		_, err := o.Start(t.Context())
		require.NoError(t, err)
		time.Sleep(time.Second)
		require.Equal(t, "failed", stateOf(t, o, "lost"))
		close(ends)
		time.Sleep(time.Second)
		require.NoError(t, o.Stop(t.Context()))
		require.Equal(t, []string{"-user", "-lost", "-below"}, j.all()[len(j.all())-3:])
	})
}

// hookedContext does something when it is asked whether it has ended.
type hookedContext struct {
	context.Context

	hook func()
}

func (c hookedContext) Err() error { c.hook(); return c.Context.Err() }

func TestComponentThatEndsAsTheStartHasSucceededIsNoFailureOfTheStart(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T) {
		var o *registry.Orchestrator
		var run atomic.Pointer[startup.Run]
		o = orchestrate(t, startup.Options{}, registry.Component{Name: "a", Start: func(_ context.Context, r *startup.Run) error { run.Store(r); return nil }})
		_, err := o.Start(hookedContext{t.Context(), func() {
			if state, _ := o.State("a"); state == startup.Ready {
				run.Load().Ended(errDown)
			}
		}})
		<-o.Failed()
		require.NoError(t, err, "nothing was rolled back")
		require.NoError(t, o.Stop(t.Context()))
	})
}

func TestEndOfAStopIsItsLastEventAlsoWhenAStartIsStuck(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T) {
		var seen journal
		release := make(chan struct{})
		o := orchestrate(t, startup.Options{Listen: func(e startup.Event) { seen.note(fmt.Sprint(e.Component, " ", e.State)) }}, registry.Component{Name: "a", StopTimeout: time.Second, Start: func(context.Context, *startup.Run) error { <-release; return nil }})
		done := startBeside(t, o)
		pass(time.Second)
		_ = o.Stop(t.Context())
		require.ErrorIs(t, <-done, registry.ErrClosed)
		pass(time.Second)
		require.Equal(t, " stopped", seen.all()[len(seen.all())-1], "%v", seen.all())
		close(release)
	})
}

func TestEachEventOfAComponentIsAChange(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T) {
		var seen journal
		var starts atomic.Int32
		c := crashing(&starts, time.Second, startup.Restart{Mode: startup.Always})
		c.Stop = func(context.Context) error { time.Sleep(time.Second); return nil }
		o := orchestrate(t, startup.Options{Listen: func(e startup.Event) { seen.note(fmt.Sprint(e.Component, " ", e.State)) }}, c, registry.Component{Name: "x", NonCritical: true, StartTimeout: time.Second, Ready: func(context.Context) error { return errDown }})
		_, _ = o.Start(t.Context())
		pass(7 * time.Second)
		_ = o.Stop(t.Context())
		pass(time.Second)
		last := map[string]string{}
		for _, line := range seen.all() {
			name, state, _ := strings.Cut(line, " ")
			if last[name] == state {
				t.Errorf("twice %s: %v", line, seen.all())
			}
			last[name] = state
		}
	})
}

func TestRunOfAStartThatDoesNotReturnEnds(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T) {
		release, told := make(chan struct{}), make(chan struct{})
		o := orchestrate(t, startup.Options{}, registry.Component{Name: "a", StartTimeout: time.Second, Start: func(_ context.Context, run *startup.Run) error {
			run.Go(func(ctx context.Context) error { <-ctx.Done(); close(told); return nil })
			<-release
			return nil
		}})
		_, err := o.Start(t.Context())
		require.Error(t, err)
		pass(time.Minute)
		select {
		case <-told:
		default:
			t.Error("its goroutines run on")
		}
		close(release)
		pass(time.Minute)
		require.NoError(t, o.Stop(t.Context()))
	})
}

func TestStartThatFailsAfterItsTimeIsStuckNoMore(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T) {
		o := orchestrate(t, startup.Options{}, registry.Component{Name: "a", StartTimeout: time.Second, Start: func(_ context.Context, run *startup.Run) error {
			time.Sleep(time.Minute)
			return errDown
		}})
		_, err := o.Start(t.Context())
		require.Error(t, err)
		require.Equal(t, "stuck", stateOf(t, o, "a"))
		pass(2 * time.Minute)
		require.Equal(t, "failed", stateOf(t, o, "a"))
		require.NoError(t, o.Stop(t.Context()))
	})
}

// Before its restart, and, where stopping takes long, while it stops.
func TestComponentStartsWhenTheOneItCameAfterIsRemoved(t *testing.T) {
	t.Parallel()
	for _, stopping := range []time.Duration{0, 5 * time.Second} {
		inBubble(t, func(t *testing.T) {
			var j journal
			var starts atomic.Int32
			a := crashing(&starts, time.Second, startup.Restart{Mode: startup.Always, FirstDelay: time.Hour, MaxDelay: time.Hour})
			a.Stop = func(context.Context) error { time.Sleep(stopping); return nil }
			o := orchestrate(t, startup.Options{}, a)
			_, err := o.Start(t.Context())
			require.NoError(t, err)
			pass(2 * time.Second)
			added := make(chan error, 1)
			b := j.component("b", 0)
			b.Needs = []startup.Need{{Component: "crashing", OrderOnly: true}}
			go func() { added <- o.Add(t.Context(), b) }()
			pass(time.Second)
			require.NoError(t, o.Remove(t.Context(), "crashing"))
			pass(time.Minute)
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

func TestRemovedComponentLeavesItsTurnToTheOthers(t *testing.T) {
	t.Parallel()
	for _, hangs := range []bool{false, true} {
		inBubble(t, func(t *testing.T) {
			var j journal
			var starts atomic.Int32
			a := registry.Component{Name: "a", Notifies: true, StartTimeout: time.Hour, Restart: startup.Restart{Mode: startup.Always}}
			a.Start = func(ctx context.Context, run *startup.Run) error {
				if starts.Add(1) == 1 {
					run.Ready()
					time.AfterFunc(time.Second, func() { run.Ended(errDown) })
				} else if hangs {
					<-ctx.Done()
				}
				return nil
			}
			o := orchestrate(t, startup.Options{MaxConcurrent: 1}, a)
			_, err := o.Start(t.Context())
			require.NoError(t, err)
			pass(2 * time.Second)
			require.Equal(t, "starting", stateOf(t, o, "a"))
			added := make(chan error, 1)
			go func() { added <- o.Add(t.Context(), j.component("b", 0)) }()
			pass(time.Second)
			require.NoError(t, o.Remove(t.Context(), "a"))
			pass(time.Minute)
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

func TestAddEndsWithItsContextAlsoWhileANeedRestarts(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T) {
		var starts atomic.Int32
		a := registry.Component{Name: "a", StartTimeout: 23 * time.Hour, Restart: startup.Restart{Mode: startup.Always, Dependants: true}}
		a.Start = func(ctx context.Context, run *startup.Run) error {
			if starts.Add(1) == 1 {
				time.AfterFunc(2*time.Second, func() { run.Ended(errDown) })
				return nil
			}
			<-ctx.Done()
			return ctx.Err()
		}
		o := orchestrate(t, startup.Options{}, a)
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

// asking is an error whose text asks the orchestrator.
type asking struct{ o **registry.Orchestrator }

func (a asking) Error() string { (*a.o).State("a"); return "asked" }

func TestCauseOfTheEndOfAnAddMayAskTheOrchestrator(t *testing.T) {
	t.Parallel()
	for _, needs := range [][]string{nil, {"x"}} {
		var j journal
		o := orchestrate(t, startup.Options{}, registry.Component{Name: "y"})
		_, err := o.Start(t.Context())
		require.NoError(t, err)
		ctx, cancel := context.WithCancelCause(t.Context())
		done := make(chan error, 1)
		go func() { done <- o.Add(ctx, j.component("x", time.Hour), j.component("z", time.Hour, needs...)) }()
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

func TestReportAfterRestartsIsThatOfTheStart(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T) {
		var j journal
		var run atomic.Pointer[startup.Run]
		db := j.component("db", 3*time.Second)
		start := db.Start
		db.Start = func(ctx context.Context, r *startup.Run) error { run.Store(r); return start(ctx, r) }
		db.Restart = startup.Restart{Mode: startup.Always, Dependants: true}
		o := orchestrate(t, startup.Options{}, db, j.component("cache", time.Second), j.component("app", time.Second, "db", "cache"))
		first, err := o.Start(t.Context())
		require.NoError(t, err)
		run.Load().Ended(errDown)
		pass(time.Second)
		second := o.Report()
		require.Equal(t, first.Chain, second.Chain)
		require.Equal(t, first.CriticalPath, second.CriticalPath)
		require.Equal(t, first.Work, second.Work)
		pass(time.Minute)
		second = o.Report()
		require.Equal(t, first.Chain, second.Chain)
		for i := range second.Components {
			second.Components[i].Restarts = 0
		}
		require.Equal(t, first, second)
		require.NoError(t, o.Stop(t.Context()))
	})
}

func TestReportOfTheStartLeavesOutWhatWasAddedLater(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T) {
		var j journal
		o := orchestrate(t, startup.Options{}, j.component("db", 3*time.Second))
		first, err := o.Start(t.Context())
		require.NoError(t, err)
		pass(time.Minute)
		require.NoError(t, o.Add(t.Context(), j.component("app", 10*time.Second, "db")))
		second := o.Report()
		require.Equal(t, first.Chain, second.Chain)
		require.LessOrEqual(t, second.CriticalPath, second.Wall)
		require.NoError(t, o.Stop(t.Context()))
	})
}

func TestComponentThatWasGivenUpIsStoppedAfterWhatItRegisteredHasLeft(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		var j journal
		var run atomic.Pointer[startup.Run]
		o, err := registry.NewOrchestrator(reg, startup.Options{}, registry.Component{
			Name: "a", Start: func(_ context.Context, r *startup.Run) error { run.Store(r); return nil },
			Register: []func(context.Context, *registry.Registry) (*registry.Registration, error){func(ctx context.Context, r *registry.Registry) (*registry.Registration, error) {
				return chat.Register(ctx, r, provider{Name: "p", Instance: answers(func() (string, error) { time.Sleep(3 * time.Second); j.note("answered"); return "", nil })})
			}}, Stop: func(context.Context) error { j.note("stop"); return nil },
		})
		require.NoError(t, err)
		_, err = o.Start(t.Context())
		require.NoError(t, err)
		go func() { _, _ = ask(context.Background(), bind(reg)) }()
		pass(time.Second)
		run.Load().Ended(errDown)
		<-o.Failed()
		require.NoError(t, o.Stop(t.Context()))
		pass(time.Minute)
		require.Equal(t, []string{"answered", "stop"}, j.all())
	})
}

func TestStopThatExitsItsGoroutineStillWaitsForThoseOfTheRun(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T) {
		var working atomic.Int32
		o := orchestrate(t, startup.Options{}, registry.Component{Name: "a", Start: func(_ context.Context, run *startup.Run) error {
			run.Go(func(ctx context.Context) error {
				working.Add(1)
				<-ctx.Done()
				time.Sleep(time.Second)
				working.Add(-1)
				return nil
			})
			return nil
		}, Stop: func(context.Context) error { runtime.Goexit(); return nil }})
		_, err := o.Start(t.Context())
		require.NoError(t, err)
		pass(time.Second)
		require.Error(t, o.Stop(t.Context()))
		require.Zero(t, working.Load())
		pass(time.Minute)
	})
}

func TestPlanHasNoEmptyBatchAfterARemoval(t *testing.T) {
	t.Parallel()
	b := registry.Component{Name: "b", Needs: []startup.Need{{Component: "a", OrderOnly: true}}}
	o := orchestrate(t, startup.Options{}, registry.Component{Name: "a"}, b)
	require.NoError(t, o.Remove(t.Context(), "a"))
	require.Equal(t, "batch 1: b", o.Plan().String())
}

// reentrant is an error whose text reports an end.
type reentrant struct{ run *startup.Run }

func (r reentrant) Error() string { r.run.Ended(nil); return "x" }

func TestTextOfTheErrorOfAnEndMayReportAnEnd(t *testing.T) {
	t.Parallel()
	o := orchestrate(t, startup.Options{}, registry.Component{Name: "a", Start: func(_ context.Context, run *startup.Run) error {
		run.Ended(reentrant{run})
		return nil
	}})
	done := startBeside(t, o)
	select {
	case err := <-done:
		require.Error(t, err)
	case <-time.After(5 * time.Second):
		t.Fatal("hangs")
	}
}

func TestAddThatAStopEndsSaysSo(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T) {
		var j journal
		o := orchestrate(t, startup.Options{})
		_, err := o.Start(t.Context())
		require.NoError(t, err)
		added := make(chan error, 2)
		go func() { added <- o.Add(t.Context(), j.component("x", time.Minute), j.component("y", 0, "x")) }()
		pass(time.Second)
		require.NoError(t, o.Stop(t.Context()))
		err = <-added
		require.ErrorIs(t, err, registry.ErrClosed)
	})
}

func TestRemoveEndsTheContextOfTheStopWithItsOwn(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T) {
		c := registry.Component{Name: "a", Stop: func(ctx context.Context) error { <-ctx.Done(); return nil }}
		o := orchestrate(t, startup.Options{StopTimeout: time.Hour}, c)
		_, err := o.Start(t.Context())
		require.NoError(t, err)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		require.NoError(t, o.Remove(ctx, "a"))
		require.NoError(t, o.Stop(t.Context()))
	})
}

func TestStartUnderAContextThatHasEndedStartsNothing(t *testing.T) {
	t.Parallel()
	for range 20 {
		inBubble(t, func(t *testing.T) {
			var j journal
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			o := orchestrate(t, startup.Options{}, registry.Component{Name: "a", Start: func(context.Context, *startup.Run) error { j.note("a"); return nil }}, j.component("b", 0, "c"), registry.Component{Name: "c", Provides: []string{"c"}})
			_, err := o.Start(ctx)
			require.ErrorIs(t, err, context.Canceled)
			require.Empty(t, j.all())
		})
	}
}

func TestAddUnderAContextThatHasEndedStartsNothing(t *testing.T) {
	t.Parallel()
	for range 20 {
		inBubble(t, func(t *testing.T) {
			var j journal
			o := orchestrate(t, startup.Options{})
			_, err := o.Start(t.Context())
			require.NoError(t, err)
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			err = o.Add(ctx, registry.Component{Name: "a", Start: func(context.Context, *startup.Run) error { j.note("a"); return nil }})
			require.ErrorIs(t, err, context.Canceled)
			require.Empty(t, j.all())
			require.NoError(t, o.Stop(t.Context()))
		})
	}
}

func TestRegistrationThatNobodyMadeIsAnErrorOfTheStop(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		o, err := registry.NewOrchestrator(reg, startup.Options{}, registry.Component{
			Name: "a",
			Register: []func(context.Context, *registry.Registry) (*registry.Registration, error){func(context.Context, *registry.Registry) (*registry.Registration, error) {
				return new(registry.Registration), nil
			}},
		})
		require.NoError(t, err)
		_, err = o.Start(t.Context())
		require.NoError(t, err)
		require.Error(t, o.Stop(t.Context()))
	})
}

func TestOneOfSeveralThatAnotherComesAfterCannotBeRemoved(t *testing.T) {
	t.Parallel()
	c := registry.Component{Name: "c", Provides: []string{"y"}, Needs: []startup.Need{{Capability: "x", Any: true, OrderOnly: true}}}
	b := registry.Component{Name: "b", Provides: []string{"x"}, Needs: startup.Capabilities("y")}
	o := orchestrate(t, startup.Options{}, registry.Component{Name: "a", Provides: []string{"x"}}, b, c)
	require.ErrorIs(t, o.Remove(t.Context(), "a"), registry.ErrConflict)
	require.NoError(t, o.Add(t.Context(), registry.Component{Name: "d"}))
	require.Equal(t, "batch 1: a, d\nbatch 2: c (after a, b)\nbatch 3: b (after c)", o.Plan().String())
}

package lifecycle_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry/internal/fault"
	"github.com/capreg/registry/internal/lifecycle"
	"github.com/capreg/registry/startup"
)

func TestStart_TakesAsLongAsTheLongestChain(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		var j journal
		e := build(t, startup.Options{},
			j.component("app", 3*time.Second, "db", "cache"), j.component("db", 2*time.Second), j.component("cache", time.Second),
			j.component("other", 6*time.Second))
		report, err := e.Start(t.Context())
		require.NoError(t, err)
		require.Equal(t, 6*time.Second, report.Wall)
		require.Equal(t, 12*time.Second, report.Work)
		require.Less(t, slices.Index(j.all(), "+db"), slices.Index(j.all(), "+app"))
		require.NoError(t, stopped(t, e))
	})
}

func TestStart_ByBatchesWaitsForTheBatchBefore(t *testing.T) {
	t.Parallel()
	for _, limit := range []int{0, 2} {
		bubble(t, func(t *testing.T) {
			var j journal
			e := started(t, startup.Options{Batches: true, MaxConcurrent: limit},
				j.component("quick", time.Second), j.component("slow", 5*time.Second), j.component("after quick", time.Second, "quick"))
			require.Equal(t, 6*time.Second, e.Report().Wall)
			require.NoError(t, stopped(t, e))
		})
	}
}

func TestStart_ByBatchesGoesOnWhereOnlyALaterProviderIsLeft(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		failing := broken("failing", "x")
		failing.NonCritical = true
		e := started(t, startup.Options{Batches: true}, failing,
			component{Name: "late", Provides: []string{"x"}, Needs: startup.Capabilities("b")},
			component{Name: "b", Provides: []string{"b"}, Needs: startup.Capabilities("a")},
			component{Name: "a", Provides: []string{"a"}},
			component{Name: "app", Needs: []startup.Need{{Capability: "x", Any: true}}})
		requireState(t, e, "app", startup.Ready)
		require.NoError(t, stopped(t, e))
	})
}

func TestStart_KeepsToTheLimitAndStartsTheLongestPathFirst(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		var j journal
		var inside, most atomic.Int32
		components := []component{j.component("a", time.Second), j.component("b", time.Second, "a"), j.component("c", time.Second, "b")}
		for i := range 6 {
			components = append([]component{j.component("alone"+strconv.Itoa(i), time.Second)}, components...)
		}
		for i := range components {
			start := components[i].Start
			components[i].Start = func(ctx context.Context, run *startup.Run) error {
				for now, before := inside.Add(1), most.Load(); now > before && !most.CompareAndSwap(before, now); before = most.Load() {
				}
				defer inside.Add(-1)
				return start(ctx, run)
			}
		}
		e := started(t, startup.Options{MaxConcurrent: 3}, components...)
		require.Equal(t, 3*time.Second, e.Report().Wall, "nine seconds of work by three")
		require.Equal(t, int32(3), most.Load())
		require.NoError(t, stopped(t, e))
	})
}

func TestStart_OfOneThatBlocksDelaysNoOther(t *testing.T) {
	t.Parallel()
	for _, options := range []startup.Options{{}, {Batches: true}, {MaxConcurrent: 100}} {
		bubble(t, func(t *testing.T) {
			var begun atomic.Int32
			all := make(chan struct{})
			components := []component{{Name: "first", Provides: []string{"first"}}}
			for i := range 100 {
				name := fmt.Sprintf("meets-%d", i)
				components = append(components,
					component{Name: name, Needs: startup.Capabilities("first"), Start: func(context.Context, *startup.Run) error {
						if begun.Add(1) == 100 {
							close(all)
						}
						<-all
						return nil
					}},
					component{Name: fmt.Sprintf("follows-%d", i), Needs: []startup.Need{{Component: name}}})
			}
			e := started(t, options, components...)
			require.NoError(t, stopped(t, e))
		})
	}
}

func TestStart_ReadinessIsByNotificationProbeOrBoth(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		began := time.Now()
		readyAfter := func(d time.Duration) func(context.Context) error {
			return func(context.Context) error {
				if time.Since(began) < d {
					return errBroken
				}
				return nil
			}
		}
		notify := func(_ context.Context, run *startup.Run) error {
			time.AfterFunc(2*time.Second, run.Ready)
			return nil
		}
		early := func(_ context.Context, run *startup.Run) error {
			run.Ready()
			run.Ready()
			time.Sleep(time.Second)
			return nil
		}
		e := started(t, startup.Options{},
			component{Name: "notifies", Notifies: true, Start: notify},
			component{Name: "early", Notifies: true, Start: early},
			component{Name: "probed", Ready: readyAfter(time.Second)},
			component{Name: "both", Notifies: true, Start: notify, Ready: readyAfter(3 * time.Second)})
		for _, c := range e.Report().Components {
			switch c.Name {
			case "notifies":
				require.Equal(t, 2*time.Second, c.Took())
			case "early":
				require.Equal(t, time.Second, c.Took())
			case "probed":
				require.InDelta(t, 1.0, c.Took().Seconds(), 0.05)
				require.InDelta(t, 50, c.Probes, 15, "the pauses grow")
			case "both":
				require.InDelta(t, 3.0, c.Took().Seconds(), 0.15)
			}
		}
		require.NoError(t, stopped(t, e))
	})
}

func TestStart_ThatIsNotReadyInTimeFailsWithTheLastProbe(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		var j journal
		never := j.component("never", 0)
		never.StartTimeout = 5 * time.Second
		never.Ready = func(context.Context) error { return errBroken }
		silent := j.component("silent", 0)
		silent.StartTimeout, silent.Notifies, silent.NonCritical = time.Second, true, true
		e := build(t, startup.Options{}, never, silent)
		report, err := e.Start(t.Context())
		require.ErrorIs(t, err, fault.ErrNotReady)
		require.ErrorIs(t, err, errBroken)
		require.InDelta(t, 5.0, report.Wall.Seconds(), 0.1)
		require.ElementsMatch(t, []string{"+never", "+silent", "-never", "-silent"}, j.all())
		require.NoError(t, stopped(t, e))
	})
}

func TestStart_FailureRollsBackInReverse(t *testing.T) {
	t.Parallel()
	for name, fail := range map[string]func(context.Context) error{
		"error":   func(context.Context) error { return errBroken },
		"panic":   func(context.Context) error { panic(errBroken) },
		"exit":    func(context.Context) error { return exits() },
		"timeout": func(ctx context.Context) error { <-ctx.Done(); return errors.Join(errBroken, ctx.Err()) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T) {
				var j journal
				bad := j.component("bad", 0, "db")
				bad.Start = func(ctx context.Context, _ *startup.Run) error { return fail(ctx) }
				bad.StartTimeout = 5 * time.Second
				e := build(t, startup.Options{}, bad, j.component("db", time.Second, "disk"), j.component("disk", time.Second),
					j.component("slow", time.Hour), j.component("never", 0, "bad"))
				report, err := e.Start(t.Context())
				require.ErrorContains(t, err, `start of component "bad"`)
				if name != "exit" {
					require.ErrorIs(t, err, errBroken)
				}
				require.Equal(t, []string{"-db", "-disk"}, j.all()[len(j.all())-2:])
				require.True(t, report.RolledBack)
				for name, state := range map[string]startup.State{
					"bad": startup.Failed, "db": startup.Stopped, "disk": startup.Stopped, "slow": startup.Failed, "never": startup.Skipped,
				} {
					requireState(t, e, name, state)
				}
				require.NoError(t, stopped(t, e))
				_, err = e.Start(t.Context())
				require.ErrorIs(t, err, fault.ErrState)
			})
		})
	}
}

func TestStart_ThatFailsIsTheReasonOfWhatItSkips(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		var j journal
		bad := component{Name: "db", Start: func(context.Context, *startup.Run) error { return errBroken }}
		e := build(t, startup.Options{MaxConcurrent: 1}, bad, j.component("cache", 0))
		report, err := e.Start(t.Context())
		require.ErrorIs(t, err, errBroken)
		require.Equal(t, `all components are being stopped, since "db" has failed`, report.Components[1].Reason)
		require.ErrorIs(t, report.Components[1].Err, fault.ErrClosed)
	})
}

func TestStart_ThatExitsItsGoroutineDelaysNoOther(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		components := make([]component, 200)
		for i := range components {
			components[i] = component{Name: strconv.Itoa(i), NonCritical: true, Provides: []string{strconv.Itoa(i)}}
			if i%2 == 0 {
				components[i].Start = func(context.Context, *startup.Run) error { return exits() }
			}
			if i > 0 {
				components[i].Needs = []startup.Need{{Component: strconv.Itoa(i - 1), OrderOnly: true}}
			}
		}
		e := started(t, startup.Options{MaxConcurrent: 1}, components...)
		for i := range components {
			requireState(t, e, strconv.Itoa(i), []startup.State{startup.Failed, startup.Ready}[i%2])
		}
		require.NoError(t, stopped(t, e))
	})
}

func TestStart_EndsWithItsContextAndItsCause(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		var j journal
		e := build(t, startup.Options{}, j.component("a", time.Second), j.component("b", time.Hour, "a"), j.component("c", 0, "b"))
		mine := errors.New("changed my mind")
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(10*time.Second, func() { cancel(mine) })
		report, err := e.Start(ctx)
		require.ErrorIs(t, err, context.Canceled)
		require.ErrorIs(t, err, mine)
		require.Equal(t, 10*time.Second, report.Wall)
		require.Equal(t, []string{"+a", "+b", "-a"}, j.all())
	})
}

func TestStart_UnderAContextThatHasEndedStartsNothing(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		var j journal
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		e := build(t, startup.Options{}, j.component("a", 0), j.component("b", 0, "a"))
		_, err := e.Start(ctx)
		require.ErrorIs(t, err, context.Canceled)
		require.Empty(t, j.all())
		require.NoError(t, e.Check())
	})
}

func TestStart_ThatReturnsTooLateIsUndone(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		var j journal
		deaf := j.component("deaf", 0)
		deaf.StartTimeout = 5 * time.Second
		deaf.Start = func(_ context.Context, run *startup.Run) error {
			run.Go(func(ctx context.Context) error { <-ctx.Done(); j.note("goroutine ends"); return nil })
			time.Sleep(time.Minute)
			return nil
		}
		e := build(t, startup.Options{}, deaf, j.component("a", 0))
		report, err := e.Start(t.Context())
		require.ErrorIs(t, err, fault.ErrNotReady)
		require.ErrorContains(t, err, "not ready within 5s")
		require.Contains(t, report.String(), "its start does not return")
		require.Equal(t, 6*time.Second, report.Wall, "its time and a grace")
		requireState(t, e, "deaf", startup.Stuck)
		err = e.Stop(t.Context())
		require.ErrorIs(t, err, fault.ErrStuck)
		require.ErrorContains(t, err, `component "deaf"`)
		pass(time.Minute)
		require.ElementsMatch(t, []string{"+a", "-a", "goroutine ends"}, j.all()[:3])
		require.Equal(t, []string{"-deaf"}, j.all()[3:])
		requireState(t, e, "deaf", startup.Stopped)
		require.True(t, e.Report().Components[0].Late)
		require.NoError(t, stopped(t, e))
	})
}

func TestStart_ThatFailsTooLateIsFailed(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		deaf := component{Name: "deaf", StartTimeout: time.Second, NonCritical: true, Start: func(context.Context, *startup.Run) error {
			time.Sleep(time.Minute)
			return errBroken
		}}
		e := started(t, startup.Options{}, deaf)
		requireState(t, e, "deaf", startup.Stuck)
		pass(2 * time.Minute)
		requireState(t, e, "deaf", startup.Failed)
		require.NoError(t, stopped(t, e))
	})
}

func TestStart_ThatFailsEndsItsRun(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		var j journal
		bad := j.component("bad", 0)
		bad.Start = func(_ context.Context, run *startup.Run) error {
			run.Go(func(ctx context.Context) error { <-ctx.Done(); j.note("goroutine ends"); return nil })
			return errBroken
		}
		e := build(t, startup.Options{}, bad)
		_, err := e.Start(t.Context())
		require.ErrorIs(t, err, errBroken)
		require.Equal(t, []string{"goroutine ends"}, j.all(), "its Stop is not owed")
		require.NoError(t, stopped(t, e))
	})
}

func TestStart_ContextEndsWithTheStart(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		type key struct{}
		var startCtx, runCtx context.Context
		c := component{Name: "a", Start: func(ctx context.Context, run *startup.Run) error {
			startCtx, runCtx = ctx, run.Context()
			deadline, ok := ctx.Deadline()
			require.True(t, ok)
			require.Equal(t, 30*time.Second, time.Until(deadline))
			return nil
		}}
		e := build(t, startup.Options{}, c)
		ctx, cancel := context.WithCancel(context.WithValue(t.Context(), key{}, "value"))
		_, err := e.Start(ctx)
		require.NoError(t, err)
		cancel()
		require.Error(t, startCtx.Err())
		require.NoError(t, runCtx.Err())
		require.Equal(t, "value", runCtx.Value(key{}))
		require.NoError(t, stopped(t, e))
		require.ErrorIs(t, context.Cause(runCtx), fault.ErrClosed)
	})
}

func TestStart_RegistersInOrderAndUnregistersInReverse(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		var j journal
		a := j.component("a", 0)
		a.Ready = func(context.Context) error { j.note("probe"); return nil }
		a.Register = append(a.Register, j.registering(handle{name: "1"}, time.Second, nil), j.registering(handle{name: "2", err: errBroken}, 0, nil),
			func(context.Context) (lifecycle.Handle, error) { return nil, nil }) //nolint:nilnil // registers nothing
		e := started(t, startup.Options{}, a, j.component("user", 0, "a"))
		require.ErrorIs(t, stopped(t, e), errBroken)
		require.Equal(t, []string{"+a", "probe", "register 1", "register 2", "+user", "-user", "unregister 2", "unregister 1", "-a"}, j.all())
	})
}

func TestStart_WhoseRegistrationFailsIsRolledBack(t *testing.T) {
	t.Parallel()
	for name, fail := range map[string]func() error{"error": func() error { return errBroken }, "exit": exits} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T) {
				var j journal
				a := j.component("a", 0)
				a.Register = append(a.Register, j.registering(handle{name: "1"}, 0, nil), func(context.Context) (lifecycle.Handle, error) { return nil, fail() })
				e := build(t, startup.Options{}, a)
				_, err := e.Start(t.Context())
				require.ErrorContains(t, err, `start of component "a"`)
				require.Equal(t, []string{"+a", "register 1", "unregister 1", "-a"}, j.all())
			})
		})
	}
}

func TestStart_ThatSucceedsIsNotFailedByWhatFollows(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		var run *startup.Run
		e := build(t, startup.Options{}, component{Name: "a", Start: func(_ context.Context, r *startup.Run) error { run = r; return nil }})
		_, err := e.Start(hookedContext{t.Context(), func() {
			if state, _ := e.State("a"); state == startup.Ready {
				run.Ended(errBroken)
			}
		}})
		<-e.Failed()
		require.NoError(t, err)
		require.NoError(t, stopped(t, e))
	})
}

// hookedContext does something when it is asked whether it has ended.
type hookedContext struct {
	context.Context

	hook func()
}

func (c hookedContext) Err() error { c.hook(); return c.Context.Err() }

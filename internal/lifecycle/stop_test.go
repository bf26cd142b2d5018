package lifecycle_test

import (
	"context"
	"runtime"
	"testing"
	"testing/synctest"
	"time"
	"weak"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry/internal/fault"
	"github.com/capreg/registry/internal/lifecycle"
	"github.com/capreg/registry/startup"
)

func TestStop_IsTheReverseOfTheStartAndConcurrent(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		var j journal
		slow := func(c component) component {
			c.Stop = func(ctx context.Context) error { j.note("-%s", c.Name); return sleep(ctx, time.Second) }
			return c
		}
		e := started(t, startup.Options{}, slow(j.component("db", 0)), slow(j.component("app", 0, "db")), slow(j.component("web", 0, "app")),
			slow(j.component("other", 0)), slow(j.component("third", 0, "db")))
		began := time.Now()
		require.NoError(t, stopped(t, e))
		require.Equal(t, 3*time.Second, time.Since(began), "the longest chain")
		lines := j.all()[5:]
		require.ElementsMatch(t, []string{"-web", "-other", "-third"}, lines[:3])
		require.Equal(t, []string{"-app", "-db"}, lines[3:])
	})
}

func TestStop_LeavesNothingThatKeepsTheEngineInMemory(t *testing.T) {
	t.Parallel()
	var j journal
	e := started(t, startup.Options{}, j.component("db", 0), j.component("app", 0, "db"))
	require.NoError(t, stopped(t, e))
	kept := weak.Make(e)
	e = nil //nolint:ineffassign,wastedassign // for the collector
	require.Eventually(t, func() bool { runtime.GC(); return kept.Value() == nil }, 10*time.Second, time.Millisecond)
}

func TestStop_IsIdempotentFromEveryState(t *testing.T) {
	t.Parallel()
	t.Run("new", func(t *testing.T) {
		t.Parallel()
		bubble(t, func(t *testing.T) {
			var j journal
			e := build(t, startup.Options{}, j.component("a", 0))
			require.NoError(t, stopped(t, e))
			require.NoError(t, stopped(t, e))
			_, err := e.Start(t.Context())
			require.ErrorIs(t, err, fault.ErrState)
			require.Empty(t, j.all())
		})
	})
	t.Run("starting", func(t *testing.T) {
		t.Parallel()
		bubble(t, func(t *testing.T) {
			var j journal
			e := build(t, startup.Options{}, j.component("a", time.Second), j.component("b", time.Hour, "a"))
			done := startAside(t, e)
			pass(2 * time.Second)
			require.NoError(t, stopped(t, e))
			require.ErrorIs(t, <-done, fault.ErrClosed)
			require.Equal(t, []string{"+a", "+b", "-a"}, j.all())
			require.NoError(t, stopped(t, e))
		})
	})
	t.Run("running, concurrently", func(t *testing.T) {
		t.Parallel()
		bubble(t, func(t *testing.T) {
			var j journal
			e := started(t, startup.Options{}, j.component("a", 0), j.component("b", 0, "a"))
			stops := make(chan error, 10)
			for range cap(stops) {
				go func() { stops <- e.Stop(t.Context()) }()
			}
			for range cap(stops) {
				require.NoError(t, <-stops)
			}
			require.Equal(t, []string{"+a", "+b", "-b", "-a"}, j.all())
		})
	})
	t.Run("restarting", func(t *testing.T) {
		t.Parallel()
		bubble(t, func(t *testing.T) {
			var j journal
			e := started(t, startup.Options{}, j.ending("a", time.Second, startup.Restart{Mode: startup.Always, FirstDelay: time.Hour, MaxDelay: time.Hour}), j.component("user", 0, "a"))
			pass(time.Minute)
			requireState(t, e, "a", startup.Restarting)
			require.NoError(t, stopped(t, e))
			requireState(t, e, "a", startup.Stopped)
			require.Equal(t, []string{"+a", "+user", "-a", "-user"}, j.all())
		})
	})
}

func TestStop_NamesWhatIsStuckAndStopsTheRest(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		var j journal
		release := make(chan struct{})
		deaf := j.component("deaf", 0, "db")
		deaf.StopTimeout = 5 * time.Second
		deaf.Stop = func(context.Context) error { <-release; return nil }
		bad, panics := j.component("bad", 0), j.component("panics", 0)
		bad.Stop = func(context.Context) error { return errBroken }
		panics.Stop = func(context.Context) error { panic("stop") }
		e := started(t, startup.Options{}, deaf, j.component("db", 0), bad, panics)
		began := time.Now()
		err := e.Stop(t.Context())
		require.Equal(t, 6*time.Second, time.Since(began))
		require.ErrorIs(t, err, fault.ErrStuck)
		require.ErrorIs(t, err, errBroken)
		require.ErrorContains(t, err, `component "deaf": still running`)
		require.ErrorContains(t, err, `component "panics": registry: panic: stop`)
		require.NotContains(t, err.Error(), `"db"`)
		require.NotContains(t, err.Error(), "no error")
		require.Contains(t, j.all(), "-db")
		requireState(t, e, "deaf", startup.Stuck)
		close(release)
		synctest.Wait()
		requireState(t, e, "deaf", startup.Stopped)
		require.NotErrorIs(t, stopped(t, e), fault.ErrStuck)
	})
}

func TestStop_EndsWithItsContext(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		e := started(t, startup.Options{}, component{Name: "a", StopTimeout: time.Hour, Stop: func(ctx context.Context) error {
			<-ctx.Done()
			return context.Cause(ctx)
		}})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		began := time.Now()
		require.ErrorIs(t, e.Stop(ctx), context.DeadlineExceeded)
		require.Equal(t, time.Second, time.Since(began))
	})
}

func TestStop_AGraceAfterItsContextNamesWhatIsNotDown(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		release := make(chan struct{})
		e := started(t, startup.Options{}, component{Name: "a", StopTimeout: time.Hour, Stop: func(context.Context) error { <-release; return nil }})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		began := time.Now()
		err := e.Stop(ctx)
		require.ErrorIs(t, err, fault.ErrStuck)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Equal(t, 2*time.Second, time.Since(began))
		close(release)
		require.NoError(t, stopped(t, e))
	})
}

func TestStop_GivesUpAStartThatDoesNotReturn(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		release := make(chan struct{})
		e := build(t, startup.Options{}, component{Name: "a", StartTimeout: 24 * time.Hour, Start: func(context.Context, *startup.Run) error { <-release; return nil }})
		done := startAside(t, e)
		pass(time.Second)
		began := time.Now()
		require.ErrorIs(t, e.Stop(t.Context()), fault.ErrStuck)
		require.Equal(t, 11*time.Second, time.Since(began), "its stop timeout and a grace")
		require.ErrorIs(t, <-done, fault.ErrClosed)
		close(release)
		pass(0)
		requireState(t, e, "a", startup.Stopped)
	})
}

func TestStop_WaitsForAProbeAndForRegistrations(t *testing.T) {
	t.Parallel()
	probed := func(j *journal) component {
		c := j.component("a", 0)
		c.Ready = func(context.Context) error { time.Sleep(2 * time.Second); return nil }
		return c
	}
	registers := func(j *journal) component {
		c := j.component("a", 0)
		c.Register = append(c.Register, j.registering(handle{name: "1"}, 2*time.Second, nil))
		return c
	}
	both := func(j *journal) component {
		c := registers(j)
		c.Ready = probed(j).Ready
		return c
	}
	for _, test := range []struct {
		make func(*journal) component
		want []string
	}{
		{probed, []string{"+a", "-a"}},
		{registers, []string{"+a", "register 1", "unregister 1", "-a"}},
		{both, []string{"+a", "-a"}},
	} {
		bubble(t, func(t *testing.T) {
			var j journal
			e := build(t, startup.Options{}, test.make(&j))
			done := startAside(t, e)
			pass(time.Second)
			require.NoError(t, stopped(t, e))
			require.ErrorIs(t, <-done, fault.ErrClosed)
			require.Equal(t, test.want, j.all())
		})
	}
}

func TestStop_DoesNotWaitForWhatIsNotNotified(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		var j journal
		c := j.component("a", 0)
		c.Notifies = true
		e := build(t, startup.Options{}, c)
		done := startAside(t, e)
		pass(time.Second)
		began := time.Now()
		require.NoError(t, stopped(t, e))
		require.Zero(t, time.Since(began))
		require.Error(t, <-done)
		require.Equal(t, []string{"+a", "-a"}, j.all())
	})
}

func TestStop_OfAComponentWhoseProbeDoesNotReturn(t *testing.T) {
	t.Parallel()
	for _, returns := range []time.Duration{time.Minute, 8 * time.Second} {
		bubble(t, func(t *testing.T) {
			var j journal
			c := j.component("a", 0)
			c.StartTimeout = 5 * time.Second
			c.Stop = func(ctx context.Context) error { j.note("-a"); return sleep(ctx, 5*time.Second) }
			c.Ready = func(context.Context) error { time.Sleep(returns); return nil }
			c.Register = append(c.Register, j.registering(handle{name: "1"}, 0, nil))
			e := build(t, startup.Options{}, c)
			_, err := e.Start(t.Context())
			require.ErrorIs(t, err, fault.ErrNotReady)
			pass(time.Hour)
			require.NoError(t, stopped(t, e))
			require.Equal(t, []string{"+a", "-a"}, j.all())
			requireState(t, e, "a", startup.Failed)
		})
	}
}

func TestStop_UnregistersWhatWasRegisteredAfterItBegan(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		var j journal
		c := j.component("a", 0)
		c.StartTimeout = 5 * time.Second
		c.Register = append(c.Register, j.registering(handle{name: "1"}, time.Minute, nil))
		e := build(t, startup.Options{}, c)
		_, err := e.Start(t.Context())
		require.ErrorIs(t, err, fault.ErrNotReady)
		pass(time.Hour)
		require.Equal(t, []string{"+a", "-a", "register 1", "unregister 1"}, j.all())
		require.NoError(t, stopped(t, e))
	})
}

func TestStop_WaitsForGoroutinesOfTheRun(t *testing.T) {
	t.Parallel()
	for name, stop := range map[string]func(context.Context) error{
		"none": nil, "exits": func(context.Context) error { return exits() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T) {
				var j journal
				e := started(t, startup.Options{}, component{Name: "a", Stop: stop, Start: func(_ context.Context, run *startup.Run) error {
					for range 2 {
						run.Go(func(ctx context.Context) error { <-ctx.Done(); time.Sleep(time.Second); j.note("ended"); return nil })
					}
					run.Go(nil)
					return nil
				}})
				began := time.Now()
				err := stopped(t, e)
				require.Equal(t, stop != nil, err != nil, err)
				require.Equal(t, time.Second, time.Since(began))
				require.Equal(t, []string{"ended", "ended"}, j.all())
			})
		})
	}
}

func TestStop_NamesAGoroutineOfTheRunThatDoesNotEnd(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		release := make(chan struct{})
		e := started(t, startup.Options{}, component{Name: "a", Start: func(_ context.Context, run *startup.Run) error {
			run.Go(func(ctx context.Context) error {
				<-ctx.Done()
				select {
				case <-release:
				case <-time.After(10 * time.Second):
				}
				<-release
				return nil
			})
			return nil
		}})
		err := stopped(t, e)
		require.ErrorIs(t, err, fault.ErrStuck)
		require.ErrorContains(t, err, "a goroutine of its run")
		close(release)
	})
}

func TestStop_WaitsAGraceForAGoroutineOfTheRun(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		e := started(t, startup.Options{}, component{Name: "a", Start: func(_ context.Context, run *startup.Run) error {
			run.Go(func(ctx context.Context) error {
				<-ctx.Done()
				time.Sleep(10*time.Second + 100*time.Millisecond)
				return nil
			})
			return nil
		}})
		require.NoError(t, stopped(t, e))
	})
}

func TestStop_ComesAfterRegistrationsHaveLeft(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		var j journal
		c := j.ending("a", time.Second, startup.Restart{})
		c.Register = append(c.Register, j.registering(handle{name: "1", takes: 3 * time.Second}, 0, nil))
		e := started(t, startup.Options{}, c)
		<-e.Failed()
		pass(0)
		require.Equal(t, []string{"+a", "register 1", "withdraw 1"}, j.all(), "as soon as it has failed")
		require.NoError(t, stopped(t, e))
		require.Equal(t, []string{"unregister 1", "-a"}, j.all()[3:])
	})
}

func TestHandle_OfNothingIsNone(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		var j journal
		c := j.component("a", 0)
		c.Register = append(c.Register, func(context.Context) (lifecycle.Handle, error) { return nil, nil }) //nolint:nilnil // registers nothing
		require.NoError(t, stopped(t, started(t, startup.Options{}, c)))
		require.Equal(t, []string{"+a", "-a"}, j.all())
	})
}

func TestNotify_TellsOfTheBeginningOfAStartAndOfItsStop(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		var j journal
		e := build(t, startup.Options{}, j.component("a", time.Second))
		e.Notify(func() { j.note("start") }, func() { j.note("stop") })
		require.Empty(t, j.all())
		_, err := e.Start(t.Context())
		require.NoError(t, err)
		require.NoError(t, stopped(t, e))
		require.NoError(t, stopped(t, e))
		require.Equal(t, []string{"start", "+a", "stop", "-a"}, j.all(), "once each")
	})
}

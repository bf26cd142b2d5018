package lifecycle_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry/internal/fault"
	"github.com/capreg/registry/startup"
)

// completing returns a component whose work takes some time in a goroutine, and ends with an error or none.
func (j *journal) completing(name string, takes time.Duration, err error, needs ...string) component {
	c := j.component(name, 0, needs...)
	c.Completes = true
	c.Start = func(_ context.Context, run *startup.Run) error {
		j.note("+%s", name)
		run.Go(func(ctx context.Context) error {
			if ended := sleep(ctx, takes); ended != nil {
				return ended
			}
			j.note("done %s", name)
			return err
		})
		return nil
	}
	return c
}

func TestCompletes_DependantsStartWhenItsWorkIsDoneAndStopBeforeIt(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		var j journal
		var events []string
		listen := func(e startup.Event) { events = append(events, e.Component+" "+e.State.String()) }
		e := started(t, startup.Options{Listen: listen}, j.component("db", time.Second), j.completing("schema", time.Second, nil, "db"), j.component("app", time.Second, "schema"))
		requireState(t, e, "schema", startup.Completed)
		r := e.Report()
		require.Equal(t, 3*time.Second, r.Wall)
		require.Equal(t, []string{"db", "schema", "app"}, r.Chain)
		require.Contains(t, events, "schema completed")
		pass(time.Hour)
		requireState(t, e, "schema", startup.Completed)
		require.NoError(t, stopped(t, e))
		require.Equal(t, []string{"+db", "+schema", "done schema", "+app", "-app", "-schema", "-db"}, j.all())
		require.Contains(t, events, "schema stopped")
	})
}

func TestCompletes_WaitsForStartAndEveryGoroutine(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		took := map[string]time.Duration{}
		for name, start := range map[string]func(context.Context, *startup.Run) error{
			"a start alone": func(ctx context.Context, _ *startup.Run) error { return sleep(ctx, 2*time.Second) },
			"a goroutine that ends before Start does": func(ctx context.Context, run *startup.Run) error {
				run.Go(func(ctx context.Context) error { return sleep(ctx, time.Second) })
				return sleep(ctx, 2*time.Second)
			},
			"several goroutines": func(_ context.Context, run *startup.Run) error {
				for _, takes := range []time.Duration{time.Second, 2 * time.Second, 0} {
					run.Go(func(ctx context.Context) error { return sleep(ctx, takes) })
				}
				return nil
			},
			"an end that it reports although it works": func(_ context.Context, run *startup.Run) error {
				run.Go(func(ctx context.Context) error { return sleep(ctx, 2*time.Second) })
				run.Ended(nil)
				return nil
			},
		} {
			e := started(t, startup.Options{}, component{Name: "a", Completes: true, Start: start})
			took[name] = e.Report().Wall
			require.NoError(t, stopped(t, e))
		}
		require.Len(t, took, 4)
		for name, wall := range took {
			require.Equal(t, 2*time.Second, wall, name)
		}
	})
}

func TestCompletes_IsProbedWhenItsWorkIsDone(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		var j journal
		c := j.completing("schema", time.Second, nil)
		var late *startup.Run
		start, probed := c.Start, 0
		c.Start = func(ctx context.Context, run *startup.Run) error { late = run; return start(ctx, run) }
		c.Ready = func(context.Context) error {
			require.Contains(t, j.all(), "done schema")
			if probed++; probed == 2 {
				go late.Ended(nil) // it begins no second row of probes
			}
			if probed < 5 {
				return errBroken
			}
			return nil
		}
		e := started(t, startup.Options{}, c)
		requireState(t, e, "schema", startup.Completed)
		require.Equal(t, 5, e.Report().Components[0].Probes)
		require.NoError(t, stopped(t, e))
	})
}

func TestCompletes_WorkThatFailsIsTriedAgainByItsPolicyAndRollsTheStartBack(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		var j journal
		c := j.completing("schema", time.Second, errBroken, "db")
		c.Restart = &startup.Restart{Mode: startup.OnFailure, MaxRestarts: 2}
		e := build(t, startup.Options{}, j.component("db", 0), c, j.component("app", 0, "schema"))
		_, err := e.Start(t.Context())
		require.ErrorIs(t, err, errBroken)
		require.ErrorContains(t, err, "schema")
		require.Equal(t, 3, count(&j, "done schema"))
		require.Zero(t, count(&j, "+app"))
		require.Equal(t, 1, count(&j, "-db"))
		require.NoError(t, stopped(t, e))
	})
}

func TestCompletes_AnErrorOfOneGoroutineIsAFailureAlsoWhenAnotherOneEndsWell(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		e := build(t, startup.Options{}, component{Name: "a", Completes: true, Start: func(_ context.Context, run *startup.Run) error {
			run.Go(func(context.Context) error { return nil })
			run.Go(func(context.Context) error { return errBroken })
			return nil
		}})
		_, err := e.Start(t.Context())
		require.ErrorIs(t, err, errBroken)
		require.NoError(t, stopped(t, e))
	})
}

func TestCompletes_WorkThatTakesTooLongIsStopped(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		var j journal
		c := j.completing("schema", time.Hour, nil)
		c.StartTimeout = time.Minute
		e := build(t, startup.Options{}, c)
		_, err := e.Start(t.Context())
		require.ErrorIs(t, err, fault.ErrNotReady)
		require.ErrorContains(t, err, "it has not completed within 1m0s")
		require.NoError(t, stopped(t, e))
		require.Equal(t, []string{"+schema", "-schema"}, j.all())
	})
}

func TestCompletes_WorkIsDoneAgainWhenWhatItNeedsTakesItsDependantsAlong(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		var j journal
		db := j.ending("db", 10*time.Second, startup.Restart{Mode: startup.Always, Dependants: true})
		e := started(t, startup.Options{}, db, j.completing("schema", time.Second, nil, "db"), j.component("app", 0, "schema"))
		pass(15 * time.Second)
		requireState(t, e, "schema", startup.Completed)
		require.Equal(t, []string{
			"+db", "+schema", "done schema", "+app", "-app", "-schema", "-db",
			"+db", "+schema", "done schema", "+app",
		}, j.all())
		require.NoError(t, stopped(t, e))
	})
}

func TestCompletes_IsDoneAgainByHand(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		var j journal
		e := started(t, startup.Options{}, j.completing("schema", time.Second, nil))
		require.NoError(t, e.Restart(t.Context(), "schema"))
		requireState(t, e, "schema", startup.Completed)
		require.Equal(t, 2, count(&j, "done schema"))
		require.NoError(t, stopped(t, e))
	})
}

func TestDetail_IsOfTheLastRunAndInTheReport(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		var runs []*startup.Run
		e := started(t, startup.Options{}, component{Name: "a", Kind: "process", Start: func(_ context.Context, run *startup.Run) error {
			if runs = append(runs, run); len(runs) == 1 {
				run.Detail("process 1\n")
			}
			return nil
		}})
		require.Equal(t, "process", e.Report().Components[0].Kind)
		require.Equal(t, "process", e.Plan().Steps[0].Kind)
		require.Equal(t, "process 1 ", e.Report().Components[0].Detail)
		require.NoError(t, e.Restart(t.Context(), "a"))
		runs[0].Detail("process 1")
		require.Empty(t, e.Report().Components[0].Detail)
		runs[1].Detail("process 2")
		require.Equal(t, "process 2", e.Report().Components[0].Detail)
		require.NoError(t, stopped(t, e))
	})
}

// A component that is ready for a moment and crashes in a loop would otherwise be restarted as fast as the first delay
// allows.
func TestRestart_DelayGrowsUntilTheComponentWasUpForTheDecay(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		up   time.Duration
		want []float64 // delays in seconds, less the jitter
	}{
		"a loop":       {time.Second, []float64{10, 20, 40, 60}},
		"rare crashes": {5 * time.Minute, []float64{10, 10, 10, 10}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T) {
				var j journal
				var at []time.Time
				c := j.ending("a", test.up, startup.Restart{Mode: startup.OnFailure, MaxRestarts: 100, Decay: 5 * time.Minute, FirstDelay: 10 * time.Second, MaxDelay: time.Minute})
				start := c.Start
				c.Start = func(ctx context.Context, run *startup.Run) error { at = append(at, time.Now()); return start(ctx, run) }
				e := started(t, startup.Options{}, c)
				pass(30 * time.Minute)
				require.NoError(t, stopped(t, e))
				require.Greater(t, len(at), len(test.want))
				for i, want := range test.want {
					require.InDelta(t, 0.9*want, (at[i+1].Sub(at[i]) - test.up).Seconds(), 0.11*want, "%d", i)
				}
			})
		})
	}
}

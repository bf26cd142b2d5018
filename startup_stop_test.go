package registry_test

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/internal/testkit"
	"github.com/capreg/registry/startup"
	"github.com/capreg/registry/verdict"
)

func TestStop_SameFromEveryState(t *testing.T) {
	t.Parallel()
	t.Run("never started", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			var j testkit.Journal
			o := testkit.Orchestrate(t, startup.Options{}, j.Component("a", 0))
			require.NoError(t, o.Stop(t.Context()))
			require.NoError(t, o.Stop(t.Context()))
			_, err := o.Start(t.Context())
			require.ErrorIs(t, err, registry.ErrState)
			require.Empty(t, j.All())
		})
	})
	t.Run("starting", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			var j testkit.Journal
			o := testkit.Orchestrate(t, startup.Options{}, j.Component("a", time.Second), j.Component("b", time.Hour, "a"))
			done := make(chan error, 1)
			go func() { _, err := o.Start(t.Context()); done <- err }()
			testkit.Pass(2 * time.Second)
			require.NoError(t, o.Stop(t.Context()))
			require.ErrorIs(t, <-done, registry.ErrClosed)
			require.Equal(t, []string{"+a", "+b", "-a"}, j.All())
		})
	})
	t.Run("running, from several sides", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			var j testkit.Journal
			o := testkit.Orchestrate(t, startup.Options{}, j.Component("a", 0), j.Component("b", 0, "a"))
			_, err := o.Start(t.Context())
			require.NoError(t, err)
			var stops sync.WaitGroup
			for range 10 {
				stops.Go(func() {
					if err := o.Stop(t.Context()); err != nil {
						t.Error(err)
					}
				})
			}
			stops.Wait()
			require.Equal(t, []string{"+a", "+b", "-b", "-a"}, j.All())
		})
	})
	t.Run("empty", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			o := testkit.Orchestrate(t, startup.Options{})
			_, err := o.Start(t.Context())
			require.NoError(t, err)
			require.NoError(t, o.Stop(t.Context()))
		})
	})
}

func TestStop_NamesStuckAndStopsRest(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var j testkit.Journal
		release := make(chan struct{})
		deaf := j.Component("deaf", 0, "db")
		deaf.StopTimeout = 5 * time.Second
		deaf.Stop = func(context.Context) error { <-release; return nil }
		bad := j.Component("bad", 0)
		bad.Stop = func(context.Context) error { return testkit.ErrDown }
		panics := j.Component("panics", 0)
		panics.Stop = func(context.Context) error { panic("stop") }
		o := testkit.Orchestrate(t, startup.Options{}, deaf, j.Component("db", 0), bad, panics)
		_, err := o.Start(t.Context())
		require.NoError(t, err)
		began := time.Now()
		err = o.Stop(t.Context())
		require.Equal(t, 6*time.Second, time.Since(began))
		require.ErrorIs(t, err, registry.ErrStuck)
		require.ErrorIs(t, err, testkit.ErrDown)
		require.ErrorContains(t, err, `component "deaf": still running`)
		require.ErrorContains(t, err, `component "panics": registry: panic: stop`)
		require.NotContains(t, err.Error(), `"db"`)
		testkit.RequireOneLine(t, err)
		require.Contains(t, j.All(), "-db")
		close(release)
		synctest.Wait()
		err = o.Stop(t.Context())
		require.NotErrorIs(t, err, registry.ErrStuck)
		require.ErrorIs(t, err, testkit.ErrDown)
	})
}

func TestStop_WaitsForReadinessProbe(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var j testkit.Journal
		c := j.Component("a", 0)
		c.Ready = func(context.Context) error { time.Sleep(2 * time.Second); return nil }
		o := testkit.Orchestrate(t, startup.Options{}, c)
		done := testkit.StartAsync(t, o)
		testkit.Pass(time.Second)
		require.NoError(t, testkit.StopInTime(t, o))
		require.Equal(t, []string{"+a", "-a"}, j.All())
		require.ErrorIs(t, <-done, registry.ErrClosed)
	})
}

func TestStop_DoesNotProbeReadinessAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var j testkit.Journal
		probes := 0
		c := j.Component("a", 0)
		c.Ready = func(ctx context.Context) error {
			probes++
			select {
			case <-time.After(2 * time.Second):
				return testkit.ErrDown
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		o := testkit.Orchestrate(t, startup.Options{}, c)
		done := testkit.StartAsync(t, o)
		testkit.Pass(time.Second)
		began := time.Now()
		require.NoError(t, testkit.StopInTime(t, o))
		require.Less(t, time.Since(began), 2*time.Second)
		require.Equal(t, 1, probes)
		require.ErrorIs(t, <-done, registry.ErrClosed)
	})
}

func TestStop_UnregistersRegistrationInProgress(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var j testkit.Journal
		reg := testkit.New(t, registry.Options{})
		c := j.Component("a", 0)
		c.Register = []func(context.Context, *registry.Registry) (*registry.Registration, error){
			func(ctx context.Context, r *registry.Registry) (*registry.Registration, error) {
				time.Sleep(2 * time.Second)
				return testkit.Chat.Register(context.WithoutCancel(ctx), r, testkit.Provider{Name: "model", Instance: testkit.Says("model")})
			},
		}
		o, err := registry.NewOrchestrator(reg, startup.Options{}, c)
		require.NoError(t, err)
		done := testkit.StartAsync(t, o)
		testkit.Pass(time.Second)
		require.NoError(t, testkit.StopInTime(t, o))
		require.Equal(t, []string{"+a", "-a"}, j.All())
		require.ErrorIs(t, <-done, registry.ErrClosed)
		_, err = testkit.Chat.Get(t.Context(), reg, registry.Query{})
		require.ErrorIs(t, err, registry.ErrUnavailable)
		require.NoError(t, reg.Close(t.Context()))
	})
}

func TestStop_ComponentWithHungProbeIsStopped(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var j testkit.Journal
		var life context.Context
		c := j.Component("a", 0)
		c.StartTimeout = 5 * time.Second
		c.Start = func(_ context.Context, run *startup.Run) error {
			life = run.Context() //nolint:fatcontext // the test looks at it from outside
			return nil
		}
		c.Ready = func(context.Context) error { time.Sleep(time.Minute); return testkit.ErrDown }
		o := testkit.Orchestrate(t, startup.Options{}, c)
		_, err := o.Start(t.Context())
		require.ErrorIs(t, err, registry.ErrNotReady)
		testkit.Pass(time.Hour)
		require.NoError(t, o.Stop(t.Context()))
		require.Equal(t, []string{"-a"}, j.All())
		require.Error(t, life.Err())
	})
}

func TestStop_HungDuringRestartIsStuck(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var starts atomic.Int32
		release := make(chan struct{})
		c := testkit.Crashing(&starts, time.Second, startup.Restart{Mode: startup.Always})
		c.Stop = func(context.Context) error { <-release; return nil }
		o := testkit.Orchestrate(t, startup.Options{}, c)
		_, err := o.Start(t.Context())
		require.NoError(t, err)
		testkit.Pass(time.Hour)
		require.Equal(t, "stuck", testkit.StateOf(t, o, "crashing"))
		require.ErrorIs(t, testkit.StopInTime(t, o), registry.ErrStuck)
		close(release)
	})
}

func TestStop_GoexitDuringRestartDelaysNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var starts atomic.Int32
		c := testkit.Crashing(&starts, time.Second, startup.Restart{Mode: startup.Always, MaxRestarts: 100, MaxDelay: time.Second})
		c.Stop = func(context.Context) error { runtime.Goexit(); return nil }
		o := testkit.Orchestrate(t, startup.Options{}, c)
		_, err := o.Start(t.Context())
		require.NoError(t, err)
		testkit.Pass(time.Minute)
		require.Greater(t, starts.Load(), int32(10))
		var exit *verdict.PanicError
		require.ErrorAs(t, testkit.StopInTime(t, o), &exit)
	})
}

func TestStop_WaitsForStopOfFailedRestart(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var starts atomic.Int32
		var stopping atomic.Bool
		c := registry.Component{Name: "a", Notifies: true, StartTimeout: time.Second, Restart: startup.Restart{Mode: startup.Always, FirstDelay: 10 * time.Second}}
		c.Start = func(_ context.Context, run *startup.Run) error {
			if starts.Add(1) == 1 {
				run.Ready()
				time.AfterFunc(time.Minute, func() { run.Ended(testkit.ErrDown) })
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
		for starts.Load() < 2 {
			time.Sleep(time.Second)
		}
		testkit.Pass(2 * time.Second) // the second start timed out, and is being stopped
		require.True(t, stopping.Load())
		require.NoError(t, testkit.StopInTime(t, o))
		require.False(t, stopping.Load())
	})
}

func TestStop_DuringRestartIsOrdinaryEnd(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var starts atomic.Int32
		var j testkit.Journal
		c := registry.Component{Name: "a", Restart: startup.Restart{Mode: startup.Always}}
		c.Start = func(ctx context.Context, run *startup.Run) error {
			if starts.Add(1) == 1 {
				time.AfterFunc(time.Minute, func() { run.Ended(testkit.ErrDown) })
				return nil
			}
			time.Sleep(10 * time.Second)
			return nil
		}
		c.Stop = func(context.Context) error { j.Note("-a"); time.Sleep(time.Second); return nil }
		o := testkit.Orchestrate(t, startup.Options{}, c)
		_, err := o.Start(t.Context())
		require.NoError(t, err)
		for starts.Load() < 2 {
			time.Sleep(time.Second)
		}
		require.NoError(t, testkit.StopInTime(t, o))
		testkit.Pass(time.Minute)
		select {
		case <-o.Failed():
			t.Error("an ordinary stop is no failure")
		default:
		}
		require.Equal(t, "stopped", testkit.StateOf(t, o, "a"))
		require.NoError(t, o.Report().Err)
	})
}

func TestStop_AtEndOfRestartDelayIsOrdinaryEnd(t *testing.T) {
	t.Parallel()
	for range 20 {
		synctest.Test(t, func(t *testing.T) {
			c := registry.Component{Name: "a", Restart: startup.Restart{Mode: startup.Always, FirstDelay: 1, MaxDelay: 1}}
			c.Start = func(_ context.Context, run *startup.Run) error {
				time.AfterFunc(time.Second, func() { run.Ended(testkit.ErrDown) })
				return nil
			}
			o := testkit.Orchestrate(t, startup.Options{}, c)
			_, err := o.Start(t.Context())
			require.NoError(t, err)
			time.Sleep(time.Second + 1)
			require.NoError(t, testkit.StopInTime(t, o))
			require.Equal(t, "stopped", testkit.StateOf(t, o, "a"))
		})
	}
}

func TestStop_DuringRestartLeavesNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var starts atomic.Int32
		var j testkit.Journal
		o := testkit.Orchestrate(t, startup.Options{}, testkit.Crashing(&starts, time.Second, startup.Restart{Mode: startup.Always, FirstDelay: time.Hour, MaxDelay: time.Hour}),
			j.Component("user", 0, "crashing"))
		_, err := o.Start(t.Context())
		require.NoError(t, err)
		testkit.Pass(time.Minute)
		require.Equal(t, "restarting", testkit.StateOf(t, o, "crashing"))
		require.NoError(t, o.Stop(t.Context()))
		require.Equal(t, "stopped", testkit.StateOf(t, o, "crashing"))
		require.Equal(t, []string{"+user", "-user"}, j.All())
	})
}

func TestStop_AbandonsHungStart(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		o := testkit.Orchestrate(t, startup.Options{StartTimeout: 24 * time.Hour}, registry.Component{Name: "a", Start: func(context.Context, *startup.Run) error { <-release; return nil }})
		done := testkit.StartAsync(t, o)
		testkit.Pass(time.Second)
		began := time.Now()
		require.ErrorIs(t, testkit.StopInTime(t, o), registry.ErrStuck)
		require.Less(t, time.Since(began), 15*time.Second, "its stop timeout, and a little more")
		close(release)
		require.ErrorIs(t, <-done, registry.ErrClosed)
	})
}

func TestStop_NamesHungGoroutineOfRun(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		o := testkit.Orchestrate(t, startup.Options{}, registry.Component{Name: "a", Start: func(_ context.Context, run *startup.Run) error {
			run.Go(func(context.Context) error { <-release; return nil })
			return nil
		}})
		_, err := o.Start(t.Context())
		require.NoError(t, err)
		require.ErrorIs(t, o.Stop(t.Context()), registry.ErrStuck)
		close(release)
	})
}

func TestStop_EndsWithMutualUsersAfterRestart(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var j testkit.Journal
		first := j.Component("first", 0)
		first.Provides, first.Needs = []string{"x"}, []startup.Need{{Capability: "y", Any: true}}
		first.Restart.Mode = startup.OnFailure
		var lives atomic.Int32
		start := first.Start
		first.Start = func(ctx context.Context, run *startup.Run) error {
			if lives.Add(1) == 1 {
				run.Go(func(ctx context.Context) error {
					time.Sleep(time.Second)
					return testkit.ErrDown
				})
			}
			return start(ctx, run)
		}
		second := j.Component("second", time.Millisecond)
		second.Provides, second.Needs = []string{"y"}, []startup.Need{{Capability: "x", Any: true}, {Component: "late", OrderOnly: true}}
		other := j.Component("other", 0)
		other.Provides = []string{"x", "y"}
		late := registry.Component{Name: "late", Start: func(context.Context, *startup.Run) error { time.Sleep(time.Millisecond); return nil }}
		o := testkit.Orchestrate(t, startup.Options{}, first, second, other, late) // so that second uses first from the beginning
		_, err := o.Start(t.Context())
		require.NoError(t, err)
		time.Sleep(5 * time.Second)
		require.Equal(t, "ready", testkit.StateOf(t, o, "first"))
		require.EqualValues(t, 2, lives.Load())
		require.NoError(t, o.Stop(t.Context()))
		require.Equal(t, []string{"-second", "-first", "-other"}, j.All()[len(j.All())-3:])
	})
}

func TestStop_RestartingComponentStopsAfterUsers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var j testkit.Journal
		below := j.Component("below", 0)
		below.Restart = startup.Restart{Mode: startup.Always, Dependants: true}
		ends := make(chan struct{})
		start := below.Start
		below.Start = func(ctx context.Context, run *startup.Run) error {
			go func() {
				<-ends
				run.Ended(testkit.ErrDown)
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
		lost := slow(slow(j.Component("lost", 0, "below")))
		lost.NonCritical = true
		lost.Start = func(_ context.Context, run *startup.Run) error {
			run.Go(func(context.Context) error { return testkit.ErrDown })
			return nil
		}
		o := testkit.Orchestrate(t, startup.Options{}, below, lost, slow(j.Component("user", 0, "below")))
		_, err := o.Start(t.Context())
		require.NoError(t, err)
		time.Sleep(time.Second)
		require.Equal(t, "failed", testkit.StateOf(t, o, "lost"))
		close(ends)
		time.Sleep(time.Second)
		require.NoError(t, o.Stop(t.Context()))
		require.Equal(t, []string{"-user", "-lost", "-below"}, j.All()[len(j.All())-3:])
	})
}

func TestStop_EndIsLastEventDespiteStuckStart(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var seen testkit.Journal
		release := make(chan struct{})
		o := testkit.Orchestrate(t, startup.Options{Listen: func(e startup.Event) { seen.Note(fmt.Sprint(e.Component, " ", e.State)) }}, registry.Component{Name: "a", StopTimeout: time.Second, Start: func(context.Context, *startup.Run) error { <-release; return nil }})
		done := testkit.StartAsync(t, o)
		testkit.Pass(time.Second)
		_ = o.Stop(t.Context())
		require.ErrorIs(t, <-done, registry.ErrClosed)
		testkit.Pass(time.Second)
		require.Equal(t, " stopped", seen.All()[len(seen.All())-1], "%v", seen.All())
		close(release)
	})
}

func TestStop_AbandonedComponentStopsAfterDrain(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		var j testkit.Journal
		var run atomic.Pointer[startup.Run]
		o, err := registry.NewOrchestrator(reg, startup.Options{}, registry.Component{
			Name: "a", Start: func(_ context.Context, r *startup.Run) error { run.Store(r); return nil },
			Register: []func(context.Context, *registry.Registry) (*registry.Registration, error){func(ctx context.Context, r *registry.Registry) (*registry.Registration, error) {
				return testkit.Chat.Register(ctx, r, testkit.Provider{Name: "p", Instance: testkit.Answers(func() (string, error) { time.Sleep(3 * time.Second); j.Note("answered"); return "", nil })})
			}}, Stop: func(context.Context) error { j.Note("stop"); return nil },
		})
		require.NoError(t, err)
		_, err = o.Start(t.Context())
		require.NoError(t, err)
		go func() { _, _ = testkit.Ask(context.Background(), testkit.Bind(reg)) }()
		testkit.Pass(time.Second)
		run.Load().Ended(testkit.ErrDown)
		<-o.Failed()
		require.NoError(t, o.Stop(t.Context()))
		testkit.Pass(time.Minute)
		require.Equal(t, []string{"answered", "stop"}, j.All())
	})
}

func TestStop_GoexitStillWaitsForRun(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var working atomic.Int32
		o := testkit.Orchestrate(t, startup.Options{}, registry.Component{Name: "a", Start: func(_ context.Context, run *startup.Run) error {
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
		testkit.Pass(time.Second)
		require.Error(t, o.Stop(t.Context()))
		require.Zero(t, working.Load())
		testkit.Pass(time.Minute)
	})
}

func TestStart_ZeroRegistrationIsAnError(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		o, err := registry.NewOrchestrator(reg, startup.Options{}, registry.Component{
			Name: "a",
			Register: []func(context.Context, *registry.Registry) (*registry.Registration, error){func(context.Context, *registry.Registry) (*registry.Registration, error) {
				return new(registry.Registration), nil
			}},
		})
		require.NoError(t, err)
		_, err = o.Start(t.Context())
		require.ErrorIs(t, err, registry.ErrInvalid)
		require.ErrorContains(t, err, "Registration is zero: want one that a registry returned")
	})
}

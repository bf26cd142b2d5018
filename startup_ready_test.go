package registry_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/health"
	"github.com/capreg/registry/internal/testkit"
	"github.com/capreg/registry/startup"
)

type registering = []func(context.Context, *registry.Registry) (*registry.Registration, error)

// provides returns what registers a provider of the chat service.
func provides(p testkit.Provider) registering {
	return registering{func(ctx context.Context, reg *registry.Registry) (*registry.Registration, error) {
		return testkit.Chat.Register(ctx, reg, p)
	}}
}

func orchestrateIn(tb testing.TB, reg *registry.Registry, options startup.Options, components ...registry.Component) *registry.Orchestrator {
	tb.Helper()
	o, err := registry.NewOrchestrator(reg, options, components...)
	require.NoError(tb, err)
	return o
}

// A component can end with an error or without, by run.Go or run.Ended, in its first run or a later one, with and
// without users. Its state, its provider and an event say so.
func TestStart_EndedComponentIsNotReadyAndWithdrawn(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name    string
		end     error
		restart startup.RestartMode
		state   string
	}{
		{"well", nil, startup.Never, "stopped"},
		{"well, restarted after failures", nil, startup.OnFailure, "stopped"},
		{"with an error", testkit.ErrDown, startup.Never, "failed"},
		{"with an error, to restart", testkit.ErrDown, startup.OnFailure, "restarting"},
		{"well, to restart", nil, startup.Always, "restarting"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
				var seen testkit.Journal
				o := orchestrateIn(t, reg, startup.Options{Listen: func(e startup.Event) { seen.Note(e.Component + " " + e.State.String()) }},
					registry.Component{
						Name: "worker", Provides: []string{"worker"}, NonCritical: true,
						Restart: startup.Restart{Mode: test.restart, FirstDelay: 24 * time.Hour},
						Start: func(_ context.Context, run *startup.Run) error {
							run.Go(func(context.Context) error { time.Sleep(time.Second); return test.end })
							return nil
						},
						Register: provides(testkit.Provider{Name: "w", Instance: testkit.Says("w")}),
					},
					registry.Component{Name: "user", Needs: startup.Capabilities("worker")})
				_, err := o.Start(t.Context())
				require.NoError(t, err)
				require.Equal(t, "w", testkit.MustGet(t, testkit.Bind(reg)))
				testkit.Pass(time.Hour)
				require.Equal(t, test.state, testkit.StateOf(t, o, "worker"))
				require.Equal(t, "ready", testkit.StateOf(t, o, "user"))
				_, err = testkit.Bind(reg).Get(t.Context())
				require.ErrorIs(t, err, registry.ErrUnavailable)
				require.Contains(t, seen.All(), "worker "+test.state)
				require.NoError(t, testkit.StopInTime(t, o))
			})
		})
	}
}

// A call at a component that crashes is cancelled, and its restart does not wait for one that ignores that.
func TestStart_CrashDoesNotWaitForCalls(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		starts := 0
		o := orchestrateIn(t, reg, startup.Options{}, registry.Component{
			Name: "worker", Restart: startup.Restart{Mode: startup.OnFailure},
			Start: func(_ context.Context, run *startup.Run) error {
				if starts++; starts == 1 {
					run.Go(func(context.Context) error { time.Sleep(time.Second); return testkit.ErrDown })
				}
				return nil
			},
			Register: provides(testkit.Provider{Name: "w", AttemptTimeout: time.Hour, Instance: testkit.Answers(func() (string, error) {
				time.Sleep(5 * time.Second) // heeds no context
				return "late", nil
			})}),
		})
		_, err := o.Start(t.Context())
		require.NoError(t, err)
		ended := make(chan struct{})
		go func() { _, _ = testkit.Ask(context.Background(), testkit.Bind(reg)); close(ended) }()
		cancelled := make(chan time.Duration, 1)
		began := time.Now()
		go func() {
			_, _ = registry.Call(context.Background(), testkit.Bind(reg), func(ctx context.Context, _ testkit.ChatModel) (string, error) {
				<-ctx.Done()
				select {
				case cancelled <- time.Since(began):
				default:
				}
				return "", ctx.Err()
			}, registry.OnceOnly())
		}()
		testkit.Pass(2 * time.Second)
		require.Equal(t, "ready", testkit.StateOf(t, o, "worker"))
		require.Equal(t, 2, starts)
		require.Equal(t, time.Second, <-cancelled)
		<-ended
		require.NoError(t, testkit.StopInTime(t, o))
	})
}

// A provider is not eligible before its first good probe, while the probe of its checker or a capability that it is
// asked for... fails; it never is when it is marked as unhealthy or has left.
func TestStart_ComponentIsReadyWhenItsProviderIs(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		began := time.Now()
		o := orchestrateIn(t, reg, startup.Options{},
			registry.Component{Name: "db", Provides: []string{"sql"}, Register: provides(testkit.Provider{
				Name: "db", Instance: testkit.Says("db"), Health: health.Policy{Probe: func(context.Context) error {
					if time.Since(began) < 7*time.Second {
						return errors.New("still loading")
					}
					return nil
				}},
			})},
			registry.Component{Name: "api", Needs: startup.Capabilities("sql"), Start: func(ctx context.Context, _ *startup.Run) error {
				_, err := testkit.Ask(ctx, testkit.Bind(reg))
				return err
			}})
		report, err := o.Start(t.Context())
		require.NoError(t, err)
		require.GreaterOrEqual(t, report.Wall, 7*time.Second)
		require.NoError(t, testkit.StopInTime(t, o))
	})
}

func TestStart_FailsWhenAProviderIsNotEligibleInTime(t *testing.T) {
	t.Parallel()
	for name, p := range map[string]testkit.Provider{
		"its probe fails": {Name: "db", Instance: testkit.Says("db"), Health: health.Policy{Probe: func(context.Context) error { return errors.New("no such table") }}},
		"its probe hangs": {Name: "db", Instance: testkit.Says("db"), Health: health.Policy{Timeout: time.Hour, Probe: func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
				o := orchestrateIn(t, reg, startup.Options{StartTimeout: 20 * time.Second}, registry.Component{Name: "db", Register: provides(p)})
				report, err := o.Start(t.Context())
				require.ErrorIs(t, err, registry.ErrNotReady)
				require.ErrorContains(t, err, `provider "chat/db"`)
				require.Equal(t, 20*time.Second, report.Wall)
				require.Empty(t, testkit.Infos(reg), "rolled back")
			})
		})
	}
}

func TestStart_ProviderThatHasLeftIsNotReady(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		o := orchestrateIn(t, reg, startup.Options{}, registry.Component{Name: "db", Register: registering{
			func(ctx context.Context, reg *registry.Registry) (*registry.Registration, error) {
				registration, err := testkit.Chat.Register(ctx, reg, testkit.Provider{Name: "db", Instance: testkit.Says("db")})
				return registration, errors.Join(err, registration.Unregister(ctx))
			},
		}})
		_, err := o.Start(t.Context())
		require.ErrorIs(t, err, registry.ErrNotReady)
	})
}

// A first start fails by an error, a panic, an early end or a probe that is too late; the policy tells whether it is
// tried again, and the start timeout for how long.
func TestStart_FirstStartIsRetriedByPolicyWithinItsTime(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name    string
		start   func(tries int, run *startup.Run) error
		restart startup.Restart
		tries   int
		state   string
		within  time.Duration
	}{
		{"never by default", func(int, *startup.Run) error { return testkit.ErrDown }, startup.Restart{}, 1, "failed", 0},
		{"the second answers", func(tries int, run *startup.Run) error {
			if tries == 1 {
				return testkit.ErrDown
			}
			return nil
		}, startup.Restart{Mode: startup.OnFailure}, 2, "ready", time.Second},
		{"a panic", func(tries int, run *startup.Run) error {
			if tries == 1 {
				panic("no")
			}
			return nil
		}, startup.Restart{Mode: startup.Always}, 2, "ready", time.Second},
		{"an early end", func(tries int, run *startup.Run) error {
			if tries == 1 {
				run.Ended(testkit.ErrDown)
			}
			return nil
		}, startup.Restart{Mode: startup.OnFailure}, 2, "ready", time.Second},
		{"up to its limit", func(int, *startup.Run) error { return testkit.ErrDown }, startup.Restart{Mode: startup.OnFailure, MaxRestarts: 3, Decay: time.Hour}, 4, "failed", time.Second},
		{"up to its time", func(int, *startup.Run) error { return testkit.ErrDown }, startup.Restart{Mode: startup.OnFailure, FirstDelay: 4 * time.Second, MaxDelay: 4 * time.Second, MaxRestarts: 100}, 3, "failed", 10 * time.Second},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			for _, policy := range []startup.Policy{startup.Abort, startup.SkipDependants} {
				synctest.Test(t, func(t *testing.T) {
					tries := 0
					o := testkit.Orchestrate(t, startup.Options{OnFailure: policy, StartTimeout: 10 * time.Second},
						registry.Component{Name: "db", Provides: []string{"sql"}, Restart: test.restart, Start: func(_ context.Context, run *startup.Run) error {
							tries++
							return test.start(tries, run)
						}},
						registry.Component{Name: "api", Needs: startup.Capabilities("sql")})
					report, err := o.Start(t.Context())
					require.Equal(t, test.tries, tries)
					require.LessOrEqual(t, report.Wall, test.within)
					require.Equal(t, test.state, testkit.StateOf(t, o, "db"))
					if test.state == "ready" {
						require.NoError(t, err)
						require.Equal(t, "ready", testkit.StateOf(t, o, "api"))
					} else {
						require.Equal(t, "skipped", testkit.StateOf(t, o, "api"))
					}
					require.NoError(t, testkit.StopInTime(t, o))
				})
			}
		})
	}
}

func TestStart_RetriedFirstStartHoldsBackTheNextBatch(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var j testkit.Journal
		tries := 0
		o := testkit.Orchestrate(t, startup.Options{Batches: true, OnFailure: startup.Continue},
			registry.Component{Name: "a", Provides: []string{"a"}, Restart: startup.Restart{Mode: startup.OnFailure}, Start: func(context.Context, *startup.Run) error {
				j.Note("+a")
				if tries++; tries < 3 {
					return testkit.ErrDown
				}
				return nil
			}},
			j.Component("b", time.Millisecond), j.Component("c", 0, "b"))
		_, err := o.Start(t.Context())
		require.NoError(t, err)
		require.Equal(t, "+c", j.All()[len(j.All())-1], "%v", j.All())
		require.NoError(t, testkit.StopInTime(t, o))
	})
}

func TestStop_EndsTheRetriesOfAFirstStart(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		o := testkit.Orchestrate(t, startup.Options{}, registry.Component{
			Name: "db", Restart: startup.Restart{Mode: startup.OnFailure, FirstDelay: 10 * time.Second},
			Start: func(context.Context, *startup.Run) error { return testkit.ErrDown },
		})
		done := testkit.StartAsync(t, o)
		testkit.Pass(time.Second)
		require.Equal(t, "restarting", testkit.StateOf(t, o, "db"))
		began := time.Now()
		require.NoError(t, testkit.StopInTime(t, o))
		require.Zero(t, time.Since(began))
		require.ErrorIs(t, <-done, registry.ErrClosed)
	})
}

// A probe, a registration or a notification can come after the stop; what registers may be the first function or a
// later one.
func TestStop_NothingIsRegisteredAfterwards(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"ready", "register"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
				stopped := false
				late := func() { time.Sleep(5 * time.Second) } // heeds no context
				c := registry.Component{
					Name: "db", Stop: func(context.Context) error { stopped = true; return nil },
					Register: registering{func(ctx context.Context, reg *registry.Registry) (*registry.Registration, error) {
						if stopped {
							t.Error("registered after the stop")
						}
						return testkit.Chat.Register(ctx, reg, testkit.Provider{Name: "db", Instance: testkit.Says("db")})
					}},
				}
				if name == "ready" {
					c.Ready = func(context.Context) error { late(); return nil }
				} else {
					c.Register = append(registering{func(context.Context, *registry.Registry) (*registry.Registration, error) { late(); return nil, nil }}, c.Register...) //nolint:nilnil // registers nothing
				}
				o := orchestrateIn(t, reg, startup.Options{StartTimeout: time.Second}, c)
				_, err := o.Start(t.Context())
				require.Error(t, err)
				testkit.Pass(time.Minute)
				require.True(t, stopped)
				require.Empty(t, testkit.Infos(reg))
			})
		})
	}
}

// A component restarts, when everything stops, before its start, in it, while it is probed, or while it stops. Those
// that use it stop before it, and before what it needs.
func TestStop_OrderIsKeptDuringARestart(t *testing.T) {
	t.Parallel()
	for name, after := range map[string]time.Duration{
		"delay": 1500 * time.Millisecond, "start": 3 * time.Second, "probe": 5 * time.Second, "stop": 1010 * time.Millisecond,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var j testkit.Journal
				b, c := j.Component("b", 0, "a"), j.Component("c", 0, "b")
				starts, stopOfB, stopOfC := 0, b.Stop, c.Stop
				b.Restart = startup.Restart{Mode: startup.OnFailure, FirstDelay: time.Second}
				b.Start = func(_ context.Context, run *startup.Run) error {
					if starts++; starts == 1 {
						run.Go(func(context.Context) error { time.Sleep(time.Second); return testkit.ErrDown })
						return nil
					}
					time.Sleep(2 * time.Second)
					return nil
				}
				b.Ready = func(context.Context) error {
					if starts > 1 {
						return testkit.ErrDown
					}
					return nil
				}
				b.Stop = func(ctx context.Context) error { time.Sleep(20 * time.Millisecond); return stopOfB(ctx) }
				c.Stop = func(ctx context.Context) error { time.Sleep(9 * time.Second); return stopOfC(ctx) }
				o := testkit.Orchestrate(t, startup.Options{StartTimeout: 5 * time.Second}, j.Component("a", 0), b, c)
				_, err := o.Start(t.Context())
				require.NoError(t, err)
				testkit.Pass(after)
				require.NotEqual(t, "ready", testkit.StateOf(t, o, "b"))
				require.NoError(t, testkit.StopInTime(t, o))
				all := j.All()
				require.Equal(t, "-a", all[len(all)-1], "%v", all)
				if name == "start" || name == "probe" {
					require.Equal(t, []string{"-c", "-b", "-a"}, all[len(all)-3:])
				}
			})
		})
	}
}

func TestStart_OfWhatCompletesIsOverWhenItsWorkIsDone(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var j testkit.Journal
		migration := registry.Component{
			Name: "migration", Kind: "job", Provides: []string{"schema"}, Completes: true,
			Start: func(_ context.Context, run *startup.Run) error {
				run.Detail("12 changes")
				run.Go(func(context.Context) error {
					time.Sleep(time.Second)
					j.Note("migrated")
					return nil
				})
				return nil
			},
		}
		o := testkit.Orchestrate(t, startup.Options{}, j.Component("app", 0, "schema"), migration)
		step := o.Plan().Steps[0]
		require.Equal(t, "job", step.Kind)
		require.True(t, step.Completes)
		report, err := o.Start(t.Context())
		require.NoError(t, err)
		require.Equal(t, []string{"migrated", "+app"}, j.All())
		require.Equal(t, "completed", testkit.StateOf(t, o, "migration"))
		require.Contains(t, report.String(), "migration @0s +1s (12 changes, completed)")
		require.NoError(t, o.Stop(t.Context()))
		require.Equal(t, "stopped", testkit.StateOf(t, o, "migration"))
	})
}

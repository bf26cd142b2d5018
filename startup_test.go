package registry_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
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

func TestStart_TakesAsLongAsLongestChain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var j testkit.Journal
		o := testkit.Orchestrate(t, startup.Options{},
			j.Component("app", 3*time.Second, "db", "cache"), j.Component("db", 2*time.Second), j.Component("cache", time.Second),
			j.Component("other", 6*time.Second))
		report, err := o.Start(t.Context())
		require.NoError(t, err)
		require.Equal(t, 6*time.Second, report.Wall)
		require.Equal(t, 12*time.Second, report.Work)
		require.Equal(t, 6*time.Second, report.CriticalPath)
		require.InDelta(t, 1, report.Efficiency, 0)
		require.Less(t, slices.Index(j.All(), "+db"), slices.Index(j.All(), "+app"))
		require.NoError(t, o.Stop(t.Context()))
		lines := j.All()[4:]
		require.Len(t, lines, 4)
		require.Less(t, slices.Index(lines, "-app"), slices.Index(lines, "-db"))
		require.Less(t, slices.Index(lines, "-app"), slices.Index(lines, "-cache"))
		require.Equal(t, "stopped", testkit.StateOf(t, o, "app"))
	})
}

func TestStart_ConsumerAlwaysFindsItsProvider(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		reg := testkit.New(t, registry.Options{})
		o, err := registry.NewOrchestrator(reg, startup.Options{},
			registry.Component{
				Name: "agent", Needs: startup.Capabilities("llm"),
				Start: func(ctx context.Context, _ *startup.Run) error {
					time.Sleep(3 * time.Second)
					_, err := testkit.Chat.Get(ctx, reg, registry.Query{})
					return err
				},
			},
			registry.Component{
				Name: "model", Provides: []string{"llm"},
				Start: func(context.Context, *startup.Run) error { time.Sleep(15 * time.Second); return nil },
				Register: []func(context.Context, *registry.Registry) (*registry.Registration, error){
					func(ctx context.Context, reg *registry.Registry) (*registry.Registration, error) {
						return testkit.Chat.Register(ctx, reg, testkit.Provider{Name: "model", Instance: testkit.Says("model")})
					},
				},
			})
		require.NoError(t, err)
		report, err := o.Start(t.Context())
		require.NoError(t, err)
		require.Equal(t, 18*time.Second, report.Wall)
		require.Equal(t, "model", testkit.MustGet(t, testkit.Bind(reg)))
		require.NoError(t, o.Stop(t.Context()))
		_, err = testkit.Bind(reg).Get(t.Context())
		require.ErrorIs(t, err, registry.ErrUnknownService, "it left before it stopped")
		require.NoError(t, reg.Close(t.Context()))
	})
}

func TestStart_FailureRollsBackInReverse(t *testing.T) {
	t.Parallel()
	for name, bad := range map[string]func(ctx context.Context) error{
		"error":   func(context.Context) error { return testkit.ErrDown },
		"panic":   func(context.Context) error { panic(testkit.ErrDown) },
		"exit":    func(context.Context) error { runtime.Goexit(); return nil },
		"timeout": func(ctx context.Context) error { <-ctx.Done(); return errors.Join(testkit.ErrDown, ctx.Err()) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var j testkit.Journal
				broken := j.Component("broken", 0, "db")
				broken.Start = func(ctx context.Context, _ *startup.Run) error { return bad(ctx) }
				broken.StartTimeout = 5 * time.Second
				db := j.Component("db", time.Second, "disk")
				db.Stop = func(ctx context.Context) error {
					j.Note(fmt.Sprintf("-db %v", ctx.Err()))
					return nil
				}
				slow := j.Component("slow", time.Hour)
				o := testkit.Orchestrate(t, startup.Options{}, broken, db, j.Component("disk", time.Second), slow, j.Component("never", 0, "broken"))
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				report, err := o.Start(ctx)
				require.ErrorContains(t, err, `start of component "broken"`)
				testkit.RequireOneLine(t, err)
				if name != "exit" {
					require.ErrorIs(t, err, testkit.ErrDown)
				}
				lines := slices.DeleteFunc(j.All(), func(line string) bool { return line[0] == '+' })
				require.Equal(t, []string{"-db <nil>", "-disk"}, lines)
				require.True(t, report.RolledBack)
				require.ErrorIs(t, report.Err, err)
				states := make(map[string]string)
				for _, c := range report.Components {
					states[c.Name] = c.State.String()
				}
				require.Equal(t, map[string]string{"broken": "failed", "db": "stopped", "disk": "stopped", "slow": "failed", "never": "skipped"}, states)
				require.Contains(t, report.String(), "broken: failed: ")
				require.NoError(t, o.Stop(t.Context()))
				_, err = o.Start(t.Context())
				require.ErrorIs(t, err, registry.ErrState)
			})
		})
	}
}

func TestStart_CancelledRollsBack(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var j testkit.Journal
		o := testkit.Orchestrate(t, startup.Options{}, j.Component("a", time.Second), j.Component("b", time.Hour, "a"), j.Component("c", 0, "b"))
		mine := errors.New("changed my mind")
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(10*time.Second, func() { cancel(mine) })
		report, err := o.Start(ctx)
		require.ErrorIs(t, err, context.Canceled)
		require.ErrorIs(t, err, mine)
		require.Equal(t, 10*time.Second, report.Wall)
		require.Equal(t, []string{"+a", "+b", "-a"}, j.All())
	})
}

func TestStart_LateReturnIsUndone(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var j testkit.Journal
		deaf := j.Component("deaf", 0)
		deaf.StartTimeout = 5 * time.Second
		deaf.Start = func(context.Context, *startup.Run) error { time.Sleep(time.Minute); return nil }
		o := testkit.Orchestrate(t, startup.Options{}, deaf, j.Component("a", 0))
		report, err := o.Start(t.Context())
		require.ErrorIs(t, err, registry.ErrNotReady)
		require.Equal(t, 6*time.Second, report.Wall, "its time, and a second to heed that")
		require.Equal(t, "stuck", testkit.StateOf(t, o, "deaf"))
		require.Equal(t, []string{"+a", "-a"}, j.All())
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		err = o.Stop(ctx)
		require.ErrorIs(t, err, registry.ErrStuck)
		require.ErrorContains(t, err, `component "deaf"`)
		testkit.Pass(time.Minute)
		require.Equal(t, []string{"+a", "-a", "-deaf"}, j.All())
		require.Equal(t, "stopped", testkit.StateOf(t, o, "deaf"))
		require.True(t, slices.ContainsFunc(o.Report().Components, func(c startup.Component) bool { return c.Late }))
		require.NoError(t, o.Stop(t.Context()))
	})
}

func TestStart_PolicyDecidesEffectOfFailure(t *testing.T) {
	t.Parallel()
	for policy, app := range map[startup.Policy]string{startup.SkipDependants: "skipped", startup.Continue: "ready"} {
		t.Run(app, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var j testkit.Journal
				db := registry.Component{Name: "db", Provides: []string{"db"}, Start: func(context.Context, *startup.Run) error { return testkit.ErrDown }}
				o := testkit.Orchestrate(t, startup.Options{OnFailure: policy}, db, j.Component("app", 0, "db"), j.Component("web", 0, "app"), j.Component("other", 0))
				_, err := o.Start(t.Context())
				require.NoError(t, err)
				require.Equal(t, app, testkit.StateOf(t, o, "app"))
				require.Equal(t, app, testkit.StateOf(t, o, "web"))
				require.Equal(t, "ready", testkit.StateOf(t, o, "other"))
				require.NoError(t, o.Stop(t.Context()))
			})
		})
	}
}

func TestStart_LimitStartsLongestPathFirst(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var j testkit.Journal
		var components []registry.Component
		for i := range 6 {
			components = append(components, j.Component(fmt.Sprint("alone", i), time.Second))
		}
		components = append(components, j.Component("a", time.Second), j.Component("b", time.Second, "a"), j.Component("c", time.Second, "b"))
		var inside, most atomic.Int32
		for i := range components {
			start := components[i].Start
			components[i].Start = func(ctx context.Context, run *startup.Run) error {
				most.Store(max(most.Load(), inside.Add(1)))
				defer inside.Add(-1)
				return start(ctx, run)
			}
		}
		o := testkit.Orchestrate(t, startup.Options{MaxConcurrent: 3}, components...)
		report, err := o.Start(t.Context())
		require.NoError(t, err)
		require.Equal(t, 3*time.Second, report.Wall, "nine seconds of work by three")
		require.Equal(t, int32(3), most.Load())
		require.NoError(t, o.Stop(t.Context()))

		// With the durations of the last start, the one that takes long comes first.
		var k testkit.Journal
		again := testkit.Orchestrate(t, startup.Options{MaxConcurrent: 1, Last: &startup.Report{Components: []startup.Component{{Name: "y", Ready: time.Hour}}}},
			k.Component("x", 0), k.Component("y", 0))
		_, err = again.Start(t.Context())
		require.NoError(t, err)
		require.Equal(t, []string{"+y", "+x"}, k.All())
		require.NoError(t, again.Stop(t.Context()))
	})
}

func TestStart_BatchesWaitForEachOther(t *testing.T) {
	t.Parallel()
	for _, limit := range []int{0, 2} {
		t.Run(strconv.Itoa(limit), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var j testkit.Journal
				o := testkit.Orchestrate(t, startup.Options{Batches: true, MaxConcurrent: limit},
					j.Component("quick", time.Second), j.Component("slow", 5*time.Second), j.Component("after quick", time.Second, "quick"))
				report, err := o.Start(t.Context())
				require.NoError(t, err)
				require.Equal(t, 6*time.Second, report.Wall)
				require.Equal(t, 5*time.Second, report.CriticalPath)
				require.NoError(t, o.Stop(t.Context()))
			})
		})
	}
}

func TestStart_ReadinessByNotificationOrProbe(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		notifies := registry.Component{Name: "notifies", Notifies: true, Start: func(_ context.Context, run *startup.Run) error {
			time.AfterFunc(2*time.Second, run.Ready)
			return nil
		}}
		early := registry.Component{Name: "early", Notifies: true, Start: func(_ context.Context, run *startup.Run) error {
			run.Ready()
			run.Ready()
			time.Sleep(time.Second)
			return nil
		}}
		probed := registry.Component{Name: "probed", Ready: func(context.Context) error {
			if time.Since(began) < time.Second {
				return testkit.ErrDown
			}
			return nil
		}}
		both := notifies
		both.Name = "both"
		both.Ready = func(context.Context) error {
			require.GreaterOrEqual(t, time.Since(began), 2*time.Second, "not before it was notified")
			if time.Since(began) < 3*time.Second {
				return testkit.ErrDown
			}
			return nil
		}
		o := testkit.Orchestrate(t, startup.Options{}, notifies, early, probed, both)
		report, err := o.Start(t.Context())
		require.NoError(t, err)
		took := make(map[string]time.Duration)
		for _, c := range report.Components {
			took[c.Name] = c.Took()
			if c.Name == "probed" {
				require.InDelta(t, 50, c.Probes, 15, "growing pauses, and not one a millisecond")
			}
		}
		require.Equal(t, 2*time.Second, took["notifies"])
		require.Equal(t, time.Second, took["early"])
		require.InDelta(t, 1.0, took["probed"].Seconds(), 0.05)
		require.InDelta(t, 3.0, took["both"].Seconds(), 0.15)
		require.NoError(t, o.Stop(t.Context()))
	})
}

func TestStart_UnreadyComponentIsStopped(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var j testkit.Journal
		never := j.Component("never", 0)
		never.StartTimeout = 5 * time.Second
		never.Ready = func(context.Context) error { return testkit.ErrDown }
		silent := j.Component("silent", 0)
		silent.StartTimeout, silent.Notifies, silent.NonCritical = time.Second, true, true
		o := testkit.Orchestrate(t, startup.Options{}, never, silent)
		report, err := o.Start(t.Context())
		require.ErrorIs(t, err, registry.ErrNotReady)
		require.ErrorIs(t, err, testkit.ErrDown, "the last result of its probe")
		require.Equal(t, 5*time.Second, report.Wall.Round(100*time.Millisecond))
		require.ElementsMatch(t, []string{"+never", "+silent", "-never", "-silent"}, j.All())
		require.NoError(t, o.Stop(t.Context()))
	})
}

func TestStart_FailedRegistrationStopsComponent(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		reg := testkit.New(t, registry.Options{})
		var j testkit.Journal
		c := j.Component("a", 0)
		register := func(name string, err error) func(context.Context, *registry.Registry) (*registry.Registration, error) {
			return func(ctx context.Context, reg *registry.Registry) (*registry.Registration, error) {
				if err != nil {
					return nil, err
				}
				return testkit.Chat.Register(ctx, reg, testkit.Provider{Name: name, Instance: testkit.Says(name)})
			}
		}
		c.Register = append(c.Register, register("one", nil), register("two", testkit.ErrDown))
		o, err := registry.NewOrchestrator(reg, startup.Options{}, c)
		require.NoError(t, err)
		_, err = o.Start(t.Context())
		require.ErrorIs(t, err, testkit.ErrDown)
		require.Equal(t, []string{"+a", "-a"}, j.All())
		_, found := reg.Provider("chat", "one")
		require.False(t, found, "what had been registered left again")
		require.NoError(t, reg.Close(t.Context()))
	})
}

func TestRun_ContextOutlivesStartContext(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		type key struct{}
		var startCtx, runCtx context.Context
		worked := make(chan struct{})
		c := registry.Component{Name: "a", Start: func(ctx context.Context, run *startup.Run) error {
			startCtx, runCtx = ctx, run.Context() //nolint:fatcontext // to look at
			run.Go(func(ctx context.Context) error {
				<-ctx.Done()
				time.Sleep(time.Second) // the stop waits for it
				close(worked)
				return ctx.Err()
			})
			deadline, ok := ctx.Deadline()
			require.True(t, ok)
			require.Equal(t, 30*time.Second, time.Until(deadline))
			return nil
		}}
		o := testkit.Orchestrate(t, startup.Options{}, c)
		ctx, cancel := context.WithCancel(context.WithValue(t.Context(), key{}, "value"))
		_, err := o.Start(ctx)
		require.NoError(t, err)
		cancel()
		require.Error(t, startCtx.Err())
		require.NoError(t, runCtx.Err())
		require.Equal(t, "value", runCtx.Value(key{}))
		began := time.Now()
		require.NoError(t, o.Stop(t.Context()))
		require.Equal(t, time.Second, time.Since(began))
		require.ErrorIs(t, context.Cause(runCtx), registry.ErrClosed)
		<-worked
	})
}

func TestStart_ChainOfHundredThousand(t *testing.T) {
	t.Parallel()
	const n = 100_000
	components := make([]registry.Component, n)
	for i := range components {
		components[i] = registry.Component{Name: strconv.Itoa(i)}
		if i > 0 {
			components[i].Needs = []startup.Need{{Component: strconv.Itoa(i - 1)}}
		}
	}
	o := testkit.Orchestrate(t, startup.Options{}, components...)
	report, err := o.Start(t.Context())
	require.NoError(t, err)
	require.Len(t, report.Chain, n)
	require.NoError(t, o.Stop(t.Context()))
}

func TestStart_BlockedDelaysNoUnrelated(t *testing.T) {
	t.Parallel()
	const many = 300
	for name, options := range map[string]startup.Options{"eagerly": {}, "by batches": {Batches: true}, "as many as there are": {MaxConcurrent: many}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var begun atomic.Int32
			all := make(chan struct{})
			meet := func(ctx context.Context, _ *startup.Run) error {
				if begun.Add(1) == many {
					close(all)
				}
				select {
				case <-all:
					return nil
				case <-ctx.Done():
					return ctx.Err()
				}
			}
			components := []registry.Component{{Name: "first", Provides: []string{"first"}}}
			for i := range many {
				components = append(components,
					registry.Component{Name: fmt.Sprintf("meets-%d", i), Needs: startup.Capabilities("first"), Start: meet},
					registry.Component{Name: fmt.Sprintf("follows-%d", i), Needs: []startup.Need{{Component: fmt.Sprintf("meets-%d", i)}}})
			}
			o := testkit.Orchestrate(t, options, components...)
			_, err := o.Start(t.Context())
			require.NoError(t, err)
			require.NoError(t, o.Stop(t.Context()))
		})
	}
}

func TestStart_GoexitDelaysNoOther(t *testing.T) {
	t.Parallel()
	var components []registry.Component
	for i := range 200 {
		components = append(components, registry.Component{Name: strconv.Itoa(i), NonCritical: i%2 == 0, Start: func(context.Context, *startup.Run) error {
			if i%2 == 0 {
				runtime.Goexit()
			}
			return nil
		}})
	}
	o := testkit.Orchestrate(t, startup.Options{}, components...)
	report, err := o.Start(t.Context())
	require.NoError(t, err)
	for i, c := range report.Components {
		require.Equal(t, i%2 == 1, c.State == startup.Ready, c.Name)
	}
	require.NoError(t, o.Stop(t.Context()))
}

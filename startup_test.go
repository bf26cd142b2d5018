package registry_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"runtime"
	"slices"
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

// journal notes what happens, in order.
type journal struct {
	mu    sync.Mutex
	lines []string
}

func (j *journal) note(line string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.lines = append(j.lines, line)
}

func (j *journal) all() []string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return slices.Clone(j.lines)
}

// component is one that takes some time to start, notes what it does, and needs the
// capabilities given; it provides one of its own name.
func (j *journal) component(name string, takes time.Duration, needs ...string) registry.Component {
	return registry.Component{
		Name: name, Provides: []string{name}, Needs: startup.Capabilities(needs...),
		Start: func(ctx context.Context, _ *startup.Run) error {
			j.note("+" + name)
			select {
			case <-time.After(takes):
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		},
		Stop: func(context.Context) error {
			j.note("-" + name)
			return nil
		},
	}
}

func orchestrate(tb testing.TB, options startup.Options, components ...registry.Component) *registry.Orchestrator {
	tb.Helper()
	o, err := registry.NewOrchestrator(nil, options, components...)
	require.NoError(tb, err)
	return o
}

// inBubble runs a test on fake time.
func inBubble(t *testing.T, test func(t *testing.T)) {
	t.Helper()
	synctest.Test(t, test)
}

func stateOf(tb testing.TB, o *registry.Orchestrator, name string) string {
	tb.Helper()
	state, ok := o.State(name)
	require.True(tb, ok, name)
	return state.String()
}

func TestStartTakesAsLongAsItsLongestChainAndStopIsItsReverse(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T) {
		var j journal
		o := orchestrate(t, startup.Options{},
			j.component("app", 3*time.Second, "db", "cache"), j.component("db", 2*time.Second), j.component("cache", time.Second),
			j.component("other", 6*time.Second))
		report, err := o.Start(t.Context())
		require.NoError(t, err)
		require.Equal(t, 6*time.Second, report.Wall)
		require.Equal(t, 12*time.Second, report.Work)
		require.Equal(t, 6*time.Second, report.CriticalPath)
		require.InDelta(t, 1, report.Efficiency, 0)
		require.Less(t, slices.Index(j.all(), "+db"), slices.Index(j.all(), "+app"))
		require.NoError(t, o.Stop(t.Context()))
		lines := j.all()[4:]
		require.Len(t, lines, 4)
		require.Less(t, slices.Index(lines, "-app"), slices.Index(lines, "-db"))
		require.Less(t, slices.Index(lines, "-app"), slices.Index(lines, "-cache"))
		require.Equal(t, "stopped", stateOf(t, o, "app"))
	})
}

func TestConsumerNeverSeesThatItsProviderIsNotThere(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T) {
		reg := newRegistry(t, registry.Options{})
		o, err := registry.NewOrchestrator(reg, startup.Options{},
			registry.Component{
				Name: "agent", Needs: startup.Capabilities("llm"),
				Start: func(ctx context.Context, _ *startup.Run) error {
					time.Sleep(3 * time.Second)
					_, err := chat.Get(ctx, reg, registry.Query{})
					return err
				},
			},
			registry.Component{
				Name: "model", Provides: []string{"llm"},
				Start: func(context.Context, *startup.Run) error { time.Sleep(15 * time.Second); return nil },
				Register: []func(context.Context, *registry.Registry) (*registry.Registration, error){
					func(ctx context.Context, reg *registry.Registry) (*registry.Registration, error) {
						return chat.Register(ctx, reg, provider{Name: "model", Instance: says("model")})
					},
				},
			})
		require.NoError(t, err)
		report, err := o.Start(t.Context())
		require.NoError(t, err)
		require.Equal(t, 18*time.Second, report.Wall)
		require.Equal(t, "model", got(t, bind(reg)))
		require.NoError(t, o.Stop(t.Context()))
		_, err = bind(reg).Get(t.Context())
		require.ErrorIs(t, err, registry.ErrUnknownService, "it left before it stopped")
		require.NoError(t, reg.Close(t.Context()))
	})
}

func TestPlanShowsTheBatchesWithWhoComesAfterWhom(t *testing.T) {
	t.Parallel()
	var j journal
	optional := j.component("web", 0, "app")
	optional.Needs = append(optional.Needs, startup.Need{Capability: "metrics", Optional: true})
	o := orchestrate(t, startup.Options{}, optional, j.component("app", 0, "db", "cache"), j.component("db", 0), j.component("cache", 0))
	plan := o.Plan()
	require.Equal(t, [][]string{{"db", "cache"}, {"app"}, {"web"}}, plan.Batches)
	require.Equal(t, "batch 1: db, cache\nbatch 2: app (after db, cache)\nbatch 3: web (after app)", plan.String())
	require.Equal(t, "metrics", plan.Steps[3].Absent[0].Capability)
	text, err := json.Marshal(plan)
	require.NoError(t, err)
	require.Contains(t, string(text), `"batches":[["db","cache"],["app"],["web"]]`)
	require.NoError(t, o.Stop(t.Context()))
}

func TestAllThatIsWrongWithAGraphIsToldAtOnce(t *testing.T) {
	t.Parallel()
	var j journal
	self := j.component("self", 0, "self")
	_, err := registry.NewOrchestrator(nil, startup.Options{},
		j.component("a", 0, "b"), j.component("b", 0, "c"), j.component("c", 0, "a", "b"),
		j.component("database", 0), j.component("app", 0, "databse", "nothing"), self,
		j.component("twice", 0), j.component("twice", 0),
		registry.Component{Name: "named", Needs: []startup.Need{{Component: "ap"}}})
	requireOneLine(t, err)
	require.ErrorIs(t, err, startup.ErrPlan)
	var wrong *startup.PlanError
	require.ErrorAs(t, err, &wrong)
	require.Equal(t, []string{"twice"}, wrong.Duplicates)
	require.Len(t, wrong.Missing, 3)
	require.Equal(t, []string{"database"}, wrong.Missing[0].Nearest)
	require.Empty(t, wrong.Missing[1].Nearest)
	require.Contains(t, wrong.Missing[2].Nearest, "app")
	require.Len(t, wrong.Cycles, 2)
	for _, part := range []string{
		`there are several components "twice"`, `"app" needs "databse", which nobody provides: did you mean database?`,
		`"self" needs "self" of itself`, `"b" needs "c" of "c", which needs "b" of "b"`,
	} {
		require.Contains(t, err.Error(), part)
	}
}

func TestFailureRollsBackWhatWasStartedInReverseUnderContextsOfItsOwn(t *testing.T) {
	t.Parallel()
	for name, bad := range map[string]func(ctx context.Context) error{
		"error":   func(context.Context) error { return errDown },
		"panic":   func(context.Context) error { panic(errDown) },
		"exit":    func(context.Context) error { runtime.Goexit(); return nil },
		"timeout": func(ctx context.Context) error { <-ctx.Done(); return errors.Join(errDown, ctx.Err()) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			inBubble(t, func(t *testing.T) {
				var j journal
				broken := j.component("broken", 0, "db")
				broken.Start = func(ctx context.Context, _ *startup.Run) error { return bad(ctx) }
				broken.StartTimeout = 5 * time.Second
				db := j.component("db", time.Second, "disk")
				db.Stop = func(ctx context.Context) error {
					j.note(fmt.Sprintf("-db %v", ctx.Err()))
					return nil
				}
				slow := j.component("slow", time.Hour)
				o := orchestrate(t, startup.Options{}, broken, db, j.component("disk", time.Second), slow, j.component("never", 0, "broken"))
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				report, err := o.Start(ctx)
				require.ErrorContains(t, err, `start of component "broken"`)
				requireOneLine(t, err)
				if name != "exit" {
					require.ErrorIs(t, err, errDown)
				}
				lines := slices.DeleteFunc(j.all(), func(line string) bool { return line[0] == '+' })
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
				require.ErrorIs(t, err, registry.ErrClosed)
			})
		})
	}
}

func TestStartThatIsCancelledRollsBackAndSaysSo(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T) {
		var j journal
		o := orchestrate(t, startup.Options{}, j.component("a", time.Second), j.component("b", time.Hour, "a"), j.component("c", 0, "b"))
		mine := errors.New("changed my mind")
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(10*time.Second, func() { cancel(mine) })
		report, err := o.Start(ctx)
		require.ErrorIs(t, err, context.Canceled)
		require.ErrorIs(t, err, mine)
		require.Equal(t, 10*time.Second, report.Wall)
		require.Equal(t, []string{"+a", "+b", "-a"}, j.all())
	})
}

func TestStartThatReturnsTooLateIsUndone(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T) {
		var j journal
		deaf := j.component("deaf", 0)
		deaf.StartTimeout = 5 * time.Second
		deaf.Start = func(context.Context, *startup.Run) error { time.Sleep(time.Minute); return nil }
		o := orchestrate(t, startup.Options{}, deaf, j.component("a", 0))
		report, err := o.Start(t.Context())
		require.ErrorIs(t, err, registry.ErrNotReady)
		require.Equal(t, 6*time.Second, report.Wall, "its time, and a second to heed that")
		require.Equal(t, "stuck", stateOf(t, o, "deaf"))
		require.Equal(t, []string{"+a", "-a"}, j.all())
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		err = o.Stop(ctx)
		require.ErrorIs(t, err, registry.ErrStuck)
		require.ErrorContains(t, err, `component "deaf"`)
		pass(time.Minute)
		require.Equal(t, []string{"+a", "-a", "-deaf"}, j.all())
		require.Equal(t, "stopped", stateOf(t, o, "deaf"))
		require.True(t, slices.ContainsFunc(o.Report().Components, func(c startup.Component) bool { return c.Late }))
		require.NoError(t, o.Stop(t.Context()))
	})
}

func TestNeedsCanBeOptionalOrderedOrSatisfiedByAny(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T) {
		var j journal
		failing := func(name string, provides ...string) registry.Component {
			return registry.Component{Name: name, Provides: provides, NonCritical: true, Start: func(context.Context, *startup.Run) error {
				time.Sleep(time.Second)
				return errDown
			}}
		}
		app := j.component("app", 0)
		app.Needs = []startup.Need{
			{Capability: "llm", Any: true},
			{Capability: "metrics", Optional: true},
			{Capability: "absent", Optional: true},
			{Component: "first", OrderOnly: true},
			{Component: "no such", OrderOnly: true},
		}
		quick, slow := j.component("quick", 2*time.Second), j.component("slow", time.Hour)
		quick.Provides, slow.Provides = []string{"llm"}, []string{"llm"}
		all := j.component("all", 0, "llm")
		all.NonCritical = true
		needy := j.component("needy", 0, "metrics")
		o := orchestrate(t, startup.Options{StartTimeout: 2 * time.Hour}, app, quick, slow, all, needy,
			failing("broken", "llm"), failing("metrics", "metrics"), j.component("first", 3*time.Second))
		done := make(chan error, 1)
		go func() { _, err := o.Start(t.Context()); done <- err }()
		pass(3 * time.Second)
		require.Equal(t, "ready", stateOf(t, o, "app"))
		require.Equal(t, "skipped", stateOf(t, o, "all"), "one of all failed")
		require.Equal(t, "skipped", stateOf(t, o, "needy"))
		require.NoError(t, o.Stop(t.Context()))
		require.ErrorIs(t, <-done, registry.ErrClosed)
		report := o.Report()
		for _, c := range report.Components {
			switch c.Name {
			case "app":
				require.Equal(t, []string{
					`"absent" (optional)`, `"metrics" (optional) of "metrics", which failed`, `component "no such" (order only)`,
				}, sorted(c.Absent))
				require.Equal(t, "first", c.BlockedBy)
			case "needy":
				require.Equal(t, `needs "metrics" of "metrics", which failed`, c.Reason)
			}
		}
	})
}

func sorted(words []string) []string {
	slices.Sort(words)
	return words
}

func TestAnyFailsOnlyWhenAllHaveFailed(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T) {
		broken := func(name string) registry.Component {
			return registry.Component{Name: name, Provides: []string{"x"}, Start: func(context.Context, *startup.Run) error { return errDown }}
		}
		app := registry.Component{Name: "app", Needs: []startup.Need{{Capability: "x", Any: true}}}
		o := orchestrate(t, startup.Options{OnFailure: startup.SkipDependants}, app, broken("a"), broken("b"))
		_, err := o.Start(t.Context())
		require.NoError(t, err)
		require.Equal(t, "skipped", stateOf(t, o, "app"))
		require.NoError(t, o.Stop(t.Context()))
	})
}

func TestPolicyDecidesWhatAFailureMeansForTheOthers(t *testing.T) {
	t.Parallel()
	for policy, app := range map[startup.Policy]string{startup.SkipDependants: "skipped", startup.Continue: "ready"} {
		t.Run(app, func(t *testing.T) {
			t.Parallel()
			inBubble(t, func(t *testing.T) {
				var j journal
				db := registry.Component{Name: "db", Provides: []string{"db"}, Start: func(context.Context, *startup.Run) error { return errDown }}
				o := orchestrate(t, startup.Options{OnFailure: policy}, db, j.component("app", 0, "db"), j.component("web", 0, "app"), j.component("other", 0))
				_, err := o.Start(t.Context())
				require.NoError(t, err)
				require.Equal(t, app, stateOf(t, o, "app"))
				require.Equal(t, app, stateOf(t, o, "web"))
				require.Equal(t, "ready", stateOf(t, o, "other"))
				require.NoError(t, o.Stop(t.Context()))
			})
		})
	}
}

func TestLimitStartsTheLongestPathFirst(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T) {
		var j journal
		var components []registry.Component
		for i := range 6 {
			components = append(components, j.component(fmt.Sprint("alone", i), time.Second))
		}
		components = append(components, j.component("a", time.Second), j.component("b", time.Second, "a"), j.component("c", time.Second, "b"))
		var inside, most atomic.Int32
		for i := range components {
			start := components[i].Start
			components[i].Start = func(ctx context.Context, run *startup.Run) error {
				most.Store(max(most.Load(), inside.Add(1)))
				defer inside.Add(-1)
				return start(ctx, run)
			}
		}
		o := orchestrate(t, startup.Options{MaxConcurrent: 3}, components...)
		report, err := o.Start(t.Context())
		require.NoError(t, err)
		require.Equal(t, 3*time.Second, report.Wall, "nine seconds of work by three")
		require.Equal(t, int32(3), most.Load())
		require.NoError(t, o.Stop(t.Context()))

		// With the durations of the last start, the one that takes long comes first.
		var k journal
		again := orchestrate(t, startup.Options{MaxConcurrent: 1, Last: &startup.Report{Components: []startup.Component{{Name: "y", Ready: time.Hour}}}},
			k.component("x", 0), k.component("y", 0))
		_, err = again.Start(t.Context())
		require.NoError(t, err)
		require.Equal(t, []string{"+y", "+x"}, k.all())
		require.NoError(t, again.Stop(t.Context()))
	})
}

func TestBatchesWaitForEachOtherOnRequest(t *testing.T) {
	t.Parallel()
	for _, limit := range []int{0, 2} {
		t.Run(strconv.Itoa(limit), func(t *testing.T) {
			t.Parallel()
			inBubble(t, func(t *testing.T) {
				var j journal
				o := orchestrate(t, startup.Options{Batches: true, MaxConcurrent: limit},
					j.component("quick", time.Second), j.component("slow", 5*time.Second), j.component("after quick", time.Second, "quick"))
				report, err := o.Start(t.Context())
				require.NoError(t, err)
				require.Equal(t, 6*time.Second, report.Wall)
				require.Equal(t, 5*time.Second, report.CriticalPath)
				require.NoError(t, o.Stop(t.Context()))
			})
		})
	}
}

func TestReadinessIsByNotificationByProbeOrBoth(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T) {
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
				return errDown
			}
			return nil
		}}
		both := notifies
		both.Name = "both"
		both.Ready = func(context.Context) error {
			require.GreaterOrEqual(t, time.Since(began), 2*time.Second, "not before it was notified")
			if time.Since(began) < 3*time.Second {
				return errDown
			}
			return nil
		}
		o := orchestrate(t, startup.Options{}, notifies, early, probed, both)
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

func TestComponentThatDoesNotGetReadyIsStoppedAndSaysWhy(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T) {
		var j journal
		never := j.component("never", 0)
		never.StartTimeout = 5 * time.Second
		never.Ready = func(context.Context) error { return errDown }
		silent := j.component("silent", 0)
		silent.StartTimeout, silent.Notifies, silent.NonCritical = time.Second, true, true
		o := orchestrate(t, startup.Options{}, never, silent)
		report, err := o.Start(t.Context())
		require.ErrorIs(t, err, registry.ErrNotReady)
		require.ErrorIs(t, err, errDown, "what its probe said last")
		require.Equal(t, 5*time.Second, report.Wall.Round(100*time.Millisecond))
		require.ElementsMatch(t, []string{"+never", "+silent", "-never", "-silent"}, j.all())
		require.NoError(t, o.Stop(t.Context()))
	})
}

func TestRegistrationThatFailsStopsTheComponent(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T) {
		reg := newRegistry(t, registry.Options{})
		var j journal
		c := j.component("a", 0)
		register := func(name string, err error) func(context.Context, *registry.Registry) (*registry.Registration, error) {
			return func(ctx context.Context, reg *registry.Registry) (*registry.Registration, error) {
				if err != nil {
					return nil, err
				}
				return chat.Register(ctx, reg, provider{Name: name, Instance: says(name)})
			}
		}
		c.Register = append(c.Register, register("one", nil), register("two", errDown))
		o, err := registry.NewOrchestrator(reg, startup.Options{}, c)
		require.NoError(t, err)
		_, err = o.Start(t.Context())
		require.ErrorIs(t, err, errDown)
		require.Equal(t, []string{"+a", "-a"}, j.all())
		_, found := reg.Provider("one")
		require.False(t, found, "what had been registered left again")
		require.NoError(t, reg.Close(t.Context()))
	})
}

func TestStopIsTheSameFromEveryState(t *testing.T) {
	t.Parallel()
	t.Run("never started", func(t *testing.T) {
		t.Parallel()
		inBubble(t, func(t *testing.T) {
			var j journal
			o := orchestrate(t, startup.Options{}, j.component("a", 0))
			require.NoError(t, o.Stop(t.Context()))
			require.NoError(t, o.Stop(t.Context()))
			_, err := o.Start(t.Context())
			require.ErrorIs(t, err, registry.ErrClosed)
			require.Empty(t, j.all())
		})
	})
	t.Run("starting", func(t *testing.T) {
		t.Parallel()
		inBubble(t, func(t *testing.T) {
			var j journal
			o := orchestrate(t, startup.Options{}, j.component("a", time.Second), j.component("b", time.Hour, "a"))
			done := make(chan error, 1)
			go func() { _, err := o.Start(t.Context()); done <- err }()
			pass(2 * time.Second)
			require.NoError(t, o.Stop(t.Context()))
			require.ErrorIs(t, <-done, registry.ErrClosed)
			require.Equal(t, []string{"+a", "+b", "-a"}, j.all())
		})
	})
	t.Run("running, from several sides", func(t *testing.T) {
		t.Parallel()
		inBubble(t, func(t *testing.T) {
			var j journal
			o := orchestrate(t, startup.Options{}, j.component("a", 0), j.component("b", 0, "a"))
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
			require.Equal(t, []string{"+a", "+b", "-b", "-a"}, j.all())
		})
	})
	t.Run("empty", func(t *testing.T) {
		t.Parallel()
		inBubble(t, func(t *testing.T) {
			o := orchestrate(t, startup.Options{})
			_, err := o.Start(t.Context())
			require.NoError(t, err)
			require.NoError(t, o.Stop(t.Context()))
		})
	})
}

func TestStopNamesWhatIsStuckAndStopsTheRest(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T) {
		var j journal
		release := make(chan struct{})
		deaf := j.component("deaf", 0, "db")
		deaf.StopTimeout = 5 * time.Second
		deaf.Stop = func(context.Context) error { <-release; return nil }
		bad := j.component("bad", 0)
		bad.Stop = func(context.Context) error { return errDown }
		panics := j.component("panics", 0)
		panics.Stop = func(context.Context) error { panic("stop") }
		o := orchestrate(t, startup.Options{}, deaf, j.component("db", 0), bad, panics)
		_, err := o.Start(t.Context())
		require.NoError(t, err)
		began := time.Now()
		err = o.Stop(t.Context())
		require.Equal(t, 6*time.Second, time.Since(began))
		require.ErrorIs(t, err, registry.ErrStuck)
		require.ErrorIs(t, err, errDown)
		require.ErrorContains(t, err, `component "deaf": still running`)
		require.ErrorContains(t, err, `component "panics": registry: panic: stop`)
		require.NotContains(t, err.Error(), `"db"`)
		requireOneLine(t, err)
		require.Contains(t, j.all(), "-db")
		close(release)
		synctest.Wait()
		err = o.Stop(t.Context())
		require.NotErrorIs(t, err, registry.ErrStuck)
		require.ErrorIs(t, err, errDown)
	})
}

func TestRunContextLivesUntilTheStopAndTheStartContextDoesNot(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T) {
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
		o := orchestrate(t, startup.Options{}, c)
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

// crashing is a component whose run ends with an error after some time, as often as
// it is started.
func crashing(starts *atomic.Int32, after time.Duration, restart startup.Restart) registry.Component {
	return registry.Component{Name: "crashing", Provides: []string{"crashing"}, Restart: restart, Start: func(_ context.Context, run *startup.Run) error {
		starts.Add(1)
		run.Go(func(ctx context.Context) error {
			select {
			case <-time.After(after):
				return errDown
			case <-ctx.Done():
				return nil
			}
		})
		return nil
	}}
}

func TestComponentThatCrashesIsStartedAgainWithDelaysUpToALimit(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T) {
		var starts atomic.Int32
		o := orchestrate(t, startup.Options{}, crashing(&starts, time.Second, startup.Restart{Mode: startup.OnFailure, Limit: 3, Decay: time.Hour}))
		_, err := o.Start(t.Context())
		require.NoError(t, err)
		<-o.Failed()
		require.Equal(t, int32(4), starts.Load())
		require.Equal(t, "failed", stateOf(t, o, "crashing"))
		require.ErrorIs(t, o.Report().Err, errDown)
		require.NoError(t, o.Stop(t.Context()))
	})
}

func TestCrashesThatAreRareAreBorneForEver(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T) {
		var starts atomic.Int32
		o := orchestrate(t, startup.Options{}, crashing(&starts, 30*time.Second, startup.Restart{Mode: startup.OnFailure, Limit: 3}))
		_, err := o.Start(t.Context())
		require.NoError(t, err)
		pass(time.Hour)
		require.InDelta(t, 119, starts.Load(), 2)
		require.NoError(t, o.Stop(t.Context()))
		require.Positive(t, o.Report().Components[0].Restarts)
	})
}

func TestDependantsAreRestartedOnlyWhereThePolicySaysSo(t *testing.T) {
	t.Parallel()
	for _, dependants := range []bool{false, true} {
		t.Run(strconv.FormatBool(dependants), func(t *testing.T) {
			t.Parallel()
			inBubble(t, func(t *testing.T) {
				var starts atomic.Int32
				var j journal
				o := orchestrate(t, startup.Options{}, crashing(&starts, 10*time.Second, startup.Restart{Mode: startup.Always, Dependants: dependants}),
					j.component("user", time.Second, "crashing"), j.component("its user", time.Second, "user"), registry.Component{Name: "other"})
				_, err := o.Start(t.Context())
				require.NoError(t, err)
				pass(15 * time.Second)
				require.Equal(t, int32(2), starts.Load())
				want := []string{"+user", "+its user"}
				if dependants {
					want = append(want, "-its user", "-user", "+user", "+its user")
				}
				require.Equal(t, want, j.all())
				require.Equal(t, "ready", stateOf(t, o, "its user"))
				require.NoError(t, o.Stop(t.Context()))
			})
		})
	}
}

func TestStopDuringARestartLeavesNothingBehind(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T) {
		var starts atomic.Int32
		var j journal
		o := orchestrate(t, startup.Options{}, crashing(&starts, time.Second, startup.Restart{Mode: startup.Always, FirstDelay: time.Hour, MaxDelay: time.Hour}),
			j.component("user", 0, "crashing"))
		_, err := o.Start(t.Context())
		require.NoError(t, err)
		pass(time.Minute)
		require.Equal(t, "restarting", stateOf(t, o, "crashing"))
		require.NoError(t, o.Stop(t.Context()))
		require.Equal(t, "stopped", stateOf(t, o, "crashing"))
		require.Equal(t, []string{"+user", "-user"}, j.all())
	})
}

func TestRunEndsWithItsContextAndWithACriticalComponent(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T) {
		var j journal
		o := orchestrate(t, startup.Options{}, j.component("a", time.Second))
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		require.NoError(t, o.Run(ctx))
		require.Equal(t, []string{"+a", "-a"}, j.all())

		var starts atomic.Int32
		o = orchestrate(t, startup.Options{}, crashing(&starts, time.Second, startup.Restart{}), j.component("b", 0))
		require.ErrorIs(t, o.Run(t.Context()), errDown)
		require.Equal(t, []string{"+a", "-a", "+b", "-b"}, j.all())

		o = orchestrate(t, startup.Options{}, registry.Component{Name: "c", Start: func(context.Context, *startup.Run) error { return errDown }})
		require.ErrorIs(t, o.Run(t.Context()), errDown)
	})
}

func TestComponentsCanBeAddedAndRemovedWhileOthersRun(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T) {
		var j journal
		o := orchestrate(t, startup.Options{}, j.component("db", 0))
		_, err := o.Start(t.Context())
		require.NoError(t, err)
		require.NoError(t, o.Add(t.Context(), j.component("web", time.Second, "app"), j.component("app", time.Second, "db")))
		require.Equal(t, []string{"+db", "+app", "+web"}, j.all())
		require.ErrorIs(t, o.Remove(t.Context(), "db"), registry.ErrConflict)
		require.ErrorIs(t, o.Remove(t.Context(), "nobody"), registry.ErrNotRegistered)
		require.NoError(t, o.Remove(t.Context(), "web"))
		require.Equal(t, "-web", j.all()[3])
		_, ok := o.State("web")
		require.False(t, ok)

		require.ErrorIs(t, o.Add(t.Context(), j.component("x", 0, "nothing")), startup.ErrPlan)
		bad := j.component("bad", 0, "good")
		bad.Start = func(context.Context, *startup.Run) error { return errDown }
		require.ErrorIs(t, o.Add(t.Context(), j.component("good", 0, "app"), bad), errDown)
		require.Equal(t, []string{"+good", "-good"}, j.all()[4:])
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		require.ErrorIs(t, o.Add(ctx, j.component("slow", time.Hour, "app")), context.DeadlineExceeded)
		pass(time.Minute)
		_, ok = o.State("slow")
		require.False(t, ok)
		require.NoError(t, o.Add(t.Context(), j.component("web", 0, "app")), "its name is free again")
		require.NoError(t, o.Stop(t.Context()))
		lines := j.all()
		require.Equal(t, []string{"-web", "-app", "-db"}, lines[len(lines)-3:])
		require.ErrorIs(t, o.Add(t.Context(), j.component("late", 0)), registry.ErrClosed)
	})
}

func TestReportTellsWhereTheTimeWent(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T) {
		var j journal
		o := orchestrate(t, startup.Options{},
			j.component("web", 200*time.Millisecond, "app"), j.component("app", time.Second, "db", "cache"), j.component("db", 1500*time.Millisecond), j.component("cache", time.Second))
		report, err := o.Start(t.Context())
		require.NoError(t, err)
		require.Equal(t, []string{"db", "app", "web"}, report.Chain)
		require.Equal(t, "4 components in 2.7s, critical path 2.7s, efficiency 100 %\nweb @2.5s +200ms\n  app @1.5s +1s\n    db @0s +1.5s", report.String())
		require.Equal(t, startup.Component{
			Name: "app", State: startup.Ready, Batch: 2, Queued: 1500 * time.Millisecond, Started: 1500 * time.Millisecond,
			Returned: 2500 * time.Millisecond, Ready: 2500 * time.Millisecond, BlockedBy: "db",
		}, report.Components[2])
		text, err := json.Marshal(report)
		require.NoError(t, err)
		require.Contains(t, string(text), `"blocked_by":"db"`)
		require.NoError(t, o.Stop(t.Context()))
	})
}

func TestListenerGetsEventsInOrderAndHarmsNobody(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T) {
		var lines journal
		var j journal
		var text strings.Builder
		progress := startup.Progress(&text)
		o := orchestrate(t, startup.Options{Listen: func(e startup.Event) {
			lines.note(fmt.Sprintf("%s %v %d/%d", e.Component, e.State, e.Settled, e.Total))
			progress(e)
			if e.Component == "a" && e.State == startup.Starting {
				panic("listener")
			}
		}}, j.component("a", time.Second), j.component("b", time.Second, "a"))
		_, err := o.Start(t.Context())
		require.NoError(t, err)
		synctest.Wait()
		require.Equal(t, []string{"a starting 0/2", "a ready 1/2", "b starting 1/2", "b ready 2/2", " ready 2/2"}, lines.all())
		require.Contains(t, text.String(), "[2/2] ready in 2s\n")
		require.NoError(t, o.Stop(t.Context()))
	})
}

func TestBadComponentsAndOptionsAreRefusedByField(t *testing.T) {
	t.Parallel()
	for field, c := range map[string]registry.Component{
		"Component.Name":                    {},
		`Component["a"].Provides[0]`:        {Name: "a", Provides: []string{" x"}},
		`Component["a"].Needs[0]`:           {Name: "a", Needs: []startup.Need{{}}},
		`Component["a"].StartTimeout`:       {Name: "a", StartTimeout: -1},
		`Component["a"].StopTimeout`:        {Name: "a", StopTimeout: -1},
		`Component["a"].Restart.Limit`:      {Name: "a", Restart: startup.Restart{Limit: -1}},
		`Component["a"].Restart.Mode`:       {Name: "a", Restart: startup.Restart{Mode: 9}},
		`Component["a"].Restart.FirstDelay`: {Name: "a", Restart: startup.Restart{FirstDelay: -1}},
		`Component["a"].Register`:           {Name: "a", Register: make([]func(context.Context, *registry.Registry) (*registry.Registration, error), 1)},
	} {
		_, err := registry.NewOrchestrator(nil, startup.Options{}, c)
		var refused *registry.FieldError
		require.ErrorAs(t, err, &refused, field)
		require.Contains(t, refused.Field, field)
	}
	for field, options := range map[string]startup.Options{
		"Options.MaxConcurrent": {MaxConcurrent: -1}, "Options.OnFailure": {OnFailure: 9},
		"Options.StartTimeout": {StartTimeout: -1}, "Options.StopTimeout": {StopTimeout: -1},
	} {
		_, err := registry.NewOrchestrator(nil, options)
		require.ErrorContains(t, err, field)
	}
}

func TestDefinitionOfADocumentMapsOntoAComponent(t *testing.T) {
	t.Parallel()
	var d startup.Definition
	require.NoError(t, json.Unmarshal([]byte(`{"name":"memory","version":"1.2","description":"remembers","capabilities":["memory"],"required_capabilities":["sql"]}`), &d))
	c := registry.Component{Description: "mine"}.From(d)
	require.Equal(t, registry.Component{
		Name: "memory", Version: "1.2", Description: "mine", Provides: []string{"memory"}, Needs: startup.Capabilities("sql"),
	}, c)
}

func TestChainOfAHundredThousandStartsAndStops(t *testing.T) {
	t.Parallel()
	const n = 100_000
	components := make([]registry.Component, n)
	for i := range components {
		components[i] = registry.Component{Name: strconv.Itoa(i)}
		if i > 0 {
			components[i].Needs = []startup.Need{{Component: strconv.Itoa(i - 1)}}
		}
	}
	o := orchestrate(t, startup.Options{}, components...)
	report, err := o.Start(t.Context())
	require.NoError(t, err)
	require.Len(t, report.Chain, n)
	require.NoError(t, o.Stop(t.Context()))
}

func TestStartThatBlocksHoldsNobodyUpWhoseNeedsAreReady(t *testing.T) {
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
			o := orchestrate(t, options, components...)
			_, err := o.Start(t.Context())
			require.NoError(t, err)
			require.NoError(t, o.Stop(t.Context()))
		})
	}
}

func TestStartThatExitsItsGoroutineHoldsNobodyUp(t *testing.T) {
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
	o := orchestrate(t, startup.Options{}, components...)
	report, err := o.Start(t.Context())
	require.NoError(t, err)
	for i, c := range report.Components {
		require.Equal(t, i%2 == 1, c.State == startup.Ready, c.Name)
	}
	require.NoError(t, o.Stop(t.Context()))
}

func TestComponentsAreAsTheyWereWhenTheyWereAdded(t *testing.T) {
	t.Parallel()
	components := []registry.Component{
		{Name: "app", Needs: startup.Capabilities("app", "sql")},
		{Name: "db", Provides: []string{"sql", "app", "sql"}},
		{Name: "late", Provides: []string{"app"}, Needs: startup.Capabilities("sql")},
	}
	o := orchestrate(t, startup.Options{}, components...)
	components[0].Name, components[1].Provides[0], components[2].Needs[0].Capability = "changed", "changed", "changed"
	require.Equal(t, "batch 1: db\nbatch 2: late (after db)\nbatch 3: app (after db, late, db)", o.Plan().String())
	require.NoError(t, o.Stop(t.Context()))
}

func TestProvidersOfACapabilityAreNamedInTheirOrderWhoeverIsCalledLikeIt(t *testing.T) {
	t.Parallel()
	o := orchestrate(t, startup.Options{},
		registry.Component{Name: "first", Provides: []string{"llm"}}, registry.Component{Name: "llm", Provides: []string{"llm"}},
		registry.Component{Name: "last", Provides: []string{"llm"}}, registry.Component{Name: "app", Needs: startup.Capabilities("llm")},
		registry.Component{Name: "named", Needs: []startup.Need{{Component: "llm"}}})
	require.Equal(t, "batch 1: first, llm, last\nbatch 2: app (after first, llm, last), named (after llm)", o.Plan().String())
	require.NoError(t, o.Stop(t.Context()))
}

package lifecycle_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry/internal/fault"
	"github.com/capreg/registry/startup"
)

func TestTurns_AnEarlierBatchComesBeforeALongerPath(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		var j journal
		e := started(t, startup.Options{Batches: true, MaxConcurrent: 1},
			j.component("first", time.Second), j.component("second", time.Second, "first"), j.component("third", time.Second, "second"),
			j.component("alone", time.Second), j.component("also alone", time.Second))
		require.Equal(t, []string{"+first", "+alone", "+also alone", "+second", "+third"}, j.all())
		require.NoError(t, stopped(t, e))
	})
}

func TestTurns_ALongerPathComesFirstWithoutBatches(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		var j journal
		e := started(t, startup.Options{MaxConcurrent: 1},
			j.component("alone", time.Second), j.component("also alone", time.Second),
			j.component("first", time.Second), j.component("second", time.Second, "first"), j.component("third", time.Second, "second"))
		require.Equal(t, []string{"+first", "+second", "+alone", "+also alone", "+third"}, j.all(), "equals are in the order of the plan")
		require.NoError(t, stopped(t, e))
	})
}

// Both are due before a worker has come for the first.
func TestRestart_OfTwoAtOnceDelaysNeither(t *testing.T) {
	t.Parallel()
	for range 20 {
		bubble(t, func(t *testing.T) {
			var j journal
			slowLater := func(name string) component {
				first := true
				c := component{Name: name, NonCritical: true}
				c.Start = func(ctx context.Context, _ *startup.Run) error {
					if first {
						first = false
						return errBroken
					}
					j.note("+%s", name)
					return sleep(ctx, 10*time.Second)
				}
				return c
			}
			e := started(t, startup.Options{}, slowLater("a"), slowLater("b"), component{Name: "c"})
			ended, cancel := context.WithCancel(t.Context())
			cancel()
			for _, name := range []string{"a", "b"} {
				require.ErrorIs(t, e.Restart(ended, name), context.Canceled, "it goes on")
			}
			synctest.Wait()
			require.ElementsMatch(t, []string{"+a", "+b"}, j.all())
			pass(10 * time.Second)
			requireState(t, e, "a", startup.Ready)
			requireState(t, e, "b", startup.Ready)
			require.NoError(t, stopped(t, e))
		})
	}
}

func TestListener_HearsHowLongAStartTookAndNothingOfAWait(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		var j, seen journal
		bad := broken("bad", "bad")
		bad.NonCritical = true
		bad.Start = func(context.Context, *startup.Run) error { time.Sleep(2 * time.Second); return errBroken }
		e := started(t, startup.Options{OnFailure: startup.SkipDependants, Listen: func(e startup.Event) {
			seen.note("%s %v %v", e.Component, e.State, e.Took)
		}}, bad, j.component("user", 0, "bad"))
		require.Equal(t, []string{"bad starting 0s", "bad failed 2s", "user skipped 0s", " ready 2s"}, seen.all())
		require.NoError(t, stopped(t, e))
	})
}

func TestReport_IsInTheOrderOfBatches(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		var j journal
		quick, other := j.component("quick", time.Second), j.component("other", 2*time.Second)
		quick.Provides, other.Provides = []string{"x"}, []string{"x"}
		app := j.component("app", time.Second)
		app.Needs = []startup.Need{{Capability: "x", Any: true}}
		e := started(t, startup.Options{}, j.component("slow", 20*time.Second), app, quick, other)
		var names []string
		for _, c := range e.Report().Components {
			names = append(names, c.Name)
		}
		require.Equal(t, []string{"slow", "quick", "other", "app"}, names, "not in the order in which they became ready")
		require.NoError(t, stopped(t, e))
	})
}

func TestStop_NamesWhatIsStuckInAlphabeticalOrder(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		release := make(chan struct{})
		deaf := func(name string) component {
			return component{Name: name, StopTimeout: time.Second, Stop: func(context.Context) error {
				<-release
				return errors.New("late")
			}}
		}
		e := started(t, startup.Options{}, deaf("c"), deaf("a"), component{Name: "stops"}, deaf("b"))
		err := e.Stop(t.Context())
		require.ErrorIs(t, err, fault.ErrStuck)
		require.ErrorContains(t, err, `component "a", component "b", component "c": still running`)
		close(release)
		synctest.Wait()
	})
}

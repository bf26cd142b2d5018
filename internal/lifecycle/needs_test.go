package lifecycle_test

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry/startup"
)

func failingAfter(d time.Duration, name string, provides ...string) component {
	return component{Name: name, Provides: provides, NonCritical: true, Start: func(context.Context, *startup.Run) error {
		time.Sleep(d)
		return errBroken
	}}
}

func TestNeeds_AreOptionalOrderOnlyOrSatisfiedByAny(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		var j journal
		app := j.component("app", 0)
		app.Needs = []startup.Need{
			{Capability: "llm", Any: true},
			{Capability: "metrics", Optional: true},
			{Capability: "absent", Optional: true},
			{Component: "first", OrderOnly: true},
			{Component: "none", OrderOnly: true},
		}
		quick, slow := j.component("quick", 2*time.Second), j.component("slow", time.Hour)
		quick.Provides, slow.Provides = []string{"llm"}, []string{"llm"}
		slow.StartTimeout = 2 * time.Hour
		all := j.component("all", 0, "llm")
		all.NonCritical = true
		e := build(t, startup.Options{}, app, quick, slow, all, j.component("needy", 0, "metrics"),
			failingAfter(time.Second, "failing", "llm"), failingAfter(time.Second, "metrics", "metrics"), j.component("first", 3*time.Second))
		done := startAside(t, e)
		pass(3 * time.Second)
		requireState(t, e, "app", startup.Ready)
		requireState(t, e, "all", startup.Skipped)
		requireState(t, e, "needy", startup.Skipped)
		require.NoError(t, stopped(t, e))
		require.Error(t, <-done)
		for _, c := range e.Report().Components {
			switch c.Name {
			case "app":
				slices.Sort(c.Absent)
				require.Equal(t, []string{`"absent" (optional)`, `"metrics" (optional) of "metrics", which failed`, `component "none" (order only)`}, c.Absent)
				require.Equal(t, "first", c.BlockedBy)
			case "needy":
				require.Equal(t, `needs "metrics" of "metrics", which failed`, c.Reason)
				require.ErrorIs(t, c.Err, errBroken)
			}
		}
	})
}

func TestNeeds_OfAnyFailWhenAllHaveFailed(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		e := started(t, startup.Options{OnFailure: startup.SkipDependants},
			component{Name: "app", Needs: []startup.Need{{Capability: "x", Any: true}}}, broken("a", "x"), broken("b", "x"))
		requireState(t, e, "app", startup.Skipped)
		require.NoError(t, stopped(t, e))
	})
}

func TestNeeds_FailurePolicyDecidesForDependants(t *testing.T) {
	t.Parallel()
	for policy, want := range map[startup.Policy]startup.State{startup.SkipDependants: startup.Skipped, startup.Continue: startup.Ready} {
		bubble(t, func(t *testing.T) {
			var j journal
			e := started(t, startup.Options{OnFailure: policy}, broken("db", "db"), j.component("app", 0, "db"), j.component("web", 0, "app"), j.component("other", 0))
			requireState(t, e, "app", want)
			requireState(t, e, "web", want)
			requireState(t, e, "other", startup.Ready)
			require.NoError(t, stopped(t, e))
		})
	}
}

func TestNeeds_DeadlockAfterAFailureFails(t *testing.T) {
	t.Parallel()
	for _, policy := range []startup.Policy{startup.Abort, startup.SkipDependants} {
		bubble(t, func(t *testing.T) {
			e := build(t, startup.Options{OnFailure: policy}, failingAfter(0, "c", "x"),
				component{Name: "b", Provides: []string{"x"}, Needs: []startup.Need{{Component: "a"}}},
				component{Name: "a", Needs: []startup.Need{{Capability: "x", Any: true}}})
			report, err := e.Start(t.Context())
			if policy == startup.Abort {
				require.ErrorContains(t, err, "deadlock: waits for components that wait for it, and no other provider of the capability is left")
			} else {
				require.NoError(t, err)
				require.Contains(t, report.String(), "deadlock")
				requireState(t, e, "a", startup.Skipped)
			}
			requireState(t, e, "b", startup.Failed)
			require.NoError(t, stopped(t, e))
		})
	}
}

func TestNeeds_ThatEndBeforeTheTurnOfADependantSkipIt(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		var j journal
		db := j.ending("db", time.Second, startup.Restart{})
		db.NonCritical = true
		e := started(t, startup.Options{}, db, j.component("slow", 10*time.Second), j.component("user", 0, "db", "slow"))
		requireState(t, e, "user", startup.Skipped)
		require.NoError(t, stopped(t, e))
		require.NotContains(t, j.all(), "+user")
	})
}

func TestNeeds_ThatRestartAreWaitedFor(t *testing.T) {
	t.Parallel()
	for _, limit := range []int{0, 1} {
		bubble(t, func(t *testing.T) {
			var j journal
			e := started(t, startup.Options{MaxConcurrent: limit}, j.ending("db", 5*time.Second, startup.Restart{Mode: startup.Always, FirstDelay: time.Hour, MaxDelay: time.Hour}))
			began := time.Now()
			require.NoError(t, e.Add(t.Context(), withDefaults([]component{j.component("slow", 10*time.Second), j.component("user", 0, "db", "slow")})))
			require.Greater(t, time.Since(began), 30*time.Minute, "its turn came while what it needs was down")
			require.NoError(t, stopped(t, e))
		})
	}
}

func TestNeeds_TurnThatIsLostIsTaken(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) { // user waits for its turn, and its need ends meanwhile
		var j journal
		e := started(t, startup.Options{MaxConcurrent: 1}, j.ending("db", 5*time.Second, startup.Restart{Mode: startup.Always, FirstDelay: time.Hour, MaxDelay: time.Hour}))
		added := make(chan error, 2)
		go func() {
			added <- e.Add(t.Context(), withDefaults([]component{j.component("slow", 10*time.Second), j.component("user", 0, "db")}))
		}()
		pass(time.Second)
		go func() { added <- e.Add(t.Context(), withDefaults([]component{j.component("other", 0)})) }()
		pass(20 * time.Second)
		requireState(t, e, "user", startup.Waiting)
		requireState(t, e, "other", startup.Ready)
		require.NoError(t, <-added)
		require.NoError(t, <-added)
		require.NoError(t, stopped(t, e))
	})
}

func TestNeeds_SkipIsAnEventOfEveryDependant(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		var j, seen journal
		e := build(t, startup.Options{OnFailure: startup.SkipDependants, Listen: func(e startup.Event) { seen.note("%s %v", e.Component, e.State) }},
			broken("bad", "bad"), j.component("a", 0, "bad"), j.component("b", 0, "a", "bad"), j.component("c", 0, "b"))
		_, err := e.Start(t.Context())
		require.NoError(t, err)
		pass(0)
		require.Subset(t, seen.all(), []string{"bad failed", "a skipped", "b skipped", "c skipped", " ready"})
		require.Len(t, seen.all(), 6)
		require.NoError(t, stopped(t, e))
	})
}

package registry_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/internal/testkit"
	"github.com/capreg/registry/startup"
)

// A component can be ready, have failed or ended, wait for its next restart, or be skipped since another one failed;
// with users and with dependants that restart with it.
func TestRestart_ByHand(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var j testkit.Journal
		var end error
		fails, ends := true, false
		db := j.Component("db", 0)
		db.NonCritical = true
		db.Start = func(_ context.Context, run *startup.Run) error {
			j.Note("+db")
			if fails {
				return testkit.ErrDown
			}
			if ends {
				run.Go(func(context.Context) error { time.Sleep(time.Second); return end })
			}
			return nil
		}
		db.Restart.Dependants = true
		o := testkit.Orchestrate(t, startup.Options{}, db, j.Component("api", 0, "db"))
		require.ErrorIs(t, o.Restart(t.Context(), "db"), registry.ErrState, "before the start")
		_, err := o.Start(t.Context())
		require.NoError(t, err)
		require.Equal(t, "failed", testkit.StateOf(t, o, "db"))
		require.ErrorIs(t, o.Restart(t.Context(), "unknown"), registry.ErrNotRegistered)
		require.ErrorIs(t, o.Restart(t.Context(), "db"), testkit.ErrDown, "still")
		require.Error(t, o.Restart(t.Context(), "api"), "what it needs has failed")
		fails = false
		require.NoError(t, o.Restart(t.Context(), "db"))
		require.NoError(t, o.Restart(t.Context(), "api"))
		require.Equal(t, "ready", testkit.StateOf(t, o, "api"))

		before := len(j.All())
		require.NoError(t, o.Restart(t.Context(), "db"))
		testkit.Pass(time.Second)
		require.Equal(t, []string{"-api", "-db", "+db", "+api"}, j.All()[before:])

		for _, end = range []error{nil, testkit.ErrDown} {
			ends = true
			require.NoError(t, o.Restart(t.Context(), "db"))
			testkit.Pass(time.Minute)
			require.NotEqual(t, "ready", testkit.StateOf(t, o, "db"))
			ends = false
			require.NoError(t, o.Restart(t.Context(), "db"))
			require.Equal(t, "ready", testkit.StateOf(t, o, "db"))
		}
		require.NoError(t, testkit.StopInTime(t, o))
		require.ErrorIs(t, o.Restart(t.Context(), "db"), registry.ErrState)
	})
}

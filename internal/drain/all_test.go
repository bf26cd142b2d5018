package drain_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry/internal/drain"
	"github.com/capreg/registry/internal/fault"
	"github.com/capreg/registry/internal/tasks"
)

func TestFinishAll_WaitsForCallsUntilTheContextEndsAndThenCancelsThem(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		idle, busy, slow := newProvider(t), newProvider(t), newProvider(t)
		_, end := busy.call(t)
		time.AfterFunc(time.Second, end)
		ctx, endSlow := slow.call(t)
		ending, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		began := time.Now()
		drain.FinishAll(ending, []*drain.Drain{&idle.Drain, &busy.Drain, &slow.Drain})
		require.Equal(t, time.Minute, time.Since(began))
		require.True(t, isClosed(idle.Idle()))
		require.True(t, isClosed(busy.Idle()))
		require.False(t, isClosed(slow.Idle()))
		require.Error(t, ctx.Err(), "it is cancelled")
		endSlow()
		require.True(t, isClosed(slow.Idle()))
	})
}

func TestReleaseAll_ReleasesInOrderAndCollectsFailures(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		first, second := newProvider(t), newProvider(t)
		first.holds, second.holds = true, true
		var order []string
		first.finish = func() error { time.Sleep(time.Second); order = append(order, "first"); return errClosing }
		second.finish = func() error { order = append(order, "second"); return nil }
		all := []*drain.Drain{&first.Drain, &second.Drain}
		drain.FinishAll(t.Context(), all)
		failures := drain.ReleaseAll(all, limitOf(t, time.Hour))
		require.Len(t, failures, 1)
		require.ErrorIs(t, failures[0], errClosing)
		require.Equal(t, []string{"first", "second"}, order)
	})
}

func TestReleaseAll_GivesTheOthersAGracePeriodWhenOneIsStuck(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		stuck, late, quick := newProvider(t), newProvider(t), newProvider(t)
		release := make(chan struct{})
		stuck.holds, late.holds, quick.holds = true, true, true
		stuck.finish = func() error { <-release; return nil }
		late.finish = func() error { time.Sleep(tasks.Grace / 2); return nil }
		all := []*drain.Drain{&stuck.Drain, &late.Drain, &quick.Drain}
		drain.FinishAll(t.Context(), all)
		began := time.Now()
		failures := drain.ReleaseAll(all, limitOf(t, time.Second))
		require.Len(t, failures, 1)
		require.ErrorIs(t, failures[0], fault.ErrStuck)
		require.Equal(t, time.Second+tasks.Grace+tasks.Grace/2, time.Since(began))
		require.True(t, isClosed(late.Released()))
		require.True(t, isClosed(quick.Released()))
		close(release)
		<-stuck.Released()
	})
}

package breaker_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry/internal/breaker"
	"github.com/capreg/registry/internal/schedule"
)

func TestTrialWatch_EndsATrialThatHangsUnlessItIsStopped(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		timers := schedule.New()
		defer timers.Close()
		policy, v := breaker.Policy{FailureThreshold: 1, RecoveryTimeout: time.Second}.Checked()
		require.Nil(t, v)
		var b breaker.Breaker
		b.Init(&fakeHost{}, timers, policy)
		onTrial := func() uint64 {
			generation, _, _ := b.Admit()
			b.Record(generation, breaker.Failure, false)
			time.Sleep(2 * time.Second)
			synctest.Wait()
			generation, trial, ok := b.Admit()
			require.True(t, trial && ok)
			return generation
		}

		stopped := b.WatchTrial(onTrial(), time.Second)
		require.True(t, stopped.Stop())
		require.False(t, stopped.Stop(), "once")
		time.Sleep(2 * time.Second)
		synctest.Wait()
		require.Equal(t, breaker.HalfOpen, b.Stats().State)

		b.Reset()
		hangs := b.WatchTrial(onTrial(), time.Second)
		time.Sleep(1500 * time.Millisecond)
		synctest.Wait()
		require.Equal(t, breaker.Open, b.Stats().State)
		require.False(t, hangs.Stop(), "its outcome was recorded")
	})
	var none *breaker.TrialWatch
	require.True(t, none.Stop())
}

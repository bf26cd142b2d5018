package breaker_test

import (
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry/internal/breaker"
	"github.com/capreg/registry/internal/schedule"
)

func TestUnaffected_IsFalseFromTheBeginningWhereARateCountsSuccesses(t *testing.T) {
	t.Parallel()
	bubble(t, rated, func(t *testing.T, b *rig) {
		require.False(t, b.Unaffected(b.admit(false)))
	})
}

func TestRecoveryTimeout_GrowsByLessThanTwo(t *testing.T) {
	t.Parallel()
	bubble(t, with(func(p *breaker.Policy) { p.RecoveryGrowth, p.MaxRecoveryTimeout = 1.5, time.Hour }), func(t *testing.T, b *rig) {
		b.toHalfOpen()
		b.call(breaker.Failure)
		require.Equal(t, 90*time.Second, b.Stats().RetryIn)
	})
}

func TestRecoveryTimeout_MayBeOneNanosecondAndIsNeverNone(t *testing.T) {
	t.Parallel()
	for _, jitter := range []float64{0, 1} {
		bubble(t, with(func(p *breaker.Policy) { p.RecoveryTimeout, p.RecoveryJitter = 1, jitter }), func(t *testing.T, b *rig) {
			b.trip()
			require.Equal(t, time.Duration(1), b.Stats().RetryIn)
		})
	}
}

// The call waits for the lock on the real clock, since a goroutine that waits for a mutex is not idle to a bubble.
// Were it early or late, it would be admitted too.
func TestAdmit_AdmitsACallThatTookTheBreakerForHalfOpenJustBeforeAReset(t *testing.T) {
	t.Parallel()
	timers := schedule.New()
	defer timers.Close()
	b := &rig{t: t}
	b.Init(&b.host, timers, with(func(p *breaker.Policy) { p.TrialSlots = 2 }))
	b.ForceOpen(time.Nanosecond, "test")
	require.Eventually(t, func() bool { return b.state() == breaker.HalfOpen }, time.Minute, time.Millisecond)
	first := b.admit(true)
	var waiting sync.WaitGroup
	admitted := false
	b.host.locked = func() {
		waiting.Go(b.Reset)
		time.Sleep(5 * time.Millisecond)
		waiting.Go(func() { _, _, admitted = b.Admit() })
		time.Sleep(5 * time.Millisecond)
	}
	b.Record(first, breaker.Neutral, false)
	waiting.Wait()
	require.True(t, admitted)
	require.Equal(t, breaker.Closed, b.state())
}

// Each of these would wait for the lock that the breaker has while it asks its host.
func TestBreaker_TakesNoLockForACleanSuccess(t *testing.T) {
	t.Parallel()
	b := &rig{t: t}
	timers := schedule.New()
	defer timers.Close()
	b.Init(&b.host, timers, with(func(p *breaker.Policy) { p.FailureThreshold = 1 }))
	clean, done := false, make(chan struct{})
	b.host.locked = func() {
		go func() {
			defer close(done)
			generation, _, ok := b.Admit()
			b.Record(generation, breaker.Success, false)
			b.Record(generation, breaker.Neutral, false)
			clean = ok && b.Unaffected(generation)
		}()
		select {
		case <-done:
		case <-time.After(10 * time.Second):
			t.Error("waits for the lock")
		}
	}
	b.call(breaker.Failure)
	<-done
	require.True(t, clean)
	require.Equal(t, breaker.Open, b.state())
}

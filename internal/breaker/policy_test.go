package breaker_test

import (
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry/internal/breaker"
)

// rated opens at a failure rate of one half of ten outcomes or more in ten seconds.
var rated = with(func(p *breaker.Policy) {
	p.FailureThreshold, p.FailureRate, p.Window, p.MinimumCalls = 0, 0.5, 10*time.Second, 10
})

func TestFailureRate_NeedsTheMinimumOfCalls(t *testing.T) {
	t.Parallel()
	bubble(t, rated, func(t *testing.T, b *rig) {
		for range 9 {
			b.call(breaker.Failure)
			b.call(breaker.Neutral) // not counted
		}
		require.Equal(t, breaker.Closed, b.state())
		b.call(breaker.Success)
		require.Equal(t, breaker.Closed, b.state(), "a success in time opens nothing")
		b.call(breaker.Failure)
		require.Equal(t, "10 of 11 outcomes failures within 10s", b.Stats().Reason)
		require.Equal(t, time.Now(), b.Stats().LastFailure)
	})
}

func TestFailureRate_ForgetsWhatLeftTheWindow(t *testing.T) {
	t.Parallel()
	bubble(t, rated, func(t *testing.T, b *rig) {
		for range 2 {
			for range 9 {
				b.call(breaker.Failure)
			}
			pass(11 * time.Second)
		}
		require.Equal(t, breaker.Closed, b.state())
	})
}

func TestFailureRate_BeginsAgainWhenClosed(t *testing.T) {
	t.Parallel()
	bubble(t, with(func(p *breaker.Policy) {
		*p = rated
		p.Window = time.Hour
	}), func(t *testing.T, b *rig) {
		b.toHalfOpen()
		b.call(breaker.Success)
		b.call(breaker.Success)
		require.Equal(t, breaker.Closed, b.state())
		for range 9 {
			b.call(breaker.Failure)
		}
		require.Equal(t, breaker.Closed, b.state())
		b.Reset()
		for range 9 {
			b.call(breaker.Failure)
		}
		require.Equal(t, breaker.Closed, b.state())
	})
}

func TestFailureRate_AskedWithTheThresholdAndRefused(t *testing.T) {
	t.Parallel()
	bubble(t, with(func(p *breaker.Policy) { *p, p.FailureThreshold = rated, 10 }), func(t *testing.T, b *rig) {
		b.host.refuse(true)
		for range 10 {
			b.call(breaker.Failure)
		}
		require.Equal(t, breaker.Closed, b.state())
		require.Equal(t, 2, b.host.timesAsked(), "once for each rule")
		require.Equal(t, 10, b.Stats().ConsecutiveFailures)
	})
}

func TestSlowRate_CountsWhateverTheOutcome(t *testing.T) {
	t.Parallel()
	slow := with(func(p *breaker.Policy) {
		p.FailureThreshold, p.SlowRate, p.SlowAfter, p.Window, p.MinimumCalls = 0, 1, 2*time.Second, time.Minute, 3
	})
	bubble(t, slow, func(t *testing.T, b *rig) {
		require.False(t, b.Slow(2*time.Second-1))
		require.True(t, b.Slow(2*time.Second))
		b.slowCall(breaker.Success, true)
		b.slowCall(breaker.Failure, true)
		b.slowCall(breaker.Neutral, true) // not counted
		require.Equal(t, breaker.Closed, b.state())
		b.slowCall(breaker.Success, true)
		require.Equal(t, "3 of 3 outcomes slow within 1m0s", b.Stats().Reason)
		b.Configure(policy)
		require.False(t, b.Slow(time.Hour))
	})
}

func TestRecoveryTimeout_GrowsUntilClosed(t *testing.T) {
	t.Parallel()
	bubble(t, with(func(p *breaker.Policy) {
		p.RecoveryTimeout, p.RecoveryGrowth, p.MaxRecoveryTimeout, p.SuccessThreshold = 10*time.Second, 2, 60*time.Second, 1
	}), func(t *testing.T, b *rig) {
		b.trip()
		for _, seconds := range []int{10, 20, 40, 60, 60} {
			length := time.Duration(seconds) * time.Second
			require.Equal(t, length, b.Stats().RetryIn)
			pass(length)
			require.Equal(t, breaker.Open, b.state())
			pass(1)
			b.call(breaker.Failure)
		}
		pass(time.Minute + 1)
		b.call(breaker.Success)
		b.trip()
		require.Equal(t, 10*time.Second, b.Stats().RetryIn, "it has closed in between")
		pass(10*time.Second + 1)
		b.call(breaker.Failure)
		b.Reset()
		b.trip()
		require.Equal(t, 10*time.Second, b.Stats().RetryIn, "a reset ends the growth")
	})
}

func TestRecoveryTimeout_GrowthOutlivesForceOpen(t *testing.T) {
	t.Parallel()
	bubble(t, with(func(p *breaker.Policy) { p.RecoveryGrowth, p.MaxRecoveryTimeout = 2, time.Hour }), func(t *testing.T, b *rig) {
		b.toHalfOpen()
		b.call(breaker.Failure)
		b.ForceOpen(time.Second, "test")
		pass(time.Second + 1)
		b.call(breaker.Failure)
		require.Equal(t, 4*time.Minute, b.Stats().RetryIn)
	})
}

func TestRecoveryTimeout_IsRandomWithinItsJitter(t *testing.T) {
	t.Parallel()
	bubble(t, with(func(p *breaker.Policy) {
		p.FailureThreshold, p.RecoveryTimeout, p.RecoveryJitter = 1, 10*time.Second, 0.5
	}), func(t *testing.T, b *rig) {
		shortest, longest := time.Hour, time.Duration(0)
		for range 300 { // half of them after a closed period
			b.call(breaker.Failure)
			length := b.Stats().RetryIn
			shortest, longest = min(shortest, length), max(longest, length)
			pass(length)
			require.Equal(t, breaker.Open, b.state())
			pass(1)
			require.Equal(t, breaker.HalfOpen, b.state())
			if length > 7*time.Second {
				b.Reset()
			}
		}
		require.GreaterOrEqual(t, shortest, 5*time.Second)
		require.Less(t, shortest, 6*time.Second)
		require.LessOrEqual(t, longest, 10*time.Second)
		require.Greater(t, longest, 9*time.Second)
	})
}

func TestRecoveryTimeout_MayBeAsShortOrLongAsATimeIs(t *testing.T) {
	t.Parallel()
	bubble(t, with(func(p *breaker.Policy) { p.RecoveryTimeout = 1 }), func(t *testing.T, b *rig) {
		for range 3 {
			b.toHalfOpen()
			b.call(breaker.Failure)
			require.Equal(t, breaker.Open, b.state())
			b.Reset()
		}
		b.Configure(with(func(p *breaker.Policy) { p.RecoveryTimeout = math.MaxInt64 }))
		b.trip()
		pass(1000 * time.Hour)
		require.Equal(t, breaker.Open, b.state())
		b.ForceOpen(math.MaxInt64, "for good")
		pass(1000 * time.Hour)
		require.Equal(t, breaker.Open, b.state())
		b.Reset()
		b.call(breaker.Success)
	})
}

func TestForceOpen_IsForcedUntilTheNextTransition(t *testing.T) {
	t.Parallel()
	for state, arrange := range arrangements {
		bubble(t, policy, func(t *testing.T, b *rig) {
			arrange(b)
			generation, _, _ := b.Admit()
			b.ForceOpen(time.Hour, "by hand")
			stats := b.Stats()
			require.True(t, stats.Forced)
			require.Equal(t, time.Hour, stats.RetryIn)
			require.Equal(t, uint64(1), stats.ForcedOpen)
			require.Zero(t, stats.TrialsInFlight)
			if state != breaker.Open {
				b.Record(generation, breaker.Failure, false)
				require.Equal(t, time.Hour, b.Stats().RetryIn, state)
			}
			pass(time.Hour)
			require.Equal(t, breaker.Open, b.state())
			pass(1)
			require.Equal(t, breaker.HalfOpen, b.state())
			require.False(t, b.Stats().Forced)
			b.call(breaker.Failure)
			require.Equal(t, time.Minute, b.Stats().RetryIn, "the ordinary time")
		})
	}
}

func TestReset_ForgetsWhateverTheState(t *testing.T) {
	t.Parallel()
	for state, arrange := range arrangements {
		bubble(t, policy, func(t *testing.T, b *rig) {
			b.call(breaker.Failure)
			arrange(b)
			b.Reset()
			stats := b.Stats()
			require.Equal(t, breaker.Closed, stats.State)
			require.Zero(t, stats.ConsecutiveFailures)
			if state == breaker.Closed {
				require.Zero(t, stats.Resets, "it was closed")
			} else {
				require.Equal(t, uint64(1), stats.Resets)
			}
			pass(time.Hour)
			require.Equal(t, breaker.Closed, b.state(), "no timer of before is left")
			b.call(breaker.Failure)
			b.call(breaker.Failure)
			require.Equal(t, breaker.Closed, b.state())
			b.call(breaker.Failure)
			require.Equal(t, breaker.Open, b.state())
		})
	}
}

func TestConfigure_WhileClosedKeepsFailuresInARow(t *testing.T) {
	t.Parallel()
	bubble(t, policy, func(t *testing.T, b *rig) {
		b.call(breaker.Failure)
		b.call(breaker.Failure)
		next := with(func(p *breaker.Policy) { p.FailureThreshold, p.RecoveryTimeout = 4, time.Second })
		require.Equal(t, policy, b.Configure(next))
		require.Equal(t, next, b.Stats().Policy)
		require.Equal(t, 2, b.Stats().ConsecutiveFailures)
		b.call(breaker.Failure)
		require.Equal(t, breaker.Closed, b.state())
		b.call(breaker.Failure)
		require.Equal(t, "4 failures in a row", b.Stats().Reason)
		require.Equal(t, time.Second, b.Stats().RetryIn)
	})
	bubble(t, policy, func(t *testing.T, b *rig) {
		b.call(breaker.Failure)
		b.call(breaker.Failure)
		b.Configure(policy)
		b.call(breaker.Success)
		require.Zero(t, b.Stats().ConsecutiveFailures, "a success ends those of before too")
		b.Configure(with(func(p *breaker.Policy) { p.FailureThreshold = 1 }))
		b.call(breaker.Failure)
		require.Equal(t, "1 failure in a row", b.Stats().Reason)
	})
}

func TestConfigure_WhileClosedKeepsTheWindowOfTheSameLength(t *testing.T) {
	t.Parallel()
	for window, opens := range map[time.Duration]bool{rated.Window: true, rated.Window + 1: false} {
		bubble(t, rated, func(t *testing.T, b *rig) {
			for range 9 {
				b.call(breaker.Failure)
			}
			b.Configure(with(func(p *breaker.Policy) { *p, p.Window = rated, window }))
			b.call(breaker.Failure)
			require.Equal(t, opens, b.state() == breaker.Open)
		})
	}
}

func TestConfigure_LetsARecoveryEndAsItBegan(t *testing.T) {
	t.Parallel()
	next := with(func(p *breaker.Policy) {
		p.RecoveryTimeout, p.SuccessThreshold, p.TrialSlots, p.FailureThreshold = time.Second, 3, 2, 1
	})
	bubble(t, policy, func(t *testing.T, b *rig) {
		b.trip()
		b.Configure(next)
		require.Equal(t, time.Minute, b.Stats().RetryIn)
		pass(time.Minute + 1)
		b.call(breaker.Success)
		b.call(breaker.Success)
		require.Equal(t, breaker.Closed, b.state(), "two successes, as when it opened")
		b.call(breaker.Failure)
		require.Equal(t, time.Second, b.Stats().RetryIn)
		pass(time.Second + 1)
		b.call(breaker.Success)
		b.call(breaker.Success)
		require.Equal(t, breaker.HalfOpen, b.state(), "three successes now")
	})
	bubble(t, policy, func(t *testing.T, b *rig) {
		b.toHalfOpen()
		b.admit(true)
		require.True(t, b.host.isFull())
		b.Configure(next)
		require.False(t, b.host.isFull(), "trial slots follow at once")
		b.admit(true)
		b.Configure(policy)
		require.True(t, b.host.isFull())
		require.True(t, b.refused())
		require.Equal(t, 2, b.Stats().TrialsInFlight)
	})
}

func TestStopRecovery_LeavesAnOpenBreakerOpen(t *testing.T) {
	t.Parallel()
	bubble(t, policy, func(t *testing.T, b *rig) {
		b.trip()
		b.StopRecovery()
		pass(time.Hour)
		require.Equal(t, breaker.Open, b.state())
		require.Zero(t, b.Stats().RetryIn)
		b.ForceOpen(time.Second, "test")
		pass(time.Hour)
		require.Equal(t, breaker.Open, b.state())
	})
}

func TestStats_TotalsOverTransitions(t *testing.T) {
	t.Parallel()
	bubble(t, policy, func(t *testing.T, b *rig) {
		began := time.Now()
		require.Equal(t, breaker.Stats{Since: began, Policy: policy}, b.Stats())
		b.toHalfOpen()
		b.call(breaker.Failure)
		pass(10 * time.Second)
		require.Equal(t, breaker.Stats{
			State: breaker.Open, Since: began.Add(time.Minute + 1), Reason: "a trial failed", RetryIn: 50 * time.Second, Policy: policy,
			Totals: breaker.Totals{Opened: 2, HalfOpened: 1, TimeOpen: 70*time.Second + 1, LastFailure: began.Add(time.Minute + 1)},
		}, b.Stats())
		b.Reset()
		require.Equal(t, breaker.Totals{
			Opened: 2, HalfOpened: 1, Closed: 1, Resets: 1, TimeOpen: 70*time.Second + 1, LastFailure: began.Add(time.Minute + 1),
		}, b.Stats().Totals)
	})
}

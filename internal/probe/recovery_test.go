package probe_test

import (
	"context"
	"errors"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry/event"
	"github.com/capreg/registry/health"
	"github.com/capreg/registry/internal/probe"
)

// runs notes when a hook ran.
type runs struct {
	mu sync.Mutex
	at []time.Time
}

func (r *runs) note() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.at = append(r.at, time.Now())
}

func (r *runs) times() []time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.at)
}

// recovering returns a provider that is unhealthy at its first probe, and the times at which its hook ran.
func (h *host) recovering(p *target, hook func(context.Context) error, change func(*health.Policy)) (*subject, *runs) {
	ran := &runs{}
	recovery := policy()
	recovery.Fall, recovery.Rise = 1, 1
	recovery.Interval, recovery.FastInterval, recovery.IdleInterval = time.Hour, time.Hour, time.Hour
	recovery.Recover = func(ctx context.Context) error {
		ran.note()
		return hook(ctx)
	}
	if change != nil {
		change(&recovery)
	}
	p.set(errDown, 0)
	a := h.watched("a", recovery, p.probe)
	return a, ran
}

// dependent returns a provider that is a dependency of others and is down, with the runs of its recovery, which ends with
// that error.
func (h *host) dependent(p *target, delay time.Duration, ends error) (*subject, *runs) {
	a, ran := h.provider(probe.Identity{Name: "a"}), &runs{}
	h.locked(func() { a.dependent = true })
	recovery := askedOnly()
	recovery.Fall, recovery.FastInterval = 1, delay
	recovery.Recover = func(context.Context) error { ran.note(); return ends }
	p.set(errDown, 0)
	a.configure(recovery, p.probe)
	return a, ran
}

func TestRecovery_ThatSucceedsIsFollowedByAProbe(t *testing.T) {
	t.Parallel()
	inBubble(t, 1, func(t *testing.T, h *host) {
		var p target
		a, runs := h.recovering(&p, func(context.Context) error { p.set(nil, 0); return nil }, nil)
		require.Equal(t, healthy, a.status().State)
		require.Len(t, runs.times(), 1)
		require.Contains(t, a.kinds(), event.Recovered)
		pass(10 * time.Minute)
		require.Len(t, runs.times(), 1)
	})
}

func TestRecovery_ThatFailsIsRunAgainWithDelaysAndALimit(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		hook   func(context.Context) error
		reason string
	}{
		"error":        {func(context.Context) error { return errors.New("cannot\nhelp") }, "cannot help"},
		"panic":        {func(context.Context) error { panic("boom") }, "boom"},
		"exit":         {func(context.Context) error { runtime.Goexit(); return nil }, "exit"},
		"error panics": {func(context.Context) error { return badError{func() { panic("boom") }} }, "whose Error method failed"},
		"error exits":  {func(context.Context) error { return badError{runtime.Goexit} }, "exit"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			inBubble(t, 1, func(t *testing.T, h *host) {
				var p target
				a, runs := h.recovering(&p, row.hook, nil)
				pass(10 * time.Minute)
				require.Len(t, runs.times(), 5)
				for i := 1; i < 5; i++ {
					grown := float64(int(1) << (i - 1))
					require.InDelta(t, grown, runs.times()[i].Sub(runs.times()[i-1]).Seconds(), 0.5*grown+0.1)
				}
				var last event.Event
				h.locked(func() {
					last = a.changes[len(a.changes)-1]
					require.NotContains(t, a.changes[len(a.changes)-2].Reason, "tries")
					a.watch.Recover()
				})
				synctest.Wait()
				require.Len(t, runs.times(), 5, "the limit holds whatever asks for it")
				require.Equal(t, event.RecoveryFailed, last.Kind)
				require.Contains(t, last.Reason, row.reason)
				require.Contains(t, last.Reason, "(the last of 5 tries)")
				require.Error(t, last.Err)

				p.set(nil, 0)
				a.check()
				p.set(errDown, 0)
				a.check()
				synctest.Wait()
				require.Len(t, runs.times(), 6, "the count begins again")
				pass(1600 * time.Millisecond)
				require.Len(t, runs.times(), 7, "and so do the delays")
				p.set(nil, 0)
				a.check()
				pass(time.Minute)
				require.Len(t, runs.times(), 7, "it is healthy before the delay is over")
			})
		})
	}
}

func TestRecovery_WaitsWhileADependencyIsTheCause(t *testing.T) {
	t.Parallel()
	inBubble(t, 1, func(t *testing.T, h *host) {
		var p target
		a := h.provider(probe.Identity{Name: "a"})
		h.locked(func() { a.dependent = true })
		var runs atomic.Int32
		dependent := policy()
		dependent.Fall = 1
		dependent.Recover = func(context.Context) error { runs.Add(1); return nil }
		p.set(errDown, 0)
		a.configure(dependent, p.probe)
		pass(time.Minute)
		require.Zero(t, runs.Load())
		h.locked(func() { a.dependent = false })
		pass(10 * time.Second)
		require.EqualValues(t, 1, runs.Load())
	})
}

func TestRecovery_RunsOneAtATimeWhateverThePolicy(t *testing.T) {
	t.Parallel()
	inBubble(t, 1, func(t *testing.T, h *host) {
		var p target
		var inside, most atomic.Int32
		a, runs := h.recovering(&p, func(ctx context.Context) error {
			most.Store(max(most.Load(), inside.Add(1)))
			defer inside.Add(-1)
			<-ctx.Done()
			time.Sleep(time.Minute)
			return ctx.Err()
		}, nil)
		require.Len(t, runs.times(), 1)
		next := policy()
		next.Recover = func(ctx context.Context) error {
			runs.note()
			require.Zero(t, inside.Load())
			return nil
		}
		a.configure(next, p.probe)
		h.locked(a.watch.Recover)
		h.locked(a.watch.ResetRecovery)
		pass(59 * time.Second)
		require.Len(t, runs.times(), 1)
		pass(2 * time.Second)
		require.Len(t, runs.times(), 2, "by the present policy, once the older hook has returned")
		require.EqualValues(t, 1, most.Load())
		require.NotContains(t, a.kinds(), event.RecoveryFailed, "the older one is not told of")
		a.stop()
		pass(time.Hour)
		require.Len(t, runs.times(), 2)
	})
}

func TestRecovery_WaitsWhileTheProviderAnswersAgain(t *testing.T) {
	t.Parallel()
	inBubble(t, 1, func(t *testing.T, h *host) {
		var p target
		a, runs := h.recovering(&p, func(context.Context) error { return errDown }, func(p *health.Policy) {
			p.Rise, p.FastInterval, p.RecoverLimit = 100, 10*time.Minute, 100
		})
		require.Len(t, runs.times(), 1)
		p.set(nil, 0)
		a.check()
		pass(5 * time.Minute)
		require.Len(t, runs.times(), 1, "it is on its way back")
		p.set(errDown, 0)
		a.check()
		pass(6 * time.Minute)
		require.Greater(t, len(runs.times()), 1)
	})
}

func TestRecovery_CountsFromTheBeginningWhereNothingWasWatchedMeanwhile(t *testing.T) {
	t.Parallel()
	inBubble(t, 1, func(t *testing.T, h *host) {
		var p target
		var recovery health.Policy
		a, runs := h.recovering(&p, func(context.Context) error { return errDown }, func(p *health.Policy) { p.RecoverLimit = 1; recovery = *p })
		require.Len(t, runs.times(), 1)
		a.configure(policy(), nil)
		a.configure(recovery, p.probe)
		h.locked(a.watch.Recover)
		synctest.Wait()
		require.Len(t, runs.times(), 2)
	})
}

func TestRecovery_AskedForWhileItIsPostponedBeginsTheDelayAnew(t *testing.T) {
	t.Parallel()
	inBubble(t, 1, func(t *testing.T, h *host) {
		var p target
		a, runs := h.dependent(&p, 10*time.Second, nil)
		pass(5 * time.Second)
		h.locked(func() {
			a.watch.Recover()
			a.dependent = false
		})
		pass(9 * time.Second)
		require.Empty(t, runs.times())
		pass(2 * time.Second)
		require.Len(t, runs.times(), 1)
	})
}

func TestRecovery_GoesOnCountingUnderAnotherPolicy(t *testing.T) {
	t.Parallel()
	inBubble(t, 1, func(t *testing.T, h *host) {
		var p target
		var recovery health.Policy
		a, runs := h.recovering(&p, func(context.Context) error { return errDown }, func(p *health.Policy) { p.RecoverLimit = 3; recovery = *p })
		pass(1500 * time.Millisecond)
		require.GreaterOrEqual(t, len(runs.times()), 1)
		recovery.Recover = func(context.Context) error { runs.note(); return errDown }
		a.configure(recovery, p.probe)
		h.locked(a.watch.Recover)
		pass(time.Hour)
		require.Len(t, runs.times(), 3)
	})
}

func TestRecovery_DelayEndsWithItsPolicy(t *testing.T) {
	t.Parallel()
	inBubble(t, 1, func(t *testing.T, h *host) {
		var p target
		var next health.Policy
		a, runs := h.recovering(&p, func(context.Context) error { return errDown }, func(p *health.Policy) { next = *p })
		require.Len(t, runs.times(), 1)
		a.configure(next, p.probe)
		pass(30 * time.Minute)
		require.Len(t, runs.times(), 1, "the owner asks for it under the next policy")
		h.locked(a.watch.Recover)
		synctest.Wait()
		require.Len(t, runs.times(), 2)
	})
}

func TestRecovery_ThatSucceedsForAProviderWithoutAProbeOfItsOwn(t *testing.T) {
	t.Parallel()
	inBubble(t, 1, func(t *testing.T, h *host) {
		var ran atomic.Int32
		marked := policy()
		marked.Recover = func(context.Context) error { ran.Add(1); return nil }
		a := h.watched("a", marked, nil)
		h.locked(func() { a.publish(unhealthy) }) // as a mark does
		synctest.Wait()
		require.EqualValues(t, 1, ran.Load())
		require.Equal(t, []event.Kind{event.Recovered}, a.kinds(), "there is nothing to probe")
	})
}

func TestRecovery_EndsWithTheProvider(t *testing.T) {
	t.Parallel()
	inBubble(t, 1, func(t *testing.T, h *host) {
		var p target
		a, runs := h.recovering(&p, func(context.Context) error { return errDown }, nil)
		a.stop()
		h.locked(a.watch.Recover)
		pass(time.Hour)
		require.Len(t, runs.times(), 1)
	})
}

func TestRecovery_AskedForDuringADelayReplacesTheDelay(t *testing.T) {
	t.Parallel()
	inBubble(t, 1, func(t *testing.T, h *host) {
		var p target
		a, runs := h.dependent(&p, 2*time.Second, errDown)
		pass(1900 * time.Millisecond)
		require.Empty(t, runs.times())
		h.locked(func() {
			a.dependent = false
			a.watch.Recover()
		})
		pass(400 * time.Millisecond) // the delay that was replaced is over, the one after the failure lasts for longer
		require.Len(t, runs.times(), 1)
		pass(2 * time.Second)
		require.GreaterOrEqual(t, len(runs.times()), 2)
	})
}

func TestRecovery_SetsNoTimerAfterItsLastRun(t *testing.T) {
	t.Parallel()
	inBubble(t, 1, func(t *testing.T, h *host) {
		var p target
		fail := make(chan struct{})
		a, runs := h.recovering(&p, func(context.Context) error { <-fail; return errDown }, func(p *health.Policy) {
			p.Interval, p.RecoverLimit = 2*time.Hour, 1
		})
		require.Len(t, runs.times(), 1)
		before := h.timers.Load()
		close(fail)
		synctest.Wait()
		require.Contains(t, a.kinds(), event.RecoveryFailed)
		require.Equal(t, before, h.timers.Load())
	})
}

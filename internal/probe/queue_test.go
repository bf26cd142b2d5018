package probe_test

import (
	"context"
	"fmt"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry/event"
	"github.com/capreg/registry/health"
	"github.com/capreg/registry/internal/probe"
)

func TestQueue_RunsNoMoreProbesThanItsLimit(t *testing.T) {
	t.Parallel()
	inBubble(t, 3, func(t *testing.T, h *host) {
		p := target{takes: time.Second}
		for i := range 60 {
			h.watched(strconv.Itoa(i), policy(), p.probe)
		}
		h.locked(func() { require.Equal(t, 3, h.started, "probes that wait for their turn have no goroutine") })
		pass(20*time.Second + time.Millisecond)
		require.Equal(t, 3, p.mostInside())
		require.GreaterOrEqual(t, len(p.times()), 60)
	})
}

func TestQueue_ProbesFromTheEndOfTheLastWithinATenth(t *testing.T) {
	t.Parallel()
	inBubble(t, 1, func(t *testing.T, h *host) {
		p := target{takes: time.Second}
		h.watched("a", policy(), p.probe)
		pass(10 * time.Minute)
		times := p.times()
		require.InDelta(t, 600/31, len(times), 3)
		for i := 2; i < len(times); i++ {
			require.InDelta(t, 31, times[i].Sub(times[i-1]).Seconds(), 3.2)
		}
	})
}

func TestQueue_OffsetsProbesThatBeginTogether(t *testing.T) {
	t.Parallel()
	inBubble(t, 1000, func(t *testing.T, h *host) {
		began := time.Now()
		targets := make([]target, 300)
		for i := range targets {
			h.watched(strconv.Itoa(i), policy(), targets[i].probe)
		}
		pass(5 * time.Minute)
		inSecond := make(map[int]int)
		for i := range targets {
			for _, at := range targets[i].times()[1:] {
				inSecond[int(at.Sub(began)/time.Second)]++
			}
		}
		for second, n := range inSecond {
			require.Less(t, n, 35, "in second %d; ten is even, 300 is together", second)
		}
	})
}

func TestQueue_ProbesSlowerWhileThereIsNoCall(t *testing.T) {
	t.Parallel()
	inBubble(t, 1, func(t *testing.T, h *host) {
		var p target
		idle := policy()
		idle.IdleInterval = 2 * time.Minute
		a := h.watched("a", idle, p.probe)
		pass(time.Hour)
		require.InDelta(t, 30, len(p.times()), 4)
		before := len(p.times())
		for i := range 3600 {
			a.count(probe.Totals{Attempts: uint64(i + 1)})
			pass(time.Second)
		}
		require.InDelta(t, 120, len(p.times())-before, 15)
	})
}

func TestQueue_TakesErrorsPanicsAndExitsAsFailures(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		probe  health.Probe
		reason string
	}{
		"error":        {func(context.Context) error { return errDown }, "down"},
		"two lines":    {func(context.Context) error { return errPlain }, "line one line two: x"},
		"panic":        {func(context.Context) error { panic("boom") }, "boom"},
		"exit":         {func(context.Context) error { runtime.Goexit(); return nil }, "exit"},
		"error panics": {func(context.Context) error { return badError{func() { panic("boom") }} }, "whose Error method failed"},
		"error exits":  {func(context.Context) error { return badError{runtime.Goexit} }, "exit"},
		"late":         {func(ctx context.Context) error { <-ctx.Done(); return context.Cause(ctx) }, "probe timeout after 5s"},
		"late answer":  {func(ctx context.Context) error { <-ctx.Done(); return nil }, "probe timeout after 5s"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			inBubble(t, 1, func(t *testing.T, h *host) {
				slow := policy()
				slow.FastInterval = 10 * time.Second
				a := h.watched("a", slow, row.probe)
				var other target
				b := h.watched("b", policy(), other.probe)
				pass(5 * time.Second)
				require.Equal(t, starting, a.status().State)
				require.Equal(t, 1, a.status().Failures)
				require.Contains(t, a.status().Reason, row.reason)
				require.Equal(t, healthy, b.status().State, "its place is free again")
				pass(time.Minute)
				require.Equal(t, unhealthy, a.status().State)
			})
		})
	}
}

func TestQueue_TakesDegradedAnswersAndUsage(t *testing.T) {
	t.Parallel()
	inBubble(t, 1, func(t *testing.T, h *host) {
		var late context.Context
		a := h.watched("a", policy(), func(ctx context.Context) error {
			health.Use(ctx, "a\nb", 0.1)
			health.Use(ctx, strings.Repeat("x", 1000), 0.1)
			for i := range 100 {
				health.Use(ctx, "r"+strconv.Itoa(i), 0.1)
			}
			health.Use(ctx, "r0", 0.2)
			late = ctx //nolint:fatcontext // used after the probe on purpose
			return fmt.Errorf("around: %w", health.Limp(errDown))
		})
		status := a.status()
		require.Equal(t, degraded, status.State)
		require.ErrorIs(t, status.Err, errDown)
		require.Equal(t, "around: down", status.Reason)
		require.Zero(t, status.Failures)
		require.Len(t, status.Usage, 32, "no more are kept")
		require.Contains(t, status.Usage, "a b")
		require.Contains(t, status.Usage, strings.Repeat("x", 253)+"…")
		require.InDelta(t, 0.2, status.Usage["r0"], 0)
		health.Use(late, "r0", 0.9)
		require.InDelta(t, 0.2, a.status().Usage["r0"], 0)
		require.Equal(t, time.Now(), status.CheckedAt)
		require.Greater(t, status.NextCheck, time.Now())
		var next time.Duration
		h.locked(func() { next = a.watch.NextProbeIn() })
		require.Equal(t, time.Until(status.NextCheck), next)
	})
}

func TestQueue_StuckProbeFreesItsPlaceAndFailsWheneverOneIsDue(t *testing.T) {
	t.Parallel()
	inBubble(t, 1, func(t *testing.T, h *host) {
		release := make(chan struct{})
		p := target{deaf: release}
		began := time.Now()
		a := h.watched("a", policy(), p.probe)
		var other target
		b := h.watched("b", policy(), other.probe)
		pass(5*time.Second + probe.StuckGrace - time.Millisecond)
		require.True(t, a.status().StuckSince.IsZero())
		require.Empty(t, other.times())
		pass(time.Millisecond)
		require.Equal(t, began, a.status().StuckSince)
		require.Equal(t, 1, a.status().Failures)
		require.Equal(t, "probe does not return (1 of 3 failures)", a.status().Reason)
		require.Equal(t, []event.Kind{event.ProbeStuck}, a.kinds())
		require.Equal(t, healthy, b.status().State)
		asked := time.Now()
		a.check()
		require.Equal(t, asked, time.Now(), "it does not wait for that")

		pass(20 * time.Second)
		require.Equal(t, unhealthy, a.status().State)
		require.Len(t, p.times(), 1)
		require.NotZero(t, a.status().NextCheck)

		p.ignoreContext(nil)
		close(release)
		synctest.Wait()
		require.True(t, a.status().StuckSince.IsZero())
		require.Equal(t, unhealthy, a.status().State)
		require.Positive(t, a.status().Failures, "its failure was counted already")
		pass(15 * time.Second)
		require.Equal(t, healthy, a.status().State)
		require.Equal(t, 1, p.mostInside())
		require.NotEmpty(t, a.kinds())
	})
}

func TestQueue_RunsWhatIsAskedForBeforeWhatIsDue(t *testing.T) {
	t.Parallel()
	inBubble(t, 1, func(t *testing.T, h *host) {
		often := policy()
		often.Interval, often.FastInterval, often.IdleInterval = time.Second, time.Second, time.Second
		slow := target{takes: 4 * time.Second}
		for i := range 6 {
			h.watched(strconv.Itoa(i), often, slow.probe)
		}
		z := h.watched("z", often, slow.probe)
		pass(2 * time.Minute)
		for range 5 {
			began := time.Now()
			z.check()
			require.LessOrEqual(t, time.Since(began), 9*time.Second, "one in progress and its own")
			pass(3 * time.Second)
		}
		require.Equal(t, 1, slow.mostInside())
	})
}

func TestQueue_ChecksJoinTheProbeThatRuns(t *testing.T) {
	t.Parallel()
	inBubble(t, 4, func(t *testing.T, h *host) {
		p := target{takes: time.Second}
		a := h.watched("a", policy(), p.probe)
		for range 5 {
			go a.check()
		}
		pass(time.Second)
		require.Len(t, p.times(), 1)
		a.check()
		require.Len(t, p.times(), 2)
	})
}

func TestQueue_CallsTakeThePlaceOfFiveProbesAtMost(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		trust    bool
		failures uint64 // by second
		state    error
		want     int
	}{
		"trusted":       {trust: true, want: 9000 / (6 * 30)},
		"not trusted":   {want: 9000 / 30},
		"calls fail":    {trust: true, failures: 1, want: 9000 / 30},
		"probes fail":   {trust: true, state: errDown, want: 9000 / 5},
		"none succeeds": {trust: true, want: 9000 / 30},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			inBubble(t, 1, func(t *testing.T, h *host) {
				p := target{err: row.state}
				trusting := policy()
				trusting.TrustCalls = row.trust
				a := h.watched("a", trusting, p.probe)
				for i := range uint64(1800) {
					totals := probe.Totals{Attempts: i, Successes: i, Failures: i * row.failures}
					if name == "none succeeds" {
						totals.Successes = 0
					}
					a.count(totals)
					pass(5 * time.Second)
				}
				require.InDelta(t, row.want, len(p.times()), float64(row.want)/25+2)
			})
		})
	}
}

func TestQueue_CapabilitiesAreProbedByThemselves(t *testing.T) {
	t.Parallel()
	inBubble(t, 4, func(t *testing.T, h *host) {
		var whole, vision target
		p := policy()
		p.Capabilities = map[string]health.Probe{"vision": vision.probe}
		a := h.watched("a", p, whole.probe)
		vision.set(errDown, 0)
		for range 3 {
			a.check()
		}
		require.Equal(t, degraded, a.status().State)
		require.Equal(t, map[string]string{"vision": "down"}, a.status().Out)
		h.locked(func() { require.NotNil(t, a.watch.Outage([]string{"vision"})) })
		vision.set(nil, 0)
		a.check()
		a.check()
		require.Empty(t, a.status().Out)
		require.Equal(t, []event.Kind{event.CapabilityOut, event.CapabilityBack}, a.kinds())
	})
}

func TestQueue_StartsNothingOnceTheHostIsClosing(t *testing.T) {
	t.Parallel()
	inBubble(t, 1, func(t *testing.T, h *host) {
		h.locked(func() { h.closing = true })
		var p target
		a := h.watched("a", policy(), p.probe)
		a.check() // returns, as there will be no result
		require.Equal(t, unknown, a.status().State)
		require.Empty(t, p.times())
	})
}

func TestQueue_ProbesWakeTheProcessAtFewMoments(t *testing.T) {
	t.Parallel()
	for interval, tick := range map[time.Duration]time.Duration{
		30 * time.Second: 128 * time.Millisecond, 128 * time.Second: 512 * time.Millisecond, 128 * time.Millisecond: time.Millisecond,
	} {
		inBubble(t, 1, func(t *testing.T, h *host) {
			var p target
			often := policy()
			often.Interval, often.FastInterval, often.IdleInterval = interval, interval, interval
			h.watched("a", often, p.probe)
			pass(100 * interval)
			times := p.times()
			for i := 2; i < len(times); i++ {
				require.Zero(t, times[i].Sub(h.epoch)%tick, "every %v", interval)
				require.InDelta(t, interval.Seconds(), times[i].Sub(times[i-1]).Seconds(), interval.Seconds()/10+tick.Seconds())
			}
			require.InDelta(t, 100, len(times), 5)
		})
	}
}

func TestQueue_SaysWhenTheNextProbeIs(t *testing.T) {
	t.Parallel()
	inBubble(t, 2, func(t *testing.T, h *host) {
		p := target{takes: time.Second}
		var vision target
		often := policy()
		often.Capabilities = map[string]health.Probe{"vision": vision.probe}
		a := h.watched("a", often, p.probe)
		next := func() (in time.Duration) {
			h.locked(func() { in = a.watch.NextProbeIn() })
			return in
		}
		for range 20 {
			pass(10 * time.Minute)
			probes, checks := len(p.times()), len(vision.times())
			if next() == 0 { // it runs
				continue
			}
			require.LessOrEqual(t, next(), 34*time.Second)
			first := a.status().NextCheck
			require.LessOrEqual(t, time.Until(first), next(), "the first of both")
			pass(time.Until(first) - 1)
			require.Equal(t, probes+checks, len(p.times())+len(vision.times()))
			pass(1)
			require.Greater(t, len(p.times())+len(vision.times()), probes+checks, "both may share a moment")
		}
		pass(5 * time.Second)
		go a.check()
		synctest.Wait()
		require.Zero(t, next(), "it runs already")
		require.NotZero(t, a.status().NextCheck, "of the capability")
		var planned int
		h.locked(func() { planned = a.planned })
		pass(time.Second)
		require.NotZero(t, next())
		h.locked(func() { require.Equal(t, planned+1, a.planned) })
	})
}

func TestQueue_AsksWhatIsNotStuck(t *testing.T) {
	t.Parallel()
	inBubble(t, 2, func(t *testing.T, h *host) {
		release := make(chan struct{})
		p := target{deaf: release}
		var vision target
		often := policy()
		often.Capabilities = map[string]health.Probe{"vision": vision.probe}
		a := h.watched("a", often, p.probe)
		pass(10 * time.Second)
		require.NotZero(t, a.status().StuckSince)
		before := len(vision.times())
		a.check()
		require.Len(t, vision.times(), before+1)
		close(release)
		synctest.Wait()
	})
}

func TestQueue_TakesFailuresThatAreOut(t *testing.T) {
	t.Parallel()
	inBubble(t, 2, func(t *testing.T, h *host) {
		var vision target
		starting := policy()
		starting.StartTime = time.Hour
		starting.Capabilities = map[string]health.Probe{"vision": vision.probe}
		a := h.watched("a", starting, func(context.Context) error { return fmt.Errorf("around: %w", health.Out(errDown)) })
		require.Equal(t, unhealthy, a.status().State)
		vision.set(health.Out(errDown), 0)
		a.check()
		require.Contains(t, a.status().Out, "vision")
	})
}

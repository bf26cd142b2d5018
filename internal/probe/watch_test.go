package probe_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"runtime"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry/event"
	"github.com/capreg/registry/health"
	"github.com/capreg/registry/internal/probe"
)

func TestWatch_ThatIsNilOrIdleWatchesNothing(t *testing.T) {
	t.Parallel()
	inBubble(t, 1, func(t *testing.T, h *host) {
		idle := h.watched("a", policy(), nil)
		off := policy()
		off.Off = true
		var p target
		turnedOff := h.watched("b", off, p.probe)
		for _, w := range []*probe.Watch{nil, idle.watch, turnedOff.watch} {
			h.locked(func() {
				state, reason, cause := w.State()
				require.Equal(t, healthy, state)
				require.Empty(t, reason)
				require.NoError(t, cause)
				require.InDelta(t, 1, w.Score(), 0)
				require.Equal(t, health.Steady, w.Trend())
				require.Equal(t, health.Status{State: healthy, Score: 1}, w.Status())
				require.False(t, w.Active())
				require.Nil(t, w.Outage([]string{"x"}))
				require.Empty(t, w.CheckNow())
				require.Zero(t, w.FirstResultWithin())
				require.Zero(t, w.NextProbeIn())
				w.MarkHealthy()
				w.Recover()
				w.ResetRecovery()
				require.Nil(t, w.Stop(), "there are no probes to end")
			})
		}
		require.Empty(t, p.times())
		require.Zero(t, (*probe.Watch)(nil).Revision())
	})
}

func TestNeeded_ReportsWhetherPolicyWatches(t *testing.T) {
	t.Parallel()
	var p target
	hook := func(context.Context) error { return nil }
	capabilities := map[string]health.Probe{"x": p.probe}
	require.False(t, probe.Needed(health.Policy{}, nil))
	require.True(t, probe.Needed(health.Policy{}, p.probe))
	require.True(t, probe.Needed(health.Policy{Capabilities: capabilities}, nil))
	require.False(t, probe.Needed(health.Policy{Capabilities: capabilities, Off: true}, p.probe))
	require.True(t, probe.Needed(health.Policy{Recover: hook, Off: true}, nil))
}

func TestWatch_SaysHowLongTheFirstResultMayTake(t *testing.T) {
	t.Parallel()
	inBubble(t, 1, func(t *testing.T, h *host) {
		p := target{takes: time.Second}
		a := h.watched("a", policy(), p.probe)
		h.locked(func() {
			require.Equal(t, 5*time.Second+probe.StuckGrace, a.watch.FirstResultWithin())
			require.Zero(t, a.watch.NextProbeIn(), "it runs")
		})
		pass(time.Second)
		h.locked(func() { require.Zero(t, a.watch.FirstResultWithin()) })
	})
}

func TestWatch_AddsAProbeOfTheProvider(t *testing.T) {
	t.Parallel()
	inBubble(t, 1, func(t *testing.T, h *host) {
		var own, vision, another target
		p := policy()
		p.Capabilities = map[string]health.Probe{"vision": vision.probe}
		a := h.watched("a", p, nil)
		require.Equal(t, healthy, a.status().State)
		own.set(errDown, 0)
		h.locked(func() {
			a.watch.AddProbe(own.probe)
			a.watch.AddProbe(another.probe) // there is one already
		})
		pass(30 * time.Second)
		require.Equal(t, unhealthy, a.status().State)
		require.Empty(t, another.times())
		b := h.watched("b", policy(), nil)
		h.locked(func() { b.watch.AddProbe(another.probe) })
		pass(time.Minute)
		require.Empty(t, another.times(), "nothing is watched")
	})
}

func TestWatch_WithAHookAloneIsProbedOnceAProbeIsAdded(t *testing.T) {
	t.Parallel()
	inBubble(t, 1, func(t *testing.T, h *host) {
		var own target
		p := policy()
		p.Recover = func(context.Context) error { return nil }
		a := h.watched("a", p, nil)
		require.False(t, a.status().Probed)
		h.locked(func() { a.watch.AddProbe(own.probe) })
		synctest.Wait()
		require.True(t, a.status().Probed)
		require.Len(t, own.times(), 1)
	})
}

func TestWatch_DropsTheResultOfAnOlderPolicy(t *testing.T) {
	t.Parallel()
	inBubble(t, 4, func(t *testing.T, h *host) {
		first, second := target{takes: time.Hour}, target{}
		a := h.watched("a", policy(), first.probe)
		var revision uint64
		h.locked(func() { revision = a.watch.Revision() })
		a.configure(policy(), second.probe)
		synctest.Wait()
		require.Equal(t, []error{errGone}, first.causes())
		require.Len(t, second.times(), 1, "at once")
		require.Equal(t, healthy, a.status().State)
		h.locked(func() { require.NotEqual(t, revision, a.watch.Revision()) })
		pass(time.Minute)
		require.Len(t, first.times(), 1)
		require.Equal(t, []health.State{healthy}, a.history())
	})
}

func TestWatch_KeepsItsStateUnderAnotherPolicy(t *testing.T) {
	t.Parallel()
	inBubble(t, 4, func(t *testing.T, h *host) {
		p := target{err: errDown}
		a := h.watched("a", policy(), p.probe)
		pass(30 * time.Second)
		p.set(errDown, time.Second)
		a.configure(policy(), p.probe)
		require.Equal(t, unhealthy, a.status().State)
		require.ErrorIs(t, a.status().Err, errDown)
		h.locked(func() {
			require.Zero(t, a.watch.Score())
			require.Equal(t, health.AtRisk, a.watch.Trend())
			a.watch.MarkHealthy()
			require.InDelta(t, 1, a.watch.Score(), 0)
		})
		require.Equal(t, healthy, a.status().State)
	})
}

func TestWatch_RunsOneProbeWhateverThePolicy(t *testing.T) {
	t.Parallel()
	for name, early := range map[string]bool{"replaced while it runs": true, "replaced while it is stuck": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			inBubble(t, 4, func(t *testing.T, h *host) {
				release := make(chan struct{})
				p := target{deaf: release}
				began := time.Now()
				a := h.watched("a", policy(), p.probe)
				if !early {
					pass(10 * time.Second)
					require.Equal(t, began, a.status().StuckSince)
				}
				for range 3 {
					a.configure(policy(), p.probe)
					synctest.Wait()
				}
				require.Len(t, p.times(), 1)
				pass(time.Minute)
				require.Equal(t, began, a.status().StuckSince, "the older probe keeps it from running")
				require.Equal(t, unhealthy, a.status().State, "which counts as failures")
				require.Len(t, p.times(), 1)

				p.ignoreContext(nil)
				close(release)
				synctest.Wait()
				require.Len(t, p.times(), 2, "at once")
				require.True(t, a.status().StuckSince.IsZero())
				pass(15 * time.Second)
				require.Equal(t, healthy, a.status().State)
				require.Equal(t, 1, p.mostInside())
			})
		})
	}
}

func TestWatch_RunsOneProbeOfEachKindWhateverThePolicy(t *testing.T) {
	t.Parallel()
	inBubble(t, 8, func(t *testing.T, h *host) {
		release := make(chan struct{})
		own, vision, speech := target{deaf: release}, target{deaf: release}, target{deaf: release}
		p := policy()
		p.Capabilities = map[string]health.Probe{"vision": vision.probe, "speech": speech.probe}
		a := h.watched("a", p, own.probe)
		a.configure(p, own.probe)
		pass(time.Minute)
		close(release)
		pass(time.Minute)
		for _, of := range []*target{&own, &vision, &speech} {
			require.Equal(t, 1, of.mostInside())
			require.GreaterOrEqual(t, len(of.times()), 2)
		}
	})
}

func TestWatch_WhatWaitsForAResultDoesNotWaitForAProbeThatIsOver(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(*subject){
		"stopped":         func(s *subject) { s.stop() },
		"another policy":  func(s *subject) { s.configure(policy(), func(context.Context) error { return nil }) },
		"nothing watched": func(s *subject) { s.configure(policy(), nil) },
	} {
		inBubble(t, 2, func(t *testing.T, h *host) {
			release := make(chan struct{})
			p := target{deaf: release}
			a := h.watched("a", policy(), p.probe)
			checked := make(chan struct{})
			go func() {
				defer close(checked)
				a.check()
			}()
			synctest.Wait()
			end(a)
			synctest.Wait()
			select {
			case <-checked:
			default:
				t.Error(name)
			}
			require.Equal(t, name == "another policy", a.watch.Active(), name)
			close(release)
			synctest.Wait()
		})
	}
}

func TestWatch_PolicyThatIsOffProbesNothingThoughItRecovers(t *testing.T) {
	t.Parallel()
	inBubble(t, 1, func(t *testing.T, h *host) {
		var p target
		off := policy()
		off.Off = true
		off.Recover = func(context.Context) error { return nil }
		a := h.watched("a", off, p.probe)
		pass(time.Hour)
		require.Empty(t, p.times())
		require.Equal(t, healthy, a.status().State)
	})
}

func TestWatch_SaysWhatIsNotProven(t *testing.T) {
	t.Parallel()
	inBubble(t, 2, func(t *testing.T, h *host) {
		p, vision := target{takes: time.Second, err: errDown}, target{takes: time.Second}
		both := policy()
		both.Capabilities = map[string]health.Probe{"vision": vision.probe}
		a := h.watched("a", both, p.probe)
		why := func(w *probe.Watch) (text string, next time.Duration, cause error) {
			h.locked(func() { text, next, cause = w.WhyUnproven() })
			return text, next, cause
		}
		work := func(w *probe.Watch) (work bool) {
			h.locked(func() { work = w.CapabilitiesWork() })
			return work
		}
		text, next, cause := why(a.watch)
		require.Equal(t, "its first probe has no result yet", text)
		require.Zero(t, next)
		require.NoError(t, cause)
		require.False(t, work(a.watch), "there is no result yet")
		pass(time.Second)
		text, next, cause = why(a.watch)
		require.Equal(t, "starting: down (1 of 3 failures)", text)
		require.InDelta(t, 5, next.Seconds(), 0.6)
		require.ErrorIs(t, cause, errDown)
		require.True(t, work(a.watch))
		vision.set(errDown, 0)
		for range 3 {
			a.check()
		}
		require.False(t, work(a.watch))

		text, _, _ = why(nil)
		require.Equal(t, "its first probe has no result yet", text)
		require.True(t, work(nil), "there is nothing to prove")
	})
}

func TestWatch_BlockedCheckRunsWhenTheOlderProbeReturns(t *testing.T) {
	t.Parallel()
	inBubble(t, 4, func(t *testing.T, h *host) {
		release := make(chan struct{})
		older, newer := target{deaf: release, err: errDown}, target{}
		a := h.watched("a", policy(), older.probe)
		a.configure(policy(), newer.probe)
		go a.check()
		pass(time.Second)
		require.Empty(t, newer.times())
		require.True(t, a.status().StuckSince.IsZero(), "the older one is not stuck")
		pass(time.Second)
		close(release)
		synctest.Wait()
		require.Len(t, newer.times(), 1)
		require.Equal(t, healthy, a.status().State)
	})
}

func TestWatch_StopEndsProbesAndWhatWaitsForThem(t *testing.T) {
	t.Parallel()
	inBubble(t, 1, func(t *testing.T, h *host) {
		p := target{takes: time.Hour}
		a := h.watched("a", policy(), p.probe)
		var queued target
		b := h.watched("b", policy(), queued.probe)
		var checks sync.WaitGroup
		checks.Go(a.check)
		checks.Go(b.check)
		synctest.Wait()
		b.stop()
		a.stop()
		checks.Wait()
		synctest.Wait()
		require.Equal(t, []error{errGone}, p.causes())
		require.Empty(t, queued.times())
		require.Empty(t, a.history(), "its result is dropped")
		require.False(t, a.watch.Active())
		c := h.watched("c", policy(), queued.probe)
		require.Equal(t, healthy, c.status().State)
		c.stop()
		pass(time.Hour)
		require.Len(t, queued.times(), 1)
	})
}

func TestWatch_DropsWhatComesAfterTheProviderHasLeft(t *testing.T) {
	t.Parallel()
	inBubble(t, 1, func(t *testing.T, h *host) {
		release := make(chan struct{})
		running, stuck, queued := target{takes: time.Second}, target{}, target{}
		a := h.watched("a", policy(), running.probe)
		b := h.watched("b", policy(), queued.probe)
		h.locked(func() { a.left, b.left = true, true })
		b.check()
		pass(time.Minute)
		require.Empty(t, a.history())
		require.Empty(t, queued.times())

		c := h.watched("c", policy(), stuck.probe)
		stuck.ignoreContext(release)
		go c.check()
		synctest.Wait()
		h.locked(func() { c.left = true })
		pass(time.Minute)
		require.Empty(t, c.kinds(), "that it is stuck is not published")
		close(release)

		d := h.watched("d", policy(), queued.probe)
		require.Equal(t, healthy, d.status().State, "their places are free")
		h.locked(func() { d.left = true })
		pass(time.Hour)
		require.Len(t, queued.times(), 1)
	})
}

func TestLateness_OfManyUnrelatedProvidersIsBlamedOnTheMachine(t *testing.T) {
	t.Parallel()
	for name, domain := range map[string]string{"unrelated": "", "sharing a host": "host"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			inBubble(t, 100, func(t *testing.T, h *host) {
				targets := make([]target, 20)
				providers := make([]*subject, 20)
				p := policy()
				p.Interval, p.IdleInterval = 10*time.Second, 10*time.Second
				vision := make([]target, 20)
				for i := range targets {
					p.Capabilities = map[string]health.Probe{"vision": vision[i].probe}
					providers[i] = h.provider(probe.Identity{Name: strconv.Itoa(i), Domain: domain})
					providers[i].configure(p, targets[i].probe)
				}
				pass(time.Minute)
				for i := range targets {
					targets[i].set(nil, time.Hour)
					vision[i].set(nil, time.Hour)
				}
				pass(2 * time.Minute)
				fallen, suspects, out := 0, 0, 0
				for _, a := range providers {
					status := a.status()
					if status.State == unhealthy {
						fallen++
					}
					if status.Suspected {
						suspects++
					}
					out += len(status.Out)
				}
				if domain != "" {
					require.Equal(t, 20, fallen)
					require.Zero(t, suspects)
					require.Equal(t, 20, out)
					h.locked(func() { require.Empty(t, h.published) })
					return
				}
				require.Zero(t, fallen)
				require.Zero(t, out)
				require.Greater(t, suspects, 15)
				h.locked(func() {
					require.Len(t, h.published, 1)
					require.Equal(t, event.MonitorLate, h.published[0].Kind)
				})
				pass(10 * time.Minute)
				for _, a := range providers {
					require.Equal(t, unhealthy, a.status().State, "not for ever")
				}
			})
		})
	}
}

func TestLateness_OfATimerIsBlamedOnTheMachine(t *testing.T) {
	t.Parallel()
	inBubble(t, 1, func(t *testing.T, h *host) {
		var p target
		a := h.watched("a", policy(), p.probe)
		h.locked(func() { h.lag = 2 * time.Second })
		pass(2 * time.Minute)
		p.set(nil, time.Hour)
		pass(50 * time.Second)
		require.True(t, a.status().Suspected)
		require.Contains(t, a.status().Reason, "not counted")
		h.locked(func() { h.lag = 0 })
		pass(5 * time.Minute)
		require.Equal(t, unhealthy, a.status().State)
		require.False(t, a.status().Suspected)
	})
}

func TestWatch_LosesNoPlaceUnderStress(t *testing.T) {
	t.Parallel()
	inBubble(t, 4, func(t *testing.T, h *host) {
		chaotic := func(ctx context.Context) error {
			switch rand.IntN(8) {
			case 0:
				panic("x")
			case 1:
				runtime.Goexit()
			case 2:
				<-ctx.Done()
			case 3:
				time.Sleep(time.Duration(rand.IntN(150)) * time.Millisecond)
			case 4:
				return errDown
			}
			return nil
		}
		p := policy()
		p.Interval, p.FastInterval, p.IdleInterval, p.Timeout = 2*time.Millisecond, time.Millisecond, 2*time.Millisecond, 5*time.Millisecond
		p.Capabilities = map[string]health.Probe{"x": chaotic}
		p.Recover = func(context.Context) error { return errors.New("cannot") }
		var all sync.WaitGroup
		for i := range 12 {
			all.Go(func() {
				for range 20 {
					a := h.provider(probe.Identity{Name: strconv.Itoa(i)})
					a.configure(p, chaotic)
					for range rand.IntN(20) {
						switch rand.IntN(4) {
						case 0:
							a.configure(p, chaotic)
						case 1:
							h.locked(a.watch.MarkHealthy)
						case 2:
							a.check()
						case 3:
							time.Sleep(time.Duration(rand.IntN(100)) * time.Millisecond)
						}
					}
					a.stop()
				}
			})
		}
		all.Wait()
		pass(time.Second)
		last := target{takes: time.Second}
		for i := range 8 {
			h.watched(strconv.Itoa(i), policy(), last.probe)
		}
		require.Equal(t, 4, last.mostInside(), "all places are free again")
		pass(time.Minute)
	})
}

package registry_test

import (
	"context"
	"fmt"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/event"
	"github.com/capreg/registry/health"
	"github.com/capreg/registry/internal/testkit"
)

// probedModel is an instance with a probe of its own, and a closer.
type probedModel struct {
	testkit.ChatModel

	probe  health.Probe
	closed chan struct{}
}

func (m *probedModel) CheckHealth(ctx context.Context) error { return m.probe(ctx) }

func (m *probedModel) Close() error {
	close(m.closed)
	return nil
}

func probed(says string, probe health.Probe) *probedModel {
	return &probedModel{testkit.Says(says), probe, make(chan struct{})}
}

func slowly(ctx context.Context) error {
	select {
	case <-time.After(time.Second):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func madeSlowly(m testkit.ChatModel) func(context.Context) (testkit.ChatModel, error) {
	return func(ctx context.Context) (testkit.ChatModel, error) { return m, slowly(ctx) }
}

// watchAnswers makes a call every 7 ms, so never at a full second, until the function returns, and returns the different answers in order.
func watchAnswers(t *testing.T, reg *registry.Registry, during func()) []string {
	t.Helper()
	var answers []string
	done, watched := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(watched)
		for r := testkit.Bind(reg); ; time.Sleep(7 * time.Millisecond) {
			if text := testkit.MustAsk(t, r); len(answers) == 0 || answers[len(answers)-1] != text {
				answers = append(answers, text)
			}
			select {
			case <-done:
				return
			default:
			}
		}
	}()
	synctest.Wait() // the first call is made
	during()
	time.Sleep(20 * time.Millisecond)
	close(done)
	<-watched
	return answers
}

// Variants: by probe of the policy, of an instance, of what a factory makes; by a factory; by both; by capability.
func TestReplace_OldOneServesUntilNewOneIsProven(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		p    testkit.Provider
		want time.Duration
	}{
		"policy":             {testkit.Provider{Instance: testkit.Says("new"), Health: health.Policy{Probe: slowly}}, time.Second},
		"instance":           {testkit.Provider{Instance: probed("new", slowly)}, time.Second},
		"factory":            {testkit.Provider{Factory: madeSlowly(testkit.Says("new"))}, time.Second},
		"probed product":     {testkit.Provider{Factory: madeSlowly(probed("new", slowly))}, time.Second},
		"factory and policy": {testkit.Provider{Factory: madeSlowly(testkit.Says("new")), Health: health.Policy{Probe: slowly}}, time.Second},
		"capability": {testkit.Provider{
			Instance: testkit.Says("new"), Capabilities: []string{"x"},
			Health: health.Policy{Capabilities: map[string]health.Probe{"x": slowly}},
		}, time.Second},
		"neither":    {testkit.Provider{Instance: testkit.Says("new")}, 0},
		"probes off": {testkit.Provider{Instance: probed("new", slowly), Health: health.Policy{Off: true}}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
				old := testkit.Add(t, reg, testkit.Provider{Name: "a", Instance: testkit.Says("old"), Capabilities: []string{"x"}})
				testkit.Add(t, reg, testkit.Provider{Name: "backup", Group: 1})
				require.Equal(t, []string{"old", "new"}, watchAnswers(t, reg, func() {
					began := time.Now()
					row.p.Name, row.p.Replace = "a", true
					fresh := testkit.Add(t, reg, row.p)
					require.Equal(t, row.want, time.Since(began))
					require.True(t, fresh.Info().Eligible)
					require.Zero(t, fresh.Info().Attempts, "it starts afresh")
					require.False(t, old.Info().Eligible)
				}))
			})
		})
	}
}

func TestReplace_FirstFailuresOfProbesAreForgiven(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		testkit.Add(t, reg, testkit.Provider{Name: "a", Instance: testkit.Says("old")})
		tries := 0
		require.Equal(t, []string{"old", "new"}, watchAnswers(t, reg, func() {
			testkit.Add(t, reg, testkit.Provider{Name: "a", Instance: testkit.Says("new"), Replace: true, Health: health.Policy{Probe: func(context.Context) error {
				if tries++; tries < 3 {
					return testkit.ErrDown
				}
				return nil
			}}})
		}))
		require.Equal(t, 3, tries)
	})
}

// Variants: each way in which a probe or a factory can fail, or not end; the context and the registry that end first.
func TestReplace_OldOneStaysWhenNewOneFails(t *testing.T) {
	t.Parallel()
	fails := func(context.Context) error { return testkit.ErrDown }
	for name, row := range map[string]struct {
		p       testkit.Provider
		within  time.Duration // of the context
		want    string
		matches error
	}{
		"probe fails":      {p: testkit.Provider{Instance: testkit.Says("new"), Health: health.Policy{Probe: fails, Fall: 1, StartTime: time.Millisecond}}, want: "down", matches: testkit.ErrDown},
		"probe says out":   {p: testkit.Provider{Instance: testkit.Says("new"), Health: health.Policy{Probe: func(context.Context) error { return health.Out(testkit.ErrDown) }}}, want: "unhealthy: ", matches: testkit.ErrDown},
		"probe is too bad": {p: testkit.Provider{Instance: testkit.Says("new"), Health: health.Policy{Probe: fails, StartTime: time.Hour}}, want: "its time is over", matches: testkit.ErrDown},
		"probe panics":     {p: testkit.Provider{Instance: probed("new", func(context.Context) error { panic("ill") }), Health: health.Policy{Fall: 1, StartTime: time.Millisecond}}, want: "panic: ill"},
		"probe exits":      {p: testkit.Provider{Instance: probed("new", func(context.Context) error { runtime.Goexit(); return nil }), Health: health.Policy{Fall: 1, StartTime: time.Millisecond}}, want: "unhealthy"},
		"probe hangs":      {p: testkit.Provider{Instance: testkit.Says("new"), Health: health.Policy{Timeout: time.Hour, Probe: func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }}}, want: "its first probe has no result yet; its time is over"},
		"capability out":   {p: testkit.Provider{Instance: testkit.Says("new"), Capabilities: []string{"x"}, Health: health.Policy{Capabilities: map[string]health.Probe{"x": fails}}}, want: `capability "x"`, matches: testkit.ErrDown},
		"factory fails":    {p: testkit.Provider{Factory: func(context.Context) (testkit.ChatModel, error) { return nil, testkit.ErrDown }}, want: "not ready: down", matches: testkit.ErrDown},
		"factory panics":   {p: testkit.Provider{Factory: func(context.Context) (testkit.ChatModel, error) { panic("ill") }}, want: "panic: ill"},
		"factory exits":    {p: testkit.Provider{Factory: func(context.Context) (testkit.ChatModel, error) { runtime.Goexit(); return nil, nil }}, want: "not ready"},
		"factory makes nil": {p: testkit.Provider{Factory: func(context.Context) (testkit.ChatModel, error) {
			return nil, nil //nolint:nilnil // what is tested
		}}, want: "making nil"},
		"factory hangs": {p: testkit.Provider{Factory: func(ctx context.Context) (testkit.ChatModel, error) { <-ctx.Done(); return nil, ctx.Err() }}, want: "its time is over"},
		"context ends": {
			p:      testkit.Provider{Factory: func(ctx context.Context) (testkit.ChatModel, error) { <-ctx.Done(); return nil, ctx.Err() }},
			within: time.Second, want: "deadline exceeded", matches: context.DeadlineExceeded,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
				old := testkit.Add(t, reg, testkit.Provider{Name: "a", Instance: testkit.Says("old"), Capabilities: []string{"x"}})
				testkit.Add(t, reg, testkit.Provider{Name: "backup", Group: 1})
				before := old.Info()
				events := reg.Subscribe(0)
				defer events.Close()
				ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
				if row.within > 0 {
					ctx, cancel = context.WithTimeout(t.Context(), row.within)
				}
				defer cancel()
				row.p.Name, row.p.Replace = "a", true
				began := time.Now()
				_, err := testkit.Chat.Register(ctx, reg, row.p)
				require.ErrorIs(t, err, registry.ErrNotReady)
				require.ErrorContains(t, err, `provider "chat/a" has not proven itself: `)
				require.ErrorContains(t, err, row.want)
				if row.matches != nil {
					require.ErrorIs(t, err, row.matches)
				}
				require.LessOrEqual(t, time.Since(began), 30*time.Second, "the time to prove itself")
				require.Equal(t, before, old.Info())
				now, _ := reg.Provider("chat", "a")
				require.Equal(t, before.Generation, now.Info().Generation)
				require.Equal(t, "old", testkit.MustAsk(t, testkit.Bind(reg)))
				synctest.Wait()
				e, err := events.Next(t.Context())
				require.NoError(t, err)
				require.Equal(t, event.Refused, e.Kind, "and nothing else: %v", e)
				require.Equal(t, "a", e.Provider)
				require.NotEmpty(t, e.Reason)
			})
		})
	}
}

func TestReplace_ProductMadeInVainIsClosed(t *testing.T) {
	t.Parallel()
	for name, taking := range map[string]time.Duration{"in time": 0, "too late": time.Minute} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
				testkit.Add(t, reg, testkit.Provider{Name: "a"})
				made := probed("new", nil)
				_, err := testkit.Chat.Register(t.Context(), reg, testkit.Provider{
					Name: "a", Replace: true, ProveWithin: time.Second,
					Factory: func(context.Context) (testkit.ChatModel, error) { time.Sleep(taking); return made, nil },
					Health:  health.Policy{Probe: func(context.Context) error { return health.Out(testkit.ErrDown) }},
				})
				require.ErrorIs(t, err, registry.ErrNotReady)
				<-made.closed
			})
		})
	}
}

func TestReplace_AtOnceTakesThePlaceUnproven(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		testkit.Add(t, reg, testkit.Provider{Name: "a", Instance: testkit.Says("old")})
		fresh := testkit.Add(t, reg, testkit.Provider{Name: "a", Replace: true, AtOnce: true, Factory: madeSlowly(testkit.Says("new"))})
		require.False(t, fresh.Info().Made, "it is made at first need")
		require.Equal(t, "new", testkit.MustAsk(t, testkit.Bind(reg)))
	})
}

func TestReplace_OfNoneJoinsAtOnce(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		began := time.Now()
		fresh := testkit.Add(t, reg, testkit.Provider{Name: "a", Replace: true, Factory: madeSlowly(testkit.Says("new"))})
		require.Zero(t, time.Since(began))
		require.False(t, fresh.Info().Made)
	})
}

func TestReplace_TimeToProveItselfIsChecked(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		_, err := testkit.Chat.Register(t.Context(), reg, testkit.Provider{Instance: testkit.Says("x"), ProveWithin: -1})
		require.ErrorIs(t, err, registry.ErrInvalid)
		require.ErrorContains(t, err, "ProveWithin is -1ns")
	})
}

// Those that wait in the queue of the old one move to that of the new one at its turn, and the rotation goes on.
func TestReplace_ProvenOneKeepsTurnAndQueue(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		limits := registry.LimitPolicy{MaxConcurrent: 1}
		testkit.Add(t, reg, testkit.Provider{Name: "a", Limits: limits, Instance: testkit.Takes("old", 10*time.Second)})
		results := testkit.ConcurrentCalls(t, testkit.Bind(reg), 3)
		synctest.Wait()
		testkit.Add(t, reg, testkit.Provider{Name: "a", Limits: limits, Replace: true, Factory: madeSlowly(testkit.Takes("new", time.Second))})
		require.Equal(t, map[string]int{"old<nil> after 10s": 1, "new<nil> after 2s": 1, "new<nil> after 3s": 1}, testkit.CountResults(results))
	})
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		testkit.AddRing(t, reg, "a", "b", "c")
		r := testkit.Bind(reg)
		require.Equal(t, "ab", testkit.Turns(t, r, 2))
		testkit.Add(t, reg, testkit.Provider{Name: "c", Strategy: registry.StrategyRoundRobin, Replace: true, Factory: madeSlowly(testkit.Says("C"))})
		require.Equal(t, "CabC", testkit.Turns(t, r, 4))
	})
}

func TestReplace_LeaseOfOldOneGoesOn(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		old := testkit.Add(t, reg, testkit.Provider{Name: "a", Instance: testkit.Says("old")})
		lease, err := testkit.Bind(reg).Acquire(t.Context())
		require.NoError(t, err)
		testkit.Add(t, reg, testkit.Provider{Name: "a", Replace: true, Factory: madeSlowly(testkit.Says("new"))})
		require.NoError(t, lease.Context().Err())
		require.Equal(t, uint64(1), old.Info().InFlight)
		lease.Done(nil)
		<-old.Left()
		require.Equal(t, uint64(1), old.Info().Successes)
	})
}

func TestReplace_WhatHappensBeforeItJoinsIsToldAfterwards(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		testkit.Add(t, reg, testkit.Provider{Name: "a"})
		events := reg.Subscribe(0)
		defer events.Close()
		fresh := testkit.Add(t, reg, testkit.Provider{Name: "a", Replace: true, Factory: madeSlowly(testkit.Says("new")), Health: health.Policy{Probe: slowly}})
		generation := fresh.Info().Generation
		var told []string
		for range 5 {
			e, err := events.Next(t.Context())
			require.NoError(t, err)
			told = append(told, fmt.Sprint(e.Kind, " ", e.Generation == generation))
		}
		require.Equal(t, "draining false", told[0])
		require.Equal(t, "registered true", told[1])
		require.ElementsMatch(t, []string{"healthy true", "ready true", "drained false"}, told[2:])
	})
}

// What changes while the new one proves itself: the old one leaves, is replaced, or is swapped; the registry closes.
func TestReplace_HeedsChangesWhileItProvesItself(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		meanwhile func(t *testing.T, reg *registry.Registry, old *registry.Registration)
		refused   error
		want      string // the answer afterwards
	}{
		"unregistered": {meanwhile: func(t *testing.T, _ *registry.Registry, old *registry.Registration) {
			t.Helper()
			require.NoError(t, old.Unregister(t.Context()))
		}, want: "new"},
		"replaced": {meanwhile: func(t *testing.T, reg *registry.Registry, _ *registry.Registration) {
			t.Helper()
			testkit.Add(t, reg, testkit.Provider{Name: "a", Instance: testkit.Says("between"), Replace: true})
		}, want: "new"},
		"swapped": {meanwhile: func(t *testing.T, reg *registry.Registry, _ *registry.Registration) {
			t.Helper()
			undo, err := testkit.Chat.Testing(reg).Swap(t.Name(), "a", testkit.Says("fake"))
			require.NoError(t, err)
			t.Cleanup(func() { require.NoError(t, undo(context.WithoutCancel(t.Context()))) })
		}, refused: registry.ErrConflict, want: "fake"},
		"overridden": {meanwhile: func(t *testing.T, reg *registry.Registry, _ *registry.Registration) {
			t.Helper()
			undo, err := testkit.Chat.Testing(reg).Override(t.Name(), testkit.Provider{Name: "fake", Instance: testkit.Says("fake")})
			require.NoError(t, err)
			t.Cleanup(func() { require.NoError(t, undo(context.WithoutCancel(t.Context()))) })
		}, want: "fake"},
		"closed": {meanwhile: func(t *testing.T, reg *registry.Registry, _ *registry.Registration) {
			t.Helper()
			require.NoError(t, reg.Close(t.Context()))
		}, refused: registry.ErrClosed},
		"in conflict": {meanwhile: func(t *testing.T, reg *registry.Registry, old *registry.Registration) {
			t.Helper()
			testkit.Add(t, reg, testkit.Provider{Name: "b", Group: 1, Strategy: registry.StrategyFallback})
		}, refused: registry.ErrConflict, want: "old"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
				old := testkit.Add(t, reg, testkit.Provider{Name: "a", Instance: testkit.Says("old")})
				made := probed("new", slowly)
				p := testkit.Provider{Name: "a", Replace: true, Factory: madeSlowly(made)}
				if name == "in conflict" {
					p.Group, p.Strategy = 1, registry.StrategyRoundRobin
				}
				result := make(chan error)
				go func() {
					_, err := testkit.Chat.Register(t.Context(), reg, p)
					result <- err
				}()
				synctest.Wait()
				row.meanwhile(t, reg, old)
				err := <-result
				require.ErrorIs(t, err, row.refused)
				if row.want != "" {
					require.Equal(t, row.want, testkit.MustAsk(t, testkit.Bind(reg)))
				}
				if row.refused != nil && name != "closed" {
					<-made.closed
				}
			})
		})
	}
}

func TestReplace_ContextThatPanicsLeavesNothing(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		testkit.Add(t, reg, testkit.Provider{Name: "a", Instance: testkit.Says("old")})
		made := probed("new", slowly)
		require.Equal(t, "ill", testkit.Recovered(func() {
			_, _ = testkit.Chat.Register(panickingDone{t.Context()}, reg, testkit.Provider{Name: "a", Replace: true, Factory: madeSlowly(made)})
		}))
		require.Equal(t, "old", testkit.MustAsk(t, testkit.Bind(reg)))
	})
}

type panickingDone struct{ context.Context } //nolint:containedctx // it is one

func (panickingDone) Done() <-chan struct{} { panic("ill") }

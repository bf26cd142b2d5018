package registry_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/event"
	"github.com/capreg/registry/health"
	"github.com/capreg/registry/internal/testkit"
	"github.com/capreg/registry/status"
	"github.com/capreg/registry/verdict"
)

// told returns the part of the views that events tell of.
func told(infos []registry.Info) (states []string) {
	for _, i := range infos {
		states = append(states, fmt.Sprint(i.Name, i.Group, i.Priority, i.Strategy, i.Weight, i.Generation, i.Eligible, i.Code, i.Reason,
			i.Health.State, i.Health.Reason, i.Breaker.State, i.Breaker.Policy, i.Cooldown.Since, i.Made, i.AttemptTimeout, i.Limits,
			i.Retry, i.HealthPolicy.Interval, i.Mock))
	}
	return states
}

func TestSnapshot_IsOfItsMomentWhateverChangesLater(t *testing.T) {
	t.Parallel()
	changes := map[string]func(*testing.T, *registry.Registry, *registry.Registration){
		"priority": func(t *testing.T, _ *registry.Registry, p *registry.Registration) {
			t.Helper()
			_, err := p.SetPriority(registry.PriorityLow)
			require.NoError(t, err)
		},
		"group": func(_ *testing.T, _ *registry.Registry, p *registry.Registration) { _, _ = p.SetGroup(3) },
		"strategy": func(_ *testing.T, _ *registry.Registry, p *registry.Registration) {
			_, _ = p.SetStrategy(registry.StrategyRoundRobin)
		},
		"weight": func(_ *testing.T, _ *registry.Registry, p *registry.Registration) { _, _ = p.SetWeight(0) },
		"timeout": func(_ *testing.T, _ *registry.Registry, p *registry.Registration) {
			_, _ = p.SetAttemptTimeout(time.Second)
		},
		"limits": func(_ *testing.T, _ *registry.Registry, p *registry.Registration) {
			_, _ = p.SetLimits(registry.LimitPolicy{MaxConcurrent: 3})
		},
		"retry": func(_ *testing.T, _ *registry.Registry, p *registry.Registration) {
			_, _ = p.SetRetry(registry.RetryPolicy{Retries: 1})
		},
		"breaker policy": func(_ *testing.T, _ *registry.Registry, p *registry.Registration) {
			_, _ = p.SetBreakerPolicy(registry.BreakerPolicy{FailureThreshold: 9})
		},
		"health policy": func(_ *testing.T, _ *registry.Registry, p *registry.Registration) {
			_, _ = p.SetHealthPolicy(health.Policy{Interval: time.Hour, Probe: func(context.Context) error { return nil }})
		},
		"opened": func(_ *testing.T, _ *registry.Registry, p *registry.Registration) {
			_ = p.ForceOpen(time.Minute, "test")
		},
		"unhealthy": func(_ *testing.T, _ *registry.Registry, p *registry.Registration) {
			_ = p.MarkUnhealthy(testkit.ErrDown)
		},
		"left": func(t *testing.T, _ *registry.Registry, p *registry.Registration) {
			t.Helper()
			_ = p.Unregister(t.Context())
		},
		"joined": func(t *testing.T, reg *registry.Registry, _ *registry.Registration) {
			t.Helper()
			testkit.Add(t, reg, testkit.Provider{Name: "another"})
		},
		"replaced": func(t *testing.T, reg *registry.Registry, _ *registry.Registration) {
			t.Helper()
			testkit.Add(t, reg, testkit.Provider{Name: "a", Replace: true, AtOnce: true})
		},
		"swapped": func(t *testing.T, reg *registry.Registry, _ *registry.Registration) {
			t.Helper()
			undo, err := testkit.Chat.Testing(reg).Swap("T", "a", testkit.Says("x"))
			require.NoError(t, err)
			t.Cleanup(func() { _ = undo(context.Background()) })
		},
		"overridden": func(t *testing.T, reg *registry.Registry, _ *registry.Registration) {
			t.Helper()
			undo, err := testkit.Chat.Testing(reg).Override("T", testkit.Provider{Name: "fake", Instance: testkit.Says("x")})
			require.NoError(t, err)
			t.Cleanup(func() { _ = undo(context.Background()) })
		},
		"cooling": func(t *testing.T, reg *registry.Registry, _ *registry.Registration) {
			t.Helper()
			_, err := registry.Call(t.Context(), testkit.Chat.Bind(reg, registry.Query{Only: []string{"a"}}), func(context.Context, testkit.ChatModel) (int, error) {
				return 0, verdict.RateLimited(testkit.ErrDown, time.Minute)
			})
			require.Error(t, err)
		},
	}
	for name, change := range changes {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
				a := testkit.Add(t, reg, testkit.Provider{Name: "a"})
				testkit.Add(t, reg, testkit.Provider{Name: "b", Group: 1})
				before := told(testkit.Infos(reg))
				first, second := reg.Subscribe(0), reg.Subscribe(0)
				change(t, reg, a)
				require.NotEqual(t, before, told(testkit.Infos(reg)), "it is a change")
				require.Equal(t, before, told(first.Snapshot()))
				require.Equal(t, before, told(second.Snapshot()))
				require.Equal(t, told(testkit.Infos(reg)), told(reg.Subscribe(0).Snapshot()), "a later one sees it")
				require.NotEmpty(t, testkit.Events(t, first))
			})
		})
	}
}

func TestSnapshot_CountsArePresent(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a := testkit.Add(t, reg, testkit.Provider{Name: "a"})
		testkit.Add(t, reg, testkit.Provider{Name: "b", Group: 1})
		early := reg.Subscribe(0)
		for range 3 {
			testkit.MustAsk(t, testkit.Bind(reg))
		}
		require.EqualValues(t, 3, early.Snapshot()[0].Successes, "of a provider without an event since")
		require.NoError(t, a.ForceOpen(time.Minute, "test"))
		require.Equal(t, "b", testkit.MustAsk(t, testkit.Bind(reg)))
		late := early.Snapshot()
		require.EqualValues(t, 3, late[0].Successes, "of one with an event")
		require.Equal(t, status.BreakerClosed, late[0].Breaker.State)
		require.EqualValues(t, 1, late[1].Successes)
	})
}

// Random changes, with subscriptions that begin between them: each has what was listed when it began.
func TestSnapshot_SharedOnesAreWhatWasListed(t *testing.T) {
	t.Parallel()
	for seed := range uint64(20) {
		testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
			random := rand.New(rand.NewPCG(seed, 1))
			var handles []*registry.Registration
			type begun struct {
				*registry.Subscription

				want []string
			}
			var all []begun
			for step := range 200 {
				switch n := random.IntN(10); {
				case n < 2 || len(handles) == 0:
					handles = append(handles, testkit.Add(t, reg, testkit.Provider{Name: strconv.Itoa(step), Group: random.IntN(3)}))
				case n < 5:
					all = append(all, begun{reg.Subscribe(1), told(testkit.Infos(reg))})
				default:
					changeOne(random, handles[random.IntN(len(handles))])
				}
			}
			require.NotEmpty(t, all)
			for _, s := range all {
				require.Equal(t, s.want, told(s.Snapshot()), "seed %d", seed)
			}
		})
	}
}

// changeOne makes a random change, which a provider that has left refuses.
func changeOne(random *rand.Rand, p *registry.Registration) {
	switch random.IntN(6) {
	case 0:
		_, _ = p.SetGroup(random.IntN(3))
	case 1:
		_, _ = p.SetWeight(float64(random.IntN(3)))
	case 2:
		_ = p.ForceOpen(time.Minute, "test")
	case 3:
		_ = p.Reset()
	case 4:
		_ = p.MarkUnhealthy(errors.New(strconv.Itoa(random.IntN(3))))
	case 5:
		if random.IntN(4) == 0 {
			_ = p.Unregister(context.Background())
		}
	}
}

func TestSubscription_KeepsNoProviderThatHasLeft(t *testing.T) {
	t.Parallel()
	reg := testkit.New(t, registry.Options{})
	var freed atomic.Bool
	func() {
		model := &testkit.Closer{}
		runtime.AddCleanup(model, func(freed *atomic.Bool) { freed.Store(true) }, &freed)
		testkit.Add(t, reg, testkit.Provider{Name: "a", Instance: model})
	}()
	s := reg.Subscribe(0)
	a, ok := reg.Provider("chat", "a")
	require.True(t, ok)
	require.NoError(t, a.Unregister(t.Context()))
	a = nil
	_ = a
	require.Eventually(t, func() bool { runtime.GC(); return freed.Load() }, 10*time.Second, time.Millisecond)
	require.Equal(t, "a", s.Snapshot()[0].Name)
	require.NoError(t, reg.Close(t.Context()))
}

func TestSubscribe_FiltersEventsAndSnapshot(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		other := registry.NewService[string]("other")
		a := testkit.Add(t, reg, testkit.Provider{Name: "a"})
		b := testkit.Add(t, reg, testkit.Provider{Name: "b"})
		c, err := other.Register(t.Context(), reg, registry.Provider[string]{Name: "c", Instance: "c"})
		require.NoError(t, err)
		subscriptions := map[string]*registry.Subscription{
			"a b c: a opened, b opened, c opened, a closed, b closed, c closed,  closing, a draining, b draining, c draining,": reg.Subscribe(0),
			"a b c: a opened, b opened, c opened,": reg.Subscribe(0, event.Filter{Kinds: []event.Kind{event.BreakerOpened}}),
			"c: c opened, c closed, c draining,":   reg.Subscribe(0, event.Filter{Services: []string{"other"}}),
			"a: a opened, a closed, a draining,":   reg.Subscribe(0, event.Filter{Providers: []string{"a"}}),
			"a c: a opened, c closed,": reg.Subscribe(0,
				event.Filter{Kinds: []event.Kind{event.BreakerOpened}, Providers: []string{"a"}},
				event.Filter{Kinds: []event.Kind{event.BreakerClosed}, Services: []string{"other"}}),
			":": reg.Subscribe(0, event.Filter{Services: []string{"other"}, Providers: []string{"a"}}),
		}
		for _, p := range []*registry.Registration{a, b, c} {
			require.NoError(t, p.ForceOpen(time.Minute, "test"))
		}
		require.Len(t, reg.Reset(), 3)
		require.NoError(t, reg.Close(t.Context()))
		words := map[event.Kind]string{
			event.BreakerOpened: "opened", event.BreakerClosed: "closed", event.Closing: "closing", event.Draining: "draining",
		}
		for want, s := range subscriptions {
			got := strings.Join(testkit.Names(s.Snapshot()), " ") + ":"
			for _, e := range testkit.Events(t, s) {
				if word := words[e.Kind]; word != "" {
					got = fmt.Sprintf("%s %s %s,", got, e.Provider, word)
				}
			}
			require.Equal(t, want, got)
		}
	})
}

func TestSubscribe_RefusesFilterOfUnknownKind(t *testing.T) {
	t.Parallel()
	reg := testkit.New(t, registry.Options{})
	testkit.Add(t, reg, testkit.Provider{Name: "a"})
	s := reg.Subscribe(0, event.Filter{Kinds: []event.Kind{"open"}})
	_, err := s.Next(t.Context())
	testkit.RequireRefused(t, err)
	require.ErrorContains(t, err, `filters[0].Kinds[0] is "open"`)
	require.Empty(t, s.Snapshot())
	s.Close()
}

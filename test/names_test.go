package test_test

import (
	"context"
	"encoding/json"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/event"
	"github.com/capreg/registry/health"
	"github.com/capreg/registry/internal/testkit"
	"github.com/capreg/registry/selection"
	"github.com/capreg/registry/startup"
	"github.com/capreg/registry/status"
	"github.com/capreg/registry/verdict"
)

// mail is a service whose providers have the names of those of the chat service.
var mail = registry.NewService[testkit.ChatModel]("mail")

// namesakes adds providers named "p" and "q" to both services, and returns the handles of the two named "p".
func namesakes(t *testing.T, reg *registry.Registry) (chat, mails *registry.Registration) {
	t.Helper()
	for _, name := range []string{"q", "p"} {
		chat = testkit.Add(t, reg, testkit.Provider{Name: name, Group: 1, Instance: testkit.Says("chat " + name)})
		var err error
		mails, err = mail.Register(t.Context(), reg, testkit.Provider{Name: name, Group: 1, Instance: testkit.Says("mail " + name)})
		require.NoError(t, err)
	}
	return chat, mails
}

// shown returns all that listings show of a service.
func shown(t *testing.T, reg *registry.Registry, service string) string {
	t.Helper()
	var infos []registry.Info
	for _, handle := range reg.Registrations(service) {
		infos = append(infos, handle.Info())
	}
	text, err := json.Marshal(infos)
	require.NoError(t, err)
	return string(text)
}

// Each operation reaches the provider of its service, and leaves its namesake as it is, with what tells of it.
func TestNames_ReachTheProviderOfTheirService(t *testing.T) {
	t.Parallel()
	in := func(collect func(u *registry.Update)) func(*testing.T, *registry.Registry, *registry.Registration) {
		return func(t *testing.T, reg *registry.Registry, _ *registry.Registration) {
			t.Helper()
			var u registry.Update
			collect(&u)
			require.NoError(t, reg.Update(t.Context(), &u))
		}
	}
	for name, change := range map[string]func(*testing.T, *registry.Registry, *registry.Registration){
		"replaced": func(t *testing.T, reg *registry.Registry, _ *registry.Registration) {
			t.Helper()
			testkit.Add(t, reg, testkit.Provider{Name: "p", Replace: true, Instance: testkit.Says("new")})
		},
		"registered by name": func(t *testing.T, reg *registry.Registry, _ *registry.Registration) {
			t.Helper()
			_, err := reg.Register(t.Context(), "chat", registry.Provider[any]{Name: "p", Replace: true, Instance: testkit.Says("new")})
			require.NoError(t, err)
		},
		"applied": func(t *testing.T, _ *registry.Registry, p *registry.Registration) {
			t.Helper()
			_, _, err := p.Apply(t.Context(), registry.Provider[any]{Group: 1, Priority: registry.PriorityHigh, Version: "2"})
			require.NoError(t, err)
		},
		"unregistered": func(t *testing.T, _ *registry.Registry, p *registry.Registration) {
			t.Helper()
			require.NoError(t, p.Unregister(t.Context()))
		},
		"found and reset": func(t *testing.T, reg *registry.Registry, p *registry.Registration) {
			t.Helper()
			require.NoError(t, p.ForceOpen(time.Hour, "test"))
			found, ok := reg.Provider("chat", "p")
			require.True(t, ok)
			require.Equal(t, p.Info().Generation, found.Info().Generation)
			require.Equal(t, []status.ProviderID{{Service: "chat", Name: "p"}}, reg.Reset("chat"))
			require.NoError(t, found.ForceOpen(time.Hour, "test"))
		},
		"removed": in(func(u *registry.Update) { u.Remove("chat", "p") }),
		"added instead": in(func(u *registry.Update) {
			u.Remove("chat", "p")
			testkit.Chat.AddTo(u, testkit.Provider{Name: "p", Instance: testkit.Says("new")})
		}),
		"priority":   in(func(u *registry.Update) { u.SetPriority("chat", "p", registry.PriorityLow) }),
		"group":      in(func(u *registry.Update) { u.SetGroup("chat", "p", 7) }),
		"strategy":   in(func(u *registry.Update) { u.SetStrategy("chat", "p", registry.StrategyRoundRobin) }),
		"weight":     in(func(u *registry.Update) { u.SetWeight("chat", "p", 0) }),
		"time limit": in(func(u *registry.Update) { u.SetAttemptTimeout("chat", "p", time.Second) }),
		"limits":     in(func(u *registry.Update) { u.SetLimits("chat", "p", registry.LimitPolicy{MaxConcurrent: 7}) }),
		"retry":      in(func(u *registry.Update) { u.SetRetry("chat", "p", registry.RetryPolicy{Retries: 7}) }),
		"breaker":    in(func(u *registry.Update) { u.SetBreakerPolicy("chat", "p", registry.BreakerPolicy{FailureThreshold: 7}) }),
		"health":     in(func(u *registry.Update) { u.SetHealthPolicy("chat", "p", health.Policy{Groups: []string{"x"}}) }),
		"swapped": func(t *testing.T, reg *registry.Registry, _ *registry.Registration) {
			t.Helper()
			undo, err := testkit.Chat.Testing(reg).Swap("T", "p", testkit.Says("fake"))
			require.NoError(t, err)
			t.Cleanup(func() { _ = undo(context.Background()) })
			_, err = mail.Register(t.Context(), reg, testkit.Provider{Name: "p", Instance: testkit.Says("again")})
			require.ErrorIs(t, err, registry.ErrExists, "and not that a test has swapped it")
		},
		"overridden": func(t *testing.T, reg *registry.Registry, _ *registry.Registration) {
			t.Helper()
			undo, err := testkit.Chat.Testing(reg).Override("T", testkit.Provider{Name: "fake", Instance: testkit.Says("fake")})
			require.NoError(t, err)
			t.Cleanup(func() { _ = undo(context.Background()) })
		},
		"cooling": func(t *testing.T, _ *registry.Registry, p *registry.Registration) {
			t.Helper()
			require.NoError(t, p.CoolDown(status.Cooldown{Class: verdict.ClassRateLimited, Until: time.Now().Add(time.Hour)}, testkit.ErrDown))
		},
		"marked": func(t *testing.T, _ *registry.Registry, p *registry.Registration) {
			t.Helper()
			require.NoError(t, p.MarkUnhealthy(testkit.ErrDown))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
				p, _ := namesakes(t, reg)
				before := map[string]string{"chat": shown(t, reg, "chat"), "mail": shown(t, reg, "mail")}
				all, ofMail := reg.Subscribe(0), reg.Subscribe(0, event.Filter{Services: []string{"mail"}, Providers: []string{"p"}})
				snapshot := len(all.Snapshot())
				change(t, reg, p)
				require.Equal(t, before["mail"], shown(t, reg, "mail"))
				require.NotEqual(t, before["chat"], shown(t, reg, "chat"))
				require.Empty(t, testkit.Events(t, ofMail))
				for _, e := range testkit.Events(t, all) {
					require.Equal(t, "chat", e.Service)
				}
				require.Equal(t, 4, snapshot)
				require.Len(t, ofMail.Snapshot(), 1)
				answer, err := testkit.Ask(t.Context(), mail.Bind(reg, registry.Query{Only: []string{"p"}}))
				require.NoError(t, err)
				require.Equal(t, "mail p", answer)
			})
		})
	}
}

func TestNames_AreTakenInTheirServiceOnly(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		namesakes(t, reg)
		_, err := mail.Register(t.Context(), reg, testkit.Provider{Name: "p", Instance: testkit.Says("x")})
		require.ErrorIs(t, err, registry.ErrExists)
		require.ErrorContains(t, err, `service "mail"`)
		var u registry.Update
		u.SetWeight("none", "p", 2)
		require.ErrorContains(t, reg.Update(t.Context(), &u), `the name of a provider of service "none"`)
		_, ok := reg.Provider("none", "p")
		require.False(t, ok)
		made, err := mail.Register(t.Context(), reg, testkit.Provider{Instance: testkit.Says("x")})
		require.NoError(t, err)
		require.Equal(t, "mail-1", made.Name())
	})
}

// What is counted, measured and explained of one is not of its namesake.
func TestNames_TellReportsAndMeasurementsApart(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{Decisions: 8}, func(t *testing.T, reg *registry.Registry) {
		chat, mails := namesakes(t, reg)
		require.NoError(t, chat.MarkUnhealthy(testkit.ErrDown))
		only := registry.Query{Only: []string{"p"}}
		var report registry.CallReport
		for range 3 {
			_, err := testkit.Ask(t.Context(), mail.Bind(reg, only), registry.ReportTo(&report))
			require.NoError(t, err)
		}
		require.Equal(t, "mail", report.Service)
		require.Equal(t, "p", mail.Bind(reg, only).Explain().Winner)
		require.Empty(t, testkit.Chat.Bind(reg, only).Explain().Winner)
		require.Zero(t, chat.Info().Attempts)
		require.EqualValues(t, 3, mails.Info().Attempts)
		attempts := make(map[status.ProviderID]uint64)
		for _, p := range reg.Metrics().Providers {
			for _, o := range p.Attempts {
				attempts[status.ProviderID{Service: p.Service, Name: p.Name}] += o.Duration.Count
			}
		}
		require.EqualValues(t, 3, attempts[status.ProviderID{Service: "mail", Name: "p"}])
		require.Zero(t, attempts[status.ProviderID{Service: "chat", Name: "p"}])
		for _, d := range reg.Decisions() {
			require.Equal(t, "mail", d.Service)
		}
		counts, ok := reg.Analytics("chat")
		require.True(t, ok)
		require.Zero(t, picksOf(counts, "p"))
		counts, _ = reg.Analytics("mail")
		require.EqualValues(t, 3, picksOf(counts, "p"))
	})
}

func picksOf(a selection.Analytics, name string) (picks uint64) {
	for _, p := range a.Providers {
		if p.Provider == name {
			picks += p.Attempts
		}
	}
	return picks
}

// A provider without traffic does not count for its service; one of that name elsewhere does.
func TestNames_TellHealthApart(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		chat, mails := namesakes(t, reg)
		_, err := chat.SetWeight(0)
		require.NoError(t, err)
		require.NoError(t, mails.MarkUnhealthy(testkit.ErrDown))
		text, err := json.Marshal(reg.Health())
		require.NoError(t, err)
		var all health.Overall
		require.NoError(t, json.Unmarshal(text, &all))
		states := make(map[string]health.State)
		for _, s := range all.Services {
			states[s.Name] = s.State
		}
		require.Equal(t, map[string]health.State{"chat": health.Healthy, "mail": health.Degraded}, states, all.Reason)
	})
}

// The reason names the provider of the service that is at fault.
func TestNames_TellCausesApart(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		disk, err := mail.Register(t.Context(), reg, testkit.Provider{Name: "p", Capabilities: []string{"disk"}, Instance: testkit.Says("x")})
		require.NoError(t, err)
		app := testkit.Add(t, reg, testkit.Provider{Name: "p", Requires: []string{"disk"}})
		require.NoError(t, disk.MarkUnhealthy(testkit.ErrDown))
		require.NoError(t, app.MarkUnhealthy(testkit.ErrDown))
		require.Equal(t, []string{"mail/p"}, app.Health().Because)
	})
}

// Members of one failure domain in two services have one name.
func TestNames_OfTwoServicesShareADomain(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		few, many := registry.LimitPolicy{MaxConcurrent: 2}, registry.LimitPolicy{MaxConcurrent: 8}
		chat := testkit.Add(t, reg, testkit.Provider{Name: "p", Domain: "key", Limits: few})
		mails, err := mail.Register(t.Context(), reg, testkit.Provider{Name: "p", Domain: "key", Instance: testkit.Says("x")})
		require.NoError(t, err)
		require.Equal(t, status.ProviderID{Service: "chat", Name: "p"}, mails.Info().Shared.LimitsBy)
		var u registry.Update
		u.SetLimits("mail", "p", many)
		u.SetWeight("chat", "p", 2)
		require.NoError(t, reg.Update(t.Context(), &u))
		require.Equal(t, status.ProviderID{Service: "mail", Name: "p"}, chat.Info().Shared.LimitsBy)
		require.Equal(t, 8, chat.Limits().MaxConcurrent)

		var refused registry.Update
		testkit.Chat.AddTo(&refused, testkit.Provider{Name: "p", Domain: "key", Limits: few, Instance: testkit.Says("x"), Replace: true})
		require.ErrorContains(t, reg.Update(t.Context(), &refused), `which provider "mail/p" set for domain "key"`)
		testkit.Chat.AddTo(&u, testkit.Provider{Name: "r", Domain: "key", Limits: few, Instance: testkit.Says("x")})
		require.ErrorIs(t, reg.Update(t.Context(), &u), registry.ErrConflict)

		_, err = registry.Call(t.Context(), mail.Bind(reg, registry.Query{}), func(context.Context, testkit.ChatModel) (string, error) {
			return "", verdict.RateLimited(testkit.ErrDown, time.Minute)
		})
		require.Error(t, err)
		require.Equal(t, status.ProviderID{Service: "mail", Name: "p"}, chat.Info().Cooldown.By)
	})
}

// A component that registers providers of one name waits for each of them, and says which one it waits for.
func TestNames_TellProvidersOfComponentsApart(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		down := health.Policy{Probe: func(context.Context) error { return testkit.ErrDown }, Fall: 1, Interval: time.Second}
		register := []func(context.Context, *registry.Registry) (*registry.Registration, error){
			func(ctx context.Context, reg *registry.Registry) (*registry.Registration, error) {
				return testkit.Chat.Register(ctx, reg, testkit.Provider{Name: "p", Instance: testkit.Says("x")})
			},
			func(ctx context.Context, reg *registry.Registry) (*registry.Registration, error) {
				return mail.Register(ctx, reg, testkit.Provider{Name: "p", Instance: testkit.Says("x"), Health: down})
			},
		}
		o, err := registry.NewOrchestrator(reg, startup.Options{StartTimeout: 5 * time.Second},
			registry.Component{Name: "both", Register: register})
		require.NoError(t, err)
		_, err = o.Start(t.Context())
		require.ErrorIs(t, err, registry.ErrNotReady)
		require.ErrorContains(t, err, `provider "mail/p"`)
		require.NotContains(t, err.Error(), `provider "chat/p"`)
		synctest.Wait()
		require.NoError(t, testkit.StopInTime(t, o))
	})
}

package registry_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/event"
	"github.com/capreg/registry/internal/testkit"
	"github.com/capreg/registry/reason"
	"github.com/capreg/registry/status"
	"github.com/capreg/registry/verdict"
)

func namesOf(handles []*registry.Registration) (names []string) {
	for _, h := range handles {
		names = append(names, h.Name())
	}
	return names
}

func TestRegistrations_AreTheHandlesOfAllOrOfServices(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a := testkit.Add(t, reg, testkit.Provider{Name: "a", Group: 1})
		testkit.Add(t, reg, testkit.Provider{Name: "b"})
		other := registry.NewService[int]("other")
		_, err := other.Register(t.Context(), reg, registry.Provider[int]{Name: "o", Instance: 1})
		require.NoError(t, err)
		require.Equal(t, []string{"b", "a", "o"}, namesOf(reg.Registrations()))
		require.Equal(t, []string{"o"}, namesOf(reg.Registrations("other")))
		require.Equal(t, []string{"b", "a", "o"}, namesOf(reg.Registrations("other", "chat")))
		require.Empty(t, reg.Registrations("unknown"))
		undo, err := testkit.Chat.Testing(reg).Swap("test", "a", testkit.Says("fake"))
		require.NoError(t, err)
		require.NoError(t, undo(t.Context()))
		require.NoError(t, reg.Registrations("chat")[1].MarkUnhealthy(testkit.ErrDown))
		require.Error(t, a.Health().Err, "the handle of the original")
		require.Empty(t, new(registry.Registry).Registrations())
	})
}

func TestReset_ClosesWhatKeepsProvidersAway(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		limited := verdict.RateLimited(testkit.ErrDown, time.Hour)
		open := testkit.Add(t, reg, testkit.Provider{Name: "open"})
		testkit.Add(t, reg, testkit.Provider{Name: "cooling", Group: 1, Instance: testkit.Fails(limited)})
		testkit.Add(t, reg, testkit.Provider{Name: "well", Group: 2})
		other := registry.NewService[int]("other")
		o, err := other.Register(t.Context(), reg, registry.Provider[int]{Name: "o", Instance: 1})
		require.NoError(t, err)
		require.NoError(t, o.ForceOpen(time.Hour, "test"))
		require.NoError(t, open.ForceOpen(time.Hour, "test"))
		require.Equal(t, "well", testkit.MustAsk(t, testkit.Bind(reg)), "after the one that cools down")
		ill := testkit.Add(t, reg, testkit.Provider{Name: "ill"})
		require.NoError(t, ill.MarkUnhealthy(testkit.ErrDown))

		events := reg.Subscribe(0)
		require.Equal(t, []string{"open", "cooling"}, reg.Reset("chat"))
		require.Equal(t, []event.Kind{event.BreakerClosed, event.CooldownEnded}, testkit.Kinds(t, events))
		require.Equal(t, "open", testkit.MustAsk(t, testkit.Bind(reg)))
		require.Equal(t, status.BreakerOpen, o.Breaker().State, "of another service")
		require.Equal(t, []string{"o"}, reg.Reset())
		require.Empty(t, reg.Reset())
		require.Empty(t, reg.Reset("unknown"))
		require.Error(t, ill.Health().Err, "health stays as it is")
	})
}

func TestQuery_OnlyAsksThoseItNames(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		for _, name := range []string{"a", "b", "c"} {
			testkit.Add(t, reg, testkit.Provider{Name: name})
		}
		r := testkit.Chat.Bind(reg, registry.Query{Only: []string{"c", "b"}})
		require.Equal(t, "b", testkit.MustAsk(t, r))
		all, err := r.GetAll(t.Context(), 0)
		require.NoError(t, err)
		require.Len(t, all, 2)
		codes := map[string]reason.Code{}
		for _, c := range r.Explain().Candidates {
			codes[c.Provider] = c.Code
		}
		require.Equal(t, map[string]reason.Code{"a": reason.Excluded, "b": reason.Eligible, "c": reason.Eligible}, codes)

		_, err = testkit.Chat.Bind(reg, registry.Query{Only: []string{"x"}}).Get(t.Context())
		require.ErrorContains(t, err, `service "chat" of x: a: not among those that the query names`)
		_, err = testkit.Chat.Bind(reg, registry.Query{Only: []string{""}}).Get(t.Context())
		require.ErrorIs(t, err, registry.ErrInvalid)

		undo, err := testkit.Chat.Testing(reg).Override("test", testkit.Provider{Name: "fake", Instance: testkit.Says("fake")})
		require.NoError(t, err)
		require.Equal(t, "fake", testkit.MustAsk(t, r), "a test's provider meets every requirement")
		require.NoError(t, undo(context.Background()))
	})
}

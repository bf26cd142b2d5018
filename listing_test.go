package registry_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/event"
	"github.com/capreg/registry/health"
	"github.com/capreg/registry/internal/testkit"
	"github.com/capreg/registry/reason"
	"github.com/capreg/registry/selection"
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
		require.Equal(t, []status.ProviderID{{Service: "chat", Name: "open"}, {Service: "chat", Name: "cooling"}}, reg.Reset("chat"))
		require.Equal(t, []event.Kind{event.BreakerClosed, event.CooldownEnded}, testkit.Kinds(t, events))
		require.Equal(t, "open", testkit.MustAsk(t, testkit.Bind(reg)))
		require.Equal(t, status.BreakerOpen, o.Breaker().State, "of another service")
		require.Equal(t, []status.ProviderID{{Service: "other", Name: "o"}}, reg.Reset())
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

func TestDiscover_AcceptsByTheCriteriaOfTheQuery(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		testkit.Add(t, reg, testkit.Provider{Name: "global", Version: "2.0", Tags: []string{"gpu"}})
		testkit.Add(t, reg, testkit.Provider{Name: "own", Handler: "h", Cost: 3, Region: "eu"})
		testkit.Add(t, reg, testkit.Provider{Name: "other", Handler: "g", Version: "1.0"})
		for _, row := range []struct {
			query registry.Query
			want  []string
		}{
			{registry.Query{}, []string{"other", "own", "global"}},
			{registry.Query{Handler: "*"}, []string{"global"}},
			{registry.Query{Handler: "h"}, []string{"own", "global"}},
			{registry.Query{Handler: "h", OwnOnly: true}, []string{"own"}},
			{registry.Query{Handler: "unknown"}, []string{"global"}},
			{registry.Query{Only: []string{"own", "nothing"}}, []string{"own"}},
			{registry.Query{Where: selection.Requirements{Tags: []string{"gpu"}}}, []string{"global"}},
			{registry.Query{Where: selection.Requirements{MinVersion: "1.5"}}, []string{"global"}},
			{registry.Query{Where: selection.Requirements{MaxCost: 2}}, []string{"other", "global"}},
			{registry.Query{Where: selection.Requirements{Regions: []string{"eu"}, Exclude: []string{"own"}}}, nil},
			{registry.Query{
				Where: selection.Requirements{MaxLatency: 1}, Prefer: []string{"gpu"}, Near: "eu", Key: "k", TryRefused: true,
			}, []string{"other", "own", "global"}},
		} {
			found, err := reg.Discover(row.query)
			require.NoError(t, err)
			require.Equal(t, row.want, testkit.Names(found), "%+v", row.query)
		}
	})
}

func TestDiscover_FiltersByHealth(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		testkit.Add(t, reg, testkit.Provider{Name: "well"})
		ill := testkit.Add(t, reg, testkit.Provider{Name: "ill"})
		testkit.Add(t, reg, testkit.Provider{Name: "starting", Health: health.Policy{Probe: func(context.Context) error { return errors.New("not yet") }}})
		require.NoError(t, ill.MarkUnhealthy(errors.New("no route")))
		synctest.Wait()
		names := func(states ...health.State) []string {
			found, err := reg.Discover(registry.Query{}, states...)
			require.NoError(t, err)
			return testkit.Names(found)
		}
		require.Equal(t, []string{"well", "ill", "starting"}, names())
		require.Equal(t, []string{"well"}, names(health.Healthy, health.Degraded))
		require.Equal(t, []string{"ill", "starting"}, names(health.Unhealthy, health.Starting))
		require.Empty(t, names(health.Draining))
	})
}

func TestDiscover_RefusesBadInputAndClosedRegistries(t *testing.T) {
	t.Parallel()
	reg := testkit.New(t, registry.Options{})
	_, err := reg.Discover(registry.Query{Handler: " h"})
	require.ErrorIs(t, err, registry.ErrInvalid)
	require.ErrorContains(t, err, "Query.Handler")
	_, err = reg.Discover(registry.Query{Where: selection.Requirements{MaxCost: -1}})
	require.ErrorIs(t, err, registry.ErrInvalid)
	require.ErrorContains(t, err, "Query.Where.MaxCost")
	_, err = reg.Discover(registry.Query{}, health.Healthy, 9)
	require.ErrorIs(t, err, registry.ErrInvalid)
	require.ErrorContains(t, err, "states[1]")
	require.NoError(t, reg.Close(t.Context()))
	_, err = reg.Discover(registry.Query{})
	require.ErrorIs(t, err, registry.ErrClosed)
	_, err = (*registry.Registry)(nil).Discover(registry.Query{})
	require.ErrorIs(t, err, registry.ErrInvalid)
}

func TestDiscover_FindsByCapabilityAcrossServices(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		memory := registry.NewService[func() string]("a memory")
		testkit.Add(t, reg, testkit.Provider{Name: "chatter", Capabilities: []string{"chat", "recall"}})
		_, err := memory.Register(t.Context(), reg, registry.Provider[func() string]{
			Name: "store", Capabilities: []string{"recall"}, Instance: func() string { return "" },
		})
		require.NoError(t, err)
		testkit.Add(t, reg, testkit.Provider{Name: "handled", Handler: "h", Capabilities: []string{"recall"}})
		require.Equal(t, []string{"store", "handled", "chatter"}, testkit.Discovered(t, reg, "recall"))
		require.Equal(t, []string{"chatter"}, testkit.Discovered(t, reg, "recall", "chat"))
		require.Equal(t, []string{"store", "handled", "chatter"}, testkit.Discovered(t, reg))
		require.Empty(t, testkit.Discovered(t, reg, "nothing"))
		require.Empty(t, testkit.Discovered(t, reg, "recall", "nothing"))
		store, _ := reg.Provider(memory.Name(), "store")
		require.NoError(t, store.Unregister(t.Context()))
		require.Equal(t, []string{"handled", "chatter"}, testkit.Discovered(t, reg, "recall"))
	})
}

package registry_test

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/verdict"
)

// order returns the names in the order in which a call asks them when each
// passes it on.
func order(t *testing.T, reg *registry.Registry, q registry.Query) []string {
	t.Helper()
	var asked []string
	_, err := registry.Call(t.Context(), chat.Bind(reg, q), func(ctx context.Context, m chatModel) (string, error) {
		name, err := m.Chat(ctx, "")
		asked = append(asked, name)
		return "", errors.Join(err, verdict.As(errDown, verdict.Verdict{Class: verdict.ClassCannot}))
	})
	require.Error(t, err)
	return asked
}

func names(infos []registry.Info) []string {
	var all []string
	for _, info := range infos {
		all = append(all, info.Name)
	}
	return all
}

func TestGroupsAscendThenPrioritiesThenRegistration(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		for _, p := range []provider{
			{Name: "late", Group: 7, Priority: registry.PriorityCritical},
			{Name: "normal-1"},
			{Name: "fallback", Priority: registry.PriorityFallback},
			{Name: "normal-2"},
			{Name: "critical", Priority: registry.PriorityCritical},
			{Name: "low", Priority: registry.PriorityLow},
			{Name: "early", Group: -3, Priority: registry.PriorityFallback},
			{Name: "high", Priority: registry.PriorityHigh},
		} {
			add(t, reg, p)
		}
		want := []string{"early", "critical", "high", "normal-1", "normal-2", "low", "fallback", "late"}
		require.Equal(t, want, order(t, reg, registry.Query{}))
		require.Equal(t, want, names(reg.Discover()))
		var listed, explained, many []string
		for info := range reg.All() {
			listed = append(listed, info.Name)
		}
		for _, c := range bind(reg).Explain().Candidates {
			explained = append(explained, c.Provider)
		}
		all, err := bind(reg).Many(t.Context(), 0)
		require.NoError(t, err)
		for _, m := range all {
			name, _ := m.Chat(t.Context(), "")
			many = append(many, name)
		}
		require.Equal(t, want, listed)
		require.Equal(t, want, explained)
		require.Equal(t, want, many)
	})
}

func TestFallbackGivesTheFirstEligibleAndReturnsToItWhenItRecovers(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a := add(t, reg, provider{Name: "a", Priority: registry.PriorityHigh})
		b := add(t, reg, provider{Name: "b"})
		add(t, reg, provider{Name: "c", Group: 1})
		r := bind(reg)
		for range 5 {
			require.Equal(t, "a", got(t, r))
		}
		require.NoError(t, a.MarkUnhealthy(errDown))
		require.NoError(t, b.ForceOpen(time.Minute, "test"))
		require.Equal(t, "c", got(t, r))
		require.NoError(t, b.Reset())
		require.Equal(t, "b", got(t, r))
		require.NoError(t, a.MarkHealthy())
		require.Equal(t, "a", got(t, r))
	})
}

func TestRequiredCapabilitiesAreAllNeededAndComparedExactly(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		add(t, reg, provider{Name: "a", Capabilities: []string{"chat"}})
		add(t, reg, provider{Name: "b", Capabilities: []string{"chat", "tools-v2"}})
		add(t, reg, provider{Name: "c", Capabilities: []string{"tools", "chat", "vision"}})
		require.Equal(t, "a", got(t, bind(reg)))
		require.Equal(t, "c", got(t, bind(reg, "tools")))
		require.Equal(t, "c", got(t, bind(reg, "vision", "chat", "vision")))
		for _, near := range []string{"Tools", "tool", "tools-v", "chat tools"} {
			_, err := bind(reg, near).Get(t.Context())
			require.ErrorIs(t, err, registry.ErrNoCapability, near)
		}
		_, err := bind(reg, "tools", "tools-v2").Get(t.Context())
		require.ErrorIs(t, err, registry.ErrNoCapability)
	})
}

func TestHandlersSeeTheirOwnProvidersBeforeTheGlobalOnes(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		add(t, reg, provider{Name: "global", Priority: registry.PriorityCritical, Group: -1})
		add(t, reg, provider{Name: "star", Handler: "*"})
		add(t, reg, provider{Name: "own", Handler: "speak", Priority: registry.PriorityFallback, Group: 9})
		add(t, reg, provider{Name: "other", Handler: "listen"})
		require.Equal(t, []string{"own", "global", "star"}, order(t, reg, registry.Query{Handler: "speak"}))
		require.Equal(t, []string{"own"}, order(t, reg, registry.Query{Handler: "speak", OwnOnly: true}))
		require.Equal(t, []string{"global", "star"}, order(t, reg, registry.Query{Handler: "*"}))
		require.Equal(t, []string{"global", "star"}, order(t, reg, registry.Query{}))
		require.Equal(t, []string{"global", "star"}, order(t, reg, registry.Query{Handler: "unheard of"}))
		_, err := chat.Get(t.Context(), reg, registry.Query{Handler: "unheard of", OwnOnly: true})
		require.ErrorIs(t, err, registry.ErrUnavailable)
		require.NotErrorIs(t, err, registry.ErrUnknownService)
		require.ErrorContains(t, err, "for handler unheard of alone")
		star, ok := reg.Provider("star")
		require.True(t, ok)
		require.Empty(t, star.Definition().Handler)
	})
}

func TestGroupsOfHandlersHaveTheirOwnStrategies(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		add(t, reg, provider{Name: "a"})
		add(t, reg, provider{Name: "b"})
		add(t, reg, provider{Name: "x", Handler: "h", Strategy: registry.StrategyRoundRobin})
		add(t, reg, provider{Name: "y", Handler: "h"})
		own, global := chat.Bind(reg, registry.Query{Handler: "h"}), bind(reg)
		var turns []string
		for range 3 {
			turns = append(turns, got(t, own), got(t, global))
		}
		require.Equal(t, []string{"x", "a", "y", "a", "x", "a"}, turns)
	})
}

func TestNothingToGiveIsOneErrorThatMatchesEveryCausePresent(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		r := bind(reg, "tools")
		_, err := r.Get(t.Context())
		require.ErrorIs(t, err, registry.ErrUnavailable)
		require.ErrorIs(t, err, registry.ErrUnknownService)

		errSick := errors.New("disk full\non host 7")
		tools := []string{"tools"}
		add(t, reg, provider{Name: "lacking"})
		sick := add(t, reg, provider{Name: "sick", Capabilities: tools})
		require.NoError(t, sick.MarkUnhealthy(errSick))
		open := add(t, reg, provider{Name: "open", Capabilities: tools})
		require.NoError(t, open.ForceOpen(time.Minute, "maintenance"))
		add(t, reg, provider{Name: "limited", Capabilities: tools, Instance: fails(verdict.RateLimited(errDown, 20*time.Second))})
		_, err = ask(t.Context(), r)
		require.Error(t, err)

		_, err = r.Get(t.Context())
		for _, cause := range []error{
			registry.ErrUnavailable, registry.ErrNoCapability, registry.ErrUnhealthy, errSick,
			registry.ErrBreakerOpen, registry.ErrCoolingDown, errDown,
		} {
			require.ErrorIs(t, err, cause)
		}
		for _, absent := range []error{registry.ErrUnknownService, registry.ErrClosed, registry.ErrCredentials, registry.ErrInvalid} {
			require.NotErrorIs(t, err, absent)
		}
		requireOneLine(t, err)
		var unavailable *registry.UnavailableError
		require.ErrorAs(t, err, &unavailable)
		require.Equal(t, "chat", unavailable.Service)
		require.Equal(t, []string{"tools"}, unavailable.Query.Require)
		reasons := map[string]string{}
		for _, c := range unavailable.Candidates {
			reasons[c.Provider] = c.Code
		}
		require.Equal(t, map[string]string{
			"lacking": "capability_missing", "sick": "unhealthy", "open": "breaker_open", "limited": "cooling_down",
		}, reasons)
		require.GreaterOrEqual(t, unavailable.RetryIn, 20*time.Second)
		require.LessOrEqual(t, unavailable.RetryIn, 22*time.Second)
		for _, part := range []string{"maintenance", "disk full", `"tools"`, "retry in"} {
			require.ErrorContains(t, err, part)
		}

		require.NoError(t, reg.Close(t.Context()))
		_, err = r.Get(t.Context())
		require.ErrorIs(t, err, registry.ErrUnavailable)
		require.ErrorIs(t, err, registry.ErrClosed)
	})
}

func TestErrorNamesAtMostSixteenCandidates(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		for i := range 40 {
			sick := add(t, reg, provider{Name: fmt.Sprintf("provider-%02d", i)})
			require.NoError(t, sick.MarkUnhealthy(errors.New(strings.Repeat("very long reason ", 1000))))
		}
		_, err := bind(reg).Get(t.Context())
		requireOneLine(t, err)
		require.Equal(t, 16, strings.Count(err.Error(), "provider-"))
		require.ErrorContains(t, err, "and 24 more")
		require.Less(t, len(err.Error()), 16*600)
		var unavailable *registry.UnavailableError
		require.ErrorAs(t, err, &unavailable)
		require.Len(t, unavailable.Candidates, 40)
	})
}

func TestManyGivesTheEligibleInOrderUpToALimit(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		for i, group := range []int{2, 0, 1, 0, 1} {
			add(t, reg, provider{Name: strconv.Itoa(i), Group: group})
		}
		second, _ := reg.Provider("3")
		require.NoError(t, second.MarkUnhealthy(errDown))
		r := bind(reg)
		many := func(limit int) (all []string) {
			instances, err := r.Many(t.Context(), limit)
			require.NoError(t, err)
			for _, m := range instances {
				name, _ := m.Chat(t.Context(), "")
				all = append(all, name)
			}
			return all
		}
		require.Equal(t, []string{"1", "2", "4", "0"}, many(0))
		require.Equal(t, []string{"1", "2", "4", "0"}, many(-1))
		require.Equal(t, []string{"1", "2"}, many(2))
		require.Equal(t, []string{"1", "2", "4", "0"}, many(100))
		_, err := bind(reg, "none has it").Many(t.Context(), 0)
		require.ErrorIs(t, err, registry.ErrNoCapability)
	})
}

func TestDiscoverFindsByCapabilityAcrossServices(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		memory := registry.NewService[func() string]("a memory")
		add(t, reg, provider{Name: "chatter", Capabilities: []string{"chat", "recall"}})
		_, err := memory.Register(t.Context(), reg, registry.Provider[func() string]{
			Name: "store", Capabilities: []string{"recall"}, Instance: func() string { return "" },
		})
		require.NoError(t, err)
		add(t, reg, provider{Name: "handled", Handler: "h", Capabilities: []string{"recall"}})
		require.Equal(t, []string{"store", "handled", "chatter"}, names(reg.Discover("recall")))
		require.Equal(t, []string{"chatter"}, names(reg.Discover("recall", "chat")))
		require.Equal(t, []string{"store", "handled", "chatter"}, names(reg.Discover()))
		require.Empty(t, reg.Discover("nothing"))
		require.Empty(t, reg.Discover("recall", "nothing"))
		store, _ := reg.Provider("store")
		require.NoError(t, store.Unregister(t.Context()))
		require.Equal(t, []string{"handled", "chatter"}, names(reg.Discover("recall")))
	})
}

func TestLookupsAreHitsPlusMisses(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		r, lacking := bind(reg), bind(reg, "vision")
		a := add(t, reg, provider{Name: "a"})
		ended, cancel := context.WithCancel(t.Context())
		cancel()

		_, _ = r.Get(t.Context())                                             // hit
		_, _ = chat.Get(t.Context(), reg, registry.Query{})                   // hit
		_, _ = r.Many(t.Context(), 0)                                         // hit
		_ = asked(t, r)                                                       // hit
		lease, _ := r.Acquire(t.Context())                                    // hit
		lease.Done(nil)                                                       //
		_, _ = lacking.Get(t.Context())                                       // miss
		_, _ = lacking.Many(t.Context(), 0)                                   // miss
		_, _ = lacking.Acquire(t.Context())                                   // miss
		_, _ = lacking.AcquireMany(t.Context(), 0)                            // miss
		_, _ = ask(t.Context(), lacking)                                      // miss
		_, _ = ask(ended, r)                                                  // miss
		_, _ = chat.Bind(reg, registry.Query{OwnOnly: true}).Get(t.Context()) // a bad query is no look-up
		_ = r.Explain()
		require.NoError(t, a.MarkUnhealthy(errDown))
		_, _ = r.Get(t.Context()) // miss

		stats := reg.Stats()
		require.Equal(t, uint64(5), stats.Hits)
		require.Equal(t, uint64(7), stats.Misses)
		require.Equal(t, stats.Lookups, stats.Hits+stats.Misses)
		require.Equal(t, []int{1, 1, 0}, []int{stats.Services, stats.Providers, stats.Eligible})
	})
}

func TestBadQueryIsAnErrorOfEachMethodOfTheResolver(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		add(t, reg, provider{Name: "a"})
		for field, q := range map[string]registry.Query{
			"Query.OwnOnly":    {OwnOnly: true},
			"Query.Handler":    {Handler: " h"},
			"Query.Require[1]": {Require: []string{"chat", ""}},
			"Query.Require[0]": {Require: []string{"\xff"}},
		} {
			r := chat.Bind(reg, q)
			_, get := r.Get(t.Context())
			_, many := r.Many(t.Context(), 0)
			_, acquire := r.Acquire(t.Context())
			_, acquireMany := r.AcquireMany(t.Context(), 0)
			_, call := ask(t.Context(), r)
			_, adHoc := chat.Get(t.Context(), reg, q)
			for _, err := range []error{get, many, acquire, acquireMany, call, adHoc, r.Explain().Err} {
				require.ErrorIs(t, err, registry.ErrInvalid, field)
				var bad *registry.FieldError
				require.ErrorAs(t, err, &bad)
				require.Equal(t, field, bad.Field)
			}
		}
		require.Zero(t, reg.Stats().Lookups)
	})
}

func TestEqualQueriesShareTheirPlanAndRotation(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		both := []string{"x", "y"}
		add(t, reg, provider{Name: "a", Strategy: registry.StrategyRoundRobin, Capabilities: both})
		add(t, reg, provider{Name: "b", Capabilities: both})
		require.Equal(t, "a", got(t, bind(reg, "x", "y")))
		require.Equal(t, "b", got(t, bind(reg, "y", "x")))
		require.Equal(t, "a", got(t, bind(reg, "y", "x", "y")))
		m, err := chat.Get(t.Context(), reg, registry.Query{Handler: "*", Require: []string{"x", "y"}})
		require.NoError(t, err)
		answer, _ := m.Chat(t.Context(), "")
		require.Equal(t, "b", answer)
	})
}

func TestMoreKindsOfQueryThanAreKeptAreAnsweredAllTheSame(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a := add(t, reg, provider{Name: "a"})
		add(t, reg, provider{Name: "b"})
		var kept []*registry.Resolver[chatModel]
		for i := range 1000 {
			kept = append(kept, chat.Bind(reg, registry.Query{Handler: strconv.Itoa(i)}))
		}
		for _, r := range kept {
			require.Equal(t, "a", got(t, r))
		}
		require.NoError(t, a.MarkUnhealthy(errDown))
		for _, r := range kept {
			require.Equal(t, "b", got(t, r))
		}
		require.NoError(t, a.Unregister(t.Context()))
		for _, r := range kept {
			require.Equal(t, "b", got(t, r))
		}
	})
}

func TestTheLastEligibleOfTenThousandIsFound(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		const many = 10_000
		handles := make([]*registry.Registration, many)
		for i := range handles {
			handles[i] = add(t, reg, provider{Name: strconv.Itoa(i), Group: i % 7, Strategy: strategyNumber(1 + i%7%2)})
		}
		r := bind(reg)
		require.Equal(t, "0", got(t, r))
		for i, handle := range handles {
			if i != many-1 {
				require.NoError(t, handle.MarkUnhealthy(errDown))
			}
		}
		require.Equal(t, strconv.Itoa(many-1), got(t, r))
		require.Equal(t, strconv.Itoa(many-1), asked(t, r))
		require.NoError(t, handles[many-1].MarkUnhealthy(errDown))
		_, err := r.Get(t.Context())
		require.ErrorIs(t, err, registry.ErrUnhealthy)
		require.NoError(t, handles[many/2].MarkHealthy())
		require.Equal(t, strconv.Itoa(many/2), got(t, r))
	})
}

func TestGetGivesOnlyProvidersWithClosedBreakersAndTellsNothingToThem(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a := add(t, reg, provider{Name: "a"})
		require.NoError(t, a.ForceOpen(time.Minute, "test"))
		pass(time.Minute + 1)
		require.Equal(t, registry.BreakerHalfOpen, a.Breaker().State)
		r := bind(reg)
		_, err := r.Get(t.Context())
		require.ErrorIs(t, err, registry.ErrBreakerOpen)
		require.ErrorContains(t, err, "half-open")
		require.Equal(t, "a", asked(t, r), "a call is a trial")
		before := a.Info()
		events := reg.Subscribe(0)
		_, _ = r.Get(t.Context())
		require.Equal(t, before, a.Info())
		require.Empty(t, kinds(t, events))
		events.Close()
	})
}

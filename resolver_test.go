package registry_test

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/internal/testkit"
	"github.com/capreg/registry/status"
)

func TestResolver_OrdersByGroupPriorityRegistration(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		for _, p := range []testkit.Provider{
			{Name: "late", Group: 7, Priority: registry.PriorityCritical},
			{Name: "normal-1"},
			{Name: "fallback", Priority: registry.PriorityFallback},
			{Name: "normal-2"},
			{Name: "critical", Priority: registry.PriorityCritical},
			{Name: "low", Priority: registry.PriorityLow},
			{Name: "early", Group: -3, Priority: registry.PriorityFallback},
			{Name: "high", Priority: registry.PriorityHigh},
		} {
			testkit.Add(t, reg, p)
		}
		want := []string{"early", "critical", "high", "normal-1", "normal-2", "low", "fallback", "late"}
		require.Equal(t, want, testkit.CallOrder(t, reg, registry.Query{}))
		require.Equal(t, want, testkit.Discovered(t, reg))
		var listed, explained, many []string
		for info := range reg.All() {
			listed = append(listed, info.Name)
		}
		for _, c := range testkit.Bind(reg).Explain().Candidates {
			explained = append(explained, c.Provider)
		}
		all, err := testkit.Bind(reg).GetAll(t.Context(), 0)
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

func TestFallback_ReturnsToFirstWhenItRecovers(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a := testkit.Add(t, reg, testkit.Provider{Name: "a", Priority: registry.PriorityHigh})
		b := testkit.Add(t, reg, testkit.Provider{Name: "b"})
		testkit.Add(t, reg, testkit.Provider{Name: "c", Group: 1})
		r := testkit.Bind(reg)
		for range 5 {
			require.Equal(t, "a", testkit.MustGet(t, r))
		}
		require.NoError(t, a.MarkUnhealthy(testkit.ErrDown))
		require.NoError(t, b.ForceOpen(time.Minute, "test"))
		require.Equal(t, "c", testkit.MustGet(t, r))
		require.NoError(t, b.Reset())
		require.Equal(t, "b", testkit.MustGet(t, r))
		require.NoError(t, a.MarkHealthy())
		require.Equal(t, "a", testkit.MustGet(t, r))
	})
}

func TestQuery_RequiresAllCapabilitiesExactly(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		testkit.Add(t, reg, testkit.Provider{Name: "a", Capabilities: []string{"chat"}})
		testkit.Add(t, reg, testkit.Provider{Name: "b", Capabilities: []string{"chat", "tools-v2"}})
		testkit.Add(t, reg, testkit.Provider{Name: "c", Capabilities: []string{"tools", "chat", "vision"}})
		require.Equal(t, "a", testkit.MustGet(t, testkit.Bind(reg)))
		require.Equal(t, "c", testkit.MustGet(t, testkit.Bind(reg, "tools")))
		require.Equal(t, "c", testkit.MustGet(t, testkit.Bind(reg, "vision", "chat", "vision")))
		for _, near := range []string{"Tools", "tool", "tools-v", "chat tools"} {
			_, err := testkit.Bind(reg, near).Get(t.Context())
			require.ErrorIs(t, err, registry.ErrNoCapability, near)
		}
		_, err := testkit.Bind(reg, "tools", "tools-v2").Get(t.Context())
		require.ErrorIs(t, err, registry.ErrNoCapability)
	})
}

func TestQuery_HandlerSeesOwnProvidersFirst(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		testkit.Add(t, reg, testkit.Provider{Name: "global", Priority: registry.PriorityCritical, Group: -1})
		testkit.Add(t, reg, testkit.Provider{Name: "star", Handler: "*"})
		testkit.Add(t, reg, testkit.Provider{Name: "own", Handler: "speak", Priority: registry.PriorityFallback, Group: 9})
		testkit.Add(t, reg, testkit.Provider{Name: "other", Handler: "listen"})
		require.Equal(t, []string{"own", "global", "star"}, testkit.CallOrder(t, reg, registry.Query{Handler: "speak"}))
		require.Equal(t, []string{"own"}, testkit.CallOrder(t, reg, registry.Query{Handler: "speak", OwnOnly: true}))
		require.Equal(t, []string{"global", "star"}, testkit.CallOrder(t, reg, registry.Query{Handler: "*"}))
		require.Equal(t, []string{"global", "star"}, testkit.CallOrder(t, reg, registry.Query{}))
		require.Equal(t, []string{"global", "star"}, testkit.CallOrder(t, reg, registry.Query{Handler: "unheard of"}))
		_, err := testkit.Chat.Get(t.Context(), reg, registry.Query{Handler: "unheard of", OwnOnly: true})
		require.ErrorIs(t, err, registry.ErrUnavailable)
		require.NotErrorIs(t, err, registry.ErrUnknownService)
		require.ErrorContains(t, err, "for handler unheard of alone")
		star, ok := reg.Provider("chat", "star")
		require.True(t, ok)
		require.Empty(t, star.Definition().Handler)
	})
}

func TestQuery_HandlerGroupsHaveOwnStrategies(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		testkit.Add(t, reg, testkit.Provider{Name: "a"})
		testkit.Add(t, reg, testkit.Provider{Name: "b"})
		testkit.Add(t, reg, testkit.Provider{Name: "x", Handler: "h", Strategy: registry.StrategyRoundRobin})
		testkit.Add(t, reg, testkit.Provider{Name: "y", Handler: "h"})
		own, global := testkit.Chat.Bind(reg, registry.Query{Handler: "h"}), testkit.Bind(reg)
		var turns []string
		for range 3 {
			turns = append(turns, testkit.MustGet(t, own), testkit.MustGet(t, global))
		}
		require.Equal(t, []string{"x", "a", "y", "a", "x", "a"}, turns)
	})
}

func TestGetAll_ReturnsEligibleInOrderUpToLimit(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		for i, group := range []int{2, 0, 1, 0, 1} {
			testkit.Add(t, reg, testkit.Provider{Name: strconv.Itoa(i), Group: group})
		}
		second, _ := reg.Provider("chat", "3")
		require.NoError(t, second.MarkUnhealthy(testkit.ErrDown))
		r := testkit.Bind(reg)
		many := func(limit int) (all []string) {
			instances, err := r.GetAll(t.Context(), limit)
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
		_, err := testkit.Bind(reg, "none has it").GetAll(t.Context(), 0)
		require.ErrorIs(t, err, registry.ErrNoCapability)
	})
}

func TestGetAll_EndedContextIsAnError(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		testkit.Add(t, reg, testkit.Provider{Name: "p", Factory: func(ctx context.Context) (testkit.ChatModel, error) { <-ctx.Done(); return nil, ctx.Err() }})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := testkit.Bind(reg).Get(ctx)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		_, err = testkit.Bind(reg).GetAll(ctx, 0)
		require.ErrorIs(t, err, context.DeadlineExceeded)
	})
}

func TestStats_LookupsAreHitsPlusMisses(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		r, lacking := testkit.Bind(reg), testkit.Bind(reg, "vision")
		a := testkit.Add(t, reg, testkit.Provider{Name: "a"})
		ended, cancel := context.WithCancel(t.Context())
		cancel()

		_, _ = r.Get(t.Context())                                                     // hit
		_, _ = testkit.Chat.Get(t.Context(), reg, registry.Query{})                   // hit
		_, _ = r.GetAll(t.Context(), 0)                                               // hit
		_ = testkit.MustAsk(t, r)                                                     // hit
		lease, _ := r.Acquire(t.Context())                                            // hit
		lease.Done(nil)                                                               //
		_, _ = lacking.Get(t.Context())                                               // miss
		_, _ = lacking.GetAll(t.Context(), 0)                                         // miss
		_, _ = lacking.Acquire(t.Context())                                           // miss
		_, _ = lacking.AcquireAll(t.Context(), 0)                                     // miss
		_, _ = testkit.Ask(t.Context(), lacking)                                      // miss
		_, _ = testkit.Ask(ended, r)                                                  // miss
		_, _ = testkit.Chat.Bind(reg, registry.Query{OwnOnly: true}).Get(t.Context()) // a bad query is no look-up
		_ = r.Explain()
		require.NoError(t, a.MarkUnhealthy(testkit.ErrDown))
		_, _ = r.Get(t.Context()) // miss

		stats := reg.Stats()
		require.Equal(t, uint64(5), stats.Hits)
		require.Equal(t, uint64(7), stats.Misses)
		require.Equal(t, stats.Lookups, stats.Hits+stats.Misses)
		require.Equal(t, []int{1, 1, 0}, []int{stats.Services, stats.Providers, stats.Eligible})
	})
}

func TestQuery_BadIsAnErrorOfEveryMethod(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		testkit.Add(t, reg, testkit.Provider{Name: "a"})
		for field, q := range map[string]registry.Query{
			"Query.OwnOnly":    {OwnOnly: true},
			"Query.Handler":    {Handler: " h"},
			"Query.Require[1]": {Require: []string{"chat", ""}},
			"Query.Require[0]": {Require: []string{"\xff"}},
		} {
			r := testkit.Chat.Bind(reg, q)
			_, get := r.Get(t.Context())
			_, many := r.GetAll(t.Context(), 0)
			_, acquire := r.Acquire(t.Context())
			_, acquireMany := r.AcquireAll(t.Context(), 0)
			_, call := testkit.Ask(t.Context(), r)
			_, adHoc := testkit.Chat.Get(t.Context(), reg, q)
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

func TestQuery_EqualQueriesSharePlanAndRotation(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		both := []string{"x", "y"}
		testkit.Add(t, reg, testkit.Provider{Name: "a", Strategy: registry.StrategyRoundRobin, Capabilities: both})
		testkit.Add(t, reg, testkit.Provider{Name: "b", Capabilities: both})
		require.Equal(t, "a", testkit.MustGet(t, testkit.Bind(reg, "x", "y")))
		require.Equal(t, "b", testkit.MustGet(t, testkit.Bind(reg, "y", "x")))
		require.Equal(t, "a", testkit.MustGet(t, testkit.Bind(reg, "y", "x", "y")))
		m, err := testkit.Chat.Get(t.Context(), reg, registry.Query{Handler: "*", Require: []string{"x", "y"}})
		require.NoError(t, err)
		answer, _ := m.Chat(t.Context(), "")
		require.Equal(t, "b", answer)
	})
}

func TestQuery_MoreThanCachedAreAnswered(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a := testkit.Add(t, reg, testkit.Provider{Name: "a"})
		testkit.Add(t, reg, testkit.Provider{Name: "b"})
		var kept []*registry.Resolver[testkit.ChatModel]
		for i := range 1000 {
			kept = append(kept, testkit.Chat.Bind(reg, registry.Query{Handler: strconv.Itoa(i)}))
		}
		for _, r := range kept {
			require.Equal(t, "a", testkit.MustGet(t, r))
		}
		require.NoError(t, a.MarkUnhealthy(testkit.ErrDown))
		for _, r := range kept {
			require.Equal(t, "b", testkit.MustGet(t, r))
		}
		require.NoError(t, a.Unregister(t.Context()))
		for _, r := range kept {
			require.Equal(t, "b", testkit.MustGet(t, r))
		}
	})
}

func TestQuery_EqualQueriesShareTurnsBeyondCache(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		for _, n := range []string{"a", "b", "c"} {
			testkit.Add(t, reg, testkit.Provider{Name: n, Strategy: registry.StrategyRoundRobin})
		}
		r1 := testkit.Bind(reg)
		for i := range 256 {
			testkit.Chat.Bind(reg, registry.Query{Handler: "h" + strconv.Itoa(i)})
		}
		r2 := testkit.Bind(reg)
		var answers []string
		for range 3 {
			answers = append(answers, testkit.MustAsk(t, r1), testkit.MustAsk(t, r2))
		}
		require.Equal(t, []string{"a", "b", "c", "a", "b", "c"}, answers)
	})
}

func TestQuery_EvictionLeavesOthersUpToDate(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		testkit.Add(t, reg, testkit.Provider{Name: "old", Priority: registry.PriorityLow})
		var resolvers []*registry.Resolver[testkit.ChatModel]
		for i := range 300 { // more than keep their plans
			resolvers = append(resolvers, testkit.Chat.Bind(reg, registry.Query{Handler: fmt.Sprint("h", i)}))
			require.Equal(t, "old", testkit.MustAsk(t, resolvers[i]))
		}
		testkit.Add(t, reg, testkit.Provider{Name: "new", Priority: registry.PriorityHigh})
		for _, r := range resolvers {
			require.Equal(t, "new", testkit.MustAsk(t, r))
		}
	})
}

func TestQuery_IsACopy(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		testkit.Add(t, reg, testkit.Provider{Name: "p", Capabilities: []string{"a"}})
		r := testkit.Bind(reg, "a")
		e := r.Explain()
		e.Query.Require[0] = "zzz"
		testkit.Add(t, reg, testkit.Provider{Name: "q", Capabilities: []string{"a"}})
		_, err := testkit.Ask(t.Context(), r)
		require.NoError(t, err)
	})
}

func TestGet_FindsLastEligibleOfTenThousand(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		const many = 10_000
		handles := make([]*registry.Registration, many)
		for i := range handles {
			handles[i] = testkit.Add(t, reg, testkit.Provider{Name: strconv.Itoa(i), Group: i % 7, Strategy: testkit.StrategyNumber(1 + i%7%2)})
		}
		r := testkit.Bind(reg)
		require.Equal(t, "0", testkit.MustGet(t, r))
		for i, handle := range handles {
			if i != many-1 {
				require.NoError(t, handle.MarkUnhealthy(testkit.ErrDown))
			}
		}
		require.Equal(t, strconv.Itoa(many-1), testkit.MustGet(t, r))
		require.Equal(t, strconv.Itoa(many-1), testkit.MustAsk(t, r))
		require.NoError(t, handles[many-1].MarkUnhealthy(testkit.ErrDown))
		_, err := r.Get(t.Context())
		require.ErrorIs(t, err, registry.ErrUnhealthy)
		require.NoError(t, handles[many/2].MarkHealthy())
		require.Equal(t, strconv.Itoa(many/2), testkit.MustGet(t, r))
	})
}

func TestGet_ReturnsOnlyClosedBreakersWithoutTrial(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a := testkit.Add(t, reg, testkit.Provider{Name: "a"})
		require.NoError(t, a.ForceOpen(time.Minute, "test"))
		testkit.Pass(time.Minute + 1)
		require.Equal(t, status.BreakerHalfOpen, a.Breaker().State)
		r := testkit.Bind(reg)
		_, err := r.Get(t.Context())
		require.ErrorIs(t, err, registry.ErrBreakerOpen)
		require.ErrorContains(t, err, "half-open")
		require.Equal(t, "a", testkit.MustAsk(t, r), "a call is a trial")
		before := a.Info()
		events := reg.Subscribe(0)
		_, _ = r.Get(t.Context())
		require.Equal(t, before, a.Info())
		require.Empty(t, testkit.Kinds(t, events))
		events.Close()
	})
}

func TestQuery_HandlerAndCapabilityAreNotMixedUp(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		for _, name := range []string{"a", "b", "c"} {
			testkit.Add(t, reg, testkit.Provider{Name: name, Capabilities: []string{"x", "y"}, Strategy: registry.StrategyRoundRobin})
		}
		var seen strings.Builder
		for range 6 {
			for _, q := range []registry.Query{{Handler: "x", Require: []string{"y"}}, {Handler: "y", Require: []string{"x"}}} {
				m, err := testkit.Chat.Get(t.Context(), reg, q)
				require.NoError(t, err)
				answer, err := m.Chat(t.Context(), "?")
				require.NoError(t, err)
				if q.Handler == "x" {
					seen.WriteString(answer)
				}
			}
		}
		require.Equal(t, "abcabc", seen.String())
	})
}

// A query asks the same in any order of its words; a bad one is an error of every method.
func FuzzQueryInJSON(f *testing.F) {
	for _, text := range []string{
		`{}`, `{"handler":"h","own_only":true}`, `{"own_only":true}`, `{"require":["x","y","x"]}`, `{"require":[""]}`, `{"handler":"*"}`,
		`{"try_refused":true,"near":"eu-west-1","prefer":["a","b"]}`, `{"where":{"max_cost":-1}}`, `{"where":{"min_version":"v1.2.3-rc.1+b","tags":["t"],"regions":["r"],"exclude":["p"]}}`,
		`{"where":{"max_latency":1}}`, `{"require":["a\nb"]}`, `{"handler":"a\u2028b"}`, `{"handler":" h"}`,
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		var q registry.Query
		if json.Unmarshal(text, &q) != nil {
			return
		}
		reg := testkit.New(t, registry.Options{})
		handler := strings.Join(words([]string{q.Handler}), "") // none where the query's is a bad one
		testkit.Add(t, reg, testkit.Provider{Name: "a", Strategy: registry.StrategyRoundRobin, Handler: handler, Capabilities: words(q.Require)})
		testkit.Add(t, reg, testkit.Provider{Name: "b", Handler: handler, Capabilities: words(q.Require)})
		r := testkit.Chat.Bind(reg, q)
		e := r.Explain()
		_, getErr := r.Get(t.Context())
		_, callErr := testkit.Ask(t.Context(), r)
		require.Equal(t, getErr == nil, callErr == nil, "%v, %v", getErr, callErr)
		if getErr != nil {
			testkit.RequireOneLine(t, getErr)
			require.Empty(t, e.Winner)
			return
		}
		slices.Reverse(q.Require)
		slices.Reverse(q.Prefer)
		require.Equal(t, r.Explain().Winner, testkit.Chat.Bind(reg, q).Explain().Winner, "they share their turns")
		_, err := json.Marshal(e)
		require.NoError(t, err)
		require.NotContains(t, q.String(), "\n")
		require.Len(t, strings.Split(e.String(), "\n"), 1+len(e.Candidates), "a line for each candidate")
	})
}

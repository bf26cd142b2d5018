package registry_test

import (
	"context"
	"encoding/json"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/internal/testkit"
	"github.com/capreg/registry/reason"
	"github.com/capreg/registry/selection"
	"github.com/capreg/registry/selectors"
)

func TestAnalytics_CountsSharesMissesAndFailovers(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		_, ok := reg.Analytics("chat")
		require.False(t, ok)
		_, _ = testkit.Bind(reg).Get(t.Context())
		a := testkit.Add(t, reg, testkit.Provider{Name: "a", Instance: testkit.Fails(testkit.ErrDown), Breaker: registry.BreakerPolicy{FailureThreshold: 3}})
		b := testkit.Add(t, reg, testkit.Provider{Name: "b", Group: 1, Weight: 2, Strategy: selectors.Random()})
		r := testkit.Bind(reg)
		for range 5 {
			require.Equal(t, "b", testkit.MustAsk(t, r)) // three of them after a has failed
		}
		_, _ = testkit.Bind(reg, "none has it").Get(t.Context())
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		_, _ = testkit.Ask(ended, r)
		require.NoError(t, b.MarkUnhealthy(testkit.ErrDown))
		_, _ = r.Get(t.Context())
		_, _ = testkit.Ask(t.Context(), r)
		_, _ = r.Acquire(t.Context())
		_, _ = r.GetAll(t.Context(), 0)
		_, _ = r.AcquireAll(t.Context(), 0)
		got, ok := reg.Analytics("chat")
		require.True(t, ok)
		require.Equal(t, selection.Analytics{
			Service: "chat", Lookups: 13, Hits: 5, Misses: 8,
			MissesByReason: map[reason.Code]uint64{
				reason.UnknownService: 1, reason.CapabilityMissing: 1, reason.ContextEnded: 1, reason.BreakerOpen: 5, reason.Unhealthy: 5,
			},
			Attempts: 8, Failovers: 3,
			Providers: []selection.Share{
				{Provider: "a", Weight: 1, Attempts: 3, Share: 3.0 / 8},
				{Provider: "b", Group: 1, Weight: 2, Attempts: 5, Share: 5.0 / 8, TookOver: 3},
			},
			Groups: []selection.GroupFaults{{Strategy: registry.StrategyFallback}, {Group: 1, Strategy: b.Info().Strategy}},
		}, got)
		again, _ := reg.Analytics("chat")
		require.Equal(t, got, again, "reading changes nothing")
		require.Equal(t, got.Hits, reg.Stats().Hits)
		require.Equal(t, got.Misses, reg.Stats().Misses)
		_, err := json.Marshal(got)
		require.NoError(t, err)
		require.NoError(t, a.Unregister(t.Context()))
		got, _ = reg.Analytics("chat")
		require.InDelta(t, 1, got.Providers[0].Share, 0)
		require.NoError(t, reg.Close(t.Context()))
		_, _ = r.Get(t.Context())
		got, _ = reg.Analytics("chat")
		require.Equal(t, uint64(1), got.MissesByReason[reason.Closed])
	})
}

func TestDecisions_KeepsTheLatest(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{Decisions: 4}, func(t *testing.T, reg *registry.Registry) {
		require.Empty(t, reg.Decisions())
		testkit.Add(t, reg, testkit.Provider{Name: "a", Instance: testkit.Fails(testkit.ErrDown)})
		testkit.Add(t, reg, testkit.Provider{Name: "b"})
		sick := testkit.Add(t, reg, testkit.Provider{Name: "c"})
		require.NoError(t, sick.MarkUnhealthy(testkit.ErrDown))
		testkit.Add(t, reg, testkit.Provider{Name: "d", Handler: "h", Strategy: selectors.Scored()})
		own := testkit.Chat.Bind(reg, registry.Query{Handler: "h", Near: "eu"})
		_ = own.Explain()
		require.Empty(t, reg.Decisions(), "to ask why decides nothing")
		testkit.MustAsk(t, own)
		testkit.MustAsk(t, testkit.Bind(reg))
		made := reg.Decisions()
		require.Len(t, made, 3)
		require.Equal(t, "d", made[0].Provider)
		require.Equal(t, "for handler h near eu", made[0].Query)
		require.Len(t, made[0].Detail.Factors, 5)
		require.Equal(t, selection.Decision{
			Time: time.Now(), Service: "chat", Provider: "a", Strategy: registry.StrategyFallback, Eligible: 2, Candidates: 3,
		}, made[1])
		require.Equal(t, []any{"b", 1, 1}, []any{made[2].Provider, made[2].Asked, made[2].Eligible})
		for range 3 {
			testkit.MustGet(t, own)
		}
		require.Len(t, reg.Decisions(), 4)
		require.Equal(t, "b", reg.Decisions()[0].Provider, "the oldest are gone")
		text, err := json.Marshal(reg.Decisions())
		require.NoError(t, err)
		require.Contains(t, string(text), `"strategy":"SCORED"`)
	})
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		testkit.Add(t, reg, testkit.Provider{Name: "a"})
		testkit.MustAsk(t, testkit.Bind(reg))
		require.Empty(t, reg.Decisions())
	})
}

func TestDecisions_DoNotChangeRotation(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{Decisions: 10}, func(t *testing.T, reg *registry.Registry) {
		all := testkit.AddRing(t, reg, "a", "b", "c")
		for i := range 100 { // more than a mask has bits
			sick := testkit.AddRing(t, reg, strconv.Itoa(i))[strconv.Itoa(i)]
			if i%10 == 0 {
				require.NoError(t, sick.Unregister(t.Context()))
			} else {
				require.NoError(t, sick.MarkUnhealthy(testkit.ErrDown))
			}
		}
		require.Equal(t, "abcabc", testkit.Turns(t, testkit.Bind(reg), 6))
		for _, want := range []string{"a b c", "b c a", "c a b"} {
			require.Equal(t, want, joinWords(testkit.CallOrder(t, reg, registry.Query{})))
		}
		require.NoError(t, all["b"].MarkUnhealthy(testkit.ErrDown))
		require.Equal(t, "acac", testkit.Turns(t, testkit.Bind(reg), 4))
	})
}

func TestDecisions_OfMovedLeaseAreThoseMade(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{Decisions: 10}, func(t *testing.T, reg *registry.Registry) {
		for _, name := range []string{"a", "b", "c"} {
			testkit.Add(t, reg, testkit.Provider{Name: name, Strategy: testkit.NewLast()})
		}
		lease, err := testkit.Bind(reg).Acquire(t.Context())
		require.NoError(t, err)
		next, err := lease.MoveOn(testkit.ErrDown)
		require.NoError(t, err)
		next.Done(nil)
		var picked []string
		for _, d := range reg.Decisions() {
			picked = append(picked, d.Provider)
		}
		require.Equal(t, []string{"c", "b"}, picked)
	})
}

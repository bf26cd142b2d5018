package registry_test

import (
	"context"
	"encoding/json"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/selection"
	"github.com/capreg/registry/selectors"
)

func TestQueriesThatSwapHandlerAndCapabilityShareNoRotation(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		for _, name := range []string{"a", "b", "c"} {
			add(t, reg, provider{Name: name, Capabilities: []string{"x", "y"}, Strategy: registry.StrategyRoundRobin})
		}
		var seen strings.Builder
		for range 6 {
			for _, q := range []registry.Query{{Handler: "x", Require: []string{"y"}}, {Handler: "y", Require: []string{"x"}}} {
				m, err := chat.Get(t.Context(), reg, q)
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

func TestExplainForetellsWhoIsEnteredWhereThePickedOneIsFull(t *testing.T) {
	t.Parallel()
	for _, strategy := range selectors.All() {
		bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
			for i, name := range []string{"a", "b", "c", "d", "e"} {
				add(t, reg, provider{Name: name, Capabilities: []string{name}, Strategy: strategy, Weight: float64(i + 1), Limits: registry.LimitPolicy{MaxConcurrent: 1}})
			}
			for _, name := range []string{"c", "e"} {
				lease, err := bind(reg, name).Acquire(t.Context())
				require.NoError(t, err)
				defer lease.Done(nil)
			}
			r := bind(reg)
			for range 200 {
				foretold := r.Explain().Winner
				require.Equal(t, foretold, asked(t, r), "%v", strategy)
			}
		})
	}
}

func TestExplainShowsASelectorTheCallerThatACallWouldHave(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		add(t, reg, provider{Name: "a", Strategy: choosing("BY_CALLER", func(v selection.View) int {
			if v.Caller() == "h" {
				return 1
			}
			return 0
		})})
		add(t, reg, provider{Name: "b"})
		r := chat.Bind(reg, registry.Query{Handler: "h"})
		require.Equal(t, asked(t, r), r.Explain().Winner)
	})
}

// vague picks the first and thinks what cannot be written as JSON.
type vague struct{ factors []selection.FactorValue }

func (vague) Pick(v selection.View) int { return v.Next(0) }

func (s vague) Describe(selection.View, int) selection.Detail {
	return selection.Detail{Score: math.NaN(), Words: "?", Factors: s.factors}
}

func TestWhatASelectorSaysOfACandidateCanAlwaysBeWrittenAsJSON(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{Decisions: 10}, func(t *testing.T, reg *registry.Registry) {
		mine := []selection.FactorValue{{Name: "x", Weight: math.Inf(1), Value: math.Inf(-1)}}
		add(t, reg, provider{Name: "a", Strategy: selection.New("VAGUE", vague{mine})})
		r := bind(reg)
		got(t, r)
		_, err := json.Marshal(r.Explain())
		require.NoError(t, err)
		_, err = json.Marshal(reg.Decisions())
		require.NoError(t, err)
		require.True(t, math.IsInf(mine[0].Weight, 1), "the selector's own stays as it is")
	})
}

func TestAGroupOfMocksHasItsFaultsCounted(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		add(t, reg, provider{Name: "a", Mock: true, Strategy: choosing("BROKEN", func(selection.View) int { panic("broken") })})
		add(t, reg, provider{Name: "own", Handler: "h"})
		add(t, reg, provider{Name: "own mock", Handler: "h", Mock: true})
		got(t, bind(reg))
		a, ok := reg.Selection("chat")
		require.True(t, ok)
		require.Len(t, a.Groups, 2)
		require.Equal(t, uint64(1), a.Groups[1].Panics)
	})
}

func TestASelectorThatChangesTheRequestItSeesChangesNoQuery(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		add(t, reg, provider{Name: "a", Capabilities: []string{"x"}, Tags: []string{"t"}, Strategy: choosing("RUDE", func(v selection.View) int {
			q := v.Request()
			q.Require[0], q.Prefer[0], q.Where.Tags[0] = "y", "y", "y"
			return 0
		})})
		r := chat.Bind(reg, registry.Query{Require: []string{"x"}, Prefer: []string{"x"}, Where: selection.Requirements{Tags: []string{"t"}}})
		got(t, r)
		add(t, reg, provider{Name: "b", Capabilities: []string{"z"}}) // a new plan
		require.Equal(t, "a", got(t, r))
		require.Equal(t, []string{"x"}, r.Explain().Query.Require)
	})
}

func TestWhoIsTooSlowAndAwayIsBothToWhoeverAsksWhy(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a := add(t, reg, provider{Name: "a", Instance: answers(func() (string, error) { time.Sleep(time.Second); return "a", nil })})
		r := chat.Bind(reg, registry.Query{Where: selection.Requirements{MaxLatency: 100 * time.Millisecond}})
		asked(t, r)
		_, err := ask(t.Context(), r)
		require.ErrorIs(t, err, selection.ErrUnmet)
		slow := r.Explain().Candidates[0].RetryIn
		require.NoError(t, a.ForceOpen(time.Second, "test"))
		_, err = ask(t.Context(), r)
		require.ErrorIs(t, err, registry.ErrBreakerOpen)
		require.ErrorIs(t, err, selection.ErrUnmet)
		requireOneLine(t, err)
		require.InDelta(t, slow, r.Explain().Candidates[0].RetryIn, float64(time.Second), "both have to end")
		require.NoError(t, a.MarkUnhealthy(errDown))
		require.Zero(t, r.Explain().Candidates[0].RetryIn, "that does not end by itself")
	})
}

func TestAStrategySetWhileAStandInActsStaysWithTheGroup(t *testing.T) {
	t.Parallel()
	for _, members := range []int{1, 2} {
		bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
			a := add(t, reg, provider{Name: "a"})
			if members > 1 {
				add(t, reg, provider{Name: "b"})
			}
			undo, err := chat.Swap(reg, "test", "a", says("fake"))
			require.NoError(t, err)
			_, err = a.SetStrategy(registry.StrategyRoundRobin)
			require.NoError(t, err)
			require.NoError(t, undo(t.Context()))
			require.Equal(t, registry.StrategyRoundRobin, a.Info().Strategy, "%d members", members)
		})
	}
}

func TestAKeyStaysWithOneProviderWhereGroupsSpillOver(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{Selection: selection.Policy{SpillOver: 1.4}}, func(t *testing.T, reg *registry.Registry) {
		for _, p := range []provider{{Name: "a"}, {Name: "b"}, {Name: "c", Group: 1}, {Name: "d", Group: 1}} {
			p.Strategy = selectors.Sticky()
			add(t, reg, p)
		}
		b, _ := reg.Provider("b")
		require.NoError(t, b.MarkUnhealthy(errDown))
		homes := make(map[string]int)
		for i := range 500 {
			key := string(rune('0' + i))
			r := chat.Bind(reg, registry.Query{Key: key})
			home := asked(t, r)
			homes[home]++
			for range 5 {
				require.Equal(t, home, r.Explain().Winner)
				require.Equal(t, home, asked(t, r))
				answer, err := ask(selection.WithKey(t.Context(), key), bind(reg))
				require.NoError(t, err)
				require.Equal(t, home, answer)
			}
		}
		require.InDelta(t, 350, homes["a"], 70, "1.4 halves of all, by chance: seven deviations of its binomial")
	})
}

func TestDecisionsOfALeaseThatMovesOnAreThoseThatWereMade(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{Decisions: 10}, func(t *testing.T, reg *registry.Registry) {
		for _, name := range []string{"a", "b", "c"} {
			add(t, reg, provider{Name: name, Strategy: last()})
		}
		lease, err := bind(reg).Acquire(t.Context())
		require.NoError(t, err)
		next, err := lease.MoveOn(errDown)
		require.NoError(t, err)
		next.Done(nil)
		var picked []string
		for _, d := range reg.Decisions() {
			picked = append(picked, d.Provider)
		}
		require.Equal(t, []string{"c", "b"}, picked)
	})
}

func TestWhoWasNotAskedInTurnIsMeasuredForItsKindOfQuery(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		var here float64
		for _, name := range []string{"a", "b"} {
			add(t, reg, provider{
				Name: name, Limits: registry.LimitPolicy{MaxConcurrent: 1, MaxQueue: 1, MaxWait: time.Minute}, Instance: fails(errDown),
				Breaker: registry.BreakerPolicy{FailureThreshold: 10},
				Strategy: choosing("LOOK", func(v selection.View) int {
					_, here = v.At(0).PerformanceHere()
					return v.Next(0)
				}),
			})
		}
		look := func() float64 {
			_, err := bind(reg).Get(t.Context())
			require.NoError(t, err)
			return here
		}
		_, err := ask(t.Context(), bind(reg), registry.OnceOnly())
		require.ErrorIs(t, err, errDown)
		require.InDelta(t, 0.2, look(), 1e-3)
		all, err := bind(reg).AcquireMany(t.Context(), 0)
		require.NoError(t, err)
		done := make(chan struct{})
		go func() { // it waits for a place, and a is the first to have one
			defer close(done)
			_, _ = ask(t.Context(), bind(reg), registry.OnceOnly())
		}()
		pass(time.Second)
		all[0].Done(errDown)
		<-done
		require.InDelta(t, 0.488, look(), 0.05, "all three count")
		all[1].Done(nil)
	})
}

func TestExplainNamesTheLastResort(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{Selection: selection.Policy{LeastBad: true}}, func(t *testing.T, reg *registry.Registry) {
		a := add(t, reg, provider{Name: "a", Limits: registry.LimitPolicy{MaxConcurrent: 1, MaxQueue: 1, MaxWait: time.Second}})
		b := add(t, reg, provider{Name: "b"})
		r := bind(reg)
		require.NoError(t, b.ForceOpen(time.Second, "test"))
		lease, err := r.Acquire(t.Context())
		require.NoError(t, err)
		require.Empty(t, r.Explain().Winner, "a call would wait for a place")
		lease.Done(nil)
		require.NoError(t, a.ForceOpen(time.Minute, "test"))
		e := r.Explain()
		require.Equal(t, "b", e.Winner)
		require.False(t, e.Candidates[1].Eligible)
		require.Equal(t, "b", asked(t, r))
	})
}

func TestWhatCannotBeMadeIsNoLastResort(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{Selection: selection.Policy{LeastBad: true}}, func(t *testing.T, reg *registry.Registry) {
		add(t, reg, provider{Name: "a", Factory: func(context.Context) (chatModel, error) { return nil, errDown }})
		b := add(t, reg, provider{Name: "b"})
		require.NoError(t, b.ForceOpen(time.Minute, "test"))
		r := bind(reg)
		_, err := r.Get(t.Context())
		require.ErrorIs(t, err, errDown)
		require.Equal(t, "b", r.Explain().Winner)
		require.Equal(t, "b", asked(t, r))
	})
}

func TestALookUpThatFindsNobodySaysForWhichKey(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		require.NoError(t, add(t, reg, provider{Name: "a"}).MarkUnhealthy(errDown))
		_, err := chat.Bind(reg, registry.Query{Key: "k"}).Get(t.Context())
		var unavailable *registry.UnavailableError
		require.ErrorAs(t, err, &unavailable)
		require.Equal(t, "k", unavailable.Query.Key)
	})
}

package registry_test

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/event"
	"github.com/capreg/registry/selection"
	"github.com/capreg/registry/selectors"
	"github.com/capreg/registry/verdict"
)

// shares counts who answers n calls, by the part of the name before a dash.
func shares(t *testing.T, r *registry.Resolver[chatModel], n int) map[string]int {
	t.Helper()
	counts := make(map[string]int)
	for range n {
		counts[asked(t, r)[:1]]++
	}
	return counts
}

func TestGroupsAreStrictUnlessTheySpillOver(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		up, all []int // of groups 0, 1, 2
		spill   float64
		want    map[string]int // of 1000
	}{
		{[]int{1, 1}, []int{3, 1}, 0, map[string]int{"0": 1000}},
		{[]int{2, 1}, []int{3, 1}, 1.4, map[string]int{"0": 933, "1": 67}},
		{[]int{1, 1}, []int{2, 1}, 1.4, map[string]int{"0": 700, "1": 300}},
		{[]int{1, 2}, []int{2, 2}, 1, map[string]int{"0": 500, "1": 500}},
		{[]int{3, 1}, []int{4, 1}, 1.4, map[string]int{"0": 1000}},
		{[]int{1, 1, 4}, []int{4, 4, 4}, 1.4, map[string]int{"0": 350, "1": 350, "2": 300}},
		{[]int{0, 1}, []int{1, 1}, 1.4, map[string]int{"1": 1000}},
		{[]int{1, 1}, []int{10, 10}, 1.4, map[string]int{"0": 500, "1": 500}},
		{[]int{40, 80}, []int{80, 80}, 1.4, map[string]int{"0": 700, "1": 300}},
	} {
		for _, strategy := range []registry.Strategy{registry.StrategyFallback, registry.StrategyRoundRobin, selectors.LeastLoaded()} {
			bubble(t, registry.Options{Selection: selection.Policy{SpillOver: c.spill}}, func(t *testing.T, reg *registry.Registry) {
				for group, all := range c.all {
					for i := range all {
						member := add(t, reg, provider{Name: fmt.Sprintf("%d-%d", group, i), Group: group, Strategy: strategy})
						if i >= c.up[group] {
							require.NoError(t, member.MarkUnhealthy(errDown))
						}
					}
				}
				r := bind(reg)
				for range 5 {
					require.Equal(t, r.Explain().Winner, asked(t, r), "it is foretold")
				}
				counts := shares(t, r, 1000)
				for group := range c.all {
					name := strconv.Itoa(group)
					require.InDelta(t, c.want[name], counts[name], 4, "%+v %v %v", c, strategy, counts)
				}
			})
		}
	}
}

func TestACallThatSpillsOverGoesOnWithTheOtherGroupsInOrder(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		for _, p := range []provider{
			{Name: "a"},
			{Name: "sick"},
			{Name: "b", Group: 1},
			{Name: "c", Group: 2},
			{Name: "own", Handler: "h"},
			{Name: "mock", Mock: true},
		} {
			add(t, reg, p)
		}
		sick, _ := reg.Provider("sick")
		require.NoError(t, sick.MarkUnhealthy(errDown))
		previous, err := chat.SetSelection(reg, selection.Policy{SpillOver: 1})
		require.NoError(t, err)
		require.Equal(t, selection.Policy{}, previous)
		seen := make(map[string]int)
		for range 100 {
			seen[fmt.Sprint(order(t, reg, registry.Query{}))]++
		}
		// Half of the first group is gone, and half of its load: the next group takes it.
		require.Len(t, seen, 2, "%v", seen)
		require.InDelta(t, 50, seen["[a b c mock]"], 2)
		require.InDelta(t, 50, seen["[b a c mock]"], 2)
		for range 20 {
			require.Equal(t, "own", order(t, reg, registry.Query{Handler: "h"})[0], "a handler's own come before all")
		}
		for _, bad := range []selection.Policy{
			{SpillOver: 0.9},
			{SpillOver: math.NaN()},
			{SpillOver: math.Inf(1)},
			{SlowStart: -1},
			{SlowStartFloor: 2},
			{SlowStartAggression: -1},
			{MaxEjected: math.NaN()},
			{Decay: time.Millisecond},
		} {
			_, err := chat.SetSelection(reg, bad)
			require.ErrorIs(t, err, registry.ErrInvalid, "%+v", bad)
			require.ErrorContains(t, err, "Selection.")
		}
		previous, err = chat.SetSelection(reg, selection.Policy{})
		require.NoError(t, err)
		require.InDelta(t, 1, previous.SpillOver, 0, "bad ones have changed nothing")
		require.Equal(t, map[string]int{"a": 20}, shares(t, bind(reg), 20))
	})
}

func TestWhoComesBackStartsSlowlyWhereThePolicySaysSo(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{Selection: selection.Policy{SlowStart: time.Minute}}, func(t *testing.T, reg *registry.Registry) {
		for _, name := range []string{"a", "b"} {
			add(t, reg, provider{Name: name, Strategy: selectors.WeightedRoundRobin()})
		}
		r := bind(reg)
		pass(time.Hour)
		require.Equal(t, 100, shares(t, r, 200)["b"])
		b, _ := reg.Provider("b")
		for _, away := range []func(){
			func() {
				require.NoError(t, b.MarkUnhealthy(errDown))
				pass(time.Second)
				require.NoError(t, b.MarkHealthy())
			},
			func() {
				require.NoError(t, b.ForceOpen(time.Second, "test"))
				pass(2 * time.Second)
				require.NoError(t, b.Reset())
			},
		} {
			away()
			require.InDelta(t, 1000*0.1/1.1, shares(t, r, 1000)["b"], 4)
			pass(30 * time.Second)
			require.InDelta(t, 1000*0.5/1.5, shares(t, r, 1000)["b"], 4)
			pass(30 * time.Second)
			require.InDelta(t, 500, shares(t, r, 1000)["b"], 4)
		}
	})
}

func TestNoMoreBreakersOfAGroupOpenThanThePolicyAllows(t *testing.T) {
	t.Parallel()
	for _, rate := range []bool{false, true} {
		bubble(t, registry.Options{Selection: selection.Policy{MaxEjected: 0.5}}, func(t *testing.T, reg *registry.Registry) {
			policy := registry.BreakerPolicy{FailureThreshold: 2, RecoveryTimeout: time.Minute}
			if rate {
				policy = registry.BreakerPolicy{FailureRate: 0.5, MinimumCalls: 2, RecoveryTimeout: time.Minute}
			}
			all := make([]*registry.Registration, 5)
			for i := range all {
				all[i] = add(t, reg, provider{Name: strconv.Itoa(i), Breaker: policy, Instance: fails(errDown), Retry: registry.RetryPolicy{Budget: 1000}})
			}
			last := add(t, reg, provider{Name: "last", Group: 1, Breaker: policy, Instance: fails(errDown), Retry: registry.RetryPolicy{Budget: 1000}})
			r := bind(reg)
			for range 10 {
				_, err := ask(t.Context(), r)
				require.Error(t, err)
			}
			open := func() (count int) {
				for _, p := range all {
					if p.Breaker().State == registry.BreakerOpen {
						count++
					}
				}
				return count
			}
			require.Equal(t, 2, open(), "3 of 5 would be more than half")
			require.Equal(t, registry.BreakerOpen, last.Breaker().State, "the only one of its group may")
			a, _ := reg.Selection("chat")
			held := uint64(0)
			for _, p := range a.Providers {
				held += p.HeldClosed
			}
			require.Positive(t, held)
			// One is back: another one may go, at its next failure.
			for _, p := range all {
				if p.Breaker().State == registry.BreakerOpen {
					require.NoError(t, p.Reset())
					break
				}
			}
			for range 3 {
				_, _ = ask(t.Context(), r)
			}
			require.Equal(t, 2, open())
			// What is forced open counts, and is not held back.
			for _, p := range all {
				require.NoError(t, p.ForceOpen(time.Minute, "maintenance"))
			}
			require.Equal(t, 5, open())
		})
	}
}

func TestManyBreakersThatWouldOpenAtOnceKeepTheCap(t *testing.T) {
	t.Parallel()
	for range 200 {
		reg := newRegistry(t, registry.Options{Selection: selection.Policy{MaxEjected: 0.3}})
		all := make([]*registry.Registration, 10)
		for i := range all {
			all[i] = add(t, reg, provider{
				Name: strconv.Itoa(i), Capabilities: []string{strconv.Itoa(i)}, Instance: fails(errDown), Breaker: registry.BreakerPolicy{FailureThreshold: 1},
			})
		}
		var waiting sync.WaitGroup
		begin := make(chan struct{})
		for i := range all {
			r := bind(reg, strconv.Itoa(i))
			waiting.Go(func() {
				<-begin
				for range 3 {
					_, _ = ask(t.Context(), r)
				}
			})
		}
		close(begin)
		waiting.Wait()
		open := 0
		for _, p := range all {
			if p.Breaker().State != registry.BreakerClosed {
				open++
			}
		}
		require.Equal(t, 3, open)
		require.NoError(t, reg.Close(t.Context()))
	}
}

func TestWhenAllAreUnhealthyACallFailsUnlessTheLeastBadIsAskedFor(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a := add(t, reg, provider{Name: "a"})
		b := add(t, reg, provider{Name: "b"})
		c := add(t, reg, provider{Name: "c", Instance: fails(verdict.RateLimited(errDown, time.Hour))})
		require.NoError(t, a.ForceOpen(time.Minute, "test"))
		require.NoError(t, b.ForceOpen(time.Second, "test"))
		r := bind(reg)
		_, err := ask(t.Context(), r)
		require.ErrorIs(t, err, registry.ErrBreakerOpen)
		_, err = ask(t.Context(), r)
		require.ErrorIs(t, err, registry.ErrUnavailable)
		_, err = chat.SetSelection(reg, selection.Policy{LeastBad: true})
		require.NoError(t, err)
		var report registry.CallReport
		answer, err := ask(t.Context(), r, registry.ReportTo(&report))
		require.NoError(t, err)
		require.Equal(t, "b", answer, "who is back first, but for who asked to be left alone")
		require.Equal(t, "last resort", report.Attempts[0].Why)
		require.Equal(t, registry.BreakerOpen, b.Breaker().State)
		require.NoError(t, b.MarkUnhealthy(errDown))
		_, err = r.Get(t.Context())
		require.ErrorIs(t, err, registry.ErrUnavailable, "for wiring nothing changes")
		require.Equal(t, uint64(1), c.Info().Attempts)
		_, err = chat.SetSelection(reg, selection.Policy{})
		require.NoError(t, err)
		_, err = ask(t.Context(), r)
		require.ErrorIs(t, err, registry.ErrUnavailable)
	})
}

func TestAnalyticsCountSharesMissesByReasonAndFailovers(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		_, ok := reg.Selection("chat")
		require.False(t, ok)
		_, _ = bind(reg).Get(t.Context())
		a := add(t, reg, provider{Name: "a", Instance: fails(errDown), Breaker: registry.BreakerPolicy{FailureThreshold: 3}})
		b := add(t, reg, provider{Name: "b", Group: 1, Weight: 2, Strategy: selectors.Random()})
		r := bind(reg)
		for range 5 {
			require.Equal(t, "b", asked(t, r)) // three of them after a has failed
		}
		_, _ = bind(reg, "none has it").Get(t.Context())
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		_, _ = ask(ended, r)
		require.NoError(t, b.MarkUnhealthy(errDown))
		_, _ = r.Get(t.Context())
		_, _ = ask(t.Context(), r)
		_, _ = r.Acquire(t.Context())
		_, _ = r.Many(t.Context(), 0)
		_, _ = r.AcquireMany(t.Context(), 0)
		got, ok := reg.Selection("chat")
		require.True(t, ok)
		require.Equal(t, selection.Analytics{
			Service: "chat", Lookups: 13, Hits: 5, Misses: 8,
			MissesByReason: map[string]uint64{"unknown_service": 1, "capability_missing": 1, "context_ended": 1, "breaker_open": 5, "unhealthy": 5},
			Attempts:       8, Failovers: 3,
			Providers: []selection.Share{
				{Provider: "a", Weight: 1, Attempts: 3, Share: 3.0 / 8},
				{Provider: "b", Group: 1, Weight: 2, Attempts: 5, Share: 5.0 / 8, TookOver: 3},
			},
			Groups: []selection.GroupFaults{{Strategy: registry.StrategyFallback}, {Group: 1, Strategy: b.Info().Strategy}},
		}, got)
		again, _ := reg.Selection("chat")
		require.Equal(t, got, again, "reading changes nothing")
		require.Equal(t, got.Hits, reg.Stats().Hits)
		require.Equal(t, got.Misses, reg.Stats().Misses)
		_, err := json.Marshal(got)
		require.NoError(t, err)
		require.NoError(t, a.Unregister(t.Context()))
		got, _ = reg.Selection("chat")
		require.InDelta(t, 1, got.Providers[0].Share, 0)
		require.NoError(t, reg.Close(t.Context()))
		_, _ = r.Get(t.Context())
		got, _ = reg.Selection("chat")
		require.Equal(t, uint64(1), got.MissesByReason["closed"])
	})
}

func TestTheLatestDecisionsAreRemembered(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{Decisions: 4}, func(t *testing.T, reg *registry.Registry) {
		require.Empty(t, reg.Decisions())
		add(t, reg, provider{Name: "a", Instance: fails(errDown)})
		add(t, reg, provider{Name: "b"})
		sick := add(t, reg, provider{Name: "c"})
		require.NoError(t, sick.MarkUnhealthy(errDown))
		add(t, reg, provider{Name: "d", Handler: "h", Strategy: selectors.Scored()})
		own := chat.Bind(reg, registry.Query{Handler: "h", Near: "eu"})
		_ = own.Explain()
		require.Empty(t, reg.Decisions(), "to ask why decides nothing")
		asked(t, own)
		asked(t, bind(reg))
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
			got(t, own)
		}
		require.Len(t, reg.Decisions(), 4)
		require.Equal(t, "b", reg.Decisions()[0].Provider, "the oldest are gone")
		text, err := json.Marshal(reg.Decisions())
		require.NoError(t, err)
		require.Contains(t, string(text), `"strategy":"SCORED"`)
	})
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		add(t, reg, provider{Name: "a"})
		asked(t, bind(reg))
		require.Empty(t, reg.Decisions())
	})
}

func TestRotationIsTheSameWhetherDecisionsAreRememberedOrNot(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{Decisions: 10}, func(t *testing.T, reg *registry.Registry) {
		all := ring(t, reg, "a", "b", "c")
		for i := range 100 { // more than a mask has bits
			sick := ring(t, reg, strconv.Itoa(i))[strconv.Itoa(i)]
			if i%10 == 0 {
				require.NoError(t, sick.Unregister(t.Context()))
			} else {
				require.NoError(t, sick.MarkUnhealthy(errDown))
			}
		}
		require.Equal(t, "abcabc", turns(t, bind(reg), 6))
		for _, want := range []string{"a b c", "b c a", "c a b"} {
			require.Equal(t, want, joinWords(order(t, reg, registry.Query{})))
		}
		require.NoError(t, all["b"].MarkUnhealthy(errDown))
		require.Equal(t, "acac", turns(t, bind(reg), 4))
	})
}

func joinWords(words []string) string {
	text := fmt.Sprint(words)
	return text[1 : len(text)-1]
}

func TestExplanationHasAFactorTableInTextAndJSON(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		add(t, reg, provider{Name: "near", Region: "eu-west-1", Cost: 4, Strategy: selectors.Scored()})
		add(t, reg, provider{Name: "cheap", Region: "us-east-1", Cost: 1, Tags: []string{"vision"}})
		sick := add(t, reg, provider{Name: "sick"})
		require.NoError(t, sick.MarkUnhealthy(errDown))
		r := chat.Bind(reg, registry.Query{Near: "eu-west-1", Prefer: []string{"vision"}})
		for range 50 {
			before := infos(reg)
			e := r.Explain()
			require.Equal(t, before, infos(reg))
			require.Equal(t, e.Winner, asked(t, r))
		}
		e := r.Explain()
		require.Equal(t, "SCORED", e.Candidates[0].Strategy)
		require.Contains(t, e.String(), "near: eligible; score 0.7 = 0.30 load 1.00, 0.25 performance 1.00, 0.15 proximity 1.00, 0.20 specialisation 0.00, 0.10 cost 0.00")
		require.Contains(t, e.String(), "sick: unhealthy: down; score ")
		require.Contains(t, e.String(), "preferring vision near eu-west-1")
		text, err := json.Marshal(e)
		require.NoError(t, err)
		require.Contains(t, string(text), `"detail":{"score":0.825,"words":"score","factors":[{"name":"load","weight":0.3,"value":1}`)
		require.Contains(t, string(text), `"query":{"prefer":["vision"],"near":"eu-west-1"}`)
	})
}

func TestExplainForAKeyForetellsWhoItSticksTo(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		for i := range 5 {
			add(t, reg, provider{Name: strconv.Itoa(i), Strategy: selectors.Sticky()})
		}
		home := make(map[string]bool)
		for i := range 50 {
			key := fmt.Sprint("session-", i)
			r := chat.Bind(reg, registry.Query{Key: key})
			e := r.Explain()
			require.Equal(t, key, e.Query.Key)
			for range 3 {
				require.Equal(t, e.Winner, asked(t, r))
				require.Equal(t, e.Winner, got(t, r))
				answer, err := ask(selection.WithKey(t.Context(), key), bind(reg))
				require.NoError(t, err)
				require.Equal(t, e.Winner, answer)
				m, err := chat.Get(t.Context(), reg, registry.Query{Key: key})
				require.NoError(t, err)
				answer, _ = m.Chat(t.Context(), "")
				require.Equal(t, e.Winner, answer)
			}
			lease, err := r.Acquire(t.Context())
			require.NoError(t, err)
			require.Equal(t, e.Winner, lease.Provider())
			lease.Done(nil)
			home[e.Winner] = true
			// The pin cannot be asked: there is an exit, and a way back.
			pinned, _ := reg.Provider(e.Winner)
			require.NoError(t, pinned.MarkUnhealthy(errDown))
			require.NotEqual(t, e.Winner, asked(t, r))
			require.NoError(t, pinned.MarkHealthy())
			require.Equal(t, e.Winner, asked(t, r))
		}
		require.Len(t, home, 5)
	})
}

// TestFairnessOfTheRotation states its bounds. Over any stretch in which a member is
// eligible throughout, of any number of picks by any number of goroutines, with others
// flapping, joining and leaving k times meanwhile: two members that were eligible all
// the time differ by at most 1 + k picks.
func TestFairnessOfTheRotation(t *testing.T) {
	t.Parallel()
	for _, churn := range []int{0, 20, 200} {
		bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
			ring(t, reg, "a", "b", "c")
			flapping := ring(t, reg, "x")["x"]
			queries := []*registry.Resolver[chatModel]{bind(reg), chat.Bind(reg, registry.Query{Handler: "h"})}
			counts := make([]map[string]int, len(queries))
			var mu sync.Mutex
			var waiting sync.WaitGroup
			for i, r := range queries {
				counts[i] = make(map[string]int)
				for range 4 {
					waiting.Go(func() {
						for range 2000 {
							answer, err := ask(context.Background(), r)
							if err != nil {
								t.Error(err)
							}
							mu.Lock()
							counts[i][answer]++
							mu.Unlock()
						}
					})
				}
			}
			waiting.Go(func() {
				for i := range churn / 2 {
					switch i % 2 {
					case 0:
						_ = flapping.MarkUnhealthy(errDown)
						_ = flapping.MarkHealthy()
					case 1:
						joined := add(t, reg, provider{Name: fmt.Sprint("y", i), Priority: registry.PriorityCritical})
						_ = joined.Unregister(context.Background())
					}
				}
			})
			waiting.Wait()
			for _, count := range counts {
				require.InDelta(t, count["a"], count["b"], float64(1+churn), "%v", count)
				require.InDelta(t, count["a"], count["c"], float64(1+churn), "%v", count)
				require.InDelta(t, count["b"], count["c"], float64(1+churn), "%v", count)
			}
		})
	}
}

func TestChangesOfSelectionAreEvents(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a := add(t, reg, provider{Name: "a"})
		events := reg.Subscribe(0)
		_, err := chat.SetSelection(reg, selection.Policy{SlowStart: time.Second})
		require.NoError(t, err)
		_, err = a.SetWeight(3)
		require.NoError(t, err)
		_, err = a.SetWeight(-1)
		require.ErrorIs(t, err, registry.ErrInvalid)
		_, err = a.SetStrategy(selectors.Sticky())
		require.NoError(t, err)
		require.Equal(t, []event.Kind{event.Changed, event.Changed, event.Changed}, kinds(t, events))
		require.InDelta(t, 3, a.Definition().Weight, 0)
		require.Equal(t, "STICKY", a.Definition().Strategy.String())
		events.Close()
	})
}

// From the moment that nobody may enter it, it can be asked why.
func TestProviderThatIsBeingEjectedCanBeExplained(t *testing.T) {
	t.Parallel()
	reg := newRegistry(t, registry.Options{Selection: selection.Policy{MaxEjected: 0.99}})
	const providers = 300
	for i := range providers {
		add(t, reg, provider{
			Name: strconv.Itoa(i), Instance: fails(errDown), Strategy: registry.StrategyRoundRobin,
			Breaker: registry.BreakerPolicy{FailureThreshold: 1},
		})
	}
	r := bind(reg)
	var all sync.WaitGroup
	defer all.Wait()
	done := make(chan struct{})
	defer close(done)
	all.Go(func() {
		for {
			select {
			case <-done:
				return
			default:
			}
			for _, c := range r.Explain().Candidates {
				if !c.Eligible && c.Err == nil {
					t.Error("no reason")
				}
			}
		}
	})
	for range providers {
		_, err := ask(t.Context(), r)
		require.Error(t, err)
	}
}

package registry_test

import (
	"fmt"
	"math"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/event"
	"github.com/capreg/registry/internal/testkit"
	"github.com/capreg/registry/reason"
	"github.com/capreg/registry/selection"
	"github.com/capreg/registry/selectors"
	"github.com/capreg/registry/status"
	"github.com/capreg/registry/verdict"
)

// shares counts the providers that answer n calls, by the part of the name before a dash.
func shares(t *testing.T, r *registry.Resolver[testkit.ChatModel], n int) map[string]int {
	t.Helper()
	counts := make(map[string]int)
	for range n {
		counts[testkit.MustAsk(t, r)[:1]]++
	}
	return counts
}

func TestSelectionPolicy_GroupsAreStrictUnlessSpillOver(t *testing.T) {
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
		for _, strategy := range []selection.Strategy{registry.StrategyFallback, registry.StrategyRoundRobin, selectors.LeastLoaded()} {
			testkit.Bubble(t, registry.Options{Selection: selection.Policy{SpillOver: c.spill}}, func(t *testing.T, reg *registry.Registry) {
				for group, all := range c.all {
					for i := range all {
						member := testkit.Add(t, reg, testkit.Provider{Name: fmt.Sprintf("%d-%d", group, i), Group: group, Strategy: strategy})
						if i >= c.up[group] {
							require.NoError(t, member.MarkUnhealthy(testkit.ErrDown))
						}
					}
				}
				r := testkit.Bind(reg)
				for range 5 {
					require.Equal(t, r.Explain().Winner, testkit.MustAsk(t, r), "it is foretold")
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

func TestSelectionPolicy_SpilledCallContinuesInGroupOrder(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		for _, p := range []testkit.Provider{
			{Name: "a"},
			{Name: "sick"},
			{Name: "b", Group: 1},
			{Name: "c", Group: 2},
			{Name: "own", Handler: "h"},
			{Name: "mock", Mock: true},
		} {
			testkit.Add(t, reg, p)
		}
		sick, _ := reg.Provider("chat", "sick")
		require.NoError(t, sick.MarkUnhealthy(testkit.ErrDown))
		previous, err := testkit.Chat.SetSelection(reg, selection.Policy{SpillOver: 1})
		require.NoError(t, err)
		require.Equal(t, selection.Policy{Seed: 1}, previous)
		seen := make(map[string]int)
		for range 100 {
			seen[fmt.Sprint(testkit.CallOrder(t, reg, registry.Query{}))]++
		}
		// Half of the first group is gone, and half of its load: the next group takes it.
		require.Len(t, seen, 2, "%v", seen)
		require.InDelta(t, 50, seen["[a b c mock]"], 2)
		require.InDelta(t, 50, seen["[b a c mock]"], 2)
		for range 20 {
			require.Equal(t, "own", testkit.CallOrder(t, reg, registry.Query{Handler: "h"})[0], "a handler's own come before all")
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
			_, err := testkit.Chat.SetSelection(reg, bad)
			require.ErrorIs(t, err, registry.ErrInvalid, "%+v", bad)
			require.ErrorContains(t, err, "Selection.")
		}
		previous, err = testkit.Chat.SetSelection(reg, selection.Policy{})
		require.NoError(t, err)
		require.InDelta(t, 1, previous.SpillOver, 0, "bad ones have changed nothing")
		require.Equal(t, map[string]int{"a": 20}, shares(t, testkit.Bind(reg), 20))
	})
}

func TestSelectionPolicy_SlowStartAfterRecovery(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{Selection: selection.Policy{SlowStart: time.Minute}}, func(t *testing.T, reg *registry.Registry) {
		for _, name := range []string{"a", "b"} {
			testkit.Add(t, reg, testkit.Provider{Name: name, Strategy: selectors.WeightedRoundRobin()})
		}
		r := testkit.Bind(reg)
		testkit.Pass(time.Hour)
		require.Equal(t, 100, shares(t, r, 200)["b"])
		b, _ := reg.Provider("chat", "b")
		for _, away := range []func(){
			func() {
				require.NoError(t, b.MarkUnhealthy(testkit.ErrDown))
				testkit.Pass(time.Second)
				require.NoError(t, b.MarkHealthy())
			},
			func() {
				require.NoError(t, b.ForceOpen(time.Second, "test"))
				testkit.Pass(2 * time.Second)
				require.NoError(t, b.Reset())
			},
		} {
			away()
			require.InDelta(t, 1000*0.1/1.1, shares(t, r, 1000)["b"], 4)
			testkit.Pass(30 * time.Second)
			require.InDelta(t, 1000*0.5/1.5, shares(t, r, 1000)["b"], 4)
			testkit.Pass(30 * time.Second)
			require.InDelta(t, 500, shares(t, r, 1000)["b"], 4)
		}
	})
}

func TestSelectionPolicy_EjectionCapLimitsOpenBreakers(t *testing.T) {
	t.Parallel()
	for _, rate := range []bool{false, true} {
		testkit.Bubble(t, registry.Options{Selection: selection.Policy{MaxEjected: 0.5}}, func(t *testing.T, reg *registry.Registry) {
			policy := registry.BreakerPolicy{FailureThreshold: 2, RecoveryTimeout: time.Minute}
			if rate {
				policy = registry.BreakerPolicy{FailureRate: 0.5, MinimumCalls: 2, RecoveryTimeout: time.Minute}
			}
			all := make([]*registry.Registration, 5)
			for i := range all {
				all[i] = testkit.Add(t, reg, testkit.Provider{Name: strconv.Itoa(i), Breaker: policy, Instance: testkit.Fails(testkit.ErrDown), Retry: registry.RetryPolicy{Budget: 1000}})
			}
			last := testkit.Add(t, reg, testkit.Provider{Name: "last", Group: 1, Breaker: policy, Instance: testkit.Fails(testkit.ErrDown), Retry: registry.RetryPolicy{Budget: 1000}})
			r := testkit.Bind(reg)
			for range 10 {
				_, err := testkit.Ask(t.Context(), r)
				require.Error(t, err)
			}
			open := func() (count int) {
				for _, p := range all {
					if p.Breaker().State == status.BreakerOpen {
						count++
					}
				}
				return count
			}
			require.Equal(t, 2, open(), "3 of 5 would be more than half")
			require.Equal(t, status.BreakerOpen, last.Breaker().State, "the only one of its group may")
			a, _ := reg.Analytics("chat")
			held := uint64(0)
			for _, p := range a.Providers {
				held += p.HeldClosed
			}
			require.Positive(t, held)
			// One is back: another one may go, at its next failure.
			for _, p := range all {
				if p.Breaker().State == status.BreakerOpen {
					require.NoError(t, p.Reset())
					break
				}
			}
			for range 3 {
				_, _ = testkit.Ask(t.Context(), r)
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

func TestSelectionPolicy_EjectionCapHoldsConcurrently(t *testing.T) {
	t.Parallel()
	for range 200 {
		reg := testkit.New(t, registry.Options{Selection: selection.Policy{MaxEjected: 0.3}})
		all := make([]*registry.Registration, 10)
		for i := range all {
			all[i] = testkit.Add(t, reg, testkit.Provider{
				Name: strconv.Itoa(i), Capabilities: []string{strconv.Itoa(i)}, Instance: testkit.Fails(testkit.ErrDown), Breaker: registry.BreakerPolicy{FailureThreshold: 1},
			})
		}
		var waiting sync.WaitGroup
		begin := make(chan struct{})
		for i := range all {
			r := testkit.Bind(reg, strconv.Itoa(i))
			waiting.Go(func() {
				<-begin
				for range 3 {
					_, _ = testkit.Ask(t.Context(), r)
				}
			})
		}
		close(begin)
		waiting.Wait()
		open := 0
		for _, p := range all {
			if p.Breaker().State != status.BreakerClosed {
				open++
			}
		}
		require.Equal(t, 3, open)
		require.NoError(t, reg.Close(t.Context()))
	}
}

func TestSelectionPolicy_LeastBadServesWhenAllAreUnhealthy(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a := testkit.Add(t, reg, testkit.Provider{Name: "a"})
		b := testkit.Add(t, reg, testkit.Provider{Name: "b"})
		c := testkit.Add(t, reg, testkit.Provider{Name: "c", Instance: testkit.Fails(verdict.RateLimited(testkit.ErrDown, time.Hour))})
		require.NoError(t, a.ForceOpen(time.Minute, "test"))
		require.NoError(t, b.ForceOpen(time.Second, "test"))
		r := testkit.Bind(reg)
		_, err := testkit.Ask(t.Context(), r)
		require.ErrorIs(t, err, registry.ErrBreakerOpen)
		_, err = testkit.Ask(t.Context(), r)
		require.ErrorIs(t, err, registry.ErrUnavailable)
		_, err = testkit.Chat.SetSelection(reg, selection.Policy{LeastBad: true})
		require.NoError(t, err)
		var report registry.CallReport
		answer, err := testkit.Ask(t.Context(), r, registry.ReportTo(&report))
		require.NoError(t, err)
		require.Equal(t, "b", answer, "the first to recover, except after a requested delay")
		require.Equal(t, reason.LastResort, report.Attempts[0].Why)
		require.Equal(t, status.BreakerOpen, b.Breaker().State)
		require.NoError(t, b.MarkUnhealthy(testkit.ErrDown))
		_, err = r.Get(t.Context())
		require.ErrorIs(t, err, registry.ErrUnavailable, "for wiring nothing changes")
		require.Equal(t, uint64(1), c.Info().Attempts)
		_, err = testkit.Chat.SetSelection(reg, selection.Policy{})
		require.NoError(t, err)
		_, err = testkit.Ask(t.Context(), r)
		require.ErrorIs(t, err, registry.ErrUnavailable)
	})
}

func TestSelectionPolicy_ChangesAreEvents(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a := testkit.Add(t, reg, testkit.Provider{Name: "a"})
		events := reg.Subscribe(0)
		_, err := testkit.Chat.SetSelection(reg, selection.Policy{SlowStart: time.Second})
		require.NoError(t, err)
		_, err = a.SetWeight(3)
		require.NoError(t, err)
		_, err = a.SetWeight(-1)
		require.ErrorIs(t, err, registry.ErrInvalid)
		_, err = a.SetStrategy(selectors.Sticky())
		require.NoError(t, err)
		require.Equal(t, []event.Kind{event.Changed, event.Changed, event.Changed}, testkit.Kinds(t, events))
		require.InDelta(t, 3, a.Definition().Weight, 0)
		require.Equal(t, "STICKY", a.Definition().Strategy.String())
		events.Close()
	})
}

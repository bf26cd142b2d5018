package registry_test

import (
	"context"
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/internal/testkit"
	"github.com/capreg/registry/selectors"
	"github.com/capreg/registry/status"
)

// aged is a performance that is that old.
func aged(p status.Performance, age time.Duration) status.Performance {
	p.At = time.Now().Add(-age)
	return p
}

func TestPerformance_GoesOnInALaterRegistryAndFades(t *testing.T) {
	t.Parallel()
	var known status.Performance
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		slow := testkit.Add(t, reg, testkit.Provider{
			Name: "slow", Strategy: selectors.LatencyAware(), Instance: testkit.Takes("slow", 2*time.Second),
		})
		require.Equal(t, status.Performance{At: time.Now()}, slow.Performance())
		testkit.MustAsk(t, testkit.Bind(reg))
		known = slow.Performance()
		require.InDelta(t, float64(2*time.Second), float64(known.Latency), float64(time.Millisecond))
		require.Equal(t, 2*time.Second, known.Longest)
		require.Zero(t, known.Failing)
		require.Equal(t, time.Now(), known.At)
	})
	for name, row := range map[string]struct {
		age              time.Duration
		latency, longest time.Duration
	}{
		"at once":                              {0, 2 * time.Second, 2 * time.Second},
		"of the future, by a clock set back":   {-time.Hour, 2 * time.Second, 2 * time.Second},
		"after the time of a decay":            {10 * time.Second, 736 * time.Millisecond, 2 * time.Second},
		"when less than a hundredth is left":   {47 * time.Second, 0, 2 * time.Second},
		"just before it says nothing any more": {time.Hour - time.Second, 0, 2 * time.Second},
		"after an hour":                        {time.Hour, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
				slow := testkit.Add(t, reg, testkit.Provider{Name: "slow", Strategy: selectors.LatencyAware()})
				fresh := testkit.Add(t, reg, testkit.Provider{Name: "fresh", Strategy: selectors.LatencyAware()})
				require.NoError(t, slow.ContinueFrom(aged(known, row.age)))
				shown := slow.Performance()
				require.InDelta(t, float64(row.latency), float64(shown.Latency), float64(5*time.Millisecond))
				require.Equal(t, row.longest, shown.Longest)
				if row.latency > 0 {
					require.Equal(t, "fresh", testkit.Bind(reg).Explain().Winner, "strategies go by it")
				}
				require.Equal(t, status.Performance{At: time.Now()}, fresh.Performance())
			})
		})
	}
}

func TestPerformance_FailuresAndWaitsGoOnAndWhatIsMeasuredHereStays(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a := testkit.Add(t, reg, testkit.Provider{
			Name: "a", Strategy: selectors.LatencyAware(), Instance: testkit.Takes("a", time.Second), Breaker: testkit.NeverOpens(),
		})
		past := status.Performance{At: time.Now(), Latency: 3 * time.Second, Failing: 0.5, Longest: 4 * time.Second, Waited: 5 * time.Second}
		require.NoError(t, a.ContinueFrom(past))
		shown := a.Performance()
		require.InDelta(t, 0.5, shown.Failing, 0.001)
		require.Equal(t, 5*time.Second, shown.Waited)

		testkit.MustAsk(t, testkit.Bind(reg))
		shown = a.Performance()
		require.Zero(t, shown.Waited, "an answer ends the wait")
		require.Less(t, shown.Failing, 0.4)
		require.NoError(t, a.ContinueFrom(status.Performance{
			At: time.Now(), Latency: time.Minute, Failing: 0.9, Longest: time.Minute, Waited: time.Minute,
		}))
		again := a.Performance()
		require.Equal(t, shown, again)
	})
}

func TestPerformance_CutsAttemptsAsItDidBefore(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		hangs := testkit.Add(t, reg, testkit.Provider{Name: "hangs", Instance: testkit.Hangs(), Breaker: testkit.NeverOpens()})
		testkit.Add(t, reg, testkit.Provider{Name: "backup", Group: 1})
		require.NoError(t, hangs.ContinueFrom(status.Performance{At: time.Now(), Longest: 100 * time.Millisecond}))
		ctx, cancel := context.WithTimeout(t.Context(), 8*time.Second)
		defer cancel()
		began := time.Now()
		var report registry.CallReport
		_, err := testkit.Ask(ctx, testkit.Bind(reg), registry.ReportTo(&report))
		require.NoError(t, err)
		require.Equal(t, 6*time.Second, time.Since(began), "the backup, which has never answered, needs a quarter")
		require.Len(t, report.Attempts, 2)
	})
}

func TestPerformance_OfARotationIsTheLastTurn(t *testing.T) {
	t.Parallel()
	names := []string{"a", "b", "c", "d"}
	for last := range names {
		testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
			var all []*registry.Registration
			for _, name := range names {
				all = append(all, testkit.Add(t, reg, testkit.Provider{
					Name: name, Strategy: registry.StrategyRoundRobin, Instance: testkit.Says(name),
				}))
			}
			require.NoError(t, all[last].ContinueFrom(status.Performance{At: time.Now(), LastTurn: true}))
			require.False(t, all[last].Performance().LastTurn, "not here")
			for i := range 2 * len(names) {
				turn := (last + 1 + i) % len(names)
				require.Equal(t, names[turn], testkit.MustAsk(t, testkit.Bind(reg)))
				for at, handle := range all {
					require.Equal(t, at == turn, handle.Performance().LastTurn, names[at])
				}
			}
		})
	}
}

func TestPerformance_WithBadFieldsIsRefused(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a := testkit.Add(t, reg, testkit.Provider{Name: "a", Strategy: selectors.LatencyAware()})
		for field, bad := range map[string]status.Performance{
			"Latency": {Latency: -1}, "Failing": {Failing: 1.1}, "Longest": {Longest: -1}, "Waited": {Waited: -1},
		} {
			var refused *registry.FieldError
			require.ErrorAs(t, a.ContinueFrom(bad), &refused)
			require.Equal(t, field, refused.Field)
			require.ErrorIs(t, refused, registry.ErrInvalid)
		}
		require.ErrorIs(t, a.ContinueFrom(status.Performance{Failing: math.NaN()}), registry.ErrInvalid)
		require.Equal(t, status.Performance{At: time.Now()}, a.Performance())
		require.NoError(t, a.Unregister(t.Context()))
		require.ErrorIs(t, a.ContinueFrom(status.Performance{At: time.Now()}), registry.ErrNotRegistered)
	})
}

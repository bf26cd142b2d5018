package main

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestSimulation_LatencyAwareAndLeastLoadedAreAhead(t *testing.T) {
	t.Parallel()
	for _, seed := range []string{"1", "2"} {
		synctest.Test(t, func(t *testing.T) { // on fake time: the same everywhere
			var out strings.Builder
			require.NoError(t, run(t.Context(), []string{"-calls", "1500", "-seed", seed}, &out))
			t.Log(out.String())
			lines := strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
			require.Regexp(t, `^fallback [\d.]+ [\d.]+ round_robin [\d.]+ 0\.1[\d.]+ .*sticky [\d.]+ [\d.]+$`, lines[len(lines)-1])
		})
	}
}

func TestSimulation_SharesOfEachStrategy(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		rows, err := simulateAll(t.Context(), workload{calls: 2000, rate: 240, seed: 7})
		require.NoError(t, err)
		by := make(map[string]row)
		for _, r := range rows {
			by[r.strategy] = r
		}
		for _, turns := range []string{"ROUND_ROBIN", "WEIGHTED_ROUND_ROBIN"} {
			require.InDelta(t, 1.0/8, by[turns].alone.toSlow, 0.001)
			require.InDelta(t, 1.0/8, by[turns].alone.errors, 0.001)
		}
		for _, aware := range []string{"LATENCY_AWARE", "LEAST_LOADED", "SCORED"} {
			require.Less(t, by[aware].alone.errors, 0.03, aware)
		}
		// Of 28 pairs one is the slow and the failing one.
		require.Less(t, by["LATENCY_AWARE"].alone.toSlow, 0.06)
		for _, r := range rows {
			require.Zero(t, r.guarded.errors, "%s: another provider answers", r.strategy)
		}
	})
}

func TestMain_FailsWhenAStrategyIsBehind(t *testing.T) {
	t.Parallel()
	good, bad := outcome{p99: time.Second, errors: 0.1}, outcome{p99: 2 * time.Second, errors: 0.2}
	table := func(latency, load outcome) []row {
		return []row{{"ROUND_ROBIN", outcome{p99: 2 * time.Second, errors: 0.2}, good}, {"LATENCY_AWARE", latency, bad}, {"LEAST_LOADED", load, bad}}
	}
	require.NoError(t, compare(table(good, good)))
	require.ErrorIs(t, compare(table(bad, good)), errBehind)
	require.ErrorIs(t, compare(table(good, bad)), errBehind)
	require.ErrorContains(t, compare(table(good, outcome{p99: time.Second, errors: 0.2})), "LEAST_LOADED")
}

func TestMain_RefusesBadArgumentsButNotHelp(t *testing.T) {
	t.Parallel()
	for _, arguments := range [][]string{{"-calls", "1"}, {"-rate", "0"}, {"-rate", "NaN"}, {"-unheard-of"}} {
		require.Error(t, run(t.Context(), arguments, &strings.Builder{}), "%v", arguments)
	}
	require.NoError(t, run(t.Context(), []string{"-h"}, &strings.Builder{}))
}

func TestMain_InterruptionIsAnError(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, run(ctx, nil, &strings.Builder{}), context.Canceled)
}

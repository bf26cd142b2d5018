package main

import (
	"context"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/capreg/registry/benchmarks/internal/bars"
	"github.com/capreg/registry/benchmarks/internal/contest"
)

// hystrix-go starts goroutines for each command and has no way to end them.
func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		goleak.IgnoreAnyFunction("github.com/afex/hystrix-go/hystrix.(*metricExchange).Monitor"),
		goleak.IgnoreAnyFunction("github.com/afex/hystrix-go/hystrix.(*poolMetrics).Monitor"))
}

func TestDocument_HasEveryBarAndEveryContestant(t *testing.T) { //nolint:paralleltest // it measures
	if contest.Cores() < 2 {
		t.Skip("a bar is about two cores")
	}
	path := filepath.Join(t.TempDir(), "performance.md")
	require.NoError(t, run(t.Context(), []string{"-o", path, "-rounds", "1", "-turns", "1", "-turn", "10us", "-largest", "100"}))
	written, err := os.ReadFile(path)
	require.NoError(t, err)
	committed, err := os.ReadFile("../../docs/performance.md")
	require.NoError(t, err)
	for _, text := range []string{string(written), string(committed)} {
		for _, race := range bars.Races(1) {
			for _, b := range race.Bars {
				require.Contains(t, text, "| "+b.Name+" |")
			}
		}
		for _, c := range slices.Concat(contest.OurPickers(), contest.Pickers(), contest.OurCalls(), contest.Guards(),
			contest.OurListening(), contest.Listening()) {
			require.Regexp(t, `(?m)^\| (\*\*)?`+regexp.QuoteMeta(c.Name)+`(\*\*)? \|`, text)
		}
		for _, section := range []string{"## As providers grow", "| 100 |", "## Why it is fast", "gobreaker/v2 v2."} {
			require.Contains(t, text, section)
		}
	}
}

func TestDocument_NumbersAreReadable(t *testing.T) {
	t.Parallel()
	for want, figure := range map[string]float64{"0": 0, "1.5": 1.5, "12": 12, "123": 123.4, "1,234": 1234.4, "1,234,567": 1_234_567} {
		require.Equal(t, want, number(figure))
	}
}

func TestMain_RefusesBadArguments(t *testing.T) {
	t.Parallel()
	for _, arguments := range [][]string{{"-rounds", "0"}, {"-turns", "0"}, {"-turn", "0"}, {"-largest", "0"}, {"-unheard-of"}} {
		require.Error(t, run(t.Context(), arguments), arguments)
	}
}

func TestMain_InterruptionIsAnErrorAndWritesNothing(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	path := filepath.Join(t.TempDir(), "performance.md")
	require.ErrorIs(t, run(ctx, []string{"-o", path}), context.Canceled)
	require.NoFileExists(t, path)
}

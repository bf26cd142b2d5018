package main

import (
	"context"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/capreg/registry/benchmarks/internal/bars"
	"github.com/capreg/registry/benchmarks/internal/contest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// quick is as little as can be measured.
var quick = []string{"-rounds", "1", "-turns", "1", "-turn", "10us", "-many", "100"}

func TestMain_EveryBarIsOneLine(t *testing.T) { //nolint:paralleltest // it measures
	if contest.Cores() < 2 {
		t.Skip("a bar is about two cores")
	}
	var out strings.Builder
	err := run(t.Context(), quick, &out)
	lines := strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
	var names []string
	short := false
	for _, line := range lines {
		require.Regexp(t, `^[a-z0-9-]+ \d+\.\d \d+\.\d (\d+\.\d{3}|\+Inf) \d+\.\d{3} (ok|short)$`, line)
		name, _, _ := strings.Cut(line, " ")
		names = append(names, name)
		short = short || strings.HasSuffix(line, "short")
	}
	require.Equal(t, short, err != nil, "the status says whether a bar is short")
	if short {
		require.ErrorIs(t, err, errShort)
	}
	var wanted []string
	for _, r := range bars.Races(1) {
		for _, b := range r.Bars {
			wanted = append(wanted, b.Name)
		}
	}
	require.Equal(t, wanted, names)
}

func TestMain_MeasuresOnlyTheSelectedBars(t *testing.T) { //nolint:paralleltest // it measures
	var out strings.Builder
	require.NoError(t, run(t.Context(), append([]string{"-only", "^get-allocs$|^register-bytes$"}, quick...), &out))
	require.Regexp(t, `(?s)^get-allocs [^\n]+\nregister-bytes [^\n]+\n$`, out.String())
}

func TestMain_RefusesBadArguments(t *testing.T) {
	t.Parallel()
	for _, arguments := range [][]string{{"-rounds", "0"}, {"-turns", "0"}, {"-turn", "0"}, {"-many", "0"}, {"-only", "("}, {"-unheard-of"}} {
		require.Error(t, run(t.Context(), arguments, &strings.Builder{}), arguments)
	}
}

func TestMain_InterruptionIsAnError(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, run(ctx, append([]string{"-only", "^get$"}, quick...), &strings.Builder{}), context.Canceled)
}

package main

import (
	"context"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// quick is as little as can be measured.
var quick = []string{"-rounds", "1", "-turn", "10us", "-many", "100"}

func TestEveryBarIsOneLine(t *testing.T) { //nolint:paralleltest // it measures
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
	for _, r := range races(1) {
		for _, b := range r.bars {
			wanted = append(wanted, b.name)
		}
	}
	require.Equal(t, wanted, names)
}

func TestBarIsShortWhenItsRatioIsExceeded(t *testing.T) {
	t.Parallel()
	b := bar{"call", 0.6}
	require.Equal(t, "call 60.0 100.0 0.600 0.600 ok", b.line(figure{60, 100}))
	require.Equal(t, "call 61.0 100.0 0.610 0.600 short", b.line(figure{61, 100}))
	none := bar{"allocs", 1}
	require.True(t, none.met(figure{0, 0}))
	require.False(t, none.met(figure{1, 0}))
}

func TestOnlyTheBarsThatAreAskedForAreMeasured(t *testing.T) { //nolint:paralleltest // it measures
	var out strings.Builder
	require.NoError(t, run(t.Context(), append([]string{"-only", "^get-allocs$|^register-bytes$"}, quick...), &out))
	require.Regexp(t, `(?s)^get-allocs [^\n]+\nregister-bytes [^\n]+\n$`, out.String())
}

func TestBadArgumentsAreErrors(t *testing.T) {
	t.Parallel()
	for _, arguments := range [][]string{{"-rounds", "0"}, {"-turn", "0"}, {"-many", "0"}, {"-only", "("}, {"-unheard-of"}} {
		require.Error(t, run(t.Context(), arguments, &strings.Builder{}), arguments)
	}
}

func TestInterruptedMeasurementIsAnError(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, run(ctx, append([]string{"-only", "^get$"}, quick...), &strings.Builder{}), context.Canceled)
}

package main

import (
	"context"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestMain_EveryBarIsOneLine(t *testing.T) { //nolint:paralleltest // it measures
	var out strings.Builder
	err := run(t.Context(), []string{"-rounds", "1", "-calls", "100"}, &out)
	lines := strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
	var names []string
	for _, line := range lines {
		require.Regexp(t, `^[a-z-]+ \d+\.\d \d+\.\d \d+\.\d{3} \d+\.\d{3} (ok|short)$`, line)
		name, _, _ := strings.Cut(line, " ")
		names = append(names, name)
	}
	require.Equal(t, []string{"noise", "unobserved", "durations", "prometheus", "otel-metrics", "otel-sampled-out", "otel-no-root", "scrape", "scrape-locked"}, names)
	if strings.Contains(out.String(), "short") {
		require.ErrorIs(t, err, errShort)
	} else {
		require.NoError(t, err)
	}
}

func TestMain_RefusesBadArgumentsAndEndsWhenInterrupted(t *testing.T) {
	t.Parallel()
	for _, arguments := range [][]string{{"-rounds", "0"}, {"-calls", "0"}, {"-unheard-of"}} {
		require.Error(t, run(t.Context(), arguments, &strings.Builder{}), arguments)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, run(ctx, []string{"-calls", "1"}, &strings.Builder{}), context.Canceled)
}

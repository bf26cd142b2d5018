package main

import (
	"context"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestMain_LastLineHasAllFigures(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	require.NoError(t, run(t.Context(), []string{"-rounds", "2", "-requests", "3"}, &out))
	lines := strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
	last := lines[len(lines)-1]
	for _, name := range []string{"plain", "stream", "h2plain", "h2stream"} {
		require.Regexp(t, `(^| )`+name+`_latency \d+\.\d{3} `+name+`_cpu_us -?\d+\.\d\d `+
			name+`_bare_latency \d+\.\d{3} `+name+`_bare_cpu_us -?\d+\.\d\d( |$)`, last)
	}
}

func TestMain_RefusesBadArguments(t *testing.T) {
	t.Parallel()
	for _, arguments := range [][]string{{"-rounds", "0"}, {"-requests", "0"}, {"-rounds", "many"}, {"-unheard-of"}} {
		require.Error(t, run(t.Context(), arguments, &strings.Builder{}), arguments)
	}
	require.NoError(t, run(t.Context(), []string{"-help"}, &strings.Builder{}))
}

func TestMain_InterruptionIsAnError(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, run(ctx, []string{"-rounds", "1"}, &strings.Builder{}), context.Canceled)
}

package main

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "-serve" { // one of the servers that a test has started
		main()
		return
	}
	goleak.VerifyTestMain(m)
}

func TestMain_WritesAllFiguresAndThePage(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	file := filepath.Join(t.TempDir(), "page.md")
	require.NoError(t, run(t.Context(), []string{"-rounds", "1", "-turn", "20ms", "-streams", "2", "-mixed", "20", "-o", file}, &out))
	lines := strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
	require.Regexp(t, `^plain16_proxy \S+ library16_us \S+ plain128_proxy \S+ library128_us \S+ streams_cpu_proxy \S+ peak_mib \d+\.\d{3} down \d+\.\d{3}$`, lines[len(lines)-1])
	require.Contains(t, out.String(), "left out: Portkey: no -portkey")
	written, err := os.ReadFile(file)
	require.NoError(t, err)
	committed, err := os.ReadFile("../../docs/gateway-speed.md")
	require.NoError(t, err)
	for _, text := range []string{string(written), string(committed)} {
		for _, row := range []string{"gateway", "reverse proxy", "way by the library", "way without it", "plain16_proxy", "library16_us", "plain128_proxy", "streams_cpu_proxy", "peak_mib", "down"} {
			require.Regexp(t, `(?m)^\| `+row+` \|.* -?\d+(\.\d+)? \|`, text)
		}
		require.NotContains(t, text, "%!")
	}
}

func TestMain_RefusesBadArguments(t *testing.T) {
	t.Parallel()
	for _, arguments := range [][]string{
		{"-rounds", "0"}, {"-turn", "0s"}, {"-streams", "0"}, {"-mixed", "0"}, {"-rounds", "many"}, {"-serve", "other"}, {"-unheard-of"},
	} {
		require.Error(t, run(t.Context(), arguments, &strings.Builder{}), arguments)
	}
	require.NoError(t, run(t.Context(), []string{"-help"}, &strings.Builder{}))
}

func TestMain_InterruptionIsAnError(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.Error(t, run(ctx, []string{"-rounds", "1"}, &strings.Builder{}))
}

package main

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestMain_LastLineHasAllFigures(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	require.NoError(t, run(t.Context(), []string{"-graphs", "2", "-rounds", "1"}, &out))
	lines := strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
	require.Regexp(t, `^eager \d+\.\d{2,3} batch \d+\.\d{2,3} plan1k \d+\.\d{2,3} plan10k \d+\.\d{2,3}$`, lines[len(lines)-1])
	for _, name := range []string{"orchestrator", "by hand", "fx", "samber/do"} {
		require.Contains(t, out.String(), name)
	}
}

func TestMain_RefusesBadArguments(t *testing.T) {
	t.Parallel()
	for _, arguments := range [][]string{{"-graphs", "0"}, {"-rounds", "many"}, {"-unheard-of"}} {
		require.Error(t, run(t.Context(), arguments, &strings.Builder{}), arguments)
	}
}

func TestMain_InterruptionIsAnError(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, run(ctx, []string{"-graphs", "1"}, &strings.Builder{}), context.Canceled)
}

func TestGraph_DependsOnItsSeedAlone(t *testing.T) {
	t.Parallel()
	g := drawGraph(7, 100)
	require.Equal(t, g, drawGraph(7, 100))
	require.NotEqual(t, g, drawGraph(8, 100))
	for i, needs := range g.needs {
		require.LessOrEqual(t, len(needs), mostNeeds)
		for _, need := range needs {
			require.Less(t, need, i)
		}
	}
}

func TestGraph_LongestChain(t *testing.T) {
	t.Parallel()
	g := graph{names: []string{"a", "b", "c", "d"}, needs: [][]int{nil, nil, {0, 1}, nil}}
	require.Equal(t, 5*time.Second, g.longestChain([]time.Duration{time.Second, 2 * time.Second, 3 * time.Second, 4 * time.Second}))
}

func TestByHand_RefusesCycles(t *testing.T) {
	t.Parallel()
	named := func(name string, needs ...string) task { return task{name: name, needs: needs, start: nothing} }
	require.NoError(t, startByHand(t.Context(), []task{named("a", "b"), named("b")}))
	require.ErrorContains(t, startByHand(t.Context(), []task{named("a"), named("a")}), "two of")
	require.ErrorContains(t, startByHand(t.Context(), []task{named("a", "b")}), "there is not")
	require.ErrorContains(t, startByHand(t.Context(), []task{named("a", "b"), named("b", "a")}), "wait for each other")
}

func BenchmarkOrchestrator(b *testing.B) {
	for name, size := range map[string]int{"1k": 1_000, "10k": 10_000} {
		b.Run(name, func(b *testing.B) {
			c := orchestrated(drawGraph(1, size))
			b.ReportAllocs()
			for b.Loop() {
				stop, err := c.start(b.Context())
				require.NoError(b, err)
				b.StopTimer()
				require.NoError(b, stop(b.Context()))
				b.StartTimer()
			}
		})
	}
}

func BenchmarkByHand(b *testing.B) {
	for name, size := range map[string]int{"1k": 1_000, "10k": 10_000} {
		b.Run(name, func(b *testing.B) {
			c := byHand(drawGraph(1, size))
			b.ReportAllocs()
			for b.Loop() {
				_, err := c.start(b.Context())
				require.NoError(b, err)
			}
		})
	}
}

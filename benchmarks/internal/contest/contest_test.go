package contest_test

import (
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/capreg/registry/benchmarks/internal/contest"
)

// hystrix-go starts goroutines for each command and has no way to end them.
func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		goleak.IgnoreAnyFunction("github.com/afex/hystrix-go/hystrix.(*metricExchange).Monitor"),
		goleak.IgnoreAnyFunction("github.com/afex/hystrix-go/hystrix.(*poolMetrics).Monitor"))
}

func TestEveryContestantDoesItsWork(t *testing.T) {
	t.Parallel()
	for _, c := range slices.Concat(contest.OurPickers(), contest.Pickers(), contest.OurCalls(), contest.Guards()) {
		loop, free, err := c.Make()
		require.NoError(t, err, c.Name)
		loop(100)
		require.NoError(t, free(), c.Name)
	}
}

func TestRaceTellsFastFromSlowAndTakesTurns(t *testing.T) {
	t.Parallel()
	var order []string
	waiting := func(name string, each time.Duration) contest.Runner {
		return contest.Runner{Cores: 1, Loop: func(n int) {
			order = append(order, name)
			for range n {
				for began := time.Now(); time.Since(began) < each; {
				}
			}
		}}
	}
	settings := contest.Settings{Rounds: 2, Turns: 2, Turn: 100 * time.Microsecond}
	times, err := contest.Race(t.Context(), settings, waiting("fast", time.Microsecond), waiting("slow", 20*time.Microsecond))
	require.NoError(t, err)
	require.Less(t, times[0], times[1])
	require.Equal(t, []string{"fast", "slow", "slow", "fast", "fast", "slow", "slow", "fast"}, order[len(order)-8:])
}

func TestQuantileIsAFigureThatWasSeen(t *testing.T) {
	t.Parallel()
	figures := []float64{5, 1, 4, 2, 3}
	require.InDelta(t, 3, contest.Quantile(figures, 0.5), 0)
	require.InDelta(t, 1, contest.Quantile(figures, 0), 0)
	require.InDelta(t, 5, contest.Quantile(figures, 1), 0)
}

func TestAllocationsAreThoseOfAnOperation(t *testing.T) { //nolint:paralleltest // it counts those of the program
	var kept *[64]byte
	cost := contest.Allocations(func(n int) {
		for range n {
			kept = new([64]byte)
		}
	})
	require.Equal(t, contest.Cost{Allocs: 1, Bytes: 64}, cost)
	half := contest.Allocations(func(n int) {
		for i := range n {
			if i%2 == 0 {
				kept = new([64]byte)
			}
		}
	})
	require.Equal(t, contest.Cost{Allocs: 0.5, Bytes: 32}, half, "not every operation allocates, which is not none")
	_ = kept
}

func TestMoreCoresThanThereAreIsAnError(t *testing.T) {
	t.Parallel()
	settings := contest.Settings{Rounds: 1, Turns: 1, Turn: 10 * time.Microsecond}
	_, err := contest.Race(t.Context(), settings, contest.Runner{Loop: func(int) {}, Cores: runtime.NumCPU() + 1})
	require.ErrorContains(t, err, "cores are needed")
}

func TestMembershipIsMeasuredOnALiveRegistry(t *testing.T) { //nolint:paralleltest // it measures the heap
	m, err := contest.Join(t.Context(), 200)
	require.NoError(t, err)
	require.Positive(t, m.Register)
	require.Positive(t, m.Unregister)
	require.Positive(t, m.Bytes)
}

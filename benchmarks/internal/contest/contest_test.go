package contest_test

import (
	"runtime"
	"slices"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/capreg/registry"
	"github.com/capreg/registry/benchmarks/internal/contest"
	"github.com/capreg/registry/health"
	"github.com/capreg/registry/status"
)

// hystrix-go starts goroutines for each command and has no way to end them.
func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		goleak.IgnoreAnyFunction("github.com/afex/hystrix-go/hystrix.(*metricExchange).Monitor"),
		goleak.IgnoreAnyFunction("github.com/afex/hystrix-go/hystrix.(*poolMetrics).Monitor"))
}

func TestContestants_DoTheirWork(t *testing.T) {
	t.Parallel()
	for _, c := range slices.Concat(contest.OurPickers(), contest.Pickers(), contest.OurCalls(), contest.Guards(),
		contest.OurListening(), contest.Listening()) {
		loop, free, err := c.Make()
		require.NoError(t, err, c.Name)
		loop(100)
		require.NoError(t, free(), c.Name)
	}
}

func TestRace_DistinguishesFastFromSlow(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var order []string
		waiting := func(name string, each time.Duration) contest.Runner {
			return contest.Runner{Cores: 1, Loop: func(n int) {
				order = append(order, name)
				time.Sleep(time.Duration(n) * each)
			}}
		}
		settings := contest.Settings{Rounds: 2, Turns: 2, Turn: 100 * time.Microsecond}
		times, err := contest.Race(t.Context(), settings, waiting("fast", time.Microsecond), waiting("slow", 20*time.Microsecond))
		require.NoError(t, err)
		require.Equal(t, []float64{1_000, 20_000}, times)
		require.Equal(t, []string{"fast", "slow", "slow", "fast", "fast", "slow", "slow", "fast"}, order[len(order)-8:])
	})
}

func TestQuantile_IsAMeasuredFigure(t *testing.T) {
	t.Parallel()
	figures := []float64{5, 1, 4, 2, 3}
	require.InDelta(t, 3, contest.Quantile(figures, 0.5), 0)
	require.InDelta(t, 1, contest.Quantile(figures, 0), 0)
	require.InDelta(t, 5, contest.Quantile(figures, 1), 0)
}

func TestCost_CountsTheAllocationsOfAnOperation(t *testing.T) { //nolint:paralleltest // it counts those of the program
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

func TestLoop_RefusesMoreCoresThanThereAre(t *testing.T) {
	t.Parallel()
	settings := contest.Settings{Rounds: 1, Turns: 1, Turn: 10 * time.Microsecond}
	_, err := contest.Race(t.Context(), settings, contest.Runner{Loop: func(int) {}, Cores: runtime.NumCPU() + 1})
	require.ErrorContains(t, err, "cores are needed")
}

func TestMembership_MeasuresALiveRegistry(t *testing.T) { //nolint:paralleltest // it measures the heap
	m, err := contest.Join(t.Context(), 200)
	require.NoError(t, err)
	require.Positive(t, m.Register)
	require.Positive(t, m.Unregister)
	require.Positive(t, m.Bytes)
}

func TestMembership_CalledProvidersAreLarger(t *testing.T) { //nolint:paralleltest // it measures the heap
	at, err := contest.Joins(t.Context(), 200, 3)
	require.NoError(t, err)
	called, err := contest.Called(t.Context(), 200)
	require.NoError(t, err)
	require.Greater(t, called, at.Bytes, "they have counters as well")
}

// What the document and the bars claim to be recorded is recorded in what they measure.
func TestOurs_MeasuredCallsAreRecorded(t *testing.T) {
	t.Parallel()
	for name, setting := range map[string]contest.Setting{
		"without timeout": {Probed: true, Timeout: registry.NoTimeout},
		"with timeout":    {Probed: true},
		"listening":       {Probed: true, Listening: true},
		"full":            {Probed: true, Full: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			const calls = 1000
			reg, err := setting.Populate()
			require.NoError(t, err)
			defer func() { require.NoError(t, reg.Close(t.Context())) }()
			contest.Calling(contest.Bind(reg))(calls)
			first, ok := reg.Provider("model", "0")
			require.True(t, ok)
			info := first.Info()
			require.EqualValues(t, calls, info.Attempts)
			require.EqualValues(t, calls, info.Successes)
			require.Zero(t, info.InFlight)
			require.Positive(t, info.MeanLatency)
			require.Equal(t, health.Healthy, info.Health.State)
			require.False(t, info.Health.CheckedAt.IsZero(), "a probe ended")
			require.EqualValues(t, calls, reg.Stats().Hits)
			if setting.Full {
				last, _ := reg.Provider("model", strconv.Itoa(contest.Providers-1))
				require.Equal(t, 1, last.Info().Group)
				retry, err := first.SetRetry(registry.RetryPolicy{})
				require.NoError(t, err)
				require.Equal(t, 2, retry.Retries)
				limits, err := first.SetLimits(registry.LimitPolicy{})
				require.NoError(t, err)
				require.Equal(t, contest.Concurrent, limits.MaxConcurrent)
			}
		})
	}
}

func TestOurs_OpenBreakersWereOpenedByFailures(t *testing.T) {
	t.Parallel()
	reg, err := contest.Setting{Open: 3, Strategy: registry.StrategyRoundRobin}.Populate()
	require.NoError(t, err)
	defer func() { require.NoError(t, reg.Close(t.Context())) }()
	for i := range contest.Providers {
		p, ok := reg.Provider("model", strconv.Itoa(i))
		require.True(t, ok)
		b := p.Breaker()
		require.Equal(t, i < 3, b.State == status.BreakerOpen, i)
		require.False(t, b.Forced)
		require.Equal(t, i < 3, p.Info().Failures > 0, "the others are not affected")
	}
}

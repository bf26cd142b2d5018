package histogram_test

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/capreg/registry/internal/histogram"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// naive is Index by a search through the bounds.
func naive(d time.Duration) int {
	for i := range histogram.Size {
		if bound, bounded := histogram.Bound(i); !bounded || float64(d) <= bound {
			return i
		}
	}
	return -1
}

func TestIndex_FollowsTheBounds(t *testing.T) {
	t.Parallel()
	for i := range histogram.Size - 1 {
		bound, _ := histogram.Bound(i)
		at := time.Duration(bound)
		for _, d := range []time.Duration{at - 1, at, at + 1} {
			require.Equal(t, naive(d), histogram.Index(d), "%d ns", d)
		}
	}
	random := rand.New(rand.NewPCG(1, 2))
	for range 10_000 {
		d := time.Duration(random.Uint64() >> random.IntN(64))
		require.Equal(t, naive(d), histogram.Index(d), "%d ns", d)
	}
	for _, d := range []time.Duration{0, -1, math.MinInt64} {
		require.Zero(t, histogram.Index(d))
	}
	require.Equal(t, histogram.Size-1, histogram.Index(math.MaxInt64))
}

func TestBound_EveryOtherOneIsOfADashboardOrOfAnExponentialHistogram(t *testing.T) {
	t.Parallel()
	bounds := make(map[float64]bool)
	for i := range histogram.Size - 1 {
		bound, bounded := histogram.Bound(i)
		require.True(t, bounded)
		bounds[bound] = true
	}
	for doubled := 5 * time.Millisecond; doubled <= 81920*time.Millisecond; doubled *= 2 {
		require.True(t, bounds[float64(doubled)], "%v", doubled)
	}
	for power := -13; power <= 7; power++ {
		require.True(t, bounds[math.Ldexp(1e9, power)], "2^%d s", power)
	}
	_, bounded := histogram.Bound(histogram.Size - 1)
	require.False(t, bounded)
}

func TestHistogram_CountsAndAddsUp(t *testing.T) {
	t.Parallel()
	var a, b histogram.Histogram
	a.Add(time.Millisecond)
	a.Add(-time.Second)
	b.Add(time.Hour)
	var both histogram.Counts
	both.Add(&a)
	both.Add(&b)
	require.EqualValues(t, 3, both.Total())
	require.Equal(t, time.Hour+time.Millisecond, both.Sum)
	require.EqualValues(t, 1, both.Buckets[0])
	require.EqualValues(t, 1, both.Buckets[histogram.Size-1])
	require.EqualValues(t, 1, both.Buckets[histogram.Index(time.Millisecond)])
}

func BenchmarkIndex(b *testing.B) {
	d, sum := time.Duration(1), 0
	for b.Loop() {
		sum += histogram.Index(d)
		d = (d + 1234567) & (1<<36 - 1)
	}
	_ = sum
}

package metrics_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/capreg/registry/metrics"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestHistogram_QuantileLiesWithinItsBucket(t *testing.T) {
	t.Parallel()
	require.Zero(t, metrics.Histogram{}.Quantile(0.5))
	h := metrics.Histogram{Count: 10, Buckets: []metrics.Bucket{
		{Above: 0, AtMost: 1, Count: 5}, {Above: 2, AtMost: 4, Count: 4}, {Above: 128, Count: 1},
	}}
	for q, want := range map[float64]time.Duration{
		-1: 0, 0: 0, 0.25: 500 * time.Millisecond, 0.5: time.Second, 0.7: 3 * time.Second, 0.9: 4 * time.Second,
		0.95: 128 * time.Second, 1: 128 * time.Second, 2: 128 * time.Second,
	} {
		require.Equal(t, want, h.Quantile(q), "%v", q)
	}
}

func TestAmountBounds_AreTheCallers(t *testing.T) {
	t.Parallel()
	metrics.AmountBounds()[0] = 7
	require.Equal(t, []uint64{1, 2, 3, 5, 8}, metrics.AmountBounds())
}

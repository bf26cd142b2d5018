package heap_test

import (
	"runtime"
	"runtime/metrics"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/capreg/registry/examples/internal/heap"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// percent is the growth that is in force.
func percent() uint64 {
	samples := []metrics.Sample{{Name: "/gc/gogc:percent"}}
	metrics.Read(samples)
	return samples[0].Value.Uint64()
}

//nolint:paralleltest // it is for the whole process
func TestFloor_LetsALittleHeapGrowAndALargeOneAsEver(t *testing.T) {
	t.Setenv("GOGC", "100")
	before := percent()
	heap.Floor(64 << 20)
	require.Equal(t, before, percent(), "the environment has chosen")
	t.Setenv("GOGC", "")
	heap.Floor(64 << 20)
	little := func() bool { runtime.GC(); return percent() > 500 }
	require.Eventually(t, little, time.Minute, 10*time.Millisecond)
	for size, want := range map[int]uint64{62 << 20: 20, 140 << 20: 50, 300 << 20: 100} {
		large := make([]byte, size)
		require.Eventually(t, func() bool { runtime.GC(); return percent() == want }, time.Minute, 10*time.Millisecond, want)
		runtime.KeepAlive(large)
		require.Eventually(t, little, time.Minute, 10*time.Millisecond)
	}
}

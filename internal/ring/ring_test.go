package ring_test

import (
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/capreg/registry/internal/ring"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestRing_PopsInOrder(t *testing.T) {
	t.Parallel()
	r := ring.New[int](100)
	for i := range 20 {
		r.Push(i)
	}
	require.Equal(t, 20, r.Len())
	for i := range 20 {
		value, lost, ok := r.Pop()
		require.True(t, ok)
		require.Zero(t, lost)
		require.Equal(t, i, value)
	}
	_, lost, ok := r.Pop()
	require.False(t, ok)
	require.Zero(t, lost)
}

func TestPush_DropsAndCountsTheOldestWhenFull(t *testing.T) {
	t.Parallel()
	r := ring.New[int](3)
	for i := range 5 {
		r.Push(i)
	}
	value, lost, ok := r.Pop()
	require.True(t, ok)
	require.Equal(t, 2, value)
	require.Equal(t, uint64(2), lost)
	value, lost, _ = r.Pop()
	require.Equal(t, 3, value)
	require.Zero(t, lost, "what was lost is told once")
}

func TestNew_WithoutLengthHoldsOne(t *testing.T) {
	t.Parallel()
	r := ring.New[string](-1)
	r.Push("a")
	r.Push("b")
	value, lost, _ := r.Pop()
	require.Equal(t, "b", value)
	require.Equal(t, uint64(1), lost)
}

func FuzzRing_MatchesSlice(f *testing.F) {
	f.Add(uint8(3), []byte{1, 1, 1, 1, 0, 1, 0, 0, 0})
	f.Fuzz(func(t *testing.T, limit uint8, steps []byte) {
		r := ring.New[int](int(limit))
		bound := max(int(limit), 1)
		var model []int
		var lost uint64
		for i, step := range steps {
			if step%2 == 1 {
				r.Push(i)
				model = append(model, i)
				if len(model) > bound {
					model = model[1:]
					lost++
				}
			} else {
				value, dropped, ok := r.Pop()
				require.Equal(t, len(model) > 0, ok)
				if ok {
					require.Equal(t, model[0], value)
					require.Equal(t, lost, dropped)
					model, lost = model[1:], 0
				}
			}
			require.Equal(t, len(model), r.Len())
		}
	})
}

func TestValues_ReturnsACopyOldestFirst(t *testing.T) {
	t.Parallel()
	r := ring.New[int](3)
	require.Empty(t, r.Values())
	for i := range 5 {
		r.Push(i)
	}
	values := r.Values()
	require.Equal(t, []int{2, 3, 4}, values)
	values[0] = 9
	require.Equal(t, []int{2, 3, 4}, r.Values())
	_, _, _ = r.Pop()
	require.Equal(t, []int{3, 4}, r.Values())
	require.Equal(t, 2, r.Len())
}

func TestPop_ReleasesTheValue(t *testing.T) {
	t.Parallel()
	r := ring.New[*[64]byte](2)
	freed := make(chan struct{}, 3)
	for range 3 {
		value := new([64]byte)
		runtime.AddCleanup(value, func(int) { freed <- struct{}{} }, 0)
		r.Push(value) // the third one drops the first
	}
	_, _, _ = r.Pop()
	for gone := 0; gone < 2; { // until the test's own deadline
		runtime.GC()
		select {
		case <-freed:
			gone++
		default:
		}
	}
	require.Equal(t, 1, r.Len())
	runtime.KeepAlive(r)
}

// It is not parallel: counting allocations counts those of all goroutines.
func TestPush_AllocatesNothingOnceTheRingIsFull(t *testing.T) {
	r := ring.New[int](20)
	for i := range 20 {
		r.Push(i)
	}
	require.Zero(t, testing.AllocsPerRun(100, func() { r.Push(1) }))
}

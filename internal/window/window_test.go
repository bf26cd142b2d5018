package window_test

import (
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/capreg/registry/internal/window"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestWindow_DropsOldEvents(t *testing.T) {
	t.Parallel()
	w := window.New(10 * time.Second)
	require.Equal(t, window.Counts{Total: 1, Bad: 1}, w.Add(0, true, false))
	require.Equal(t, window.Counts{Total: 2, Bad: 1, Slow: 1}, w.Add(5*time.Second, false, true))
	require.Equal(t, window.Counts{Total: 2, Bad: 1, Slow: 1}, w.Counts(9*time.Second))
	require.Equal(t, window.Counts{Total: 1, Slow: 1}, w.Counts(10*time.Second))
	require.Equal(t, window.Counts{}, w.Counts(time.Hour))
	require.Equal(t, window.Counts{Total: 1}, w.Add(time.Minute, false, false), "time that goes back is no time")
	w.Clear()
	require.Equal(t, window.Counts{}, w.Counts(time.Hour))
}

func TestNew_OfNoLengthHasSlicesOfANanosecond(t *testing.T) {
	t.Parallel()
	for _, length := range []time.Duration{-1, 0, 1, 10, 19} {
		w := window.New(length)
		w.Add(0, false, false)
		require.Equal(t, window.Counts{Total: 1}, w.Counts(9))
		require.Equal(t, window.Counts{}, w.Counts(10))
	}
}

// The model keeps every event.
func TestWindow_AgreesWithAListOfEvents(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(1, 2))
	const slice = 100 * time.Millisecond
	w := window.New(10 * slice)
	type event struct {
		at        time.Duration
		bad, slow bool
	}
	var events []event
	now := time.Duration(0)
	for range 20_000 {
		now += time.Duration(random.IntN(60)) * time.Millisecond
		if random.IntN(500) == 0 {
			now += time.Duration(random.IntN(3)) * time.Second
		}
		e := event{now, random.IntN(2) == 0, random.IntN(3) == 0}
		events = append(events, e)
		got := w.Add(e.at, e.bad, e.slow)
		var want window.Counts
		for _, other := range events[max(0, len(events)-2000):] {
			if other.at/slice > now/slice-10 {
				want.Total++
				if other.bad {
					want.Bad++
				}
				if other.slow {
					want.Slow++
				}
			}
		}
		require.Equal(t, want, got)
	}
}

func TestWindow_IsSafeForConcurrentUse(t *testing.T) {
	t.Parallel()
	w := window.New(time.Hour)
	var counting sync.WaitGroup
	for range 8 {
		counting.Go(func() {
			for range 1000 {
				w.Add(time.Minute, true, false)
			}
		})
	}
	counting.Wait()
	require.Equal(t, window.Counts{Total: 8000, Bad: 8000}, w.Counts(time.Minute))
}

func BenchmarkAdd(b *testing.B) {
	w := window.New(time.Minute)
	b.ReportAllocs()
	for b.Loop() {
		w.Add(time.Second, false, false)
	}
}

package striped_test

import (
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/capreg/registry/internal/striped"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type counters struct {
	hits, misses atomic.Uint64
}

func total(cells *striped.Cells[counters]) (hits, misses uint64) {
	for cell := range cells.Each {
		hits += cell.hits.Load()
		misses += cell.misses.Load()
	}

	return hits, misses
}

func TestCells_ConcurrentAddsLoseNothing(t *testing.T) {
	t.Parallel()
	const goroutines, adds = 100, 1000
	var cells striped.Cells[counters]
	var all sync.WaitGroup
	for range goroutines {
		all.Go(func() {
			for range adds {
				cells.Local().hits.Add(1)
				cells.Local().misses.Add(2)
			}
		})
	}
	all.Wait()

	hits, misses := total(&cells)
	require.EqualValues(t, goroutines*adds, hits)
	require.EqualValues(t, 2*goroutines*adds, misses)
}

func TestLocal_ConcurrentFirstCallsAgree(t *testing.T) {
	t.Parallel()
	const goroutines, rounds = 2, 2000
	fresh := make([]striped.Cells[counters], rounds)
	var arrived atomic.Int64
	var all sync.WaitGroup
	for range goroutines {
		all.Go(func() {
			for round := range fresh {
				arrived.Add(1)
				// Both leave together only if they do not sleep until then.
				for spins := 1; arrived.Load() < int64(goroutines*(round+1)); spins++ {
					if spins%200 == 0 {
						runtime.Gosched()
					}
				}
				fresh[round].Local().hits.Add(1)
			}
		})
	}
	all.Wait()
	for round := range fresh {
		hits, _ := total(&fresh[round])
		require.EqualValues(t, goroutines, hits)
	}
}

func TestEach_DuringChanges(t *testing.T) {
	t.Parallel()
	var cells striped.Cells[counters]
	var all sync.WaitGroup
	all.Go(func() {
		for range 10_000 {
			cells.Local().hits.Add(1)
		}
	})
	for last := uint64(0); last < 10_000; {
		hits, _ := total(&cells)
		require.GreaterOrEqual(t, hits, last)
		last = hits
		runtime.Gosched()
	}
	all.Wait()
}

func TestCells_IdleCostAPointer(t *testing.T) {
	t.Parallel()
	var cells striped.Cells[counters]
	require.Equal(t, unsafe.Sizeof(uintptr(0)), unsafe.Sizeof(cells))
	for range cells.Each {
		require.Fail(t, "there is a cell before the first Local")
	}
	require.Nil(t, cells.At(striped.Here()))
}

func TestEach_YieldsEveryCellOnceAndStops(t *testing.T) {
	t.Parallel()
	var cells striped.Cells[counters]
	local := cells.Local()

	seen := map[*counters]bool{}
	for cell := range cells.Each {
		require.False(t, seen[cell])
		seen[cell] = true
	}
	require.Len(t, seen, striped.Stripes())
	require.True(t, seen[local])

	yields := 0
	for range cells.Each {
		if yields++; yields == 3 {
			break
		}
	}
	require.Equal(t, 3, yields)
}

func requireApart[T any](t *testing.T) {
	t.Helper()
	var cells striped.Cells[T]
	cells.Local()
	var end uintptr
	for cell := range cells.Each {
		begin := uintptr(unsafe.Pointer(cell))
		if end != 0 {
			require.Greater(t, begin/striped.LinePair, (end-1)/striped.LinePair)
		}
		end = begin + unsafe.Sizeof(*cell)
	}
}

func TestCells_ShareNoLinePair(t *testing.T) {
	t.Parallel()
	requireApart[atomic.Uint32](t)
	requireApart[atomic.Uint64](t)
	requireApart[counters](t)
	requireApart[[17]atomic.Uint64](t)
	requireApart[[40]byte](t)
}

func TestCells_KeepPointersAlive(t *testing.T) {
	t.Parallel()
	var cells striped.Cells[atomic.Pointer[[]int]]
	for cell := range cells.Each {
		require.Nil(t, cell)
	}
	cells.Local()
	for cell := range cells.Each {
		cell.Store(&[]int{1, 2, 3})
	}
	runtime.GC()
	for cell := range cells.Each {
		require.Equal(t, []int{1, 2, 3}, *cell.Load())
	}
}

func TestLocal_GoroutineKeepsItsCell(t *testing.T) {
	t.Parallel()
	var cells striped.Cells[counters]
	seen := map[*counters]int{}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range 10_000 {
			seen[cells.Local()]++
		}
	}()
	<-done
	// Its stack may be moved a few times.
	require.LessOrEqual(t, len(seen), 4)
}

func TestLocal_DistributesGoroutines(t *testing.T) {
	t.Parallel()
	var cells striped.Cells[counters]
	var all, alive sync.WaitGroup
	const goroutines = 256
	alive.Add(goroutines)
	for range goroutines {
		all.Go(func() {
			cells.Local().hits.Add(1)
			alive.Done()
			alive.Wait()
		})
	}
	all.Wait()

	used := 0
	for cell := range cells.Each {
		if cell.hits.Load() > 0 {
			used++
		}
	}
	require.Greater(t, used, striped.Stripes()/2)
}

func TestStripes_PowerOfTwoWithinBounds(t *testing.T) {
	t.Parallel()
	for procs, want := range map[int]uint{1: 8, 2: 8, 4: 8, 5: 16, 8: 16, 9: 32, 16: 32, 17: 64, 32: 64, 33: 64, 1024: 64} {
		require.Equal(t, want, striped.StripesFor(procs), "procs=%d", procs)
	}
}

// It is not parallel: counting allocations counts those of all goroutines.
func TestLocal_AllocatesOnlyOnce(t *testing.T) {
	var cells striped.Cells[counters]
	require.Zero(t, testing.AllocsPerRun(100, func() { total(&cells) }))
	fresh := make([]striped.Cells[counters], 101)
	require.InDelta(t, 1, testing.AllocsPerRun(len(fresh)-1, func() {
		fresh[0].Local()
		fresh = fresh[1:]
	}), 0.01)

	cells.Local()
	require.Zero(t, testing.AllocsPerRun(1000, func() {
		cells.Local().hits.Add(1)
		total(&cells)
	}))
}

func BenchmarkLocal(b *testing.B) {
	var cells striped.Cells[counters]
	b.ReportAllocs()
	for b.Loop() {
		cells.Local()
	}
}

func BenchmarkAdd(b *testing.B) {
	b.Run("serial/striped", func(b *testing.B) {
		var cells striped.Cells[counters]
		b.ReportAllocs()
		for b.Loop() {
			cells.Local().hits.Add(1)
		}
	})
	b.Run("serial/shared", func(b *testing.B) {
		var shared atomic.Uint64
		b.ReportAllocs()
		for b.Loop() {
			shared.Add(1)
		}
	})
	b.Run("parallel/striped", func(b *testing.B) {
		var cells striped.Cells[counters]
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				cells.Local().hits.Add(1)
			}
		})
	})
	b.Run("parallel/shared", func(b *testing.B) {
		var shared atomic.Uint64
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				shared.Add(1)
			}
		})
	})
}

func BenchmarkEach(b *testing.B) {
	var cells striped.Cells[counters]
	cells.Local()
	b.ReportAllocs()
	for b.Loop() {
		total(&cells)
	}
}

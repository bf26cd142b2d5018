package bitset_test

import (
	"fmt"
	"math"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/capreg/registry/internal/bitset"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// sizes lie on both sides of each step in the number of levels.
var sizes = []int{1, 8, 63, 64, 65, 128, 4095, 4096, 4097, 10_000, 262_144, 262_145, 300_000}

func filled(n int) *bitset.Set {
	set := bitset.New(n)
	for i := range n {
		set.Add(i)
	}

	return set
}

func members(set *bitset.Set) []int {
	found := []int{}
	for i := set.Next(0, set.Len()); i >= 0; i = set.Next(i+1, set.Len()) {
		found = append(found, i)
	}

	return found
}

func TestNew_IsEmpty(t *testing.T) {
	t.Parallel()
	for _, n := range sizes {
		set := bitset.New(n)
		require.Equal(t, n, set.Len())
		require.Zero(t, set.Count())
		require.Equal(t, -1, set.Next(0, n))
		require.False(t, set.Has(0))
	}
}

func TestNew_WithoutCapacityHasNoMembers(t *testing.T) {
	t.Parallel()
	for _, n := range []int{0, -1, math.MinInt} {
		set := bitset.New(n)
		require.Zero(t, set.Len())
		require.False(t, set.Has(0))
		require.Equal(t, -1, set.Next(math.MinInt, math.MaxInt))
		require.Panics(t, func() { set.Add(0) })
	}
}

func TestNext_VisitsAllMembersInOrder(t *testing.T) {
	t.Parallel()
	for _, n := range sizes {
		for _, step := range []int{1, 7, 63, 64, 65, 4096, 5000} {
			set := bitset.New(n)
			want := []int{}
			for i := (n - 1) % step; i < n; i += step {
				set.Add(i)
				want = append(want, i)
			}
			require.Equal(t, want, members(set), "n=%d step=%d", n, step)
			require.Equal(t, len(want), set.Count())
		}
	}
}

func TestFirst_IsNextOfEverything(t *testing.T) {
	t.Parallel()
	for _, n := range []int{0, 1, 64, 65, 10_000} {
		set := bitset.New(n)
		require.Equal(t, -1, set.First())
		for i := n - 1; i >= 0; i-- {
			set.Add(i)
			require.Equal(t, i, set.First())
		}
		for i := range n {
			set.Remove(i)
			require.Equal(t, set.Next(0, n), set.First())
		}
		require.Equal(t, -1, set.First())
	}
}

func TestNext_FindsALoneMember(t *testing.T) {
	t.Parallel()
	for _, n := range sizes {
		for _, lone := range []int{0, n / 3, n / 2, n - 1} {
			set := bitset.New(n)
			set.Add(lone)
			for from := 0; from <= lone; from += 1 + lone/97 {
				require.Equal(t, lone, set.Next(from, n))
				require.Equal(t, lone, set.Next(from, lone+1))
				require.Equal(t, -1, set.Next(from, lone))
			}
			require.Equal(t, -1, set.Next(lone+1, n))
		}
	}
}

func TestNext_SkipsRemovedMembers(t *testing.T) {
	t.Parallel()
	for _, n := range sizes {
		set := filled(n)
		for i := range n - 1 {
			set.Remove(i)
		}
		require.Equal(t, []int{n - 1}, members(set))
		set.Remove(n - 1)
		require.Empty(t, members(set))
		require.Zero(t, set.Count())
	}
}

func TestNext_ClampsItsBounds(t *testing.T) {
	t.Parallel()
	for _, n := range sizes {
		set := bitset.New(n)
		require.Equal(t, -1, set.Next(math.MinInt, math.MaxInt))
		set.Add(n - 1)
		require.Equal(t, n-1, set.Next(math.MinInt, math.MaxInt))
		require.Equal(t, n-1, set.Next(-1, n))
		require.Equal(t, -1, set.Next(n, math.MaxInt))
		require.Equal(t, -1, set.Next(math.MaxInt, math.MaxInt))
		require.Equal(t, -1, set.Next(math.MaxInt, math.MinInt))
		require.Equal(t, -1, set.Next(0, -1))
		require.Equal(t, -1, set.Next(0, 0))
		require.Equal(t, -1, set.Next(n-1, 0))
	}
}

func TestNext_PassesAnEmptyWordBelowASetSummary(t *testing.T) {
	t.Parallel()
	const n = 300_000
	set := bitset.New(n)
	for _, i := range []int{0, 63, 64, 127, 4095, 4096, 8191, 100_000, 262_143, 262_144, n - 1} {
		set.MarkSummariesAbove(i)
	}
	require.Equal(t, -1, set.Next(0, n))

	for _, lone := range []int{200, 4200, 150_000, n - 2} {
		set.Add(lone)
		for _, from := range []int{-1, 0, 1, 64, 128} {
			require.Equal(t, lone, set.Next(from, n))
			require.Equal(t, -1, set.Next(from, lone))
		}
		set.Remove(lone)
	}
	require.Equal(t, -1, set.Next(0, n))
}

func TestAddAndRemove_AreIdempotent(t *testing.T) {
	t.Parallel()
	for _, n := range sizes {
		set := bitset.New(n)
		set.Remove(n - 1)
		require.Zero(t, set.Count())
		set.Add(n - 1)
		set.Add(n - 1)
		require.Equal(t, 1, set.Count())
		require.True(t, set.Has(n-1))
		set.Remove(n - 1)
		set.Remove(n - 1)
		require.Zero(t, set.Count())
		require.False(t, set.Has(n-1))
	}
}

func TestAddAndRemove_KeepTheSummariesOfWhatIsThere(t *testing.T) {
	t.Parallel()
	set := bitset.New(1 << 19) // three levels above the bitmap
	const i = 100_000
	summaries := func() []int { return []int{set.SummariesAbove(i), set.SummariesAbove(i + 64), set.SummariesAbove(0)} }
	require.Equal(t, []int{0, 0, 0}, summaries())
	set.Add(i)
	require.Equal(t, []int{3, 2, 1}, summaries(), "those that they have in common")
	set.Add(i + 1)
	set.Remove(i)
	require.Equal(t, []int{3, 2, 1}, summaries(), "the word is not empty")
	set.Add(i + 64)
	set.Remove(i + 1)
	require.Equal(t, []int{2, 3, 1}, summaries(), "the word beside it is not")
	set.Remove(i + 64)
	require.Equal(t, []int{0, 0, 0}, summaries())
}

// It is not parallel: counting allocations counts those of all goroutines.
func TestNew_OfOneWordIsOneAllocation(t *testing.T) {
	var set *bitset.Set
	require.LessOrEqual(t, testing.AllocsPerRun(100, func() { set = bitset.New(64) }), 1.0)
	require.Equal(t, 64, set.Len())
}

func TestHas_IsFalseOutOfRange(t *testing.T) {
	t.Parallel()
	for _, n := range sizes {
		set := filled(n)
		for _, i := range []int{math.MinInt, -1, n, n + 1, math.MaxInt} {
			require.False(t, set.Has(i))
			require.Panics(t, func() { set.Add(i) })
			set.Remove(i)
		}
		require.Equal(t, n, set.Count())
	}
}

func TestNext_NeverMissesALastingMember(t *testing.T) {
	t.Parallel()
	for _, n := range []int{64, 10_000, 300_000} {
		set := bitset.New(n)
		lasting := n - 5
		set.Add(lasting)

		var readers sync.WaitGroup
		done := make(chan struct{})
		problem := make(chan string, 3)
		for range cap(problem) {
			readers.Go(func() {
				for {
					select {
					case <-done:
						return
					default:
					}
					// Only multiples of three come and go, and only below it.
					if i := set.Next(0, n); i != lasting && (i < 0 || i > lasting || i%3 != 0) {
						problem <- fmt.Sprintf("n=%d: Next returned %d", n, i)

						return
					}
					if !set.Has(lasting) || set.Count() < 1 {
						problem <- fmt.Sprintf("n=%d: lost %d", n, lasting)

						return
					}
				}
			})
		}
		for round := range 20_000 {
			i := round * 7919 % lasting / 3 * 3
			set.Add(i)
			set.Remove(i)
		}
		close(done)
		readers.Wait()
		require.Empty(t, problem)
		require.Equal(t, []int{lasting}, members(set))
	}
}

// spinUntil waits for instants, and lets others work if it takes longer.
func spinUntil(done func() bool) {
	for spins := 1; !done(); spins++ {
		if spins%200 == 0 {
			runtime.Gosched()
		}
	}
}

func TestNext_FindsAMemberSeenByHas(t *testing.T) {
	t.Parallel()
	// Each member is alone in its word, so that each Add writes summaries. The
	// writer waits until the reader is looking, so that they meet in the act.
	const n, step = 300_000, 64
	set := bitset.New(n)
	var awaited atomic.Int64
	var writer sync.WaitGroup
	awaited.Store(n)
	writer.Go(func() {
		for i := n - step; i >= 0; i -= step {
			spinUntil(func() bool { return awaited.Load() == int64(i) })
			set.Add(i)
		}
	})
	passedOver := 0
	for i := n - step; i >= 0; i -= step {
		awaited.Store(int64(i))
		spinUntil(func() bool { return set.Has(i) })
		// From the word before, so that the search goes by the summaries.
		if set.Next(i-step, n) != i {
			passedOver++
		}
	}
	writer.Wait()
	require.Zero(t, passedOver)
}

func FuzzSet_MatchesMap(f *testing.F) {
	f.Add(uint32(64), []byte{0, 1, 2, 3, 4, 5})
	f.Add(uint32(65), []byte{0, 0, 64, 2, 0, 64, 1, 0, 64})
	f.Add(uint32(5000), []byte{0, 0x12, 0x34, 0, 0x10, 0, 2, 0, 0, 1, 0x10, 0, 2, 0, 0})
	f.Fuzz(func(t *testing.T, size uint32, ops []byte) {
		n := int(size % 20_000)
		set := bitset.New(n)
		model := map[int]bool{}
		for ; len(ops) >= 3; ops = ops[3:] {
			// Positions reach a little beyond both ends.
			i := (int(ops[1])<<8|int(ops[2]))%(n+70) - 35
			switch inRange := i >= 0 && i < n; {
			case ops[0]%3 == 0 && inRange:
				set.Add(i)
				model[i] = true
			case ops[0]%3 == 1:
				set.Remove(i)
				delete(model, i)
			default:
				to := i + int(ops[0])*n/200
				want := -1
				for j := i; j < to && want < 0; j++ {
					if model[j] {
						want = j
					}
				}
				require.Equal(t, want, set.Next(i, to))
			}
			require.Equal(t, model[i], set.Has(i))
			require.Equal(t, len(model), set.Count())
		}
		found := members(set)
		require.Len(t, found, len(model))
		for _, i := range found {
			require.True(t, model[i])
		}
	})
}

// It is not parallel: counting allocations counts those of all goroutines.
func TestSet_AllocatesNothingAfterNew(t *testing.T) {
	for _, n := range sizes {
		set := bitset.New(n)
		require.Zero(t, testing.AllocsPerRun(100, func() {
			set.Add(n - 1)
			set.Has(n - 1)
			set.Next(0, n)
			set.Count()
			set.Remove(n - 1)
		}))
	}
}

func BenchmarkNext(b *testing.B) {
	for _, n := range []int{8, 64, 10_000, 100_000} {
		last := bitset.New(n)
		last.Add(n - 1)
		for _, tc := range []struct {
			name string
			set  *bitset.Set
		}{{"dense", filled(n)}, {"last", last}, {"empty", bitset.New(n)}} {
			b.Run(fmt.Sprintf("n=%d/%s", n, tc.name), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					tc.set.Next(0, n)
				}
			})
			b.Run(fmt.Sprintf("n=%d/%s/from_middle", n, tc.name), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					tc.set.Next(n/2, n)
				}
			})
		}
	}
}

// BenchmarkNothing measures the loop of these benchmarks without a body.
func BenchmarkNothing(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
	}
}

func BenchmarkHas(b *testing.B) {
	for _, n := range []int{8, 10_000} {
		set := filled(n)
		b.Run(fmt.Sprintf("n=%d", n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				set.Has(n - 1)
			}
		})
	}
}

func BenchmarkAddAndRemove(b *testing.B) {
	for _, n := range []int{8, 10_000} {
		set := bitset.New(n)
		b.Run(fmt.Sprintf("n=%d", n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				set.Add(n - 1)
				set.Remove(n - 1)
			}
		})
	}
}

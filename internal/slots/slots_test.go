package slots_test

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/capreg/registry/internal/slots"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestNoMoreGetInThanThereAreSlots(t *testing.T) {
	t.Parallel()
	s := slots.New(2, 0)
	require.True(t, s.Free())
	require.True(t, s.TryAcquire())
	require.True(t, s.TryAcquire())
	require.False(t, s.TryAcquire())
	require.False(t, s.Free())
	require.Equal(t, 2, s.Taken())
	s.Release()
	require.True(t, s.TryAcquire())
	require.Nil(t, slots.Queue([]*slots.Slots{s}), "no room to wait")
}

func TestThoseWhoWaitComeFirstInTheirOrder(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := slots.New(1, 10)
		require.True(t, s.TryAcquire())
		var order []int
		var waiting sync.WaitGroup
		for i := range 5 {
			wait := slots.Queue([]*slots.Slots{s})
			waiting.Go(func() {
				if wait.For(t.Context()) != 0 {
					t.Error("no slot")
				}
				order = append(order, i) // one at a time: there is one slot
				s.Release()
			})
		}
		synctest.Wait()
		require.Equal(t, 5, s.Waiting())
		require.False(t, s.TryAcquire())
		s.Release()
		waiting.Wait()
		require.Equal(t, []int{0, 1, 2, 3, 4}, order)
		require.Zero(t, s.Taken())
		require.Zero(t, s.Waiting())
		require.True(t, s.TryAcquire())
	})
}

func TestWaitAtSeveralTakesTheFirstThatIsFree(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a, b, none := slots.New(1, 1), slots.New(1, 1), slots.New(1, 0)
		for _, s := range []*slots.Slots{a, b, none} {
			require.True(t, s.TryAcquire())
		}
		wait := slots.Queue([]*slots.Slots{none, a, b})
		time.AfterFunc(time.Second, b.Release)
		require.Equal(t, 2, wait.For(t.Context()))
		require.Equal(t, []int{1, 1, 0, 0}, []int{a.Taken(), b.Taken(), a.Waiting(), b.Waiting()})
		a.Release()
		require.True(t, a.TryAcquire(), "the ticket at the other one is gone")
	})
}

func TestWaitEndsWithItsContextAndLeavesNoTrace(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := slots.New(1, 2)
		require.True(t, s.TryAcquire())
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		first, second := slots.Queue([]*slots.Slots{s}), slots.Queue([]*slots.Slots{s})
		require.Nil(t, slots.Queue([]*slots.Slots{s}), "no room")
		require.Equal(t, -1, first.For(ctx))
		s.Release()
		require.Equal(t, 0, second.For(t.Context()))
		s.Release()
		require.True(t, s.Free())
	})
}

func TestMoreSlotsLetThoseWhoWaitIn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := slots.New(1, 5)
		require.True(t, s.TryAcquire())
		first, second := slots.Queue([]*slots.Slots{s}), slots.Queue([]*slots.Slots{s})
		s.Resize(3, 5)
		require.Equal(t, 0, first.For(t.Context()))
		require.Equal(t, 0, second.For(t.Context()))
		s.Resize(1, 5)
		s.Release()
		s.Release()
		require.False(t, s.TryAcquire(), "one is still in")
		s.Release()
		require.True(t, s.TryAcquire())
	})
}

func TestNoSlotIsLostOrGivenTwiceUnderLoad(t *testing.T) {
	t.Parallel()
	const limit = 3
	all := []*slots.Slots{slots.New(limit, 4), slots.New(limit, 4)}
	var inside [2]atomic.Int64
	var waiting sync.WaitGroup
	for g := range 16 {
		waiting.Go(func() {
			for i := range 500 {
				at := (g + i) % 2
				if !all[at].TryAcquire() {
					wait := slots.Queue(all)
					if wait == nil {
						continue
					}
					ctx, cancel := context.WithCancel(t.Context())
					if i%3 == 0 {
						cancel()
					}
					at = wait.For(ctx)
					cancel()
					if at < 0 {
						continue
					}
				}
				if inside[at].Add(1) > limit {
					t.Error("too many inside")
				}
				inside[at].Add(-1)
				all[at].Release()
			}
		})
	}
	waiting.Wait()
	for _, s := range all {
		require.Zero(t, s.Taken())
		require.Zero(t, s.Waiting())
		require.True(t, s.Free())
	}
}

func BenchmarkAcquireAndRelease(b *testing.B) {
	s := slots.New(1<<20, 0)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if s.TryAcquire() {
				s.Release()
			}
		}
	})
}

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

// queueAt waits at all of them that have room; nil when none has.
func queueAt(all []*slots.Slots) *slots.Wait {
	wait, joined := slots.NewWait(""), false
	for at, s := range all {
		joined = wait.Join(s, at, nil) || joined
	}
	if !joined {
		wait.End()
		return nil
	}
	return wait
}

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// got waits for a slot, and leaves the queues.
func got(ctx context.Context, w *slots.Wait) int {
	defer w.End()
	at, _ := w.For(ctx, nil)
	return at
}

func TestTryAcquire_NeverExceedsTheLimit(t *testing.T) {
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
	require.Nil(t, queueAt([]*slots.Slots{s}), "no room to wait")
}

func TestWait_FirstComeFirstServed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := slots.New(1, 10)
		require.True(t, s.TryAcquire())
		var order []int
		var waiting sync.WaitGroup
		for i := range 5 {
			wait := queueAt([]*slots.Slots{s})
			waiting.Go(func() {
				if got(t.Context(), wait) != 0 {
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

func TestWait_TakesTheFirstFreeOfSeveral(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a, b, none := slots.New(1, 1), slots.New(1, 1), slots.New(1, 0)
		for _, s := range []*slots.Slots{a, b, none} {
			require.True(t, s.TryAcquire())
		}
		wait := queueAt([]*slots.Slots{none, a, b})
		time.AfterFunc(time.Second, b.Release)
		require.Equal(t, 2, got(t.Context(), wait))
		require.Equal(t, []int{1, 1, 0, 0}, []int{a.Taken(), b.Taken(), a.Waiting(), b.Waiting()})
		a.Release()
		require.True(t, a.TryAcquire(), "the ticket at the other one is gone")
	})
}

func TestWait_EndsWithItsContext(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := slots.New(1, 2)
		require.True(t, s.TryAcquire())
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		first, second := queueAt([]*slots.Slots{s}), queueAt([]*slots.Slots{s})
		require.Nil(t, queueAt([]*slots.Slots{s}), "no room")
		require.Equal(t, -1, got(ctx, first))
		s.Release()
		require.Equal(t, 0, got(t.Context(), second))
		s.Release()
		require.True(t, s.Free())
	})
}

func TestResume_KeepsThePositionElsewhere(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a, b := slots.New(1, 5), slots.New(1, 5)
		require.True(t, a.TryAcquire())
		require.True(t, b.TryAcquire())
		both, later := queueAt([]*slots.Slots{a, b}), queueAt([]*slots.Slots{b})
		a.Release()
		at, _ := both.For(t.Context(), nil)
		require.Equal(t, 0, at)
		b.Release() // passes both by, which has a slot
		a.Release()
		require.Equal(t, 0, got(t.Context(), later))
		both.Leave(0)
		both.Resume(0)
		b.Release()
		at, _ = both.For(t.Context(), nil)
		require.Equal(t, 1, at)
		last := queueAt([]*slots.Slots{b})
		both.End()
		b.Release()
		require.Equal(t, 0, got(t.Context(), last))
		b.Release()
		require.True(t, a.Free())
		require.True(t, b.Free())
	})
}

func TestEnd_ReleasesALateGrant(t *testing.T) {
	t.Parallel()
	s := slots.New(1, 5)
	require.True(t, s.TryAcquire())
	wait := queueAt([]*slots.Slots{s})
	s.Release()
	wait.Leave(0)
	wait.End()
	require.True(t, s.Free())
}

func TestFor_WakeKeepsThePosition(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := slots.New(1, 5)
		require.True(t, s.TryAcquire())
		first, second := queueAt([]*slots.Slots{s}), queueAt([]*slots.Slots{s})
		wake := make(chan struct{})
		close(wake)
		_, woken := first.For(t.Context(), wake)
		require.True(t, woken)
		s.Release()
		require.Equal(t, 0, got(t.Context(), first))
		s.Release()
		require.Equal(t, 0, got(t.Context(), second))
	})
}

func TestResize_MoreSlotsAdmitTheQueue(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := slots.New(1, 5)
		require.True(t, s.TryAcquire())
		first, second := queueAt([]*slots.Slots{s}), queueAt([]*slots.Slots{s})
		s.Resize(3, 5)
		require.Equal(t, 0, got(t.Context(), first))
		require.Equal(t, 0, got(t.Context(), second))
		s.Resize(1, 5)
		s.Release()
		s.Release()
		require.False(t, s.TryAcquire(), "one is still in")
		s.Release()
		require.True(t, s.TryAcquire())
	})
}

func TestSlots_NoneLostOrGrantedTwiceUnderLoad(t *testing.T) {
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
					wait := queueAt(all)
					if wait == nil {
						continue
					}
					ctx, cancel := context.WithCancel(t.Context())
					if i%3 == 0 {
						cancel()
					}
					at = got(ctx, wait)
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

func full(t *testing.T, room int) *slots.Slots {
	t.Helper()
	s := slots.New(1, room)
	require.True(t, s.TryAcquire())
	return s
}

func TestJoin_FreeSlotIsGrantedAtOnce(t *testing.T) {
	t.Parallel()
	s := slots.New(1, 1)
	wait := queueAt([]*slots.Slots{s})
	require.Equal(t, 0, got(t.Context(), wait))
	require.Equal(t, 1, s.Taken())
	require.Zero(t, s.Waiting())
}

func TestResume_TakesUpItsPosition(t *testing.T) {
	t.Parallel()
	s := full(t, 1)
	wait := queueAt([]*slots.Slots{s})
	s.Release()
	at, woken := wait.For(t.Context(), nil)
	require.Equal(t, 0, at)
	require.False(t, woken)
	wait.Resume(0) // it keeps the slot meanwhile
	require.Equal(t, 1, s.Waiting())
	require.False(t, s.TryAcquire())
	s.Release()
	at, _ = wait.For(t.Context(), nil)
	require.Equal(t, 0, at)
	wait.End()
	require.Equal(t, 1, s.Taken(), "what was handed out is its owner's")
	s.Release()
	require.True(t, s.TryAcquire())
}

func TestResume_NeedsNoRoom(t *testing.T) {
	t.Parallel()
	a, b := full(t, 1), full(t, 1)
	wait := queueAt([]*slots.Slots{a, b})
	a.Release()
	at, _ := wait.For(t.Context(), nil)
	require.Equal(t, 0, at)
	other := queueAt([]*slots.Slots{a})
	require.NotNil(t, other)
	wait.Resume(0)
	require.Equal(t, 2, a.Waiting(), "it keeps its turn, although another one has taken its room")
	b.Release()
	at, _ = wait.For(t.Context(), nil)
	require.Equal(t, 1, at)
	wait.End()
	other.End()
}

func TestEnd_ReleasesALateGrantAfterResume(t *testing.T) {
	t.Parallel()
	s := full(t, 1)
	wait := queueAt([]*slots.Slots{s})
	s.Release()
	at, _ := wait.For(t.Context(), nil)
	require.Equal(t, 0, at)
	wait.Resume(0)
	s.Release() // it is granted, and For does not take it
	wait.End()
	require.Zero(t, s.Taken())
	require.True(t, s.TryAcquire())
}

func TestResume_DoesNotRejoinAQueueThatWasLeft(t *testing.T) {
	t.Parallel()
	a, b := full(t, 1), full(t, 1)
	wait := queueAt([]*slots.Slots{a, b})
	wait.Leave(0)
	wait.Leave(2) // it is in no such queue
	require.Zero(t, a.Waiting())
	require.Equal(t, 1, b.Waiting())
	a.Release()
	require.True(t, a.TryAcquire(), "the queue is empty")
	b.Release()
	at, _ := wait.For(t.Context(), nil)
	require.Equal(t, 1, at)
	wait.Resume(0)
	require.Zero(t, a.Waiting())
	wait.End()
}

func TestEnd_ReleasesOnlyTheLateGrant(t *testing.T) {
	t.Parallel()
	a, b := full(t, 1), full(t, 1)
	wait := queueAt([]*slots.Slots{a, b})
	a.Release()
	wait.End()
	require.Zero(t, a.Taken())
	require.Equal(t, 1, b.Taken())
}

func TestWait_LeavesQueuesAfterAGrantElsewhere(t *testing.T) {
	t.Parallel()
	a, b := full(t, 1), full(t, 1)
	wait := queueAt([]*slots.Slots{a, b})
	a.Release()
	at, _ := wait.For(t.Context(), nil)
	require.Equal(t, 0, at)
	b.Release()
	require.False(t, b.TryAcquire(), "it keeps its position until it leaves")
	wait.End()
	require.True(t, b.TryAcquire())
}

func TestResize_ChangesTheBoundOfTheQueue(t *testing.T) {
	t.Parallel()
	s := full(t, 0)
	require.Nil(t, queueAt([]*slots.Slots{s}))
	s.Resize(1, 1)
	wait := queueAt([]*slots.Slots{s})
	require.NotNil(t, wait)
	require.Nil(t, queueAt([]*slots.Slots{s}), "its room is taken")
	wait.End()
	s.Resize(1, 0)
	require.Nil(t, queueAt([]*slots.Slots{s}))
}

package slots_test

import (
	"context"
	"math/rand/v2"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry/internal/slots"
)

// queueOf joins a queue for a caller; nil: it has no room.
func queueOf(s *slots.Slots, caller string, usable func() bool) *slots.Wait {
	wait := slots.NewWait(caller)
	if !wait.Join(s, 0, usable) {
		wait.End()
		return nil
	}
	return wait
}

// order returns the order in which the waits are granted the only slot of s, which is taken.
func order(t *testing.T, s *slots.Slots, waits map[string]*slots.Wait) (names []string) {
	t.Helper()
	var mu sync.Mutex
	var all sync.WaitGroup
	for name, wait := range waits {
		all.Go(func() {
			if got(t.Context(), wait) < 0 {
				return
			}
			mu.Lock()
			names = append(names, name)
			mu.Unlock()
			time.Sleep(time.Second)
			s.Release()
		})
	}
	synctest.Wait()
	s.Release()
	all.Wait()
	return names
}

func TestQueue_CallersTakeTurns(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := full(t, 10)
		waits := map[string]*slots.Wait{}
		for _, caller := range []string{"a", "a", "a", "b", "c", "b"} {
			for i := 1; ; i++ {
				if name := caller + strconv.Itoa(i); waits[name] == nil {
					waits[name] = queueOf(s, caller, nil)
					break
				}
			}
		}
		require.Equal(t, []string{"a1", "b1", "c1", "a2", "b2", "a3"}, order(t, s, waits))
	})
}

func TestQueue_CallerWithMoreThanItsShareMakesRoom(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := full(t, 4)
		waits := map[string]*slots.Wait{}
		for _, name := range []string{"a1", "a2", "a3", "a4"} {
			waits[name] = queueOf(s, "a", nil)
		}
		require.Nil(t, queueOf(s, "a", nil), "full for the caller itself")
		waits["b1"] = queueOf(s, "b", nil)
		require.NotNil(t, waits["b1"])
		require.True(t, waits["a4"].Lost(0), "the last to come")
		_, woken := waits["a4"].For(t.Context(), nil)
		require.True(t, woken)
		waits["a4"].Resume(0)
		require.Equal(t, 4, s.Waiting(), "what is lost stays so")
		waits["a4"].End()
		delete(waits, "a4")
		waits["b2"] = queueOf(s, "b", nil)
		require.NotNil(t, waits["b2"])
		require.True(t, waits["a3"].Lost(0))
		waits["a3"].End()
		delete(waits, "a3")
		require.Nil(t, queueOf(s, "b", nil), "two each")
		waits["c1"] = queueOf(s, "c", nil)
		require.NotNil(t, waits["c1"])
		require.True(t, waits["a2"].Lost(0))
		waits["a2"].End()
		delete(waits, "a2")
		require.Equal(t, []string{"a1", "b1", "c1", "b2"}, order(t, s, waits))
		require.True(t, s.TryAcquire())
	})
}

func TestQueue_UnmetConditionKeepsTheTurn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := full(t, 10)
		var usable atomic.Bool
		first, second := queueOf(s, "a", usable.Load), queueOf(s, "a", usable.Load)
		third := queueOf(s, "b", nil)
		require.False(t, first.Passed(0))
		s.Release()
		require.Equal(t, 0, got(t.Context(), third), "the others are passed by")
		for _, wait := range []*slots.Wait{first, second} {
			_, woken := wait.For(t.Context(), nil)
			require.True(t, woken)
			require.True(t, wait.Passed(0))
		}
		s.Release()
		require.False(t, s.TryAcquire(), "newcomers do not overtake")
		newcomer := queueOf(s, "a", nil)
		require.Equal(t, 0, got(t.Context(), newcomer), "but one that can use a free slot gets it")
		usable.Store(true)
		second.Recheck() // whichever looks first
		s.Release()
		require.Equal(t, 0, got(t.Context(), first))
		s.Release()
		require.Equal(t, 0, got(t.Context(), second))
	})
}

func TestQueue_JoinAgainReplacesTheCondition(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := full(t, 10)
		wait := queueOf(s, "", func() bool { return false })
		s.Release()
		require.Equal(t, 0, s.Taken())
		require.True(t, wait.Join(s, 0, nil))
		require.Equal(t, 0, got(t.Context(), wait))
	})
}

func TestMoveQueue_KeepsTheOrder(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		from, to := full(t, 10), full(t, 0)
		waits := map[string]*slots.Wait{}
		for _, name := range []string{"a1", "a2", "b1", "a3"} {
			waits[name] = queueOf(from, name[:1], nil)
		}
		out := queueOf(from, "0", nil)
		from.MoveQueue(from)
		from.MoveQueue(to)
		require.Equal(t, []int{0, 5}, []int{from.Waiting(), to.Waiting()})
		require.Same(t, to, out.Slots(0))
		out.End()
		from.Release()
		require.True(t, from.TryAcquire(), "nothing waits here")
		waits["b2"] = queueOf(from, "b", nil)
		require.Nil(t, waits["b2"], "it has no room there")
		delete(waits, "b2")
		require.Equal(t, []string{"a1", "b1", "a2", "a3"}, order(t, to, waits))
	})
}

func TestMoveQueue_GrantedWaitReturnsToItsTurn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		from, to := full(t, 10), full(t, 10)
		first, second := queueOf(from, "", nil), queueOf(from, "", nil)
		from.Release()
		at, _ := first.For(t.Context(), nil)
		require.Equal(t, 0, at)
		from.MoveQueue(to)
		from.Release()
		first.Resume(0)
		to.Release()
		require.Equal(t, 0, got(t.Context(), first))
		to.Release()
		require.Equal(t, 0, got(t.Context(), second))
		to.Release()
		to.MoveQueue(from) // and back
		last := queueOf(to, "", nil)
		require.Equal(t, 0, got(t.Context(), last))
		require.Same(t, from, last.Slots(0))
		require.Equal(t, 1, from.Taken())
		require.Nil(t, last.Slots(1))
		require.False(t, last.Passed(1) || last.Lost(1))
	})
}

func TestQueue_NothingIsLostUnderLoad(t *testing.T) {
	t.Parallel()
	const limit = 2
	all := []*slots.Slots{slots.New(limit, 6), slots.New(limit, 6)}
	var usable atomic.Bool
	var workers, mover sync.WaitGroup
	stop := make(chan struct{})
	mover.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			all[i%2].MoveQueue(all[(i+1)%2])
			usable.Store(i%3 != 0)
			time.Sleep(50 * time.Microsecond)
		}
	})
	for g := range 8 {
		workers.Go(func() {
			for i := range 300 {
				wait := slots.NewWait(strconv.Itoa(g % 3))
				joined := wait.Join(all[i%2], 0, usable.Load)
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(rand.IntN(300))*time.Microsecond)
				for joined && ctx.Err() == nil {
					wait.Recheck()
					at, _ := wait.For(ctx, nil)
					if at < 0 {
						if wait.Lost(0) {
							break
						}
						continue
					}
					wait.Slots(0).Release()
					if i%2 == 0 {
						break
					}
					wait.Resume(0)
				}
				cancel()
				wait.End()
			}
		})
	}
	workers.Wait()
	close(stop)
	mover.Wait()
	for _, s := range all {
		require.Zero(t, s.Taken())
		require.Zero(t, s.Waiting())
		require.True(t, s.Free())
	}
}

func TestRecheck_GrantsAFreeSlotOnceTheConditionIsMet(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := slots.New(1, 10)
		var usable atomic.Bool
		wait := queueOf(s, "a", usable.Load)
		wait.Recheck()
		require.Zero(t, s.Taken())
		usable.Store(true)
		wait.Recheck()
		require.Equal(t, 1, s.Taken())
		require.Equal(t, 0, got(t.Context(), wait))
	})
}

func TestMoveQueue_GoesBehindTheQueueThatIsThere(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		from, to := full(t, 10), full(t, 10)
		waits := map[string]*slots.Wait{}
		for name, s := range map[string]*slots.Slots{"b1": to, "a1": from} {
			waits[name] = queueOf(s, name[:1], nil)
		}
		waits["b2"] = queueOf(to, "b", nil)
		waits["b3"] = queueOf(from, "b", nil)
		from.MoveQueue(to)
		require.Equal(t, []string{"b1", "a1", "b2", "b3"}, order(t, to, waits))
	})
}

func TestResume_StaysBehindThoseOfItsCallerThatCameBefore(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := full(t, 10)
		var usable atomic.Bool
		first, second := queueOf(s, "a", usable.Load), queueOf(s, "a", nil)
		s.Release()
		at, _ := second.For(t.Context(), nil)
		require.Equal(t, 0, at, "the first cannot use it")
		second.Resume(0)
		usable.Store(true)
		s.Release()
		require.Equal(t, 0, got(t.Context(), first))
		s.Release()
		require.Equal(t, 0, got(t.Context(), second))
	})
}

func TestEnd_GrantsNothingToAWaitThatEnds(t *testing.T) {
	t.Parallel()
	s := slots.New(1, 10)
	var usable atomic.Bool
	wait := slots.NewWait("a")
	require.True(t, wait.Join(s, 0, usable.Load))
	require.True(t, wait.Join(s, 1, usable.Load))
	usable.Store(true)
	wait.End()
	require.Zero(t, s.Taken())
	require.True(t, s.TryAcquire())
}

func TestFor_TellsOfATurnInVainOnceUntilTheConditionIsMet(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := slots.New(1, 10)
		var usable atomic.Bool
		wait := queueOf(s, "a", usable.Load)
		ended, end := context.WithCancel(t.Context())
		end()
		_, woken := wait.For(t.Context(), nil)
		require.True(t, woken)
		wait.Join(s, 0, usable.Load) // its turn comes again
		_, woken = wait.For(ended, nil)
		require.False(t, woken)
		require.True(t, wait.Passed(0))

		usable.Store(true)
		wait.Recheck()
		at, _ := wait.For(t.Context(), nil)
		require.Equal(t, 0, at)
		wait.Resume(0) // it keeps the slot meanwhile
		require.False(t, wait.Passed(0))
		usable.Store(false)
		s.Release()
		_, woken = wait.For(t.Context(), nil)
		require.True(t, woken, "in vain again")
		wait.End()
	})
}

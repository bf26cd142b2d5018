package limit_test

import (
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry/internal/limit"
)

func TestTurns_SpreadReturnsInOrder(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var turns limit.Turns[string]
		numbers := make([]uint64, 10)
		for i := range numbers {
			numbers[i] = turns.Number()
			turns.StillAway("a", numbers[i], 10*time.Second)
		}
		began := time.Now()
		var mu sync.Mutex
		var order []uint64
		var gone []time.Duration
		var all sync.WaitGroup
		for _, at := range rand.Perm(len(numbers)) {
			all.Go(func() {
				for {
					delay := turns.Delay("a", numbers[at])
					if delay == 0 {
						break
					}
					time.Sleep(delay)
				}
				mu.Lock()
				order, gone = append(order, numbers[at]), append(gone, time.Since(began))
				mu.Unlock()
				turns.Leave("a", numbers[at])
			})
		}
		all.Wait()
		require.Equal(t, numbers, order)
		require.Zero(t, gone[0], "the first goes at once")
		for i, after := range gone[1:] {
			require.Equal(t, 100*time.Millisecond, after-gone[i])
		}
		require.Zero(t, turns.Delay("a", turns.Number()), "the line has ended")
	})
}

func TestTurns_SpreadIsATenthWithinBounds(t *testing.T) {
	t.Parallel()
	for wait, spread := range map[time.Duration]time.Duration{
		0: 100 * time.Millisecond, 20 * time.Second: 2 * time.Second, time.Hour: 5 * time.Second,
	} {
		synctest.Test(t, func(t *testing.T) {
			var turns limit.Turns[string]
			turns.StillAway("a", 1, wait)
			turns.StillAway("a", 2, 0)
			turns.StillAway("b", 3, 0)
			require.Zero(t, turns.Delay("a", 1))
			require.Equal(t, spread/2, turns.Delay("a", 2), "a gap behind the first, which has left as it may go")
			turns.Leave("a", 1)
			require.Equal(t, spread/2, turns.Delay("a", 2))
			turns.StillAway("a", 2, 0)
			require.Zero(t, turns.Delay("a", 2), "the first of those that wait again")
			require.Zero(t, turns.Delay("b", 3))
			turns.Leave("c", 1)
		})
	}
}

func TestReserve_GivesTheNextAttempts(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		rates := limit.NewRates(1, 1)
		_, retryIn := rates.Take("a")
		require.Zero(t, retryIn)
		for i := range 3 {
			_, wait, ok := rates.Reserve("a", time.Minute)
			require.True(t, ok)
			require.Equal(t, time.Duration(i+1)*time.Second, wait)
		}
		last, _, ok := rates.Reserve("a", 5*time.Second)
		require.True(t, ok)
		_, _, ok = rates.Reserve("a", 5*time.Second)
		require.False(t, ok, "not in time")
		last.GiveBack()
		_, wait, ok := rates.Reserve("a", 5*time.Second)
		require.True(t, ok)
		require.Equal(t, 4*time.Second, wait)
		_, retryIn = rates.Take("a")
		require.Positive(t, retryIn, "nothing overtakes")
		_, wait, ok = limit.New(limit.Policy{Bulkhead: true}, nil).Reserve("a", 1)
		require.True(t, ok)
		require.Zero(t, wait)
		rated := limit.New(limit.Policy{Rate: 1, Burst: 1}, nil)
		_, wait, ok = rated.Reserve("a", time.Second)
		require.True(t, ok)
		require.Zero(t, wait)
	})
}

func TestReserved_KeepsOneAttempt(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		slow := limit.New(limit.Policy{Rate: 0.5, Burst: 1}, nil)
		fast := limit.New(limit.Policy{Rate: 1, Burst: 1}, nil)
		slow.Take("a")
		fast.Take("a")
		var reserved limit.Reserved
		reserved.GiveBack()
		for range 2 { // once
			wait, ok := reserved.Reserve(slow, "a", time.Minute)
			require.True(t, ok)
			require.Equal(t, 2*time.Second, wait)
		}
		_, ok := reserved.Reserve(fast, "a", time.Second)
		require.False(t, ok)
		require.True(t, reserved.Holds(slow), "it keeps the one that it has")
		_, ok = reserved.Reserve(fast, "a", 2*time.Second)
		require.True(t, ok)
		require.True(t, reserved.Holds(fast))
		require.Equal(t, time.Now().Add(time.Second), reserved.Due())
		_, retryIn := reserved.Take(fast, "a")
		require.Positive(t, retryIn, "it is not due")
		time.Sleep(time.Second)
		_, retryIn = reserved.Take(fast, "a")
		require.Zero(t, retryIn)
		require.Zero(t, reserved.Due())
		time.Sleep(time.Second)
		_, retryIn = reserved.Take(slow, "a")
		require.Zero(t, retryIn, "the other one was given back")
		_, ok = reserved.Reserve(slow, "a", time.Minute)
		require.True(t, ok)
		reserved.GiveBack()
		require.False(t, reserved.Holds(slow))
		require.Zero(t, reserved.Due())
	})
}

func TestTurn_KeepsItsPlaceFromLineToLine(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var turns limit.Turns[string]
		first, second := turns.Turn(), turns.Turn()
		second.StillAway("a", 0)
		first.StillAway("b", 0)
		first.StillAway("a", 0)
		require.Positive(t, second.Delay("a"))
		require.Zero(t, first.Delay("a"))
		first.Leave()
		first.Leave()
		require.Zero(t, second.Delay("b"), "alone")
		second.Leave()
	})
}

func TestTurn_KeepsTheSpreadOfItsLine(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var turns limit.Turns[string]
		first, second := turns.Turn(), turns.Turn()
		first.StillAway("a", 20*time.Second)
		second.StillAway("a", 0)
		require.Zero(t, first.Delay("a"))
		require.Equal(t, time.Second, second.Delay("a"), "half of the two seconds in which both go")
		first.Leave()
		second.Leave()
	})
}

func TestTurn_LeavesALineThatItJoinedByItsDelay(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var turns limit.Turns[string]
		first, second := turns.Turn(), turns.Turn()
		require.Zero(t, first.Delay("a"))
		first.Leave()
		require.Zero(t, second.Delay("a"), "alone")
		second.Leave()
	})
}

func TestTurns_LeaveOfACallThatDoesNotWaitChangesNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var turns limit.Turns[string]
		turns.StillAway("a", 2, 0)
		for _, number := range []uint64{1, 3} {
			turns.Leave("a", number)
			turns.Leave("b", number)
		}
		require.Positive(t, turns.Delay("a", 4), "it is behind the one that waits")
		turns.Leave("a", 4)
		require.Zero(t, turns.Delay("a", 2))
	})
}

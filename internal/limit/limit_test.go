package limit_test

import (
	"math"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/capreg/registry/internal/limit"
	"github.com/capreg/registry/internal/slots"
	"github.com/capreg/registry/status"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestLimits_OfPolicies(t *testing.T) {
	t.Parallel()
	bulkhead := limit.Policy{Bulkhead: true, MaxConcurrent: 1}
	rated := limit.Policy{Rate: 1, Burst: 1}
	both := limit.Policy{Bulkhead: true, MaxConcurrent: 1, Rate: 1, Burst: 1}
	for name, row := range map[string]struct {
		policy limit.Policy
		before *limit.Limits
		none   bool
		slots  bool
		rated  bool
	}{
		"nothing":                 {limit.Policy{}, nil, true, false, false},
		"nothing after a rate":    {limit.Policy{}, limit.New(rated, nil), true, false, false},
		"bulkhead":                {bulkhead, nil, false, true, false},
		"rate":                    {rated, nil, false, false, true},
		"bulkhead after a rate":   {bulkhead, limit.New(rated, nil), false, true, false},
		"rate after a bulkhead":   {rated, limit.New(bulkhead, nil), false, false, true},
		"nothing after bulkhead":  {limit.Policy{}, limit.New(bulkhead, nil), false, false, false},
		"bulkhead after bulkhead": {bulkhead, limit.New(bulkhead, nil), false, true, false},
		"bulkhead and rate":       {both, nil, false, true, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := limit.New(row.policy, row.before)
			require.Equal(t, row.none, l == nil)
			require.False(t, l.Full())
			if l == nil {
				return
			}
			require.Equal(t, row.policy, l.Policy())
			require.Equal(t, row.slots, l.Slots() != nil)
			if row.slots {
				require.True(t, l.Slots().TryAcquire())
				require.True(t, l.Full())
			}
			_, first := l.Take("x")
			_, second := l.Take("x")
			require.Zero(t, first)
			require.Equal(t, row.rated, second > 0)
		})
	}
}

func TestLimits_PlacesOutliveChangesOfThePolicy(t *testing.T) {
	t.Parallel()
	first := limit.New(limit.Policy{Bulkhead: true, MaxConcurrent: 2, MaxQueue: 1}, nil)
	require.True(t, first.Slots().TryAcquire())
	require.True(t, first.Slots().TryAcquire())

	narrow := limit.New(limit.Policy{Bulkhead: true, MaxConcurrent: 1}, first)
	require.Same(t, first.Slots(), narrow.Slots())
	require.True(t, narrow.Full())

	none := limit.New(limit.Policy{}, narrow)
	require.Nil(t, none.Slots())
	require.False(t, none.Full())

	again := limit.New(limit.Policy{Bulkhead: true, MaxConcurrent: 3}, none)
	require.Same(t, first.Slots(), again.Slots(), "two places are still taken")
	require.Equal(t, 2, again.Slots().Taken())
	require.True(t, again.Slots().TryAcquire())
	require.True(t, again.Full())
}

func TestLimits_QueuedCallsGetInWhenTheBulkheadGoes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := limit.New(limit.Policy{Bulkhead: true, MaxConcurrent: 1, MaxQueue: 1}, nil)
		require.True(t, l.Slots().TryAcquire())
		entered := make(chan int, 1)
		go func() {
			queue := slots.NewWait("")
			defer queue.End()
			queue.Join(l.Slots(), 7, nil)
			at, _ := queue.For(t.Context(), nil)
			entered <- at
		}()
		synctest.Wait()
		require.Empty(t, entered)
		limit.New(limit.Policy{}, l)
		require.Equal(t, 7, <-entered)
	})
}

func TestRates_EachCallerHasABurstAndThenTheRate(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		rates := limit.NewRates(2, 3)
		for range 3 {
			_, retryIn := rates.Take("a")
			require.Zero(t, retryIn)
		}
		_, retryIn := rates.Take("a")
		require.Equal(t, 500*time.Millisecond, retryIn)
		_, other := rates.Take("b")
		require.Zero(t, other)
		time.Sleep(retryIn - 1)
		_, early := rates.Take("a")
		require.Positive(t, early)
		time.Sleep(time.Nanosecond)
		_, due := rates.Take("a")
		require.Zero(t, due)
	})
}

func TestRates_SpentAttemptsCanBeGivenBack(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		rates := limit.NewRates(1, 1)
		for range 100 {
			used, retryIn := rates.Take("a")
			require.Zero(t, retryIn)
			used.GiveBack()
		}
		used, _ := rates.Take("a")
		for range 100 { // refusals leave no mark
			_, retryIn := rates.Take("a")
			require.Equal(t, time.Second, retryIn)
		}
		time.Sleep(time.Second / 2)
		used.GiveBack()
		_, retryIn := rates.Take("a")
		require.Zero(t, retryIn, "given back as of the time of the use")
		limit.Spent{}.GiveBack()
	})
}

func TestRates_RetryTimesOfTinyRatesDoNotOverflow(t *testing.T) {
	t.Parallel()
	rates := limit.NewRates(math.SmallestNonzeroFloat64, 1)
	rates.Take("a")
	_, retryIn := rates.Take("a")
	require.Equal(t, time.Duration(1<<62), retryIn)
}

func TestRates_CallersBeyondTheBoundShareOneBucket(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const bound = 1 << 16
		rates := limit.NewRates(1, 2)
		take := func(caller int) bool {
			_, retryIn := rates.Take(string(rune(caller%1000)) + ":" + string(rune(caller/1000)))
			return retryIn == 0
		}
		for caller := range bound {
			require.True(t, take(caller))
		}
		require.True(t, take(bound))
		require.True(t, take(bound+1))
		require.False(t, take(bound+2), "they share the burst of one")
		require.True(t, take(0), "those known keep their own")
		require.False(t, take(0))
		time.Sleep(time.Second) // all buckets are full but that of 0
		require.True(t, take(bound+2))
		require.True(t, take(bound+2))
		require.True(t, take(bound+3), "idle callers were dropped")
		require.True(t, take(0))
		require.False(t, take(0), "a caller that is not idle is not forgotten")
	})
}

func TestRates_UnknownCallersMayAskAtOnceUnlessTheyAreBeyondTheBound(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const bound = 1 << 16
		rates := limit.NewRates(1, 1)
		for caller := range bound {
			rates.Take(strconv.Itoa(caller))
		}
		require.Zero(t, rates.RetryIn("unknown"), "the bucket that they share is full")
		for range 3 {
			_, _, ok := rates.Reserve("beyond", time.Hour)
			require.True(t, ok)
		}
		require.Equal(t, 3*time.Second, rates.RetryIn("unknown"))
		time.Sleep(time.Second)
		_, retryIn := rates.Take("known")
		require.Zero(t, retryIn, "idle callers were dropped")
		require.Zero(t, rates.RetryIn("unknown"), "it would have a bucket of its own")
	})
}

func TestRates_TakeAndReserveDoNotShareTheLastToken(t *testing.T) { //nolint:paralleltest // its workers have to collide
	const rounds = 40_000
	rates := limit.NewRates(0.001, 2)
	callers := make([]string, rounds)
	for n := range callers {
		callers[n] = strconv.Itoa(n)
		rates.Take(callers[n])
	}
	var ready, allowed [rounds]atomic.Int32
	var workers sync.WaitGroup
	for _, use := range []func(caller string) bool{
		func(caller string) bool { _, retryIn := rates.Take(caller); return retryIn == 0 },
		func(caller string) bool { _, _, ok := rates.Reserve(caller, 1); return ok },
	} {
		workers.Go(func() {
			for n, caller := range callers {
				ready[n].Add(1)
				for spins := 0; ready[n].Load() < 2 && spins < 1000; spins++ {
				} // the worker that is behind catches up
				if use(caller) {
					allowed[n].Add(1)
				}
			}
		})
	}
	workers.Wait()
	for n := range allowed {
		if got := allowed[n].Load(); got != 1 {
			t.Fatalf("%d attempts of caller %d with one token", got, n)
		}
	}
}

func TestRates_ConcurrentCallersNeverExceedTheBurst(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const burst = 50
		rates := limit.NewRates(1, burst)
		var allowed, refused atomic.Int64
		var takers sync.WaitGroup
		for range 16 {
			takers.Go(func() {
				for range 20 {
					if _, retryIn := rates.Take("a"); retryIn == 0 {
						allowed.Add(1)
					} else {
						refused.Add(1)
					}
				}
			})
		}
		takers.Wait()
		require.Equal(t, int64(burst), allowed.Load())
		require.Equal(t, int64(16*20-burst), refused.Load())
	})
}

func TestTakePlace_TakesOneWhereThatIsAllTheLimitsAskFor(t *testing.T) {
	t.Parallel()
	bulkhead := limit.New(limit.Policy{Bulkhead: true, MaxConcurrent: 1}, nil)
	place, ok := bulkhead.TakePlace()
	require.True(t, ok)
	require.True(t, bulkhead.Full())
	_, ok = bulkhead.TakePlace()
	require.False(t, ok, "it is full")
	place.Release()
	require.False(t, bulkhead.Full())

	_, ok = limit.New(limit.Policy{Rate: 1, Burst: 1}, nil).TakePlace()
	require.False(t, ok, "there is no bulkhead")
	rated := limit.New(limit.Policy{Bulkhead: true, MaxConcurrent: 1, Rate: 1, Burst: 1}, nil)
	_, ok = rated.TakePlace()
	require.False(t, ok, "the caller's rate is to be asked, too")
	require.False(t, rated.Full())
}

func TestRates_RetryInIsTheTimeUntilTheNextAttempt(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		rates := limit.NewRates(0.5, 3)
		require.Zero(t, rates.RetryIn("a"), "an unknown caller")
		require.Zero(t, rates.Callers(), "asking keeps nothing")
		for range 3 {
			require.Zero(t, rates.RetryIn("a"), "its burst is not used up")
			_, retryIn := rates.Take("a")
			require.Zero(t, retryIn)
		}
		require.Equal(t, 2*time.Second, rates.RetryIn("a"))
		_, retryIn := rates.Take("a")
		require.Equal(t, 2*time.Second, retryIn)
		time.Sleep(2*time.Second - 1)
		require.Positive(t, rates.RetryIn("a"))
		time.Sleep(time.Nanosecond)
		require.Zero(t, rates.RetryIn("a"))
	})
}

func TestUse_CountsPlacesWaitsAndCallers(t *testing.T) {
	t.Parallel()
	var none *limit.Limits
	require.Zero(t, none.Use())
	require.Zero(t, none.RetryIn("a"))

	bulkhead := limit.New(limit.Policy{Bulkhead: true, MaxConcurrent: 2, MaxQueue: 3}, nil)
	require.Zero(t, bulkhead.Use())
	require.Zero(t, bulkhead.RetryIn("a"))
	for range 2 {
		require.True(t, bulkhead.Slots().TryAcquire())
	}
	for at := range 3 {
		wait := slots.NewWait("a")
		defer wait.End()
		require.True(t, wait.Join(bulkhead.Slots(), at, nil))
	}
	require.Equal(t, status.Use{Places: 2, Queued: 3}, bulkhead.Use())

	rated := limit.New(limit.Policy{Rate: 1, Burst: 1}, nil)
	for _, caller := range []string{"a", "b", "a"} {
		rated.Take(caller)
	}
	require.Equal(t, status.Use{Callers: 2}, rated.Use())
	require.Positive(t, rated.RetryIn("a"))
	require.Zero(t, rated.RetryIn("c"))
}

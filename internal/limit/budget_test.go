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

func TestBudget_AllowsWhileMoreThanHalfIsLeft(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := limit.NewBudget(limit.RetryPolicy{Budget: 10, Refund: 0.1, Floor: 0.5})
		for range 4 {
			b.Spend()
			for range 100 {
				require.True(t, b.Allow(), "asking costs nothing")
			}
		}
		b.Spend()
		require.True(t, b.Allow(), "the floor")
		require.False(t, b.Allow())
		b.Refund()
		for range 100 {
			require.True(t, b.Allow(), "5.1 tokens")
		}
		for range 100 {
			b.Spend()
		}
		for range 50 {
			b.Refund()
		}
		require.False(t, b.Allow(), "never below zero, so that 50 successes are exactly half")
		b.Refill()
		require.True(t, b.Allow())
		for range 100 {
			b.Refund()
		}
		for range 5 {
			b.Spend()
		}
		require.False(t, b.Allow(), "never more than full")
	})
}

func TestBudget_AFailureTakesWhatIsLeftOfAToken(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := limit.NewBudget(limit.RetryPolicy{Budget: 1, Refund: 0.001, Floor: 0.001})
		b.Spend()
		b.Refund()
		b.Spend()
		for range 500 {
			b.Refund()
		}
		require.False(t, floorless(b), "exactly half is left")
		b.Refund()
		require.True(t, floorless(b))
	})
}

func TestBudget_FloorIsASteadyRate(t *testing.T) {
	t.Parallel()
	for _, floor := range []float64{0.5, 1, 4} {
		synctest.Test(t, func(t *testing.T) {
			b := limit.NewBudget(limit.RetryPolicy{Budget: 1, Refund: 0.1, Floor: floor})
			b.Spend()
			allowed := 0
			for range 1000 { // 100 s
				if b.Allow() {
					allowed++
				}
				time.Sleep(100 * time.Millisecond)
			}
			require.InDelta(t, 100*floor, allowed, max(floor, 1)+1)
		})
	}
}

func TestBudget_AgreesWithANaiveModel(t *testing.T) {
	t.Parallel()
	for _, p := range []limit.RetryPolicy{
		{Budget: 10, Refund: 0.1, Floor: 0.5},
		{Budget: 1, Refund: 1, Floor: 1},
		{Budget: 7, Refund: 0.25, Floor: 3},
		{Budget: 1000, Refund: 0.001, Floor: 0.01},
	} {
		synctest.Test(t, func(t *testing.T) {
			random := rand.New(rand.NewPCG(5, uint64(p.Budget)))
			b := limit.NewBudget(p)
			// In thousandths, so that the model adds without rounding.
			full, refund := p.Budget*1000, int(p.Refund*1000)
			tokens := full
			burst := max(float64(int(p.Floor)), 1)
			floor, at := burst, time.Now()
			for range 5000 {
				switch random.IntN(16) {
				case 0, 1, 2, 3, 4:
					b.Spend()
					tokens = max(tokens-1000, 0)
				case 5, 6, 7, 8:
					b.Refund()
					tokens = min(tokens+refund, full)
				case 9:
					time.Sleep(time.Duration(random.IntN(1000)) * time.Millisecond)
				case 10:
					if random.IntN(40) == 0 {
						b.Refill()
						tokens = full
					}
				default:
					if 2*tokens > full {
						require.True(t, b.Allow())
						continue
					}
					floor = min(floor+time.Since(at).Seconds()*p.Floor, burst)
					at = time.Now()
					allowed := b.Allow()
					if floor > 0.9999 && floor < 1.0001 { // a matter of rounding
						if allowed {
							floor = 0
						}
						continue
					}
					require.Equal(t, floor >= 1, allowed)
					if allowed {
						floor--
					}
				}
			}
		})
	}
}

func TestBudget_ConcurrentOutcomesAreAllCounted(t *testing.T) {
	t.Parallel()
	b := limit.NewBudget(limit.RetryPolicy{Budget: 1000, Refund: 1, Floor: 0.001})
	b.Spend()
	require.True(t, b.Allow())
	var workers sync.WaitGroup
	for range 8 {
		workers.Go(func() {
			for range 100 {
				b.Spend()
				b.Spend()
				b.Refund()
			}
		})
	}
	workers.Wait() // 1 + 8 * 100 are missing
	for range 301 {
		b.Refund()
	}
	for range 8 {
		require.False(t, floorless(b), "exactly half is left")
	}
	b.Refund()
	require.True(t, floorless(b))
}

// floorless is Allow without the floor, whose only token it has used up.
func floorless(b *limit.Budget) bool {
	b.Allow()
	return b.Allow()
}

func TestDelays_DoubleFromFirstToLast(t *testing.T) {
	t.Parallel()
	exact := limit.NewDelays(time.Second, time.Minute, limit.NoJitter)
	for _, seconds := range []int{1, 2, 4, 8, 16, 32, 60, 60, 60} {
		require.Equal(t, time.Duration(seconds)*time.Second, exact.NextBackOff())
	}
	varied := limit.NewDelays(time.Second, time.Minute, limit.HalfJitter)
	for _, seconds := range []int{1, 2, 4, 8, 16, 32, 60, 60, 60} {
		require.InDelta(t, seconds, varied.NextBackOff().Seconds(), float64(seconds)/2)
	}
}

func TestFullJitter_ReachesFromZeroToItsBound(t *testing.T) {
	t.Parallel()
	require.Zero(t, limit.FullJitter(0))
	seen := make(map[time.Duration]bool)
	for range 1000 {
		seen[limit.FullJitter(3)] = true
	}
	require.Equal(t, map[time.Duration]bool{0: true, 1: true, 2: true, 3: true}, seen)
}

func TestBudget_LeftIsLowFromHalfTheTokensOn(t *testing.T) {
	t.Parallel()
	b := limit.NewBudget(limit.RetryPolicy{Budget: 10, Refund: 0.1, Floor: 0.5})
	for spent := range 10 {
		tokens, low := b.Left()
		require.InDelta(t, 10-spent, tokens, 0)
		require.Equal(t, spent >= 5, low, "%v", tokens)
		b.Spend()
	}
	for range 51 {
		b.Refund()
	}
	tokens, low := b.Left()
	require.InDelta(t, 5.1, tokens, 1e-9)
	require.False(t, low)
}

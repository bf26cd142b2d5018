package test_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/internal/testkit"
	"github.com/capreg/registry/status"
	"github.com/capreg/registry/verdict"
)

// anyOutcome is a function of a call that ends in one of the many ways there are.
func anyOutcome(ctx context.Context, random *rand.Rand) (string, error) {
	if random.IntN(2) == 0 {
		time.Sleep(time.Duration(random.IntN(2000)) * time.Millisecond) // ignores its context
	}
	switch random.IntN(12) {
	case 0, 1, 2:
		return "answer", nil
	case 3:
		return "", verdict.RateLimited(testkit.ErrDown, time.Duration(random.IntN(3000))*time.Millisecond)
	case 4:
		return "", verdict.Permanent(testkit.ErrDown)
	case 5:
		return "", verdict.NotSent(testkit.ErrDown)
	case 6:
		return "", verdict.Ignore(testkit.ErrDown)
	case 7:
		return "", verdict.Fatal(testkit.ErrDown, time.Second)
	case 8:
		panic(testkit.ErrDown)
	case 9:
		runtime.Goexit()
	case 10:
		<-ctx.Done()
		return "", ctx.Err()
	}
	return "", testkit.ErrDown
}

// live does random things to a registry for a while, in a goroutine of its own.
func live(reg *registry.Registry, seed uint64, seen *sync.Map, steps int) {
	random := rand.New(rand.NewPCG(seed, 7))
	r := testkit.Bind(reg)
	for i := range steps {
		ctx, cancel := context.WithTimeout(context.Background(), time.Duration(1+random.IntN(5000))*time.Millisecond)
		testkit.Isolated(func() {
			switch random.IntN(10) {
			case 0:
				if lease, err := r.Acquire(ctx); err == nil && random.IntN(2) == 0 {
					lease.Done(errors.Join(testkit.ErrDown)) // else it is forgotten
				}
			case 1:
				leases, _ := r.AcquireAll(ctx, 2)
				for _, lease := range leases {
					defer lease.Done(nil)
				}
			case 2:
				change(ctx, reg, random, seen, fmt.Sprintf("%d-%d", seed, i))
			default:
				var options []registry.CallOption
				switch random.IntN(6) {
				case 0:
					options = append(options, registry.OnceOnly())
				case 1:
					options = append(options, registry.WaitForCooldown())
				case 2:
					options = append(options, registry.ReportTo(&registry.CallReport{}), registry.Caller("x"))
				}
				_, _ = registry.Call(ctx, r, func(ctx context.Context, _ testkit.ChatModel) (string, error) {
					return anyOutcome(ctx, random)
				}, options...)
			}
		})
		cancel()
	}
}

func change(ctx context.Context, reg *registry.Registry, random *rand.Rand, seen *sync.Map, name string) {
	var all []*registry.Registration
	for info := range reg.All() {
		if registration, ok := reg.Provider("chat", info.Name); ok {
			all = append(all, registration)
		}
	}
	if len(all) < 3 || random.IntN(4) == 0 {
		registration, err := testkit.Chat.Register(ctx, reg, testkit.Provider{
			Name: name, Instance: testkit.Says(name), Group: random.IntN(2), AttemptTimeout: time.Second,
			Breaker: registry.BreakerPolicy{FailureThreshold: 2, RecoveryTimeout: 2 * time.Second, SuccessThreshold: 2, TrialSlots: 2},
			Retry:   registry.RetryPolicy{Retries: random.IntN(3)}, LastResort: random.IntN(3) == 0,
			Limits: registry.LimitPolicy{MaxConcurrent: random.IntN(4), MaxWait: time.Duration(random.IntN(5)) * time.Second},
		})
		if err == nil {
			seen.Store(registration, nil)
		}
		return
	}
	victim := all[random.IntN(len(all))]
	switch random.IntN(9) {
	case 0:
		_ = victim.ForceOpen(time.Second, "chaos")
	case 1:
		_ = victim.Reset()
	case 2:
		_ = victim.MarkUnhealthy(testkit.ErrDown)
	case 3:
		_ = victim.MarkHealthy()
	case 4:
		_, _ = victim.SetBreakerPolicy(registry.BreakerPolicy{FailureThreshold: 1 + random.IntN(3), RecoveryTimeout: time.Second})
	case 5:
		_ = victim.Unregister(ctx)
	case 7:
		_, _ = victim.SetLimits(registry.LimitPolicy{MaxConcurrent: random.IntN(3)})
	case 8:
		_, _ = victim.SetBreakerPolicy(registry.BreakerPolicy{FailureRate: 0.5, MinimumCalls: 4, RecoveryGrowth: 2, RecoveryTimeout: time.Second, RecoveryJitter: 0.5})
	case 6:
		_, _ = victim.SetStrategy(testkit.StrategyNumber(1 + random.IntN(2)))
	}
}

func TestInvariants_NoOutcomePermitOrGoroutineIsLost(t *testing.T) {
	t.Parallel()
	for seed := range uint64(20) {
		t.Run(strconv.FormatUint(seed, 10), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				reg := testkit.New(t, registry.Options{DrainTimeout: time.Second})
				var seen sync.Map
				for i := range 4 {
					seen.Store(testkit.Add(t, reg, testkit.Provider{
						Name: fmt.Sprintf("base-%d", i), AttemptTimeout: time.Second, Group: i / 2, Domain: fmt.Sprintf("domain-%d", i%2),
						Strategy: testkit.StrategyNumber(1 + i/2),
						Breaker:  registry.BreakerPolicy{FailureThreshold: 3, RecoveryTimeout: 3 * time.Second, TrialSlots: 3},
					}), nil)
				}
				var waiting sync.WaitGroup
				for worker := range uint64(8) {
					waiting.Go(func() { live(reg, seed*100+worker, &seen, 60) })
				}
				waiting.Wait()
				testkit.Pass(time.Hour) // forgotten leases expire, breakers and cooldowns come to rest
				for key := range seen.Range {
					info := key.(*registry.Registration).Info() //nolint:forcetypeassert // what was stored
					require.Equal(t, info.Attempts, info.Successes+info.Failures+info.Ignored+info.Limited, info.Name)
					require.Zero(t, info.InFlight, info.Name)
					require.Zero(t, info.Breaker.TrialsInFlight, info.Name)
					if _, present := reg.Provider("chat", info.Name); present {
						require.NotEqual(t, status.BreakerOpen, info.Breaker.State, info.Name)
						require.Zero(t, info.Cooldown.Until, info.Name)
					}
				}
				for info := range reg.All() { // every permit is free again
					registration, _ := reg.Provider("chat", info.Name)
					require.NoError(t, errors.Join(registration.MarkHealthy(), registration.Reset()))
					_, err := registration.SetLimits(registry.LimitPolicy{MaxConcurrent: 1, NoQueue: true})
					require.NoError(t, err)
				}
				require.Positive(t, reg.Stats().Eligible)
				for range 3 {
					leases, err := testkit.Bind(reg).AcquireAll(t.Context(), 0)
					require.NoError(t, err)
					for _, lease := range leases {
						lease.Done(nil)
					}
				}
				stats := reg.Stats()
				require.Equal(t, stats.Lookups, stats.Hits+stats.Misses)
				require.NoError(t, reg.Close(t.Context()))
			}) // the bubble fails when a goroutine is left in it
		})
	}
}

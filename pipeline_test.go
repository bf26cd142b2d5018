package registry_test

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/event"
	"github.com/capreg/registry/verdict"
)

// one lets one in at a time.
var one = registry.LimitPolicy{MaxConcurrent: 1, MaxQueue: 5, MaxWait: time.Second}

func TestPositionInOneQueueSurvivesBeingSentAwayFromAnother(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		lim := registry.LimitPolicy{MaxConcurrent: 1, MaxQueue: 10, MaxWait: time.Hour}
		a := add(t, reg, provider{Name: "a", Limits: lim, AttemptTimeout: time.Hour})
		add(t, reg, provider{Name: "b", Limits: lim, AttemptTimeout: time.Hour, Capabilities: []string{"x"}})
		both, onlyB := bind(reg), bind(reg, "x")
		la, _ := both.Acquire(t.Context())
		lb, _ := onlyB.Acquire(t.Context())
		var order []int
		var mu sync.Mutex
		var all sync.WaitGroup
		for i, r := range []*registry.Resolver[chatModel]{both, onlyB} {
			all.Go(func() {
				time.Sleep(time.Duration(i+1) * time.Second)
				_, err := registry.Call(context.Background(), r, func(context.Context, chatModel) (string, error) {
					mu.Lock()
					order = append(order, i)
					mu.Unlock()
					time.Sleep(time.Second)
					return "", nil
				})
				require.NoError(t, err)
			})
		}
		time.Sleep(5 * time.Second)
		require.NoError(t, a.MarkUnhealthy(errDown))
		la.Done(nil)
		time.Sleep(time.Second)
		lb.Done(nil)
		all.Wait()
		require.Equal(t, []int{0, 1}, order, "first come first served")
	})
}

func TestSlowTrialIsAFailedOneWhateverItAnswered(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a := add(t, reg, provider{Name: "a", Breaker: registry.BreakerPolicy{SlowRate: 0.5, SlowAfter: time.Second, SuccessThreshold: 1}})
		require.NoError(t, a.ForceOpen(time.Second, "x"))
		pass(2 * time.Second)
		l, err := bind(reg).Acquire(t.Context())
		require.NoError(t, err)
		time.Sleep(5 * time.Second)
		l.Done(verdict.Permanent(errDown))
		require.Equal(t, registry.BreakerOpen, a.Breaker().State, "A slow trial then counts as a failed one, whatever it was")
	})
}

func TestHookThatExitsBeforeAnAttemptBlamesNobody(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{BeforeAttempt: func(ctx context.Context, _ registry.CallReport, _ registry.Attempt) context.Context {
		runtime.Goexit()
		return ctx
	}}, func(t *testing.T, reg *registry.Registry) {
		a := add(t, reg, provider{Name: "a"})
		done := make(chan struct{})
		go func() { defer close(done); _, _ = ask(context.Background(), bind(reg)) }()
		<-done
		require.Zero(t, a.Info().Failures)
		require.Zero(t, a.Info().InFlight)
	})
}

func TestLeasesOfOneCallAreOneCallForTheHooks(t *testing.T) {
	t.Parallel()
	var before, after atomic.Int32
	bubble(t, registry.Options{
		BeforeCall: func(ctx context.Context, _ registry.CallReport) context.Context { before.Add(1); return ctx },
		AfterCall:  func(context.Context, registry.CallReport) { after.Add(1) },
	}, func(t *testing.T, reg *registry.Registry) {
		for _, n := range []string{"a", "b", "c"} {
			add(t, reg, provider{Name: n})
		}
		ls, err := bind(reg).AcquireMany(t.Context(), 0)
		require.NoError(t, err)
		for _, l := range ls {
			l.Done(nil)
		}
		require.Equal(t, before.Load(), after.Load())
	})
}

func TestSuccessOfALateMemberEndsTheGrowthOfItsDomain(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		add(t, reg, provider{Name: "a", Domain: "d"})
		l, err := bind(reg).Acquire(t.Context())
		require.NoError(t, err)
		l.Done(verdict.Fatal(errDown, 0)) // ~5 min
		pass(6 * time.Minute)
		b := add(t, reg, provider{Name: "b", Domain: "d", Priority: registry.PriorityCritical})
		require.Equal(t, "b", asked(t, bind(reg))) // a success of the domain
		l, err = bind(reg).Acquire(t.Context())
		require.NoError(t, err)
		l.Done(verdict.Fatal(errDown, 0))
		d := time.Until(b.Info().CooldownUntil)
		require.LessOrEqual(t, d, 5*time.Minute, "success resets growth")
	})
}

func TestOutcomesAndPlacesAreNeverLostUnderStress(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{
		Classify: func(err error) verdict.Verdict { return verdict.Verdict{} },
		BeforeAttempt: func(ctx context.Context, _ registry.CallReport, _ registry.Attempt) context.Context {
			return context.WithValue(ctx, traceKey{}, 1)
		},
		PanicsAsErrors: true,
	}, stressOutcomesAndPlaces)
}

func stressOutcomesAndPlaces(t *testing.T, reg *registry.Registry) {
	t.Helper()
	var regs []*registry.Registration
	var inside [4]atomic.Int32
	var over atomic.Int32
	for i := range 4 {
		regs = append(regs, add(t, reg, provider{
			Name: fmt.Sprint("p", i), Strategy: registry.StrategyRoundRobin, AttemptTimeout: 5 * time.Millisecond,
			Limits:  registry.LimitPolicy{MaxConcurrent: 2, MaxQueue: 5, MaxWait: 2 * time.Millisecond},
			Retry:   registry.RetryPolicy{Retries: 2, FirstDelay: time.Millisecond, Budget: 1000},
			Breaker: registry.BreakerPolicy{FailureThreshold: 3, RecoveryTimeout: time.Millisecond, SuccessThreshold: 2, TrialSlots: 2},
			Instance: chatFunc(func(ctx context.Context, _ string) (string, error) {
				if inside[i].Add(1) > 2 {
					over.Add(1)
				}
				defer inside[i].Add(-1)
				switch rand.N(8) {
				case 0:
					return "", errDown
				case 1:
					<-ctx.Done()
					return "", ctx.Err()
				case 2:
					return "", verdict.RateLimited(errDown, time.Millisecond)
				case 3:
					panic("x")
				case 4:
					time.Sleep(time.Millisecond)
				}
				return "ok", nil
			}),
		}))
	}
	r := bind(reg)
	stop := time.Now().Add(500 * time.Millisecond)
	var all sync.WaitGroup
	for g := range 16 {
		all.Go(func() {
			for time.Now().Before(stop) {
				time.Sleep(time.Duration(rand.N(50)) * time.Microsecond) // else time stands still while all are refused
				ctx, cancel := context.WithTimeout(context.Background(), time.Duration(rand.N(20)+1)*time.Millisecond)
				switch rand.N(6) {
				case 0:
					if l, err := r.Acquire(ctx); err == nil {
						m := l.Value
						func() {
							defer func() { _ = recover() }()
							_, err := m.Chat(l.Context(), "")
							if rand.N(20) > 0 {
								l.Done(err)
							}
						}()
					}
				case 1:
					_, _ = ask(ctx, r, registry.WaitForCooldown())
				case 2:
					go cancel()
					_, _ = ask(ctx, r)
				default:
					_, _ = ask(ctx, r)
				}
				if g == 0 && rand.N(50) == 0 {
					p := regs[rand.N(4)]
					_ = p.Reset()
					_ = p.ForceOpen(time.Millisecond, "x")
				}
				cancel()
			}
		})
	}
	all.Wait()
	pass(1100 * time.Millisecond) // those forgotten expire
	for _, p := range regs {
		i := p.Info()
		require.Zero(t, i.InFlight)
		require.Equal(t, i.Attempts, i.Successes+i.Failures+i.Ignored+i.Limited)
	}
}

func TestHookThatBlocksBehindAnExpiredLeaseDoesNotHoldUpClose(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		reg := newRegistry(t, registry.Options{AfterCall: func(context.Context, registry.CallReport) { <-release }})
		_, err := chat.Register(t.Context(), reg, provider{Name: "a", AttemptTimeout: time.Second, Instance: says("a")})
		require.NoError(t, err)
		_, err = bind(reg).Acquire(t.Context()) // forgotten
		require.NoError(t, err)
		time.Sleep(2 * time.Second) // it expires, the hook blocks
		done := make(chan error, 1)
		go func() {
			ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
			defer cancel()
			done <- reg.Close(ctx)
		}()
		select {
		case err := <-done:
			require.ErrorIs(t, err, registry.ErrStuck)
		case <-time.After(time.Hour):
			t.Error("Close(10 s) has not returned within an hour, and named nobody")
		}
		close(release)
		synctest.Wait()
	})
}

func TestForgottenLeaseFreesItsPlaceWhateverTheHooksDo(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		reg := newRegistry(t, registry.Options{AfterCall: func(_ context.Context, r registry.CallReport) {
			if r.Attempts[0].Class == verdict.ClassForgotten {
				<-release
			}
		}})
		a, _ := chat.Register(t.Context(), reg, provider{Name: "a", AttemptTimeout: time.Second, Instance: says("a"), Limits: registry.LimitPolicy{MaxConcurrent: 2, NoQueue: true}})
		r := bind(reg)
		_, _ = r.Acquire(t.Context())
		_, _ = r.Acquire(t.Context())
		time.Sleep(time.Hour)
		require.Zero(t, a.Info().InFlight, "two leases of one second, an hour ago")
		close(release)
		synctest.Wait()
		_ = reg.Close(t.Context())
	})
}

func TestCallThatQueuesEntersWhoeverComesBackMeanwhile(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		// A call waits in queue of a although b comes back meanwhile.
		add(t, reg, provider{Name: "a", Limits: registry.LimitPolicy{MaxConcurrent: 1, MaxWait: time.Hour}, AttemptTimeout: time.Hour})
		b := add(t, reg, provider{Name: "b"})
		require.NoError(t, b.MarkUnhealthy(errDown))
		r := bind(reg)
		l, err := r.Acquire(t.Context())
		require.NoError(t, err)
		go func() { time.Sleep(time.Second); _ = b.MarkHealthy() }()
		go func() { time.Sleep(30 * time.Minute); l.Done(nil) }()
		began := time.Now()
		require.Equal(t, "b", asked(t, r))
		require.Less(t, time.Since(began), time.Minute, "b is free and healthy after a second")
	})
}

func TestCallDoesNotQueueForAProviderThatHasLeft(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a := add(t, reg, provider{Name: "a", Limits: registry.LimitPolicy{MaxConcurrent: 1, MaxWait: time.Hour}, AttemptTimeout: time.Hour})
		r := bind(reg)
		l, err := r.Acquire(t.Context())
		require.NoError(t, err)
		var took time.Duration
		var all sync.WaitGroup
		all.Go(func() {
			began := time.Now()
			_, err := ask(context.Background(), r)
			require.Error(t, err)
			took = time.Since(began)
		})
		time.Sleep(time.Second)
		go func() { time.Sleep(30 * time.Minute); l.Done(nil) }()
		go func() { _ = a.Unregister(context.Background()) }()
		all.Wait()
		require.Less(t, took, time.Minute, "nobody can ever be entered")
	})
}

func TestCallsThatQueueOrWaitEndWithTheRegistry(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		add(t, reg, provider{Name: "a", Limits: registry.LimitPolicy{MaxConcurrent: 1, MaxWait: time.Hour}, AttemptTimeout: time.Hour})
		r := bind(reg)
		l, err := r.Acquire(t.Context())
		require.NoError(t, err)
		var all sync.WaitGroup
		all.Go(func() {
			began := time.Now()
			_, err := ask(context.Background(), r)
			require.ErrorIs(t, err, registry.ErrClosed)
			require.Less(t, time.Since(began), time.Minute)
		})
		all.Go(func() {
			began := time.Now()
			ctx, cancel := context.WithTimeout(context.Background(), time.Hour*3)
			defer cancel()
			_, err := ask(ctx, r, registry.WaitForCooldown())
			require.ErrorIs(t, err, registry.ErrClosed)
			require.Less(t, time.Since(began), time.Minute)
		})
		time.Sleep(time.Second)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		require.ErrorIs(t, reg.Close(ctx), registry.ErrStuck)
		time.Sleep(30 * time.Minute)
		l.Done(nil)
		all.Wait()
	})
}

func TestCallDoesNotWaitForTheCooldownOfAProviderThatHasLeft(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a := add(t, reg, provider{Name: "a"})
		r := bind(reg)
		l, err := r.Acquire(t.Context())
		require.NoError(t, err)
		l.Done(verdict.RateLimited(errDown, time.Hour))
		var all sync.WaitGroup
		all.Go(func() {
			began := time.Now()
			_, err := ask(context.Background(), r, registry.WaitForCooldown())
			require.ErrorIs(t, err, registry.ErrUnavailable)
			require.Less(t, time.Since(began), time.Minute, "it never comes back")
		})
		time.Sleep(time.Second)
		require.NoError(t, a.Unregister(t.Context()))
		all.Wait()
	})
}

func TestLastResortOnTrialGetsNoMoreThanItsTrials(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		var inside, most atomic.Int32
		a := add(t, reg, provider{Name: "a", LastResort: true, Instance: answers(func() (string, error) {
			n := inside.Add(1)
			if n > most.Load() {
				most.Store(n)
			}
			time.Sleep(time.Second)
			inside.Add(-1)
			return "", errDown
		})})
		require.NoError(t, a.ForceOpen(time.Second, "x"))
		pass(2 * time.Second)
		require.Equal(t, registry.BreakerHalfOpen, a.Breaker().State)
		var all sync.WaitGroup
		for range 100 {
			all.Go(func() { _, _ = ask(context.Background(), bind(reg)) })
		}
		all.Wait()
		require.EqualValues(t, 1, most.Load(), "half-open with 1 slot")
	})
}

func TestWinnerOfAnExplanationHasAPlaceFree(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		add(t, reg, provider{Name: "a", Limits: registry.LimitPolicy{MaxConcurrent: 1}})
		add(t, reg, provider{Name: "b"})
		r := bind(reg)
		l, err := r.Acquire(t.Context())
		require.NoError(t, err)
		winner := r.Explain().Winner
		require.Equal(t, asked(t, r), winner)
		l.Done(nil)
	})
}

func TestLeaseThatIsReportedWhenItsContextEndsWasNotForgotten(t *testing.T) {
	t.Parallel()
	forgotten := 0
	for range 100 {
		bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
			s := reg.Subscribe(0)
			add(t, reg, provider{Name: "a", AttemptTimeout: time.Second})
			l, err := bind(reg).Acquire(t.Context())
			require.NoError(t, err)
			<-l.Context().Done()
			l.Done(l.Context().Err())
			pass(time.Second)
			for _, k := range kinds(t, s) {
				if k == event.LeaseExpired {
					forgotten++
				}
			}
			s.Close()
		})
	}
}

func TestEachOfManyLeasesHoldsItsOwnPlaceAlone(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		add(t, reg, provider{Name: "a", Limits: one})
		add(t, reg, provider{Name: "b"}) // no limits
		r := bind(reg)
		leases, err := r.AcquireMany(t.Context(), 0)
		require.NoError(t, err)
		require.Len(t, leases, 2)
		leases[1].Done(nil) // b's
		inside := 1         // a's first lease is still held
		l, err := r.Acquire(t.Context())
		require.NoError(t, err)
		if l.Provider() == "a" {
			inside++
		}
		require.Equal(t, 1, inside, "attempts inside a, whose MaxConcurrent is 1")
		l.Done(nil)
		leases[0].Done(nil)
		l, err = r.Acquire(t.Context())
		require.NoError(t, err)
		require.Equal(t, "a", l.Provider(), "a is idle")
		l.Done(nil)
	})
}

func TestPlacesOfManyLeasesAreGivenBackOnce(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		add(t, reg, provider{Name: "a", Limits: one})
		add(t, reg, provider{Name: "b"}) // no limits
		r := bind(reg)
		leases, err := r.AcquireMany(t.Context(), 0)
		require.NoError(t, err)
		for _, l := range leases {
			l.Done(nil)
		}
		got := asked(t, r)
		require.Equal(t, "a", got, "a is idle and healthy")
	})
}

func TestManyLeasesOfFullProvidersSayAtCapacity(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		add(t, reg, provider{Name: "a", Limits: one})
		r := bind(reg)
		l, err := r.Acquire(t.Context())
		require.NoError(t, err)
		_, err = r.AcquireMany(t.Context(), 0)
		require.ErrorIs(t, err, registry.ErrAtCapacity)
		l.Done(nil)
	})
}

func TestReportOfManyLeasesIsWrittenOnce(t *testing.T) {
	t.Parallel()
	reg := newRegistry(t, registry.Options{})
	add(t, reg, provider{Name: "a"})
	add(t, reg, provider{Name: "b"})
	r := bind(reg)
	var report registry.CallReport
	leases, err := r.AcquireMany(t.Context(), 0, registry.ReportTo(&report))
	require.NoError(t, err)
	var all sync.WaitGroup
	for _, l := range leases {
		all.Go(func() { l.Done(nil) })
	}
	all.Wait()
	require.NoError(t, reg.Close(t.Context()))
}

func TestRetriesAreBoundedAlsoThroughAQueue(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		var tries atomic.Int32
		add(t, reg, provider{
			Name: "a", Limits: registry.LimitPolicy{MaxConcurrent: 1, MaxQueue: 5, MaxWait: time.Hour},
			Retry:   registry.RetryPolicy{Retries: 1, FirstDelay: time.Second, Budget: 1000},
			Breaker: registry.BreakerPolicy{FailureThreshold: 1000},
			Instance: answers(func() (string, error) {
				tries.Add(1)
				return "", errDown
			}),
		})
		r := bind(reg)
		stop := make(chan struct{})
		var all sync.WaitGroup
		// others that take the place whenever it is free
		all.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				_, _ = registry.Call(context.Background(), r, func(ctx context.Context, m chatModel) (string, error) {
					time.Sleep(2 * time.Second)
					return "", nil
				})
			}
		})
		time.Sleep(time.Second)
		var rep registry.CallReport
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
		defer cancel()
		_, err := ask(ctx, r, registry.ReportTo(&rep))
		require.Error(t, err)
		close(stop)
		all.Wait()
		require.LessOrEqual(t, tries.Load(), int32(2), "Retries: 1 is two attempts in all")
	})
}

func TestTrialThatHangsInItsFunctionGivesItsSlotBack(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		bad := atomic.Bool{}
		bad.Store(true)
		a := add(t, reg, provider{Name: "a", AttemptTimeout: time.Second, Instance: answers(func() (string, error) {
			if bad.Load() {
				return "", errDown
			}
			return "a", nil
		})})
		r := bind(reg)
		trip(t, r, a)
		pass(time.Minute + time.Second)
		require.Equal(t, registry.BreakerHalfOpen, a.Breaker().State)
		release := make(chan struct{})
		var all sync.WaitGroup
		all.Go(func() {
			_, _ = registry.Call(context.Background(), r, func(context.Context, chatModel) (string, error) {
				<-release // a client that ignores its context
				return "", errDown
			})
		})
		synctest.Wait()
		bad.Store(false)
		pass(24 * time.Hour)
		_, err := ask(t.Context(), r)
		require.NoError(t, err, "a day after a trial of one second hung")
		close(release)
		all.Wait()
	})
}

func TestHookThatBlocksBehindAnExpiredLeaseStopsNoTimer(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	bubble(t, registry.Options{AfterAttempt: func(ctx context.Context, r registry.CallReport, a registry.Attempt) {
		if a.Class == verdict.ClassForgotten {
			<-release
		}
	}}, func(t *testing.T, reg *registry.Registry) {
		release = make(chan struct{})
		b := add(t, reg, provider{Name: "b", Instance: fails(errDown), Breaker: registry.BreakerPolicy{RecoveryTimeout: time.Minute}})
		r := bind(reg)
		trip(t, r, b)
		add(t, reg, provider{Name: "a", AttemptTimeout: time.Second})
		_, err := r.Acquire(t.Context()) // forgotten
		require.NoError(t, err)
		pass(24 * time.Hour)
		require.Equal(t, registry.BreakerHalfOpen, b.Breaker().State, "a day after it opened for a minute")
		close(release)
		synctest.Wait()
	})
}

func TestCallDoesNotWaitForAWindowThatIsTooSmall(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		add(t, reg, provider{Name: "small", Window: 10, Instance: fails(verdict.RateLimited(errDown, 20*time.Second))})
		add(t, reg, provider{Name: "big", Window: 100, Instance: fails(verdict.As(errDown, verdict.Verdict{Class: verdict.ClassTooLong}))})
		r := bind(reg)
		_, err := ask(t.Context(), r) // small cools down
		require.Error(t, err)
		began := time.Now()
		_, err = ask(t.Context(), r, registry.WaitForCooldown())
		require.Error(t, err)
		require.Zero(t, time.Since(began), "small is too small: nothing to wait for")
	})
}

func TestQueueLeadsToNoSmallerWindow(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		add(t, reg, provider{Name: "small", Window: 10, Limits: one})
		add(t, reg, provider{Name: "big", Window: 100, Instance: fails(verdict.As(errDown, verdict.Verdict{Class: verdict.ClassTooLong}))})
		r := bind(reg)
		l, err := r.Acquire(t.Context())
		require.NoError(t, err)
		require.Equal(t, "small", l.Provider())
		go func() { time.Sleep(500 * time.Millisecond); l.Done(nil) }()
		_, err = ask(t.Context(), r)
		require.Error(t, err, "too long for 100, then asked small (window 10)")
	})
}

func TestCallTakesOnePlaceInTheQueueOfADomain(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		l2 := registry.LimitPolicy{MaxConcurrent: 1, MaxQueue: 2, MaxWait: time.Minute}
		add(t, reg, provider{Name: "a", Domain: "key", Limits: l2})
		add(t, reg, provider{Name: "b", Domain: "key"})
		r := bind(reg)
		l, err := r.Acquire(t.Context())
		require.NoError(t, err)
		var failed atomic.Int32
		var all sync.WaitGroup
		for range 2 {
			all.Go(func() {
				if _, err := ask(context.Background(), r); err != nil {
					failed.Add(1)
				}
			})
		}
		time.Sleep(time.Second)
		l.Done(nil)
		all.Wait()
		require.Zero(t, failed.Load(), "MaxQueue is 2, and two waited")
	})
}

func TestCallWaitsInEachQueueForItsOwnTime(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		add(t, reg, provider{Name: "a", Limits: registry.LimitPolicy{MaxConcurrent: 1, MaxQueue: 1, MaxWait: 100 * time.Millisecond}})
		add(t, reg, provider{Name: "b", Limits: registry.LimitPolicy{MaxConcurrent: 1, MaxQueue: 1, MaxWait: 10 * time.Second}})
		r := bind(reg)
		la, err := r.Acquire(t.Context())
		require.NoError(t, err)
		lb, err := r.Acquire(t.Context())
		require.NoError(t, err)
		go func() { time.Sleep(5 * time.Second); la.Done(nil) }()
		got, err := ask(t.Context(), r)
		require.ErrorIs(t, err, registry.ErrAtCapacity)
		require.NotEqual(t, "a", got, "waited 5s in a queue where each waits 100ms at most")
		lb.Done(nil)
	})
}

func TestFunctionIsNotEnteredFromAQueueWithAContextThatHasEnded(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		add(t, reg, provider{Name: "a", Limits: one})
		r := bind(reg)
		entered := 0
		for range 100 {
			l, err := r.Acquire(t.Context())
			require.NoError(t, err)
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan struct{})
			go func() {
				defer close(done)
				_, _ = registry.Call(ctx, r, func(ctx context.Context, m chatModel) (string, error) {
					if ctx.Err() != nil {
						entered++
					}
					return "", nil
				})
			}()
			synctest.Wait()
			cancel()
			l.Done(nil)
			<-done
		}
		require.Zero(t, entered, "functions entered whose ctx had ended before")
	})
}

func TestAuthorizerThatExitsInTheQueueKeepsNoPlace(t *testing.T) {
	t.Parallel()
	var exits atomic.Bool
	bubble(t, registry.Options{Authorize: func(context.Context, string, string, string) error {
		if exits.Load() {
			runtime.Goexit()
		}
		return nil
	}}, func(t *testing.T, reg *registry.Registry) {
		add(t, reg, provider{Name: "a", Limits: one})
		r := bind(reg)
		l, err := r.Acquire(t.Context())
		require.NoError(t, err)
		go func() { _, _ = ask(context.Background(), r) }()
		synctest.Wait() // it... Authorize is before the place, so ask first with no exit
		exits.Store(true)
		l.Done(nil)
		synctest.Wait()
		exits.Store(false)
		_, err = ask(t.Context(), r)
		require.NoError(t, err, "a is idle")
	})
}

func TestFirstAttemptAfterAWaitNeedsNoBudget(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		var err0 atomic.Value
		err0.Store(errDown)
		var ok atomic.Bool
		add(t, reg, provider{Name: "a", Breaker: registry.BreakerPolicy{FailureThreshold: 1000}, Instance: answers(func() (string, error) {
			if ok.Load() {
				return "a", nil
			}
			return "", err0.Load().(error)
		})})
		r := bind(reg)
		for range 20 {
			_, _ = ask(t.Context(), r)
		}
		ok.Store(true)
		asked(t, r) // first attempts are not bounded by the budget
		ok.Store(false)
		func() {
			l, err := r.Acquire(t.Context())
			require.NoError(t, err)
			l.Done(verdict.RateLimited(errDown, 10*time.Second))
		}()
		ok.Store(true)
		var failed atomic.Int32
		var all sync.WaitGroup
		for range 10 {
			all.Go(func() {
				if _, err := ask(context.Background(), r, registry.WaitForCooldown()); err != nil {
					failed.Add(1)
				}
			})
		}
		all.Wait()
		require.Zero(t, failed.Load(), "calls that waited for their first attempt")
	})
}

func TestOnceOnlyCallDoesNotSpeakForProvidersItDidNotAsk(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		add(t, reg, provider{Name: "a", Instance: fails(verdict.Fatal(errDown, 0))})
		add(t, reg, provider{Name: "b"})
		_, err := ask(t.Context(), bind(reg), registry.OnceOnly())
		require.NotErrorIs(t, err, registry.ErrCredentials)
	})
}

func TestOnceOnlyCallThatWasRateLimitedSaysWhenToComeBack(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		add(t, reg, provider{Name: "a", Instance: fails(verdict.RateLimited(errDown, 10*time.Second))})
		_, err := ask(t.Context(), bind(reg), registry.OnceOnly())
		var c *registry.CallError
		require.ErrorAs(t, err, &c)
		require.Positive(t, c.RetryIn, "C9: fail at once with the delay in the error")
	})
}

func TestWhatWasNotSentInTimeMayBeSentElsewhere(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		add(t, reg, provider{Name: "a", AttemptTimeout: time.Second, Instance: chatFunc(func(ctx context.Context, _ string) (string, error) {
			<-ctx.Done() // a dial into a black hole
			return "", verdict.NotSent(ctx.Err())
		})})
		add(t, reg, provider{Name: "b"})
		got, err := ask(t.Context(), bind(reg), registry.OnceOnly())
		require.NoError(t, err)
		require.Equal(t, "b", got)
	})
}

func TestLimitsTurnedOffAndOnRememberWhoIsInside(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a := add(t, reg, provider{Name: "a", Limits: one})
		r := bind(reg)
		l1, err := r.Acquire(t.Context())
		require.NoError(t, err)
		_, err = a.SetLimits(registry.LimitPolicy{})
		require.NoError(t, err)
		_, err = a.SetLimits(registry.LimitPolicy{MaxConcurrent: 1, NoQueue: true})
		require.NoError(t, err)
		l2, err := r.Acquire(t.Context())
		require.Error(t, err, "two inside, one allowed")
		l1.Done(nil)
		if l2 != nil {
			l2.Done(nil)
		}
	})
}

func TestRatesHoldForThousandsOfCallers(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		add(t, reg, provider{Name: "a", Limits: registry.LimitPolicy{Rate: 0.0001, Burst: 1}})
		r := bind(reg)
		allowed := 0
		for range 3 {
			for i := range 2000 {
				if _, err := ask(t.Context(), r, registry.Caller(strconv.Itoa(i))); err == nil {
					allowed++
				}
			}
		}
		require.Equal(t, 2000, allowed)
	})
}

func TestLongestRetryDelayHarmsNobody(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		_, err := chat.Register(t.Context(), reg, provider{Name: "a", Instance: fails(errDown), Retry: registry.RetryPolicy{Retries: 1, FirstDelay: math.MaxInt64, MaxDelay: math.MaxInt64}})
		if err != nil {
			return
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		require.NotPanics(t, func() { _, _ = ask(ctx, bind(reg)) })
	})
}

func TestProviderThatBeginsToHangTripsThoughItsTimeIsShared(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		var hang atomic.Bool
		a := add(t, reg, provider{Name: "a", AttemptTimeout: 10 * time.Second, Instance: chatFunc(func(ctx context.Context, _ string) (string, error) {
			if hang.Load() {
				<-ctx.Done()
				return "", ctx.Err()
			}
			time.Sleep(4 * time.Second)
			return "a", nil
		})})
		add(t, reg, provider{Name: "b"})
		r := bind(reg)
		for range 10 {
			asked(t, r)
		}
		hang.Store(true)
		for range 1000 {
			ctx, cancel := context.WithTimeout(t.Context(), 7*time.Second)
			_, _ = ask(ctx, r)
			cancel()
		}
		require.Equal(t, registry.BreakerOpen, a.Breaker().State, "1000 attempt timeouts in a row")
	})
}

func TestLastResortMovesNoBreaker(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a := add(t, reg, provider{Name: "a", LastResort: true, Instance: fails(errDown)})
		require.NoError(t, a.MarkUnhealthy(errDown))
		r := bind(reg)
		for range 10 {
			_, _ = ask(t.Context(), r)
		}
		require.Equal(t, registry.BreakerClosed, a.Breaker().State, "documented: the outcome moves no breaker")
	})
}

func TestWhatWasStatedOfAnErrorComesBeforeClassifiers(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{Classify: func(error) verdict.Verdict { return verdict.Verdict{Class: verdict.ClassServerError} }}, func(t *testing.T, reg *registry.Registry) {
		add(t, reg, provider{Name: "a"})
		r := bind(reg)
		l, err := r.Acquire(t.Context())
		require.NoError(t, err)
		require.Equal(t, verdict.ClassIgnored, l.Done(verdict.Ignore(errDown)))
	})
}

func TestFunctionIsNotEnteredWhenTheAuthorizerEndedTheContext(t *testing.T) {
	t.Parallel()
	var cancel context.CancelFunc
	bubble(t, registry.Options{Authorize: func(context.Context, string, string, string) error { cancel(); return nil }}, func(t *testing.T, reg *registry.Registry) {
		add(t, reg, provider{Name: "a"})
		var ctx context.Context
		ctx, cancel = context.WithCancel(t.Context())
		ran := false
		_, err := registry.Call(ctx, bind(reg), func(ctx context.Context, m chatModel) (string, error) {
			ran = true
			return "", nil
		})
		require.ErrorIs(t, err, context.Canceled)
		require.False(t, ran, "T22: check ctx.Err() before each attempt")
	})
}

func TestThrottledCallerDoesNotQueue(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		add(t, reg, provider{Name: "a", AttemptTimeout: time.Hour, Limits: registry.LimitPolicy{MaxConcurrent: 1, MaxQueue: 1, MaxWait: 20 * time.Second, Rate: 0.001, Burst: 1}})
		r := bind(reg)
		l, err := r.Acquire(t.Context())
		require.NoError(t, err)
		go func() { time.Sleep(10 * time.Second); l.Done(nil) }()
		began := time.Now()
		_, err = ask(t.Context(), r)
		require.Error(t, err)
		require.Zero(t, time.Since(began), "throttled caller waited for a place, in somebody's room")
	})
}

func TestHooksCannotRewriteTheLedgerOfACall(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{AfterAttempt: func(_ context.Context, r registry.CallReport, a registry.Attempt) {
		r.Attempts[0].Provider = "nobody"
		r.Attempts[0].Err = nil
	}}, func(t *testing.T, reg *registry.Registry) {
		add(t, reg, provider{Name: "a", Instance: fails(errDown)})
		_, err := ask(t.Context(), bind(reg))
		require.ErrorIs(t, err, errDown)
	})
}

package registry_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
	"weak"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/health"
	"github.com/capreg/registry/verdict"
)

func TestRecoveryThatSucceededIsNotRunAgain(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		var runs atomic.Int64
		a := add(t, reg, provider{Name: "a", Health: health.Policy{Recover: func(context.Context) error { runs.Add(1); return nil }}})
		require.NoError(t, a.MarkUnhealthy(errDown))
		pass(10 * time.Minute)
		require.EqualValues(t, 1, runs.Load(), "only an error is tried again")
	})
}

func TestShortIntervalsBesideLongOnesAreNoSuspicion(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		add(t, reg, provider{Name: "x", Health: health.Policy{Interval: time.Hour, IdleInterval: 2 * time.Second, Probe: func(context.Context) error {
			time.Sleep(time.Millisecond)
			return nil
		}}})
		var hang atomic.Bool
		y := add(t, reg, provider{Name: "y", Health: health.Policy{Interval: 10 * time.Second, IdleInterval: 10 * time.Second, Probe: func(ctx context.Context) error {
			if hang.Load() {
				<-ctx.Done()
			}
			return ctx.Err()
		}}})
		pass(time.Minute)
		hang.Store(true)
		pass(2 * time.Minute)
		require.Equal(t, health.Unhealthy, y.Health().State, "%s", y.Health().Reason)
	})
}

func TestRetryIsNotHeldUpByALeaseBesideThatQueues(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		add(t, reg, provider{Name: "a", Priority: registry.PriorityHigh, Retry: registry.RetryPolicy{Retries: 1}})
		add(t, reg, provider{Name: "b", Capabilities: []string{"b"}, Limits: registry.LimitPolicy{MaxConcurrent: 1, MaxQueue: 1, MaxWait: time.Minute}})
		full, err := bind(reg, "b").Acquire(t.Context(), registry.AttemptTimeout(time.Hour))
		require.NoError(t, err)
		a, err := bind(reg).Acquire(t.Context(), registry.AttemptTimeout(time.Hour))
		require.NoError(t, err)
		require.Equal(t, "a", a.Provider())
		done := make(chan struct{})
		go func() {
			defer close(done)
			if b, err := a.Beside(); err == nil {
				b.Done(nil)
			}
		}()
		pass(time.Second)
		began := time.Now()
		again, err := a.MoveOn(errDown)
		waited := time.Since(began)
		if err == nil {
			again.Done(nil)
		}
		full.Done(nil)
		<-done
		require.NoError(t, err)
		require.Less(t, waited, time.Second)
	})
}

func TestCheckOnDemandComesBeforeRoutineProbes(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{ProbeConcurrency: 1}, func(t *testing.T, reg *registry.Registry) {
		slow := func(context.Context) error { time.Sleep(4 * time.Second); return nil }
		for _, n := range []string{"a", "b", "c", "d", "e", "f"} {
			add(t, reg, provider{Name: n, Health: health.Policy{Interval: time.Second, IdleInterval: time.Second, Probe: slow}})
		}
		z := add(t, reg, provider{Name: "z", Health: health.Policy{Interval: time.Second, IdleInterval: time.Second, Probe: slow}})
		pass(2 * time.Minute)
		worst := time.Duration(0)
		for range 5 {
			began := time.Now()
			_, err := z.CheckHealth(t.Context())
			require.NoError(t, err)
			worst = max(worst, time.Since(began))
			pass(3 * time.Second)
		}
		require.LessOrEqual(t, worst, 9*time.Second, "one in progress and its own")
	})
}

func TestLeasesOfOneCallKeepTheirCountsUnderStress(t *testing.T) {
	t.Parallel()
	var afterCalls, calls, after, before atomic.Int64
	reg, err := registry.New(registry.Options{
		AfterCall: func(context.Context, registry.CallReport) { afterCalls.Add(1) },
		BeforeAttempt: func(ctx context.Context, _ registry.CallReport, _ registry.Attempt) context.Context {
			before.Add(1)
			return ctx
		},
		AfterAttempt: func(context.Context, registry.CallReport, registry.Attempt) { after.Add(1) },
	})
	require.NoError(t, err)
	for i := range 4 {
		add(t, reg, provider{
			Name: fmt.Sprint("p", i), AttemptTimeout: time.Second, Retry: registry.RetryPolicy{Retries: 2, FirstDelay: time.Millisecond, Budget: 1 << 20},
			Breaker: registry.BreakerPolicy{FailureThreshold: 3, RecoveryTimeout: 2 * time.Millisecond},
			Limits:  registry.LimitPolicy{MaxConcurrent: 3, MaxQueue: 5, MaxWait: 5 * time.Millisecond},
		})
	}
	r := bind(reg)
	var wg sync.WaitGroup
	var own func(l *registry.Lease[chatModel], depth int)
	own = func(l *registry.Lease[chatModel], depth int) {
		defer wg.Done()
		for cur := l; cur != nil; {
			switch rand.IntN(4) {
			case 0:
				cur.Done(nil)
				cur = nil
			case 1:
				next, err := cur.MoveOn(errDown)
				if err != nil {
					next = nil
				}
				cur = next
			case 2:
				_ = cur.Failure()
				_ = cur.Attempts()
				if depth < 3 {
					if b, err := cur.Beside(); err == nil {
						wg.Add(1)
						go own(b, depth+1)
					}
				}
			case 3:
				cur.Done(errDown)
				cur = nil
			}
		}
	}
	for range 12 {
		wg.Go(func() {
			for range 300 {
				ctx, cancel := context.WithTimeout(context.Background(), time.Duration(1+rand.IntN(30))*time.Millisecond)
				calls.Add(1)
				if l, err := r.Acquire(ctx); err == nil {
					wg.Add(1)
					own(l, 0)
				}
				cancel()
			}
		})
	}
	wg.Wait()
	for info := range reg.All() {
		require.Zero(t, info.InFlight)
		require.Equal(t, info.Attempts, info.Successes+info.Failures+info.Ignored+info.Limited)
		p, _ := reg.Provider(info.Name)
		require.NoError(t, p.Reset())
	}
	require.Equal(t, calls.Load(), afterCalls.Load(), "calls, AfterCall")
	require.Equal(t, before.Load(), after.Load())
	var held []*registry.Lease[chatModel]
	for range 12 {
		l, err := r.Acquire(t.Context())
		require.NoError(t, err)
		held = append(held, l)
	}
	for _, l := range held {
		l.Done(nil)
	}
	require.NoError(t, reg.Close(context.Background()))
}

func TestNobodyIsLeasedBesideALeaseThatExpired(t *testing.T) {
	t.Parallel()
	var n atomic.Int64
	bubble(t, registry.Options{AfterCall: func(context.Context, registry.CallReport) { n.Add(1) }}, func(t *testing.T, reg *registry.Registry) {
		add(t, reg, provider{Name: "a"})
		add(t, reg, provider{Name: "b"})
		l, err := bind(reg).Acquire(t.Context(), registry.AttemptTimeout(time.Second))
		require.NoError(t, err)
		pass(3 * time.Second)
		b, err := l.Beside()
		if err == nil {
			b.Done(nil)
		}
		require.EqualValues(t, 1, n.Load(), "Beside: %v", err)
	})
}

func TestNobodyIsLeasedBesideAOnceOnlyCall(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		add(t, reg, provider{Name: "a"})
		add(t, reg, provider{Name: "b"})
		a, err := bind(reg).Acquire(t.Context(), registry.OnceOnly())
		require.NoError(t, err)
		b, err := a.Beside()
		a.Done(nil)
		if err == nil {
			b.Done(nil)
		}
		require.Error(t, err, "a call marked once-only runs on no second provider")
	})
}

func TestNobodyIsLeasedBesideACallThatIsOver(t *testing.T) {
	t.Parallel()
	var calls atomic.Int64
	bubble(t, registry.Options{AfterCall: func(context.Context, registry.CallReport) { calls.Add(1) }}, func(t *testing.T, reg *registry.Registry) {
		add(t, reg, provider{Name: "a"})
		add(t, reg, provider{Name: "b"})
		a, err := bind(reg).Acquire(t.Context())
		require.NoError(t, err)
		a.Done(nil)
		require.EqualValues(t, 1, calls.Load())
		b, err := a.Beside()
		if err == nil {
			b.Done(nil)
		}
		require.EqualValues(t, 1, calls.Load(), "AfterCall runs once for each call (Beside err: %v)", err)
	})
}

func TestCallThatIsOverIsReportedOnce(t *testing.T) {
	t.Parallel()
	var calls atomic.Int64
	bubble(t, registry.Options{AfterCall: func(context.Context, registry.CallReport) { calls.Add(1) }}, func(t *testing.T, reg *registry.Registry) {
		add(t, reg, provider{Name: "a"})
		a, err := bind(reg).Acquire(t.Context())
		require.NoError(t, err)
		a.Done(errDown)
		_, err = a.Beside()
		require.Error(t, err)
		require.EqualValues(t, 1, calls.Load())
	})
}

func TestRetriesOfLeasesSideBySideAreBounded(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		retry := registry.RetryPolicy{Retries: 1, Budget: 10000}
		never := registry.BreakerPolicy{FailureThreshold: 100000}
		add(t, reg, provider{Name: "a", Retry: retry, Breaker: never})
		add(t, reg, provider{Name: "b", Retry: retry, Breaker: never})
		a, err := bind(reg).Acquire(t.Context())
		require.NoError(t, err)
		b, err := a.Beside()
		require.NoError(t, err)
		asked := map[string]int{a.Provider(): 1, b.Provider(): 1}
		for i := 0; i < 100 && (a != nil || b != nil); i++ {
			if a != nil {
				if a, err = a.MoveOn(errDown); err == nil {
					asked[a.Provider()]++
				} else {
					a = nil
				}
			}
			if b != nil {
				if b, err = b.MoveOn(errDown); err == nil {
					asked[b.Provider()]++
				} else {
					b = nil
				}
			}
		}
		if a != nil {
			a.Done(nil)
		}
		if b != nil {
			b.Done(nil)
		}
		require.LessOrEqual(t, asked["a"], 2)
		require.LessOrEqual(t, asked["b"], 2)
	})
}

func TestRetryIsNotLostToTheLeaseBeside(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		retry := registry.RetryPolicy{Retries: 1, Budget: 10000}
		add(t, reg, provider{Name: "a", Retry: retry})
		add(t, reg, provider{Name: "b", Retry: retry})
		a, err := bind(reg).Acquire(t.Context())
		require.NoError(t, err)
		b, err := a.Beside()
		require.NoError(t, err)
		b, err = b.MoveOn(errDown) // b's one retry
		require.NoError(t, err)
		defer b.Done(nil)
		a, err = a.MoveOn(errDown) // a's one retry
		require.NoError(t, err)
		a.Done(nil)
	})
}

func TestLeasesOfManyAreNotLeasedTwice(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		add(t, reg, provider{Name: "a"})
		add(t, reg, provider{Name: "b"})
		leases, err := bind(reg).AcquireMany(t.Context(), 0)
		require.NoError(t, err)
		require.Len(t, leases, 2)
		again, err := leases[0].Beside()
		name := ""
		if err == nil {
			name = again.Provider()
			again.Done(nil)
		}
		leases[0].Done(nil)
		leases[1].Done(nil)
		require.Error(t, err, "nobody is leased twice: %q", name)
	})
}

func TestLeaseOfManyMovesOnToAnotherProvider(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		add(t, reg, provider{Name: "a"})
		add(t, reg, provider{Name: "b"})
		leases, err := bind(reg).AcquireMany(t.Context(), 1)
		require.NoError(t, err)
		next, err := leases[0].MoveOn(errDown)
		require.NoError(t, err)
		name := next.Provider()
		next.Done(nil)
		require.Equal(t, "b", name, "the next provider")
	})
}

func TestErrorOfACallDoesNotSpeakOfALeaseBesideThatFoundNobody(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		add(t, reg, provider{Name: "a"})
		b := add(t, reg, provider{Name: "b"})
		require.NoError(t, b.MarkUnhealthy(errDown))
		bad := verdict.As(errors.New("bad"), verdict.Verdict{Class: verdict.ClassBadRequest})
		one, err := bind(reg).Acquire(t.Context())
		require.NoError(t, err)
		_, want := one.MoveOn(bad)
		two, err := bind(reg).Acquire(t.Context())
		require.NoError(t, err)
		_, err = two.Beside()
		require.Error(t, err)
		_, got := two.MoveOn(bad)
		require.Equal(t, errors.Is(want, registry.ErrUnhealthy), errors.Is(got, registry.ErrUnhealthy))
	})
}

func TestLeaseBesideThatFoundNobodyCostsNoFailover(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		add(t, reg, provider{Name: "a", Priority: registry.PriorityHigh})
		b := add(t, reg, provider{Name: "b"})
		require.NoError(t, b.MarkUnhealthy(errDown))
		l, err := bind(reg).Acquire(t.Context())
		require.NoError(t, err)
		_, err = l.Beside()
		require.Error(t, err)
		require.NoError(t, b.MarkHealthy())
		next, err := l.MoveOn(errDown)
		require.NoError(t, err, "b was never asked and is eligible")
		next.Done(nil)
	})
}

func TestSlowSuccessMovesOnToNobody(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		add(t, reg, provider{Name: "a", Breaker: registry.BreakerPolicy{SlowAfter: time.Second, SlowRate: 0.9}})
		add(t, reg, provider{Name: "b"})
		l, err := bind(reg).Acquire(t.Context())
		require.NoError(t, err)
		time.Sleep(2 * time.Second)
		next, err := l.MoveOn(nil)
		require.NoError(t, err)
		require.Nil(t, next)
	})
}

func TestCallThatOneLeaseAnsweredIsReportedWithoutAnError(t *testing.T) {
	t.Parallel()
	var report registry.CallReport
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		add(t, reg, provider{Name: "a"})
		add(t, reg, provider{Name: "b"})
		a, err := bind(reg).Acquire(t.Context(), registry.ReportTo(&report))
		require.NoError(t, err)
		b, err := a.Beside()
		require.NoError(t, err)
		b.Done(nil)
		a.Done(verdict.As(errors.New("lost"), verdict.Verdict{Class: verdict.ClassHedgeLoser}))
		require.NoError(t, report.Err)
	})
}

func TestFirstResultIsNotWaitedForWhereNobodyCouldBeEntered(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		of := &subject{takes: 4 * time.Second}
		a := add(t, reg, provider{Name: "a", Health: health.Policy{Probe: of.probe}})
		began := time.Now()
		go func() { time.Sleep(time.Second); _ = a.ForceOpen(time.Hour, "x") }()
		_, err := ask(t.Context(), bind(reg))
		require.Error(t, err)
		require.LessOrEqual(t, time.Since(began), 1100*time.Millisecond)
	})
}

func TestUsageThatIsNoNumberHidesNothing(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a := add(t, reg, provider{Name: "a", Health: health.Policy{Probe: func(ctx context.Context) error {
			zero := 0.0
			health.Use(ctx, "gpu", zero/zero)
			health.Use(ctx, "mem", 1)
			return nil
		}}})
		synctest.Wait()
		require.Equal(t, health.Degraded, a.Health().State, "%v", a.Health().Usage)
	})
}

// L12 an error whose methods exit leaks a place
type exitingError struct{}

func (exitingError) Error() string { runtime.Goexit(); return "" }

func TestErrorOfAProbeThatExitsWhenLookedAtKeepsNoPlace(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{ProbeConcurrency: 1}, func(t *testing.T, reg *registry.Registry) {
		add(t, reg, provider{Name: "a", Health: health.Policy{Probe: func(context.Context) error { return exitingError{} }}})
		synctest.Wait()
		b := add(t, reg, provider{Name: "b", Health: health.Policy{Probe: func(context.Context) error { return nil }}})
		pass(time.Minute)
		require.Equal(t, health.Healthy, b.Health().State)
	})
}

func TestCheckOfAProviderThatLeavesMeanwhileSaysSo(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		of := &subject{takes: 4 * time.Second}
		a := add(t, reg, provider{Name: "a", Health: health.Policy{Probe: of.probe}})
		go func() { time.Sleep(time.Second); _ = a.Unregister(context.Background()) }()
		_, err := a.CheckHealth(t.Context())
		require.ErrorIs(t, err, registry.ErrNotRegistered)
	})
}

func TestCheckWaitsForAResultOfThePresentPolicy(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		of := &subject{takes: 4 * time.Second}
		a := add(t, reg, provider{Name: "a", Health: health.Policy{Probe: of.probe}})
		go func() { time.Sleep(time.Second); _, _ = a.SetHealth(health.Policy{Probe: of.probe}) }()
		s, err := a.CheckHealth(t.Context())
		require.NoError(t, err)
		require.Equal(t, health.Healthy, s.State, "what is known after a result")
	})
}

func TestLeaseBesideThatIsGivenUpDoesNotEndTheCall(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		for _, n := range []string{"a", "b", "c"} {
			add(t, reg, provider{Name: n})
		}
		a, err := bind(reg).Acquire(t.Context())
		require.NoError(t, err)
		b, err := a.Beside()
		require.NoError(t, err)
		b.Done(verdict.Ignore(errors.New("not needed")))
		c, err := a.MoveOn(errDown)
		require.NoError(t, err, "a second opinion that was given up does not end the call")
		c.Done(nil)
	})
}

func TestCapabilityProbesLateTogetherFlipNobody(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		var paused atomic.Bool
		probe := func(ctx context.Context) error {
			if paused.Load() {
				<-ctx.Done()
				return ctx.Err()
			}
			return nil
		}
		for i := range 20 {
			add(t, reg, provider{Name: fmt.Sprint("p", i), Capabilities: []string{"x"}, Health: health.Policy{
				Interval: 10 * time.Second, IdleInterval: 10 * time.Second, Probe: probe, Capabilities: map[string]health.Probe{"x": probe},
			}})
		}
		pass(30 * time.Second)
		paused.Store(true)
		pass(60 * time.Second)
		out, down := 0, 0
		for info := range reg.All() {
			if len(info.Health.Out) > 0 {
				out++
			}
			if info.Health.State == health.Unhealthy {
				down++
			}
		}
		paused.Store(false)
		require.LessOrEqual(t, out, down)
	})
}

func TestMonitorLosesNothingUnderStress(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{ProbeConcurrency: 4}, monitorUnderStress)
}

func monitorUnderStress(t *testing.T, reg *registry.Registry) {
	t.Helper()
	var inside sync.Map
	var done atomic.Bool
	var wg sync.WaitGroup
	mk := func(name string) health.Policy {
		probe := func(ctx context.Context) error {
			switch rand.IntN(12) {
			case 0:
				panic("x")
			case 1:
				runtime.Goexit()
			case 2:
				<-ctx.Done()
				return ctx.Err()
			case 3:
				time.Sleep(time.Duration(rand.IntN(150)) * time.Millisecond)
			case 4:
				return errDown
			}
			return nil
		}
		return health.Policy{
			Interval: 2 * time.Millisecond, Timeout: 5 * time.Millisecond, Probe: probe, Capabilities: map[string]health.Probe{"x": probe},
			Recover: func(ctx context.Context) error {
				if n, _ := inside.LoadOrStore(name, new(atomic.Int64)); n.(*atomic.Int64).Add(1) > 100 {
					panic("many")
				}
				n, _ := inside.Load(name)
				n.(*atomic.Int64).Add(-1)
				return errDown
			},
		}
	}
	for i := range 12 {
		wg.Go(func() {
			name := fmt.Sprint("p", i)
			for !done.Load() {
				time.Sleep(time.Millisecond)
				r := add(t, reg, provider{Name: name, Capabilities: []string{"x"}, Health: mk(name), Replace: true})
				for range rand.IntN(20) {
					switch rand.IntN(6) {
					case 0:
						_, _ = r.SetHealth(mk(name))
					case 1:
						_ = r.MarkUnhealthy(errDown)
					case 2:
						_ = r.MarkHealthy()
					case 3:
						ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
						_, _ = r.CheckHealth(ctx)
						cancel()
					case 4:
						ctx, cancel := context.WithTimeout(context.Background(), 5*time.Millisecond)
						_, _ = bind(reg, "x").Get(ctx)
						cancel()
						_ = reg.Health()
					case 5:
						_, _ = r.SetHealth(health.Policy{Off: true})
					}
				}
				if rand.IntN(2) == 0 {
					_ = r.Unregister(context.Background())
				}
			}
		})
	}
	pass(6 * time.Second)
	done.Store(true)
	wg.Wait()
	for i := range 12 {
		if r, ok := reg.Provider(fmt.Sprint("p", i)); ok {
			_ = r.Unregister(context.Background())
		}
	}
	pass(time.Second)
	// all four places are free again
	var in, most atomic.Int64
	hold := make(chan struct{})
	for i := range 8 {
		add(t, reg, provider{Name: fmt.Sprint("q", i), Health: health.Policy{Timeout: time.Minute, Probe: func(context.Context) error {
			if n := in.Add(1); n > most.Load() {
				most.Store(n)
			}
			<-hold
			in.Add(-1)
			return nil
		}}})
	}
	pass(300 * time.Millisecond)
	require.EqualValues(t, 4, most.Load())
	close(hold)
}

func TestProbeThatWasStuckAndReturnsIsFollowedByAnother(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{ProbeConcurrency: 1}, func(t *testing.T, reg *registry.Registry) {
		hold := make(chan struct{})
		var in, most, n atomic.Int64
		a := add(t, reg, provider{Name: "a", Health: health.Policy{Probe: func(context.Context) error {
			if x := in.Add(1); x > most.Load() {
				most.Store(x)
			}
			defer in.Add(-1)
			n.Add(1)
			<-hold
			return nil
		}}})
		b := add(t, reg, provider{Name: "b", Health: health.Policy{Probe: func(context.Context) error { return nil }}})
		pass(time.Minute)
		require.Equal(t, health.Unhealthy, a.Health().State)
		require.Equal(t, health.Healthy, b.Health().State)
		_, err := a.CheckHealth(t.Context())
		require.NoError(t, err)
		close(hold)
		synctest.Wait()
		require.True(t, a.Health().StuckSince.IsZero())
		pass(time.Minute)
		require.Equal(t, health.Healthy, a.Health().State)
		require.EqualValues(t, 1, most.Load())
	})
}

func TestShortIntervalsBesideLongOnesAreKept(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		var n atomic.Int64
		stop := make(chan struct{})
		add(t, reg, provider{Name: "a", Health: health.Policy{Interval: time.Hour, FastInterval: time.Second, Probe: func(ctx context.Context) error {
			if n.Add(1) > 5000 {
				select {
				case <-stop:
				case <-ctx.Done():
				}
			}
			return errDown
		}}})
		time.Sleep(30 * time.Second)
		close(stop)
		require.Less(t, n.Load(), int64(40))
	})
}

func TestRecoveryThatHelpedIsNotRunAgain(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		of := &subject{}
		runs := 0
		a := probed(t, reg, "a", of, health.Policy{Recover: func(context.Context) error {
			runs++
			of.say(nil)
			return nil
		}})
		of.say(errDown)
		of.next(3)
		pass(20 * time.Second)
		require.Equal(t, health.Healthy, a.Health().State)
		require.Equal(t, 1, runs, "it succeeded, every probe since has answered")
	})
}

func TestRecoveryGoesOnUnderAnotherPolicy(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		of := &subject{}
		var runs atomic.Int64
		policy := health.Policy{Probe: of.probe, Recover: func(context.Context) error { runs.Add(1); return errDown }}
		a := probed(t, reg, "a", of, policy)
		of.say(errDown)
		of.next(3)
		require.Equal(t, health.Unhealthy, a.Health().State)
		before := runs.Load()
		require.EqualValues(t, 1, before)
		policy.Interval = 20 * time.Second
		_, err := a.SetHealth(policy)
		require.NoError(t, err)
		pass(10 * time.Minute)
		require.Greater(t, runs.Load(), before)
	})
}

func TestRecoveryRunsWhenTheDependencyIsBack(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		of, db := &subject{}, &subject{}
		var runs atomic.Int64
		add(t, reg, provider{Name: "db", Capabilities: []string{"sql"}, Health: health.Policy{Probe: db.probe}})
		a := add(t, reg, provider{Name: "a", Requires: []string{"sql"}, Health: health.Policy{Probe: of.probe, Recover: func(context.Context) error { runs.Add(1); of.say(nil); return nil }}})
		synctest.Wait()
		db.say(errDown)
		db.next(3)
		of.say(errDown)
		of.next(3)
		require.Equal(t, health.Unhealthy, a.Health().State)
		require.Zero(t, runs.Load())
		db.say(nil)
		pass(30 * time.Minute)
		require.Empty(t, a.Health().Because)
		require.Equal(t, health.Healthy, a.Health().State, "runs %d", runs.Load())
	})
}

func TestRecoveryIsTriedAgainAfterAnIllnessOfADependency(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		of := &subject{}
		var runs atomic.Int64
		db := add(t, reg, provider{Name: "db", Capabilities: []string{"sql"}})
		a := add(t, reg, provider{Name: "a", Requires: []string{"sql"}, Health: health.Policy{Probe: of.probe, Recover: func(context.Context) error {
			if runs.Add(1) == 2 {
				of.say(nil)
				return nil
			}
			return errDown
		}}})
		synctest.Wait()
		of.say(errDown)
		of.next(3)
		require.EqualValues(t, 1, runs.Load())
		require.NoError(t, db.MarkUnhealthy(errDown))
		pass(5 * time.Second)
		require.NoError(t, db.MarkHealthy())
		pass(30 * time.Minute)
		require.Equal(t, health.Healthy, a.Health().State, "runs %d", runs.Load())
	})
}

func TestOneRecoveryRunsAtATimeWhateverThePolicy(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		of := &subject{}
		var in, most atomic.Int64
		policy := health.Policy{Probe: of.probe, RecoverTimeout: time.Hour, Recover: func(ctx context.Context) error {
			if n := in.Add(1); n > most.Load() {
				most.Store(n)
			}
			defer in.Add(-1)
			<-ctx.Done()
			time.Sleep(time.Minute) // rolling back takes its time
			return ctx.Err()
		}}
		a := probed(t, reg, "a", of, policy)
		require.NoError(t, a.MarkUnhealthy(errDown))
		synctest.Wait()
		_, err := a.SetHealth(policy)
		require.NoError(t, err)
		require.NoError(t, a.MarkHealthy())
		require.NoError(t, a.MarkUnhealthy(errDown))
		synctest.Wait()
		require.EqualValues(t, 1, most.Load())
		_ = a.MarkHealthy()
		require.NoError(t, a.Unregister(t.Context()))
		time.Sleep(2 * time.Minute)
	})
}

func TestOneProbeRunsAtATimeWhateverThePolicy(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		var in, most atomic.Int64
		release := make(chan struct{})
		policy := health.Policy{Probe: func(context.Context) error {
			if n := in.Add(1); n > most.Load() {
				most.Store(n)
			}
			defer in.Add(-1)
			<-release
			return nil
		}}
		a := add(t, reg, provider{Name: "a", Health: policy})
		pass(time.Minute)
		require.False(t, a.Health().StuckSince.IsZero())
		for range 10 {
			_, err := a.SetHealth(policy)
			require.NoError(t, err)
			synctest.Wait()
		}
		n := most.Load()
		close(release)
		synctest.Wait()
		require.EqualValues(t, 1, n, "a stuck probe stays the only one of its provider")
	})
}

func TestCapabilityStaysOutUnderAnotherPolicy(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		policy := health.Policy{Capabilities: map[string]health.Probe{"vision": func(ctx context.Context) error {
			time.Sleep(time.Second)
			return errDown
		}}}
		a := add(t, reg, provider{Name: "a", Capabilities: []string{"vision"}, Health: policy})
		pass(2 * time.Second)
		_, err := ask(t.Context(), bind(reg, "vision"))
		require.Error(t, err)
		policy.Interval = 10 * time.Second
		_, err = a.SetHealth(policy)
		require.NoError(t, err)
		_, err = ask(t.Context(), bind(reg, "vision"))
		require.Error(t, err, "the provider stays as it is until the new policy's first result")
	})
}

func TestScoreStaysUnderAnotherPolicy(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		of := &subject{}
		a := probed(t, reg, "a", of, health.Policy{})
		of.say(health.Limp(errDown))
		of.next(1)
		s := a.Health()
		require.Equal(t, health.Degraded, s.State)
		of.take(time.Second)
		_, err := a.SetHealth(health.Policy{Probe: of.probe})
		require.NoError(t, err)
		s2 := a.Health()
		require.InDelta(t, s.Score, s2.Score, 0.01)
	})
}

func TestCauseStaysUnderAnotherPolicy(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		of := &subject{}
		of2 := add(t, reg, provider{Name: "db", Capabilities: []string{"sql"}})
		a := add(t, reg, provider{Name: "a", Requires: []string{"sql"}, Health: health.Policy{Probe: of.probe}})
		synctest.Wait()
		_ = of2.MarkUnhealthy(errDown)
		of.say(errDown)
		of.next(3)
		require.ErrorIs(t, a.Health().Err, errDown)
		of.take(time.Second)
		_, err := a.SetHealth(health.Policy{Probe: of.probe})
		require.NoError(t, err)
		require.ErrorIs(t, a.Health().Err, errDown)
	})
}

func TestRootOfADiamondIsTheReason(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		down := func(context.Context) error { return errDown }
		for _, p := range []provider{
			{Name: "db", Capabilities: []string{"z"}},
			{Name: "left", Capabilities: []string{"x"}, Requires: []string{"z"}},
			{Name: "right", Capabilities: []string{"y"}, Requires: []string{"z"}},
			{Name: "app", Requires: []string{"x", "y"}},
		} {
			p.Health = health.Policy{Probe: down, Fall: 1}
			add(t, reg, p)
		}
		synctest.Wait()
		app, _ := reg.Provider("app")
		require.Equal(t, []string{"db"}, app.Health().Because)
	})
}

func TestCapabilityThatIsOutIsAReason(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		down := func(context.Context) error { return errDown }
		var runs atomic.Int64
		add(t, reg, provider{Name: "db", Capabilities: []string{"sql"}, Health: health.Policy{Capabilities: map[string]health.Probe{"sql": down}}})
		synctest.Wait()
		a := add(t, reg, provider{Name: "app", Requires: []string{"sql"}, Health: health.Policy{Probe: down, Fall: 1, Recover: func(context.Context) error { runs.Add(1); return errDown }}})
		synctest.Wait()
		require.Equal(t, health.Unhealthy, a.Health().State)
		require.NotEmpty(t, a.Health().Because)
	})
}

// checker is an instance whose life is watched.
type checker struct{ _ [1 << 16]byte }

func (c *checker) Chat(context.Context, string) (string, error) { return "", nil }

func (c *checker) CheckHealth(context.Context) error { return nil }

func TestInstanceThatWasProbedIsNotKeptAlive(t *testing.T) {
	t.Parallel()
	reg := newRegistry(t, registry.Options{})
	defer func() { require.NoError(t, reg.Close(context.Background())) }()
	w := func() weak.Pointer[checker] {
		c := &checker{}
		r := add(t, reg, provider{Name: "a", Instance: c})
		_, err := r.CheckHealth(t.Context())
		require.NoError(t, err)
		require.NoError(t, r.Unregister(t.Context()))
		return weak.Make(c)
	}()
	for deadline := time.Now().Add(10 * time.Second); w.Value() != nil && time.Now().Before(deadline); runtime.GC() {
		time.Sleep(time.Millisecond) // a goroutine may be ending
	}
	require.Nil(t, w.Value(), "nothing in the registry keeps an unregistered instance alive")
}

func TestInstanceThatWasProbedIsNotKeptAliveByItsHandle(t *testing.T) {
	t.Parallel()
	reg := newRegistry(t, registry.Options{})
	defer func() { require.NoError(t, reg.Close(context.Background())) }()
	var r *registry.Registration
	w := func() weak.Pointer[checker] {
		c := &checker{}
		r = add(t, reg, provider{Name: "a", Instance: c})
		_, err := r.CheckHealth(t.Context())
		require.NoError(t, err)
		require.NoError(t, r.Unregister(t.Context()))
		return weak.Make(c)
	}()
	for deadline := time.Now().Add(10 * time.Second); w.Value() != nil && time.Now().Before(deadline); runtime.GC() {
		time.Sleep(time.Millisecond) // a goroutine may be ending
	}
	require.Nil(t, w.Value(), "released")
	runtime.KeepAlive(r)
}

func TestGroupsHoldForProvidersWithoutAProbe(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a := add(t, reg, provider{Name: "a", Health: health.Policy{Groups: []string{"payments"}}})
		require.NoError(t, a.MarkUnhealthy(errDown))
		require.Equal(t, health.Unhealthy, reg.Health("payments").State)
	})
}

func TestServiceWithoutMocksIsNotHealthyWhereOnlyMocksArePicked(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{OnlyMocks: true, Required: []string{"chat"}}, func(t *testing.T, reg *registry.Registry) {
		add(t, reg, provider{Name: "a"})
		_, err := ask(t.Context(), bind(reg))
		require.Error(t, err)
		require.NotEqual(t, health.Healthy, reg.Health().State)
	})
}

func TestOverallHealthSeesNoGapWhileAProviderIsReplaced(t *testing.T) {
	t.Parallel()
	reg := newRegistry(t, registry.Options{Required: []string{"chat"}})
	defer func() { require.NoError(t, reg.Close(context.Background())) }()
	add(t, reg, provider{Name: "a"})
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-done:
				return
			default:
				add(t, reg, provider{Name: "a", Replace: true})
			}
		}
	})
	bad := ""
	for end := time.Now().Add(2 * time.Second); time.Now().Before(end) && bad == ""; {
		if o := reg.Health(); o.State != health.Healthy {
			bad = fmt.Sprintf("%+v", o)
		}
	}
	close(done)
	wg.Wait()
	require.Empty(t, bad)
}

func TestRecoverLimitHoldsForWhatTheProgramSays(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		of := &subject{}
		var runs atomic.Int64
		a := probed(t, reg, "a", of, health.Policy{Interval: 10 * time.Second, Recover: func(context.Context) error { runs.Add(1); time.Sleep(25 * time.Second); return errDown }})
		require.NoError(t, a.MarkUnhealthy(errDown))
		pass(time.Hour)
		require.LessOrEqual(t, runs.Load(), int64(5))
	})
}

func TestIdleProvidersThatBeginTogetherAreSpread(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{ProbeConcurrency: 1000}, func(t *testing.T, reg *registry.Registry) {
		var mu sync.Mutex
		at := map[int]int{}
		began := time.Now()
		for i := range 600 {
			first := true
			add(t, reg, provider{Name: fmt.Sprint("p", i), Health: health.Policy{Probe: func(context.Context) error {
				mu.Lock()
				defer mu.Unlock()
				if first {
					first = false
					return nil
				}
				at[int(time.Since(began)/time.Second)]++
				return nil
			}}})
		}
		time.Sleep(68 * time.Second)
		mu.Lock()
		defer mu.Unlock()
		most, sum := 0, 0
		for _, n := range at {
			most = max(most, n)
			sum += n
		}
		require.Less(t, most, 60, "600 probes within 60 s: 10 a second when spread")
	})
}

func TestLeaseWithTheLongestTimeoutDoesNotExpireAtOnce(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		add(t, reg, provider{Name: "a"})
		l, err := bind(reg).Acquire(t.Context(), registry.AttemptTimeout(registry.NoTimeout-1))
		require.NoError(t, err)
		synctest.Wait()
		require.NotEqual(t, verdict.ClassIgnored, l.Done(nil))
	})
}

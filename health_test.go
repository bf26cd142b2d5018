package registry_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/event"
	"github.com/capreg/registry/health"
)

// subject is something to probe: it answers what it is told to, and notes when.
type subject struct {
	mu     sync.Mutex
	err    error
	takes  time.Duration
	probed []time.Time
	inside int
	most   int
}

func (p *subject) probe(ctx context.Context) error {
	p.mu.Lock()
	p.probed = append(p.probed, time.Now())
	p.inside++
	p.most = max(p.most, p.inside)
	takes := p.takes
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.inside--
	}()
	if takes > 0 {
		select {
		case <-time.After(takes):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.err
}

func (p *subject) say(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.err = err
}

func (p *subject) take(d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.takes = d
}

func (p *subject) times() []time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.probed)
}

// probed registers a provider with the subject's probe and waits for its result.
func probed(tb testing.TB, reg *registry.Registry, name string, of *subject, policy health.Policy) *registry.Registration {
	tb.Helper()
	policy.Probe = of.probe
	registration := add(tb, reg, provider{Name: name, Health: policy})
	synctest.Wait()
	return registration
}

// next lets time go by until the subject has been probed n more times.
func (p *subject) next(n int) {
	for want := len(p.times()) + n; len(p.times()) < want; {
		pass(50 * time.Millisecond)
	}
	synctest.Wait()
}

func TestProviderWithoutAProbeIsHealthy(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a := add(t, reg, provider{Name: "a"})
		status := a.Health()
		require.Equal(t, health.Healthy, status.State)
		require.InDelta(t, 1, status.Score, 0)
		require.False(t, status.Probed)
		require.Equal(t, []string{health.Readiness}, status.Groups)
		require.Empty(t, a.HealthHistory())
	})
}

func TestProbeThatErrsPanicsOrExitsMakesUnhealthyAfterThreeInARowAndTwoAnswersHealthy(t *testing.T) {
	t.Parallel()
	for name, bad := range map[string]func() error{
		"errs":   func() error { return errDown },
		"panics": func() error { panic("probe") },
		"exits":  func() error { runtime.Goexit(); return nil },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
				var failing atomic.Bool
				var probes atomic.Int32
				events := reg.Subscribe(0)
				defer events.Close()
				a := add(t, reg, provider{Name: "a", Health: health.Policy{Probe: func(context.Context) error {
					probes.Add(1)
					if failing.Load() {
						return bad()
					}
					return nil
				}}})
				step := func() health.Status {
					for before := probes.Load(); probes.Load() == before; {
						pass(time.Second)
					}
					return a.Health()
				}
				synctest.Wait()
				require.Equal(t, health.Healthy, a.Health().State, "the first success of all is enough")
				failing.Store(true)
				for want := 1; want <= 2; want++ {
					status := step()
					require.Equal(t, health.Degraded, status.State)
					require.Equal(t, want, status.Failures)
					require.Equal(t, "a", got(t, bind(reg)), "it can still be picked")
				}
				require.Equal(t, health.Unhealthy, step().State)
				_, err := bind(reg).Get(t.Context())
				require.ErrorIs(t, err, registry.ErrUnhealthy)
				requireOneLine(t, err)
				failing.Store(false)
				require.Equal(t, health.Unhealthy, step().State)
				require.Equal(t, health.Healthy, step().State)
				require.Equal(t, "a", got(t, bind(reg)))
				var states []string
				for _, change := range a.HealthHistory() {
					states = append(states, change.To.String())
				}
				require.Equal(t, []string{"healthy", "degraded", "unhealthy", "healthy"}, states)
				require.Equal(t, []event.Kind{event.Healthy, event.Degraded, event.Unhealthy, event.Healthy},
					slices.DeleteFunc(kinds(t, events), func(k event.Kind) bool { return k == event.Trend || k == event.Registered }))
			})
		})
	}
}

func TestSuccessInBetweenStartsTheFailuresOver(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		var p subject
		a := probed(t, reg, "a", &p, health.Policy{})
		for range 10 {
			p.say(errDown)
			p.next(2)
			p.say(nil)
			p.next(1)
			require.Equal(t, health.Degraded, a.Health().State)
			require.Zero(t, a.Health().Failures)
		}
		p.next(1)
		require.Equal(t, health.Healthy, a.Health().State)
	})
}

func TestProbesNeitherMoveTheBreakerNorDoCallsMoveHealth(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		var p subject
		a := add(t, reg, provider{Name: "a", Instance: fails(errDown), Health: health.Policy{Probe: p.probe}})
		synctest.Wait()
		trip(t, bind(reg), a)
		require.Equal(t, health.Healthy, a.Health().State)
		p.say(errDown)
		p.next(5)
		require.Equal(t, health.Unhealthy, a.Health().State)
		require.NoError(t, a.Reset())
		p.next(5)
		require.Equal(t, registry.BreakerClosed, a.Breaker().State)
		require.Zero(t, a.Breaker().ConsecutiveFailures)
	})
}

func TestProviderIsPickedFromItsFirstAnswerOn(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		p := subject{err: errDown}
		a := probed(t, reg, "a", &p, health.Policy{Fall: 10})
		require.Equal(t, health.Starting, a.Health().State)
		_, err := bind(reg).Get(t.Context())
		require.ErrorIs(t, err, registry.ErrNotReady)
		require.ErrorIs(t, err, errDown)
		require.NotErrorIs(t, err, registry.ErrUnhealthy)
		var unavailable *registry.UnavailableError
		require.ErrorAs(t, err, &unavailable)
		require.InDelta(t, 5, unavailable.RetryIn.Seconds(), 1, "the next probe")
		require.Equal(t, "starting", unavailable.Candidates[0].Code)
		p.say(nil)
		p.next(1)
		require.Equal(t, "a", got(t, bind(reg)))
	})
}

func TestProviderThatStartsMayFailForItsStartTime(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		p := subject{err: errDown}
		a := probed(t, reg, "a", &p, health.Policy{StartTime: time.Minute})
		p.next(8)
		require.Equal(t, health.Starting, a.Health().State)
		pass(time.Minute)
		require.Equal(t, health.Unhealthy, a.Health().State)
		p.say(nil)
		p.next(1)
		require.Equal(t, health.Unhealthy, a.Health().State, "two answers, now")
		p.next(1)
		require.Equal(t, health.Healthy, a.Health().State)
	})
}

func TestLookUpThatHasOnlyUnknownCandidatesWaitsForTheFirstResult(t *testing.T) {
	t.Parallel()
	lookUps := map[string]func(context.Context, *registry.Resolver[chatModel]) error{
		"get":  func(ctx context.Context, r *registry.Resolver[chatModel]) error { _, err := r.Get(ctx); return err },
		"many": func(ctx context.Context, r *registry.Resolver[chatModel]) error { _, err := r.Many(ctx, 0); return err },
		"call": func(ctx context.Context, r *registry.Resolver[chatModel]) error { _, err := ask(ctx, r); return err },
		"acquire": func(ctx context.Context, r *registry.Resolver[chatModel]) error {
			lease, err := r.Acquire(ctx)
			if err == nil {
				lease.Done(nil)
			}
			return err
		},
		"acquire many": func(ctx context.Context, r *registry.Resolver[chatModel]) error {
			leases, err := r.AcquireMany(ctx, 0)
			for _, lease := range leases {
				lease.Done(nil)
			}
			return err
		},
	}
	for name, lookUp := range lookUps {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
				slow, hanging := subject{takes: 2 * time.Second}, subject{takes: time.Hour}
				add(t, reg, provider{Name: "hanging", Health: health.Policy{Probe: hanging.probe}})
				a := add(t, reg, provider{Name: "a", Health: health.Policy{Probe: slow.probe}})
				began := time.Now()
				require.NoError(t, lookUp(t.Context(), bind(reg)))
				require.Equal(t, 2*time.Second, time.Since(began))

				require.NoError(t, a.Unregister(t.Context()))
				began = time.Now()
				err := lookUp(t.Context(), bind(reg))
				require.ErrorIs(t, err, registry.ErrNotReady)
				require.Equal(t, 3*time.Second, time.Since(began), "the rest of the probe's five seconds")
				began = time.Now()
				require.ErrorIs(t, lookUp(t.Context(), bind(reg)), registry.ErrNotReady)
				require.Zero(t, time.Since(began), "only the first result is waited for")

				add(t, reg, provider{Name: "b", Health: health.Policy{Probe: hanging.probe}})
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				require.Error(t, lookUp(ctx, bind(reg)))
				require.Equal(t, time.Second, time.Since(began), "and within the context")

				add(t, reg, provider{Name: "ready"})
				began = time.Now()
				require.NoError(t, lookUp(t.Context(), bind(reg)))
				require.Zero(t, time.Since(began), "no other look-up waits")
			})
		})
	}
}

func TestProbeThatHangsIsCancelledCountsAsFailedAndStaysTheOnlyOne(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{ProbeConcurrency: 1}, func(t *testing.T, reg *registry.Registry) {
		var inside atomic.Int32
		release := make(chan struct{})
		var deaf atomic.Bool
		cause := make(chan error, 1)
		a := add(t, reg, provider{Name: "a", Health: health.Policy{Probe: func(ctx context.Context) error {
			if !deaf.Load() {
				return nil
			}
			inside.Add(1)
			<-ctx.Done()
			cause <- ctx.Err()
			<-release
			return nil
		}}})
		var other subject
		b := probed(t, reg, "b", &other, health.Policy{})
		synctest.Wait() // the first probes
		events := reg.Subscribe(0)
		defer events.Close()
		deaf.Store(true)
		began := time.Now()
		require.ErrorIs(t, <-cause, context.DeadlineExceeded)
		since := time.Now().Add(-5 * time.Second)
		pass(time.Second)
		status := a.Health()
		require.Equal(t, since, status.StuckSince)
		require.Equal(t, 1, status.Failures)
		require.Contains(t, status.Reason, "does not return")
		require.Contains(t, kinds(t, events), event.ProbeStuck)

		lookUps := 0
		for time.Since(began) < 10*time.Minute {
			pass(10 * time.Second)
			_ = got(t, bind(reg))
			lookUps++
		}
		require.Equal(t, health.Unhealthy, a.Health().State, "each time that one would have been due counts")
		require.Equal(t, int32(1), inside.Load(), "one at a time, ever")
		require.Greater(t, len(other.times()), 8, "its place was free for others")
		require.Equal(t, health.Healthy, b.Health().State)

		deaf.Store(false)
		close(release)
		pass(15 * time.Second)
		require.True(t, a.Health().StuckSince.IsZero())
		require.Equal(t, health.Healthy, a.Health().State)
	})
}

func TestProbesKeepTheirDistanceWhateverIsLookedUp(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		p := subject{takes: time.Second}
		probed(t, reg, "a", &p, health.Policy{IdleInterval: 30 * time.Second})
		pass(2 * time.Second)
		for range 1000 {
			_ = got(t, bind(reg))
			pass(600 * time.Millisecond)
		}
		times := p.times()
		require.InDelta(t, 600/31, len(times), 3)
		for i := 2; i < len(times); i++ {
			require.InDelta(t, 31, times[i].Sub(times[i-1]).Seconds(), 3.1, "an interval from the end of the last, within a tenth")
		}
	})
}

func TestProbesThatBeginTogetherDoNotStayTogether(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{ProbeConcurrency: 1000}, func(t *testing.T, reg *registry.Registry) {
		began := time.Now()
		subjects := make([]subject, 300)
		for i := range subjects {
			add(t, reg, provider{Name: strconv.Itoa(i), Health: health.Policy{Probe: subjects[i].probe, IdleInterval: 30 * time.Second}})
		}
		pass(5 * time.Minute)
		inSecond := make(map[int]int)
		for i := range subjects {
			for _, at := range subjects[i].times()[1:] {
				inSecond[int(at.Sub(began)/time.Second)]++
			}
		}
		for second, n := range inSecond {
			require.Less(t, n, 60, "in second %d; ten is even, 300 is together", second)
		}
	})
}

func TestNoMoreProbesThanAllowedRunAtOnceAndWaitingOnesHaveNoGoroutine(t *testing.T) { //nolint:paralleltest // it counts the goroutines of the process
	bubble(t, registry.Options{ProbeConcurrency: 3}, func(t *testing.T, reg *registry.Registry) {
		p := subject{takes: time.Second}
		before := runtime.NumGoroutine()
		for i := range 60 {
			add(t, reg, provider{Name: strconv.Itoa(i), Health: health.Policy{Probe: p.probe}})
		}
		synctest.Wait()
		require.LessOrEqual(t, runtime.NumGoroutine(), before+20)
		pass(21 * time.Second)
		require.Equal(t, 3, p.most)
		require.GreaterOrEqual(t, len(p.times()), 60)
	})
}

func TestProbesComeFasterWhileUnwellAndSlowerWhileIdle(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		distance := func(p *subject) float64 {
			p.next(2)
			times := p.times()
			return times[len(times)-1].Sub(times[len(times)-2]).Seconds()
		}
		starting := subject{err: errDown}
		probed(t, reg, "starting", &starting, health.Policy{Fall: 100})
		require.InDelta(t, 5, distance(&starting), 0.6)
		starting.say(nil)
		starting.next(1)

		var p subject
		a := probed(t, reg, "a", &p, health.Policy{})
		p.next(1)
		require.InDelta(t, 60, distance(&p), 6.5, "no call since the last probe")
		p.say(errDown)
		p.next(1)
		require.InDelta(t, 5, distance(&p), 0.6, "it fails")
		p.next(5)
		require.Equal(t, health.Unhealthy, a.Health().State)
		require.InDelta(t, 5, distance(&p), 0.6, "it is unhealthy")
	})
}

func TestCallsStandInForProbesOnlyWhenAskedForAndForSoManyInARow(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		var trusting, asking subject
		probed(t, reg, "a", &trusting, health.Policy{TrustCalls: true})
		for range 600 {
			_ = asked(t, bind(reg))
			pass(time.Second)
		}
		n := len(trusting.times())
		require.InDelta(t, 600/(6*30), n, 2, "every sixth")
		reg2 := newRegistry(t, registry.Options{})
		probed(t, reg2, "a", &asking, health.Policy{})
		for range 600 {
			_ = asked(t, bind(reg2))
			pass(time.Second)
		}
		require.InDelta(t, 600/30, len(asking.times()), 3)
		require.NoError(t, reg2.Close(t.Context()))
	})
}

func TestCallsThatAnswerDoNotRaiseAProviderAndFailuresLetTheProbeCome(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		var p subject
		var failing atomic.Bool
		a := add(t, reg, provider{Name: "a", Breaker: registry.BreakerPolicy{FailureThreshold: 1000}, Health: health.Policy{Probe: p.probe, TrustCalls: true}, Instance: answers(func() (string, error) {
			if failing.Load() {
				return "", errDown
			}
			return "a", nil
		})})
		synctest.Wait()
		failing.Store(true)
		for range 180 {
			_, _ = ask(t.Context(), bind(reg))
			pass(time.Second)
		}
		require.Greater(t, len(p.times()), 2)
		lease, err := bind(reg).Acquire(t.Context())
		require.NoError(t, err)
		p.say(errDown)
		p.next(3)
		require.Equal(t, health.Unhealthy, a.Health().State)
		lease.Done(nil)
		require.Equal(t, health.Unhealthy, a.Health().State, "a success is no rise")
	})
}

func TestProgramCanSayThatAProviderIsUnwellWhateverItsProbeSays(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		var p subject
		a := probed(t, reg, "a", &p, health.Policy{})
		require.NoError(t, a.MarkUnhealthy(errDown))
		p.next(5)
		require.Equal(t, health.Unhealthy, a.Health().State)
		require.Equal(t, "down", a.Health().Reason)
		require.ErrorIs(t, a.Health().Err, errDown)
		require.Zero(t, a.Health().Score)
		require.NoError(t, a.MarkHealthy())
		require.Equal(t, health.Healthy, a.Health().State)
		p.say(errDown)
		p.next(3)
		require.Equal(t, health.Unhealthy, a.Health().State)
		require.NoError(t, a.MarkHealthy())
		require.Equal(t, health.Healthy, a.Health().State, "the program knows better")
		p.next(2)
		require.Equal(t, health.Degraded, a.Health().State)
		p.next(1)
		require.Equal(t, health.Unhealthy, a.Health().State, "failures afterwards count from the beginning")
	})
}

func TestProvidersCanBeCheckedOnDemand(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{ProbeConcurrency: 2}, func(t *testing.T, reg *registry.Registry) {
		subjects := make([]subject, 10)
		var all []*registry.Registration
		for i := range subjects {
			all = append(all, probed(t, reg, strconv.Itoa(i), &subjects[i], health.Policy{}))
		}
		none := add(t, reg, provider{Name: "none"})
		for i := range subjects {
			subjects[i].take(time.Second)
			subjects[i].say(errDown)
		}
		began := time.Now()
		overall, err := reg.CheckHealth(t.Context())
		require.NoError(t, err)
		require.Equal(t, 5*time.Second, time.Since(began), "two at a time")
		require.Equal(t, health.Degraded, overall.State)
		for i := range subjects {
			require.Equal(t, 1, all[i].Health().Failures)
			require.Equal(t, errDown, all[i].Health().Err)
		}

		var group sync.WaitGroup
		probes := len(subjects[0].times())
		for range 5 {
			group.Go(func() {
				status, err := all[0].CheckHealth(t.Context())
				require.NoError(t, err)
				require.Equal(t, 2, status.Failures)
			})
		}
		group.Wait()
		require.Len(t, subjects[0].times(), probes+1, "all wait for the same probe")

		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		_, err = all[0].CheckHealth(ctx)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		status, err := none.CheckHealth(t.Context())
		require.NoError(t, err)
		require.Equal(t, health.Healthy, status.State)
		require.NoError(t, none.Unregister(t.Context()))
		status, err = none.CheckHealth(t.Context())
		require.ErrorIs(t, err, registry.ErrNotRegistered)
		require.Equal(t, health.Draining, status.State)
	})
}

// checkedModel is an instance that can be asked how it is.
type checkedModel struct {
	chatModel
	*subject
}

func (c checkedModel) CheckHealth(ctx context.Context) error { return c.probe(ctx) }

func TestInstanceThatCanBeAskedIsProbed(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		var p subject
		model := checkedModel{says("a"), &p}
		a := add(t, reg, provider{Name: "a", Instance: model})
		synctest.Wait()
		require.Len(t, p.times(), 1)
		require.True(t, a.Health().Probed)
		off := add(t, reg, provider{Name: "off", Instance: model, Health: health.Policy{Off: true}})
		require.False(t, off.Health().Probed)
		byName, err := reg.Register(t.Context(), "chat", registry.Provider[any]{Name: "dynamic", Instance: model})
		require.NoError(t, err)
		synctest.Wait()
		require.Len(t, p.times(), 2)
		require.True(t, byName.Health().Probed)
	})
}

func TestInstanceOfAFactoryIsProbedFromWhenItIsMade(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		var p subject
		a := add(t, reg, provider{Name: "a", Factory: func(context.Context) (chatModel, error) {
			return checkedModel{says("a"), &p}, nil
		}})
		pass(time.Hour)
		require.Equal(t, health.Healthy, a.Health().State)
		require.Empty(t, p.times(), "there is nothing to ask")
		require.Equal(t, "a", got(t, bind(reg)))
		synctest.Wait()
		require.Len(t, p.times(), 1)
		p.say(errDown)
		p.next(3)
		require.Equal(t, health.Unhealthy, a.Health().State)
	})
}

func TestCapabilityCanBeOutWhileTheProviderStaysIn(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		var whole, vision subject
		a := add(t, reg, provider{Name: "a", Capabilities: []string{"chat", "vision"}, Health: health.Policy{
			Probe: whole.probe, Capabilities: map[string]health.Probe{"vision": vision.probe},
		}})
		synctest.Wait()
		events := reg.Subscribe(0)
		defer events.Close()
		require.Equal(t, "a", got(t, bind(reg, "vision")))
		vision.say(errDown)
		vision.next(2)
		require.Equal(t, "a", got(t, bind(reg, "vision")), "two failures")
		vision.next(1)
		_, err := bind(reg, "vision").Get(t.Context())
		require.ErrorIs(t, err, registry.ErrUnhealthy)
		require.ErrorIs(t, err, errDown)
		require.Contains(t, err.Error(), `capability "vision" is unhealthy: down`)
		explanation := bind(reg, "vision").Explain()
		require.Equal(t, "capability_out", explanation.Candidates[0].Code)
		require.Equal(t, "a", got(t, bind(reg, "chat")))
		require.Equal(t, map[string]string{"vision": "down"}, a.Health().Out)
		require.Equal(t, health.Degraded, a.Health().State)
		require.Zero(t, a.Health().Score, "all that was checked is out")

		vision.say(nil)
		vision.next(2)
		require.Equal(t, "a", got(t, bind(reg, "vision")))
		whole.next(2)
		require.Equal(t, health.Healthy, a.Health().State)
		seen := kinds(t, events)
		require.Contains(t, seen, event.CapabilityOut)
		require.Contains(t, seen, event.CapabilityBack)
	})
}

func TestCapabilityThatFailsItsFirstProbeIsOutAtOnce(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		vision := subject{err: errDown}
		a := add(t, reg, provider{Name: "a", Capabilities: []string{"vision"}, Health: health.Policy{
			Capabilities: map[string]health.Probe{"vision": vision.probe},
		}})
		synctest.Wait()
		_, err := bind(reg, "vision").Get(t.Context())
		require.ErrorIs(t, err, registry.ErrUnhealthy)
		require.Equal(t, "a", got(t, bind(reg)))
		vision.say(nil)
		vision.next(2)
		require.Equal(t, "a", got(t, bind(reg, "vision")))
		require.Equal(t, health.Healthy, a.Health().State)
	})
}

func TestSlowLimpingOrLoadedProviderIsDegradedAndGoesOn(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		var p subject
		var share atomic.Int32
		a := add(t, reg, provider{Name: "a", Health: health.Policy{
			Expected: 100 * time.Millisecond,
			Probe: func(ctx context.Context) error {
				health.Use(ctx, "gpu memory", float64(share.Load())/100)
				return p.probe(ctx)
			},
		}})
		synctest.Wait()
		require.Equal(t, map[string]float64{"gpu memory": 0}, a.Health().Usage)
		well := func() {
			p.next(2)
			require.Equal(t, health.Healthy, a.Health().State)
			require.Empty(t, a.Health().Reason)
		}
		p.take(150 * time.Millisecond)
		p.next(1)
		pass(time.Second)
		require.Equal(t, health.Healthy, a.Health().State)
		require.InDelta(t, 0.8, a.Health().Score, 1e-9)
		p.take(160 * time.Millisecond)
		p.next(1)
		pass(time.Second)
		require.Equal(t, health.Degraded, a.Health().State)
		require.Equal(t, "answered in 160ms, expected 100ms", a.Health().Reason)
		require.Equal(t, "a", got(t, bind(reg)))
		p.take(0)
		well()
		share.Store(95)
		p.next(1)
		require.Equal(t, health.Degraded, a.Health().State)
		require.Equal(t, "95 % of gpu memory in use", a.Health().Reason)
		share.Store(50)
		well()
		p.say(health.Limp(errDown))
		p.next(5)
		require.Equal(t, health.Degraded, a.Health().State)
		require.Equal(t, "down", a.Health().Reason)
		require.ErrorIs(t, a.Health().Err, errDown)
		require.Zero(t, a.Health().Failures)
		p.say(nil)
		well()
	})
}

func TestTrendIsToldBeforeTheProviderFailsAndEjectsNobody(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		var p subject
		p.take(10 * time.Millisecond)
		a := probed(t, reg, "a", &p, health.Policy{Interval: time.Second, IdleInterval: time.Second, Timeout: time.Second})
		events := reg.Subscribe(1024)
		defer events.Close()
		random := rand.New(rand.NewPCG(1, 2))
		for range 200 {
			p.take(time.Duration(10e6 * (0.8 + 0.4*random.Float64())))
			p.next(1)
		}
		require.Equal(t, health.Steady, a.Health().Trend)
		probes := 0
		for factor := 1.0; factor < 90; factor *= 1.06 { // towards the timeout
			p.take(time.Duration(factor * 10e6))
			p.next(1)
			if a.Health().Trend == health.Steady {
				probes++
			}
			require.Equal(t, health.Healthy, a.Health().State)
			require.Equal(t, "a", got(t, bind(reg)))
		}
		pass(2 * time.Second)
		require.Less(t, probes, 40, "of 77")
		require.Equal(t, health.AtRisk, a.Health().Trend)
		var trends []string
		for _, e := range drained(t, events) {
			if e.Kind == event.Trend {
				trends = append(trends, e.To)
			}
		}
		require.Equal(t, "at risk", trends[len(trends)-1])
		require.Equal(t, health.AtRisk, a.Info().Health.Trend)
	})
}

func TestUnhealthyProviderNamesTheDependencyThatIsTheReason(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		var disk, db, app subject
		register := func(name, provides string, needs []string, p *subject) *registry.Registration {
			return add(t, reg, provider{Name: name, Capabilities: []string{provides}, Requires: needs, Health: health.Policy{Probe: p.probe}})
		}
		register("disk", "storage", nil, &disk)
		database := register("db", "sql", []string{"storage"}, &db)
		a := register("app", "chat", []string{"sql", "mail"}, &app)
		synctest.Wait()
		for _, p := range []*subject{&disk, &db, &app} {
			p.say(errDown)
		}
		for range 3 {
			_, err := reg.CheckHealth(t.Context())
			require.NoError(t, err)
		}
		require.Equal(t, []string{"disk"}, database.Health().Because)
		require.Equal(t, []string{"disk", `no provider has "mail"`}, a.Health().Because)
		_, err := bind(reg, "chat").Get(t.Context())
		require.ErrorContains(t, err, "because disk")
		disk.say(nil)
		disk.next(2)
		require.Empty(t, database.Health().Because, "now it is itself to blame")
		require.Equal(t, []string{"db", `no provider has "mail"`}, a.Health().Because)
	})
}

func TestDependenciesInACircleAreNoTrap(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		for _, name := range []string{"a", "b", "c"} {
			next := map[string]string{"a": "b", "b": "c", "c": "a"}[name]
			require.NoError(t, add(t, reg, provider{Name: name, Capabilities: []string{name}, Requires: []string{next}}).MarkUnhealthy(errDown))
		}
		a, _ := reg.Provider("a")
		require.Equal(t, []string{"c"}, a.Health().Because, "the last one that is not a itself")
	})
}

func TestResultOfAnOlderGenerationIsNeverSeen(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		release := make(chan struct{})
		ended := make(chan error, 1)
		old := add(t, reg, provider{Name: "a", Health: health.Policy{Fall: 1, Probe: func(ctx context.Context) error {
			<-ctx.Done()
			ended <- context.Cause(ctx)
			<-release
			return errDown
		}}})
		synctest.Wait()
		require.NoError(t, old.Unregister(t.Context()))
		require.ErrorIs(t, <-ended, registry.ErrClosed, "removing a provider ends its probe")
		a := add(t, reg, provider{Name: "a"})
		var p subject
		b := probed(t, reg, "b", &p, health.Policy{})
		close(release)
		pass(time.Minute)
		require.Equal(t, health.Healthy, a.Health().State)
		require.Equal(t, health.Draining, old.Health().State)
		require.Equal(t, health.Healthy, b.Health().State)

		replaced := make(chan struct{})
		add(t, reg, provider{Name: "b", Replace: true, Health: health.Policy{Fall: 1, Probe: func(ctx context.Context) error {
			<-replaced
			return errDown
		}}})
		again := add(t, reg, provider{Name: "b", Replace: true})
		close(replaced)
		pass(time.Minute)
		require.Equal(t, health.Healthy, again.Health().State)
	})
}

func TestRecoveryHookRunsOneAtATimeWithDelaysAndALimit(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		var p subject
		var runs []time.Time
		var inside atomic.Int32
		failing := true
		policy := health.Policy{Interval: time.Hour, FastInterval: time.Hour, Fall: 1, Rise: 1, RecoverLimit: 4, Recover: func(context.Context) error {
			require.Equal(t, int32(1), inside.Add(1))
			defer inside.Add(-1)
			runs = append(runs, time.Now())
			time.Sleep(100 * time.Millisecond)
			if failing {
				panic("cannot")
			}
			p.say(nil)
			return nil
		}}
		a := probed(t, reg, "a", &p, policy)
		events := reg.Subscribe(0)
		defer events.Close()
		ill := func() {
			p.say(errDown)
			runs = nil
			_, err := a.CheckHealth(t.Context())
			require.NoError(t, err)
			require.Equal(t, health.Unhealthy, a.Health().State)
		}
		ill()
		pass(10 * time.Minute)
		require.Len(t, runs, 4, "no more than the limit")
		for i := 1; i < len(runs); i++ {
			grown := float64(int(1) << (i - 1))
			require.InDelta(t, grown, runs[i].Sub(runs[i-1]).Seconds(), 0.5*grown+0.2)
		}
		require.NoError(t, a.MarkHealthy())
		failing = false
		ill()
		pass(200 * time.Millisecond)
		require.Equal(t, health.Healthy, a.Health().State, "its success is followed by a probe")
		require.Len(t, runs, 1)
		seen := kinds(t, events)
		require.Contains(t, seen, event.RecoveryFailed)
		require.Contains(t, seen, event.Recovered)
	})
}

func TestRecoveryHookDoesNotRunForTheIllnessOfADependency(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		db := add(t, reg, provider{Name: "db", Capabilities: []string{"sql"}})
		var runs atomic.Int32
		a := add(t, reg, provider{Name: "a", Requires: []string{"sql"}, Health: health.Policy{Recover: func(context.Context) error {
			runs.Add(1)
			return nil
		}}})
		require.NoError(t, db.MarkUnhealthy(errDown))
		require.NoError(t, a.MarkUnhealthy(errDown))
		pass(time.Minute)
		require.Zero(t, runs.Load())
		require.NoError(t, errors.Join(db.MarkHealthy(), a.MarkHealthy(), a.MarkUnhealthy(errDown)))
		synctest.Wait()
		require.Equal(t, int32(1), runs.Load())
	})
}

func TestManyUnrelatedProbesLateTogetherFlipNobody(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		subjects := make([]subject, 20)
		var all []*registry.Registration
		for i := range subjects {
			all = append(all, probed(t, reg, strconv.Itoa(i), &subjects[i], health.Policy{Interval: 10 * time.Second, IdleInterval: 10 * time.Second}))
		}
		pass(time.Minute)
		events := reg.Subscribe(1 << 14)
		defer events.Close()
		for i := range subjects {
			subjects[i].take(time.Hour)
		}
		pass(2 * time.Minute)
		unhealthy := 0
		suspected := 0
		for _, a := range all {
			if a.Health().State == health.Unhealthy {
				unhealthy++
			}
			if a.Health().Suspected {
				suspected++
			}
		}
		require.Zero(t, unhealthy)
		require.Greater(t, suspected, 15)
		require.Contains(t, kinds(t, events), event.MonitorLate)
		pass(10 * time.Minute)
		for _, a := range all {
			require.Equal(t, health.Unhealthy, a.Health().State, "not for ever")
		}
	})
}

func TestProbesThatAreLateTogetherBecauseTheyShareAHostAreNotUnrelated(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		subjects := make([]subject, 20)
		for i := range subjects {
			add(t, reg, provider{Name: strconv.Itoa(i), Domain: "host", Health: health.Policy{Probe: subjects[i].probe, Interval: 10 * time.Second}})
		}
		pass(time.Minute)
		for i := range subjects {
			subjects[i].take(time.Hour)
		}
		pass(2 * time.Minute)
		for info := range reg.All() {
			require.Equal(t, health.Unhealthy, info.Health.State)
		}
	})
}

func TestHealthPolicyCanBeChangedAtRunTime(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		var first, second subject
		a := probed(t, reg, "a", &first, health.Policy{})
		previous, err := a.SetHealth(health.Policy{Probe: second.probe, Interval: time.Second, IdleInterval: time.Second, Fall: 1})
		require.NoError(t, err)
		require.Equal(t, 30*time.Second, previous.Interval)
		require.Equal(t, 3, previous.Fall)
		synctest.Wait()
		require.Len(t, second.times(), 1, "at once")
		pass(time.Minute)
		require.Len(t, first.times(), 1)
		require.Greater(t, len(second.times()), 50)
		second.say(errDown)
		second.next(1)
		require.Equal(t, health.Unhealthy, a.Health().State)
		_, err = a.SetHealth(health.Policy{Probe: second.probe})
		require.NoError(t, err)
		require.Equal(t, health.Unhealthy, a.Health().State, "as it was until the new policy's result")
		second.say(nil)
		second.next(2)
		require.Equal(t, health.Healthy, a.Health().State)
		_, err = a.SetHealth(health.Policy{Fall: -1})
		require.ErrorIs(t, err, registry.ErrInvalid)
		second.say(errDown)
		second.next(3)
		_, err = a.SetHealth(health.Policy{})
		require.NoError(t, err)
		require.Equal(t, health.Healthy, a.Health().State, "nothing is probed any more")
		require.Equal(t, "a", got(t, bind(reg)))
		require.NoError(t, a.Unregister(t.Context()))
		_, err = a.SetHealth(health.Policy{})
		require.ErrorIs(t, err, registry.ErrNotRegistered)
	})
}

func TestBadHealthPolicyIsRefusedByFieldValueAndBound(t *testing.T) {
	t.Parallel()
	reg := newRegistry(t, registry.Options{})
	probe := func(context.Context) error { return nil }
	for field, policy := range map[string]health.Policy{
		"Health.Interval":             {Interval: -1},
		"Health.FastInterval":         {FastInterval: time.Microsecond},
		"Health.IdleInterval":         {IdleInterval: -time.Second},
		"Health.Timeout":              {Timeout: -time.Second},
		"Health.StartTime":            {StartTime: -time.Second},
		"Health.Expected":             {Expected: -time.Second},
		"Health.RecoverTimeout":       {RecoverTimeout: -time.Second},
		"Health.Fall":                 {Fall: -1},
		"Health.Rise":                 {Rise: -1},
		"Health.RecoverLimit":         {RecoverLimit: -1},
		"Health.Groups[0]":            {Groups: []string{" x"}},
		`Health.Capabilities["x"]`:    {Capabilities: map[string]health.Probe{"x": probe}},
		`Health.Capabilities["chat"]`: {Capabilities: map[string]health.Probe{"chat": nil}},
	} {
		_, err := chat.Register(t.Context(), reg, provider{Name: "a", Instance: says("a"), Capabilities: []string{"chat"}, Health: policy})
		var refused *registry.FieldError
		require.ErrorAs(t, err, &refused, field)
		require.Equal(t, field, refused.Field)
		require.NotEmpty(t, refused.Bound)
	}
	_, err := registry.New(registry.Options{ProbeConcurrency: -1})
	require.ErrorContains(t, err, "Options.ProbeConcurrency")
	require.NoError(t, reg.Close(t.Context()))
}

func TestOverallHealthSaysWhatItsDetailsSay(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{Required: []string{"chat"}}, func(t *testing.T, reg *registry.Registry) {
		overall := reg.Health()
		require.Equal(t, health.Unhealthy, overall.State, "a required service is missing")
		require.Equal(t, `service "chat" is unhealthy: no provider`, overall.Reason)
		require.Equal(t, []health.Service{{Name: "chat", State: health.Unhealthy, Reason: "no provider", Required: true, Providers: []health.Provider{}}}, overall.Services)

		a := add(t, reg, provider{Name: "a", Instance: fails(errDown)})
		b := add(t, reg, provider{Name: "b", Group: 1})
		tools := registry.NewService[string]("tools")
		hammer, err := tools.Register(t.Context(), reg, registry.Provider[string]{Name: "hammer", Instance: "hammer"})
		require.NoError(t, err)
		check := func(state health.State, healthy, degraded, unhealthy int) {
			t.Helper()
			overall := reg.Health()
			require.Equal(t, state, overall.State, overall.Reason)
			require.Equal(t, []int{healthy, degraded, unhealthy}, []int{overall.Healthy, overall.Degraded, overall.Unhealthy})
			counted := make(map[health.State]int)
			for _, s := range overall.Services {
				counted[s.State]++
			}
			require.Equal(t, []int{healthy, degraded, unhealthy}, []int{counted[health.Healthy], counted[health.Degraded], counted[health.Unhealthy]})
			require.Equal(t, state == health.Healthy, overall.Reason == "")
		}
		check(health.Healthy, 2, 0, 0)
		require.NoError(t, b.MarkUnhealthy(errDown))
		check(health.Degraded, 1, 1, 0)
		require.NoError(t, b.Unregister(t.Context()))
		trip(t, bind(reg), a)
		check(health.Degraded, 1, 1, 0) // an open breaker alone
		require.NoError(t, hammer.MarkUnhealthy(errDown))
		check(health.Degraded, 0, 1, 1) // nobody requires it
		require.NoError(t, a.MarkUnhealthy(errDown))
		check(health.Unhealthy, 0, 0, 2)
	})
}

func TestEmptyRegistryIsNotHealthy(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		require.Equal(t, health.Unhealthy, reg.Health().State)
		require.Equal(t, health.Unhealthy, reg.Health(health.Readiness).State)
		require.Equal(t, health.Healthy, reg.Health(health.Liveness).State, "nobody says that it is dead")
	})
}

func TestHealthOfAGroupLooksAtItsProvidersAlone(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{Required: []string{"chat"}}, func(t *testing.T, reg *registry.Registry) {
		add(t, reg, provider{Name: "a"})
		b := add(t, reg, provider{Name: "b", Health: health.Policy{Groups: []string{health.Liveness, "slow"}, Recover: func(context.Context) error { return errDown }}})
		require.NoError(t, b.MarkUnhealthy(errDown))
		require.Equal(t, health.Degraded, reg.Health().State)
		require.Equal(t, health.Healthy, reg.Health(health.Readiness).State)
		require.Equal(t, health.Unhealthy, reg.Health(health.Liveness).State)
		require.Equal(t, health.Unhealthy, reg.Health("slow").State)
		require.Equal(t, health.Healthy, reg.Health("other").State)
	})
}

func TestWaitReadyWaitsForTheFirstAnswerAndNamesWhyNot(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		p := subject{err: errDown}
		probed(t, reg, "a", &p, health.Policy{Fall: 100})
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		err := reg.WaitReady(ctx, "chat")
		require.ErrorIs(t, err, registry.ErrNotReady)
		require.ErrorIs(t, err, errDown)
		require.ErrorContains(t, err, "a: not ready: starting: down")
		time.AfterFunc(time.Minute, func() { p.say(nil) })
		began := time.Now()
		require.NoError(t, reg.WaitReady(t.Context(), "chat"))
		require.InDelta(t, 60, time.Since(began).Seconds(), 6)
	})
}

func TestCloseEndsProbesAndNamesTheStuckOnes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		reg := newRegistry(t, registry.Options{})
		release := make(chan struct{})
		add(t, reg, provider{Name: "deaf", Health: health.Policy{Probe: func(context.Context) error {
			<-release
			return nil
		}}})
		hanging := subject{takes: time.Hour}
		add(t, reg, provider{Name: "heeds", Health: health.Policy{Probe: hanging.probe}})
		synctest.Wait()
		began := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		err := reg.Close(ctx)
		require.ErrorIs(t, err, registry.ErrStuck)
		require.ErrorContains(t, err, `probe of provider "deaf"`)
		require.NotContains(t, err.Error(), "heeds")
		require.LessOrEqual(t, time.Since(began), 3*time.Second)
		close(release)
		require.NoError(t, reg.Close(t.Context()))
	})
}

// badProbes are probes that hang, ignore their context, panic, exit and flap.
func badProbes(release <-chan struct{}) map[string]health.Probe {
	return map[string]health.Probe{
		"hangs":  func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() },
		"deaf":   func(context.Context) error { <-release; return nil },
		"panics": func(context.Context) error { panic("probe") },
		"exits":  func(context.Context) error { runtime.Goexit(); return nil },
		"flaps": func(context.Context) error {
			if rand.IntN(2) == 0 {
				return errDown
			}
			return nil
		},
	}
}

// misbehaving returns a registry with one good provider and one for each bad
// probe, all probed every millisecond.
func misbehaving(tb testing.TB) (reg *registry.Registry, end func()) {
	tb.Helper()
	reg = newRegistry(tb, registry.Options{})
	add(tb, reg, provider{Name: "good"})
	release := make(chan struct{})
	for name, probe := range badProbes(release) {
		add(tb, reg, provider{Name: name, Priority: registry.PriorityLow, Health: health.Policy{
			Probe: probe, Interval: time.Millisecond, FastInterval: time.Millisecond, IdleInterval: time.Millisecond, Timeout: 5 * time.Millisecond,
		}})
	}
	return reg, func() {
		close(release)
		require.NoError(tb, reg.Close(context.Background()))
	}
}

func TestLookUpsNeverWaitForProbesWhateverThoseDo(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		reg, end := misbehaving(t)
		pass(10 * time.Second)
		began := time.Now()
		for range 1000 {
			require.Equal(t, "good", got(t, bind(reg)))
			require.Equal(t, "good", asked(t, bind(reg)))
		}
		require.Zero(t, time.Since(began))
		end()
	})
}

func BenchmarkGetWhileProbesMisbehave(b *testing.B) {
	reg, end := misbehaving(b)
	resolver := bind(reg)
	b.ReportAllocs()
	for b.Loop() {
		_, _ = resolver.Get(context.Background())
	}
	b.StopTimer()
	end()
}

func TestErrorsOfProbesThatPanicWhenLookedAtHarmNobody(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		var p subject
		a := probed(t, reg, "a", &p, health.Policy{})
		p.say(badIsError{})
		p.next(3)
		require.Equal(t, health.Unhealthy, a.Health().State)
		p.say(multiline{})
		p.next(1)
		require.NotContains(t, bind(reg).Explain().String(), "down\n")
		_, err := bind(reg).Get(t.Context())
		requireOneLine(t, err)
	})
}

type multiline struct{}

func (multiline) Error() string { return "down\n" + strings.Repeat("x", 1000) }

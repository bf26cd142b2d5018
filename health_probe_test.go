package registry_test

import (
	"context"
	"fmt"
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
	"github.com/capreg/registry/internal/testkit"
)

func TestProbe_ThreeFailuresMakeUnhealthyAndTwoSuccessesHealthy(t *testing.T) {
	t.Parallel()
	for name, bad := range map[string]func() error{
		"errs":   func() error { return testkit.ErrDown },
		"panics": func() error { panic("probe") },
		"exits":  func() error { runtime.Goexit(); return nil },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
				var failing atomic.Bool
				var probes atomic.Int32
				events := reg.Subscribe(0)
				defer events.Close()
				a := testkit.Add(t, reg, testkit.Provider{Name: "a", Health: health.Policy{Probe: func(context.Context) error {
					probes.Add(1)
					if failing.Load() {
						return bad()
					}
					return nil
				}}})
				step := func() health.Status {
					for before := probes.Load(); probes.Load() == before; {
						testkit.Pass(time.Second)
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
					require.Equal(t, "a", testkit.MustGet(t, testkit.Bind(reg)), "it can still be picked")
				}
				require.Equal(t, health.Unhealthy, step().State)
				_, err := testkit.Bind(reg).Get(t.Context())
				require.ErrorIs(t, err, registry.ErrUnhealthy)
				testkit.RequireOneLine(t, err)
				failing.Store(false)
				require.Equal(t, health.Unhealthy, step().State)
				require.Equal(t, health.Healthy, step().State)
				require.Equal(t, "a", testkit.MustGet(t, testkit.Bind(reg)))
				var states []string
				for _, change := range a.HealthHistory() {
					states = append(states, change.To.String())
				}
				require.Equal(t, []string{"healthy", "degraded", "unhealthy", "healthy"}, states)
				require.Equal(t, []event.Kind{event.Healthy, event.Degraded, event.Unhealthy, event.Healthy},
					slices.DeleteFunc(testkit.Kinds(t, events), func(k event.Kind) bool { return k == event.Trend || k == event.Registered }))
			})
		})
	}
}

func TestProbe_SuccessResetsFailures(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		var p testkit.ProbeTarget
		a := testkit.AddProbed(t, reg, "a", &p, health.Policy{})
		for range 10 {
			p.SetErr(testkit.ErrDown)
			p.Next(2)
			p.SetErr(nil)
			p.Next(1)
			require.Equal(t, health.Degraded, a.Health().State)
			require.Zero(t, a.Health().Failures)
		}
		p.Next(1)
		require.Equal(t, health.Healthy, a.Health().State)
	})
}

func TestProbe_HungIsCancelledAndStaysTheOnlyOne(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{ProbeConcurrency: 1}, func(t *testing.T, reg *registry.Registry) {
		var inside atomic.Int32
		release := make(chan struct{})
		var deaf atomic.Bool
		cause := make(chan error, 1)
		a := testkit.Add(t, reg, testkit.Provider{Name: "a", Health: health.Policy{Probe: func(ctx context.Context) error {
			if !deaf.Load() {
				return nil
			}
			inside.Add(1)
			<-ctx.Done()
			cause <- ctx.Err()
			<-release
			return nil
		}}})
		var other testkit.ProbeTarget
		b := testkit.AddProbed(t, reg, "b", &other, health.Policy{})
		synctest.Wait() // the first probes
		events := reg.Subscribe(0)
		defer events.Close()
		deaf.Store(true)
		began := time.Now()
		require.ErrorIs(t, <-cause, context.DeadlineExceeded)
		since := time.Now().Add(-5 * time.Second)
		testkit.Pass(time.Second)
		status := a.Health()
		require.Equal(t, since, status.StuckSince)
		require.Equal(t, 1, status.Failures)
		require.Contains(t, status.Reason, "does not return")
		require.Contains(t, testkit.Kinds(t, events), event.ProbeStuck)

		lookUps := 0
		for time.Since(began) < 10*time.Minute {
			testkit.Pass(10 * time.Second)
			_ = testkit.MustGet(t, testkit.Bind(reg))
			lookUps++
		}
		require.Equal(t, health.Unhealthy, a.Health().State, "each time that one would have been due counts")
		require.Equal(t, int32(1), inside.Load(), "one at a time, ever")
		require.Greater(t, len(other.Times()), 8, "its slot was free for others")
		require.Equal(t, health.Healthy, b.Health().State)

		deaf.Store(false)
		close(release)
		testkit.Pass(15 * time.Second)
		require.True(t, a.Health().StuckSince.IsZero())
		require.Equal(t, health.Healthy, a.Health().State)
	})
}

func TestProbe_IsFollowedByAnotherAfterStuckReturns(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{ProbeConcurrency: 1}, func(t *testing.T, reg *registry.Registry) {
		hold := make(chan struct{})
		var in, most, n atomic.Int64
		a := testkit.Add(t, reg, testkit.Provider{Name: "a", Health: health.Policy{Probe: func(context.Context) error {
			if x := in.Add(1); x > most.Load() {
				most.Store(x)
			}
			defer in.Add(-1)
			n.Add(1)
			<-hold
			return nil
		}}})
		b := testkit.Add(t, reg, testkit.Provider{Name: "b", Health: health.Policy{Probe: func(context.Context) error { return nil }}})
		testkit.Pass(time.Minute)
		require.Equal(t, health.Unhealthy, a.Health().State)
		require.Equal(t, health.Healthy, b.Health().State)
		_, err := a.CheckHealth(t.Context())
		require.NoError(t, err)
		close(hold)
		synctest.Wait()
		require.True(t, a.Health().StuckSince.IsZero())
		testkit.Pass(time.Minute)
		require.Equal(t, health.Healthy, a.Health().State)
		require.EqualValues(t, 1, most.Load())
	})
}

func TestProbe_KeepsIntervalWhateverIsLookedUp(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		p := testkit.ProbeTarget{Takes: time.Second}
		testkit.AddProbed(t, reg, "a", &p, health.Policy{IdleInterval: 30 * time.Second})
		testkit.Pass(2 * time.Second)
		for range 1000 {
			_ = testkit.MustGet(t, testkit.Bind(reg))
			testkit.Pass(600 * time.Millisecond)
		}
		times := p.Times()
		require.InDelta(t, 600/31, len(times), 3)
		for i := 2; i < len(times); i++ {
			require.InDelta(t, 31, times[i].Sub(times[i-1]).Seconds(), 3.1, "an interval from the end of the last, within a tenth")
		}
	})
}

func TestProbe_IntervalsSpreadOut(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{ProbeConcurrency: 1000}, func(t *testing.T, reg *registry.Registry) {
		began := time.Now()
		subjects := make([]testkit.ProbeTarget, 300)
		for i := range subjects {
			testkit.Add(t, reg, testkit.Provider{Name: strconv.Itoa(i), Health: health.Policy{Probe: subjects[i].Probe, IdleInterval: 30 * time.Second}})
		}
		testkit.Pass(5 * time.Minute)
		inSecond := make(map[int]int)
		for i := range subjects {
			for _, at := range subjects[i].Times()[1:] {
				inSecond[int(at.Sub(began)/time.Second)]++
			}
		}
		for second, n := range inSecond {
			require.Less(t, n, 60, "in second %d; ten is even, 300 is together", second)
		}
	})
}

func TestProbe_IdleProvidersSpreadOut(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{ProbeConcurrency: 1000}, func(t *testing.T, reg *registry.Registry) {
		var mu sync.Mutex
		at := map[int]int{}
		began := time.Now()
		for i := range 600 {
			first := true
			testkit.Add(t, reg, testkit.Provider{Name: fmt.Sprint("p", i), Health: health.Policy{Probe: func(context.Context) error {
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

func TestProbe_ConcurrencyIsBoundedWithoutIdleGoroutines(t *testing.T) { //nolint:paralleltest // it counts the goroutines of the process
	testkit.Bubble(t, registry.Options{ProbeConcurrency: 3}, func(t *testing.T, reg *registry.Registry) {
		p := testkit.ProbeTarget{Takes: time.Second}
		before := runtime.NumGoroutine()
		for i := range 60 {
			testkit.Add(t, reg, testkit.Provider{Name: strconv.Itoa(i), Health: health.Policy{Probe: p.Probe}})
		}
		synctest.Wait()
		require.LessOrEqual(t, runtime.NumGoroutine(), before+20)
		testkit.Pass(21 * time.Second)
		require.Equal(t, 3, p.MostInside())
		require.GreaterOrEqual(t, len(p.Times()), 60)
	})
}

func TestProbe_FasterWhileUnhealthySlowerWhileIdle(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		distance := func(p *testkit.ProbeTarget) float64 {
			p.Next(2)
			times := p.Times()
			return times[len(times)-1].Sub(times[len(times)-2]).Seconds()
		}
		starting := testkit.ProbeTarget{Err: testkit.ErrDown}
		testkit.AddProbed(t, reg, "starting", &starting, health.Policy{Fall: 100})
		require.InDelta(t, 5, distance(&starting), 0.6)
		starting.SetErr(nil)
		starting.Next(1)

		var p testkit.ProbeTarget
		a := testkit.AddProbed(t, reg, "a", &p, health.Policy{})
		p.Next(1)
		require.InDelta(t, 60, distance(&p), 6.5, "no call since the last probe")
		p.SetErr(testkit.ErrDown)
		p.Next(1)
		require.InDelta(t, 5, distance(&p), 0.6, "it fails")
		p.Next(5)
		require.Equal(t, health.Unhealthy, a.Health().State)
		require.InDelta(t, 5, distance(&p), 0.6, "it is unhealthy")
	})
}

// checkedModel is an instance that can be asked how it is.
type checkedModel struct {
	testkit.ChatModel
	*testkit.ProbeTarget
}

func (c checkedModel) CheckHealth(ctx context.Context) error { return c.Probe(ctx) }

func TestProbe_UsesHealthCheckerInstance(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		var p testkit.ProbeTarget
		model := checkedModel{testkit.Says("a"), &p}
		a := testkit.Add(t, reg, testkit.Provider{Name: "a", Instance: model})
		synctest.Wait()
		require.Len(t, p.Times(), 1)
		require.True(t, a.Health().Probed)
		off := testkit.Add(t, reg, testkit.Provider{Name: "off", Instance: model, Health: health.Policy{Off: true}})
		require.False(t, off.Health().Probed)
		byName, err := reg.Register(t.Context(), "chat", registry.Provider[any]{Name: "dynamic", Instance: model})
		require.NoError(t, err)
		synctest.Wait()
		require.Len(t, p.Times(), 2)
		require.True(t, byName.Health().Probed)
	})
}

func TestProbe_FactoryInstanceIsProbedOnceMade(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		var p testkit.ProbeTarget
		a := testkit.Add(t, reg, testkit.Provider{Name: "a", Factory: func(context.Context) (testkit.ChatModel, error) {
			return checkedModel{testkit.Says("a"), &p}, nil
		}})
		testkit.Pass(time.Hour)
		require.Equal(t, health.Healthy, a.Health().State)
		require.Empty(t, p.Times(), "there is nothing to ask")
		require.Equal(t, "a", testkit.MustGet(t, testkit.Bind(reg)))
		synctest.Wait()
		require.Len(t, p.Times(), 1)
		p.SetErr(testkit.ErrDown)
		p.Next(3)
		require.Equal(t, health.Unhealthy, a.Health().State)
	})
}

func TestProbe_ReportsAtMostThirtyTwoResources(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		p := testkit.Add(t, reg, testkit.Provider{Name: "p", Health: health.Policy{Probe: func(ctx context.Context) error {
			for i := range 40 {
				health.Use(ctx, fmt.Sprint("r", i), 0.1)
			}
			health.Use(ctx, "r0", 0.2) // what is known can still be told
			return nil
		}}})
		testkit.Pass(time.Second)
		require.Len(t, p.Health().Usage, 32)
		require.InDelta(t, 0.2, p.Health().Usage["r0"], 1e-9)
		require.InDelta(t, 0.1, p.Health().Usage["r31"], 1e-9)
	})
}

func TestProbe_ShortIntervalsAreKeptAmongLongOnes(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		var n atomic.Int64
		stop := make(chan struct{})
		testkit.Add(t, reg, testkit.Provider{Name: "a", Health: health.Policy{Interval: time.Hour, FastInterval: time.Second, Probe: func(ctx context.Context) error {
			if n.Add(1) > 5000 {
				select {
				case <-stop:
				case <-ctx.Done():
				}
			}
			return testkit.ErrDown
		}}})
		time.Sleep(30 * time.Second)
		close(stop)
		require.Less(t, n.Load(), int64(40))
	})
}

func TestProbe_OneAtATimeAcrossPolicies(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
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
		a := testkit.Add(t, reg, testkit.Provider{Name: "a", Health: policy})
		testkit.Pass(time.Minute)
		require.False(t, a.Health().StuckSince.IsZero())
		for range 10 {
			_, err := a.SetHealthPolicy(policy)
			require.NoError(t, err)
			synctest.Wait()
		}
		n := most.Load()
		close(release)
		synctest.Wait()
		require.EqualValues(t, 1, n, "a stuck probe stays the only one of its provider")
	})
}

func TestClose_EndsProbesAndNamesStuckOnes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		reg := testkit.New(t, registry.Options{})
		release := make(chan struct{})
		testkit.Add(t, reg, testkit.Provider{Name: "deaf", Health: health.Policy{Probe: func(context.Context) error {
			<-release
			return nil
		}}})
		hanging := testkit.ProbeTarget{Takes: time.Hour}
		testkit.Add(t, reg, testkit.Provider{Name: "heeds", Health: health.Policy{Probe: hanging.Probe}})
		synctest.Wait()
		began := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		err := reg.Close(ctx)
		require.ErrorIs(t, err, registry.ErrStuck)
		require.ErrorContains(t, err, `probe of provider "chat/deaf"`)
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
				return testkit.ErrDown
			}
			return nil
		},
	}
}

// misbehaving returns a registry with one good provider and one for each bad
// probe, all probed every millisecond.
func misbehaving(tb testing.TB) (reg *registry.Registry, end func()) {
	tb.Helper()
	reg = testkit.New(tb, registry.Options{})
	testkit.Add(tb, reg, testkit.Provider{Name: "good"})
	release := make(chan struct{})
	for name, probe := range badProbes(release) {
		testkit.Add(tb, reg, testkit.Provider{Name: name, Priority: registry.PriorityLow, Health: health.Policy{
			Probe: probe, Interval: time.Millisecond, FastInterval: time.Millisecond, IdleInterval: time.Millisecond, Timeout: 5 * time.Millisecond,
		}})
	}
	return reg, func() {
		close(release)
		require.NoError(tb, reg.Close(context.Background()))
	}
}

func TestGet_NeverWaitsForMisbehavingProbes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		reg, end := misbehaving(t)
		testkit.Pass(10 * time.Second)
		began := time.Now()
		for range 1000 {
			require.Equal(t, "good", testkit.MustGet(t, testkit.Bind(reg)))
			require.Equal(t, "good", testkit.MustAsk(t, testkit.Bind(reg)))
		}
		require.Zero(t, time.Since(began))
		end()
	})
}

func BenchmarkGetWhileProbesMisbehave(b *testing.B) {
	reg, end := misbehaving(b)
	resolver := testkit.Bind(reg)
	b.ReportAllocs()
	for b.Loop() {
		_, _ = resolver.Get(context.Background())
	}
	b.StopTimer()
	end()
}

type multiline struct{}

func (multiline) Error() string { return "down\n" + strings.Repeat("x", 1000) }

func TestProbe_PanickingErrorsAreContained(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		var p testkit.ProbeTarget
		a := testkit.AddProbed(t, reg, "a", &p, health.Policy{})
		p.SetErr(testkit.BadIsError{})
		p.Next(3)
		require.Equal(t, health.Unhealthy, a.Health().State)
		p.SetErr(multiline{})
		p.Next(1)
		require.NotContains(t, testkit.Bind(reg).Explain().String(), "down\n")
		_, err := testkit.Bind(reg).Get(t.Context())
		testkit.RequireOneLine(t, err)
	})
}

type exitingError struct{}

func (exitingError) Error() string { runtime.Goexit(); return "" }

func TestProbe_ExitingErrorKeepsNoSlot(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{ProbeConcurrency: 1}, func(t *testing.T, reg *registry.Registry) {
		testkit.Add(t, reg, testkit.Provider{Name: "a", Health: health.Policy{Probe: func(context.Context) error { return exitingError{} }}})
		synctest.Wait()
		b := testkit.Add(t, reg, testkit.Provider{Name: "b", Health: health.Policy{Probe: func(context.Context) error { return nil }}})
		testkit.Pass(time.Minute)
		require.Equal(t, health.Healthy, b.Health().State)
	})
}

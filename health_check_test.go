package registry_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"weak"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/health"
	"github.com/capreg/registry/internal/testkit"
)

func TestCheckHealth_ProbesOnDemand(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{ProbeConcurrency: 2}, func(t *testing.T, reg *registry.Registry) {
		subjects := make([]testkit.ProbeTarget, 10)
		var all []*registry.Registration
		for i := range subjects {
			all = append(all, testkit.AddProbed(t, reg, strconv.Itoa(i), &subjects[i], health.Policy{}))
		}
		none := testkit.Add(t, reg, testkit.Provider{Name: "none"})
		for i := range subjects {
			subjects[i].SetTakes(time.Second)
			subjects[i].SetErr(testkit.ErrDown)
		}
		began := time.Now()
		overall, err := reg.CheckHealth(t.Context())
		require.NoError(t, err)
		require.Equal(t, 5*time.Second, time.Since(began), "two at a time")
		require.Equal(t, health.Degraded, overall.State)
		for i := range subjects {
			require.Equal(t, 1, all[i].Health().Failures)
			require.Equal(t, testkit.ErrDown, all[i].Health().Err)
		}

		var group sync.WaitGroup
		probes := len(subjects[0].Times())
		for range 5 {
			group.Go(func() {
				status, err := all[0].CheckHealth(t.Context())
				require.NoError(t, err)
				require.Equal(t, 2, status.Failures)
			})
		}
		group.Wait()
		require.Len(t, subjects[0].Times(), probes+1, "all wait for the same probe")

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

func TestCheckHealth_ComesBeforeRoutineProbes(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{ProbeConcurrency: 1}, func(t *testing.T, reg *registry.Registry) {
		slow := func(context.Context) error { time.Sleep(4 * time.Second); return nil }
		for _, n := range []string{"a", "b", "c", "d", "e", "f"} {
			testkit.Add(t, reg, testkit.Provider{Name: n, Health: health.Policy{Interval: time.Second, IdleInterval: time.Second, Probe: slow}})
		}
		z := testkit.Add(t, reg, testkit.Provider{Name: "z", Health: health.Policy{Interval: time.Second, IdleInterval: time.Second, Probe: slow}})
		testkit.Pass(2 * time.Minute)
		worst := time.Duration(0)
		for range 5 {
			began := time.Now()
			_, err := z.CheckHealth(t.Context())
			require.NoError(t, err)
			worst = max(worst, time.Since(began))
			testkit.Pass(3 * time.Second)
		}
		require.LessOrEqual(t, worst, 9*time.Second, "one in progress and its own")
	})
}

func TestCheckHealth_OfRemovedProviderIsAnError(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		of := &testkit.ProbeTarget{Takes: 4 * time.Second}
		a := testkit.Add(t, reg, testkit.Provider{Name: "a", Health: health.Policy{Probe: of.Probe}})
		go func() { time.Sleep(time.Second); _ = a.Unregister(context.Background()) }()
		_, err := a.CheckHealth(t.Context())
		require.ErrorIs(t, err, registry.ErrNotRegistered)
	})
}

func TestCheckHealth_WaitsForResultOfCurrentPolicy(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		of := &testkit.ProbeTarget{Takes: 4 * time.Second}
		a := testkit.Add(t, reg, testkit.Provider{Name: "a", Health: health.Policy{Probe: of.Probe}})
		go func() { time.Sleep(time.Second); _, _ = a.SetHealthPolicy(health.Policy{Probe: of.Probe}) }()
		s, err := a.CheckHealth(t.Context())
		require.NoError(t, err)
		require.Equal(t, health.Healthy, s.State, "what is known after a result")
	})
}

func TestCall_GetsAProviderWhoseFirstProbeAnswersAtThatMoment(t *testing.T) {
	t.Parallel()
	for range 3000 { // how a call and the answer meet is chance
		reg, err := registry.New(registry.Options{})
		require.NoError(t, err)
		testkit.Add(t, reg, testkit.Provider{Name: "a", Health: health.Policy{Probe: func(context.Context) error { return nil }}})
		_, err = testkit.Ask(t.Context(), testkit.Bind(reg))
		require.NoError(t, err)
		require.NoError(t, reg.Close(t.Context()))
	}
}

func TestGet_DoesNotWaitForProbeOfBlockedProvider(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		of := &testkit.ProbeTarget{Takes: 4 * time.Second}
		a := testkit.Add(t, reg, testkit.Provider{Name: "a", Health: health.Policy{Probe: of.Probe}})
		began := time.Now()
		go func() { time.Sleep(time.Second); _ = a.ForceOpen(time.Hour, "x") }()
		_, err := testkit.Ask(t.Context(), testkit.Bind(reg))
		require.Error(t, err)
		require.LessOrEqual(t, time.Since(began), 1100*time.Millisecond)
	})
}

// checker is an instance whose life is watched.
type checker struct{ _ [1 << 16]byte }

func (c *checker) Chat(context.Context, string) (string, error) { return "", nil }

func (c *checker) CheckHealth(context.Context) error { return nil }

func TestProbe_DoesNotKeepInstanceAlive(t *testing.T) {
	t.Parallel()
	reg := testkit.New(t, registry.Options{})
	defer func() { require.NoError(t, reg.Close(context.Background())) }()
	w := func() weak.Pointer[checker] {
		c := &checker{}
		r := testkit.Add(t, reg, testkit.Provider{Name: "a", Instance: c})
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

func TestProbe_HandleDoesNotKeepInstanceAlive(t *testing.T) {
	t.Parallel()
	reg := testkit.New(t, registry.Options{})
	defer func() { require.NoError(t, reg.Close(context.Background())) }()
	var r *registry.Registration
	w := func() weak.Pointer[checker] {
		c := &checker{}
		r = testkit.Add(t, reg, testkit.Provider{Name: "a", Instance: c})
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

func TestProbe_LosesNothingUnderStress(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{ProbeConcurrency: 4}, probeUnderStress)
}

func probeUnderStress(t *testing.T, reg *registry.Registry) {
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
				return testkit.ErrDown
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
				return testkit.ErrDown
			},
		}
	}
	for i := range 12 {
		wg.Go(func() {
			name := fmt.Sprint("p", i)
			for !done.Load() {
				time.Sleep(time.Millisecond)
				r := testkit.Add(t, reg, testkit.Provider{Name: name, Capabilities: []string{"x"}, Health: mk(name), Replace: true, AtOnce: true})
				for range rand.IntN(20) {
					switch rand.IntN(6) {
					case 0:
						_, _ = r.SetHealthPolicy(mk(name))
					case 1:
						_ = r.MarkUnhealthy(testkit.ErrDown)
					case 2:
						_ = r.MarkHealthy()
					case 3:
						ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
						_, _ = r.CheckHealth(ctx)
						cancel()
					case 4:
						ctx, cancel := context.WithTimeout(context.Background(), 5*time.Millisecond)
						_, _ = testkit.Bind(reg, "x").Get(ctx)
						cancel()
						_ = reg.Health()
					case 5:
						_, _ = r.SetHealthPolicy(health.Policy{Off: true})
					}
				}
				if rand.IntN(2) == 0 {
					_ = r.Unregister(context.Background())
				}
			}
		})
	}
	testkit.Pass(6 * time.Second)
	done.Store(true)
	wg.Wait()
	for i := range 12 {
		if r, ok := reg.Provider("chat", fmt.Sprint("p", i)); ok {
			_ = r.Unregister(context.Background())
		}
	}
	testkit.Pass(time.Second)
	// all four slots are free again
	var in, most atomic.Int64
	hold := make(chan struct{})
	for i := range 8 {
		testkit.Add(t, reg, testkit.Provider{Name: fmt.Sprint("q", i), Health: health.Policy{Timeout: time.Minute, Probe: func(context.Context) error {
			if n := in.Add(1); n > most.Load() {
				most.Store(n)
			}
			<-hold
			in.Add(-1)
			return nil
		}}})
	}
	testkit.Pass(300 * time.Millisecond)
	require.EqualValues(t, 4, most.Load())
	close(hold)
}

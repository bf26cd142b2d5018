package registry_test

import (
	"context"
	"fmt"
	"runtime"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/internal/testkit"
	"github.com/capreg/registry/selection"
	"github.com/capreg/registry/status"
)

// growth returns the bytes of heap that are left of each of n runs.
func growth(n int, run func(i int)) int64 {
	heap := func() int64 {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	run(0)
	before := heap()
	for i := range n {
		run(i + 1)
	}
	return (heap() - before) / int64(n)
}

// Variants: look-ups in passing, refused registrations, swaps of nothing, registrations that end, by each way to end.
func TestService_IsForgotten(t *testing.T) { //nolint:paralleltest // it measures the heap
	tenant := func(i int) registry.Service[string] { return registry.NewService[string](fmt.Sprint("tenant-", i)) }
	for name, use := range map[string]func(t *testing.T, reg *registry.Registry, i int){
		"looked up": func(t *testing.T, reg *registry.Registry, i int) {
			t.Helper()
			_, err := tenant(i).Get(t.Context(), reg, registry.Query{})
			require.ErrorIs(t, err, registry.ErrUnknownService)
		},
		"refused": func(t *testing.T, reg *registry.Registry, i int) {
			t.Helper()
			_, err := tenant(i).Register(t.Context(), reg, registry.Provider[string]{
				Instance: "x", Domain: "key", Limits: registry.LimitPolicy{MaxConcurrent: 2}, // it has others
			})
			require.ErrorIs(t, err, registry.ErrConflict)
		},
		"waited for": func(t *testing.T, reg *registry.Registry, i int) {
			t.Helper()
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			require.ErrorIs(t, reg.WaitReady(ctx, tenant(i).Name()), registry.ErrNotReady)
			_, known := reg.Analytics(tenant(i).Name())
			require.False(t, known)
			_, known = reg.Provider(tenant(i).Name(), "x")
			require.False(t, known)
			require.Empty(t, testkit.Discovered(t, reg, tenant(i).Name()))
		},
		"updated in vain": func(t *testing.T, reg *registry.Registry, i int) {
			t.Helper()
			var u registry.Update
			tenant(i).AddTo(&u, registry.Provider[string]{Name: "twice", Instance: "x"})
			tenant(i).AddTo(&u, registry.Provider[string]{Name: "twice", Instance: "x"})
			require.ErrorIs(t, reg.Update(t.Context(), &u), registry.ErrExists)
		},
		"not proven": func(t *testing.T, reg *registry.Registry, i int) {
			t.Helper()
			var u registry.Update
			tenant(i).AddTo(&u, registry.Provider[string]{Name: "new", Factory: func(context.Context) (string, error) { return "", testkit.ErrDown }})
			require.ErrorIs(t, reg.Update(t.Context(), &u), testkit.ErrDown)
		},
		"swapped in vain": func(t *testing.T, reg *registry.Registry, i int) {
			t.Helper()
			_, err := tenant(i).Testing(reg).Swap("test", "x", "y")
			require.ErrorIs(t, err, registry.ErrNotRegistered)
		},
		"unregistered": func(t *testing.T, reg *registry.Registry, i int) {
			t.Helper()
			a, err := tenant(i).Register(t.Context(), reg, registry.Provider[string]{Name: "x", Instance: "x"})
			require.NoError(t, err)
			_, err = tenant(i).Get(t.Context(), reg, registry.Query{})
			require.NoError(t, err)
			require.NoError(t, a.Unregister(t.Context()))
		},
		"lifetime ended": func(t *testing.T, reg *registry.Registry, i int) {
			t.Helper()
			life, end := context.WithCancel(t.Context())
			a, err := tenant(i).Register(t.Context(), reg, registry.Provider[string]{Name: "x", Instance: "x", Until: life})
			require.NoError(t, err)
			end()
			<-a.Left()
		},
	} {
		t.Run(name, func(t *testing.T) { //nolint:paralleltest // it measures the heap
			reg := testkit.New(t, registry.Options{})
			testkit.Add(t, reg, testkit.Provider{Name: "taken", Domain: "key", Limits: registry.LimitPolicy{MaxConcurrent: 1}})
			require.Less(t, growth(3000, func(i int) { use(t, reg, i) }), int64(100))
			require.Equal(t, 1, reg.Stats().Services)
			_, known := reg.Analytics("tenant-1")
			require.False(t, known)
			require.NoError(t, reg.Close(t.Context()))
		})
	}
}

func TestService_LookUpsOfForgottenOnesAreCounted(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		_, err := testkit.Chat.Get(t.Context(), reg, registry.Query{})
		require.ErrorIs(t, err, registry.ErrUnknownService)
		a := testkit.Add(t, reg, testkit.Provider{Name: "a"})
		_, err = testkit.Chat.Get(t.Context(), reg, registry.Query{})
		require.NoError(t, err)
		require.NoError(t, a.Unregister(t.Context()))
		require.Equal(t, status.Totals{Lookups: 2, Hits: 1, Misses: 1}, reg.Stats())
	})
}

func TestService_OnlyLookedUpIsNotBoundToType(t *testing.T) {
	t.Parallel()
	numbers := registry.NewService[int]("chat")
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		_, err := numbers.Get(t.Context(), reg, registry.Query{})
		require.ErrorIs(t, err, registry.ErrUnknownService)
		a := testkit.Add(t, reg, testkit.Provider{Name: "a"})
		_, err = numbers.Get(t.Context(), reg, registry.Query{})
		require.ErrorIs(t, err, registry.ErrConflict)
		require.NoError(t, a.Unregister(t.Context()))
		_, err = numbers.Register(t.Context(), reg, registry.Provider[int]{Instance: 1})
		require.NoError(t, err)
	})
}

// What is configured or bound stays: a resolver finds a later provider, a classifier and a policy apply to it, and a
// provider can be registered by name.
func TestService_BoundOneIsKept(t *testing.T) {
	t.Parallel()
	for name, bind := range map[string]func(reg *registry.Registry) error{
		"Bind":         func(reg *registry.Registry) error { testkit.Bind(reg); return nil },
		"Classify":     func(reg *registry.Registry) error { return testkit.Chat.Classify(reg, nil) },
		"SetSelection": func(reg *registry.Registry) error { return second(testkit.Chat.SetSelection(reg, selection.Policy{})) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
				require.NoError(t, bind(reg))
				r := testkit.Bind(reg)
				for _, name := range []string{"a", "b"} {
					registration, err := reg.Register(t.Context(), "chat", registry.Provider[any]{Name: name, Instance: testkit.Says(name)})
					require.NoError(t, err)
					require.Equal(t, name, testkit.MustAsk(t, r))
					require.NoError(t, registration.Unregister(t.Context()))
				}
			})
		})
	}
}

// First providers of a service that come and go at the same time are all found.
func TestService_ForgottenWhileAnotherRegisters(t *testing.T) {
	t.Parallel()
	reg := testkit.New(t, registry.Options{})
	done := make(chan error)
	const clients = 8
	for i := range clients {
		go func() {
			name := strconv.Itoa(i)
			for range 300 {
				a, err := testkit.Chat.Register(context.Background(), reg, testkit.Provider{Name: name, Instance: testkit.Says(name)})
				if err == nil {
					_, err = testkit.Chat.Get(context.Background(), reg, registry.Query{})
				}
				if err == nil {
					err = a.Unregister(context.Background())
				}
				if err != nil {
					done <- err
					return
				}
			}
			done <- nil
		}()
	}
	for range clients {
		require.NoError(t, <-done)
	}
	require.Zero(t, reg.Stats().Services)
	require.NoError(t, reg.Close(t.Context()))
}

// What was kept of a name would be copied or searched with the next one.
func TestService_LookUpsOfUnknownOnesCostTheSame(t *testing.T) { //nolint:paralleltest // it counts all allocations
	reg := testkit.New(t, registry.Options{})
	looked := 0
	lookUp := func(times int) (bytes uint64) {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		for range times {
			looked++
			_, _ = registry.NewService[string](fmt.Sprint("tenant-", 1_000_000+looked)).Get(t.Context(), reg, registry.Query{})
		}
		runtime.ReadMemStats(&after)
		return after.TotalAlloc - before.TotalAlloc
	}
	lookUp(100) // what is made once
	first := lookUp(500)
	lookUp(5000)
	require.InEpsilon(t, first, lookUp(500), 0.2)
	require.Zero(t, reg.Stats().Services)
	require.NoError(t, reg.Close(t.Context()))
}

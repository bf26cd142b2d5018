//go:build !race

package registry_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/internal/testkit"
	"github.com/capreg/registry/selection"
	"github.com/capreg/registry/selectors"
)

// The race detector allocates by itself, so these run without it.
func TestCall_AllocatesNoMoreThanPromised(t *testing.T) { //nolint:paralleltest // AllocsPerRun counts all goroutines
	query := registry.Query{Require: []string{"chat", "tools"}}
	capable := testkit.Provider{Capabilities: []string{"tools", "chat"}}
	untimed := testkit.Provider{AttemptTimeout: registry.NoTimeout}
	turns := testkit.Provider{Strategy: registry.StrategyRoundRobin}
	for _, c := range []struct {
		name string
		p    testkit.Provider
		do   func(*registry.Registry) func()
		want float64
	}{
		{"Get", testkit.Provider{}, getting, 0},
		{"Get in turns", turns, getting, 0},
		{"Get with a query that is given each time", capable, func(reg *registry.Registry) func() {
			return func() {
				if _, err := testkit.Chat.Get(context.Background(), reg, query); err != nil {
					t.Fatal(err)
				}
			}
		}, 0},
		{"Call without timeout", untimed, calling, 0},
		{"Call with an unused timeout", testkit.Provider{}, calling, 1},
		{"Call of a function that asks its context whether it has to stop", testkit.Provider{}, func(reg *registry.Registry) func() {
			r := testkit.Bind(reg)
			return func() {
				_, _ = registry.Call(context.Background(), r, func(ctx context.Context, _ testkit.ChatModel) (<-chan struct{}, error) { return ctx.Done(), nil })
			}
		}, 12},
		{"Call that all hooks skip", untimed, func(reg *registry.Registry) func() {
			seen := func(context.Context, registry.CallReport) { t.Fatal("skipped") }
			if _, err := reg.AddHooks(registry.Hooks{Skip: func(context.Context) bool { return true }, AfterCall: seen}); err != nil {
				t.Fatal(err)
			}
			return calling(reg)
		}, 0},
		{"Call in turns", testkit.Provider{AttemptTimeout: registry.NoTimeout, Strategy: registry.StrategyRoundRobin}, calling, 0},
		{"Call of a closure over the caller's variables", untimed, func(reg *registry.Registry) func() {
			r, prompt := testkit.Bind(reg), 0
			return func() {
				prompt++
				_, _ = registry.Call(context.Background(), r, func(context.Context, testkit.ChatModel) (int, error) { return prompt, nil })
			}
		}, 0},
		{"Call with an option", testkit.Provider{}, func(reg *registry.Registry) func() {
			r := testkit.Bind(reg)
			return func() { _, _ = registry.Call(context.Background(), r, testkit.Return, registry.OnceOnly()) }
		}, 1},
		{"Call with retries and a bulkhead", testkit.Provider{
			Retry: registry.RetryPolicy{Retries: 2}, Limits: registry.LimitPolicy{MaxConcurrent: 2},
		}, calling, 1},
		{"Acquire and Done", untimed, func(reg *registry.Registry) func() {
			r := testkit.Bind(reg)
			return func() {
				lease, err := r.Acquire(context.Background())
				if err != nil {
					t.Fatal(err)
				}
				lease.Done(nil)
			}
		}, 2},
		{"Acquire and Done with a timeout", testkit.Provider{}, func(reg *registry.Registry) func() {
			r := testkit.Bind(reg)
			return func() {
				lease, err := r.Acquire(context.Background(), registry.AttemptTimeout(time.Hour))
				if err != nil {
					t.Fatal(err)
				}
				lease.Done(nil)
			}
		}, 2},
	} {
		reg := populated(t, 100, 50, c.p)
		require.LessOrEqual(t, testing.AllocsPerRun(1000, c.do(reg)), c.want, c.name)
	}
}

func TestCall_ChoosingByStrategyAllocatesNothing(t *testing.T) { //nolint:paralleltest // AllocsPerRun counts all goroutines
	for _, strategy := range append(selectors.All(), testkit.NewLast()) {
		for _, n := range []int{8, 100} {
			reg := populated(t, n, n/4, testkit.Provider{Strategy: strategy, AttemptTimeout: registry.NoTimeout})
			require.Zero(t, testing.AllocsPerRun(1000, getting(reg)), "%v of %d: Get", strategy, n)
			require.Zero(t, testing.AllocsPerRun(1000, calling(reg)), "%v of %d: Call", strategy, n)
			keyed := testkit.Chat.Bind(reg, registry.Query{Key: "session", Where: selection.Requirements{MaxLatency: time.Minute}})
			require.Zero(t, testing.AllocsPerRun(1000, func() { _, _ = registry.Call(context.Background(), keyed, testkit.Return) }), "%v of %d", strategy, n)
		}
	}
}

func TestGet_RefusalAllocatesErrorAndCandidates(t *testing.T) { //nolint:paralleltest // AllocsPerRun counts all goroutines
	reg := populated(t, 8, 0, testkit.Provider{})
	for info := range reg.All() {
		registration, _ := reg.Provider("chat", info.Name)
		require.NoError(t, registration.ForceOpen(time.Hour, "test"))
	}
	require.LessOrEqual(t, testing.AllocsPerRun(1000, calling(reg)), 2.0)
}

func getting(reg *registry.Registry) func() {
	r := testkit.Bind(reg)
	return func() { _, _ = r.Get(context.Background()) }
}

func calling(reg *registry.Registry) func() {
	r := testkit.Bind(reg)
	return func() { _, _ = registry.Call(context.Background(), r, testkit.Return) }
}

func TestAddHooks_CallsPayNothingOnceRemoved(t *testing.T) { //nolint:paralleltest // AllocsPerRun counts all goroutines
	reg := testkit.New(t, registry.Options{})
	testkit.Add(t, reg, testkit.Provider{Name: "p", AttemptTimeout: registry.NoTimeout})
	r := testkit.Bind(reg)
	ask := func() { _, _ = registry.Call(t.Context(), r, testkit.Return) }
	remove, err := reg.AddHooks(registry.Hooks{AfterCall: func(context.Context, registry.CallReport) {}})
	require.NoError(t, err)
	require.NotZero(t, testing.AllocsPerRun(100, ask))
	remove()
	require.Zero(t, testing.AllocsPerRun(100, ask))
}

// What keeps the others away, if anything: bad health, a place that is taken, nothing.
func TestCall_ObservedCostsTheSameWithTenAndTenThousandProviders(t *testing.T) { //nolint:paralleltest // it counts what all goroutines allocate
	for name, p := range map[string]testkit.Provider{
		"down":  {},
		"free":  {},
		"limit": {Limits: registry.LimitPolicy{MaxConcurrent: 1}},
	} {
		cost := func(size int) (allocations, bytes float64) {
			down := 0
			if name == "down" {
				down = size - 1
			}
			reg := populated(t, size, down, p)
			_, err := reg.AddHooks(registry.Hooks{AfterCall: func(context.Context, registry.CallReport) {}})
			require.NoError(t, err)
			r := testkit.Bind(reg)
			mustCall(r)
			const calls = 100
			return testing.AllocsPerRun(calls, func() { mustCall(r) }), float64(bytesOf(func() {
				for range calls {
					mustCall(r)
				}
			})) / calls
		}
		allocations, bytes := cost(10)
		allocationsOfMany, bytesOfMany := cost(10_000)
		t.Logf("%s: %v allocations, %v bytes", name, allocations, bytes)
		require.InDelta(t, allocations, allocationsOfMany, 0, name)
		require.InDelta(t, bytes, bytesOfMany, 64, name)
	}
}

//go:build !race

package registry_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/selection"
	"github.com/capreg/registry/selectors"
)

// The race detector allocates by itself, so these run without it.
func TestPickingAndCallingAllocateNoMoreThanPromised(t *testing.T) { //nolint:paralleltest // AllocsPerRun counts all goroutines
	query := registry.Query{Require: []string{"chat", "tools"}}
	capable := provider{Capabilities: []string{"tools", "chat"}}
	untimed := provider{AttemptTimeout: registry.NoTimeout}
	turns := provider{Strategy: registry.StrategyRoundRobin}
	for _, c := range []struct {
		name string
		p    provider
		do   func(*registry.Registry) func()
		want float64
	}{
		{"Get", provider{}, getting, 0},
		{"Get in turns", turns, getting, 0},
		{"Get with a query that is given each time", capable, func(reg *registry.Registry) func() {
			return func() {
				if _, err := chat.Get(context.Background(), reg, query); err != nil {
					t.Fatal(err)
				}
			}
		}, 0},
		{"Call without timeout", untimed, calling, 0},
		{"Call with a timeout that nobody asks about", provider{}, calling, 1},
		{"Call of a function that asks its context whether it has to stop", provider{}, func(reg *registry.Registry) func() {
			r := bind(reg)
			return func() {
				_, _ = registry.Call(context.Background(), r, func(ctx context.Context, _ chatModel) (<-chan struct{}, error) { return ctx.Done(), nil })
			}
		}, 7},
		{"Call in turns", provider{AttemptTimeout: registry.NoTimeout, Strategy: registry.StrategyRoundRobin}, calling, 0},
		{"Call of a closure over the caller's variables", untimed, func(reg *registry.Registry) func() {
			r, prompt := bind(reg), 0
			return func() {
				prompt++
				_, _ = registry.Call(context.Background(), r, func(context.Context, chatModel) (int, error) { return prompt, nil })
			}
		}, 0},
		{"Call with an option", provider{}, func(reg *registry.Registry) func() {
			r := bind(reg)
			return func() { _, _ = registry.Call(context.Background(), r, nothing, registry.OnceOnly()) }
		}, 1},
		{"Call with retries and a bulkhead", provider{
			Retry: registry.RetryPolicy{Retries: 2}, Limits: registry.LimitPolicy{MaxConcurrent: 2},
		}, calling, 1},
		{"Acquire and Done", untimed, func(reg *registry.Registry) func() {
			r := bind(reg)
			return func() {
				lease, err := r.Acquire(context.Background())
				if err != nil {
					t.Fatal(err)
				}
				lease.Done(nil)
			}
		}, 5},
	} {
		reg := populated(t, 100, 50, c.p)
		require.LessOrEqual(t, testing.AllocsPerRun(1000, c.do(reg)), c.want, c.name)
	}
}

func TestChoosingAllocatesNothing(t *testing.T) { //nolint:paralleltest // AllocsPerRun counts all goroutines
	for _, strategy := range append(selectors.All(), last()) {
		for _, n := range []int{8, 100} {
			reg := populated(t, n, n/4, provider{Strategy: strategy, AttemptTimeout: registry.NoTimeout})
			require.Zero(t, testing.AllocsPerRun(1000, getting(reg)), "%v of %d: Get", strategy, n)
			require.Zero(t, testing.AllocsPerRun(1000, calling(reg)), "%v of %d: Call", strategy, n)
			keyed := chat.Bind(reg, registry.Query{Key: "session", Where: selection.Requirements{MaxLatency: time.Minute}})
			require.Zero(t, testing.AllocsPerRun(1000, func() { _, _ = registry.Call(context.Background(), keyed, nothing) }), "%v of %d", strategy, n)
		}
	}
}

func TestARefusalAllocatesItsErrorAndItsCandidates(t *testing.T) { //nolint:paralleltest // AllocsPerRun counts all goroutines
	reg := populated(t, 8, 0, provider{})
	for info := range reg.All() {
		registration, _ := reg.Provider(info.Name)
		require.NoError(t, registration.ForceOpen(time.Hour, "test"))
	}
	require.LessOrEqual(t, testing.AllocsPerRun(1000, calling(reg)), 2.0)
}

func getting(reg *registry.Registry) func() {
	r := bind(reg)
	return func() { _, _ = r.Get(context.Background()) }
}

func calling(reg *registry.Registry) func() {
	r := bind(reg)
	return func() { _, _ = registry.Call(context.Background(), r, nothing) }
}

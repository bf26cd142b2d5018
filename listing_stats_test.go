package registry_test

import (
	"context"
	"encoding/json"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/health"
	"github.com/capreg/registry/internal/testkit"
	"github.com/capreg/registry/reason"
	"github.com/capreg/registry/status"
	"github.com/capreg/registry/verdict"
)

// Each provider counts once, by the code that its Info has; those that drain are apart.
func TestStats_CountsProvidersByCode(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		require.Empty(t, reg.Stats().ByCode)
		add := func(p testkit.Provider) *registry.Registration {
			p.Handler = p.Name // so that each can be asked alone
			return testkit.Add(t, reg, p)
		}
		ask := func(name string) {
			_, _ = testkit.Ask(t.Context(), testkit.Chat.Bind(reg, registry.Query{Handler: name}))
		}
		add(testkit.Provider{Name: "fine"})
		add(testkit.Provider{Name: "also fine"})
		add(testkit.Provider{Name: "idle", NoTraffic: true})
		require.NoError(t, add(testkit.Provider{Name: "ill"}).MarkUnhealthy(testkit.ErrDown))
		half := add(testkit.Provider{Name: "half"})
		busy := add(testkit.Provider{Name: "on trial"})
		require.NoError(t, half.ForceOpen(time.Second, "test"))
		require.NoError(t, busy.ForceOpen(time.Second, "test"))
		testkit.Pass(time.Second + 1)
		lease, err := testkit.Chat.Bind(reg, registry.Query{Handler: "on trial"}).Acquire(t.Context())
		require.NoError(t, err)
		require.NoError(t, add(testkit.Provider{Name: "open"}).ForceOpen(time.Hour, "test"))
		add(testkit.Provider{Name: "cooling", Instance: testkit.Fails(verdict.RateLimited(testkit.ErrDown, time.Hour))})
		add(testkit.Provider{Name: "parked", Instance: testkit.Fails(verdict.Fatal(testkit.ErrDown, 0))})
		ask("cooling")
		ask("parked")
		add(testkit.Provider{Name: "not made", Factory: func(context.Context) (testkit.ChatModel, error) { return nil, testkit.ErrDown }})
		ask("not made")
		add(testkit.Provider{Name: "starting", Health: health.Policy{
			Probe: func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() },
		}})
		leaving := add(testkit.Provider{Name: "leaving"})
		last, err := testkit.Chat.Bind(reg, registry.Query{Handler: "leaving"}).Acquire(t.Context())
		require.NoError(t, err)
		go func() { _ = leaving.Unregister(context.Background()) }()
		synctest.Wait()

		stats := reg.Stats()
		require.Equal(t, map[reason.Code]int{
			reason.Eligible: 2, reason.NoTraffic: 1, reason.Unhealthy: 1, reason.Trial: 1, reason.TrialsFull: 1, reason.BreakerOpen: 1,
			reason.CoolingDown: 1, reason.Parked: 1, reason.NotReady: 1, reason.Starting: 1,
		}, stats.ByCode)
		require.Equal(t, 11, stats.Providers)
		require.Equal(t, 3, stats.Eligible)
		require.Equal(t, 1, stats.Draining)
		byInfo := make(map[reason.Code]int)
		for info := range reg.All() {
			byInfo[info.Code]++
		}
		require.Equal(t, byInfo, stats.ByCode)

		text, err := json.Marshal(stats)
		require.NoError(t, err)
		var read status.Totals
		require.NoError(t, json.Unmarshal(text, &read))
		require.Equal(t, stats, read)
		lease.Done(nil)
		last.Done(nil)
		synctest.Wait()
		require.Zero(t, reg.Stats().Draining)
	})
}

package registry_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/health"
	"github.com/capreg/registry/internal/testkit"
	"github.com/capreg/registry/startup"
)

// A query can lack a provider, a capability, or one that is well; it can be answered now or later, and asked of a zero
// resolver, with a nil context or one that has ended, and on a registry that closes.
func TestReady_IsAskedOfAQuery(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		model, sees := testkit.Bind(reg), testkit.Bind(reg, "vision")
		require.ErrorIs(t, model.Ready(), registry.ErrUnavailable)
		a := testkit.Add(t, reg, testkit.Provider{Name: "a"})
		require.NoError(t, model.Ready())
		var missing *registry.UnavailableError
		require.ErrorAs(t, sees.Ready(), &missing)
		require.Equal(t, "a", missing.Candidates()[0].Provider)
		require.NotEmpty(t, missing.Candidates()[0].Reason)

		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		err := sees.WaitReady(ctx)
		require.ErrorIs(t, err, registry.ErrNotReady)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.ErrorAs(t, err, &missing)
		testkit.RequireOneLine(t, err)

		began := time.Now()
		time.AfterFunc(time.Minute, func() { testkit.Add(t, reg, testkit.Provider{Name: "b", Capabilities: []string{"vision"}}) })
		require.NoError(t, sees.WaitReady(t.Context()))
		require.Equal(t, time.Minute, time.Since(began))

		require.NoError(t, a.MarkUnhealthy(testkit.ErrDown))
		require.NoError(t, model.Ready(), "b can")
		before := reg.Stats()
		require.NoError(t, model.Ready())
		require.Equal(t, before, reg.Stats(), "it is no look-up")

		var zero *registry.Resolver[testkit.ChatModel]
		require.ErrorIs(t, zero.Ready(), registry.ErrInvalid)
		require.ErrorIs(t, zero.WaitReady(t.Context()), registry.ErrInvalid)
		require.ErrorIs(t, model.WaitReady(nil), registry.ErrInvalid) //nolint:staticcheck // that is the test
		require.NoError(t, reg.Close(t.Context()))
		require.ErrorIs(t, model.Ready(), registry.ErrClosed)
		require.ErrorIs(t, model.WaitReady(t.Context()), registry.ErrClosed)
	})
}

// Readiness is asked by Health, by WaitReady and of a query; the stop is one of its own, or the end of a start.
func TestReady_IsFalseFromTheFirstMomentOfAStop(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		slow := registry.Component{Name: "http", Needs: startup.Capabilities("llm"), Stop: func(context.Context) error { time.Sleep(8 * time.Second); return nil }}
		o := orchestrateIn(t, reg, startup.Options{}, slow,
			registry.Component{Name: "llm", Provides: []string{"llm"}, Register: provides(testkit.Provider{Name: "llm", Instance: testkit.Says("llm")})})
		_, err := o.Start(t.Context())
		require.NoError(t, err)
		other := orchestrateIn(t, reg, startup.Options{}, registry.Component{Name: "plugin"})
		_, err = other.Start(t.Context())
		require.NoError(t, err)
		require.NoError(t, other.Stop(t.Context()))
		require.Equal(t, health.Healthy, reg.Health().State, "another one runs on")

		waits := make(chan error, 1)
		go func() { waits <- testkit.Bind(reg, "never").WaitReady(context.Background()) }()
		go func() { _ = o.Stop(context.Background()) }()
		testkit.Pass(time.Second)
		require.Equal(t, health.Unhealthy, reg.Health(health.Readiness).State)
		require.Equal(t, health.Unhealthy, reg.Health().State)
		require.Contains(t, reg.Health().Reason, "stopping")
		require.Equal(t, health.Healthy, reg.Health(health.Liveness).State)
		require.ErrorIs(t, testkit.Bind(reg).Ready(), registry.ErrClosed)
		require.ErrorIs(t, reg.WaitReady(t.Context(), testkit.Chat.Name()), registry.ErrClosed)
		require.ErrorIs(t, <-waits, registry.ErrClosed)
		testkit.MustGet(t, testkit.Bind(reg)) // what still runs still gets its providers
		testkit.Pass(time.Minute)
		require.Equal(t, health.Unhealthy, reg.Health().State)
	})
}

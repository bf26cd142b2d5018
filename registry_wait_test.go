package registry_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/health"
	"github.com/capreg/registry/internal/testkit"
)

func TestWaitReady_WaitsForFirstProbe(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		p := testkit.ProbeTarget{Err: testkit.ErrDown}
		testkit.AddProbed(t, reg, "a", &p, health.Policy{Fall: 100})
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		err := reg.WaitReady(ctx, "chat")
		require.ErrorIs(t, err, registry.ErrNotReady)
		require.ErrorIs(t, err, testkit.ErrDown)
		require.ErrorContains(t, err, "a: not ready: starting: down")
		time.AfterFunc(time.Minute, func() { p.SetErr(nil) })
		began := time.Now()
		require.NoError(t, reg.WaitReady(t.Context(), "chat"))
		require.InDelta(t, 60, time.Since(began).Seconds(), 6)
	})
}

func TestWaitReady_WithNothingRequiredReturnsAtOnce(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		require.NoError(t, reg.WaitReady(t.Context()))
	})
}

func TestWaitReady_ReturnsWhenEachServiceIsEligible(t *testing.T) {
	t.Parallel()
	other := registry.NewService[testkit.ChatModel]("other")
	testkit.Bubble(t, registry.Options{Required: []string{"chat", "other"}}, func(t *testing.T, reg *registry.Registry) {
		began := time.Now()
		var changes sync.WaitGroup
		changes.Go(func() {
			time.Sleep(time.Second)
			ill := testkit.Add(t, reg, testkit.Provider{Name: "a"})
			if err := ill.MarkUnhealthy(testkit.ErrDown); err != nil {
				t.Error(err)
			}
			time.Sleep(time.Second)
			_, err := other.Register(t.Context(), reg, testkit.Provider{Name: "b", Handler: "h", Instance: testkit.Says("b")})
			if err != nil {
				t.Error(err)
			}
			time.Sleep(time.Second)
			if err := ill.MarkHealthy(); err != nil {
				t.Error(err)
			}
		})
		require.NoError(t, reg.WaitReady(t.Context()))
		require.Equal(t, 3*time.Second, time.Since(began), "it wakes on the change, without polling")
		require.NoError(t, reg.WaitReady(t.Context(), "chat"))
		changes.Wait()
	})
}

func TestWaitReady_WakesWhenBreakerRecovers(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a := testkit.Add(t, reg, testkit.Provider{Name: "a"})
		require.NoError(t, a.ForceOpen(time.Minute, "test"))
		began := time.Now()
		require.NoError(t, reg.WaitReady(t.Context(), "chat"))
		require.Equal(t, time.Minute+time.Nanosecond, time.Since(began))
	})
}

func TestWaitReady_NamesWhatIsMissing(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a := testkit.Add(t, reg, testkit.Provider{Name: "a"})
		require.NoError(t, a.MarkUnhealthy(testkit.ErrDown))
		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Second, errors.New("start-up budget"))
		defer cancel()
		err := reg.WaitReady(ctx, "chat", "nowhere")
		testkit.RequireOneLine(t, err)
		for _, target := range []error{
			registry.ErrNotReady, registry.ErrUnavailable, registry.ErrUnhealthy, registry.ErrUnknownService,
			testkit.ErrDown, context.DeadlineExceeded,
		} {
			require.ErrorIs(t, err, target)
		}
		require.ErrorContains(t, err, `service "chat": a: unhealthy: down`)
		require.ErrorContains(t, err, `service "nowhere": unknown service`)
		require.ErrorContains(t, err, "start-up budget")
		require.ErrorIs(t, reg.WaitReady(t.Context(), ""), registry.ErrInvalid)
	})
}

func TestWaitReady_EndsWithClose(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		reg := testkit.New(t, registry.Options{})
		var waiting sync.WaitGroup
		waiting.Go(func() { require.ErrorIs(t, reg.WaitReady(t.Context(), "chat"), registry.ErrClosed) })
		synctest.Wait()
		require.NoError(t, reg.Close(t.Context()))
		waiting.Wait()
	})
}

package registry_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/internal/testkit"
	"github.com/capreg/registry/verdict"
)

func TestAcquireAll_DoesNotLeaseReplacedTwice(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		testkit.Add(t, reg, testkit.Provider{Name: "a"})
		testkit.Add(t, reg, testkit.Provider{Name: "b", Factory: func(context.Context) (testkit.ChatModel, error) {
			return replaceBoth(t, reg), nil //nolint:contextcheck // a registration has none of its own
		}})
		testkit.Add(t, reg, testkit.Provider{Name: "c"})
		require.Equal(t, []string{"a says a", "b says b", "c says new c"}, testkit.LeaseAll(t, testkit.Bind(reg)))
	})
}

func TestAcquireAll_LeasesSuccessorOfRefused(t *testing.T) {
	t.Parallel()
	var denied sync.Map
	denied.Store("a", testkit.ErrDown)
	authorize := func(_ context.Context, _, _, name string) error {
		err, _ := denied.Load(name)
		is, _ := err.(error)
		return is
	}
	testkit.Bubble(t, registry.Options{Authorize: authorize}, func(t *testing.T, reg *registry.Registry) {
		testkit.Add(t, reg, testkit.Provider{Name: "a"})
		testkit.Add(t, reg, testkit.Provider{Name: "b", Factory: func(context.Context) (testkit.ChatModel, error) {
			denied.Delete("a")
			return replaceBoth(t, reg), nil //nolint:contextcheck // a registration has none of its own
		}})
		testkit.Add(t, reg, testkit.Provider{Name: "c"})
		require.Equal(t, []string{"b says b", "a says new a", "c says new c"}, testkit.LeaseAll(t, testkit.Bind(reg)))
	})
}

func TestAcquireAll_AuthorizesEachOnce(t *testing.T) {
	t.Parallel()
	asked := map[string]int{}
	authorize := func(_ context.Context, _, _, name string) error { asked[name]++; return nil }
	testkit.Bubble(t, registry.Options{Authorize: authorize}, func(t *testing.T, reg *registry.Registry) {
		r := testkit.Bind(reg)
		testkit.Add(t, reg, testkit.Provider{Name: "a", Limits: registry.LimitPolicy{MaxConcurrent: 1}})
		held, err := r.Acquire(t.Context())
		require.NoError(t, err)
		defer held.Done(nil)
		clear(asked)
		testkit.Add(t, reg, replacedByFactory(t, reg, "b", testkit.Provider{}))
		require.Equal(t, []string{"b says b"}, testkit.LeaseAll(t, r))
		require.Equal(t, 1, asked["a"])
	})
}

func TestMoveOn_WaitsForCooldownAfterRestart(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		testkit.Add(t, reg, replacedByFactory(t, reg, "a", testkit.Provider{}))
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		lease, err := testkit.Bind(reg).Acquire(ctx, registry.WaitForCooldown())
		require.NoError(t, err)
		next, err := lease.MoveOn(verdict.RateLimited(testkit.ErrDown, 10*time.Second))
		require.NoError(t, err)
		next.Done(nil)
	})
}

func TestMoveOn_FindsReplacementOfNext(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		testkit.Add(t, reg, testkit.Provider{Name: "a"})
		testkit.Add(t, reg, replacedByFactory(t, reg, "b", testkit.Provider{Instance: testkit.Says("new b")}))
		testkit.Add(t, reg, testkit.Provider{Name: "worse", Group: 1})
		lease, err := testkit.Bind(reg).Acquire(t.Context())
		require.NoError(t, err)
		next, err := lease.MoveOn(testkit.ErrDown)
		require.NoError(t, err)
		defer next.Done(nil)
		require.Equal(t, "b", next.Provider())
	})
}

func TestBeside_DoesNotLeaseTwiceWhileWaiting(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		testkit.Add(t, reg, testkit.Provider{Name: "a"})
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		lease, err := testkit.Bind(reg).Acquire(ctx, registry.WaitForCooldown())
		require.NoError(t, err)
		time.AfterFunc(5*time.Second, func() { lease.Done(nil) })
		began := time.Now()
		_, err = lease.Steps().Beside()
		require.Error(t, err)
		require.Zero(t, time.Since(began))
		testkit.Pass(10 * time.Second)
	})
}

func TestMoveOn_TakesNoSecondTurnWhenTheSearchStartsOver(t *testing.T) {
	t.Parallel()
	var replace func(provider string)
	testkit.Bubble(t, registry.Options{Authorize: func(_ context.Context, _, _, provider string) error {
		if replace != nil {
			replace(provider)
		}
		return nil
	}}, func(t *testing.T, reg *registry.Registry) {
		for _, name := range []string{"a", "b", "c", "d"} {
			testkit.Add(t, reg, testkit.Provider{Name: name, Strategy: registry.StrategyRoundRobin})
		}
		r := testkit.Bind(reg)
		lease, err := r.Acquire(t.Context())
		require.NoError(t, err)
		require.Equal(t, "a", lease.Provider())
		replace = func(provider string) {
			replace = nil
			bad := testkit.Add(t, reg, testkit.Provider{Name: "bad", Group: -1})
			require.NoError(t, bad.MarkUnhealthy(testkit.ErrDown))
			testkit.Add(t, reg, testkit.Provider{Name: provider, Strategy: registry.StrategyRoundRobin, Replace: true})
		}
		lease, err = lease.MoveOn(testkit.ErrDown)
		require.NoError(t, err)
		lease.Done(nil)
		require.Equal(t, "b", lease.Provider())
		require.Equal(t, "b", testkit.MustAsk(t, r), "the call has taken one turn, that of a")
	})
}

package registry_test

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/internal/testkit"
	"github.com/capreg/registry/verdict"
)

func TestAcquireAll_LeasesAllInOrder(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		late := testkit.Add(t, reg, testkit.Provider{Name: "late", Group: 3})
		first := testkit.Add(t, reg, testkit.Provider{Name: "first", Priority: registry.PriorityCritical})
		ill := testkit.Add(t, reg, testkit.Provider{Name: "ill"})
		require.NoError(t, ill.MarkUnhealthy(testkit.ErrDown))
		leases, err := testkit.Bind(reg).AcquireAll(t.Context(), 0)
		require.NoError(t, err)
		require.Len(t, leases, 2)
		require.Equal(t, "first", leases[0].Provider())
		require.Equal(t, "late", leases[1].Provider())
		leases[0].Done(nil)
		leases[1].Done(testkit.ErrDown)
		testkit.RequireCounts(t, first, 1, 0, 0, 0)
		testkit.RequireCounts(t, late, 0, 1, 0, 0)
		leases, err = testkit.Bind(reg).AcquireAll(t.Context(), 1)
		require.NoError(t, err)
		require.Len(t, leases, 1)
		leases[0].Done(nil)
		_, err = testkit.Bind(reg, "nothing has this").AcquireAll(t.Context(), 0)
		require.ErrorIs(t, err, registry.ErrNoCapability)
	})
}

func TestAcquireAll_IsOneCallForHooks(t *testing.T) {
	t.Parallel()
	var before, after atomic.Int32
	testkit.Bubble(t, registry.Options{
		Hooks: registry.Hooks{
			BeforeCall: func(ctx context.Context, _ registry.CallReport) context.Context { before.Add(1); return ctx },
			AfterCall:  func(context.Context, registry.CallReport) { after.Add(1) },
		},
	}, func(t *testing.T, reg *registry.Registry) {
		for _, n := range []string{"a", "b", "c"} {
			testkit.Add(t, reg, testkit.Provider{Name: n})
		}
		ls, err := testkit.Bind(reg).AcquireAll(t.Context(), 0)
		require.NoError(t, err)
		for _, l := range ls {
			l.Done(nil)
		}
		require.Equal(t, before.Load(), after.Load())
	})
}

func TestAcquireAll_EachLeaseHoldsItsOwnPlace(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		testkit.Add(t, reg, testkit.Provider{Name: "a", Limits: one})
		testkit.Add(t, reg, testkit.Provider{Name: "b"}) // no limits
		r := testkit.Bind(reg)
		leases, err := r.AcquireAll(t.Context(), 0)
		require.NoError(t, err)
		require.Len(t, leases, 2)
		leases[1].Done(nil) // b's
		inside := 1         // a's first lease is still held
		l, err := r.Acquire(t.Context())
		require.NoError(t, err)
		if l.Provider() == "a" {
			inside++
		}
		require.Equal(t, 1, inside, "attempts inside a, whose MaxConcurrent is 1")
		l.Done(nil)
		leases[0].Done(nil)
		l, err = r.Acquire(t.Context())
		require.NoError(t, err)
		require.Equal(t, "a", l.Provider(), "a is idle")
		l.Done(nil)
	})
}

func TestAcquireAll_ReturnsPlacesOnce(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		testkit.Add(t, reg, testkit.Provider{Name: "a", Limits: one})
		testkit.Add(t, reg, testkit.Provider{Name: "b"}) // no limits
		r := testkit.Bind(reg)
		leases, err := r.AcquireAll(t.Context(), 0)
		require.NoError(t, err)
		for _, l := range leases {
			l.Done(nil)
		}
		got := testkit.MustAsk(t, r)
		require.Equal(t, "a", got, "a is idle and healthy")
	})
}

func TestAcquireAll_FullProvidersAreAtCapacity(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		testkit.Add(t, reg, testkit.Provider{Name: "a", Limits: one})
		r := testkit.Bind(reg)
		l, err := r.Acquire(t.Context())
		require.NoError(t, err)
		_, err = r.AcquireAll(t.Context(), 0)
		require.ErrorIs(t, err, registry.ErrAtCapacity)
		l.Done(nil)
	})
}

func TestAcquireAll_WritesReportOnce(t *testing.T) {
	t.Parallel()
	reg := testkit.New(t, registry.Options{})
	testkit.Add(t, reg, testkit.Provider{Name: "a"})
	testkit.Add(t, reg, testkit.Provider{Name: "b"})
	r := testkit.Bind(reg)
	var report registry.CallReport
	leases, err := r.AcquireAll(t.Context(), 0, registry.ReportTo(&report))
	require.NoError(t, err)
	var all sync.WaitGroup
	for _, l := range leases {
		all.Go(func() { l.Done(nil) })
	}
	all.Wait()
	require.NoError(t, reg.Close(t.Context()))
}

func TestAcquireAll_MoveOnLeasesNoneTwice(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		testkit.Add(t, reg, testkit.Provider{Name: "a"})
		testkit.Add(t, reg, testkit.Provider{Name: "b"})
		leases, err := testkit.Bind(reg).AcquireAll(t.Context(), 0)
		require.NoError(t, err)
		require.Len(t, leases, 2)
		again, err := leases[0].Steps().Beside()
		name := ""
		if err == nil {
			name = again.Provider()
			again.Done(nil)
		}
		leases[0].Done(nil)
		leases[1].Done(nil)
		require.Error(t, err, "no provider is leased twice: %q", name)
	})
}

func TestAcquireAll_LeaseMovesOnToNextProvider(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		testkit.Add(t, reg, testkit.Provider{Name: "a"})
		testkit.Add(t, reg, testkit.Provider{Name: "b"})
		leases, err := testkit.Bind(reg).AcquireAll(t.Context(), 1)
		require.NoError(t, err)
		next, err := leases[0].MoveOn(testkit.ErrDown)
		require.NoError(t, err)
		name := next.Provider()
		next.Done(nil)
		require.Equal(t, "b", name, "the next provider")
	})
}

func TestAcquireAll_PermanentErrorEndsOthersAndAnswerDoesNot(t *testing.T) {
	t.Parallel()
	for name, outcome := range map[string]error{"answer": nil, "mistake": verdict.Permanent(testkit.ErrDown)} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
				for _, name := range []string{"a", "b", "c"} {
					testkit.Add(t, reg, testkit.Provider{Name: name})
				}
				leases, err := testkit.Bind(reg).AcquireAll(t.Context(), 2)
				require.NoError(t, err)
				leases[0].Done(outcome)
				next, err := leases[1].MoveOn(testkit.ErrDown)
				if outcome != nil {
					require.Nil(t, next)
					require.ErrorIs(t, err, testkit.ErrDown)
					return
				}
				require.NoError(t, err)
				require.Equal(t, "c", next.Provider())
				next.Done(nil)
			})
		})
	}
}

package registry_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/internal/testkit"
	"github.com/capreg/registry/reason"
	"github.com/capreg/registry/selection"
	"github.com/capreg/registry/selectors"
	"github.com/capreg/registry/verdict"
)

var errNotYours = errors.New("not\nyours")

// denyKey is the key of a context whose caller may ask nothing.
type denyKey struct{}

// Variants: a denial for one caller, for a value of the context, by a panic and by an exit of the goroutine.
func TestExplain_ShowsWhatTheAuthoriserRefuses(t *testing.T) {
	t.Parallel()
	options := registry.Options{Authorize: func(ctx context.Context, caller, _, provider string) error {
		switch {
		case ctx.Value(denyKey{}) != nil, caller == "guest" && provider == "a":
			return errNotYours
		case caller == "panics" && provider == "a":
			panic("ouch")
		}
		return nil
	}}
	testkit.Bubble(t, options, func(t *testing.T, reg *registry.Registry) {
		testkit.Add(t, reg, testkit.Provider{Name: "a"})
		testkit.Add(t, reg, testkit.Provider{Name: "b"})
		r := testkit.Bind(reg)
		require.Equal(t, "a", r.Explain().Winner)
		for _, caller := range []string{"guest", "panics"} {
			e := r.ExplainFor(t.Context(), registry.Caller(caller))
			require.Equal(t, "b", e.Winner, caller)
			require.Equal(t, reason.Denied, e.Candidates[0].Code)
			require.ErrorIs(t, e.Candidates[0].Err, registry.ErrDenied)
			require.NotContains(t, e.Candidates[0].Reason, "\n")
			require.Equal(t, reason.Eligible, e.Candidates[1].Code)
			require.Equal(t, "b", testkit.MustAsk(t, r, registry.Caller(caller)))
		}
		denied := context.WithValue(t.Context(), denyKey{}, true)
		e := r.ExplainFor(denied)
		require.Empty(t, e.Winner)
		for _, c := range e.Candidates {
			require.Equal(t, reason.Denied, c.Code)
			require.ErrorIs(t, c.Err, errNotYours)
		}
		_, err := testkit.Ask(denied, r)
		require.ErrorIs(t, err, registry.ErrDenied)

		handler := testkit.Chat.Bind(reg, registry.Query{Handler: "guest"})
		require.Equal(t, "b", handler.Explain().Winner, "the handler is the caller")
	})
}

// The authoriser is asked about none that something else keeps away, about each of the others once, and may use the registry.
func TestExplain_AsksTheAuthoriserOnceWithoutALock(t *testing.T) {
	t.Parallel()
	var reg *registry.Registry
	var asked []string
	options := registry.Options{Authorize: func(_ context.Context, _, _, provider string) error {
		asked = append(asked, provider)
		_ = reg.Stats()
		_ = slices.Collect(reg.All())
		_ = reg.Health()
		return errNotYours
	}}
	testkit.Bubble(t, options, func(t *testing.T, made *registry.Registry) {
		reg = made
		testkit.Add(t, reg, testkit.Provider{Name: "a"})
		testkit.Add(t, reg, testkit.Provider{Name: "b"})
		ill := testkit.Add(t, reg, testkit.Provider{Name: "c"})
		require.NoError(t, ill.MarkUnhealthy(testkit.ErrDown))
		require.Empty(t, testkit.Bind(reg).Explain().Winner)
		require.Equal(t, []string{"a", "b"}, asked)
		require.Equal(t, reason.Unhealthy, testkit.Bind(reg).Explain().Candidates[2].Code)
	})
}

func TestExplainFor_RefusesWhatACallRefuses(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		testkit.Add(t, reg, testkit.Provider{Name: "a"})
		r := testkit.Bind(reg)
		gone := errors.New("gone")
		ended, end := context.WithCancelCause(t.Context())
		end(gone)
		var none *registry.Resolver[testkit.ChatModel]
		for name, test := range map[string]struct {
			explained registry.Explanation
			matches   error
		}{
			"no context":    {r.ExplainFor(nil), registry.ErrInvalid}, //nolint:staticcheck // on purpose
			"ended context": {r.ExplainFor(ended), context.Canceled},
			"its cause":     {r.ExplainFor(ended), gone},
			"bad option":    {r.ExplainFor(t.Context(), registry.AttemptTimeout(-1)), registry.ErrInvalid},
			"bad caller":    {r.ExplainFor(t.Context(), registry.Caller("\n")), registry.ErrInvalid},
			"no resolver":   {none.ExplainFor(t.Context()), registry.ErrInvalid},
		} {
			require.ErrorIs(t, test.explained.Err, test.matches, name)
			require.Empty(t, test.explained.Winner, name)
			require.Empty(t, test.explained.Candidates, name)
		}
	})
}

func TestExplainFor_HeedsTheKeyOfTheContext(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		for _, name := range []string{"a", "b", "c", "d"} {
			testkit.Add(t, reg, testkit.Provider{Name: name, Strategy: selectors.Sticky()})
		}
		r := testkit.Bind(reg)
		seen := make(map[string]bool)
		for i := range 64 {
			ctx := selection.WithKey(t.Context(), strconv.Itoa(i))
			winner := r.ExplainFor(ctx).Winner
			answer, err := testkit.Ask(ctx, r)
			require.NoError(t, err)
			require.Equal(t, answer, winner)
			seen[winner] = true
		}
		require.Greater(t, len(seen), 1)
	})
}

// Whatever the state, the winner is what a call of the same caller tries first, and where there is none it tries none.
func TestExplain_PredictsCallsInRandomStates(t *testing.T) {
	t.Parallel()
	for seed := range uint64(60) {
		t.Run(strconv.FormatUint(seed, 10), func(t *testing.T) {
			t.Parallel()
			random := rand.New(rand.NewPCG(seed, 15))
			chance := func(percent int) bool { return random.IntN(100) < percent }
			denied := make(map[string]bool)
			options := registry.Options{Authorize: func(_ context.Context, caller, _, provider string) error {
				if denied[caller+provider] {
					return errNotYours
				}
				return nil
			}}
			options.Selection.LeastBad = chance(30)
			testkit.Bubble(t, options, func(t *testing.T, reg *registry.Registry) {
				world := newExplainWorld(t, reg, random)
				for range 60 {
					caller := []string{"x", "y"}[random.IntN(2)]
					query := registry.Query{Handler: []string{"", "h"}[random.IntN(2)]}
					if chance(20) {
						query.Require = []string{"tools"}
					}
					denied[caller+world.names[random.IntN(len(world.names))]] = chance(40)
					world.disturb(t)
					r := testkit.Chat.Bind(reg, query)
					e := r.ExplainFor(t.Context(), registry.Caller(caller))
					require.Equal(t, e, r.ExplainFor(t.Context(), registry.Caller(caller)))
					var report registry.CallReport
					_, _ = testkit.Ask(t.Context(), r, registry.Caller(caller), registry.ReportTo(&report))
					first := ""
					if len(report.Attempts) > 0 && report.Attempts[0].Delay == 0 { // else it has waited for a place
						first = report.Attempts[0].Provider
					}
					if guessed(e) {
						require.Equal(t, first == "", e.Winner == "", "for %s: %v", caller, e)
					} else {
						require.Equal(t, first, e.Winner, "for %s: %v", caller, e)
					}
					for _, c := range e.Candidates {
						require.Contains(t, reason.Codes(), c.Code)
					}
				}
				world.end()
			})
		})
	}
}

// guessed reports whether the winner is a last resort: a provider that turns the call away moves the rotation by which
// these are picked.
func guessed(e registry.Explanation) bool {
	return slices.ContainsFunc(e.Candidates, func(c registry.Candidate) bool { return c.Provider == e.Winner && !c.Eligible })
}

// explainWorld is a registry of random providers whose states change at random.
type explainWorld struct {
	random  *rand.Rand
	reg     *registry.Registry
	names   []string
	handles []*registry.Registration
	leases  []*registry.Lease[testkit.ChatModel]
}

func newExplainWorld(t *testing.T, reg *registry.Registry, random *rand.Rand) *explainWorld {
	t.Helper()
	w := &explainWorld{random: random, reg: reg}
	strategies := append(selectors.All(), registry.StrategyFallback, registry.StrategyRoundRobin)
	ofGroup := make(map[string]selection.Strategy)
	for i := range 3 + random.IntN(6) {
		p := testkit.Provider{
			Name: fmt.Sprintf("p%d", i), Group: random.IntN(3), Handler: []string{"", "", "h"}[random.IntN(3)],
			Mock: random.IntN(6) == 0, LastResort: random.IntN(4) == 0, Weight: float64(1 + random.IntN(3)),
		}
		group := fmt.Sprint(p.Handler, p.Group)
		if _, known := ofGroup[group]; !known {
			ofGroup[group] = strategies[random.IntN(len(strategies))]
		}
		p.Strategy = ofGroup[group]
		if random.IntN(2) == 0 {
			p.Capabilities = []string{"tools"}
		}
		switch random.IntN(4) {
		case 0:
			p.Limits = registry.LimitPolicy{MaxConcurrent: 1, NoQueue: true}
		case 1:
			p.Limits = registry.LimitPolicy{MaxConcurrent: 1, MaxWait: time.Second}
		case 2:
			p.Limits = registry.LimitPolicy{Rate: 0.1, Burst: 2}
		}
		p.Instance = testkit.Answers(func() (string, error) {
			switch random.IntN(8) {
			case 0:
				return "", testkit.ErrDown
			case 1:
				return "", verdict.RateLimited(testkit.ErrDown, 10*time.Second)
			}
			return p.Name, nil
		})
		p.Breaker = registry.BreakerPolicy{FailureThreshold: 2, RecoveryTimeout: 20 * time.Second}
		w.names = append(w.names, p.Name)
		w.handles = append(w.handles, testkit.Add(t, reg, p))
	}
	return w
}

// disturb changes the state of a provider at random.
func (w *explainWorld) disturb(t *testing.T) {
	t.Helper()
	h := w.handles[w.random.IntN(len(w.handles))]
	var err error
	switch w.random.IntN(9) {
	case 0:
		err = h.MarkUnhealthy(testkit.ErrDown)
	case 1:
		err = h.MarkHealthy()
	case 2:
		err = h.ForceOpen(time.Duration(1+w.random.IntN(30))*time.Second, "test")
	case 3:
		err = h.Reset()
	case 4:
		_, err = h.SetWeight(float64(w.random.IntN(3)))
	case 5:
		if lease, failed := testkit.Bind(w.reg).Acquire(t.Context(), registry.AttemptTimeout(time.Hour)); failed == nil {
			w.leases = append(w.leases, lease)
		}
	case 6:
		for len(w.leases) > 0 {
			w.leases[0].Done(nil)
			w.leases = w.leases[1:]
		}
	case 7:
		testkit.Pass(time.Duration(w.random.IntN(20)) * time.Second)
	case 8:
		_, err = h.SetPriority([]registry.Priority{registry.PriorityCritical, registry.PriorityLow}[w.random.IntN(2)])
	}
	require.NoError(t, err)
	synctest.Wait()
}

func (w *explainWorld) end() {
	for _, lease := range w.leases {
		lease.Done(nil)
	}
}

func TestExplain_KnowsAServiceByItsNameOnly(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		testkit.Add(t, reg, testkit.Provider{Name: "a"})
		testkit.Add(t, reg, testkit.Provider{Name: "b"})
		q := registry.Query{Where: selection.Requirements{Exclude: []string{"a"}}}
		e := reg.Explain(t.Context(), "chat", q)
		require.NoError(t, e.Err)
		require.Equal(t, testkit.Chat.Bind(reg, q).Explain(), e)
		require.Equal(t, "b", e.Winner)
		require.Equal(t, "a", reg.Explain(t.Context(), "chat", registry.Query{}).Winner)

		before := reg.Stats()
		require.ErrorIs(t, reg.Explain(t.Context(), "unknown", registry.Query{}).Err, registry.ErrUnknownService)
		require.ErrorIs(t, reg.Explain(t.Context(), "chat", registry.Query{Require: []string{""}}).Err, registry.ErrInvalid)
		require.ErrorIs(t, (*registry.Registry)(nil).Explain(t.Context(), "chat", registry.Query{}).Err, registry.ErrInvalid)
		require.Equal(t, before, reg.Stats())
		_, err := registry.NewService[int]("unknown").Register(t.Context(), reg, registry.Provider[int]{Instance: 1})
		require.NoError(t, err, "the name was not bound")
	})
}

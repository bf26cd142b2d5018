package registry_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/event"
	"github.com/capreg/registry/health"
	"github.com/capreg/registry/selection"
	"github.com/capreg/registry/verdict"
)

func TestProviderThatIsSaidToBeHealthyHasAFullScoreAndNoFailures(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		p := add(t, reg, provider{Name: "p", Health: health.Policy{
			Probe: func(context.Context) error { return errDown }, Interval: time.Hour, FastInterval: time.Hour,
		}})
		pass(time.Second)
		require.Equal(t, 1, p.Health().Failures)
		require.Less(t, p.Health().Score, 1.0)
		require.NoError(t, p.MarkHealthy())
		require.Zero(t, p.Health().Failures)
		require.InDelta(t, 1, p.Health().Score, 1e-9)
		require.Equal(t, health.Healthy, p.Health().State)
	})
}

func TestGrowthOfTheOpenTimeIsBoundedByTenTimesUnlessSaidOtherwise(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		p := add(t, reg, provider{Name: "p", Breaker: registry.BreakerPolicy{RecoveryTimeout: 3 * time.Second, RecoveryGrowth: 2}})
		require.Equal(t, 30*time.Second, p.Breaker().Policy.MaxRecoveryTimeout)
		_, err := p.SetBreaker(registry.BreakerPolicy{RecoveryTimeout: 3 * time.Second, RecoveryGrowth: 2, MaxRecoveryTimeout: 3 * time.Second})
		require.NoError(t, err, "as long as the first one is enough")
		_, err = p.SetBreaker(registry.BreakerPolicy{RecoveryTimeout: 3 * time.Second, RecoveryGrowth: 2, MaxRecoveryTimeout: 3*time.Second - 1})
		require.ErrorIs(t, err, registry.ErrInvalid)
	})
}

func TestDefinitionThatIsHandedOutIsTheCallersOwn(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		p := add(t, reg, provider{
			Name: "p", Capabilities: []string{"a"}, Requires: []string{"b"}, Tags: []string{"c"}, Metadata: map[string]string{"d": "e"},
		})
		d := p.Definition()
		d.Capabilities[0], d.Requires[0], d.Tags[0], d.Metadata["d"] = "x", "x", "x", "x"
		require.Equal(t, []string{"a"}, p.Definition().Capabilities)
		require.Equal(t, []string{"b"}, p.Definition().Requires)
		require.Equal(t, []string{"c"}, p.Definition().Tags)
		require.Equal(t, map[string]string{"d": "e"}, p.Definition().Metadata)
	})
}

func TestProbeTellsOfThirtyTwoResourcesAtMost(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		p := add(t, reg, provider{Name: "p", Health: health.Policy{Probe: func(ctx context.Context) error {
			for i := range 40 {
				health.Use(ctx, fmt.Sprint("r", i), 0.1)
			}
			health.Use(ctx, "r0", 0.2) // what is known can still be told
			return nil
		}}})
		pass(time.Second)
		require.Len(t, p.Health().Usage, 32)
		require.InDelta(t, 0.2, p.Health().Usage["r0"], 1e-9)
		require.InDelta(t, 0.1, p.Health().Usage["r31"], 1e-9)
	})
}

func TestBoundsOfARetryPolicyAreIncluded(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		p := add(t, reg, provider{Name: "p"})
		for _, good := range []registry.RetryPolicy{
			{Retries: 100},
			{Refund: 0.001},
			{Refund: 1},
			{FirstDelay: time.Hour},
			{FirstDelay: time.Second, MaxDelay: time.Second},
			{Budget: 1<<31 - 1},
			{Floor: 1<<31 - 1},
		} {
			_, err := p.SetRetry(good)
			require.NoError(t, err, "%+v", good)
		}
		for _, bad := range []registry.RetryPolicy{
			{Retries: 101}, {Refund: 0.0009}, {Refund: 1.001}, {FirstDelay: time.Second, MaxDelay: time.Second - 1}, {Budget: 1 << 31}, {Floor: 1 << 31},
		} {
			_, err := p.SetRetry(bad)
			require.ErrorIs(t, err, registry.ErrInvalid, "%+v", bad)
		}
		previous, err := p.SetRetry(registry.RetryPolicy{FirstDelay: time.Minute})
		require.NoError(t, err)
		require.InDelta(t, float64(1<<31-1), previous.Floor, 0.5)
		previous, err = p.SetRetry(registry.RetryPolicy{})
		require.NoError(t, err)
		require.Equal(t, time.Minute, previous.MaxDelay, "at least the first one")
	})
}

func TestResetForgetsWhatTheWindowHolds(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		p := add(t, reg, provider{Name: "p", Instance: fails(errDown), Breaker: registry.BreakerPolicy{FailureRate: 0.5, MinimumCalls: 4}})
		for range 2 {
			for range 3 {
				_, err := ask(t.Context(), bind(reg))
				require.ErrorIs(t, err, errDown)
			}
			require.Equal(t, registry.BreakerClosed, p.Breaker().State)
			require.NoError(t, p.Reset())
		}
		trip(t, bind(reg), p)
	})
}

func TestQueryThatGaveWayLeavesTheOthersUpToDate(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		add(t, reg, provider{Name: "old", Priority: registry.PriorityLow})
		var resolvers []*registry.Resolver[chatModel]
		for i := range 300 { // more than keep their plans
			resolvers = append(resolvers, chat.Bind(reg, registry.Query{Handler: fmt.Sprint("h", i)}))
			require.Equal(t, "old", asked(t, resolvers[i]))
		}
		add(t, reg, provider{Name: "new", Priority: registry.PriorityHigh})
		for _, r := range resolvers {
			require.Equal(t, "new", asked(t, r))
		}
	})
}

func TestSlowSuccessIsReportedAsSuchAndASlowFailureAsWhatItIs(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		var outcome error
		add(t, reg, provider{
			Name: "p", Breaker: registry.BreakerPolicy{SlowRate: 1, SlowAfter: time.Second, MinimumCalls: 100},
			Instance: answers(func() (string, error) { time.Sleep(2 * time.Second); return "", outcome }),
		})
		for err, class := range map[error]verdict.Class{nil: verdict.ClassSlow, errDown: verdict.ClassUnknown} {
			outcome = err
			var report registry.CallReport
			_, _ = ask(t.Context(), bind(reg), registry.ReportTo(&report))
			require.Len(t, report.Attempts, 1)
			require.Equal(t, class, report.Attempts[0].Class)
			require.Empty(t, report.Skipped)
		}
	})
}

func TestCallThatHasWaitedDoesNotReturnToThoseWhoFailed(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		var asked []string
		limited := false
		add(t, reg, provider{Name: "a", Instance: answers(func() (string, error) {
			asked = append(asked, "a")
			if limited {
				return "", errDown
			}
			limited = true
			return "", verdict.RateLimited(errDown, time.Second)
		})})
		add(t, reg, provider{Name: "b", Instance: answers(func() (string, error) {
			asked = append(asked, "b")
			return "", errDown
		})})
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		_, err := ask(ctx, bind(reg), registry.WaitForCooldown())
		require.ErrorIs(t, err, errDown)
		require.Equal(t, []string{"a", "b", "a"}, asked)
	})
}

func TestWhoeverIsAllowedIsNotAmongThoseSkipped(t *testing.T) {
	t.Parallel()
	options := registry.Options{Authorize: func(context.Context, string, string, string) error { return nil }}
	bubble(t, options, func(t *testing.T, reg *registry.Registry) {
		add(t, reg, provider{Name: "p"})
		var report registry.CallReport
		asked(t, bind(reg), registry.ReportTo(&report))
		require.Empty(t, report.Skipped)
	})
}

// broken is a selector that panics.
type broken struct{}

func (broken) Pick(selection.View) int { panic(errDown) }

func TestFaultsOfASelectorAreToldOnceAMinute(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		strategy := selection.New("broken", broken{})
		add(t, reg, provider{Name: "a", Strategy: strategy})
		add(t, reg, provider{Name: "b"})
		events := reg.Subscribe(0)
		defer events.Close()
		told := func() (count int) {
			for _, kind := range kinds(t, events) {
				if kind == event.SelectorFailed {
					count++
				}
			}
			return count
		}
		pass(time.Hour)
		for range 5 {
			asked(t, bind(reg))
		}
		require.Equal(t, 1, told())
		pass(59 * time.Second)
		asked(t, bind(reg))
		require.Zero(t, told())
		pass(2 * time.Second)
		asked(t, bind(reg))
		require.Equal(t, 1, told())
	})
}

func TestStandInIsTriedAgainAsOftenAsItsProvider(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		add(t, reg, provider{Name: "p", Retry: registry.RetryPolicy{Retries: 2}})
		tries := 0
		defer swap(t, reg, "T", "p", answers(func() (string, error) {
			if tries++; tries < 3 {
				return "", errDown
			}
			return "third", nil
		}))()
		require.Equal(t, "third", asked(t, bind(reg)))
	})
}

func TestAnswerOfOneLeaseLetsTheOthersGoOnAndACallersMistakeDoesNot(t *testing.T) {
	t.Parallel()
	for name, outcome := range map[string]error{"answer": nil, "mistake": verdict.Permanent(errDown)} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
				for _, name := range []string{"a", "b", "c"} {
					add(t, reg, provider{Name: name})
				}
				leases, err := bind(reg).AcquireMany(t.Context(), 2)
				require.NoError(t, err)
				leases[0].Done(outcome)
				next, err := leases[1].MoveOn(errDown)
				if outcome != nil {
					require.Nil(t, next)
					require.ErrorIs(t, err, errDown)
					return
				}
				require.NoError(t, err)
				require.Equal(t, "c", next.Provider())
				next.Done(nil)
			})
		})
	}
}

func TestDomainEndsWithItsLastMember(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		one := registry.LimitPolicy{MaxConcurrent: 1, NoQueue: true}
		a := add(t, reg, provider{Name: "a", Domain: "d", Limits: one})
		b := add(t, reg, provider{Name: "b", Domain: "d"})
		require.NoError(t, a.Unregister(t.Context()))
		_, err := chat.Register(t.Context(), reg, provider{Name: "c", Instance: says("c"), Domain: "d", Limits: registry.LimitPolicy{MaxConcurrent: 2}})
		require.ErrorIs(t, err, registry.ErrConflict, "b keeps it")
		require.NoError(t, b.Unregister(t.Context()))
		add(t, reg, provider{Name: "c", Domain: "d", Limits: registry.LimitPolicy{MaxConcurrent: 2, NoQueue: true}})
		first, err := bind(reg).Acquire(t.Context())
		require.NoError(t, err)
		second, err := bind(reg).Acquire(t.Context())
		require.NoError(t, err)
		_, err = bind(reg).Acquire(t.Context())
		require.ErrorIs(t, err, registry.ErrAtCapacity)
		first.Done(nil)
		second.Done(nil)
	})
}

func TestErrorMatchesTheReasonsThatThereAreAndNoOthers(t *testing.T) {
	t.Parallel()
	reasons := []error{
		registry.ErrUnhealthy, registry.ErrBreakerOpen, registry.ErrCoolingDown, registry.ErrCredentials, registry.ErrAtCapacity,
		registry.ErrNotReady, registry.ErrClosed, registry.ErrDenied, registry.ErrNoCapability, registry.ErrUnknownService,
	}
	for name, test := range map[string]struct {
		spoil func(t *testing.T, p *registry.Registration, r *registry.Resolver[chatModel])
		is    []error
	}{
		"unhealthy": {func(t *testing.T, p *registry.Registration, _ *registry.Resolver[chatModel]) {
			t.Helper()
			require.NoError(t, p.MarkUnhealthy(errDown))
		}, []error{registry.ErrUnhealthy}},
		"open": {func(t *testing.T, p *registry.Registration, _ *registry.Resolver[chatModel]) {
			t.Helper()
			require.NoError(t, p.ForceOpen(time.Hour, "test"))
		}, []error{registry.ErrBreakerOpen}},
		"cooling": {func(t *testing.T, _ *registry.Registration, r *registry.Resolver[chatModel]) {
			t.Helper()
			lease, err := r.Acquire(t.Context())
			require.NoError(t, err)
			lease.Done(verdict.RateLimited(errDown, time.Hour))
		}, []error{registry.ErrCoolingDown}},
		"parked": {func(t *testing.T, _ *registry.Registration, r *registry.Resolver[chatModel]) {
			t.Helper()
			lease, err := r.Acquire(t.Context())
			require.NoError(t, err)
			lease.Done(verdict.Fatal(errDown, time.Hour))
		}, []error{registry.ErrCoolingDown, registry.ErrCredentials}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
				p := add(t, reg, provider{Name: "p"})
				test.spoil(t, p, bind(reg))
				_, err := ask(t.Context(), bind(reg))
				for _, reason := range reasons {
					expected := false
					for _, is := range test.is {
						expected = expected || errors.Is(is, reason)
					}
					require.Equal(t, expected, errors.Is(err, reason), "%v in %v", reason, err)
				}
				require.ErrorIs(t, err, errDownOf(name))
			})
		})
	}
}

// errDownOf is what a reason was given: nothing for a breaker that was forced open.
func errDownOf(reason string) error {
	if reason == "open" {
		return registry.ErrUnavailable
	}
	return errDown
}

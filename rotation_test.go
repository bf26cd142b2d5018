package registry_test

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
)

// ring registers round-robin providers with the given names.
func ring(t *testing.T, reg *registry.Registry, names ...string) map[string]*registry.Registration {
	t.Helper()
	all := make(map[string]*registry.Registration)
	for _, name := range names {
		all[name] = add(t, reg, provider{Name: name, Strategy: registry.StrategyRoundRobin})
	}
	return all
}

// turns returns the names that n calls are answered by.
func turns(t *testing.T, r *registry.Resolver[chatModel], n int) string {
	t.Helper()
	var text strings.Builder
	for range n {
		text.WriteString(asked(t, r))
	}
	return text.String()
}

func TestRoundRobinTakesTurnsWhateverThePriorities(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		add(t, reg, provider{Name: "c", Priority: registry.PriorityLow, Strategy: registry.StrategyRoundRobin})
		add(t, reg, provider{Name: "a", Priority: registry.PriorityCritical})
		add(t, reg, provider{Name: "b", Priority: registry.PriorityHigh})
		require.Equal(t, "abcabcabc", turns(t, bind(reg), 9))
	})
}

func TestLeasesThatMoveOnTakeTurnsInTheGroupsThatTheyComeTo(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		add(t, reg, provider{Name: "down", Group: -1, Breaker: registry.BreakerPolicy{FailureThreshold: 100}})
		for _, name := range []string{"a", "b", "c"} {
			add(t, reg, provider{
				Name: name, Strategy: registry.StrategyRoundRobin, Retry: registry.RetryPolicy{Budget: 1000},
				Breaker: registry.BreakerPolicy{FailureThreshold: 100},
			})
		}
		r := bind(reg)
		var first, second strings.Builder
		for range 6 {
			lease, err := r.Acquire(t.Context())
			require.NoError(t, err)
			require.Equal(t, "down", lease.Provider())
			lease, err = lease.MoveOn(errDown)
			require.NoError(t, err)
			first.WriteString(lease.Provider())
			lease, err = lease.MoveOn(errDown)
			require.NoError(t, err)
			second.WriteString(lease.Provider())
			lease.Done(nil)
		}
		require.Equal(t, "abcabc", first.String())
		require.Equal(t, "bcabca", second.String())
	})
}

func TestCallsAndLookupsShareOneRotation(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		ring(t, reg, "a", "b", "c")
		r := bind(reg)
		require.Equal(t, "a", asked(t, r))
		require.Equal(t, "b", got(t, r))
		lease, err := r.Acquire(t.Context())
		require.NoError(t, err)
		require.Equal(t, "c", lease.Provider())
		lease.Done(nil)
		require.Equal(t, "a", asked(t, r))
	})
}

func TestShareOfAnIneligibleMemberIsSpreadEvenly(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		all := ring(t, reg, "a", "b", "c", "d")
		r := bind(reg)
		require.Equal(t, "ab", turns(t, r, 2))
		require.NoError(t, all["c"].MarkUnhealthy(errDown))
		require.Equal(t, "dabdabdab", turns(t, r, 9))
		require.NoError(t, all["d"].ForceOpen(time.Minute, "test"))
		require.Equal(t, "abababab", turns(t, r, 8))
		require.NoError(t, all["c"].MarkHealthy())
		require.Equal(t, "cabcabcab", turns(t, r, 9))
	})
}

func TestRotationMovesOncePerCallNotPerAttempt(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		failing := fails(errDown)
		add(t, reg, provider{Name: "a", Strategy: registry.StrategyRoundRobin})
		add(t, reg, provider{Name: "b", Instance: failing, Breaker: registry.BreakerPolicy{FailureThreshold: 1000}})
		add(t, reg, provider{Name: "c"})
		// b's turns are answered by c, and c does not lose its own for that.
		require.Equal(t, "accaccacc", turns(t, bind(reg), 9))
	})
}

func TestFailoverInsideARotationAsksEachOnceFromTheOneWhoseTurnItIs(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		ring(t, reg, "a", "b", "c")
		add(t, reg, provider{Name: "last", Group: 1})
		for _, want := range []string{"a b c last", "b c a last", "c a b last", "a b c last"} {
			require.Equal(t, want, strings.Join(order(t, reg, registry.Query{}), " "))
		}
	})
}

func TestMembersThatComeAndGoNeverMakeTheRotationJump(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		all := ring(t, reg, "a", "b", "c")
		r := bind(reg)
		require.Equal(t, "ab", turns(t, r, 2))
		require.NoError(t, all["a"].Unregister(t.Context()))
		require.Equal(t, "c", turns(t, r, 1), "one before the cursor left")
		require.Equal(t, "bc", turns(t, r, 2))
		ring(t, reg, "d")
		require.Equal(t, "dbcdbc", turns(t, r, 6), "one joined behind the cursor")
		require.NoError(t, all["c"].Unregister(t.Context()))
		require.Equal(t, "dbdb", turns(t, r, 4), "the one that was picked last left")
		_, err := all["b"].SetPriority(registry.PriorityLow)
		require.NoError(t, err)
		require.ElementsMatch(t, []string{"b", "d"}, strings.Split(turns(t, r, 2), ""))
		add(t, reg, provider{Name: "e", Priority: registry.PriorityCritical})
		require.ElementsMatch(t, []string{"b", "d", "e"}, strings.Split(turns(t, r, 3), ""))
	})
}

func TestRotationSurvivesChangesElsewhere(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		ring(t, reg, "a", "b", "c")
		r := bind(reg)
		var answers strings.Builder
		for i := range 9 {
			answers.WriteString(asked(t, r))
			other := add(t, reg, provider{Name: strconv.Itoa(i), Group: 5 + i})
			if i%2 == 0 {
				require.NoError(t, other.Unregister(t.Context()))
			}
		}
		require.Equal(t, "abcabcabc", answers.String())
	})
}

func TestFlappingMemberTakesNothingFromTheOthersFairness(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		all := ring(t, reg, "a", "b", "c", "d")
		r := bind(reg)
		share := map[string]int{}
		for i := range 3000 {
			if i%3 == 0 {
				require.NoError(t, all["b"].MarkUnhealthy(errDown))
			} else {
				require.NoError(t, all["b"].MarkHealthy())
			}
			share[got(t, r)]++
		}
		require.LessOrEqual(t, share["b"], 1000)
		require.InDelta(t, share["a"], share["c"], 1)
		require.InDelta(t, share["a"], share["d"], 1)
	})
}

func TestServicesHandlersGroupsAndQueriesShareNoRotation(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		turn := registry.StrategyRoundRobin
		for _, p := range []provider{
			{Name: "a", Strategy: turn, Capabilities: []string{"x"}},
			{Name: "b", Capabilities: []string{"x", "y"}},
			{Name: "c", Capabilities: []string{"y"}},
			{Name: "g", Strategy: turn, Handler: "h"},
			{Name: "h", Handler: "h"},
		} {
			add(t, reg, p)
		}
		other := registry.NewService[chatModel]("other")
		for _, name := range []string{"m", "n"} {
			_, err := other.Register(t.Context(), reg, provider{Name: name, Instance: says(name), Strategy: turn})
			require.NoError(t, err)
		}
		resolvers := []*registry.Resolver[chatModel]{
			bind(reg), bind(reg, "x"), bind(reg, "y"), chat.Bind(reg, registry.Query{Handler: "h"}), other.Bind(reg, registry.Query{}),
		}
		want := []string{"abcabc", "ababab", "bcbcbc", "ghghgh", "mnmnmn"}
		seen := make([]string, len(resolvers))
		for range 6 { // interleaved
			for i, r := range resolvers {
				seen[i] += asked(t, r)
			}
		}
		require.Equal(t, want, seen)
	})
}

func TestRotationIsFairAmongManyGoroutines(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		all := ring(t, reg, "a", "b", "c", "d", "e")
		r := bind(reg)
		const goroutines, each = 8, 500
		var waiting sync.WaitGroup
		for range goroutines {
			waiting.Go(func() {
				for range each {
					if _, err := ask(context.Background(), r); err != nil {
						t.Error(err)
					}
				}
			})
		}
		waiting.Wait()
		for name, registration := range all {
			require.Equal(t, uint64(goroutines*each/len(all)), registration.Info().Successes, name)
		}
	})
}

func TestRotationStaysSoundWhileMembersFlapAndLeaveConcurrently(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		all := ring(t, reg, "a", "b", "c")
		steady := all["a"]
		var waiting sync.WaitGroup
		stop := make(chan struct{})
		waiting.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				_ = all["b"].MarkUnhealthy(errDown)
				extra := add(t, reg, provider{Name: "x" + strconv.Itoa(i)})
				_ = all["b"].MarkHealthy()
				if err := extra.Unregister(context.Background()); err != nil {
					t.Error(err)
				}
			}
		})
		var callers sync.WaitGroup
		for range 4 {
			callers.Go(func() {
				r := bind(reg)
				for range 2000 {
					if _, err := ask(context.Background(), r); err != nil {
						t.Error(err)
					}
				}
			})
		}
		callers.Wait()
		close(stop)
		waiting.Wait()
		require.Positive(t, steady.Info().Successes)
	})
}

// As long as one of several is eligible at any moment, a look-up finds somebody, also
// where those before it go, and those behind it come, while it looks.
func TestLookUpNeverMissesWhereSomebodyIsAlwaysEligible(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(t *testing.T, reg *registry.Registry) (again func()){
		"members replaced": func(t *testing.T, reg *registry.Registry) func() {
			t.Helper()
			return func() { add(t, reg, provider{Name: "a", Replace: true}) }
		},
		"health that flaps in turn": func(t *testing.T, reg *registry.Registry) func() {
			t.Helper()
			var all []*registry.Registration
			for i := range 200 {
				all = append(all, add(t, reg, provider{Name: strconv.Itoa(i)}))
			}
			for _, other := range all[1:] {
				require.NoError(t, other.MarkUnhealthy(errDown))
			}
			at := 0
			return func() {
				next := (at + 67) % len(all)
				require.NoError(t, all[next].MarkHealthy())
				require.NoError(t, all[at].MarkUnhealthy(errDown))
				at = next
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			reg := newRegistry(t, registry.Options{})
			again := change(t, reg)
			again()
			var over atomic.Bool
			var askers sync.WaitGroup
			for _, asks := range []func(*registry.Resolver[chatModel]) error{
				func(r *registry.Resolver[chatModel]) error { _, err := r.Many(context.Background(), 1); return err },
				func(r *registry.Resolver[chatModel]) error { _, err := r.Get(context.Background()); return err },
				func(r *registry.Resolver[chatModel]) error { _, err := ask(context.Background(), r); return err },
			} {
				askers.Go(func() {
					for r := bind(reg); !over.Load() && !t.Failed(); {
						if err := asks(r); err != nil {
							t.Error(err)
						}
					}
				})
			}
			for range 3000 {
				again()
			}
			over.Store(true)
			askers.Wait()
			require.NoError(t, reg.Close(t.Context()))
		})
	}
}

// Whoever a look-up meets may go while it is met, and leave its place to one before it.
func TestLookUpFollowsThoseWhoTakeTurnsBehindIt(t *testing.T) {
	t.Parallel()
	for name, look := range map[string]func(r *registry.Resolver[chatModel]) error{
		"Get":  func(r *registry.Resolver[chatModel]) error { _, err := r.Get(context.Background()); return err },
		"Many": func(r *registry.Resolver[chatModel]) error { _, err := r.Many(context.Background(), 0); return err },
		"Call": func(r *registry.Resolver[chatModel]) error { _, err := ask(context.Background(), r); return err },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
				last := add(t, reg, provider{Name: "a"})
				for _, name := range []string{"b", "c", "d"} {
					before := last
					last = add(t, reg, provider{Name: name, Factory: func(context.Context) (chatModel, error) {
						return nil, errors.Join(errDown, before.Reset())
					}})
					require.NoError(t, before.ForceOpen(time.Hour, "not its turn"))
				}
				require.NoError(t, look(bind(reg)))
			})
		})
	}
}

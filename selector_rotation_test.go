package registry_test

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/internal/testkit"
)

func TestRotation_IgnoresPriorities(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		testkit.Add(t, reg, testkit.Provider{Name: "c", Priority: registry.PriorityLow, Strategy: registry.StrategyRoundRobin})
		testkit.Add(t, reg, testkit.Provider{Name: "a", Priority: registry.PriorityCritical})
		testkit.Add(t, reg, testkit.Provider{Name: "b", Priority: registry.PriorityHigh})
		require.Equal(t, "abcabcabc", testkit.Turns(t, testkit.Bind(reg), 9))
	})
}

func TestRotation_MovedLeasesAdvanceLaterGroups(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		testkit.Add(t, reg, testkit.Provider{Name: "down", Group: -1, Breaker: registry.BreakerPolicy{FailureThreshold: 100}})
		for _, name := range []string{"a", "b", "c"} {
			testkit.Add(t, reg, testkit.Provider{
				Name: name, Strategy: registry.StrategyRoundRobin, Retry: registry.RetryPolicy{Budget: 1000},
				Breaker: registry.BreakerPolicy{FailureThreshold: 100},
			})
		}
		r := testkit.Bind(reg)
		var first, second strings.Builder
		for range 6 {
			lease, err := r.Acquire(t.Context())
			require.NoError(t, err)
			require.Equal(t, "down", lease.Provider())
			lease, err = lease.MoveOn(testkit.ErrDown)
			require.NoError(t, err)
			first.WriteString(lease.Provider())
			lease, err = lease.MoveOn(testkit.ErrDown)
			require.NoError(t, err)
			second.WriteString(lease.Provider())
			lease.Done(nil)
		}
		require.Equal(t, "abcabc", first.String())
		require.Equal(t, "bcabca", second.String())
	})
}

func TestRotation_IsSharedByCallsAndLookups(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		testkit.AddRing(t, reg, "a", "b", "c")
		r := testkit.Bind(reg)
		require.Equal(t, "a", testkit.MustAsk(t, r))
		require.Equal(t, "b", testkit.MustGet(t, r))
		lease, err := r.Acquire(t.Context())
		require.NoError(t, err)
		require.Equal(t, "c", lease.Provider())
		lease.Done(nil)
		require.Equal(t, "a", testkit.MustAsk(t, r))
	})
}

func TestRotation_SpreadsShareOfIneligible(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		all := testkit.AddRing(t, reg, "a", "b", "c", "d")
		r := testkit.Bind(reg)
		require.Equal(t, "ab", testkit.Turns(t, r, 2))
		require.NoError(t, all["c"].MarkUnhealthy(testkit.ErrDown))
		require.Equal(t, "dabdabdab", testkit.Turns(t, r, 9))
		require.NoError(t, all["d"].ForceOpen(time.Minute, "test"))
		require.Equal(t, "abababab", testkit.Turns(t, r, 8))
		require.NoError(t, all["c"].MarkHealthy())
		require.Equal(t, "cabcabcab", testkit.Turns(t, r, 9))
	})
}

func TestRotation_AdvancesOncePerCall(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		failing := testkit.Fails(testkit.ErrDown)
		testkit.Add(t, reg, testkit.Provider{Name: "a", Strategy: registry.StrategyRoundRobin})
		testkit.Add(t, reg, testkit.Provider{Name: "b", Instance: failing, Breaker: registry.BreakerPolicy{FailureThreshold: 1000}})
		testkit.Add(t, reg, testkit.Provider{Name: "c"})
		// b's turns are answered by c, and c does not lose its own for that.
		require.Equal(t, "accaccacc", testkit.Turns(t, testkit.Bind(reg), 9))
	})
}

func TestRotation_FailoverTriesEachOnce(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		testkit.AddRing(t, reg, "a", "b", "c")
		testkit.Add(t, reg, testkit.Provider{Name: "last", Group: 1})
		for _, want := range []string{"a b c last", "b c a last", "c a b last", "a b c last"} {
			require.Equal(t, want, strings.Join(testkit.CallOrder(t, reg, registry.Query{}), " "))
		}
	})
}

func TestRotation_MembershipChangesDoNotSkip(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		all := testkit.AddRing(t, reg, "a", "b", "c")
		r := testkit.Bind(reg)
		require.Equal(t, "ab", testkit.Turns(t, r, 2))
		require.NoError(t, all["a"].Unregister(t.Context()))
		require.Equal(t, "c", testkit.Turns(t, r, 1), "one before the cursor left")
		require.Equal(t, "bc", testkit.Turns(t, r, 2))
		testkit.AddRing(t, reg, "d")
		require.Equal(t, "dbcdbc", testkit.Turns(t, r, 6), "one joined behind the cursor")
		require.NoError(t, all["c"].Unregister(t.Context()))
		require.Equal(t, "dbdb", testkit.Turns(t, r, 4), "the one that was picked last left")
		_, err := all["b"].SetPriority(registry.PriorityLow)
		require.NoError(t, err)
		require.ElementsMatch(t, []string{"b", "d"}, strings.Split(testkit.Turns(t, r, 2), ""))
		testkit.Add(t, reg, testkit.Provider{Name: "e", Priority: registry.PriorityCritical})
		require.ElementsMatch(t, []string{"b", "d", "e"}, strings.Split(testkit.Turns(t, r, 3), ""))
	})
}

func TestRotation_SurvivesChangesElsewhere(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		testkit.AddRing(t, reg, "a", "b", "c")
		r := testkit.Bind(reg)
		var answers strings.Builder
		for i := range 9 {
			answers.WriteString(testkit.MustAsk(t, r))
			other := testkit.Add(t, reg, testkit.Provider{Name: strconv.Itoa(i), Group: 5 + i})
			if i%2 == 0 {
				require.NoError(t, other.Unregister(t.Context()))
			}
		}
		require.Equal(t, "abcabcabc", answers.String())
	})
}

func TestRotation_FlappingMemberKeepsOthersFair(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		all := testkit.AddRing(t, reg, "a", "b", "c", "d")
		r := testkit.Bind(reg)
		share := map[string]int{}
		for i := range 3000 {
			if i%3 == 0 {
				require.NoError(t, all["b"].MarkUnhealthy(testkit.ErrDown))
			} else {
				require.NoError(t, all["b"].MarkHealthy())
			}
			share[testkit.MustGet(t, r)]++
		}
		require.LessOrEqual(t, share["b"], 1000)
		require.InDelta(t, share["a"], share["c"], 1)
		require.InDelta(t, share["a"], share["d"], 1)
	})
}

func TestRotation_IsPerServiceHandlerGroupAndQuery(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		turn := registry.StrategyRoundRobin
		for _, p := range []testkit.Provider{
			{Name: "a", Strategy: turn, Capabilities: []string{"x"}},
			{Name: "b", Capabilities: []string{"x", "y"}},
			{Name: "c", Capabilities: []string{"y"}},
			{Name: "g", Strategy: turn, Handler: "h"},
			{Name: "h", Handler: "h"},
		} {
			testkit.Add(t, reg, p)
		}
		other := registry.NewService[testkit.ChatModel]("other")
		for _, name := range []string{"m", "n"} {
			_, err := other.Register(t.Context(), reg, testkit.Provider{Name: name, Instance: testkit.Says(name), Strategy: turn})
			require.NoError(t, err)
		}
		resolvers := []*registry.Resolver[testkit.ChatModel]{
			testkit.Bind(reg), testkit.Bind(reg, "x"), testkit.Bind(reg, "y"), testkit.Chat.Bind(reg, registry.Query{Handler: "h"}), other.Bind(reg, registry.Query{}),
		}
		want := []string{"abcabc", "ababab", "bcbcbc", "ghghgh", "mnmnmn"}
		seen := make([]string, len(resolvers))
		for range 6 { // interleaved
			for i, r := range resolvers {
				seen[i] += testkit.MustAsk(t, r)
			}
		}
		require.Equal(t, want, seen)
	})
}

func TestRotation_IsFairAmongGoroutines(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		all := testkit.AddRing(t, reg, "a", "b", "c", "d", "e")
		r := testkit.Bind(reg)
		const goroutines, each = 8, 500
		var waiting sync.WaitGroup
		for range goroutines {
			waiting.Go(func() {
				for range each {
					if _, err := testkit.Ask(context.Background(), r); err != nil {
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

func TestRotation_StaysSoundUnderConcurrentChanges(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		all := testkit.AddRing(t, reg, "a", "b", "c")
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
				_ = all["b"].MarkUnhealthy(testkit.ErrDown)
				extra := testkit.Add(t, reg, testkit.Provider{Name: "x" + strconv.Itoa(i)})
				_ = all["b"].MarkHealthy()
				if err := extra.Unregister(context.Background()); err != nil {
					t.Error(err)
				}
			}
		})
		var callers sync.WaitGroup
		for range 4 {
			callers.Go(func() {
				r := testkit.Bind(reg)
				for range 2000 {
					if _, err := testkit.Ask(context.Background(), r); err != nil {
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

// As long as one of several is eligible at any moment, a lookup finds a provider, also
// where those before it go, and those behind it come, while it looks.
func TestRotation_NeverMissesAlwaysEligibleMember(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(t *testing.T, reg *registry.Registry) (again func()){
		"members replaced": func(t *testing.T, reg *registry.Registry) func() {
			t.Helper()
			return func() { testkit.Add(t, reg, testkit.Provider{Name: "a", Replace: true}) }
		},
		"health that flaps in turn": func(t *testing.T, reg *registry.Registry) func() {
			t.Helper()
			var all []*registry.Registration
			for i := range 200 {
				all = append(all, testkit.Add(t, reg, testkit.Provider{Name: strconv.Itoa(i)}))
			}
			for _, other := range all[1:] {
				require.NoError(t, other.MarkUnhealthy(testkit.ErrDown))
			}
			at := 0
			return func() {
				next := (at + 67) % len(all)
				require.NoError(t, all[next].MarkHealthy())
				require.NoError(t, all[at].MarkUnhealthy(testkit.ErrDown))
				at = next
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			reg := testkit.New(t, registry.Options{})
			again := change(t, reg)
			again()
			var over atomic.Bool
			var askers sync.WaitGroup
			for _, asks := range []func(*registry.Resolver[testkit.ChatModel]) error{
				func(r *registry.Resolver[testkit.ChatModel]) error {
					_, err := r.GetAll(context.Background(), 1)
					return err
				},
				func(r *registry.Resolver[testkit.ChatModel]) error { _, err := r.Get(context.Background()); return err },
				func(r *registry.Resolver[testkit.ChatModel]) error {
					_, err := testkit.Ask(context.Background(), r)
					return err
				},
			} {
				askers.Go(func() {
					for r := testkit.Bind(reg); !over.Load() && !t.Failed(); {
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

// A member may leave while a lookup considers it, and its position may go to one before it.
func TestRotation_LookupFollowsMembersBehindIt(t *testing.T) {
	t.Parallel()
	for name, look := range map[string]func(r *registry.Resolver[testkit.ChatModel]) error{
		"Get": func(r *registry.Resolver[testkit.ChatModel]) error { _, err := r.Get(context.Background()); return err },
		"GetAll": func(r *registry.Resolver[testkit.ChatModel]) error {
			_, err := r.GetAll(context.Background(), 0)
			return err
		},
		"Call": func(r *registry.Resolver[testkit.ChatModel]) error {
			_, err := testkit.Ask(context.Background(), r)
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
				last := testkit.Add(t, reg, testkit.Provider{Name: "a"})
				for _, name := range []string{"b", "c", "d"} {
					before := last
					last = testkit.Add(t, reg, testkit.Provider{Name: name, Factory: func(context.Context) (testkit.ChatModel, error) {
						return nil, errors.Join(testkit.ErrDown, before.Reset())
					}})
					require.NoError(t, before.ForceOpen(time.Hour, "not its turn"))
				}
				require.NoError(t, look(testkit.Bind(reg)))
			})
		})
	}
}

// TestRotation_FairnessBounds states its bounds. Over any stretch in which a member is
// eligible throughout, of any number of picks by any number of goroutines, with others
// flapping, joining and leaving k times meanwhile: two members that were eligible all
// the time differ by at most 1 + k picks.
func TestRotation_FairnessBounds(t *testing.T) {
	t.Parallel()
	for _, churn := range []int{0, 20, 200} {
		testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
			testkit.AddRing(t, reg, "a", "b", "c")
			flapping := testkit.AddRing(t, reg, "x")["x"]
			queries := []*registry.Resolver[testkit.ChatModel]{testkit.Bind(reg), testkit.Chat.Bind(reg, registry.Query{Handler: "h"})}
			counts := make([]map[string]int, len(queries))
			var mu sync.Mutex
			var waiting sync.WaitGroup
			for i, r := range queries {
				counts[i] = make(map[string]int)
				for range 4 {
					waiting.Go(func() {
						for range 2000 {
							answer, err := testkit.Ask(context.Background(), r)
							if err != nil {
								t.Error(err)
							}
							mu.Lock()
							counts[i][answer]++
							mu.Unlock()
						}
					})
				}
			}
			waiting.Go(func() {
				for i := range churn / 2 {
					switch i % 2 {
					case 0:
						_ = flapping.MarkUnhealthy(testkit.ErrDown)
						_ = flapping.MarkHealthy()
					case 1:
						joined := testkit.Add(t, reg, testkit.Provider{Name: fmt.Sprint("y", i), Priority: registry.PriorityCritical})
						_ = joined.Unregister(context.Background())
					}
				}
			})
			waiting.Wait()
			for _, count := range counts {
				require.InDelta(t, count["a"], count["b"], float64(1+churn), "%v", count)
				require.InDelta(t, count["a"], count["c"], float64(1+churn), "%v", count)
				require.InDelta(t, count["b"], count["c"], float64(1+churn), "%v", count)
			}
		})
	}
}

// Variants: all members replaced before each pick, one of them, the next in turn; with FALLBACK the position stays.
func TestReplace_KeepsTurnInRotation(t *testing.T) {
	t.Parallel()
	for _, replaced := range []string{"a", "b", "c", "ab", "bc", "ac", "abc", "cba"} {
		t.Run(replaced, func(t *testing.T) {
			t.Parallel()
			testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
				testkit.AddRing(t, reg, "a", "b", "c")
				r := testkit.Bind(reg)
				var turns strings.Builder
				for range 9 {
					for name := range strings.SplitSeq(replaced, "") {
						testkit.Add(t, reg, testkit.Provider{Name: name, Strategy: registry.StrategyRoundRobin, Replace: true})
					}
					turns.WriteString(testkit.MustAsk(t, r))
				}
				require.Equal(t, "abcabcabc", turns.String())
			})
		})
	}
}

func TestReplace_KeepsPositionInFallback(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		testkit.Add(t, reg, testkit.Provider{Name: "a"})
		testkit.Add(t, reg, testkit.Provider{Name: "b"})
		testkit.Add(t, reg, testkit.Provider{Name: "a", Replace: true})
		require.Equal(t, "a", testkit.MustAsk(t, testkit.Bind(reg)))
	})
}

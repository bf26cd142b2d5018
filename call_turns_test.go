package registry_test

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/internal/testkit"
	"github.com/capreg/registry/verdict"
)

// A burst of one caller is served in turns with the other callers, and makes room for them in a full queue.
// Variants: calls and leases, a domain of several providers, callers named by Caller and by the query's handler.
func TestTurns_BurstOfOneCallerLeavesRoomForOthers(t *testing.T) {
	t.Parallel()
	for name, domain := range map[string]string{"one provider": "", "a domain": "key"} {
		for _, lease := range []bool{false, true} {
			t.Run(fmt.Sprint(name, ", lease ", lease), func(t *testing.T) {
				t.Parallel()
				testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
					for _, name := range []string{"a", "b"} {
						testkit.Add(t, reg, testkit.Provider{
							Name: name, Domain: domain, Limits: registry.LimitPolicy{MaxConcurrent: 1},
							Instance: testkit.Takes(name, time.Second), AttemptTimeout: time.Hour,
						})
						if domain == "" {
							break
						}
					}
					r := testkit.Bind(reg)
					var refused atomic.Int32
					for range 51 {
						go func() {
							if _, err := testkit.Ask(t.Context(), r, registry.Caller("noisy")); err != nil {
								assert.ErrorIs(t, err, registry.ErrAtCapacity)
								refused.Add(1)
							}
						}()
					}
					synctest.Wait()
					began := time.Now()
					for range 3 {
						if lease {
							l, err := r.Acquire(t.Context(), registry.Caller("quiet"))
							require.NoError(t, err)
							l.Done(nil)
						} else {
							testkit.MustAsk(t, r, registry.Caller("quiet"))
						}
					}
					require.LessOrEqual(t, time.Since(began), 9*time.Second, "after one turn of the other caller, which has just begun its own")
					testkit.Pass(time.Minute)
					require.LessOrEqual(t, refused.Load(), int32(24), "one made room, the others waited for 30 s at most")
				})
			})
		}
	}
}

func TestTurns_HandlersAreCallersOfTheQueue(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		testkit.Add(t, reg, testkit.Provider{
			Name: "a", Limits: registry.LimitPolicy{MaxConcurrent: 1, MaxQueue: 3}, Instance: testkit.Takes("a", time.Second),
		})
		testkit.ConcurrentCalls(t, testkit.Chat.Bind(reg, registry.Query{Handler: "noisy"}), 4)
		synctest.Wait()
		quiet := testkit.Chat.Bind(reg, registry.Query{Handler: "quiet"})
		began := time.Now()
		testkit.MustAsk(t, quiet)
		require.LessOrEqual(t, time.Since(began), 3*time.Second)
		testkit.Pass(time.Minute)
	})
}

// A caller that has no more than its share makes no room.
func TestTurns_CallerWithItsShareKeepsItsPosition(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		testkit.Add(t, reg, testkit.Provider{
			Name: "a", Limits: registry.LimitPolicy{MaxConcurrent: 1, MaxQueue: 2}, Instance: testkit.Takes("a", time.Second),
		})
		r := testkit.Bind(reg)
		results := make(chan error, 3)
		for i := range cap(results) {
			go func() {
				_, err := testkit.Ask(t.Context(), r, registry.Caller(strconv.Itoa(i)))
				results <- err
			}()
			synctest.Wait()
		}
		_, err := testkit.Ask(t.Context(), r, registry.Caller("late"))
		require.ErrorIs(t, err, registry.ErrAtCapacity)
		for range cap(results) {
			require.NoError(t, <-results)
		}
	})
}

func TestTurns_QueuedCallEntersProviderThatComesBack(t *testing.T) {
	t.Parallel()
	for name, block := range map[string]func(*testing.T, *registry.Registration) (unblock func()){
		"breaker": func(t *testing.T, a *registry.Registration) func() {
			t.Helper()
			require.NoError(t, a.ForceOpen(time.Hour, "test"))
			return func() { require.NoError(t, a.Reset()) }
		},
		"health": func(t *testing.T, a *registry.Registration) func() {
			t.Helper()
			require.NoError(t, a.MarkUnhealthy(testkit.ErrDown))
			return func() { require.NoError(t, a.MarkHealthy()) }
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
				a := testkit.Add(t, reg, testkit.Provider{Name: "a", Limits: registry.LimitPolicy{MaxConcurrent: 1}})
				testkit.Add(t, reg, testkit.Provider{Name: "b", Limits: registry.LimitPolicy{MaxConcurrent: 1}})
				r := testkit.Bind(reg)
				atA, err := r.Acquire(t.Context())
				require.NoError(t, err)
				atB, err := r.Acquire(t.Context())
				require.NoError(t, err)
				entered := make(chan string, 2)
				for i := range cap(entered) {
					go func() {
						l, err := r.Acquire(t.Context())
						assert.NoError(t, err)
						entered <- fmt.Sprint(i, " at ", l.Provider())
						time.Sleep(time.Second)
						l.Done(nil)
					}()
					synctest.Wait()
				}
				unblock := block(t, a)
				atA.Done(nil) // the turn of the first, which keeps it
				synctest.Wait()
				require.Empty(t, entered)
				unblock()
				synctest.Wait()
				require.Equal(t, "0 at a", <-entered, "the first in turn, whichever wakes first")
				require.Equal(t, "1 at a", <-entered)
				atB.Done(nil)
			})
		})
	}
}

// callInOrder makes a call that sends i while it has its place: what calls do after that is in no order.
func callInOrder(t *testing.T, r *registry.Resolver[testkit.ChatModel], order chan<- int, i int, options ...registry.CallOption) {
	t.Helper()
	_, err := registry.Call(t.Context(), r, func(ctx context.Context, m testkit.ChatModel) (string, error) {
		order <- i
		return m.Chat(ctx, "")
	}, options...)
	assert.NoError(t, err)
}

// A queued call that waits for cooldowns keeps its turn through one. Variants: a rate limit, a breaker that opens
// and closes by itself or by a reset, bad health; a cooldown longer than MaxWait; a deadline before the end.
func TestTurns_QueuedCallWaitsForCooldown(t *testing.T) {
	t.Parallel()
	for name, delay := range map[string]time.Duration{"short": time.Second, "longer than MaxWait": 40 * time.Second} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
				first := true
				testkit.Add(t, reg, testkit.Provider{
					Name: "a", Limits: registry.LimitPolicy{MaxConcurrent: 1}, AttemptTimeout: time.Hour,
					Instance: testkit.Answers(func() (string, error) {
						if !first {
							return "a", nil
						}
						first = false
						time.Sleep(200 * time.Millisecond)
						return "", verdict.RateLimited(testkit.ErrDown, delay)
					}),
				})
				r := testkit.Bind(reg)
				go func() { _, _ = testkit.Ask(t.Context(), r) }()
				synctest.Wait()
				order := make(chan int, 4)
				for i := range cap(order) {
					go func() {
						callInOrder(t, r, order, i, registry.WaitForCooldown())
					}()
					synctest.Wait()
				}
				short, cancel := context.WithTimeout(t.Context(), delay/2)
				defer cancel()
				began := time.Now()
				_, err := testkit.Ask(short, r, registry.WaitForCooldown())
				require.ErrorIs(t, err, registry.ErrCoolingDown)
				require.Equal(t, 200*time.Millisecond, time.Since(began), "it cannot end in time")
				for i := range cap(order) {
					require.Equal(t, i, <-order)
				}
			})
		})
	}
}

func TestTurns_QueuedCallWaitsForBreaker(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a := testkit.Add(t, reg, testkit.Provider{Name: "a", Limits: registry.LimitPolicy{MaxConcurrent: 1}})
		r := testkit.Bind(reg)
		atA, err := r.Acquire(t.Context())
		require.NoError(t, err)
		waits, fails := make(chan error, 1), make(chan error, 1)
		go func() { _, err := testkit.Ask(t.Context(), r, registry.WaitForCooldown()); waits <- err }()
		go func() { _, err := testkit.Ask(t.Context(), r); fails <- err }()
		synctest.Wait()
		require.NoError(t, a.ForceOpen(10*time.Second, "test"))
		atA.Done(nil)
		synctest.Wait()
		require.ErrorIs(t, <-fails, registry.ErrBreakerOpen, "it did not ask to wait")
		began := time.Now()
		require.NoError(t, <-waits)
		require.InDelta(t, 10*time.Second, time.Since(began), float64(time.Millisecond))
	})
}

// Calls that queue keep their order at the successor. Variants: replaced, swapped and back, with a probe that has
// yet to succeed.
func TestTurns_AreKeptThroughReplacement(t *testing.T) {
	t.Parallel()
	limits := registry.LimitPolicy{MaxConcurrent: 1, MaxWait: time.Hour}
	next := testkit.Provider{Name: "a", Limits: limits, Replace: true, AttemptTimeout: time.Hour, Instance: testkit.Takes("new", time.Second)}
	for name, replace := range map[string]func(*testing.T, *registry.Registry){
		"replaced": func(t *testing.T, reg *registry.Registry) {
			t.Helper()
			testkit.Add(t, reg, next)
		},
		"replaced twice": func(t *testing.T, reg *registry.Registry) {
			t.Helper()
			testkit.Add(t, reg, next)
			testkit.Pass(500 * time.Millisecond)
			testkit.Add(t, reg, next)
		},
		"swapped": func(t *testing.T, reg *registry.Registry) {
			t.Helper()
			_, err := testkit.Chat.Testing(reg).Swap("test", "a", testkit.Takes("fake", time.Second))
			require.NoError(t, err)
		},
		"swapped and back": func(t *testing.T, reg *registry.Registry) {
			t.Helper()
			undo, err := testkit.Chat.Testing(reg).Swap("test", "a", testkit.Takes("fake", time.Second))
			require.NoError(t, err)
			ctx, cancel := context.WithTimeout(t.Context(), 0)
			defer cancel()
			_ = undo(ctx)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
				old := next
				old.Replace, old.Instance = false, testkit.Takes("old", time.Minute)
				testkit.Add(t, reg, old)
				r := testkit.Bind(reg)
				testkit.ConcurrentCalls(t, r, 1)
				synctest.Wait()
				order := make(chan int, 8)
				for i := range cap(order) {
					go func() {
						callInOrder(t, r, order, i)
					}()
					synctest.Wait()
				}
				replace(t, reg)
				for i := range cap(order) {
					if i == 0 {
						go func() { testkit.MustAsk(t, r) }() // a newcomer
					}
					require.Equal(t, i, <-order)
				}
				testkit.Pass(time.Hour)
			})
		})
	}
}

// A call waits for its own rate where waiting is asked for. Variants: calls and leases, several callers, a rate and a
// place, a deadline that is too soon, no wish to wait, another provider, a provider that is replaced meanwhile.
func TestWaitForCooldown_WaitsForOwnRate(t *testing.T) {
	t.Parallel()
	for name, limits := range map[string]registry.LimitPolicy{
		"rate": {Rate: 1}, "rate and place": {Rate: 1, MaxConcurrent: 1}, "rate and full queue": {Rate: 1, MaxConcurrent: 1, NoQueue: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
				testkit.Add(t, reg, testkit.Provider{Name: "a", Limits: limits})
				r := testkit.Bind(reg)
				began := time.Now()
				order := make(chan int, 20)
				for i := range cap(order) {
					go func() {
						var report registry.CallReport
						_, err := testkit.Ask(t.Context(), r, registry.WaitForCooldown(), registry.ReportTo(&report))
						assert.NoError(t, err)
						assert.Equal(t, time.Duration(i)*time.Second, time.Since(began).Round(time.Millisecond))
						assert.Len(t, report.Attempts, 1)
						order <- i
					}()
					synctest.Wait()
				}
				_, err := testkit.Ask(t.Context(), r)
				require.ErrorIs(t, err, registry.ErrAtCapacity, "it did not ask to wait")
				require.Equal(t, began, time.Now())
				soon, cancel := context.WithTimeout(t.Context(), 5*time.Second)
				defer cancel()
				_, err = testkit.Ask(soon, r, registry.WaitForCooldown())
				require.ErrorIs(t, err, registry.ErrAtCapacity)
				require.Equal(t, began, time.Now(), "it is not its turn in time")
				testkit.MustAsk(t, r, registry.Caller("other"))
				for i := range cap(order) {
					require.Equal(t, i, <-order)
				}
				lease, err := r.Acquire(t.Context(), registry.WaitForCooldown())
				require.NoError(t, err)
				lease.Done(nil)
				require.Equal(t, time.Duration(cap(order))*time.Second, time.Since(began).Round(time.Millisecond))
			})
		})
	}
}

func TestWaitForCooldown_ReservedAttemptIsGivenBack(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		testkit.Add(t, reg, testkit.Provider{Name: "a", Limits: registry.LimitPolicy{Rate: 0.1}})
		b := testkit.Add(t, reg, testkit.Provider{Name: "b"})
		require.NoError(t, b.MarkUnhealthy(testkit.ErrDown))
		r := testkit.Bind(reg)
		testkit.MustAsk(t, r)
		time.AfterFunc(time.Second, func() { _ = b.MarkHealthy() })
		require.Equal(t, "b", testkit.MustAsk(t, r, registry.WaitForCooldown()))
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		require.NoError(t, b.MarkUnhealthy(testkit.ErrDown))
		_, err := testkit.Ask(ctx, r, registry.WaitForCooldown())
		require.Error(t, err)
		cancelled, cancelNow := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancelNow)
		_, err = testkit.Ask(cancelled, r, registry.WaitForCooldown())
		require.ErrorIs(t, err, context.Canceled)
		testkit.Pass(8 * time.Second) // ten since the first
		require.Equal(t, "a", testkit.MustAsk(t, r))
	})
}

func TestWaitForCooldown_RateOfSuccessorCounts(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		testkit.Add(t, reg, testkit.Provider{Name: "a", Limits: registry.LimitPolicy{Rate: 0.01}})
		r := testkit.Bind(reg)
		testkit.MustAsk(t, r)
		joinAfter(t, reg, time.Second, testkit.Provider{Name: "a", Replace: true, Instance: testkit.Says("new")})
		began := time.Now()
		require.Equal(t, "new", testkit.MustAsk(t, r, registry.WaitForCooldown()))
		require.Equal(t, time.Second, time.Since(began))
	})
}

// Those that wait for the same cooldown go one after the other, in their order, and what turns the first away
// keeps the others. Variants: calls and leases, and a provider that recovers before the cooldown ends.
func TestWaitForCooldown_CallsReturnOneByOne(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		var mu sync.Mutex
		var asked []time.Time
		a := testkit.Add(t, reg, testkit.Provider{Name: "a", Instance: testkit.Answers(func() (string, error) {
			mu.Lock()
			defer mu.Unlock()
			asked = append(asked, time.Now())
			if len(asked)%20 == 1 {
				return "", verdict.RateLimited(testkit.ErrDown, time.Minute)
			}
			return "a", nil
		})})
		r := testkit.Bind(reg)
		_, err := testkit.Ask(t.Context(), r)
		require.ErrorIs(t, err, testkit.ErrDown)
		order := make(chan int, 50)
		for i := range cap(order) {
			go func() {
				if i%2 == 0 {
					l, err := r.Acquire(t.Context(), registry.WaitForCooldown())
					assert.NoError(t, err)
					_, err = l.Value.Chat(l.Context(), "")
					l.Done(err)
				} else {
					testkit.MustAsk(t, r, registry.WaitForCooldown())
				}
				order <- i
			}()
			synctest.Wait()
		}
		for range cap(order) {
			<-order
		}
		for i := range asked[1:] {
			require.Greater(t, asked[i+1], asked[i], "one at a time")
		}
		require.LessOrEqual(t, len(asked), 54)
		require.Less(t, asked[len(asked)-1].Sub(asked[0]), 4*time.Minute)
		testkit.RequireCounts(t, a, len(asked)-3, 0, 0, 3)
	})
}

func TestWaitForCooldown_TimeBoundsTheWaitNotTries(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		testkit.Add(t, reg, testkit.Provider{Name: "a", Instance: testkit.FailsTimes(100, "a", verdict.RateLimited(testkit.ErrDown, time.Second))})
		r := testkit.Bind(reg)
		var report registry.CallReport
		require.Equal(t, "a", testkit.MustAsk(t, r, registry.WaitForCooldown(), registry.ReportTo(&report)))
		require.Len(t, report.Attempts, 101)
		testkit.Add(t, reg, testkit.Provider{
			Name: "a", Replace: true, Instance: testkit.Fails(verdict.RateLimited(testkit.ErrDown, time.Millisecond)),
		})
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		began := time.Now()
		_, err := testkit.Ask(ctx, r, registry.WaitForCooldown(), registry.ReportTo(&report))
		require.Error(t, err)
		require.LessOrEqual(t, time.Since(began), time.Minute)
		require.Less(t, len(report.Attempts), 80, "it pauses for longer each time")
	})
}

// The delay of an attempt is all that it waited. Variants: for a cooldown and then for a place, for a place in vain
// and then for a cooldown, and the same as a lease.
func TestTurns_DelayIsTheSumOfWaits(t *testing.T) {
	t.Parallel()
	one := registry.LimitPolicy{MaxConcurrent: 1, MaxWait: 10 * time.Second}
	for name, row := range map[string]struct {
		hold, cool time.Duration // the place is taken when the cooldown ends, or the cooldown is another provider's
		vain       bool
		least      time.Duration
	}{
		"cooldown, then a place":         {hold: 30 * time.Second, cool: 25 * time.Second, least: 30 * time.Second},
		"in vain for a place, and then ": {hold: time.Hour, cool: 20 * time.Second, vain: true, least: 20 * time.Second},
	} {
		for _, lease := range []bool{false, true} {
			testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
				full := testkit.Add(t, reg, testkit.Provider{Name: "full", Limits: one, AttemptTimeout: registry.NoTimeout})
				held, err := testkit.Bind(reg).Acquire(t.Context())
				require.NoError(t, err)
				time.AfterFunc(row.hold, func() { held.Done(nil) })
				cooling := testkit.Add(t, reg, testkit.Provider{Name: "cooling", Priority: registry.PriorityCritical})
				cooled, err := testkit.Bind(reg).Acquire(t.Context())
				require.NoError(t, err)
				cooled.Done(verdict.As(testkit.ErrDown, verdict.Verdict{After: row.cool}))
				if !row.vain {
					require.NoError(t, cooling.Unregister(t.Context()))
					held.Done(verdict.As(testkit.ErrDown, verdict.Verdict{After: row.cool}))
					time.AfterFunc(row.cool-time.Second, func() {
						require.NoError(t, full.Reset())
						again, err := testkit.Bind(reg).Acquire(context.Background())
						require.NoError(t, err)
						time.AfterFunc(row.hold-row.cool+time.Second, func() { again.Done(nil) })
					})
				}
				began := time.Now()
				var report registry.CallReport
				options := []registry.CallOption{registry.WaitForCooldown(), registry.ReportTo(&report)}
				if lease {
					got, err := testkit.Bind(reg).Acquire(t.Context(), options...)
					require.NoError(t, err)
					got.Done(nil)
				} else {
					testkit.MustAsk(t, testkit.Bind(reg), options...)
				}
				require.GreaterOrEqual(t, time.Since(began), row.least, name)
				require.Equal(t, time.Since(began), report.Attempts[0].Delay, name)
				held.Done(nil)
			})
		}
	}
}

package registry_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/selection"
	"github.com/capreg/registry/verdict"
)

// Somebody is displaced when he is replaced, removed or hidden by a stand-in while a
// look-up or call is on its way to him.

func TestWhoIsReplacedWhileSomebodyLooksIsFoundInHisNewForm(t *testing.T) {
	t.Parallel()
	for name, look := range map[string]func(tb testing.TB, r *registry.Resolver[chatModel]) string{
		"Get":  got,
		"Call": func(tb testing.TB, r *registry.Resolver[chatModel]) string { tb.Helper(); return asked(tb, r) },
		"Call with options": func(tb testing.TB, r *registry.Resolver[chatModel]) string {
			tb.Helper()
			return asked(tb, r, registry.OnceOnly())
		},
		"Acquire": func(tb testing.TB, r *registry.Resolver[chatModel]) string {
			tb.Helper()
			lease, err := r.Acquire(tb.Context())
			require.NoError(tb, err)
			defer lease.Done(nil)
			return lease.Provider()
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
				replaced := 0
				var strategy registry.Strategy
				strategy = choosing("REPLACES", func(v selection.View) int {
					if !v.Peeking() && replaced < 3 {
						replaced++
						add(t, reg, provider{Name: "best", Replace: true, Strategy: strategy})
						synctest.Wait() // the instance of the one before is given up
					}
					return v.Next(0)
				})
				add(t, reg, provider{Name: "best", Strategy: strategy})
				add(t, reg, provider{Name: "other", Group: 1})
				require.Equal(t, "best", look(t, bind(reg)))
				require.Equal(t, 3, replaced)
				other, _ := reg.Provider("other")
				require.Zero(t, other.Info().Attempts)
			})
		})
	}
}

func TestManyHaveWhoIsReplacedWhileTheyWait(t *testing.T) {
	t.Parallel()
	for name, all := range map[string]func(t *testing.T, r *registry.Resolver[chatModel]) []chatModel{
		"Many": func(t *testing.T, r *registry.Resolver[chatModel]) []chatModel {
			t.Helper()
			models, err := r.Many(t.Context(), 0)
			require.NoError(t, err)
			return models
		},
		"AcquireMany": func(t *testing.T, r *registry.Resolver[chatModel]) (models []chatModel) {
			t.Helper()
			leases, err := r.AcquireMany(t.Context(), 0)
			require.NoError(t, err)
			for _, lease := range leases {
				defer lease.Done(nil)
				models = append(models, lease.Value)
			}
			return models
		},
	} {
		t.Run(name, func(t *testing.T) { t.Parallel(); manyHaveWhoIsReplaced(t, all) })
	}
}

func manyHaveWhoIsReplaced(t *testing.T, all func(t *testing.T, r *registry.Resolver[chatModel]) []chatModel) {
	t.Helper()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		add(t, reg, provider{Name: "a", Factory: func(context.Context) (chatModel, error) {
			add(t, reg, provider{Name: "b", Replace: true, Instance: says("new b")}) //nolint:contextcheck // a registration has none of its own
			time.Sleep(time.Second)
			return says("a"), nil
		}})
		add(t, reg, provider{Name: "b"})
		add(t, reg, provider{Name: "c"})
		var said []string
		for _, model := range all(t, bind(reg)) {
			text, err := model.Chat(t.Context(), "?")
			require.NoError(t, err)
			said = append(said, text)
		}
		require.Equal(t, []string{"a", "c", "new b"}, said)
	})
}

// lateToBe returns a provider whose factory has another with its name registered while
// it is waited for, and makes nothing.
func lateToBe(t *testing.T, reg *registry.Registry, name string, next provider) provider {
	t.Helper()
	next.Name, next.Replace = name, true
	return provider{Name: name, Factory: func(ctx context.Context) (chatModel, error) {
		time.Sleep(time.Second)
		add(t, reg, next) //nolint:contextcheck // a registration has none of its own
		<-ctx.Done()
		return nil, ctx.Err()
	}}
}

// joinsAfter registers a provider after a while.
func joinsAfter(t *testing.T, reg *registry.Registry, d time.Duration, p provider) {
	t.Helper()
	go func() {
		time.Sleep(d)
		if _, err := chat.Register(t.Context(), reg, p); err != nil {
			t.Error(err)
		}
	}()
}

// replacesBoth replaces a and c, and returns b some time later.
func replacesBoth(t *testing.T, reg *registry.Registry) chatModel {
	t.Helper()
	for _, name := range []string{"a", "c"} {
		add(t, reg, provider{Name: name, Replace: true, Instance: says("new " + name)})
	}
	time.Sleep(time.Second)
	return says("b")
}

// leased returns whom AcquireMany leases, and what they say.
func leased(t *testing.T, r *registry.Resolver[chatModel]) (all []string) {
	t.Helper()
	leases, err := r.AcquireMany(t.Context(), 0)
	require.NoError(t, err)
	for _, lease := range leases {
		text, err := lease.Value.Chat(lease.Context(), "?")
		lease.Done(err)
		all = append(all, lease.Provider()+" says "+text)
	}
	return all
}

func TestWhoIsLeasedAndThenReplacedIsNotLeasedAgain(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		add(t, reg, provider{Name: "a"})
		add(t, reg, provider{Name: "b", Factory: func(context.Context) (chatModel, error) {
			return replacesBoth(t, reg), nil //nolint:contextcheck // a registration has none of its own
		}})
		add(t, reg, provider{Name: "c"})
		require.Equal(t, []string{"a says a", "b says b", "c says new c"}, leased(t, bind(reg)))
	})
}

func TestWhoWasRefusedAndThenReplacedIsLeased(t *testing.T) {
	t.Parallel()
	var denied sync.Map
	denied.Store("a", errDown)
	authorize := func(_ context.Context, _, _, name string) error {
		err, _ := denied.Load(name)
		is, _ := err.(error)
		return is
	}
	bubble(t, registry.Options{Authorize: authorize}, func(t *testing.T, reg *registry.Registry) {
		add(t, reg, provider{Name: "a"})
		add(t, reg, provider{Name: "b", Factory: func(context.Context) (chatModel, error) {
			denied.Delete("a")
			return replacesBoth(t, reg), nil //nolint:contextcheck // a registration has none of its own
		}})
		add(t, reg, provider{Name: "c"})
		require.Equal(t, []string{"b says b", "a says new a", "c says new c"}, leased(t, bind(reg)))
	})
}

func TestNobodyIsAuthorisedTwiceBecauseAnotherWasReplaced(t *testing.T) {
	t.Parallel()
	asked := map[string]int{}
	authorize := func(_ context.Context, _, _, name string) error { asked[name]++; return nil }
	bubble(t, registry.Options{Authorize: authorize}, func(t *testing.T, reg *registry.Registry) {
		r := bind(reg)
		add(t, reg, provider{Name: "a", Limits: registry.LimitPolicy{MaxConcurrent: 1}})
		held, err := r.Acquire(t.Context())
		require.NoError(t, err)
		defer held.Done(nil)
		clear(asked)
		add(t, reg, lateToBe(t, reg, "b", provider{}))
		require.Equal(t, []string{"b says b"}, leased(t, r))
		require.Equal(t, 1, asked["a"])
	})
}

func TestWhoIsReplacedBehindOneWhoIsDeniedOrFullIsFound(t *testing.T) {
	t.Parallel()
	for name, denied := range map[string]bool{"denied": true, "full": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			authorize := func(_ context.Context, _, _, name string) error {
				if denied && name == "a" {
					return errDown
				}
				return nil
			}
			bubble(t, registry.Options{Authorize: authorize}, func(t *testing.T, reg *registry.Registry) {
				r := bind(reg)
				a := provider{Name: "a"}
				if !denied {
					a.Limits.MaxConcurrent = 1
				}
				add(t, reg, a)
				if !denied {
					held, err := r.Acquire(t.Context())
					require.NoError(t, err)
					defer held.Done(nil)
				}
				add(t, reg, lateToBe(t, reg, "b", provider{Instance: says("new b")}))
				add(t, reg, provider{Name: "worse", Group: 1})
				require.Equal(t, "new b", asked(t, r))
			})
		})
	}
}

func TestWhoReplacesTheNextOneIsAskedAfterAFailure(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a := add(t, reg, provider{Name: "a", Instance: fails(errDown)})
		add(t, reg, lateToBe(t, reg, "b", provider{Instance: says("new b")}))
		add(t, reg, provider{Name: "worse", Group: 1})
		require.Equal(t, "new b", asked(t, bind(reg)))
		require.Equal(t, uint64(1), a.Info().Attempts, "once")
	})
}

func TestReportSkipsNobodyWhoWasEnteredAndNobodyTwice(t *testing.T) {
	t.Parallel()
	var replace func() error
	replaced := 0
	authorize := func(_ context.Context, _, _, name string) error {
		if name != "a" || replaced == 3 {
			return nil
		}
		replaced++
		return errors.Join(errDown, replace())
	}
	bubble(t, registry.Options{Authorize: authorize}, func(t *testing.T, reg *registry.Registry) {
		replace = func() error {
			_, err := chat.Register(t.Context(), reg, provider{Name: "a", Replace: true, Instance: says("new a")})
			return err
		}
		add(t, reg, provider{Name: "a"})
		add(t, reg, provider{Name: "b", Group: 1})
		var report registry.CallReport
		require.Equal(t, "new a", asked(t, bind(reg), registry.ReportTo(&report)))
		require.Empty(t, report.Skipped)
	})
}

func TestCallsThatQueueGoOnWaitingAtWhoHasThePlace(t *testing.T) {
	t.Parallel()
	limits := registry.LimitPolicy{MaxConcurrent: 1, MaxQueue: 10, MaxWait: time.Hour}
	for name, displace := range map[string]func(t *testing.T, reg *registry.Registry) (undo func(context.Context) error){
		"replaced": func(t *testing.T, reg *registry.Registry) func(context.Context) error {
			t.Helper()
			add(t, reg, provider{Name: "a", Replace: true, Limits: limits, Instance: slowly("new", 10*time.Second)})
			return func(context.Context) error { return nil }
		},
		"swapped": func(t *testing.T, reg *registry.Registry) func(context.Context) error {
			t.Helper()
			undo, err := chat.Swap(reg, "test", "a", slowly("new", 10*time.Second))
			require.NoError(t, err)
			return undo
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
				add(t, reg, provider{Name: "a", Limits: limits, Instance: slowly("old", 10*time.Second)})
				r := bind(reg)
				began := time.Now()
				said := make(chan string, 4)
				for range cap(said) {
					go func() {
						text, err := ask(t.Context(), r)
						said <- fmt.Sprint(text, err)
					}()
				}
				pass(time.Second)
				undo := displace(t, reg)
				counts := map[string]int{}
				for range cap(said) {
					counts[<-said]++
				}
				require.Equal(t, map[string]int{"old<nil>": 1, "new<nil>": 3}, counts)
				require.Equal(t, 31*time.Second, time.Since(began))
				require.NoError(t, undo(t.Context()))
			})
		})
	}
}

func TestCallsThatQueueAtAStandInGoBackToTheRealOne(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		limits := registry.LimitPolicy{MaxConcurrent: 1, MaxQueue: 10, MaxWait: time.Hour}
		add(t, reg, provider{Name: "a", Limits: limits, Instance: says("real")})
		r := bind(reg)
		undo, err := chat.Swap(reg, "test", "a", slowly("fake", 10*time.Second))
		require.NoError(t, err)
		said := make(chan string, 3)
		for range cap(said) {
			go func() {
				text, err := ask(t.Context(), r)
				said <- fmt.Sprint(text, err)
			}()
		}
		pass(time.Second)
		require.NoError(t, undo(t.Context()))
		counts := map[string]int{}
		for range cap(said) {
			counts[<-said]++
		}
		require.Equal(t, map[string]int{"fake<nil>": 1, "real<nil>": 2}, counts)
	})
}

func TestWhoKeptACallWaitingForTooLongIsNotQueuedAtAgain(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		r := bind(reg)
		for name, wait := range map[string]time.Duration{"a": 5 * time.Second, "b": 20 * time.Second} {
			add(t, reg, provider{
				Name: name, Limits: registry.LimitPolicy{MaxConcurrent: 1, MaxQueue: 10, MaxWait: wait},
				Instance: slowly(name, time.Hour), AttemptTimeout: registry.NoTimeout,
			})
		}
		var busy sync.WaitGroup
		for range 2 {
			busy.Go(func() { asked(t, r) })
		}
		synctest.Wait()
		joinsAfter(t, reg, 10*time.Second, provider{
			Name: "b", Replace: true, Group: 1, Limits: registry.LimitPolicy{MaxConcurrent: 1}, Instance: says("new b"),
		})
		began := time.Now()
		require.Equal(t, "new b", asked(t, r))
		require.Equal(t, 10*time.Second, time.Since(began))
		busy.Wait()
	})
}

func TestWhoIsReplacedBeforeHeIsEnteredCostsNoToken(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		limits := registry.LimitPolicy{Rate: 0.01, Burst: 1}
		add(t, reg, provider{Name: "keeps the domain", Domain: "d", Limits: limits, Handler: "other"})
		a := lateToBe(t, reg, "a", provider{Domain: "d", Limits: limits, Instance: says("new a")})
		a.Domain, a.Limits = "d", limits
		add(t, reg, a)
		add(t, reg, provider{Name: "worse", Group: 1})
		require.Equal(t, "new a", asked(t, bind(reg)))
		require.Equal(t, "worse", asked(t, bind(reg)), "the second call has none left")
	})
}

func TestNobodyWaitsForTheFactoryOfOneWhoWasReplaced(t *testing.T) {
	t.Parallel()
	for name, look := range map[string]func(tb testing.TB, r *registry.Resolver[chatModel]) string{
		"Get": got, "Call": func(tb testing.TB, r *registry.Resolver[chatModel]) string { tb.Helper(); return asked(tb, r) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
				free := make(chan struct{})
				add(t, reg, provider{Name: "a", AttemptTimeout: registry.NoTimeout, Factory: func(context.Context) (chatModel, error) {
					<-free
					return nil, errDown
				}})
				joinsAfter(t, reg, time.Second, provider{Name: "a", Replace: true, Instance: says("new a")})
				began := time.Now()
				require.Equal(t, "new a", look(t, bind(reg)))
				require.Equal(t, time.Second, time.Since(began))
				close(free)
			})
		})
	}
}

func TestAStandInIsFoundByWhoWaitsForTheFactoryOfTheRealOne(t *testing.T) {
	t.Parallel()
	for name, look := range map[string]func(tb testing.TB, r *registry.Resolver[chatModel]) string{
		"Get": got, "Call": func(tb testing.TB, r *registry.Resolver[chatModel]) string { tb.Helper(); return asked(tb, r) },
		"Many": func(tb testing.TB, r *registry.Resolver[chatModel]) string {
			tb.Helper()
			all, err := r.Many(tb.Context(), 0)
			require.NoError(tb, err)
			require.Len(tb, all, 1)
			text, err := all[0].Chat(tb.Context(), "?")
			require.NoError(tb, err)
			return text
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
				add(t, reg, provider{Name: "a", Factory: func(context.Context) (chatModel, error) {
					time.Sleep(10 * time.Second)
					return says("real"), nil
				}})
				undo := make(chan func(context.Context) error, 1)
				go func() {
					time.Sleep(time.Second)
					end, err := chat.Swap(reg, "test", "a", says("fake"))
					assert.NoError(t, err)
					undo <- end
				}()
				require.Equal(t, "fake", look(t, bind(reg)))
				require.NoError(t, (<-undo)(t.Context()))
			})
		})
	}
}

func TestGetWithoutAContextIsRefusedAlsoWhereAFactoryHasToRun(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		add(t, reg, provider{Name: "a", Factory: func(context.Context) (chatModel, error) { return says("a"), nil }})
		r := bind(reg)
		_ = r.Explain() // the plan is made
		var none context.Context
		_, err := r.Get(none)
		require.ErrorIs(t, err, registry.ErrInvalid)
	})
}

func TestWhoCoolsDownIsReturnedToAlsoAfterTheWalkBeganAgain(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		calls := 0
		add(t, reg, provider{Name: "a", Instance: answers(func() (string, error) {
			if calls++; calls == 1 {
				return "", verdict.RateLimited(errDown, 10*time.Second)
			}
			return "a", nil
		})})
		add(t, reg, lateToBe(t, reg, "b", provider{Instance: fails(errDown)}))
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		text, err := ask(ctx, bind(reg), registry.WaitForCooldown())
		require.NoError(t, err)
		require.Equal(t, "a", text)
	})
}

func TestALeaseMovesOnToWhoCoolsDownAlsoAfterTheWalkBeganAgain(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		add(t, reg, lateToBe(t, reg, "a", provider{}))
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		lease, err := bind(reg).Acquire(ctx, registry.WaitForCooldown())
		require.NoError(t, err)
		next, err := lease.MoveOn(verdict.RateLimited(errDown, 10*time.Second))
		require.NoError(t, err)
		next.Done(nil)
	})
}

func TestWhoWasFullIsAskedAgainAfterAWaitForACooldown(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		r := bind(reg)
		add(t, reg, provider{Name: "full", Limits: registry.LimitPolicy{MaxConcurrent: 1, NoQueue: true}})
		held, err := r.Acquire(t.Context())
		require.NoError(t, err)
		time.AfterFunc(5*time.Second, func() { held.Done(nil) })
		add(t, reg, provider{Name: "a", Instance: fails(verdict.RateLimited(errDown, 10*time.Second))})
		add(t, reg, lateToBe(t, reg, "b", provider{Instance: fails(errDown)}))
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		text, err := ask(ctx, r, registry.WaitForCooldown())
		require.NoError(t, err)
		require.Equal(t, "full", text)
	})
}

func TestWhoReplacesOneThatCoolsDownIsWaitedFor(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		add(t, reg, provider{Name: "keeps the domain", Domain: "d", Handler: "other"})
		add(t, reg, provider{Name: "a", Domain: "d", Instance: fails(verdict.RateLimited(errDown, 10*time.Second))})
		add(t, reg, provider{Name: "b", Group: 1, Instance: answers(func() (string, error) {
			add(t, reg, provider{Name: "a", Domain: "d", Replace: true, Instance: says("new a")})
			return "", errDown
		})})
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		text, err := ask(ctx, bind(reg), registry.WaitForCooldown())
		require.NoError(t, err)
		require.Equal(t, "new a", text)
	})
}

// slowly returns a model that takes so long, without a limit on its attempts.
func slowly(text string, d time.Duration) chatModel {
	return answers(func() (string, error) { time.Sleep(d); return text, nil })
}

// callers makes calls at the same time, and returns what they said, and after how long.
func callers(t *testing.T, r *registry.Resolver[chatModel], calls int) chan string {
	t.Helper()
	said := make(chan string, calls)
	for range calls {
		go func() {
			began := time.Now()
			text, err := ask(t.Context(), r)
			said <- fmt.Sprint(text, err, " after ", time.Since(began))
		}()
	}
	return said
}

// counted counts what was said.
func counted(said chan string) map[string]int {
	counts := make(map[string]int)
	for range cap(said) {
		counts[<-said]++
	}
	return counts
}

func TestACallQueuesNoLongerThanItMayHoweverOftenProvidersAreReplaced(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		limits := registry.LimitPolicy{MaxConcurrent: 1, MaxQueue: 10, MaxWait: 10 * time.Second}
		busy := provider{Name: "a", Replace: true, Limits: limits, Instance: slowly("", time.Minute), AttemptTimeout: registry.NoTimeout}
		add(t, reg, busy)
		r := bind(reg)
		queued := make(chan time.Duration, 5)
		for range cap(queued) {
			go func() {
				began := time.Now()
				var report registry.CallReport
				_, err := ask(t.Context(), r, registry.ReportTo(&report))
				after := time.Since(began)
				if err == nil {
					after -= time.Minute
					assert.Equal(t, after, report.Attempts[0].Delay)
				}
				queued <- after
			}()
		}
		for range 3 {
			pass(9 * time.Second)
			add(t, reg, busy)
		}
		for range cap(queued) {
			require.LessOrEqual(t, <-queued, limits.MaxWait)
		}
	})
}

func TestAQueueKeepsItsOrderWhenAProviderOfItsDomainIsReplaced(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		limits := registry.LimitPolicy{MaxConcurrent: 1, MaxQueue: 10, MaxWait: time.Hour}
		add(t, reg, provider{Name: "keeps the domain", Domain: "d", Handler: "other", Limits: limits})
		a := provider{Name: "a", Domain: "d", Replace: true, Limits: limits, Instance: slowly("", 10*time.Second)}
		add(t, reg, a)
		r := bind(reg)
		order := make(chan int, 6)
		for i := range cap(order) {
			go func() {
				_, err := ask(t.Context(), r)
				assert.NoError(t, err)
				order <- i
			}()
			pass(time.Millisecond)
		}
		add(t, reg, a)
		for i := range cap(order) {
			require.Equal(t, i, <-order)
		}
	})
}

func TestACallThatHasFailedAndQueuesMovesAlong(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		limits := registry.LimitPolicy{MaxConcurrent: 1, MaxQueue: 10, MaxWait: time.Hour}
		add(t, reg, provider{Name: "first", Instance: fails(errDown)})
		add(t, reg, provider{Name: "a", Group: 1, Limits: limits, Instance: slowly("old", 10*time.Second)})
		said := callers(t, bind(reg), 4)
		pass(time.Second)
		add(t, reg, provider{Name: "a", Group: 1, Replace: true, Limits: limits, Instance: slowly("new", 10*time.Second)})
		require.Equal(t, map[string]int{
			"old<nil> after 10s": 1, "new<nil> after 11s": 1, "new<nil> after 21s": 1, "new<nil> after 31s": 1,
		}, counted(said))
	})
}

func TestACallThatQueuesAtTwoQueuesAtWhoReplacesOneOfThem(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		limits := registry.LimitPolicy{MaxConcurrent: 1, MaxQueue: 10, MaxWait: time.Hour}
		for _, name := range []string{"a", "b"} {
			add(t, reg, provider{Name: name, Limits: limits, Instance: slowly("old", time.Hour), AttemptTimeout: registry.NoTimeout})
		}
		said := callers(t, bind(reg), 4)
		pass(time.Second)
		add(t, reg, provider{Name: "a", Replace: true, Limits: limits, Instance: slowly("new", 10*time.Second)})
		require.Equal(t, map[string]int{"old<nil> after 1h0m0s": 2, "new<nil> after 11s": 1, "new<nil> after 21s": 1}, counted(said))
	})
}

func TestACallGoesBackToTheQueueOfTheRealOneWhenAStandInCameAndWent(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		limits := registry.LimitPolicy{MaxConcurrent: 1, MaxQueue: 10, MaxWait: time.Hour}
		add(t, reg, provider{Name: "a", Limits: limits, Instance: slowly("real", 20*time.Second)})
		said := callers(t, bind(reg), 3)
		pass(time.Second)
		undo, err := chat.Swap(reg, "test", "a", slowly("fake", 10*time.Second))
		require.NoError(t, err)
		pass(time.Second)
		require.NoError(t, undo(t.Context()))
		require.Equal(t, map[string]int{"real<nil> after 20s": 1, "fake<nil> after 11s": 1, "real<nil> after 40s": 1}, counted(said))
	})
}

func TestWhoWasFullAndIsReplacedBeforeTheCallQueuesIsFound(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		r := bind(reg)
		add(t, reg, provider{Name: "a", Limits: registry.LimitPolicy{MaxConcurrent: 1}})
		held, err := r.Acquire(t.Context())
		require.NoError(t, err)
		defer held.Done(nil)
		add(t, reg, provider{Name: "b", Group: 1, Factory: func(context.Context) (chatModel, error) {
			add(t, reg, provider{Name: "a", Replace: true, Instance: says("new a")}) //nolint:contextcheck // a registration has none of its own
			return nil, errDown
		}})
		require.Equal(t, "new a", asked(t, r))
	})
}

func TestNobodyWaitsForAQueueThatHadNoRoom(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		r := bind(reg)
		busy := provider{Name: "b", AttemptTimeout: registry.NoTimeout, Instance: slowly("", 2*time.Hour)}
		busy.Limits = registry.LimitPolicy{MaxConcurrent: 1, MaxQueue: 1, MaxWait: time.Hour}
		add(t, reg, busy)
		callers(t, r, 2) // one is in, one queues
		synctest.Wait()
		busy.Name, busy.Group, busy.Limits = "a", -1, registry.LimitPolicy{MaxConcurrent: 1, MaxQueue: 9, MaxWait: 5 * time.Second}
		add(t, reg, busy)
		callers(t, r, 1)
		synctest.Wait()
		began := time.Now()
		_, err := ask(t.Context(), r)
		require.ErrorIs(t, err, registry.ErrAtCapacity)
		require.Equal(t, 5*time.Second, time.Since(began))
		pass(6 * time.Hour)
	})
}

func TestATokenIsGivenBackAlsoWhereAnotherWasThrottled(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		limits := registry.LimitPolicy{Rate: 0.01, Burst: 1}
		add(t, reg, provider{Name: "keeps the domain", Domain: "d", Limits: limits, Handler: "other"})
		a := lateToBe(t, reg, "a", provider{Domain: "d", Limits: limits, Instance: says("new a")})
		a.Domain, a.Limits = "d", limits
		add(t, reg, a)
		add(t, reg, provider{Name: "worse", Group: 1})
		r := bind(reg)
		said := make(chan string, 1)
		go func() {
			time.Sleep(500 * time.Millisecond)
			text, err := ask(t.Context(), r)
			said <- fmt.Sprint(text, err)
		}()
		require.Equal(t, "new a", asked(t, r))
		require.Equal(t, "worse<nil>", <-said)
	})
}

func TestALeaseMovesOnToWhoReplacesTheNextOne(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		add(t, reg, provider{Name: "a"})
		add(t, reg, lateToBe(t, reg, "b", provider{Instance: says("new b")}))
		add(t, reg, provider{Name: "worse", Group: 1})
		lease, err := bind(reg).Acquire(t.Context())
		require.NoError(t, err)
		next, err := lease.MoveOn(errDown)
		require.NoError(t, err)
		defer next.Done(nil)
		require.Equal(t, "b", next.Provider())
	})
}

func TestALastResortThatIsReplacedMeanwhileIsTriedInItsNewForm(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		add(t, reg, provider{Name: "other", Domain: "d", Handler: "h", Instance: fails(verdict.RateLimited(errDown, 0))})
		a := lateToBe(t, reg, "a", provider{Domain: "d", LastResort: true, Instance: says("new a")})
		a.Domain, a.LastResort = "d", true
		add(t, reg, a)
		_, err := ask(t.Context(), chat.Bind(reg, registry.Query{Handler: "h", OwnOnly: true}))
		require.Error(t, err, "the domain cools down")
		require.Equal(t, "new a", asked(t, bind(reg)))
	})
}

func TestNobodyIsLeasedTwiceForACallThatWaitsForCooldowns(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		add(t, reg, provider{Name: "a"})
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		lease, err := bind(reg).Acquire(ctx, registry.WaitForCooldown())
		require.NoError(t, err)
		time.AfterFunc(5*time.Second, func() { lease.Done(nil) })
		began := time.Now()
		_, err = lease.Beside()
		require.Error(t, err)
		require.Zero(t, time.Since(began))
		pass(10 * time.Second)
	})
}

func TestWhoReplacesOneThatWasDeniedIsWaitedFor(t *testing.T) {
	t.Parallel()
	var replace func() error
	authorize := func(_ context.Context, _, _, name string) error {
		if name != "a" || replace == nil {
			return nil
		}
		err := errors.Join(errDown, replace())
		replace = nil
		return err
	}
	bubble(t, registry.Options{Authorize: authorize}, func(t *testing.T, reg *registry.Registry) {
		add(t, reg, provider{Name: "other", Domain: "d", Handler: "h", Instance: fails(verdict.RateLimited(errDown, 10*time.Second))})
		add(t, reg, provider{Name: "a"})
		replace = func() error {
			_, err := chat.Register(t.Context(), reg, provider{Name: "a", Domain: "d", Replace: true, Instance: says("new a")})
			return err
		}
		_, err := ask(t.Context(), chat.Bind(reg, registry.Query{Handler: "h", OwnOnly: true}))
		require.Error(t, err, "the domain cools down")
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		text, err := ask(ctx, bind(reg), registry.WaitForCooldown())
		require.NoError(t, err)
		require.Equal(t, "new a", text)
	})
}

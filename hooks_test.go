package registry_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/internal/testkit"
	"github.com/capreg/registry/verdict"
)

type traceKey struct{}

func TestHooks_RunInOrderAndAddValues(t *testing.T) {
	t.Parallel()
	var log []string
	note := func(format string, arguments ...any) { log = append(log, fmt.Sprintf(format, arguments...)) }
	options := registry.Options{
		Hooks: registry.Hooks{
			BeforeCall: func(ctx context.Context, r registry.CallReport) context.Context {
				note("before call of %s by %s", r.Service, r.Caller)
				return context.WithValue(ctx, traceKey{}, "trace-1")
			},
			BeforeAttempt: func(ctx context.Context, r registry.CallReport, a registry.Attempt) context.Context {
				note("before %s (%s) after %d", a.Provider, a.Why, len(r.Attempts))
				return context.WithValue(ctx, traceKey{}, fmt.Sprint(ctx.Value(traceKey{}), "/", a.Provider))
			},
			AfterAttempt: func(ctx context.Context, _ registry.CallReport, a registry.Attempt) {
				note("after %s: %v [%v]", a.Provider, a.Class, ctx.Value(traceKey{}))
			},
			AfterCall: func(ctx context.Context, r registry.CallReport) {
				note("after call: %d attempts, %v [%v]", len(r.Attempts), r.Err, ctx.Value(traceKey{}))
			},
		},
	}
	testkit.Bubble(t, options, func(t *testing.T, reg *registry.Registry) {
		testkit.Add(t, reg, testkit.Provider{Name: "a", Instance: testkit.Fails(testkit.ErrDown)})
		testkit.Add(t, reg, testkit.Provider{Name: "b"})
		_, err := registry.Call(t.Context(), testkit.Bind(reg), func(ctx context.Context, m testkit.ChatModel) (string, error) {
			note("in %v", ctx.Value(traceKey{}))
			return m.Chat(ctx, "")
		}, registry.Caller("me"))
		require.NoError(t, err)
		want := []string{
			"before call of chat by me",
			"before a (first) after 0", "in trace-1/a", "after a: unknown [trace-1/a]",
			"before b (failover) after 1", "in trace-1/b", "after b: success [trace-1/b]",
			"after call: 2 attempts, <nil> [trace-1]",
		}
		require.Equal(t, want, log)

		log = nil
		lease, err := testkit.Chat.Bind(reg, registry.Query{Handler: "h"}).Acquire(t.Context())
		require.NoError(t, err)
		require.Equal(t, "trace-1/a", lease.Context().Value(traceKey{}))
		lease.Done(nil)
		require.Equal(t, []string{
			"before call of chat by h", "before a (first) after 0", "after a: success [trace-1/a]", "after call: 1 attempts, <nil> [trace-1]",
		}, log)
	})
}

// noting returns hooks that note what they see, under a name.
func noting(journal *testkit.Journal, name string, then func()) registry.Hooks {
	before := func(ctx context.Context) context.Context {
		defer then()
		return context.WithValue(ctx, traceKey{}, fmt.Sprint(ctx.Value(traceKey{}), name))
	}
	return registry.Hooks{
		BeforeCall: func(ctx context.Context, _ registry.CallReport) context.Context {
			journal.Note(name + " before call")
			return before(ctx)
		},
		AfterCall: func(_ context.Context, _ registry.CallReport) { journal.Note(name + " after call"); then() },
		BeforeAttempt: func(ctx context.Context, _ registry.CallReport, a registry.Attempt) context.Context {
			journal.Note(name + " before " + a.Provider)
			return before(ctx)
		},
		AfterAttempt: func(_ context.Context, r registry.CallReport, a registry.Attempt) {
			journal.Note(name + " after " + a.Provider)
			r.Attempts[0].Provider = "changed"
			then()
		},
	}
}

func TestAddHooks_FirstOnesAreAroundTheOthers(t *testing.T) {
	t.Parallel()
	var journal testkit.Journal
	nothing := func() {}
	testkit.Bubble(t, registry.Options{Hooks: noting(&journal, "a", nothing)}, func(t *testing.T, reg *registry.Registry) {
		for _, name := range []string{"b", "c"} {
			_, err := reg.AddHooks(noting(&journal, name, nothing))
			require.NoError(t, err)
		}
		testkit.Add(t, reg, testkit.Provider{Name: "p"})
		var value any
		_, err := registry.Call(t.Context(), testkit.Bind(reg), func(ctx context.Context, _ testkit.ChatModel) (int, error) {
			value = ctx.Value(traceKey{})
			return 0, nil
		})
		require.NoError(t, err)
		require.Equal(t, "<nil>abcabc", value)
		require.Equal(t, []string{
			"a before call", "b before call", "c before call", "a before p", "b before p", "c before p",
			"c after p", "b after p", "a after p", "c after call", "b after call", "a after call",
		}, journal.All())
	})
}

func TestAddHooks_SeeEveryLaterCallUntilRemoved(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		testkit.Add(t, reg, testkit.Provider{Name: "bad", Instance: testkit.Fails(testkit.ErrDown)})
		testkit.Add(t, reg, testkit.Provider{Name: "good", Group: 1})
		r := testkit.Bind(reg)
		before, err := r.Acquire(t.Context())
		require.NoError(t, err)
		var seen []registry.CallReport
		remove, err := reg.AddHooks(registry.Hooks{AfterCall: func(_ context.Context, r registry.CallReport) { seen = append(seen, r) }})
		require.NoError(t, err)
		before.Done(nil)
		require.Empty(t, seen, "it has begun before")
		testkit.MustAsk(t, r)
		during, err := r.Acquire(t.Context())
		require.NoError(t, err)
		during.Done(nil)
		require.Len(t, seen, 2)
		require.Len(t, seen[0].Attempts, 2)
		require.Equal(t, "good", seen[0].Attempts[1].Provider)
		late, err := r.Acquire(t.Context())
		require.NoError(t, err)
		remove()
		remove()
		late.Done(nil)
		testkit.MustAsk(t, r)
		require.Len(t, seen, 2)
	})
}

func TestAddHooks_RefusesNone(t *testing.T) {
	t.Parallel()
	reg := testkit.New(t, registry.Options{})
	_, err := reg.AddHooks(registry.Hooks{})
	testkit.RequireRefused(t, err)
	for _, none := range []*registry.Registry{nil, {}} {
		_, err = none.AddHooks(registry.Hooks{AfterCall: func(context.Context, registry.CallReport) {}})
		require.ErrorIs(t, err, registry.ErrInvalid)
	}
}

// Doors: a call, a lease, the leases of Each, a call that finds no provider.
func TestAddHooks_FaultOfOneSilencesNoOther(t *testing.T) {
	t.Parallel()
	doors := map[string]func(*registry.Registry){
		"call":  func(reg *registry.Registry) { _, _ = testkit.Ask(context.Background(), testkit.Bind(reg)) },
		"none":  func(reg *registry.Registry) { _, _ = testkit.Ask(context.Background(), testkit.Bind(reg, "vision")) },
		"lease": func(reg *registry.Registry) { l, _ := testkit.Bind(reg).Acquire(context.Background()); l.Done(nil) },
		"each": func(reg *registry.Registry) {
			_, _ = testkit.Bind(reg).Each(context.Background(), func(context.Context, testkit.ChatModel) error { return nil })
		},
	}
	for name, then := range map[string]func(){"panic": func() { panic("hook") }, "exit": runtime.Goexit} {
		for door, through := range doors {
			t.Run(name+" "+door, func(t *testing.T) {
				t.Parallel()
				testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
					testkit.Add(t, reg, testkit.Provider{Name: "p"})
					var first, faulty, last testkit.Journal
					for _, hooks := range []registry.Hooks{
						noting(&first, "", func() {}), noting(&faulty, "", then), noting(&last, "", func() {}),
					} {
						_, err := reg.AddHooks(hooks)
						require.NoError(t, err)
					}
					var callers sync.WaitGroup
					callers.Go(func() { through(reg) })
					callers.Wait()
					synctest.Wait()
					require.Contains(t, first.All(), " before call")
					require.Contains(t, first.All(), " after call")
					require.Equal(t, first.All(), last.All())
					require.Equal(t, first.All(), faulty.All())
				})
			})
		}
	}
}

func TestAddHooks_RunUnderNoLock(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		p := testkit.Add(t, reg, testkit.Provider{Name: "p"})
		var journal testkit.Journal
		_, err := reg.AddHooks(noting(&journal, "a", func() {
			remove, err := reg.AddHooks(registry.Hooks{AfterCall: func(context.Context, registry.CallReport) {}})
			if err != nil {
				t.Error(err)
			}
			remove()
			_ = reg.Reset()
			_, _ = p.SetWeight(2)
			_ = p.Info()
			_ = testkit.Bind(reg).Explain().String()
		}))
		require.NoError(t, err)
		testkit.MustAsk(t, testkit.Bind(reg))
		require.Len(t, journal.All(), 4)
	})
}

func TestHooks_FaultsAreContained(t *testing.T) {
	t.Parallel()
	var do func()
	hook := func(ctx context.Context) context.Context { do(); return ctx }
	options := registry.Options{
		Hooks: registry.Hooks{
			BeforeCall:    func(ctx context.Context, _ registry.CallReport) context.Context { return hook(ctx) },
			BeforeAttempt: func(ctx context.Context, _ registry.CallReport, _ registry.Attempt) context.Context { return hook(ctx) },
			AfterAttempt:  func(ctx context.Context, _ registry.CallReport, _ registry.Attempt) { hook(ctx) },
			AfterCall:     func(ctx context.Context, _ registry.CallReport) { hook(ctx) },
		},
	}
	testkit.Bubble(t, options, func(t *testing.T, reg *registry.Registry) {
		a := testkit.Add(t, reg, testkit.Provider{Name: "a"})
		do = func() { panic("hook") }
		require.Equal(t, "a", testkit.MustAsk(t, testkit.Bind(reg)))
		do = runtime.Goexit
		var callers sync.WaitGroup
		callers.Go(func() { _, _ = testkit.Ask(context.Background(), testkit.Bind(reg)) })
		callers.Go(func() { _, _ = testkit.Bind(reg).Acquire(context.Background()) })
		callers.Wait()
		require.Zero(t, a.Info().InFlight)
		do = func() {}
		require.Equal(t, "a", testkit.MustAsk(t, testkit.Bind(reg)))
	})
	nothing := registry.Options{
		Hooks: registry.Hooks{
			BeforeCall:    func(context.Context, registry.CallReport) context.Context { return nil },
			BeforeAttempt: func(context.Context, registry.CallReport, registry.Attempt) context.Context { return nil },
		},
	}
	testkit.Bubble(t, nothing, func(t *testing.T, reg *registry.Registry) {
		testkit.Add(t, reg, testkit.Provider{Name: "a"})
		require.Equal(t, "a", testkit.MustAsk(t, testkit.Bind(reg)))
	})
}

func TestHooks_GoexitBeforeAttemptBlamesNoProvider(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{Hooks: registry.Hooks{BeforeAttempt: func(ctx context.Context, _ registry.CallReport, _ registry.Attempt) context.Context {
		runtime.Goexit()
		return ctx
	}}}, func(t *testing.T, reg *registry.Registry) {
		a := testkit.Add(t, reg, testkit.Provider{Name: "a"})
		done := make(chan struct{})
		go func() { defer close(done); _, _ = testkit.Ask(context.Background(), testkit.Bind(reg)) }()
		<-done
		require.Zero(t, a.Info().Failures)
		require.Zero(t, a.Info().InFlight)
	})
}

func TestHooks_CannotChangeRecordedAttempts(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{Hooks: registry.Hooks{AfterAttempt: func(_ context.Context, r registry.CallReport, a registry.Attempt) {
		r.Attempts[0].Provider = "changed"
		r.Attempts[0].Err = nil
	}}}, func(t *testing.T, reg *registry.Registry) {
		testkit.Add(t, reg, testkit.Provider{Name: "a", Instance: testkit.Fails(testkit.ErrDown)})
		_, err := testkit.Ask(t.Context(), testkit.Bind(reg))
		require.ErrorIs(t, err, testkit.ErrDown)
	})
}

func TestCall_OutcomesAndPlacesSurviveStress(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{
		Classify: func(err error) verdict.Verdict { return verdict.Verdict{} },
		Hooks: registry.Hooks{
			BeforeAttempt: func(ctx context.Context, _ registry.CallReport, _ registry.Attempt) context.Context {
				return context.WithValue(ctx, traceKey{}, 1)
			},
		},
		PanicsAsErrors: true,
	}, stressOutcomesAndPlaces)
}

func stressOutcomesAndPlaces(t *testing.T, reg *registry.Registry) {
	t.Helper()
	var regs []*registry.Registration
	var inside [4]atomic.Int32
	var over atomic.Int32
	for i := range 4 {
		regs = append(regs, testkit.Add(t, reg, testkit.Provider{
			Name: fmt.Sprint("p", i), Strategy: registry.StrategyRoundRobin, AttemptTimeout: 5 * time.Millisecond,
			Limits:  registry.LimitPolicy{MaxConcurrent: 2, MaxQueue: 5, MaxWait: 2 * time.Millisecond},
			Retry:   registry.RetryPolicy{Retries: 2, FirstDelay: time.Millisecond, Budget: 1000},
			Breaker: registry.BreakerPolicy{FailureThreshold: 3, RecoveryTimeout: time.Millisecond, SuccessThreshold: 2, TrialSlots: 2},
			Instance: testkit.ChatFunc(func(ctx context.Context, _ string) (string, error) {
				if inside[i].Add(1) > 2 {
					over.Add(1)
				}
				defer inside[i].Add(-1)
				switch rand.N(8) {
				case 0:
					return "", testkit.ErrDown
				case 1:
					<-ctx.Done()
					return "", ctx.Err()
				case 2:
					return "", verdict.RateLimited(testkit.ErrDown, time.Millisecond)
				case 3:
					panic("x")
				case 4:
					time.Sleep(time.Millisecond)
				}
				return "ok", nil
			}),
		}))
	}
	r := testkit.Bind(reg)
	stop := time.Now().Add(500 * time.Millisecond)
	var all sync.WaitGroup
	for g := range 16 {
		all.Go(func() {
			for time.Now().Before(stop) {
				time.Sleep(time.Duration(rand.N(50)) * time.Microsecond) // else time stands still while all are refused
				ctx, cancel := context.WithTimeout(context.Background(), time.Duration(rand.N(20)+1)*time.Millisecond)
				switch rand.N(6) {
				case 0:
					if l, err := r.Acquire(ctx); err == nil {
						m := l.Value
						func() {
							defer func() { _ = recover() }()
							_, err := m.Chat(l.Context(), "")
							if rand.N(20) > 0 {
								l.Done(err)
							}
						}()
					}
				case 1:
					_, _ = testkit.Ask(ctx, r, registry.WaitForCooldown())
				case 2:
					go cancel()
					_, _ = testkit.Ask(ctx, r)
				default:
					_, _ = testkit.Ask(ctx, r)
				}
				if g == 0 && rand.N(50) == 0 {
					p := regs[rand.N(4)]
					_ = p.Reset()
					_ = p.ForceOpen(time.Millisecond, "x")
				}
				cancel()
			}
		})
	}
	all.Wait()
	testkit.Pass(1100 * time.Millisecond) // those forgotten expire
	for _, p := range regs {
		i := p.Info()
		require.Zero(t, i.InFlight)
		require.Equal(t, i.Attempts, i.Successes+i.Failures+i.Ignored+i.Limited)
	}
}

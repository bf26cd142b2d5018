package hedge_test

import (
	"context"
	"errors"
	"runtime"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/hedge"
	"github.com/capreg/registry/status"
	"github.com/capreg/registry/verdict"
)

// with runs a test on fake time with a registry of the given options and providers.
func with(t *testing.T, o registry.Options, ps []registry.Provider[server], test func(t *testing.T, reg *registry.Registry, r *registry.Resolver[server])) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		reg, err := registry.New(o)
		require.NoError(t, err)
		for _, p := range ps {
			p.Instance.name = p.Name
			_, err := service.Register(t.Context(), reg, p)
			require.NoError(t, err)
		}
		test(t, reg, service.Bind(reg, registry.Query{}))
		require.NoError(t, reg.Close(t.Context()))
	})
}

func TestCall_LosersAreNeverCounted(t *testing.T) {
	t.Parallel()
	ps := []registry.Provider[server]{{Name: "slow", Instance: server{takes: time.Hour}}, {Name: "fast"}}
	with(t, registry.Options{Classify: func(err error) verdict.Verdict {
		return verdict.Verdict{Class: verdict.ClassServerError} // whatever else it is
	}}, ps, func(t *testing.T, reg *registry.Registry, r *registry.Resolver[server]) {
		for range 5 {
			got, err := hedge.Call(t.Context(), r, second, serve)
			require.NoError(t, err)
			require.Equal(t, "fast", got)
		}
		synctest.Wait()
		slow, _ := reg.Provider("service", "slow")
		require.Zero(t, slow.Info().Failures, "losers are not counted")
		require.Equal(t, status.BreakerClosed, slow.Breaker().State)
	})
}

func TestCall_ExitOfAHookDoesNotBlockTheCaller(t *testing.T) {
	t.Parallel()
	ps := []registry.Provider[server]{{Name: "a"}}
	with(t, registry.Options{Hooks: registry.Hooks{AfterAttempt: func(context.Context, registry.CallReport, registry.Attempt) {
		runtime.Goexit()
	}}}, ps, func(t *testing.T, reg *registry.Registry, r *registry.Resolver[server]) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour) // else it would hang for ever
		defer cancel()
		began := time.Now()
		_, _ = hedge.Call(ctx, r, second, serve)
		require.Less(t, time.Since(began), time.Minute, "the provider answered at once")
	})
}

func TestCall_ExitOfAClassifierDoesNotBlockTheCaller(t *testing.T) {
	t.Parallel()
	ps := []registry.Provider[server]{{Name: "a", Instance: server{err: errDown}}}
	with(t, registry.Options{Classify: func(error) verdict.Verdict { runtime.Goexit(); panic(0) }}, ps, func(t *testing.T, reg *registry.Registry, r *registry.Resolver[server]) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		began := time.Now()
		_, _ = hedge.Call(ctx, r, second, serve)
		require.Less(t, time.Since(began), time.Minute)
	})
}

func TestCall_ExitOfAnAuthorizerDoesNotBlockTheCaller(t *testing.T) {
	t.Parallel()
	ps := []registry.Provider[server]{{Name: "a", Instance: server{err: errDown}}, {Name: "b"}}
	with(t, registry.Options{Authorize: func(_ context.Context, _, _, p string) error {
		if p == "b" {
			runtime.Goexit()
		}
		return nil
	}}, ps, func(t *testing.T, reg *registry.Registry, r *registry.Resolver[server]) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		began := time.Now()
		_, _ = hedge.Call(ctx, r, second, serve)
		require.Less(t, time.Since(began), time.Minute)
	})
}

func TestCall_SecondAnswerIsCancelled(t *testing.T) {
	t.Parallel()
	bubble(t, []server{{name: "a"}, {name: "b"}}, func(t *testing.T, reg *registry.Registry, r *registry.Resolver[server]) {
		caller, cancel := context.WithCancel(t.Context())
		defer cancel()
		ctxs := map[string]context.Context{}
		var n atomic.Int32
		both := make(chan struct{})
		ch := make(chan [2]any, 2)
		got, err := hedge.Call(caller, r, second, func(ctx context.Context, s server) (string, error) {
			ch <- [2]any{s.name, ctx}
			if n.Add(1) == 2 {
				close(both)
			}
			<-both
			return s.name, nil
		})
		require.NoError(t, err)
		for range 2 {
			x := <-ch
			ctxs[x[0].(string)] = x[1].(context.Context) //nolint:fatcontext // two contexts, not one in the other
		}
		synctest.Wait()
		time.Sleep(20 * time.Second)
		other := map[string]string{"a": "b", "b": "a"}[got]
		require.Error(t, ctxs[other].Err(), "this answer is dropped, so nothing else could close what it holds")
		require.NoError(t, ctxs[got].Err())
	})
}

func TestCall_ErrorNamesOnlyProvidersItCalled(t *testing.T) {
	t.Parallel()
	f := server{err: verdict.Fatal(errDown, 0)}
	bubble(t, []server{{name: "a", err: f.err}, {name: "b", err: f.err}, {name: "c"}}, func(t *testing.T, reg *registry.Registry, r *registry.Resolver[server]) {
		_, err := hedge.Call(t.Context(), r, hedge.Policy{}, serve)
		require.NotErrorIs(t, err, registry.ErrCredentials, "c was not asked, and is fine")
	})
}

func TestCall_RateLimitHasARetryTime(t *testing.T) {
	t.Parallel()
	bubble(t, []server{{name: "a", err: verdict.RateLimited(errDown, 10*time.Second)}}, func(t *testing.T, reg *registry.Registry, r *registry.Resolver[server]) {
		_, err := hedge.Call(t.Context(), r, hedge.Policy{}, serve)
		var c *registry.CallError
		require.ErrorAs(t, err, &c)
		require.Positive(t, c.RetryIn)
	})
}

func TestCall_TooLongNeverLeadsToASmallerWindow(t *testing.T) {
	t.Parallel()
	ps := []registry.Provider[server]{
		{Name: "big", Window: 100, Instance: server{err: verdict.As(errDown, verdict.Verdict{Class: verdict.ClassTooLong})}},
		{Name: "small", Window: 10},
	}
	with(t, registry.Options{}, ps, func(t *testing.T, reg *registry.Registry, r *registry.Resolver[server]) {
		_, err := hedge.Call(t.Context(), r, second, serve)
		require.Error(t, err)
		s, _ := reg.Provider("service", "small")
		require.Zero(t, s.Info().Attempts, "only a larger declared window")
	})
}

func TestCall_WinnersContextEndsWithTheCallerAndTheTimeout(t *testing.T) {
	t.Parallel()
	with(t, registry.Options{}, []registry.Provider[server]{{Name: "a"}}, func(t *testing.T, _ *registry.Registry, r *registry.Resolver[server]) {
		watched := func(caller context.Context) (ended chan time.Time) {
			ended = make(chan time.Time, 1)
			_, err := hedge.Call(caller, r, second, func(ctx context.Context, _ server) (string, error) {
				done := ctx.Done()
				go func() { <-done; ended <- time.Now() }()
				return "", nil
			})
			require.NoError(t, err)
			runtime.GC() // a channel without another reference is collected as well
			return ended
		}
		caller, cancel := context.WithCancel(t.Context())
		began := time.Now()
		ended := watched(caller)
		time.Sleep(time.Second)
		cancel()
		require.Equal(t, time.Second, (<-ended).Sub(began))
		began = time.Now()
		require.Equal(t, 30*time.Second, (<-watched(t.Context())).Sub(began))
	})
}

func TestCall_AdvancesTheRotationOnce(t *testing.T) {
	t.Parallel()
	ps := []registry.Provider[server]{
		{Name: "a", Strategy: registry.StrategyRoundRobin, Instance: server{err: errDown}, Breaker: registry.BreakerPolicy{FailureThreshold: 1000}},
		{Name: "b", Strategy: registry.StrategyRoundRobin},
	}
	with(t, registry.Options{}, ps, func(t *testing.T, reg *registry.Registry, r *registry.Resolver[server]) {
		for range 10 {
			_, err := hedge.Call(t.Context(), r, second, serve)
			require.NoError(t, err)
		}
		a, _ := reg.Provider("service", "a")
		require.EqualValues(t, 5, a.Info().Attempts)
	})
}

func TestCall_DoesNotAmplifyAnOutage(t *testing.T) {
	t.Parallel()
	mk := func(n string) registry.Provider[server] {
		return registry.Provider[server]{Name: n, Instance: server{err: errDown}, Breaker: registry.BreakerPolicy{FailureThreshold: 1e6}}
	}
	with(t, registry.Options{}, []registry.Provider[server]{mk("a"), mk("b"), mk("c")}, func(t *testing.T, reg *registry.Registry, r *registry.Resolver[server]) {
		for range 100 {
			_, _ = hedge.Call(t.Context(), r, second, serve)
		}
		n := uint64(0)
		for info := range reg.All() {
			n += info.Attempts
		}
		require.Less(t, n, uint64(150))
	})
}

func TestCall_WaitsForACooldownByOption(t *testing.T) {
	t.Parallel()
	bubble(t, []server{{name: "a", err: verdict.RateLimited(errDown, 20*time.Second)}}, func(t *testing.T, reg *registry.Registry, r *registry.Resolver[server]) {
		began := time.Now()
		_, err := hedge.Call(t.Context(), r, second, serve, registry.WaitForCooldown())
		require.Error(t, err)
		a, _ := reg.Provider("service", "a")
		require.True(t, time.Since(began) == 0 || a.Info().Attempts > 1, "waits, and then calls no provider")
	})
}

func TestCall_ErrorKeepsTheCauseOfTheCaller(t *testing.T) {
	t.Parallel()
	bad := 0
	for range 100 {
		bubble(t, []server{{name: "a"}}, func(t *testing.T, reg *registry.Registry, r *registry.Resolver[server]) {
			mine := errors.New("stop")
			ctx, cancel := context.WithCancelCause(t.Context())
			time.AfterFunc(time.Second, func() { cancel(mine) })
			_, err := hedge.Call(ctx, r, second, func(ctx context.Context, s server) (string, error) {
				<-ctx.Done()
				return "", errors.New("aborted")
			})
			if !errors.Is(err, mine) || !errors.Is(err, context.Canceled) {
				bad++
			}
		})
	}
	require.Zero(t, bad)
}

func TestCall_AttemptsShareTheIdempotencyKey(t *testing.T) {
	t.Parallel()
	bubble(t, []server{{name: "a", err: errDown}, {name: "b"}}, func(t *testing.T, reg *registry.Registry, r *registry.Resolver[server]) {
		keys := make(chan string, 2)
		_, err := hedge.Call(t.Context(), r, second, func(ctx context.Context, s server) (string, error) {
			keys <- registry.IdempotencyKey(ctx)
			return s.serve(ctx)
		})
		require.NoError(t, err)
		first, second := <-keys, <-keys
		require.NotEmpty(t, first)
		require.Equal(t, first, second)
	})
}

// The answer of a hedged call may be a stream: five that take all of their time, read slowly or not at all, from
// the first provider and from the hedge.
func TestCall_LongAnswersBlameNoProvider(t *testing.T) {
	t.Parallel()
	for _, pause := range []time.Duration{0, 3 * time.Second, time.Hour} {
		ps := []registry.Provider[server]{{Name: "a", AttemptTimeout: 10 * time.Second}, {Name: "b", AttemptTimeout: 10 * time.Second}}
		with(t, registry.Options{}, ps, func(t *testing.T, reg *registry.Registry, r *registry.Resolver[server]) {
			for i := range 10 {
				slowFirst := i%2 == 0
				items, err := hedge.Call(t.Context(), r, second, func(ctx context.Context, s server) (<-chan int, error) {
					if s.name == "a" && slowFirst {
						<-ctx.Done()
						return nil, ctx.Err()
					}
					items := make(chan int)
					go func() {
						defer close(items)
						for i := 0; ; i++ {
							select {
							case items <- i:
								time.Sleep(time.Second)
							case <-ctx.Done():
								return
							}
						}
					}()
					return items, nil
				})
				require.NoError(t, err)
				for range items {
					time.Sleep(pause)
				}
			}
			require.Equal(t, [4]uint64{5, 0, 5, 0}, counts(t, reg, "a"))
			require.Equal(t, [4]uint64{5, 0, 0, 0}, counts(t, reg, "b"))
		})
	}
}

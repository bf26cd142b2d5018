package hedge_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/capreg/registry"
	"github.com/capreg/registry/hedge"
	"github.com/capreg/registry/status"
	"github.com/capreg/registry/verdict"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// server answers its name after a time, or fails.
type server struct {
	name  string
	takes time.Duration
	err   error
}

func (s server) serve(ctx context.Context) (string, error) {
	select {
	case <-time.After(s.takes):
		return s.name, s.err
	case <-ctx.Done():
		return "", ctx.Err()
	}
}

var (
	service = registry.NewService[server]("service")
	errDown = errors.New("down")
	second  = hedge.Policy{After: time.Second, MaxProviders: 3}
)

func bubble(t *testing.T, servers []server, test func(t *testing.T, reg *registry.Registry, r *registry.Resolver[server])) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		reg, err := registry.New(registry.Options{})
		require.NoError(t, err)
		for _, s := range servers {
			_, err := service.Register(t.Context(), reg, registry.Provider[server]{Name: s.name, Instance: s})
			require.NoError(t, err)
		}
		test(t, reg, service.Bind(reg, registry.Query{}))
		require.NoError(t, reg.Close(t.Context()))
	})
}

func serve(ctx context.Context, s server) (string, error) { return s.serve(ctx) }

// counts returns successes, failures, ignored and in flight.
func counts(t *testing.T, reg *registry.Registry, name string) [4]uint64 {
	t.Helper()
	registration, ok := reg.Provider("service", name)
	require.True(t, ok)
	info := registration.Info()
	return [4]uint64{info.Successes, info.Failures, info.Ignored, info.InFlight}
}

func TestCall_FastAnswerCallsNoOtherProvider(t *testing.T) {
	t.Parallel()
	bubble(t, []server{{name: "a"}, {name: "b"}}, func(t *testing.T, reg *registry.Registry, r *registry.Resolver[server]) {
		answer, err := hedge.Call(t.Context(), r, second, serve)
		require.NoError(t, err)
		require.Equal(t, "a", answer)
		require.Equal(t, [4]uint64{1, 0, 0, 0}, counts(t, reg, "a"))
		require.Equal(t, [4]uint64{}, counts(t, reg, "b"))
	})
}

func TestCall_SlowLoserIsNotCounted(t *testing.T) {
	t.Parallel()
	bubble(t, []server{{name: "a", takes: time.Minute}, {name: "b", takes: 2 * time.Second}}, func(t *testing.T, reg *registry.Registry, r *registry.Resolver[server]) {
		began := time.Now()
		answer, err := hedge.Call(t.Context(), r, second, serve)
		require.NoError(t, err)
		require.Equal(t, "b", answer)
		require.Equal(t, 3*time.Second, time.Since(began))
		synctest.Wait()
		require.Equal(t, [4]uint64{0, 0, 1, 0}, counts(t, reg, "a"))
		require.Equal(t, [4]uint64{1, 0, 0, 0}, counts(t, reg, "b"))
	})
}

func TestCall_CancelledLosersDoNotOpenTheBreaker(t *testing.T) {
	t.Parallel()
	bubble(t, []server{{name: "a", takes: time.Minute}, {name: "b"}}, func(t *testing.T, reg *registry.Registry, r *registry.Resolver[server]) {
		for range 50 {
			answer, err := hedge.Call(t.Context(), r, second, serve)
			require.NoError(t, err)
			require.Equal(t, "b", answer)
			synctest.Wait()
		}
		a, _ := reg.Provider("service", "a")
		require.Equal(t, status.BreakerClosed, a.Breaker().State)
		require.Zero(t, a.Breaker().ConsecutiveFailures)
	})
}

func TestCall_FailureCallsTheNextAtOnceAndEachOnce(t *testing.T) {
	t.Parallel()
	servers := []server{{name: "a", err: errDown}, {name: "b", err: errDown}, {name: "c", err: errDown}, {name: "d"}}
	bubble(t, servers, func(t *testing.T, reg *registry.Registry, r *registry.Resolver[server]) {
		began := time.Now()
		_, err := hedge.Call(t.Context(), r, second, serve)
		require.ErrorIs(t, err, errDown)
		require.Equal(t, began, time.Now())
		var failed *registry.CallError
		require.ErrorAs(t, err, &failed)
		require.Len(t, failed.Attempts, 3)
		require.Equal(t, [4]uint64{}, counts(t, reg, "d"), "three at most")
		for _, name := range []string{"a", "b", "c"} {
			require.Equal(t, [4]uint64{0, 1, 0, 0}, counts(t, reg, name))
		}
	})
}

func TestCall_HedgesGoToDifferentProviders(t *testing.T) {
	t.Parallel()
	servers := []server{{name: "a", takes: time.Minute}, {name: "b", takes: time.Minute}, {name: "c", takes: 5 * time.Second}}
	bubble(t, servers, func(t *testing.T, _ *registry.Registry, r *registry.Resolver[server]) {
		began := time.Now()
		answer, err := hedge.Call(t.Context(), r, second, serve)
		require.NoError(t, err)
		require.Equal(t, "c", answer)
		require.Equal(t, 7*time.Second, time.Since(began))
	})
}

func TestCall_CallersMistakeEndsTheRace(t *testing.T) {
	t.Parallel()
	bubble(t, []server{{name: "a", err: verdict.Permanent(errDown)}, {name: "b"}}, func(t *testing.T, reg *registry.Registry, r *registry.Resolver[server]) {
		_, err := hedge.Call(t.Context(), r, second, serve)
		require.ErrorIs(t, err, errDown)
		require.Equal(t, [4]uint64{}, counts(t, reg, "b"))
	})
}

func TestCall_WithoutAnotherProviderIsNoError(t *testing.T) {
	t.Parallel()
	bubble(t, []server{{name: "a", takes: 5 * time.Second}}, func(t *testing.T, _ *registry.Registry, r *registry.Resolver[server]) {
		answer, err := hedge.Call(t.Context(), r, second, serve)
		require.NoError(t, err)
		require.Equal(t, "a", answer)
	})
	bubble(t, nil, func(t *testing.T, _ *registry.Registry, r *registry.Resolver[server]) {
		_, err := hedge.Call(t.Context(), r, second, serve)
		require.ErrorIs(t, err, registry.ErrUnavailable)
	})
}

func TestCall_EndsWithItsCaller(t *testing.T) {
	t.Parallel()
	bubble(t, []server{{name: "a", takes: time.Hour}, {name: "b", takes: time.Hour}}, func(t *testing.T, reg *registry.Registry, r *registry.Resolver[server]) {
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(5*time.Second, func() { cancel(errDown) })
		_, err := hedge.Call(ctx, r, second, serve)
		require.ErrorIs(t, err, context.Canceled)
		require.ErrorIs(t, err, errDown)
		synctest.Wait()
		for _, name := range []string{"a", "b"} {
			require.Equal(t, [4]uint64{0, 0, 1, 0}, counts(t, reg, name))
		}
	})
}

func TestCall_AttemptTimeoutIsAFailureAndNoForgottenLease(t *testing.T) {
	t.Parallel()
	bubble(t, []server{{name: "a", takes: time.Hour}}, func(t *testing.T, reg *registry.Registry, r *registry.Resolver[server]) {
		_, err := hedge.Call(t.Context(), r, second, serve, registry.AttemptTimeout(10*time.Second))
		var failed *registry.CallError
		require.ErrorAs(t, err, &failed)
		require.Equal(t, verdict.ClassAttemptTimeout, failed.Attempts[0].Class)
		require.Equal(t, [4]uint64{0, 1, 0, 0}, counts(t, reg, "a"))
	})
}

func TestCall_WinnersContextOutlivesTheReturn(t *testing.T) {
	t.Parallel()
	bubble(t, []server{{name: "a"}}, func(t *testing.T, _ *registry.Registry, r *registry.Resolver[server]) {
		caller, cancel := context.WithCancel(t.Context())
		ctx, err := hedge.Call(caller, r, second, func(ctx context.Context, _ server) (context.Context, error) {
			deadline, ok := ctx.Deadline()
			require.True(t, ok)
			require.Equal(t, 30*time.Second, time.Until(deadline))
			require.NotEmpty(t, registry.IdempotencyKey(ctx))
			return ctx, nil
		})
		require.NoError(t, err)
		time.Sleep(20 * time.Second)
		require.NoError(t, ctx.Err(), "a body can still be read")
		cancel()
		<-ctx.Done()
		require.ErrorIs(t, ctx.Err(), context.Canceled)
	})
}

func TestCall_DeafLoserKeepsItsSlotUntilItReturns(t *testing.T) {
	t.Parallel()
	bubble(t, []server{{name: "a"}, {name: "b"}}, func(t *testing.T, reg *registry.Registry, r *registry.Resolver[server]) {
		answer, err := hedge.Call(t.Context(), r, second, func(_ context.Context, s server) (string, error) {
			if s.name == "a" {
				time.Sleep(10 * time.Second)
			}
			return s.name, nil
		})
		require.NoError(t, err)
		require.Equal(t, "b", answer)
		synctest.Wait()
		require.Equal(t, [4]uint64{0, 0, 0, 1}, counts(t, reg, "a"))
		time.Sleep(10 * time.Second)
		require.Equal(t, [4]uint64{0, 0, 1, 0}, counts(t, reg, "a"))
	})
}

func TestCall_PanicIsRecordedAndReachesTheCaller(t *testing.T) {
	t.Parallel()
	bubble(t, []server{{name: "a"}, {name: "b"}}, func(t *testing.T, reg *registry.Registry, r *registry.Resolver[server]) {
		require.PanicsWithValue(t, "boom", func() {
			_, _ = hedge.Call(t.Context(), r, second, func(context.Context, server) (int, error) { panic("boom") })
		})
		require.Equal(t, [4]uint64{0, 1, 0, 0}, counts(t, reg, "a"))
		_, err := hedge.Call(t.Context(), r, second, func(context.Context, server) (int, error) { runtime.Goexit(); return 0, nil })
		require.ErrorContains(t, err, "Goexit")
	})
}

func TestCall_RefusesBadInput(t *testing.T) {
	t.Parallel()
	bubble(t, []server{{name: "a"}}, func(t *testing.T, reg *registry.Registry, r *registry.Resolver[server]) {
		var report registry.CallReport
		for name, call := range map[string]func() (string, error){
			"after":     func() (string, error) { return hedge.Call(t.Context(), r, hedge.Policy{After: -1}, serve) },
			"most":      func() (string, error) { return hedge.Call(t.Context(), r, hedge.Policy{MaxProviders: 17}, serve) },
			"once only": func() (string, error) { return hedge.Call(t.Context(), r, second, serve, registry.OnceOnly()) },
			"report":    func() (string, error) { return hedge.Call(t.Context(), r, second, serve, registry.ReportTo(&report)) },
			"context":   func() (string, error) { var none context.Context; return hedge.Call(none, r, second, serve) },
			"function":  func() (string, error) { return hedge.Call[server, string](t.Context(), r, second, nil) },
			"resolver":  func() (string, error) { return hedge.Call(t.Context(), nil, second, serve) },
		} {
			_, err := call()
			require.ErrorIs(t, err, registry.ErrInvalid, name)
		}
		require.Equal(t, [4]uint64{}, counts(t, reg, "a"))
	})
}

func TestCall_ConcurrentCallsLoseNoOutcome(t *testing.T) {
	t.Parallel()
	servers := []server{{name: "a", takes: 2 * time.Second}, {name: "b", takes: time.Second}, {name: "c", err: errDown}}
	bubble(t, servers, func(t *testing.T, reg *registry.Registry, r *registry.Resolver[server]) {
		var callers sync.WaitGroup
		for range 200 {
			callers.Go(func() {
				if _, err := hedge.Call(t.Context(), r, hedge.Policy{After: time.Millisecond, MaxProviders: 3}, serve); err != nil {
					t.Error(err)
				}
			})
		}
		callers.Wait()
		synctest.Wait()
		for _, name := range []string{"a", "b", "c"} {
			registration, _ := reg.Provider("service", name)
			info := registration.Info()
			require.Equal(t, info.Attempts, info.Successes+info.Failures+info.Ignored+info.Limited, name)
		}
	})
}

func ExampleCall() {
	ctx := context.Background()
	reg, err := registry.New(registry.Options{})
	if err != nil {
		panic(err)
	}
	defer func() { _ = reg.Close(ctx) }()
	for _, s := range []server{{name: "slow", takes: time.Minute}, {name: "fast"}} {
		if _, err := service.Register(ctx, reg, registry.Provider[server]{Name: s.name, Instance: s}); err != nil {
			panic(err)
		}
	}
	answer, err := hedge.Call(ctx, service.Bind(reg, registry.Query{}), hedge.Policy{After: time.Millisecond}, serve)
	fmt.Println(answer, err)
	// Output:
	// fast <nil>
}

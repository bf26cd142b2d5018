package registry_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/internal/testkit"
	"github.com/capreg/registry/status"
	"github.com/capreg/registry/verdict"
)

func TestCall_CancelledCallerEndsCallWithoutBlame(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a := testkit.Add(t, reg, testkit.Provider{Name: "a", Instance: testkit.Hangs(), Breaker: registry.BreakerPolicy{FailureThreshold: 1}})
		b := testkit.Add(t, reg, testkit.Provider{Name: "b"})
		errBored := errors.New("bored")
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(time.Second, func() { cancel(errBored) })
		_, err := testkit.Ask(ctx, testkit.Bind(reg))
		testkit.RequireOneLine(t, err)
		require.ErrorIs(t, err, context.Canceled)
		require.ErrorIs(t, err, errBored)
		testkit.RequireCounts(t, a, 0, 0, 1, 0)
		testkit.RequireCounts(t, b, 0, 0, 0, 0)
		require.Equal(t, status.BreakerClosed, a.Breaker().State)
	})
}

func TestCall_EndedContextRunsNothing(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a := testkit.Add(t, reg, testkit.Provider{Name: "a"})
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, err := testkit.Ask(ctx, testkit.Bind(reg))
		require.ErrorIs(t, err, context.Canceled)
		_, err = testkit.Bind(reg).Acquire(ctx)
		require.ErrorIs(t, err, context.Canceled)
		require.Zero(t, a.Info().Attempts)
	})
}

func TestAttemptTimeout_IsAFailureAndFailsOver(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		var cause error
		stuck := testkit.ChatFunc(func(ctx context.Context, _ string) (string, error) {
			<-ctx.Done()
			cause = context.Cause(ctx)
			return "", ctx.Err()
		})
		a := testkit.Add(t, reg, testkit.Provider{Name: "a", Instance: stuck, AttemptTimeout: 3 * time.Second})
		testkit.Add(t, reg, testkit.Provider{Name: "b"})
		began := time.Now()
		require.Equal(t, "b", testkit.MustAsk(t, testkit.Bind(reg)))
		require.Equal(t, 3*time.Second, time.Since(began))
		require.ErrorIs(t, cause, registry.ErrAttemptTimeout)
		testkit.RequireCounts(t, a, 0, 1, 0, 0)
	})
}

func TestAttemptTimeout_IsThirtySecondsByDefault(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		testkit.Add(t, reg, testkit.Provider{Name: "a", Instance: testkit.Hangs()})
		began := time.Now()
		_, err := testkit.Ask(t.Context(), testkit.Bind(reg))
		require.Equal(t, 30*time.Second, time.Since(began))
		require.ErrorIs(t, err, context.DeadlineExceeded)
		var failed *registry.CallError
		require.ErrorAs(t, err, &failed)
		require.Equal(t, verdict.ClassAttemptTimeout, failed.Attempts[0].Class)
	})
}

func TestAttemptTimeout_LeavesAQuarterOfTheTimeWithOthersLeft(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		for _, name := range []string{"a", "b", "c"} {
			testkit.Add(t, reg, testkit.Provider{Name: name, Instance: testkit.Hangs()})
		}
		ctx, cancel := context.WithTimeout(t.Context(), 8*time.Second)
		defer cancel()
		began := time.Now()
		_, err := testkit.Ask(ctx, testkit.Bind(reg))
		require.Equal(t, 8*time.Second, time.Since(began), "the caller's deadline is never exceeded")
		require.ErrorIs(t, err, context.DeadlineExceeded)
		var failed *registry.CallError
		require.ErrorAs(t, err, &failed)
		require.Equal(t, []registry.Attempt{
			{Provider: "a", Why: "first", Class: verdict.ClassCut, Duration: 6 * time.Second, Err: context.DeadlineExceeded},
			{Provider: "b", Why: "failover", Class: verdict.ClassCut, Duration: 1500 * time.Millisecond, Err: context.DeadlineExceeded},
			{Provider: "c", Why: "failover", Class: verdict.ClassCallerDeadline, Duration: 500 * time.Millisecond, Err: context.DeadlineExceeded},
		}, failed.Attempts)
	})
}

// The caller's deadline blames the only provider where it has had the time that its user chose, or far more
// than its answers take: four times as much.
func TestAttemptTimeout_CallerDeadlineCountsAfterFarTooLong(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name                      string
		timeout, answer, deadline time.Duration
		deaf                      bool // it returns a second after its context has ended
		failures                  int
	}{
		{name: "never answered", deadline: 29 * time.Second},
		{name: "never answered, explicit timeout not reached", timeout: 10 * time.Second, deadline: 9900 * time.Millisecond},
		{name: "never answered, explicit timeout reached", timeout: 10 * time.Second, deadline: 9900 * time.Millisecond, deaf: true, failures: 1},
		{name: "not far longer than an answer", answer: 2 * time.Second, deadline: 7900 * time.Millisecond},
		{name: "far longer than an answer", answer: 2 * time.Second, deadline: 8 * time.Second, failures: 1},
		{name: "far longer, without timeout", timeout: registry.NoTimeout, answer: 2 * time.Second, deadline: 8 * time.Second, failures: 1},
		{name: "far longer than an answer at once", deadline: 50 * time.Millisecond, answer: 1},
	} {
		testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
			calls := 0
			a := testkit.Add(t, reg, testkit.Provider{Name: "a", AttemptTimeout: c.timeout, Instance: testkit.ChatFunc(func(ctx context.Context, _ string) (string, error) {
				if calls++; calls == 1 && c.answer > 0 {
					time.Sleep(c.answer)
					return "a", nil
				}
				<-ctx.Done()
				if c.deaf {
					time.Sleep(time.Second)
				}
				return "", ctx.Err()
			})})
			successes := 0
			if c.answer > 0 {
				testkit.MustAsk(t, testkit.Bind(reg))
				successes++
			}
			ctx, cancel := context.WithTimeout(t.Context(), c.deadline)
			defer cancel()
			_, err := testkit.Ask(ctx, testkit.Bind(reg))
			require.ErrorIs(t, err, context.DeadlineExceeded)
			testkit.RequireCounts(t, a, successes, c.failures, 1-c.failures, 0)
			require.Equal(t, c.failures, a.Breaker().ConsecutiveFailures)
		})
	}
}

func TestAttemptTimeout_LateAnswerIsReturned(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		deaf := testkit.Answers(func() (string, error) { time.Sleep(time.Minute); return "late", nil })
		a := testkit.Add(t, reg, testkit.Provider{Name: "a", Instance: deaf, AttemptTimeout: time.Second})
		require.Equal(t, "late", testkit.MustAsk(t, testkit.Bind(reg)))
		testkit.RequireCounts(t, a, 1, 0, 0, 0)
	})
}

func TestAttemptTimeout_ClientsOwnTimeoutFailsOver(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a := testkit.Add(t, reg, testkit.Provider{Name: "a", Instance: testkit.Fails(fmt.Errorf("sdk: %w", context.DeadlineExceeded))})
		testkit.Add(t, reg, testkit.Provider{Name: "b"})
		require.Equal(t, "b", testkit.MustAsk(t, testkit.Bind(reg)))
		testkit.RequireCounts(t, a, 0, 1, 0, 0)
	})
}

func TestAttemptTimeout_CallOptionReplacesProviderSetting(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		testkit.Add(t, reg, testkit.Provider{Name: "a", Instance: testkit.Hangs()})
		began := time.Now()
		_, err := testkit.Ask(t.Context(), testkit.Bind(reg), registry.AttemptTimeout(time.Second))
		require.Error(t, err)
		require.Equal(t, time.Second, time.Since(began))
	})
}

func TestAttemptTimeout_LongestDoesNotOverflow(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		testkit.Add(t, reg, testkit.Provider{Name: "p", AttemptTimeout: math.MaxInt64 - 1})
		testkit.Pass(time.Second)
		_, err := registry.Call(t.Context(), testkit.Bind(reg), func(ctx context.Context, _ testkit.ChatModel) (int, error) { return 0, ctx.Err() })
		require.NoError(t, err)
	})
}

func TestAttemptTimeout_NoTimeoutIsNeverShortened(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		testkit.Add(t, reg, testkit.Provider{Name: "a", AttemptTimeout: registry.NoTimeout})
		testkit.Add(t, reg, testkit.Provider{Name: "b", AttemptTimeout: registry.NoTimeout})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := registry.Call(ctx, testkit.Bind(reg), func(got context.Context, _ testkit.ChatModel) (int, error) {
			require.Equal(t, ctx, got)
			return 0, nil
		})
		require.NoError(t, err)
	})
}

func TestAttemptTimeout_SharedTimeoutsStillTripBreaker(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		var hang atomic.Bool
		a := testkit.Add(t, reg, testkit.Provider{Name: "a", AttemptTimeout: 10 * time.Second, Instance: testkit.ChatFunc(func(ctx context.Context, _ string) (string, error) {
			if hang.Load() {
				<-ctx.Done()
				return "", ctx.Err()
			}
			time.Sleep(4 * time.Second)
			return "a", nil
		})})
		testkit.Add(t, reg, testkit.Provider{Name: "b"})
		r := testkit.Bind(reg)
		for range 10 {
			testkit.MustAsk(t, r)
		}
		hang.Store(true)
		for range 1000 {
			ctx, cancel := context.WithTimeout(t.Context(), 7*time.Second)
			_, _ = testkit.Ask(ctx, r)
			cancel()
		}
		require.Equal(t, status.BreakerOpen, a.Breaker().State, "1000 attempt timeouts in a row")
	})
}

func TestAttemptTimeout_IsToldFromCallersEnd(t *testing.T) {
	t.Parallel()
	reg := testkit.New(t, registry.Options{})
	p := testkit.Add(t, reg, testkit.Provider{Name: "p"})
	inner, cancel := context.WithCancelCause(t.Context())
	ctx := &interruptedContext{inner, func() {}}
	_, _ = registry.Call(ctx, testkit.Bind(reg), func(ctx2 context.Context, _ testkit.ChatModel) (int, error) {
		_ = ctx2.Done()
		ctx.after = func() {
			ctx.after = func() {}
			cancel(registry.ErrAttemptTimeout) // an outer attempt's timeout fires
			<-ctx2.Done()
		}
		return 0, verdict.Permanent(testkit.ErrDown)
	})
	require.Zero(t, p.Info().Failures)
	_ = reg.Close(t.Context())
}

func TestCall_CallerDeadlineOnSocketIsNeutral(t *testing.T) {
	t.Parallel()
	reg := testkit.New(t, registry.Options{})
	p := testkit.Add(t, reg, testkit.Provider{Name: "p", Breaker: registry.BreakerPolicy{FailureThreshold: 1 << 20}})
	r := testkit.Bind(reg)
	for range 200 {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Millisecond)
		_, _ = registry.Call(ctx, r, func(ctx context.Context, _ testkit.ChatModel) (int, error) {
			a, b := net.Pipe()
			defer func() { _ = errors.Join(a.Close(), b.Close()) }()
			d, _ := ctx.Deadline()
			_ = a.SetDeadline(d)
			_, err := a.Read(make([]byte, 1))
			return 0, err
		})
		cancel()
	}
	info := p.Info()
	require.Zero(t, info.Failures, "the caller's deadline is neutral")
	_ = reg.Close(t.Context())
}

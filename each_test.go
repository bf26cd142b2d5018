package registry_test

import (
	"context"
	"runtime"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/internal/testkit"
	"github.com/capreg/registry/reason"
	"github.com/capreg/registry/verdict"
)

func chats(ctx context.Context, m testkit.ChatModel) error {
	_, err := m.Chat(ctx, "?")
	return err
}

func TestDo_IsACallWithoutResult(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a := testkit.Add(t, reg, testkit.Provider{Name: "a", Instance: testkit.Fails(testkit.ErrDown)})
		b := testkit.Add(t, reg, testkit.Provider{Name: "b"})
		r := testkit.Bind(reg)
		require.NoError(t, r.Do(t.Context(), chats))
		testkit.RequireCounts(t, a, 0, 1, 0, 0)
		testkit.RequireCounts(t, b, 1, 0, 0, 0)
		require.NoError(t, b.Unregister(t.Context()))
		require.ErrorIs(t, r.Do(t.Context(), chats, registry.OnceOnly()), testkit.ErrDown)
		require.ErrorIs(t, r.Do(t.Context(), nil), registry.ErrInvalid)
		var none *registry.Resolver[testkit.ChatModel]
		require.ErrorIs(t, none.Do(t.Context(), chats), registry.ErrInvalid)
	})
}

func TestEach_AsksEveryProviderThatACallCouldEnter(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a := testkit.Add(t, reg, testkit.Provider{Name: "a", Instance: testkit.Takes("a", 3*time.Second)})
		b := testkit.Add(t, reg, testkit.Provider{Name: "b", Group: 2, Instance: testkit.Fails(testkit.ErrDown)})
		ill := testkit.Add(t, reg, testkit.Provider{Name: "ill"})
		require.NoError(t, ill.MarkUnhealthy(testkit.ErrDown))
		began := time.Now()
		outcomes, err := testkit.Bind(reg).Each(t.Context(), chats)
		require.Equal(t, 3*time.Second, time.Since(began), "all at once")
		require.ErrorIs(t, err, testkit.ErrDown)
		var failed *registry.CallError
		require.ErrorAs(t, err, &failed)
		require.Equal(t, []registry.Attempt{
			{Provider: "a", Why: reason.All, Class: verdict.ClassSuccess, Duration: 3 * time.Second},
			{Provider: "b", Why: reason.All, Class: verdict.ClassUnknown, Err: testkit.ErrDown},
		}, outcomes)
		require.Equal(t, outcomes[1:], failed.Attempts)
		testkit.RequireCounts(t, a, 1, 0, 0, 0)
		testkit.RequireCounts(t, b, 0, 1, 0, 0)
		require.Zero(t, ill.Info().Attempts)

		require.NoError(t, b.Unregister(t.Context()))
		outcomes, err = testkit.Bind(reg).Each(t.Context(), chats)
		require.NoError(t, err)
		require.Len(t, outcomes, 1)
		require.NoError(t, a.MarkUnhealthy(testkit.ErrDown))
		_, err = testkit.Bind(reg).Each(t.Context(), chats)
		require.ErrorIs(t, err, registry.ErrUnavailable)
		_, err = testkit.Bind(reg).Each(t.Context(), nil)
		require.ErrorIs(t, err, registry.ErrInvalid)
		_, err = testkit.Bind(reg).Each(t.Context(), chats, registry.MaxParallel(0))
		require.ErrorIs(t, err, registry.ErrInvalid)
	})
}

func TestEach_RunsAtMostMaxParallelAtOnce(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		for _, name := range []string{"a", "b", "c", "d", "e"} {
			testkit.Add(t, reg, testkit.Provider{Name: name, AttemptTimeout: 1500 * time.Millisecond})
		}
		var running, most atomic.Int32
		began := time.Now()
		outcomes, err := testkit.Bind(reg).Each(t.Context(), func(context.Context, testkit.ChatModel) error {
			most.Store(max(most.Load(), running.Add(1)))
			defer running.Add(-1)
			time.Sleep(time.Second)
			return nil
		}, registry.MaxParallel(2))
		require.NoError(t, err, "an attempt that waits for others has its whole time")
		require.Len(t, outcomes, 5)
		require.EqualValues(t, 2, most.Load())
		require.Equal(t, 3*time.Second, time.Since(began))
	})
}

func TestEach_EntersNoneOnceItsContextHasEnded(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		testkit.Add(t, reg, testkit.Provider{Name: "a"})
		b := testkit.Add(t, reg, testkit.Provider{Name: "b"})
		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Second, testkit.ErrDown)
		defer cancel()
		outcomes, err := testkit.Bind(reg).Each(ctx, func(ctx context.Context, _ testkit.ChatModel) error {
			<-ctx.Done()
			return nil
		}, registry.MaxParallel(1))
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.ErrorIs(t, err, testkit.ErrDown)
		require.Len(t, outcomes, 1)
		require.Zero(t, b.Info().Attempts)
		_, err = testkit.Bind(reg).Each(ctx, chats)
		require.ErrorIs(t, err, context.DeadlineExceeded)
	})
}

// Variants: a panic that goes on, one that is an error, an exit, a panic that a function was given as an error.
func TestEach_PanicReachesTheCallerWhenAllHaveEnded(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a := testkit.Add(t, reg, testkit.Provider{Name: "a"})
		b := testkit.Add(t, reg, testkit.Provider{Name: "b"})
		require.PanicsWithValue(t, "boom", func() {
			_, _ = testkit.Bind(reg).Each(t.Context(), func(ctx context.Context, m testkit.ChatModel) error {
				if text, _ := m.Chat(ctx, ""); text == "a" {
					panic("boom")
				}
				time.Sleep(time.Second)
				return nil
			})
		})
		testkit.RequireCounts(t, a, 0, 1, 0, 0)
		testkit.RequireCounts(t, b, 1, 0, 0, 0)
		outcomes, err := testkit.Bind(reg).Each(t.Context(), func(ctx context.Context, m testkit.ChatModel) error {
			if text, _ := m.Chat(ctx, ""); text == "a" {
				runtime.Goexit()
			}
			return &verdict.PanicError{Value: "of another"}
		})
		require.Error(t, err)
		require.Len(t, outcomes, 2)
	})
	testkit.Bubble(t, registry.Options{PanicsAsErrors: true}, func(t *testing.T, reg *registry.Registry) {
		testkit.Add(t, reg, testkit.Provider{Name: "a"})
		outcomes, err := testkit.Bind(reg).Each(t.Context(), func(context.Context, testkit.ChatModel) error { panic("boom") })
		var panicked *verdict.PanicError
		require.ErrorAs(t, err, &panicked)
		require.Equal(t, verdict.ClassPanic, outcomes[0].Class)
	})
}

func TestEach_FunctionThatIgnoresItsContextIsForgotten(t *testing.T) {
	t.Parallel()
	var reports []registry.CallReport
	testkit.Bubble(t, registry.Options{Hooks: registry.Hooks{AfterCall: func(_ context.Context, r registry.CallReport) { reports = append(reports, r) }}},
		func(t *testing.T, reg *registry.Registry) {
			a := testkit.Add(t, reg, testkit.Provider{Name: "a", AttemptTimeout: time.Second})
			outcomes, err := testkit.Bind(reg).Each(t.Context(), func(context.Context, testkit.ChatModel) error {
				time.Sleep(time.Minute)
				return nil
			})
			require.Error(t, err)
			require.Equal(t, verdict.ClassForgotten, outcomes[0].Class)
			testkit.RequireCounts(t, a, 0, 1, 0, 0)
			synctest.Wait() // the hooks of a lease that expires run beside it
			require.Len(t, reports, 1, "one call")
		})
}

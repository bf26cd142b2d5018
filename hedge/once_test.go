package hedge_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/hedge"
	"github.com/capreg/registry/verdict"
)

func TestCall_ReturnsAnErrorThatAClassifierCountsAsAnAnswer(t *testing.T) {
	t.Parallel()
	errNo := verdict.As(errors.New("the answer is no"), verdict.Verdict{Class: verdict.ClassSuccess})
	bubble(t, []server{{name: "a", err: errNo}}, func(t *testing.T, reg *registry.Registry, r *registry.Resolver[server]) {
		_, err := registry.Call(t.Context(), r, serve)
		require.Error(t, err, "registry.Call")
		_, err = hedge.Call(t.Context(), r, hedge.Policy{MaxProviders: 1}, serve)
		require.Error(t, err, "hedge.Call")
	})
}

func TestCall_SuccessIsReportedWithoutAnError(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var reports []registry.CallReport
	ps := []registry.Provider[server]{{Name: "slow", Instance: server{takes: time.Hour}}, {Name: "fast"}}
	with(t, registry.Options{Hooks: registry.Hooks{AfterCall: func(_ context.Context, r registry.CallReport) {
		mu.Lock()
		defer mu.Unlock()
		reports = append(reports, r)
	}}}, ps, func(t *testing.T, reg *registry.Registry, r *registry.Resolver[server]) {
		got, err := hedge.Call(t.Context(), r, second, serve)
		require.NoError(t, err)
		require.Equal(t, "fast", got)
		synctest.Wait()
		require.Len(t, reports, 1)
		require.NoError(t, reports[0].Err)
	})
}

func TestCall_HedgeWithoutAProviderTakesNoRetryBudget(t *testing.T) {
	t.Parallel()
	ps := []registry.Provider[server]{{Name: "a", Retry: registry.RetryPolicy{Retries: 1}}}
	with(t, registry.Options{}, ps, func(t *testing.T, reg *registry.Registry, r *registry.Resolver[server]) {
		for _, takes := range []time.Duration{0, 1500 * time.Millisecond} {
			n := 0
			_, err := hedge.Call(t.Context(), r, hedge.Policy{After: time.Second}, func(context.Context, server) (int, error) {
				n++
				if n == 1 {
					time.Sleep(takes)
					return 0, errDown
				}
				return n, nil
			})
			require.NoError(t, err, "takes %v", takes)
		}
	})
}

func TestCall_FailureAtHedgeStartsOneAttempt(t *testing.T) {
	t.Parallel()
	worst := 0
	for range 400 {
		var mu sync.Mutex
		n := 0
		ps := []registry.Provider[server]{{Name: "a", Instance: server{takes: time.Second, err: verdict.As(errDown, verdict.Verdict{Class: verdict.ClassBadRequest})}}}
		with(t, registry.Options{Hooks: registry.Hooks{AfterCall: func(_ context.Context, r registry.CallReport) {
			mu.Lock()
			defer mu.Unlock()
			n++
		}}}, ps, func(t *testing.T, reg *registry.Registry, r *registry.Resolver[server]) {
			_, err := hedge.Call(t.Context(), r, hedge.Policy{After: time.Second, MaxProviders: 3}, serve)
			require.Error(t, err)
			synctest.Wait()
		})
		worst = max(worst, n)
	}
	require.Equal(t, 1, worst)
}

package hedge_test

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/hedge"
	"github.com/capreg/registry/verdict"
)

// Variants: an error of the hedge about the request, about the provider, and one of the first provider, which ends
// the call.
func TestCall_RequestErrorOfAHedgeDoesNotEndTheRace(t *testing.T) {
	t.Parallel()
	refused := verdict.Permanent(errDown)
	bubble(t, []server{{name: "a", takes: 5 * time.Second}, {name: "b", err: refused}}, func(t *testing.T, _ *registry.Registry, r *registry.Resolver[server]) {
		answer, err := hedge.Call(t.Context(), r, second, serve)
		require.NoError(t, err)
		require.Equal(t, "a", answer)
	})
	bubble(t, []server{{name: "a", takes: 5 * time.Second, err: refused}, {name: "b", err: refused}}, func(t *testing.T, _ *registry.Registry, r *registry.Resolver[server]) {
		_, err := hedge.Call(t.Context(), r, second, serve)
		require.ErrorIs(t, err, errDown)
	})
	bubble(t, []server{{name: "a", takes: 2 * time.Second, err: refused}, {name: "b", takes: time.Hour}}, func(t *testing.T, _ *registry.Registry, r *registry.Resolver[server]) {
		began := time.Now()
		_, err := hedge.Call(t.Context(), r, second, serve)
		require.ErrorIs(t, err, errDown)
		require.Equal(t, 2*time.Second, time.Since(began))
	})
}

// Variants: the caller cancels, or its deadline passes, after the answer and before the loser returns.
func TestCall_LoserIsOneHoweverTheCallerEnds(t *testing.T) {
	t.Parallel()
	for _, deadline := range []bool{false, true} {
		bubble(t, []server{{name: "a"}, {name: "b"}}, func(t *testing.T, reg *registry.Registry, r *registry.Resolver[server]) {
			ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
			defer cancel()
			answer, err := hedge.Call(ctx, r, second, func(_ context.Context, s server) (string, error) {
				if s.name == "a" {
					time.Sleep(10 * time.Second) // heeds no context
					return "", errDown
				}
				return s.name, nil
			})
			require.NoError(t, err)
			require.Equal(t, "b", answer)
			if !deadline {
				cancel()
			}
			time.Sleep(time.Minute)
			require.Equal(t, [4]uint64{0, 0, 1, 0}, counts(t, reg, "a"))
		})
	}
}

// Variants: a loser of an answer, of the caller's end, and a discard that panics.
func TestCall_WhatALoserReturnedIsDiscarded(t *testing.T) {
	t.Parallel()
	late := func(_ context.Context, s server) (string, error) {
		time.Sleep(s.takes) // heeds no context
		return s.name, nil
	}
	for _, panics := range []bool{false, true} {
		bubble(t, []server{{name: "a", takes: 5 * time.Second}, {name: "b", takes: time.Second}}, func(t *testing.T, reg *registry.Registry, r *registry.Resolver[server]) {
			var discarded atomic.Value
			policy := hedge.Policy{After: time.Second, Discard: func(value any) {
				discarded.Store(value)
				if panics {
					panic("discard")
				}
			}}
			answer, err := hedge.Call(t.Context(), r, policy, late)
			require.NoError(t, err)
			require.Equal(t, "b", answer)
			time.Sleep(time.Minute)
			require.Equal(t, "a", discarded.Load())

			ctx, cancel := context.WithTimeout(t.Context(), time.Second/2)
			defer cancel()
			_, err = hedge.Call(ctx, r, policy, func(_ context.Context, s server) (string, error) {
				time.Sleep(time.Second)
				return s.name + " after the end", nil
			})
			require.ErrorIs(t, err, context.DeadlineExceeded)
			time.Sleep(time.Minute)
			synctest.Wait()
			require.Equal(t, "a after the end", discarded.Load())
			require.Zero(t, counts(t, reg, "a")[3])
		})
	}
}

func TestCall_ReasonOfAnAttemptSaysHedge(t *testing.T) {
	t.Parallel()
	var reasons []string
	ps := []registry.Provider[server]{{Name: "a", Instance: server{takes: 5 * time.Second}}, {Name: "b", Instance: server{takes: 2 * time.Second, err: errDown}}, {Name: "c"}}
	with(t, registry.Options{Hooks: registry.Hooks{AfterCall: func(_ context.Context, report registry.CallReport) {
		for _, a := range report.Attempts {
			reasons = append(reasons, a.Provider+" "+string(a.Why))
		}
	}}}, ps, func(t *testing.T, _ *registry.Registry, r *registry.Resolver[server]) {
		_, err := hedge.Call(t.Context(), r, hedge.Policy{After: time.Second, MaxProviders: 2}, serve)
		require.NoError(t, err)
		time.Sleep(time.Minute)
	})
	require.ElementsMatch(t, []string{"a first", "b hedge"}, reasons)
}

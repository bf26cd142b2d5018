package registry_test

import (
	"context"
	"encoding/json"
	"fmt"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/verdict"
)

func TestReportTellsEveryAttemptAndWhoWasPassedBy(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		sick := add(t, reg, provider{Name: "sick"})
		require.NoError(t, sick.MarkUnhealthy(errDown))
		add(t, reg, provider{Name: "a", Instance: answers(func() (string, error) {
			time.Sleep(time.Second)
			return "", verdict.RateLimited(errDown, time.Minute)
		})})
		half := add(t, reg, provider{Name: "half"})
		require.NoError(t, half.ForceOpen(time.Millisecond, "test"))
		pass(time.Millisecond + 1)
		add(t, reg, provider{Name: "spare"})
		var report registry.CallReport
		r := chat.Bind(reg, registry.Query{Handler: "h"})
		require.Equal(t, "half", asked(t, r, registry.ReportTo(&report), registry.Caller("me")))
		require.Equal(t, []registry.Attempt{
			{Provider: "a", Why: "first", Class: verdict.ClassRateLimited, Duration: time.Second, Err: report.Attempts[0].Err},
			{Provider: "half", Why: "failover", Trial: true, Class: verdict.ClassSuccess},
		}, report.Attempts)
		require.Equal(t, []any{"chat", "h", "me", time.Second, nil}, []any{report.Service, report.Handler, report.Caller, report.Duration, report.Err})
		require.Len(t, report.Skipped, 1)
		require.Equal(t, "unhealthy", report.Skipped[0].Code)
		text, err := json.Marshal(report)
		require.NoError(t, err)
		require.Contains(t, string(text), `"class":"rate limited","duration":1000000000,"error":"down"`)
		require.Contains(t, string(text), `"why":"failover","trial":true,"class":"success"`)
	})
}

func TestReportOfAFailedCallHasItsError(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		var report registry.CallReport
		_, err := ask(t.Context(), bind(reg), registry.ReportTo(&report))
		require.Equal(t, err, report.Err)
		add(t, reg, provider{Name: "a", Instance: fails(errDown)})
		_, err = ask(t.Context(), bind(reg), registry.ReportTo(&report))
		require.Equal(t, err, report.Err)
		require.Len(t, report.Attempts, 1)
	})
}

func TestReportOfALeaseIsMadeWhenItEnds(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		add(t, reg, provider{Name: "a", AttemptTimeout: time.Minute})
		var report registry.CallReport
		lease, err := bind(reg).Acquire(t.Context(), registry.ReportTo(&report))
		require.NoError(t, err)
		time.Sleep(time.Second)
		require.Empty(t, report.Attempts)
		lease.Done(nil)
		require.Equal(t, []registry.Attempt{{Provider: "a", Why: "first", Class: verdict.ClassSuccess, Duration: time.Second}}, report.Attempts)
		require.NoError(t, report.Err)
		_, err = bind(reg).Acquire(t.Context(), registry.ReportTo(&report))
		require.NoError(t, err)
		pass(time.Hour)
		require.Equal(t, verdict.ClassForgotten, report.Attempts[0].Class)
		require.Error(t, report.Err)
	})
}

type traceKey struct{}

func TestHooksRunInOrderAroundCallsAndAttemptsAndAddValues(t *testing.T) {
	t.Parallel()
	var log []string
	note := func(format string, arguments ...any) { log = append(log, fmt.Sprintf(format, arguments...)) }
	options := registry.Options{
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
	}
	bubble(t, options, func(t *testing.T, reg *registry.Registry) {
		add(t, reg, provider{Name: "a", Instance: fails(errDown)})
		add(t, reg, provider{Name: "b"})
		_, err := registry.Call(t.Context(), bind(reg), func(ctx context.Context, m chatModel) (string, error) {
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
		lease, err := chat.Bind(reg, registry.Query{Handler: "h"}).Acquire(t.Context())
		require.NoError(t, err)
		require.Equal(t, "trace-1/a", lease.Context().Value(traceKey{}))
		lease.Done(nil)
		require.Equal(t, []string{
			"before call of chat by h", "before a (first) after 0", "after a: success [trace-1/a]", "after call: 1 attempts, <nil> [trace-1]",
		}, log)
	})
}

func TestHooksThatPanicExitOrReturnNothingHarmNobody(t *testing.T) {
	t.Parallel()
	var do func()
	hook := func(ctx context.Context) context.Context { do(); return ctx }
	options := registry.Options{
		BeforeCall:    func(ctx context.Context, _ registry.CallReport) context.Context { return hook(ctx) },
		BeforeAttempt: func(ctx context.Context, _ registry.CallReport, _ registry.Attempt) context.Context { return hook(ctx) },
		AfterAttempt:  func(ctx context.Context, _ registry.CallReport, _ registry.Attempt) { hook(ctx) },
		AfterCall:     func(ctx context.Context, _ registry.CallReport) { hook(ctx) },
	}
	bubble(t, options, func(t *testing.T, reg *registry.Registry) {
		a := add(t, reg, provider{Name: "a"})
		do = func() { panic("hook") }
		require.Equal(t, "a", asked(t, bind(reg)))
		do = runtime.Goexit
		var callers sync.WaitGroup
		callers.Go(func() { _, _ = ask(context.Background(), bind(reg)) })
		callers.Go(func() { _, _ = bind(reg).Acquire(context.Background()) })
		callers.Wait()
		require.Zero(t, a.Info().InFlight)
		do = func() {}
		require.Equal(t, "a", asked(t, bind(reg)))
	})
	nothing := registry.Options{
		BeforeCall:    func(context.Context, registry.CallReport) context.Context { return nil },
		BeforeAttempt: func(context.Context, registry.CallReport, registry.Attempt) context.Context { return nil },
	}
	bubble(t, nothing, func(t *testing.T, reg *registry.Registry) {
		add(t, reg, provider{Name: "a"})
		require.Equal(t, "a", asked(t, bind(reg)))
	})
}

func TestIdempotencyKeyIsTheSameInEveryAttemptOfACallAndInNoOther(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		add(t, reg, provider{Name: "a", Breaker: patient(), Retry: registry.RetryPolicy{Retries: 2, Budget: 1000}})
		add(t, reg, provider{Name: "b"})
		add(t, reg, provider{Name: "untimed", Group: 1, AttemptTimeout: registry.NoTimeout})
		seen := map[string]int{}
		for range 3 {
			keys := map[string]int{}
			_, err := registry.Call(t.Context(), bind(reg), func(ctx context.Context, m chatModel) (string, error) {
				if name, _ := m.Chat(ctx, ""); name == "untimed" {
					return registry.IdempotencyKey(ctx), nil
				}
				derived, cancel := context.WithCancel(ctx)
				defer cancel()
				keys[registry.IdempotencyKey(ctx)]++
				keys[registry.IdempotencyKey(derived)]++
				return "", errDown
			})
			require.NoError(t, err)
			require.Len(t, keys, 1)
			for key, n := range keys {
				require.Equal(t, 8, n)
				require.GreaterOrEqual(t, len(key), 20)
				seen[key]++
			}
		}
		require.Len(t, seen, 3)
		require.Empty(t, registry.IdempotencyKey(t.Context()))
	})
}

func TestIdempotencyKeyOfALeaseStaysTheSame(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		add(t, reg, provider{Name: "a"})
		lease, err := bind(reg).Acquire(t.Context())
		require.NoError(t, err)
		key := registry.IdempotencyKey(lease.Context())
		require.NotEmpty(t, key)
		require.Equal(t, key, registry.IdempotencyKey(lease.Context()))
		lease.Done(nil)
	})
}

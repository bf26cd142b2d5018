package registry_test

import (
	"context"
	"encoding/json"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/internal/testkit"
	"github.com/capreg/registry/reason"
	"github.com/capreg/registry/selection"
	"github.com/capreg/registry/verdict"
)

func TestReport_HasEveryAttemptAndSkippedProvider(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		sick := testkit.Add(t, reg, testkit.Provider{Name: "sick"})
		require.NoError(t, sick.MarkUnhealthy(testkit.ErrDown))
		testkit.Add(t, reg, testkit.Provider{Name: "a", Instance: testkit.Answers(func() (string, error) {
			time.Sleep(time.Second)
			return "", verdict.RateLimited(testkit.ErrDown, time.Minute)
		})})
		half := testkit.Add(t, reg, testkit.Provider{Name: "half"})
		require.NoError(t, half.ForceOpen(time.Millisecond, "test"))
		testkit.Pass(time.Millisecond + 1)
		testkit.Add(t, reg, testkit.Provider{Name: "spare"})
		var report registry.CallReport
		r := testkit.Chat.Bind(reg, registry.Query{Handler: "h"})
		require.Equal(t, "half", testkit.MustAsk(t, r, registry.ReportTo(&report), registry.Caller("me")))
		require.Equal(t, []registry.Attempt{
			{Provider: "a", Why: "first", Class: verdict.ClassRateLimited, Duration: time.Second, Err: report.Attempts[0].Err},
			{Provider: "half", Why: "failover", Trial: true, Class: verdict.ClassSuccess},
		}, report.Attempts)
		require.Equal(t, []any{"chat", "h", "me", time.Second, nil}, []any{report.Service, report.Handler, report.Caller, report.Duration, report.Err})
		require.Len(t, report.Skipped(), 1)
		require.Equal(t, reason.Unhealthy, report.Skipped()[0].Code)
		text, err := json.Marshal(report)
		require.NoError(t, err)
		require.Contains(t, string(text), `"class":"rate limited","duration":"1s","error":"down"`)
		require.Contains(t, string(text), `"why":"failover","trial":true,"class":"success"`)
	})
}

func TestReport_OfFailedCallHasError(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		var report registry.CallReport
		_, err := testkit.Ask(t.Context(), testkit.Bind(reg), registry.ReportTo(&report))
		require.Equal(t, err, report.Err)
		testkit.Add(t, reg, testkit.Provider{Name: "a", Instance: testkit.Fails(testkit.ErrDown)})
		_, err = testkit.Ask(t.Context(), testkit.Bind(reg), registry.ReportTo(&report))
		require.Equal(t, err, report.Err)
		require.Len(t, report.Attempts, 1)
	})
}

func TestReport_OfLeaseIsWrittenAtItsEnd(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		testkit.Add(t, reg, testkit.Provider{Name: "a", AttemptTimeout: time.Minute})
		var report registry.CallReport
		lease, err := testkit.Bind(reg).Acquire(t.Context(), registry.ReportTo(&report))
		require.NoError(t, err)
		time.Sleep(time.Second)
		require.Empty(t, report.Attempts)
		lease.Done(nil)
		require.Equal(t, []registry.Attempt{{Provider: "a", Why: "first", Class: verdict.ClassSuccess, Duration: time.Second}}, report.Attempts)
		require.NoError(t, report.Err)
		_, err = testkit.Bind(reg).Acquire(t.Context(), registry.ReportTo(&report))
		require.NoError(t, err)
		testkit.Pass(time.Hour)
		require.Equal(t, verdict.ClassForgotten, report.Attempts[0].Class)
		require.Error(t, report.Err)
	})
}

func TestReport_SlowSuccessAndSlowFailureDiffer(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		var outcome error
		testkit.Add(t, reg, testkit.Provider{
			Name: "p", Breaker: registry.BreakerPolicy{SlowRate: 1, SlowAfter: time.Second, MinimumCalls: 100},
			Instance: testkit.Answers(func() (string, error) { time.Sleep(2 * time.Second); return "", outcome }),
		})
		for err, class := range map[error]verdict.Class{nil: verdict.ClassSlow, testkit.ErrDown: verdict.ClassUnknown} {
			outcome = err
			var report registry.CallReport
			_, _ = testkit.Ask(t.Context(), testkit.Bind(reg), registry.ReportTo(&report))
			require.Len(t, report.Attempts, 1)
			require.Equal(t, class, report.Attempts[0].Class)
			require.Empty(t, report.Skipped())
		}
	})
}

func TestIdempotencyKey_IsOnePerCall(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		testkit.Add(t, reg, testkit.Provider{Name: "a", Breaker: testkit.NeverOpens(), Retry: registry.RetryPolicy{Retries: 2, Budget: 1000}})
		testkit.Add(t, reg, testkit.Provider{Name: "b"})
		testkit.Add(t, reg, testkit.Provider{Name: "untimed", Group: 1, AttemptTimeout: registry.NoTimeout})
		seen := map[string]int{}
		for range 3 {
			keys := map[string]int{}
			_, err := registry.Call(t.Context(), testkit.Bind(reg), func(ctx context.Context, m testkit.ChatModel) (string, error) {
				if name, _ := m.Chat(ctx, ""); name == "untimed" {
					return registry.IdempotencyKey(ctx), nil
				}
				derived, cancel := context.WithCancel(ctx)
				defer cancel()
				keys[registry.IdempotencyKey(ctx)]++
				keys[registry.IdempotencyKey(derived)]++
				return "", testkit.ErrDown
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

func TestIdempotencyKey_OfLeaseStaysTheSame(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		testkit.Add(t, reg, testkit.Provider{Name: "a"})
		lease, err := testkit.Bind(reg).Acquire(t.Context())
		require.NoError(t, err)
		key := registry.IdempotencyKey(lease.Context())
		require.NotEmpty(t, key)
		require.Equal(t, key, registry.IdempotencyKey(lease.Context()))
		lease.Done(nil)
	})
}

// What the records of providers do not know: a place, a rate, a latency, a turn of a call that was queued.
func TestReport_SkippedAreThoseThatTurnedTheCallAway(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		a     testkit.Provider
		query registry.Query
		set   func(*testing.T, *registry.Resolver[testkit.ChatModel])
		want  reason.Code
	}{
		"full": {testkit.Provider{Limits: registry.LimitPolicy{MaxConcurrent: 1}}, registry.Query{}, func(t *testing.T, r *registry.Resolver[testkit.ChatModel]) {
			t.Helper()
			lease, err := r.Acquire(t.Context())
			require.NoError(t, err)
			t.Cleanup(func() { lease.Done(nil) })
		}, reason.AtCapacity},
		"throttled": {testkit.Provider{Limits: registry.LimitPolicy{Rate: 1, Burst: 1}}, registry.Query{}, func(t *testing.T, r *registry.Resolver[testkit.ChatModel]) {
			t.Helper()
			testkit.MustAsk(t, r)
		}, reason.Throttled},
		"slow": {
			testkit.Provider{Instance: testkit.Takes("a", time.Minute), AttemptTimeout: time.Hour},
			registry.Query{Where: selection.Requirements{MaxLatency: time.Second}},
			func(t *testing.T, r *registry.Resolver[testkit.ChatModel]) {
				t.Helper()
				require.NotEmpty(t, r.Explain().Winner, "measured from the first query on")
				testkit.MustAsk(t, r)
			}, reason.TooSlow,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
				row.a.Name = "a"
				testkit.Add(t, reg, row.a)
				testkit.Add(t, reg, testkit.Provider{Name: "b", Group: 1})
				r := testkit.Chat.Bind(reg, row.query)
				row.set(t, r)
				var report registry.CallReport
				answer, err := testkit.Ask(t.Context(), r, registry.ReportTo(&report))
				require.NoError(t, err)
				require.Equal(t, "b", answer)
				require.Len(t, report.Skipped(), 1)
				require.Equal(t, "a", report.Skipped()[0].Provider)
				require.Equal(t, row.want, report.Skipped()[0].Code)
				report.Skipped()[0].Provider = "changed"
				require.Equal(t, "a", report.Skipped()[0].Provider, "each list is its caller's")
			})
		})
	}
}

func TestReport_SkippedAreAsTheyWereAtTheEnd(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a := testkit.Add(t, reg, testkit.Provider{Name: "a"})
		b := testkit.Add(t, reg, testkit.Provider{Name: "b", Group: 1})
		require.NoError(t, a.MarkUnhealthy(testkit.ErrDown))
		var during []registry.Candidate
		var after registry.CallReport
		remove, err := reg.AddHooks(registry.Hooks{
			AfterAttempt: func(_ context.Context, r registry.CallReport, _ registry.Attempt) { during = r.Skipped() },
			AfterCall:    func(_ context.Context, r registry.CallReport) { after = r },
		})
		require.NoError(t, err)
		testkit.MustAsk(t, testkit.Bind(reg))
		remove()
		require.Empty(t, during, "it is filled in at the end")
		require.NoError(t, a.MarkHealthy())
		require.NoError(t, b.MarkUnhealthy(testkit.ErrDown))
		require.Len(t, after.Skipped(), 1)
		require.Equal(t, reason.Unhealthy, after.Skipped()[0].Code)
		text, err := json.Marshal(after)
		require.NoError(t, err)
		var read registry.CallReport
		require.NoError(t, json.Unmarshal(text, &read))
		require.Equal(t, "a", read.Skipped()[0].Provider)
		again, err := json.Marshal(read)
		require.NoError(t, err)
		require.JSONEq(t, string(text), string(again))
		require.NoError(t, json.Unmarshal([]byte(`{}`), &read))
		require.Len(t, read.Skipped(), 1, "a field that is not named keeps its value")
	})
}

func TestReport_AdmittedProviderIsNotSkipped(t *testing.T) {
	t.Parallel()
	options := registry.Options{Authorize: func(context.Context, string, string, string) error { return nil }}
	testkit.Bubble(t, options, func(t *testing.T, reg *registry.Registry) {
		testkit.Add(t, reg, testkit.Provider{Name: "p"})
		var report registry.CallReport
		testkit.MustAsk(t, testkit.Bind(reg), registry.ReportTo(&report))
		require.Empty(t, report.Skipped())
	})
}

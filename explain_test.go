package registry_test

import (
	"encoding/json"
	"fmt"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/internal/testkit"
	"github.com/capreg/registry/reason"
	"github.com/capreg/registry/selection"
	"github.com/capreg/registry/selectors"
	"github.com/capreg/registry/verdict"
)

func TestExplain_NamesWinnerAndReasons(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		tools := []string{"tools"}
		sick := testkit.Add(t, reg, testkit.Provider{Name: "sick", Group: -2, Capabilities: tools})
		require.NoError(t, sick.MarkUnhealthy(testkit.ErrDown))
		open := testkit.Add(t, reg, testkit.Provider{Name: "open", Group: -1, Capabilities: tools})
		testkit.Add(t, reg, testkit.Provider{Name: "parked", Group: -1, Capabilities: tools, Instance: testkit.Fails(verdict.Fatal(testkit.ErrDown, 0))})
		testkit.Add(t, reg, testkit.Provider{Name: "limited", Group: -1, Capabilities: tools, Instance: testkit.Fails(verdict.RateLimited(testkit.ErrDown, time.Minute))})
		require.NoError(t, open.ForceOpen(time.Minute, "maintenance"))
		testkit.Add(t, reg, testkit.Provider{Name: "winner", Capabilities: tools})
		testkit.Add(t, reg, testkit.Provider{Name: "spare", Group: 1, Capabilities: tools})
		testkit.Add(t, reg, testkit.Provider{Name: "lacking"})
		testkit.Add(t, reg, testkit.Provider{Name: "mock", Mock: true, Capabilities: tools})
		testkit.MustAsk(t, testkit.Bind(reg, "tools"))

		e := testkit.Bind(reg, "tools").Explain()
		require.NoError(t, e.Err)
		require.Equal(t, "chat", e.Service)
		require.Equal(t, "winner", e.Winner)
		codes := make([][2]string, 0, len(e.Candidates))
		for _, c := range e.Candidates {
			codes = append(codes, [2]string{c.Provider, string(c.Code)})
			require.Equal(t, c.Eligible, c.Err == nil, c.Provider)
			if !c.Eligible {
				require.NotEmpty(t, c.Reason, c.Provider)
			}
		}
		require.Equal(t, [][2]string{
			{"sick", "unhealthy"},
			{"open", "breaker_open"},
			{"parked", "parked"},
			{"limited", "cooling_down"},
			{"winner", "eligible"},
			{"spare", "eligible"},
			{"mock", "eligible"},
			{"lacking", "capability_missing"},
		}, codes)
		require.Contains(t, e.String(), "▶ group 0 NORMAL   winner: eligible")
		require.Contains(t, e.String(), "maintenance")
		require.Contains(t, e.String(), "requiring tools")
	})
}

func TestExplain_PredictsNextCallWithoutEffects(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		testkit.AddRing(t, reg, "a", "b", "c")
		half := testkit.Add(t, reg, testkit.Provider{Name: "half", Group: -1})
		require.NoError(t, half.ForceOpen(time.Minute, "test"))
		r := testkit.Bind(reg)
		for range 7 {
			before, stats := testkit.Infos(reg), reg.Stats()
			first := r.Explain()
			require.Equal(t, first, r.Explain())
			require.Equal(t, before, testkit.Infos(reg))
			require.Equal(t, stats, reg.Stats())
			require.Equal(t, first.Winner, testkit.MustAsk(t, r))
		}
		testkit.Pass(time.Minute + 1)
		e := r.Explain()
		require.Equal(t, "half", e.Winner)
		require.Equal(t, reason.Trial, e.Candidates[0].Code)
		require.Equal(t, "half", testkit.MustAsk(t, r))
	})
}

func TestExplain_PredictsTurnsBehindFullGroup(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		testkit.Add(t, reg, testkit.Provider{Name: "full", Group: -1, Limits: registry.LimitPolicy{MaxConcurrent: 1, NoQueue: true}})
		testkit.AddRing(t, reg, "a", "b", "c")
		r := testkit.Bind(reg)
		full, err := r.Acquire(t.Context())
		require.NoError(t, err)
		for range 5 {
			winner := r.Explain().Winner
			require.Equal(t, winner, testkit.MustAsk(t, r))
		}
		full.Done(nil)
	})
}

func TestExplain_SaysWhyServiceIsEmpty(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		r := testkit.Bind(reg)
		require.ErrorIs(t, r.Explain().Err, registry.ErrUnknownService)
		require.Empty(t, r.Explain().Winner)
		require.Contains(t, r.Explain().String(), "unknown service")
		a := testkit.Add(t, reg, testkit.Provider{Name: "a"})
		require.NoError(t, a.MarkUnhealthy(testkit.ErrDown))
		require.NoError(t, r.Explain().Err)
		require.Empty(t, r.Explain().Winner)
		require.NoError(t, reg.Close(t.Context()))
		require.ErrorIs(t, r.Explain().Err, registry.ErrClosed)
	})
}

func TestExplanation_IsStableJSON(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a := testkit.Add(t, reg, testkit.Provider{Name: "a", Handler: "h", Capabilities: []string{"x"}})
		testkit.Add(t, reg, testkit.Provider{Name: "b", Capabilities: []string{"x"}, Priority: registry.PriorityLow, Group: 2})
		require.NoError(t, a.ForceOpen(90*time.Second, "test"))
		text, err := json.Marshal(testkit.Chat.Bind(reg, registry.Query{Handler: "h", Require: []string{"x"}}).Explain())
		require.NoError(t, err)
		require.JSONEq(t, `{"service":"chat","query":{"handler":"h","require":["x"]},"winner":"b","candidates":[
			{"provider":"a","handler":"h","group":0,"priority":"NORMAL","eligible":false,"code":"breaker_open",
			 "strategy":"FALLBACK","reason":"breaker open (test)","breaker":"open","retry_in":"1m30s","error":"breaker open (test)"},
			{"provider":"b","group":2,"priority":"LOW","strategy":"FALLBACK","eligible":true,"code":"eligible","breaker":"closed"}]}`, string(text))
	})
}

func TestExplanation_JSONHasTheError(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		text, err := json.Marshal(testkit.Chat.Bind(reg, registry.Query{OwnOnly: true}).Explain())
		require.NoError(t, err)
		require.JSONEq(t, `{"service":"chat","query":{"own_only":true},"winner":"","candidates":[],
			"error":"registry: invalid input: Query.OwnOnly is true: want a Handler"}`, string(text))
	})
}

func TestExplanation_MarksHandlersAndMocks(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		testkit.Add(t, reg, testkit.Provider{Name: "own", Handler: "h", Group: 7})
		testkit.Add(t, reg, testkit.Provider{Name: "fake", Mock: true})
		text := testkit.Chat.Bind(reg, registry.Query{Handler: "h"}).Explain().String()
		require.Contains(t, text, "service \"chat\" for handler h\n▶ group 7 NORMAL   own: eligible (of handler h)")
		require.Contains(t, text, "fake: eligible (mock)")
	})
}

func TestCandidate_HasEveryReason(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a := testkit.Add(t, reg, testkit.Provider{Name: "a", Instance: testkit.Fails(verdict.RateLimited(testkit.ErrDown, time.Hour))})
		_, _ = testkit.Ask(t.Context(), testkit.Bind(reg))
		require.NoError(t, a.ForceOpen(time.Minute, "test"))
		require.NoError(t, a.MarkUnhealthy(testkit.ErrDown))
		c := testkit.Bind(reg).Explain().Candidates[0]
		for _, cause := range []error{registry.ErrUnhealthy, registry.ErrBreakerOpen, registry.ErrCoolingDown, testkit.ErrDown} {
			require.ErrorIs(t, c.Err, cause)
		}
		require.Zero(t, c.RetryIn, "bad health does not end by itself")
		require.NoError(t, a.MarkHealthy())
		require.GreaterOrEqual(t, testkit.Bind(reg).Explain().Candidates[0].RetryIn, time.Hour, "all of them have to end")
		require.NoError(t, a.MarkUnhealthy(testkit.ErrDown))
		require.Contains(t, c.String(), "a: unhealthy: down, breaker open (test)")
		require.Equal(t, c.Reason, a.Info().Reason)
	})
}

func TestExplain_WinnerHasAFreePlace(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		testkit.Add(t, reg, testkit.Provider{Name: "a", Limits: registry.LimitPolicy{MaxConcurrent: 1}})
		testkit.Add(t, reg, testkit.Provider{Name: "b"})
		r := testkit.Bind(reg)
		l, err := r.Acquire(t.Context())
		require.NoError(t, err)
		winner := r.Explain().Winner
		require.Equal(t, testkit.MustAsk(t, r), winner)
		l.Done(nil)
	})
}

func TestExplain_PredictsProviderBehindFullOne(t *testing.T) {
	t.Parallel()
	for _, strategy := range selectors.All() {
		testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
			for i, name := range []string{"a", "b", "c", "d", "e"} {
				testkit.Add(t, reg, testkit.Provider{Name: name, Capabilities: []string{name}, Strategy: strategy, Weight: float64(i + 1), Limits: registry.LimitPolicy{MaxConcurrent: 1}})
			}
			for _, name := range []string{"c", "e"} {
				lease, err := testkit.Bind(reg, name).Acquire(t.Context())
				require.NoError(t, err)
				defer lease.Done(nil)
			}
			r := testkit.Bind(reg)
			for range 200 {
				foretold := r.Explain().Winner
				require.Equal(t, foretold, testkit.MustAsk(t, r), "%v", strategy)
			}
		})
	}
}

func TestExplain_GivesSelectorTheCaller(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		testkit.Add(t, reg, testkit.Provider{Name: "a", Strategy: testkit.NewStrategy("BY_CALLER", func(v selection.View) int {
			if v.Caller() == "h" {
				return 1
			}
			return 0
		})})
		testkit.Add(t, reg, testkit.Provider{Name: "b"})
		r := testkit.Chat.Bind(reg, registry.Query{Handler: "h"})
		require.Equal(t, testkit.MustAsk(t, r), r.Explain().Winner)
	})
}

func TestExplain_NamesLastResort(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{Selection: selection.Policy{LeastBad: true}}, func(t *testing.T, reg *registry.Registry) {
		a := testkit.Add(t, reg, testkit.Provider{Name: "a", Limits: registry.LimitPolicy{MaxConcurrent: 1, MaxQueue: 1, MaxWait: time.Second}})
		b := testkit.Add(t, reg, testkit.Provider{Name: "b"})
		r := testkit.Bind(reg)
		require.NoError(t, b.ForceOpen(time.Second, "test"))
		lease, err := r.Acquire(t.Context())
		require.NoError(t, err)
		require.Empty(t, r.Explain().Winner, "a call would queue")
		lease.Done(nil)
		require.NoError(t, a.ForceOpen(time.Minute, "test"))
		e := r.Explain()
		require.Equal(t, "b", e.Winner)
		require.False(t, e.Candidates[1].Eligible)
		require.Equal(t, "b", testkit.MustAsk(t, r))
	})
}

func TestExplain_CombinesLatencyAndBreakerReasons(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a := testkit.Add(t, reg, testkit.Provider{Name: "a", Instance: testkit.Answers(func() (string, error) { time.Sleep(time.Second); return "a", nil })})
		r := testkit.Chat.Bind(reg, registry.Query{Where: selection.Requirements{MaxLatency: 100 * time.Millisecond}})
		testkit.MustAsk(t, r)
		_, err := testkit.Ask(t.Context(), r)
		require.ErrorIs(t, err, selection.ErrUnmet)
		slow := r.Explain().Candidates[0].RetryIn
		require.NoError(t, a.ForceOpen(time.Second, "test"))
		_, err = testkit.Ask(t.Context(), r)
		require.ErrorIs(t, err, registry.ErrBreakerOpen)
		require.ErrorIs(t, err, selection.ErrUnmet)
		testkit.RequireOneLine(t, err)
		require.InDelta(t, slow, r.Explain().Candidates[0].RetryIn, float64(time.Second), "both have to end")
		require.NoError(t, a.MarkUnhealthy(testkit.ErrDown))
		require.Zero(t, r.Explain().Candidates[0].RetryIn, "that does not end by itself")
	})
}

func TestExplanation_HasFactorTableInTextAndJSON(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		testkit.Add(t, reg, testkit.Provider{Name: "near", Region: "eu-west-1", Cost: 4, Strategy: selectors.Scored()})
		testkit.Add(t, reg, testkit.Provider{Name: "cheap", Region: "us-east-1", Cost: 1, Tags: []string{"vision"}})
		sick := testkit.Add(t, reg, testkit.Provider{Name: "sick"})
		require.NoError(t, sick.MarkUnhealthy(testkit.ErrDown))
		r := testkit.Chat.Bind(reg, registry.Query{Near: "eu-west-1", Prefer: []string{"vision"}})
		for range 50 {
			before := testkit.Infos(reg)
			e := r.Explain()
			require.Equal(t, before, testkit.Infos(reg))
			require.Equal(t, e.Winner, testkit.MustAsk(t, r))
		}
		e := r.Explain()
		require.Equal(t, "SCORED", e.Candidates[0].Strategy)
		require.Contains(t, e.String(), "near: eligible; score 0.7 = 0.30 load 1.00, 0.25 performance 1.00, 0.15 proximity 1.00, 0.20 specialisation 0.00, 0.10 cost 0.00")
		require.Contains(t, e.String(), "sick: unhealthy: down; score ")
		require.Contains(t, e.String(), "preferring vision near eu-west-1")
		text, err := json.Marshal(e)
		require.NoError(t, err)
		require.Contains(t, string(text), `"detail":{"score":0.825,"words":"score","factors":[{"name":"load","weight":0.3,"value":1}`)
		require.Contains(t, string(text), `"query":{"prefer":["vision"],"near":"eu-west-1"}`)
	})
}

func joinWords(words []string) string {
	text := fmt.Sprint(words)
	return text[1 : len(text)-1]
}

func TestExplain_PredictsProviderOfStickyKey(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		for i := range 5 {
			testkit.Add(t, reg, testkit.Provider{Name: strconv.Itoa(i), Strategy: selectors.Sticky()})
		}
		home := make(map[string]bool)
		for i := range 50 {
			key := fmt.Sprint("session-", i)
			r := testkit.Chat.Bind(reg, registry.Query{Key: key})
			e := r.Explain()
			require.Equal(t, key, e.Query.Key)
			for range 3 {
				require.Equal(t, e.Winner, testkit.MustAsk(t, r))
				require.Equal(t, e.Winner, testkit.MustGet(t, r))
				answer, err := testkit.Ask(selection.WithKey(t.Context(), key), testkit.Bind(reg))
				require.NoError(t, err)
				require.Equal(t, e.Winner, answer)
				m, err := testkit.Chat.Get(t.Context(), reg, registry.Query{Key: key})
				require.NoError(t, err)
				answer, _ = m.Chat(t.Context(), "")
				require.Equal(t, e.Winner, answer)
			}
			lease, err := r.Acquire(t.Context())
			require.NoError(t, err)
			require.Equal(t, e.Winner, lease.Provider())
			lease.Done(nil)
			home[e.Winner] = true
			// The pin cannot be asked: there is an exit, and a way back.
			pinned, _ := reg.Provider("chat", e.Winner)
			require.NoError(t, pinned.MarkUnhealthy(testkit.ErrDown))
			require.NotEqual(t, e.Winner, testkit.MustAsk(t, r))
			require.NoError(t, pinned.MarkHealthy())
			require.Equal(t, e.Winner, testkit.MustAsk(t, r))
		}
		require.Len(t, home, 5)
	})
}

// The explanation is right from the moment at which the provider admits no calls.
func TestExplain_WorksDuringEjection(t *testing.T) {
	t.Parallel()
	reg := testkit.New(t, registry.Options{Selection: selection.Policy{MaxEjected: 0.99}})
	const providers = 300
	for i := range providers {
		testkit.Add(t, reg, testkit.Provider{
			Name: strconv.Itoa(i), Instance: testkit.Fails(testkit.ErrDown), Strategy: registry.StrategyRoundRobin,
			Breaker: registry.BreakerPolicy{FailureThreshold: 1},
		})
	}
	r := testkit.Bind(reg)
	var all sync.WaitGroup
	defer all.Wait()
	done := make(chan struct{})
	defer close(done)
	all.Go(func() {
		for {
			select {
			case <-done:
				return
			default:
			}
			for _, c := range r.Explain().Candidates {
				if !c.Eligible && c.Err == nil {
					t.Error("no reason")
				}
			}
		}
	})
	for range providers {
		_, err := testkit.Ask(t.Context(), r)
		require.Error(t, err)
	}
}

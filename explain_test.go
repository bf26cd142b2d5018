package registry_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/verdict"
)

func TestExplainNamesTheWinnerAndAReasonForEachOther(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		tools := []string{"tools"}
		sick := add(t, reg, provider{Name: "sick", Group: -2, Capabilities: tools})
		require.NoError(t, sick.MarkUnhealthy(errDown))
		open := add(t, reg, provider{Name: "open", Group: -1, Capabilities: tools})
		add(t, reg, provider{Name: "parked", Group: -1, Capabilities: tools, Instance: fails(verdict.Fatal(errDown, 0))})
		add(t, reg, provider{Name: "limited", Group: -1, Capabilities: tools, Instance: fails(verdict.RateLimited(errDown, time.Minute))})
		require.NoError(t, open.ForceOpen(time.Minute, "maintenance"))
		add(t, reg, provider{Name: "winner", Capabilities: tools})
		add(t, reg, provider{Name: "spare", Group: 1, Capabilities: tools})
		add(t, reg, provider{Name: "lacking"})
		add(t, reg, provider{Name: "mock", Mock: true, Capabilities: tools})
		asked(t, bind(reg, "tools"))

		e := bind(reg, "tools").Explain()
		require.NoError(t, e.Err)
		require.Equal(t, "chat", e.Service)
		require.Equal(t, "winner", e.Winner)
		codes := make([][2]string, 0, len(e.Candidates))
		for _, c := range e.Candidates {
			codes = append(codes, [2]string{c.Provider, c.Code})
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

func TestExplainIsRightAboutTheNextCallAndChangesNothing(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		ring(t, reg, "a", "b", "c")
		half := add(t, reg, provider{Name: "half", Group: -1})
		require.NoError(t, half.ForceOpen(time.Minute, "test"))
		r := bind(reg)
		for range 7 {
			before, stats := infos(reg), reg.Stats()
			first := r.Explain()
			require.Equal(t, first, r.Explain())
			require.Equal(t, before, infos(reg))
			require.Equal(t, stats, reg.Stats())
			require.Equal(t, first.Winner, asked(t, r))
		}
		pass(time.Minute + 1)
		e := r.Explain()
		require.Equal(t, "half", e.Winner)
		require.Equal(t, "trial", e.Candidates[0].Code)
		require.Equal(t, "half", asked(t, r))
	})
}

func TestExplainIsRightAboutTheTurnsOfAGroupBehindAFullOne(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		add(t, reg, provider{Name: "full", Group: -1, Limits: registry.LimitPolicy{MaxConcurrent: 1, NoQueue: true}})
		ring(t, reg, "a", "b", "c")
		r := bind(reg)
		full, err := r.Acquire(t.Context())
		require.NoError(t, err)
		for range 5 {
			winner := r.Explain().Winner
			require.Equal(t, winner, asked(t, r))
		}
		full.Done(nil)
	})
}

func infos(reg *registry.Registry) []registry.Info {
	var all []registry.Info
	for info := range reg.All() {
		all = append(all, info)
	}
	return all
}

func TestExplainSaysWhyAServiceHasNothingAtAll(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		r := bind(reg)
		require.ErrorIs(t, r.Explain().Err, registry.ErrUnknownService)
		require.Empty(t, r.Explain().Winner)
		require.Contains(t, r.Explain().String(), "unknown service")
		a := add(t, reg, provider{Name: "a"})
		require.NoError(t, a.MarkUnhealthy(errDown))
		require.NoError(t, r.Explain().Err)
		require.Empty(t, r.Explain().Winner)
		require.NoError(t, reg.Close(t.Context()))
		require.ErrorIs(t, r.Explain().Err, registry.ErrClosed)
	})
}

func TestExplanationIsStableJSON(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a := add(t, reg, provider{Name: "a", Handler: "h", Capabilities: []string{"x"}})
		add(t, reg, provider{Name: "b", Capabilities: []string{"x"}, Priority: registry.PriorityLow, Group: 2})
		require.NoError(t, a.ForceOpen(90*time.Second, "test"))
		text, err := json.Marshal(chat.Bind(reg, registry.Query{Handler: "h", Require: []string{"x"}}).Explain())
		require.NoError(t, err)
		require.JSONEq(t, `{"service":"chat","query":{"handler":"h","require":["x"]},"winner":"b","candidates":[
			{"provider":"a","handler":"h","group":0,"priority":"NORMAL","eligible":false,"code":"breaker_open",
			 "strategy":"FALLBACK","reason":"breaker open (test)","breaker":"open","retry_in":90000000000},
			{"provider":"b","group":2,"priority":"LOW","strategy":"FALLBACK","eligible":true,"code":"eligible","breaker":"closed"}]}`, string(text))
	})
}

func TestExplanationSaysInJSONWhatIsWrong(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		text, err := json.Marshal(chat.Bind(reg, registry.Query{OwnOnly: true}).Explain())
		require.NoError(t, err)
		require.JSONEq(t, `{"service":"chat","query":{"own_only":true},"winner":"","candidates":[],
			"error":"registry: invalid input: Query.OwnOnly is true: want a Handler"}`, string(text))
	})
}

func TestExplanationMarksHandlersAndMocks(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		add(t, reg, provider{Name: "own", Handler: "h", Group: 7})
		add(t, reg, provider{Name: "fake", Mock: true})
		text := chat.Bind(reg, registry.Query{Handler: "h"}).Explain().String()
		require.Contains(t, text, "service \"chat\" for handler h\n▶ group 7 NORMAL   own: eligible (of handler h)")
		require.Contains(t, text, "fake: eligible (mock)")
	})
}

func TestCandidateSaysEveryReasonPresent(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a := add(t, reg, provider{Name: "a", Instance: fails(verdict.RateLimited(errDown, time.Hour))})
		_, _ = ask(t.Context(), bind(reg))
		require.NoError(t, a.ForceOpen(time.Minute, "test"))
		require.NoError(t, a.MarkUnhealthy(errDown))
		c := bind(reg).Explain().Candidates[0]
		for _, cause := range []error{registry.ErrUnhealthy, registry.ErrBreakerOpen, registry.ErrCoolingDown, errDown} {
			require.ErrorIs(t, c.Err, cause)
		}
		require.Zero(t, c.RetryIn, "bad health does not end by itself")
		require.NoError(t, a.MarkHealthy())
		require.GreaterOrEqual(t, bind(reg).Explain().Candidates[0].RetryIn, time.Hour, "all of them have to end")
		require.NoError(t, a.MarkUnhealthy(errDown))
		require.Contains(t, c.String(), "a: unhealthy: down, breaker open (test)")
		require.Equal(t, c.Reason, a.Info().Reason)
	})
}

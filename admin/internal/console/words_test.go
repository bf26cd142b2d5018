package console_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/admin/internal/console"
	"github.com/capreg/registry/admin/internal/control"
	"github.com/capreg/registry/health"
	"github.com/capreg/registry/reason"
	"github.com/capreg/registry/startup"
	"github.com/capreg/registry/status"
)

// function returns a function of the templates.
func function[F any](t *testing.T, name string) F {
	t.Helper()
	f, is := console.Functions()[name].(F)
	require.True(t, is, name)
	return f
}

func TestWords_OfAMoment(t *testing.T) {
	t.Parallel()
	when := function[func(time.Time, time.Time) string](t, "when")
	now := time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)
	for d, words := range map[time.Duration]string{
		0: "0 s ago", -99 * time.Second: "99 s ago", -100 * time.Second: "1 min ago", -99 * time.Minute: "99 min ago", -100 * time.Minute: "1 h ago",
		-47 * time.Hour: "47 h ago", -48 * time.Hour: "2 d ago", time.Millisecond: "in 1 s", 90 * time.Second: "in 90 s", 2 * time.Hour: "in 2 h",
	} {
		require.Equal(t, words, when(now.Add(d), now), d)
	}
	zone := time.FixedZone("", 3600)
	require.Equal(t, "2030-01-02 03:04:05 UTC", function[func(time.Time) string](t, "absolute")(now.In(zone)))
	require.Equal(t, "2030-01-02T03:04:05Z", function[func(time.Time) string](t, "iso")(now.In(zone)))
	require.Equal(t, now.UnixMilli(), function[func(time.Time) int64](t, "whenMS")(now))
}

func TestWords_OfNumbers(t *testing.T) {
	t.Parallel()
	percent, rate := function[func(float64) string](t, "percent"), function[func(float64) string](t, "rate")
	for share, words := range map[float64]string{0: "0", 0.001: "0.1", 0.094: "9.4", 0.095: "10", 0.5: "50", 1: "100"} {
		require.Equal(t, words+"\u00a0%", percent(share))
	}
	for perSecond, words := range map[float64]string{0: "0.0", 0.25: "0.2", 9.94: "9.9", 10: "10", 1234.5: "1234"} {
		require.Equal(t, words, rate(perSecond))
	}
	latency := function[func(time.Duration) string](t, "latency")
	for d, words := range map[time.Duration]string{
		0: "–", 5: "<\u00a01\u00a0µs", 1500: "1\u00a0µs", 2 * time.Millisecond: "2\u00a0ms", 1500 * time.Millisecond: "1.5\u00a0s", time.Minute: "60.0\u00a0s",
	} {
		require.Equal(t, words, latency(d))
	}
	plural := function[func(int, string, string) string](t, "plural")
	require.Equal(t, []string{"0 services", "1 service", "2 services"}, []string{plural(0, "service", "services"), plural(1, "service", "services"), plural(2, "service", "services")})
}

func TestWords_ShowWhatIsHidden(t *testing.T) {
	t.Parallel()
	show := function[func(string) string](t, "show")
	for text, shown := range map[string]string{
		"plain text ü 漢字": "plain text ü 漢字", "a\r\nb\tc": `a\r\nb\tc`, "\u202eevil\u2066": `\u202eevil\u2066`, "\x1b[31m": `\x1b[31m`,
		"\xff": `\ufffd`, "a\u2028b\u00a0c": `a\u2028b\u00a0c`, "": "",
	} {
		require.Equal(t, shown, show(text))
	}
}

func TestWords_OfProviders(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		row  control.Row
		word string
		rank int
	}{
		{control.Row{Code: reason.Unhealthy}, "unhealthy", 0},
		{control.Row{Code: reason.BreakerOpen}, "breaker open", 0},
		{control.Row{Code: reason.Parked}, "parked", 0},
		{control.Row{Code: reason.TrialsFull}, "half-open", 1},
		{control.Row{Code: reason.Trial}, "half-open", 1},
		{control.Row{Code: reason.CoolingDown}, "cooling down", 1},
		{control.Row{Code: reason.AtCapacity}, "no free place", 2},
		{control.Row{Code: reason.Eligible, State: health.Degraded}, "degraded", 2},
		{control.Row{Code: reason.NoTraffic}, "drained", 3},
		{control.Row{Code: reason.NotReady}, "not ready", 3},
		{control.Row{Code: reason.Eligible, State: health.Healthy}, "healthy", 5},
	} {
		word, rank := console.RowMark(&test.row)
		require.Equal(t, []any{test.word, test.rank}, []any{word, rank})
	}
}

func TestWords_OfServices(t *testing.T) {
	t.Parallel()
	up := func(group int) control.Row { return control.Row{Eligible: true, Group: group, Weight: 1} }
	down := func(group int) control.Row { return control.Row{Group: group, Weight: 1} }
	drained := control.Row{Group: 1}
	for _, test := range []struct {
		service control.Service
		word    string
		rank    int
	}{
		{control.Service{Required: true}, "no provider", 0},
		{control.Service{}, "no provider", 1},
		{control.Service{Eligible: 1, State: health.Unhealthy}, "unhealthy", 2},
		{control.Service{Eligible: 1, State: health.Healthy, Providers: []control.Row{up(2), down(1)}}, "failed over to group 2", 3},
		{control.Service{Eligible: 1, State: health.Degraded, Providers: []control.Row{up(1)}}, "degraded", 4},
		{control.Service{Eligible: 1, OpenBreakers: 1, State: health.Healthy, Providers: []control.Row{up(1)}}, "degraded", 4},
		{control.Service{Eligible: 1, State: health.Healthy, Providers: []control.Row{up(1), down(1)}}, "degraded", 4},
		{control.Service{Eligible: 1, State: health.Healthy, Providers: []control.Row{up(1), drained}}, "healthy", 5},
		{control.Service{Eligible: 2, State: health.Healthy, Providers: []control.Row{up(3), up(1)}}, "healthy", 5},
	} {
		word, rank := console.ServiceMark(&test.service)
		require.Equal(t, []any{test.word, test.rank}, []any{word, rank}, test.service)
	}
}

func TestWords_OfOtherStates(t *testing.T) {
	t.Parallel()
	word := func(name string, argument any) string {
		var m struct{ Glyph, Word, Class string }
		switch argument := argument.(type) {
		case startup.State:
			m = console.ComponentMark(argument)
		case health.State:
			m = console.StateMark(argument)
		case status.BreakerState:
			m = console.BreakerMark(&control.Breaker{State: argument})
		}
		require.NotEmpty(t, m.Glyph, name)
		require.NotEmpty(t, m.Class, name)
		return m.Word
	}
	for _, test := range []struct {
		of   any
		word string
	}{
		{startup.Ready, "ready"},
		{startup.Completed, "completed"},
		{startup.Failed, "failed"},
		{startup.Starting, "starting"},
		{startup.Restarting, "restarting"},
		{startup.Waiting, "waiting"},
		{startup.Stopping, "stopping"},
		{health.Healthy, "healthy"},
		{health.Degraded, "degraded"},
		{health.Unhealthy, "unhealthy"},
		{health.Unknown, "unknown"},
		{status.BreakerClosed, "closed"},
		{status.BreakerOpen, "open"},
		{status.BreakerHalfOpen, "half-open"},
	} {
		require.Equal(t, test.word, word(test.word, test.of))
	}
}

func TestWords_LegendHasAllMarks(t *testing.T) {
	t.Parallel()
	s := newSite(t, control.Options{})
	s.add(search, registry.Provider[call]{Name: "d"})
	shows(t, s.page(http.StatusOK, "/"), "<summary>Legend</summary>", "healthy", ": answers", "degraded", "unhealthy", "breaker open", "half-open", "cooling down", "parked", "no free place", "drained", "not ready", "a bar those that have failed")
}

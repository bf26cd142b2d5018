package console_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry/admin/internal/console"
	"github.com/capreg/registry/admin/internal/control"
	"github.com/capreg/registry/metrics"
	"github.com/capreg/registry/startup"
)

func TestSpark_IsALineWithBarsForFailures(t *testing.T) {
	t.Parallel()
	line, bars, words := console.Spark(metrics.Minute{})
	require.Equal(t, "5,15 15,15 25,15 35,15 45,15 55,15", line)
	require.Empty(t, bars)
	require.Equal(t, "no attempts", words)

	line, bars, words = console.Spark(metrics.Minute{Slices: [6]metrics.Slice{{Ended: 1}, {Ended: 1000, Failed: 1000}, {}, {Ended: 500, Failed: 1}}})
	require.Equal(t, "5,14 15,1 25,15 35,8 45,15 55,15", line, "one is to be seen beside a thousand")
	require.Equal(t, "M12 16v-15h6v15zM32 16v-2h6v2z", bars)
	require.Equal(t, "1501 attempts in the last minute, 1001 failed", words)
	_, _, words = console.Spark(metrics.Minute{Slices: [6]metrics.Slice{{Ended: 1}}})
	require.Equal(t, "1 attempt in the last minute, 0 failed", words)
	line, _, _ = console.Spark(metrics.Minute{Slices: [6]metrics.Slice{{Ended: 1<<32 - 1}, {Ended: 1 << 31}}})
	require.Equal(t, "5,1 15,7 25,15 35,15 45,15 55,15", line)
}

func TestTimeline_HasABarForEachComponent(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 50)
	picture := console.TimelineOf(&startup.Report{
		Wall: 10 * time.Second, Chain: []string{"database", "api"},
		Components: []startup.Component{
			{Name: "database", State: startup.Ready, Started: time.Second, Returned: 4 * time.Second, Ready: 5 * time.Second},
			{Name: "api", State: startup.Failed, Queued: 5 * time.Second, Started: 6 * time.Second, Returned: 6 * time.Second},
			{Name: long, State: startup.Waiting},
		},
	})
	require.Len(t, picture.Ticks, 5)
	require.Equal(t, "0", picture.Ticks[0].Text)
	require.Equal(t, "10.0\u00a0s", picture.Ticks[4].Text)
	require.Less(t, picture.Ticks[4].X, picture.Width)
	require.Len(t, picture.Bars, 3)
	database, api, never := picture.Bars[0], picture.Bars[1], picture.Bars[2]
	require.True(t, database.Critical)
	require.Equal(t, database.Start+database.StartWidth, database.Settle, "it is not ready yet when its start returns")
	require.Positive(t, database.SettleWidth)
	require.True(t, api.Failed)
	require.Equal(t, api.Wait+api.WaitWidth, api.Start, "it waits for its turn before it starts")
	require.Positive(t, api.StartWidth, "what took no time is to be seen")
	require.Contains(t, api.Words, "api: failed, began at 6.0\u00a0s")
	require.Contains(t, database.Words, "on the critical path")
	require.True(t, never.None)
	require.Equal(t, strings.Repeat("x", 29)+"…", never.Name)
	require.Equal(t, picture.Height, never.Y+never.TextY-never.TextY+19)

	require.Empty(t, console.TimelineOf(&startup.Report{}).Bars)
}

func TestStartup_IsAPictureWithATable(t *testing.T) {
	t.Parallel()
	reg, o := orchestrated(t)
	s := serve(t, reg, control.Options{Orchestrator: o})
	text := s.page(http.StatusOK, "/startup")
	shows(t, text, `<a href="startup" aria-current="page">`, "critical path", `<svg class="timeline"`, "&lt;b&gt;api&lt;/b&gt;", "Components", "database", "cache")
	require.Equal(t, 3, strings.Count(text, `class="start"`))
	require.Equal(t, 3, strings.Count(text, "act?verb=restart"))
	shows(t, text, "1.2.3")
	s.authorize = nil
	require.NotContains(t, s.page(http.StatusOK, "/startup"), "act?verb=restart")
	none := newSite(t, control.Options{})
	require.NotContains(t, none.page(http.StatusOK, "/"), `href="startup"`)
	none.page(http.StatusNotFound, "/startup")
}

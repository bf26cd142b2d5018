package top_test

import (
	"encoding/json"
	"errors"
	"regexp"
	"strings"
	"testing"
	"time"

	tea "charm.land/bubbletea/v2"
	"github.com/stretchr/testify/require"

	"github.com/capreg/registry/cmd/registry/internal/top"
)

const nodes = `{"store": "nats bucket fleet", "reachable": true, "announcement": {"node": "control", "state": "serving", "entries": 1, "pending": 2}, "nodes": [
	{"name": "control", "this": true, "state": "present", "offers": [{"service": "plan", "name": "p", "reason": "the node is this one"}]},
	{"name": "agent-1", "state": "present", "heard": "2030-03-01T11:59:58Z", "offers": [
		{"service": "agent", "name": "a", "visible": true, "as": "agent-1/a"}, {"service": "old", "name": "b", "reason": "no binding has its kind"}]},
	{"name": "agent-2", "state": "present", "suspected_by": ["agent-1"], "heard": "2030-03-01T12:00:00Z", "offers": []},
	{"name": "agent-3", "state": "suspect", "suspect": true, "reason": "its lease was not renewed", "suspected_by": ["agent-1"], "heard": "2030-03-01T11:59:30Z", "offers": []},
	{"name": "agent-4", "state": "joining", "offers": []}]}`

func fleetOf(t *testing.T, text string) *top.Fleet {
	t.Helper()
	f := &top.Fleet{}
	require.NoError(t, json.Unmarshal([]byte(text), f))
	return f
}

func TestFleetTable_HasTheSuspectedNodesFirst(t *testing.T) {
	t.Parallel()
	var table strings.Builder
	require.NoError(t, top.FleetTable(&table, fleetOf(t, nodes), start))
	lines := strings.Split(strings.TrimSuffix(table.String(), "\n"), "\n")
	for i, pattern := range []string{
		`^store nats bucket fleet is reachable$`,
		`^this process is node control, serving; it announces 1, 2 still to be written$`,
		`^  STATE +NODE / PROVIDER +HEARD +SUSPECTED BY +HERE$`,
		`^ ◆ suspect +agent-3 +30s +this process, agent-1 +0 of 0 in use: its lease was not renewed$`,
		`^ ◆ present +agent-2 +0s +agent-1 +0 of 0 in use$`,
		`^ ○ joining +agent-4 +- +- +0 of 0 in use$`,
		`^ ● present +agent-1 +2s +- +1 of 2 in use$`,
		`^ +agent/a +agent-1/a$`,
		`^ +old/b +no binding has its kind$`,
		`^ ● present +control +- +- +this process, announces 1$`,
		`^ +plan/p +the node is this one$`,
	} {
		require.Regexp(t, pattern, lines[i])
	}
	require.Len(t, lines, 11)
}

func TestFleetTable_SaysThatTheStoreIsAway(t *testing.T) {
	t.Parallel()
	var table strings.Builder
	require.NoError(t, top.FleetTable(&table, fleetOf(t, `{"store": "s", "cause": "timeout", "announcement": {"node": "n", "state": "joining", "cause": "timeout"}}`), start))
	require.Contains(t, table.String(), "✖ store s is not reachable; what follows was known before: timeout")
	require.Contains(t, table.String(), "this process is node n, joining; it announces 0: timeout")
	require.Contains(t, table.String(), "no node is known")
}

func TestModel_ShowsTheFleet(t *testing.T) {
	t.Parallel()
	v := newView(t)
	v.fleet = fleetOf(t, nodes)
	v.press("f")
	v.shows("agent-3", "its lease was not renewed", "esc back")
	v.press("r", "d", "e") // are about no provider here
	require.Empty(t, v.changes)
	v.shows("agent-3")
	v.fleet = fleetOf(t, `{"nodes": [{"name": "agent-5", "state": "present"}]}`)
	read := v.fleets
	v.later(3 * time.Second)
	require.Equal(t, read+1, v.fleets, "it is read again with the rest")
	v.shows("agent-5")
	v.hides("agent-3")
	v.press("esc")
	v.shows("stripe")
	v.later(3 * time.Second)
	require.Equal(t, read+1, v.fleets, "it is not read where it is not shown")

	v.fleet, v.err = nil, errors.New("the program has given no fleet")
	v.press("f")
	v.shows("✖ the program has given no fleet", "stripe")
	v.err = nil
	v.tell(top.FleetMsg{Fleet: fleetOf(t, nodes)}) // a late answer opens nothing
	v.shows("stripe")
}

func TestModel_NamesOfNodesCannotMoveTheCursor(t *testing.T) {
	t.Parallel()
	v := newView(t)
	f := &top.Fleet{
		Store: hostile, Cause: hostile, Announcement: &top.Announcement{Node: hostile, State: hostile, Cause: hostile},
		Nodes: []top.Node{{Name: hostile, State: hostile, Reason: hostile, SuspectedBy: []string{hostile}, Offers: []top.Offer{
			{Service: hostile, Name: hostile, Reason: hostile}, {Service: hostile, Name: hostile, Visible: true, As: hostile},
		}}},
	}
	v.fleet = f
	v.press("f")
	var table strings.Builder
	require.NoError(t, top.FleetTable(&table, f, start))
	for _, text := range []string{table.String(), v.View().Content} {
		text = regexp.MustCompile("\x1b\\[[0-9;]*m").ReplaceAllString(text, "") // the colours of the view
		require.NotRegexp(t, "[\x00-\x09\x0b-\x1f\x7f\u0080-\u009f\u202e]", text)
	}
	for _, width := range []int{1, 20, 80} {
		v.tell(tea.WindowSizeMsg{Width: width, Height: 8})
		v.press("end", "home")
		require.Len(t, v.screen(), 8)
	}
}

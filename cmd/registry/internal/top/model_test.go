package top_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	tea "charm.land/bubbletea/v2"
	"github.com/charmbracelet/x/ansi"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/capreg/registry/cmd/registry/internal/top"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var start = time.Date(2030, time.March, 1, 12, 0, 0, 0, time.UTC)

// scene is a program with a service without an eligible provider, one that is well, and one that is not quite.
const scene = `{"overall_health": "unhealthy", "services": [
	{"name": "cache", "state": "healthy", "eligible": 1, "providers": [
		{"service": "cache", "provider": "redis", "weight": 1, "state": "healthy", "eligible": true, "code": "eligible", "priority": "NORMAL", "strategy": "FALLBACK",
		 "circuit_breaker": {"state": "closed"}, "in_flight": 3, "last_minute": {"rate": 12.5, "errors": 0.04, "p50": "1.25ms", "p99": "80ms"}}]},
	{"name": "llm", "state": "degraded", "eligible": 1, "providers": [
		{"service": "llm", "provider": "backup", "weight": 0, "state": "healthy", "code": "no_traffic", "circuit_breaker": {"state": "closed"}},
		{"service": "llm", "provider": "cool", "weight": 1, "state": "healthy", "code": "cooling_down", "circuit_breaker": {"state": "closed"}, "cooldown": {"until": "2030-03-01T12:05:00Z"}},
		{"service": "llm", "provider": "primary", "weight": 1, "state": "healthy", "eligible": true, "code": "eligible", "circuit_breaker": {"state": "closed"}}]},
	{"name": "payments", "state": "unhealthy", "eligible": 0, "reason": "no provider", "providers": [
		{"service": "payments", "provider": "stripe", "weight": 1, "state": "healthy", "code": "breaker_open", "reason": "breaker is open",
		 "circuit_breaker": {"state": "open", "next_trial": "2030-03-01T12:00:42Z", "failures": 5, "failure_threshold": 5},
		 "last_minute": {"rate": 2, "errors": 1, "p50": "5ms", "p99": "1.234s"}, "last_error": {"text": "connection refused", "class": "unavailable", "time": "2030-03-01T11:59:50Z"}}]}]}`

func snapshotOf(t *testing.T, text string) *top.Snapshot {
	t.Helper()
	s := &top.Snapshot{}
	require.NoError(t, json.Unmarshal([]byte(text), s))
	return s
}

// fake is a program that answers what it is told to.
type fake struct {
	snapshot *top.Snapshot
	err      error
	fleet    *top.Fleet
	asked    int
	fleets   int
	changes  []top.Change
}

func (f *fake) Snapshot(context.Context) (*top.Snapshot, error) { f.asked++; return f.snapshot, f.err }
func (f *fake) Follow(ctx context.Context, _, _ func()) error   { <-ctx.Done(); return ctx.Err() }

func (f *fake) Fleet(context.Context) (*top.Fleet, error) { f.fleets++; return f.fleet, f.err }

func (f *fake) Explain(_ context.Context, service string) (string, error) {
	return "why " + service + "\n\x1b[31mred", f.err
}

func (f *fake) Change(_ context.Context, c top.Change) (string, error) {
	f.changes = append(f.changes, c)
	return fmt.Sprintf("done: %s", c.Verb), f.err
}

// view is a model with what its program was asked.
type view struct {
	*top.Model
	*fake

	t   *testing.T
	now time.Time
}

func newView(t *testing.T) *view {
	t.Helper()
	f := &fake{snapshot: snapshotOf(t, scene)}
	v := &view{top.New(t.Context(), f, "http://localhost/ops", start), f, t, start}
	v.tell(tea.WindowSizeMsg{Width: 160, Height: 20})
	v.tell(top.SnapshotMsg{Snapshot: f.snapshot})
	return v
}

// tell tells the model something, and what it wants done because of that is done.
func (v *view) tell(msg tea.Msg) {
	v.t.Helper()
	_, cmd := v.Update(msg)
	if cmd == nil {
		return
	}
	if then := cmd(); then != nil {
		_, quits := then.(tea.QuitMsg)
		require.False(v.t, quits)
		v.tell(then)
	}
}

// later passes time, without the commands of the clock.
func (v *view) later(d time.Duration) (asks bool) {
	v.now = v.now.Add(d)
	_, cmd := v.Update(top.TickMsg(v.now))
	batch, several := cmd().(tea.BatchMsg)
	if !several {
		return false
	}
	for _, one := range batch[1:] { // the first one is the clock
		v.tell(one())
	}
	return true
}

func (v *view) press(keys ...string) {
	v.t.Helper()
	for _, name := range keys {
		v.tell(press(name))
	}
}

func press(name string) tea.KeyPressMsg {
	special := map[string]rune{"enter": tea.KeyEnter, "esc": tea.KeyEscape, "up": tea.KeyUp, "down": tea.KeyDown, "backspace": tea.KeyBackspace, "end": tea.KeyEnd, "home": tea.KeyHome}
	if code, ok := special[name]; ok {
		return tea.KeyPressMsg{Code: code}
	}
	return tea.KeyPressMsg{Code: []rune(name)[0], Text: name}
}

// screen returns the lines of the screen without colours.
func (v *view) screen() []string {
	return strings.Split(ansi.Strip(v.View().Content), "\n")
}

func (v *view) shows(parts ...string) {
	v.t.Helper()
	text := strings.Join(v.screen(), "\n")
	for _, part := range parts {
		require.Contains(v.t, text, part)
	}
}

func (v *view) hides(parts ...string) {
	v.t.Helper()
	text := strings.Join(v.screen(), "\n")
	for _, part := range parts {
		require.NotContains(v.t, text, part)
	}
}

// selected returns the selected line.
func (v *view) selected() string {
	for _, line := range v.screen() {
		if strings.HasPrefix(line, "▶") {
			return line
		}
	}
	return ""
}

func TestModel_ShowsTheWorstFirst(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		v := newView(t)
		screen := v.screen()
		require.Len(t, screen, 20)
		for i, pattern := range []string{
			`^ registry top  http://localhost/ops  ✖ unhealthy  polled`,
			`^  STATE +SERVICE / PROVIDER +BREAKER +PER S +ERRORS +P50 +P99 +FLIGHT +LAST ERROR`,
			`^▶✖ NO PROVIDER +payments +0 of 1 eligible: no provider`,
			`^ ▲ breaker open +stripe +open, trial in 42 s +2.0 +100.0% +5ms +1.23s +0 +connection refused`,
			`^ ◆ degraded +llm +1 of 3 eligible`,
			`^ ◔ cooling down +cool +closed, rest in 5 min`,
			`^ ◇ drained +backup`,
			`^ ● healthy +primary`,
			`^ ● healthy +cache`,
			`^ ● healthy +redis +closed +12.5 +4.0% +1.3ms +80ms +3`,
		} {
			require.Regexp(t, pattern, screen[i])
		}
		require.True(t, v.View().AltScreen)
		v.later(10 * time.Second)
		v.shows("trial in 32 s")
	})
}

func TestModel_FitsEveryScreen(t *testing.T) {
	t.Parallel()
	v := newView(t)
	for _, height := range []int{1, 5, 6, 50} {
		for _, width := range []int{1, 2, 20, 80, 300} {
			v.tell(tea.WindowSizeMsg{Width: width, Height: height})
			for range 2 {
				for _, line := range v.screen() {
					require.LessOrEqual(t, ansi.StringWidth(line), width)
				}
				require.Len(t, v.screen(), max(5, height))
				v.press("end")
				require.NotEmpty(t, v.selected(), "the selected line is in sight")
			}
		}
	}
}

func TestModel_Filters(t *testing.T) {
	t.Parallel()
	v := newView(t)
	v.press("/", "R", "e", "f", "u", "s")
	v.shows("filter: Refus", "payments", "stripe")
	v.hides("redis", "llm")
	v.press("backspace", "backspace", "backspace", "enter")
	v.shows("filter: Re (esc ends it)", "redis")
	v.press("esc")
	v.shows("llm")
	v.press("/", "q", "z", "enter")
	v.shows("nothing has that text")
	v.press("enter", "r", "d", "e") // there is nothing that they could be about
	require.Empty(t, v.changes)
}

func TestModel_KeepsTheSelectedProvider(t *testing.T) {
	t.Parallel()
	v := newView(t)
	v.press("j", "down", "j", "k", "down", "j", "j")
	require.Contains(t, v.selected(), "primary")
	v.snapshot = snapshotOf(t, strings.Replace(scene, `"eligible": 0`, `"eligible": 1`, 1))
	v.tell(top.SnapshotMsg{Snapshot: v.snapshot})
	require.Contains(t, v.selected(), "primary")
	v.press("home")
	v.tell(top.SnapshotMsg{Snapshot: snapshotOf(t, scene)})
	require.Contains(t, v.selected(), "NO PROVIDER", "the first line stays on what is worst")
}

func TestModel_ActionsAskFirst(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		keys     []string
		question string
		change   top.Change
	}{
		{[]string{"r"}, "Reset all of payments? Its breakers close", top.Change{Verb: top.Reset, Service: "payments"}},
		{[]string{"j", "r"}, "Reset payments/stripe? Its breaker closes", top.Change{Verb: top.Reset, Service: "payments", Provider: "stripe"}},
		{[]string{"j", "d"}, "Drain payments/stripe? It gets no new calls", top.Change{Verb: top.Drain, Service: "payments", Provider: "stripe"}},
		{[]string{"j", "enter", "d"}, "Drain payments/stripe?", top.Change{Verb: top.Drain, Service: "payments", Provider: "stripe"}},
		{[]string{"j", "j", "j", "j", "d"}, "Undrain llm/backup? It gets calls again", top.Change{Verb: top.Undrain, Service: "llm", Provider: "backup"}},
	} {
		v := newView(t)
		v.press(test.keys...)
		v.shows(test.question, "y yes")
		v.press("enter", "j", "r") // none of them answers
		require.Empty(t, v.changes)
		v.press("n")
		v.shows("nothing was changed")
		require.Empty(t, v.changes)
		v.press(test.keys[len(test.keys)-1])
		v.tell(top.SnapshotMsg{Snapshot: &top.Snapshot{}}) // what was asked about stays the same
		v.press("y")
		require.Equal(t, []top.Change{test.change}, v.changes)
		require.Equal(t, 1, v.asked, "it is read again at once")
		v.shows("done: " + string(test.change.Verb))
	}
	v := newView(t)
	v.press("d")
	v.shows("drain is for a provider")
	v.err = errors.New("not allowed\x1b[2J")
	v.press("r", "y")
	v.shows("✖ not allowed\ufffd[2J")
}

func TestModel_ShowsDetailsAndExplanations(t *testing.T) {
	t.Parallel()
	v := newView(t)
	v.press("j", "enter")
	v.shows("payments/stripe", "▲ breaker open", "open, trial in 42 s", "5 failures in a row; the breaker opens at 5", "10s ago, unavailable: connection refused")
	v.press("e")
	v.shows("Which provider of payments", "why payments", "\ufffd[31mred")
	v.press("esc")
	v.shows("redis")
	v.press("home", "enter")
	v.shows("why payments")
	v.press("esc", "j", "enter")
	v.tell(top.SnapshotMsg{Snapshot: &top.Snapshot{}})
	v.shows("payments/stripe is not there any more")
	v.press("r", "d", "e", "down", "up") // it is about nothing
	require.Empty(t, v.changes)
}

func TestModel_ReadsAfterEventsAndElsePolls(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		v := newView(t)
		require.False(t, v.later(500*time.Millisecond))
		require.True(t, v.later(500*time.Millisecond), "polled each second")
		v.tell(top.FollowMsg{On: true})
		v.shows("live")
		require.True(t, v.later(500*time.Millisecond), "what came before it was followed")
		require.False(t, v.later(time.Second), "it would tell")
		v.tell(top.ChangedMsg{})
		v.tell(top.ChangedMsg{})
		require.True(t, v.later(500*time.Millisecond))
		require.False(t, v.later(500*time.Millisecond), "once for several events")
		require.True(t, v.later(1500*time.Millisecond), "numbers change without an event")
		v.tell(top.FollowMsg{})
		v.shows("polled")
	})
}

func TestModel_MarksWhatIsStale(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		v := newView(t)
		v.err = errors.New("connection refused\x1b[2J")
		v.later(3 * time.Second)
		v.shows("✖ STALE, 3 s old: connection refused\ufffd[2J", "stripe")
		require.True(t, v.later(500*time.Millisecond), "it is tried again")
		v.err = nil
		v.later(500 * time.Millisecond)
		v.hides("STALE")

		hangs := newView(t)
		hangs.now = start.Add(time.Second)
		_, asks := hangs.Update(top.TickMsg(hangs.now)) // whose answer does not come
		require.NotNil(t, asks)
		require.False(t, hangs.later(2*time.Second), "one request at a time")
		hangs.hides("STALE")
		hangs.later(5 * time.Second)
		hangs.shows("STALE, 8 s old: the program does not answer")

		none := &view{top.New(t.Context(), &fake{}, "a", start), &fake{}, t, start}
		none.tell(top.SnapshotMsg{Err: errors.New("refused")})
		none.shows("✖ NO ANSWER: refused")
	})
}

func TestModel_QuitsAtAnyTime(t *testing.T) {
	t.Parallel()
	interrupt := tea.KeyPressMsg{Code: 'c', Mod: tea.ModCtrl}
	for _, test := range []struct {
		before []string
		key    tea.KeyPressMsg
	}{{nil, press("q")}, {nil, interrupt}, {[]string{"/"}, interrupt}, {[]string{"r"}, interrupt}, {[]string{"j", "enter"}, press("q")}} {
		v := newView(t)
		v.press(test.before...)
		_, cmd := v.Update(test.key)
		require.NotNil(t, cmd)
		require.IsType(t, tea.QuitMsg{}, cmd())
	}
}

// hostile is what a name could do to a terminal.
const hostile = "\x1b]0;owned\x07\x1b[2J\r\n\u202e\u009b31m"

func TestModel_NamesCannotMoveTheCursor(t *testing.T) {
	t.Parallel()
	v := newView(t)
	s := snapshotOf(t, scene)
	s.State, s.Reason = hostile, hostile
	for i := range s.Services {
		service := &s.Services[i]
		service.Name, service.Reason, service.State = hostile+service.Name, hostile, hostile
		for j := range service.Providers {
			p := &service.Providers[j]
			*p = top.Provider{
				Service: service.Name, Name: hostile + p.Name, Reason: hostile, Code: hostile, State: hostile, Strategy: hostile, Priority: json.RawMessage(hostile),
				Breaker: top.Breaker{State: hostile, Reason: hostile}, LastMinute: top.Minute{P50: hostile, P99: hostile}, LastError: &top.LastError{Text: hostile, Class: hostile},
			}
		}
	}
	v.tell(top.SnapshotMsg{Snapshot: s})
	var table strings.Builder
	require.NoError(t, top.Table(&table, s, start))
	texts := []string{table.String()}
	for _, key := range []string{"j", "enter", "r", "n", "d", "n", "esc", "/"} {
		v.press(key)
		texts = append(texts, v.View().Content)
	}
	v.tell(tea.PasteMsg{Content: hostile})
	texts = append(texts, v.View().Content)
	for _, text := range texts {
		text = regexp.MustCompile("\x1b\\[[0-9;]*m").ReplaceAllString(text, "") // the colours of the view
		require.NotRegexp(t, "[\x00-\x09\x0b-\x1f\x7f\u0080-\u009f\u202e]", text)
	}
}

func TestTable_IsPlainText(t *testing.T) {
	t.Parallel()
	var table strings.Builder
	require.NoError(t, top.Table(&table, snapshotOf(t, scene), start))
	require.Len(t, strings.Split(strings.TrimSpace(table.String()), "\n"), 9)
	require.Contains(t, table.String(), "▲ breaker open")
	require.NotContains(t, table.String(), "\x1b")
}

package main_test

import (
	"encoding/json"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/internal/testkit"
)

func TestTop_PrintsATableWhereThereIsNoTerminal(t *testing.T) {
	t.Parallel()
	l := operate(t)
	require.NoError(t, l.provider(t, "primary").ForceOpen(time.Hour, "maintenance"))
	for _, arguments := range [][]string{{"top"}, {"top", "--once"}} {
		status, out, problems := l.ask(t, arguments...)
		require.Equal(t, 0, status, problems)
		lines := strings.Split(strings.TrimSpace(out), "\n")
		require.Len(t, lines, 4)
		require.Regexp(t, `^ ▲ breaker open +primary +forced, trial in (1 h|\d+ min) .* maintenance$`, lines[2])
		require.NotContains(t, out, "\x1b")
	}
	_, out, _ := l.ask(t, "top", "--json")
	var snapshot struct {
		Services []any `json:"services"`
	}
	require.NoError(t, json.Unmarshal([]byte(out), &snapshot))
	require.Len(t, snapshot.Services, 1)
	status, _, problems := l.run(t, "top", "--address", "http://127.0.0.1:1/")
	require.Equal(t, 2, status)
	require.Contains(t, problems, "127.0.0.1:1")
}

// terminal is a terminal of tmux with a shell in it.
type terminal struct {
	t            *testing.T
	tmux, socket string
}

func newTerminal(t *testing.T) terminal {
	t.Helper()
	term := terminal{t, testkit.Program(t, "tmux"), filepath.Join(t.TempDir(), "s")}
	t.Cleanup(func() { _ = exec.Command(term.tmux, "-S", term.socket, "kill-server").Run() }) //nolint:noctx // the test's has ended
	term.do("-f", "/dev/null", "-u", "new-session", "-d", "-x", "150", "-y", "30", "env", "PS1=ready> ", "LC_ALL=C.UTF-8", "NO_COLOR=1", "sh")
	return term
}

// do runs a command of tmux and returns what it prints.
func (term terminal) do(arguments ...string) string {
	term.t.Helper()
	out, err := exec.CommandContext(term.t.Context(), term.tmux, append([]string{"-S", term.socket}, arguments...)...).CombinedOutput()
	require.NoError(term.t, err, "%v: %s", arguments, out)
	return string(out)
}

func (term terminal) keys(names ...string) { term.do(append([]string{"send-keys"}, names...)...) }

func (term terminal) screen() string { return term.do("capture-pane", "-p") }

// until waits for a screen.
func (term terminal) until(what string, is func(screen string) bool) {
	term.t.Helper()
	timeout := time.After(time.Minute)
	for {
		screen := term.screen()
		if is(screen) {
			return
		}
		select {
		case <-timeout:
			require.FailNow(term.t, "the screen never has "+what, screen)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func (term terminal) shows(text string) {
	term.t.Helper()
	term.until(text, func(screen string) bool { return strings.Contains(screen, text) })
}

func TestTop_InATerminal(t *testing.T) {
	t.Parallel()
	l := operate(t)
	for _, name := range []string{"primary", "backup"} {
		require.NoError(t, l.provider(t, name).ForceOpen(time.Hour, "maintenance"))
	}
	_, err := registry.NewService[int]("search").Register(t.Context(), l.reg, registry.Provider[int]{Name: "index", Instance: 1})
	require.NoError(t, err)

	term := newTerminal(t)
	term.shows("ready>")
	term.keys("-l", "'"+l.path+"' top --address "+l.server.URL+"/ops --token "+token)
	term.keys("Enter")
	term.shows("▶✖ NO PROVIDER   llm")
	term.shows("index")
	term.shows("live") // its events are followed

	term.keys("/")
	term.shows("filter: ▏")
	term.keys("-l", "prim")
	term.until("only what was searched", func(s string) bool {
		return strings.Contains(s, "filter: prim") && strings.Count(s, "▲ breaker open") == 1 && !strings.Contains(s, "index")
	})
	term.keys("Enter")
	term.shows("esc ends it")
	term.keys("Down")
	term.shows("▶▲ breaker open    primary") // by its name
	term.keys("r")
	term.shows("Reset llm/primary? Its breaker closes")
	require.True(t, l.provider(t, "primary").Breaker().Forced, "before the answer nothing is done")
	term.keys("y")
	term.shows("1 breaker reset")
	require.False(t, l.provider(t, "primary").Breaker().Forced)
	term.shows("▶● healthy         primary")

	term.keys("Escape")
	term.shows("index")
	term.keys("f")
	term.until("the fleet", func(s string) bool {
		return strings.Contains(s, "◆ suspect       agent-2") && strings.Contains(s, "this process, agent-1") && strings.Contains(s, "llm/x") && !strings.Contains(s, "index")
	})
	term.keys("Escape")
	term.shows("index")
	require.NoError(t, l.provider(t, "primary").MarkUnhealthy(nil))
	term.shows("✖ unhealthy") // by the stream of events
	term.keys("q")
	term.until("the shell and nothing else", func(s string) bool {
		return strings.Contains(s, "ready>") && !strings.Contains(s, "q quit") && strings.HasSuffix(strings.TrimSpace(s), "ready>")
	})
	require.Equal(t, "0 1", strings.TrimSpace(term.do("display-message", "-p", "#{alternate_on} #{cursor_flag}")), "the cursor is back, on the first screen")
	term.keys("-l", "echo status=$?")
	term.keys("Enter")
	term.shows("status=0")
}

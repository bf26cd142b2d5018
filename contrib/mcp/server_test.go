//go:build unix

package registrymcp_test

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	registrymcp "github.com/capreg/registry/contrib/mcp"
	"github.com/capreg/registry/startup"
	"github.com/capreg/registry/startup/picture"
)

func TestChild_ItsToolsAreProvidersOfTheService(t *testing.T) {
	t.Parallel()
	s := with(t, registrymcp.ToolsOptions{})
	s.start(s.child("files", "stdio", "one"))
	require.Equal(t, "one: hello", s.answer("files/echo", text("hello")))
	require.Equal(t, "error: no such file", s.answer("files/fail", text("no such file")), "the tool's own error is its answer")
	e, known := s.entry("files/echo")
	require.True(t, known)
	require.NoError(t, e.Err)
	require.Equal(t, []string{"files"}, e.Servers)
	require.Equal(t, "echo of one", e.Definition.Description)
	require.Len(t, s.tools.All(t.Context()), 11, "from four pages")
	infos := s.found("files/echo")
	require.Len(t, infos, 1)
	require.Equal(t, "files/echo", infos[0].Name)
	require.EqualValues(t, 1, infos[0].Successes)
	require.NoError(t, s.orchestrator.Stop(t.Context()))
	require.Empty(t, s.registry.Registrations())
	require.Empty(t, s.tools.All(t.Context()))
	_, err := s.call(t.Context(), "files/echo", nil)
	require.ErrorIs(t, err, registry.ErrUnavailable)
}

func TestChild_StandsBesideFunctionsInReportAndPictures(t *testing.T) {
	t.Parallel()
	s := with(t, registrymcp.ToolsOptions{})
	app := registry.Component{
		Name: "app", Needs: []startup.Need{{Component: "files"}}, Start: func(context.Context, *startup.Run) error { return nil },
	}
	o, err := registry.NewOrchestrator(s.registry, startup.Options{}, append(s.components(s.child("files", "stdio", "one")), app)...)
	require.NoError(t, err)
	report, err := o.Start(t.Context())
	require.NoError(t, err)
	require.Equal(t, []string{"files process", "files", "app"}, report.Chain)
	require.Regexp(t, `(?s)files @\S+ \+\S+ \(11 tools of one 1\.0, MCP 20\d\d-\d\d-\d\d\)\n +files process @\S+ \+\S+ \(process \d+\)`, report.String())
	var dot, trace bytes.Buffer
	require.NoError(t, picture.DOT(&dot, o.Plan()))
	require.Contains(t, dot.String(), `"files" [peripheries=2, label="files\nmcp"];`)
	require.Contains(t, dot.String(), `"files process" [peripheries=2, label="files process\nprocess"];`)
	require.NoError(t, picture.ChromeTrace(&trace, report))
	require.Contains(t, trace.String(), `"kind":"mcp","detail":"11 tools of one 1.0, MCP`)
	require.Contains(t, trace.String(), `"kind":"process","detail":"process `)
	require.NoError(t, o.Stop(t.Context()))
}

func TestChild_ThatIsKilledComesBackByItself(t *testing.T) {
	t.Parallel()
	s := with(t, registrymcp.ToolsOptions{Wait: 10 * time.Second})
	options := s.child("files", "stdio", "one")
	options.Process.Component.Restart.FirstDelay = 300 * time.Millisecond
	options.Process.Component.Restart.MaxDelay = 300 * time.Millisecond
	s.start(options)
	pid := s.pid("files")
	require.NoError(t, syscall.Kill(pid, syscall.SIGKILL))
	require.ErrorIs(t, s.requireOut("files/echo"), registrymcp.ErrDown)
	require.Len(t, s.tools.All(t.Context()), 11, "the last known tools are kept")
	tool, err := service.Get(t.Context(), s.registry, registry.Query{})
	require.ErrorIs(t, err, registrymcp.ErrDown)
	require.Nil(t, tool)
	require.Equal(t, "one: back", s.answer("files/echo", text("back")))
	require.NotEqual(t, pid, s.pid("files"))
	state, _ := s.orchestrator.State("files")
	require.Equal(t, startup.Ready, state)
}

func TestChild_ThatIsSuspendedIsOutAndUpAgainWhenItGoesOn(t *testing.T) {
	t.Parallel()
	s := with(t, registrymcp.ToolsOptions{Wait: -1})
	options := s.child("files", "stdio", "one")
	options.Patience = time.Hour
	s.start(options)
	pid := s.pid("files")
	require.NoError(t, syscall.Kill(pid, syscall.SIGSTOP))
	why := s.requireOut("files/echo")
	require.ErrorContains(t, why, "it has not answered in time")
	_, err := s.call(t.Context(), "files/echo", nil)
	require.ErrorIs(t, err, registrymcp.ErrDown)
	require.NoError(t, syscall.Kill(pid, syscall.SIGCONT))
	continued := time.Now()
	s.eventually(func() bool { e, _ := s.entry("files/echo"); return e.Err == nil }, "up again")
	require.Less(t, time.Since(continued), time.Second)
	require.Equal(t, pid, s.pid("files"), "it is the same process")
}

func TestChild_ThatStaysSuspendedIsStartedAgain(t *testing.T) {
	t.Parallel()
	s := with(t, registrymcp.ToolsOptions{Wait: 10 * time.Second})
	options := s.child("files", "stdio", "one")
	options.Patience = 500 * time.Millisecond
	s.start(options)
	pid := s.pid("files")
	require.NoError(t, syscall.Kill(pid, syscall.SIGSTOP))
	require.Error(t, s.requireOut("files/echo"))
	require.NotEqual(t, pid, s.pid("files"))
	require.ErrorIs(t, syscall.Kill(pid, 0), syscall.ESRCH)
}

// A server that reads nothing fills its pipe: no call may wait for that longer than its own time.
func TestChild_CallsToASuspendedServerEndInTheirTime(t *testing.T) {
	t.Parallel()
	s := with(t, registrymcp.ToolsOptions{Wait: -1})
	options := s.child("files", "stdio", "one")
	options.PingInterval, options.PingTimeout = time.Hour, time.Hour
	s.start(options)
	pid := s.pid("files")
	require.NoError(t, syscall.Kill(pid, syscall.SIGSTOP))
	long := strings.Repeat("x", 50_000)
	began := time.Now()
	for i, err := range together(20, func(int) error {
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()
		_, err := s.call(ctx, "files/echo", text(long))
		return err
	}) {
		require.ErrorIs(t, err, context.DeadlineExceeded, "%d", i)
	}
	require.Less(t, time.Since(began), 5*time.Second)
	require.NoError(t, syscall.Kill(pid, syscall.SIGCONT))
	_, err := s.registry.CheckHealth(t.Context())
	require.NoError(t, err)
	s.registry.Reset()
	require.Equal(t, "one: again", s.answer("files/echo", text("again")))
}

func TestChild_ThatHangsUpIsStartedAgain(t *testing.T) {
	t.Parallel()
	s := with(t, registrymcp.ToolsOptions{})
	s.start(s.child("files", "stdio", "one"))
	pid := s.pid("files")
	_, err := s.call(t.Context(), "files/hang_up", nil)
	require.ErrorIs(t, err, registrymcp.ErrDown)
	require.ErrorContains(t, err, "EOF")
	require.NotEqual(t, pid, s.pid("files"))
}

func TestChild_OtherThingsOnItsOutputDoNoHarm(t *testing.T) {
	t.Parallel()
	s := with(t, registrymcp.ToolsOptions{Wait: -1})
	s.start(s.child("files", "noisy", "one"))
	pid := s.pid("files")
	for range 3 {
		require.Equal(t, "said", s.answer("files/babble", nil))
	}
	require.Equal(t, pid, s.pid("files"))
	garbage := s.logs.FilterMessage("a line of output is no message").All()
	require.Equal(t, "starting up ... {not: json}", garbage[0].ContextMap()["line"])
	require.EqualValues(t, pid, garbage[0].ContextMap()["pid"])
}

func TestChild_ThatIsNoServerFailsTheStartAndSaysWhy(t *testing.T) {
	t.Parallel()
	for kind, test := range map[string]struct {
		answer time.Duration
		want   string
	}{
		"silent": {100 * time.Millisecond, "initialise: it has not answered in time"},
		"deaf":   {100 * time.Millisecond, "initialise: it has not answered in time"},
		"babble": {time.Minute, "1000 lines in a row are no messages: the server speaks something else"},
		"flood":  {time.Minute, "a message is longer than 65536 bytes"},
	} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			s := with(t, registrymcp.ToolsOptions{})
			options := s.child("files", kind)
			options.AnswerTimeout, options.Component.StartTimeout, options.MaxMessage = test.answer, 2*time.Second, 64<<10
			s.orchestrate(options)
			began := time.Now()
			_, err := s.orchestrator.Start(t.Context())
			require.ErrorIs(t, err, registrymcp.ErrDown)
			require.ErrorContains(t, err, test.want)
			require.Less(t, time.Since(began), 15*time.Second)
		})
	}
}

func TestChild_ThatIsLateTakesNothingWithIt(t *testing.T) {
	t.Parallel()
	s := with(t, registrymcp.ToolsOptions{Wait: -1})
	late, missing := s.child("late", "silent"), s.child("missing", "stdio")
	late.Late, late.AnswerTimeout = true, 100*time.Millisecond
	missing.Late, missing.Process.Command = true, filepath.Join(t.TempDir(), "missing")
	s.start(late, missing, s.child("files", "stdio", "one"))
	require.Equal(t, "one: here", s.answer("files/echo", text("here")))
	_, err := s.call(t.Context(), "late/echo", nil)
	require.ErrorIs(t, err, registry.ErrUnavailable)
}

func TestChild_ResultsOfTenMegabytesArrive(t *testing.T) {
	t.Parallel()
	s := with(t, registrymcp.ToolsOptions{Wait: -1})
	s.start(s.child("files", "stdio", "one"))
	const size = 10 << 20
	for _, err := range together(2, func(int) error {
		answer, err := s.call(t.Context(), "files/big", arguments{N: size})
		require.Len(t, answer, size)
		return err
	}) {
		require.NoError(t, err)
	}
}

func TestChild_AResultBeyondTheBoundIsANamedError(t *testing.T) {
	t.Parallel()
	s := with(t, registrymcp.ToolsOptions{Wait: -1})
	options := s.child("files", "stdio", "one")
	options.MaxMessage = 1 << 20
	s.start(options)
	_, err := s.call(t.Context(), "files/big", arguments{N: 2 << 20})
	require.ErrorIs(t, err, registrymcp.ErrDown)
	require.ErrorContains(t, err, "a message is longer than 1048576 bytes")
}

func TestCall_ThatMayHaveChangedSomethingIsNotMadeTwice(t *testing.T) {
	t.Parallel()
	s := with(t, registrymcp.ToolsOptions{})
	one, two := s.child("one", "stdio", "one"), s.child("two", "stdio", "two")
	one.Set, two.Set = "files", "files"
	s.start(one, two)
	file := filepath.Join(t.TempDir(), "written")
	_, err := s.call(t.Context(), "files/crash_after_write", text(file))
	require.ErrorIs(t, err, registrymcp.ErrDown)
	var failed *registry.CallError
	require.ErrorAs(t, err, &failed)
	require.True(t, failed.OnceOnly)
	written, err := os.ReadFile(file)
	require.NoError(t, err)
	require.Equal(t, "x", string(written))
}

func TestCall_FailsOverToReplicas(t *testing.T) {
	t.Parallel()
	s := with(t, registrymcp.ToolsOptions{Wait: -1})
	one, two := s.child("one", "stdio", "one"), s.child("two", "stdio", "two")
	one.Set, two.Set = "files", "files"
	for _, o := range []registrymcp.Options{one, two} {
		o.Process.Component.Restart.FirstDelay, o.Process.Component.Restart.MaxDelay = time.Hour, time.Hour
	}
	s.start(one, two)
	e, _ := s.entry("files/echo")
	require.Equal(t, []string{"one", "two"}, e.Servers)
	first := s.answer("files/echo", text("hello"))
	pid := s.pid("files")
	errs := make(chan error, 1)
	go func() { _, err := s.call(t.Context(), "files/sleep", arguments{N: 500}); errs <- err }()
	s.eventually(func() bool {
		return slices.ContainsFunc(s.found("files/sleep"), func(i registry.Info) bool { return i.InFlight == 1 })
	}, "it is called")
	require.NoError(t, syscall.Kill(pid, syscall.SIGKILL))
	require.NoError(t, <-errs, "the call in flight")
	second := s.answer("files/echo", text("hello"))
	require.ElementsMatch(t, []string{"one: hello", "two: hello"}, []string{first, second})
}

func TestCall_PassesProgressAndCancellationOn(t *testing.T) {
	t.Parallel()
	s := with(t, registrymcp.ToolsOptions{})
	s.start(s.child("files", "stdio", "one"))
	reports := make(chan registrymcp.Progress, 1000)
	ctx := registrymcp.WithProgress(t.Context(), func(p registrymcp.Progress) { reports <- p })
	answer, err := s.call(ctx, "files/sleep", arguments{N: 30})
	require.NoError(t, err)
	require.Equal(t, "slept", answer)
	require.Equal(t, registrymcp.Progress{Done: 0, Total: 30, Message: "asleep"}, <-reports)

	file := filepath.Join(t.TempDir(), "cancelled")
	ctx, cancel := context.WithCancel(ctx)
	time.AfterFunc(100*time.Millisecond, cancel)
	_, err = s.call(ctx, "files/sleep", arguments{N: 60_000, Text: file})
	require.ErrorIs(t, err, context.Canceled)
	s.eventually(func() bool { _, err := os.Stat(file); return err == nil }, "the server has heard of it")
	require.Zero(t, s.found("files/sleep")[0].Failures)
}

func TestCall_ArgumentsAreAnObject(t *testing.T) {
	t.Parallel()
	s := with(t, registrymcp.ToolsOptions{})
	s.start(s.child("files", "stdio", "one"))
	for _, wrong := range []any{1, "text", []int{1}, func() {}, json.RawMessage("{")} {
		_, err := s.call(t.Context(), "files/echo", wrong)
		require.ErrorIs(t, err, registry.ErrInvalid)
	}
	require.Equal(t, "one: ", s.answer("files/echo", (*arguments)(nil)))
	require.Equal(t, "one: map", s.answer("files/echo", map[string]any{"text": "map"}))
	require.Zero(t, s.found("files/echo")[0].Failures)
}

//go:build unix

package registrymcp_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/modelcontextprotocol/go-sdk/mcp"
	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	registrymcp "github.com/capreg/registry/contrib/mcp"
	"github.com/capreg/registry/status"
)

func TestList_ChangesUnderCallsAreFollowed(t *testing.T) {
	t.Parallel()
	s := with(t, registrymcp.ToolsOptions{Wait: -1})
	options := s.child("files", "stdio", "one")
	options.ConfirmTime = 200 * time.Millisecond
	s.start(options)
	ctx, cancel := context.WithCancel(t.Context())
	var calls atomic.Int64
	done := make(chan []error)
	go func() {
		done <- together(4, func(int) error {
			for ctx.Err() == nil {
				if _, err := s.call(context.WithoutCancel(ctx), "files/echo", text("x")); err != nil {
					return err
				}
				calls.Add(1)
			}
			return nil
		})
	}()
	for i := range 10 {
		require.Equal(t, "grown", s.answer("files/grow", text(fmt.Sprintf("new_%d", i))))
	}
	s.eventually(func() bool { e, known := s.entry("files/new_9"); return known && e.Err == nil }, "a new tool")
	require.Equal(t, "one has new_9", s.answer("files/new_9", nil))
	for i := range 10 {
		require.Equal(t, "shrunk", s.answer("files/shrink", text(fmt.Sprintf("new_%d", i))))
	}
	s.eventually(func() bool { e, known := s.entry("files/new_9"); return !known || !e.Suspected.IsZero() }, "it is suspected")
	s.eventually(func() bool { _, known := s.entry("files/new_9"); return !known }, "it is gone")
	require.Empty(t, s.found("files/new_9"))
	before := calls.Load()
	s.eventually(func() bool { return calls.Load() > before }, "calls go on")
	cancel()
	for _, err := range <-done {
		require.NoError(t, err)
	}
	require.Zero(t, s.found("files/echo")[0].Failures)
}

// A call for a tool that its server does not have any more was not processed: it goes to the next one.
func TestList_AToolThatIsGoneOnOneReplicaIsCalledOnAnother(t *testing.T) {
	t.Parallel()
	s := with(t, registrymcp.ToolsOptions{Wait: -1})
	one, two := s.child("one", "stdio", "one"), s.child("two", "stdio", "two")
	one.Set, two.Set = "files", "files"
	one.ConfirmTime, two.ConfirmTime = time.Hour, time.Hour
	s.start(one, two)
	require.Equal(t, "shrunk", s.answer("files/shrink", text("grow")))
	s.eventually(func() bool {
		for _, line := range s.logs.FilterMessage("list of tools").All() {
			if suspected, _ := line.ContextMap()["suspected"].([]any); len(suspected) == 1 {
				return true
			}
		}
		return false
	}, "it is suspected")
	e, _ := s.entry("files/grow")
	require.True(t, e.Suspected.IsZero(), "the other server has it")
	for i := range 4 {
		require.Equal(t, "grown", s.answer("files/grow", text(fmt.Sprintf("a_%d", i))))
	}
}

func TestList_APartIsNoList(t *testing.T) {
	t.Parallel()
	const (
		hello = `{"jsonrpc":"2.0","id":ID,"result":{"protocolVersion":"2025-11-25","capabilities":{"tools":{}},"serverInfo":{"name":"odd","version":"1"}}}`
		first = `{"jsonrpc":"2.0","id":ID,"result":{"tools":[{"name":"a","inputSchema":{"type":"object"}}],"nextCursor":"2"}}`
		last  = `{"jsonrpc":"2.0","id":ID,"result":{"tools":[{"name":"b","inputSchema":{"type":"object"}}]}}`
		wrong = `{"jsonrpc":"2.0","id":ID,"error":{"code":-32603,"message":"no memory"}}`
	)
	s := with(t, registrymcp.ToolsOptions{Wait: -1})
	options := s.child("odd", "script", hello, first, wrong)
	options.ProtocolVersion, options.Component.StartTimeout, options.PingInterval = legacy, time.Second, time.Hour
	s.orchestrate(options)
	_, err := s.orchestrator.Start(t.Context())
	require.ErrorContains(t, err, "list of tools: page 2: ")
	require.ErrorContains(t, err, "no memory")

	// Later ones change nothing.
	s = with(t, registrymcp.ToolsOptions{Wait: -1})
	options = s.child("odd", "script", hello, first, last, first, wrong, first, wrong)
	options.ProtocolVersion, options.PingInterval, options.RefreshInterval = legacy, time.Hour, 50*time.Millisecond
	s.start(options)
	s.eventually(func() bool { return s.logs.FilterMessage("list of tools cannot be read").Len() >= 2 }, "lists that fail")
	require.Len(t, s.tools.All(t.Context()), 2)
	for _, e := range s.tools.All(t.Context()) {
		require.NoError(t, e.Err)
		require.True(t, e.Suspected.IsZero())
	}
}

func TestConfigure_SetsWhatIsSpecialAboutATool(t *testing.T) {
	t.Parallel()
	s := with(t, registrymcp.ToolsOptions{Wait: -1})
	options := s.child("files", "stdio", "one")
	options.Configure = func(tool *mcp.Tool, p *registry.Provider[registrymcp.Tool]) {
		switch tool.Name {
		case "sleep":
			p.AttemptTimeout = 50 * time.Millisecond
			p.Breaker.FailureThreshold = 1
		case "echo":
			p.Limits = registry.LimitPolicy{Rate: 0.001, Burst: 1}
		case "pid":
			panic("odd")
		case "fail":
			p.Priority = 77
		}
	}
	options.Inspect = func(result *mcp.CallToolResult) error {
		if result.IsError {
			return errors.New(result.Content[0].(*mcp.TextContent).Text)
		}
		return nil
	}
	s.orchestrate(options)
	_, err := s.orchestrator.Start(t.Context())
	require.ErrorContains(t, err, `tool "pid": Configure: `)
	require.ErrorContains(t, err, `tool "fail": `)
	require.ErrorIs(t, err, registry.ErrInvalid)

	s = with(t, registrymcp.ToolsOptions{Wait: -1})
	configure := options.Configure
	options.Logger = nil
	options.Configure = func(tool *mcp.Tool, p *registry.Provider[registrymcp.Tool]) {
		if tool.Name != "pid" && tool.Name != "fail" {
			configure(tool, p)
		}
	}
	s.start(options)
	_, err = s.call(t.Context(), "files/sleep", arguments{N: 5000})
	require.ErrorIs(t, err, registry.ErrAttemptTimeout)
	_, err = s.call(t.Context(), "files/sleep", arguments{N: 5000})
	require.ErrorIs(t, err, registry.ErrBreakerOpen)
	require.Equal(t, "one: 1", s.answer("files/echo", text("1")))
	_, err = s.call(t.Context(), "files/echo", text("2"))
	require.ErrorIs(t, err, registry.ErrAtCapacity)
	_, err = s.call(t.Context(), "files/fail", text("as the tool says"))
	require.ErrorContains(t, err, "as the tool says")
	require.NotEmpty(t, s.answer("files/pid", nil), "other tools of the server are as before")
}

func TestBreaker_KeepsAToolThatKillsItsServerAwayFromIt(t *testing.T) {
	t.Parallel()
	s := with(t, registrymcp.ToolsOptions{})
	options := s.child("files", "stdio", "one")
	s.start(options)
	err := os.ErrExist
	for tries := 0; tries < 20 && err != nil; tries++ {
		if _, err = s.call(t.Context(), "files/die", nil); err != nil {
			if i := s.found("files/die")[0]; i.Breaker.State == status.BreakerOpen {
				break
			}
		}
	}
	require.Equal(t, status.BreakerOpen, s.found("files/die")[0].Breaker.State)
	_, err = s.call(t.Context(), "files/die", nil)
	require.ErrorIs(t, err, registry.ErrBreakerOpen)
	require.ErrorContains(t, err, "its server went down during its calls, 3 times in a row")
	pid := s.pid("files")
	for range 20 {
		require.Equal(t, "one: x", s.answer("files/echo", text("x")))
	}
	require.Equal(t, pid, s.pid("files"))
}

func TestProviders_AreUpAtOnceWhenTheServerIsBackHoweverManyCallsItLost(t *testing.T) {
	t.Parallel()
	s := with(t, registrymcp.ToolsOptions{Wait: -1})
	s.start(s.child("files", "stdio", "one"))
	pid := s.pid("files")
	done := make(chan []error)
	go func() {
		done <- together(30, func(int) error { _, err := s.call(t.Context(), "files/sleep", arguments{N: 20_000}); return err })
	}()
	s.eventually(func() bool { return s.found("files/sleep")[0].InFlight == 30 }, "all are called")
	require.NoError(t, syscall.Kill(pid, syscall.SIGKILL))
	for _, err := range <-done {
		require.ErrorIs(t, err, registrymcp.ErrDown)
	}
	s.eventually(func() bool { _, err := s.call(t.Context(), "files/sleep", arguments{N: 1}); return err == nil }, "up again")
	require.Zero(t, s.found("files/sleep")[0].Failures)
}

func TestList_ProvidersOfOtherServicesKeepTheNamesOfTools(t *testing.T) {
	t.Parallel()
	s := with(t, registrymcp.ToolsOptions{Wait: -1})
	other, err := registry.NewService[string]("other").Register(t.Context(), s.registry, registry.Provider[string]{Name: "files/new", Instance: "x"})
	require.NoError(t, err)
	options := s.child("files", "stdio", "one")
	options.ConfirmTime = 10 * time.Millisecond
	s.start(options)
	require.Equal(t, "grown", s.answer("files/grow", text("new")))
	s.eventually(func() bool { return len(s.found("files/new")) == 1 }, "a new tool")
	tool, known := s.registry.Provider(service.Name(), "files/new")
	require.True(t, known)
	require.Equal(t, "files/new", tool.Name())
	require.Equal(t, "shrunk", s.answer("files/shrink", text("new")))
	<-tool.Left()
	require.Empty(t, s.found("files/new"))
	require.NoError(t, other.Reset(), "it is there")
}

func TestRemove_EndsWhatItHasToWaitFor(t *testing.T) {
	t.Parallel()
	s := with(t, registrymcp.ToolsOptions{Wait: -1})
	s.start(s.child("files", "stdio", "one"), s.child("more", "stdio", "two"))
	file := filepath.Join(t.TempDir(), "cancelled")
	errs := make(chan error, 1)
	go func() { _, err := s.call(t.Context(), "more/sleep", arguments{N: 100_000, Text: file}); errs <- err }()
	s.eventually(func() bool { return s.found("more/sleep")[0].InFlight == 1 }, "it is called")
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	_ = s.orchestrator.Remove(ctx, "more")
	require.Error(t, <-errs)
	require.Empty(t, s.found("more/sleep"))
	require.Equal(t, "one: x", s.answer("files/echo", text("x")))
}

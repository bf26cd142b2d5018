//go:build unix

package registrymcp_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	registrymcp "github.com/capreg/registry/contrib/mcp"
	"github.com/capreg/registry/startup/process"
)

// requireNPM skips the test where there is no npm. Where CI is true, it has to be there.
func requireNPM(t *testing.T) {
	t.Helper()
	if _, err := exec.LookPath("npx"); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("npx is not installed, and CI is true")
		}
		t.Skip("npx is not installed")
	}
}

// npx starts a server of npm's registry.
func (s *setup) npx(name string, arguments ...string) registrymcp.Options {
	options := s.child(name, "")
	options.AnswerTimeout, options.PingInterval, options.PingTimeout = 2*time.Minute, 300*time.Millisecond, time.Second
	options.Component.StartTimeout = 2 * time.Minute
	options.Process = &process.Options{
		Component: registry.Component{Restart: options.Process.Component.Restart}, Command: "npx", Args: append([]string{"-y"}, arguments...), Logger: s.logger,
	}
	return options
}

func TestNPM_ReferenceServersAreSupervised(t *testing.T) {
	t.Parallel()
	requireNPM(t)
	folder := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(folder, "hello.txt"), []byte("hello from a file"), 0o600))
	s := with(t, registrymcp.ToolsOptions{Wait: time.Minute})
	s.start(
		s.npx("files", "@modelcontextprotocol/server-filesystem@2026.8.31", folder),
		s.npx("everything", "@modelcontextprotocol/server-everything@2026.8.31"),
	)
	read := func() {
		result, err := s.tools.Call(t.Context(), "files/read_text_file", map[string]any{"path": filepath.Join(folder, "hello.txt")})
		require.NoError(t, err)
		require.False(t, result.IsError)
		require.Equal(t, map[string]any{"content": "hello from a file"}, result.StructuredContent)
	}
	read()
	require.Equal(t, "Echo: hello", s.answer("everything/echo", map[string]any{"message": "hello"}))
	result, err := s.tools.Call(t.Context(), "files/write_file", map[string]any{"path": filepath.Join(folder, "new.txt"), "content": "new"})
	require.NoError(t, err)
	require.False(t, result.IsError)

	reports := make(chan registrymcp.Progress, 100)
	ctx := registrymcp.WithProgress(t.Context(), func(p registrymcp.Progress) { reports <- p })
	_, err = s.call(ctx, "everything/trigger-long-running-operation", map[string]any{"duration": 1, "steps": 4})
	require.NoError(t, err)
	require.InDelta(t, 4, (<-reports).Total, 0)

	// npx is the leader of the group: the server itself is one of the others.
	for _, c := range s.logs.FilterMessage("process started").All() {
		require.NoError(t, syscall.Kill(-int(c.ContextMap()["pid"].(int64)), syscall.SIGKILL))
	}
	s.eventually(func() bool { return s.logs.FilterMessage("server is down").Len() >= 2 }, "they are down")
	read()
	require.Equal(t, "Echo: again", s.answer("everything/echo", map[string]any{"message": "again"}))
}

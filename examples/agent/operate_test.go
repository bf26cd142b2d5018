package main

import (
	"context"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry/admin/action"
)

// consoleLine says where the console is.
var consoleLine = regexp.MustCompile(`console   (http://\S+/)`)

func TestConsole_ShowsTheAgentUnderFaultsUntilItIsStopped(t *testing.T) {
	t.Setenv("OPENAI_API_KEY", "")
	t.Setenv("ANTHROPIC_API_KEY", "")
	out, err := os.Create(filepath.Join(t.TempDir(), "out"))
	require.NoError(t, err)
	defer func() { require.NoError(t, out.Close()) }()
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- run(ctx, []string{"-admin", "127.0.0.1:0", "-chaos"}, strings.NewReader(""), out) }()
	shown := func() string {
		text, err := os.ReadFile(out.Name())
		require.NoError(t, err)
		return string(text)
	}
	require.Eventually(t, func() bool { return consoleLine.MatchString(shown()) }, time.Minute, 10*time.Millisecond)
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, consoleLine.FindStringSubmatch(shown())[1], nil)
	require.NoError(t, err)
	answer, err := http.DefaultClient.Do(request)
	require.NoError(t, err)
	page, err := io.ReadAll(answer.Body)
	require.NoError(t, err)
	require.NoError(t, answer.Body.Close())
	http.DefaultClient.CloseIdleConnections()
	require.Contains(t, string(page), "6 services")
	require.Contains(t, string(page), "Reset all breakers", "it can be acted on from this machine")
	require.Eventually(t, func() bool { return strings.Contains(shown(), "chaos     ") }, time.Minute, 10*time.Millisecond)
	stop()
	require.NoError(t, <-ended)
}

func TestConsole_IsForThisMachineOnly(t *testing.T) {
	t.Parallel()
	for remote, allowed := range map[string]bool{"127.0.0.1:80": true, "[::1]:80": true, "[::ffff:127.0.0.1]:80": true, "10.0.0.1:80": false, "@": false} {
		_, err := thisMachine(&http.Request{RemoteAddr: remote}, action.Action{Verb: action.Reset})
		require.Equal(t, allowed, err == nil, remote)
	}
}

func TestChaos_IsNotForRealServices(t *testing.T) {
	t.Setenv("OPENAI_API_KEY", "key")
	out, err := os.Create(filepath.Join(t.TempDir(), "out"))
	require.NoError(t, err)
	defer func() { require.NoError(t, out.Close()) }()
	require.ErrorContains(t, run(t.Context(), []string{"-chaos"}, strings.NewReader(""), out), "without keys")
	require.Error(t, run(t.Context(), []string{"-admin", "no address"}, strings.NewReader(""), out))
}

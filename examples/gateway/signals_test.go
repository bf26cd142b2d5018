//go:build unix

package main

import (
	"bufio"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// process starts the gateway as a process of its own. Its log is read up to the line with the URL.
func process(t *testing.T, arguments ...string) (p *exec.Cmd, url string, log *os.File) {
	t.Helper()
	log, write, err := os.Pipe()
	require.NoError(t, err)
	t.Cleanup(func() { _ = log.Close() })
	p = exec.CommandContext(t.Context(), os.Args[0], append([]string{"-listen", "127.0.0.1:0"}, arguments...)...)
	p.Env, p.Stderr = append(os.Environ(), "GATEWAY_TEST_MAIN=1"), write
	require.NoError(t, p.Start())
	require.NoError(t, write.Close())
	for lines := bufio.NewScanner(log); url == "" && lines.Scan(); {
		_, after, _ := strings.Cut(lines.Text(), `"listening","url":"`)
		url, _, _ = strings.Cut(after, `"`)
	}
	require.NotEmpty(t, url)
	return p, url, log
}

func TestMain_EndsAtOnceAtASecondSignal(t *testing.T) {
	t.Parallel()
	server := silent(t)
	file := filepath.Join(t.TempDir(), "gateway.json")
	require.NoError(t, os.WriteFile(file, []byte(`{"upstreams":{"a":{"url":"`+server.URL+`","timeouts":{"stall":"1h"}}},
		"routes":[{"model":"a","groups":[{"upstreams":["a"]}]}]}`), 0o600))
	p, url, log := process(t, "-config", file, "-drain", "1h")
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url+chat, strings.NewReader(streamA))
	require.NoError(t, err)
	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	response, err := client.Do(request)
	require.NoError(t, err)
	defer func() { _ = response.Body.Close() }()
	require.NoError(t, p.Process.Signal(syscall.SIGTERM))
	ending := bufio.NewScanner(log)
	for ending.Scan() && !strings.Contains(ending.Text(), `"ending: `) {
	}
	require.Contains(t, ending.Text(), `"ending: `, "the log says why nothing happens")
	ended := make(chan error, 1)
	go func() { ended <- p.Wait() }()
	require.Eventually(t, func() bool {
		_ = p.Process.Signal(syscall.SIGTERM) // until the first one is taken for done
		select {
		case err = <-ended:
			return true
		default:
			return false
		}
	}, 30*time.Second, 10*time.Millisecond)
	require.ErrorContains(t, err, "terminated")
}

func TestMain_GoesOnWithoutAReaderOfItsLog(t *testing.T) {
	t.Parallel()
	p, url, log := process(t)
	require.NoError(t, log.Close())
	r, _ := post(t, url, plain)
	require.Equal(t, http.StatusOK, r.StatusCode)
	require.NoError(t, p.Process.Signal(syscall.SIGTERM))
	require.NoError(t, p.Wait(), "it writes its last lines, and ends by itself")
}

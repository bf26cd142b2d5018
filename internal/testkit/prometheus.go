package testkit

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// patience bounds the wait for what a server shows. Only a test that fails reaches it.
const patience = 3 * time.Minute

// Prometheus is a real server that scrapes a program every second.
type Prometheus struct {
	url    string
	client *http.Client
}

// StartPrometheus starts a server with those rules, none if empty, that scrapes /metrics of the target, and waits until
// it has done so. It ends with the test. Where there is no such program the test is skipped, as by [Program].
func StartPrometheus(t *testing.T, target, rules string, arguments ...string) *Prometheus {
	t.Helper()
	program := Program(t, "prometheus")
	folder := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(folder, name)
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
		return path
	}
	configuration := "global: {scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}\n" +
		"scrape_configs:\n- job_name: test\n  static_configs:\n  - targets: ['" + strings.TrimPrefix(target, "http://") + "']\n"
	if rules != "" {
		configuration += "rule_files: ['" + write("rules.yaml", rules) + "']\n"
	}
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	s := &Prometheus{client: &http.Client{Transport: transport, Timeout: 10 * time.Second}}
	arguments = append(arguments, "--config.file="+write("prometheus.yaml", configuration))
	for try := 0; !s.run(t, program, arguments, filepath.Join(folder, fmt.Sprint("data", try))); try++ {
		require.Less(t, try, 5, "no port is free")
	}
	s.Eventually(t, "it has scraped", `up{job="test"} == 1`, func(found []Series) bool { return len(found) == 1 })
	return s
}

// run runs the program at a port that was free just now, and reports whether it has become ready.
func (s *Prometheus) run(t *testing.T, program string, arguments []string, data string) bool {
	t.Helper()
	free, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	address := free.Addr().String()
	require.NoError(t, free.Close())
	s.url = "http://" + address
	var log bytes.Buffer                                                                                                 // of a process that has ended
	command := exec.Command(program, append(arguments, "--storage.tsdb.path="+data, "--web.listen-address="+address)...) //nolint:noctx // it is ended below
	command.Stdout, command.Stderr = &log, &log
	require.NoError(t, command.Start())
	var ended atomic.Bool
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = command.Wait()
		ended.Store(true)
	}()
	t.Cleanup(func() {
		_ = command.Process.Signal(syscall.SIGTERM)
		select {
		case <-done:
		case <-time.After(10 * time.Second):
			_ = command.Process.Kill()
			<-done
		}
		if t.Failed() {
			t.Log(log.String())
		}
	})
	poll(t, "it is ready", func() (bool, string) {
		_, err := s.get(t, "/-/ready")
		return err == nil || ended.Load(), fmt.Sprint(err)
	})
	return !ended.Load()
}

// poll waits until a condition holds; state says what it is like otherwise.
func poll(t *testing.T, what string, holds func() (held bool, state string)) {
	t.Helper()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	again := time.NewTicker(100 * time.Millisecond)
	defer again.Stop()
	for {
		held, state := holds()
		if held {
			return
		}
		select {
		case <-again.C:
		case <-deadline.C:
			require.FailNow(t, what, state)
		}
	}
}

// get returns the body of an answer with status 200.
func (s *Prometheus) get(t *testing.T, path string) ([]byte, error) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.url+path, nil)
	require.NoError(t, err)
	answer, err := s.client.Do(request)
	if err != nil {
		return nil, err
	}
	defer func() { _ = answer.Body.Close() }()
	var body bytes.Buffer
	if _, err := body.ReadFrom(answer.Body); err != nil {
		return nil, err
	}
	if answer.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %s", answer.Status, body.String())
	}
	return body.Bytes(), nil
}

// Series is one of the answer to a query.
type Series struct {
	Labels map[string]string
	Value  float64
}

// Query returns the series of a query of now.
func (s *Prometheus) Query(t *testing.T, expression string) ([]Series, error) {
	t.Helper()
	body, err := s.get(t, "/api/v1/query?query="+url.QueryEscape(expression))
	if err != nil {
		return nil, err
	}
	var answer struct {
		Data struct {
			Result []struct {
				Metric map[string]string
				Value  [2]any
			}
		}
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return nil, err
	}
	found := make([]Series, 0, len(answer.Data.Result))
	for _, one := range answer.Data.Result {
		value, err := strconv.ParseFloat(fmt.Sprint(one.Value[1]), 64)
		if err != nil {
			return nil, err
		}
		found = append(found, Series{one.Metric, value})
	}
	return found, nil
}

// Eventually waits until a query has the wanted answer.
func (s *Prometheus) Eventually(t *testing.T, what, expression string, wanted func([]Series) bool) {
	t.Helper()
	poll(t, what, func() (bool, string) {
		found, err := s.Query(t, expression)
		return err == nil && wanted(found), fmt.Sprintf("%s has %v, %v", expression, found, err)
	})
}

// Valued is a single series of that value, for [Prometheus.Eventually].
func Valued(want int) func([]Series) bool {
	return func(found []Series) bool { return len(found) == 1 && found[0].Value == float64(want) }
}

// Promtool runs the tool of that server with that input.
func Promtool(t *testing.T, input []byte, arguments ...string) {
	t.Helper()
	command := exec.CommandContext(t.Context(), Program(t, "promtool"), arguments...)
	command.Stdin = bytes.NewReader(input)
	out, err := command.CombinedOutput()
	require.NoError(t, err, "%s", out)
}

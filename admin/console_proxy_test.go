package admin_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry/admin"
	"github.com/capreg/registry/internal/testkit"
)

// Both proxies serve below /tools/registry/ what the handler has at its root, on a Unix socket, which needs no free port.
const (
	nginxConfiguration = `daemon off; master_process off; error_log stderr; pid %[1]s/pid;
events {}
http {
  access_log off;
  client_body_temp_path %[1]s/body; proxy_temp_path %[1]s/proxy; fastcgi_temp_path %[1]s/f; uwsgi_temp_path %[1]s/u; scgi_temp_path %[1]s/s;
  server {
    listen unix:%[1]s/socket;
    location /tools/registry/ {
      proxy_pass http://%[2]s/;
      proxy_set_header Host $http_host;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
    }
  }
}
`
	haproxyConfiguration = `defaults
  mode http
  timeout connect 1m
  timeout client 5m
  timeout server 5m
frontend tools
  bind unix@%[1]s/socket
  http-request replace-path /tools/registry/(.*) /\1
  default_backend registry
backend registry
  server registry %[2]s
`
)

func TestConsole_WorksBehindProxies(t *testing.T) {
	t.Parallel()
	for _, proxy := range []struct {
		name, configuration string
		arguments           []string
	}{
		{"nginx", nginxConfiguration, []string{"-p", "FOLDER", "-e", "stderr", "-c", "FOLDER/configuration"}},
		{"haproxy", haproxyConfiguration, []string{"-db", "-f", "FOLDER/configuration"}},
	} {
		t.Run(proxy.name, func(t *testing.T) {
			t.Parallel()
			program := testkit.Program(t, proxy.name)
			reg := newScene(t)
			handler, err := admin.New(reg, admin.Options{Authorize: allow, Hosts: []string{"tools.example"}})
			require.NoError(t, err)
			s := siteOf(t, reg, handler)
			server := httptest.NewServer(handler)
			t.Cleanup(server.Close)
			folder, err := os.MkdirTemp("", "proxy") //nolint:usetesting // a short one: names of sockets are bounded
			require.NoError(t, err)
			t.Cleanup(func() { require.NoError(t, os.RemoveAll(folder)) })
			text := fmt.Sprintf(proxy.configuration, folder, strings.TrimPrefix(server.URL, "http://"))
			require.NoError(t, os.WriteFile(filepath.Join(folder, "configuration"), []byte(text), 0o600))
			behind(t, s, startProxy(t, program, folder, proxy.arguments))
		})
	}
}

// startProxy starts a proxy and returns a client of its socket.
func startProxy(t *testing.T, program, folder string, arguments []string) *http.Client {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	for i := range arguments {
		arguments[i] = strings.ReplaceAll(arguments[i], "FOLDER", folder)
	}
	var out bytes.Buffer
	command := exec.CommandContext(ctx, program, arguments...)
	command.Stdout, command.Stderr = &out, &out
	require.NoError(t, command.Start())
	ended := make(chan struct{})
	go func() { defer close(ended); _ = command.Wait() }()
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", filepath.Join(folder, "socket"))
	}
	transport := &http.Transport{DialContext: dial}
	t.Cleanup(func() {
		transport.CloseIdleConnections()
		cancel()
		<-ended
	})
	require.Eventually(t, func() bool {
		select {
		case <-ended:
			return true
		default:
		}
		connection, err := dial(ctx, "", "")
		if err == nil {
			_ = connection.Close()
		}
		return err == nil
	}, time.Minute, 10*time.Millisecond)
	select {
	case <-ended:
		require.Fail(t, "the proxy has ended", out.String())
	default:
	}
	return &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

// behind uses console, stream and API through a proxy.
func behind(t *testing.T, s *site, client *http.Client) {
	t.Helper()
	const origin = "http://tools.example"
	base, err := url.Parse(origin + "/tools/registry/")
	require.NoError(t, err)
	request := func(method, reference, body string, headers ...string) *http.Request {
		target, err := base.Parse(reference)
		require.NoError(t, err)
		r, err := http.NewRequestWithContext(t.Context(), method, target.String(), strings.NewReader(body))
		require.NoError(t, err)
		for i := 0; i < len(headers); i += 2 {
			r.Header.Set(headers[i], headers[i+1])
		}
		return r
	}
	send := func(status int, method, reference, body string, headers ...string) (string, http.Header) {
		answer, err := client.Do(request(method, reference, body, headers...))
		require.NoError(t, err)
		defer func() { _ = answer.Body.Close() }()
		text, err := io.ReadAll(answer.Body)
		require.NoError(t, err)
		require.Equal(t, status, answer.StatusCode, string(text))
		return string(text), answer.Header
	}

	text, _ := send(http.StatusOK, http.MethodGet, "", "")
	require.Contains(t, text, "payments")
	for _, asset := range regexp.MustCompile(`"(console\.[^"]+)"`).FindAllStringSubmatch(text, -1) {
		text, _ := send(http.StatusOK, http.MethodGet, asset[1], "")
		require.NotEmpty(t, text)
	}

	stream, err := client.Do(request(http.MethodGet, "v1/runtime/events", ""))
	require.NoError(t, err)
	defer func() { _ = stream.Body.Close() }()
	require.Equal(t, http.StatusOK, stream.StatusCode)

	form := url.Values{"verb": {"drain"}, "service": {hostileService}, "provider": {hostileProvider}, "tag": {s.tag(hostileService, hostileProvider)}}
	const encoded = "application/x-www-form-urlencoded"
	_, headers := send(http.StatusSeeOther, http.MethodPost, "act", form.Encode(), "Content-Type", encoded, "Origin", origin)
	require.Zero(t, s.of(hostileService, hostileProvider).Weight())
	target, err := base.Parse(headers.Get("Location"))
	require.NoError(t, err)
	require.Equal(t, "/tools/registry/provider", target.Path)
	text, _ = send(http.StatusOK, http.MethodGet, target.String(), "")
	require.Contains(t, text, "gets no new calls")
	send(http.StatusForbidden, http.MethodPost, "act", form.Encode(), "Content-Type", encoded, "Origin", "http://evil.example")

	lines := bufio.NewScanner(stream.Body)
	for lines.Scan() && lines.Text() != "event: audit" { // it comes while the stream goes on
	}
	require.NoError(t, lines.Err())
	require.Equal(t, "event: audit", lines.Text())

	text, _ = send(http.StatusOK, http.MethodPut, "v1/runtime/services/stripe/priority", `{"priority": "LOW"}`, "Content-Type", "application/json", "If-Match", "*")
	require.Contains(t, text, `"new_priority":"LOW"`)
}

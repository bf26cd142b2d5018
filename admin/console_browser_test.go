package admin_test

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/admin"
	"github.com/capreg/registry/internal/testkit"
)

// TestConsole_InABrowser leaves what is looked at to testdata/node/console.mjs, which prints a line for each step.
func TestConsole_InABrowser(t *testing.T) {
	t.Parallel()
	node, browser := testkit.Program(t, "node"), testkit.Program(t, "chromium")
	if _, err := os.Stat("testdata/node/node_modules/playwright-core"); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("the packages of npm are not installed, and CI is true")
		}
		t.Skip("the packages of npm are not installed: npm ci --prefix admin/testdata/node")
	}
	reg := newScene(t)
	s := consoleOf(t, reg, admin.Options{Authorize: allow, Orchestrator: orchestrator(t, reg), ChangesAtOnce: 1000})
	server := newRestartable(t, s.server.Config.Handler)
	large := consoleOf(t, manyProviders(t, 1000), admin.Options{})
	ctx, cancel := context.WithTimeout(t.Context(), 8*time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, node, "testdata/node/console.mjs",
		server.url+"/ops/", large.server.URL+"/ops/", server.control.URL, browser).CombinedOutput()
	require.NoError(t, err, string(out))
	require.Contains(t, string(out), "all checks passed")
	t.Log("\n" + string(out))
}

// manyProviders returns a registry with services of ten providers each.
func manyProviders(tb testing.TB, n int) *registry.Registry {
	tb.Helper()
	reg, err := registry.New(registry.Options{})
	require.NoError(tb, err)
	for i := range n {
		service := registry.NewService[call](fmt.Sprintf("service-%04d", i/10))
		handle := add(tb, reg, service, registry.Provider[call]{Name: fmt.Sprintf("provider-%05d", i), Group: i % 3, Capabilities: []string{"text", "vision"}})
		if i%7 == 0 {
			require.NoError(tb, handle.ForceOpen(time.Hour, fmt.Sprintf("maintenance of rack %d", i)))
		}
		_ = service.Bind(reg, registry.Query{}).Do(tb.Context(), func(_ context.Context, c call) error { return c() })
	}
	return reg
}

// restartable is a server that is stopped and started again at its address, over HTTP.
type restartable struct {
	t       *testing.T
	url     string
	address string
	handler http.Handler
	server  *http.Server
	control *httptest.Server
}

func newRestartable(t *testing.T, handler http.Handler) *restartable {
	t.Helper()
	s := &restartable{t: t, address: "127.0.0.1:0", handler: handler}
	require.NoError(t, s.start(t.Context()))
	s.url = "http://" + s.address
	s.control = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var err error
		if strings.HasSuffix(r.URL.Path, "/stop") {
			err = s.server.Close()
		} else {
			err = s.start(r.Context())
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
		}
	}))
	t.Cleanup(func() {
		s.control.Close()
		require.NoError(t, s.server.Close())
	})
	return s
}

func (s *restartable) start(ctx context.Context) error {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", s.address)
	if err != nil {
		return err
	}
	s.address = listener.Addr().String()
	s.server = &http.Server{Handler: s.handler, ReadHeaderTimeout: time.Minute}
	go func(server *http.Server) { _ = server.Serve(listener) }(s.server) // it ends with Close
	return nil
}

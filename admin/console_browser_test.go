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
	"sync/atomic"
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
	options := admin.Options{Authorize: allow, Orchestrator: orchestrator(t, reg), Configuration: newConfiguration(t, reg), Fleet: newFleet(), ChangesAtOnce: 1000}
	t.Cleanup(func() { require.NoError(t, reg.Close(context.WithoutCancel(t.Context()))) })
	server := newRestartable(t, "/ops", func() *admin.Handler {
		handler, err := admin.New(reg, options)
		require.NoError(t, err)
		return handler
	})
	large := consoleOf(t, manyProviders(t, 1000), admin.Options{})
	ctx, cancel := context.WithTimeout(t.Context(), 8*time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, node, "testdata/node/console.mjs",
		server.server.URL+"/ops/", large.server.URL+"/ops/", server.control.URL, browser).CombinedOutput()
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

// restartable is a server that goes down and comes back with another handler, as a program does that is started again.
// It keeps its port meanwhile, and closes what connects to it.
type restartable struct {
	net.Listener

	t       *testing.T
	make    func() *admin.Handler
	handler atomic.Pointer[admin.Handler] // nil while it is down
	server  *httptest.Server
	control *httptest.Server // takes /stop and /start
}

func newRestartable(t *testing.T, prefix string, handler func() *admin.Handler) *restartable {
	t.Helper()
	s := &restartable{t: t, make: handler}
	s.handler.Store(handler())
	s.server = httptest.NewUnstartedServer(http.StripPrefix(prefix, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if h := s.handler.Load(); h != nil {
			h.ServeHTTP(w, r)
			return
		}
		panic(http.ErrAbortHandler) // it came before the connection was closed
	})))
	s.Listener, s.server.Listener = s.server.Listener, s
	s.server.Start()
	s.control = httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/start") {
			s.handler.Store(s.make())
			return
		}
		s.stop()
		s.server.CloseClientConnections()
	}))
	t.Cleanup(func() {
		s.control.Close()
		s.stop()
		s.server.Close()
	})
	return s
}

// Accept returns the next connection, where the server is not down.
func (s *restartable) Accept() (net.Conn, error) {
	for {
		connection, err := s.Listener.Accept()
		if err != nil || s.handler.Load() != nil {
			return connection, err
		}
		_ = connection.Close()
	}
}

func (s *restartable) stop() {
	if h := s.handler.Swap(nil); h != nil {
		h.Close()
	}
}

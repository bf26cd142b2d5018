//go:build unix

package registrymcp_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/modelcontextprotocol/go-sdk/mcp"
	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	registrymcp "github.com/capreg/registry/contrib/mcp"
	"github.com/capreg/registry/startup"
	"github.com/capreg/registry/startup/process"
)

// legacy is the last version of MCP that has sessions.
const legacy = "2025-11-25"

// httpServer is an MCP server in this program, which can forget its sessions, refuse and count.
type httpServer struct {
	*httptest.Server

	mu       sync.Mutex
	servers  []*mcp.Server // all of them, the present one last
	handler  http.Handler
	refuse   func(w http.ResponseWriter, r *http.Request) bool
	sessions atomic.Int64
}

func serve(s *setup, name string) *httpServer {
	h := &httpServer{}
	h.restart(name)
	h.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h.mu.Lock()
		handler, refuse := h.handler, h.refuse
		h.mu.Unlock()
		if refuse == nil || !refuse(w, r) {
			handler.ServeHTTP(w, r)
		}
	}))
	s.Cleanup(func() {
		for _, server := range h.servers {
			for session := range server.Sessions() {
				_ = session.Close()
			}
		}
		h.CloseClientConnections()
		h.Close()
	})
	return h
}

// restart forgets the sessions.
func (h *httpServer) restart(name string) {
	server := newServer(name)
	server.AddReceivingMiddleware(func(next mcp.MethodHandler) mcp.MethodHandler {
		return func(ctx context.Context, method string, request mcp.Request) (mcp.Result, error) {
			if method == "initialize" {
				h.sessions.Add(1)
			}
			return next(ctx, method, request)
		}
	})
	h.mu.Lock()
	defer h.mu.Unlock()
	h.servers = append(h.servers, server)
	h.handler = mcp.NewStreamableHTTPHandler(func(*http.Request) *mcp.Server { return server }, nil)
}

// refuses answers requests itself for as long as refuse returns true.
func (h *httpServer) refuses(refuse func(w http.ResponseWriter, r *http.Request) bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.refuse = refuse
}

// remote returns the options of a server at an endpoint.
func (s *setup) remote(name, url string) registrymcp.Options {
	return registrymcp.Options{Name: name, URL: url, Logger: s.logger, PingInterval: 200 * time.Millisecond, PingTimeout: 200 * time.Millisecond}
}

func TestHTTP_ItsToolsAreProvidersInEachVersionOfTheProtocol(t *testing.T) {
	t.Parallel()
	for _, version := range []string{"", legacy, "2025-06-18"} {
		t.Run("version "+version, func(t *testing.T) {
			t.Parallel()
			s := with(t, registrymcp.ToolsOptions{})
			options := s.remote("search", serve(s, "web").URL)
			options.ProtocolVersion = version
			s.start(options)
			require.Equal(t, "web: hello", s.answer("search/echo", text("hello")))
			size := 10 << 20
			if version != "" {
				size = 1 << 20
			}
			require.Len(t, s.answer("search/big", arguments{N: size}), size)
			require.Contains(t, s.orchestrator.Report().Components[0].Detail, "11 tools of web 1.0, MCP "+version)
			reports := make(chan registrymcp.Progress, 1000)
			_, err := s.call(registrymcp.WithProgress(t.Context(), func(p registrymcp.Progress) { reports <- p }), "search/sleep", arguments{N: 30})
			require.NoError(t, err)
			require.InDelta(t, 30, (<-reports).Total, 0)
		})
	}
}

func TestHTTP_ASessionThatIsUnknownIsMadeAgainOnceForAllCallers(t *testing.T) {
	t.Parallel()
	s := with(t, registrymcp.ToolsOptions{})
	h := serve(s, "web")
	options := s.remote("search", h.URL)
	options.ProtocolVersion, options.PingInterval = legacy, time.Hour
	s.start(options)
	require.EqualValues(t, 1, h.sessions.Load())
	h.restart("new")
	for _, err := range together(50, func(int) error {
		answer, err := s.call(t.Context(), "search/echo", text("x"))
		if err == nil && answer != "new: x" {
			err = errors.New(answer)
		}
		return err
	}) {
		require.NoError(t, err)
	}
	require.EqualValues(t, 2, h.sessions.Load())
	// The first call that meets it certainly was not processed, so that one with side effects is made again as well.
	h.restart("newer")
	require.Equal(t, "grown", s.answer("search/grow", text("a")))
	require.NoError(t, s.orchestrator.Stop(t.Context()))
	s.eventually(func() bool { return len(slices.Collect(h.servers[2].Sessions())) == 0 }, "the server has heard of the end")
}

func TestHTTP_StatusesSayWhatTheyMean(t *testing.T) {
	t.Parallel()
	s := with(t, registrymcp.ToolsOptions{Wait: -1})
	h := serve(s, "web")
	s.start(s.remote("search", h.URL))
	for _, test := range []struct {
		status int
		want   error
		class  string
	}{
		{http.StatusTooManyRequests, registry.ErrUnavailable, "rate limited"},
		{http.StatusServiceUnavailable, registry.ErrUnavailable, "overloaded"},
		{http.StatusUnauthorized, nil, "unauthenticated"},
		{http.StatusInternalServerError, nil, "server error"},
	} {
		h.refuses(func(w http.ResponseWriter, r *http.Request) bool {
			body := make([]byte, 4096)
			n, _ := r.Body.Read(body)
			r.Body = http.NoBody
			if strings.Contains(string(body[:n]), "tools/call") {
				w.Header().Set("Retry-After", "7")
				w.WriteHeader(test.status)
				return true
			}
			http.Error(w, `{"jsonrpc":"2.0","id":1,"error":{"code":-32601,"message":"no"}}`, http.StatusBadRequest)
			return true
		})
		_, err := s.call(t.Context(), "search/echo", nil)
		require.Error(t, err)
		var failed *registry.CallError
		require.ErrorAs(t, err, &failed)
		require.Equal(t, test.class, failed.Attempts[0].Class.String(), "%v", err)
		s.registry.Reset()
	}
}

func TestHTTP_AServerThatComesAndGoesIsConnectedAgain(t *testing.T) {
	t.Parallel()
	for _, version := range []string{"", legacy} {
		t.Run("version "+version, func(t *testing.T) {
			t.Parallel()
			s := with(t, registrymcp.ToolsOptions{Wait: 15 * time.Second})
			address := freeAddress(t)
			child := s.child("web", "http", "one", address)
			web := *child.Process
			web.Component.Name, web.Ready.Line = "web server", regexp.MustCompile("listening")
			component, err := process.Component(web)
			require.NoError(t, err)
			options := s.remote("search", "http://"+address)
			options.ProtocolVersion = version
			options.Component.Needs = []startup.Need{{Component: "web server"}}
			o, err := registry.NewOrchestrator(s.registry, startup.Options{}, append(s.components(options), component)...)
			require.NoError(t, err)
			_, err = o.Start(t.Context())
			require.NoError(t, err)
			for _, signal := range []syscall.Signal{syscall.SIGKILL, syscall.SIGSTOP} {
				pid := s.pid("search")
				require.NoError(t, syscall.Kill(pid, signal))
				require.ErrorIs(t, s.requireOut("search/echo"), registrymcp.ErrDown)
				if signal == syscall.SIGSTOP {
					require.NoError(t, syscall.Kill(pid, syscall.SIGCONT))
				}
				require.Equal(t, "one: back", s.answer("search/echo", text("back")))
			}
			require.NoError(t, o.Stop(t.Context()))
		})
	}
}

func TestHTTP_AStopWaitsForCalls(t *testing.T) {
	t.Parallel()
	s := with(t, registrymcp.ToolsOptions{Wait: -1})
	s.start(s.remote("search", serve(s, "web").URL))
	errs := make(chan error, 1)
	go func() { _, err := s.call(t.Context(), "search/sleep", arguments{N: 1500}); errs <- err }()
	s.eventually(func() bool { return s.found("search/sleep")[0].InFlight == 1 }, "it is called")
	require.NoError(t, s.orchestrator.Stop(t.Context()))
	require.NoError(t, <-errs)
}

func TestHTTP_AServerThatIsLateIsThereWhenItComes(t *testing.T) {
	t.Parallel()
	s := with(t, registrymcp.ToolsOptions{Wait: 15 * time.Second})
	address := freeAddress(t)
	options := s.remote("search", "http://"+address)
	options.Late = true
	s.start(options)
	require.Empty(t, s.tools.All(t.Context()))
	answers := make(chan string, 1)
	go func() { answers <- s.answer("search/echo", text("at last")) }()
	child := s.child("web", "http", "one", address)
	web, err := process.Component(*child.Process)
	require.NoError(t, err)
	web.Name = "web server"
	require.NoError(t, s.orchestrator.Add(t.Context(), web))
	require.Equal(t, "one: at last", <-answers)
	_, err = s.call(t.Context(), "search/misspelt", nil)
	require.ErrorIs(t, err, registry.ErrNoCapability, "it does not wait for what is not there")
}

func TestDial_TakesAnyTransport(t *testing.T) {
	t.Parallel()
	s := with(t, registrymcp.ToolsOptions{})
	server := newServer("memory")
	options := s.remote("memory", "")
	options.Dial = func(ctx context.Context) (mcp.Transport, error) {
		ofServer, ofClient := mcp.NewInMemoryTransports()
		_, err := server.Connect(ctx, ofServer, nil)
		return ofClient, err
	}
	s.start(options)
	require.Equal(t, "memory: x", s.answer("memory/echo", text("x")))
	require.NoError(t, s.orchestrator.Stop(t.Context()))
}

func TestDial_ThatPanicsOrFailsIsTheReason(t *testing.T) {
	t.Parallel()
	for want, dial := range map[string]func(context.Context) (mcp.Transport, error){
		"no route":              func(context.Context) (mcp.Transport, error) { return nil, errors.New("no route") },
		"odd":                   func(context.Context) (mcp.Transport, error) { panic("odd") },
		"there is no transport": func(context.Context) (mcp.Transport, error) { return nil, nil },
	} {
		s := with(t, registrymcp.ToolsOptions{})
		options := s.remote("memory", "")
		options.Dial, options.Component.StartTimeout = dial, 200*time.Millisecond
		s.orchestrate(options)
		_, err := s.orchestrator.Start(t.Context())
		require.ErrorIs(t, err, registrymcp.ErrDown)
		require.ErrorContains(t, err, want)
	}
}

//go:build unix

package registrymcp_test

import (
	"context"
	"net"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/modelcontextprotocol/go-sdk/mcp"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/capreg/registry"
	registrymcp "github.com/capreg/registry/contrib/mcp"
	"github.com/capreg/registry/internal/testkit"
	"github.com/capreg/registry/startup"
	"github.com/capreg/registry/startup/process"
)

func TestMain(m *testing.M) {
	if kind := os.Getenv(helperMark); kind != "" {
		runServer(kind, os.Args[1:])
		return
	}
	goleak.VerifyTestMain(m)
}

var service = registry.NewService[registrymcp.Tool]("tools")

// setup is a program with tools of servers.
type setup struct {
	testing.TB

	registry     *registry.Registry
	tools        *registrymcp.Tools
	orchestrator *registry.Orchestrator
	logs         *observer.ObservedLogs
	logger       *zap.Logger
}

func with(tb testing.TB, options registrymcp.ToolsOptions) *setup {
	tb.Helper()
	s := &setup{TB: tb, registry: testkit.New(tb, registry.Options{})}
	var err error
	s.tools, err = registrymcp.NewTools(s.registry, service, options)
	require.NoError(tb, err)
	var core zapcore.Core
	core, s.logs = observer.New(zapcore.InfoLevel)
	s.logger = zap.New(core)
	return s
}

// found returns the providers of a tool.
func (s *setup) found(tool string) []registry.Info {
	infos, err := s.registry.Discover(registry.Query{Require: []string{tool}})
	require.NoError(s, err)
	return infos
}

// child returns the options of a server that is a child.
func (s *setup) child(name, kind string, arguments ...string) registrymcp.Options {
	program, err := os.Executable()
	require.NoError(s, err)
	return registrymcp.Options{
		Name: name, Logger: s.logger, PingInterval: 200 * time.Millisecond, PingTimeout: 200 * time.Millisecond,
		Process: &process.Options{
			Component: registry.Component{Restart: startup.Restart{Mode: startup.Always, MaxRestarts: 1000, FirstDelay: time.Millisecond, MaxDelay: 50 * time.Millisecond}},
			Command:   program, Args: arguments, Env: []string{helperMark + "=" + kind}, Grace: time.Second, Logger: s.logger,
		},
	}
}

// components returns the components of servers.
func (s *setup) components(servers ...registrymcp.Options) (all []registry.Component) {
	s.Helper()
	for _, o := range servers {
		components, err := registrymcp.Components(s.tools, o)
		require.NoError(s, err)
		all = append(all, components...)
	}
	return all
}

// orchestrate makes an orchestrator of servers, which the test has stopped at its end.
func (s *setup) orchestrate(servers ...registrymcp.Options) {
	s.Helper()
	var err error
	s.orchestrator, err = registry.NewOrchestrator(s.registry, startup.Options{}, s.components(servers...)...)
	require.NoError(s, err)
	s.Cleanup(func() { require.NoError(s, s.orchestrator.Stop(context.Background())) })
}

// start starts servers.
func (s *setup) start(servers ...registrymcp.Options) {
	s.Helper()
	s.orchestrate(servers...)
	_, err := s.orchestrator.Start(s.Context())
	require.NoError(s, err)
}

// call calls a tool and returns its text.
func (s *setup) call(ctx context.Context, name string, in any, options ...registry.CallOption) (string, error) {
	result, err := s.tools.Call(ctx, name, in, options...)
	if err != nil {
		return "", err
	}
	require.Len(s, result.Content, 1)
	text := result.Content[0].(*mcp.TextContent).Text
	if result.IsError {
		return "error: " + text, nil
	}
	return text, nil
}

// answer calls a tool that has to answer.
func (s *setup) answer(name string, in any) string {
	s.Helper()
	ctx, cancel := context.WithTimeout(s.Context(), 20*time.Second)
	defer cancel()
	text, err := s.call(ctx, name, in)
	require.NoError(s, err)
	return text
}

// pid returns the process of a server.
func (s *setup) pid(set string) int {
	s.Helper()
	pid, err := strconv.Atoi(s.answer(set+"/pid", nil))
	require.NoError(s, err)
	return pid
}

// entry returns what is known of a tool; false when it is not.
func (s *setup) entry(name string) (registrymcp.Entry, bool) {
	for _, e := range s.tools.All(s.Context()) {
		if e.Name == name {
			return e, true
		}
	}
	return registrymcp.Entry{}, false
}

// eventually waits for what another process does.
func (s *setup) eventually(condition func() bool, what string) {
	s.Helper()
	require.Eventually(s, condition, 20*time.Second, 2*time.Millisecond, what)
}

// requireOut waits until a tool is out, and returns the error that says why.
func (s *setup) requireOut(name string) error {
	s.Helper()
	var why error
	s.eventually(func() bool {
		e, known := s.entry(name)
		require.True(s, known, "it is forgotten")
		why = e.Err
		return why != nil
	}, name+" is out")
	return why
}

// freeAddress returns an address at which nothing listens.
func freeAddress(tb testing.TB) string {
	tb.Helper()
	listener, err := new(net.ListenConfig).Listen(context.Background(), "tcp", "127.0.0.1:0")
	require.NoError(tb, err)
	defer func() { require.NoError(tb, listener.Close()) }()
	return listener.Addr().String()
}

// text is the argument of most tools.
func text(s string) arguments { return arguments{Text: s} }

// together makes calls at once and returns their errors.
func together(n int, call func(i int) error) []error {
	errs := make([]error, n)
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() { errs[i] = call(i) })
	}
	all.Wait()
	return errs
}

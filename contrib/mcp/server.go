package registrymcp

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/modelcontextprotocol/go-sdk/mcp"
	"go.uber.org/zap"

	"github.com/capreg/registry"
	"github.com/capreg/registry/contrib/mcp/internal/wire"
	"github.com/capreg/registry/internal/fault"
	"github.com/capreg/registry/startup"
	"github.com/capreg/registry/startup/process"
)

// Components returns the components of a server, for an orchestrator: that of its tools, with the server's name, and
// before it that of its process where it is one. The tools are registered when the component starts, for tools, and
// removed when it stops; while the server is down they are marked out. The components are of one orchestrator.
//
// A server that is a child and fails is a failure of its process, whose restart policy applies. To one with a URL or Dial the
// component connects again, with delays from 100 ms to 1 s. The component of the tools itself does not fail after its
// start. It has a goroutine for as long as it runs, and each connection has some of its own.
//
// The error of bad input is a [registry.FieldError].
func Components(tools *Tools, options Options) ([]registry.Component, error) {
	if tools == nil {
		return nil, &registry.FieldError{Field: "tools", Value: "nil", Bound: "a value of NewTools", Err: registry.ErrInvalid}
	}
	o, err := options.checked()
	if err != nil {
		return nil, err
	}
	s := &server{Options: *o, tools: tools}
	s.catalog = newCatalog(s)
	s.catalog.state = errNotYet
	s.listed = make(chan struct{})
	component := o.Component
	component.Start, component.Stop = s.start, s.stop
	if o.Process == nil {
		return []registry.Component{component}, nil
	}
	child := *o.Process
	child.Talk = s.talk
	processComponent, err := process.Component(child)
	if err != nil {
		return nil, err
	}
	component.Needs = append(slices.Clone(component.Needs), startup.Need{Component: child.Component.Name, Optional: child.Component.NonCritical})
	return []registry.Component{processComponent, component}, nil
}

// server is one server.
type server struct {
	Options

	tools      *Tools
	catalog    *catalog
	connection atomic.Pointer[connection] // nil while there is none

	// Of a server that is no child, from each start on.
	disconnect   context.CancelFunc
	disconnected <-chan struct{}

	listing sync.Once
	listed  chan struct{} // closed when the tools are known for the first time

	mu     sync.Mutex   // guards the fields below; no code of users runs while it is held
	run    *startup.Run // nil while the component does not run
	detail string       // of reports
}

func (s *server) capability(tool string) string { return s.Set + "/" + tool }

// log writes to the logger, which is code of the user.
func (s *server) log(text string, fields ...zap.Field) {
	if s.Logger != nil {
		_ = fault.Run(func() error { s.Logger.Info(text, append(fields, zap.String("server", s.Name))...); return nil })
	}
}

// start starts the component of the tools.
func (s *server) start(ctx context.Context, run *startup.Run) (err error) {
	s.report(func() { s.run = run })
	s.tools.join(s)
	if s.Process == nil {
		s.connectFrom(run) //nolint:contextcheck // until the stop
	}
	defer func() {
		if err != nil { // it will not be stopped
			ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), farewellTime+abandonTime)
			defer cancel()
			err = errors.Join(err, s.stop(ending))
		}
	}()
	if s.Late {
		return s.catalog.open(ctx)
	}
	select {
	case <-s.listed:
		return s.catalog.open(ctx)
	case <-ctx.Done():
		return s.downError()
	}
}

// stop stops the component of the tools: their calls first, then the connection. The process, if there is one, stops
// afterwards.
func (s *server) stop(ctx context.Context) error {
	s.report(func() { s.run = nil })
	s.tools.leave(s)
	err := s.catalog.shut(ctx)
	if s.Process != nil {
		return err
	}
	s.disconnect()
	select {
	case <-s.disconnected:
		return err
	case <-ctx.Done():
		return errors.Join(err, fault.Wrap("the connection does not end: ", registry.ErrStuck))
	}
}

// connectFrom keeps the connection to a server that is no child, until disconnect.
func (s *server) connectFrom(run *startup.Run) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(run.Context()))
	ended := make(chan struct{})
	s.disconnect, s.disconnected = cancel, ended
	go fault.RunThen(func() error { s.keep(ctx); return nil }, func(err error) {
		defer close(ended)
		if err != nil {
			run.Ended(err)
		}
	})
}

// talk speaks with one life of a process.
func (s *server) talk(ctx context.Context, with process.Streams) error {
	return s.serve(ctx, func(_ context.Context, c *connection) (mcp.Transport, error) {
		return &wire.Stdio{In: with.In, Out: with.Out, MaxMessage: s.MaxMessage, Garbage: s.garbage(with.PID), Ended: c.end}, nil
	})
}

// garbage returns a function that logs the first lines that are no messages.
func (s *server) garbage(pid int) func(line string) {
	const most = 20
	lines := 0
	return func(line string) {
		if lines++; lines <= most {
			s.log("a line of output is no message", zap.Int("pid", pid), zap.String("line", line))
		}
	}
}

// The delays between two attempts to connect.
const (
	firstDelay = 100 * time.Millisecond
	longDelay  = time.Second
)

// keep connects to a server that is no child, again and again.
func (s *server) keep(ctx context.Context) {
	dial := dialer(func(ctx context.Context, _ *connection) (mcp.Transport, error) { return s.Dial(ctx) })
	if s.URL != "" {
		client, end := s.httpClient()
		defer end()
		dial = func(_ context.Context, c *connection) (mcp.Transport, error) {
			return wire.HTTP(c.life, s.URL, client, s.MaxMessage), nil //nolint:contextcheck // it is that of the connection
		}
	}
	delay := firstDelay
	for {
		began := time.Now()
		_ = s.serve(ctx, dial) // the reason is that of the tools
		if time.Since(began) > longDelay {
			delay = firstDelay
		}
		pause := time.NewTimer(delay)
		select {
		case <-ctx.Done():
			pause.Stop()
			return
		case <-pause.C:
		}
		delay = min(2*delay, longDelay)
	}
}

// httpClient returns the client of requests, and a function that ends its connections.
func (s *server) httpClient() (client *http.Client, end func()) {
	if s.HTTPClient != nil {
		return s.HTTPClient, func() {}
	}
	own := &http.Transport{Proxy: http.ProxyFromEnvironment, MaxIdleConnsPerHost: 16, IdleConnTimeout: time.Minute, ForceAttemptHTTP2: true}
	return &http.Client{Transport: own}, own.CloseIdleConnections
}

// report makes a change of what reports tell, and tells them.
func (s *server) report(change func()) {
	s.mu.Lock()
	change()
	run, detail := s.run, s.detail
	s.mu.Unlock()
	if run != nil && detail != "" {
		run.Detail(detail)
	}
}

// detailOf describes the server of a connection.
func detailOf(c *connection, tools int) string {
	is := c.session.InitializeResult()
	text := fmt.Sprintf("%d tools", tools)
	if is.ServerInfo != nil {
		text += fmt.Sprintf(" of %s %s", is.ServerInfo.Name, is.ServerInfo.Version)
	}
	return text + ", MCP " + is.ProtocolVersion
}

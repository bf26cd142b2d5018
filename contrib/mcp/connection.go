package registrymcp

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/modelcontextprotocol/go-sdk/jsonrpc"
	"github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/capreg/registry"
	"github.com/capreg/registry/contrib/mcp/internal/toollist"
	"github.com/capreg/registry/contrib/mcp/internal/wire"
	"github.com/capreg/registry/internal/fault"
)

// Times for the end of a connection.
const (
	farewellTime = time.Second     // for the server to hear of it
	abandonTime  = 2 * time.Second // for handlers of the user
)

var (
	errUnanswered  = errors.New("it has not answered in time")
	errOver        = errors.New("the connection is over")
	errClosed      = errors.New("it has closed the connection")
	errNotYet      = errors.New("it was not there yet")
	errNoTransport = errors.New("there is no transport")
	errNoSession   = errors.New("the transport made no connection")
)

// connection is one session with a server, from initialise on.
type connection struct {
	server  *server
	life    context.Context                //nolint:containedctx // it is a lifetime, not a request
	end     context.CancelCauseFunc        // its first cause is why the connection is over
	raw     atomic.Pointer[mcp.Connection] // nil before the transport has connected
	session *mcp.ClientSession
	began   time.Time

	changed chan struct{} // has a value when the list is to be read again
	doubted chan struct{} // has a value when the server is to be asked at once whether it answers
	gone    chan struct{} // closed when the session is over, for reason
	reason  error

	work     sync.WaitGroup // goroutines of its own
	inFlight atomic.Int64
	answered atomic.Int64 // time of the last answer, in nanoseconds since began

	mu        sync.Mutex // guards the fields below, and the end of life before work is waited for; no lock of this package is taken while it is held
	listeners map[string]func(Progress)
	lastToken int
	asking    *question // nil while the server is not asked
}

// question asks a server whether it answers, for all that want to know.
type question struct {
	answered chan struct{}
	err      error
}

// dialer returns the transport of a connection.
type dialer func(ctx context.Context, c *connection) (mcp.Transport, error)

// connect makes a connection and initialises the session.
func (s *server) connect(ctx context.Context, dial dialer) (*connection, error) {
	life, end := context.WithCancelCause(context.WithoutCancel(ctx))
	c := &connection{
		server: s, life: life, end: end, began: time.Now(), changed: make(chan struct{}, 1), doubted: make(chan struct{}, 1), gone: make(chan struct{}),
		listeners: make(map[string]func(Progress)),
	}
	limited, cancel := context.WithTimeoutCause(ctx, s.AnswerTimeout, errUnanswered)
	defer cancel()
	// What a server does not answer ends with its streams, whatever the SDK waits for.
	stop := context.AfterFunc(limited, func() { c.cut(context.Cause(limited)) })
	defer stop()
	err := fault.Run(func() error {
		t, err := dial(limited, c)
		if err == nil && t == nil {
			err = errNoTransport
		}
		if err != nil {
			return err
		}
		c.session, err = c.client().Connect(limited, c.noting(t), &mcp.ClientSessionOptions{ProtocolVersion: s.ProtocolVersion})
		return err
	})
	if err == nil && !stop() {
		err = limited.Err()
	}
	if err != nil {
		if limited.Err() != nil {
			c.end(context.Cause(limited))
		}
		if why := context.Cause(life); why != nil {
			err = why // what came first
		}
		c.cut(errOver)
		if c.session != nil {
			_ = c.session.Close()
		}
		return nil, fmt.Errorf("initialise: %w", err)
	}
	c.hasAnswered()
	c.work.Go(func() {
		defer close(c.gone)
		c.reason = cmp.Or(c.session.Wait(), errClosed)
		c.reason = cmp.Or(context.Cause(life), c.reason)
	})
	return c, nil
}

// client returns the client of one session.
func (c *connection) client() *mcp.Client {
	var options mcp.ClientOptions
	if c.server.Client != nil {
		options = *c.server.Client
	}
	ofUser := options.ToolListChangedHandler
	options.ToolListChangedHandler = func(ctx context.Context, request *mcp.ToolListChangedRequest) {
		c.wantList()
		if ofUser != nil {
			ofUser(ctx, request)
		}
	}
	progress := options.ProgressNotificationHandler
	options.ProgressNotificationHandler = func(ctx context.Context, request *mcp.ProgressNotificationClientRequest) {
		c.hasAnswered()
		if !c.progressed(request.Params) && progress != nil {
			progress(ctx, request)
		}
	}
	client := mcp.NewClient(c.server.Implementation, &options)
	client.AddReceivingMiddleware(func(next mcp.MethodHandler) mcp.MethodHandler {
		return func(ctx context.Context, method string, request mcp.Request) (result mcp.Result, err error) {
			err = fault.Run(func() (err error) { result, err = next(ctx, method, request); return err })
			return result, err
		}
	})
	return client
}

// noting returns a transport that notes its connection.
func (c *connection) noting(t mcp.Transport) mcp.Transport { return &notingTransport{t, c} }

type notingTransport struct {
	mcp.Transport

	of *connection
}

// Connect connects.
func (t *notingTransport) Connect(ctx context.Context) (mcp.Connection, error) {
	raw, err := t.Transport.Connect(ctx)
	switch {
	case err != nil:
		return nil, err
	case raw == nil:
		return nil, errNoSession
	}
	t.of.raw.Store(&raw)
	if err := context.Cause(t.of.life); err != nil { //nolint:contextcheck // it is that of the connection
		_ = raw.Close()
		return nil, err
	}
	return raw, nil
}

// cut ends everything at once, without a word to the server.
func (c *connection) cut(why error) {
	c.end(why)
	if raw := c.raw.Load(); raw != nil {
		_ = (*raw).Close()
	}
}

// close ends the session: a server that answers is told. The error says that a handler of the user does not return.
func (c *connection) close(why error, answers bool) error {
	closed := make(chan struct{})
	closing := func() {
		defer close(closed)
		_ = c.session.Close()
		c.mu.Lock()
		c.end(why) // no question begins behind this
		c.mu.Unlock()
		c.work.Wait()
	}
	if !answers {
		c.cut(why)
	}
	go closing()
	if within(closed, farewellTime) {
		return nil
	}
	c.cut(why)
	if within(closed, abandonTime) {
		return nil
	}
	return fault.Wrap("a handler of the client does not return: ", registry.ErrStuck)
}

func within(closed <-chan struct{}, limit time.Duration) bool {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-closed:
		return true
	case <-timer.C:
		return false
	}
}

func (c *connection) hasAnswered() { c.answered.Store(int64(time.Since(c.began))) }

// lastAnswer returns when the server has answered last; now for no connection.
func (c *connection) lastAnswer() time.Time {
	if c == nil {
		return time.Now()
	}
	return c.began.Add(time.Duration(c.answered.Load()))
}

// silence returns the time since the last answer.
func (c *connection) silence() time.Duration {
	return time.Since(c.began) - time.Duration(c.answered.Load())
}

// ask asks the server whether it answers, together with those that ask already.
func (c *connection) ask(ctx context.Context) error {
	c.mu.Lock()
	if c.life.Err() != nil {
		c.mu.Unlock()
		return errOver
	}
	q := c.asking
	if q == nil {
		q = &question{answered: make(chan struct{})}
		c.asking = q
		c.work.Go(func() {
			fault.RunThen(func() error { return c.ping(c.life) }, func(err error) { q.err = err })
			c.mu.Lock()
			c.asking = nil
			c.mu.Unlock()
			close(q.answered)
		})
	}
	c.mu.Unlock()
	select {
	case <-q.answered:
		return q.err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// isAlive reports whether a failure is not that of the whole server. When it is, the tools are marked out at once.
func (c *connection) isAlive(ctx context.Context) bool {
	if c.life.Err() != nil {
		return false
	}
	select {
	case c.doubted <- struct{}{}:
	default:
	}
	return c.ask(ctx) == nil && c.life.Err() == nil
}

// wantList asks for the list to be read again.
func (c *connection) wantList() {
	select {
	case c.changed <- struct{}{}:
	default:
	}
}

// list reads the list of the tools.
func (c *connection) list(ctx context.Context) (map[string]*mcp.Tool, error) {
	if c.session.InitializeResult().Capabilities.Tools == nil {
		return map[string]*mcp.Tool{}, nil // the server has none
	}
	ctx, cancel := context.WithTimeoutCause(ctx, c.server.AnswerTimeout, errUnanswered)
	defer cancel()
	list, err := toollist.Fetch(ctx, c.session.ListTools)
	if err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return nil, fmt.Errorf("list of tools: %w", err)
	}
	c.hasAnswered()
	return list, nil
}

// ping asks whether the server answers. An error that it answers with is an answer.
func (c *connection) ping(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, c.server.PingTimeout, errUnanswered)
	defer cancel()
	err := c.session.Ping(ctx, nil)
	var answer *jsonrpc.Error
	switch {
	case err == nil, errors.As(err, &answer):
		c.hasAnswered()
		return nil
	case ctx.Err() != nil:
		return context.Cause(ctx)
	}
	return err
}

// call calls a tool.
func (c *connection) call(ctx context.Context, name string, arguments json.RawMessage) (*mcp.CallToolResult, error) {
	c.inFlight.Add(1)
	defer c.inFlight.Add(-1)
	params := &mcp.CallToolParams{Name: name, Arguments: arguments}
	if report, ok := ctx.Value(progressKey{}).(func(Progress)); ok && report != nil {
		token := c.listen(report)
		// What was reported before the answer may be heard of after it.
		defer time.AfterFunc(farewellTime, func() { c.unlisten(token) })
		params.SetProgressToken(token)
	}
	tracked, request := wire.Track(ctx)
	result, err := c.session.CallTool(tracked, params)
	if err == nil {
		c.hasAnswered()
		return result, nil
	}
	return nil, c.judge(ctx, err, name, request.IsRefused())
}

// listen notes a function that hears of the progress of a call, and returns the token of the call.
func (c *connection) listen(report func(Progress)) (token string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lastToken++
	token = "call-" + strconv.Itoa(c.lastToken)
	c.listeners[token] = report
	return token
}

func (c *connection) unlisten(token string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.listeners, token)
}

// progressed reports whether progress was that of a call.
func (c *connection) progressed(p *mcp.ProgressNotificationParams) bool {
	token, _ := p.ProgressToken.(string)
	c.mu.Lock()
	report, ok := c.listeners[token]
	c.mu.Unlock()
	if ok {
		report(Progress{Done: p.Progress, Total: p.Total, Message: p.Message})
	}
	return ok
}

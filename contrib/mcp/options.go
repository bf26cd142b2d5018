package registrymcp

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"net/http"
	"net/url"
	"time"

	"github.com/modelcontextprotocol/go-sdk/mcp"
	"go.uber.org/zap"

	"github.com/capreg/registry"
	"github.com/capreg/registry/internal/check"
	"github.com/capreg/registry/startup"
	"github.com/capreg/registry/startup/process"
)

// Options configure [Components]. A Name and one of Process, URL and Dial have to be set; the zero value of each other field
// is its default. They are copied.
type Options struct {
	// Name identifies the server; at most 100 bytes. Its tools are the providers Name/TOOL.
	Name string
	// Set names the servers that have the same tools: replicas, between which a call fails over. A tool is the capability
	// Set/TOOL. Default: Name, a server of its own.
	Set string

	// Process starts the server as a child that speaks MCP through its standard input and output. It becomes a component
	// of its own, with the name "Name process" where it has none. Talk is the package's. A Restart that is not set
	// restarts it after each end, with delays from 100 ms to 15 s, for as long as it takes.
	Process *process.Options
	// URL is the endpoint of a server that speaks streamable HTTP. HTTPClient sends the requests, such as with a key; it
	// should have no Timeout, which would end its streams. Default: one with connections of its own.
	URL        string
	HTTPClient *http.Client
	// Dial returns a transport for each connection, such as one with OAuth. It must heed its context.
	Dial func(ctx context.Context) (mcp.Transport, error)

	// Component has what else is to be said of the component of the tools: needs, what it provides, timeouts. Its
	// name is Name, and its Kind "mcp" by default. Start, Stop, Notifies, Ready and Completes are the package's.
	Component registry.Component
	// Late lets the component be ready at once, and its tools come when the server does. Its process, if it is one, is
	// not critical then, and has a second to start, by default. Default: it is ready when the tools are there, and its start fails with its StartTimeout.
	Late bool

	// Configure sets what is special about a tool before it is registered, such as its breaker, limits, timeout, priority
	// or cost. Name, Instance and Capabilities are set. Default: the defaults of a provider.
	Configure func(tool *mcp.Tool, p *registry.Provider[Tool])
	// Inspect is given each result. Its error makes the attempt a failure, of the class that package verdict finds.
	// Default: a result is an answer, also one that says by IsError that the tool has failed: that is for the
	// model to read.
	Inspect func(*mcp.CallToolResult) error

	// Client has handlers for what servers ask of clients. KeepAlive must be zero: see PingInterval.
	Client *mcp.ClientOptions
	// Implementation names this program to servers. Default: "registry".
	Implementation *mcp.Implementation
	// ProtocolVersion is the version of MCP that is asked for. Default: the latest one of the SDK, or what the server knows.
	ProtocolVersion string

	// AnswerTimeout bounds each step of a connection: to connect and initialise, and to read the list of the tools.
	// Default: 10 s.
	AnswerTimeout time.Duration
	// PingInterval is the time between questions whether the server answers, and PingTimeout bounds the answer. One
	// that does not answer has its tools marked out, until it does. Defaults: 5 s, 2 s.
	PingInterval, PingTimeout time.Duration
	// Patience is the time without any answer after which a server that is marked out and has no calls in flight is given
	// up: a child is killed and started again, another one is connected again. Default: 15 s.
	Patience time.Duration
	// RefreshInterval is the time after which the list of tools is read again, even if the server says nothing of
	// changes. Default: 1 min.
	RefreshInterval time.Duration
	// ConfirmTime is the time for which lists must lack a tool, three at least, before it is removed. Default: 30 s.
	ConfirmTime time.Duration
	// MaxMessage bounds a message of the server, in bytes. Default: 64 MiB.
	MaxMessage int

	// Logger gets what happens to the server, as information. Default: none.
	Logger *zap.Logger
}

const (
	longestTime = 24 * time.Hour
	// lateTime bounds the start of a process that others do not wait for, such as of one whose program is missing.
	lateTime = time.Second
	// foreverRestarts lets a process be restarted for as long as it takes.
	foreverRestarts = math.MaxInt32
)

// checked returns the options with their defaults, or the first field that is out of bounds.
func (o *Options) checked() (*Options, error) {
	c := *o
	if v := cmp.Or(c.checkNames(), c.checkServer(), c.checkComponent(), c.fill()); v != nil {
		return nil, &registry.FieldError{Field: "Options." + v.Field, Value: v.Value, Bound: v.Bound, Err: registry.ErrInvalid}
	}
	return &c, nil
}

func (o *Options) checkNames() *check.Violation {
	o.Set = cmp.Or(o.Set, o.Name)
	for _, field := range []struct{ name, value string }{{"Name", o.Name}, {"Set", o.Set}} {
		if field.value == "" || len(field.value) > 100 {
			return check.Refuse(field.name, field.value, "1 to 100 bytes")
		}
	}
	return nil
}

func (o *Options) checkServer() *check.Violation {
	if given := count(o.Process != nil, o.URL != "", o.Dial != nil); given != 1 {
		return check.Refuse("Process", check.Raw(fmt.Sprintf("one of %d with URL and Dial", given)), "exactly one of the three")
	}
	if parsed, err := url.Parse(o.URL); o.URL != "" && (err != nil || parsed.Host == "" || parsed.Scheme != "http" && parsed.Scheme != "https") {
		return check.Refuse("URL", check.Raw("refused"), "an absolute http or https URL")
	}
	if o.HTTPClient != nil && o.URL == "" {
		return check.Refuse("HTTPClient", check.Raw("set"), "nothing without URL")
	}
	if o.Client != nil && o.Client.KeepAlive != 0 {
		return check.Refuse("Client.KeepAlive", o.Client.KeepAlive, "0: PingInterval does that")
	}
	if o.Process == nil {
		return nil
	}
	if o.Process.Talk != nil {
		return check.Refuse("Process.Talk", check.Raw("set"), "nothing: it speaks MCP")
	}
	child := *o.Process
	child.Component.Name = cmp.Or(child.Component.Name, o.Name+" process")
	if child.Component.Restart == (startup.Restart{}) {
		child.Component.Restart = startup.Restart{Mode: startup.Always, MaxRestarts: foreverRestarts}
	}
	if o.Late {
		child.Component.StartTimeout = cmp.Or(child.Component.StartTimeout, lateTime)
	}
	child.Component.NonCritical = child.Component.NonCritical || o.Late || o.Component.NonCritical
	o.Process = &child
	return nil
}

// checkComponent refuses what the package sets itself.
func (o *Options) checkComponent() *check.Violation {
	c := &o.Component
	const bound = "nothing: it is the package's"
	switch {
	case c.Name != "" && c.Name != o.Name:
		return check.Refuse("Component.Name", c.Name, "Options.Name")
	case c.Start != nil:
		return check.Refuse("Component.Start", check.Raw("set"), bound)
	case c.Stop != nil:
		return check.Refuse("Component.Stop", check.Raw("set"), bound)
	case c.Ready != nil:
		return check.Refuse("Component.Ready", check.Raw("set"), bound)
	case c.Notifies || c.Completes:
		return check.Refuse("Component", check.Raw("one that notifies or completes"), bound)
	}
	c.Name, c.Kind = o.Name, cmp.Or(c.Kind, "mcp")
	return nil
}

func (o *Options) fill() *check.Violation {
	within := func(usual time.Duration) check.Range[time.Duration] {
		return check.Range[time.Duration]{Default: usual, Min: time.Millisecond, Max: longestTime}
	}
	if o.Implementation == nil {
		o.Implementation = &mcp.Implementation{Name: "registry", Version: "1"}
	}
	return cmp.Or(
		within(10*time.Second).Fill("AnswerTimeout", &o.AnswerTimeout),
		within(5*time.Second).Fill("PingInterval", &o.PingInterval),
		within(2*time.Second).Fill("PingTimeout", &o.PingTimeout),
		within(15*time.Second).Fill("Patience", &o.Patience),
		within(time.Minute).Fill("RefreshInterval", &o.RefreshInterval),
		within(30*time.Second).Fill("ConfirmTime", &o.ConfirmTime),
		check.Range[int]{Default: 64 << 20, Min: 1 << 10, Max: 1 << 30}.Fill("MaxMessage", &o.MaxMessage),
	)
}

func count(all ...bool) (n int) {
	for _, each := range all {
		if each {
			n++
		}
	}
	return n
}

package registrynats

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"

	"github.com/capreg/registry"
	"github.com/capreg/registry/federation"
	"github.com/capreg/registry/registryhttp"
	"github.com/capreg/registry/verdict"
)

const (
	// Kind is the kind of the entries that a [Server] offers, for [federation.Dial].
	Kind = "nats"

	callPrefix      = "registry.call."
	defaultAtOnce   = 1024
	longestRequest  = time.Hour
	defaultDrainFor = 30 * time.Second
)

// ServerOptions configures a [Server].
type ServerOptions struct {
	// Node is the name of this process, as its announcer has it.
	Node string
	// Version is that of the service in the views of NATS, such as "1.2.3". Default: "0.0.0".
	Version string
	// AtOnce bounds the requests in progress; one beyond is answered as overloaded. Default: 1,024.
	AtOnce int
	// TrustCaller takes the caller of a request from its header, for a fleet whose processes trust each other. Default: none.
	TrustCaller bool
}

// Server answers the calls of other processes with the providers of a registry. Use [NewServer] to create one, and
// [Serve] to add what it answers. Its methods are safe for concurrent use.
type Server struct {
	nc      *nats.Conn
	reg     *registry.Registry
	options ServerOptions
	service micro.Service
	places  chan struct{}
	living  context.Context //nolint:containedctx // that of all requests
	end     context.CancelFunc

	mu       sync.Mutex // guards what follows
	draining bool
	running  sync.WaitGroup
	services map[string]bool // by name: those of a Serve
	methods  map[string]bool
}

// NewServer returns a server that answers nothing yet. It adds a service to the connection, by the name "registry-" and the
// node, and starts no goroutine. The errors name the option and match [registry.ErrInvalid], or are those of NATS.
func NewServer(nc *nats.Conn, reg *registry.Registry, options ServerOptions) (*Server, error) {
	if options.Version == "" {
		options.Version = "0.0.0"
	}
	switch {
	case nc == nil || reg == nil:
		return nil, fmt.Errorf("registrynats: NewServer needs a connection and a registry: %w", registry.ErrInvalid)
	case options.Node == "" || strings.ContainsAny(options.Node, ". \t\r\n*>"):
		return nil, fmt.Errorf("registrynats: ServerOptions.Node is %q: want the name of a node: %w", options.Node, registry.ErrInvalid)
	case options.AtOnce < 0:
		return nil, fmt.Errorf("registrynats: ServerOptions.AtOnce is %d: want 0 (%d) or more: %w", options.AtOnce, defaultAtOnce, registry.ErrInvalid)
	}
	if options.AtOnce == 0 {
		options.AtOnce = defaultAtOnce
	}
	service, err := micro.AddService(nc, micro.Config{
		Name: "registry-" + options.Node, Version: options.Version, Description: "providers of node " + options.Node,
	})
	if err != nil {
		return nil, fmt.Errorf("registrynats: %w", err)
	}
	s := &Server{
		nc: nc, reg: reg, options: options, service: service, places: make(chan struct{}, options.AtOnce), services: map[string]bool{}, methods: map[string]bool{},
	}
	s.living, s.end = context.WithCancel(context.Background())
	return s, nil
}

// Offer is the [federation.AnnouncerOptions.Offer] of the server: it offers the providers of the services that it serves.
func (s *Server) Offer(info registry.Info) (federation.Offer, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return federation.Offer{Kind: Kind, Address: callPrefix + s.options.Node}, s.services[info.Service]
}

// Drain refuses new requests as not sent, waits until those in progress have ended, within ctx, and then takes the service from the
// connection. When ctx ends first the requests are cancelled, and the error is that of ctx. Without a deadline it waits
// 30 s. Call it after the announcer has ended.
func (s *Server) Drain(ctx context.Context) error {
	s.mu.Lock()
	s.draining = true
	s.mu.Unlock()
	within, cancel := context.WithTimeout(ctx, defaultDrainFor)
	defer cancel()
	ended := make(chan struct{})
	go func() {
		s.running.Wait()
		close(ended)
	}()
	var err error
	select {
	case <-ended:
	case <-within.Done():
		err = fmt.Errorf("registrynats: requests still run: %w", within.Err())
	}
	s.end()
	<-ended
	return errors.Join(err, s.service.Stop())
}

// begin takes a place for a request. The class says why there is none.
func (s *Server) begin() (verdict.Class, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.draining {
		return verdict.ClassNotSent, false
	}
	select {
	case s.places <- struct{}{}:
		s.running.Add(1)
		return 0, true
	default:
		return verdict.ClassOverloaded, false
	}
}

func (s *Server) done() {
	<-s.places
	s.running.Done()
}

// Serve has the server answer requests of a method of a service: do calls the instance. Requests and answers are JSON. The
// method is a word of letters, digits, "-" and "_". Each request is a [registry.Call] on the provider that it is
// for, in a goroutine of its own, within the caller's deadline; do may find the caller's metadata by
// [registryhttp.MetadataOf] and its key by [IdempotencyKey]. Announce after the last Serve.
//
// It waits until the server of NATS has the subscription, for at most five seconds, and not at all while the connection is down. The
// errors match [registry.ErrInvalid], or [registry.ErrExists] where the server has the method already, also of another service, or
// are those of NATS, such as a [PermissionError].
func Serve[T, Q, A any](s *Server, service registry.Service[T], method string, do func(context.Context, T, Q) (A, error)) error {
	if s == nil || do == nil {
		return fmt.Errorf("registrynats: Serve needs a server and a function: %w", registry.ErrInvalid)
	}
	return s.serve(service.Name(), method, func(request micro.Request) { answer(s, service, request, do) })
}

// serve adds an endpoint for a method of a service.
func (s *Server) serve(service, method string, handle func(micro.Request)) error {
	if !isMethod(method) {
		return fmt.Errorf("registrynats: the method is %q: want a word of letters, digits, - and _, of at most 64 bytes: %w", oneLine(method), registry.ErrInvalid)
	}
	s.mu.Lock()
	served := s.methods[method]
	s.methods[method] = true
	s.mu.Unlock()
	if served {
		return fmt.Errorf("registrynats: the method %q is served already: %w", method, registry.ErrExists)
	}
	subject := callPrefix + s.options.Node + "." + method
	err := s.service.AddEndpoint(method, micro.HandlerFunc(func(request micro.Request) {
		class, ok := s.begin()
		if !ok {
			s.answerError(request, class, 0, "no place for the request")
			return
		}
		go func() {
			defer s.done()
			growStack(0)
			handle(request)
		}()
	}), micro.WithEndpointSubject(subject), micro.WithEndpointMetadata(map[string]string{"service": service}))
	if err != nil {
		return fmt.Errorf("registrynats: %w", err)
	}
	if err := subscribed(s.nc, "serve "+method, subject); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.services[service] = true
	return nil
}

// growStack makes the stack of a new goroutine as large as a request needs, while it has nothing to copy. Growing in the
// middle of a request, step by step, takes more time than the rest of what the server does for it.
//
//go:noinline
func growStack(at int) byte {
	var room [6 << 10]byte
	room[at]++
	return room[len(room)-1-at]
}

// readRequest returns the provider that a request is for, and what is asked of it.
func readRequest[Q any](request micro.Request) (provider string, asked Q, err error) {
	provider, err = strconv.Unquote(request.Headers().Get(HeaderProvider))
	if err == nil {
		err = json.Unmarshal(request.Data(), &asked)
	}
	return provider, asked, err
}

func isMethod(method string) bool {
	return method != "" && len(method) <= 64 &&
		strings.Trim(method, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_") == ""
}

// answer makes the call of a request, and replies.
func answer[T, Q, A any](s *Server, service registry.Service[T], request micro.Request, do func(context.Context, T, Q) (A, error)) {
	ctx := s.incoming(request.Headers())
	defer ctx.answered()
	provider, asked, err := readRequest[Q](request)
	if err != nil {
		s.answerError(request, verdict.ClassBadRequest, 0, "the request cannot be read: "+err.Error())
		return
	}
	reply, err := guarded(func() (A, error) {
		var options []registry.CallOption
		if caller := registryhttp.MetadataOf(ctx).Caller; caller != "" {
			options = append(options, registry.Caller(caller))
		}
		resolver := service.Bind(s.reg, registry.Query{Only: []string{provider}})
		return registry.Call(ctx, resolver, func(ctx context.Context, instance T) (A, error) { return do(ctx, instance, asked) }, options...)
	})
	var text []byte
	if err == nil {
		text, err = json.Marshal(reply)
	}
	if err != nil {
		class, after := verdictOf(err)
		s.answerError(request, class, after, err.Error())
		return
	}
	if err := s.respond(request, text, nil); errors.Is(err, nats.ErrMaxPayload) {
		s.answerError(request, verdict.ClassServerError, 0, "the answer is too large for the server of NATS")
	}
}

// guarded turns a panic of user code into an error.
func guarded[A any](work func() (A, error)) (reply A, err error) {
	defer func() {
		if value := recover(); value != nil {
			err = &verdict.PanicError{Value: value, Stack: debug.Stack()}
		}
	}()
	return work()
}

// respond sends a reply. The request itself is only for the goroutine that it came in, as package micro has it, which looks at it
// when its handler has returned.
func (s *Server) respond(request micro.Request, data []byte, h nats.Header) error {
	return s.nc.PublishMsg(&nats.Msg{Subject: request.Reply(), Data: data, Header: h})
}

func (s *Server) answerError(request micro.Request, class verdict.Class, after time.Duration, text string) {
	_ = s.respond(request, nil, errorHeaders(class, after, text)) // the caller sees that none came
}

// errorHeaders returns the headers of an error.
func errorHeaders(class verdict.Class, after time.Duration, text string) nats.Header {
	h := nats.Header{}
	h.Set(HeaderClass, class.String())
	h.Set(micro.ErrorHeader, oneLine(text))
	h.Set(micro.ErrorCodeHeader, strconv.Itoa(statusOf(class)))
	if after > 0 {
		h.Set(HeaderAfter, strconv.FormatInt(max(min(after, longestAfter).Milliseconds(), 1), 10))
	}
	return h
}

// statusOf returns the number that the views of NATS show for a class.
func statusOf(class verdict.Class) int {
	switch class {
	case verdict.ClassRateLimited:
		return 429
	case verdict.ClassNotSent, verdict.ClassOverloaded:
		return 503
	default:
		if class.Rule().Blame == verdict.BlameSuccess {
			return 400
		}
		return 500
	}
}

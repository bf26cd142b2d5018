package registrygrpc_test

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/capreg/registry"
	registrygrpc "github.com/capreg/registry/contrib/grpc"
	"github.com/capreg/registry/contrib/grpc/internal/wordspb"
	"github.com/capreg/registry/internal/testkit"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var words = registry.NewService[*grpc.ClientConn]("words")

// server answers as its fields say; by default with what it was sent.
type server struct {
	wordspb.UnimplementedWordsServer

	name  string
	say   func(ctx context.Context, request *wordspb.SayRequest) (*wordspb.SayReply, error)
	spell func(request *wordspb.SayRequest, stream grpc.ServerStreamingServer[wordspb.SayReply]) error
	join  func(stream grpc.ClientStreamingServer[wordspb.SayRequest, wordspb.SayReply]) error
	talk  func(stream grpc.BidiStreamingServer[wordspb.SayRequest, wordspb.SayReply]) error
}

func (s *server) reply(word string) *wordspb.SayReply {
	return &wordspb.SayReply{Word: word, Server: s.name}
}

func (s *server) Say(ctx context.Context, request *wordspb.SayRequest) (*wordspb.SayReply, error) {
	if s.say != nil {
		return s.say(ctx, request)
	}
	return s.reply(request.GetWord()), nil
}

func (s *server) Spell(request *wordspb.SayRequest, stream grpc.ServerStreamingServer[wordspb.SayReply]) error {
	if s.spell != nil {
		return s.spell(request, stream)
	}
	for _, letter := range request.GetWord() {
		if err := stream.Send(s.reply(string(letter))); err != nil {
			return err
		}
	}
	return nil
}

func (s *server) Join(stream grpc.ClientStreamingServer[wordspb.SayRequest, wordspb.SayReply]) error {
	if s.join != nil {
		return s.join(stream)
	}
	all := ""
	for {
		request, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return stream.SendAndClose(s.reply(all))
		}
		if err != nil {
			return err
		}
		all += request.GetWord()
	}
}

func (s *server) Talk(stream grpc.BidiStreamingServer[wordspb.SayRequest, wordspb.SayReply]) error {
	if s.talk != nil {
		return s.talk(stream)
	}
	for {
		request, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := stream.Send(s.reply(request.GetWord())); err != nil {
			return err
		}
	}
}

// fails answers every RPC with an error.
func fails(err error) *server {
	return &server{
		say:   func(context.Context, *wordspb.SayRequest) (*wordspb.SayReply, error) { return nil, err },
		spell: func(*wordspb.SayRequest, grpc.ServerStreamingServer[wordspb.SayReply]) error { return err },
		join:  func(grpc.ClientStreamingServer[wordspb.SayRequest, wordspb.SayReply]) error { return err },
		talk:  func(grpc.BidiStreamingServer[wordspb.SayRequest, wordspb.SayReply]) error { return err },
	}
}

// retryIn returns a status with a RetryInfo.
func retryIn(code codes.Code, message string, delay *durationpb.Duration) error {
	s, err := status.New(code, message).WithDetails(&errdetails.RetryInfo{RetryDelay: delay})
	if err != nil {
		return err
	}
	return s.Err()
}

// host is where a server runs, or ran.
type host struct {
	t       *testing.T
	address string

	mu      sync.Mutex
	running *grpc.Server
	served  chan error
}

// start runs a server on loopback, at the same address as before.
func (h *host) start(s *server, options ...grpc.ServerOption) {
	h.t.Helper()
	address := h.address
	if address == "" {
		address = "127.0.0.1:0"
	}
	listener, err := net.Listen("tcp", address) //nolint:noctx // ends with the server
	require.NoError(h.t, err)
	h.address = listener.Addr().String()
	h.mu.Lock()
	defer h.mu.Unlock()
	running, served := grpc.NewServer(options...), make(chan error, 1)
	h.running, h.served = running, served
	wordspb.RegisterWordsServer(running, s)
	go func() { served <- running.Serve(listener) }()
}

// stop ends the server, and all that it is doing.
func (h *host) stop() {
	h.mu.Lock()
	running, served := h.running, h.served
	h.running = nil
	h.mu.Unlock()
	if running != nil {
		running.Stop()
		if err := <-served; err != nil && !errors.Is(err, grpc.ErrServerStopped) {
			h.t.Error(err)
		}
	}
}

// setup has providers named a, b, … that are servers on loopback.
type setup struct {
	t         *testing.T
	reg       *registry.Registry
	hosts     []*host
	conns     []*grpc.ClientConn
	providers []*registry.Registration
}

// with starts the servers, and registers a connection to each. A nil server is one that does not run.
func with(t *testing.T, servers ...*server) *setup {
	t.Helper()
	s := &setup{t: t, reg: testkit.New(t, registry.Options{})}
	t.Cleanup(func() { require.NoError(t, s.reg.Close(context.Background())) })
	for _, each := range servers {
		s.add(registry.Provider[*grpc.ClientConn]{}, each)
	}
	return s
}

// add starts a server and registers a connection to it.
func (s *setup) add(p registry.Provider[*grpc.ClientConn], of *server, options ...grpc.DialOption) {
	s.t.Helper()
	p.Name = string(rune('a' + len(s.hosts)))
	h := &host{t: s.t}
	runs := of != nil
	if !runs {
		of = &server{}
	}
	of.name = p.Name
	h.start(of)
	if !runs {
		h.stop()
	}
	s.t.Cleanup(h.stop)
	p.Instance = dial(s.t, h.address, options...)
	registration, err := words.Register(s.t.Context(), s.reg, p)
	require.NoError(s.t, err)
	s.hosts, s.conns, s.providers = append(s.hosts, h), append(s.conns, p.Instance), append(s.providers, registration)
}

func dial(t *testing.T, address string, options ...grpc.DialOption) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient(address, append(options, grpc.WithDisableRetry(),
		grpc.WithTransportCredentials(insecure.NewCredentials()))...)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, conn.Close()) })
	return conn
}

// client returns a stub over the providers.
func (s *setup) client(options registrygrpc.Options) wordspb.WordsClient {
	s.t.Helper()
	conn, err := registrygrpc.NewConn(words.Bind(s.reg, registry.Query{}), options)
	require.NoError(s.t, err)
	return wordspb.NewWordsClient(conn)
}

// requireCounts checks the outcomes of provider i.
func (s *setup) requireCounts(i, successes, failures, ignored, limited int) {
	s.t.Helper()
	testkit.RequireCounts(s.t, s.providers[i], successes, failures, ignored, limited)
}

// requireStatus checks the status of an error.
func requireStatus(t *testing.T, err error, code codes.Code, message string) {
	t.Helper()
	require.Error(t, err)
	s, ok := status.FromError(err)
	require.True(t, ok)
	require.Equal(t, code, s.Code(), "%v", err)
	require.Contains(t, s.Message(), message)
}

func word(text string) *wordspb.SayRequest { return &wordspb.SayRequest{Word: text} }

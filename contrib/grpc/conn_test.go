package registrygrpc_test

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/capreg/registry"
	registrygrpc "github.com/capreg/registry/contrib/grpc"
	"github.com/capreg/registry/contrib/grpc/internal/wordspb"
	"github.com/capreg/registry/registryhttp"
	"github.com/capreg/registry/verdict"
)

func TestConn_UnaryMovesOnAndShowsTheWinner(t *testing.T) {
	t.Parallel()
	bad := fails(nil)
	bad.say = func(ctx context.Context, _ *wordspb.SayRequest) (*wordspb.SayReply, error) {
		_ = grpc.SetHeader(ctx, metadata.Pairs("of", "a"))
		_ = grpc.SetTrailer(ctx, metadata.Pairs("of", "a", "more", "a"))
		return nil, status.Error(codes.Internal, "broken")
	}
	good := &server{}
	good.say = func(ctx context.Context, request *wordspb.SayRequest) (*wordspb.SayReply, error) {
		_ = grpc.SetTrailer(ctx, metadata.Pairs("of", "b"))
		return good.reply(request.GetWord()), nil
	}
	s := with(t, bad, good)
	var header, trailer metadata.MD
	var from peer.Peer
	var finished []error
	reply, err := s.client(registrygrpc.Options{}).Say(t.Context(), word("hello"), grpc.Header(&header), grpc.Trailer(&trailer),
		grpc.Peer(&from), grpc.OnFinish(func(err error) { finished = append(finished, err) }))
	require.NoError(t, err)
	require.Equal(t, "b", reply.GetServer())
	require.Equal(t, "hello", reply.GetWord())
	require.Empty(t, header.Get("of"))
	require.Equal(t, []string{"b"}, trailer.Get("of"))
	require.Empty(t, trailer.Get("more"))
	require.Equal(t, s.hosts[1].address, from.Addr.String())
	require.Equal(t, []error{nil}, finished)
	s.requireCounts(0, 0, 1, 0, 0)
	s.requireCounts(1, 1, 0, 0, 0)
}

func TestConn_AnswerOfTheRequestIsOfOneProvider(t *testing.T) {
	t.Parallel()
	s := with(t, fails(status.Error(codes.InvalidArgument, "no such word")), &server{})
	var finished []error
	_, err := s.client(registrygrpc.Options{}).Say(t.Context(), word("x"), grpc.OnFinish(func(err error) { finished = append(finished, err) }))
	requireStatus(t, err, codes.InvalidArgument, "no such word")
	var call *registry.CallError
	require.ErrorAs(t, err, &call)
	require.ErrorContains(t, err, `registry: call of service "words" failed: a: bad request`)
	require.Len(t, finished, 1)
	require.Equal(t, err, finished[0])
	s.requireCounts(0, 1, 0, 0, 0)
	s.requireCounts(1, 0, 0, 0, 0)
}

func TestConn_ErrorHasTheStatusOfTheLastProviderWithItsDetails(t *testing.T) {
	t.Parallel()
	s := with(t, fails(status.Error(codes.Internal, "first")), fails(retryIn(codes.ResourceExhausted, "later", durationpb.New(time.Minute))))
	client := s.client(registrygrpc.Options{})
	_, err := client.Say(t.Context(), word("x"))
	requireStatus(t, err, codes.ResourceExhausted, "later")
	require.Len(t, status.Convert(err).Details(), 1)
	s.requireCounts(1, 0, 0, 0, 1)
	require.NoError(t, s.providers[0].Unregister(t.Context()))

	_, err = client.Say(t.Context(), word("x"))
	require.ErrorIs(t, err, registry.ErrCoolingDown)
	requireStatus(t, err, codes.Unavailable, "no provider is available")
	require.Len(t, status.Convert(err).Details(), 1, "it says when to come back")
	s.requireCounts(1, 0, 0, 0, 1)
}

func TestConn_OnceOnlyMovesOnWhereNothingWasSent(t *testing.T) {
	t.Parallel()
	once := registrygrpc.With(registry.OnceOnly())
	s := with(t, nil, &server{})
	reply, err := s.client(registrygrpc.Options{}).Say(t.Context(), word("x"), once)
	require.NoError(t, err)
	require.Equal(t, "b", reply.GetServer())
	require.Equal(t, verdict.ClassNotSent, s.providers[0].Info().LastError.Class)

	s = with(t, fails(status.Error(codes.Unavailable, "perhaps")), &server{})
	_, err = s.client(registrygrpc.Options{}).Say(t.Context(), word("x"), once)
	requireStatus(t, err, codes.Unavailable, "perhaps")
	s.requireCounts(1, 0, 0, 0, 0)
	reply, err = s.client(registrygrpc.Options{}).Say(t.Context(), word("x"))
	require.NoError(t, err)
	require.Equal(t, "b", reply.GetServer())
}

func TestConn_OnceOnlyStaysWhereTheServerEndsInTheMiddle(t *testing.T) {
	t.Parallel()
	s := with(t)
	dies := &server{}
	dies.say = func(ctx context.Context, _ *wordspb.SayRequest) (*wordspb.SayReply, error) {
		go s.hosts[0].stop()
		<-ctx.Done()
		return nil, ctx.Err()
	}
	s.add(registry.Provider[*grpc.ClientConn]{}, dies)
	s.add(registry.Provider[*grpc.ClientConn]{}, &server{})
	_, err := s.client(registrygrpc.Options{}).Say(t.Context(), word("x"), registrygrpc.With(registry.OnceOnly()))
	requireStatus(t, err, codes.Unavailable, "")
	require.Equal(t, verdict.ClassTransport, s.providers[0].Info().LastError.Class)
	s.requireCounts(1, 0, 0, 0, 0)
}

func TestConn_MessageTooLargeTakesNoProviderAway(t *testing.T) {
	t.Parallel()
	large := word(strings.Repeat("x", 5<<20))
	for name, options := range map[string][]grpc.DialOption{
		"to send":            {grpc.WithDefaultCallOptions(grpc.MaxCallSendMsgSize(1 << 20))},
		"for the server":     nil,
		"of a large message": {grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(1 << 10))},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := with(t)
			of := &server{}
			request := large
			if name == "of a large message" {
				request = word("x")
				of.say = func(context.Context, *wordspb.SayRequest) (*wordspb.SayReply, error) {
					return of.reply(large.GetWord()), nil
				}
			}
			s.add(registry.Provider[*grpc.ClientConn]{}, of, options...)
			client := s.client(registrygrpc.Options{})
			for range 3 {
				_, err := client.Say(t.Context(), request)
				requireStatus(t, err, codes.ResourceExhausted, "larger than max")
			}
			s.requireCounts(0, 3, 0, 0, 0)
			require.True(t, s.providers[0].Info().Eligible)
		})
	}
}

func TestConn_MessageWithoutAnEncodingIsTheClientsFault(t *testing.T) {
	t.Parallel()
	s := with(t, &server{}, &server{})
	_, err := s.client(registrygrpc.Options{}).Say(t.Context(), word("\xff"))
	requireStatus(t, err, codes.Internal, "UTF-8")
	s.requireCounts(0, 1, 0, 0, 0)
	s.requireCounts(1, 0, 0, 0, 0)
}

func TestConn_DeadlineThatTheServerSeesFirstIsTheCallers(t *testing.T) {
	t.Parallel()
	early := &server{say: func(ctx context.Context, _ *wordspb.SayRequest) (*wordspb.SayReply, error) {
		deadline, _ := ctx.Deadline()
		<-time.After(time.Until(deadline) - 5*time.Millisecond)
		return nil, status.Error(codes.DeadlineExceeded, "no time left")
	}}
	s := with(t, early)
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	_, err := s.client(registrygrpc.Options{}).Say(ctx, word("x"))
	requireStatus(t, err, codes.DeadlineExceeded, "")
	require.ErrorIs(t, err, context.DeadlineExceeded)
	s.requireCounts(0, 0, 0, 1, 0)
}

func TestConn_CancellationIsNotTheProviders(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	s := with(t, &server{say: func(ctx context.Context, _ *wordspb.SayRequest) (*wordspb.SayReply, error) {
		cancel()
		<-ctx.Done()
		return nil, ctx.Err()
	}}, &server{})
	_, err := s.client(registrygrpc.Options{}).Say(ctx, word("x"))
	requireStatus(t, err, codes.Canceled, "")
	require.ErrorIs(t, err, context.Canceled)
	s.requireCounts(0, 0, 0, 1, 0)
	s.requireCounts(1, 0, 0, 0, 0)
}

func TestConn_ProviderHasItsOwnTimeout(t *testing.T) {
	t.Parallel()
	s := with(t)
	s.add(registry.Provider[*grpc.ClientConn]{AttemptTimeout: 100 * time.Millisecond}, &server{
		say: func(ctx context.Context, _ *wordspb.SayRequest) (*wordspb.SayReply, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		},
	})
	s.add(registry.Provider[*grpc.ClientConn]{}, &server{})
	reply, err := s.client(registrygrpc.Options{}).Say(t.Context(), word("x"))
	require.NoError(t, err)
	require.Equal(t, "b", reply.GetServer())
	require.Equal(t, verdict.ClassAttemptTimeout, s.providers[0].Info().LastError.Class)
}

func TestConn_PropagatesWhatBelongsToARequest(t *testing.T) {
	t.Parallel()
	got := make(chan metadata.MD, 1)
	of := &server{}
	of.say = func(ctx context.Context, _ *wordspb.SayRequest) (*wordspb.SayReply, error) {
		md, _ := metadata.FromIncomingContext(ctx)
		got <- md
		return of.reply(""), nil
	}
	s := with(t, of)
	ctx := registryhttp.WithMetadata(t.Context(), registryhttp.Metadata{
		Correlation: "request-1", Caller: "caller",
		TraceParent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", TraceState: "a=1",
	})
	_, err := s.client(registrygrpc.Options{}).Say(ctx, word(""))
	require.NoError(t, err)
	require.Empty(t, (<-got).Get(registrygrpc.KeyCorrelation), "not unless asked for")

	client := s.client(registrygrpc.Options{Propagate: true})
	_, err = client.Say(ctx, word(""))
	require.NoError(t, err)
	md := <-got
	require.Equal(t, []string{"request-1"}, md.Get(registrygrpc.KeyCorrelation))
	require.Equal(t, []string{"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}, md.Get(registrygrpc.KeyTraceParent))
	require.Equal(t, []string{"a=1"}, md.Get(registrygrpc.KeyTraceState))

	own := metadata.AppendToOutgoingContext(ctx, registrygrpc.KeyCorrelation, "own", registrygrpc.KeyTraceParent, "own")
	_, err = client.Say(own, word(""))
	require.NoError(t, err)
	md = <-got
	require.Equal(t, []string{"own"}, md.Get(registrygrpc.KeyCorrelation), "what is there stays")
	require.Equal(t, []string{"own"}, md.Get(registrygrpc.KeyTraceParent))
	require.Empty(t, md.Get(registrygrpc.KeyTraceState))
}

// Variants: a unary RPC and a stream, without a trace, with one in their context, and with one in their metadata.
func TestConn_SendsThePlaceInATraceThatAHookHasGivenTheAttempt(t *testing.T) {
	t.Parallel()
	const ofAttempt = "00-0af7651916cd43dd8448eb211c80319c-00f067aa0ba902b7-01"
	got := make(chan metadata.MD, 2)
	of := &server{}
	of.say = func(ctx context.Context, _ *wordspb.SayRequest) (*wordspb.SayReply, error) {
		md, _ := metadata.FromIncomingContext(ctx)
		got <- md
		return of.reply(""), nil
	}
	of.spell = func(_ *wordspb.SayRequest, stream spelling) error {
		md, _ := metadata.FromIncomingContext(stream.Context())
		got <- md
		return stream.Send(of.reply(""))
	}
	s := with(t, of)
	_, err := s.reg.AddHooks(registry.Hooks{
		BeforeAttempt: func(ctx context.Context, _ registry.CallReport, _ registry.Attempt) context.Context {
			m := registryhttp.MetadataOf(ctx)
			m.TraceParent, m.TraceState = ofAttempt, ""
			return registryhttp.WithMetadata(ctx, m)
		},
	})
	require.NoError(t, err)
	client := s.client(registrygrpc.Options{Propagate: true})
	in := registryhttp.WithMetadata(t.Context(), registryhttp.Metadata{Correlation: "request-1", TraceParent: trace, TraceState: "a=1"})
	for name, ctx := range map[string]context.Context{
		"no trace":        t.Context(),
		"of its context":  in,
		"of its metadata": metadata.AppendToOutgoingContext(in, registrygrpc.KeyTraceParent, trace, registrygrpc.KeyTraceState, "a=1"),
	} {
		_, err := client.Say(ctx, word(""))
		require.NoError(t, err)
		stream, err := client.Spell(ctx, word(""))
		require.NoError(t, err)
		_, err = stream.Recv()
		require.NoError(t, err)
		_, err = stream.Recv()
		require.ErrorIs(t, err, io.EOF)
		for range 2 {
			md := <-got
			require.Equal(t, []string{ofAttempt}, md.Get(registrygrpc.KeyTraceParent), name)
			require.Empty(t, md.Get(registrygrpc.KeyTraceState), name)
		}
	}
}

func TestConn_CallerIsThatOfTheMetadata(t *testing.T) {
	t.Parallel()
	s := with(t)
	s.add(registry.Provider[*grpc.ClientConn]{Limits: registry.LimitPolicy{Rate: 1, Burst: 1}}, &server{})
	client := s.client(registrygrpc.Options{})
	for _, caller := range []string{"one", "two"} {
		ctx := registryhttp.WithMetadata(t.Context(), registryhttp.Metadata{Caller: caller})
		_, err := client.Say(ctx, word(""))
		require.NoError(t, err)
	}
	ctx := registryhttp.WithMetadata(t.Context(), registryhttp.Metadata{Caller: "one"})
	_, err := client.Say(ctx, word(""))
	requireStatus(t, err, codes.ResourceExhausted, "the caller has used up its rate")
}

// broken is a connection of a user that does what its fields say.
type broken struct {
	grpc.ClientConnInterface

	invoke func() error
	stream func() (grpc.ClientStream, error)
}

func (b *broken) Invoke(context.Context, string, any, any, ...grpc.CallOption) error {
	return b.invoke()
}

func (b *broken) NewStream(context.Context, *grpc.StreamDesc, string, ...grpc.CallOption) (grpc.ClientStream, error) {
	return b.stream()
}

func TestConn_AnyConnectionIsAProvider(t *testing.T) {
	t.Parallel()
	s := with(t, &server{})
	service := registry.NewService[grpc.ClientConnInterface]("any")
	add := func(name string, conn grpc.ClientConnInterface) *registry.Registration {
		registration, err := service.Register(t.Context(), s.reg, registry.Provider[grpc.ClientConnInterface]{Name: name, Instance: conn})
		require.NoError(t, err)
		return registration
	}
	errOwn := errors.New("own")
	first := add("first", &broken{
		invoke: func() error { return errOwn }, stream: func() (grpc.ClientStream, error) { return nil, nil },
	})
	add("second", s.conns[0])
	conn, err := registrygrpc.NewConn(service.Bind(s.reg, registry.Query{}), registrygrpc.Options{})
	require.NoError(t, err)
	client := wordspb.NewWordsClient(conn)
	reply, err := client.Say(t.Context(), word("x"))
	require.NoError(t, err)
	require.Equal(t, "a", reply.GetServer())
	require.Equal(t, "x", readAll(t, first, client))
	require.Equal(t, uint64(2), first.Info().Failures)
	require.Equal(t, verdict.ClassMalformed, first.Info().LastError.Class)
}

func TestConn_PanicOfAConnectionIsAFailureOfTheProvider(t *testing.T) {
	t.Parallel()
	s := with(t)
	service := registry.NewService[grpc.ClientConnInterface]("panics")
	bad, err := service.Register(t.Context(), s.reg, registry.Provider[grpc.ClientConnInterface]{Name: "bad", Instance: &broken{
		invoke: func() error { panic("unary") }, stream: func() (grpc.ClientStream, error) { panic("stream") },
	}})
	require.NoError(t, err)
	conn, err := registrygrpc.NewConn(service.Bind(s.reg, registry.Query{}), registrygrpc.Options{})
	require.NoError(t, err)
	client := wordspb.NewWordsClient(conn)
	finished := 0
	count := grpc.OnFinish(func(error) { finished++ })
	require.PanicsWithValue(t, "unary", func() { _, _ = client.Say(t.Context(), word("x"), count) })
	require.PanicsWithValue(t, "stream", func() { _, _ = client.Spell(t.Context(), word("x"), count) })
	require.Equal(t, 2, finished)
	require.Equal(t, uint64(2), bad.Info().Failures)
	require.Zero(t, bad.Info().InFlight)
}

func TestNewConn_RefusesBadInput(t *testing.T) {
	t.Parallel()
	s := with(t, &server{})
	resolver := words.Bind(s.reg, registry.Query{})
	_, err := registrygrpc.NewConn[*grpc.ClientConn](nil, registrygrpc.Options{})
	require.ErrorIs(t, err, registry.ErrInvalid)
	for _, options := range []registrygrpc.Options{
		{FirstTimeout: -1},
		{StallTimeout: -1},
		{Timeout: -1},
		{Call: []registry.CallOption{registry.ReportTo(&registry.CallReport{})}},
	} {
		_, err := registrygrpc.NewConn(resolver, options)
		require.ErrorIs(t, err, registry.ErrInvalid)
		require.NotContains(t, err.Error(), "\n")
	}
	conn, err := registrygrpc.NewConn(resolver, registrygrpc.Options{})
	require.NoError(t, err)
	report := registrygrpc.With(registry.ReportTo(&registry.CallReport{}))
	_, err = wordspb.NewWordsClient(conn).Say(t.Context(), word("x"), report)
	require.ErrorIs(t, err, registry.ErrInvalid)
	_, err = conn.NewStream(t.Context(), nil, "/words")
	require.ErrorIs(t, err, registry.ErrInvalid)
	require.ErrorIs(t, conn.Invoke(nil, "/words", nil, nil), registry.ErrInvalid) //nolint:staticcheck // what is tested
	var none *registrygrpc.Conn[*grpc.ClientConn]
	require.ErrorIs(t, none.Invoke(t.Context(), "/words", nil, nil), registry.ErrInvalid)
	s.requireCounts(0, 0, 0, 0, 0)
}

// fakeStream is a stream of a user's connection.
type fakeStream struct {
	grpc.ClientStream

	send func() error
	recv func() error
}

func (f *fakeStream) SendMsg(any) error            { return f.send() }
func (f *fakeStream) RecvMsg(any) error            { return f.recv() }
func (f *fakeStream) CloseSend() error             { return nil }
func (f *fakeStream) Header() (metadata.MD, error) { return nil, nil }
func (f *fakeStream) Trailer() metadata.MD         { return nil }

func TestConn_PanicOfAStreamIsAFailureOfTheProvider(t *testing.T) {
	t.Parallel()
	s := with(t)
	service := registry.NewService[grpc.ClientConnInterface]("streams")
	nothing := func() error { return nil }
	fake := &fakeStream{send: nothing, recv: nothing}
	bad, err := service.Register(t.Context(), s.reg, registry.Provider[grpc.ClientConnInterface]{Name: "bad", Instance: &broken{
		stream: func() (grpc.ClientStream, error) { return fake, nil },
	}})
	require.NoError(t, err)
	conn, err := registrygrpc.NewConn(service.Bind(s.reg, registry.Query{}), registrygrpc.Options{})
	require.NoError(t, err)
	client := wordspb.NewWordsClient(conn)
	for i, breaks := range []func(stream grpc.BidiStreamingClient[wordspb.SayRequest, wordspb.SayReply]){
		func(stream grpc.BidiStreamingClient[wordspb.SayRequest, wordspb.SayReply]) {
			fake.recv = func() error { panic("bad") }
			_, _ = stream.Recv()
		},
		func(stream grpc.BidiStreamingClient[wordspb.SayRequest, wordspb.SayReply]) {
			fake.send = func() error { panic("bad") }
			_ = stream.Send(word("x"))
		},
	} {
		ctx, cancel := context.WithCancel(t.Context())
		finished := make(chan error, 1)
		stream, err := client.Talk(ctx, grpc.OnFinish(func(err error) { finished <- err }))
		require.NoError(t, err)
		require.PanicsWithValue(t, "bad", func() { breaks(stream) })
		cancel()
		require.Error(t, <-finished)
		_, err = stream.Recv()
		require.Error(t, err, "it is over")
		require.Equal(t, uint64(i+1), bad.Info().Failures)
		require.Zero(t, bad.Info().InFlight)
	}
}

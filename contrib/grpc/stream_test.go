package registrygrpc_test

import (
	"context"
	"errors"
	"io"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/capreg/registry"
	registrygrpc "github.com/capreg/registry/contrib/grpc"
	"github.com/capreg/registry/contrib/grpc/internal/wordspb"
	"github.com/capreg/registry/verdict"
)

type (
	spelling = grpc.ServerStreamingServer[wordspb.SayReply]
	joining  = grpc.ClientStreamingServer[wordspb.SayRequest, wordspb.SayReply]
	talking  = grpc.BidiStreamingServer[wordspb.SayRequest, wordspb.SayReply]
)

// readAll spells "x" and returns the letters.
func readAll(t *testing.T, _ *registry.Registration, client wordspb.WordsClient) string {
	t.Helper()
	stream, err := client.Spell(t.Context(), word("x"))
	require.NoError(t, err)
	letters, _, err := drain(stream)
	require.ErrorIs(t, err, io.EOF)
	return letters
}

// drain reads a stream to its end.
func drain(stream interface {
	Recv() (*wordspb.SayReply, error)
},
) (letters, from string, err error) {
	for {
		reply, err := stream.Recv()
		if err != nil {
			return letters, from, err
		}
		letters, from = letters+reply.GetWord(), reply.GetServer()
	}
}

func TestStream_MovesOnUntilTheFirstMessage(t *testing.T) {
	t.Parallel()
	headerOnly := &server{spell: func(_ *wordspb.SayRequest, stream spelling) error {
		_ = stream.SendHeader(metadata.Pairs("of", "a"))
		return status.Error(codes.Unavailable, "not yet")
	}}
	good := &server{}
	good.spell = func(request *wordspb.SayRequest, stream spelling) error {
		stream.SetTrailer(metadata.Pairs("of", "b"))
		return stream.Send(good.reply(request.GetWord()))
	}
	s := with(t, headerOnly, good)
	var trailer metadata.MD
	var finished []error
	stream, err := s.client(registrygrpc.Options{}).Spell(t.Context(), word("x"), grpc.Trailer(&trailer),
		grpc.OnFinish(func(err error) { finished = append(finished, err) }))
	require.NoError(t, err)
	letters, from, err := drain(stream)
	require.ErrorIs(t, err, io.EOF)
	require.Equal(t, "x", letters)
	require.Equal(t, "b", from)
	_, err = stream.Recv()
	require.ErrorIs(t, err, io.EOF, "again")
	header, err := stream.Header()
	require.NoError(t, err)
	require.Empty(t, header.Get("of"))
	require.Equal(t, []string{"b"}, stream.Trailer().Get("of"))
	require.Equal(t, []string{"b"}, trailer.Get("of"))
	require.NotNil(t, stream.Context())
	require.Equal(t, []error{nil}, finished)
	s.requireCounts(0, 0, 1, 0, 0)
	s.requireCounts(1, 1, 0, 0, 0)
}

func TestStream_ErrorAfterTheFirstMessageIsItsOwn(t *testing.T) {
	t.Parallel()
	cut := &server{}
	cut.spell = func(_ *wordspb.SayRequest, stream spelling) error {
		if err := stream.Send(cut.reply("h")); err != nil {
			return err
		}
		return status.Error(codes.Unavailable, "cut")
	}
	s := with(t, cut, &server{})
	var finished []error
	stream, err := s.client(registrygrpc.Options{}).Spell(t.Context(), word("hello"), grpc.OnFinish(func(err error) { finished = append(finished, err) }))
	require.NoError(t, err)
	letters, from, err := drain(stream)
	requireStatus(t, err, codes.Unavailable, "cut")
	require.ErrorContains(t, err, `stream of provider "a"`)
	require.Equal(t, "ha", letters+from)
	_, again := stream.Recv()
	require.Equal(t, err, again)
	require.Equal(t, []error{err}, finished)
	s.requireCounts(0, 0, 1, 0, 0)
	s.requireCounts(1, 0, 0, 0, 0)
}

func TestStream_AnswerOfTheRequestIsOfOneProvider(t *testing.T) {
	t.Parallel()
	s := with(t, fails(status.Error(codes.NotFound, "no such word")), &server{})
	stream, err := s.client(registrygrpc.Options{}).Spell(t.Context(), word("x"))
	require.NoError(t, err)
	_, err = stream.Recv()
	requireStatus(t, err, codes.NotFound, "no such word")
	var call *registry.CallError
	require.ErrorAs(t, err, &call)
	s.requireCounts(0, 1, 0, 0, 0)
	s.requireCounts(1, 0, 0, 0, 0)
}

func TestStream_WithoutProvidersHasTheStatusOfTheLast(t *testing.T) {
	t.Parallel()
	s := with(t, nil, fails(status.Error(codes.Aborted, "last")))
	stream, err := s.client(registrygrpc.Options{}).Spell(t.Context(), word("x"))
	require.NoError(t, err)
	_, err = stream.Recv()
	requireStatus(t, err, codes.Aborted, "last")

	s = with(t, nil)
	_, err = s.client(registrygrpc.Options{}).Spell(t.Context(), word("x"))
	requireStatus(t, err, codes.Unavailable, "connection")
	require.Equal(t, verdict.ClassNotSent, s.providers[0].Info().LastError.Class)
}

// readsThenFails reads some messages and ends with an error.
func readsThenFails(count int, err error) func(interface {
	Recv() (*wordspb.SayRequest, error)
}) error {
	return func(stream interface {
		Recv() (*wordspb.SayRequest, error)
	},
	) error {
		for range count {
			if _, err := stream.Recv(); err != nil {
				return err
			}
		}
		return err
	}
}

func TestStream_SendsAgainWhatTheProviderBeforeHasGot(t *testing.T) {
	t.Parallel()
	unavailable := readsThenFails(2, status.Error(codes.Unavailable, "gone"))
	s := with(t, &server{join: func(stream joining) error { return unavailable(stream) }}, &server{})
	stream, err := s.client(registrygrpc.Options{}).Join(t.Context())
	require.NoError(t, err)
	again := word("")
	for i := range 20 {
		again.Word = strconv.Itoa(i) + " " // a message that is used again
		require.NoError(t, stream.Send(again))
	}
	reply, err := stream.CloseAndRecv()
	require.NoError(t, err)
	require.Equal(t, "b", reply.GetServer())
	require.Equal(t, "0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 ", reply.GetWord())
	s.requireCounts(0, 0, 1, 0, 0)
	s.requireCounts(1, 1, 0, 0, 0)
}

func TestStream_LongerMessagesThanAreKeptCommit(t *testing.T) {
	t.Parallel()
	unavailable := readsThenFails(3, status.Error(codes.Unavailable, "gone"))
	s := with(t, &server{join: func(stream joining) error { return unavailable(stream) }}, &server{})
	stream, err := s.client(registrygrpc.Options{MaxReplay: 250}).Join(t.Context())
	require.NoError(t, err)
	for range 3 { // of about 70 bytes each with their overhead; the last is one too many with 250
		require.NoError(t, stream.Send(word("twenty bytes of text")))
	}
	_, err = stream.CloseAndRecv()
	requireStatus(t, err, codes.Unavailable, "gone")
	s.requireCounts(0, 0, 1, 0, 0)
	s.requireCounts(1, 0, 0, 0, 0)

	stream, err = s.client(registrygrpc.Options{MaxReplay: 300}).Join(t.Context())
	require.NoError(t, err)
	for range 3 {
		require.NoError(t, stream.Send(word("twenty bytes of text")))
	}
	reply, err := stream.CloseAndRecv()
	require.NoError(t, err)
	require.Equal(t, "b", reply.GetServer())
}

func TestStream_OnceOnlyIsNotSentAgain(t *testing.T) {
	t.Parallel()
	once := registrygrpc.With(registry.OnceOnly())
	s := with(t, fails(status.Error(codes.Unavailable, "perhaps")), &server{})
	stream, err := s.client(registrygrpc.Options{}).Spell(t.Context(), word("x"), once)
	require.NoError(t, err)
	_, err = stream.Recv()
	requireStatus(t, err, codes.Unavailable, "perhaps")
	s.requireCounts(1, 0, 0, 0, 0)

	s = with(t, nil, fails(status.Error(codes.Unauthenticated, "not with this key")), &server{})
	stream, err = s.client(registrygrpc.Options{}).Spell(t.Context(), word("x"), once)
	require.NoError(t, err)
	_, from, err := drain(stream)
	require.ErrorIs(t, err, io.EOF)
	require.Equal(t, "c", from, "nothing was processed before")
}

func TestStream_BidirectionalMovesOnAndEndsCleanly(t *testing.T) {
	t.Parallel()
	unavailable := readsThenFails(1, status.Error(codes.Unavailable, "gone"))
	s := with(t, &server{talk: func(stream talking) error { return unavailable(stream) }}, &server{})
	stream, err := s.client(registrygrpc.Options{}).Talk(t.Context())
	require.NoError(t, err)
	for i := range 50 {
		require.NoError(t, stream.Send(word(strconv.Itoa(i))))
		reply, err := stream.Recv()
		require.NoError(t, err)
		require.Equal(t, strconv.Itoa(i), reply.GetWord())
		require.Equal(t, "b", reply.GetServer())
	}
	require.NoError(t, stream.CloseSend())
	_, err = stream.Recv()
	require.ErrorIs(t, err, io.EOF)
	require.ErrorIs(t, stream.Send(word("late")), io.EOF)
	s.requireCounts(0, 0, 1, 0, 0)
	s.requireCounts(1, 1, 0, 0, 0)
}

// A server that answers each message waits while its answers are not read. So what is sent again must not keep the
// client from reading.
func TestStream_ReadsWhileItSendsAgain(t *testing.T) {
	t.Parallel()
	unavailable := readsThenFails(30, status.Error(codes.Unavailable, "gone"))
	s := with(t, &server{talk: func(stream talking) error { return unavailable(stream) }}, &server{})
	stream, err := s.client(registrygrpc.Options{MaxReplay: 4 << 20}).Talk(t.Context())
	require.NoError(t, err)
	const messages = 30
	text := strings.Repeat("x", 64<<10)
	for range messages {
		require.NoError(t, stream.Send(word(text)))
	}
	require.NoError(t, stream.CloseSend())
	letters, from, err := drain(stream)
	require.ErrorIs(t, err, io.EOF)
	require.Len(t, letters, messages*len(text))
	require.Equal(t, "b", from)
}

func TestStream_SendsAndReadsAtOnceWhileProvidersFail(t *testing.T) {
	t.Parallel()
	unavailable := readsThenFails(7, status.Error(codes.Unavailable, "gone"))
	s := with(t, &server{talk: func(stream talking) error { return unavailable(stream) }}, nil, &server{})
	stream, err := s.client(registrygrpc.Options{}).Talk(t.Context())
	require.NoError(t, err)
	sent := make(chan error, 1)
	var want strings.Builder
	for i := range 500 {
		want.WriteString(strconv.Itoa(i))
	}
	go func() {
		var err error
		for i := 0; i < 500 && err == nil; i++ {
			err = stream.Send(word(strconv.Itoa(i)))
		}
		sent <- errors.Join(err, stream.CloseSend())
	}()
	letters, from, err := drain(stream)
	require.ErrorIs(t, err, io.EOF)
	require.NoError(t, <-sent)
	require.Equal(t, "c", from)
	require.Equal(t, want.String(), letters)
}

func TestStream_HeaderThatWasShownCommits(t *testing.T) {
	t.Parallel()
	proceed := make(chan struct{})
	s := with(t, &server{spell: func(_ *wordspb.SayRequest, stream spelling) error {
		_ = stream.SendHeader(metadata.Pairs("of", "a"))
		<-proceed
		return status.Error(codes.Unavailable, "gone")
	}}, &server{})
	stream, err := s.client(registrygrpc.Options{}).Spell(t.Context(), word("x"))
	require.NoError(t, err)
	header, err := stream.Header()
	require.NoError(t, err)
	require.Equal(t, []string{"a"}, header.Get("of"))
	close(proceed)
	_, err = stream.Recv()
	requireStatus(t, err, codes.Unavailable, "gone")
	s.requireCounts(1, 0, 0, 0, 0)
}

func TestStream_ThatIsLeftSaysNothing(t *testing.T) {
	t.Parallel()
	for name, read := range map[string]bool{"before the first message": false, "after it": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := with(t, &server{}, &server{})
			ctx, cancel := context.WithCancel(t.Context())
			finished := make(chan error, 1)
			stream, err := s.client(registrygrpc.Options{}).Talk(ctx, grpc.OnFinish(func(err error) { finished <- err }))
			require.NoError(t, err)
			require.NoError(t, stream.Send(word("x")))
			if read {
				_, err = stream.Recv()
				require.NoError(t, err)
			}
			cancel()
			require.Equal(t, codes.Canceled, status.Code(<-finished), "without another read")
			s.requireCounts(0, 0, 0, 1, 0)
			s.requireCounts(1, 0, 0, 0, 0)
			_, err = stream.Recv()
			requireStatus(t, err, codes.Canceled, "")
		})
	}
}

func TestStream_MovesOnFromAProviderThatIsRemoved(t *testing.T) {
	t.Parallel()
	began := make(chan struct{})
	s := with(t, &server{talk: func(stream talking) error {
		close(began)
		<-stream.Context().Done()
		return stream.Context().Err()
	}}, &server{})
	stream, err := s.client(registrygrpc.Options{}).Talk(t.Context())
	require.NoError(t, err)
	require.NoError(t, stream.Send(word("x")))
	<-began
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	_ = s.providers[0].Unregister(ended) // at once
	reply, err := stream.Recv()
	require.NoError(t, err)
	require.Equal(t, "b", reply.GetServer())
	require.NoError(t, stream.CloseSend())
	_, err = stream.Recv()
	require.ErrorIs(t, err, io.EOF)
}

func TestStream_SilenceIsBoundedOnRequest(t *testing.T) {
	t.Parallel()
	silent := &server{spell: func(_ *wordspb.SayRequest, stream spelling) error {
		<-stream.Context().Done()
		return stream.Context().Err()
	}}
	s := with(t, silent, &server{})
	stream, err := s.client(registrygrpc.Options{FirstTimeout: 100 * time.Millisecond}).Spell(t.Context(), word("x"))
	require.NoError(t, err)
	_, from, err := drain(stream)
	require.ErrorIs(t, err, io.EOF)
	require.Equal(t, "b", from)
	require.Equal(t, verdict.ClassStalled, s.providers[0].Info().LastError.Class)

	stalls := &server{}
	stalls.spell = func(_ *wordspb.SayRequest, stream spelling) error {
		_ = stream.Send(stalls.reply("x"))
		<-stream.Context().Done()
		return stream.Context().Err()
	}
	s = with(t, stalls)
	stream, err = s.client(registrygrpc.Options{StallTimeout: 100 * time.Millisecond}).Spell(t.Context(), word("x"))
	require.NoError(t, err)
	_, _, err = drain(stream)
	require.ErrorIs(t, err, registrygrpc.ErrStalled)
	require.NotErrorIs(t, err, io.EOF)
	s.requireCounts(0, 0, 1, 0, 0)
}

func TestStream_DeadlineLeavesTimeForAnotherProvider(t *testing.T) {
	t.Parallel()
	s := with(t, &server{spell: func(_ *wordspb.SayRequest, stream spelling) error {
		<-stream.Context().Done()
		return stream.Context().Err()
	}}, &server{})
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	stream, err := s.client(registrygrpc.Options{}).Spell(ctx, word("x"))
	require.NoError(t, err)
	_, from, err := drain(stream)
	require.ErrorIs(t, err, io.EOF)
	require.Equal(t, "b", from)
	s.requireCounts(0, 0, 0, 1, 0)
}

func TestStream_MessageThatCannotBeSentIsTheClientsFault(t *testing.T) {
	t.Parallel()
	s := with(t)
	s.add(registry.Provider[*grpc.ClientConn]{}, &server{}, grpc.WithDefaultCallOptions(grpc.MaxCallSendMsgSize(100)))
	for want, text := range map[codes.Code]string{codes.ResourceExhausted: strings.Repeat("x", 200), codes.Internal: "\xff"} {
		stream, err := s.client(registrygrpc.Options{}).Talk(t.Context())
		require.NoError(t, err)
		err = stream.Send(word(text))
		require.Equal(t, want, status.Code(err))
		_, again := stream.Recv()
		require.Equal(t, err, again)
	}
	s.requireCounts(0, 2, 0, 0, 0)
	require.True(t, s.providers[0].Info().Eligible)
}

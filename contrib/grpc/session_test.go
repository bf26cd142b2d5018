package registrygrpc_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	registrygrpc "github.com/capreg/registry/contrib/grpc"
	"github.com/capreg/registry/contrib/grpc/internal/wordspb"
)

// faulty is a server that can be told to fail each RPC before its first message.
type faulty struct {
	server

	with atomic.Pointer[status.Status]
}

func newFaulty() *faulty {
	f := &faulty{}
	ok := &f.server
	fault := func() error { return f.with.Load().Err() } // nil of no status
	f.say = func(_ context.Context, request *wordspb.SayRequest) (*wordspb.SayReply, error) {
		return ok.reply(request.GetWord()), fault()
	}
	f.spell = func(request *wordspb.SayRequest, stream spelling) error {
		if err := fault(); err != nil {
			return err
		}
		return (&server{name: ok.name}).Spell(request, stream)
	}
	f.join = func(stream joining) error {
		if _, err := stream.Recv(); err != nil {
			return err
		}
		if err := fault(); err != nil {
			return err
		}
		return (&server{name: ok.name}).Join(stream)
	}
	f.talk = func(stream talking) error {
		if err := fault(); err != nil {
			return err
		}
		return (&server{name: ok.name}).Talk(stream)
	}
	return f
}

// ask makes the RPC of a number: each kind in turn.
func ask(ctx context.Context, client wordspb.WordsClient, number int) (answer, from string, err error) {
	text := fmt.Sprintf("word %d", number)
	switch number % 4 {
	case 0:
		reply, err := client.Say(ctx, word(text))
		return reply.GetWord(), reply.GetServer(), err
	case 1:
		stream, err := client.Spell(ctx, word(text))
		if err != nil {
			return "", "", err
		}
		return whole(drain(stream))
	case 2:
		stream, err := client.Join(ctx)
		if err != nil {
			return "", "", err
		}
		for _, part := range []string{"first", text[:3], text[3:]} {
			if err := stream.Send(word(part)); err != nil {
				return "", "", err
			}
		}
		reply, err := stream.CloseAndRecv()
		return reply.GetWord(), reply.GetServer(), err
	}
	stream, err := client.Talk(ctx)
	if err != nil {
		return "", "", err
	}
	for _, letter := range text {
		if err := stream.Send(word(string(letter))); err != nil {
			return "", "", err
		}
	}
	if err := stream.CloseSend(); err != nil {
		return "", "", err
	}
	return whole(drain(stream))
}

func whole(letters, from string, err error) (string, string, error) {
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return letters, from, err
}

// Two of three servers fail in turn, each once by going away and once by what it answers.
func TestConn_SessionLosesNoRPCWhileServersFailInTurn(t *testing.T) {
	t.Parallel()
	all := []*faulty{newFaulty(), newFaulty(), newFaulty()}
	s := with(t, &all[0].server, &all[1].server, &all[2].server)
	client := s.client(registrygrpc.Options{})
	broken := status.New(codes.Internal, "broken")
	overloaded := status.New(codes.Unavailable, "overloaded")
	script := map[int]func(){
		10: func() { s.hosts[0].stop() },
		25: func() { s.hosts[1].stop() },
		40: func() { s.hosts[0].start(&all[0].server) },
		45: func() {
			require.NoError(t, s.providers[0].Reset())
			s.conns[0].ResetConnectBackoff()
			all[0].with.Store(broken)
		},
		60: func() { all[0].with.Store(nil); s.hosts[1].start(&all[1].server); s.conns[1].ResetConnectBackoff() },
		70: func() { all[0].with.Store(overloaded); all[1].with.Store(broken) },
		90: func() { all[0].with.Store(nil); all[1].with.Store(nil) },
	}
	lost, served := 0, map[string]int{}
	for number := range 100 {
		if change, ok := script[number]; ok {
			change()
		}
		answer, from, err := ask(t.Context(), client, number)
		if err != nil || answer != fmt.Sprintf("word %d", number) {
			lost++
			t.Errorf("%d: %q of %q: %v", number, answer, from, err)
		}
		served[from]++
	}
	require.Zero(t, lost)
	require.Len(t, served, 3, "each has served: %v", served)
	for i, provider := range s.providers {
		info := provider.Info()
		require.Zero(t, info.InFlight, "%d", i)
		require.Equal(t, info.Attempts, info.Successes+info.Failures+info.Ignored+info.Limited)
	}
	require.NotZero(t, s.providers[0].Info().Failures)
	require.NotZero(t, s.providers[1].Info().Failures)
	t.Logf("served %v", served)
}

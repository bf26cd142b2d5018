package registrygrpc_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"

	registrygrpc "github.com/capreg/registry/contrib/grpc"
	"github.com/capreg/registry/contrib/grpc/internal/wordspb"
	"github.com/capreg/registry/registryhttp"
)

const trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

func TestInterceptors_TakeWhatComesInAndHideWhatProvidersSay(t *testing.T) {
	t.Parallel()
	upstream := with(t, fails(statusError(codes.Unauthenticated, "secret of a provider")))
	behind := upstream.client(registrygrpc.Options{})
	got := make(chan registryhttp.Metadata, 1)
	front := &server{
		say: func(ctx context.Context, request *wordspb.SayRequest) (*wordspb.SayReply, error) {
			_, bounded := ctx.Deadline()
			require.True(t, bounded)
			got <- registryhttp.MetadataOf(ctx)
			return behind.Say(ctx, request)
		},
		spell: func(request *wordspb.SayRequest, stream spelling) error {
			got <- registryhttp.MetadataOf(stream.Context())
			inner, err := behind.Spell(stream.Context(), request)
			if err == nil {
				_, err = inner.Recv()
			}
			return err
		},
		join: func(joining) error { return statusError(codes.NotFound, "own") },
	}
	options := registrygrpc.ServerOptions{Caller: func(context.Context) string { return "proven" }, MaxTimeout: time.Minute}
	h := &host{t: t}
	h.start(front, grpc.UnaryInterceptor(registrygrpc.UnaryServerInterceptor(options)),
		grpc.StreamInterceptor(registrygrpc.StreamServerInterceptor(options)))
	t.Cleanup(h.stop)
	client := wordspb.NewWordsClient(dial(t, h.address))
	ctx := metadata.AppendToOutgoingContext(t.Context(), registrygrpc.KeyCorrelation, "request-1",
		registrygrpc.KeyTraceParent, trace, registrygrpc.KeyTraceState, "a=1", registrygrpc.KeyTraceState, "b=2")
	want := registryhttp.Metadata{Correlation: "request-1", TraceParent: trace, TraceState: "a=1,b=2", Caller: "proven"}

	_, err := client.Say(ctx, word("x"))
	requireStatus(t, err, codes.Unavailable, "")
	require.NotContains(t, err.Error(), "secret")
	require.Equal(t, want, <-got)

	stream, err := client.Spell(ctx, word("x"))
	require.NoError(t, err)
	_, err = stream.Recv()
	requireStatus(t, err, codes.Unavailable, "")
	require.NotContains(t, err.Error(), "secret")
	require.Equal(t, want, <-got)

	joined, err := client.Join(ctx)
	require.NoError(t, err)
	_, err = joined.CloseAndRecv()
	requireStatus(t, err, codes.NotFound, "own")
}

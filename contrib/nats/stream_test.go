package registrynats_test

import (
	"context"
	"errors"
	"iter"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/contrib/nats"
	"github.com/capreg/registry/federation"
	"github.com/capreg/registry/stream"
	"github.com/capreg/registry/verdict"
)

// teller is a service of streams.
type teller func(ctx context.Context, q question) (iter.Seq2[reply, error], error)

var tellers = registry.NewService[teller]("teller")

// tell serves a provider, and returns a resolver of the process that calls it.
func tell(t *testing.T, provider teller) *registry.Resolver[teller] {
	t.Helper()
	e := begin(t, nil)
	far, near := newRegistry(t), newRegistry(t)
	server, err := registrynats.NewServer(connect(t, e.url()), far, registrynats.ServerOptions{Node: "far"})
	require.NoError(t, err)
	require.NoError(t, registrynats.ServeStream(server, tellers, "tell", func(ctx context.Context, p teller, q question) (iter.Seq2[reply, error], error) {
		return p(ctx, q)
	}))
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		require.NoError(t, server.Drain(ctx))
	})
	served, err := tellers.Register(t.Context(), far, registry.Provider[teller]{Name: "p", Instance: provider})
	require.NoError(t, err)
	offer, _ := server.Offer(served.Info())
	entry := federation.Entry{Node: "far", Kind: offer.Kind, Address: offer.Address, Definition: served.Definition()}
	nc := connect(t, e.url())
	require.Eventually(t, func() bool { // the endpoint is known to the server
		_, err := registrynats.NewStub[string, reply](nc, entry, "tell")(t.Context(), "no question")
		return verdict.Of(err).Class == verdict.ClassBadRequest
	}, 30*time.Second, 5*time.Millisecond)
	_, err = tellers.Register(t.Context(), near, registry.Provider[teller]{
		Name: "far/p", Instance: registrynats.NewStreamStub[question, reply](nc, entry, "tell"),
	})
	require.NoError(t, err)
	return tellers.Bind(near, registry.Query{})
}

func open(ctx context.Context, t *testing.T, r *registry.Resolver[teller]) (*stream.Stream[reply], error) {
	t.Helper()
	return stream.Open(ctx, r, func(ctx context.Context, p teller) (iter.Seq2[reply, error], error) {
		return p(ctx, question{Text: "hi"})
	}, stream.Options[reply]{})
}

// counts is a provider that says its numbers, and then fails with the error, if there is one.
func counts(items int, said *atomic.Int64, err error) teller {
	return func(ctx context.Context, _ question) (iter.Seq2[reply, error], error) {
		return func(yield func(reply, error) bool) {
			for i := range items {
				if said != nil {
					said.Add(1)
				}
				if ctx.Err() != nil || !yield(reply{Text: strconv.Itoa(i)}, nil) {
					return
				}
			}
			if err != nil {
				yield(reply{}, err)
			}
		}, nil
	}
}

func TestServeStream_SendsAllItemsInOrderAndTheEnd(t *testing.T) {
	t.Parallel()
	s, err := open(t.Context(), t, tell(t, counts(1000, nil, nil)))
	require.NoError(t, err)
	next := 0
	for item, err := range s.All() {
		require.NoError(t, err)
		require.Equal(t, strconv.Itoa(next), item.Text)
		next++
	}
	require.Equal(t, 1000, next)
}

func TestServeStream_WaitsForAReaderThatIsSlow(t *testing.T) {
	t.Parallel()
	var said atomic.Int64
	s, err := open(t.Context(), t, tell(t, counts(100_000, &said, nil)))
	require.NoError(t, err)
	read := int64(0)
	for _, err := range s.All() {
		require.NoError(t, err)
		read++
		// A window is under way, and each side may hold an item or two of its own; what was read is told for each half of a window.
		require.LessOrEqual(t, said.Load(), read+64+8)
		if read == 500 {
			break
		}
	}
	require.NoError(t, s.Close())
}

func TestServeStream_SaysWhatTheErrorMeans(t *testing.T) {
	t.Parallel()
	r := tell(t, counts(0, nil, verdict.RateLimited(errors.New("429"), time.Minute)))
	_, err := open(t.Context(), t, r)
	require.Equal(t, verdict.ClassRateLimited, classOf(t, err))
	_, err = open(t.Context(), t, r)
	require.ErrorIs(t, err, registry.ErrCoolingDown)

	s, err := open(t.Context(), t, tell(t, counts(3, nil, errors.New("cut"))))
	require.NoError(t, err)
	read := 0
	for _, err = range s.All() {
		if err == nil {
			read++
		}
	}
	require.Equal(t, 3, read)
	var remote *registrynats.Error
	require.ErrorAs(t, err, &remote)
	require.Contains(t, remote.Text, "cut")
}

func TestServeStream_EndsWhenItsReaderLeaves(t *testing.T) {
	t.Parallel()
	ended := make(chan error, 1)
	r := tell(t, func(ctx context.Context, _ question) (iter.Seq2[reply, error], error) {
		return func(yield func(reply, error) bool) {
			defer func() {
				<-ctx.Done()
				ended <- ctx.Err()
			}()
			for yield(reply{}, nil) {
			}
		}, nil
	})
	s, err := open(t.Context(), t, r)
	require.NoError(t, err)
	for _, err := range s.All() {
		require.NoError(t, err)
		break
	}
	require.NoError(t, s.Close())
	require.ErrorIs(t, <-ended, context.Canceled)
}

func TestNewStreamStub_RefusesWhatNewStubDoes(t *testing.T) {
	t.Parallel()
	nc := connect(t, begin(t, nil).url())
	entry := federation.Entry{Address: "registry.call.nowhere", Definition: registry.Definition{Name: "p"}}
	_, err := registrynats.NewStreamStub[question, reply](nc, entry, "tell")(t.Context(), question{})
	require.Equal(t, verdict.ClassNotSent, verdict.Of(err).Class)
	entry.Address = ">"
	_, err = registrynats.NewStreamStub[question, reply](nc, entry, "tell")(t.Context(), question{})
	require.Equal(t, verdict.ClassNotForMe, verdict.Of(err).Class)
}

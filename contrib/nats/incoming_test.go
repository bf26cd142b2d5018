package registrynats_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/contrib/nats"
)

// incomingOf returns the contexts in which the server of a pair makes its calls.
func incomingOf(t *testing.T, p *pair) <-chan context.Context {
	t.Helper()
	seen := make(chan context.Context, 1)
	remove, err := p.far.AddHooks(registry.Hooks{BeforeCall: func(ctx context.Context, _ registry.CallReport) context.Context {
		seen <- ctx
		return ctx
	}})
	require.NoError(t, err)
	t.Cleanup(remove)
	return seen
}

func TestServe_ContextOfARequestEndsWhenItIsAnswered(t *testing.T) {
	t.Parallel()
	for name, asked := range map[string]bool{"and was asked for its end before": true, "and was not": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPair(t, registrynats.ServerOptions{}, registry.Provider[asker]{
				Instance: func(ctx context.Context, _ question) (reply, error) {
					if asked {
						derived, cancel := context.WithCancel(ctx)
						defer cancel()
						return reply{}, derived.Err()
					}
					return reply{}, nil
				},
			})
			seen := incomingOf(t, p)
			_, err := p.ask(t.Context())
			require.NoError(t, err)
			ctx := <-seen
			require.Eventually(t, func() bool { return ctx.Err() != nil }, 30*time.Second, time.Millisecond, "it ends after the reply")
			<-ctx.Done()
			require.Equal(t, context.Canceled, ctx.Err())
			require.Equal(t, context.Canceled, context.Cause(ctx))
		})
	}
}

func TestServe_ContextOfARequestHasItsCallersDeadline(t *testing.T) {
	t.Parallel()
	for name, waits := range map[string]func(ctx context.Context) error{
		"for one that waits": func(ctx context.Context) error {
			<-ctx.Done()
			return ctx.Err()
		},
		"for one that looks": func(ctx context.Context) error { return untilEnd(ctx, make(chan struct{})) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var seen <-chan context.Context
			found := make(chan error, 1)
			p := newPair(t, registrynats.ServerOptions{}, registry.Provider[asker]{
				Instance: func(context.Context, question) (reply, error) {
					err := waits(<-seen) //nolint:contextcheck // that is what is tested
					found <- err
					return reply{}, err
				},
			})
			seen = incomingOf(t, p)
			begun := time.Now()
			ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
			defer cancel()
			_, err := p.ask(ctx)
			require.Error(t, err)
			require.Equal(t, context.DeadlineExceeded, <-found)
			require.GreaterOrEqual(t, time.Since(begun), 150*time.Millisecond)
		})
	}
}

// untilEnd looks at a context until that has ended, without asking for its Done.
func untilEnd(ctx context.Context, begun chan<- struct{}) error {
	close(begun)
	for ctx.Err() == nil {
		time.Sleep(time.Millisecond)
	}
	return context.Cause(ctx)
}

func TestServe_ContextOfARequestEndsWithTheServer(t *testing.T) {
	t.Parallel()
	begun, found := make(chan struct{}), make(chan error, 1)
	var seen <-chan context.Context
	p := newPair(t, registrynats.ServerOptions{}, registry.Provider[asker]{
		Instance: func(context.Context, question) (reply, error) {
			err := untilEnd(<-seen, begun) //nolint:contextcheck // that is what is tested
			found <- err
			return reply{}, err
		},
	})
	seen = incomingOf(t, p)
	first := make(chan error, 1)
	go func() {
		_, err := p.ask(t.Context())
		first <- err
	}()
	<-begun
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, p.server.Drain(ended), context.Canceled)
	require.Equal(t, context.Canceled, <-found)
	require.Error(t, <-first)
}

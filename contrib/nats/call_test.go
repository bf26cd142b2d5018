package registrynats_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/contrib/nats"
	"github.com/capreg/registry/federation"
	"github.com/capreg/registry/registryhttp"
	"github.com/capreg/registry/verdict"
)

type question struct {
	Text string `json:"text"`
}

type reply struct {
	Text        string `json:"text"`
	Key         string `json:"key"`
	Correlation string `json:"correlation"`
	Trace       string `json:"trace"`
	Caller      string `json:"caller"`
	InTime      bool   `json:"in_time"`
}

// asker is the service of the tests.
type asker func(ctx context.Context, q question) (reply, error)

var askers = registry.NewService[asker]("asker")

// pair is a process that serves and one that calls, over a server of NATS.
type pair struct {
	server        *registrynats.Server
	near, far     *registry.Registry
	nearNC, farNC *nats.Conn
	served        *registry.Registration
	called        *registry.Registration
	resolver      *registry.Resolver[asker]
	entry         federation.Entry
}

func newRegistry(tb testing.TB) *registry.Registry {
	tb.Helper()
	reg, err := registry.New(registry.Options{})
	require.NoError(tb, err)
	tb.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		require.NoError(tb, reg.Close(ctx))
	})
	return reg
}

func newPair(tb testing.TB, options registrynats.ServerOptions, provider registry.Provider[asker]) *pair {
	tb.Helper()
	e := begin(tb, nil)
	p := &pair{near: newRegistry(tb), far: newRegistry(tb), nearNC: connect(tb, e.url()), farNC: connect(tb, e.url())}
	options.Node = "far"
	var err error
	p.server, err = registrynats.NewServer(p.farNC, p.far, options)
	require.NoError(tb, err)
	require.NoError(tb, registrynats.Serve(p.server, askers, "ask", func(ctx context.Context, a asker, q question) (reply, error) { return a(ctx, q) }))
	require.NoError(tb, p.farNC.Flush())
	tb.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		_ = p.server.Drain(ctx)
	})
	provider.Name = "p"
	p.served, err = askers.Register(tb.Context(), p.far, provider)
	require.NoError(tb, err)
	offer, offered := p.server.Offer(p.served.Info())
	require.True(tb, offered)
	p.entry = federation.Entry{Node: "far", Kind: offer.Kind, Address: offer.Address, Definition: p.served.Definition()}
	p.called, err = askers.Register(tb.Context(), p.near, registry.Provider[asker]{
		Name: "far/p", Instance: registrynats.NewStub[question, reply](p.nearNC, p.entry, "ask"), AttemptTimeout: 20 * time.Second,
	})
	require.NoError(tb, err)
	p.resolver = askers.Bind(p.near, registry.Query{})
	return p
}

func (p *pair) ask(ctx context.Context, options ...registry.CallOption) (reply, error) {
	return registry.Call(ctx, p.resolver, func(ctx context.Context, a asker) (reply, error) { return a(ctx, question{Text: "hi"}) }, options...)
}

// classOf returns the class of the only attempt of a failed call.
func classOf(tb testing.TB, err error) verdict.Class {
	tb.Helper()
	var call *registry.CallError
	require.ErrorAs(tb, err, &call)
	require.Len(tb, call.Attempts, 1)
	return call.Attempts[0].Class
}

func answers(err error) asker {
	return func(context.Context, question) (reply, error) { return reply{Text: "hello"}, err }
}

func TestServe_CarriesWhatBelongsToACall(t *testing.T) {
	t.Parallel()
	p := newPair(t, registrynats.ServerOptions{TrustCaller: true}, registry.Provider[asker]{
		Instance: func(ctx context.Context, q question) (reply, error) {
			m := registryhttp.MetadataOf(ctx)
			deadline, ok := ctx.Deadline()
			return reply{
				Text: q.Text, Key: registrynats.IdempotencyKey(ctx), Correlation: m.Correlation, Trace: m.TraceParent, Caller: m.Caller,
				InTime: ok && time.Until(deadline) <= 20*time.Second,
			}, nil
		},
	})
	ctx := registryhttp.WithMetadata(t.Context(), registryhttp.Metadata{
		Correlation: "request-7", TraceParent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", Caller: "billing",
	})
	got, err := p.ask(ctx)
	require.NoError(t, err)
	require.NotEmpty(t, got.Key)
	got.Key = ""
	require.Equal(t, reply{
		Text: "hi", Correlation: "request-7", Trace: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", Caller: "billing", InTime: true,
	}, got)
}

func TestServe_SaysWhatAnOutcomeMeans(t *testing.T) {
	t.Parallel()
	boom := errors.New("boom")
	for name, test := range map[string]struct {
		err  error
		want verdict.Class
	}{
		"unknown":      {boom, verdict.ClassUnknown},
		"request":      {verdict.Permanent(boom), verdict.ClassBadRequest},
		"overloaded":   {verdict.As(boom, verdict.Verdict{Class: verdict.ClassOverloaded}), verdict.ClassOverloaded},
		"not sent":     {verdict.NotSent(boom), verdict.ClassNotSent},
		"server error": {verdict.As(boom, verdict.Verdict{Class: verdict.ClassServerError}), verdict.ClassServerError},
		"too long":     {verdict.As(boom, verdict.Verdict{Class: verdict.ClassTooLong}), verdict.ClassTooLong},
		"unsupported":  {verdict.As(boom, verdict.Verdict{Class: verdict.ClassUnsupported}), verdict.ClassUnsupported},
		"its own time": {verdict.As(boom, verdict.Verdict{Class: verdict.ClassAttemptTimeout}), verdict.ClassServerError},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPair(t, registrynats.ServerOptions{}, registry.Provider[asker]{Instance: answers(test.err)})
			_, err := p.ask(t.Context())
			require.Equal(t, test.want, classOf(t, err), "%v", err)
			var remote *registrynats.Error
			require.ErrorAs(t, err, &remote)
			require.Equal(t, "p", remote.Provider)
			require.Contains(t, remote.Text, "boom")
			require.NotContains(t, err.Error(), "\n")
		})
	}
}

func TestServe_MakesARateLimitThereACooldownHere(t *testing.T) {
	t.Parallel()
	p := newPair(t, registrynats.ServerOptions{}, registry.Provider[asker]{Instance: answers(verdict.RateLimited(errors.New("429"), time.Minute))})
	for range 2 { // the first is of the provider, the second of its registry
		_, err := p.ask(t.Context())
		require.Equal(t, verdict.ClassRateLimited, classOf(t, err))
		cooldown := p.called.Info().Cooldown
		require.False(t, cooldown.Until.IsZero())
		require.True(t, cooldown.Asked)
		require.Greater(t, cooldown.Until.Sub(cooldown.Since), 30*time.Second)
		require.NoError(t, p.called.Reset())
	}
	require.Equal(t, uint64(1), p.served.Info().Attempts, "the provider itself was asked once")
}

func TestServe_TurnsAPanicIntoAnError(t *testing.T) {
	t.Parallel()
	p := newPair(t, registrynats.ServerOptions{}, registry.Provider[asker]{
		Instance: func(context.Context, question) (reply, error) { panic("boom\nbang") },
	})
	_, err := p.ask(t.Context())
	require.Equal(t, verdict.ClassServerError, classOf(t, err))
	require.NotContains(t, err.Error(), "\n")
}

func TestServe_BoundsTheRequestsInProgress(t *testing.T) {
	t.Parallel()
	begun, gate := make(chan struct{}), make(chan struct{})
	p := newPair(t, registrynats.ServerOptions{AtOnce: 1}, registry.Provider[asker]{
		Instance: func(context.Context, question) (reply, error) {
			begun <- struct{}{}
			<-gate
			return reply{}, nil
		},
	})
	first := make(chan error, 1)
	go func() {
		_, err := p.ask(t.Context())
		first <- err
	}()
	<-begun
	_, err := p.ask(t.Context())
	require.Equal(t, verdict.ClassOverloaded, classOf(t, err))
	close(gate)
	require.NoError(t, <-first)
}

func TestServer_DrainEndsWhatRunsAndRefusesTheRestAsNotSent(t *testing.T) {
	t.Parallel()
	begun, gate := make(chan struct{}), make(chan struct{})
	p := newPair(t, registrynats.ServerOptions{}, registry.Provider[asker]{
		Instance: func(context.Context, question) (reply, error) {
			close(begun)
			<-gate
			return reply{Text: "done"}, nil
		},
	})
	first := make(chan error, 1)
	go func() {
		_, err := p.ask(t.Context())
		first <- err
	}()
	<-begun
	drained := make(chan error, 1)
	go func() { drained <- p.server.Drain(t.Context()) }()
	require.Eventually(t, func() bool {
		_, err := p.ask(t.Context(), registry.AttemptTimeout(time.Second))
		var call *registry.CallError
		return errors.As(err, &call) && call.Attempts[0].Class == verdict.ClassNotSent
	}, 30*time.Second, 10*time.Millisecond)
	close(gate)
	require.NoError(t, <-first)
	require.NoError(t, <-drained)
	_, err := p.ask(t.Context())
	require.Equal(t, verdict.ClassNotSent, classOf(t, err), "no process listens: %v", err)
}

func TestServer_DrainCancelsWhatDoesNotEnd(t *testing.T) {
	t.Parallel()
	begun := make(chan struct{})
	p := newPair(t, registrynats.ServerOptions{}, registry.Provider[asker]{
		Instance: func(ctx context.Context, _ question) (reply, error) {
			close(begun)
			<-ctx.Done()
			return reply{}, ctx.Err()
		},
	})
	first := make(chan error, 1)
	go func() {
		_, err := p.ask(t.Context())
		first <- err
	}()
	<-begun
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, p.server.Drain(ended), context.Canceled)
	require.Error(t, <-first)
}

func TestNewStub_SaysWhatWasNotSent(t *testing.T) {
	t.Parallel()
	p := newPair(t, registrynats.ServerOptions{}, registry.Provider[asker]{Instance: answers(nil)})
	for name, change := range map[string]func(*federation.Entry){
		"no process listens":     func(e *federation.Entry) { e.Address = "registry.call.elsewhere" },
		"no provider is of that": func(e *federation.Entry) { e.Definition.Name = "q" },
	} {
		e := p.entry
		change(&e)
		_, err := registrynats.NewStub[question, reply](p.nearNC, e, "ask")(t.Context(), question{})
		require.Equal(t, verdict.ClassNotSent, verdict.Of(err).Class, "%s: %v", name, err)
	}
	e := p.entry
	e.Address = "elsewhere.>"
	_, err := registrynats.NewStub[question, reply](p.nearNC, e, "ask")(t.Context(), question{})
	require.Equal(t, verdict.ClassNotForMe, verdict.Of(err).Class, "%v", err)
	_, err = registrynats.NewStub[string, reply](p.nearNC, p.entry, "ask")(t.Context(), "no question")
	require.Equal(t, verdict.ClassBadRequest, verdict.Of(err).Class, "%v", err)
	_, err = registrynats.NewStub[question, int](p.nearNC, p.entry, "ask")(t.Context(), question{})
	require.Equal(t, verdict.ClassMalformed, verdict.Of(err).Class, "%v", err)
	_, err = registrynats.NewStub[question, reply](p.nearNC, p.entry, "ask")(t.Context(), question{Text: strings.Repeat("x", 2<<20)})
	require.Equal(t, verdict.ClassTooLong, verdict.Of(err).Class, "%v", err)
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = registrynats.NewStub[question, reply](p.nearNC, p.entry, "ask")(ended, question{})
	require.ErrorIs(t, err, context.Canceled)
	p.nearNC.Close()
	_, err = registrynats.NewStub[question, reply](p.nearNC, p.entry, "ask")(t.Context(), question{})
	require.Equal(t, verdict.ClassNotSent, verdict.Of(err).Class, "%v", err)
}

func TestNewServer_RefusesBadOptions(t *testing.T) {
	t.Parallel()
	p := newPair(t, registrynats.ServerOptions{}, registry.Provider[asker]{Instance: answers(nil)})
	for want, options := range map[string]registrynats.ServerOptions{
		`ServerOptions.Node is ""`:    {},
		`ServerOptions.Node is "a.b"`: {Node: "a.b"},
		"ServerOptions.AtOnce is -1":  {Node: "a", AtOnce: -1},
	} {
		_, err := registrynats.NewServer(p.farNC, p.far, options)
		require.ErrorContains(t, err, want)
		require.ErrorIs(t, err, registry.ErrInvalid)
	}
	_, err := registrynats.NewServer(nil, p.far, registrynats.ServerOptions{Node: "a"})
	require.ErrorIs(t, err, registry.ErrInvalid)
	do := func(ctx context.Context, a asker, q question) (reply, error) { return a(ctx, q) }
	require.ErrorIs(t, registrynats.Serve[asker, question, reply](p.server, askers, "a", nil), registry.ErrInvalid)
	require.ErrorIs(t, registrynats.Serve(p.server, askers, "a b", do), registry.ErrInvalid)
	require.ErrorIs(t, registrynats.Serve(p.server, askers, "ask", do), registry.ErrExists)
	_, offered := p.server.Offer(registry.Info{Definition: registry.Definition{Service: "other"}})
	require.False(t, offered)
}

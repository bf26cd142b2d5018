package registrynats_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"math/big"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"
	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/contrib/nats"
	"github.com/capreg/registry/event"
	"github.com/capreg/registry/federation"
	"github.com/capreg/registry/verdict"
)

// certified returns a certificate of its own for the server, and the pool that trusts it.
func certified(tb testing.TB) (tls.Certificate, *x509.CertPool) {
	tb.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(tb, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	text, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	require.NoError(tb, err)
	certificate, err := x509.ParseCertificate(text)
	require.NoError(tb, err)
	pool := x509.NewCertPool()
	pool.AddCert(certificate)
	return tls.Certificate{Certificate: [][]byte{text}, PrivateKey: key}, pool
}

// may returns the permissions for these subjects alone, separated by blanks, with B as the default bucket.
func may(publish, subscribe string) *server.Permissions {
	fields := func(text string) *server.SubjectPermission {
		return &server.SubjectPermission{Allow: strings.Fields(strings.ReplaceAll(text, "KV_B", "KV_registry"))}
	}
	return &server.Permissions{Publish: fields(publish), Subscribe: fields(subscribe)}
}

// The permissions that the package documents.
const (
	mayCreate = " $JS.API.STREAM.CREATE.KV_B $JS.API.STREAM.INFO.KV_B $JS.API.INFO "
	mayWatch  = " $JS.API.STREAM.INFO.KV_B $JS.API.STREAM.MSG.GET.KV_B $JS.API.CONSUMER.CREATE.KV_B.> $JS.API.CONSUMER.DELETE.KV_B.> $JS.FC.KV_B.> "
	mayWrite  = mayWatch + " $KV.registry.lease.> $KV.registry.entry.> "
)

// guarded is a server with TLS and users.
type guarded struct {
	*engine

	trusted *x509.CertPool
	agent   nkeys.KeyPair
}

func beginGuarded(tb testing.TB) *guarded {
	tb.Helper()
	certificate, trusted := certified(tb)
	agent, err := nkeys.CreateUser()
	require.NoError(tb, err)
	public, err := agent.PublicKey()
	require.NoError(tb, err)
	g := &guarded{trusted: trusted, agent: agent}
	g.engine = begin(tb, func(o *server.Options) {
		o.TLSConfig, o.TLSTimeout = &tls.Config{Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS13}, 30
		o.Nkeys = []*server.NkeyUser{{Nkey: public, Permissions: may(mayCreate+mayWrite+" _INBOX.> ", "registry.call.agent.> $SRV.> _INBOX.>")}}
		o.Users = []*server.User{
			{Username: "control", Password: "secret", Permissions: may(mayWatch+" registry.call.agent.> ", "_INBOX.>")},
			{Username: "stranger", Password: "secret", Permissions: may(" nothing ", "_INBOX.>")},
			{Username: "deaf", Password: "secret", Permissions: may(mayWatch+" registry.call.> ", "nothing")},
		}
	})
	return g
}

// as connects as a user.
func (g *guarded) as(tb testing.TB, user string) *nats.Conn {
	tb.Helper()
	login := nats.UserInfo(user, "secret")
	if user == "agent" {
		public, err := g.agent.PublicKey()
		require.NoError(tb, err)
		login = nats.Nkey(public, g.agent.Sign)
	}
	return connect(tb, g.url(), nats.Secure(&tls.Config{RootCAs: g.trusted, MinVersion: tls.VersionTLS13}), login)
}

// runs runs until the test ends.
func runs(t *testing.T, run func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- run(ctx) }()
	t.Cleanup(func() {
		cancel()
		require.ErrorIs(t, <-ended, context.Canceled)
	})
}

func soon(t *testing.T, holds func() bool, what string) {
	t.Helper()
	require.Eventually(t, holds, time.Minute, 5*time.Millisecond, what)
}

// askersOver binds the service of the tests over the connection.
func askersOver(nc *nats.Conn) []federation.Binding {
	return []federation.Binding{federation.Dial(askers, registrynats.Kind, func(_ context.Context, e federation.Entry) (asker, error) {
		return registrynats.NewStub[question, reply](nc, e, "ask"), nil
	})}
}

func storeOf(tb testing.TB, nc *nats.Conn) *registrynats.Store {
	tb.Helper()
	store, err := registrynats.NewStore(nc, registrynats.StoreOptions{})
	require.NoError(tb, err)
	return store
}

func askOn(server *registrynats.Server) error {
	return registrynats.Serve(server, askers, "ask", func(ctx context.Context, a asker, q question) (reply, error) { return a(ctx, q) })
}

// announces begins a process that serves and announces a provider.
func (g *guarded) announces(t *testing.T) {
	t.Helper()
	nc, reg := g.as(t, "agent"), newRegistry(t)
	calls, err := registrynats.NewServer(nc, reg, registrynats.ServerOptions{Node: "agent"})
	require.NoError(t, err)
	require.NoError(t, askOn(calls))
	announcer, err := federation.NewAnnouncer(federation.AnnouncerOptions{Store: storeOf(t, nc), Node: "agent", Offer: calls.Offer})
	require.NoError(t, err)
	_, err = askers.Register(t.Context(), reg, registry.Provider[asker]{Name: "p", Instance: answers(nil)})
	require.NoError(t, err)
	runs(t, func(ctx context.Context) error { return announcer.Run(ctx, reg) })
}

func TestPermissions_ThoseOfTheDocumentationSuffice(t *testing.T) {
	t.Parallel()
	g := beginGuarded(t)
	g.announces(t)
	nc, reg := g.as(t, "control"), newRegistry(t)
	source, err := federation.NewSource(federation.SourceOptions{Store: storeOf(t, nc), Bindings: askersOver(nc)})
	require.NoError(t, err)
	runs(t, func(ctx context.Context) error { return source.Run(ctx, reg) })
	soon(t, func() bool { return len(reg.Registrations()) == 1 }, "the provider is seen")
	answer, err := registry.Call(t.Context(), askers.Bind(reg, registry.Query{}), func(ctx context.Context, a asker) (reply, error) {
		return a(ctx, question{})
	})
	require.NoError(t, err)
	require.Equal(t, "hello", answer.Text)
}

// refusedFor checks that an error says what is not permitted.
func refusedFor(t *testing.T, err error, tried, operation, subject string) {
	t.Helper()
	require.ErrorIs(t, err, nats.ErrPermissionViolation)
	var refused *registrynats.PermissionError
	require.ErrorAs(t, err, &refused)
	require.Equal(t, registrynats.PermissionError{Tried: tried, Operation: operation, Subject: subject}, *refused)
	require.ErrorContains(t, err, `: the user of the connection has no permission to `+operation+` "`+subject+`"`)
	require.NotContains(t, err.Error(), "\n")
}

func TestPermissionError_NamesTheSubjectAndWhatWasTried(t *testing.T) {
	t.Parallel()
	g := beginGuarded(t)
	g.announces(t)
	ctx := t.Context()

	_, err := nats.Connect(g.url(), nats.UserInfo("control", "secret"))
	require.Error(t, err, "the certificate is not trusted")
	_, err = nats.Connect(g.url(), nats.Secure(&tls.Config{RootCAs: g.trusted, MinVersion: tls.VersionTLS13}))
	require.ErrorIs(t, err, nats.ErrAuthorization)

	// Each try has a connection of its own, so that what is tried by another one is none of it.
	store := func(user string) *registrynats.Store { return storeOf(t, g.as(t, user)) }
	const info = "$JS.API.STREAM.INFO.KV_registry"
	_, err = store("stranger").Get(ctx, "lease.x")
	refusedFor(t, err, "get lease.x", "publish", info)
	refusedFor(t, store("stranger").Put(ctx, "lease.x", nil), "put lease.x", "publish", info)
	_, err = store("stranger").Update(ctx, "lease.x", nil, 0)
	refusedFor(t, err, "update lease.x", "publish", info)
	refusedFor(t, store("stranger").Delete(ctx, "lease.x", 0), "delete lease.x", "publish", info)
	refusedFor(t, store("stranger").Watch(ctx, "lease.", func(federation.Record) {}), "watch lease.>", "publish", info)
	control := store("control")
	soon(t, func() bool { _, err := control.Get(ctx, "lease.agent"); return err == nil }, "the lease is there")
	refusedFor(t, control.Put(ctx, "lease.x", nil), "put lease.x", "publish", "$KV.registry.lease.x")
	err = store("deaf").Put(ctx, "lease.x", nil)
	var refused *registrynats.PermissionError
	require.ErrorAs(t, err, &refused)
	require.Equal(t, "subscribe", refused.Operation)
	require.True(t, strings.HasPrefix(refused.Subject, "_INBOX."), refused.Subject)
	require.Equal(t, verdict.ClassTransport, verdict.Of(err).Class, "it may have been sent")

	entry := federation.Entry{Node: "x", Kind: registrynats.Kind, Address: "registry.call.x", Definition: registry.Definition{Name: "p", Service: "asker"}}
	_, err = registrynats.NewStub[question, reply](g.as(t, "control"), entry, "ask")(ctx, question{})
	refusedFor(t, err, `call "p"`, "publish", "registry.call.x.ask")
	require.Equal(t, verdict.ClassNotSent, verdict.Of(err).Class)

	calls, err := registrynats.NewServer(g.as(t, "control"), newRegistry(t), registrynats.ServerOptions{Node: "agent"})
	require.NoError(t, err)
	refusedFor(t, askOn(calls), "serve ask", "subscribe", "registry.call.agent.ask")
	_, offered := calls.Offer(registry.Info{Definition: registry.Definition{Service: "asker"}})
	require.False(t, offered, "it would get no calls")
	require.NoError(t, calls.Drain(ctx))
}

func TestPermissionError_IsTheCauseOfWhatGoesOnTrying(t *testing.T) {
	t.Parallel()
	g := beginGuarded(t)
	reg := newRegistry(t)
	nc := g.as(t, "stranger")
	source, err := federation.NewSource(federation.SourceOptions{Store: storeOf(t, nc), Bindings: askersOver(nc)})
	require.NoError(t, err)
	runs(t, func(ctx context.Context) error { return source.Run(ctx, reg) })
	announcer, err := federation.NewAnnouncer(federation.AnnouncerOptions{
		Store: storeOf(t, g.as(t, "stranger")), Node: "n", Offer: func(registry.Info) (federation.Offer, bool) { return federation.Offer{}, false },
	})
	require.NoError(t, err)
	runs(t, func(ctx context.Context) error { return announcer.Run(ctx, reg) })
	const want = `has no permission to publish "$JS.API.STREAM.INFO.KV_registry"`
	soon(t, func() bool { return strings.Contains(source.Fleet().Cause, want) }, "the source says so")
	soon(t, func() bool { return strings.Contains(announcer.Announcement().Cause, want) }, "the announcer says so")

	ended, stranger := make(chan error, 1), g.as(t, "stranger")
	go func() {
		ended <- registrynats.PublishEvents(t.Context(), stranger, reg, "events", event.Filter{})
	}()
	for {
		_, err := askers.Register(t.Context(), reg, registry.Provider[asker]{Instance: answers(nil)})
		require.NoError(t, err)
		select {
		case err := <-ended:
			refusedFor(t, err, "publish events", "publish", "events.registered")
			return
		case <-time.After(5 * time.Millisecond):
		}
	}
}

func TestPermissionError_IsOfEachRequestThatWaits(t *testing.T) {
	t.Parallel()
	g := beginGuarded(t)
	entry := federation.Entry{Node: "x", Kind: registrynats.Kind, Address: "registry.call.x", Definition: registry.Definition{Name: "p", Service: "asker"}}
	ask := registrynats.NewStub[question, reply](g.as(t, "control"), entry, "ask")
	for range 3 { // the look ends with the last one, and begins again
		const callers = 8
		errs := make(chan error, callers)
		for range callers {
			go func() {
				_, err := ask(t.Context(), question{})
				errs <- err
			}()
		}
		for range callers {
			refusedFor(t, <-errs, `call "p"`, "publish", "registry.call.x.ask")
		}
	}
}

package registrynats_test

import (
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/capreg/registry/contrib/nats"
	"github.com/capreg/registry/federation"
	"github.com/capreg/registry/internal/testkit/hosts"
)

func TestMain(m *testing.M) {
	if play() || hosts.Play(connectNode) { // this is a process of a test
		return
	}
	goleak.VerifyTestMain(m,
		goleak.IgnoreTopFunction("github.com/nats-io/nats-server/v2/server.(*Server).startGWReplyMapExpiration.func1"))
}

// engine is a NATS server in this process that can be restarted.
type engine struct {
	server  *server.Server
	options server.Options
}

func begin(tb testing.TB, change func(*server.Options)) *engine {
	tb.Helper()
	e := &engine{options: server.Options{
		Host: "127.0.0.1", Port: -1, JetStream: true, StoreDir: tb.TempDir(), NoLog: true, NoSigs: true, DontListen: false,
	}}
	if change != nil {
		change(&e.options)
	}
	e.start(tb)
	tb.Cleanup(func() { e.stop() })
	return e
}

func (e *engine) start(tb testing.TB) {
	tb.Helper()
	options := e.options
	s, err := server.NewServer(&options)
	require.NoError(tb, err)
	s.Start()
	require.True(tb, s.ReadyForConnections(time.Minute), "the server is not ready")
	e.server = s
	if e.options.Port == -1 {
		e.options.Port = options.Port
	}
}

func (e *engine) stop() {
	e.server.Shutdown()
	e.server.WaitForShutdown()
}

func (e *engine) url() string { return e.server.ClientURL() }

func connect(tb testing.TB, url string, options ...nats.Option) *nats.Conn {
	tb.Helper()
	nc, err := nats.Connect(url, append(registrynats.Options(), options...)...)
	require.NoError(tb, err)
	tb.Cleanup(nc.Close)
	return nc
}

func newStore(tb testing.TB, nc *nats.Conn, bucket string) federation.Store {
	tb.Helper()
	store, err := registrynats.NewStore(nc, registrynats.StoreOptions{Bucket: bucket, Memory: false})
	require.NoError(tb, err)
	return store
}

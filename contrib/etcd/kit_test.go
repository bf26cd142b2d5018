package registryetcd_test

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"go.etcd.io/etcd/client/pkg/v3/transport"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/goleak"
	"go.uber.org/zap"

	"github.com/capreg/registry"
	"github.com/capreg/registry/contrib/etcd"
	"github.com/capreg/registry/federation"
	"github.com/capreg/registry/internal/testkit/hosts"
)

// serverDir is the variable with the directory of a server, in its process, and where it listens if that is not a socket there.
const serverDir = "REGISTRYETCD_TEST_SERVER"

func TestMain(m *testing.M) {
	if dir := os.Getenv(serverDir); dir != "" {
		if err := serve(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if hosts.Play(connectNode) {
		os.Exit(0)
	}
	dir, err := os.MkdirTemp("", "etcd")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	shared.dir = dir
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		shared.kill()
		if err := os.RemoveAll(dir); err != nil && code == 0 {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
		os.Exit(code)
	}))
}

// engine is a server of etcd in a process of its own.
type engine struct {
	dir     string
	secured bool // by the certificate there

	mu      sync.Mutex // guards what follows
	process *exec.Cmd
	ended   io.Closer // the process ends with it
}

// shared is the server of all tests that do not restart it, as a start takes a second.
var shared = &engine{}

func socket(dir string) string { return "unix://" + filepath.Join(dir, "client") }

// at returns where clients find the server.
func (e *engine) at() string {
	if e.secured {
		return strings.Replace(socket(e.dir), "unix", "unixs", 1)
	}
	return socket(e.dir)
}

// serve is the process of a server, which ends with its input.
func serve(where string) error {
	dir, at, _ := strings.Cut(where, " ")
	client, err := url.Parse(cmp.Or(at, socket(dir)))
	if err != nil {
		return err
	}
	peer := url.URL{Scheme: "unix", Path: filepath.Join(dir, "peer")}
	config := embed.NewConfig()
	config.Dir = filepath.Join(dir, "data")
	config.ListenClientUrls, config.AdvertiseClientUrls = []url.URL{*client}, []url.URL{*client}
	config.ListenPeerUrls, config.AdvertisePeerUrls = []url.URL{peer}, []url.URL{peer}
	if client.Scheme == "unixs" {
		config.ClientTLSInfo = transport.TLSInfo{CertFile: filepath.Join(dir, certificateFile), KeyFile: filepath.Join(dir, keyFile)}
	}
	config.InitialCluster = config.InitialClusterFromName(config.Name)
	config.TickMs, config.ElectionMs = 20, 200
	config.UnsafeNoFsync = true // what is killed is the process, not the machine
	config.LogLevel = "error"
	e, err := embed.StartEtcd(config)
	if err != nil {
		return err
	}
	defer e.Close()
	gone := make(chan error, 1)
	go func() {
		_, err := io.Copy(io.Discard, os.Stdin)
		gone <- err
	}()
	select {
	case err := <-gone:
		return err
	case err := <-e.Err():
		return err
	}
}

// start starts the server where it does not run, and waits until it answers.
func (e *engine) start() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.process != nil {
		return nil
	}
	process := exec.Command(os.Args[0]) //nolint:noctx // it is this program, and ends by kill
	process.Env = append(os.Environ(), serverDir+"="+e.dir+" "+e.at())
	process.Stderr = os.Stderr
	input, err := process.StdinPipe()
	if err != nil {
		return err
	}
	if err := process.Start(); err != nil {
		return err
	}
	e.process, e.ended = process, input
	client, err := e.client()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	_, err = client.Get(ctx, "ready")
	if errors.Is(err, rpctypes.ErrUserEmpty) { // it answers, to those that it knows
		err = nil
	}
	return errors.Join(err, client.Close())
}

// kill ends the server by kill -9.
func (e *engine) kill() {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.process == nil {
		return
	}
	_ = e.process.Process.Kill() // it may have ended
	_ = e.process.Wait()
	_ = e.ended.Close()
	e.process = nil
}

func (e *engine) client(change ...func(*clientv3.Config)) (*clientv3.Client, error) {
	config := registryetcd.Config(e.at())
	config.Logger = zap.NewNop()
	if e.secured {
		trusted, err := os.ReadFile(filepath.Join(e.dir, certificateFile))
		if err != nil {
			return nil, err
		}
		config.TLS = &tls.Config{ServerName: serverName, RootCAs: x509.NewCertPool(), MinVersion: tls.VersionTLS13}
		config.TLS.RootCAs.AppendCertsFromPEM(trusted)
	}
	for _, change := range change {
		change(&config)
	}
	return clientv3.New(config)
}

// connect returns a client of the server, which runs then.
func (e *engine) connect(tb testing.TB, change ...func(*clientv3.Config)) *clientv3.Client {
	tb.Helper()
	require.NoError(tb, e.start())
	client, err := e.client(change...)
	require.NoError(tb, err)
	tb.Cleanup(func() { _ = client.Close() }) // a test may have closed it
	return client
}

func newStore(tb testing.TB, client *clientv3.Client, prefix string, lease time.Duration) *registryetcd.Store {
	tb.Helper()
	store, err := registryetcd.NewStore(client, registryetcd.StoreOptions{Prefix: prefix, Lease: lease})
	require.NoError(tb, err)
	return store
}

// greet is the service of the tests.
type greet func() string

var greets = registry.NewService[greet]("greet")

const ttl = 3 * time.Second

func newRegistry(tb testing.TB, names ...string) *registry.Registry {
	tb.Helper()
	reg, err := registry.New(registry.Options{})
	require.NoError(tb, err)
	tb.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		require.NoError(tb, reg.Close(ctx))
	})
	for _, name := range names {
		_, err := greets.Register(tb.Context(), reg, registry.Provider[greet]{Name: name, Instance: func() string { return name }})
		require.NoError(tb, err)
	}
	return reg
}

// announce announces the providers as those of a node until the test ends.
func announce(tb testing.TB, store federation.Store, node string, reg *registry.Registry) *federation.Announcer {
	tb.Helper()
	announcer, err := federation.NewAnnouncer(federation.AnnouncerOptions{
		Store: store, Node: node, TTL: ttl, Linger: -1, LeaveWithin: time.Millisecond,
		Offer: func(info registry.Info) (federation.Offer, bool) {
			return federation.Offer{Kind: "test", Address: info.Name}, true
		},
	})
	require.NoError(tb, err)
	runs(tb, func(ctx context.Context) error { return announcer.Run(ctx, reg) })
	return announcer
}

// follow brings the providers of other nodes into the registry until the test ends.
func follow(tb testing.TB, store federation.Store, reg *registry.Registry) *federation.Source {
	tb.Helper()
	dial := func(_ context.Context, e federation.Entry) (greet, error) {
		return func() string { return e.Address }, nil
	}
	source, err := federation.NewSource(federation.SourceOptions{
		Store: store, Bindings: []federation.Binding{federation.Dial(greets, "test", dial)},
	})
	require.NoError(tb, err)
	runs(tb, func(ctx context.Context) error { return source.Run(ctx, reg) })
	return source
}

func runs(tb testing.TB, run func(ctx context.Context) error) {
	tb.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- run(ctx) }()
	tb.Cleanup(func() {
		cancel()
		require.ErrorIs(tb, <-ended, context.Canceled)
	})
}

func eventually(tb testing.TB, what string, holds func() bool) {
	tb.Helper()
	require.Eventually(tb, holds, time.Minute, 10*time.Millisecond, what)
}

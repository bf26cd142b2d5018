package registryetcd_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/capreg/registry"
	"github.com/capreg/registry/federation"
)

const (
	serverName      = "client" // of a socket: that of its file
	certificateFile = "certificate.pem"
	keyFile         = "key.pem"
)

// certify writes a certificate of a server that is trusted by itself, and its key.
func certify(tb testing.TB, dir string) {
	tb.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(tb, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: serverName}, DNSNames: []string{serverName},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	certificate, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	require.NoError(tb, err)
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	require.NoError(tb, err)
	for name, block := range map[string]*pem.Block{
		certificateFile: {Type: "CERTIFICATE", Bytes: certificate},
		keyFile:         {Type: "PRIVATE KEY", Bytes: secret},
	} {
		require.NoError(tb, os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(block), 0o600))
	}
}

// permit gives the user "node" a role for the keys with the prefix, the user "guest" none, and has etcd ask for users.
func permit(tb testing.TB, client *clientv3.Client, prefix string) {
	tb.Helper()
	ctx := tb.Context()
	_, err := client.RoleAdd(ctx, "fleet")
	require.NoError(tb, err)
	_, err = client.RoleGrantPermission(ctx, "fleet", prefix, clientv3.GetPrefixRangeEnd(prefix), clientv3.PermissionType(clientv3.PermReadWrite))
	require.NoError(tb, err)
	for user, role := range map[string]string{"root": "root", "node": "fleet", "guest": ""} {
		_, err := client.UserAdd(ctx, user, "secret of "+user)
		require.NoError(tb, err)
		if role != "" {
			_, err := client.UserGrantRole(ctx, user, role)
			require.NoError(tb, err)
		}
	}
	_, err = client.AuthEnable(ctx)
	require.NoError(tb, err)
}

func TestStore_NeedsARoleForItsPrefixAlone(t *testing.T) {
	t.Parallel()
	e := &engine{dir: t.TempDir(), secured: true}
	certify(t, e.dir)
	t.Cleanup(e.kill)
	permit(t, e.connect(t), "fleet/")
	as := func(user string) *clientv3.Client {
		return e.connect(t, func(c *clientv3.Config) { c.Username, c.Password = user, "secret of "+user })
	}
	for what, store := range map[string]federation.Store{
		"a user without a role": newStore(t, as("guest"), "fleet/", 0),
		"another prefix":        newStore(t, as("node"), "other/", 0),
	} {
		require.ErrorIs(t, store.Put(t.Context(), "entry.n.1.x", []byte("1")), rpctypes.ErrPermissionDenied, what)
		_, err := store.Get(t.Context(), "lease.n")
		require.ErrorIs(t, err, rpctypes.ErrPermissionDenied, what)
		require.ErrorContains(t, store.Watch(t.Context(), "", func(federation.Record) {}), "permission denied", what)
	}

	far, near := newRegistry(t, "a"), newRegistry(t)
	store := newStore(t, as("node"), "fleet/", 0)
	require.NoError(t, store.Probe(t.Context()))
	announce(t, store, "n", far)
	source := follow(t, newStore(t, as("node"), "fleet/", 0), near)
	eventually(t, "the provider is seen", func() bool { return len(near.Registrations()) == 1 })

	e.kill() // it knows no token of before
	require.NoError(t, e.start())
	_, err := greets.Register(t.Context(), far, registry.Provider[greet]{Name: "b", Instance: func() string { return "b" }})
	require.NoError(t, err)
	eventually(t, "the other provider is seen", func() bool { return len(near.Registrations()) == 2 })
	eventually(t, "the node is present", func() bool { return source.Fleet().Nodes[0].State == federation.NodePresent })
}

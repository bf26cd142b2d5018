package registrynats_test

import (
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/contrib/nats"
	"github.com/capreg/registry/federation"
	"github.com/capreg/registry/federation/federationtest"
)

func TestStore_PassesTheSuite(t *testing.T) {
	t.Parallel()
	e := begin(t, nil)
	federationtest.TestStore(t, federationtest.StoreSuite{
		Open: func(tb testing.TB, name string) federation.Store {
			tb.Helper()
			return newStore(tb, connect(tb, e.url()), name)
		},
		Restart: func(tb testing.TB, down time.Duration, wiped bool) {
			tb.Helper()
			e.stop()
			if wiped {
				require.NoError(tb, os.RemoveAll(e.options.StoreDir))
			}
			timer := time.NewTimer(down)
			defer timer.Stop()
			<-timer.C
			e.start(tb)
		},
		TTL: 2 * time.Second, Within: 3 * time.Minute, Entries: 500,
	})
}

func TestNewStore_RefusesBadOptions(t *testing.T) {
	t.Parallel()
	_, err := registrynats.NewStore(nil, registrynats.StoreOptions{})
	require.ErrorIs(t, err, registry.ErrInvalid)
	nc := connect(t, begin(t, nil).url())
	_, err = registrynats.NewStore(nc, registrynats.StoreOptions{Bucket: "a.b"})
	require.ErrorContains(t, err, `StoreOptions.Bucket is "a.b"`)
	_, err = registrynats.NewStore(nc, registrynats.StoreOptions{Replicas: 6})
	require.ErrorContains(t, err, "StoreOptions.Replicas is 6")
}

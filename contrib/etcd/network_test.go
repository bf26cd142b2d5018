package registryetcd_test

import (
	"context"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/capreg/registry"
	"github.com/capreg/registry/contrib/etcd"
	"github.com/capreg/registry/federation"
	"github.com/capreg/registry/internal/testkit/hosts"
)

// connectNode makes the parts of a node over the servers that it is told of. Calls do not leave its process.
func connectNode(_ context.Context, node hosts.Node, _ *registry.Registry) (parts hosts.Parts, err error) {
	config := registryetcd.Config(node.At...)
	config.Logger = zap.NewNop()
	client, err := clientv3.New(config)
	if err != nil {
		return parts, err
	}
	store, err := registryetcd.NewStore(client, registryetcd.StoreOptions{})
	return hosts.Parts{
		Store: store, Kind: "test",
		Offer: func(info registry.Info) (federation.Offer, bool) {
			return federation.Offer{Kind: "test", Address: info.Name}, true
		},
		Dial: func(_ context.Context, e federation.Entry) (hosts.Greet, error) {
			return func(context.Context) (string, error) { return e.Address, nil }, nil
		},
	}, err
}

func TestStore_EvictsNothingThatLivesWhileHostsAreCutOff(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("it takes a minute")
	}
	hosts.TestCuts(t, func(h *hosts.Host) []string {
		at := "http://" + h.Address + ":2379"
		h.Start(serverDir, t.TempDir()+" "+at)
		return []string{at}
	}, false)
}

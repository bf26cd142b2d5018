package federated_test

import (
	"fmt"

	"github.com/capreg/registry"
	"github.com/capreg/registry/admin"
	"github.com/capreg/registry/admin/federated"
	"github.com/capreg/registry/federation"
	"github.com/capreg/registry/federation/federationtest"
)

func ExampleBy() {
	store := federationtest.NewMemory() // such as that of contrib/nats
	source, err := federation.NewSource(federation.SourceOptions{Store: store, Node: "billing-1"})
	if err != nil {
		fmt.Println(err)
		return
	}
	announcer, err := federation.NewAnnouncer(federation.AnnouncerOptions{
		Store: store, Node: "billing-1", Source: source,
		Offer: func(registry.Info) (federation.Offer, bool) { return federation.Offer{Kind: "nats"}, true },
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	options := admin.Options{Fleet: federated.By(source, announcer)} // of admin.New
	seen := options.Fleet.View()
	fmt.Println(seen.Store, seen.Announcement.Node, seen.Announcement.State, len(seen.Nodes))
	// Output: memory billing-1 idle 0
}

package registryetcd_test

import (
	"context"
	"fmt"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/capreg/registry"
	"github.com/capreg/registry/contrib/etcd"
	"github.com/capreg/registry/federation"
)

// Two processes share a cluster of etcd. What one of them registers is called by the other.
func Example() {
	if err := shared.start(); err != nil {
		fmt.Println(err)
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	config := registryetcd.Config(socket(shared.dir)) // in a program: "etcd-1:2379", "etcd-2:2379", "etcd-3:2379"
	config.Logger = zap.NewNop()
	client, err := clientv3.New(config)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = client.Close() }()
	store, err := registryetcd.NewStore(client, registryetcd.StoreOptions{Prefix: "example/"})
	if err != nil {
		fmt.Println(err)
		return
	}
	ended := make(chan error, 2)

	kitchen, err := registry.New(registry.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	announcer, err := federation.NewAnnouncer(federation.AnnouncerOptions{
		Store: store, Node: "kitchen-1", Linger: -1,
		Offer: func(info registry.Info) (federation.Offer, bool) {
			return federation.Offer{Kind: "tube", Address: "kitchen-1/" + info.Name}, true
		},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	go func() { ended <- announcer.Run(ctx, kitchen) }()

	office, err := registry.New(registry.Options{Required: []string{"greet"}})
	if err != nil {
		fmt.Println(err)
		return
	}
	source, err := federation.NewSource(federation.SourceOptions{
		Store: store, Node: "office-1",
		Bindings: []federation.Binding{federation.Dial(greets, "tube", func(_ context.Context, e federation.Entry) (greet, error) {
			return func() string { return "hello through " + e.Address }, nil
		})},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	go func() { ended <- source.Run(ctx, office) }()

	_, err = greets.Register(ctx, kitchen, registry.Provider[greet]{Name: "cook", Instance: func() string { return "hello" }})
	if err != nil {
		fmt.Println(err)
		return
	}
	waiting, stop := context.WithTimeout(ctx, time.Minute)
	defer stop()
	if err := office.WaitReady(waiting); err != nil {
		fmt.Println(err)
		return
	}
	answer, err := registry.Call(ctx, greets.Bind(office, registry.Query{}), func(_ context.Context, g greet) (string, error) {
		return g(), nil
	})
	fmt.Println(answer, err)

	cancel()
	fmt.Println(<-ended, <-ended)
	_ = office.Close(context.WithoutCancel(ctx))
	_ = kitchen.Close(context.WithoutCancel(ctx))
	// Output:
	// hello through kitchen-1/cook <nil>
	// context canceled context canceled
}

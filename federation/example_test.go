package federation_test

import (
	"context"
	"fmt"
	"time"

	"github.com/capreg/registry"
	"github.com/capreg/registry/federation"
	"github.com/capreg/registry/federation/federationtest"
)

// Two processes share a store. What one of them registers is called by the other.
func Example() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	store := federationtest.NewMemory() // in a program: that of contrib/nats
	ended := make(chan error, 2)

	kitchen, err := registry.New(registry.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	announcer, err := federation.NewAnnouncer(federation.AnnouncerOptions{
		Store: store, Node: "kitchen-1", Linger: -1,
		Offer: func(info registry.Info) (federation.Offer, bool) {
			return federation.Offer{Kind: "tube", Address: "kitchen-1/" + info.Name}, info.Service == "greet"
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
	dial := func(_ context.Context, e federation.Entry) (greet, error) {
		return func() string { return "hello through " + e.Address }, nil
	}
	source, err := federation.NewSource(federation.SourceOptions{
		Store: store, Node: "office-1", Bindings: []federation.Binding{federation.Dial(greets, "tube", dial)},
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
	waiting, stop := context.WithTimeout(ctx, 10*time.Second)
	defer stop()
	if err := office.WaitReady(waiting); err != nil {
		fmt.Println(err)
		return
	}
	answer, err := registry.Call(ctx, greets.Bind(office, registry.Query{}), func(_ context.Context, g greet) (string, error) {
		return g(), nil
	})
	fmt.Println(answer, err)
	fmt.Println(source.Explain("kitchen-1", "greet", "waiter").Reason)

	cancel()
	fmt.Println(<-ended, <-ended)
	_ = office.Close(context.WithoutCancel(ctx))
	_ = kitchen.Close(context.WithoutCancel(ctx))
	// Output:
	// hello through kitchen-1/cook <nil>
	// the node offers no provider of that name
	// context canceled context canceled
}

package guide_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"

	"github.com/capreg/registry"
	"github.com/capreg/registry/registryhttp"
	"github.com/capreg/registry/verdict"
)

// Peers is the service of what other replicas offer, by their endpoints.
var Peers = registry.NewService[*registryhttp.Upstream]("peers")

// announce answers with the definitions of all that can be called here now, and has an endpoint.
func announce(reg *registry.Registry) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		offered := []registry.Definition{}
		for info := range reg.All() {
			if info.Eligible && info.Endpoint != "" {
				offered = append(offered, info.Definition)
			}
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(offered)
	})
}

// follow makes the peers those that a replica announces now. A program calls it every few seconds, with ctx bounding one
// round; when rounds fail for longer than it can bear, it calls drop.
func follow(ctx context.Context, reg *registry.Registry, replica, url string, client *http.Client) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }()
	if err := verdict.FromResponse(response); err != nil {
		return err
	}
	var offered []registry.Definition
	if err := json.NewDecoder(io.LimitReader(response.Body, 1<<20)).Decode(&offered); err != nil {
		return err
	}
	return drop(ctx, reg, replica, offered...)
}

// drop removes what the replica had announced, but for what is given, which is added where it is new.
func drop(ctx context.Context, reg *registry.Registry, replica string, keep ...registry.Definition) error {
	gone := make(map[string]bool)
	for info := range reg.All() {
		if info.Service == Peers.Name() && strings.HasPrefix(info.Name, replica+"/") {
			gone[info.Name] = true
		}
	}
	var set registry.Update
	for _, definition := range keep {
		definition.Name = replica + "/" + definition.Name
		if gone[definition.Name] {
			delete(gone, definition.Name)
			continue
		}
		upstream, err := registryhttp.NewUpstream(definition.Endpoint, registryhttp.UpstreamOptions{Propagate: true})
		if err != nil {
			return err
		}
		p := Peers.Provider(definition)
		p.Instance = upstream
		Peers.AddTo(&set, p)
	}
	for name := range gone {
		set.Remove(Peers.Name(), name)
	}
	return reg.Update(ctx, &set)
}

func Example_replicas() {
	ctx := context.Background()
	there, err := registry.New(registry.Options{})
	if err != nil {
		panic(err)
	}
	defer func() { _ = there.Close(ctx) }()
	offer, err := LLM.Register(ctx, there, registry.Provider[Model]{Name: "model", Instance: model{"model", nil}, Endpoint: "http://10.0.0.7:8080"})
	if err != nil {
		panic(err)
	}
	server := httptest.NewServer(announce(there))
	defer server.Close()

	here, err := registry.New(registry.Options{})
	if err != nil {
		panic(err)
	}
	defer func() { _ = here.Close(ctx) }()
	for range 2 {
		fmt.Println("followed:", follow(ctx, here, "replica-2", server.URL, server.Client()))
		for info := range here.All() {
			fmt.Println("-", info.Service, info.Name, info.Endpoint)
		}
		_ = offer.MarkUnhealthy(nil) // so that the replica announces it no longer
	}
	// Output:
	// followed: <nil>
	// - peers replica-2/model http://10.0.0.7:8080
	// followed: <nil>
}

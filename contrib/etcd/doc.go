// Package registryetcd federates registries over etcd: a [Store] for package federation.
//
//	client, err := clientv3.New(registryetcd.Config("etcd-1:2379", "etcd-2:2379", "etcd-3:2379"))
//	store, err := registryetcd.NewStore(client, registryetcd.StoreOptions{})
//
//	announcer, err := federation.NewAnnouncer(federation.AnnouncerOptions{Store: store, Node: "agent-1", Offer: offer})
//	source, err := federation.NewSource(federation.SourceOptions{Store: store, Bindings: []federation.Binding{
//		federation.Dial(Agents, "grpc", dial),
//	}})
//
// How the providers are called is up to you: etcd carries no calls.
//
// # Leases
//
// A node has one lease of etcd, whatever it offers. Its only use is that etcd deletes what a process leaves behind, even where
// no other node is left to do so; whether a node lives is judged by package federation, by the record that the node
// renews. A lease that is lost, with all records of its node, removes no provider: the node is a suspect until it has
// written its records again, with a lease of etcd that is new, within half of its TTL. Cooldowns that nodes share have no lease.
//
// # The client
//
// The client is its owner's. [Config] has the settings that federation needs; without them a client may take two minutes to notice
// that a server is back. TLS, credentials and roles are those of package clientv3. A node needs a role that may read and
// write the keys with the prefix of its store.
//
// A server of etcd 3.5 or later is needed.
package registryetcd

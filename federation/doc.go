// Package federation lets the providers of one process serve the calls of others. An [Announcer] puts the providers of
// a registry out, and a [Source] brings those of other processes in, as providers of the same services: a [registry.Resolver]
// picks, explains, fails over and drains them like those of its own process.
//
//	source, err := federation.NewSource(federation.SourceOptions{
//		Store:    store, // such as that of contrib/nats or contrib/etcd
//		Node:     "billing-1",
//		Bindings: []federation.Binding{federation.Dial(LLM, "nats", dial)},
//	})
//	announcer, err := federation.NewAnnouncer(federation.AnnouncerOptions{
//		Store: store, Node: "billing-1", Offer: offer, Source: source,
//	})
//	go source.Run(ctx, reg)
//	go announcer.Run(ctx, reg)
//
// How a remote provider is called is no affair of this package: a [Binding] has the function that makes an instance of
// the service's type for an [Entry], such as a stub over a connection.
//
// # Nodes and leases
//
// A node is one process with a name of its own. It has one [Lease] in the [Store], which it renews, and a record for each provider
// that it offers. The records are never renewed, so that a fleet at rest costs five writes for each node in two TTLs.
//
// Each run of a node is an incarnation. The lease is written by compare-and-set, and the records have the incarnation in
// their keys: a process that was taken for dead, and whose name another one has taken, changes nothing that is seen.
//
// # Silence is no proof
//
// A source that hears nothing of a node asks the store. Where the store does not answer, all that is known stays: the last good
// set is better than none. Where it answers that the lease was not renewed for its TTL, the node is a suspect, and still called, for
// calls find out sooner than leases. It is removed after another half of a TTL, when the store says the same again. A store that comes
// back without its data, or with old data, makes suspects and removes nothing: announcers write again what it lacks.
//
// Times are measured with the monotonic clock of each process, and no time of one process is compared with that of
// another; a clock that is set removes nothing.
//
// # Lists
//
// A [Listing] is a source without leases: the providers of one peer over HTTP ([HTTPPeer]), or the addresses of a DNS name ([DNS]).
// What it listed last stays until it lists something else.
package federation

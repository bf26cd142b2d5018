// Package registrynats federates registries over NATS: a [Store] for package federation in a key-value bucket of JetStream, a
// [Server] that answers calls of other processes, and [NewStub], the function by which they call it.
//
//	nc, err := nats.Connect(url, registrynats.Options()...)
//	store, err := registrynats.NewStore(nc, registrynats.StoreOptions{})
//	server, err := registrynats.NewServer(nc, reg, registrynats.ServerOptions{Node: "agent-1"})
//	err = registrynats.Serve(server, Agents, "do", func(ctx context.Context, a Agent, task Task) (Result, error) { return a.Do(ctx, task) })
//
//	announcer, err := federation.NewAnnouncer(federation.AnnouncerOptions{Store: store, Node: "agent-1", Offer: server.Offer})
//	source, err := federation.NewSource(federation.SourceOptions{Store: store, Bindings: []federation.Binding{
//		federation.Dial(Agents, registrynats.Kind, func(_ context.Context, e federation.Entry) (Agent, error) {
//			return remote{registrynats.NewStub[Task, Result](nc, e, "do")}, nil
//		}),
//	}})
//
// # Calls
//
// A call is a request and its reply, by the services framework of NATS: tools for that see the nodes, their endpoints and the
// number of their requests.
// The deadline, the correlation, the trace and the idempotency key of an attempt go with it. The server makes it a
// [registry.Call] of its own on the one provider, whose breaker, limits and cooldowns are in force there, and sends back what the
// outcome means, with the delay: a provider that is rate limited there cools down here. Where no process answers, the
// request was not sent, and the next provider is asked.
//
// # The connection
//
// The connection is its owner's. [Options] has the settings that federation needs: it reconnects for ever, and writes nothing
// for later while it is away. TLS and credentials are those of package nats: [nats.Secure], [nats.UserCredentials] and its like are given to
// nats.Connect beside them. A connection that is to do several of the following needs the permissions of each, for the bucket B,
// which is "registry" by default, and the name NODE of its node:
//
//	to                          publish                                   subscribe
//	create the bucket           $JS.API.STREAM.CREATE.KV_B                _INBOX.>
//	                            $JS.API.STREAM.INFO.KV_B
//	                            $JS.API.INFO
//	watch (Source)              $JS.API.STREAM.INFO.KV_B                  _INBOX.>
//	                            $JS.API.STREAM.MSG.GET.KV_B
//	                            $JS.API.CONSUMER.CREATE.KV_B.>
//	                            $JS.API.CONSUMER.DELETE.KV_B.>
//	                            $JS.FC.KV_B.>
//	announce (Announcer)        those of watch, and                       _INBOX.>
//	                            $KV.B.lease.>
//	                            $KV.B.entry.>
//	share cooldowns             those of watch, and                       _INBOX.>
//	                            $KV.B.cooldown.>, $KV.B.opening.>
//	serve calls (Server)        _INBOX.>, or allow_responses              registry.call.NODE.>
//	                                                                      $SRV.> to be seen by tools
//	serve streams               _INBOX.>                                  registry.call.NODE.>, _INBOX.>
//	call (NewStub)              registry.call.>                           _INBOX.>
//	read streams                registry.call.>, _INBOX.>                 _INBOX.>
//	publish events on S         S.>                                       -
//
// An announcer deletes what nodes have left behind that are gone, so that it needs the records of all nodes. What is not permitted is
// a [PermissionError] with the subject: of the method that was called, or in the Cause of what goes on trying
// ([federation.Announcement], [federation.Fleet]).
//
// A server of NATS 2.11 or later is needed, with JetStream.
package registrynats

// Package admin serves a control API and a console for a registry: an operator sees which service has no provider left, which breaker
// is open, since when and because of which error, and when it is tried again; sees which provider a query is given to and
// why; and acts, from curl, a browser or the command registry, without leaving the process.
//
//	handler, err := admin.New(reg, admin.Options{Authorize: admin.Tokens(map[string]string{"ops": token}, nil)})
//	...
//	defer handler.Close()
//	mux.Handle("/ops/", http.StripPrefix("/ops", handler))
//
// # What it answers
//
// Below v1/runtime it has services with their health, providers, a snapshot with an ETag, what is picked for a query and
// would be picked without some providers, the latest picks, events as a stream, and what [Options] adds: the components of
// an orchestrator, the document of a configuration and the processes of a fleet. It drains and undrains providers, opens and resets breakers, ends
// cooldowns, marks health, and changes priority, weight and limits. v1/openapi.json describes all of it (OpenAPI 3.1), livez
// and readyz are for orchestrators. Errors are problems by RFC 9457, those for unknown paths and methods included.
//
// # Who may do what
//
// Without [Options.Authorize] everything can be read and nothing be changed. With it each request is decided upon, reads
// included, with the actor, the verb and the target of package action. Each change is recorded with its actor, refused ones
// as well, and goes to [Options.Audit], to the log and into the stream of events.
//
// Changes are based on what was read: they need If-Match, with the ETag of the provider or *, and are refused with 412
// where it has changed since, also by the program. PUT …/priority and resets do without.
//
// # What keeps others out
//
// Requests for other host names than localhost, IP addresses and [Options.Hosts] are refused, and so are changes that come
// from other origins, have another content type than application/json, unknown or repeated fields, or more than 64 KiB.
// Pages may load nothing from elsewhere, and stand in no frame. Changes have a rate for each actor, refused requests one for
// each address. Bodies, answers and streams have deadlines, so that no client holds a connection; the time until the headers
// of a request are there is up to the server: set http.Server.ReadHeaderTimeout. Serve it on loopback, a Unix socket or
// behind TLS: tokens are sent as they are.
//
// # Mounting
//
// The handler serves under the root of what it is mounted at, and writes no absolute address, so that any prefix will do, also
// one that a proxy strips. It ends its streams when the server that they came from shuts down, and with Handler.Close.
//
// The console, pages for browsers, is at the root of what the handler is mounted at; the API is below v1.
package admin

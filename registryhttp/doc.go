// Package registryhttp gives fail-over to programs that speak HTTP, without a change to their code.
//
// A [Transport] is an [http.RoundTripper] over a service whose providers are base URLs. In the
// [http.Client] of an SDK it sends each request to the best provider, and to the next one when that
// fails:
//
//	var LLM = registry.NewService[*registryhttp.Upstream]("llm")
//
//	cloud, err := registryhttp.NewUpstream("https://api.openai.com/v1", registryhttp.UpstreamOptions{
//		Header: http.Header{"Authorization": {"Bearer " + key}},
//	})
//	...
//	LLM.Register(ctx, reg, registry.Provider[*registryhttp.Upstream]{Name: "cloud", Instance: cloud})
//	...
//	transport, err := registryhttp.NewTransport(LLM.Bind(reg, registry.Query{}), registryhttp.Options{Base: "/v1"})
//	client := openai.NewClient(option.WithHTTPClient(&http.Client{Transport: transport}))
//
// # What it promises
//
//   - A request is answered by a provider as long as one can answer it: limits, cooldowns, breakers, retries,
//     budgets, hooks and reports are those of [registry.Call], and Retry-After is heeded.
//   - A request is sent a second time only where that is safe: its method is idempotent, it has an
//     Idempotency-Key, [Options.Repeatable] says so, it was not sent, or the answer says that nothing was
//     processed. Its body is the same each time.
//   - An answer is committed at the first byte of its body. What fails before goes to the next provider; what
//     fails after is an error of the body. A body passes through as it arrives, whatever its length.
//   - The end of the body is the outcome, and it is reported once: an answer that is cut or stalls counts
//     against the provider, one that its reader leaves does not.
//   - When no provider is left, the last refusal is the answer, as the server has sent it, so that an SDK
//     returns its own error for it. Without one the error is a [registry.CallError] or [registry.UnavailableError].
//   - A key goes nowhere but to its own provider: not to another one, not to where a redirect leads, and into no
//     error. See [UpstreamOptions.Credentials].
//   - No goroutine and no connection outlives the bodies of the answers, but for idle connections:
//     see [Transport.CloseIdleConnections].
//
// Turn the retries of the SDK itself off (such as option.WithMaxRetries(0)): each of them is a whole call for
// the registry. registrytest.AssertNoClientRetries finds those that are left on.
//
// # Servers
//
// [Middleware] takes the deadline, the correlation and the trace of a request into its context, and
// [UpstreamOptions.Propagate] passes them on. [Handler] and [WriteError] answer with an error as
// application/problem+json.
package registryhttp

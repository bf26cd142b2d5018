// Package registry is an embeddable service registry. A service has several providers; the registry picks one that is
// able, healthy and admitted now, and a call moves on to the next one when a provider fails.
//
//	var LLM = registry.NewService[ChatModel]("llm") // a typed key, declared once
//
//	func run(ctx context.Context, primary, backup ChatModel) (Reply, error) {
//		reg, err := registry.New(registry.Options{})
//		if err != nil {
//			return Reply{}, err
//		}
//		defer reg.Close(context.WithoutCancel(ctx)) // waits for calls in flight; ctx may have ended
//
//		for group, model := range []ChatModel{primary, backup} {
//			_, err := LLM.Register(ctx, reg, registry.Provider[ChatModel]{Instance: model, Group: group})
//			if err != nil {
//				return Reply{}, err
//			}
//		}
//
//		llm := LLM.Bind(reg, registry.Query{}) // keep it
//		return registry.Call(ctx, llm, func(ctx context.Context, m ChatModel) (Reply, error) {
//			return m.Chat(ctx, "Hello") // breaker, timeout and failover around it
//		})
//	}
//
// The folder docs/guide of the module has a guide with recipes, a table of all defaults, and a glossary.
//
// # Services and providers
//
// A [Service] is a name bound to one Go type. A [Provider] is the input of a registration: an instance of that type, or
// a factory that makes one at first need, with its capabilities, its position in the order and its policies. A
// [Registration] is the handle by which a provider is changed, inspected and removed. [Info] is a view of it at one
// moment, and [Definition] its serialisable description. [Registry.Update] makes many changes at one moment, or none.
//
// # Picking
//
// A [Query] names the capabilities that a provider must have, all of them, and optionally the handler whose own
// providers come before the global ones. The providers that match are candidates, in one order: by group, ascending;
// inside a group from [PriorityCritical] to [PriorityFallback]; then by registration, where a replacement keeps the
// position of the provider that it replaces. A group is exhausted before the next is tried.
//
// The strategy of a group picks among its eligible candidates: [StrategyFallback] the first one, [StrategyRoundRobin]
// each in turn. Package selectors has strategies for weights, load, latency, scores and sessions, and package selection
// helps to write another. [Query].Where excludes providers that do not meet a requirement, whatever the strategy.
// [Service.SetSelection] lets groups spill over before they are exhausted.
//
// A provider is eligible when its factory has not just failed, its first probe has succeeded, it is healthy, its
// breaker admits calls, and it is neither cooling down nor being removed. One function decides that, for picking and
// for [Resolver.Explain], which reports the reason against each candidate that is not picked.
//
// # Ways to use a provider
//
//   - [Call] runs a function on it, moves on to the next provider where the outcome allows that, and records every
//     outcome. Use it wherever one function can hold the work.
//   - [Resolver.Acquire] returns a [Lease] for other work. Report its outcome with [Lease.Done]; [Lease.MoveOn] goes on
//     with the next provider as a call does.
//   - Packages stream, hedge and registryhttp are built on leases: answers that arrive in pieces, a second provider when
//     the first is slow, and failover inside an HTTP client.
//   - [Resolver.Get] returns the instance for wiring, and records no outcome.
//   - [Resolver.GetAll], [Resolver.AcquireAll] and [Resolver.Each] are for all of them, [Resolver.Do] for a call without result.
//
// # Outcomes
//
// Package verdict has the one table of outcomes: which errors move on to the next provider, which the breaker counts,
// and which begin a cooldown. Providers mark their errors, or a classifier recognises them. The mistake of a caller,
// and a caller that goes away, blame no provider. An error that no classifier recognises moves on and counts.
//
// # Breaker, cooldown and health
//
// These are three signals, and none changes another. The breaker ([BreakerPolicy], [BreakerState]) follows
// the outcomes of calls. Policies can also open it at a rate of failures or of slow calls, and let the open time grow. A cooldown keeps calls
// away for the time that a provider has asked for, such as by a rate limit, and parks a provider that refuses the
// credentials. Health combines the probes of [Provider.Health] with the marks of the program
// ([Registration.MarkUnhealthy]). Package health has its states, its score and its trend, package probes has ready-made
// probes, and [Registry.Health] returns the health of the whole.
//
// # Limits, retries and budgets
//
// [LimitPolicy] bounds the attempts in progress and the rate of each caller, for one provider or for all providers of a
// [Provider.Domain], which also cool down together. A call that finds no free place moves on, and queues only when no
// provider has one. [RetryPolicy] tries a provider again before the next one is tried. Its budget bounds the attempts
// of calls beyond their first, failover included, so that an outage is not amplified.
//
// # Starting and stopping a program
//
// An [Orchestrator] starts components ([Component]) in the order of their needs, each as soon as its needs are ready. It
// registers the providers that they bring, supervises them, and stops them in reverse. A start that fails is rolled
// back. Package startup has the words for it, and package startup/process makes programs components.
//
// # Replacing and removing
//
// A provider that is replaced or removed is drained: it is picked no longer, and calls in flight go on until the time
// of the drain is over; then their contexts are cancelled. A name that is registered again begins afresh, as a new
// generation. [Registry.Close] drains all providers and leaves no goroutine behind.
//
// # Errors
//
// Sentinels are for [errors.Is]; the structs [FieldError], [UnavailableError] and [CallError] carry the details. Every
// error is one line, and unwraps to all its causes.
//
// # JSON
//
// Definitions, policies, reports and states are read back from JSON as they were written: durations as text such as
// "1m30s", or a bare 0; errors as their text, without what they match. Functions are left out.
//
// # Cost
//
// Picking takes no lock and allocates nothing, however many providers there are and however many are down. A call
// allocates its context, and not even that with [NoTimeout].
//
// # Limits of scope
//
// The package is a library inside one program. It is no message broker, service mesh, distributed transaction or
// autoscaler, and it does not translate LLM requests.
package registry

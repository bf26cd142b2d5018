// Package registry is an embeddable service registry. It picks, among several providers of a service, the best one
// that is able, healthy and admitted now, and makes calls that survive the failure of providers.
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
// # Services and providers
//
// A [Service] is a name bound to one Go type. A [Provider] is the input of a registration: an instance of that
// type, or a factory that makes one at first need, with its capabilities and its position in the order. A
// [Registration] is the handle to change, inspect and remove a provider; [Info] is the view of it at one moment,
// and [Definition] its serialisable description.
//
// # Picking
//
// A [Query] names the capabilities that are required, all of them, and optionally the handler whose own providers
// come before the global ones. The providers that match are the candidates, in one order: groups ascending, inside
// a group [PriorityCritical] to [PriorityFallback], then the order of registration, in which a provider takes over
// from the one that it replaces. A group is exhausted before the next is tried. [StrategyFallback] picks the first
// eligible candidate of a group, [StrategyRoundRobin] rotates over them. Package selectors provides strategies for
// weights, load, latency, scores and sessions; package selection helps to write another. [Query].Where leaves out
// providers that do not meet a requirement, whatever the strategy. [Service.SetSelection] lets groups spill over
// before they are exhausted.
//
// A provider is eligible when its factory has not just failed, its first probe has succeeded, it is healthy, its
// breaker admits calls, it is not cooling down and it is not being removed. One function decides that, for picking
// and for [Resolver.Explain], which reports for every candidate why it is not the one.
//
// # Five ways to use a provider
//
//   - [Call] runs a function on it, moves on to the next provider where the outcome allows that, and records every
//     outcome. Use it wherever it fits.
//   - [Resolver.Acquire] returns a [Lease] for work that does not fit into one function, such as a stream. Report
//     its outcome with [Lease.Done]; [Lease.MoveOn] goes on with the next provider as a call does.
//   - Packages stream and hedge are built on leases: answers that arrive in pieces, and a second provider when the
//     first is slow.
//   - [Resolver.Get] returns the instance for wiring, and records nothing.
//   - [Resolver.GetAll], [Resolver.AcquireAll] and [Resolver.Each] are for all of them, [Resolver.Do] for a call without result.
//
// # Outcomes
//
// Package verdict holds the one table of outcomes: which errors move on to the next
// provider, which ones the breaker counts, which ones begin a cooldown. Providers wrap
// their errors or register a classifier. A caller's mistake and a caller that goes away
// blame no provider. An error that no classifier recognises fails over and counts.
//
// # Breaker, cooldown and health
//
// These are three independent signals. The breaker of a provider ([BreakerPolicy])
// follows the outcomes of calls: failures in a row open it, after the recovery time a few
// trials are admitted, and enough successful ones close it.
//
//	        failures in a row reach the threshold
//	closed ───────────────────────────────────────▶ open ◀──┐
//	  ▲                                               │     │
//	  │                      recovery timeout is over │     │ a trial fails
//	  │                                               ▼     │
//	  └──────────────────────────────────────────── half-open
//	              enough trials succeed
//
// Policies can also open it at a rate of failures or of slow outcomes, and let the open time grow. A cooldown keeps
// calls away for the time that a provider asked for, such as by a rate limit, or parks a provider that refuses this
// client's credentials. Health combines the probes of [Provider.Health] with the marks of the program
// ([Registration.MarkUnhealthy]). Package health has its states, its score and its trend, package probes has
// ready-made probes, and [Registry.Health] returns the health of the whole.
//
// # Limits, retries and budgets
//
// [LimitPolicy] bounds the attempts in progress and the rate of each caller, for one provider or for all of a
// [Provider.Domain], whose members also cool down together. A call that finds no place free moves on, and queues only
// when no provider has one. [RetryPolicy] tries a provider again before the next one is asked. Its budget bounds
// all attempts of a call beyond the first, failover included, so that an outage is not amplified.
//
// # Starting and stopping a program
//
// An [Orchestrator] starts components ([Component]) in the order of their needs, each as soon as these are ready,
// registers the providers that they bring, supervises them and stops them in reverse. A start that fails is rolled
// back. Package startup has the words: needs, policies, plan, report, events.
//
// # Replacing and removing
//
// Replacing and removing a provider drains it: new picks stop at once, and calls in flight go on until the drain's
// time is over, when their contexts are cancelled. The same name registered again starts afresh, as a new
// generation. [Registry.Close] drains all providers and leaves no goroutine behind.
//
// # Errors
//
// Sentinels are for [errors.Is]; the structs [FieldError], [UnavailableError], [CallError]
// and [verdict.PanicError] carry the details. Every error is one line, and unwraps to every cause.
//
// # JSON
//
// Definitions, policies, reports and states are read back from JSON as they were written: durations as text such as
// "1m30s", or a bare 0; errors as their text, without what they match. Functions are left out.
//
// # Cost
//
// Picking takes no lock and allocates nothing, however many providers there are and however many of them are down.
// A call allocates its context, and not even that with [NoTimeout].
//
// # Limits of scope
//
// The package is a library inside one program. It is no message broker, service mesh,
// distributed transaction or autoscaler, and it does not translate LLM requests.
package registry

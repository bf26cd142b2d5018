// Package registry is an embeddable service registry: it picks, among several
// providers of a service, the best one that is able, healthy and admitted now,
// and makes calls that survive the failure of providers by themselves.
//
//	var LLM = registry.NewService[ChatModel]("llm") // a typed key, declared once
//
//	reg, err := registry.New(registry.Options{})
//	defer reg.Close(context.WithoutCancel(ctx)) // it waits for calls in flight; ctx may have ended
//
//	_, err = LLM.Register(ctx, reg, registry.Provider[ChatModel]{Name: "primary", Instance: primary})
//	_, err = LLM.Register(ctx, reg, registry.Provider[ChatModel]{Name: "backup", Instance: backup, Group: 1})
//
//	llm := LLM.Bind(reg, registry.Query{Require: []string{"tools"}}) // keep it
//	reply, err := registry.Call(ctx, llm, func(ctx context.Context, m ChatModel) (Reply, error) {
//		return m.Chat(ctx, prompt) // breaker, timeout and failover around it
//	})
//
// # Services and providers
//
// A [Service] is a name bound to one Go type. A [Provider] is what goes in: an
// instance of that type, or a factory that makes one at first need, with the
// capabilities it has and its place in the order. What comes back is a
// [Registration], the handle to change, inspect and remove it; [Info] is its
// read-only view and [Definition] its serialisable description.
//
// # Who is picked
//
// A [Query] names the capabilities that are required, all of them, and
// optionally the handler whose own providers come before the global ones. Those
// that match are the candidates, in one order: groups ascending, inside a group
// [PriorityCritical] to [PriorityFallback], then the order of registration. A
// group is exhausted before the next is tried. [StrategyFallback] takes the
// first eligible candidate of a group, [StrategyRoundRobin] rotates over them;
// package selectors has strategies that heed weights, load, latency, scores and
// sessions, and package selection what is needed to write one. [Query].Where leaves
// out who does not meet a requirement, whatever the strategy, and
// [Service.SetSelection] lets groups spill over before they are exhausted.
//
// Eligible is who is ready (its factory has not just failed, and a probe of it has
// succeeded), healthy, admitted by its breaker, not cooling down and not leaving. One function decides that,
// for picking and for [Resolver.Explain], which says of every candidate why it
// is not the one.
//
// # Five ways to use what was picked
//
//   - [Call] runs a function on it, moves on to the next provider where the
//     outcome allows that, and records every outcome. Use it wherever it fits.
//   - [Resolver.Acquire] returns a [Lease] for what does not fit into one
//     function, such as a stream; its outcome is reported with [Lease.Done], and
//     [Lease.MoveOn] goes on with the next provider as a call does.
//   - Packages stream and hedge stand on leases: answers that come piece by piece,
//     and a second provider when the first takes long.
//   - [Resolver.Get] returns the instance for wiring, and records nothing.
//   - [Resolver.Many] and [Resolver.AcquireMany] return all of them.
//
// # What an outcome means
//
// Package verdict holds the one table: which errors move on to the next
// provider, which ones the breaker counts, which ones begin a cooldown.
// Providers tell by wrapping their errors or through a classifier. A caller's
// mistake blames no provider, a caller that goes away blames nobody, and what
// nobody recognises fails over and counts.
//
// # Breaker, cooldown and health
//
// These are three signals, and none feeds another. The breaker of a provider
// ([BreakerPolicy]) learns from calls that blame it: failures in a row open it,
// after the recovery time a few trials are admitted, and enough good ones close
// it.
//
//	        failures in a row reach the threshold
//	closed ───────────────────────────────────────▶ open ◀──┐
//	  ▲                                               │     │
//	  │                      recovery timeout is over │     │ a trial fails
//	  │                                               ▼     │
//	  └──────────────────────────────────────────── half-open
//	              enough trials succeed
//
// Policies can also look at the rate of failures or of slow outcomes, and let the
// open time grow. A cooldown is the time for which a provider asked to be left alone, by a rate
// limit, or that it is parked because it refuses this client's credentials.
// Health is what the probes of [Provider.Health] and the program
// ([Registration.MarkUnhealthy]) say of a provider: package health has its states,
// its score and its trend, package probes ready-made probes, and [Registry.Health]
// the health of the whole.
//
// # Limits, retries and budgets
//
// [LimitPolicy] bounds the attempts in progress and the rate of each caller, for
// one provider or for all of a [Provider.Domain], which also cool down together.
// A call that finds no place moves on, and queues only when there is none
// anywhere. [RetryPolicy] tries a provider again before the next one is asked;
// its budget bounds whatever goes beyond the first attempt of a call, failover
// included, so that an outage is not amplified.
//
// # Starting and stopping a program
//
// An [Orchestrator] starts components ([Component]) in the order of what they need,
// each as soon as that is ready, registers the providers they bring, watches over
// them and stops them in reverse; a start that fails is rolled back. Package startup
// has its words: needs, policies, plan, report, events.
//
// # Coming and going
//
// Replacing and removing a provider drains it: new picks stop at once, calls in
// flight go on, and are told by their context when the drain's time is over.
// The same name registered again starts afresh, as a new generation.
// [Registry.Close] drains everything and leaves no goroutine behind.
//
// # Errors
//
// A sentinel says which error it is, a struct what exactly: [FieldError],
// [UnavailableError], [CallError], [PanicError]. Every error is one line, and
// [errors.Is] and [errors.As] reach every cause.
//
// # What it costs
//
// Picking takes no lock and allocates nothing, however many providers there
// are and however many of them are down. A call allocates its context, and not
// even that with [NoTimeout].
//
// # What it is not
//
// It is no message broker, no service mesh, no distributed transaction, no
// autoscaler, and it translates no LLM requests. It is a library inside one
// program.
package registry

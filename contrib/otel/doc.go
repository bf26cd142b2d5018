// Package registryotel shows a registry to OpenTelemetry: its measurements as metrics, its calls and their attempts as
// spans, and its changes as log records.
//
//	observer, err := registryotel.Observe(reg, registryotel.Options{
//		TracerProvider: tracers, MeterProvider: meters, LoggerProvider: loggers,
//	})
//
// It uses the API of OpenTelemetry alone, and the providers that it is given: no global one is read or set.
//
// # Spans
//
// A call is a span of kind INTERNAL, "call SERVICE", and each of its attempts a child of it, "attempt PROVIDER". The context of
// an attempt has its span, so that the spans of the provider's own client are below it. A hedge is linked to the attempts
// beside which it began. The leases of one call are one call, and their attempts end with their outcomes.
//
//	attribute                   on        value
//	registry.service.name       both      the service
//	registry.handler            call      the handler of the query
//	registry.caller             call      the accountable caller
//	registry.call.attempts      call      how many attempts there were
//	registry.call.failover      call      whether another provider has answered than the one that was asked first
//	registry.skipped            call      of one that has failed: the providers that were not tried, and why, 16 at most
//	registry.provider.name      both      the provider; of a call the one that has answered
//	registry.attempt.reason     attempt   why it was made, as in package reason
//	registry.attempt.delay      attempt   the seconds for which it was kept waiting
//	registry.attempt.trial      attempt   its breaker was half-open
//	registry.attempt.mock       attempt   its provider is a mock
//	registry.class              both      the outcome, as in package verdict
//	error.type                  both      the same, where it is not an answer
//
// A call whose context has a span that is not recorded is not traced, and costs little more than without an observer. One
// without a span in its context begins a trace, if the sampler wants it; see [Options.Roots].
//
// The place in the trace is given to the registry as well ([WithTrace]): lines of its log have trace_id and span_id, and
// registryhttp and contrib/grpc send it on where they propagate.
//
// # Metrics
//
// All instruments are observable: a reader of metrics reads [registry.Registry.Metrics], and calls pay nothing. As
// OpenTelemetry has no observable histograms, distributions are counters of durations with a bound le, as of
// Prometheus: the instruments registry.call.durations and registry.attempt.durations, beside their count and sum.
// The words of labels are those of the packages verdict, reason, event, health and status. Where a provider is replaced, its
// counters begin at 0 again, which readers with cumulative temporality understand.
//
// # Log records
//
// Each event is a record with its name, such as registry.breaker_opened, and the level that the registry's own log has. Lines about
// calls are written by [registry.Options], whose Slog may be a logger that is bridged to OpenTelemetry.
package registryotel

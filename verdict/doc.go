// Package verdict defines the meaning of the outcome of an attempt.
//
// An outcome has a [Class], and a class has one [Rule]: whether the same provider may be tried
// again, whether the next provider may be tried, what the circuit breaker records and whether
// the provider cools down. The rules are data, all of them in one table; the registry applies
// them and decides nothing on its own.
//
// Providers state the class of an error in one of three ways, from the most direct to the most
// general:
//
//   - they wrap it: [NotSent], [Permanent], [Cannot], [RateLimited], [Fatal], [Ignore],
//     [As];
//   - the error has an HTTP status, a code or a type in its methods or fields, as those of most
//     SDKs do, and where the server gave one a delay: see [Of]. [FromResponse] makes such an error, and
//     [ErrorTransport] does for a client whose own errors lack these;
//   - a [Classifier] given to the registry or to the provider recognises it: one of yours, a
//     [Map] of your errors, [HTTP] or [LLM].
//
// An error that none of these recognises is [ClassUnknown]: it fails over and it counts.
package verdict

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
//   - they wrap it: [NotSent], [Permanent], [RateLimited], [Fatal], [Ignore], [As];
//   - the error exposes an HTTP status (HTTPStatusCode() int) and, where the server gave one, a
//     delay (RetryAfter() time.Duration);
//   - a [Classifier] given to the registry or to the provider recognises it.
//
// An error that none of these recognises is [ClassUnknown]: it fails over and it counts.
package verdict

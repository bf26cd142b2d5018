// Package verdict says what the outcome of an attempt means.
//
// An outcome has a [Class], and a class has one [Rule]: whether the same
// provider may be tried again, whether the next provider may be asked, what the
// circuit breaker learns and whether the provider is left alone for a while.
// The rules are data, all of them in one table; the registry applies them and
// decides nothing on its own.
//
// Providers tell the class of an error in one of three ways, from the most
// direct to the most general:
//
//   - they wrap it: [NotSent], [Permanent], [RateLimited], [Fatal], [Ignore], [As];
//   - the error exposes an HTTP status (HTTPStatusCode() int) and, where the
//     server gave one, a delay (RetryAfter() time.Duration);
//   - a [Classifier] given to the registry or to the provider recognises it.
//
// Whatever nobody recognises is [ClassUnknown]: it fails over and it counts.
package verdict

package registry

import (
	"time"

	"github.com/capreg/registry/internal/option"
)

// CallOption varies one call or lease. Options cost no allocation.
type CallOption struct{ set optionSet }

// optionSet has the options of a call.
type optionSet = option.Set[CallReport]

// OnceOnly marks a call with side effects: once its function was entered, it is never run a
// second time, on no provider, unless the error says that nothing was processed, such as a
// refused connection, a rate limit, refused credentials or [verdict.Cannot]: see
// [verdict.Rule]. Before that the call is free to move on. See also [IdempotencyKey].
func OnceOnly() CallOption { return CallOption{optionSet{OnceOnly: true}} }

// AttemptTimeout replaces the attempt timeout of the provider that is asked, and the expiry of a lease. It must
// be more than zero; see also [NoTimeout].
func AttemptTimeout(timeout time.Duration) CallOption {
	return CallOption{optionSet{Timed: true, Timeout: timeout}}
}

// WaitForCooldown lets a call that has no other provider left wait for the end of a cooldown. It waits for the first
// provider that comes back within the caller's deadline, and asks it, also where that one has turned this call away
// before: at the end of its cooldown, or when the caller's own rate ([LimitPolicy]) has an attempt left, which is
// then reserved for the call. A call in a queue for places keeps its turn through a cooldown, and, within MaxWait,
// while a breaker is open or the provider unhealthy.
//
// Those that wait for the same moment go one after the other, in the order in which they began to wait, within
// a tenth of their wait (100 ms to 5 s). The time left bounds the wait, not a number of tries; a call that is
// turned away again and again pauses for up to a second. Give such a call a deadline; without one it waits for
// as long as the server asks. Default: it fails at once, and its error says when to come back.
func WaitForCooldown() CallOption { return CallOption{optionSet{Wait: true}} }

// ReportTo has the report of the call written to r when the call returns; for a lease, when it is reported or
// expires. r must not be read before.
func ReportTo(r *CallReport) CallOption { return CallOption{optionSet{Report: r}} }

// MaxParallel bounds the attempts of [Resolver.Each] that run at once; other calls do not heed it. It must be more
// than zero. Default: all at once.
func MaxParallel(attempts int) CallOption {
	return CallOption{optionSet{Bounded: true, MaxParallel: attempts}}
}

// Caller names the party that is answerable for the call: rates of [LimitPolicy] are counted and
// [Options.Authorize] decides for each caller. The name has at most 256 bytes. Default: the query's handler.
func Caller(name string) CallOption { return CallOption{optionSet{Caller: name}} }

// IsOnceOnly reports whether the option is [OnceOnly].
func (o CallOption) IsOnceOnly() bool { return o.set.OnceOnly }

// IsReportTo reports whether the option is [ReportTo].
func (o CallOption) IsReportTo() bool { return o.set.Report != nil }

// String returns the name of the option and its value, such as "OnceOnly".
func (o CallOption) String() string { return o.set.String() }

func mergeOptions(options []CallOption) (merged optionSet, err error) {
	for i := range options {
		merged.Merge(&options[i].set)
	}
	return merged, asInvalid(merged.Check())
}

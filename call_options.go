package registry

import (
	"fmt"
	"time"

	"github.com/capreg/registry/internal/check"
)

// CallOption varies one call or lease. Options cost no allocation.
type CallOption struct {
	onceOnly bool
	timed    bool
	wait     bool
	timeout  time.Duration
	caller   string
	report   *CallReport
}

// OnceOnly marks a call with side effects: once its function was entered, it is never run a
// second time, on no provider, unless the error says that nothing was processed, such as a
// refused connection, a rate limit, refused credentials or [verdict.Cannot]: see
// [verdict.Rule]. Before that the call is free to move on. See also [IdempotencyKey].
func OnceOnly() CallOption { return CallOption{onceOnly: true} }

// AttemptTimeout replaces the attempt timeout of the provider that is asked, and the expiry of a lease. It must
// be more than zero; see also [NoTimeout].
func AttemptTimeout(timeout time.Duration) CallOption {
	return CallOption{timed: true, timeout: timeout}
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
func WaitForCooldown() CallOption { return CallOption{wait: true} }

// ReportTo has the report of the call written to r when the call returns; for a lease, when it is reported or
// expires. r must not be read before.
func ReportTo(r *CallReport) CallOption { return CallOption{report: r} }

// Caller names the party that is answerable for the call: rates of [LimitPolicy] are counted and
// [Options.Authorize] decides for each caller. The name has at most 256 bytes. Default: the query's handler.
func Caller(name string) CallOption { return CallOption{caller: name} }

// IsOnceOnly reports whether the option is [OnceOnly].
func (o CallOption) IsOnceOnly() bool { return o.onceOnly }

// IsReportTo reports whether the option is [ReportTo].
func (o CallOption) IsReportTo() bool { return o.report != nil }

// String returns the name of the option and its value, such as "OnceOnly".
func (o CallOption) String() string {
	switch {
	case o.onceOnly:
		return "OnceOnly"
	case o.timed:
		return fmt.Sprintf("AttemptTimeout(%v)", o.timeout)
	case o.wait:
		return "WaitForCooldown"
	case o.caller != "":
		return fmt.Sprintf("Caller(%q)", o.caller)
	case o.report != nil:
		return "ReportTo"
	}
	return "none"
}

func mergeOptions(options []CallOption) (merged CallOption, err error) {
	for i := range options {
		option := &options[i]
		merged.onceOnly = merged.onceOnly || option.onceOnly
		merged.wait = merged.wait || option.wait
		if option.timed {
			merged.timed, merged.timeout = true, option.timeout
		}
		if option.caller != "" {
			merged.caller = option.caller
		}
		if option.report != nil {
			merged.report = option.report
		}
	}
	if merged.timed && merged.timeout <= 0 {
		return merged, invalid("AttemptTimeout", merged.timeout, "more than 0, or NoTimeout")
	}
	if v := check.OptionalName("Caller", merged.caller); v != nil {
		return merged, asInvalid(v)
	}
	return merged, nil
}

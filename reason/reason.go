// Package reason holds the words that say why: why a provider is or is not given a call ([Code]), and why an attempt
// was made ([Why]).
//
// They are stable, and the same in explanations, reports, errors, logs and metrics. They are strings, so that they may be
// labels and keys as they are; compare them with the constants. The package has no state.
package reason

// Code says in one word how a provider stands to a look-up or call: why it may be given it, or what is in the way.
type Code string

// Codes of providers that may be given a call.
const (
	Eligible Code = "eligible"
	Trial    Code = "trial" // the call would be a trial of its half-open breaker
)

// Codes of what keeps calls away from a provider.
const (
	Closed      Code = "closed"           // it was removed, or its registry is closing
	Overridden  Code = "overridden"       // a test has replaced it
	MocksOnly   Code = "mocks_only"       // it is no mock, and only mocks are picked
	NoTraffic   Code = "no_traffic"       // its weight is 0
	Unhealthy   Code = "unhealthy"        // its probes fail, or it was marked so
	Starting    Code = "starting"         // no probe of it has succeeded yet
	BreakerOpen Code = "breaker_open"     // its breaker is open
	TrialsFull  Code = "trial_slots_full" // its breaker is half-open, with as many trials as it admits
	CoolingDown Code = "cooling_down"     // it asked to be left alone for a time
	Parked      Code = "parked"           // it cools down for long, for a key, a quota or an account
	NotReady    Code = "not_ready"        // its factory has failed
	AtCapacity  Code = "at_capacity"      // all its places are taken
)

// Codes of what a query does not accept.
const (
	CapabilityMissing Code = "capability_missing" // it does not declare a required capability
	CapabilityOut     Code = "capability_out"     // the probe of a required capability fails
	TooExpensive      Code = "too_expensive"
	TooOld            Code = "too_old"
	TagMissing        Code = "tag_missing"
	OtherRegion       Code = "other_region"
	Excluded          Code = "excluded"
	TooSlow           Code = "too_slow"
)

// Codes of what turns one call away from a provider that looked eligible.
const (
	Denied      Code = "denied"             // by the authoriser
	Throttled   Code = "throttled"          // the caller has used up its rate there
	BudgetSpent Code = "retry_budget_spent" // it bears no further attempt of calls that have failed elsewhere
)

// Codes of look-ups that saw no provider at all, in [selection.Analytics]; [Closed] is one of them, too.
const (
	ContextEnded   Code = "context_ended"
	UnknownService Code = "unknown_service"
	NoneInSight    Code = "none_in_sight" // none is visible to the handler of the query
)

// Codes returns all codes, in the order of the documentation.
func Codes() []Code {
	return []Code{
		Eligible, Trial,
		Closed, Overridden, MocksOnly, NoTraffic, Unhealthy, Starting, BreakerOpen, TrialsFull, CoolingDown, Parked, NotReady, AtCapacity,
		CapabilityMissing, CapabilityOut, TooExpensive, TooOld, TagMissing, OtherRegion, Excluded, TooSlow,
		Denied, Throttled, BudgetSpent,
		ContextEnded, UnknownService, NoneInSight,
	}
}

// Why says in a word or two why an attempt of a call was made.
type Why string

// The reasons for an attempt.
const (
	First      Why = "first"       // the first of its call
	Failover   Why = "failover"    // another provider has failed
	Retry      Why = "retry"       // the same provider has failed
	Queued     Why = "queued"      // the call has waited for a place
	Waited     Why = "waited"      // the call has waited for the end of a cooldown, or of its own rate limit
	All        Why = "all"         // all providers are asked
	Hedge      Why = "hedge"       // beside another attempt in progress
	LastResort Why = "last resort" // no provider is eligible
)

// Whys returns all reasons for an attempt, in the order of the documentation.
func Whys() []Why {
	return []Why{First, Failover, Retry, Queued, Waited, All, Hedge, LastResort}
}

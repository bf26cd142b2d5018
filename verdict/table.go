package verdict

// Retry says whether the same provider may be tried again.
type Retry uint8

// The answers to "retry here?".
const (
	// RetryNo is never.
	RetryNo Retry = iota
	// RetryYes is within the provider's retry policy and budget.
	RetryYes
	// RetryWhenWaiting is only inside the caller's deadline, when nobody else
	// is left and waiting was asked for.
	RetryWhenWaiting
)

// Next says whether the next provider may be asked.
type Next uint8

// The answers to "next provider?".
const (
	// NextNo ends the call.
	NextNo Next = iota
	// NextYes asks the next provider, except for a once-only call whose
	// function was entered.
	NextYes
	// NextAlways asks the next provider even for a once-only call: nothing was sent.
	NextAlways
	// NextFree asks the next provider without sleep, budget or record: the
	// function was not entered.
	NextFree
	// NextBeforeFirstItem asks the next provider as long as nothing was handed over.
	NextBeforeFirstItem
	// NextLargerWindow asks only providers that declare a larger window.
	NextLargerWindow
	// NextWhenAllowed asks the next provider only when the query allows it.
	NextWhenAllowed
	// NextByOption asks the next provider only when panics are turned into errors.
	NextByOption
)

// Blame says what the circuit breaker learns.
type Blame uint8

// What a breaker learns from an outcome.
const (
	// BlameNeutral is neither success nor failure; a trial slot is given back.
	BlameNeutral Blame = iota
	// BlameSuccess is an answer in time, whatever it says.
	BlameSuccess
	// BlameFailure is the provider's fault.
	BlameFailure
	// BlameWhenSlow is a failure under a slow-call policy, else a success.
	BlameWhenSlow
	// BlameWhenLong is a failure when the attempt ran for half of its own
	// timeout or more, else neutral.
	BlameWhenLong
	// BlameNotRecorded is for attempts that never were.
	BlameNotRecorded
)

// Cooldown says how long the provider is left alone.
type Cooldown uint8

// The kinds of cooldown.
const (
	// CooldownNone leaves the provider as it is.
	CooldownNone Cooldown = iota
	// CooldownReset ends the growth of later cooldowns; it never shortens one.
	CooldownReset
	// CooldownShort is for overload: from 5 to 30 s, growing.
	CooldownShort
	// CooldownAsked is the delay the server asked for and up to a tenth more, else
	// from 2 s to 1 min, growing.
	CooldownAsked
	// CooldownLong is for what an operator must mend: from 5 min to 1 h, growing, with
	// an event.
	CooldownLong
	// CooldownModel is for a provider that does not have what was asked for: from 1 to
	// 10 min, growing.
	CooldownModel
)

// Tally says which counter of the provider the outcome moves. Each attempt
// moves exactly one, so that attempts = successes + failures + ignored + limited.
type Tally uint8

// The counters of a provider.
const (
	// TallyNone is for attempts that never were.
	TallyNone Tally = iota
	// TallySuccess counts answers, also the ones that say no.
	TallySuccess
	// TallyFailure counts what is the provider's fault.
	TallyFailure
	// TallyIgnored counts what says nothing about the provider.
	TallyIgnored
	// TallyLimited counts refusals for load, limits and credentials.
	TallyLimited
)

// Rule is one row of the table: all that follows from a class.
type Rule struct {
	// RetryHere says whether the same provider may be tried again.
	RetryHere Retry
	// Next says whether the next provider may be asked.
	Next Next
	// Blame says what the circuit breaker learns.
	Blame Blame
	// Cooldown says how long the provider is left alone.
	Cooldown Cooldown
	// Tally says which counter of the provider moves; where Blame depends on
	// the attempt, a failure moves the failures instead.
	Tally Tally
}

type row struct {
	name string
	rule Rule
}

// table is the one place where the meaning of an outcome is decided.
//
// A failure after the first item of a stream keeps its class's blame and
// cooldown and never moves on; whoever hands the items over knows that.
//
//nolint:gochecknoglobals // immutable data
var table = [classCount]row{
	ClassUnknown:        {"unknown", Rule{RetryYes, NextYes, BlameFailure, CooldownNone, TallyFailure}},
	ClassSuccess:        {"success", Rule{RetryNo, NextNo, BlameSuccess, CooldownReset, TallySuccess}},
	ClassSlow:           {"slow success", Rule{RetryNo, NextNo, BlameWhenSlow, CooldownNone, TallySuccess}},
	ClassCancelled:      {"cancelled", Rule{RetryNo, NextNo, BlameNeutral, CooldownNone, TallyIgnored}},
	ClassCallerDeadline: {"caller's deadline", Rule{RetryNo, NextNo, BlameWhenLong, CooldownNone, TallyIgnored}},
	ClassAttemptTimeout: {"attempt timeout", Rule{RetryNo, NextYes, BlameFailure, CooldownNone, TallyFailure}},
	ClassStalled:        {"stalled", Rule{RetryNo, NextBeforeFirstItem, BlameFailure, CooldownNone, TallyFailure}},
	ClassNotSent:        {"not sent", Rule{RetryYes, NextAlways, BlameFailure, CooldownNone, TallyFailure}},
	ClassTransport:      {"transport", Rule{RetryYes, NextYes, BlameFailure, CooldownNone, TallyFailure}},
	ClassServerError:    {"server error", Rule{RetryYes, NextYes, BlameFailure, CooldownNone, TallyFailure}},
	ClassUnavailable:    {"unavailable", Rule{RetryNo, NextYes, BlameFailure, CooldownShort, TallyFailure}},
	ClassOverloaded:     {"overloaded", Rule{RetryNo, NextYes, BlameNeutral, CooldownShort, TallyLimited}},
	ClassRateLimited:    {"rate limited", Rule{RetryWhenWaiting, NextYes, BlameNeutral, CooldownAsked, TallyLimited}},
	ClassFatal:          {"fatal", Rule{RetryNo, NextYes, BlameNeutral, CooldownLong, TallyLimited}},
	ClassNotFound:       {"not found there", Rule{RetryNo, NextYes, BlameNeutral, CooldownModel, TallyIgnored}},
	ClassTooLong:        {"too long for it", Rule{RetryNo, NextLargerWindow, BlameSuccess, CooldownNone, TallySuccess}},
	ClassRefused:        {"refused content", Rule{RetryNo, NextWhenAllowed, BlameSuccess, CooldownNone, TallySuccess}},
	ClassBadRequest:     {"bad request", Rule{RetryNo, NextNo, BlameSuccess, CooldownNone, TallySuccess}},
	ClassCannot:         {"cannot", Rule{RetryNo, NextFree, BlameNotRecorded, CooldownNone, TallyNone}},
	ClassMalformed:      {"malformed", Rule{RetryNo, NextBeforeFirstItem, BlameFailure, CooldownNone, TallyFailure}},
	ClassPanic:          {"panic", Rule{RetryNo, NextByOption, BlameFailure, CooldownNone, TallyFailure}},
	ClassExit:           {"exit", Rule{RetryNo, NextNo, BlameFailure, CooldownNone, TallyFailure}},
	ClassHedgeLoser:     {"hedge loser", Rule{RetryNo, NextNo, BlameNeutral, CooldownNone, TallyIgnored}},
	ClassForgotten:      {"forgotten", Rule{RetryNo, NextNo, BlameFailure, CooldownNone, TallyFailure}},
	ClassRemoved:        {"removed", Rule{RetryNo, NextYes, BlameNeutral, CooldownNone, TallyIgnored}},
	ClassIgnored:        {"ignored", Rule{RetryNo, NextNo, BlameNeutral, CooldownNone, TallyIgnored}},
}

package verdict

// Retry reports whether the same provider may be tried again.
type Retry uint8

// The values of Retry.
const (
	// RetryNo never tries the provider again.
	RetryNo Retry = iota
	// RetryYes tries it again within the provider's retry policy and budget.
	RetryYes
	// RetryWhenWaiting tries it again only within the caller's deadline, when no other provider
	// is left and the caller asked for waiting.
	RetryWhenWaiting
)

// Next reports whether the next provider may be tried.
type Next uint8

// The values of Next.
const (
	// NextNo ends the call.
	NextNo Next = iota
	// NextYes tries the next provider, except for a once-only call whose function was entered.
	NextYes
	// NextAlways tries the next provider even for a once-only call: nothing was sent.
	NextAlways
	// NextFree tries the next provider without delay, budget or record: the function was not
	// entered.
	NextFree
	// NextBeforeFirstItem tries the next provider as long as no item was handed over.
	NextBeforeFirstItem
	// NextLargerWindow tries only providers that declare a larger window.
	NextLargerWindow
	// NextWhenAllowed tries the next provider only when the query allows it.
	NextWhenAllowed
	// NextByOption tries the next provider only when panics are turned into errors.
	NextByOption
)

// Blame is the result that the circuit breaker records.
type Blame uint8

// The values of Blame.
const (
	// BlameNeutral is neither success nor failure; a trial slot is given back.
	BlameNeutral Blame = iota
	// BlameSuccess is an answer in time, whatever its content.
	BlameSuccess
	// BlameFailure is the provider's fault.
	BlameFailure
	// BlameWhenSlow is a failure under a slow-call policy, else a success.
	BlameWhenSlow
	// BlameWhenLong is a failure when the attempt ran for at least the timeout that was chosen
	// for it, or for far longer than the provider's answers take, else neutral. Where another
	// provider could have been asked it is as BlameWhenHanging.
	BlameWhenLong
	// BlameNotRecorded is for attempts that did not take place.
	BlameNotRecorded
	// BlameWhenHanging is neutral, until attempts in a row that ran longer than the provider's
	// answers take have ended so, as many as the breaker's threshold: then they are failures.
	BlameWhenHanging
)

// Cooldown is the kind of pause that the provider gets.
type Cooldown uint8

// The kinds of cooldown.
const (
	// CooldownNone leaves the provider as it is.
	CooldownNone Cooldown = iota
	// CooldownReset ends the growth of later cooldowns; it never shortens one.
	CooldownReset
	// CooldownShort is for overload: from 5 to 30 s, growing.
	CooldownShort
	// CooldownAsked is the delay the server asked for plus up to a tenth, else from 2 s to 1
	// min, growing.
	CooldownAsked
	// CooldownLong is for causes that only an operator can fix: from 5 min to 1 h, growing,
	// with an event.
	CooldownLong
	// CooldownModel is for a provider that does not have the requested model or resource: from
	// 1 to 10 min, growing.
	CooldownModel
)

// Tally names the counter of the provider that the outcome increments. Each attempt increments
// exactly one, so that attempts = successes + failures + ignored + limited.
type Tally uint8

// The counters of a provider.
const (
	// TallyNone is for attempts that did not take place.
	TallyNone Tally = iota
	// TallySuccess counts answers, including rejections of the request.
	TallySuccess
	// TallyFailure counts failures of the provider.
	TallyFailure
	// TallyIgnored counts outcomes that say nothing about the provider.
	TallyIgnored
	// TallyLimited counts refusals for load, limits and credentials.
	TallyLimited
)

// Rule is one row of the table: everything that follows from a class.
type Rule struct {
	// RetryHere reports whether the same provider may be tried again.
	RetryHere Retry
	// Next reports whether the next provider may be tried.
	Next Next
	// Blame is the result that the circuit breaker records.
	Blame Blame
	// Cooldown is the kind of pause that the provider gets.
	Cooldown Cooldown
	// Tally is the counter that is incremented; where Blame depends on the attempt, a failure
	// increments the failures instead.
	Tally Tally
}

type row struct {
	name string
	rule Rule
}

// table is the one place where the meaning of an outcome is decided.
//
// A failure after the first item of a stream keeps the blame and cooldown of its class and
// never fails over; the code that hands over the items enforces that.
//
//nolint:gochecknoglobals // immutable data
var table = [classCount]row{
	ClassUnknown:        {"unknown", Rule{RetryYes, NextYes, BlameFailure, CooldownNone, TallyFailure}},
	ClassSuccess:        {"success", Rule{RetryNo, NextNo, BlameSuccess, CooldownReset, TallySuccess}},
	ClassSlow:           {"slow success", Rule{RetryNo, NextNo, BlameWhenSlow, CooldownNone, TallySuccess}},
	ClassCancelled:      {"cancelled", Rule{RetryNo, NextNo, BlameNeutral, CooldownNone, TallyIgnored}},
	ClassCallerDeadline: {"caller's deadline", Rule{RetryNo, NextNo, BlameWhenLong, CooldownNone, TallyIgnored}},
	ClassCut:            {"cut", Rule{RetryNo, NextYes, BlameWhenHanging, CooldownNone, TallyIgnored}},
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

package verdict

import "github.com/capreg/registry/internal/jsonform"

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
	// NextYes tries the next provider.
	NextYes
	// NextFree tries the next provider without delay, budget or record: the function was not
	// entered.
	NextFree
	// NextBeforeFirstItem tries the next provider as long as no item was handed over.
	NextBeforeFirstItem
	// NextLargerWindow tries only providers whose window is larger, or not declared.
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
	// BlameWhenHanging is neutral for a first attempt, and a failure from the breaker's
	// threshold on. It counts attempts in a row that ran longer than the provider's answers
	// take.
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
	// CooldownModel is for a provider that does not have its model any more: from 1 to 10 min,
	// growing.
	CooldownModel
	// CooldownThird is CooldownLong at the third of such outcomes in a row, on different calls
	// with no answer between; the first two are only counted.
	CooldownThird
)

// Scope reports what a pause covers.
type Scope uint8

// The scopes of a pause.
const (
	// ScopeDefault is, in a [Verdict], the scope of its class.
	ScopeDefault Scope = iota
	// ScopeProvider is the provider alone.
	ScopeProvider
	// ScopeDomain is every provider of its failure domain.
	ScopeDomain
)

var scopeNames = [...]string{"default", "provider", "domain"} //nolint:gochecknoglobals // immutable

// String returns the name of the scope, such as "domain".
func (s Scope) String() string { return jsonform.Text(scopeNames[:], s, "scope") }

// MarshalText returns the name of the scope; the error of a value that is none matches registry.ErrInvalid.
func (s Scope) MarshalText() ([]byte, error) {
	return jsonform.MarshalName(scopeNames[:], s, "scope")
}

// UnmarshalText accepts the name of a scope. The error of any other text matches registry.ErrInvalid and changes nothing.
func (s *Scope) UnmarshalText(text []byte) error {
	return jsonform.UnmarshalName(scopeNames[:], s, text, "scope")
}

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
	// OnceMovesOn reports whether a once-only call may try again or elsewhere: the answer says
	// that nothing was processed.
	OnceMovesOn bool
	// Blame is the result that the circuit breaker records.
	Blame Blame
	// Cooldown is the kind of pause that the provider gets.
	Cooldown Cooldown
	// Scope reports what that pause covers, unless the verdict says otherwise.
	Scope Scope
	// Tally is the counter that is incremented; where Blame depends on the attempt, a failure
	// increments the failures instead.
	Tally Tally
}

type row struct {
	name string
	rule Rule
}

// The columns of the table that are no constants of their own.
const (
	onceStays, onceMoves    = false, true
	ofProvider, ofItsDomain = ScopeProvider, ScopeDomain
)

// table is the one place where the meaning of an outcome is decided.
//
// A failure after the first item of a stream keeps the blame and cooldown of its class and
// never fails over; the code that hands over the items enforces that.
//
//nolint:gochecknoglobals // immutable data
var table = [classCount]row{
	ClassUnknown:         {"unknown", Rule{RetryYes, NextYes, onceStays, BlameFailure, CooldownNone, ofProvider, TallyFailure}},
	ClassSuccess:         {"success", Rule{RetryNo, NextNo, onceStays, BlameSuccess, CooldownReset, ofItsDomain, TallySuccess}},
	ClassSlow:            {"slow success", Rule{RetryNo, NextNo, onceStays, BlameWhenSlow, CooldownNone, ofProvider, TallySuccess}},
	ClassCancelled:       {"cancelled", Rule{RetryNo, NextNo, onceStays, BlameNeutral, CooldownNone, ofProvider, TallyIgnored}},
	ClassCallerDeadline:  {"caller's deadline", Rule{RetryNo, NextNo, onceStays, BlameWhenLong, CooldownNone, ofProvider, TallyIgnored}},
	ClassCut:             {"cut", Rule{RetryNo, NextYes, onceStays, BlameWhenHanging, CooldownNone, ofProvider, TallyIgnored}},
	ClassAttemptTimeout:  {"attempt timeout", Rule{RetryNo, NextYes, onceStays, BlameFailure, CooldownNone, ofProvider, TallyFailure}},
	ClassStalled:         {"stalled", Rule{RetryNo, NextBeforeFirstItem, onceStays, BlameFailure, CooldownNone, ofProvider, TallyFailure}},
	ClassNotSent:         {"not sent", Rule{RetryYes, NextYes, onceMoves, BlameFailure, CooldownNone, ofProvider, TallyFailure}},
	ClassTransport:       {"transport", Rule{RetryYes, NextYes, onceStays, BlameFailure, CooldownNone, ofProvider, TallyFailure}},
	ClassServerError:     {"server error", Rule{RetryYes, NextYes, onceStays, BlameFailure, CooldownNone, ofProvider, TallyFailure}},
	ClassOverloaded:      {"overloaded", Rule{RetryNo, NextYes, onceStays, BlameNeutral, CooldownShort, ofProvider, TallyLimited}},
	ClassRateLimited:     {"rate limited", Rule{RetryWhenWaiting, NextYes, onceMoves, BlameNeutral, CooldownAsked, ofItsDomain, TallyLimited}},
	ClassFatal:           {"fatal", Rule{RetryNo, NextYes, onceMoves, BlameNeutral, CooldownLong, ofItsDomain, TallyLimited}},
	ClassUnauthenticated: {"unauthenticated", Rule{RetryNo, NextYes, onceMoves, BlameNeutral, CooldownThird, ofItsDomain, TallyLimited}},
	ClassNotAllowed:      {"not allowed", Rule{RetryNo, NextYes, onceMoves, BlameNeutral, CooldownNone, ofProvider, TallyLimited}},
	ClassNotFound:        {"gone there", Rule{RetryNo, NextYes, onceMoves, BlameNeutral, CooldownModel, ofProvider, TallyIgnored}},
	ClassResource:        {"refused by the resource", Rule{RetryNo, NextNo, onceStays, BlameSuccess, CooldownNone, ofProvider, TallySuccess}},
	ClassElsewhere:       {"ask elsewhere", Rule{RetryYes, NextYes, onceMoves, BlameNeutral, CooldownNone, ofProvider, TallyIgnored}},
	ClassTooLong:         {"too long for it", Rule{RetryNo, NextLargerWindow, onceMoves, BlameSuccess, CooldownNone, ofProvider, TallySuccess}},
	ClassRefused:         {"refused content", Rule{RetryNo, NextWhenAllowed, onceStays, BlameSuccess, CooldownNone, ofProvider, TallySuccess}},
	ClassBadRequest:      {"bad request", Rule{RetryNo, NextNo, onceStays, BlameSuccess, CooldownNone, ofProvider, TallySuccess}},
	ClassUnsupported:     {"unsupported there", Rule{RetryNo, NextYes, onceStays, BlameSuccess, CooldownNone, ofProvider, TallySuccess}},
	ClassNotForMe:        {"not for it", Rule{RetryNo, NextYes, onceMoves, BlameNeutral, CooldownNone, ofProvider, TallyIgnored}},
	ClassCannot:          {"cannot", Rule{RetryNo, NextFree, onceMoves, BlameNotRecorded, CooldownNone, ofProvider, TallyNone}},
	ClassMalformed:       {"malformed", Rule{RetryNo, NextBeforeFirstItem, onceStays, BlameFailure, CooldownNone, ofProvider, TallyFailure}},
	ClassPanic:           {"panic", Rule{RetryNo, NextByOption, onceStays, BlameFailure, CooldownNone, ofProvider, TallyFailure}},
	ClassExit:            {"exit", Rule{RetryNo, NextNo, onceStays, BlameFailure, CooldownNone, ofProvider, TallyFailure}},
	ClassHedgeLoser:      {"hedge loser", Rule{RetryNo, NextNo, onceStays, BlameNeutral, CooldownNone, ofProvider, TallyIgnored}},
	ClassForgotten:       {"forgotten", Rule{RetryNo, NextNo, onceStays, BlameFailure, CooldownNone, ofProvider, TallyFailure}},
	ClassRemoved:         {"removed", Rule{RetryNo, NextYes, onceStays, BlameNeutral, CooldownNone, ofProvider, TallyIgnored}},
	ClassIgnored:         {"ignored", Rule{RetryNo, NextNo, onceStays, BlameNeutral, CooldownNone, ofProvider, TallyIgnored}},
}

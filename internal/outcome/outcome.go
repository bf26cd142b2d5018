// Package outcome resolves the meaning of the end of an attempt: what it is for the breaker, the counts, the cooldown
// and the strategies, and what may follow it.
//
// It has pure values only, and decides by the table of package verdict. It never looks at a clock or a provider: what
// it has to know of these it is given.
package outcome

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/capreg/registry/internal/breaker"
	"github.com/capreg/registry/internal/choice"
	"github.com/capreg/registry/internal/fault"
	"github.com/capreg/registry/internal/oneline"
	"github.com/capreg/registry/internal/pace"
	"github.com/capreg/registry/internal/record"
	"github.com/capreg/registry/verdict"
)

// Outcome is the meaning of the end of an attempt, resolved once: recording it asks no table.
type Outcome struct {
	Class    verdict.Class
	Result   breaker.Outcome
	Tally    verdict.Tally
	Cooldown verdict.Cooldown
	Slow     bool          // it took longer than the breaker's policy wants
	Waited   time.Duration // without an answer, where that says something of the provider
	Latency  time.Duration // until the answer began
	After    time.Duration // what the server asked to wait
	Scope    verdict.Scope // of the cooldown
	Call     uint64        // its number, where the cooldown counts calls
	excused  bool          // it ended after its answer had begun, for a reason of the caller's
	Cause    error         // what the function returned
}

// Of returns what a verdict means for an attempt; latency is the time until its answer began, or until it ended
// without one, and slow reports whether the breaker's policy calls that slow.
func Of(v verdict.Verdict, latency time.Duration, slow bool, cause error) Outcome {
	if v.Class == verdict.ClassSuccess && slow {
		v.Class = verdict.ClassSlow
	}
	rule := v.Class.Rule()
	o := Outcome{
		Class: v.Class, Result: resultOf(rule.Blame), Tally: rule.Tally, Cooldown: rule.Cooldown,
		Slow: slow, Latency: latency, After: v.After, Scope: cmp.Or(v.Scope, rule.Scope), Cause: cause,
	}
	o.countFailure()
	return o
}

// resultOf returns what blame means for the breaker, where that depends on nothing else.
func resultOf(blame verdict.Blame) breaker.Outcome {
	switch blame { //nolint:exhaustive // the others are neutral
	case verdict.BlameSuccess, verdict.BlameWhenSlow: // the breaker itself looks at slow ones
		return breaker.Success
	case verdict.BlameFailure:
		return breaker.Failure
	}
	return breaker.Neutral
}

// countFailure makes it a failure of the counts as well, also when it is one only because it ran long.
func (o *Outcome) countFailure() {
	if o.Result == breaker.Failure {
		o.Tally = verdict.TallyFailure
	}
}

// Interrupted reports whether the attempt was ended from outside; the others have ended by themselves.
func (o *Outcome) Interrupted() bool {
	return isAny(o.Class, verdict.ClassCut, verdict.ClassCallerDeadline, verdict.ClassAttemptTimeout, verdict.ClassStalled)
}

// Wait describes an attempt that was interrupted before its answer began.
type Wait struct {
	Took  time.Duration
	Known pace.Known // of the provider
	Peers pace.Known // of all providers of the service
	Spent bool       // it took all of a timeout that was given for it
	Cut   bool       // its time was cut for another provider, or another one could be asked
}

// Unanswered resolves what the wait says of the provider.
func (o *Outcome) Unanswered(w Wait) {
	blame := o.Class.Rule().Blame
	telling := w.Known.Telling(w.Took, w.Peers)
	failed := o.Result == breaker.Failure || blame == verdict.BlameWhenLong && (w.Spent || w.Known.FarBeyond(w.Took))
	switch {
	case failed:
		o.Result, o.Waited = breaker.Failure, w.Took
	case !telling:
		o.Result = breaker.Neutral
	case blame == verdict.BlameWhenHanging || w.Cut:
		o.Result, o.Waited = breaker.Unanswered, w.Took
	default:
		o.Result, o.Waited = breaker.Neutral, w.Took
	}
	o.countFailure()
}

// Begun resolves an end after the answer had begun. How long an answer is, and how fast it is read, is the caller's
// matter: the end of the attempt's time, which spent reports, or of a lease says nothing of the provider.
func (o *Outcome) Begun(spent bool) {
	switch {
	case o.Class == verdict.ClassForgotten, o.Class == verdict.ClassAttemptTimeout && spent:
		o.Result, o.Tally, o.excused = breaker.Neutral, verdict.TallyIgnored, true
	case isAny(o.Class, verdict.ClassCancelled, verdict.ClassCallerDeadline, verdict.ClassCut):
		o.excused = true
	}
}

// Cools reports whether the outcome begins a cooldown, or may.
func (o *Outcome) Cools() bool {
	return o.Cooldown != verdict.CooldownNone && o.Cooldown != verdict.CooldownReset || o.After > 0
}

// Performance returns what strategies learn from it: a provider that says no at once, or nothing at all, must not look
// fast or idle, whatever its breaker makes of that.
func (o *Outcome) Performance() choice.Outcome {
	if o.Result.Blames() {
		return choice.Failed
	}
	switch {
	case o.excused:
		return choice.Neutral
	case IsSuccess(o.Class):
		return choice.Answered
	case isAny(o.Class, verdict.ClassCancelled, verdict.ClassCallerDeadline, verdict.ClassAttemptTimeout, verdict.ClassStalled):
		return choice.Unanswered
	case isAny(o.Class, verdict.ClassHedgeLoser, verdict.ClassRemoved, verdict.ClassIgnored):
		return choice.Neutral
	}
	return choice.Refused
}

// TellsOfProvider reports whether its error is worth remembering as the last one of the provider.
func (o *Outcome) TellsOfProvider() bool {
	return !o.excused && !isAny(o.Class, verdict.ClassCancelled, verdict.ClassHedgeLoser, verdict.ClassRemoved, verdict.ClassIgnored)
}

// maxLastError bounds the text of the last error of a provider, in bytes.
const maxLastError = 300

// LastError returns the outcome as the last error of its provider; nil when it tells nothing of it. It calls the
// Error method of a user.
func (o *Outcome) LastError(now time.Time) *verdict.LastError {
	if !o.TellsOfProvider() {
		return nil
	}
	last := verdict.LastError{Class: o.Class, Time: now}
	if o.Cause != nil {
		last.Text = oneline.Of(oneline.Cut(strings.ToValidUTF8(fault.Text(o.Cause), "?"), maxLastError-len("…")))
	}
	return &last
}

// CountIn counts the end of an attempt with the outcome: after it, the attempt is not in flight any more.
func (o *Outcome) CountIn(c *record.Outcomes) {
	switch o.Tally {
	case verdict.TallySuccess:
		c.Latency.Add(uint64(max(o.Latency, 0)))
		c.Successes.Add(1)
	case verdict.TallyFailure:
		c.Failures.Add(1)
	case verdict.TallyLimited:
		c.Limited.Add(1)
	case verdict.TallyIgnored, verdict.TallyNone:
		c.Ignored.Add(1)
	}
}

// OfCall returns the class of a call without an answer: ended is the error of its context, which ended it, or nil, and
// last the class of its last attempt.
func OfCall(ended error, last verdict.Class) verdict.Class {
	switch {
	case ended == nil:
		return last
	case errors.Is(ended, context.DeadlineExceeded):
		return verdict.ClassCallerDeadline
	}
	return verdict.ClassCancelled
}

// IsSuccess reports whether the class is one of an answer.
func IsSuccess(class verdict.Class) bool {
	return class == verdict.ClassSuccess || class == verdict.ClassSlow
}

func isAny(class verdict.Class, of ...verdict.Class) bool { return slices.Contains(of, class) }

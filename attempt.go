package registry

import (
	"cmp"
	"context"
	"math"
	"runtime/debug"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/capreg/registry/internal/attemptctx"
	"github.com/capreg/registry/internal/breaker"
	"github.com/capreg/registry/internal/fault"
	"github.com/capreg/registry/internal/oneline"
	"github.com/capreg/registry/internal/pace"
	"github.com/capreg/registry/internal/schedule"
	"github.com/capreg/registry/internal/slots"
	"github.com/capreg/registry/internal/striped"
	"github.com/capreg/registry/internal/tasks"
	"github.com/capreg/registry/selection"
	"github.com/capreg/registry/verdict"
)

// attempt is one try of a call or lease on one provider, from its admission to the
// recording of its outcome.
//
//	        admit                 function returns nil
//	idle ──────────▶ running ─────────────────────────▶ answered ── record ──▶ over
//	                    │ error, panic, exit, expiry                            ▲
//	                    └──────────────────────────────────── record ───────────┘
//
// It is small, since the first attempt of every call is one: what only some attempts
// have is behind a pointer or with the call.
type attempt struct {
	provider   *provider
	instance   *instance
	cell       *counts
	ctx        *attemptctx.Context // what the function gets; nil: the caller's context
	place      *slots.Slots        // where it holds a place; nil without a bulkhead
	vitals     *selection.Vitals   // where strategies see its load and latency; nil: none looks
	track      *selection.Track    // the same for the query of the call
	watch      *trialWatch         // nil unless a call is on trial
	other      *provider           // for which its time was cut, or which could be asked at the caller's deadline; nil: none
	generation uint64              // of the breaker that admitted it
	began      time.Duration       // on the registry's clock
	timeout    attemptTimeout
	state      attemptState
	trial      bool // its breaker is half-open
	freed      bool // it is a trial, and has given its slot back
	lastResort bool // it was admitted whatever kept it away, and moves no breaker
}

type attemptState uint8

const (
	attemptIdle     attemptState = iota // not admitted
	attemptRunning                      // the function runs
	attemptAnswered                     // the function succeeded, which is not recorded yet
	attemptOver                         // its outcome is recorded, or its call does so
)

// caller is the context that a call was made with. Its deadline is asked for once.
type caller struct {
	ctx         context.Context //nolint:containedctx // lives as long as the call
	deadline    time.Time
	hasDeadline bool
}

func newCaller(ctx context.Context) caller {
	c := caller{ctx: ctx}
	c.deadline, c.hasDeadline = ctx.Deadline()
	return c
}

// err returns the error of the caller's context, also when its deadline has passed and its
// timer has yet to fire.
func (c *caller) err() error {
	if err := c.ctx.Err(); err != nil {
		return fault.Bound(err)
	}
	if c.hasDeadline && !time.Now().Before(c.deadline) {
		return context.DeadlineExceeded
	}
	return nil
}

// admit counts the attempt in and passes it through the gate and the breaker, or leaves no
// trace. It does not block. hits, which may be nil, counts the look-up that it answers.
//
// The order matters: first the count, then a look at the gate, so that a drain that closes
// the gate and then reads the counts misses no attempt.
func (a *attempt) admit(p *provider, timeout attemptTimeout, hits *striped.Cells[lookups]) bool {
	stripe := striped.Here()
	cell := p.counts.At(stripe)
	if cell == nil {
		cell = p.counts.Local()
	}
	cell.Attempts.Add(1)
	a.provider, a.cell, a.timeout, a.watch, a.other = p, cell, timeout, nil, nil
	if a.instance = p.instance.Load(); a.instance == nil || p.gateNow()&a.blockers() != 0 {
		p.withdraw(cell)
		return false
	}
	var ok bool
	if a.generation, ok = p.breaker.AdmitClosed(); ok { // inlined, which Admit is not
		a.trial = false
	} else if a.generation, a.trial, ok = p.breaker.Admit(); !ok && !a.lastResort {
		p.withdraw(cell)
		return false
	}
	if hits != nil {
		hits.At(stripe).hits.Add(1) // before the clock is read, for which a core waits anyway
	}
	a.began = p.registry.now()
	if a.vitals = p.vitals.Load(); a.vitals != nil {
		a.vitals.Begin()
	}
	a.state = attemptRunning
	return true
}

// limitTime makes the context of an admitted attempt. others, which may be nil, returns a provider
// that could be asked after it.
func (a *attempt) limitTime(by *caller, others func() *provider) {
	if a.timeout.most == NoTimeout {
		a.ctx = nil
		return
	}
	var limit time.Duration
	limit, a.other = a.provider.attemptLimit(by, a.timeout, a.began, a.trial, others)
	a.ctx = a.provider.attemptContext(by.ctx, a.began, limit, a.ctx)
}

// blockers returns the reasons that keep the attempt away: of a last resort only those that
// cannot be helped.
func (a *attempt) blockers() gate {
	if a.lastResort {
		return gateHelpless
	}
	return gateBlocked
}

// withdraw takes back the count of an attempt that was not admitted.
func (p *provider) withdraw(cell *counts) {
	cell.Attempts.Add(^uint64(0))
	p.exit()
}

// makeInstance waits for the provider's factory, for no longer than an attempt may take, and
// reports whether there is an instance.
func (p *provider) makeInstance(by *caller, others func() *provider, timeout attemptTimeout) bool {
	if p.lazy == nil {
		return false // released meanwhile
	}
	ctx := by.ctx
	if limit, _ := p.attemptLimit(by, timeout, p.registry.now(), false, others); limit != NoTimeout {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, limit, ErrAttemptTimeout)
		defer cancel()
	}
	_, made := p.lazy.Get(ctx)
	return made
}

// attemptLimit returns the longest time that an attempt may take: its timeout, or less where
// that is a default and another candidate could be asked before the caller's deadline, for which
// it is cut. It is NoTimeout where the caller's own deadline is limit enough. It runs
// no code of a user, since the attempt has been counted.
func (p *provider) attemptLimit(
	by *caller, timeout attemptTimeout, now time.Duration, trial bool, others func() *provider,
) (limit time.Duration, cutFor *provider) {
	if timeout.most == NoTimeout {
		return NoTimeout, nil
	}
	limit = min(timeout.most, math.MaxInt64-now)
	if !by.hasDeadline {
		return limit, nil
	}
	remaining := by.deadline.Sub(p.registry.epoch) - now
	if !timeout.explicit && remaining/pace.SmallestShare < limit && others != nil {
		if next := others(); next != nil {
			if share := p.share(remaining, now, trial, next); share < limit {
				limit, cutFor = share, next
			}
		}
	}
	if limit >= remaining {
		return NoTimeout, nil
	}
	return max(limit, 0), cutFor
}

// share returns the part of the remaining time that an attempt may take while next could be
// asked after it.
func (p *provider) share(remaining, now time.Duration, trial bool, next *provider) time.Duration {
	own := p.effects.knownPace(now)
	proof := trial || own.Waited > 0 && p.breaker.LastChance()
	return pace.Share(remaining, own, next.effects.knownPace(now), proof)
}

// attemptContext makes the context of the function; before is that of the attempt of the
// same call before it, if any.
func (p *provider) attemptContext(by context.Context, began, limit time.Duration, before *attemptctx.Context) *attemptctx.Context {
	var deadline time.Time
	if limit != NoTimeout {
		deadline = p.registry.epoch.Add(began + limit)
	}
	return attemptctx.New(by, deadline, p.drain.Calls(), before)
}

// context returns what the function gets.
func (a *attempt) context(by context.Context) context.Context {
	if a.ctx != nil {
		return a.ctx
	}
	return by
}

func (a *attempt) elapsed() time.Duration { return a.provider.registry.now() - a.began }

// outcome is the meaning of the end of an attempt, resolved once: recording it asks no table.
type outcome struct {
	class    verdict.Class
	result   breaker.Outcome
	tally    verdict.Tally
	cooldown verdict.Cooldown
	slow     bool          // it took longer than the breaker's policy wants
	waited   time.Duration // without an answer, where that says something of the provider
	latency  time.Duration // until the answer began
	after    time.Duration // what the server asked to wait
	scope    verdict.Scope // of the cooldown
	call     uint64        // its number, where the cooldown counts calls
	cause    error         // what the function returned
}

// resolve says what the verdict means for this attempt, which took elapsed in all; latency
// is the time until its answer began, zero: all of it.
func (a *attempt) resolve(v verdict.Verdict, elapsed, latency time.Duration, cause error) outcome {
	begun := latency > 0
	if !begun {
		latency = elapsed
	}
	slow := a.provider.breaker.Slow(latency)
	if v.Class == verdict.ClassSuccess && slow {
		v.Class = verdict.ClassSlow
	}
	rule := v.Class.Rule()
	o := outcome{
		class: v.Class, result: breakerOutcome(rule.Blame), tally: rule.Tally, cooldown: rule.Cooldown,
		slow: slow, latency: latency, after: v.After, scope: cmp.Or(v.Scope, rule.Scope), cause: cause,
	}
	switch v.Class { //nolint:exhaustive // the others have ended by themselves
	case verdict.ClassCut, verdict.ClassCallerDeadline, verdict.ClassAttemptTimeout, verdict.ClassStalled:
		if !begun {
			o.result, o.waited = a.resolveUnanswered(o.result, rule.Blame, elapsed)
		}
	}
	if o.result == breaker.Failure {
		o.tally = verdict.TallyFailure // also when it is one only because it ran long
	}
	return o
}

// resolveUnanswered is resolve for an attempt that was ended before its answer began: it returns
// the outcome for the breaker, where result is that of the rule alone, and the time that the
// provider was waited for, zero where that says nothing of it.
func (a *attempt) resolveUnanswered(result breaker.Outcome, blame verdict.Blame, elapsed time.Duration) (_ breaker.Outcome, waited time.Duration) {
	now := a.began + elapsed
	known := a.provider.effects.knownPace(now)
	switch telling := known.Telling(elapsed, a.provider.service.pace.Known(now)); {
	case result == breaker.Failure:
		return result, elapsed
	case blame == verdict.BlameWhenLong && (a.timeout.explicit && elapsed >= a.timeout.most || known.FarBeyond(elapsed)):
		return breaker.Failure, elapsed
	case !telling:
		return breaker.Neutral, 0
	case blame == verdict.BlameWhenHanging || a.other != nil:
		return breaker.Unanswered, elapsed
	}
	return breaker.Neutral, elapsed
}

// record applies the outcome: the breaker learns, a cooldown begins or loses its growth, a
// count moves, and the place is free again.
func (a *attempt) record(o outcome) {
	if o.cause != nil || o.result == breaker.Failure {
		defer a.settle(o) // deferred: the Error method is a user's, and may exit the goroutine
		a.provider.noteError(o)
		return
	}
	a.settle(o)
}

// maxLastError bounds the text of the last error of a provider, in bytes.
const maxLastError = 300

// noteError remembers the error of an attempt for those who look why the provider is as it is.
func (p *provider) noteError(o outcome) {
	if isAny(o.class, verdict.ClassCancelled, verdict.ClassHedgeLoser, verdict.ClassRemoved, verdict.ClassIgnored) {
		return
	}
	last := verdict.LastError{Class: o.class, Time: time.Now()}
	if o.cause != nil {
		last.Text = oneline.Of(oneline.Cut(strings.ToValidUTF8(fault.Text(o.cause), "?"), maxLastError-len("…")))
	}
	p.last.Store(&last)
}

// settle is record without the text of the error.
func (a *attempt) settle(o outcome) {
	p := a.provider
	a.state = attemptOver
	p.notePace(o)
	// Of an unaffected breaker there is nothing to learn, and no trial.
	if (o.result.Blames() || !p.breaker.Unaffected(a.generation)) && (!a.lastResort || a.trial) && a.watch.stop() {
		if a.freed {
			p.breaker.RecordFreed(a.generation, o.result, o.slow)
		} else {
			p.breaker.Record(a.generation, o.result, o.slow)
		}
	}
	p.spend(o.result)
	if a.vitals != nil {
		a.vitals.End(p.registry.now(), o.latency, performance(o), a.track)
	}
	if o.tally == verdict.TallySuccess && p.effects.cooldownGrown() {
		p.endGrowth(o.cooldown == verdict.CooldownReset)
	}
	if o.cooldown != verdict.CooldownNone && o.cooldown != verdict.CooldownReset || o.after > 0 {
		p.cool(o)
	}
	countEnd(a.cell, o)
	a.leavePlace()
	p.exit()
	if a.ctx != nil { // at last: contexts derived from it may block
		a.ctx.End()
	}
}

func (a *attempt) leavePlace() {
	if a.place != nil {
		a.place.Release()
		a.place = nil
	}
}

// countEnd counts the end of an attempt: after it, the attempt is not in flight any more.
func countEnd(c *counts, o outcome) {
	switch o.tally {
	case verdict.TallySuccess:
		c.Latency.Add(uint64(max(o.latency, 0)))
		c.Successes.Add(1)
	case verdict.TallyFailure:
		c.Failures.Add(1)
	case verdict.TallyLimited:
		c.Limited.Add(1)
	case verdict.TallyIgnored, verdict.TallyNone:
		c.Ignored.Add(1)
	}
}

// recordInterruption records the attempt of a function that did not return: value is what it
// panicked with, nil when it ended its goroutine.
func (a *attempt) recordInterruption(value any) *PanicError {
	if value == nil {
		a.record(a.resolve(verdict.Verdict{Class: verdict.ClassExit}, a.elapsed(), 0, nil))
		return nil
	}
	panicked := &PanicError{Value: value, Stack: debug.Stack()}
	a.record(a.resolve(verdict.Verdict{Class: verdict.ClassPanic}, a.elapsed(), 0, panicked))
	return panicked
}

// notePace notes how long the provider took to answer, or was waited for.
func (p *provider) notePace(o outcome) {
	if isSuccess(o.class) && p.effects.noteAnswer(o.latency) {
		p.service.pace.Answered(o.latency)
	}
	switch {
	case o.waited > 0:
		p.effects.noteWait(o.waited)
	case o.tally == verdict.TallySuccess:
		p.effects.endWait()
	}
}

// performance returns what strategies learn from an outcome: a provider that says no at once, or
// nothing at all, must not look fast or idle, whatever its breaker makes of that.
func performance(o outcome) selection.Outcome {
	if o.result.Blames() {
		return selection.Failed
	}
	switch {
	case isAny(o.class, verdict.ClassSuccess, verdict.ClassSlow):
		return selection.Answered
	case isAny(o.class, verdict.ClassCancelled, verdict.ClassCallerDeadline, verdict.ClassAttemptTimeout, verdict.ClassStalled):
		return selection.Unanswered
	case isAny(o.class, verdict.ClassHedgeLoser, verdict.ClassRemoved, verdict.ClassIgnored):
		return selection.Neutral
	}
	return selection.Refused
}

func isAny(class verdict.Class, of ...verdict.Class) bool { return slices.Contains(of, class) }

// trialWatch ends the trial of a call whose function does not return, so that its slot is
// free for another one.
type trialWatch struct {
	over  atomic.Bool // the breaker was told an outcome
	timer *schedule.Timer
}

// watchTrial makes the trial a failure when the function is not back a grace after its time.
func (a *attempt) watchTrial() {
	limit := a.timeout.most
	if limit == NoTimeout {
		limit = maxLeaseWithoutTimeout
	}
	p, generation, w := a.provider, a.generation, &trialWatch{}
	w.timer = p.registry.schedule.After(min(limit, NoTimeout-tasks.Grace)+tasks.Grace, func() {
		if w.over.CompareAndSwap(false, true) {
			p.breaker.Record(generation, breaker.Failure, false)
		}
	})
	a.watch = w
}

// stop ends the watch and reports whether the breaker is still to be told the outcome.
func (w *trialWatch) stop() bool {
	if w == nil {
		return true
	}
	w.timer.Stop()
	return w.over.CompareAndSwap(false, true)
}

// spend moves the budget for further attempts.
func (p *provider) spend(result breaker.Outcome) {
	switch result {
	case breaker.Success:
		p.effects.refundBudget()
	case breaker.Failure:
		p.effects.spendBudget()
	case breaker.Neutral, breaker.Unanswered:
	}
}

func newPanicError(value any) *PanicError {
	return &PanicError{Value: value, Stack: debug.Stack()}
}

// obtain returns the provider's instance, waiting for its factory within ctx and the attempt
// timeout; nil when there is none to be had.
func (p *provider) obtain(ctx context.Context, others func() *provider) *instance {
	if made := p.instance.Load(); made != nil {
		return made
	}
	by := newCaller(ctx)
	p.makeInstance(&by, others, p.attemptTimeout())
	return p.instance.Load()
}

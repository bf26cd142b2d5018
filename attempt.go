package registry

import (
	"context"
	"math"
	"time"

	"github.com/capreg/registry/internal/attemptctx"
	"github.com/capreg/registry/internal/breaker"
	"github.com/capreg/registry/internal/choice"
	"github.com/capreg/registry/internal/fault"
	"github.com/capreg/registry/internal/outcome"
	"github.com/capreg/registry/internal/pace"
	"github.com/capreg/registry/internal/record"
	"github.com/capreg/registry/internal/refusal"
	"github.com/capreg/registry/internal/slots"
	"github.com/capreg/registry/internal/tasks"
	"github.com/capreg/registry/internal/typed"
	"github.com/capreg/registry/verdict"
)

// attempt is one try of a call or lease on one provider, from its admission to the recording of its outcome.
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
	instance   *typed.Instance
	cell       *record.Outcomes
	ctx        *attemptctx.Context // what the function gets; nil: the caller's context
	place      *slots.Slots        // where it holds a place; nil without a bulkhead
	vitals     *choice.Vitals      // where strategies see its load and latency; nil: none looks
	track      *choice.Track       // the same for the query of the call
	watch      *breaker.TrialWatch // nil unless a call is on trial
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

// admit counts the attempt in and passes it through the gate and the breaker, or leaves no trace. It does not block.
//
// The order matters: first the count, then a look at the gate, so that a drain that closes
// the gate and then reads the counts misses no attempt.
func (a *attempt) admit(p *provider, timeout attemptTimeout) bool {
	cell := p.meter.Cell()
	if cell == nil {
		cell = p.meter.FirstCell()
	}
	cell.Attempts.Add(1)
	a.provider, a.cell, a.timeout, a.watch, a.other = p, cell, timeout, nil, nil
	if a.instance = p.instance.Load(); a.instance == nil || p.gateNow()&a.refusing() != 0 {
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
	a.began = p.registry.now()
	if a.vitals = p.vitals.Load(); a.vitals != nil {
		a.vitals.Begin()
	}
	a.state = attemptRunning
	return true
}

// limitTime makes the context of an admitted attempt in room, which may be nil. others, which may be nil, returns a
// provider that could be asked after it.
func (a *attempt) limitTime(by *attemptctx.Caller, others func() *provider, room *attemptctx.Context) {
	if a.timeout.most == NoTimeout {
		a.ctx = nil
		return
	}
	var limit time.Duration
	limit, a.other = a.provider.attemptLimit(by, a.timeout, a.began, a.trial, others)
	a.ctx = a.provider.attemptContext(by.Ctx, a.began, limit, a.ctx, room)
}

// refusing returns the reasons that keep the attempt away: of a last resort only those that cannot be helped.
func (a *attempt) refusing() gate {
	if a.lastResort {
		return refusal.Helpless
	}
	return refusal.Blocked
}

// withdraw takes back the count of an attempt that was not admitted.
func (p *provider) withdraw(cell *record.Outcomes) {
	cell.Attempts.Add(^uint64(0))
	p.exit()
}

// makeInstance waits for the provider's factory, for no longer than an attempt may take, and
// reports whether there is an instance.
func (p *provider) makeInstance(by *attemptctx.Caller, others func() *provider, timeout attemptTimeout) bool {
	ctx := by.Ctx
	if limit, _ := p.attemptLimit(by, timeout, p.registry.now(), false, others); limit != NoTimeout {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, limit, ErrAttemptTimeout)
		defer cancel()
	}
	_, made := p.lazy.Get(ctx)
	return made
}

// attemptLimit returns the longest time that an attempt may take: its timeout, or less where that is a default and
// another candidate could be asked before the caller's deadline, for which it is cut. It is NoTimeout where the
// caller's own deadline is limit enough. It runs no code of a user, since the attempt has been counted.
func (p *provider) attemptLimit(
	by *attemptctx.Caller, timeout attemptTimeout, now time.Duration, trial bool, others func() *provider,
) (limit time.Duration, cutFor *provider) {
	if timeout.most == NoTimeout {
		return NoTimeout, nil
	}
	limit = min(timeout.most, math.MaxInt64-now)
	if !by.HasDeadline {
		return limit, nil
	}
	remaining := by.Deadline.Sub(p.registry.epoch) - now
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

// share returns the part of the remaining time that an attempt may take while next could be asked after it.
func (p *provider) share(remaining, now time.Duration, trial bool, next *provider) time.Duration {
	own := p.effects.KnownPace(now)
	proof := trial || own.Waited > 0 && p.breaker.LastChance()
	return pace.Share(remaining, own, next.effects.KnownPace(now), proof)
}

// attemptContext makes the context of the function, in room where that is not nil; before is that of the attempt of the
// same call before it, if any.
func (p *provider) attemptContext(by context.Context, began, limit time.Duration, before, room *attemptctx.Context) *attemptctx.Context {
	var deadline time.Time
	if limit != NoTimeout {
		deadline = p.registry.epoch.Add(began + limit)
	}
	if room == nil {
		return attemptctx.New(by, deadline, p.drain.Calls(), before)
	}
	room.Init(by, deadline, p.drain.Calls())
	return room
}

// context returns what the function gets.
func (a *attempt) context(by context.Context) context.Context {
	if a.ctx != nil {
		return a.ctx
	}
	return by
}

func (a *attempt) elapsed() time.Duration { return a.provider.registry.now() - a.began }

// resolve says what the verdict means for this attempt, which took elapsed in all; latency is the time until its
// answer began, zero: all of it.
func (a *attempt) resolve(v verdict.Verdict, elapsed, latency time.Duration, cause error) outcome.Outcome {
	begun := latency > 0
	if !begun {
		latency = elapsed
	}
	p := a.provider
	o := outcome.Of(v, latency, p.breaker.Slow(latency), cause)
	if begun {
		o.Begun(elapsed >= a.timeout.most)
	} else if o.Interrupted() {
		now := a.began + elapsed
		o.Unanswered(outcome.Wait{
			Took: elapsed, Known: p.effects.KnownPace(now), Peers: p.service.pace.Known(now),
			Spent: a.timeout.explicit && elapsed >= a.timeout.most, Cut: a.other != nil,
		})
	}
	return o
}

// record applies the outcome: the breaker learns, a cooldown begins or loses its growth, a
// count moves, and the place is free again.
func (a *attempt) record(o outcome.Outcome) {
	if o.Cause != nil || o.Result == breaker.Failure {
		defer a.settle(o) // deferred: the Error method is a user's, and may exit the goroutine
		if last := o.LastError(time.Now()); last != nil {
			a.provider.last.Store(last)
		}
		return
	}
	a.settle(o)
}

// settle is record without the text of the error.
func (a *attempt) settle(o outcome.Outcome) {
	p := a.provider
	a.state = attemptOver
	p.notePace(o)
	// Of an unaffected breaker there is nothing to learn, and no trial.
	if (o.Result.Blames() || !p.breaker.Unaffected(a.generation)) && (!a.lastResort || a.trial) && a.watch.Stop() {
		if a.freed {
			p.breaker.RecordFreed(a.generation, o.Result, o.Slow)
		} else {
			p.breaker.Record(a.generation, o.Result, o.Slow)
		}
	}
	p.effects.MoveBudget(o.Result)
	if a.vitals != nil {
		a.vitals.End(p.registry.now(), o.Latency, o.Performance(), a.track)
	}
	if o.Tally == verdict.TallySuccess && p.effects.CooldownGrown() {
		p.endGrowth(o.Cooldown == verdict.CooldownReset)
	}
	if o.Cools() {
		p.cool(o)
	}
	p.meter.Ended(o.Class, o.Latency, a.began+o.Latency)
	o.CountIn(a.cell)
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

// recordInterruption records the attempt of a function that did not return, and returns its class and error: value is
// what it panicked with, nil when it ended its goroutine.
func (a *attempt) recordInterruption(value any) (class verdict.Class, cause error) {
	class = verdict.ClassExit
	if value != nil {
		class, cause = verdict.ClassPanic, fault.Panicked(value)
	}
	a.record(a.resolve(verdict.Verdict{Class: class}, a.elapsed(), 0, cause))
	return class, cause
}

// notePace notes how long the provider took to answer, or was waited for.
func (p *provider) notePace(o outcome.Outcome) {
	if outcome.IsSuccess(o.Class) && p.effects.NoteAnswer(o.Latency) {
		p.service.pace.Answered(o.Latency)
	}
	switch {
	case o.Waited > 0:
		p.effects.NoteWait(o.Waited)
	case o.Tally == verdict.TallySuccess:
		p.effects.EndWait()
	}
}

// watchTrial makes the trial a failure when the function is not back a grace after its time.
func (a *attempt) watchTrial() {
	limit := a.timeout.most
	if limit == NoTimeout {
		limit = maxLeaseWithoutTimeout
	}
	grace := min(limit, NoTimeout-tasks.Grace) + tasks.Grace
	a.watch = a.provider.breaker.WatchTrial(a.generation, grace)
}

// obtain returns the provider's instance, waiting for its factory within ctx and the attempt
// timeout; nil when there is none to be had.
func (p *provider) obtain(ctx context.Context, others func() *provider) *typed.Instance {
	if made := p.instance.Load(); made != nil {
		return made
	}
	by := attemptctx.CallerOf(ctx)
	p.makeInstance(&by, others, p.attemptTimeout())
	return p.instance.Load()
}

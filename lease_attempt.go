package registry

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"sync/atomic"
	"time"

	"github.com/capreg/registry/event"
	"github.com/capreg/registry/internal/fault"
	"github.com/capreg/registry/internal/schedule"
	"github.com/capreg/registry/internal/tasks"
	"github.com/capreg/registry/reason"
	"github.com/capreg/registry/verdict"
)

// leasedAttempt is an attempt that goes on until one of these ends it, once:
//
//	what ends it                        | its class
//	the holder reports: Done, MoveOn    | by the error, as of a call
//	Guard: the work panics or exits     | panic, exit
//	the expiry: the holder is overdue   | forgotten
//
// What takes the right to end it, with [leasedAttempt.end], owns the attempt from then on. Until then it does not change.
type leasedAttempt struct {
	// Up to hasNext fixed when it is made.
	call      *leaseCall
	ctx       context.Context //nolint:containedctx // what the holder works in
	next      *provider       // that could be asked, unless it is asked in any case
	why       reason.Why
	delay     time.Duration // before the attempt
	retried   retried
	hasNext   bool // another provider could be asked
	ended     atomic.Bool
	freed     atomic.Bool // the slot of its trial was given back, or will be with its outcome
	attempt   attempt
	firstByte atomic.Int64 // when the answer began, since the attempt did; 0: not yet
	patience  atomic.Int64 // see [LeaseSteps.Patience]; 0: the attempt timeout
	expiry    schedule.Timer
}

// init takes over the attempt that the search has begun.
func (l *leasedAttempt) init(c *call) {
	l.call, l.ctx, l.attempt = c.shared, c.functionContext(), c.attempt
	l.why, l.delay, l.retried, l.hasNext = c.why, c.delay, c.retried, !c.options.OnceOnly && c.providers.more()
	if c.why != reason.All { // else the others are asked as well
		l.next = c.providers.another()
	}
	if !c.observed { // else it was noted before the hook
		c.query.service.meter.Waited(c.delay)
	}
	l.call.addLease(c)
	l.startExpiry()
}

// initFirst takes over the first attempt of a call. It is the one thing of the call that is open.
func (l *leasedAttempt) initFirst(s *leaseCall, first *firstAttempt) {
	l.call, l.ctx, l.attempt = s, first.context(s.caller.Ctx), first.attempt
	l.why, l.retried.provider = reason.First, first.provider
	l.next = first.plan.another(first.picked)
	l.hasNext = !s.options.OnceOnly && l.next != nil
	s.open, s.key, s.leased, s.began = 1, first.ctx, 1, first.began
	s.query.service.meter.Hit()
	s.claims.Claim(first.provider)
	s.claims.Enter(first.provider)
	l.startExpiry()
}

// startExpiry ends the attempt a grace after the end of its context: a holder that heeds the context reports in time.
func (l *leasedAttempt) startExpiry() {
	limit := maxLeaseWithoutTimeout
	if most := l.attempt.timeout.most; most != NoTimeout {
		limit = min(most, NoTimeout-tasks.Grace) + tasks.Grace
	}
	l.attempt.provider.registry.schedule.Start(&l.expiry, l.attempt.began+min(limit, math.MaxInt64-l.attempt.began), l)
}

// end takes the right to end the attempt. It is given once.
func (l *leasedAttempt) end() bool { return l.ended.CompareAndSwap(false, true) }

// present describes the attempt without its outcome. Its end changes nothing of that.
func (l *leasedAttempt) present() Attempt { return l.attempt.present(l.why, l.delay) }

// conclude judges and records the error that the holder reports, also when a classifier exits the goroutine, and
// returns the verdict with the class as it was counted. neutral, which may be nil, says that an error that is no answer
// blames nothing. The caller has the right to end the attempt.
func (l *leasedAttempt) conclude(err error, neutral func(error) bool) (v verdict.Verdict, ended Attempt) {
	err = fault.Bound(err)
	elapsed := l.attempt.elapsed()
	var cause error
	defer func() {
		var soFar CallReport
		ended, soFar = l.record(v, elapsed, err, cause)
		v.Class = ended.Class
		l.tellHook(ended, soFar)
	}()
	v, cause = l.attempt.judge(&l.call.caller, err)
	switch v.Class { //nolint:exhaustive // clients report a request that was cancelled as each of these
	case verdict.ClassUnknown, verdict.ClassTransport, verdict.ClassNotSent:
		if neutral != nil && neutral(err) {
			v = verdict.Verdict{Class: verdict.ClassCancelled}
		}
	}
	l.attempt.other = l.next
	return v, ended
}

// concludeAnswer records a success, if it teaches nothing but the counts and nothing observes the call. The caller has
// the right to end the attempt.
func (l *leasedAttempt) concludeAnswer() bool {
	a := &l.attempt
	elapsed := a.elapsed()
	latency := cmp.Or(time.Duration(l.firstByte.Load()), elapsed)
	if l.call.observed || !a.teachesNothing() {
		return false
	}
	if a.provider.effects.NoteAnswer(latency) {
		a.provider.service.pace.Answered(latency)
	}
	a.state = attemptOver
	a.provider.meter.Answered(a.cell, latency, a.began+elapsed)
	a.leavePlace()
	a.provider.exit()
	if a.ctx != nil {
		a.ctx.End()
	}
	l.expiry.Stop()
	l.call.closeAnswered(a.provider, a.began+elapsed)
	return true
}

// abort ends the attempt, if nothing has, with an outcome that needs no judgement.
func (l *leasedAttempt) abort(class verdict.Class, err error) {
	if l.end() {
		defer l.call.close()
		l.tellHook(l.record(verdict.Verdict{Class: class}, l.attempt.elapsed(), fault.Bound(err), nil))
	}
}

// record records the outcome, and returns what the hook is to be told. cause says why the registry ended the attempt,
// if it did.
func (l *leasedAttempt) record(v verdict.Verdict, elapsed time.Duration, err, cause error) (ended Attempt, soFar CallReport) {
	l.expiry.Stop()
	a := &l.attempt
	a.freed = a.trial && !l.freed.CompareAndSwap(false, true)
	if patience := l.patience.Load(); patience > 0 {
		a.timeout = attemptTimeout{time.Duration(patience), true}
	}
	o := a.resolve(v, elapsed, time.Duration(l.firstByte.Load()), err)
	if o.Cooldown == verdict.CooldownThird {
		o.Call = l.call.serial()
	}
	a.record(o)
	ended = l.present()
	ended.Class, ended.Duration, ended.Err = o.Class, elapsed, err
	return ended, l.call.addOutcome(a.provider, ended, cause)
}

// tellHook runs the hook after the attempt.
func (l *leasedAttempt) tellHook(ended Attempt, soFar CallReport) {
	if l.call.observed {
		l.call.tellAttempt(l.ctx, soFar, ended)
	}
}

// Run ends an attempt whose holder is overdue, as its timer does. The hooks run in a goroutine of their own, and so do
// the methods of the caller's context: the one that expires leases is shared by all of them.
func (l *leasedAttempt) Run() {
	if !l.end() {
		return
	}
	expired := l.attempt.ctx
	l.attempt.ctx = nil
	p, elapsed := l.attempt.provider, l.attempt.elapsed()
	p.registry.mu.Lock()
	p.registry.bus.Publish(p.event(event.Event{
		Kind: event.LeaseExpired, Reason: fmt.Sprintf("not reported within %v", elapsed.Round(time.Millisecond)),
	}))
	p.registry.mu.Unlock()
	ended, soFar := l.record(verdict.Verdict{Class: verdict.ClassForgotten}, elapsed, nil, nil)
	if expired != nil {
		p.registry.tasks.StartLast(fmt.Sprintf("context of an expired lease of provider %q", p.id()), expired.Expire)
	}
	if !l.call.observed {
		l.call.close()
		return
	}
	p.registry.tasks.StartLast(fmt.Sprintf("hooks of an expired lease of provider %q", p.id()), func() {
		defer l.call.close()
		l.tellHook(ended, soFar)
	})
}

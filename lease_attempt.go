package registry

import (
	"context"
	"fmt"
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
// What takes the right to end it, with [leasedAttempt.end], owns attempt, cause and told from then on. Until then they
// do not change.
type leasedAttempt struct {
	// Fixed when it is made.
	call    *leaseCall
	ctx     context.Context //nolint:containedctx // what the holder works in
	hasNext bool            // another provider could be asked
	next    *provider       // that provider, unless it is asked in any case
	retried retried

	ended   atomic.Bool
	attempt attempt
	cause   error   // why the registry ended the attempt, if it did
	told    Attempt // the attempt as hooks and reports see it

	freed     atomic.Bool  // the slot of its trial was given back, or will be with its outcome
	firstByte atomic.Int64 // when the answer began, since the attempt did; 0: not yet
	patience  atomic.Int64 // see [Lease.Patience]; 0: the attempt timeout
	expiry    atomic.Pointer[schedule.Timer]
}

// init takes over the attempt that the search has begun.
func (l *leasedAttempt) init(c *call) {
	l.call, l.ctx, l.retried = c.shared, c.functionContext(), c.retried
	l.attempt, l.told = c.attempt, c.present()
	l.hasNext = !c.options.OnceOnly && c.providers.more()
	if c.why != reason.All { // else the others are asked as well
		l.next = c.providers.another()
	}
	if !c.observed { // else it was noted before the hook
		c.query.service.meter.Waited(c.delay)
	}
	l.call.addLease(c)
	c.handOver()
	l.startExpiry()
}

// startExpiry ends the attempt a grace after the end of its context: a holder that heeds the context reports in time.
func (l *leasedAttempt) startExpiry() {
	limit := maxLeaseWithoutTimeout
	if most := l.attempt.timeout.most; most != NoTimeout {
		limit = min(most, NoTimeout-tasks.Grace) + tasks.Grace
	}
	timer := l.attempt.provider.registry.schedule.After(limit, l.expire)
	l.expiry.Store(timer)
	if l.ended.Load() { // it has expired before the timer was known
		timer.Stop()
	}
}

// end takes the right to end the attempt. It is given once.
func (l *leasedAttempt) end() bool { return l.ended.CompareAndSwap(false, true) }

// conclude judges and records the error that the holder reports, also when a classifier exits the goroutine, and
// returns the verdict with the class as it was counted. neutral, which may be nil, says that an error that is no answer
// blames nothing. The caller has the right to end the attempt.
func (l *leasedAttempt) conclude(err error, neutral func(error) bool) (v verdict.Verdict) {
	err = fault.Bound(err)
	elapsed := l.attempt.elapsed()
	defer func() {
		l.tellHook(l.record(v, elapsed, err))
		v.Class = l.told.Class
	}()
	v, l.cause = l.attempt.judge(&l.call.caller, err)
	switch v.Class { //nolint:exhaustive // clients report a request that was cancelled as each of these
	case verdict.ClassUnknown, verdict.ClassTransport, verdict.ClassNotSent:
		if neutral != nil && neutral(err) {
			v = verdict.Verdict{Class: verdict.ClassCancelled}
		}
	}
	l.attempt.other = l.next
	return v
}

// abort ends the attempt, if nothing has, with an outcome that needs no judgement.
func (l *leasedAttempt) abort(class verdict.Class, err error) {
	if l.end() {
		defer l.call.close()
		l.tellHook(l.record(verdict.Verdict{Class: class}, l.attempt.elapsed(), fault.Bound(err)))
	}
}

// record records the outcome, and returns what the hook is to be told.
func (l *leasedAttempt) record(v verdict.Verdict, elapsed time.Duration, err error) (soFar CallReport) {
	if timer := l.expiry.Load(); timer != nil {
		timer.Stop()
	}
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
	l.told.Class, l.told.Duration, l.told.Err = o.Class, elapsed, err
	l.call.unclaim(a.provider)
	return l.call.addOutcome(l.told, l.cause, a.provider.definition.Window)
}

// tellHook runs the hook after the attempt.
func (l *leasedAttempt) tellHook(soFar CallReport) {
	if l.call.observed {
		l.call.tellAttempt(l.ctx, soFar, l.told)
	}
}

// expire ends an attempt whose holder is overdue. The hooks run in a goroutine of their own, and so do
// the methods of the caller's context: the one that expires leases is shared by all of them.
func (l *leasedAttempt) expire() {
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
	soFar := l.record(verdict.Verdict{Class: verdict.ClassForgotten}, elapsed, nil)
	if expired != nil {
		p.registry.tasks.StartLast(fmt.Sprintf("context of an expired lease of provider %q", p.name()), expired.Expire)
	}
	if !l.call.observed {
		l.call.close()
		return
	}
	p.registry.tasks.StartLast(fmt.Sprintf("hooks of an expired lease of provider %q", p.name()), func() {
		defer l.call.close()
		l.tellHook(soFar)
	})
}

package registry

import (
	"slices"
	"time"

	"github.com/capreg/registry/internal/fault"
	"github.com/capreg/registry/internal/limit"
	"github.com/capreg/registry/internal/outcome"
	"github.com/capreg/registry/internal/refusal"
	"github.com/capreg/registry/verdict"
)

// concludeAttempt records the outcome of the attempt, decides what follows, and reports whether the call ends with it.
func (c *call) concludeAttempt(err error) (over bool) {
	a := &c.attempt
	elapsed := a.elapsed()
	if err == nil {
		o := a.resolve(verdict.Verdict{Class: verdict.ClassSuccess}, elapsed, 0, nil)
		a.record(o)
		c.count(o.Class, a.began+elapsed)
		if c.observed {
			c.noteAttempt(o.Class, elapsed, nil)
			c.report(nil)
		}
		c.state = callEnded
		return true
	}
	err = fault.Bound(err)
	v := c.judgeAndRecord(err, elapsed)
	c.noteAttempt(v.Class, elapsed, err)
	c.decide(v)
	return c.state == callEnded
}

// decide decides what follows an attempt with that verdict: a retry, another provider, or the end of the call.
func (c *call) decide(v verdict.Verdict) {
	c.allowed.Follow(v.Class, c.options.OnceOnly, c.query.query.TryRefused, c.attempt.provider.definition.Window)
	c.state = callChoosing
	switch {
	case c.planRetry(v):
		c.state = callRetrying
	case c.allowed.Final():
		c.state = callEnded
	}
}

// judgeAndRecord records the attempt with its verdict, also when a classifier exits the goroutine.
func (c *call) judgeAndRecord(err error, elapsed time.Duration) (v verdict.Verdict) {
	judged := false
	defer func() {
		if !judged { // the goroutine exits
			c.count(v.Class, c.attempt.began+elapsed)
		}
		o := c.attempt.resolve(v, elapsed, 0, err)
		if o.Cooldown == verdict.CooldownThird {
			o.Call = c.serial()
		}
		c.attempt.record(o)
	}()
	if c.panicked != nil {
		c.panicked, judged = nil, true
		return verdict.Verdict{Class: verdict.ClassPanic}
	}
	v, c.cause = c.attempt.judge(&c.caller, err)
	if v.Class == verdict.ClassCallerDeadline {
		c.attempt.other = c.providers.another()
	}
	judged = true
	return v
}

// concludeInterruption ends an attempt whose function did not return: value is what it panicked
// with, nil when it ended its goroutine.
func (c *call) concludeInterruption(value any) error {
	a := &c.attempt
	if value != nil && a.provider.registry.options.PanicsAsErrors {
		c.panicked = fault.Panicked(value)
		return c.panicked
	}
	elapsed := a.elapsed()
	if value == nil && c.state == callPreparing { // it was not the provider's code
		c.concludeAborted(a.resolve(verdict.Verdict{Class: verdict.ClassIgnored}, elapsed, 0, nil), elapsed)
		return nil
	}
	class, cause := a.recordInterruption(value)
	c.noteAborted(class, elapsed, cause)
	if value != nil {
		panic(value)
	}
	return nil
}

// concludeAborted records an attempt that ends the goroutine before its function was entered.
func (c *call) concludeAborted(o outcome.Outcome, elapsed time.Duration) {
	c.attempt.record(o)
	c.noteAborted(o.Class, elapsed, nil)
}

// noteAborted tells of an attempt, and a call, that end the goroutine, or their caller.
func (c *call) noteAborted(class verdict.Class, elapsed time.Duration, cause error) {
	c.state = callEnded
	c.count(class, c.query.service.registry.now())
	if c.observed {
		cause = fault.Bound(cause)
		c.noteAttempt(class, elapsed, cause)
		c.report(cause)
	}
}

// planRetry reports whether the provider is to be tried again, after c.delay.
func (c *call) planRetry(v verdict.Verdict) bool {
	p, rule := c.attempt.provider, v.Class.Rule()
	retry := p.effects.Retry()
	if retry == nil || c.retried.tries >= retry.Policy.Retries || rule.RetryHere != verdict.RetryYes ||
		c.options.OnceOnly && !rule.OnceMovesOn {
		return false
	}
	if c.retried.delays == nil {
		c.retried.delays = limit.NewDelays(retry.Policy.FirstDelay, retry.Policy.MaxDelay, limit.NoJitter)
	}
	delay := limit.FullJitter(c.retried.delays.NextBackOff())
	switch blocked := p.gateNow() & refusal.Blocked; {
	case blocked == refusal.Cooling && v.After > 0 && !c.providers.more():
		// A delay that came with an error that may be retried, such as a 503's, has become a
		// cooldown, which is over when its timer has fired.
		cooldown, _ := p.comesBackIn()
		delay = cooldown + time.Millisecond
	case blocked != 0:
		return false
	}
	if c.caller.HasDeadline && delay >= time.Until(c.caller.Deadline) || !retry.Allow() {
		return false
	}
	c.retried.tries++
	c.delay = delay
	return true
}

// count counts the call, which has ended with that class, and its look-up.
func (c *call) count(class verdict.Class, now time.Duration) {
	c.query.service.meter.Called(class, now-c.began, c.entries)
	if c.entries > 0 && c.shared == nil {
		c.query.service.meter.Hit()
	}
}

// endClass returns the class of a call that has no answer: of what ended it, or of its last attempt.
func (c *call) endClass() verdict.Class {
	if len(c.attempts) == 0 {
		return outcome.OfCall(c.caller.Err(), verdict.ClassCannot)
	}
	return outcome.OfCall(c.caller.Err(), c.attempts[len(c.attempts)-1].Class)
}

// fail ends the call with its error.
func (c *call) fail() error {
	err := c.failure()
	c.query.service.meter.Waited(c.delay)
	c.count(c.endClass(), c.query.service.registry.now())
	if c.observed {
		c.report(err)
	}
	return err
}

// history holds the attempts of a call that have ended, and what may follow them.
type history struct {
	allowed outcome.Allowed // what may follow them

	attempts []Attempt // the ones that failed; all when observed, or of leases
	causes   []error   // why the registry ended some of them
	cause    error     // why it ended the present one, if it did
}

func (h *history) clone() history {
	copied := *h
	copied.attempts, copied.causes = slices.Clone(h.attempts), slices.Clone(h.causes)
	return copied
}

// add notes an attempt that has ended, and why the registry ended it, if it did.
func (h *history) add(ended Attempt, cause error) {
	h.attempts = append(h.attempts, ended)
	if cause != nil {
		h.causes = append(h.causes, cause)
	}
}

// tried reports whether the provider of that name was asked.
func (h *history) tried(provider string) bool {
	return slices.ContainsFunc(h.attempts, func(a Attempt) bool { return a.Provider == provider })
}

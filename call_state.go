package registry

import (
	"context"
	"slices"
	"time"

	"github.com/cenkalti/backoff/v4"

	"github.com/capreg/registry/internal/attemptctx"
	"github.com/capreg/registry/internal/pick"
	"github.com/capreg/registry/internal/sight"
	"github.com/capreg/registry/reason"
	"github.com/capreg/registry/verdict"
)

// call is one operation of a user: attempts on the providers that an iteration offers, until one answers or
// none is left. It lives on its caller's stack.
//
//	state     | what happens                                       | next state
//	choosing  | a provider of the iteration admits the call         | preparing
//	          | none is left, and a wait ends with a place          | preparing
//	          | none is left, and a wait ends otherwise             | choosing
//	          | none is left, and nothing to wait for               | exhausted
//	          | the caller's context ends                           | choosing, for good
//	retrying  | the same provider admits the call after the delay   | preparing
//	          | it does not, or the outcome before was final        | choosing, exhausted
//	preparing | the hook before the attempt returns                 | running
//	running   | the function answers, or its outcome is final       | ended
//	          | the provider may be tried again                     | retrying
//	          | another provider may be asked                       | choosing
//
// Every attempt, those of leases too, is admitted by [call.enter], judged by [attempt.judge] and recorded by
// [attempt.record].
type call struct {
	attempt   attempt
	state     callState
	shared    *leaseCall          // of leases; nil for a call that runs a function
	room      *attemptctx.Context // for the context of the next attempt; nil: none yet
	providers iterator
	hookCtx   context.Context //nolint:containedctx // of the attempt, as a hook has changed it; nil: none has

	request
	history
	by pick.Caller // what selectors can know of it

	entries   int  // of functions
	rounds    int  // of iterations that follow a wait for a return
	sawProbes bool // it has waited for first probes
	waiting   *comebackWait
	why       reason.Why
	delay     time.Duration // before the present attempt
	retried   retried
	panicked  *verdict.PanicError
	skips     []sight.Seen // providers that were refused for a reason that no gate shows
	refused   []*provider  // the same
	full      []*provider  // had no place free
}

type callState uint8

const (
	callChoosing  callState = iota // the next provider is to be found
	callRetrying                   // the same provider is to be tried again
	callPreparing                  // a provider was entered, and the hook before the attempt runs
	callRunning                    // the function runs
	callExhausted                  // no provider is left
	callEnded                      // the outcome is final
)

// retried counts how often a call has tried one provider again.
type retried struct {
	provider *provider
	tries    int // beyond the first
	delays   *backoff.ExponentialBackOff
}

// iterate begins an iteration over the providers of the query. One that finds none starts over
// only for a call that has entered none: later ones may have no use for those eligible now.
func (c *call) iterate() {
	c.providers = iterator{shared: c.shared, found: c.entries > 0}
	c.providers.rewind(c.query, c.query.current(), -1, admitting)
}

// iterateWith is iterate for a new call. It starts with the provider that the first attempt has picked, whose turn it
// is, if it has; first may be nil.
func (c *call) iterateWith(first *firstAttempt) {
	c.providers.shared, c.by = c.shared, c.pickCaller()
	if c.began == 0 {
		c.began = c.query.service.registry.now()
	}
	if first != nil && first.plan != nil {
		c.providers.rewind(c.query, first.plan, first.picked, admitting)
	} else {
		c.providers.rewind(c.query, c.query.current(), -1, admitting)
	}
}

// continueFrom makes the call one whose first attempt was that one.
func (c *call) continueFrom(ctx context.Context, query *queryPlan, key string, first *firstAttempt) {
	c.query, c.attempt, c.began = query, first.attempt, first.began
	c.caller = attemptctx.CallerOf(ctx)
	first.state = attemptOver // not before: the context is a user's
	c.options.Caller = query.query.Handler
	c.affinity, c.state, c.why, c.entries, c.retried.provider = key, callRunning, reason.First, 1, first.provider
	c.iterateWith(first)
	c.providers.advance(&c.by) // the picked one
	c.providers.take()
}

// handOver leaves the attempt to a lease: its place and delay are not the call's any more.
func (c *call) handOver() {
	c.attempt.place, c.delay, c.state = nil, 0, callChoosing
}

// resume goes on from a leased attempt that has ended with that verdict.
func (c *call) resume(ended *leasedAttempt, v verdict.Verdict) {
	c.attempt, c.retried = ended.attempt, ended.retried
	c.attempt.freed = false
	c.decide(v)
}

// prepareLease runs the hook before an attempt that becomes a lease. A hook that exits the goroutine gives the
// provider back.
func (c *call) prepareLease() {
	returned := false
	defer func() {
		if !returned {
			c.shared.unclaim(c.attempt.provider)
			c.attempt.record(c.attempt.resolve(verdict.Verdict{Class: verdict.ClassIgnored}, 0, 0, nil))
		}
	}()
	c.prepareAttempt()
	returned = true
}

// nextAttempt enters the next provider that admits the call, or the same one again. On false the call is over.
func (c *call) nextAttempt() bool {
	if c.state == callRetrying {
		c.state = callChoosing
		if c.sleep(c.delay) && c.claimAndEnter(c.attempt.provider, admission{why: reason.Retry, paid: true}) {
			return true
		}
	}
	for c.mayAsk() {
		p := c.providers.advance(&c.by)
		if p == nil {
			switch c.waitForProvider() {
			case waitEntered:
				return true
			case waitAgain:
				continue
			case waitOver:
			}
			break
		}
		if c.tryProvider(p) {
			return true
		}
	}
	c.waiting.End()
	if c.entries == 0 {
		c.query.service.meter.Miss()
	}
	if !c.allowed.Final() && c.caller.Err() == nil {
		c.state = callExhausted
	}
	return false
}

// mayAsk reports whether another provider may be asked at all.
func (c *call) mayAsk() bool {
	return c.state == callChoosing && !c.allowed.Final() && c.caller.Ctx.Err() == nil
}

// tryProvider enters a provider that the iteration offers, or passes it by.
func (c *call) tryProvider(p *provider) bool {
	if c.providers.restarts > 0 && c.triedBefore(p) {
		return false
	}
	if c.wants(p) && c.claimAndEnter(p, admission{why: c.nextReason()}) {
		c.providers.take()
		return true
	}
	if !c.tried(p.name()) {
		c.providers.pass(p)
	}
	return false
}

// wants reports whether the call has use for a provider: its window is large enough, and after a wait it was
// not asked before, or only turned the call away.
func (c *call) wants(p *provider) bool {
	if c.allowed.TooSmall(p.definition.Window) {
		return false
	}
	return c.rounds == 0 || c.mayReturnTo(p)
}

// triedBefore reports whether p has failed, refused or been full before the iteration started over, or is
// another lease's of the call. One that failed may be returned to after a wait.
func (c *call) triedBefore(p *provider) bool {
	if slices.Contains(c.refused, p) || slices.Contains(c.full, p) {
		return true
	}
	if c.tried(p.name()) {
		return c.rounds == 0 || !c.mayReturnTo(p)
	}
	return c.shared != nil && c.shared.claimed(p.name())
}

// mayReturnTo reports whether a call that has waited may ask the provider: it has not asked it yet, or was only
// turned away.
func (c *call) mayReturnTo(p *provider) bool {
	for _, ran := range slices.Backward(c.attempts) {
		if ran.Provider == p.name() {
			return ran.Class.Rule().RetryHere == verdict.RetryWhenWaiting
		}
	}
	return true
}

// nextReason returns why the next provider of the iteration is asked.
func (c *call) nextReason() reason.Why {
	switch {
	case c.rounds > 0:
		return reason.Waited
	case c.why == reason.Hedge: // set by [LeaseSteps.Beside]
		return reason.Hedge
	case c.entries > 0:
		return reason.Failover
	}
	return reason.First
}

package registry

import (
	"context"
	"math"
	"sync/atomic"
	"time"

	"github.com/capreg/registry/internal/attemptctx"
	"github.com/capreg/registry/internal/schedule"
	"github.com/capreg/registry/internal/slots"
	"github.com/capreg/registry/internal/tasks"
	"github.com/capreg/registry/selection"
	"github.com/capreg/registry/verdict"
)

// attempt is one entry of one provider, by a call or a lease: from admission to
// the recording of its outcome.
type attempt struct {
	provider   *provider
	instance   *instance
	cell       *counts
	slots      *slots.Slots // where it holds a place; nil without a bulkhead
	generation uint64       // of the breaker that admitted it
	trial      bool
	forced     bool // as a last resort, whatever keeps others away
	shared     bool // it had to leave time for another provider
	timeout    time.Duration
	began      time.Duration       // on the registry's clock
	ctx        context.Context     //nolint:containedctx // what the function gets
	own        *attemptctx.Context // ctx, where it is not the caller's
	ended      error               // why the registry ended it, if it did
	latency    time.Duration       // until the answer began; zero: until the end
	hung       *hungTrial          // nil unless a call is on trial
	resort     bool                // it was entered as a last resort, and moves no breaker

	vitals *selection.Vitals // where strategies see its load and latency; nil: none looks
	track  *selection.Track  // the same for the query of the call

	caller      context.Context //nolint:containedctx // lives as long as the call
	deadline    time.Time       // the caller's
	hasDeadline bool
}

// begin takes the caller's context for all attempts of a call.
func (a *attempt) begin(caller context.Context) {
	a.caller = caller
	a.deadline, a.hasDeadline = caller.Deadline()
}

// enter counts the attempt in and admits it, or leaves no trace. It blocks only
// for a factory, within the caller's context and the attempt timeout.
//
// The order matters: first the count, then a look at the gate, so that a drain
// that closes the gate and then reads the counts misses nobody.
func (a *attempt) enter(p *provider, w *iterator, timeout time.Duration) bool {
	a.provider = p
	a.timeout = timeout
	if a.timeout == 0 {
		a.timeout = time.Duration(p.timeout.Load())
	}
	if p.instance.Load() == nil && !a.awaitInstance(w) {
		return false
	}
	a.cell = p.counts.Local()
	a.cell.attempts.Add(1)
	if a.instance = p.instance.Load(); a.instance == nil || !a.mayEnter() {
		p.withdraw(a.cell)
		return false
	}
	a.began, a.ended, a.hung, a.resort = p.registry.now(), nil, nil, a.forced
	limit := NoTimeout
	if a.shared = false; a.timeout != NoTimeout {
		limit, a.shared = a.limit(w, a.began)
	}
	var ok bool
	if a.generation, a.trial, ok = p.breaker.admit(); !ok && !a.forced {
		p.withdraw(a.cell)
		return false
	}
	if a.vitals = p.vitals.Load(); a.vitals != nil {
		a.vitals.Begin()
	}
	if a.timeout == NoTimeout {
		a.ctx, a.own = a.caller, nil
	} else {
		a.own = p.attemptContext(a.caller, a.began, limit, a.own)
		a.ctx = a.own
	}
	return true
}

// mayEnter looks at the gate; a last resort looks only at what cannot be helped.
func (a *attempt) mayEnter() bool {
	now := a.provider.gateNow()
	if a.forced {
		return now&gateHelpless == 0
	}
	return now&gateBlocked == 0
}

// withdraw takes back the count of an attempt that was not admitted.
func (p *provider) withdraw(cell *counts) {
	cell.attempts.Add(^uint64(0))
	p.exit()
}

// awaitInstance waits for the provider's factory, for no longer than an attempt
// may take.
func (a *attempt) awaitInstance(w *iterator) bool {
	if a.provider.maker == nil {
		return false // released meanwhile
	}
	ctx := a.caller
	if limit, _ := a.limit(w, a.provider.registry.now()); limit != NoTimeout {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, limit, ErrAttemptTimeout)
		defer cancel()
	}
	a.instance = a.provider.maker.wait(ctx)
	return a.instance != nil
}

// limit is attemptLimit where w has the other candidates.
func (a *attempt) limit(w *iterator, now time.Duration) (limit time.Duration, shared bool) {
	return a.provider.attemptLimit(a.deadline, a.hasDeadline, a.timeout, now, func() bool { return w != nil && w.More() })
}

// attemptLimit returns the longest time that an attempt may take: its timeout, or
// half of what the caller has left while another candidate could be asked, with
// which it then shares. It is NoTimeout where the caller's own deadline is limit
// enough. It runs no code of a user, since the attempt has been counted.
func (p *provider) attemptLimit(
	deadline time.Time, hasDeadline bool, timeout, now time.Duration, others func() bool,
) (limit time.Duration, shared bool) {
	if timeout == NoTimeout {
		return NoTimeout, false
	}
	limit = min(timeout, math.MaxInt64-now)
	if !hasDeadline {
		return limit, false
	}
	remaining := deadline.Sub(p.registry.epoch) - now
	if remaining/2 < limit && others() {
		limit, shared = remaining/2, true
	}
	if limit >= remaining {
		return NoTimeout, shared
	}
	return max(limit, 0), shared
}

// attemptContext makes the context of the function; before is that of the attempt of
// the same call before it, if any.
func (p *provider) attemptContext(caller context.Context, began, limit time.Duration, before *attemptctx.Context) *attemptctx.Context {
	var deadline time.Time
	if limit != NoTimeout {
		deadline = p.registry.epoch.Add(began + limit)
	}
	return attemptctx.New(caller, deadline, &p.contexts, before)
}

// settle records the outcome: the breaker learns, a cooldown begins or loses its
// growth, the count moves, and the place is free again. It returns the class as
// it was counted.
func (a *attempt) settle(v verdict.Verdict, elapsed time.Duration, cause error) verdict.Class {
	p := a.provider
	latency := a.latency
	if latency == 0 {
		latency = elapsed
	}
	slow := p.breaker.slow(latency)
	if v.Class == verdict.ClassSuccess && slow {
		v.Class = verdict.ClassSlow
	}
	rule := v.Class.Rule()
	if a.own != nil {
		a.own.End()
	}
	blame, tally := rule.Blame, rule.Tally
	switch blame {
	case verdict.BlameWhenLong:
		blame = verdict.BlameNeutral
		if elapsed >= a.timeout/2 {
			blame, tally = verdict.BlameFailure, verdict.TallyFailure
		}
	case verdict.BlameNotRecorded:
		blame = verdict.BlameNeutral
	case verdict.BlameWhenSlow, verdict.BlameNeutral, verdict.BlameSuccess, verdict.BlameFailure:
	}
	switch {
	case v.Class == verdict.ClassAttemptTimeout && a.shared && elapsed < p.totals().MeanLatency && p.forgivesCut():
		// It was cut short for the sake of others, sooner than it usually answers.
		blame, tally = verdict.BlameNeutral, verdict.TallyIgnored
	case tally == verdict.TallySuccess && p.cutShort.Load() > 0:
		p.cutShort.Store(0)
	}
	// Of a clean breaker there is nothing to learn, and no trial.
	if (blame == verdict.BlameFailure || !p.breaker.clean(a.generation)) && (!a.resort || a.trial) && a.hung.returns() {
		p.breaker.settle(a.generation, a.trial, blame, slow)
	}
	p.spend(blame)
	if a.vitals != nil {
		a.vitals.End(p.registry.now(), latency, outcomeOf(blame), a.track)
	}
	switch {
	case rule.Cooldown == verdict.CooldownReset:
		if p.grown.Load() {
			p.forgive()
		}
	case rule.Cooldown != verdict.CooldownNone || v.After > 0:
		p.cool(v, rule.Cooldown, cause)
	}
	switch tally {
	case verdict.TallySuccess:
		a.cell.latency.Add(uint64(max(latency, 0)))
		a.cell.successes.Add(1)
	case verdict.TallyFailure:
		a.cell.failures.Add(1)
	case verdict.TallyLimited:
		a.cell.limited.Add(1)
	case verdict.TallyIgnored, verdict.TallyNone:
		a.cell.ignored.Add(1)
	}
	if a.slots != nil {
		a.slots.Release()
		a.slots = nil
	}
	p.exit()
	return v.Class
}

// forgivesCut notes that an attempt was cut short for the sake of others.
func (p *provider) forgivesCut() bool {
	p.learns.Store(true)
	return p.cutShort.Add(1) <= forgivenCuts
}

// outcomeOf returns what an outcome says of the provider's performance.
func outcomeOf(blame verdict.Blame) selection.Outcome {
	switch blame {
	case verdict.BlameSuccess, verdict.BlameWhenSlow:
		return selection.Answered
	case verdict.BlameFailure:
		return selection.Failed
	case verdict.BlameNeutral, verdict.BlameWhenLong, verdict.BlameNotRecorded:
	}
	return selection.Neutral
}

// forgivenCuts is how many attempts in a row may be cut short without blame; a
// provider that begins to hang is told from one that is merely slow by more.
const forgivenCuts = 3

// hungTrial ends the trial of a call whose function does not return, so that its
// slot is free for another one.
type hungTrial struct {
	ended atomic.Bool
	timer *schedule.Timer
}

// watchTrial ends the trial as a failure when the function is not back a while
// after its time.
func (a *attempt) watchTrial() {
	limit := a.timeout
	if limit == NoTimeout {
		limit = longestLeaseWithoutTimeout
	}
	p, generation, h := a.provider, a.generation, &hungTrial{}
	h.timer = p.registry.schedule.After(min(limit, NoTimeout-tasks.Grace)+tasks.Grace, func() {
		if h.ended.CompareAndSwap(false, true) {
			p.breaker.settle(generation, true, verdict.BlameFailure, false)
		}
	})
	a.hung = h
}

// returns reports whether the outcome of the attempt is still to be told to the
// breaker.
func (h *hungTrial) returns() bool {
	if h == nil {
		return true
	}
	h.timer.Stop()
	return h.ended.CompareAndSwap(false, true)
}

// spend moves the budget for further attempts.
func (p *provider) spend(blame verdict.Blame) {
	known := p.retries.Load()
	switch blame {
	case verdict.BlameSuccess, verdict.BlameWhenSlow:
		if known != nil {
			known.succeeded()
		}
	case verdict.BlameFailure:
		if known == nil {
			policy, _ := RetryPolicy{}.withDefaults() // the zero value is valid
			p.learns.Store(true)
			p.retries.CompareAndSwap(nil, newRetries(policy))
			known = p.retries.Load()
		}
		known.failed()
	case verdict.BlameNeutral, verdict.BlameWhenLong, verdict.BlameNotRecorded:
	}
}

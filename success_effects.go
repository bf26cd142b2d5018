package registry

import (
	"sync/atomic"
	"time"

	"github.com/capreg/registry/internal/pace"
)

// successEffects keeps what a success changes beyond the counters of its provider: the retry budget, the
// growth of cooldowns and the attempts that have ended without an answer since the last one. While successTracked is false there is
// none of these, and the fast path of a call records a success by its counters alone.
//
// trackSuccess is called before the state that makes it necessary changes: a success that sees the state
// therefore also sees the flag. That is why only the methods below touch the fields (a test looks at that).
type successEffects struct {
	tracked  atomic.Bool                // set by trackSuccess, never cleared
	retrying atomic.Pointer[retryState] // nil: no failure yet, and the default policy
	grown    atomic.Bool                // a cooldown has begun, or a refusal was counted, since the last success
	pace     pace.Pace                  // how long answers take; only what it knows of a wait is tracked
}

// trackSuccess makes every later success settle in full. A breaker whose policy looks at successes calls it
// as well.
func (e *successEffects) trackSuccess() { e.tracked.Store(true) }

// successTracked reports whether a success changes more than the counters.
func (e *successEffects) successTracked() bool { return e.tracked.Load() }

// retry returns the retry state; nil before the first failure under the default policy.
func (e *successEffects) retry() *retryState { return e.retrying.Load() }

// setRetryPolicy puts a policy in force, with a full budget, and returns the one before.
func (e *successEffects) setRetryPolicy(p RetryPolicy) (previous RetryPolicy) {
	e.trackSuccess()
	if before := e.retrying.Swap(newRetryState(p)); before != nil {
		return before.policy
	}
	return defaultRetryPolicy()
}

// spendBudget takes a token of the retry budget after a failure.
func (e *successEffects) spendBudget() {
	known := e.retrying.Load()
	if known == nil {
		e.trackSuccess()
		e.retrying.CompareAndSwap(nil, newRetryState(defaultRetryPolicy()))
		known = e.retrying.Load()
	}
	known.Spend()
}

// refundBudget gives a part of a token back after a success.
func (e *successEffects) refundBudget() {
	if known := e.retrying.Load(); known != nil {
		known.Refund()
	}
}

// refillBudget makes the retry budget full.
func (e *successEffects) refillBudget() {
	if known := e.retrying.Load(); known != nil {
		known.Refill()
	}
}

// setCooldownGrown notes whether the next success has a growth of cooldowns, or a count of refusals, to end.
func (e *successEffects) setCooldownGrown(grown bool) {
	if grown {
		e.trackSuccess()
	}
	e.grown.Store(grown)
}

// cooldownGrown reports whether a success has one of these to end.
func (e *successEffects) cooldownGrown() bool { return e.grown.Load() }

// noteAnswer notes how long an answer took, and reports whether none took longer of late.
func (e *successEffects) noteAnswer(took time.Duration) (longest bool) { return e.pace.Answered(took) }

// noteWait notes how long an attempt ran that has ended without an answer.
func (e *successEffects) noteWait(took time.Duration) {
	e.trackSuccess()
	e.pace.Unanswered(took)
}

// endWait forgets the attempts that have ended without an answer.
func (e *successEffects) endWait() { e.pace.EndWait() }

// knownPace returns what the attempts so far tell of the time that an answer takes.
func (e *successEffects) knownPace(now time.Duration) pace.Known { return e.pace.Known(now) }

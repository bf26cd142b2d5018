// Package effects keeps what a success changes beyond the counters of its provider: the retry budget, the growth of
// cooldowns, and the attempts that have ended without an answer since the last one.
//
// An [Effects] owns one flag. While [Effects.Tracked] is false there is none of these, and the fast path of a call
// records a success by its counters alone. The flag is set before the state that makes it necessary changes: a
// success that sees the state therefore also sees the flag. The package takes no lock and starts no timer.
package effects

import (
	"sync/atomic"
	"time"

	"github.com/capreg/registry/internal/breaker"
	"github.com/capreg/registry/internal/limit"
	"github.com/capreg/registry/internal/pace"
	"github.com/capreg/registry/status"
)

// Effects are those of the successes of one provider. The zero value has the default retry policy. All methods are
// safe for concurrent use.
type Effects struct {
	tracked  atomic.Bool           // set by Track, never cleared
	retrying atomic.Pointer[Retry] // nil: no failure yet, and the default policy
	grown    atomic.Bool           // a cooldown has begun, or a refusal was counted, since the last success
	pace     pace.Pace             // how long answers take; only what it knows of a wait is tracked
}

// Retry is a retry policy in force, and its budget.
type Retry struct {
	Policy limit.RetryPolicy
	*limit.Budget
}

func newRetry(p limit.RetryPolicy) *Retry { return &Retry{p, limit.NewBudget(p)} }

// defaultPolicy returns the policy of a provider that was given none.
func defaultPolicy() limit.RetryPolicy {
	policy, _ := limit.RetryPolicy{}.Checked() // the zero value is valid
	return policy
}

// Track makes every later success settle in full. A breaker whose policy looks at successes needs it as well.
func (e *Effects) Track() { e.tracked.Store(true) }

// Tracked reports whether a success changes more than the counters.
func (e *Effects) Tracked() bool { return e.tracked.Load() }

// Retry returns the retry state; nil before the first failure under the default policy.
func (e *Effects) Retry() *Retry { return e.retrying.Load() }

// RetryPolicy returns the retry policy in force, and what is left of its budget.
func (e *Effects) RetryPolicy() (limit.RetryPolicy, status.Budget) {
	known := e.retrying.Load()
	if known == nil {
		policy := defaultPolicy()
		return policy, status.Budget{Left: float64(policy.Budget)}
	}
	left, low := known.Left()
	return known.Policy, status.Budget{Left: left, Low: low}
}

// SetRetryPolicy puts a policy in force, with a full budget, and returns the one before.
func (e *Effects) SetRetryPolicy(p limit.RetryPolicy) (previous limit.RetryPolicy) {
	if before := e.retrying.Swap(newRetry(p)); before != nil {
		return before.Policy
	}
	return defaultPolicy()
}

// MoveBudget takes a token of the retry budget after a failure, and gives a part of one back after a success.
func (e *Effects) MoveBudget(result breaker.Outcome) {
	switch result {
	case breaker.Success:
		if known := e.retrying.Load(); known != nil {
			known.Refund()
		}
	case breaker.Failure:
		e.spend()
	case breaker.Neutral, breaker.Unanswered:
	}
}

func (e *Effects) spend() {
	e.Track() // a budget that is not full any more
	known := e.retrying.Load()
	if known == nil {
		e.retrying.CompareAndSwap(nil, newRetry(defaultPolicy()))
		known = e.retrying.Load()
	}
	known.Spend()
}

// RefillBudget makes the retry budget full.
func (e *Effects) RefillBudget() {
	if known := e.retrying.Load(); known != nil {
		known.Refill()
	}
}

// SetCooldownGrown notes whether the next success has a growth of cooldowns, or a count of refusals, to end.
func (e *Effects) SetCooldownGrown(grown bool) {
	if grown {
		e.Track()
	}
	e.grown.Store(grown)
}

// CooldownGrown reports whether a success has one of these to end.
func (e *Effects) CooldownGrown() bool { return e.grown.Load() }

// NoteAnswer notes how long an answer took, and reports whether none took longer of late.
func (e *Effects) NoteAnswer(took time.Duration) (longest bool) { return e.pace.Answered(took) }

// NoteWait notes how long an attempt ran that has ended without an answer.
func (e *Effects) NoteWait(took time.Duration) {
	e.Track()
	e.pace.Unanswered(took)
}

// EndWait forgets the attempts that have ended without an answer.
func (e *Effects) EndWait() { e.pace.EndWait() }

// ContinuePace begins with what earlier attempts have told of the time that an answer takes; all is that of the service.
func (e *Effects) ContinuePace(known pace.Known, now time.Duration, all *pace.Pace) {
	if known.Longest > 0 {
		all.Answered(known.Longest)
	}
	if known.Waited > 0 {
		e.Track()
	}
	e.pace.Continue(known, now)
}

// KnownPace returns what the attempts so far tell of the time that an answer takes.
func (e *Effects) KnownPace(now time.Duration) pace.Known { return e.pace.Known(now) }

// Package limit bounds how much and how soon a provider is asked.
//
// [Limits] are the limits of a failure domain in force: places (package slots) and a [Rates] of each caller.
// [Budget] bounds further attempts by the outcomes of earlier ones, and [NewDelays] spaces them. The package
// owns what it counts; it never waits, starts nothing, and knows neither providers nor calls.
package limit

import (
	"math"
	"time"

	"github.com/capreg/registry/internal/slots"
	"github.com/capreg/registry/status"
)

// Limits are the limits of a domain in force. Nil limits nothing. All methods are safe for concurrent use.
type Limits struct {
	policy Policy
	slots  *slots.Slots // nil: no bulkhead
	latest *slots.Slots // of this bulkhead or an earlier one, of which places may still be taken
	rates  *Rates       // nil: any rate
}

// New returns the limits of a policy, or nil when there is nothing to limit. Places taken under the limits
// before (nil: none) stay taken, and queued calls stay queued unless the bulkhead is gone; rates begin with
// full bursts.
func New(policy Policy, before *Limits) *Limits {
	l := &Limits{policy: policy}
	if before != nil {
		l.latest = before.latest
	}
	if policy.Rate > 0 {
		l.rates = NewRates(policy.Rate, policy.Burst)
	}
	switch {
	case policy.Bulkhead && l.latest == nil:
		l.slots = slots.New(policy.MaxConcurrent, policy.MaxQueue)
		l.latest = l.slots
	case policy.Bulkhead:
		l.latest.Resize(policy.MaxConcurrent, policy.MaxQueue)
		l.slots = l.latest
	case l.latest != nil:
		l.latest.Resize(math.MaxInt32, 0) // lets every queued call in
	case l.rates == nil:
		return nil
	}
	return l
}

// Policy returns the policy in force.
func (l *Limits) Policy() Policy { return l.policy }

// Use returns what is in use of the limits.
func (l *Limits) Use() (u status.Use) {
	if l == nil {
		return u
	}
	if l.slots != nil {
		u.Places, u.Queued = l.slots.Taken(), l.slots.Waiting()
	}
	if l.rates != nil {
		u.Callers = l.rates.Callers()
	}
	return u
}

// Slots returns the places of the bulkhead; nil without one.
func (l *Limits) Slots() *slots.Slots { return l.slots }

// Full reports whether an attempt would find no free place now.
func (l *Limits) Full() bool { return l != nil && l.slots != nil && !l.slots.Free() }

// Queues reports whether an attempt finds no free place now and could wait for one.
func (l *Limits) Queues() bool { return l.Full() && l.slots.HasRoom() }

// RetryIn returns the time until the caller's rate admits an attempt; zero: now. It uses up nothing.
func (l *Limits) RetryIn(caller string) time.Duration {
	if l == nil || l.rates == nil {
		return 0
	}
	return l.rates.RetryIn(caller)
}

// TakePlace takes a place where that is all that the limits ask for: there is a bulkhead and no rate. On
// false it has taken none.
func (l *Limits) TakePlace() (place *slots.Slots, ok bool) {
	if l.rates != nil || l.slots == nil || !l.slots.TryAcquire() {
		return nil, false
	}
	return l.slots, true
}

// Reserve is Take for a call that waits for its turn, for less than within.
func (l *Limits) Reserve(caller string, within time.Duration) (used Spent, wait time.Duration, ok bool) {
	if l.rates == nil {
		return Spent{}, 0, true
	}
	return l.rates.Reserve(caller, within)
}

// Take uses up one attempt of the caller's rate. If none is left, retryIn is positive and says when one is.
func (l *Limits) Take(caller string) (used Spent, retryIn time.Duration) {
	if l.rates == nil {
		return Spent{}, 0
	}
	return l.rates.Take(caller)
}

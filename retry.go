package registry

import (
	"cmp"
	"fmt"
	"math"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/cenkalti/backoff/v4"
	"golang.org/x/time/rate"
)

const (
	mostRetries       = 100
	defaultFirstDelay = 200 * time.Millisecond
	defaultMaxDelay   = 5 * time.Second
	defaultBudget     = 10
	defaultRefund     = 0.1
	defaultFloor      = 0.5
	longestRetryDelay = 10 * 365 * 24 * time.Hour

	token = 1000 // in thousandths
)

// RetryPolicy is how often a call tries a provider again before it moves on, and
// how much trying again the provider bears. The zero value never retries.
//
// Delays are exponential with full jitter: uniform between zero and a bound that
// doubles from FirstDelay to MaxDelay. A delay that the server asks for wins. A
// delay that would outlive the caller's deadline is not slept: the call moves on.
//
// The budget bounds every attempt on the provider that is not the first of its
// call, retries and failover alike, by the rule of gRPC (proposal A6): a failure
// takes a token, a success gives a part of one back, and further attempts are
// made while more than half of the tokens are there; below that a few a second
// still are. So a provider that fails draws no load from calls that fail
// elsewhere, and its outage limits nobody else. A breaker that closes fills it.
type RetryPolicy struct {
	// Retries is how often a provider is tried again within one call, at most
	// 100. Default: 0.
	Retries int `json:"retries,omitempty"`
	// FirstDelay bounds the delay before the first retry. Default: 200 ms.
	FirstDelay time.Duration `json:"first_delay"`
	// MaxDelay bounds the later ones. Default: 5 s.
	MaxDelay time.Duration `json:"max_delay"`
	// Budget is how many tokens there are. Default: 10.
	Budget int `json:"budget"`
	// Refund is the part of a token, at most 1, that a success gives back.
	// Default: 0.1.
	Refund float64 `json:"refund"`
	// Floor is how many further attempts a second are made whatever the budget,
	// so that programs with few calls are not without. Default: 0.5.
	Floor float64 `json:"floor"`
}

// withDefaults returns a checked copy in which only Retries may be zero.
func (p RetryPolicy) withDefaults() (RetryPolicy, error) {
	switch {
	case p.Retries < 0 || p.Retries > mostRetries:
		return p, invalid("Retry.Retries", p.Retries, fmt.Sprintf("0 to %d", mostRetries))
	case p.FirstDelay < 0 || p.FirstDelay > longestRetryDelay:
		return p, invalid("Retry.FirstDelay", p.FirstDelay, fmt.Sprintf("0 (default 200ms) to %v", longestRetryDelay))
	case p.MaxDelay < 0 || p.MaxDelay > longestRetryDelay:
		return p, invalid("Retry.MaxDelay", p.MaxDelay, fmt.Sprintf("0 (default 5s) to %v", longestRetryDelay))
	case p.Budget < 0 || p.Budget > math.MaxInt32:
		return p, invalid("Retry.Budget", p.Budget, fmt.Sprintf("0 (default 10) to %d", math.MaxInt32))
	case math.IsNaN(p.Refund) || p.Refund < 0 || p.Refund > 1 || p.Refund > 0 && p.Refund*token < 1:
		return p, invalid("Retry.Refund", p.Refund, "0 (default 0.1), or 0.001 to 1")
	case math.IsNaN(p.Floor) || p.Floor < 0 || p.Floor > math.MaxInt32:
		return p, invalid("Retry.Floor", p.Floor, fmt.Sprintf("0 (default 0.5) to %d a second", math.MaxInt32))
	}
	p.FirstDelay = cmp.Or(p.FirstDelay, defaultFirstDelay)
	p.MaxDelay = cmp.Or(p.MaxDelay, max(defaultMaxDelay, p.FirstDelay))
	if p.MaxDelay < p.FirstDelay {
		return p, invalid("Retry.MaxDelay", p.MaxDelay, fmt.Sprintf("at least FirstDelay (%v)", p.FirstDelay))
	}
	p.Budget = cmp.Or(p.Budget, defaultBudget)
	p.Refund = cmp.Or(p.Refund, defaultRefund)
	p.Floor = cmp.Or(p.Floor, defaultFloor)
	return p, nil
}

// delays returns the growing bounds of a call's delays.
func (p RetryPolicy) delays() *backoff.ExponentialBackOff {
	// The jitter is ours: backoff's own never goes down to zero.
	return backoff.NewExponentialBackOff(backoff.WithInitialInterval(p.FirstDelay), backoff.WithMultiplier(2),
		backoff.WithRandomizationFactor(0), backoff.WithMaxInterval(p.MaxDelay), backoff.WithMaxElapsedTime(0))
}

// fullJitter returns a random time up to the bound.
func fullJitter(bound time.Duration) time.Duration {
	return rand.N(bound + 1) //nolint:gosec // jitter
}

// retries are a provider's policy and budget in force.
type retries struct {
	policy RetryPolicy
	floor  *rate.Limiter
	tokens atomic.Int64
}

func newRetries(policy RetryPolicy) *retries {
	r := &retries{policy: policy, floor: rate.NewLimiter(rate.Limit(policy.Floor), max(int(policy.Floor), 1))}
	r.refill()
	return r
}

func (r *retries) full() int64 { return int64(r.policy.Budget) * token }

func (r *retries) refill() { r.tokens.Store(r.full()) }

// succeeded gives a part of a token back. With a full budget that is one load.
func (r *retries) succeeded() {
	for {
		now := r.tokens.Load()
		if now >= r.full() {
			return
		}
		refunded := min(now+int64(r.policy.Refund*token), r.full())
		if r.tokens.CompareAndSwap(now, refunded) {
			return
		}
	}
}

func (r *retries) failed() {
	for {
		now := r.tokens.Load()
		if now <= 0 || r.tokens.CompareAndSwap(now, max(now-token, 0)) {
			return
		}
	}
}

// allows reports whether a further attempt may be made on the provider.
func (r *retries) allows() bool {
	return r.tokens.Load() > r.full()/2 || r.floor.Allow()
}

package registry

import (
	"cmp"
	"fmt"
	"math"
	"time"

	"github.com/cenkalti/backoff/v4"

	"github.com/capreg/registry/internal/limit"
)

// RetryPolicy configures retries on the same provider, and the budget of further attempts on it. The zero value
// never retries.
//
// Delays are exponential with full jitter: uniform between zero and a bound that doubles from FirstDelay to
// MaxDelay. A delay that the server asks for wins. A delay that would outlive the caller's deadline is not
// slept: the call moves on.
//
// The budget bounds every attempt on the provider that is not the first of its call, retries and failover
// alike, by the rule of gRPC (proposal A6): a failure takes a token, a success gives a part of one back, and
// further attempts are made while more than half of the tokens are left; below that a few a second still are.
// So a provider that fails draws no load from calls that fail elsewhere, and its outage limits no other
// provider. A breaker that closes fills the budget.
type RetryPolicy struct {
	// Retries bounds the retries on the provider within one call, at most 100. Default: 0.
	Retries int `json:"retries,omitempty"`
	// FirstDelay bounds the delay before the first retry. Default: 200 ms.
	FirstDelay time.Duration `json:"first_delay"`
	// MaxDelay bounds the later ones. Default: 5 s.
	MaxDelay time.Duration `json:"max_delay"`
	// Budget is the number of tokens. Default: 10.
	Budget int `json:"budget"`
	// Refund is the part of a token, at most 1, that a success gives back. Default: 0.1.
	Refund float64 `json:"refund"`
	// Floor is the rate of further attempts, per second, that are made whatever the budget, so that programs
	// with few calls can still retry and fail over. Default: 0.5.
	Floor float64 `json:"floor"`
}

const (
	maxRetries        = 100
	defaultFirstDelay = 200 * time.Millisecond
	defaultMaxDelay   = 5 * time.Second
	defaultBudget     = 10
	defaultRefund     = 0.1
	minRefund         = 0.001
	defaultFloor      = 0.5
	maxRetryDelay     = 10 * 365 * 24 * time.Hour
)

// withDefaults returns a checked copy in which only Retries may be zero.
func (p RetryPolicy) withDefaults() (RetryPolicy, error) {
	switch {
	case p.Retries < 0 || p.Retries > maxRetries:
		return p, invalid("Retry.Retries", p.Retries, fmt.Sprintf("0 to %d", maxRetries))
	case p.FirstDelay < 0 || p.FirstDelay > maxRetryDelay:
		return p, invalid("Retry.FirstDelay", p.FirstDelay, fmt.Sprintf("0 (default 200ms) to %v", maxRetryDelay))
	case p.MaxDelay < 0 || p.MaxDelay > maxRetryDelay:
		return p, invalid("Retry.MaxDelay", p.MaxDelay, fmt.Sprintf("0 (default 5s) to %v", maxRetryDelay))
	case p.Budget < 0 || p.Budget > math.MaxInt32:
		return p, invalid("Retry.Budget", p.Budget, fmt.Sprintf("0 (default 10) to %d", math.MaxInt32))
	case math.IsNaN(p.Refund) || p.Refund < 0 || p.Refund > 1 || p.Refund > 0 && p.Refund < minRefund:
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

// defaultRetryPolicy returns the policy of a provider that was given none.
func defaultRetryPolicy() RetryPolicy {
	policy, _ := RetryPolicy{}.withDefaults() // the zero value is valid
	return policy
}

// delays returns the growing bounds of a call's delays, for [limit.FullJitter].
func (p RetryPolicy) delays() *backoff.ExponentialBackOff {
	return limit.NewDelays(p.FirstDelay, p.MaxDelay, limit.NoJitter)
}

// retryState is a provider's retry policy in force, and its budget.
type retryState struct {
	policy RetryPolicy
	*limit.Budget
}

func newRetryState(p RetryPolicy) *retryState {
	return &retryState{p, limit.NewBudget(limit.BudgetPolicy{Tokens: p.Budget, Refund: p.Refund, Floor: p.Floor})}
}

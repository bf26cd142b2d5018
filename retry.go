package registry

import (
	"time"

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
	// MaxDelay bounds the later ones. Default: 5 s, or FirstDelay where that is longer.
	MaxDelay time.Duration `json:"max_delay"`
	// Budget is the number of tokens. Default: 10.
	Budget int `json:"budget"`
	// Refund is the part of a token, at most 1, that a success gives back. Default: 0.1.
	Refund float64 `json:"refund"`
	// Floor is the rate of further attempts, per second, that are made whatever the budget. It lets programs with few
	// calls still retry and fail over. Default: 0.5; one of 1e-9 is as good as none.
	Floor float64 `json:"floor"`
}

// withDefaults returns a checked copy in which only Retries may be zero.
func (p RetryPolicy) withDefaults() (RetryPolicy, error) {
	checked, v := limit.RetryPolicy(p).Checked()
	return RetryPolicy(checked), asFieldError("Retry.", v)
}

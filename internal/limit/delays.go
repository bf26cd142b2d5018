package limit

import (
	"math/rand/v2"
	"time"

	"github.com/cenkalti/backoff/v4"
)

// Jitters for [NewDelays].
const (
	// NoJitter makes the delays exact: bounds for [FullJitter], or deadlines.
	NoJitter = 0
	// HalfJitter varies each delay by up to half of it, either way.
	HalfJitter = backoff.DefaultRandomizationFactor
)

// NewDelays returns delays that double from first to last and then go on without end. They are not safe for
// concurrent use.
func NewDelays(first, last time.Duration, jitter float64) *backoff.ExponentialBackOff {
	return backoff.NewExponentialBackOff(backoff.WithInitialInterval(first), backoff.WithMultiplier(2),
		backoff.WithMaxInterval(last), backoff.WithMaxElapsedTime(0), backoff.WithRandomizationFactor(jitter))
}

// FullJitter returns a random delay from zero to bound, which backoff's own jitter never reaches.
func FullJitter(bound time.Duration) time.Duration {
	return rand.N(bound + 1) //nolint:gosec // jitter
}

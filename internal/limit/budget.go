package limit

import (
	"sync/atomic"

	"golang.org/x/time/rate"
)

// token is the unit of a budget, in thousandths.
const token = 1000

// Budget bounds the attempts on a target that are not the first of their call, as gRPC's retry throttling
// does: a failure takes a token, a success gives a part of one back, and attempts are allowed while more than
// half of the tokens are left. Use [NewBudget] to create one. All methods are safe for concurrent use.
type Budget struct {
	full   int64 // in thousandths of a token, as is refund
	refund int64
	tokens atomic.Int64
	floor  *rate.Limiter
}

// NewBudget returns the full budget of a policy with its defaults filled in.
func NewBudget(p RetryPolicy) *Budget {
	b := &Budget{
		full: int64(p.Budget) * token, refund: int64(p.Refund * token),
		floor: rate.NewLimiter(rate.Limit(p.Floor), max(int(p.Floor), 1)),
	}
	b.Refill()
	return b
}

// Refill makes the budget full.
func (b *Budget) Refill() { b.tokens.Store(b.full) }

// Refund gives a part of a token back after a success. On a full budget it is one atomic load.
func (b *Budget) Refund() {
	for {
		now := b.tokens.Load()
		if now >= b.full || b.tokens.CompareAndSwap(now, min(now+b.refund, b.full)) {
			return
		}
	}
}

// Spend takes a token after a failure.
func (b *Budget) Spend() {
	for {
		now := b.tokens.Load()
		if now <= 0 || b.tokens.CompareAndSwap(now, max(now-token, 0)) {
			return
		}
	}
}

// Left returns the number of tokens left, and whether these are so few that only the floor allows attempts.
func (b *Budget) Left() (tokens float64, low bool) {
	left := b.tokens.Load()
	return float64(left) / token, left <= b.full/2
}

// Allow reports whether a further attempt may be made. Below half of the tokens it uses up the floor.
func (b *Budget) Allow() bool {
	return b.tokens.Load() > b.full/2 || b.floor.Allow()
}

package limit

import (
	"math"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// maxCallers bounds how many callers have a rate of their own. Those beyond it share one, so that no rate is
// exceeded.
const maxCallers = 1 << 16

// Rates bounds the attempts of each caller by a token bucket. Use [NewRates] to create one. All methods are
// safe for concurrent use.
type Rates struct {
	perSecond float64
	burst     int
	shared    *rate.Limiter // of the callers beyond maxCallers

	// mu guards the fields below; nothing blocks while it is held.
	mu      sync.Mutex
	callers map[string]*rate.Limiter
	swept   time.Time // by dropIdle, the last time
}

// NewRates returns full buckets of burst tokens, refilled at a positive rate per second.
func NewRates(perSecond float64, burst int) *Rates {
	return &Rates{
		perSecond: perSecond, burst: burst,
		callers: make(map[string]*rate.Limiter),
		shared:  rate.NewLimiter(rate.Limit(perSecond), burst),
	}
}

// Spent is one attempt that was taken from a caller's rate. The zero value is none.
type Spent struct {
	reserved *rate.Reservation
	at       time.Time
}

// GiveBack undoes the use. It counts as of the time of the use, since x/time/rate gives nothing back of a token
// that could be used at once.
func (p Spent) GiveBack() {
	if p.reserved == nil {
		return
	}
	at := p.at
	if now := time.Now(); now.Before(at) {
		at = now
	}
	p.reserved.CancelAt(at)
}

// Take uses up one attempt of the caller's rate. If none is left, retryIn is positive and says when one is.
func (r *Rates) Take(caller string) (used Spent, retryIn time.Duration) {
	now := time.Now()
	limiter := r.limiterOf(caller, now)
	// A reservation in vain would leave a mark, for which later ones get less back.
	if retryIn = r.untilToken(limiter, now); retryIn > 0 {
		return Spent{}, retryIn
	}
	used = Spent{limiter.ReserveN(now, 1), now}
	if retryIn = used.reserved.DelayFrom(now); retryIn > 0 || !used.reserved.OK() { // a concurrent Take came first
		used.GiveBack()
		return Spent{}, max(retryIn, 1)
	}
	return used, 0
}

// Callers returns the number of callers whose use is known.
func (r *Rates) Callers() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.callers)
}

// RetryIn returns the time until the caller may make an attempt; zero: now. It uses up nothing and keeps nothing.
func (r *Rates) RetryIn(caller string) time.Duration {
	r.mu.Lock()
	limiter := r.callers[caller]
	if limiter == nil && len(r.callers) >= maxCallers {
		limiter = r.shared
	}
	r.mu.Unlock()
	if limiter == nil {
		return 0
	}
	return r.untilToken(limiter, time.Now())
}

// untilToken returns the time until the bucket has a token; zero: it has one.
func (r *Rates) untilToken(bucket *rate.Limiter, now time.Time) time.Duration {
	missing := max(1-bucket.TokensAt(now), 0)
	return time.Duration(min(math.Ceil(missing/r.perSecond*float64(time.Second)), 1<<62))
}

// Reserve uses up the next attempt of the caller's rate that is not reserved, which may be made after a wait: in
// this way those that wait go one after the other, in their order. ok is false, and nothing is used up, when it
// would have to wait for longer than within.
func (r *Rates) Reserve(caller string, within time.Duration) (used Spent, wait time.Duration, ok bool) {
	now := time.Now()
	reserved := r.limiterOf(caller, now).ReserveN(now, 1)
	wait = reserved.DelayFrom(now)
	used = Spent{reserved, now.Add(wait)}
	if !reserved.OK() || wait >= within {
		used.GiveBack()
		return Spent{}, wait, false
	}
	return used, wait, true
}

// limiterOf returns the caller's bucket, which is full at first.
func (r *Rates) limiterOf(caller string, now time.Time) *rate.Limiter {
	r.mu.Lock()
	defer r.mu.Unlock()
	if known, ok := r.callers[caller]; ok {
		return known
	}
	if len(r.callers) >= maxCallers {
		r.dropIdle(now)
	}
	if len(r.callers) >= maxCallers {
		return r.shared
	}
	created := rate.NewLimiter(rate.Limit(r.perSecond), r.burst)
	r.callers[caller] = created
	return created
}

// dropIdle drops the callers whose buckets are full, which are like new ones, at most once a second. Caller
// holds mu.
func (r *Rates) dropIdle(now time.Time) {
	if now.Sub(r.swept) < time.Second {
		return
	}
	r.swept = now
	for caller, known := range r.callers {
		if known.TokensAt(now) >= float64(r.burst) {
			delete(r.callers, caller)
		}
	}
}

package registry

import (
	"cmp"
	"fmt"
	"math"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/capreg/registry/internal/slots"
)

const (
	defaultConcurrency = 10
	defaultQueue       = 50
	defaultQueueWait   = 30 * time.Second

	mostCallers = 1 << 16 // whose rates are remembered, for each domain
)

// LimitPolicy bounds what is asked of a provider, or of all providers of its
// [Provider.Domain] together. The zero value limits nothing.
//
// A call that finds no place moves on to the next provider, which costs it
// nothing. Only when nobody has a free place does it queue, at all of them at
// once, first come first served; when it is its turn it looks again whether the
// provider may be entered. When a provider is replaced, those who queue join the queue
// of who has its place, which is the same one in a domain that goes on.
type LimitPolicy struct {
	// Bulkhead bounds the attempts and leases in progress. Setting one of the
	// next four fields does so as well.
	Bulkhead bool `json:"bulkhead,omitempty"`
	// MaxConcurrent is how many may be in progress at once. Default: 10.
	MaxConcurrent int `json:"max_concurrent,omitempty"`
	// MaxQueue is how many may wait for a place. Default: 50.
	MaxQueue int `json:"max_queue,omitempty"`
	// NoQueue lets nobody wait.
	NoQueue bool `json:"no_queue,omitempty"`
	// MaxWait is how long one may wait, in all queues together. Default: 30 s.
	MaxWait time.Duration `json:"max_wait,omitempty"`

	// Rate is how many attempts a second each caller may make in the long run;
	// zero: any number. Who the caller is says [Caller].
	Rate float64 `json:"rate,omitempty"`
	// Burst is how many of them may come at once. Default: Rate, rounded up.
	Burst int `json:"burst,omitempty"`
}

// withDefaults returns a checked copy with its defaults filled in.
func (p LimitPolicy) withDefaults() (LimitPolicy, error) {
	for _, n := range []struct {
		field string
		value int
		usual int
	}{
		{"Limits.MaxConcurrent", p.MaxConcurrent, defaultConcurrency},
		{"Limits.MaxQueue", p.MaxQueue, defaultQueue},
		{"Limits.Burst", p.Burst, 0},
	} {
		if n.value < 0 || n.value > math.MaxInt32 {
			return p, invalid(n.field, n.value, fmt.Sprintf("0 (default %d) to %d", n.usual, math.MaxInt32))
		}
	}
	switch {
	case p.MaxWait < 0:
		return p, invalid("Limits.MaxWait", p.MaxWait, "0 (default 30s) or more")
	case p.NoQueue && (p.MaxQueue > 0 || p.MaxWait > 0):
		return p, invalid("Limits.NoQueue", true, "false together with MaxQueue or MaxWait")
	case math.IsNaN(p.Rate) || p.Rate < 0 || p.Rate > math.MaxInt32:
		return p, invalid("Limits.Rate", p.Rate, fmt.Sprintf("0 (any rate) to %d a second", math.MaxInt32))
	case p.Burst > 0 && p.Rate == 0:
		return p, invalid("Limits.Burst", p.Burst, "0 without a Rate")
	}
	if p.Bulkhead || p.MaxConcurrent > 0 || p.MaxQueue > 0 || p.NoQueue || p.MaxWait > 0 {
		p.Bulkhead = true
		p.MaxConcurrent = cmp.Or(p.MaxConcurrent, defaultConcurrency)
		if !p.NoQueue {
			p.MaxQueue = cmp.Or(p.MaxQueue, defaultQueue)
			p.MaxWait = cmp.Or(p.MaxWait, defaultQueueWait)
		}
	}
	if p.Rate > 0 {
		p.Burst = cmp.Or(p.Burst, int(math.Ceil(p.Rate)))
	}
	return p, nil
}

// limits are the limits of a domain in force.
type limits struct {
	policy LimitPolicy
	slots  *slots.Slots // nil: no bulkhead
	known  *slots.Slots // of the last bulkhead: some may still be in

	// mu guards rates; nothing is called while it is held.
	mu     sync.Mutex
	rates  map[string]*rate.Limiter // by caller
	forgot time.Time
	rest   *rate.Limiter // of the callers that are too many to be remembered
}

// newLimits returns the limits of a policy; nil when it limits nothing. What is
// in progress keeps its places.
func newLimits(policy LimitPolicy, before *limits) *limits {
	l := &limits{policy: policy}
	if before != nil {
		l.known = before.known
	}
	if !policy.Bulkhead && policy.Rate == 0 && l.known == nil {
		return nil
	}
	switch {
	case policy.Bulkhead && l.known != nil:
		l.known.Resize(policy.MaxConcurrent, policy.MaxQueue)
		l.slots = l.known
	case policy.Bulkhead:
		l.slots = slots.New(policy.MaxConcurrent, policy.MaxQueue)
		l.known = l.slots
	case l.known != nil:
		l.known.Resize(math.MaxInt32, 0) // nobody waits any more
	}
	if policy.Rate > 0 {
		l.rates = make(map[string]*rate.Limiter)
		l.rest = rate.NewLimiter(rate.Limit(policy.Rate), policy.Burst)
	}
	return l
}

// full reports whether a call would find no place free.
func (p *provider) full() bool {
	l := p.limits.Load()
	return l != nil && l.slots != nil && !l.slots.Free()
}

// permit is what a call uses of its caller's rate; the zero value is none.
type permit struct {
	reserved *rate.Reservation
	at       time.Time
}

// giveBack undoes the use, as at the time of it: a token that could be used at once is
// otherwise lost.
func (p permit) giveBack() {
	if p.reserved != nil {
		p.reserved.CancelAt(p.at)
	}
}

// throttled uses the rate of the caller, or reports that it is used up, and for how long.
func (l *limits) throttled(caller string) (used permit, retryIn time.Duration, throttled bool) {
	if l.rates == nil {
		return permit{}, 0, false
	}
	now := time.Now()
	limiter := l.rateOf(caller, now)
	// Who reserves in vain leaves a mark, for which others would get less back.
	if missing := 1 - limiter.TokensAt(now); missing > 0 {
		return permit{}, time.Duration(min(math.Ceil(missing/l.policy.Rate*float64(time.Second)), 1<<62)), true
	}
	used = permit{limiter.ReserveN(now, 1), now}
	if retryIn = used.reserved.DelayFrom(now); retryIn > 0 || !used.reserved.OK() { // another was faster
		used.giveBack()
		return permit{}, max(retryIn, 1), true
	}
	return used, 0, false
}

// rateOf returns the caller's rate limiter, which is full at first.
func (l *limits) rateOf(caller string, now time.Time) *rate.Limiter {
	l.mu.Lock()
	defer l.mu.Unlock()
	known, ok := l.rates[caller]
	if ok {
		return known
	}
	if len(l.rates) >= mostCallers {
		l.forget(now)
	}
	if len(l.rates) >= mostCallers {
		return l.rest
	}
	known = rate.NewLimiter(rate.Limit(l.policy.Rate), l.policy.Burst)
	l.rates[caller] = known
	return known
}

// forget drops the callers that have not asked for so long that they are like
// new ones, at most once a second. Caller holds mu.
func (l *limits) forget(now time.Time) {
	if now.Sub(l.forgot) < time.Second {
		return
	}
	l.forgot = now
	for caller, known := range l.rates {
		if known.TokensAt(now) >= float64(l.policy.Burst) {
			delete(l.rates, caller)
		}
	}
}

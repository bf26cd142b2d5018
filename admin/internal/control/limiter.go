package control

import (
	"maps"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// mostBuckets bounds the number of parties whose rate is known each for itself; those beyond share one.
const mostBuckets = 1024

// limiter bounds the rate of each party. Use newLimiter.
type limiter struct {
	rate  rate.Limit
	burst int

	mu      sync.Mutex // guards what follows; nothing waits under it
	buckets map[string]*rate.Limiter
}

func newLimiter(perSecond float64, burst int) *limiter {
	return &limiter{rate: rate.Limit(perSecond), burst: burst, buckets: make(map[string]*rate.Limiter)}
}

// wait takes a token of the party. Where there is none it returns the time until there is one.
func (l *limiter) wait(party string) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	bucket := l.buckets[party]
	if bucket == nil {
		if len(l.buckets) >= mostBuckets {
			maps.DeleteFunc(l.buckets, func(_ string, b *rate.Limiter) bool { return b.TokensAt(now) >= float64(l.burst) })
		}
		if len(l.buckets) >= mostBuckets {
			party = ""
		}
		if bucket = l.buckets[party]; bucket == nil {
			bucket = rate.NewLimiter(l.rate, l.burst)
			l.buckets[party] = bucket
		}
	}
	taken := bucket.ReserveN(now, 1)
	wait := taken.DelayFrom(now)
	if wait > 0 {
		taken.CancelAt(now)
	}
	return wait
}

// revisions counts the changes of each generation of a provider. The zero value is ready to use; its owner guards it.
type revisions struct {
	mu     sync.Mutex // guards counts; nothing waits under it
	counts map[uint64]uint64
}

func (r *revisions) of(generation uint64) uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.counts[generation]
}

func (r *revisions) add(generation uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.counts == nil {
		r.counts = make(map[uint64]uint64)
	}
	r.counts[generation]++
}

// keep forgets the generations that are not among those.
func (r *revisions) keep(there map[uint64]bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	maps.DeleteFunc(r.counts, func(generation, _ uint64) bool { return !there[generation] })
}

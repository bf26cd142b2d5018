package probe

import (
	"hash/maphash"
	"math/bits"
	"math/rand/v2"
	"time"
)

// moments is the least number of moments in an interval at which probes may begin; there are at most twice as many.
const moments = 128

// fraction maps a name to [0, 1), always the same for one seed.
func fraction(seed maphash.Seed, name string) float64 {
	return float64(maphash.String(seed, name)>>11) / (1 << 53)
}

// jitter returns a time within 10 % of d.
func jitter(d time.Duration) time.Duration {
	return time.Duration(float64(d) * (0.9 + 0.2*rand.Float64())) //nolint:gosec // spreading needs no secret
}

// alignUp moves a time up to the next moment that probes with about the same interval share. A process that does
// nothing else wakes up less often that way.
func alignUp(at, interval time.Duration) time.Duration {
	if tick := powerOfTwo(interval / moments); tick > 0 {
		return (at + tick - 1).Truncate(tick)
	}
	return at
}

// powerOfTwo returns the largest power of two, in milliseconds, that is at most d; zero when there is none.
func powerOfTwo(d time.Duration) time.Duration {
	ms := uint64(d / time.Millisecond) //nolint:gosec // intervals are not negative
	if ms == 0 {
		return 0
	}
	return time.Duration(1) << (bits.Len64(ms) - 1) * time.Millisecond
}

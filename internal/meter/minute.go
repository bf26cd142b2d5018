package meter

import (
	"sync"
	"time"

	"github.com/capreg/registry/internal/histogram"
	"github.com/capreg/registry/metrics"
	"github.com/capreg/registry/verdict"
)

const (
	slice = 10 * time.Second
	parts = 6 // of the minute
	whole = parts * slice
)

// minute keeps the sums at the beginnings of the latest slices. A slice begins with the first attempt that ends after
// the one before, so that nothing has to be done while there are none.
type minute struct {
	// mu guards the fields below. Nothing is called while it is held.
	mu     sync.Mutex
	starts [parts + 1]sums // oldest first at next
	next   int
}

// sums are those of the attempts that have ended, at one moment. They wrap.
type sums struct {
	at            time.Duration // zero: not set
	ended, failed uint32
	answers       [histogram.Size]uint32
}

// nextSlice begins a slice, unless another attempt has just done so.
func (p *Provider) nextSlice(now time.Duration) {
	m := p.minute.Load()
	if m == nil {
		p.minute.CompareAndSwap(nil, &minute{})
		m = p.minute.Load()
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if int64(now) < p.turn.Load() {
		return
	}
	m.starts[m.next] = p.sumsNow(now)
	m.next = (m.next + 1) % len(m.starts)
	p.turn.Store(int64(now + slice))
}

// sumsNow returns the present sums.
func (p *Provider) sumsNow(now time.Duration) sums {
	answers, total := p.answers(), p.Totals()
	s := sums{at: max(now, 1), failed: uint32(total.Failures)}                         //nolint:gosec // it wraps
	s.ended = uint32(total.Successes + total.Failures + total.Ignored + total.Limited) //nolint:gosec // it wraps
	for i, count := range answers.Buckets {
		s.answers[i] = uint32(count) //nolint:gosec // it wraps
	}
	return s
}

// answers returns the times of all answers.
func (p *Provider) answers() (all histogram.Counts) {
	p.addQuick(&all)
	p.slow.addTo(&all, verdict.ClassSuccess)
	p.slow.addTo(&all, verdict.ClassSlow)
	return all
}

// LastMinute returns the summary of the attempts of late.
func (p *Provider) LastMinute(now time.Duration) (shown metrics.Minute) {
	m := p.minute.Load()
	if m == nil {
		return shown
	}
	starts := m.ordered()
	since, before, ok := oldest(&starts, now)
	if !ok {
		return shown
	}
	span := min(whole, now-p.joined)
	if before > 0 {
		span = min(span, now-before-slice) // what has ended until then is not among it
	}
	latest := p.sumsNow(now)
	ended := latest.ended - since.ended
	if ended == 0 || span <= 0 {
		return shown
	}
	shown.Rate = float64(ended) / max(span, time.Second).Seconds()
	shown.Errors = float64(latest.failed-since.failed) / float64(ended)
	var answers histogram.Counts
	for i := range answers.Buckets {
		answers.Buckets[i] = uint64(latest.answers[i] - since.answers[i])
	}
	times := show(&answers, 1)
	shown.P50, shown.P99 = times.Quantile(0.5), times.Quantile(0.99)
	shown.Slices = slicesOf(&starts, &latest)
	return shown
}

// slicesOf returns the attempts of each slice, oldest first.
func slicesOf(starts *[parts + 1]sums, latest *sums) (all [parts]metrics.Slice) {
	for i := range starts {
		s, next := &starts[i], latest
		if i+1 < len(starts) {
			next = &starts[i+1]
		}
		if ago := int(max(0, latest.at-s.at) / slice); s.at > 0 && ago < parts { // it may have begun since latest was read
			all[parts-1-ago] = metrics.Slice{Ended: next.ended - s.ended, Failed: next.failed - s.failed}
		}
	}
	return all
}

// ordered returns the sums at the beginnings of the latest slices, oldest first.
func (m *minute) ordered() (all [parts + 1]sums) {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := copy(all[:], m.starts[m.next:])
	copy(all[n:], m.starts[:m.next])
	return all
}

// oldest returns the sums at the beginning of the oldest slice that began within the last minute, and when the slice
// before it began; zero: there was none.
func oldest(starts *[parts + 1]sums, now time.Duration) (since sums, before time.Duration, ok bool) {
	for i := range starts {
		if s := starts[i]; s.at > now-whole && s.at > 0 {
			return s, before, true
		}
		before = starts[i].at
	}
	return since, 0, false
}

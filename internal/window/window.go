// Package window counts events over a sliding time.
package window

import (
	"sync"
	"time"
)

const slices = 10

// Counts holds the number of events, and of those the bad and the slow ones.
type Counts struct{ Total, Bad, Slow int }

func (c *Counts) add(other Counts) {
	c.Total += other.Total
	c.Bad += other.Bad
	c.Slow += other.Slow
}

// Window counts over a sliding time, in slices of a tenth of it: an event is dropped when it is
// between nine tenths and the whole of that time old. Use [New]; its methods are safe for
// concurrent use.
type Window struct {
	slice time.Duration

	// mu guards the fields below.
	mu     sync.Mutex
	counts [slices]Counts
	newest int64 // number of the newest slice since the epoch
	total  Counts
}

// New returns an empty window of the given length.
func New(length time.Duration) *Window { return &Window{slice: max(length/slices, 1)} }

// Add counts one event at a time since some epoch, and returns the counts of the window then. A
// time before the newest one counts as the newest.
func (w *Window) Add(now time.Duration, bad, slow bool) Counts {
	one := Counts{Total: 1}
	if bad {
		one.Bad = 1
	}
	if slow {
		one.Slow = 1
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.advance(now)
	w.counts[w.newest%slices].add(one)
	w.total.add(one)
	return w.total
}

// Counts returns the counts of the window at a time since the epoch.
func (w *Window) Counts(now time.Duration) Counts {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.advance(now)
	return w.total
}

// Clear drops all events.
func (w *Window) Clear() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.counts, w.total = [slices]Counts{}, Counts{}
}

// advance drops the slices that have left the window. Caller holds mu.
func (w *Window) advance(now time.Duration) {
	current := int64(now / w.slice)
	for range min(current-w.newest, slices) {
		w.newest++
		gone := &w.counts[w.newest%slices]
		w.total.add(Counts{Total: -gone.Total, Bad: -gone.Bad, Slow: -gone.Slow})
		*gone = Counts{}
	}
	w.newest = max(w.newest, current)
}

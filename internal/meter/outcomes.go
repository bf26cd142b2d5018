package meter

import (
	"sync/atomic"
	"time"

	"github.com/capreg/registry/internal/histogram"
	"github.com/capreg/registry/internal/striped"
	"github.com/capreg/registry/metrics"
	"github.com/capreg/registry/verdict"
)

// outcomes has a histogram for each class that has occurred. The zero value has none.
type outcomes struct {
	successes striped.Cells[histogram.Histogram] // which are many
	others    atomic.Pointer[[]atomic.Pointer[histogram.Histogram]]
}

func (o *outcomes) add(class verdict.Class, took time.Duration) {
	if class == verdict.ClassSuccess {
		o.successes.Local().Add(took)
		return
	}
	all := o.others.Load()
	if all == nil {
		made := make([]atomic.Pointer[histogram.Histogram], len(verdict.Classes()))
		o.others.CompareAndSwap(nil, &made)
		all = o.others.Load()
	}
	if int(class) >= len(*all) {
		class = verdict.ClassUnknown
	}
	one := &(*all)[class]
	if one.Load() == nil {
		one.CompareAndSwap(nil, &histogram.Histogram{})
	}
	one.Load().Add(took)
}

// addTo adds what has ended with that class, and reports whether there may be any.
func (o *outcomes) addTo(c *histogram.Counts, class verdict.Class) bool {
	if class == verdict.ClassSuccess {
		for h := range o.successes.Each {
			c.Add(h)
		}
		return true
	}
	all := o.others.Load()
	if all == nil {
		return false
	}
	one := (*all)[class].Load()
	if one != nil {
		c.Add(one)
	}
	return one != nil
}

// read returns every class that has occurred, in the order of the table; quick are further successes.
func (o *outcomes) read(quick *histogram.Counts) (shown []metrics.Outcomes) {
	for class := range verdict.Class(len(verdict.Classes())) { //nolint:gosec // few
		var counts histogram.Counts
		if class == verdict.ClassSuccess {
			counts = *quick
		}
		if o.addTo(&counts, class) && counts.Total() > 0 {
			shown = append(shown, metrics.Outcomes{Class: class, Duration: show(&counts, 1)})
		}
	}
	return shown
}

func countsOf(h *histogram.Histogram) *histogram.Counts {
	var counts histogram.Counts
	counts.Add(h)
	return &counts
}

// show returns the histogram of durations that were counted in units of 1/fine nanoseconds.
func show(c *histogram.Counts, fine float64) metrics.Histogram {
	shown := metrics.Histogram{Sum: c.Sum / time.Duration(fine)}
	above, unit := 0.0, fine*1e9
	for i, count := range c.Buckets {
		bound, _ := histogram.Bound(i)
		if count > 0 {
			shown.Count += count
			shown.Buckets = append(shown.Buckets, metrics.Bucket{Above: above / unit, AtMost: bound / unit, Count: count})
		}
		above = bound
	}
	return shown
}

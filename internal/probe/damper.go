package probe

import "time"

const (
	// mostFlaps bounds the flaps that count: at most 2^mostFlaps intervals of hold-down.
	mostFlaps = 6
	// calmIntervals is the time without a fall, in intervals, that makes a fall no flap, and forgives one.
	calmIntervals = 40
)

// damper makes what falls again soon after it came back wait longer each time. It holds down until the answers in a row
// are so many that they prove a change, or for a time, so that nothing stays out for ever that answers at times.
type damper struct {
	flaps    int
	fellAt   time.Duration
	backAt   time.Duration
	returned bool // backAt is set
}

// fall notes that it fell, at the given time.
func (d *damper) fall(now, interval time.Duration) {
	if d.returned {
		if calm := now - d.backAt; calm < calmIntervals*interval {
			d.flaps = min(d.flaps+1, mostFlaps)
		} else {
			d.flaps = max(0, d.flaps-int(min(calm/(calmIntervals*interval), mostFlaps)))
		}
	}
	d.fellAt, d.returned = now, false
}

// comeBack notes that it is back, at the given time.
func (d *damper) comeBack(now time.Duration) { d.backAt, d.returned = now, true }

// lets reports whether it may come back after so many answers in a row.
func (d *damper) lets(now, interval time.Duration, answers, rise int) bool {
	return answers >= d.proof(rise) || answers >= rise && now-d.fellAt >= interval<<d.flaps
}

// proof returns how many answers in a row end a hold-down.
func (d *damper) proof(rise int) int { return rise << d.flaps }

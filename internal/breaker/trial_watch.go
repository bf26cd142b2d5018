package breaker

import (
	"sync/atomic"
	"time"

	"github.com/capreg/registry/internal/schedule"
)

// TrialWatch ends the trial of a call whose function does not return, so that its slot is free for another one.
type TrialWatch struct {
	over  atomic.Bool // an outcome was recorded, or will be
	timer *schedule.Timer
}

// WatchTrial makes the trial a failure unless its watch is stopped within limit.
func (b *Breaker) WatchTrial(generation uint64, limit time.Duration) *TrialWatch {
	w := &TrialWatch{}
	w.timer = b.timers.After(limit, func() {
		if w.over.CompareAndSwap(false, true) {
			b.Record(generation, Failure, false)
		}
	})
	return w
}

// Stop ends the watch and reports whether the outcome is still to be recorded. A nil watch never ends a trial.
func (w *TrialWatch) Stop() bool {
	if w == nil {
		return true
	}
	w.timer.Stop()
	return w.over.CompareAndSwap(false, true)
}

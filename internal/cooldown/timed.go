package cooldown

import (
	"time"

	"github.com/capreg/registry/internal/schedule"
	"github.com/capreg/registry/status"
	"github.com/capreg/registry/verdict"
)

// Timed is a cooldown together with the timer that ends it. Like the cooldown, it is guarded by its owner.
type Timed struct {
	Cooldown

	timer *schedule.Timer // nil: the cooldown is idle, or nothing ends it
}

// Shown returns the status of the one that keeps a provider away for longest, of its own and its domain's.
func Shown(own, domain *Timed) status.Cooldown {
	if Latest(&own.Cooldown, &domain.Cooldown) == &own.Cooldown {
		return own.Status(verdict.ScopeProvider)
	}
	return domain.Status(verdict.ScopeDomain)
}

// StartTimer makes f run when the cooldown is over, in place of an earlier timer.
func (t *Timed) StartTimer(s *schedule.Scheduler, f func()) {
	t.StopTimer()
	t.timer = s.After(time.Until(t.Until()), f)
}

// StopTimer leaves the cooldown as it is, without an end.
func (t *Timed) StopTimer() {
	if t.timer != nil {
		t.timer.Stop()
		t.timer = nil
	}
}

// End makes the cooldown idle, as [Cooldown.End] does, and stops the timer.
func (t *Timed) End() {
	t.Cooldown.End()
	t.StopTimer()
}

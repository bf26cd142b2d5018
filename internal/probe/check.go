package probe

import (
	"time"

	"github.com/capreg/registry/health"
	"github.com/capreg/registry/internal/schedule"
)

// The states of one check:
//
//	state      event                                   next
//	---------  --------------------------------------  -----------------------------------------------
//	idle       made, or asked for                      urgent
//	scheduled  timer                                   queued; scheduled where calls take its place
//	scheduled  asked for                               urgent
//	queued     asked for                               urgent
//	queued     its turn                                running; blocked while an older check runs
//	urgent     its turn                                running; blocked while an older check runs
//	running    returns                                 scheduled
//	running    does not return after its context       stuck
//	stuck      timer                                   stuck, with one more failure
//	stuck      returns                                 scheduled
//	blocked    the older check returns                 urgent
//	blocked    the older check is stuck                stuck
//	stuck      the older check returns                 urgent
//	any        policy replaced, provider left          idle, at once or when the probe returns
//
// An older check is one of the same capability under an older policy. The timer is set while scheduled and stuck.
type checkState uint8

const (
	idle checkState = iota
	scheduled
	queued
	urgent
	running
	stuck   // itself, or the older check that it waits for
	blocked // by an older check
)

// check is one probe under one policy: of the provider itself, or of a capability. It runs once at a time. The
// lock of the host guards it.
type check struct {
	monitor    *monitor
	capability string // empty: the provider itself
	probe      health.Probe

	state   checkState
	older   *check          // that blocks this one; nil: none
	timer   *schedule.Timer // nil: none is set
	timers  uint64          // how many were set, to tell one that fired late
	dueAt   time.Time       // of the timer
	beganAt time.Time       // of the run in progress
	offset  bool            // the first interval was shortened, against checks that begin together

	calls   Totals // at the last result, or when calls last took its place
	idling  bool   // there was no call before the last result
	skipped int    // how often in a row calls took its place
	result  chan struct{}
}

// nextResult returns a channel that is closed at the next result, or when there will be none.
func (c *check) nextResult() <-chan struct{} {
	if c.result == nil {
		c.result = make(chan struct{})
	}
	return c.result
}

// wakeWaiters closes the channel of nextResult.
func (c *check) wakeWaiters() {
	if c.result != nil {
		close(c.result)
		c.result = nil
	}
}

func (c *check) stopTimer() {
	if c.timer != nil {
		c.timer.Stop()
		c.timer = nil
	}
}

// retire ends a check whose policy was replaced or whose provider has left. A probe that runs goes on until it
// returns.
func (c *check) retire() {
	c.stopTimer()
	if c.older != nil || c.state != running && c.state != stuck {
		c.state, c.older = idle, nil
	}
	c.wakeWaiters()
}

package domain

import (
	"sync"
	"time"

	"github.com/capreg/registry/event"
	"github.com/capreg/registry/internal/cooldown"
	"github.com/capreg/registry/internal/schedule"
	"github.com/capreg/registry/verdict"
)

// Why a cooldown ended, for its event.
const (
	endedInTime  = "its time is over"
	endedByReset = "reset"
	endedByKey   = "replaced, with credentials that may be new"
)

// Member is a member that cools down, alone or with its domain. Its methods are called with the lock of the owner
// held, as all functions of this file are.
type Member[M comparable] interface {
	comparable
	// Cooldowns returns its own cooldown, and its domain.
	Cooldowns() (own *cooldown.Timed, shared *Domain[M])
	// NoteEnd is called when one of its cooldowns has ended, whether or not another one keeps it away.
	NoteEnd()
	// SetGrown notes whether a success has to end the growth of a cooldown.
	SetGrown(grown bool)
	// KeptAway reports whether a cooldown keeps it away. KeepAway does so, and LetIn ends that, with the event.
	KeptAway() bool
	KeepAway(change *event.Event)
	LetIn(change *event.Event)
}

// Owner has what cooldowns need of the owner of members.
type Owner[M comparable] struct {
	Sort     func([]M) // into the order of events
	Schedule *schedule.Scheduler
	Lock     sync.Locker
}

// Now returns the cooldown that keeps the member away for longest, its own or its domain's.
func Now[M Member[M]](m M) *cooldown.Cooldown {
	own, shared := m.Cooldowns()
	return cooldown.Latest(&own.Cooldown, &shared.Cooldown.Cooldown)
}

// Cool leaves the member alone as the request says, or all of its domain.
func Cool[M Member[M]](owner Owner[M], m M, scope verdict.Scope, r cooldown.Request) {
	c, d := m.Cooldowns()
	members := []M{m}
	if scope == verdict.ScopeDomain {
		c, members = &d.Cooldown, d.sorted(owner)
	}
	before := c.Cooldown
	changed := c.Apply(r, time.Now())
	if c.Pending() {
		for _, member := range members {
			member.SetGrown(true)
		}
	}
	if !changed {
		return
	}
	if c.Until().After(before.Until()) {
		c.StartTimer(owner.Schedule, endInTime(owner, m, c, d))
	}
	parks := c.State() == cooldown.Parked && before.State() != cooldown.Parked
	for _, member := range members {
		var change *event.Event
		if parks || !member.KeptAway() {
			change = &event.Event{Kind: event.Cooling, Reason: r.Class.String(), Until: c.Until(), Err: r.Cause}
			if parks {
				change.Kind = event.Parked
			}
		}
		member.KeepAway(change)
	}
}

// endInTime returns what ends a cooldown when its time is over. It refers to a member only if that is removed together
// with its timer: a domain may outlive the member that began its cooldown.
func endInTime[M Member[M]](owner Owner[M], m M, c *cooldown.Timed, d *Domain[M]) func() {
	members := func() []M { return d.sorted(owner) }
	if c != &d.Cooldown {
		members = func() []M { return []M{m} }
	}
	return func() {
		owner.Lock.Lock()
		defer owner.Lock.Unlock()
		if c.Over(time.Now()) {
			end(c, members(), endedInTime)
		}
	}
}

// end ends a cooldown, and lets in those members that no other one keeps away.
func end[M Member[M]](c *cooldown.Timed, members []M, reason string) {
	if !c.Active() {
		return
	}
	c.End()
	for _, member := range members {
		if member.NoteEnd(); !Now(member).Active() {
			member.LetIn(&event.Event{Kind: event.CooldownEnded, Reason: reason})
		}
	}
}

// Reset ends the cooldowns of the member and of its domain, and their growth.
func Reset[M Member[M]](owner Owner[M], m M) {
	EndGrowth(m)
	own, shared := m.Cooldowns()
	end(own, []M{m}, endedByReset)
	end(&shared.Cooldown, shared.sorted(owner), endedByReset)
}

// EndGrowth ends the growth of both cooldowns, as a success does. A cooldown in progress stays.
func EndGrowth[M Member[M]](m M) {
	ForgetRefusals(m)
	own, shared := m.Cooldowns()
	own.ResetGrowth()
	shared.Cooldown.ResetGrowth()
	for member := range shared.Each {
		alone, _ := member.Cooldowns()
		member.SetGrown(alone.Pending())
	}
}

// ForgetRefusals ends the count of calls whose credentials were refused, as any answer does.
func ForgetRefusals[M Member[M]](m M) {
	own, shared := m.Cooldowns()
	own.ForgetRefusals()
	shared.Cooldown.ForgetRefusals()
}

// ForgiveKey ends what is held against the credentials of the domain.
func ForgiveKey[M Member[M]](owner Owner[M], m M) {
	_, shared := m.Cooldowns()
	shared.Cooldown.ForgetRefusals()
	if shared.Cooldown.State() == cooldown.Parked {
		end(&shared.Cooldown, shared.sorted(owner), endedByKey)
	}
}

// sorted returns the members in the order of events.
func (d *Domain[M]) sorted(owner Owner[M]) []M {
	members := d.Members()
	owner.Sort(members)
	return members
}

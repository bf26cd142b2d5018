package registry

import (
	"context"
	"slices"
	"time"

	"github.com/capreg/registry/internal/pick"
	"github.com/capreg/registry/internal/slots"
)

// queueing is a call that queues, at once, for the places of all providers that had none free.
// It ends with the first place at which a provider admits the call, with another provider
// that the call can enter meanwhile, or when every queue was left.
//
//	queued ── a place is granted ──▶ granted ── admitted ──▶ entered
//	  ▲  │                              │ refused
//	  │  └── membership changes ──▶ looks again for another provider ──▶ entered
//	  └──────────────── keeps or takes up its turn ◀─┘
//
// It does not refer to its call, which would then live on the heap.
type queueing struct {
	wait   *slots.Wait
	queues []queue
	began  time.Duration // on the registry's clock
}

// queue is one queue for places, and the providers whose places they are: several, in a
// domain.
type queue struct {
	slots     *slots.Slots
	providers []*provider   // those that may admit the call
	seen      []*provider   // and those that did not
	maxWait   time.Duration // in all queues together
	left      bool          // it was waited in for too long, or had no room
}

// awaitPlace queues at the providers that had no place free, and enters the one that is first
// to have one and still admits the call, or another one that can be entered meanwhile.
func (c *call) awaitPlace() bool {
	if len(c.full) == 0 {
		return false
	}
	defer c.skipFull()
	q := queueing{wait: slots.NewWait(), began: c.query.service.registry.now()}
	defer q.wait.End()
	for {
		changed := c.query.service.registry.changed()
		if c.dropReplaced() && c.enterAnother(&q) {
			return true
		}
		c.join(&q)
		limit := q.leaveExpired(c.since(q.began))
		if limit <= 0 {
			return false
		}
		at, woken := q.awaitTurn(c.caller.ctx, limit, changed)
		switch {
		case at >= 0:
			if c.enterGranted(&q, at) {
				return true
			}
			q.wait.Resume(at)
		case woken:
			if c.enterAnother(&q) {
				return true
			}
		case c.caller.err() != nil:
			return false
		}
	}
}

// dropReplaced forgets full providers that were replaced: their successors are in the current
// plan. It reports whether there were any.
func (c *call) dropReplaced() bool {
	before := len(c.full)
	c.full = slices.DeleteFunc(c.full, (*provider).superseded)
	return len(c.full) < before
}

// skipFull notes the providers that had no place free and were not entered.
func (c *call) skipFull() {
	for _, p := range c.full {
		c.skip(p, codeFull, &reason{ErrAtCapacity, ErrAtCapacity.Error(), nil}, 0)
	}
	c.full = nil
}

// awaitTurn waits for a place, for at most limit, and returns the number of the queue that gave
// one, -1 when none did; woken reports that membership or eligibility has changed.
func (q *queueing) awaitTurn(caller context.Context, limit time.Duration, changed <-chan struct{}) (at int, woken bool) {
	ctx, cancel := context.WithTimeout(caller, limit)
	defer cancel()
	return q.wait.For(ctx, changed)
}

func (c *call) since(began time.Duration) time.Duration {
	return c.query.service.registry.now() - began
}

// join lines up at the full providers at which the call does not queue yet, once for each
// domain.
func (c *call) join(q *queueing) {
	for _, p := range c.full {
		l := p.limits.Load()
		if p.gateNow()&gateBlocked != 0 || l == nil || l.Slots() == nil || !c.wants(p) || q.hasSeen(p) {
			continue
		}
		at := slices.IndexFunc(q.queues, func(other queue) bool { return other.slots == l.Slots() && !other.left })
		if at < 0 {
			at = len(q.queues)
			hasRoom := q.wait.Join(l.Slots(), at)
			q.queues = append(q.queues, queue{slots: l.Slots(), maxWait: l.Policy().MaxWait, left: !hasRoom})
		}
		q.queues[at].providers = append(q.queues[at].providers, p)
		q.queues[at].seen = append(q.queues[at].seen, p)
	}
}

// hasSeen reports whether the call queues at p, or did.
func (q *queueing) hasSeen(p *provider) bool {
	return slices.ContainsFunc(q.queues, func(other queue) bool { return slices.Contains(other.seen, p) })
}

// leaveExpired leaves the queues in which the call has waited for too long, or whose providers
// were all replaced, and returns how long it may wait in the others.
func (q *queueing) leaveExpired(waited time.Duration) (limit time.Duration) {
	for at := range q.queues {
		line := &q.queues[at]
		line.providers = slices.DeleteFunc(line.providers, (*provider).superseded)
		line.seen = slices.DeleteFunc(line.seen, (*provider).superseded) // they may come back
		if line.left {
			continue
		}
		if line.maxWait <= waited || len(line.providers) == 0 {
			line.left = true
			q.wait.Leave(at)
			continue
		}
		if left := line.maxWait - waited; limit == 0 || left < limit {
			limit = left
		}
	}
	return limit
}

// enterGranted enters the first provider of the queue that admits the call, whose place was
// given to it.
func (c *call) enterGranted(q *queueing, at int) (entered bool) {
	from := &q.queues[at]
	c.delay = c.since(q.began)
	c.attempt.place = from.slots
	defer func() {
		if !entered {
			c.attempt.leavePlace() // deferred: an authoriser may exit the goroutine
		}
	}()
	first := slices.IndexFunc(from.providers, func(p *provider) bool { return p.gateNow()&gateBlocked == 0 && c.wants(p) })
	if first < 0 || c.caller.err() != nil {
		from.providers = nil
		return false
	}
	p := from.providers[first]
	from.providers = slices.Delete(from.providers, first, first+1)
	if !c.claimAndEnter(p, admission{reason: attemptQueued, placed: true}) {
		return false
	}
	c.full = nil
	c.providers.take()
	return true
}

// enterAnother enters a provider that has become eligible while the call waits in queues.
func (c *call) enterAnother(q *queueing) bool {
	c.delay = max(c.delay, c.since(q.began))
	others := c.query.iterate(admitting)
	others.rest.Mode = pick.Peek
	others.shared = c.shared
	others.restarts = maxRestarts // the wait looks again by itself
	for p := others.next(&c.by); p != nil; p = others.next(&c.by) {
		if c.triedBefore(p) || !c.wants(p) {
			continue
		}
		if c.claimAndEnter(p, admission{reason: c.nextReason()}) {
			c.full = nil
			c.providers.take()
			return true
		}
	}
	return false
}

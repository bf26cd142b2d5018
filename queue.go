package registry

import (
	"context"
	"math"
	"slices"
	"time"

	"github.com/capreg/registry/internal/pick"
	"github.com/capreg/registry/internal/refusal"
	"github.com/capreg/registry/internal/slots"
)

// queueing is a call that queues, at once, for the places of all providers that had none free. It ends with the
// first place at which a provider admits the call, with another provider that the call can enter meanwhile, or
// when every queue was left.
//
//	queued ── a place is granted ──▶ granted ── admitted ──▶ entered
//	  ▲ ▲                               │ refused for good: leaves that queue
//	  │ └── keeps its turn ◀────────────┤ blocked meanwhile
//	  │
//	  ├── its turn comes while the provider is blocked ──▶ keeps it while the call waits elsewhere,
//	  │                                                    or was asked to wait for cooldowns
//	  └── membership or eligibility changes ──▶ looks again, also for another provider
//
// It does not refer to its call, which would then live on the heap.
type queueing struct {
	wait   *slots.Wait
	queues []queue
	began  time.Duration // on the registry's clock
	looked time.Duration // since began, when the queues were last looked at
}

// queue is one queue for places, and the providers whose places they are: several, in a domain.
type queue struct {
	slots     *slots.Slots
	providers []*provider   // those that may admit the call
	seen      []*provider   // and those that did not
	maxWait   time.Duration // in all queues together
	paused    time.Duration // the part of the wait that was one for a cooldown
	state     queueState
}

// queueState tells what a call does in a queue.
type queueState uint8

const (
	queueWaits queueState = iota // it waits for its turn
	queueCools                   // it waits for the end of a cooldown, which does not count as time in the queue
	queueVain                    // its turn came while the providers were blocked, and it may not wait for their return
	queueLeft                    // it was left for good
)

// awaitPlace queues at the providers that had no place free, and enters the one that is first to have one and
// still admits the call, or another one that can be entered meanwhile.
func (c *call) awaitPlace() bool {
	if len(c.full) == 0 {
		return false
	}
	defer c.skipFull()
	q := queueing{wait: slots.NewWait(c.options.caller), began: c.query.service.registry.now()}
	defer q.wait.End()
	for {
		changed := c.query.service.registry.changed()
		c.followQueues(&q)
		if c.dropReplaced() && c.enterAnother(&q) {
			return true
		}
		c.join(&q)
		limit := c.leaveHopeless(&q)
		if limit <= 0 {
			return false
		}
		q.wait.Recheck()
		at, woken := q.awaitTurn(c.caller.Ctx, limit, changed)
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
		case c.caller.Err() != nil:
			return false
		}
	}
}

// dropReplaced forgets full providers that were replaced: their successors are in the current plan. It reports
// whether there were any.
func (c *call) dropReplaced() bool {
	before := len(c.full)
	c.full = slices.DeleteFunc(c.full, (*provider).superseded)
	return len(c.full) < before
}

// skipFull notes the providers that had no place free and were not entered.
func (c *call) skipFull() {
	for _, p := range c.full {
		c.skip(p, refusal.Full(), 0)
	}
	c.full = nil
}

// awaitTurn waits for a place, for at most limit, and returns the number of the queue that gave one, -1 when
// none did; woken reports that membership or eligibility has changed.
func (q *queueing) awaitTurn(caller context.Context, limit time.Duration, changed <-chan struct{}) (at int, woken bool) {
	ctx, cancel := context.WithTimeout(caller, limit)
	defer cancel()
	return q.wait.For(ctx, changed)
}

func (c *call) since(began time.Duration) time.Duration {
	return c.query.service.registry.now() - began
}

// join lines up at the full providers at which the call does not queue yet, once for each domain.
func (c *call) join(q *queueing) {
	for _, p := range c.full {
		l := p.limits.Load()
		if p.gateNow()&gateBlocked != 0 || l == nil || l.Slots() == nil || !c.wants(p) || q.hasSeen(p) {
			continue
		}
		at := slices.IndexFunc(q.queues, func(other queue) bool { return other.slots == l.Slots() && other.state != queueLeft })
		if at < 0 {
			at = len(q.queues)
			q.queues = append(q.queues, queue{slots: l.Slots(), maxWait: l.Policy().MaxWait})
		}
		line := &q.queues[at]
		line.providers = append(line.providers, p)
		line.seen = append(line.seen, p)
		if !q.wait.Join(line.slots, at, mayAdmit(line.providers)) {
			line.state = queueLeft
		}
	}
}

// mayAdmit returns the condition for the turn of a call: that one of the providers is not blocked, or was
// replaced, so that the call has to look for its successor.
func mayAdmit(providers []*provider) func() bool {
	providers = slices.Clone(providers)
	return func() bool {
		return slices.ContainsFunc(providers, func(p *provider) bool { return p.gateNow()&gateBlocked == 0 || p.superseded() })
	}
}

// hasSeen reports whether the call queues at p, or did.
func (q *queueing) hasSeen(p *provider) bool {
	return slices.ContainsFunc(q.queues, func(other queue) bool { return slices.Contains(other.seen, p) })
}

func (c *call) followQueues(q *queueing) {
	for at := range q.queues {
		c.followQueue(q, at)
	}
}

// followQueue makes a queue that has moved to the successors of its providers one of theirs.
func (c *call) followQueue(q *queueing, at int) {
	line := &q.queues[at]
	moved := q.wait.Slots(at)
	if line.state == queueLeft || moved == nil || moved == line.slots && !allSuperseded(line.providers) {
		return
	}
	line.slots, line.providers = moved, nil
	plan := c.query.current()
	for _, p := range plan.candidates {
		if l := p.limits.Load(); l != nil && l.Slots() == moved && !p.superseded() && c.wants(p) && !slices.Contains(c.refused, p) {
			line.providers = append(line.providers, p)
			line.seen = append(line.seen, p)
			if !slices.Contains(c.full, p) {
				c.full = append(c.full, p)
			}
		}
	}
	q.wait.Join(moved, at, mayAdmit(line.providers))
}

func allSuperseded(providers []*provider) bool {
	return !slices.ContainsFunc(providers, func(p *provider) bool { return !p.superseded() })
}

// leaveHopeless leaves the queues in which the call has waited for too long, has lost its position, or whose
// providers have left, and returns how long it may wait in the others. Those whose turn came in vain are left
// only when there are no others.
func (c *call) leaveHopeless(q *queueing) (limit time.Duration) {
	waited := c.since(q.began)
	for at := range q.queues {
		line := &q.queues[at]
		line.providers = slices.DeleteFunc(line.providers, (*provider).superseded)
		line.seen = slices.DeleteFunc(line.seen, (*provider).superseded) // they may come back
		if line.state == queueCools {
			line.paused += waited - q.looked
		}
		if line.state != queueLeft {
			line.state = c.judgeQueue(q, at, waited)
		}
		if line.state == queueLeft {
			q.wait.Leave(at)
		}
	}
	q.looked = waited
	return q.limit()
}

// limit returns how long the call may wait in its queues; zero: in none.
func (q *queueing) limit() (limit time.Duration) {
	hopeful := slices.ContainsFunc(q.queues, func(line queue) bool { return line.state < queueVain })
	for _, line := range q.queues {
		if line.state == queueLeft || !hopeful {
			continue
		}
		left := line.maxWait - q.looked + line.paused
		if line.state == queueCools {
			left = max(left, time.Second) // its time does not run
		}
		if limit == 0 || left < limit {
			limit = left
		}
	}
	return limit
}

// judgeQueue returns what the call does in a queue after having waited for so long.
func (c *call) judgeQueue(q *queueing, at int, waited time.Duration) queueState {
	line := &q.queues[at]
	if len(line.providers) == 0 || q.wait.Lost(at) {
		return queueLeft
	}
	blocked := !mayAdmit(line.providers)()
	returnsIn, cools := time.Duration(0), false
	if blocked && c.options.wait {
		returnsIn, cools = firstBack(line.providers)
	}
	left := line.maxWait - waited + line.paused
	inTime := !c.caller.HasDeadline || returnsIn < time.Until(c.caller.Deadline)
	switch {
	case cools && inTime:
		return queueCools
	case left <= 0:
		return queueLeft
	case !blocked, !q.wait.Passed(at):
		return queueWaits
	case c.options.wait && inTime && returnsIn <= left:
		return queueWaits
	}
	return queueVain
}

// firstBack returns the time until the first of blocked providers may come back by itself, zero where that is
// not known, and whether a cooldown is all that it waits for.
func firstBack(providers []*provider) (returnsIn time.Duration, cools bool) {
	returnsIn = math.MaxInt64
	for _, p := range providers {
		in, _ := p.comesBackIn()
		if in < returnsIn {
			returnsIn = in
		}
		cools = cools || p.gateNow()&gateBlocked == gateCooling
	}
	return max(returnsIn, 0), cools
}

// enterGranted enters the first provider of the queue that admits the call, whose place was given to it.
func (c *call) enterGranted(q *queueing, at int) (entered bool) {
	c.followQueue(q, at)
	from := &q.queues[at]
	c.delay = c.since(q.began)
	c.attempt.place = from.slots
	defer func() {
		if !entered {
			c.attempt.leavePlace() // deferred: an authoriser may exit the goroutine
		}
	}()
	first := slices.IndexFunc(from.providers, func(p *provider) bool { return p.gateNow()&gateBlocked == 0 && c.wants(p) })
	if first < 0 || c.caller.Err() != nil {
		return false
	}
	p := from.providers[first]
	if !c.claimAndEnter(p, admission{reason: attemptQueued, placed: true}) {
		if !c.keepsTurn(p) {
			from.providers = slices.Delete(slices.Clone(from.providers), first, first+1)
			q.wait.Join(from.slots, at, mayAdmit(from.providers))
		}
		return false
	}
	c.full = nil
	c.providers.take()
	return true
}

// keepsTurn reports whether a call goes on waiting for p, which did not admit it: it was blocked meanwhile, and
// did not turn this call away.
func (c *call) keepsTurn(p *provider) bool {
	return !slices.Contains(c.refused, p) && !c.shared.had(p) && p.instance.Load() != nil
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

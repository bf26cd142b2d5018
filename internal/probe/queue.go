package probe

import (
	"context"
	"fmt"
	"hash/maphash"
	"time"

	"github.com/capreg/registry/event"
	"github.com/capreg/registry/health"
	"github.com/capreg/registry/internal/fault"
	"github.com/capreg/registry/verdict"
)

// mostSkipped bounds the probes in a row that successful calls may replace.
const mostSkipped = 5

// Queue runs the probes of all watches, a limited number at once, each in a goroutine that ends with it. Probes that
// wait for their time or their turn have none. Use [NewQueue] to create one.
//
// The lock of the host guards it, its checks and their watches: the timers ([Queue.due], [Queue.overdue]) and the
// goroutine of a probe ([Queue.run], [Queue.returned]) take it, and all other methods are called while it is held.
type Queue struct {
	host  Host
	life  context.Context //nolint:containedctx // of the host: all probes end with it
	limit int
	seed  maphash.Seed

	active   int      // running, and not stuck
	urgent   []*check // asked for; they come first
	routine  []*check // due by time
	lateness lateness
}

// NewQueue returns a queue that runs at most limit probes at once. Their contexts end with life.
func NewQueue(life context.Context, host Host, limit int) *Queue {
	return &Queue{host: host, life: life, limit: limit, seed: maphash.MakeSeed()}
}

// enqueue lets a check wait for its turn: in the state queued or urgent. It does nothing where the check waits as
// well already, or runs.
func (q *Queue) enqueue(c *check, to checkState) {
	switch c.state {
	case running, stuck, blocked, urgent:
		return
	case queued:
		if to == queued {
			return
		}
	case idle, scheduled:
	}
	c.stopTimer()
	c.state = to
	if to == urgent {
		q.urgent = append(q.urgent, c)
	} else {
		q.routine = append(q.routine, c)
	}
	q.startNext()
}

// startNext starts what may start.
func (q *Queue) startNext() {
	for q.active < q.limit {
		c := q.pop()
		switch {
		case c == nil:
			return
		case c.monitor.watch.running[c.capability] != nil:
			q.block(c, c.monitor.watch.running[c.capability])
		case !q.start(c):
			return
		}
	}
}

// pop returns the check whose turn it is; nil when none waits.
func (q *Queue) pop() *check {
	for _, waiting := range []struct {
		list *[]*check
		in   checkState
	}{{&q.urgent, urgent}, {&q.routine, queued}} {
		for len(*waiting.list) > 0 {
			c := (*waiting.list)[0]
			(*waiting.list)[0] = nil
			*waiting.list = (*waiting.list)[1:]
			switch {
			case c.state != waiting.in: // retired, or its turn came in the other list
			case !c.monitor.current():
				c.retire()
			default:
				return c
			}
		}
		*waiting.list = nil
	}
	return nil
}

// start runs a check, and reports whether the host lets it.
func (q *Queue) start(c *check) bool {
	w := c.monitor.watch
	if !q.host.Go(fmt.Sprintf("probe of provider %q", w.id.Name), func() { q.run(c) }) {
		c.retire()
		return false
	}
	c.state, c.beganAt = running, time.Now()
	if w.running == nil {
		w.running = make(map[string]*check)
	}
	w.running[c.capability] = c
	q.active++
	return true
}

// block lets a check wait for an older one to return: one runs at a time, whatever the policy.
func (q *Queue) block(c, older *check) {
	c.state, c.older = blocked, older
	if older.state == stuck {
		q.stickWithOlder(c)
	}
}

// stickWithOlder counts failures of a blocked check, as the older one is stuck.
func (q *Queue) stickWithOlder(c *check) {
	c.state, c.beganAt = stuck, c.older.beganAt
	q.setTimer(c)
}

// run runs a probe once, in a goroutine of its own.
func (q *Queue) run(c *check) {
	policy := c.monitor.policy
	ctx, cancel := context.WithTimeoutCause(c.monitor.life, policy.Timeout, errProbeTimeout)
	var reported usage
	watchdog := q.host.After(policy.Timeout+StuckGrace, func() { q.overdue(c) })
	began := q.host.Now()
	exited := &verdict.PanicError{} // what remains when the methods of the error exit the goroutine
	result := Result{Outcome: Failed, Err: exited, Text: exited.Error(), At: time.Now()}
	defer func() {
		cancel()
		watchdog.Stop()
		q.returned(c, result)
	}()
	fault.RunThen(func() error {
		return c.probe(health.WithUse(ctx, reported.add))
	}, func(err error) {
		result = resultOf(err, q.host.Now()-began, policy.Timeout, reported.seal())
	})
}

// returned takes the result of a probe that has returned, unless its failure was counted when it was stuck, or it
// is of an older policy.
func (q *Queue) returned(c *check, r Result) {
	q.host.Lock()
	defer q.host.Unlock()
	defer q.startNext()
	wasStuck := c.state == stuck
	if !wasStuck {
		q.active--
	}
	w := c.monitor.watch
	delete(w.running, c.capability)
	c.state = idle
	if !c.monitor.current() {
		c.retire()
		if next := w.blockedBy(c); next != nil {
			next.state, next.older = idle, nil
			q.enqueue(next, urgent)
		}
		return
	}
	if !wasStuck {
		q.take(c, r)
	}
	q.schedule(c)
}

// overdue gives up on a probe that goes on although its context has ended: it counts as failed, and no longer for the
// limit.
func (q *Queue) overdue(c *check) {
	q.host.Lock()
	defer q.host.Unlock()
	timeout := c.monitor.policy.Timeout
	if c.state != running || time.Since(c.beganAt) < timeout {
		return // it has returned; another run may be in progress
	}
	c.state = stuck
	q.active--
	defer q.startNext()
	w := c.monitor.watch
	if !c.monitor.current() {
		if next := w.blockedBy(c); next != nil {
			q.stickWithOlder(next)
		}
		return
	}
	w.subject.Publish(event.Event{Kind: event.ProbeStuck, Reason: fmt.Sprintf("ignores its context since %v", timeout)})
	q.take(c, stuckResult(timeout))
	q.setTimer(c)
}

// take gives a result to the machine, and publishes what follows.
func (q *Queue) take(c *check, r Result) {
	w, machine, now := c.monitor.watch, &c.monitor.machine, q.host.Now()
	r = q.suspect(c, r, now)
	var change *event.Event
	if c.capability == "" {
		change = machine.Observe(now, r)
	} else {
		change = machine.ObserveCapability(now, c.capability, r)
	}
	if change != nil {
		w.subject.Publish(*change)
	}
	w.subject.HealthChanged()
	totals := w.subject.Totals()
	c.idling = totals.Attempts == c.calls.Attempts
	c.calls, c.skipped = totals, 0
	c.wakeWaiters()
}

// suspect returns the result, as Suspected where it is a failure that this machine is the likely cause of.
func (q *Queue) suspect(c *check, r Result, now time.Duration) Result {
	of := originOf(c.monitor.watch.id)
	switch {
	case r.Outcome != Failed:
		if c.capability == "" {
			q.lateness.noteAnswer(of, now)
		}
	case r.Late && !r.Out && c.monitor.machine.Answering(c.capability):
		blamed, began := q.lateness.noteLate(of, now, c.monitor.policy.Timeout)
		if began {
			q.host.Publish(event.Event{
				Kind: event.MonitorLate, Reason: "many unrelated probes are late together: this machine is suspected, not the providers",
			})
		}
		if blamed {
			r.Outcome = Suspected
		}
	}
	return r
}

// schedule plans the next run of a check.
func (q *Queue) schedule(c *check) {
	c.state = scheduled
	q.setTimer(c)
}

// setTimer sets the timer of a check for when it is due next. It leaves the state.
func (q *Queue) setTimer(c *check) {
	interval := c.monitor.machine.Interval(c.capability, c.idling)
	delay := jitter(interval)
	if !c.offset && interval >= c.monitor.policy.Interval {
		c.offset = true // checks that began together must not stay together
		delay = time.Duration(float64(interval) * fraction(q.seed, c.monitor.watch.id.Name+"\x00"+c.capability))
	}
	now := q.host.Now()
	due := alignUp(now+delay, interval)
	c.stopTimer()
	c.timers++
	timer := c.timers
	c.dueAt = time.Now().Add(due - now)
	c.timer = q.host.After(due-now, func() { q.due(c, timer, due) })
	c.monitor.watch.subject.ProbePlanned()
}

// due is called by the timer of a check, which may have been stopped or replaced meanwhile.
func (q *Queue) due(c *check, timer uint64, planned time.Duration) {
	q.host.Lock()
	defer q.host.Unlock()
	if !c.monitor.current() || c.timer == nil || c.timers != timer {
		return
	}
	q.lateness.noteTimer(planned, q.host.Now())
	switch {
	case c.state == stuck:
		q.take(c, stuckResult(c.monitor.policy.Timeout))
		q.setTimer(c)
	case q.callsSuffice(c):
		c.skipped++
		q.schedule(c)
	default:
		q.enqueue(c, queued)
	}
}

// callsSuffice reports whether successful calls since the last time take the place of the probe.
func (q *Queue) callsSuffice(c *check) bool {
	if c.capability != "" || c.skipped >= mostSkipped || !c.monitor.machine.TrustsCalls() {
		return false
	}
	before := c.calls
	c.calls = c.monitor.watch.subject.Totals()
	return c.calls.Successes > before.Successes && c.calls.Failures == before.Failures
}

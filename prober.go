package registry

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"maps"
	"math/bits"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/capreg/registry/event"
	"github.com/capreg/registry/health"
	"github.com/capreg/registry/internal/fault"
	"github.com/capreg/registry/internal/oneline"
	"github.com/capreg/registry/internal/schedule"
)

const (
	defaultProbeConcurrency = 32

	// stuckGrace is how long a probe may take to return after its context told
	// it to, before it is called stuck.
	stuckGrace = 100 * time.Millisecond

	// moments is how many moments of an interval there are to probe at, or up to
	// twice as many.
	moments = 128

	// trustedAtMost is how many probes in a row calls may stand in for.
	trustedAtMost = 5

	// suspicionWindow is how far back results are looked at to tell providers that
	// are late from a machine that is.
	suspicionWindow = 30 * time.Second
	// unrelatedLate is how many providers that share nothing must be late in it,
	// and be half of all, for the machine to be suspected.
	unrelatedLate = 5
	// longestSuspicion is how long lateness is blamed on the machine.
	longestSuspicion = 5 * time.Minute
	// lateTick is how late a timer of ours must be to say the same.
	lateTick = time.Second
)

var errProbeTimeout = errors.New("probe timeout")

// check is one probe of a provider: of the whole, or of one capability. It runs
// once at a time.
type check struct {
	monitor    *monitor
	capability string // empty: of the whole
	probe      health.Probe

	// Guarded by Registry.mu.
	timer     *schedule.Timer // the next one; nil while one is queued or runs
	dueAt     time.Time
	plans     uint64 // how many times timer was set
	queued    bool
	asked     bool // queued before those whose time has come
	running   bool
	behind    *check // one of an older policy, which has not returned; nil for none
	stuck     bool
	beganAt   time.Time
	failures  int // in a row
	successes int // in a row
	known     bool
	out       bool // the capability
	text      string
	err       error
	phased    bool
	trusted   int // how many in a row calls have stood in for
	idle      bool
	attempts  uint64 // of the provider, when last looked at
	fine      uint64 // of them, successes
	failed    uint64 // and failures
	result    chan struct{}
}

func (c *check) count(failed bool) {
	if failed {
		c.failures++
		c.successes = 0
	} else {
		c.successes++
		c.failures = 0
	}
}

// answered returns a channel that is closed at the next result. Caller holds
// Registry.mu.
func (c *check) answered() <-chan struct{} {
	if c.result == nil {
		c.result = make(chan struct{})
	}
	return c.result
}

// answer lets those go on who wait for a result. Caller holds Registry.mu.
func (c *check) answer() {
	if c.result != nil {
		close(c.result)
		c.result = nil
	}
}

// outcome is the result of a probe. It is made outside of locks, as it asks the
// user's error what it is.
type probeOutcome struct {
	err    error
	text   string
	failed bool
	limps  bool
	late   bool
	took   time.Duration
	usage  map[string]float64
}

func (c *check) outcome(err error, took time.Duration, usage map[string]float64) probeOutcome {
	o := probeOutcome{err: err, took: took, usage: usage}
	if took >= c.monitor.policy.Timeout {
		o.late = true
		o.took = c.monitor.policy.Timeout
		o.err = fault.Join("", append([]error{fmt.Errorf("%w after %v", errProbeTimeout, o.took)}, fault.List(err)...))
	}
	if o.err == nil {
		return o
	}
	o.limps = !o.late && isLimp(err)
	o.failed = !o.limps
	o.text = oneline.Cut(fault.Text(o.err), 300)
	return o
}

// isLimp is health.IsLimp for errors of users, whose methods may panic.
func isLimp(err error) (limp bool) {
	_ = fault.Run(func() error { limp = health.IsLimp(err); return nil })
	return limp
}

// prober runs the probes of a registry, a limited number at once, each in a
// goroutine that ends with it. Probes that wait for their time or their turn have
// none. Registry.mu guards all of it.
type prober struct {
	registry *Registry
	limit    int
	active   int      // running and not stuck
	urgent   []*check // first probes, and those asked for
	routine  []*check

	recent       [64]evidence
	next         int
	suspectSince time.Duration // on the registry's clock; zero: no suspicion
	suspectedAt  time.Duration // when there was reason last
	lateTickAt   time.Duration // when a timer of ours was late last
	hasLateTick  bool
}

// evidence is one result of a provider that was answering. It names what the
// provider shares with others rather than refer to it: providers leave.
type evidence struct {
	domain string
	alone  uint64 // the generation of a provider without a domain
	at     time.Duration
	late   bool
}

func (m *monitor) evidence(now time.Duration, late bool) evidence {
	e := evidence{domain: m.provider.definition.Domain, at: now, late: late}
	if e.domain == "" {
		e.alone = m.provider.generation
	}
	return e
}

// add queues a probe that is due, unless it is queued or running already. Caller
// holds Registry.mu.
func (b *prober) add(c *check, urgent bool) {
	if c.running || c.behind != nil || c.queued && (!urgent || c.asked) {
		return
	}
	c.asked = urgent
	if c.timer != nil {
		c.timer.Stop()
		c.timer = nil
	}
	c.queued = true
	if urgent {
		b.urgent = append(b.urgent, c)
	} else {
		b.routine = append(b.routine, c)
	}
	b.pump()
}

func (b *prober) pop() *check {
	for _, queue := range []*[]*check{&b.urgent, &b.routine} {
		for len(*queue) > 0 {
			c := (*queue)[0]
			(*queue)[0] = nil
			*queue = (*queue)[1:]
			if !c.queued {
				continue // it was in the other queue as well
			}
			c.queued, c.asked = false, false
			if !c.monitor.stale() {
				return c
			}
			c.answer()
		}
		*queue = nil
	}
	return nil
}

// pump starts what may start. Caller holds Registry.mu.
func (b *prober) pump() {
	for b.active < b.limit {
		c := b.pop()
		if c == nil {
			return
		}
		if c.mustWait() {
			continue
		}
		c.running, c.beganAt = true, time.Now()
		c.monitor.provider.wellness.running[c.capability] = c
		name := fmt.Sprintf("probe of provider %q", c.monitor.provider.name())
		if !b.registry.tasks.Start(name, func() { b.run(c) }) {
			c.running = false
			delete(c.monitor.provider.wellness.running, c.capability)
			c.answer()
			return
		}
		b.active++
	}
}

// mustWait reports whether a probe of the same, of an older policy, has not returned
// yet: there is one at a time, whatever the policy. Caller holds Registry.mu.
func (c *check) mustWait() bool {
	w := &c.monitor.provider.wellness
	if w.running == nil {
		w.running = make(map[string]*check)
	}
	older, ok := w.running[c.capability]
	if !ok {
		return false
	}
	c.behind = older
	if older.stuck {
		c.stickBehind()
	}
	return true
}

// stickBehind counts failures of a probe that cannot begin because an older one does
// not return. Caller holds Registry.mu.
func (c *check) stickBehind() {
	c.stuck, c.beganAt = true, c.behind.beganAt
	c.monitor.provider.registry.prober.plan(c)
}

// successor returns the present check in place of one of an older policy, where it
// waits for that. Caller holds Registry.mu.
func (c *check) successor() *check {
	m := c.monitor.provider.wellness.monitor
	if m == nil {
		return nil
	}
	for _, other := range m.checks {
		if other.behind == c {
			return other
		}
	}
	return nil
}

// run probes once.
func (b *prober) run(c *check) {
	m := c.monitor
	ctx, cancel := context.WithTimeoutCause(m.life, m.policy.Timeout, errProbeTimeout)
	var notes notes
	watchdog := b.registry.schedule.After(m.policy.Timeout+stuckGrace, func() { b.stuck(c) })
	began := b.registry.now()
	err := error(&PanicError{}) // what remains when the probe exits its goroutine
	o := probeOutcome{err: err, text: err.Error(), failed: true}
	defer func() {
		cancel()
		watchdog.Stop()
		b.ended(c, o)
	}()
	// Deferred by itself: the methods of the error are the user's, too, and may exit.
	defer func() { o = c.outcome(err, b.registry.now()-began, notes.close()) }()
	err = fault.Run(func() error { return c.probe(health.WithUse(ctx, notes.add)) })
}

// notes are what a probe says that it uses.
type notes struct {
	// mu guards the fields below: a probe may have goroutines of its own.
	mu     sync.Mutex
	usage  map[string]float64
	closed bool
}

const mostResources = 32

func (n *notes) add(resource string, share float64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if _, known := n.usage[resource]; n.closed || !known && len(n.usage) >= mostResources {
		return
	}
	if n.usage == nil {
		n.usage = make(map[string]float64)
	}
	n.usage[oneline.Cut(resource, longestName)] = share
}

func (n *notes) close() map[string]float64 {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.closed = true
	return maps.Clone(n.usage)
}

// ended takes the result of a probe, unless that came too late for anything.
func (b *prober) ended(c *check, o probeOutcome) {
	b.registry.mu.Lock()
	defer b.registry.mu.Unlock()
	defer b.pump()
	late := c.stuck // its failure was counted
	c.running, c.stuck = false, false
	delete(c.monitor.provider.wellness.running, c.capability)
	if !late {
		b.active--
	}
	if c.monitor.stale() {
		c.answer()
		if next := c.successor(); next != nil {
			next.behind, next.stuck = nil, false
			b.add(next, true)
		}
		return
	}
	if !late {
		b.take(c, o)
	}
	b.plan(c)
}

// stuck gives up on a probe whose context has ended and that goes on: it frees its
// place for others, and counts as failed.
func (b *prober) stuck(c *check) {
	b.registry.mu.Lock()
	defer b.registry.mu.Unlock()
	if !c.running || c.stuck || time.Since(c.beganAt) < c.monitor.policy.Timeout {
		return
	}
	c.stuck = true
	b.active--
	defer b.pump()
	if c.monitor.stale() {
		if next := c.successor(); next != nil {
			next.stickBehind()
		}
		return
	}
	p := c.monitor.provider
	b.registry.bus.publish(p.event(event.Event{Kind: event.ProbeStuck, Reason: fmt.Sprintf("ignores its context since %v", c.monitor.policy.Timeout)}))
	b.take(c, stuckOutcome(c))
	b.plan(c)
}

var errProbeStuck = errors.New("probe does not return")

func stuckOutcome(c *check) probeOutcome {
	return probeOutcome{err: errProbeStuck, text: errProbeStuck.Error(), failed: true, late: true, took: c.monitor.policy.Timeout}
}

// take gives a result to the monitor, and shows what follows. Caller holds
// Registry.mu.
func (b *prober) take(c *check, o probeOutcome) {
	m := c.monitor
	if c.capability == "" {
		m.observe(c, o)
	} else {
		m.observeCapability(c, o)
	}
	m.provider.showHealth()
	totals := m.provider.totals()
	c.idle = totals.Attempts == c.attempts
	c.attempts, c.fine, c.failed, c.trusted = totals.Attempts, totals.Successes, totals.Failures, 0
	c.answer()
}

// plan sets the timer for the next probe. Caller holds Registry.mu.
func (b *prober) plan(c *check) {
	base, delay := c.monitor.delay(c)
	due := b.registry.now() + delay
	if tick := shared(base / moments); tick > 0 {
		// A process that does nothing else wakes up less often: at moments that are the
		// same for all with about that interval.
		due = (due + tick - 1).Truncate(tick)
		delay = due - b.registry.now()
	}
	c.dueAt = time.Now().Add(delay)
	if c.timer != nil {
		c.timer.Stop()
	}
	c.plans++
	plan := c.plans
	c.timer = b.registry.schedule.After(delay, func() { b.due(c, plan, due) })
}

// shared is the largest power of two, in milliseconds, that is not longer than d;
// zero when none is.
func shared(d time.Duration) time.Duration {
	ms := uint64(d / time.Millisecond) //nolint:gosec // intervals are not negative
	if ms == 0 {
		return 0
	}
	return time.Duration(1) << (bits.Len64(ms) - 1) * time.Millisecond
}

// due is called when a probe is, by its timer, which may have been overtaken.
func (b *prober) due(c *check, plan uint64, planned time.Duration) {
	b.registry.mu.Lock()
	defer b.registry.mu.Unlock()
	m := c.monitor
	if m.stale() || c.timer == nil || c.plans != plan {
		return
	}
	now := b.registry.now()
	if now-planned > lateTick {
		b.lateTickAt, b.hasLateTick = now, true
	}
	switch {
	case c.stuck:
		b.take(c, stuckOutcome(c))
		b.plan(c)
	case m.trusts(c):
		c.trusted++
		b.plan(c)
	default:
		c.timer = nil
		b.add(c, false)
	}
}

// trusts reports whether calls stand in for the probe. Caller holds Registry.mu.
func (m *monitor) trusts(c *check) bool {
	if !m.policy.TrustCalls || c.capability != "" || m.state != health.Healthy || c.failures > 0 || c.trusted >= trustedAtMost {
		return false
	}
	totals := m.provider.totals()
	fresh := totals.Successes > c.fine && totals.Failures == c.failed
	c.attempts, c.fine, c.failed = totals.Attempts, totals.Successes, totals.Failures
	return fresh
}

// answered notes that a provider was not late. Caller holds Registry.mu.
func (b *prober) answered(m *monitor, now time.Duration) {
	b.note(m.evidence(now, false))
}

func (b *prober) note(e evidence) {
	b.recent[b.next] = e
	b.next = (b.next + 1) % len(b.recent)
}

// suspect reports whether a failure is rather this machine's: when it is late,
// and so are many providers that answered before and share nothing, or the clock
// by which they are probed. Caller holds Registry.mu.
func (b *prober) suspect(m *monitor, now time.Duration, late, answering bool) bool {
	if !late || !answering {
		return false
	}
	b.note(m.evidence(now, true))
	if !b.manyLate(now) && (!b.hasLateTick || now-b.lateTickAt > m.policy.Timeout+suspicionWindow) {
		b.suspectSince = 0
		return false
	}
	if b.suspectSince == 0 || now-b.suspectedAt > suspicionWindow {
		b.suspectSince = now
		b.registry.bus.publish(event.Event{
			Kind: event.MonitorLate, Reason: "many unrelated probes are late together: this machine is suspected, not they",
		})
	}
	b.suspectedAt = now
	return now-b.suspectSince <= longestSuspicion
}

func (b *prober) manyLate(now time.Duration) bool {
	late := make(map[evidence]bool)
	for _, e := range b.recent {
		if e.at > 0 && now-e.at <= suspicionWindow {
			of := evidence{domain: e.domain, alone: e.alone}
			late[of] = late[of] || e.late
		}
	}
	n := 0
	for _, is := range late {
		if is {
			n++
		}
	}
	return n >= unrelatedLate && 2*n >= len(late)
}

// phase maps a name to [0, 1), the same as long as the registry lives.
func (r *Registry) phase(name string) float64 {
	return float64(maphash.String(r.seed, name)>>11) / (1 << 53)
}

// jitter returns a time within 10 % of d.
func jitter(d time.Duration) time.Duration {
	return time.Duration(float64(d) * (0.9 + 0.2*rand.Float64())) //nolint:gosec // spreading needs no secret
}

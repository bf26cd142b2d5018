package probe

import (
	"context"
	"slices"
	"time"

	"github.com/capreg/registry/health"
)

// Watch is the watch over one provider, from policy to policy. A nil Watch, and one whose policy asks for nothing,
// watches nothing. Use [Queue.NewWatch] to create one. All methods are called with the lock of the host held.
type Watch struct {
	queue    *Queue
	subject  Subject
	id       Identity
	monitor  *monitor          // of the present policy; nil: nothing to watch
	revision uint64            // of the monitor
	running  map[string]*check // by capability: of the present policy or an older one
	recovery recovery
}

// monitor is a watch under one policy. What comes too late for it is dropped.
type monitor struct {
	watch   *Watch
	policy  *health.Policy // the machine's
	machine Machine
	checks  []*check
	life    context.Context         //nolint:containedctx // of its probes and recoveries
	end     context.CancelCauseFunc // called without the lock of the host
}

// NewWatch returns a watch over a provider that watches nothing yet.
func (q *Queue) NewWatch(subject Subject, id Identity) *Watch {
	return &Watch{queue: q, subject: subject, id: id}
}

// Configure makes the watch follow a policy, whose defaults are filled in, and begins its probes at once. own is the
// probe of the provider itself, or nil. What is known stays until the first results; where nothing was watched
// before, that is the given state. The result ends what was watched before, and must be called without the lock of
// the host.
func (w *Watch) Configure(policy health.Policy, own health.Probe, state health.State) (end func(cause error)) {
	before := w.monitor
	if policy.Off {
		own = nil
	}
	w.revision++
	w.monitor = nil
	if Needed(policy, own) {
		w.monitor = w.newMonitor(policy, own, before, state)
	}
	w.recovery.changePolicy(before != nil && w.monitor != nil)
	if before != nil {
		before.retire()
	}
	if m := w.monitor; m != nil {
		for _, c := range m.checks {
			w.queue.enqueue(c, urgent)
		}
	}
	return before.cancel
}

func (w *Watch) newMonitor(policy health.Policy, own health.Probe, before *monitor, state health.State) *monitor {
	m := &monitor{watch: w}
	if now := w.queue.host.Now(); before != nil {
		m.machine = before.machine.Under(policy, own != nil, now)
	} else {
		m.machine = NewMachine(policy, own != nil, state, now)
	}
	m.policy = m.machine.policy
	if own != nil {
		m.checks = append(m.checks, &check{monitor: m, probe: own})
	}
	for _, c := range m.machine.capabilities {
		m.checks = append(m.checks, &check{monitor: m, capability: c.name, probe: policy.Capabilities[c.name]})
	}
	m.life, m.end = context.WithCancelCause(w.queue.life)
	return m
}

// AddProbe adds a probe of the provider itself to a policy that had none, and begins it at once.
func (w *Watch) AddProbe(own health.Probe) {
	m := w.monitor
	if m == nil || m.ownCheck() != nil {
		return
	}
	m.machine.addOwnProbe()
	c := &check{monitor: m, probe: own}
	m.checks = append(m.checks, c)
	w.queue.enqueue(c, urgent)
}

// Stop ends the watch over a provider that has left: nothing that the policy refers to is kept. The result ends the
// probes that run, and must be called without the lock of the host; nil: there are none.
func (w *Watch) Stop() (end func(cause error)) {
	if w == nil {
		return nil
	}
	m := w.monitor
	w.monitor = nil
	w.revision++
	w.recovery.changePolicy(false)
	if m == nil {
		return nil
	}
	m.retire()
	return m.cancel
}

// current reports whether results still count: the policy was not replaced and the provider has not left.
func (m *monitor) current() bool { return m.watch.monitor == m && !m.watch.subject.Left() }

func (m *monitor) retire() {
	for _, c := range m.checks {
		c.retire()
	}
}

// cancel ends the contexts of probes and recoveries.
func (m *monitor) cancel(cause error) {
	if m != nil {
		m.end(cause)
	}
}

// ownCheck returns the check of the provider itself; nil when there is none.
func (m *monitor) ownCheck() *check {
	for _, c := range m.checks {
		if c.capability == "" {
			return c
		}
	}
	return nil
}

// blockedBy returns the present check that waits for an older one; nil when none does.
func (w *Watch) blockedBy(older *check) *check {
	if w.monitor != nil {
		for _, c := range w.monitor.checks {
			if c.older == older {
				return c
			}
		}
	}
	return nil
}

// Active reports whether anything is watched.
func (w *Watch) Active() bool { return w != nil && w.monitor != nil }

// Revision returns a number that differs after each change of policy, and after the end of the watch.
func (w *Watch) Revision() uint64 {
	if w == nil {
		return 0
	}
	return w.revision
}

// State returns what the probes say: the state, the reason for it, and the error that is the cause.
func (w *Watch) State() (state health.State, reason string, cause error) {
	if !w.Active() {
		return health.Healthy, "", nil
	}
	return w.monitor.machine.State()
}

// Score returns the score of the provider.
func (w *Watch) Score() float64 {
	if !w.Active() {
		return 1
	}
	return w.monitor.machine.Score()
}

// Trend returns the trend of the provider.
func (w *Watch) Trend() health.Trend {
	if !w.Active() {
		return health.Steady
	}
	return w.monitor.machine.Trend()
}

// Outage returns the first of the capabilities that is out, and why; nil when all work.
func (w *Watch) Outage(among []string) *Outage {
	if !w.Active() {
		return nil
	}
	return w.monitor.machine.Outage(among)
}

// CapabilitiesWork reports whether every capability with a probe has passed it.
func (w *Watch) CapabilitiesWork() bool {
	return !w.Active() || !slices.ContainsFunc(w.monitor.machine.capabilities, func(c capability) bool {
		return c.state != capabilityWorks
	})
}

// Status returns what is known of the provider's health.
func (w *Watch) Status() health.Status {
	if !w.Active() {
		return health.Status{State: health.Healthy, Score: 1}
	}
	s := w.monitor.machine.Status()
	for _, c := range w.monitor.checks {
		if c.state == stuck && (s.StuckSince.IsZero() || c.beganAt.Before(s.StuckSince)) {
			s.StuckSince = c.beganAt
		}
		if c.timer != nil && (s.NextCheck.IsZero() || c.dueAt.Before(s.NextCheck)) {
			s.NextCheck = c.dueAt
		}
	}
	return s
}

// FirstResultWithin returns how long the first result of the provider's own probe may take once the probe runs; zero
// when there was one, or none is to come.
func (w *Watch) FirstResultWithin() time.Duration {
	if state, _, _ := w.State(); state != health.Unknown {
		return 0
	}
	return w.monitor.policy.Timeout + StuckGrace
}

// NextProbeIn returns the time until the provider's own probe is due; zero when that is not planned.
func (w *Watch) NextProbeIn() time.Duration {
	if !w.Active() {
		return 0
	}
	c := w.monitor.ownCheck()
	if c == nil || c.timer == nil {
		return 0
	}
	return max(time.Until(c.dueAt), 0)
}

// WhyUnproven returns the reason why no probe has succeeded yet, and the time until the next one.
func (w *Watch) WhyUnproven() (text string, next time.Duration, cause error) {
	state, reason, err := w.State()
	if !w.Active() || state == health.Unknown {
		return "its first probe has no result yet", 0, nil
	}
	return "starting: " + reason, w.NextProbeIn(), err
}

// CheckNow makes all probes due, but those that are stuck. It returns channels that are closed at their results, or
// when there will be none.
func (w *Watch) CheckNow() (results []<-chan struct{}) {
	if !w.Active() {
		return nil
	}
	for _, c := range w.monitor.checks {
		if c.state == stuck {
			continue
		}
		results = append(results, c.nextResult())
		w.queue.enqueue(c, urgent)
	}
	return results
}

// MarkHealthy overrules what the probes have said so far, as [Machine.MarkHealthy] does.
func (w *Watch) MarkHealthy() {
	if w.Active() {
		w.monitor.machine.MarkHealthy()
	}
}

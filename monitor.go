package registry

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/cenkalti/backoff/v4"

	"github.com/capreg/registry/event"
	"github.com/capreg/registry/health"
	"github.com/capreg/registry/internal/drift"
	"github.com/capreg/registry/internal/fault"
	"github.com/capreg/registry/internal/oneline"
	"github.com/capreg/registry/internal/schedule"
)

// monitor watches one provider under one policy. A new policy brings a new
// monitor, and what comes too late for an older one is dropped.
type monitor struct {
	provider *provider
	policy   health.Policy   // with its defaults
	life     context.Context //nolint:containedctx // of the probes and recoveries
	end      context.CancelCauseFunc
	main     *check // nil without a probe of the provider itself
	checks   []*check
	began    time.Duration // on the registry's clock

	// Guarded by Registry.mu.
	state     health.State
	reason    string
	err       error
	facts     health.Facts
	score     float64
	good      int // answers in a row with a score that is not degraded
	trend     health.Trend
	detector  drift.Detector
	usage     map[string]float64
	checkedAt time.Time
	suspected bool

	recoveries int // since it became unhealthy
	delays     *backoff.ExponentialBackOff
	retry      *schedule.Timer
}

// withProbeDefaults returns a checked copy with its defaults filled in.
func withProbeDefaults(p health.Policy, capabilities []string) (health.Policy, error) {
	for _, field := range []struct {
		name     string
		value    *time.Duration
		shortest time.Duration
		usual    time.Duration
	}{
		{"Health.Interval", &p.Interval, shortestInterval, defaultProbeInterval},
		{"Health.FastInterval", &p.FastInterval, shortestInterval, 0},
		{"Health.IdleInterval", &p.IdleInterval, shortestInterval, 0},
		{"Health.Timeout", &p.Timeout, 0, defaultProbeTimeout},
		{"Health.StartTime", &p.StartTime, 0, 0},
		{"Health.Expected", &p.Expected, 0, 0},
		{"Health.RecoverTimeout", &p.RecoverTimeout, 0, defaultRecoverTime},
	} {
		if *field.value < field.shortest && *field.value != 0 || *field.value > longestInterval {
			return p, invalid(field.name, *field.value, fmt.Sprintf("0 (default), or %v to %v", field.shortest, longestInterval))
		}
		*field.value = cmp.Or(*field.value, field.usual)
	}
	p.FastInterval = cmp.Or(p.FastInterval, max(p.Interval/6, shortestInterval))
	p.IdleInterval = cmp.Or(p.IdleInterval, 2*p.Interval)
	for _, field := range []struct {
		name  string
		value *int
		usual int
	}{
		{"Health.Fall", &p.Fall, defaultFall}, {"Health.Rise", &p.Rise, defaultRise}, {"Health.RecoverLimit", &p.RecoverLimit, defaultRecoverLimit},
	} {
		if *field.value < 0 {
			return p, invalid(field.name, *field.value, fmt.Sprintf("0 (default %d) or more", field.usual))
		}
		*field.value = cmp.Or(*field.value, field.usual)
	}
	p.Capabilities = maps.Clone(p.Capabilities)
	for capability, probe := range p.Capabilities {
		field := fmt.Sprintf("Health.Capabilities[%q]", oneline.Cut(capability, 64))
		if !slices.Contains(capabilities, capability) {
			return p, invalid(field, raw("unknown"), "one of the provider's Capabilities")
		}
		if probe == nil {
			return p, invalid(field, raw("nil"), "a probe")
		}
	}
	var err error
	if p.Groups, err = checkWords("Health.Groups", p.Groups); err != nil {
		return p, err
	}
	if len(p.Groups) == 0 {
		p.Groups = []string{health.Readiness}
	}
	return p, nil
}

// settings puts what a policy decides into words, for events.
func settings(p health.Policy) string {
	if p.Off {
		return "off"
	}
	return fmt.Sprintf("interval %v timeout %v fall %d rise %d", p.Interval, p.Timeout, p.Fall, p.Rise)
}

// newMonitor returns the monitor that the policy asks for, or nil. before is what
// watched so far: what it knows remains until the new policy's first results. Without
// it, state is what is known.
func newMonitor(p *provider, policy health.Policy, before *monitor, state health.State) *monitor {
	probe := policy.Probe
	if probe == nil {
		if made := p.instance.Load(); made != nil && made.checker != nil {
			probe = made.checker.CheckHealth
		}
	}
	if (policy.Off || probe == nil && len(policy.Capabilities) == 0) && policy.Recover == nil {
		return nil // nothing is watched, as with most providers: they cost nothing
	}
	m := &monitor{provider: p, policy: policy, state: state, score: 1, began: p.registry.now()}
	if probe != nil && !policy.Off {
		m.main = &check{monitor: m, probe: probe}
		m.checks = append(m.checks, m.main)
	}
	if !policy.Off {
		for _, capability := range slices.Sorted(maps.Keys(policy.Capabilities)) {
			m.checks = append(m.checks, &check{monitor: m, capability: capability, probe: policy.Capabilities[capability]})
		}
	}
	m.facts.Known = state != health.Unknown
	if before != nil {
		m.inherit(before)
	}
	if m.main == nil && m.state != health.Degraded {
		m.state, m.facts.Known = health.Healthy, true
	}
	m.facts.Fall, m.facts.Expected, m.facts.Checked = policy.Fall, policy.Expected, len(m.checks)-m.probes()
	if !m.facts.Known {
		m.score = 0
	}
	m.life, m.end = context.WithCancelCause(p.registry.life)
	return m
}

// inherit takes over what the monitor before knows of the same probes. Caller holds
// Registry.mu.
func (m *monitor) inherit(before *monitor) {
	m.state, m.reason, m.err, m.facts = before.state, before.reason, before.err, before.facts
	m.score, m.good, m.trend, m.detector = before.score, before.good, before.trend, before.detector
	m.usage, m.checkedAt, m.suspected, m.recoveries = before.usage, before.checkedAt, before.suspected, before.recoveries
	m.facts.Out = 0
	for _, c := range m.checks {
		for _, old := range before.checks {
			if old.capability == c.capability {
				c.known, c.out, c.text, c.err = old.known, old.out, old.text, old.err
				c.failures, c.successes = old.failures, 0
			}
		}
		if c.out {
			m.facts.Out++
		}
	}
	if m.main != nil && m.state == health.Unhealthy {
		m.facts.Failures, m.main.failures = m.policy.Fall, m.policy.Fall
	}
}

// probes is how many probes are about the provider as a whole: none or one.
func (m *monitor) probes() int {
	if m.main == nil {
		return 0
	}
	return 1
}

// stale reports whether somebody else watches the provider now, or nobody. Caller
// holds Registry.mu.
func (m *monitor) stale() bool {
	return m.provider.wellness.monitor != m || m.provider.hasLeft()
}

// stop ends the probes and what waits for them. Caller holds Registry.mu, and
// calls m.end afterwards.
func (m *monitor) stop() {
	for _, c := range m.checks {
		if c.timer != nil {
			c.timer.Stop()
		}
		c.answer()
	}
	if m.retry != nil {
		m.retry.Stop()
	}
}

// believe makes the provider healthy because somebody who knows says so. Caller
// holds Registry.mu.
func (m *monitor) believe() {
	m.state, m.reason, m.err = health.Healthy, "", nil
	m.facts.Known, m.facts.Failures, m.facts.Limps = true, 0, false
	m.score = health.Score(m.facts)
	if m.main != nil {
		m.main.failures = 0
	}
}

// observe takes a result of the provider's own probe. Caller holds Registry.mu.
func (m *monitor) observe(c *check, o probeOutcome) {
	now := m.provider.registry.now()
	m.checkedAt = time.Now()
	m.facts.Known, m.facts.Took, m.facts.Limps = true, o.took, o.limps
	m.usage, m.facts.Usage = o.usage, 0
	for _, share := range o.usage {
		m.facts.Usage = max(m.facts.Usage, share)
	}
	m.detector.Observe(o.took, o.failed)
	answering := m.state == health.Healthy || m.state == health.Degraded
	m.suspected = false
	if o.failed {
		m.suspected = m.provider.registry.prober.suspect(m, now, o.late, answering)
		if m.suspected {
			m.reason, m.err = "not counted, as many unrelated probes are late: "+o.text, o.err
			return
		}
	} else {
		m.provider.registry.prober.answered(m, now)
	}
	c.count(o.failed)
	m.facts.Failures = c.failures
	m.evaluate(o, now)
	m.follow()
}

// evaluate moves the state on after a result that counts. Caller holds Registry.mu.
func (m *monitor) evaluate(o probeOutcome, now time.Duration) {
	m.rescore()
	failures := m.facts.Failures
	down := failures >= m.policy.Fall
	before := m.state
	switch m.state {
	case health.Unknown, health.Starting:
		switch {
		case !o.failed:
			m.state = m.byScore()
		case down && now-m.began >= m.policy.StartTime:
			m.state = health.Unhealthy
		default:
			m.state = health.Starting
		}
	case health.Healthy, health.Degraded:
		if down {
			m.state = health.Unhealthy
		} else {
			m.settle()
		}
	case health.Unhealthy:
		if !o.failed && m.main.successes >= m.policy.Rise {
			m.state = m.byScore()
		}
	case health.Draining:
	}
	switch {
	case o.failed:
		m.reason, m.err = o.text, o.err
		if failures < m.policy.Fall {
			m.reason = fmt.Sprintf("%s (%d of %d failures)", o.text, failures, m.policy.Fall)
		}
	case m.state != health.Unhealthy:
		m.reason, m.err = m.whyDegraded(o), o.err
	case before == health.Unhealthy:
		m.reason, m.err = fmt.Sprintf("on its way back: %d of %d answers", m.main.successes, m.policy.Rise), nil
	}
}

// forgetRecoveries begins anew for the next illness. Caller holds Registry.mu.
func (m *monitor) forgetRecoveries() {
	m.recoveries, m.delays = 0, nil
	if m.retry != nil {
		m.retry.Stop()
		m.retry = nil
	}
}

// rescore computes the score. Caller holds Registry.mu.
func (m *monitor) rescore() {
	m.score = health.Score(m.facts)
	m.provider.showVitals()
	if m.score < health.DegradedBelow {
		m.good = 0
	} else {
		m.good++
	}
}

// settle moves between healthy and degraded: into the latter at once, out of it
// after some good answers. Caller holds Registry.mu.
func (m *monitor) settle() {
	if m.score < health.DegradedBelow {
		m.state = health.Degraded
	} else if m.state == health.Healthy || m.good >= m.policy.Rise {
		m.state = health.Healthy
	}
}

func (m *monitor) byScore() health.State {
	if m.score < health.DegradedBelow {
		return health.Degraded
	}
	return health.Healthy
}

// whyDegraded says what lowers the score of a provider that answers. Caller holds
// Registry.mu.
func (m *monitor) whyDegraded(o probeOutcome) string {
	if m.state == health.Healthy {
		return ""
	}
	var reasons []string
	if o.limps {
		reasons = append(reasons, o.text)
	}
	if e := m.policy.Expected; e > 0 && m.facts.Took > e {
		reasons = append(reasons, fmt.Sprintf("answered in %v, expected %v", m.facts.Took.Round(time.Millisecond), e))
	}
	for _, resource := range slices.Sorted(maps.Keys(m.usage)) {
		if share := m.usage[resource]; share > health.DegradedBelow {
			reasons = append(reasons, fmt.Sprintf("%.0f %% of %s in use", 100*share, oneline.Cut(resource, 64)))
		}
	}
	for _, c := range m.checks {
		if c.out {
			reasons = append(reasons, fmt.Sprintf("capability %q is out", c.capability))
		}
	}
	if len(reasons) == 0 {
		return fmt.Sprintf("%d of %d good answers", m.good, m.policy.Rise)
	}
	return strings.Join(reasons, ", ")
}

// follow publishes a change of the trend. Caller holds Registry.mu.
func (m *monitor) follow() {
	trend := health.Steady
	switch {
	case m.detector.AtRisk(m.policy.Timeout):
		trend = health.AtRisk
	case m.detector.Degrading():
		trend = health.Degrading
	}
	if trend == m.trend {
		return
	}
	m.provider.registry.bus.publish(m.provider.event(event.Event{Kind: event.Trend, From: m.trend.String(), To: trend.String()}))
	m.trend = trend
	m.provider.showVitals()
}

// observeCapability takes a result of the probe of a capability. Caller holds
// Registry.mu.
func (m *monitor) observeCapability(c *check, o probeOutcome) {
	if o.failed && m.provider.registry.prober.suspect(m, m.provider.registry.now(), o.late, c.known && !c.out) {
		return
	}
	first := !c.known
	c.known = true
	c.count(o.failed)
	out := c.out
	switch {
	case o.failed && (first || c.failures >= m.policy.Fall):
		out = true
	case !o.failed && (first || c.successes >= m.policy.Rise):
		out = false
	}
	if o.failed {
		c.text, c.err = o.text, o.err
	}
	if out == c.out {
		return
	}
	c.out = out
	change := event.Event{Kind: event.CapabilityBack, Reason: c.capability}
	m.facts.Out--
	if out {
		change = event.Event{Kind: event.CapabilityOut, Reason: c.capability + ": " + o.text, Err: o.err}
		m.facts.Out += 2
	}
	m.provider.service.outdate()
	m.provider.registry.bus.publish(m.provider.event(change))
	if !out {
		m.provider.registry.wakeWaiters()
	}
	if m.facts.Known {
		m.rescore()
		if m.state == health.Healthy || m.state == health.Degraded {
			if m.main == nil { // nothing else would bring it back
				m.state = m.byScore()
			} else {
				m.settle()
			}
			m.reason = m.whyDegraded(probeOutcome{})
		}
	}
}

// delay returns the time until the next probe, and what it is about.
func (m *monitor) delay(c *check) (base, delay time.Duration) {
	p := m.policy
	base = p.Interval
	switch {
	case m.state == health.Unknown, m.state == health.Starting, m.state == health.Unhealthy,
		c.failures > 0, c.out, m.trend != health.Steady:
		base = p.FastInterval
	case m.state == health.Healthy && c.idle:
		base = p.IdleInterval
	}
	if !c.phased && base >= p.Interval {
		// Those that began together must not stay together.
		c.phased = true
		return base, time.Duration(float64(base) * m.provider.registry.phase(m.provider.name()+"\x00"+c.capability))
	}
	return base, jitter(base)
}

// recoverLocked runs the recovery hook of an unhealthy provider, unless a dependency
// is the cause: then it looks again later. Caller holds Registry.mu.
func (p *provider) recoverLocked() {
	w := &p.wellness
	m := w.monitor
	if m == nil || m.policy.Recover == nil || w.recovering || p.hasLeft() || m.recoveries >= m.policy.RecoverLimit ||
		w.shown != health.Unhealthy {
		return
	}
	if len(p.because()) > 0 {
		m.recoverAgain(m.policy.FastInterval)
		return
	}
	m.recoveries++
	w.recovering = p.registry.tasks.Start(fmt.Sprintf("recovery of provider %q", p.name()), m.recover)
}

func (m *monitor) recoverAgain(delay time.Duration) {
	p := m.provider
	if m.retry != nil {
		m.retry.Stop()
	}
	m.retry = p.registry.schedule.After(delay, func() {
		p.registry.mu.Lock()
		defer p.registry.mu.Unlock()
		p.recoverLocked()
	})
}

func (m *monitor) recover() {
	err := error(&PanicError{}) // what remains when the hook exits its goroutine
	text := err.Error()
	ctx, cancel := context.WithTimeout(m.life, m.policy.RecoverTimeout)
	defer func() {
		cancel()
		m.recovered(err, text)
	}()
	err = fault.Run(func() error { return m.policy.Recover(ctx) })
	text = oneline.Cut(fault.Text(err), 300) // a user's method
}

func (m *monitor) recovered(err error, text string) {
	p := m.provider
	p.registry.mu.Lock()
	defer p.registry.mu.Unlock()
	p.wellness.recovering = false
	if m.stale() {
		p.recoverLocked() // under the present policy
		return
	}
	if err == nil {
		p.registry.bus.publish(p.event(event.Event{Kind: event.Recovered}))
		if m.main != nil {
			p.registry.prober.add(m.main, true)
		}
		return
	}
	if m.recoveries >= m.policy.RecoverLimit {
		text += fmt.Sprintf(" (the last of %d tries)", m.policy.RecoverLimit)
	}
	p.registry.bus.publish(p.event(event.Event{Kind: event.RecoveryFailed, Reason: text, Err: err}))
	if m.recoveries >= m.policy.RecoverLimit {
		return
	}
	if m.delays == nil {
		m.delays = backoff.NewExponentialBackOff(backoff.WithInitialInterval(firstRecovery),
			backoff.WithMultiplier(2), backoff.WithMaxInterval(lastRecovery), backoff.WithMaxElapsedTime(0))
	}
	m.recoverAgain(m.delays.NextBackOff())
}

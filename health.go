package registry

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/capreg/registry/event"
	"github.com/capreg/registry/health"
	"github.com/capreg/registry/internal/fault"
	"github.com/capreg/registry/internal/oneline"
	"github.com/capreg/registry/internal/ring"
)

const (
	defaultProbeInterval = 30 * time.Second
	defaultProbeTimeout  = 5 * time.Second
	defaultFall          = 3
	defaultRise          = 2
	defaultRecoverLimit  = 5
	defaultRecoverTime   = 30 * time.Second
	shortestInterval     = time.Millisecond
	longestInterval      = longestRetryDelay

	historyLength = 32 // transitions that are remembered, for each provider

	// The wait before a recovery that did not help is tried again.
	firstRecovery = time.Second
	lastRecovery  = time.Minute
)

// wellness is the health of a provider. Registry.mu guards all of it.
type wellness struct {
	said     error // what the program says; nil: nothing bad
	saidText string
	shown    health.State // what gate and events say
	since    time.Time
	reason   string
	history  *ring.Ring[health.Transition] // nil before the first transition
	monitor  *monitor                      // nil: nothing to probe and nothing to recover

	running    map[string]*check // by capability; of the present policy or an older one
	recovering bool              // a recovery hook runs
}

// watch makes the provider's health follow the policy; state is what is known so
// far. Caller holds Registry.mu; the result ends what watched before.
func (p *provider) watch(policy health.Policy, state health.State) (end func()) {
	before := p.wellness.monitor
	p.wellness.monitor = newMonitor(p, policy, before, state)
	if m := p.wellness.monitor; m != nil {
		for _, c := range m.checks {
			p.registry.prober.add(c, true)
		}
	}
	if before == nil {
		return func() {}
	}
	before.stop()
	return func() { before.end(errPolicyChanged) }
}

var errPolicyChanged = errors.New("registry: health policy changed")

// unwatch ends the watch over a provider that has left.
func (p *provider) unwatch() {
	p.registry.mu.Lock()
	m := p.wellness.monitor
	if m != nil {
		m.stop()
	}
	// Nothing keeps what probes refer to.
	p.wellness.monitor, p.policy = nil, health.Policy{Groups: p.policy.Groups}
	p.registry.mu.Unlock()
	if m != nil {
		m.end(fmt.Errorf("registry: provider %q: %w", p.name(), ErrClosed))
	}
}

// stateLocked returns what is to be shown: what the program says comes before
// what the probes say. Caller holds Registry.mu.
func (p *provider) stateLocked() (state health.State, reason string, cause error) {
	w := &p.wellness
	switch {
	case p.hasLeft():
		return health.Draining, "", nil
	case w.said != nil:
		return health.Unhealthy, w.saidText, w.said
	case w.monitor == nil:
		return health.Healthy, "", nil
	}
	return w.monitor.state, w.monitor.reason, w.monitor.err
}

// showHealth makes gate, history and events follow the state. Caller holds
// Registry.mu.
func (p *provider) showHealth() {
	p.showVitals()
	w := &p.wellness
	state, why, cause := p.stateLocked()
	if because := p.because(); len(because) > 0 && state != health.Healthy {
		why = strings.TrimPrefix(why+"; because "+strings.Join(because, ", "), "; ")
	}
	from := w.shown
	same := from == state
	if same && (state != health.Unhealthy || w.reason == why) {
		return
	}
	w.reason = why
	kind := map[health.State]event.Kind{
		health.Healthy: event.Healthy, health.Degraded: event.Degraded, health.Unhealthy: event.Unhealthy, health.Starting: event.Starting,
	}[state]
	change := &event.Event{Kind: kind, Reason: why, Err: cause, From: from.String(), To: state.String()}
	if same {
		if w.said == nil {
			return // only another failure of the same illness
		}
	} else {
		w.shown, w.since = state, time.Now()
		if w.history == nil {
			w.history = ring.New[health.Transition](historyLength)
		}
		w.history.Push(health.Transition{Time: w.since, From: from, To: state, Reason: why, Score: p.scoreLocked()})
	}
	var set gate
	switch state {
	case health.Unhealthy:
		set = gateUnhealthy
	case health.Unknown, health.Starting:
		set = gateUnproven
	case health.Healthy, health.Degraded, health.Draining:
	}
	if m := w.monitor; m != nil && from == health.Unhealthy {
		m.forgetRecoveries()
	}
	p.shiftLocked((gateUnhealthy|gateUnproven)&^set, set, change)
	if from == health.Unknown {
		p.registry.wakeWaiters() // whoever waits for a first result has it
	}
	if state == health.Unhealthy && !same {
		p.recoverLocked()
	}
}

func (p *provider) scoreLocked() float64 {
	switch m := p.wellness.monitor; {
	case p.wellness.said != nil:
		return 0
	case m != nil:
		return m.score
	}
	return 1
}

func (p *provider) trendLocked() health.Trend {
	if m := p.wellness.monitor; m != nil {
		return m.trend
	}
	return health.Steady
}

// because returns the providers that this one needs and that are the reason as
// far as anybody knows: those at the root, or the capability that nobody has.
// Caller holds Registry.mu.
func (p *provider) because() []string {
	var names []string
	seen := map[*provider]bool{p: true}
	var visit func(*provider) bool // whether others are the reason
	visit = func(of *provider) (others bool) {
		for _, capability := range of.definition.Requires {
			members := p.registry.byCapability[capability]
			if len(members) == 0 {
				names, others = append(names, fmt.Sprintf("nobody provides %q", capability)), true
				continue
			}
			well := func(member *provider) bool { return member.wellLocked() && member.outage([]string{capability}) == nil }
			if slices.ContainsFunc(slices.Collect(maps.Keys(members)), well) {
				continue
			}
			for member := range members {
				others = others || member != p
				if seen[member] {
					continue
				}
				seen[member] = true
				if !visit(member) {
					names = append(names, member.name())
				}
			}
		}
		return others
	}
	visit(p)
	slices.Sort(names)
	return slices.Compact(names)
}

func (p *provider) wellLocked() bool {
	state, _, _ := p.stateLocked()
	return state == health.Healthy || state == health.Degraded
}

// health returns what is known. Caller holds Registry.mu.
func (p *provider) healthLocked() health.Status {
	w := &p.wellness
	state, why, cause := p.stateLocked()
	s := health.Status{
		State: state, Since: w.since, Reason: why, Err: cause, Score: p.scoreLocked(), Groups: slices.Clone(p.policy.Groups),
	}
	if state != health.Healthy && state != health.Draining {
		s.Because = p.because()
	}
	m := w.monitor
	if m == nil {
		return s
	}
	s.Trend, s.Usage = m.trend, maps.Clone(m.usage)
	s.Suspected, s.CheckedAt, s.Took = m.suspected, m.checkedAt, m.facts.Took
	s.Probed = len(m.checks) > 0
	if m.main != nil {
		s.Failures = m.main.failures
	}
	for _, c := range m.checks {
		if c.stuck && (s.StuckSince.IsZero() || c.beganAt.Before(s.StuckSince)) {
			s.StuckSince = c.beganAt
		}
		if c.timer != nil && (s.NextCheck.IsZero() || c.dueAt.Before(s.NextCheck)) {
			s.NextCheck = c.dueAt
		}
		if c.out {
			if s.Out == nil {
				s.Out = make(map[string]string)
			}
			s.Out[c.capability] = c.text
		}
	}
	return s
}

// MarkUnhealthy takes the provider out of every pick until [Registration.MarkHealthy],
// for the given reason, whatever its probes say. Health is a signal of its own:
// the breaker and its counts stay as they are, and calls in flight go on. Marking
// again replaces the reason; nil stands for one that is not given.
func (r *Registration) MarkUnhealthy(reason error) error {
	if reason == nil {
		reason = errors.New("no reason given")
	}
	return r.say(reason)
}

// MarkHealthy takes back what [Registration.MarkUnhealthy] said, and counts as
// the successes that an unhealthy provider needs; probes that fail afterwards
// count from the beginning. Its breaker stays as it is: good health closes no
// breaker, as it says nothing of the calls.
func (r *Registration) MarkHealthy() error { return r.say(nil) }

func (r *Registration) say(illness error) error {
	text := oneline.Cut(fault.Text(illness), 300) // a user's method: outside the lock
	r.provider.registry.mu.Lock()
	defer r.provider.registry.mu.Unlock()
	p := r.acting()
	if err := r.presentLocked(); err != nil {
		return err
	}
	p.wellness.said, p.wellness.saidText = illness, text
	if m := p.wellness.monitor; m != nil && illness == nil && m.state != health.Degraded {
		m.believe()
	}
	p.showHealth()
	return nil
}

// Health returns what is known of the provider's health. It probes nothing and
// changes nothing.
func (r *Registration) Health() health.Status {
	r.provider.registry.mu.Lock()
	defer r.provider.registry.mu.Unlock()
	return r.acting().healthLocked()
}

// HealthHistory returns the last transitions of the provider's health, oldest
// first, at most 32.
func (r *Registration) HealthHistory() []health.Transition {
	r.provider.registry.mu.Lock()
	defer r.provider.registry.mu.Unlock()
	history := r.acting().wellness.history
	if history == nil {
		return nil
	}
	return history.Values()
}

// SetHealth changes the health policy and returns the previous one, with its
// defaults. The provider stays as it is until the new policy's first result,
// which comes at once; a probe in progress is told to end and its result dropped.
func (r *Registration) SetHealth(policy health.Policy) (previous health.Policy, err error) {
	if policy, err = withProbeDefaults(policy, r.provider.definition.Capabilities); err != nil {
		return health.Policy{}, err
	}
	var end func()
	err = r.change("health", func(p *provider) (from, to any, err error) {
		previous = p.policy
		p.policy = policy
		state := health.Healthy
		if m := p.wellness.monitor; m != nil {
			state = m.state
		}
		end = p.watch(policy, state)
		p.showHealth()
		p.recoverLocked()
		return settings(previous), settings(policy), nil
	})
	if end != nil {
		end()
	}
	return previous, err
}

// CheckHealth probes the provider now, whenever its next probe would have been
// due, and returns what is known afterwards. It waits for a probe in progress
// rather than begin another, and not for one that is stuck. When ctx ends first
// the error is the context's; a provider that has left is [ErrNotRegistered].
func (r *Registration) CheckHealth(ctx context.Context) (health.Status, error) {
	if ctx == nil {
		return health.Status{}, invalid("ctx", verbatim("nil"), "a context")
	}
	for {
		r.provider.registry.mu.Lock()
		p := r.acting()
		err := r.presentLocked()
		m := p.wellness.monitor
		var results []<-chan struct{}
		if err == nil {
			results = p.checkNow()
		}
		p.registry.mu.Unlock()
		if err == nil {
			err = awaitAll(ctx, results)
		}
		p.registry.mu.Lock()
		same := p.wellness.monitor == m
		p.registry.mu.Unlock()
		if err != nil || same { // else the policy was changed, or the provider has left
			return r.Health(), err
		}
	}
}

// CheckHealth probes every provider now, and returns [Registry.Health] of what is
// known afterwards. The probes count for [Options.ProbeConcurrency] as all do.
func (r *Registry) CheckHealth(ctx context.Context) (health.Overall, error) {
	if ctx == nil {
		return health.Overall{}, invalid("ctx", verbatim("nil"), "a context")
	}
	r.mu.Lock()
	var results []<-chan struct{}
	for _, p := range r.listingLocked() {
		results = append(results, p.checkNow()...)
	}
	r.mu.Unlock()
	err := awaitAll(ctx, results)
	return r.Health(), err
}

// checkNow makes all probes of the provider due, and returns channels that are
// closed when they have results. Caller holds Registry.mu.
func (p *provider) checkNow() (results []<-chan struct{}) {
	if p.wellness.monitor == nil {
		return nil
	}
	for _, c := range p.wellness.monitor.checks {
		if c.stuck {
			continue
		}
		results = append(results, c.answered())
		p.registry.prober.add(c, true)
	}
	return results
}

func awaitAll(ctx context.Context, results []<-chan struct{}) error {
	for _, result := range results {
		select {
		case <-result:
		case <-ctx.Done():
			return fault.Join("registry: health check: ", fault.OfContext(ctx))
		}
	}
	return nil
}

// outage returns why a capability that the provider declares does not work; nil
// when it does. Caller holds Registry.mu.
func (p *provider) outage(capabilities []string) *unwanted {
	m := p.wellness.monitor
	if m == nil || m.facts.Out == 0 {
		return nil
	}
	for _, c := range m.checks {
		if c.out && slices.Contains(capabilities, c.capability) {
			return &unwanted{
				code: codeCapabilityOut, what: fmt.Sprintf("capability %q is %v: %s", oneline.Cut(c.capability, 64), ErrUnhealthy, c.text),
				errs: append([]error{ErrUnhealthy}, fault.List(c.err)...),
			}
		}
	}
	return nil
}

// awaitHealth waits until a provider of the slot can be entered, or none of those
// it sees has its first probe still to come: at most as long as their probes may
// take, within ctx. It reports whether somebody can be entered.
func (s *queryPlan) awaitHealth(ctx context.Context, steady bool) bool {
	var over <-chan time.Time
	for {
		again, longest, found := s.unproven(steady)
		if found || again == nil {
			return found
		}
		if over == nil {
			timer := time.NewTimer(longest)
			defer timer.Stop()
			over = timer.C
		}
		select {
		case <-again:
		case <-over:
			return false
		case <-ctx.Done():
			return false
		}
	}
}

// unproven reports whether somebody can be entered. If not, and a first probe is
// still to come, it returns a channel that is closed when that may have changed,
// and how long it can take.
func (s *queryPlan) unproven(steady bool) (again <-chan struct{}, longest time.Duration, found bool) {
	plan := s.current()
	if !plan.hopeful() {
		return nil, 0, false // without the lock, which every refused call would take
	}
	r := s.service.registry
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, p := range plan.candidates {
		now := p.gateNow()
		if now == 0 || !steady && now&gateBlocked == 0 {
			return nil, 0, true
		}
		if m := p.wellness.monitor; now&gateBlocked == gateUnproven && m != nil && m.state == health.Unknown {
			longest = max(longest, m.policy.Timeout+stuckGrace)
		}
	}
	if longest == 0 {
		return nil, 0, false
	}
	return r.changedLocked(), longest, false
}

// hopeful reports whether a candidate can be entered, or was never probed.
func (p *plan) hopeful() bool {
	for _, candidate := range p.candidates {
		if now := candidate.gateNow(); now&gateBlocked == 0 || now&gateUnproven != 0 {
			return true
		}
	}
	return false
}

// watchFirst begins the watch over a provider that has joined. Caller holds
// Registry.mu.
func (p *provider) watchFirst() {
	p.watch(p.policy, health.Unknown)
	if m := p.wellness.monitor; m != nil && m.state == health.Unknown {
		p.wellness.shown = health.Unknown
		p.shiftLocked(0, gateUnproven, nil)
	}
}

// watchMade begins the probes of an instance that a factory has made, and that
// can be asked how it is. That it was made stands for the first success.
func (p *provider) watchMade() {
	p.registry.mu.Lock()
	defer p.registry.mu.Unlock()
	made, m := p.instance.Load(), p.wellness.monitor
	if p.policy.Off || p.policy.Probe != nil || made == nil || made.checker == nil || p.hasLeft() {
		return
	}
	if m == nil {
		p.watch(p.policy, health.Healthy)
		return
	}
	if m.main == nil {
		m.main = &check{monitor: m, probe: made.checker.CheckHealth}
		m.checks = append(m.checks, m.main)
		p.registry.prober.add(m.main, true)
	}
}

// unproven says why no probe of the provider has succeeded yet, and when the next
// one is due. Caller holds Registry.mu.
func (p *provider) whyUnproven() (text string, next time.Duration, cause error) {
	m := p.wellness.monitor
	if m == nil || m.state == health.Unknown {
		return "its first probe has no result yet", 0, nil
	}
	if m.main != nil && m.main.timer != nil {
		next = max(time.Until(m.main.dueAt), 0)
	}
	return "starting: " + m.reason, next, m.err
}

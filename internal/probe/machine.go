package probe

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/capreg/registry/event"
	"github.com/capreg/registry/health"
	"github.com/capreg/registry/internal/drift"
	"github.com/capreg/registry/internal/oneline"
)

// The states of a provider, by the results of its own probe:
//
//	state      answer          failure         Fall failures in a row
//	---------  --------------  --------------  ----------------------
//	Unknown    by score        Starting        Unhealthy (1)
//	Starting   by score        Starting        Unhealthy (1)
//	Healthy    by score        by score        Unhealthy
//	Degraded   by score (2)    by score (2)    Unhealthy
//	Unhealthy  by score (3)    Unhealthy       Unhealthy
//
// By score: Degraded below health.DegradedBelow, else Healthy.
//
//	(1) once StartTime is over, or by a failure made with health.Out; Starting until then
//	(2) Healthy after Rise results in a row with a good score; Degraded until then
//	(3) after Rise answers in a row; Unhealthy until then, and longer where it fell soon after it had come back (damper)
//
// A failure made with health.Out stands for Fall failures. A suspected failure changes no state. Results of capabilities move the state between Healthy and Degraded only.
// MarkHealthy leads from every state but Degraded to Healthy. The state Draining belongs to the registry.

// Machine is the health of one provider: its state, and all that the state depends on. It is a value without lock
// and timers. Use [NewMachine] to create one; the policy has its defaults filled in.
type Machine struct {
	policy *health.Policy // never written to
	own    bool           // the provider itself is probed, not only capabilities
	began  time.Duration  // when the policy began

	state        health.State
	reason       string
	err          error
	facts        health.Facts
	score        float64
	streak       streak // of the provider's own probe
	damper       damper // of the provider's own probe
	goodScores   int    // results in a row with a score that is not degraded
	trend        health.Trend
	detector     drift.Detector
	usage        map[string]float64 // replaced by each result, never written to
	checkedAt    time.Time
	suspected    bool
	capabilities []capability // those with a probe, by name
}

// streak counts equal results in a row.
type streak struct{ failures, successes int }

func (s *streak) count(failed bool) {
	if failed {
		s.failures, s.successes = s.failures+1, 0
	} else {
		s.failures, s.successes = 0, s.successes+1
	}
}

// NewMachine returns the health of a provider that begins in the given state. own says whether the provider itself
// is probed; without that it is healthy from the beginning.
func NewMachine(policy health.Policy, own bool, state health.State, now time.Duration) Machine {
	m := Machine{policy: &policy, own: own, began: now, state: state, score: 1, capabilities: capabilitiesOf(policy)}
	m.facts.Known = state != health.Unknown
	m.applyPolicy()
	return m
}

// Under returns the machine under another policy. What is known of the same probes stays until the first results of
// the new policy.
func (m *Machine) Under(policy health.Policy, own bool, now time.Duration) Machine {
	next := *m
	next.policy, next.own, next.began = &policy, own, now
	next.streak.successes = 0
	next.capabilities = capabilitiesOf(policy)
	for i := range next.capabilities {
		next.capabilities[i].inherit(m.capabilities)
	}
	next.facts.Out = next.countOut()
	switch {
	case !own: // what the provider's own probe has found ends with it
		next.streak, next.usage = streak{}, nil
		next.facts = health.Facts{Known: next.facts.Known, Out: next.facts.Out}
	case next.state == health.Unhealthy:
		next.streak.failures, next.facts.Failures = policy.Fall, policy.Fall
	}
	next.applyPolicy()
	return next
}

func (m *Machine) applyPolicy() {
	m.facts.Fall, m.facts.Expected, m.facts.Checked = m.policy.Fall, m.policy.Expected, len(m.capabilities)
	if !m.own { // no result of the provider itself would bring it back
		m.facts.Known = true
		m.score = health.Score(m.facts)
		m.state = m.byScore()
		m.reason, m.err = m.whyDegraded(Result{}), nil
	}
	if !m.facts.Known {
		m.score = 0
	}
}

// addOwnProbe makes the machine expect results of the provider itself, too.
func (m *Machine) addOwnProbe() { m.own = true }

// MarkHealthy makes the provider healthy whatever its probes have said: failures count from the beginning. A degraded
// provider stays degraded, as it answers already.
func (m *Machine) MarkHealthy() {
	if m.state == health.Degraded {
		return
	}
	m.state, m.reason, m.err = health.Healthy, "", nil
	m.streak.failures = 0
	m.damper = damper{}
	m.facts.Known, m.facts.Failures, m.facts.Limps = true, 0, false
	m.score = health.Score(m.facts)
}

// Observe takes a result of the provider's own probe, at the given time. It returns a change of the trend to
// publish, or nil.
func (m *Machine) Observe(now time.Duration, r Result) (change *event.Event) {
	failed := r.Outcome.failed()
	m.checkedAt = r.At
	m.facts.Known, m.facts.Took, m.facts.Limps = true, r.Took, r.Outcome == Degraded
	m.usage, m.facts.Usage = r.Usage, 0
	for _, share := range r.Usage {
		m.facts.Usage = max(m.facts.Usage, share)
	}
	m.detector.Observe(r.Took, failed)
	m.suspected = r.Outcome == Suspected
	if m.suspected {
		m.reason, m.err = "not counted, as many unrelated probes are late: "+r.Text, r.Err
		return nil
	}
	m.streak.count(failed)
	if r.Out {
		m.streak.failures = max(m.streak.failures, m.policy.Fall)
	}
	m.facts.Failures = m.streak.failures
	m.rescore()
	before := m.state
	m.state = m.next(now, failed, r.Out)
	m.noteFlap(before, now)
	m.reason, m.err = m.explain(r)
	return m.updateTrend()
}

// noteFlap lets the damper follow a change of state.
func (m *Machine) noteFlap(before health.State, now time.Duration) {
	switch isOut := m.state == health.Unhealthy; {
	case isOut == (before == health.Unhealthy):
	case isOut:
		m.damper.fall(now, m.policy.Interval)
	default:
		m.damper.comeBack(now)
	}
}

// next returns the state after a result that counts.
func (m *Machine) next(now time.Duration, failed, out bool) health.State {
	fallen := m.streak.failures >= m.policy.Fall
	switch m.state {
	case health.Unknown, health.Starting:
		switch {
		case !failed:
			return m.byScore()
		case fallen && (out || now-m.began >= m.policy.StartTime):
			return health.Unhealthy
		}
		return health.Starting
	case health.Healthy, health.Degraded:
		if fallen {
			return health.Unhealthy
		}
		return m.byScoreInARow()
	case health.Unhealthy:
		if !failed && m.damper.lets(now, m.policy.Interval, m.streak.successes, m.policy.Rise) {
			return m.byScore()
		}
	case health.Draining:
	}
	return m.state
}

func (m *Machine) byScore() health.State {
	if m.score < health.DegradedBelow {
		return health.Degraded
	}
	return health.Healthy
}

// byScoreInARow is byScore for a provider that is healthy or degraded: it leaves the latter after Rise good scores.
func (m *Machine) byScoreInARow() health.State {
	if m.state == health.Degraded && m.goodScores < m.policy.Rise {
		return health.Degraded
	}
	return m.byScore()
}

func (m *Machine) rescore() {
	m.score = health.Score(m.facts)
	if m.score < health.DegradedBelow {
		m.goodScores = 0
	} else {
		m.goodScores++
	}
}

// explain returns why the provider is in its state, after the given result.
func (m *Machine) explain(r Result) (reason string, err error) {
	failures, fall := m.streak.failures, m.policy.Fall
	switch {
	case r.Outcome.failed() && failures < fall:
		return fmt.Sprintf("%s (%d of %d failures)", r.Text, failures, fall), r.Err
	case r.Outcome.failed():
		return r.Text, r.Err
	case m.state == health.Unhealthy:
		return fmt.Sprintf("on its way back: %d of %d answers", m.streak.successes, m.damper.proof(m.policy.Rise)), nil
	}
	return m.whyDegraded(r), r.Err
}

// whyDegraded returns what lowers the score of a provider that answers.
func (m *Machine) whyDegraded(r Result) string {
	if m.state == health.Healthy {
		return ""
	}
	var reasons []string
	if r.Outcome == Degraded {
		reasons = append(reasons, r.Text)
	}
	if e := m.policy.Expected; e > 0 && m.facts.Took > e {
		reasons = append(reasons, fmt.Sprintf("answered in %v, expected %v", m.facts.Took.Round(time.Millisecond), e))
	}
	for _, resource := range slices.Sorted(maps.Keys(m.usage)) {
		if share := m.usage[resource]; share > health.DegradedBelow {
			reasons = append(reasons, fmt.Sprintf("%.0f %% of %s in use", 100*share, oneline.Cut(resource, 64)))
		}
	}
	for _, c := range m.capabilities {
		if c.state == capabilityOut {
			reasons = append(reasons, fmt.Sprintf("capability %q is out", oneline.Cut(c.name, 64)))
		}
	}
	if len(reasons) == 0 {
		return fmt.Sprintf("%d of %d good answers", m.goodScores, m.policy.Rise)
	}
	return strings.Join(oneline.First(reasons, mostReasons, "and "), ", ")
}

// updateTrend follows the detector, and returns the change to publish, or nil.
func (m *Machine) updateTrend() *event.Event {
	before := m.trend
	switch {
	case m.detector.AtRisk(m.policy.Timeout):
		m.trend = health.AtRisk
	case m.detector.Degrading():
		m.trend = health.Degrading
	default:
		m.trend = health.Steady
	}
	if m.trend == before {
		return nil
	}
	return &event.Event{Kind: event.Trend, From: before.String(), To: m.trend.String()}
}

// State returns the state of the provider, the reason for it, and the error that is the cause.
func (m *Machine) State() (state health.State, reason string, cause error) {
	return m.state, m.reason, m.err
}

// Score returns the score of the provider.
func (m *Machine) Score() float64 { return m.score }

// Trend returns the trend of the provider.
func (m *Machine) Trend() health.Trend { return m.trend }

// Interval returns the time from one probe to the next: of the given capability, or of the provider itself. idle says
// that there was no call since the last result.
func (m *Machine) Interval(capability string, idle bool) time.Duration {
	failing := m.streak.failures > 0
	if c := m.capability(capability); c != nil {
		failing = c.streak.failures > 0 || c.state == capabilityOut
	}
	switch m.state {
	case health.Unknown, health.Starting, health.Unhealthy:
		return m.policy.FastInterval
	case health.Healthy, health.Degraded, health.Draining:
	}
	switch {
	case failing, m.trend != health.Steady:
		return m.policy.FastInterval
	case m.state == health.Healthy && idle:
		return m.policy.IdleInterval
	}
	return m.policy.Interval
}

// answersAgain reports whether the last probe of the provider itself was answered.
func (m *Machine) answersAgain() bool { return m.own && m.streak.successes > 0 }

// TrustsCalls reports whether successful calls may take the place of the provider's own probe.
func (m *Machine) TrustsCalls() bool {
	return m.policy.TrustCalls && m.state == health.Healthy && m.streak.failures == 0
}

// Answering reports whether the last results of the capability, or of the provider itself, were answers. Only then
// can a late one be the fault of this machine.
func (m *Machine) Answering(capability string) bool {
	if c := m.capability(capability); c != nil {
		return c.state == capabilityWorks
	}
	return m.state == health.Healthy || m.state == health.Degraded
}

// Status returns what the machine knows of the provider's health. It shares nothing with the machine.
func (m *Machine) Status() health.Status {
	s := health.Status{
		State: m.state, Reason: m.reason, Err: m.err, Score: m.score, Trend: m.trend,
		Probed: m.own || len(m.capabilities) > 0, CheckedAt: m.checkedAt, Took: m.facts.Took, Failures: m.streak.failures,
		Suspected: m.suspected, Usage: maps.Clone(m.usage),
	}
	for _, c := range m.capabilities {
		if c.state == capabilityOut {
			if s.Out == nil {
				s.Out = make(map[string]string)
			}
			s.Out[c.name] = c.reason
		}
	}
	return s
}

package probe_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry/event"
	"github.com/capreg/registry/health"
	"github.com/capreg/registry/internal/probe"
)

const (
	unknown   = health.Unknown
	starting  = health.Starting
	healthy   = health.Healthy
	degraded  = health.Degraded
	unhealthy = health.Unhealthy
)

// The results of the tables: an answer, one that is not good, a failure, and one that is suspected.
func answer() probe.Result { return probe.Result{Outcome: probe.Answered, Took: time.Millisecond} }

func weak() probe.Result {
	return probe.Result{Outcome: probe.Degraded, Took: time.Millisecond, Err: errDown, Text: "down"}
}

func failure() probe.Result {
	return probe.Result{Outcome: probe.Failed, Took: time.Millisecond, Err: errDown, Text: "down"}
}

func suspected() probe.Result {
	r := failure()
	r.Outcome, r.Late = probe.Suspected, true
	return r
}

// resultsOf reads a script: a answer, w weak answer, f failure, s suspected failure.
func resultsOf(script string) (results []probe.Result) {
	for _, letter := range script {
		results = append(results, map[rune]func() probe.Result{'a': answer, 'w': weak, 'f': failure, 's': suspected}[letter]())
	}
	return results
}

func observe(m *probe.Machine, script string) (states []health.State) {
	for _, r := range resultsOf(script) {
		m.Observe(0, r)
		state, _, _ := m.State()
		states = append(states, state)
	}
	return states
}

func TestMachine_FollowsTheTableOfStates(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		from   health.State
		script string
		want   []health.State
	}{
		{unknown, "a", []health.State{healthy}},
		{unknown, "w", []health.State{degraded}},
		{unknown, "fff", []health.State{starting, starting, unhealthy}},
		{unknown, "s", []health.State{unknown}},
		{starting, "a", []health.State{healthy}},
		{starting, "w", []health.State{degraded}},
		{starting, "ffa", []health.State{starting, starting, healthy}},
		{starting, "fsff", []health.State{starting, starting, starting, unhealthy}},
		{healthy, "a", []health.State{healthy}},
		{healthy, "waa", []health.State{degraded, degraded, healthy}},
		{healthy, "fff", []health.State{degraded, degraded, unhealthy}},
		{healthy, "ffaa", []health.State{degraded, degraded, degraded, healthy}},
		{healthy, "ssss", []health.State{healthy, healthy, healthy, healthy}},
		{degraded, "aa", []health.State{degraded, healthy}},
		{degraded, "awaa", []health.State{degraded, degraded, degraded, healthy}},
		{degraded, "fff", []health.State{degraded, degraded, unhealthy}},
		{unhealthy, "f", []health.State{unhealthy}},
		{unhealthy, "aa", []health.State{unhealthy, healthy}},
		{unhealthy, "aw", []health.State{unhealthy, degraded}},
		{unhealthy, "afaa", []health.State{unhealthy, unhealthy, unhealthy, healthy}},
		{health.Draining, "aaffff", []health.State{
			health.Draining, health.Draining, health.Draining, health.Draining, health.Draining, health.Draining,
		}},
	} {
		m := probe.NewMachine(policy(), true, row.from, 0)
		require.Equal(t, row.want, observe(&m, row.script), "%v: %s", row.from, row.script)
	}
}

func TestMachine_FailsWithinStartTimeWithoutBeingUnhealthy(t *testing.T) {
	t.Parallel()
	p := policy()
	p.Fall, p.StartTime = 1, time.Minute
	m := probe.NewMachine(p, true, unknown, time.Hour)
	for _, row := range []struct {
		at   time.Duration
		want health.State
	}{{0, starting}, {59 * time.Second, starting}, {time.Minute, unhealthy}} {
		m.Observe(time.Hour+row.at, failure())
		state, _, _ := m.State()
		require.Equal(t, row.want, state, "%v", row.at)
	}
}

func TestMachine_ExplainsItsState(t *testing.T) {
	t.Parallel()
	late := answer()
	late.Took = 160 * time.Millisecond
	loaded := answer()
	loaded.Took = 100 * time.Millisecond // just in time
	loaded.Usage = map[string]float64{"gpu memory": 0.95, "cpu": 0.9, "disk": 0.1}
	crowded := answer()
	crowded.Usage = map[string]float64{strings.Repeat("x", 100): 1, "cpu": health.DegradedBelow}
	for name, row := range map[string]struct {
		from    health.State
		results []probe.Result
		want    string
		cause   error
	}{
		"healthy":       {healthy, resultsOf("a"), "", nil},
		"some failures": {healthy, resultsOf("ff"), "down (2 of 3 failures)", errDown},
		"all failures":  {healthy, resultsOf("ffff"), "down", errDown},
		"starting":      {unknown, resultsOf("f"), "down (1 of 3 failures)", errDown},
		"recovering":    {unhealthy, resultsOf("a"), "on its way back: 1 of 2 answers", nil},
		"degraded":      {healthy, resultsOf("w"), "down", errDown},
		"good scores":   {degraded, resultsOf("a"), "1 of 2 good answers", nil},
		"suspected":     {healthy, resultsOf("s"), "not counted, as many unrelated probes are late: down", errDown},
		"slow":          {healthy, []probe.Result{late}, "answered in 160ms, expected 100ms", nil},
		"much in use":   {healthy, []probe.Result{crowded}, "100 % of " + strings.Repeat("x", 64) + "… in use", nil},
		"loaded":        {healthy, []probe.Result{loaded}, "90 % of cpu in use, 95 % of gpu memory in use", nil},
	} {
		p := policy()
		p.Expected = 100 * time.Millisecond
		m := probe.NewMachine(p, true, row.from, 0)
		for _, r := range row.results {
			m.Observe(0, r)
		}
		_, reason, cause := m.State()
		require.Equal(t, row.want, reason, name)
		require.Equal(t, row.cause, cause, name)
	}
}

func TestMachine_FailureThatIsOutStandsForAllOfThem(t *testing.T) {
	t.Parallel()
	out := failure()
	out.Out = true
	for _, from := range []health.State{unknown, starting, healthy, degraded} {
		p := policy()
		p.StartTime = time.Hour
		p.Capabilities = map[string]health.Probe{"vision": nil}
		m := probe.NewMachine(p, true, from, 0)
		require.Nil(t, m.ObserveCapability(0, "vision", answer()))
		m.Observe(0, out)
		require.Equal(t, unhealthy, m.Status().State, "%v, and it starts for an hour", from)
		require.Equal(t, 3, m.Status().Failures)
		require.Equal(t, event.CapabilityOut, m.ObserveCapability(0, "vision", out).Kind)
	}
	m := probe.NewMachine(policy(), true, unhealthy, 0)
	observe(&m, "ffff")
	m.Observe(0, out)
	require.Equal(t, 5, m.Status().Failures, "more are more")
}

func TestMachine_ScoreIsZeroUntilTheFirstResult(t *testing.T) {
	t.Parallel()
	known := probe.NewMachine(policy(), true, healthy, 0)
	require.InDelta(t, 1, known.Score(), 0)
	m := probe.NewMachine(policy(), true, unknown, 0)
	require.Zero(t, m.Score())
	m.Observe(0, answer())
	require.InDelta(t, 1, m.Score(), 0)
	m.Observe(0, failure())
	require.InDelta(t, 2.0/3, m.Score(), 1e-9)
}

func TestMachine_MarkHealthy(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		from health.State
		want health.State
	}{{unknown, healthy}, {starting, healthy}, {healthy, healthy}, {degraded, degraded}, {unhealthy, healthy}} {
		m := probe.NewMachine(policy(), true, row.from, 0)
		m.MarkHealthy()
		state, _, _ := m.State()
		require.Equal(t, row.want, state, "%v", row.from)
	}
	m := probe.NewMachine(policy(), true, healthy, 0)
	observe(&m, "fff")
	m.MarkHealthy()
	require.Equal(t, health.Status{State: healthy, Score: 1, Trend: health.AtRisk, Probed: true, Took: time.Millisecond}, m.Status())
	require.Equal(t, []health.State{degraded, degraded, unhealthy}, observe(&m, "fff"), "failures count from the beginning")
}

func TestMachine_UnderAnotherPolicyKeepsWhatIsKnown(t *testing.T) {
	t.Parallel()
	other := policy()
	other.Fall = 5
	m := probe.NewMachine(policy(), true, unknown, 0)
	observe(&m, "afff")
	next := m.Under(other, true, 0)
	status := next.Status()
	require.Equal(t, unhealthy, status.State)
	require.Equal(t, 5, status.Failures)
	require.ErrorIs(t, status.Err, errDown)
	require.Equal(t, []health.State{unhealthy, healthy}, observe(&next, "aa"))

	m = probe.NewMachine(policy(), true, unknown, 0)
	observe(&m, "w")
	next = m.Under(other, true, 0)
	require.InDelta(t, 0.5, next.Score(), 0)
	require.Equal(t, []health.State{degraded, healthy}, observe(&next, "aa"))

	m = probe.NewMachine(policy(), true, unknown, 0)
	next = m.Under(other, true, 0)
	require.Equal(t, health.Status{Probed: true}, next.Status(), "nothing is known")
}

func TestMachine_UnderAnotherPolicyProvesItselfFromTheBeginning(t *testing.T) {
	t.Parallel()
	p := policy()
	p.Capabilities = map[string]health.Probe{"vision": nil}
	m := probe.NewMachine(p, true, unhealthy, 0)
	m.ObserveCapability(0, "vision", failure())
	m.ObserveCapability(0, "vision", answer())
	observe(&m, "a")
	next := m.Under(p, true, 0)
	require.Equal(t, []health.State{unhealthy, degraded}, observe(&next, "aa"))
	next.ObserveCapability(0, "vision", answer())
	require.NotNil(t, next.Outage([]string{"vision"}))
	next.ObserveCapability(0, "vision", answer())
	require.Nil(t, next.Outage([]string{"vision"}))
}

func TestMachine_UnderAnotherPolicyForgetsWhatIsProbedNoMore(t *testing.T) {
	t.Parallel()
	p := policy()
	p.Capabilities = map[string]health.Probe{"vision": nil, "speech": nil}
	m := probe.NewMachine(p, true, healthy, 0)
	r := failure()
	r.Usage = map[string]float64{"cpu": 0.5}
	m.Observe(0, r)
	m.ObserveCapability(0, "speech", answer())
	m.ObserveCapability(0, "vision", failure())
	require.Len(t, m.Status().Out, 1)

	p.Capabilities = map[string]health.Probe{"speech": nil, "touch": nil}
	next := m.Under(p, false, 0)
	require.Nil(t, next.Outage([]string{"vision"}))
	require.Empty(t, next.Status().Out)
	require.Empty(t, next.Status().Usage)
	require.Zero(t, next.Status().Failures)
	require.True(t, next.Answering("speech"), "that stays")
	require.False(t, next.Answering("touch"), "that is new")
}

func TestMachine_UnderAnotherPolicyIsWellAgainWhereThatProbedWhatIsOut(t *testing.T) {
	t.Parallel()
	p := policy()
	p.Capabilities = map[string]health.Probe{"vision": nil, "speech": nil}
	other := policy()
	other.Capabilities = map[string]health.Probe{"speech": nil}
	for own, first := range map[bool]health.State{true: degraded, false: healthy} {
		m := probe.NewMachine(p, own, healthy, 0)
		m.ObserveCapability(0, "speech", answer())
		m.ObserveCapability(0, "vision", failure())
		require.Equal(t, degraded, m.Status().State)
		next := m.Under(other, own, 0)
		require.Equal(t, first, next.Status().State, "own probe %t: its next good results bring it back, else nothing would", own)
		next.ObserveCapability(0, "speech", answer())
		observe(&next, "aa"[:map[bool]int{true: 2}[own]])
		require.Equal(t, health.Status{State: healthy, Score: 1, Probed: true, Took: next.Status().Took}, next.Status())
	}
	m := probe.NewMachine(p, true, healthy, 0)
	m.ObserveCapability(0, "vision", failure())
	next := m.Under(p, false, 0)
	state, reason, _ := next.State()
	require.Equal(t, degraded, state, "it is out still")
	require.Equal(t, `capability "vision" is out`, reason)
	observe(&m, "fff")
	next = m.Under(p, false, 0)
	state, reason, _ = next.State()
	require.Equal(t, degraded, state, "the failures end with their probe")
	require.Equal(t, `capability "vision" is out`, reason)
}

func TestMachine_WithoutAProbeOfTheProviderIsHealthy(t *testing.T) {
	t.Parallel()
	vision := policy()
	vision.Capabilities = map[string]health.Probe{"vision": nil}
	m := probe.NewMachine(vision, false, unknown, 0)
	require.Equal(t, health.Status{State: healthy, Score: 1, Probed: true}, m.Status())

	m = probe.NewMachine(policy(), true, unknown, 0)
	observe(&m, "fff")
	next := m.Under(vision, false, 0)
	status := next.Status()
	require.Equal(t, healthy, status.State, "nothing says otherwise any more")
	require.Empty(t, status.Reason)
	require.InDelta(t, 1, status.Score, 0)
	next.ObserveCapability(0, "vision", failure())
	next.ObserveCapability(0, "vision", answer())
	next.ObserveCapability(0, "vision", answer())
	require.InDelta(t, 1, next.Score(), 0, "failures of the probe that was removed do not count")

	off := vision
	off.Off = true
	m = probe.NewMachine(off, false, unknown, 0)
	require.False(t, m.Status().Probed)
}

func TestMachine_CapabilityFollowsTheTable(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		script string
		out    []bool
		kinds  []event.Kind
	}{
		{"a", []bool{false}, nil},
		{"f", []bool{true}, []event.Kind{event.CapabilityOut}},
		{"s", []bool{false}, nil},
		{"afff", []bool{false, false, false, true}, []event.Kind{event.CapabilityOut}},
		{"afsff", []bool{false, false, false, false, true}, []event.Kind{event.CapabilityOut}},
		{"affaff", []bool{false, false, false, false, false, false}, nil},
		{"faa", []bool{true, true, false}, []event.Kind{event.CapabilityOut, event.CapabilityBack}},
		{"fafa", []bool{true, true, true, true}, []event.Kind{event.CapabilityOut}},
		{"fww", []bool{true, true, false}, []event.Kind{event.CapabilityOut, event.CapabilityBack}},
	} {
		p := policy()
		p.Capabilities = map[string]health.Probe{"vision": nil, "audio": nil}
		m := probe.NewMachine(p, true, unknown, 0)
		var kinds []event.Kind
		var out []bool
		for _, r := range resultsOf(row.script) {
			if change := m.ObserveCapability(0, "vision", r); change != nil {
				kinds = append(kinds, change.Kind)
			}
			out = append(out, m.Outage([]string{"audio", "vision"}) != nil)
			require.Nil(t, m.Outage([]string{"audio"}))
		}
		require.Equal(t, row.out, out, row.script)
		require.Equal(t, row.kinds, kinds, row.script)
		state, _, _ := m.State()
		require.Equal(t, unknown, state, "a capability says nothing of the provider")
	}
}

func TestMachine_CapabilityThatIsOutDegrades(t *testing.T) {
	t.Parallel()
	p := policy()
	p.Capabilities = map[string]health.Probe{"vision": nil}
	for own, want := range map[bool]health.State{true: degraded, false: healthy} {
		m := probe.NewMachine(p, own, healthy, 0)
		change := m.ObserveCapability(0, "vision", failure())
		require.Equal(t, &event.Event{Kind: event.CapabilityOut, Reason: "vision: down", Err: errDown}, change)
		state, reason, _ := m.State()
		require.Equal(t, degraded, state)
		require.Equal(t, `capability "vision" is out`, reason)
		require.Equal(t, map[string]string{"vision": "down"}, m.Status().Out)
		require.Equal(t, &probe.Outage{Capability: "vision", Reason: "down", Err: errDown}, m.Outage([]string{"vision"}))
		next := m.Under(p, own, 0)
		require.NotNil(t, next.Outage([]string{"vision"}), "another policy does not change that")
		m.ObserveCapability(0, "vision", answer())
		require.Equal(t, &event.Event{Kind: event.CapabilityBack, Reason: "vision"}, m.ObserveCapability(0, "vision", answer()))
		state, _, _ = m.State()
		require.Equal(t, want, state, "own probe %t: its next good results bring it back, else nothing would", own)
	}
	m := probe.NewMachine(p, true, unhealthy, 0)
	m.ObserveCapability(0, "vision", failure())
	state, _, _ := m.State()
	require.Equal(t, unhealthy, state)
	require.Nil(t, m.ObserveCapability(0, "unknown", failure()))
}

func TestMachine_SaysWhichCapabilitiesAreOut(t *testing.T) {
	t.Parallel()
	p := policy()
	long := strings.Repeat("x", 100)
	p.Capabilities = map[string]health.Probe{"touch": nil, "vision": nil, long: nil}
	m := probe.NewMachine(p, true, healthy, 0)
	m.ObserveCapability(0, "touch", answer())
	m.ObserveCapability(0, "vision", failure())
	m.ObserveCapability(0, long, failure())
	_, reason, _ := m.State()
	require.Equal(t, `capability "vision" is out, capability "`+long[:64]+`…" is out`, reason)
	require.Equal(t, map[string]string{"vision": "down", long: "down"}, m.Status().Out)
	m.ObserveCapability(0, "vision", answer())
	require.Equal(t, "down", m.Outage([]string{"vision"}).Reason, "the failure is the reason until it is back")

	m = probe.NewMachine(p, true, unknown, 0)
	m.ObserveCapability(0, "vision", failure())
	require.Zero(t, m.Score(), "of the provider nothing is known")
}

func TestMachine_Interval(t *testing.T) {
	t.Parallel()
	p := policy()
	p.IdleInterval = time.Minute
	p.Capabilities = map[string]health.Probe{"vision": nil}
	fast, usual, slow := p.FastInterval, p.Interval, p.IdleInterval
	for _, row := range []struct {
		from   health.State
		script string
		busy   time.Duration
		idle   time.Duration
	}{
		{unknown, "", fast, fast},
		{starting, "", fast, fast},
		{unhealthy, "", fast, fast},
		{healthy, "", usual, slow},
		{degraded, "", usual, usual},
		{healthy, "f", fast, fast},
		{healthy, "w", usual, usual},
	} {
		m := probe.NewMachine(p, true, row.from, 0)
		observe(&m, row.script)
		require.Equal(t, row.busy, m.Interval("", false), "%v %s", row.from, row.script)
		require.Equal(t, row.idle, m.Interval("", true), "%v %s", row.from, row.script)
	}
	m := probe.NewMachine(p, true, healthy, 0)
	m.ObserveCapability(0, "vision", failure())
	require.Equal(t, fast, m.Interval("vision", false), "it is out")
	require.Equal(t, usual, m.Interval("", false))
}

func TestMachine_Answering(t *testing.T) {
	t.Parallel()
	p := policy()
	p.TrustCalls = true
	p.Capabilities = map[string]health.Probe{"vision": nil}
	for state, want := range map[health.State]bool{unknown: false, starting: false, healthy: true, degraded: true, unhealthy: false} {
		m := probe.NewMachine(p, true, state, 0)
		require.Equal(t, want, m.Answering(""), state)
		require.Equal(t, state == healthy, m.TrustsCalls(), state)
	}
	m := probe.NewMachine(p, true, healthy, 0)
	require.False(t, m.Answering("vision"), "there is no answer yet")
	m.ObserveCapability(0, "vision", answer())
	require.True(t, m.Answering("vision"))
}

func TestMachine_TrendFollowsFailuresAndSlowness(t *testing.T) {
	t.Parallel()
	m := probe.NewMachine(policy(), true, healthy, 0)
	var trends []string
	run := func(n int, result func(i int) probe.Result) {
		for i := range n {
			if change := m.Observe(0, result(i)); change != nil {
				require.Equal(t, event.Trend, change.Kind)
				trends = append(trends, change.From+" > "+change.To)
			}
		}
	}
	run(3, func(int) probe.Result { return failure() })
	require.Equal(t, health.AtRisk, m.Trend())
	require.Equal(t, 5*time.Second, m.Interval("", false))
	noise := func(scale time.Duration) func(int) probe.Result {
		return func(i int) probe.Result {
			return probe.Result{Took: scale + scale/10*time.Duration(i%3)}
		}
	}
	run(200, noise(time.Millisecond))
	require.Equal(t, health.Steady, m.Trend())
	run(100, noise(3*time.Millisecond))
	require.Equal(t, health.Degrading, m.Trend())
	run(100, noise(time.Second))
	require.Equal(t, health.AtRisk, m.Trend())
	require.Equal(t, []string{"steady > at risk", "at risk > steady", "steady > degrading", "degrading > at risk"}, trends)
}

func TestMachine_StatusSharesNothing(t *testing.T) {
	t.Parallel()
	m := probe.NewMachine(policy(), true, healthy, 0)
	r := suspected()
	r.At, r.Took, r.Usage = time.Unix(1, 0), time.Second, map[string]float64{"cpu": 0.5}
	m.Observe(0, r)
	status := m.Status()
	require.True(t, status.Suspected)
	require.Equal(t, time.Unix(1, 0), status.CheckedAt)
	require.Equal(t, time.Second, status.Took)
	status.Usage["cpu"] = 1
	require.InDelta(t, 0.5, m.Status().Usage["cpu"], 0)
}

// badError is an error whose methods fail.
type badError struct{ fail func() }

func (e badError) Error() string { e.fail(); return "" }

func (e badError) Is(error) bool { e.fail(); return false }

func (e badError) As(any) bool { e.fail(); return false }

var errPlain = fmt.Errorf("line one\nline two: %w", errors.New("x"))
